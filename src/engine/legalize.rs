//! Respells a graph so that tract computes it, and computes it in fp32.
//!
//! Two spellings are changed, both on the protobuf, before tract sees it:
//!
//! - fp16 becomes fp32: constants are widened once at load, casts to fp16 become casts to fp32.
//!   tract would emulate fp16 arithmetic on a core without FEAT_FP16, a thousand times slower,
//!   and would convert large layers again on every step.
//! - Quantized operators, the standard's (`QLinearConv`, `QLinearMatMul`) and ONNX Runtime's own
//!   (`com.microsoft::QGemm`, `QLinearAdd`, ...), become DequantizeLinear → the float operator →
//!   QuantizeLinear, which is their definition and the one spelling that `plan` reads.

use half::f16;
use tract_onnx::onnx;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use crate::error::{Error, Result};

/// Respells `proto` in place; `place` is the file's name for the errors.
///
/// # Errors
///
/// When an operator is left that the engine does not know.
pub(super) fn legalize(proto: &mut ModelProto, place: &str) -> Result<()> {
    let graph = proto
        .graph
        .as_mut()
        .expect("decode refuses a model without a graph");
    widen_graph(graph);
    expand_quantized(graph, place)?;
    check_operators(graph, place)
}

fn widen_graph(graph: &mut GraphProto) {
    graph.initializer.iter_mut().for_each(widen_tensor);
    let ports = graph
        .input
        .iter_mut()
        .chain(&mut graph.output)
        .chain(&mut graph.value_info);
    for port in ports {
        if let Some(Value::TensorType(tensor)) = port.r#type.as_mut().and_then(|t| t.value.as_mut())
        {
            widen_type(&mut tensor.elem_type);
        }
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute
            .t
            .iter_mut()
            .chain(&mut attribute.tensors)
            .for_each(widen_tensor);
        attribute
            .g
            .iter_mut()
            .chain(&mut attribute.graphs)
            .for_each(widen_graph);
        // `to` of Cast, `dtype` of the generators, `output_dtype` of QuantizeLinear.
        if ["to", "dtype", "output_dtype"].contains(&attribute.name.as_str())
            && attribute.i == DataType::Float16 as i64
        {
            attribute.i = DataType::Float as i64;
        }
    }
}

fn widen_type(elem_type: &mut i32) {
    if *elem_type == DataType::Float16 as i32 {
        *elem_type = DataType::Float as i32;
    }
}

fn widen_tensor(tensor: &mut TensorProto) {
    if tensor.data_type != DataType::Float16 as i32 {
        return;
    }
    let raw = tensor
        .raw_data
        .chunks_exact(2)
        .map(|b| f16::from_le_bytes([b[0], b[1]]));
    // Outside raw_data, ONNX keeps the sixteen bits of an fp16 in an int32.
    let typed = tensor
        .int32_data
        .iter()
        .map(|&bits| f16::from_bits(bits as u16));
    let wide: Vec<u8> = raw
        .chain(typed)
        .flat_map(|value| value.to_f32().to_le_bytes())
        .collect();
    tensor.raw_data = wide;
    tensor.int32_data.clear();
    tensor.data_type = DataType::Float as i32;
}

fn expand_quantized(graph: &mut GraphProto, place: &str) -> Result<()> {
    let mut expansion = Expansion {
        nodes: Vec::with_capacity(graph.node.len()),
        place,
    };
    for node in std::mem::take(&mut graph.node) {
        expansion.expand(node)?;
    }
    graph.node = expansion.nodes;
    Ok(())
}

/// The nodes written so far.
struct Expansion<'a> {
    nodes: Vec<NodeProto>,
    place: &'a str,
}

