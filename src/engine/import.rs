//! A decoded ONNX graph → our own, with tract as the analyser.
//!
//! Weights never reach tract: in the copy of the graph that it analyses they are inputs, so that
//! it neither copies nor folds them. What is not recognised here becomes [`Op::Tract`].

use std::collections::{HashMap, HashSet};

use tract_onnx::model::ParseResult;
use tract_onnx::onnx;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::bail;
use tract_onnx::tract_hir::infer::InferenceFact;

use super::graph::{self, dtype_of, typed_port};
use super::ir::{
    Binary, Constant, Convolution, Graph, Node, Normalization, Op, Unary, Value, ValueId,
};
use super::operators::{Activation, Quantization};
use super::tract::{guarded, npz_type};
use crate::error::{Error, Result};
use crate::npz::Dtype;

/// Initializers of more elements than this are weights, which tract does not see.
const SMALL: usize = 4096;

/// Imports the graph of `proto`, whose free inputs all have fixed shapes. Takes the weights out of
/// it, so that they exist once.
///
/// # Errors
///
/// When tract cannot tell the shape of a value, or one is larger than 1 GiB.
pub(super) fn import(mut proto: ModelProto, place: &str) -> Result<Graph> {
    let opset = graph::opset(&proto).unwrap_or_default();
    let weights = take_weights(
        proto
            .graph
            .as_mut()
            .expect("decode refuses a model without"),
    );
    let facts = analyse(&proto, place)?;
    let graph = proto
        .graph
        .take()
        .expect("decode refuses a model without a graph");
    let mut import = Import {
        graph: Graph {
            opset,
            ..Graph::default()
        },
        names: HashMap::new(),
        facts,
        readable: HashSet::new(),
        levels: HashSet::new(),
        place,
        opset,
    };
    let weights: HashMap<String, TensorProto> = weights
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    import.readable = readable_levels(&graph);
    import.inputs(&graph, &weights)?;
    for tensor in weights.into_values().chain(graph.initializer) {
        import.initializer(tensor)?;
    }
    for node in graph.node {
        import.node(node)?;
    }
    for output in &graph.output {
        let id = import.named(&output.name)?;
        import.graph.outputs.push(id);
    }
    Ok(import.graph)
}

/// Takes the large initializers, and all matrices that are dequantized, out of `graph`; inputs of the same
/// name, type and shape stand in for them.
fn take_weights(graph: &mut GraphProto) -> Vec<TensorProto> {
    let is_int8 = |tensor: &TensorProto| {
        [DataType::Int8 as i32, DataType::Uint8 as i32].contains(&tensor.data_type)
    };
    let dequantized: Vec<String> = (graph.node.iter())
        .filter(|node| node.op_type == "DequantizeLinear")
        .filter_map(|node| node.input.first().cloned())
        .collect();
    let initializers = std::mem::take(&mut graph.initializer);
    let (weights, small): (Vec<_>, Vec<_>) = initializers.into_iter().partition(|tensor| {
        let len: i64 = tensor.dims.iter().product();
        let floats = tensor.data_type == DataType::Float as i32;
        (len > SMALL as i64 && (floats || is_int8(tensor)))
            || (is_int8(tensor) && tensor.dims.len() > 1 && dequantized.contains(&tensor.name))
    });
    graph.initializer = small;
    graph
        .input
        .retain(|input| weights.iter().all(|tensor| tensor.name != input.name));
    graph.input.extend(weights.iter().map(|tensor| {
        let shape: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
        typed_port(&tensor.name, tensor.data_type, &shape)
    }));
    weights
}

/// What tract finds out about every value, by name.
fn analyse(proto: &ModelProto, place: &str) -> Result<HashMap<String, InferenceFact>> {
    guarded(place, "loaded", || {
        let framework = onnx().with_ignore_value_info(true);
        let ParseResult {
            mut model,
            unresolved_inputs,
            outlets_by_name,
        } = framework.parse(proto, None)?;
        if let Some(name) = unresolved_inputs.first() {
            bail!("nothing computes `{name}`");
        }
        model.analyse(false)?;
        let facts = outlets_by_name.into_iter().map(|(name, outlet)| {
            let fact = model.outlet_fact(outlet)?.clone();
            Ok((name, fact))
        });
        facts.collect()
    })
}

