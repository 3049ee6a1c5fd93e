//! What changes nothing: reshapes to the same shape, products with 1, sums with 0.

use super::super::ir::{Binary, Graph, Op};
use super::{Uses, output};

/// Drops every reshape to the same shape, transpose to the same order and slice of the whole, and
/// arithmetic with the neutral element, which stands for a scale that a model leaves alone.
pub(super) fn drop_identities(graph: &mut Graph) -> usize {
    let uses = Uses::of(graph);
    let mut dropped = Vec::new();
    for node in &graph.nodes {
        let same_shape = || graph.shape(node.inputs[0]) == graph.shape(output(node));
        let is_identity = match &node.op {
            Op::Reshape | Op::Slice { .. } | Op::Upsample { factor: 1 } => same_shape(),
            Op::Transpose { perm } => perm.iter().enumerate().all(|(i, &axis)| i == axis),
            Op::Binary(Binary::Mul | Binary::Div) => {
                uses.scalar(node.inputs[1]) == Some(1.0) && same_shape()
            }
            Op::Binary(Binary::Add | Binary::Sub) => {
                uses.scalar(node.inputs[1]) == Some(0.0) && same_shape()
            }
            _ => false,
        };
        if is_identity {
            dropped.push((output(node), node.inputs[0]));
        }
    }
    for index in 0..dropped.len() {
        let (from, to) = dropped[index];
        graph.replace(from, to);
        // A later identity may read the output of this one.
        dropped
            .iter_mut()
            .filter(|(_, input)| *input == from)
            .for_each(|pair| pair.1 = to);
    }
    dropped.len()
}
