//! A rewritten graph → the steps of a program.
//!
//! What is computed in one pass, where every value lies, and with which operator.
//!
//! First every node finds out whether it is computed inside another one: an addition inside the
//! convolution before it (`chain`), a pointwise function inside the pass that ends its chain
//! (`pointwise`). Then, in order, each that is left becomes a step. Buffers are known by number
//! until all steps are; then those that are never needed at once get the same bytes.

mod chain;
mod emit;
mod pointwise;

use std::collections::HashMap;

use super::arena::{self, Lifetime};
use super::ir::{Graph, Op, ValueId};
use super::layout::{BufferId, Kind, Placed, dense_strides, row_major};
use super::operators::Operator;
use super::program::{Program, Step};
use super::simd::Isa;
use crate::error::Result;

use chain::Chain;

/// For which machine a network is planned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub isa: Isa,
    pub threads: usize,
    /// The file's name, for errors.
    pub place: &'a str,
}

/// Levels of a pixel are padded to a multiple of this, so that a kernel can read whole vectors.
const LEVEL_ROW: usize = 16;

/// Plans the whole graph; its weights move into the operators.
///
/// # Errors
///
/// When tract cannot run a node that is left to it.
pub(super) fn plan(graph: Graph, target: Target) -> Result<Program> {
    let mut planner = Planner::new(graph, target);
    planner.place_inputs();
    for index in 0..planner.graph.nodes.len() {
        planner.emit(index)?;
    }
    let outputs = planner.place_outputs();
    planner.finish(outputs)
}

/// A step that is waiting for its buffers to get addresses.
struct Planned {
    name: String,
    build: Build,
}

/// Makes an operator, from the byte at which each buffer begins.
type Build = Box<dyn FnOnce(&Bases) -> Box<dyn Operator>>;

/// The byte at which every buffer begins.
struct Bases(Vec<usize>);

impl Bases {
    /// The byte at which a value begins.
    fn at(&self, placed: &Placed) -> usize {
        self.0[placed.buffer.0] + placed.offset * placed.kind.bytes()
    }
}

struct Buffer {
    bytes: usize,
    lifetime: Lifetime,
    /// What it holds before the first step, for good.
    constant: Option<Vec<u8>>,
}

struct Planner<'a> {
    graph: Graph,
    target: Target<'a>,
    producers: Vec<Option<usize>>,
    consumers: Vec<Vec<usize>>,
    /// The chain that ends at a node, by the node's index.
    chains: HashMap<usize, Chain>,
    /// Nodes that are computed inside another one.
    absorbed: Vec<bool>,
    /// Nodes of a chain other than its head.
    in_chain: Vec<bool>,
    placed: Vec<Option<Placed>>,
    /// Where the result of a concatenation lies, once one of its parts has been placed, and which
    /// of its parts are written there by those who compute them.
    concats: HashMap<usize, (Placed, Vec<bool>)>,
    buffers: Vec<Buffer>,
    steps: Vec<Planned>,
}

impl<'a> Planner<'a> {
    fn new(graph: Graph, target: Target<'a>) -> Self {
        let (producers, consumers) = (graph.producers(), graph.consumers());
        let mut planner = Self {
            target,
            producers,
            consumers,
            chains: HashMap::new(),
            absorbed: vec![false; graph.nodes.len()],
            in_chain: vec![false; graph.nodes.len()],
            placed: vec![None; graph.values.len()],
            concats: HashMap::new(),
            buffers: Vec::new(),
            steps: Vec::new(),
            graph,
        };
        planner.find_chains();
        planner.absorb_pointwise();
        planner
    }

    /// The only node that reads `id`, if it reads it once and the graph's caller does not.
    fn sole_consumer(&self, id: ValueId) -> Option<usize> {
        match *self.consumers[id.0].as_slice() {
            [Graph::READER] => None,
            [index] => Some(index),
            _ => None,
        }
    }

    /// How a value lies when nothing else decides: pictures channels-last, the rest row-major.
    fn default_order(rank: usize) -> Vec<usize> {
        match rank {
            4 => vec![0, 2, 3, 1],
            _ => (0..rank).collect(),
        }
    }

    /// A new buffer, alive from the next step on.
    fn buffer(&mut self, bytes: usize) -> BufferId {
        let next = self.steps.len();
        self.buffers.push(Buffer {
            bytes,
            lifetime: Lifetime {
                first: next,
                last: next,
            },
            constant: None,
        });
        BufferId(self.buffers.len() - 1)
    }