struct Import<'a> {
    graph: Graph,
    names: HashMap<String, ValueId>,
    facts: HashMap<String, InferenceFact>,
    /// Names of quantized tensors that nobody reads but to look at them otherwise or as numbers.
    readable: HashSet<String>,
    /// Values that are levels.
    levels: HashSet<ValueId>,
    place: &'a str,
    opset: i64,
}

/// Operators that only move elements, in every type.
const VIEWS: [&str; 9] = [
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Transpose",
    "Slice",
    "Split",
    "Resize",
];

/// The names of tensors that only dequantizations read, directly or through views.
fn readable_levels(graph: &GraphProto) -> HashSet<String> {
    let mut other: HashSet<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    for node in graph.node.iter().rev() {
        let view = VIEWS.contains(&node.op_type.as_str())
            && node
                .output
                .iter()
                .all(|output| !other.contains(output.as_str()));
        let reads_levels = usize::from(view || node.op_type == "DequantizeLinear");
        other.extend(node.input.iter().skip(reads_levels).map(String::as_str));
    }
    let names = graph.node.iter().flat_map(|node| &node.output);
    names
        .filter(|name| !other.contains(name.as_str()))
        .cloned()
        .collect()
}

impl Import<'_> {
    fn inputs(&mut self, graph: &GraphProto, weights: &HashMap<String, TensorProto>) -> Result<()> {
        let is_free = |input: &&ValueInfoProto| !weights.contains_key(&input.name);
        for input in graph::free_inputs(graph).filter(is_free) {
            let (dtype, shape) = graph::port_type(input, self.place)?;
            let shape = shape.into_iter().map(|dim| dim.unwrap_or(1)).collect();
            let id = self.add(&input.name, shape, dtype, None);
            self.graph.inputs.push(id);
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: &str,
        shape: Vec<usize>,
        dtype: Dtype,
        constant: Option<Constant>,
    ) -> ValueId {
        let id = self.graph.add_value(Value {
            name: name.to_owned(),
            shape,
            dtype,
            constant,
        });
        self.names.insert(name.to_owned(), id);
        id
    }

    fn initializer(&mut self, tensor: TensorProto) -> Result<()> {
        let data_type = DataType::try_from(tensor.data_type).ok();
        let dtype = data_type
            .and_then(dtype_of)
            .expect("decode checks every tensor's type");
        let shape = tensor.dims.iter().map(|&dim| dim as usize).collect();
        let name = tensor.name.clone();
        let constant = Some(Constant {
            bytes: graph::tensor_bytes(tensor),
        });
        self.add(&name, shape, dtype, constant);
        Ok(())
    }

    fn named(&self, name: &str) -> Result<ValueId> {
        self.names.get(name).copied().ok_or_else(|| {
            Error::unexpected(
                self.place,
                format!("something that computes `{name}`"),
                "nothing",
            )
        })
    }

    /// The value called `name` as tract knows it: shape, type, and the constant if it is one.
    fn output(&mut self, name: &str) -> Result<ValueId> {
        let place = format!("{}: `{name}`", self.place);
        let fact = self.facts.get(name);
        let typed = fact.and_then(|fact| TypedFact::try_from(fact).ok());
        let found = || format!("{:?}", self.facts.get(name));
        let typed = typed.ok_or_else(|| Error::unexpected(&place, "a fixed shape", found()))?;
        let concrete = typed.shape.as_concrete().map(<[usize]>::to_vec);
        let shape = concrete.ok_or_else(|| Error::unexpected(&place, "a fixed shape", found()))?;
        let dtype = npz_type(typed.datum_type).unwrap_or(Dtype::I64);
        if graph::bounded_bytes(shape.iter().copied(), dtype.bytes()).is_none() {
            let found = format!("shape {shape:?}");
            return Err(Error::unexpected(
                &place,
                "a tensor of at most 1 GiB",
                found,
            ));
        }
        let constant = match &typed.konst {
            Some(tensor) => Some(constant_of(tensor, self.place)?),
            None => None,
        };
        Ok(self.add(name, shape, dtype, constant))
    }

    fn node(&mut self, proto: NodeProto) -> Result<()> {
        let mut outputs = Vec::new();
        for name in proto.output.iter().filter(|name| !name.is_empty()) {
            outputs.push(self.output(name)?);
        }
        let is_known = |id: &ValueId| self.graph.constant(*id).is_some();
        if outputs.iter().all(is_known) {
            return Ok(());
        }
        if let Some(nodes) = self.recognise(&proto, &outputs) {
            // The same tensor under another name, as a cast from fp16 is once that is widened.
            if let [
                Node {
                    op: Op::Reshape,
                    inputs,
                    outputs,
                    name,
                },
            ] = nodes.as_slice()
                && self.graph.shape(inputs[0]) == self.graph.shape(outputs[0])
            {
                self.names.insert(name.clone(), inputs[0]);
                return Ok(());
            }
            for node in &nodes {
                let (input, output) = (node.inputs[0], node.outputs[0]);
                let quantized = matches!(node.op, Op::Quantize(_));
                if quantized
                    || (self.levels.contains(&input) && !matches!(node.op, Op::Dequantize(_)))
                {
                    self.levels.insert(output);
                }
            }
            self.graph.nodes.extend(nodes);
            return Ok(());
        }
        let names = proto.input.iter().filter(|name| !name.is_empty());
        let inputs = names.map(|name| self.named(name)).collect::<Result<_>>()?;
        let name = proto.output.first().cloned().unwrap_or_default();
        self.graph.nodes.push(Node {
            name,
            op: Op::Tract(Box::new(proto)),
            inputs,
            outputs,
        });
        Ok(())
    }

    /// The nodes that compute what the node of the file computes, if they are known.
    fn recognise(&self, proto: &NodeProto, outputs: &[ValueId]) -> Option<Vec<Node>> {
        let recognition = Recognition {
            import: self,
            proto,
            outputs,
        };
        if proto.op_type == "Split" {
            return recognition.split();
        }
        let (op, inputs) = recognition.op()?;
        let &[output] = outputs else { return None };
        let name = self.graph.value(output).name.clone();
        Some(vec![Node {
            name,
            op,
            inputs,
            outputs: vec![output],
        }])
    }
}

