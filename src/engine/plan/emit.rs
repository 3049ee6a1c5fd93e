//! One node, with all that is computed inside it, becomes a step.

use super::super::ir::{Constant, Convolution, Node, Normalization, Op, ValueId};
use super::super::layout::{BufferId, Kind, Merge, Placed, axis_last, row_major, views};
use super::super::operators::attention::Attention;
use super::super::operators::conv::{Conv, Geometry};
use super::super::operators::copy::{Strided, StridedCopy};
use super::super::operators::group_norm::GroupNorm;
use super::super::operators::matmul::{MatMul, Matrices, Product};
use super::super::operators::qconv::QConv;
use super::super::operators::softmax::Softmax;
use super::super::operators::upsampled::Upsampled;
use super::super::operators::winograd::{Layer, Winograd};
use super::super::operators::{
    Activation, Element, Epilogue, Operand, Operator, Quantization, View,
};
use super::super::tract::Island;
use super::chain::Chain;
use super::{Bases, Planner};
use crate::error::Result;
use crate::npz::Dtype;

/// A view into a buffer whose place is not known yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub buffer: BufferId,
    view: View,
    element: Element,
}

impl Spot {
    pub fn new(placed: &Placed, view: View) -> Self {
        Self {
            buffer: placed.buffer,
            view,
            element: placed.kind.element(),
        }
    }

    /// The view, now that the buffers have their places.
    pub fn view(&self, bases: &Bases) -> View {
        View {
            offset: self.view.offset + bases.0[self.buffer.0],
            ..self.view
        }
    }

    pub fn operand(&self, bases: &Bases) -> Operand {
        Operand {
            view: self.view(bases),
            element: self.element,
        }
    }
}

/// The end of a chain whose buffers have no places yet.
struct Ending {
    bias: Vec<f32>,
    added: Option<Spot>,
    residual: Option<Spot>,
    activation: Activation,
    output: Spot,
}

impl Ending {
    fn touched(&self) -> impl Iterator<Item = BufferId> {
        let optional = [self.added, self.residual].into_iter().flatten();
        optional.chain([self.output]).map(|spot| spot.buffer)
    }

    fn epilogue(self, bases: &Bases) -> Epilogue {
        Epilogue {
            bias: self.bias,
            added: self.added.map(|spot| spot.view(bases)),
            residual: self.residual.map(|spot| spot.operand(bases)),
            activation: self.activation,
            output: self.output.operand(bases),
        }
    }
}

/// Weights on their way into an operator, as they lie in the file: what has to be made of them is
/// made when the operator is, so that it exists for one operator at a time.
enum Weights {
    Float {
        bytes: Vec<u8>,
        shape: Vec<usize>,
        transposed: bool,
    },
    Quantized {
        weights: Vec<i8>,
        scales: Vec<f32>,
        zeros: Option<Vec<i32>>,
    },
}

