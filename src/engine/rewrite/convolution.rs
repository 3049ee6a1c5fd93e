//! Padding and upsampling go into the convolution that reads them.

use super::super::ir::{Convolution, Graph, Op, ValueId};
use super::Uses;

/// Zeros around a picture → padding of the convolution.
pub(super) fn fuse_padding(graph: &mut Graph) -> usize {
    fuse(graph, |op, convolution| match op {
        Op::Pad { padding } if convolution.upsample == 1 => {
            let mut fused = convolution.clone();
            fused
                .padding
                .iter_mut()
                .zip(padding)
                .for_each(|(own, more)| *own += more);
            Some(fused)
        }
        _ => None,
    })
}

/// Nearest upsampling → the convolution reads every pixel more than once.
pub(super) fn fuse_upsampling(graph: &mut Graph) -> usize {
    fuse(graph, |op, convolution| match op {
        Op::Upsample { factor } if convolution.upsample == 1 && *factor == 2 => Some(Convolution {
            upsample: *factor,
            ..convolution.clone()
        }),
        _ => None,
    })
}

/// A convolution, what it becomes, what it reads then, and the quantization and dequantization
/// that stay in between.
type Found = (usize, Convolution, ValueId, Option<(usize, usize)>);

/// Replaces every convolution of a value that `fused` can take in, also where a quantization lies
/// in between: levels are padded and repeated as numbers are.
fn fuse(graph: &mut Graph, fused: impl Fn(&Op, &Convolution) -> Option<Convolution>) -> usize {
    let uses = Uses::of(graph);
    let mut found: Vec<Found> = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let Op::Conv(convolution) = &node.op else {
            continue;
        };
        let Some(direct) = uses.producer(node.inputs[0]) else {
            continue;
        };
        if let Some(fused) = fused(&direct.op, convolution) {
            found.push((index, fused, direct.inputs[0], None));
            continue;
        }
        // Upsample or pad → Quantize → Dequantize → Conv: the first moves behind the other two.
        let Op::Dequantize(_) = direct.op else {
            continue;
        };
        let Some(quantize) = uses.producer(direct.inputs[0]) else {
            continue;
        };
        let Op::Quantize(_) = quantize.op else {
            continue;
        };
        let Some(before) = uses.producer(quantize.inputs[0]) else {
            continue;
        };
        let chain = [node.inputs[0], direct.inputs[0], quantize.inputs[0]];
        let alone = chain.iter().all(|id| uses.sole_consumer(*id).is_some());
        let pair = (uses.producers[chain[1].0], uses.producers[chain[0].0]);
        if let (Some(fused), true, (Some(q), Some(dq))) =
            (fused(&before.op, convolution), alone, pair)
        {
            found.push((index, fused, before.inputs[0], Some((q, dq))));
        }
    }
    let count = found.len();
    for (index, convolution, input, pair) in found {
        graph.nodes[index].op = Op::Conv(convolution);
        match pair {
            None => graph.nodes[index].inputs[0] = input,
            Some((quantize, dequantize)) => {
                graph.nodes[quantize].inputs[0] = input;
                let shape = graph.shape(input).to_vec();
                for node in [quantize, dequantize] {
                    let output = graph.nodes[node].outputs[0];
                    graph.values[output.0].shape.clone_from(&shape);
                }
            }
        }
    }
    count
}
