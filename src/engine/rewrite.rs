//! Rewrites of a graph: what several nodes compute becomes one.
//!
//! Each rewrite is a file, takes the graph from one valid state to another, and says how many
//! places it changed. They look for what is computed, not for one exporter's spelling of it.

mod attention;
mod convolution;
mod group_norm;
mod quantization;
mod shape;
mod silu;

use super::ir::{Graph, Node, Op, ValueId};

/// How often each rewrite was applied, in the order of application.
pub(super) type Applied = Vec<(&'static str, usize)>;

/// A rewrite: its name, and the function that applies it everywhere and counts.
type Rewrite = (&'static str, fn(&mut Graph) -> usize);

/// In this order: each finds what the ones before it have left.
const REWRITES: [Rewrite; 10] = [
    ("nodes that change nothing", shape::drop_identities),
    ("SiLU", silu::fuse),
    (
        "dequantization before a view",
        quantization::dequantize_first,
    ),
    ("reshape before a quantization", quantization::reshape_first),
    ("group norm", group_norm::unfold),
    ("affine of a group norm", group_norm::fuse_affine),
    ("SiLU after a group norm", group_norm::fuse_silu),
    ("attention", attention::fuse),
    ("padding before a convolution", convolution::fuse_padding),
    (
        "upsampling before a convolution",
        convolution::fuse_upsampling,
    ),
];

/// Applies all rewrites.
pub(super) fn rewrite(graph: &mut Graph) -> Applied {
    let applied = REWRITES.map(|(name, rewrite)| {
        let count = rewrite(graph);
        graph.prune();
        (name, count)
    });
    applied.to_vec()
}

/// A graph with the question "who computes, who reads" answered: valid until the graph changes.
struct Uses<'a> {
    graph: &'a Graph,
    producers: Vec<Option<usize>>,
    consumers: Vec<Vec<usize>>,
}

impl<'a> Uses<'a> {
    fn of(graph: &'a Graph) -> Self {
        let (producers, consumers) = (graph.producers(), graph.consumers());
        Self {
            graph,
            producers,
            consumers,
        }
    }

    /// The node that computes `id`.
    fn producer(&self, id: ValueId) -> Option<&'a Node> {
        self.producers[id.0].map(|index| &self.graph.nodes[index])
    }

    /// The index of the only node that reads `id`, if there is one and it reads it once.
    fn sole_consumer(&self, id: ValueId) -> Option<usize> {
        match *self.consumers[id.0].as_slice() {
            [Graph::READER] => None,
            [index] => Some(index),
            _ => None,
        }
    }

    /// The only value, if `id` is a constant of f32 with one element.
    fn scalar(&self, id: ValueId) -> Option<f32> {
        let constant = self.graph.constant(id)?;
        match (self.graph.value(id).len(), self.graph.value(id).dtype) {
            (1, crate::npz::Dtype::F32) => constant.f32s().first().copied(),
            _ => None,
        }
    }

    /// Of two operands, the constant of one element and the other one.
    fn scalar_operand(&self, inputs: &[ValueId]) -> Option<(ValueId, f32)> {
        let &[a, b] = inputs else { return None };
        (self.scalar(b).map(|scalar| (a, scalar)))
            .or_else(|| self.scalar(a).map(|scalar| (b, scalar)))
    }
}

/// The output of a node that has one.
fn output(node: &Node) -> ValueId {
    node.outputs[0]
}

/// Whether the node computes a view of its input: the same elements, perhaps under other axes.
fn is_view(op: &Op) -> bool {
    matches!(op, Op::Reshape | Op::Transpose { .. })
}
