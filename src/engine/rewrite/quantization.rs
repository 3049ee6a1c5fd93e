//! Quantizations where the other rewrites and the plan look for them.
//!
//! A view (reshape, transpose) does not care what elements it moves, so that it can change places
//! with a quantization: `view(dequantize(q))` and `dequantize(view(q))` are the same numbers.

use super::super::ir::{Graph, Op, ValueId};
use super::{Uses, is_view, output};

/// `dequantize(view(q))` → `view(dequantize(q))`: what is computed from a view finds the view.
pub(super) fn dequantize_first(graph: &mut Graph) -> usize {
    let mut count = 0;
    while let Some((view, dequantize)) = find_dequantize(graph) {
        swap(graph, view, dequantize);
        count += 1;
    }
    count
}

/// A view that only a dequantization reads, and that.
fn find_dequantize(graph: &Graph) -> Option<(usize, usize)> {
    let uses = Uses::of(graph);
    graph.nodes.iter().enumerate().find_map(|(index, node)| {
        let Op::Dequantize(_) = node.op else {
            return None;
        };
        let view = uses.producers[node.inputs[0].0]?;
        let sole = uses.sole_consumer(node.inputs[0]).is_some();
        (sole && is_view(&graph.nodes[view].op)).then_some((view, index))
    })
}

/// `reshape(dequantize(quantize(norm)))` → `dequantize(quantize(reshape(norm)))`: the reshape
/// behind a group norm finds the norm.
pub(super) fn reshape_first(graph: &mut Graph) -> usize {
    let mut count = 0;
    while let Some([quantize, dequantize, reshape]) = find_round_trip(graph) {
        swap(graph, dequantize, reshape);
        // The reshape now stands where the dequantization was, and behind the quantization.
        swap(graph, quantize, dequantize);
        count += 1;
    }
    count
}

fn find_round_trip(graph: &Graph) -> Option<[usize; 3]> {
    let uses = Uses::of(graph);
    let before = |id: ValueId| {
        uses.sole_consumer(id)?;
        uses.producers[id.0]
    };
    graph.nodes.iter().enumerate().find_map(|(index, node)| {
        let Op::Reshape = node.op else { return None };
        let dequantize = before(node.inputs[0])?;
        let Op::Dequantize(_) = graph.nodes[dequantize].op else {
            return None;
        };
        let quantize = before(graph.nodes[dequantize].inputs[0])?;
        let Op::Quantize(_) = graph.nodes[quantize].op else {
            return None;
        };
        let norm = before(graph.nodes[quantize].inputs[0])?;
        let Op::Normalize(_) = graph.nodes[norm].op else {
            return None;
        };
        Some([quantize, dequantize, index])
    })
}

/// Two nodes, the second of which alone reads the first, change places; one of them is a view and
/// the other a function of each element.
fn swap(graph: &mut Graph, first: usize, second: usize) {
    let (a, b) = (
        graph.nodes[first].op.clone(),
        graph.nodes[second].op.clone(),
    );
    let (between, end) = (output(&graph.nodes[first]), output(&graph.nodes[second]));
    let view_first = is_view(&a);
    let (shape, dtype) = match view_first {
        // The element-wise function is applied to what the view reads.
        true => (
            graph.shape(graph.nodes[first].inputs[0]).to_vec(),
            graph.value(end).dtype,
        ),
        // The view is applied to what the function reads.
        false => {
            let input = graph.nodes[first].inputs[0];
            (graph.shape(end).to_vec(), graph.value(input).dtype)
        }
    };
    let value = &mut graph.values[between.0];
    (value.shape, value.dtype) = (shape, dtype);
    (graph.nodes[first].op, graph.nodes[second].op) = (b, a);
}
