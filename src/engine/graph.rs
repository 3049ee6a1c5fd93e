//! An ONNX file as it lies in its bytes, checked before anything is built from it.

use std::collections::{BTreeMap, HashSet};

use prost::Message;
use serde::Serialize;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::type_proto::{self, Value};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto,
};

use crate::error::{Error, Result};
use crate::npz::Dtype;

/// The oldest and the newest operator set that is accepted; 17, 18 and 21 are the tested ones.
const OPSETS: std::ops::RangeInclusive<i64> = 9..=24;

/// The longest name of an input or an output, in bytes.
const MAX_NAME_BYTES: usize = 1024;

/// No tensor may be larger than this, whether it lies in the file or is computed.
pub(super) const MAX_TENSOR_BYTES: usize = 1 << 30;

/// Operators whose output is as large as the *values* of an input say: a few bytes in the file
/// can ask for any amount of memory. The number is the index of that input.
const SHAPED_BY_VALUE: [(&str, usize); 3] = [("ConstantOfShape", 0), ("Expand", 1), ("Tile", 1)];

/// Decodes the protobuf in `bytes` and checks it; `place` is the file's name for the errors.
///
/// # Errors
///
/// When the bytes are no ONNX model, or the model is one that must not be built: an operator set
/// outside 9 to 24, tensor data outside the file, tensors whose size contradicts their shape or
/// exceeds 1 GiB, operators that are not known, outputs that nothing computes.
pub(super) fn decode(bytes: &[u8], place: &str) -> Result<ModelProto> {
    // Not through tract's own reader, which copies all bytes once more before it decodes them.
    let proto = ModelProto::decode(bytes).map_err(|_| {
        Error::unexpected(place, "an ONNX model", "bytes that do not decode as one")
    })?;
    let graph = proto
        .graph
        .as_ref()
        .ok_or_else(|| Error::unexpected(place, "an ONNX model with a graph", "no graph in it"))?;
    check_opset(&proto, place)?;
    check_graph(graph, place)?;
    Ok(proto)
}

/// What an ONNX file holds, without building it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The version of the standard operator set.
    pub opset: i64,
    /// The inputs that are not initializers.
    pub inputs: Vec<InspectedPort>,
    /// The outputs.
    pub outputs: Vec<InspectedPort>,
    /// How many nodes there are of each operator.
    pub operators: BTreeMap<String, usize>,
}

/// An input or an output as the file declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InspectedPort {
    /// The name in the graph.
    pub name: String,
    /// The element type.
    pub dtype: String,
    /// The dimensions; a free one is `?`.
    pub shape: Vec<String>,
}

/// Reads what the ONNX model in `bytes` holds; `place` is the file's name for the errors.
///
/// # Errors
///
/// When the bytes are no ONNX model, or one that must not be built.
pub fn inspect(bytes: &[u8], place: &str) -> Result<Inspection> {
    let proto = decode(bytes, place)?;
    let graph = graph(&proto);
    let port = |value: &ValueInfoProto| {
        let (dtype, shape) = port_type(value, place)?;
        let shape = shape
            .iter()
            .map(|dim| dim.map_or("?".into(), |dim| dim.to_string()));
        let name = value.name.clone();
        Ok(InspectedPort {
            name,
            dtype: dtype.to_string(),
            shape: shape.collect(),
        })
    };
    let mut operators = BTreeMap::new();
    for node in &graph.node {
        *operators.entry(node.op_type.clone()).or_default() += 1;
    }
    Ok(Inspection {
        opset: opset(&proto).unwrap_or_default(),
        inputs: free_inputs(graph).map(port).collect::<Result<_>>()?,
        outputs: graph.output.iter().map(port).collect::<Result<_>>()?,
        operators,
    })
}

/// The graph of a model that [`decode`] has accepted.
pub(super) fn graph(proto: &ModelProto) -> &GraphProto {
    proto
        .graph
        .as_ref()
        .expect("decode refuses a model without a graph")
}

/// The graph's inputs that are not initializers, in order.
pub(super) fn free_inputs(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    let initialized: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    graph
        .input
        .iter()
        .filter(move |input| !initialized.contains(input.name.as_str()))
}