impl Expansion<'_> {
    /// Writes the standard spelling of `node`, or `node` itself where it has no other.
    fn expand(&mut self, node: NodeProto) -> Result<()> {
        match node.op_type.as_str() {
            "QLinearConv" => self.convolution(&node),
            "QLinearMatMul" => self.binary(&node, "MatMul"),
            "QGemm" => self.gemm(&node),
            "QLinearAdd" => self.binary(&node, "Add"),
            "QLinearMul" => self.binary(&node, "Mul"),
            "QLinearSigmoid" => self.unary(&node, "Sigmoid"),
            "QLinearLeakyRelu" => self.unary(&node, "LeakyRelu"),
            "QLinearSoftmax" => self.unary(&node, "Softmax"),
            "QLinearConcat" => self.concat(&node),
            _ => {
                self.nodes.push(node);
                Ok(())
            }
        }
    }

    /// `X, X_scale, X_zero, W, W_scale, W_zero, Y_scale, Y_zero, B (int32)`.
    fn convolution(&mut self, node: &NodeProto) -> Result<()> {
        self.require(node, 8)?;
        let input = &node.input;
        let x = self.dequantize(node, "x", [&input[0], &input[1], &input[2]], 1);
        let w = self.dequantize(node, "w", [&input[3], &input[4], &input[5]], 0);
        let mut operands = vec![x, w];
        if let Some(b) = input.get(8).filter(|b| !b.is_empty()) {
            operands.push(self.bias(node, b, [&input[1], &input[4]]));
        }
        let y = self.push(node, "y", "Conv", operands, node.attribute.clone());
        self.quantize(node, y, &input[6], &input[7]);
        Ok(())
    }

    /// A bias of int32, in units of the product of both scales, as a float.
    fn bias(&mut self, node: &NodeProto, bias: &str, scales: [&String; 2]) -> String {
        let cast = vec![int_attribute("to", DataType::Float as i64)];
        let float = self.push(node, "bias_float", "Cast", vec![bias.to_owned()], cast);
        let scale = self.push(
            node,
            "bias_scale",
            "Mul",
            scales.map(String::clone).to_vec(),
            vec![],
        );
        self.push(node, "bias", "Mul", vec![float, scale], vec![])
    }

    /// `A, A_scale, A_zero, B, B_scale, B_zero, C (int32), Y_scale, Y_zero`; without the last two
    /// the answer stays in float.
    fn gemm(&mut self, node: &NodeProto) -> Result<()> {
        self.require(node, 6)?;
        let scaled = node
            .attribute
            .iter()
            .find(|a| a.name == "alpha" && a.f != 1.0);
        if let Some(alpha) = scaled {
            let place = format!("{}: node `{}`", self.place, node.name);
            return Err(Error::unexpected(place, "QGemm with alpha 1", alpha.f));
        }
        let input = &node.input;
        let transposed = node
            .attribute
            .iter()
            .any(|a| a.name == "transB" && a.i != 0);
        let a = self.dequantize(node, "a", [&input[0], &input[1], &input[2]], 1);
        let b_axis = if transposed { 0 } else { 1 };
        let b = self.dequantize(node, "b", [&input[3], &input[4], &input[5]], b_axis);
        let mut operands = vec![a, b];
        if let Some(c) = input.get(6).filter(|c| !c.is_empty()) {
            operands.push(self.bias(node, c, [&input[1], &input[4]]));
        }
        let kept = ["transA", "transB"];
        let attributes = node
            .attribute
            .iter()
            .filter(|a| kept.contains(&a.name.as_str()))
            .cloned()
            .collect();
        match (input.get(7), input.get(8)) {
            (Some(scale), Some(zero)) if !scale.is_empty() => {
                let y = self.push(node, "y", "Gemm", operands, attributes);
                self.quantize(node, y, scale, zero);
            }
            _ => {
                self.push(node, "y", "Gemm", operands, attributes);
                self.name_last_output(node);
            }
        }
        Ok(())
    }

    /// `A, A_scale, A_zero, B, B_scale, B_zero, Y_scale, Y_zero`.
    fn binary(&mut self, node: &NodeProto, op: &str) -> Result<()> {
        self.require(node, 8)?;
        let input = &node.input;
        let a = self.dequantize(node, "a", [&input[0], &input[1], &input[2]], 1);
        let b = self.dequantize(node, "b", [&input[3], &input[4], &input[5]], 1);
        let y = self.push(node, "y", op, vec![a, b], vec![]);
        self.quantize(node, y, &input[6], &input[7]);
        Ok(())
    }

    /// `X, X_scale, X_zero, Y_scale, Y_zero`.
    fn unary(&mut self, node: &NodeProto, op: &str) -> Result<()> {
        self.require(node, 5)?;
        let input = &node.input;
        let x = self.dequantize(node, "x", [&input[0], &input[1], &input[2]], 1);
        let attributes = node
            .attribute
            .iter()
            .filter(|a| a.name != "opset")
            .cloned()
            .collect();
        let y = self.push(node, "y", op, vec![x], attributes);
        self.quantize(node, y, &input[3], &input[4]);
        Ok(())
    }

    /// `Y_scale, Y_zero`, then `X, X_scale, X_zero` for every part.
    fn concat(&mut self, node: &NodeProto) -> Result<()> {
        self.require(node, 5)?;
        let parts = node.input[2..]
            .chunks_exact(3)
            .enumerate()
            .map(|(i, part)| {
                self.dequantize(node, &format!("x{i}"), [&part[0], &part[1], &part[2]], 1)
            });
        let parts = parts.collect();
        let y = self.push(node, "y", "Concat", parts, node.attribute.clone());
        self.quantize(node, y, &node.input[0], &node.input[1]);
        Ok(())
    }

    fn require(&self, node: &NodeProto, inputs: usize) -> Result<()> {
        if node.input.len() >= inputs && node.output.len() == 1 {
            return Ok(());
        }
        Err(Error::unexpected(
            format!("{}: node `{}`", self.place, node.name),
            format!("{} with {inputs} inputs and one output", node.op_type),
            format!(
                "{} inputs and {} outputs",
                node.input.len(),
                node.output.len()
            ),
        ))
    }

    fn dequantize(
        &mut self,
        node: &NodeProto,
        part: &str,
        [value, scale, zero]: [&String; 3],
        axis: i64,
    ) -> String {
        let inputs = [value, scale, zero]
            .into_iter()
            .filter(|name| !name.is_empty());
        let inputs = inputs.cloned().collect();
        self.push(
            node,
            part,
            "DequantizeLinear",
            inputs,
            vec![int_attribute("axis", axis)],
        )
    }

    fn quantize(&mut self, node: &NodeProto, y: String, scale: &str, zero: &str) {
        let inputs = [&y, scale, zero]
            .into_iter()
            .filter(|name| !name.is_empty());
        let inputs = inputs.map(str::to_owned).collect();
        self.push(node, "quantized", "QuantizeLinear", inputs, vec![]);
        self.name_last_output(node);
    }

    /// Writes a node of its own name and returns the name of its output.
    fn push(
        &mut self,
        node: &NodeProto,
        part: &str,
        op: &str,
        input: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) -> String {
        let name = format!("{}.{part}", node.output[0]);
        self.nodes.push(NodeProto {
            name: name.clone(),
            op_type: op.into(),
            input,
            output: vec![name.clone()],
            attribute,
            ..NodeProto::default()
        });
        name
    }

    /// The last node written computes what `node` computed.
    fn name_last_output(&mut self, node: &NodeProto) {
        let last = self
            .nodes
            .last_mut()
            .expect("an expansion writes at least one node");
        last.output.clone_from(&node.output);
    }
}

fn int_attribute(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

/// tract would only say "Unimplemented" when the network runs, and takes an operator of any domain
/// for the standard one of its name.
fn check_operators(graph: &GraphProto, place: &str) -> Result<()> {
    let known = onnx().op_register.0;
    for node in &graph.node {
        let domain = if node.domain.is_empty() {
            "ai.onnx"
        } else {
            &node.domain
        };
        let is_ours = ["ai.onnx", "com.microsoft"].contains(&domain);
        if !(is_ours && known.contains_key(&node.op_type)) {
            return Err(Error::unexpected(
                format!("{place}: node `{}`", node.name),
                "an operator that this engine knows",
                format!("{domain}::{}", node.op_type),
            ));
        }
        for body in node
            .attribute
            .iter()
            .flat_map(|a| a.g.iter().chain(&a.graphs))
        {
            check_operators(body, place)?;
        }
    }
    Ok(())
}
