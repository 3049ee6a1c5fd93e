//! Group norm with its affine and a SiLU behind it, as one node.

use super::super::ir::{Binary, Graph, Normalization, Op, Unary, ValueId};
use super::super::operators::Activation;
use super::{Uses, output};

/// Reshape to one channel per group, instance norm, reshape back → a group norm of the original.
///
/// The reshape is undone because a run of channels and all behind it is the same elements either
/// way; the scale and shift of the inner norm, one per group, become one per channel.
pub(super) fn unfold(graph: &mut Graph) -> usize {
    let uses = Uses::of(graph);
    let mut found = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let Op::Reshape = node.op else { continue };
        let folded = node.inputs[0];
        let Some(norm) = uses.producer(folded) else {
            continue;
        };
        let Op::Normalize(normalization) = &norm.op else {
            continue;
        };
        let Some(fold) = uses.producer(norm.inputs[0]) else {
            continue;
        };
        let (Op::Reshape, original) = (&fold.op, fold.inputs[0]) else {
            continue;
        };
        let (shape, inner) = (graph.shape(original), graph.shape(norm.inputs[0]));
        let groups = normalization.groups;
        let whole = shape == graph.shape(output(node))
            && shape.len() >= 2
            && shape[0] == inner[0]
            && inner[1] == groups
            && shape[1] % groups == 0
            && uses.sole_consumer(folded) == Some(index);
        if whole {
            let each = |values: &[f32]| {
                let repeat = shape[1] / groups;
                (0..shape[1]).map(|c| values[c / repeat]).collect()
            };
            let unfolded = Normalization {
                scale: each(&normalization.scale),
                shift: each(&normalization.shift),
                ..normalization.clone()
            };
            found.push((index, original, unfolded));
        }
    }
    let count = found.len();
    for (index, original, normalization) in found {
        let node = &mut graph.nodes[index];
        (node.op, node.inputs) = (Op::Normalize(normalization), vec![original]);
    }
    count
}

/// A product with, then a sum with a constant per channel goes into the norm's own affine.
pub(super) fn fuse_affine(graph: &mut Graph) -> usize {
    let mut count = 0;
    // Each fusion can make the next one possible: the sum behind the product.
    while let Some((index, normalization, input)) = find_affine(graph) {
        let node = &mut graph.nodes[index];
        (node.op, node.inputs) = (Op::Normalize(normalization), vec![input]);
        count += 1;
    }
    count
}

fn find_affine(graph: &Graph) -> Option<(usize, Normalization, ValueId)> {
    let uses = Uses::of(graph);
    graph.nodes.iter().enumerate().find_map(|(index, node)| {
        let Op::Binary(binary @ (Binary::Mul | Binary::Add)) = node.op else {
            return None;
        };
        let (a, b) = (node.inputs[0], node.inputs[1]);
        [(a, b), (b, a)].into_iter().find_map(|(x, constant)| {
            let norm = uses.producer(x)?;
            let Op::Normalize(normalization) = &norm.op else {
                return None;
            };
            let free = normalization.activation == Activation::None
                && uses.sole_consumer(x) == Some(index)
                && graph.shape(output(node)) == graph.shape(x);
            let values = per_channel(graph, constant, graph.shape(x)).filter(|_| free)?;
            let mut fused = normalization.clone();
            for (c, value) in values.into_iter().enumerate() {
                match binary {
                    Binary::Mul => {
                        fused.scale[c] *= value;
                        fused.shift[c] *= value;
                    }
                    _ => fused.shift[c] += value,
                }
            }
            Some((index, fused, norm.inputs[0]))
        })
    })
}

/// The values of a constant that differs along axis 1 of `shape` at most.
fn per_channel(graph: &Graph, id: ValueId, shape: &[usize]) -> Option<Vec<f32>> {
    let values = graph.constant(id)?.f32s();
    let own = graph.shape(id);
    let channels = shape[1];
    // Aligned at the last axis, as ONNX broadcasts.
    let axis = (own.len() + 1).checked_sub(shape.len());
    let elsewhere = own
        .iter()
        .enumerate()
        .all(|(i, &dim)| dim == 1 || Some(i) == axis);
    match values.len() {
        1 => Some(vec![values[0]; channels]),
        len if len == channels && elsewhere => Some(values),
        _ => None,
    }
}

/// A SiLU of a norm that nobody else reads.
pub(super) fn fuse_silu(graph: &mut Graph) -> usize {
    let uses = Uses::of(graph);
    let mut found = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let Op::Unary(Unary::Silu) = node.op else {
            continue;
        };
        let Some(norm) = uses.producer(node.inputs[0]) else {
            continue;
        };
        let Op::Normalize(normalization) = &norm.op else {
            continue;
        };
        let free = normalization.activation == Activation::None;
        if free && uses.sole_consumer(node.inputs[0]) == Some(index) {
            let activation = Activation::Silu;
            found.push((
                index,
                norm.inputs[0],
                Normalization {
                    activation,
                    ..normalization.clone()
                },
            ));
        }
    }
    let count = found.len();
    for (index, input, normalization) in found {
        let node = &mut graph.nodes[index];
        (node.op, node.inputs) = (Op::Normalize(normalization), vec![input]);
    }
    count
}
