//! `x · sigmoid(x)` → SiLU.

use super::super::ir::{Binary, Graph, Op, Unary};
use super::Uses;

/// Wherever a product has a factor and that factor's sigmoid.
pub(super) fn fuse(graph: &mut Graph) -> usize {
    let uses = Uses::of(graph);
    let mut found = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        if !matches!(node.op, Op::Binary(Binary::Mul)) {
            continue;
        }
        let sigmoid_of = |id| match uses.producer(id) {
            Some(node) if matches!(node.op, Op::Unary(Unary::Sigmoid)) => Some(node.inputs[0]),
            _ => None,
        };
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let factor = (sigmoid_of(b) == Some(a)).then_some(a);
        if let Some(x) = factor.or_else(|| (sigmoid_of(a) == Some(b)).then_some(b)) {
            found.push((index, x));
        }
    }
    for &(index, x) in &found {
        let node = &mut graph.nodes[index];
        (node.op, node.inputs) = (Op::Unary(Unary::Silu), vec![x]);
    }
    found.len()
}