impl Planner<'_> {
    /// Plans the node at `index`, unless it is computed inside another one.
    pub(super) fn emit(&mut self, index: usize) -> Result<()> {
        if self.absorbed[index] {
            return Ok(());
        }
        let node = self.graph.nodes[index].clone();
        if let Some(chain) = self.chains.remove(&index) {
            self.emit_chain(&chain);
            return Ok(());
        }
        match &node.op {
            op if Self::is_view(op) => self.emit_view(&node),
            Op::Concat { axis } => self.emit_concat(index, &node, *axis),
            Op::Softmax => self.emit_softmax(&node),
            Op::MatMul => self.emit_mat_mul(&node),
            Op::Upsample { .. } => self.emit_upsample(&node),
            Op::Pad { padding } => self.emit_pad(&node, *padding),
            Op::Quantize(quantization) if self.lies_as_levels(node.inputs[0], *quantization) => {
                let levels = self.operand(node.inputs[0]);
                self.placed[node.outputs[0].0] = Some(levels);
            }
            Op::Unary(_) | Op::Binary(_) | Op::Quantize(_) => self.emit_pointwise(&node),
            Op::DequantizeWeights { .. } => self.emit_weights(&node),
            Op::Tract(_) => self.emit_island(&node)?,
            op => unreachable!("{op:?} begins a chain or is a view"),
        }
        Ok(())
    }

    /// Whether the value lies in memory as just these levels.
    fn lies_as_levels(&self, id: ValueId, quantization: Quantization) -> bool {
        let placed = self.placed[id.0].as_ref();
        placed.is_some_and(|placed| placed.kind == Kind::Levels(quantization))
    }

    fn emit_view(&mut self, node: &Node) {
        let input = self.operand(node.inputs[0]);
        let viewed = self.viewed(&input, node).unwrap_or_else(|| {
            let copy = self.row_major(&input);
            self.viewed(&copy, node)
                .expect("row-major elements can be seen in any shape")
        });
        self.placed[node.outputs[0].0] = Some(viewed);
    }

    /// The value as f32 in row-major order, copied where it is not.
    pub(super) fn row_major(&mut self, placed: &Placed) -> Placed {
        let placed = self.float(placed);
        if placed.is_row_major() {
            return placed;
        }
        self.copy(&placed, &row_major(&placed.shape))
    }

    /// The value under another shape, copied into row-major order where that cannot be said.
    fn reshaped(&mut self, placed: &Placed, shape: &[usize]) -> Placed {
        placed.reshape(shape).unwrap_or_else(|| {
            let copy = self.row_major(placed);
            copy.reshape(shape)
                .expect("row-major elements can be seen in any shape")
        })
    }

    /// The value as f32; levels are dequantized into a new buffer.
    pub(super) fn float(&mut self, placed: &Placed) -> Placed {
        match placed.kind {
            Kind::Levels(_) => {
                let order = placed.order();
                let output = self.dense(&placed.shape, &order, Kind::Float);
                self.convert("dequantize", placed, &output);
                output
            }
            _ => placed.clone(),
        }
    }

    /// A copy whose axes lie in `order`.
    fn copy(&mut self, placed: &Placed, order: &[usize]) -> Placed {
        let output = self.dense(&placed.shape, order, placed.kind);
        self.copy_into("copy", placed, &output);
        output
    }

    /// Copies elements from one layout to another.
    pub(super) fn copy_into(&mut self, name: &str, from: &Placed, to: &Placed) {
        assert_eq!(from.kind, to.kind, "a copy of the same elements");
        let (isa, threads, shape) = (self.target.isa, self.target.threads, from.shape.clone());
        let (source, target) = (from.clone(), to.clone());
        self.push(name, &[from.buffer, to.buffer], move |bases| {
            let (from, to) = (strided(&source, bases), strided(&target, bases));
            let bytes = source.kind.bytes();
            Box::new(StridedCopy::new(isa, threads, bytes, &shape, from, to))
        });
    }

    /// The value with consecutive elements along `axis`, copied where they are not, so that it can be
    /// seen as pixels.
    fn channels_last(&mut self, placed: &Placed, axis: usize, merge: Merge) -> Placed {
        match views(&[placed], axis, merge) {
            Some(_) => placed.clone(),
            None => self.copy(placed, &axis_last(placed.shape.len(), axis)),
        }
    }

    /// The view of a value of rank 4 that has consecutive elements along `axis`.
    fn spot(&self, placed: &Placed, axis: usize) -> Spot {
        let view = views(&[placed], axis, Merge::Nothing).expect("the channels are consecutive")[0];
        Spot::new(placed, view)
    }

    /// Where the value is to be written: into the concatenation that reads it, if it can be, or
    /// into a buffer of its own with its axes in `order`.
    pub(super) fn destination(&mut self, id: ValueId, order: &[usize], kind: Kind) -> Placed {
        if let (Kind::Float, Some(part)) = (kind, self.part_of_concat(id)) {
            return part;
        }
        let shape = self.graph.shape(id).to_vec();
        self.dense(&shape, order, kind)
    }

    /// The part of a channels-last concatenation that the value is.
    fn part_of_concat(&mut self, id: ValueId) -> Option<Placed> {
        if self.graph.shape(id).len() != 4 {
            return None;
        }
        let readers = self.consumers[id.0]
            .iter()
            .copied()
            .filter(|&r| r != super::Graph::READER);
        for reader in readers.collect::<Vec<_>>() {
            let Op::Concat { axis: 1 } = self.graph.nodes[reader].op else {
                continue;
            };
            let inputs = self.graph.nodes[reader].inputs.clone();
            let Some(part) = inputs.iter().position(|input| *input == id) else {
                continue;
            };
            let (whole, mut direct) = match self.concats.remove(&reader) {
                Some(known) => known,
                None => {
                    let output = self.graph.nodes[reader].outputs[0];
                    let shape = self.graph.shape(output).to_vec();
                    (
                        self.dense(&shape, &[0, 2, 3, 1], Kind::Float),
                        vec![false; inputs.len()],
                    )
                }
            };
            direct[part] = true;
            let before: usize = inputs[..part].iter().map(|i| self.graph.shape(*i)[1]).sum();
            let placed = whole.slice(&[0, before, 0, 0], self.graph.shape(id));
            self.concats.insert(reader, (whole, direct));
            return Some(placed);
        }
        None
    }

    fn emit_concat(&mut self, index: usize, node: &Node, axis: usize) {
        let shape = self.graph.shape(node.outputs[0]).to_vec();
        let (whole, direct) = match self.concats.remove(&index) {
            Some(known) => known,
            None => {
                let first = self.operand(node.inputs[0]);
                let order = if first.shape.len() == 4 {
                    first.order()
                } else {
                    Self::default_order(shape.len())
                };
                (
                    self.dense(&shape, &order, Kind::Float),
                    vec![false; node.inputs.len()],
                )
            }
        };
        let mut starts = vec![0; shape.len()];
        for (input, direct) in node.inputs.iter().zip(direct) {
            let part_shape = self.graph.shape(*input).to_vec();
            if !direct {
                let part = whole.slice(&starts, &part_shape);
                let input = self.operand(*input);
                match input.kind {
                    Kind::Levels(_) => self.convert(&node.name, &input, &part),
                    _ => self.copy_into(&node.name, &input, &part),
                }
            }
            starts[axis] += part_shape[axis];
        }
        self.placed[node.outputs[0].0] = Some(whole);
    }

    fn emit_chain(&mut self, chain: &Chain) {
        let head = self.graph.nodes[chain.head].clone();
        match &head.op {
            Op::Conv(convolution) => self.emit_convolution(&head, chain, convolution),
            Op::Linear { transposed } => self.emit_linear(&head, chain, *transposed),
            Op::Normalize(normalization) => self.emit_norm(&head, chain, normalization),
            Op::Attention { scale } => self.emit_attention(&head, chain, *scale),
            op => unreachable!("no chain begins with {op:?}"),
        }
    }

    /// Where a chain's result is written, as its head sees it; the result is known from now on.
    fn chain_output(&mut self, chain: &Chain, order: &[usize]) -> Placed {
        let kind = chain.quantization.map_or(Kind::Float, Kind::Levels);
        let head = self.graph.nodes[chain.head].outputs[0];
        let views: Vec<Node> = chain
            .views
            .iter()
            .map(|&i| self.graph.nodes[i].clone())
            .collect();
        if !matches!(kind, Kind::Levels(_))
            && let Some(part) = self.part_of_concat(chain.result)
        {
            let seen = views
                .iter()
                .rev()
                .try_fold(part.clone(), |at, view| self.unviewed(&at, view));
            match seen {
                Some(seen) => {
                    self.placed[chain.result.0] = Some(part);
                    return seen;
                }
                None => self.forget_part(chain.result),
            }
        }
        let shape = self.graph.shape(head).to_vec();
        let output = self.dense(&shape, order, kind);
        let result = views
            .iter()
            .try_fold(output.clone(), |at, view| self.viewed(&at, view));
        self.placed[chain.result.0] = Some(result.expect("the chain's views were tried"));
        output
    }

    /// The value is not written into its concatenation after all.
    fn forget_part(&mut self, id: ValueId) {
        let nodes = &self.graph.nodes;
        for (reader, (_, direct)) in &mut self.concats {
            let inputs = nodes[*reader].inputs.iter().zip(direct);
            inputs
                .filter(|(input, _)| **input == id)
                .for_each(|(_, direct)| *direct = false);
        }
    }

    /// The end of a chain over channels at axis `channel` of `output`.
    fn ending(
        &mut self,
        chain: &Chain,
        output: &Placed,
        channel: usize,
        mut bias: Vec<f32>,
        merge: Merge,
    ) -> Ending {
        for id in &chain.bias {
            let values = self
                .graph
                .constant(*id)
                .expect("only constants go into the bias")
                .f32s();
            bias.iter_mut()
                .enumerate()
                .for_each(|(c, b)| *b += values[c % values.len()]);
        }
        let added = chain.added.map(|id| {
            let vector = self.operand(id);
            let vector = self.float(&vector);
            let channels = bias.len();
            let batch = vector.shape.iter().product::<usize>() / channels;
            let flat = self.reshaped(&vector, &[batch, 1, 1, channels]);
            let flat = self.channels_last(&flat, 3, Merge::Nothing);
            self.spot(&flat, 3)
        });
        let residual = chain.residual.map(|(id, before)| {
            let placed = self.operand(id);
            let passed: Vec<Node> = chain.views[..before]
                .iter()
                .map(|&i| self.graph.nodes[i].clone())
                .collect();
            let seen = passed
                .iter()
                .rev()
                .try_fold(placed.clone(), |at, view| self.unviewed(&at, view));
            let fits = |seen: &Placed| views(&[output, seen], channel, merge).is_some();
            seen.filter(fits).unwrap_or_else(|| {
                // A copy that lies as the output does can be seen as the output is.
                let order = output.order();
                let own = self.dense(&output.shape, &order, Kind::Float);
                let outside = passed
                    .iter()
                    .try_fold(own.clone(), |at, view| self.viewed(&at, view));
                let placed = self.float(&placed);
                self.copy_into(
                    "copy of a residual",
                    &placed,
                    &outside.expect("the chain's views were tried"),
                );
                own
            })
        });
        let mut operands = vec![output];
        operands.extend(&residual);
        let views = views(&operands, channel, merge).expect("both were tried");
        Ending {
            bias,
            added,
            residual: residual.as_ref().map(|placed| Spot::new(placed, views[1])),
            activation: chain.activation,
            output: Spot::new(output, views[0]),
        }
    }

    /// The weights `[outputs, ..]` behind a value, which is read for the last time.
    fn weights(&mut self, id: ValueId, transposed: bool) -> Weights {
        let shape = self.graph.shape(id).to_vec();
        let producer = self.producers[id.0].map(|index| self.graph.nodes[index].clone());
        match producer {
            Some(Node {
                op: Op::DequantizeWeights { scale, zero, .. },
                inputs,
                ..
            }) => {
                let bytes = self.take_constant(inputs[0]);
                let below = self.graph.value(inputs[0]).dtype == Dtype::U8;
                let flip = if below { 0x80 } else { 0 };
                let weights: Vec<i8> = bytes.into_iter().map(|byte| (byte ^ flip) as i8).collect();
                let weights = in_rows(weights, &shape, transposed);
                Weights::Quantized {
                    weights,
                    scales: scale,
                    zeros: zero,
                }
            }
            _ => {
                let bytes = self.take_constant(id);
                Weights::Float {
                    bytes,
                    shape,
                    transposed,
                }
            }
        }
    }

    /// The bytes of a constant, taken out of the graph where nobody else reads them.
    fn take_constant(&mut self, id: ValueId) -> Vec<u8> {
        let shared = self.consumers[id.0].len() > 1;
        let constant = &mut self.graph.values[id.0].constant;
        let constant = if shared {
            constant.clone()
        } else {
            constant.take()
        };
        constant.expect("weights are constants").bytes
    }

    fn bias(&self, node: &Node, outputs: usize) -> Vec<f32> {
        match node.inputs.get(2) {
            Some(id) => self
                .graph
                .constant(*id)
                .expect("biases are constants")
                .f32s(),
            None => vec![0.0; outputs],
        }
    }

    fn emit_convolution(&mut self, node: &Node, chain: &Chain, convolution: &Convolution) {
        let input = self.operand(node.inputs[0]);
        let outputs = self.graph.shape(node.outputs[0])[1];
        let Convolution {
            kernel,
            stride,
            padding,
            mut upsample,
        } = convolution.clone();
        let geometry = Geometry {
            kernel,
            stride,
            padding,
        };
        match self.weights(node.inputs[1], false) {
            Weights::Quantized {
                weights,
                scales,
                zeros,
            } if matches!(input.kind, Kind::Levels(_)) => {
                let input = self.channels_last(&input, 1, Merge::Nothing);
                let input_spot = self.spot(&input, 1);
                let output = self.chain_output(chain, &[0, 2, 3, 1]);
                let bias = self.bias(node, outputs);
                let ending = self.ending(chain, &output, 1, bias, Merge::Nothing);
                self.push_quantized(
                    node, input_spot, geometry, upsample, weights, scales, zeros, ending,
                );
            }
            weights => {
                let input = self.float(&input);
                let mut input = self.channels_last(&input, 1, Merge::Nothing);
                if upsample > 1 && geometry != Geometry::SAME {
                    input = self.upsampled(&input, upsample);
                    upsample = 1;
                }
                let input_spot = self.spot(&input, 1);
                let output = self.chain_output(chain, &[0, 2, 3, 1]);
                let bias = self.bias(node, outputs);
                let ending = self.ending(chain, &output, 1, bias, Merge::Nothing);
                self.push_float(node, input_spot, geometry, upsample, weights, ending);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a convolution consists of")]
    fn push_quantized(
        &mut self,
        node: &Node,
        input: Spot,
        geometry: Geometry,
        upsample: usize,
        weights: Vec<i8>,
        scales: Vec<f32>,
        zeros: Option<Vec<i32>>,
        ending: Ending,
    ) {
        let (isa, threads) = (self.target.isa, self.target.threads);
        let touched: Vec<BufferId> = ending.touched().chain([input.buffer]).collect();
        self.push(&node.name, &touched, move |bases| {
            let (input, epilogue) = (input.operand(bases), ending.epilogue(bases));
            Box::new(QConv::new(
                isa,
                threads,
                input,
                geometry,
                upsample,
                &weights,
                zeros.as_deref(),
                &scales,
                epilogue,
            ))
        });
    }

    fn push_float(
        &mut self,
        node: &Node,
        input: Spot,
        geometry: Geometry,
        upsample: usize,
        weights: Weights,
        ending: Ending,
    ) {
        let (isa, threads) = (self.target.isa, self.target.threads);
        let touched: Vec<BufferId> = ending.touched().chain([input.buffer]).collect();
        self.push(&node.name, &touched, move |bases| {
            let (input, epilogue) = (input.view(bases), ending.epilogue(bases));
            let output = epilogue.output.view;
            let weights = weights.into_float(output.channels);
            let square = geometry.kernel == [3, 3] && geometry.stride == [1, 1];
            if upsample > 1 {
                return Box::new(Upsampled::new(isa, threads, input, &weights, epilogue))
                    as Box<dyn Operator>;
            }
            let tile = square.then(|| Layer::of(&input, &output, 3).choose(isa));
            match tile.flatten() {
                Some(tile) => Box::new(Winograd::new(
                    isa,
                    threads,
                    input,
                    tile,
                    geometry.padding,
                    &weights,
                    epilogue,
                )),
                None => Box::new(Conv::new(isa, threads, input, geometry, &weights, epilogue)),
            }
        });
    }

    fn emit_linear(&mut self, node: &Node, chain: &Chain, transposed: bool) {
        let input = self.operand(node.inputs[0]);
        let shape = self.graph.shape(node.outputs[0]).to_vec();
        let (last, outputs) = (shape.len() - 1, *shape.last().expect("a product has axes"));
        let weights = self.weights(node.inputs[1], transposed);
        let quantized = matches!(
            (&weights, input.kind),
            (Weights::Quantized { .. }, Kind::Levels(_))
        );
        let input = match quantized {
            true => input,
            false => self.float(&input),
        };
        let input = self.channels_last(&input, last, Merge::Everything);
        let output = self.chain_output(chain, &row_major(&shape));
        let bias = self.bias(node, outputs);
        let ending = self.ending(chain, &output, last, bias, Merge::Everything);
        let rows = self.rows(&input, &ending.output.view);
        match weights {
            Weights::Quantized {
                weights,
                scales,
                zeros,
            } if quantized => {
                self.push_quantized(
                    node,
                    rows,
                    Geometry::POINT,
                    1,
                    weights,
                    scales,
                    zeros,
                    ending,
                );
            }
            weights => {
                self.push_float(node, rows, Geometry::POINT, 1, weights, ending);
            }
        }
    }

    /// The input of a product along the last axis, its other axes split as those of `output`.
    fn rows(&mut self, input: &Placed, output: &View) -> Spot {
        let k = *input.shape.last().expect("a product has axes");
        let split = self.reshaped(input, &[output.batch, output.height, output.width, k]);
        self.spot(&split, 3)
    }

    fn emit_norm(&mut self, node: &Node, chain: &Chain, normalization: &Normalization) {
        let input = self.operand(node.inputs[0]);
        let mut input = self.channels_last(&input, 1, Merge::Pixels);
        let output = self.chain_output(chain, &input.order());
        if views(&[&input, &output], 1, Merge::Pixels).is_none() {
            input = self.copy(&input, &output.order());
        }
        let both = views(&[&input, &output], 1, Merge::Pixels).expect("laid out alike");
        let (from, to) = (Spot::new(&input, both[0]), Spot::new(&output, both[1]));
        let (isa, threads) = (self.target.isa, self.target.threads);
        let normalization = normalization.clone();
        self.push(&node.name, &[from.buffer, to.buffer], move |bases| {
            let (input, output) = (from.operand(bases), to.operand(bases));
            let Normalization {
                groups,
                eps,
                scale,
                shift,
                activation,
            } = normalization;
            Box::new(GroupNorm::new(
                isa, threads, input, groups, eps, &scale, &shift, activation, output,
            ))
        });
    }

    fn emit_attention(&mut self, node: &Node, chain: &Chain, scale: f32) {
        let shape = self.graph.shape(node.outputs[0]).to_vec();
        let rank = shape.len();
        let operands: Vec<Placed> = node.inputs[..3]
            .iter()
            .map(|id| {
                let placed = self.operand(*id);
                self.float(&placed)
            })
            .collect();
        let order = match rank {
            4 => vec![0, 2, 1, 3],
            _ => row_major(&shape),
        };
        let output = self.chain_output(chain, &order);
        let heads_joined = operands.iter().chain([&output]).map(heads_side_by_side);
        match heads_joined.collect::<Option<Vec<Placed>>>() {
            Some(joined) => {
                let spots: Vec<Spot> = joined.iter().map(|placed| self.spot(placed, 3)).collect();
                self.push_attention(node, &spots, shape[1], scale);
            }
            None => self.emit_attention_by_head(node, &operands, &output, scale),
        }
    }

    /// Every head a picture of its own.
    fn emit_attention_by_head(
        &mut self,
        node: &Node,
        operands: &[Placed],
        output: &Placed,
        scale: f32,
    ) {
        let by_head = |placed: &Placed| {
            let (batch, rows) = placed.shape.split_at(placed.shape.len() - 2);
            [batch.iter().product(), 1, rows[0], rows[1]]
        };
        let mut spots = Vec::new();
        for placed in operands {
            let heads = self.reshaped(placed, &by_head(placed));
            let heads = self.channels_last(&heads, 3, Merge::Nothing);
            spots.push(self.spot(&heads, 3));
        }
        let shape = by_head(output);
        match output.reshape(&shape) {
            Some(heads) => {
                spots.push(self.spot(&heads, 3));
                self.push_attention(node, &spots, 1, scale);
            }
            None => {
                let heads = self.dense(&shape, &row_major(&shape), Kind::Float);
                spots.push(self.spot(&heads, 3));
                self.push_attention(node, &spots, 1, scale);
                let seen = heads.reshape(&output.shape).expect("row-major elements");
                self.convert(&node.name, &seen, output);
            }
        }
    }

    fn push_attention(&mut self, node: &Node, spots: &[Spot], heads: usize, scale: f32) {
        let &[query, key, value, output] = spots else {
            unreachable!("three operands and a result")
        };
        let (isa, threads) = (self.target.isa, self.target.threads);
        let touched = [query.buffer, key.buffer, value.buffer, output.buffer];
        self.push(&node.name, &touched, move |bases| {
            let [query, key, value] = [query, key, value].map(|spot| spot.view(bases));
            Box::new(Attention::new(
                isa,
                threads,
                query,
                key,
                value,
                heads,
                scale,
                output.operand(bases),
            ))
        });
    }

    fn emit_softmax(&mut self, node: &Node) {
        let input = self.operand(node.inputs[0]);
        let input = self.float(&input);
        let last = input.shape.len() - 1;
        let input = self.channels_last(&input, last, Merge::Everything);
        let order = input.order();
        let output = self.destination(node.outputs[0], &order, Kind::Float);
        let both = views(&[&input, &output], last, Merge::Everything).expect("laid out alike");
        let (from, to) = (Spot::new(&input, both[0]), Spot::new(&output, both[1]));
        let (isa, threads) = (self.target.isa, self.target.threads);
        self.push(&node.name, &[from.buffer, to.buffer], move |bases| {
            Box::new(Softmax::new(isa, threads, from.view(bases), to.view(bases)))
        });
        self.placed[node.outputs[0].0] = Some(output);
    }

    fn emit_mat_mul(&mut self, node: &Node) {
        let shape = self.graph.shape(node.outputs[0]).to_vec();
        let matrices = |shape: &[usize]| {
            let (batch, matrix) = shape.split_at(shape.len() - 2);
            [batch.iter().product(), matrix[0], matrix[1]]
        };
        let operands = [node.inputs[0], node.inputs[1]].map(|id| {
            let placed = self.operand(id);
            let placed = self.float(&placed);
            self.reshaped(&placed, &matrices(&placed.shape))
        });
        let output = self.dense(&shape, &row_major(&shape), Kind::Float);
        let flat = output.reshape(&matrices(&shape)).expect("dense");
        let [a, b] = operands;
        let (batch, m, k, n) = (flat.shape[0], flat.shape[1], a.shape[2], flat.shape[2]);
        let product = Product {
            batch: [1, batch],
            m,
            k,
            n,
            scale: 1.0,
        };
        let (isa, threads) = (self.target.isa, self.target.threads);
        self.push(
            &node.name,
            &[a.buffer, b.buffer, output.buffer],
            move |bases| {
                let matrices = |placed: &Placed| Matrices {
                    offset: bases.at(placed),
                    batch_strides: [0, placed.strides[0]],
                    row_stride: placed.strides[1],
                    column_stride: placed.strides[2],
                };
                Box::new(MatMul::new(
                    isa,
                    threads,
                    product,
                    matrices(&a),
                    matrices(&b),
                    matrices(&flat),
                ))
            },
        );
        self.placed[node.outputs[0].0] = Some(output);
    }

    fn emit_upsample(&mut self, node: &Node) {
        let input = self.operand(node.inputs[0]);
        let input = self.channels_last(&input, 1, Merge::Nothing);
        let output = self.destination(node.outputs[0], &[0, 2, 3, 1], input.kind);
        self.push_upsample(&input, &output);
        self.placed[node.outputs[0].0] = Some(output);
    }

    fn upsampled(&mut self, input: &Placed, factor: usize) -> Placed {
        let &[n, c, h, w] = input.shape.as_slice() else {
            unreachable!("pictures are upsampled")
        };
        let output = self.dense(&[n, c, h * factor, w * factor], &[0, 2, 3, 1], Kind::Float);
        self.push_upsample(input, &output);
        output
    }

    fn push_upsample(&mut self, input: &Placed, output: &Placed) {
        let (from, to) = (self.spot(input, 1), self.spot(output, 1));
        let (isa, threads) = (self.target.isa, self.target.threads);
        let element_bytes = input.kind.bytes();
        self.push("upsample", &[from.buffer, to.buffer], move |bases| {
            Box::new(StridedCopy::upsample(
                isa,
                threads,
                element_bytes,
                from.view(bases),
                to.view(bases),
            ))
        });
    }

    /// Zeros everywhere, then the picture in the middle.
    fn emit_pad(&mut self, node: &Node, [top, left, _, _]: [usize; 4]) {
        let input = self.operand(node.inputs[0]);
        let input = self.float(&input);
        let shape = self.graph.shape(node.outputs[0]).to_vec();
        let output = self.dense(&shape, &[0, 2, 3, 1], Kind::Float);
        // One zero that is seen as any shape.
        let zero = self.constant(&[1], Kind::Float, 0f32.to_le_bytes().to_vec());
        self.copy_into(&node.name, &zero.broadcast(&shape), &output);
        let middle = output.slice(&[0, 0, top, left], &input.shape);
        self.copy_into(&node.name, &input, &middle);
        self.placed[node.outputs[0].0] = Some(output);
    }

    /// int8 weights that somebody reads as numbers: dequantized now, and kept.
    fn emit_weights(&mut self, node: &Node) {
        let id = node.outputs[0];
        let read = self.consumers[id.0].iter().any(|&reader| {
            reader == super::Graph::READER
                || !matches!(self.graph.nodes[reader].op, Op::Conv(_) | Op::Linear { .. })
                || self.graph.nodes[reader].inputs[1] != id
        });
        if !read {
            return;
        }
        let Op::DequantizeWeights { scale, zero, axis } = &node.op else {
            unreachable!("weights")
        };
        let shape = self.graph.shape(id);
        let inner: usize = shape[axis + 1..].iter().product();
        let bytes = &self
            .graph
            .constant(node.inputs[0])
            .expect("weights are constants")
            .bytes;
        let below = self.graph.value(node.inputs[0]).dtype == Dtype::U8;
        let flip = if below { 0x80 } else { 0 };
        let values = bytes.iter().enumerate().map(|(i, &byte)| {
            let at = (i / inner) % shape[*axis] % scale.len();
            let zero = zero.as_ref().map_or(0, |zero| zero[at]);
            (i32::from((byte ^ flip) as i8) - zero) as f32 * scale[at]
        });
        let constant = Constant::of_f32(values);
        self.graph.values[id.0].constant = Some(constant);
    }

    fn emit_island(&mut self, node: &Node) -> Result<()> {
        let island = Island::load(&self.graph, node, self.target.place)?;
        let inputs: Vec<Placed> = (island.variables.iter())
            .map(|id| {
                let placed = self.operand(*id);
                match placed.kind {
                    Kind::Raw(_) => placed,
                    _ => self.row_major(&placed),
                }
            })
            .collect();
        let mut outputs = Vec::new();
        for id in &node.outputs {
            let value = self.graph.value(*id);
            let (shape, kind) = (value.shape.clone(), Kind::of(value.dtype));
            let placed = self.dense(&shape, &row_major(&shape), kind);
            self.placed[id.0] = Some(placed.clone());
            outputs.push(placed);
        }
        let touched: Vec<BufferId> = inputs.iter().chain(&outputs).map(|p| p.buffer).collect();
        self.push(&node.name, &touched, move |bases| {
            let at = |placed: &Placed| bases.at(placed);
            let (inputs, outputs) = (
                inputs.iter().map(at).collect(),
                outputs.iter().map(at).collect(),
            );
            Box::new(island.at(inputs, outputs))
        });
        Ok(())
    }
}

impl Weights {
    /// As f32, `[outputs, ..]`.
    fn into_float(self, outputs: usize) -> Vec<f32> {
        match self {
            Self::Float {
                bytes,
                shape,
                transposed,
            } => in_rows(Constant { bytes }.f32s(), &shape, transposed),
            Self::Quantized {
                weights,
                scales,
                zeros,
            } => {
                let each = weights.len() / outputs.max(1);
                let value = |(i, weight): (usize, i8)| {
                    let output = (i / each) % scales.len();
                    let zero = zeros.as_ref().map_or(0, |zeros| zeros[output]);
                    (i32::from(weight) - zero) as f32 * scales[output]
                };
                weights.into_iter().enumerate().map(value).collect()
            }
        }
    }
}

/// `[b, heads, n, d]` as `[b, 1, n, heads·d]`, if the heads lie side by side in the channels.
fn heads_side_by_side(placed: &Placed) -> Option<Placed> {
    let &[b, heads, n, d] = placed.shape.as_slice() else {
        return None;
    };
    let consecutive = d == 1 || placed.strides[3] == 1;
    let beside = heads == 1 || placed.strides[1] == d;
    let joined = placed
        .transpose(&[0, 2, 1, 3])
        .reshape(&[b, 1, n, heads * d]);
    joined.filter(|_| consecutive && beside)
}

/// A matrix of this shape in row-major order, transposed if it is to be.
fn in_rows<T: Copy>(values: Vec<T>, shape: &[usize], transposed: bool) -> Vec<T> {
    if !transposed {
        return values;
    }
    let (rows, columns) = (shape[0], shape[1]);
    let column = |column: usize| (0..rows).map(move |row| row * columns + column);
    let order = (0..columns).flat_map(column);
    order.map(|i| values[i]).collect()
}

/// A value as a copy reads or writes it.
fn strided<'a>(placed: &'a Placed, bases: &Bases) -> Strided<'a> {
    Strided {
        offset: bases.at(placed),
        strides: &placed.strides,
    }
}