/// Element type and shape of a graph input or output; a free dimension is `None`.
///
/// # Errors
///
/// When the value has no tensor type, or one that no array has.
pub(super) fn port_type(
    value: &ValueInfoProto,
    place: &str,
) -> Result<(Dtype, Vec<Option<usize>>)> {
    use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dim;
    if value.name.len() > MAX_NAME_BYTES {
        let found = format!("{} bytes", value.name.len());
        return Err(Error::unexpected(
            place,
            "a name of at most 1024 bytes",
            found,
        ));
    }
    let wrong = |found: String| {
        Error::unexpected(
            format!("{place}: `{}`", value.name),
            "a tensor of numbers",
            found,
        )
    };
    let Some(Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Err(wrong("a value without a tensor type".into()));
    };
    let dtype = DataType::try_from(tensor.elem_type)
        .ok()
        .and_then(dtype_of)
        .ok_or_else(|| wrong(format!("element type {}", tensor.elem_type)))?;
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
    let shape = dims.map(|dim| match dim.value {
        Some(Dim::DimValue(n)) if n >= 0 => Some(n as usize),
        _ => None,
    });
    Ok((dtype, shape.collect()))
}

/// The array element type of an ONNX element type, where there is one.
pub(super) fn dtype_of(data_type: DataType) -> Option<Dtype> {
    Some(match data_type {
        DataType::Float16 => Dtype::F16,
        DataType::Float => Dtype::F32,
        DataType::Double => Dtype::F64,
        DataType::Int8 => Dtype::I8,
        DataType::Uint8 => Dtype::U8,
        DataType::Int16 => Dtype::I16,
        DataType::Uint16 => Dtype::U16,
        DataType::Int32 => Dtype::I32,
        DataType::Int64 => Dtype::I64,
        DataType::Bool => Dtype::Bool,
        _ => return None,
    })
}

/// The ONNX element type of an array's.
pub(super) fn data_type_of(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::F16 => DataType::Float16,
        Dtype::F32 => DataType::Float,
        Dtype::F64 => DataType::Double,
        Dtype::I8 => DataType::Int8,
        Dtype::U8 => DataType::Uint8,
        Dtype::I16 => DataType::Int16,
        Dtype::U16 => DataType::Uint16,
        Dtype::I32 => DataType::Int32,
        Dtype::I64 => DataType::Int64,
        Dtype::Bool => DataType::Bool,
    }
}