    /// A new value without gaps, its axes in `order`.
    fn dense(&mut self, shape: &[usize], order: &[usize], kind: Kind) -> Placed {
        let padded = if matches!(kind, Kind::Levels(_)) {
            LEVEL_ROW
        } else {
            1
        };
        let strides = dense_strides(shape, order, padded);
        let outermost = order.first().map_or(1, |&axis| strides[axis] * shape[axis]);
        let elements = outermost.max(padded).next_multiple_of(padded);
        let buffer = self.buffer(elements * kind.bytes());
        Placed {
            buffer,
            offset: 0,
            shape: shape.to_vec(),
            strides,
            kind,
        }
    }

    /// Adds a step that reads and writes `touched`.
    fn push(
        &mut self,
        name: &str,
        touched: &[BufferId],
        build: impl FnOnce(&Bases) -> Box<dyn Operator> + 'static,
    ) {
        let step = self.steps.len();
        for buffer in touched {
            let lifetime = &mut self.buffers[buffer.0].lifetime;
            lifetime.first = lifetime.first.min(step);
            lifetime.last = lifetime.last.max(step);
        }
        self.steps.push(Planned {
            name: name.to_owned(),
            build: Box::new(build),
        });
    }

    /// Inputs lie as the caller gives them, row-major.
    fn place_inputs(&mut self) {
        for id in self.graph.inputs.clone() {
            let value = self.graph.value(id);
            let (shape, dtype) = (value.shape.clone(), value.dtype);
            let placed = self.dense(&shape, &row_major(&shape), Kind::of(dtype));
            // The caller writes them before the first step, and perhaps not again before the next
            // evaluation.
            self.buffers[placed.buffer.0].lifetime = Lifetime::ALWAYS;
            self.placed[id.0] = Some(placed);
        }
    }

    /// Outputs lie as the caller reads them, row-major.
    fn place_outputs(&mut self) -> Vec<Placed> {
        let outputs = self.graph.outputs.clone().into_iter().map(|id| {
            let placed = self.operand(id);
            let row_major = match placed.kind {
                Kind::Raw(_) => placed,
                _ => self.row_major(&placed),
            };
            self.buffers[row_major.buffer.0].lifetime.last = usize::MAX;
            row_major
        });
        outputs.collect()
    }

    /// Gives every buffer its bytes and makes the operators.
    fn finish(self, outputs: Vec<Placed>) -> Result<Program> {
        let sizes: Vec<usize> = self.buffers.iter().map(|buffer| buffer.bytes).collect();
        let lifetimes: Vec<Lifetime> = self.buffers.iter().map(|b| b.lifetime).collect();
        let (offsets, bytes) = arena::lay_out(&sizes, &lifetimes);
        let inputs = self.graph.inputs.iter().map(|id| self.placed[id.0].clone());
        let bases = Bases(offsets);
        let port = |placed: Placed| {
            let (start, len) = (bases.at(&placed), placed.shape.iter().product::<usize>());
            start..start + len * placed.kind.bytes()
        };
        let input_bytes: Vec<_> = inputs.flatten().map(port).collect();
        let output_bytes: Vec<_> = outputs.into_iter().map(port).collect();
        let constants = self.buffers.into_iter().zip(&bases.0);
        let constants: Vec<(usize, Vec<u8>)> = constants
            .filter_map(|(buffer, &offset)| Some((offset, buffer.constant?)))
            .collect();
        let steps = self.steps.into_iter().map(|planned| Step {
            operator: (planned.build)(&bases),
            name: planned.name,
        });
        let steps = steps.collect();
        Ok(Program::new(
            steps,
            bytes,
            &constants,
            input_bytes,
            output_bytes,
            self.target.threads,
        ))
    }

    /// The value in memory: computed before, or a constant that is put there now.
    fn operand(&mut self, id: ValueId) -> Placed {
        if let Some(placed) = &self.placed[id.0] {
            return placed.clone();
        }
        let value = &mut self.graph.values[id.0];
        let constant = value
            .constant
            .clone()
            .expect("nodes come after what they read");
        let (shape, kind) = (value.shape.clone(), Kind::of(value.dtype));
        let placed = self.constant(&shape, kind, constant.bytes);
        self.placed[id.0] = Some(placed.clone());
        placed
    }

    /// A value that is there from the beginning and stays.
    fn constant(&mut self, shape: &[usize], kind: Kind, bytes: Vec<u8>) -> Placed {
        let placed = self.dense(shape, &row_major(shape), kind);
        let buffer = &mut self.buffers[placed.buffer.0];
        (buffer.constant, buffer.lifetime) = (Some(bytes), Lifetime::ALWAYS);
        placed
    }

    /// Whether the node only says how its input is looked at.
    fn is_view(op: &Op) -> bool {
        matches!(
            op,
            Op::Reshape
                | Op::Transpose { .. }
                | Op::Slice { .. }
                | Op::Select { .. }
                | Op::Dequantize(_)
        )
    }
}
