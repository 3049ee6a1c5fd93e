//! A list of operators over one block of memory: what an evaluation runs.
//!
//! Everything is allocated when the program is made; an evaluation allocates nothing.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::aligned::Aligned;
use super::operators::{ALIGNMENT, Memory, Operator, Scratch};
use super::pool::Pool;

/// One operator, and the name of the node it came from.
#[derive(Debug)]
pub(super) struct Step {
    pub operator: Box<dyn Operator>,
    pub name: String,
}

/// One phase of one step.
#[derive(Debug, Clone, Copy)]
struct Phase {
    step: usize,
    phase: usize,
    tasks: usize,
}

/// Steps in order, and all the memory they need.
#[derive(Debug)]
pub(super) struct Program {
    steps: Vec<Step>,
    phases: Vec<Phase>,
    memory: Aligned<u8>,
    /// One for each thread, then the one they share.
    own_bytes: usize,
    scratch: Aligned<u8>,
    inputs: Vec<Range<usize>>,
    outputs: Vec<Range<usize>>,
    pool: Pool,
}

impl Program {
    /// A program over `bytes` of memory, into which the constants are written first.
    pub fn new(
        steps: Vec<Step>,
        bytes: usize,
        constants: &[(usize, Vec<u8>)],
        inputs: Vec<Range<usize>>,
        outputs: Vec<Range<usize>>,
        threads: usize,
    ) -> Self {
        let mut memory = Aligned::zeroed(bytes.next_multiple_of(ALIGNMENT));
        for (offset, constant) in constants {
            memory[*offset..][..constant.len()].copy_from_slice(constant);
        }
        let phases = steps.iter().enumerate().flat_map(|(step, s)| {
            let phases = s.operator.phases().iter().enumerate();
            phases.map(move |(phase, &tasks)| Phase { step, phase, tasks })
        });
        let phases = phases.collect();
        let largest = |bytes: fn(&dyn Operator) -> usize| {
            let each = steps.iter().map(|step| bytes(&*step.operator));
            each.max().unwrap_or(0).next_multiple_of(ALIGNMENT)
        };
        let own_bytes = largest(|operator| operator.own_bytes());
        let shared_bytes = largest(|operator| operator.shared_bytes());
        let pool = Pool::new(threads);
        let scratch = Aligned::zeroed(own_bytes * pool.threads() + shared_bytes);
        Self {
            steps,
            phases,
            memory,
            own_bytes,
            scratch,
            inputs,
            outputs,
            pool,
        }
    }

    /// The bytes of an input, to be written before [`Program::run`].
    pub fn input(&mut self, index: usize) -> &mut [u8] {
        &mut self.memory[self.inputs[index].clone()]
    }

    /// The bytes of an output, after [`Program::run`].
    pub fn output(&self, index: usize) -> &[u8] {
        &self.memory[self.outputs[index].clone()]
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Runs all steps.
    pub fn run(&mut self) {
        let (phases, steps, own_bytes) = (&self.phases, &self.steps, self.own_bytes);
        let memory = Memory::new(self.memory.as_mut_ptr());
        let scratch = Memory::new(self.scratch.as_mut_ptr());
        let threads = self.pool.threads();
        self.pool.run_program(
            phases.len(),
            |index| phases[index].tasks,
            |index, task, thread| {
                let Phase { step, phase, .. } = phases[index];
                let scratch = Scratch {
                    own: scratch.at(thread * own_bytes),
                    shared: scratch.at(threads * own_bytes),
                };
                // SAFETY: the plan gave every operator views into this memory and lets no two
                // values that are needed at once share bytes; phases run one after another, and
                // each thread has its own scratch.
                unsafe { steps[step].operator.run(phase, task, memory, scratch) };
            },
        );
    }

    /// Runs all steps `rounds` times and adds up the time of each.
    pub fn profile(&mut self, rounds: usize) -> Vec<Duration> {
        let mut elapsed = vec![Duration::ZERO; self.steps.len()];
        let phases = std::mem::take(&mut self.phases);
        for _ in 0..rounds {
            for (step, elapsed) in elapsed.iter_mut().enumerate() {
                self.phases = phases
                    .iter()
                    .filter(|phase| phase.step == step)
                    .copied()
                    .collect();
                let start = Instant::now();
                self.run();
                *elapsed += start.elapsed();
            }
        }
        self.phases = phases;
        elapsed
    }
}
