//! DequantizeLinear without the shortcut that tract takes around it.
//!
//! tract 0.23.9 replaces everything between a DequantizeLinear and the next QuantizeLinear by a
//! table of 256 entries when each operator between keeps the axes in place. That is right for a
//! sigmoid and wrong for a softmax, which keeps the axes and still mixes the elements; it is
//! wrong, too, where the two ends are of different 8-bit types.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::quant::DequantizeLinearF32;

/// `(x - zero_point) * scale` in f32, and nothing that tract would look through.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dequantize(DequantizeLinearF32);

/// Puts [`Dequantize`] in the place of every DequantizeLinear; before the model is decluttered.
pub(super) fn keep_dequantize(model: &mut TypedModel) -> TractResult<()> {
    Rewriter::<()>::default()
        .with_rule_for::<DequantizeLinearF32>("keep-dequantize", |(), model, node, _, op| {
            let op = Dequantize(op.clone());
            TypedModelPatch::replace_single_op(model, node, &node.inputs, op).map(Some)
        })
        .rewrite(&(), model)
}

impl Op for Dequantize {
    fn name(&self) -> StaticName {
        "Dequantize".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Dequantize {
    op_out_of_plan!();

    fn eval(&self, ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.0.eval(ctx, inputs)
    }
}

impl TypedOp for Dequantize {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.0.output_facts(inputs)
    }

    fn axes_mapping(
        &self,
        inputs: &[&TypedFact],
        outputs: &[&TypedFact],
    ) -> TractResult<AxesMapping> {
        self.0.axes_mapping(inputs, outputs)
    }

    fn change_axes(
        &self,
        model: &TypedModel,
        node: &TypedNode,
        io: InOut,
        change: &AxisOp,
    ) -> TractResult<Option<AxisChangeConsequence>> {
        self.0.change_axes(model, node, io, change)
    }

    as_op!();
}
