//! Functions of each element, chained: one pass over the data.

use super::super::ir::{Binary, Node, Op, Unary, ValueId};
use super::super::layout::{Kind, Merge, Placed, views};
use super::super::operators::elementwise::{Elementwise, Input, Instruction};
use super::Planner;
use super::emit::Spot;

/// A pass on its way into an operator: its code, and the values that it reads.
#[derive(Default)]
struct Pass {
    code: Vec<Instruction>,
    inputs: Vec<Source>,
}

/// What a pass reads.
#[derive(Clone)]
enum Source {
    Value(Placed),
    Scalar(f32),
}

impl Planner<'_> {
    /// Marks every pointwise node that only another one of the same shape reads.
    pub(super) fn absorb_pointwise(&mut self) {
        for index in 0..self.graph.nodes.len() {
            if self.is_free(index) && self.reader_in_pass(index).is_some() {
                self.absorbed[index] = true;
                if let Op::Quantize(_) = self.graph.nodes[index].op
                    && let Some(dequantize) = self.sole_consumer(self.graph.nodes[index].outputs[0])
                {
                    self.absorbed[dequantize] = true;
                }
            }
        }
    }

    /// Whether the node is pointwise and not part of a chain.
    fn is_free(&self, index: usize) -> bool {
        let pointwise = matches!(
            self.graph.nodes[index].op,
            Op::Unary(_) | Op::Binary(_) | Op::Quantize(_)
        );
        pointwise && !self.absorbed[index] && !self.chains.contains_key(&index)
    }

    /// The pointwise node in whose pass this one can be computed. Quantized levels are read as
    /// numbers: the dequantization between the two is part of the pass.
    fn reader_in_pass(&self, index: usize) -> Option<usize> {
        let node = &self.graph.nodes[index];
        let mut output = node.outputs[0];
        if let Op::Quantize(_) = node.op {
            let dequantize = self.sole_consumer(output)?;
            let Op::Dequantize(_) = self.graph.nodes[dequantize].op else {
                return None;
            };
            output = self.graph.nodes[dequantize].outputs[0];
        }
        let reader = self.sole_consumer(output)?;
        let same =
            self.graph.shape(self.graph.nodes[reader].outputs[0]) == self.graph.shape(output);
        let pointwise = matches!(
            self.graph.nodes[reader].op,
            Op::Unary(_) | Op::Binary(_) | Op::Quantize(_)
        );
        let outside = self.chains.contains_key(&reader) || self.in_chain[reader];
        (pointwise && same && !outside).then_some(reader)
    }

    /// Plans the pass that ends at `node`.
    pub(super) fn emit_pointwise(&mut self, node: &Node) {
        let output = node.outputs[0];
        let shape = self.graph.shape(output).to_vec();
        let kind = match node.op {
            Op::Quantize(quantization) => Kind::Levels(quantization),
            _ => Kind::Float,
        };
        let mut pass = Pass::default();
        match &node.op {
            // The store rounds to levels.
            Op::Quantize(_) => {
                self.compile(node.inputs[0], &shape, &mut pass);
            }
            _ => {
                self.compile_node(node, &shape, &mut pass);
            }
        }
        let order = self.order_of(&pass, &shape);
        let to = match kind {
            Kind::Float => self.destination(output, &order, kind),
            _ => self.dense(&shape, &order, kind),
        };
        self.push_pass(&node.name, pass, &to);
        self.placed[output.0] = Some(to);
    }

    /// Converts between f32 and levels, or copies, pixel by pixel.
    pub(super) fn convert(&mut self, name: &str, from: &Placed, to: &Placed) {
        let mut pass = Pass::default();
        pass.read(Source::Value(from.clone()));
        self.push_pass(name, pass, to);
    }

    /// Compiles the value into the pass; the register that holds it.
    fn compile(&mut self, id: ValueId, shape: &[usize], pass: &mut Pass) -> usize {
        let mut producer = self.producers[id.0];
        let mut levels = None;
        if let Some(index) = producer
            && let Op::Dequantize(quantization) = self.graph.nodes[index].op
            && let Some(quantize) = self.producers[self.graph.nodes[index].inputs[0].0]
            && self.in_pass(quantize)
        {
            (producer, levels) = (Some(quantize), Some(quantization));
        }
        match producer {
            Some(index) if self.in_pass(index) => {
                let node = self.graph.nodes[index].clone();
                match levels {
                    Some(quantization) => {
                        let x = self.compile(node.inputs[0], shape, pass);
                        pass.emit(Instruction::RoundTrip(x, quantization))
                    }
                    None => self.compile_node(&node, shape, pass),
                }
            }
            _ => {
                let source = match self.scalar(id) {
                    Some(value) => Source::Scalar(value),
                    None => Source::Value(self.operand(id).broadcast(shape)),
                };
                pass.read(source)
            }
        }
    }

    /// Whether the node is computed in the pass of its reader.
    fn in_pass(&self, index: usize) -> bool {
        self.absorbed[index] && !self.in_chain[index]
    }

    fn scalar(&self, id: ValueId) -> Option<f32> {
        let constant = self.graph.constant(id)?;
        (self.graph.value(id).len() == 1).then(|| constant.f32s()[0])
    }

    fn compile_node(&mut self, node: &Node, shape: &[usize], pass: &mut Pass) -> usize {
        let operands: Vec<usize> = node
            .inputs
            .iter()
            .map(|id| self.compile(*id, shape, pass))
            .collect();
        let a = operands[0];
        pass.emit(match node.op {
            Op::Unary(unary) => match unary {
                Unary::Sigmoid => Instruction::Sigmoid(a),
                Unary::Silu => Instruction::Silu(a),
                Unary::Exp => Instruction::Exp(a),
                Unary::Sqrt => Instruction::Sqrt(a),
                Unary::Tanh => Instruction::Tanh(a),
                Unary::GeluErf => Instruction::GeluErf(a),
                Unary::GeluTanh => Instruction::GeluTanh(a),
                Unary::Neg => Instruction::Neg(a),
                Unary::Reciprocal => Instruction::Reciprocal(a),
                Unary::Abs => Instruction::Abs(a),
                Unary::Relu => Instruction::Relu(a),
                Unary::LeakyRelu(slope) => Instruction::LeakyRelu(a, slope),
            },
            Op::Binary(binary) => {
                let b = operands[1];
                match binary {
                    Binary::Add => Instruction::Add(a, b),
                    Binary::Sub => Instruction::Sub(a, b),
                    Binary::Mul => Instruction::Mul(a, b),
                    Binary::Div => Instruction::Div(a, b),
                    Binary::Min => Instruction::Min(a, b),
                    Binary::Max => Instruction::Max(a, b),
                }
            }
            ref op => unreachable!("{op:?} is not pointwise"),
        })
    }

    /// The order of the axes of the first operand that is not repeated.
    fn order_of(&self, pass: &Pass, shape: &[usize]) -> Vec<usize> {
        let whole = pass.inputs.iter().find_map(|source| match source {
            Source::Value(placed) => {
                let axes = placed.strides.iter().zip(shape);
                let whole = axes
                    .into_iter()
                    .all(|(&stride, &dim)| dim == 1 || stride != 0);
                whole.then(|| placed.order())
            }
            Source::Scalar(_) => None,
        });
        whole.unwrap_or_else(|| Self::default_order(shape.len()))
    }

    /// Adds the pass as a step that writes `to`. Operands that lie otherwise are copied first.
    fn push_pass(&mut self, name: &str, pass: Pass, to: &Placed) {
        let Pass { code, inputs } = pass;
        let (to, inputs) = match to.shape.is_empty() {
            false => (to.clone(), inputs),
            // A number is a vector of one.
            true => {
                let vector = |placed: &Placed| placed.reshape(&[1]).expect("one element");
                let inputs = inputs.into_iter().map(|source| match source {
                    Source::Value(placed) => Source::Value(vector(&placed)),
                    scalar => scalar,
                });
                (vector(to), inputs.collect())
            }
        };
        let channel = common_channel(&to, &inputs);
        let mut prepared = Vec::new();
        for source in inputs {
            prepared.push(match source {
                Source::Value(placed) => {
                    let fits = views(&[&to, &placed], channel, Merge::Everything).is_some();
                    Source::Value(if fits {
                        placed
                    } else {
                        self.laid_out_as(&placed, &to)
                    })
                }
                scalar => scalar,
            });
        }
        let mut all = vec![&to];
        all.extend(prepared.iter().filter_map(|source| match source {
            Source::Value(placed) => Some(placed),
            Source::Scalar(_) => None,
        }));
        let views = views(&all, channel, Merge::Everything);
        let views = views.expect("operands laid out alike can be seen alike");
        let spots: Vec<Spot> = all
            .iter()
            .zip(&views)
            .map(|(p, view)| Spot::new(p, *view))
            .collect();
        let repeated = |placed: &Placed| placed.shape[channel] > 1 && placed.strides[channel] == 0;
        let mut next = 1;
        let sources: Vec<(Option<(Spot, bool)>, f32)> = prepared
            .iter()
            .map(|source| match source {
                Source::Scalar(value) => (None, *value),
                Source::Value(placed) => {
                    next += 1;
                    (Some((spots[next - 1], repeated(placed))), 0.0)
                }
            })
            .collect();
        let touched: Vec<_> = spots.iter().map(|spot| spot.buffer).collect();
        let (isa, threads, output) = (self.target.isa, self.target.threads, spots[0]);
        self.push(name, &touched, move |bases| {
            let inputs = sources.iter().map(|(spot, value)| match spot {
                None => Input::Scalar(*value),
                Some((spot, true)) => Input::PerPixel(spot.operand(bases)),
                Some((spot, false)) => Input::Operand(spot.operand(bases)),
            });
            Box::new(Elementwise::new(
                isa,
                threads,
                inputs.collect(),
                code,
                output.operand(bases),
            ))
        });
    }

    /// A copy of an operand that lies as `to` does.
    fn laid_out_as(&mut self, placed: &Placed, to: &Placed) -> Placed {
        let float = self.float(placed);
        let copy = self.dense(&to.shape, &to.order(), Kind::Float);
        self.copy_into("copy", &float, &copy);
        copy
    }
}

/// The axis along which the vectors run: one whose elements are consecutive in all operands if
/// there is one, the longest of these.
fn common_channel(to: &Placed, inputs: &[Source]) -> usize {
    let fits = |axis: &usize| {
        inputs.iter().all(|source| match source {
            Source::Value(placed) => views(&[to, placed], *axis, Merge::Everything).is_some(),
            Source::Scalar(_) => true,
        })
    };
    let axes = (0..to.shape.len()).filter(fits);
    let common = axes.max_by_key(|&axis| to.shape[axis]);
    let own = || to.channel_axis().unwrap_or(to.shape.len() - 1);
    common.unwrap_or_else(own)
}

impl Pass {
    /// Reads one more input; the register that holds it.
    fn read(&mut self, source: Source) -> usize {
        self.inputs.push(source);
        self.emit(Instruction::Read(self.inputs.len() - 1))
    }

    /// Adds an instruction; the register that holds its result.
    fn emit(&mut self, instruction: Instruction) -> usize {
        self.code.push(instruction);
        self.code.len() - 1
    }
}