/// An input or output of a fixed shape.
pub(super) fn typed_port(name: &str, elem_type: i32, shape: &[usize]) -> ValueInfoProto {
    let dim = |&dim: &usize| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(dim as i64)),
        ..Default::default()
    };
    let shape = TensorShapeProto {
        dim: shape.iter().map(dim).collect(),
    };
    let tensor = type_proto::Tensor {
        elem_type,
        shape: Some(shape),
    };
    let value = Some(Value::TensorType(tensor));
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The elements of a tensor that [`decode`] has accepted, little-endian, wherever in the message
/// they lie.
pub(super) fn tensor_bytes(tensor: TensorProto) -> Vec<u8> {
    if !tensor.raw_data.is_empty() {
        return tensor.raw_data;
    }
    let dtype = DataType::try_from(tensor.data_type).ok().and_then(dtype_of);
    let width = dtype.map_or(0, Dtype::bytes);
    // Narrow integers, booleans and the bits of an fp16 are kept in an int32 each.
    let narrow = tensor
        .int32_data
        .iter()
        .flat_map(|v| v.to_le_bytes().into_iter().take(width.min(4)));
    let mut bytes: Vec<u8> = tensor
        .float_data
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    bytes.extend(narrow);
    bytes.extend(tensor.int64_data.iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend(tensor.double_data.iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend(tensor.uint64_data.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

/// Product of `dims` times `item_bytes`, when it does not exceed [`MAX_TENSOR_BYTES`].
pub(super) fn bounded_bytes(
    dims: impl IntoIterator<Item = usize>,
    item_bytes: usize,
) -> Option<usize> {
    let bytes = dims
        .into_iter()
        .try_fold(item_bytes, |product, dim| product.checked_mul(dim))?;
    (bytes <= MAX_TENSOR_BYTES).then_some(bytes)
}

/// The version of the standard operator set.
pub(super) fn opset(proto: &ModelProto) -> Option<i64> {
    let standard = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let set = proto
        .opset_import
        .iter()
        .find(|set| standard(&set.domain))?;
    Some(set.version)
}

fn check_opset(proto: &ModelProto, place: &str) -> Result<()> {
    let version = opset(proto);
    match version {
        Some(version) if OPSETS.contains(&version) => Ok(()),
        found => Err(Error::unexpected(
            place,
            format!("ONNX operator set {} to {}", OPSETS.start(), OPSETS.end()),
            found.map_or("none".into(), |version| format!("operator set {version}")),
        )),
    }
}

fn check_graph(graph: &GraphProto, place: &str) -> Result<()> {
    for tensor in &graph.initializer {
        check_tensor(tensor, place)?;
    }
    for node in &graph.node {
        for attribute in &node.attribute {
            for tensor in attribute.t.iter().chain(&attribute.tensors) {
                check_tensor(tensor, place)?;
            }
            for body in attribute.g.iter().chain(&attribute.graphs) {
                check_graph(body, place)?;
            }
        }
        check_computed_size(graph, node, place)?;
    }
    check_outputs(graph, place)
}

/// A tensor's bytes must lie in the file and be as many as its shape says.
fn check_tensor(tensor: &TensorProto, place: &str) -> Result<()> {
    let place = format!("{place}: tensor `{}`", tensor.name);
    if tensor.data_location == Some(DataLocation::External as i32)
        || !tensor.external_data.is_empty()
    {
        return Err(Error::unexpected(
            place,
            "its data in this file",
            "external data",
        ));
    }
    let data_type = DataType::try_from(tensor.data_type).ok();
    let Some(dtype) = data_type.and_then(dtype_of) else {
        let found = format!("element type {}", tensor.data_type);
        return Err(Error::unexpected(place, "a tensor of numbers", found));
    };
    let shape = format!("shape {:?}", tensor.dims);
    let dims = tensor
        .dims
        .iter()
        .map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX));
    let bytes = bounded_bytes(dims, dtype.bytes())
        .ok_or_else(|| Error::unexpected(&place, "a tensor of at most 1 GiB", &shape))?;
    // A Rust bool of another byte would be undefined behaviour further on.
    if let Some(byte) = tensor
        .raw_data
        .iter()
        .find(|&&b| dtype == Dtype::Bool && b > 1)
    {
        return Err(Error::unexpected(place, "booleans of 0 and 1", byte));
    }
    let found = stored_bytes(tensor, dtype);
    if found == bytes {
        return Ok(());
    }
    let expected = format!("{bytes} bytes for {shape}");
    Err(Error::unexpected(place, expected, format!("{found} bytes")))
}

/// Bytes of data in `tensor`, wherever in the message they lie.
fn stored_bytes(tensor: &TensorProto, dtype: Dtype) -> usize {
    if !tensor.raw_data.is_empty() {
        return tensor.raw_data.len();
    }
    let items = tensor.float_data.len()
        + tensor.int32_data.len()
        + tensor.int64_data.len()
        + tensor.double_data.len()
        + tensor.uint64_data.len();
    items * dtype.bytes()
}

/// Refuses an operator that is asked, by a constant, for more memory than a tensor may have.
fn check_computed_size(graph: &GraphProto, node: &NodeProto, place: &str) -> Result<()> {
    let Some((_, index)) = SHAPED_BY_VALUE.iter().find(|(op, _)| *op == node.op_type) else {
        return Ok(());
    };
    let Some(dims) = node
        .input
        .get(*index)
        .and_then(|name| constant_i64(graph, name))
    else {
        return Ok(());
    };
    let unsigned = dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(1));
    if bounded_bytes(unsigned, size_of::<f32>()).is_some() {
        return Ok(());
    }
    Err(Error::unexpected(
        format!("{place}: node `{}`", node.name),
        format!("{} of at most 1 GiB", node.op_type),
        format!("shape {dims:?}"),
    ))
}

/// The values of an int64 initializer or `Constant` node called `name`.
fn constant_i64(graph: &GraphProto, name: &str) -> Option<Vec<i64>> {
    let initializer = graph.initializer.iter().find(|tensor| tensor.name == name);
    let tensor = initializer.or_else(|| {
        let node = graph
            .node
            .iter()
            .find(|node| node.output.iter().any(|o| o == name))?;
        node.attribute
            .iter()
            .find(|a| a.name == "value")?
            .t
            .as_ref()
    })?;
    if tensor.data_type != DataType::Int64 as i32 {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.int64_data.clone());
    }
    let words = tensor.raw_data.chunks_exact(8);
    Some(
        words
            .map(|w| i64::from_le_bytes(w.try_into().expect("chunks of eight")))
            .collect(),
    )
}

/// Every output of the graph must be something the graph has.
fn check_outputs(graph: &GraphProto, place: &str) -> Result<()> {
    let computed = graph.node.iter().flat_map(|node| &node.output);
    let known: HashSet<&str> = (computed.map(String::as_str))
        .chain(graph.input.iter().map(|input| input.name.as_str()))
        .chain(graph.initializer.iter().map(|tensor| tensor.name.as_str()))
        .collect();
    match graph
        .output
        .iter()
        .find(|output| !known.contains(output.name.as_str()))
    {
        None => Ok(()),
        Some(output) => Err(Error::unexpected(
            place,
            format!("a node that computes the output `{}`", output.name),
            "none",
        )),
    }
}
