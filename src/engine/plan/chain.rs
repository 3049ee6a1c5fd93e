//! What is computed at the end of a product.
//!
//! Bias, time embedding, residual, SiLU, quantization.

use super::super::ir::{Binary, Graph, Node, Op, Unary, ValueId};
use super::super::layout::{BufferId, Kind, Placed, dense_strides};
use super::super::operators::{Activation, Quantization};
use super::Planner;

/// A node and those behind it that are computed with it.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    /// The node that the chain begins with.
    pub head: usize,
    /// Constants that are added, one per channel each.
    pub bias: Vec<ValueId>,
    /// A vector per picture that is added.
    pub added: Option<ValueId>,
    /// A value of the result's shape that is added, and how many of `views` lie before it.
    pub residual: Option<(ValueId, usize)>,
    pub activation: Activation,
    pub quantization: Option<Quantization>,
    /// Reshapes and transposes within the chain.
    pub views: Vec<usize>,
    /// What the chain computes.
    pub result: ValueId,
}

impl Planner<'_> {
    /// Finds every chain, the last one first: of two products that are added, the later one adds.
    pub(super) fn find_chains(&mut self) {
        for head in (0..self.graph.nodes.len()).rev() {
            let is_head = matches!(
                self.graph.nodes[head].op,
                Op::Conv(_) | Op::Linear { .. } | Op::Normalize(_) | Op::Attention { .. }
            );
            if !is_head || self.absorbed[head] {
                continue;
            }
            let (chain, nodes) = self.follow(head);
            let end = nodes.last().copied().unwrap_or(head);
            if end != head {
                self.absorbed[head] = true;
                for node in nodes {
                    self.absorbed[node] = node != end;
                    self.in_chain[node] = true;
                }
            }
            self.chains.insert(end, chain);
        }
    }

    /// The chain that begins at `head`, and its other nodes.
    fn follow(&self, head: usize) -> (Chain, Vec<usize>) {
        let node = &self.graph.nodes[head];
        let mut chain = Chain {
            head,
            bias: Vec::new(),
            added: None,
            residual: None,
            activation: Activation::None,
            quantization: None,
            views: Vec::new(),
            result: node.outputs[0],
        };
        let (mut nodes, mut tentative) = (Vec::new(), Vec::new());
        let mut at = chain.result;
        let mut imagined = self.imagined(node);
        while let Some(index) = self.sole_consumer(at) {
            if self.absorbed[index] || self.chains.contains_key(&index) {
                break;
            }
            let next = &self.graph.nodes[index];
            let output = next.outputs[0];
            match &next.op {
                Op::Reshape | Op::Transpose { .. } => {
                    let viewed = imagined.as_ref().and_then(|p| self.viewed(p, next));
                    if viewed.is_none() {
                        break;
                    }
                    imagined = viewed;
                    tentative.push(index);
                    at = output;
                    continue;
                }
                // What is itself repeated to be added to something larger ends here.
                Op::Binary(Binary::Add)
                    if chain.adds(&self.graph)
                        && self.graph.shape(at) == self.graph.shape(output) =>
                {
                    let other = next.inputs[usize::from(next.inputs[0] == at)];
                    let viewed = !(chain.views.is_empty() && tentative.is_empty());
                    if !self.take_addend(&mut chain, other, output, viewed, tentative.len()) {
                        break;
                    }
                }
                Op::Unary(Unary::Silu) if chain.activates(&self.graph) => {
                    chain.activation = Activation::Silu;
                }
                Op::Quantize(quantization) => chain.quantization = Some(*quantization),
                _ => break,
            }
            chain.views.append(&mut tentative);
            nodes.extend(
                chain
                    .views
                    .iter()
                    .filter(|view| !nodes.contains(*view))
                    .copied()
                    .collect::<Vec<_>>(),
            );
            nodes.push(index);
            at = output;
            chain.result = output;
            if chain.quantization.is_some() {
                break;
            }
        }
        (chain, nodes)
    }

    /// Takes `other` into the chain as what it can be added as.
    fn take_addend(
        &self,
        chain: &mut Chain,
        other: ValueId,
        sum: ValueId,
        viewed: bool,
        tentative: usize,
    ) -> bool {
        let (shape, own) = (self.graph.shape(sum), self.graph.shape(other));
        if own == shape && shape.iter().product::<usize>() > 1 && chain.residual.is_none() {
            let constant = self.graph.constant(other).is_some();
            if !constant {
                chain.residual = Some((other, chain.views.len() + tentative));
                return true;
            }
        }
        if viewed {
            return false;
        }
        let head = &self.graph.nodes[chain.head];
        let channel = match head.op {
            Op::Conv(_) => 1,
            _ => shape.len() - 1,
        };
        let missing = shape.len() - own.len().min(shape.len());
        let repeated = |axis: usize| axis < missing || own[axis - missing] == 1;
        let per_channel = own.len() <= shape.len()
            && channel >= missing
            && own[channel - missing] == shape[channel]
            && (0..shape.len()).all(|axis| axis == channel || axis == 0 || repeated(axis));
        let per_picture = per_channel && (repeated(0) || channel == 1);
        if !per_picture {
            return false;
        }
        if repeated(0) && self.graph.constant(other).is_some() {
            chain.bias.push(other);
            return true;
        }
        if chain.added.is_none() && channel == 1 && shape.len() == 4 {
            chain.added = Some(other);
            return true;
        }
        false
    }

    /// The head's result if it lay alone, to see which views can be said in strides.
    fn imagined(&self, node: &Node) -> Option<Placed> {
        let shape = self.graph.shape(node.outputs[0]).to_vec();
        let order = match node.op {
            Op::Conv(_) => vec![0, 2, 3, 1],
            Op::Linear { .. } => (0..shape.len()).collect(),
            Op::Attention { .. } if shape.len() == 4 => vec![0, 2, 1, 3],
            _ => return None,
        };
        let strides = dense_strides(&shape, &order, 1);
        Some(Placed {
            buffer: BufferId(0),
            offset: 0,
            shape,
            strides,
            kind: Kind::Float,
        })
    }

    /// `placed` as the view `node` shows it.
    pub(super) fn viewed(&self, placed: &Placed, node: &Node) -> Option<Placed> {
        let shape = self.graph.shape(node.outputs[0]);
        match &node.op {
            Op::Reshape => placed.reshape(shape),
            Op::Transpose { perm } => Some(placed.transpose(perm)),
            Op::Slice { starts } => Some(placed.slice(starts, shape)),
            Op::Select { axis, index } => Some(placed.select(*axis, *index)),
            Op::Dequantize(_) => Some(placed.clone()),
            _ => None,
        }
    }

    /// What `placed`, seen through the view `node`, is itself.
    pub(super) fn unviewed(&self, placed: &Placed, node: &Node) -> Option<Placed> {
        match &node.op {
            Op::Reshape => placed.reshape(self.graph.shape(node.inputs[0])),
            Op::Transpose { perm } => {
                let mut inverse = vec![0; perm.len()];
                perm.iter()
                    .enumerate()
                    .for_each(|(i, &axis)| inverse[axis] = i);
                Some(placed.transpose(&inverse))
            }
            _ => None,
        }
    }
}

impl Chain {
    /// Whether something can still be added.
    fn adds(&self, graph: &Graph) -> bool {
        let product = matches!(graph.nodes[self.head].op, Op::Conv(_) | Op::Linear { .. });
        product && self.activation == Activation::None
    }

    /// Whether an activation can follow.
    fn activates(&self, graph: &Graph) -> bool {
        self.adds(graph)
    }
}
