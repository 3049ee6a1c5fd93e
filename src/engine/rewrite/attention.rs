//! `softmax(scale · q kᵀ) v` as one node, whatever way it was spelled.

use super::super::ir::{Binary, Graph, Node, Op, Value, ValueId};
use super::Uses;

/// Matrix product, perhaps scaled, softmax, matrix product → attention.
///
/// The scale may stand before the first product, on either side, or behind it. The second product
/// may be that of both transposes, whose result is the transpose.
pub(super) fn fuse(graph: &mut Graph) -> usize {
    let mut count = 0;
    while let Some(found) = find(graph) {
        found.apply(graph);
        count += 1;
    }
    count
}

struct Found {
    /// The second product.
    index: usize,
    /// `[.., tokens, d]`
    query: Scaled,
    /// `[.., d, tokens]`, transposed
    key: Scaled,
    /// `[.., tokens, d]`
    value: ValueId,
    /// The factor behind the first product.
    scale: f32,
    /// Whether the second product is `vᵀ · softmaxᵀ`; `value` is then `[.., d, tokens]`.
    transposed: bool,
}

/// A value without a factor that was found on the way to it.
struct Scaled {
    /// Where the views begin.
    source: ValueId,
    /// The views between the source and the value that is meant, each with its result's shape.
    views: Vec<(Op, Vec<usize>)>,
    factor: f32,
}

fn find(graph: &Graph) -> Option<Found> {
    let uses = Uses::of(graph);
    graph.nodes.iter().enumerate().find_map(|(index, node)| {
        let Op::MatMul = node.op else { return None };
        let sole = |id| uses.sole_consumer(id).is_some();
        let (weights, value, transposed) = match uses.producer(node.inputs[1]) {
            Some(turn) if swaps_last(&turn.op) && sole(node.inputs[1]) => {
                (turn.inputs[0], node.inputs[0], true)
            }
            _ => (node.inputs[0], node.inputs[1], false),
        };
        let softmax = uses.producer(weights)?;
        let (Op::Softmax, true) = (&softmax.op, sole(weights)) else {
            return None;
        };
        let scores = softmax.inputs[0];
        let (product, scale) = factor(&uses, scores).unwrap_or((scores, 1.0));
        let first = uses.producer(product)?;
        let alone = sole(product) && sole(scores);
        let (Op::MatMul, true) = (&first.op, alone) else {
            return None;
        };
        let (query, key) = (first.inputs[0], first.inputs[1]);
        let rank = graph.shape(query).len();
        (rank >= 3).then(|| Found {
            index,
            query: scaled(&uses, query),
            key: scaled(&uses, key),
            value,
            scale,
            transposed,
        })
    })
}

/// Whether the node exchanges the last two axes.
fn swaps_last(op: &Op) -> bool {
    let Op::Transpose { perm } = op else {
        return false;
    };
    let rank = perm.len();
    rank >= 2 && *perm == last_swapped(rank)
}

/// If `id` is something times a constant number: the two of them.
fn factor(uses: &Uses, id: ValueId) -> Option<(ValueId, f32)> {
    let node = uses.producer(id)?;
    match node.op {
        Op::Binary(Binary::Mul) => uses.scalar_operand(&node.inputs),
        Op::Binary(Binary::Div) => uses
            .scalar(node.inputs[1])
            .map(|divisor| (node.inputs[0], 1.0 / divisor)),
        _ => None,
    }
    .filter(|(x, _)| uses.graph.shape(*x) == uses.graph.shape(id))
}

/// Looks through views for a factor.
fn scaled(uses: &Uses, id: ValueId) -> Scaled {
    let (mut at, mut views) = (id, Vec::new());
    loop {
        if let Some((source, factor)) = factor(uses, at) {
            views.reverse();
            return Scaled {
                source,
                views,
                factor,
            };
        }
        match uses.producer(at) {
            Some(node) if super::is_view(&node.op) => {
                views.push((node.op.clone(), uses.graph.shape(at).to_vec()));
                at = node.inputs[0];
            }
            _ => {
                return Scaled {
                    source: id,
                    views: Vec::new(),
                    factor: 1.0,
                };
            }
        }
    }
}

impl Found {
    fn apply(self, graph: &mut Graph) {
        let name = graph.nodes[self.index].name.clone();
        let mut nodes = Vec::new();
        let scale = self.scale * self.query.factor * self.key.factor;
        let query = self
            .query
            .rebuild(graph, &mut nodes, &format!("{name}.query"));
        let key = self.key.rebuild(graph, &mut nodes, &format!("{name}.key"));
        let key = swapped(graph, &mut nodes, &format!("{name}.key.rows"), key);
        let op = Op::Attention { scale };
        if self.transposed {
            let value = swapped(graph, &mut nodes, &format!("{name}.value.rows"), self.value);
            let mut shape = graph.shape(query).to_vec();
            shape.pop();
            shape.extend(graph.shape(value).last());
            let result = push(
                graph,
                &mut nodes,
                format!("{name}.rows"),
                op,
                vec![query, key, value],
                shape,
            );
            let rank = graph.shape(result).len();
            let node = &mut graph.nodes[self.index];
            (node.op, node.inputs) = (
                Op::Transpose {
                    perm: last_swapped(rank),
                },
                vec![result],
            );
        } else {
            let node = &mut graph.nodes[self.index];
            (node.op, node.inputs) = (op, vec![query, key, self.value]);
        }
        graph.nodes.splice(self.index..self.index, nodes);
    }
}

fn last_swapped(rank: usize) -> Vec<usize> {
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    perm
}

/// The value with its last two axes exchanged.
fn swapped(graph: &mut Graph, nodes: &mut Vec<Node>, name: &str, id: ValueId) -> ValueId {
    let perm = last_swapped(graph.shape(id).len());
    let shape = perm.iter().map(|&axis| graph.shape(id)[axis]).collect();
    push(
        graph,
        nodes,
        name.to_owned(),
        Op::Transpose { perm },
        vec![id],
        shape,
    )
}

impl Scaled {
    /// The views again, without the factor.
    fn rebuild(self, graph: &mut Graph, nodes: &mut Vec<Node>, name: &str) -> ValueId {
        let views = self.views.into_iter().enumerate();
        views.fold(self.source, |at, (i, (op, shape))| {
            push(graph, nodes, format!("{name}.{i}"), op, vec![at], shape)
        })
    }
}

fn push(
    graph: &mut Graph,
    nodes: &mut Vec<Node>,
    name: String,
    op: Op,
    inputs: Vec<ValueId>,
    shape: Vec<usize>,
) -> ValueId {
    let value = Value {
        name: name.clone(),
        shape,
        dtype: graph.value(inputs[0]).dtype,
        constant: None,
    };
    let output = graph.add_value(value);
    nodes.push(Node {
        name,
        op,
        inputs,
        outputs: vec![output],
    });
    output
}