/// One node of the file on its way to an [`Op`].
struct Recognition<'a, 'b> {
    import: &'a Import<'b>,
    proto: &'a NodeProto,
    outputs: &'a [ValueId],
}

impl Recognition<'_, '_> {
    fn op(&self) -> Option<(Op, Vec<ValueId>)> {
        let op_type = self.proto.op_type.as_str();
        match op_type {
            "Conv" => self.convolution(),
            "Gemm" => self.gemm(),
            "MatMul" => self.mat_mul(),
            "InstanceNormalization" | "GroupNormalization" => self.normalization(),
            "Softmax" => self.softmax(),
            "Sigmoid" => self.unary(Unary::Sigmoid),
            "Swish" if self.float("alpha", 1.0) == 1.0 => self.unary(Unary::Silu),
            "Exp" => self.unary(Unary::Exp),
            "Sqrt" => self.unary(Unary::Sqrt),
            "Tanh" => self.unary(Unary::Tanh),
            "Neg" => self.unary(Unary::Neg),
            "Reciprocal" => self.unary(Unary::Reciprocal),
            "Abs" => self.unary(Unary::Abs),
            "Relu" => self.unary(Unary::Relu),
            "LeakyRelu" => self.unary(Unary::LeakyRelu(self.float("alpha", 0.01))),
            "Gelu" => self.unary(match self.string("approximate").as_deref() {
                Some("tanh") => Unary::GeluTanh,
                _ => Unary::GeluErf,
            }),
            "Add" => self.binary(Binary::Add),
            "Sub" => self.binary(Binary::Sub),
            "Mul" => self.binary(Binary::Mul),
            "Div" => self.binary(Binary::Div),
            "Min" => self.binary(Binary::Min),
            "Max" => self.binary(Binary::Max),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" | "Dropout" => {
                self.reshape()
            }
            "Cast" => {
                let same = self.graph().value(self.input(0)?).dtype
                    == self.graph().value(self.outputs[0]).dtype;
                same.then(|| self.reshape()).flatten()
            }
            "Transpose" => self.transpose(),
            "Slice" => self.slice(),
            "Gather" => self.select(),
            "Concat" => self.concat(),
            "Resize" | "Upsample" => self.upsample(),
            "Pad" => self.pad(),
            "QuantizeLinear" => self.quantize(),
            "DequantizeLinear" => self.dequantize(),
            _ => None,
        }
    }

    fn graph(&self) -> &Graph {
        &self.import.graph
    }

    /// The value of the input, if it is given.
    fn input(&self, index: usize) -> Option<ValueId> {
        let name = self
            .proto
            .input
            .get(index)
            .filter(|name| !name.is_empty())?;
        self.import.names.get(name).copied()
    }

    fn float_input(&self, index: usize) -> Option<ValueId> {
        self.input(index)
            .filter(|id| self.graph().value(*id).dtype == Dtype::F32)
    }

    /// An input of f32 or of levels.
    fn view_input(&self, index: usize) -> Option<ValueId> {
        let levels = self
            .input(index)
            .filter(|id| self.import.levels.contains(id));
        levels.or_else(|| self.float_input(index))
    }

    fn shape(&self, index: usize) -> Option<&[usize]> {
        Some(self.graph().shape(self.input(index)?))
    }

    fn output_shape(&self) -> &[usize] {
        self.graph().shape(self.outputs[0])
    }

    fn constant(&self, index: usize) -> Option<&Constant> {
        self.graph().constant(self.input(index)?)
    }

    /// All inputs that are given, if they are of f32.
    fn float_inputs(&self) -> Option<Vec<ValueId>> {
        (0..self.proto.input.len())
            .map(|index| self.float_input(index))
            .collect()
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.proto
            .attribute
            .iter()
            .find(|a| a.name == name)
            .map_or(default, |a| a.i)
    }

    fn float(&self, name: &str, default: f32) -> f32 {
        self.proto
            .attribute
            .iter()
            .find(|a| a.name == name)
            .map_or(default, |a| a.f)
    }

    fn ints(&self, name: &str) -> Option<Vec<usize>> {
        let attribute = self.proto.attribute.iter().find(|a| a.name == name)?;
        attribute
            .ints
            .iter()
            .map(|&i| usize::try_from(i).ok())
            .collect()
    }

    fn string(&self, name: &str) -> Option<String> {
        let attribute = self.proto.attribute.iter().find(|a| a.name == name)?;
        String::from_utf8(attribute.s.clone()).ok()
    }

    /// An axis, counted from the end where it is negative.
    fn axis(&self, default: i64, rank: usize) -> Option<usize> {
        let axis = self.int("axis", default);
        let axis = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(axis).ok().filter(|axis| *axis < rank)
    }

    fn convolution(&self) -> Option<(Op, Vec<ValueId>)> {
        let inputs = self.float_inputs()?;
        let &[outputs, channels, kh, kw] = self.shape(1)? else {
            return None;
        };
        let (&[_, input_channels, height, width], &[_, _, out_height, out_width]) =
            (self.shape(0)?, self.output_shape())
        else {
            return None;
        };
        let ones = |name: &str| self.ints(name).is_none_or(|d| d.iter().all(|&d| d == 1));
        let groups = self.int("group", 1);
        let is_weight = self.is_weight(1, 0);
        if groups != 1 || !ones("dilations") || channels != input_channels || !is_weight {
            return None;
        }
        if inputs.len() == 3 && self.constant(2)?.f32s().len() != outputs {
            return None;
        }
        let stride = self.ints("strides").unwrap_or(vec![1, 1]);
        let &[down, right] = stride.as_slice() else {
            return None;
        };
        let padding = match self.string("auto_pad").as_deref() {
            None | Some("" | "NOTSET") => self.ints("pads").unwrap_or(vec![0; 4]),
            Some(auto) => {
                let total = |n: usize, out: usize, stride: usize, kernel: usize| {
                    ((out - 1) * stride + kernel).saturating_sub(n)
                };
                let vertical = total(height, out_height, down, kh);
                let horizontal = total(width, out_width, right, kw);
                match auto {
                    "VALID" => vec![0; 4],
                    "SAME_UPPER" => {
                        let (top, left) = (vertical / 2, horizontal / 2);
                        vec![top, left, vertical - top, horizontal - left]
                    }
                    _ => return None,
                }
            }
        };
        let convolution = Convolution {
            kernel: [kh, kw],
            stride: [down, right],
            padding: padding.try_into().ok()?,
            upsample: 1,
        };
        Some((Op::Conv(convolution), inputs))
    }

    /// Whether the input is a constant, or int8 weights with a scale for each index of `axis`.
    fn is_weight(&self, index: usize, axis: usize) -> bool {
        let Some(id) = self.input(index) else {
            return false;
        };
        let scaled_along = |op: &Op| match op {
            Op::DequantizeWeights { scale, axis, .. } => (scale.len() > 1).then_some(*axis),
            _ => Some(usize::MAX),
        };
        let nodes = &self.graph().nodes;
        let producer = nodes.iter().rev().find(|node| node.outputs == [id]);
        let quantized =
            producer.is_some_and(|node| scaled_along(&node.op).is_none_or(|a| a == axis));
        self.graph().constant(id).is_some() || quantized
    }

    /// `alpha` and `beta` of 1, `A` not transposed, `C` a constant vector.
    fn gemm(&self) -> Option<(Op, Vec<ValueId>)> {
        let inputs = self.float_inputs()?;
        let plain = self.float("alpha", 1.0) == 1.0
            && self.float("beta", 1.0) == 1.0
            && self.int("transA", 0) == 0;
        let transposed = self.int("transB", 0) == 0;
        let bias_fits = inputs.get(2).is_none_or(|&bias| {
            let is_vector = self.graph().value(bias).len() == self.output_shape()[1];
            is_vector && self.graph().constant(bias).is_some()
        });
        let known = plain && bias_fits && self.is_weight(1, usize::from(transposed));
        known.then_some((Op::Linear { transposed }, inputs))
    }

    fn mat_mul(&self) -> Option<(Op, Vec<ValueId>)> {
        let inputs = self.float_inputs()?;
        let (a, b) = (self.shape(0)?, self.shape(1)?);
        if b.len() == 2 && a.len() >= 2 && self.is_weight(1, 1) {
            return Some((Op::Linear { transposed: true }, inputs));
        }
        let batches = a.len() >= 2 && a.len() == b.len() && a[..a.len() - 2] == b[..b.len() - 2];
        batches.then_some((Op::MatMul, inputs))
    }

    /// An instance norm is a group norm of as many groups as channels; before operator set 21 a
    /// group norm's scale and shift are per group.
    fn normalization(&self) -> Option<(Op, Vec<ValueId>)> {
        let x = self.float_input(0)?;
        let channels = *self.shape(0)?.get(1)?;
        let (scale, shift) = (self.constant(1)?.f32s(), self.constant(2)?.f32s());
        let groups = match self.proto.op_type.as_str() {
            "InstanceNormalization" => channels,
            _ => usize::try_from(self.int("num_groups", 0)).ok()?,
        };
        if groups == 0 || channels % groups != 0 || scale.len() != shift.len() {
            return None;
        }
        let each = |values: Vec<f32>| -> Option<Vec<f32>> {
            let repeat = channels / values.len().max(1);
            let per_group = values.len() == groups && self.import.opset < 21;
            let fits = values.len() == channels || per_group;
            fits.then(|| (0..channels).map(|c| values[c / repeat]).collect())
        };
        let normalization = Normalization {
            groups,
            eps: self.float("epsilon", 1e-5),
            scale: each(scale)?,
            shift: each(shift)?,
            activation: Activation::None,
        };
        Some((Op::Normalize(normalization), vec![x]))
    }

    fn softmax(&self) -> Option<(Op, Vec<ValueId>)> {
        let x = self.float_input(0)?;
        let rank = self.shape(0)?.len();
        // Before operator set 13 all axes from `axis` on were one.
        let default = if self.import.opset < 13 { 1 } else { -1 };
        (self.axis(default, rank)? == rank - 1).then_some((Op::Softmax, vec![x]))
    }

    fn unary(&self, unary: Unary) -> Option<(Op, Vec<ValueId>)> {
        Some((Op::Unary(unary), vec![self.float_input(0)?]))
    }

    fn binary(&self, binary: Binary) -> Option<(Op, Vec<ValueId>)> {
        let inputs = self.float_inputs()?;
        (inputs.len() == 2).then_some((Op::Binary(binary), inputs))
    }

    fn reshape(&self) -> Option<(Op, Vec<ValueId>)> {
        Some((Op::Reshape, vec![self.view_input(0)?]))
    }

    fn transpose(&self) -> Option<(Op, Vec<ValueId>)> {
        let x = self.view_input(0)?;
        let reversed = || (0..self.graph().shape(x).len()).rev().collect();
        let perm = self.ints("perm").unwrap_or_else(reversed);
        Some((Op::Transpose { perm }, vec![x]))
    }

    /// Constant bounds, steps of 1.
    fn slice(&self) -> Option<(Op, Vec<ValueId>)> {
        let x = self.view_input(0)?;
        let shape = self.graph().shape(x);
        let mut starts = vec![0; shape.len()];
        let axes = match self.input(3) {
            Some(_) => self.constant(3)?.i64s(),
            None => (0..shape.len() as i64).collect(),
        };
        if self.input(4).is_some() && self.constant(4)?.i64s().iter().any(|&step| step != 1) {
            return None;
        }
        for (axis, start) in axes.into_iter().zip(self.constant(1)?.i64s()) {
            let rank = shape.len() as i64;
            let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
            let extent = *shape.get(axis)? as i64;
            let start = if start < 0 { start + extent } else { start };
            starts[axis] = start.clamp(0, extent) as usize;
        }
        Some((Op::Slice { starts }, vec![x]))
    }

    /// One constant index of an axis.
    fn select(&self) -> Option<(Op, Vec<ValueId>)> {
        let x = self.float_input(0)?;
        let shape = self.graph().shape(x);
        let axis = self.axis(0, shape.len())?;
        let (constant, value) = (self.constant(1)?, self.graph().value(self.input(1)?));
        if !value.shape.is_empty() || value.dtype != Dtype::I64 {
            return None;
        }
        let &[index] = constant.i64s().as_slice() else {
            return None;
        };
        let index = if index < 0 {
            index + shape[axis] as i64
        } else {
            index
        };
        let index = usize::try_from(index)
            .ok()
            .filter(|index| *index < shape[axis])?;
        Some((Op::Select { axis, index }, vec![x]))
    }

    /// Equal or listed parts along an axis: one slice each.
    fn split(&self) -> Option<Vec<Node>> {
        let x = self.view_input(0)?;
        let rank = self.graph().shape(x).len();
        let axis = self.axis(0, rank)?;
        let mut start = 0;
        let parts = self.outputs.iter().map(|&output| {
            let mut starts = vec![0; rank];
            starts[axis] = start;
            start += self.graph().shape(output)[axis];
            let name = self.graph().value(output).name.clone();
            Node {
                name,
                op: Op::Slice { starts },
                inputs: vec![x],
                outputs: vec![output],
            }
        });
        Some(parts.collect())
    }

    fn concat(&self) -> Option<(Op, Vec<ValueId>)> {
        let inputs = self.float_inputs()?;
        let axis = self.axis(0, self.output_shape().len())?;
        Some((Op::Concat { axis }, inputs))
    }

    /// Nearest, by a whole factor, every pixel repeated exactly.
    fn upsample(&self) -> Option<(Op, Vec<ValueId>)> {
        let x = self.view_input(0)?;
        let (&[n, c, h, w], &[out_n, out_c, out_h, out_w]) =
            (self.graph().shape(x), self.output_shape())
        else {
            return None;
        };
        let mode = self.string("mode").unwrap_or("nearest".into());
        let transform = self.string("coordinate_transformation_mode");
        let nearest = self
            .string("nearest_mode")
            .unwrap_or("round_prefer_floor".into());
        // Which source pixel is taken, for whole factors: asymmetric with floor, or half_pixel
        // with either rounding (no tie occurs where the factor is even, and floor is wrong).
        let exact = match transform.as_deref().unwrap_or("half_pixel") {
            "asymmetric" => nearest == "floor" || self.proto.op_type == "Upsample",
            "half_pixel" | "pytorch_half_pixel" => nearest.starts_with("round"),
            _ => self.proto.op_type == "Upsample",
        };
        let factor = out_h / h.max(1);
        let whole = (out_n, out_c, out_h, out_w) == (n, c, h * factor, w * factor);
        (mode == "nearest" && exact && whole && factor >= 1)
            .then_some((Op::Upsample { factor }, vec![x]))
    }

    /// Constant zeros around the last two of four axes.
    fn pad(&self) -> Option<(Op, Vec<ValueId>)> {
        let x = self.float_input(0)?;
        let pads = self.constant(1)?.i64s();
        let zero = match self.input(2) {
            Some(_) => self.constant(2)?.f32s() == [0.0],
            None => true,
        };
        let constant = self.string("mode").is_none_or(|mode| mode == "constant");
        let &[0, 0, top, left, 0, 0, bottom, right] = pads.as_slice() else {
            return None;
        };
        let padding = [top, left, bottom, right].map(usize::try_from);
        let [Ok(top), Ok(left), Ok(bottom), Ok(right)] = padding else {
            return None;
        };
        let plain = zero && constant && self.input(3).is_none();
        plain.then_some((
            Op::Pad {
                padding: [top, left, bottom, right],
            },
            vec![x],
        ))
    }

    fn quantize(&self) -> Option<(Op, Vec<ValueId>)> {
        let x = self.float_input(0)?;
        let output = self.graph().value(self.outputs[0]);
        let quantization = self.quantization(output.dtype)?;
        let readable = self.import.readable.contains(&output.name);
        readable.then(|| (Op::Quantize(quantization), vec![x]))
    }

    fn dequantize(&self) -> Option<(Op, Vec<ValueId>)> {
        let x = self.input(0)?;
        let value = self.graph().value(x);
        if value.constant.is_none() {
            let quantization = self.quantization(value.dtype)?;
            let levels = self.import.levels.contains(&x);
            return levels.then(|| (Op::Dequantize(quantization), vec![x]));
        }
        // u8 weights are stored as i8, 128 below.
        let below = match value.dtype {
            Dtype::I8 => 0,
            Dtype::U8 => 128,
            _ => return None,
        };
        let scale = self.constant(1)?.f32s();
        let zero = match (self.input(2), below) {
            (None, _) => vec![-below; scale.len()],
            (_, 0) => self.constant(2)?.i8s().into_iter().map(i32::from).collect(),
            _ => self
                .constant(2)?
                .bytes
                .iter()
                .map(|&zero| i32::from(zero) - below)
                .collect(),
        };
        let axis = if scale.len() > 1 {
            self.axis(1, value.shape.len())?
        } else {
            0
        };
        let zero = zero.iter().any(|&zero| zero != 0).then_some(zero);
        Some((Op::DequantizeWeights { scale, zero, axis }, vec![x]))
    }

    /// One scale and one zero point, constant, for levels of i8 or u8.
    fn quantization(&self, levels: Dtype) -> Option<Quantization> {
        let &[scale] = self.constant(1)?.f32s().as_slice() else {
            return None;
        };
        let zero = match self.input(2) {
            Some(_) => *self.constant(2)?.bytes.first()?,
            None => 0,
        };
        let zero = match levels {
            Dtype::I8 => i32::from(zero as i8) + 128,
            Dtype::U8 => i32::from(zero),
            _ => return None,
        };
        Some(Quantization { scale, zero })
    }
}

/// A tensor of tract's as the file would hold it.
fn constant_of(tensor: &Tensor, place: &str) -> Result<Constant> {
    guarded(place, "loaded", || {
        // tract computes shapes in dimensions of its own.
        let tensor = match tensor.datum_type() {
            DatumType::TDim => tensor.cast_to::<i64>()?,
            _ => std::borrow::Cow::Borrowed(tensor),
        };
        let bytes = tensor.try_as_plain_ram()?.as_bytes().to_vec();
        Ok(Constant { bytes })
    })
}
