//! The network as the rewrites see it: values, nodes, and what each node computes.
//!
//! Shapes and axes are those of ONNX (pictures are `[n, c, h, w]`); how a value lies in memory is
//! decided later, in `plan`.

use tract_onnx::pb::NodeProto;

use super::operators::{Activation, Quantization};
use crate::npz::Dtype;

/// An index into [`Graph::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// A tensor: an input, a constant, or what a node computes.
#[derive(Debug, Clone)]
pub struct Value {
    /// The name in the file.
    pub name: String,
    /// The shape, fixed.
    pub shape: Vec<usize>,
    /// The element type. Between a `Quantize` and a `Dequantize` it is that of the file.
    pub dtype: Dtype,
    /// The value, where it is known.
    pub constant: Option<Constant>,
}

impl Value {
    /// Elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The elements of a known tensor, as they lie in the file: little-endian, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Constant {
    /// f32 elements.
    pub fn f32s(&self) -> Vec<f32> {
        let words = self.bytes.as_chunks::<4>().0.iter();
        words.map(|&word| f32::from_le_bytes(word)).collect()
    }

    /// i8 elements.
    pub fn i8s(&self) -> Vec<i8> {
        self.bytes.iter().map(|&byte| byte as i8).collect()
    }

    /// i64 elements.
    pub fn i64s(&self) -> Vec<i64> {
        let words = self.bytes.as_chunks::<8>().0.iter();
        words.map(|&word| i64::from_le_bytes(word)).collect()
    }

    /// A tensor of f32.
    pub fn of_f32(values: impl IntoIterator<Item = f32>) -> Self {
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Self { bytes }
    }
}

/// One computation.
#[derive(Debug, Clone)]
pub struct Node {
    /// The name of the value it computes.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// From what.
    pub inputs: Vec<ValueId>,
    /// Into what; only [`Op::Tract`] has more than one.
    pub outputs: Vec<ValueId>,
}

/// What a node computes.
#[derive(Debug, Clone)]
pub enum Op {
    /// `x, w` and perhaps a bias; groups and dilations are 1.
    Conv(Convolution),
    /// `x · wᵀ + b` along the last axis: `x, w` and perhaps a bias.
    Linear {
        /// Whether the weights lie as `[k, n]`, and not as `[n, k]`.
        transposed: bool,
    },
    /// The batched product of two tensors along the last two axes.
    MatMul,
    /// `softmax(scale · q kᵀ) v`: three tensors `[.., tokens, d]`.
    Attention {
        /// What the scores are multiplied with.
        scale: f32,
    },
    /// `(x - mean) / sqrt(variance + eps)` over each of `groups` runs of channels (axis 1) and all
    /// axes behind it, times a constant scale plus a constant shift per channel.
    Normalize(Normalization),
    /// Softmax along the last axis.
    Softmax,
    /// A function of each element.
    Unary(Unary),
    /// A function of two elements, broadcast as ONNX does.
    Binary(Binary),
    /// The same elements in row-major order under the shape of the output.
    Reshape,
    /// Output axis `i` is input axis `perm[i]`.
    Transpose {
        /// The input's axis of every axis of the output.
        perm: Vec<usize>,
    },
    /// A part of every axis.
    Slice {
        /// Where the part begins, per axis; its extent is the output's shape.
        starts: Vec<usize>,
    },
    /// One index of an axis, which is gone.
    Select {
        /// The axis.
        axis: usize,
        /// The index.
        index: usize,
    },
    /// One after the other along an axis.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// Every pixel `factor` times in each direction, nearest.
    Upsample {
        /// A whole number of at least 1.
        factor: usize,
    },
    /// Zeros around the last two axes.
    Pad {
        /// Top, left, bottom, right.
        padding: [usize; 4],
    },
    /// f32 → levels.
    Quantize(Quantization),
    /// Levels → f32.
    Dequantize(Quantization),
    /// int8 weights → f32: `scale[i] · (w - zero[i])`, `i` along an axis or 0.
    DequantizeWeights {
        /// One, or one per index of the axis.
        scale: Vec<f32>,
        /// As many as scales; none where all are 0.
        zero: Option<Vec<i32>>,
        /// The axis.
        axis: usize,
    },
    /// Whatever else: tract computes it.
    Tract(Box<NodeProto>),
}

/// The geometry of a convolution and what has been fused into it.
#[derive(Debug, Clone, PartialEq)]
pub struct Convolution {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Down and right.
    pub stride: [usize; 2],
    /// Top, left, bottom, right.
    pub padding: [usize; 4],
    /// The input is enlarged by this factor first, nearest.
    pub upsample: usize,
}

/// A group normalization.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalization {
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// One per channel.
    pub scale: Vec<f32>,
    /// One per channel.
    pub shift: Vec<f32>,
    /// What follows.
    pub activation: Activation,
}

/// Functions of one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unary {
    Sigmoid,
    Silu,
    Exp,
    Sqrt,
    Tanh,
    GeluErf,
    GeluTanh,
    Neg,
    Reciprocal,
    Abs,
    Relu,
    LeakyRelu(f32),
}

/// Functions of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
}

/// A network: nodes in an order in which they can be computed.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// All values.
    pub values: Vec<Value>,
    /// All nodes, each after those whose outputs it reads.
    pub nodes: Vec<Node>,
    /// The inputs, in the order of the file.
    pub inputs: Vec<ValueId>,
    /// The outputs, in the order of the file.
    pub outputs: Vec<ValueId>,
    /// The version of the operator set, for tract.
    pub opset: i64,
}

impl Graph {
    /// The value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// The shape of the value.
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.values[id.0].shape
    }

    /// The constant that the value is, if it is one.
    pub fn constant(&self, id: ValueId) -> Option<&Constant> {
        self.values[id.0].constant.as_ref()
    }

    /// A new value.
    pub fn add_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() - 1)
    }

    /// The index of the node that computes each value.
    pub fn producers(&self) -> Vec<Option<usize>> {
        let mut producers = vec![None; self.values.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for output in &node.outputs {
                producers[output.0] = Some(index);
            }
        }
        producers
    }

    /// The indices of the nodes that read each value, in order; an output of the graph is read by
    /// [`Graph::READER`] as well.
    pub fn consumers(&self) -> Vec<Vec<usize>> {
        let mut consumers = vec![Vec::new(); self.values.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for input in &node.inputs {
                consumers[input.0].push(index);
            }
        }
        for output in &self.outputs {
            consumers[output.0].push(Self::READER);
        }
        consumers
    }

    /// The consumer of the graph's outputs.
    pub const READER: usize = usize::MAX;

    /// Every reader of `from` reads `to` instead.
    pub fn replace(&mut self, from: ValueId, to: ValueId) {
        let inputs = self.nodes.iter_mut().flat_map(|node| &mut node.inputs);
        for id in inputs.chain(&mut self.outputs) {
            if *id == from {
                *id = to;
            }
        }
    }

    /// Drops the nodes whose outputs nobody reads, and constants that nobody reads.
    pub fn prune(&mut self) {
        let mut read = vec![false; self.values.len()];
        for output in &self.outputs {
            read[output.0] = true;
        }
        let mut kept = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().rev() {
            kept[index] = node.outputs.iter().any(|output| read[output.0]);
            if kept[index] {
                node.inputs.iter().for_each(|input| read[input.0] = true);
            }
        }
        let mut kept = kept.into_iter();
        self.nodes.retain(|_| kept.next().unwrap_or(true));
        for (value, read) in self.values.iter_mut().zip(read) {
            if !read {
                value.constant = None;
            }
        }
    }
}
