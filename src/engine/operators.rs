//! What a network is computed with: channels-last, in one block of memory.
//!
//! An [`Operator`] is made once, with its weights packed and its geometry fixed, and run once per
//! evaluation. It knows nothing of graphs: where its operands lie is a [`View`] into the
//! [`Memory`] that the program lays out.

pub mod attention;
pub mod conv;
pub mod copy;
mod elements;
pub mod elementwise;
mod epilogue;
#[cfg(test)]
mod fixture;
pub mod group_norm;
mod math;
pub mod matmul;
pub mod qconv;
mod rows;
pub mod softmax;
mod tile;
pub mod upsampled;
mod window;
pub mod winograd;

use std::ops::Range;

/// Bytes at which every buffer in a [`Memory`] begins: a cache line, and any vector.
pub const ALIGNMENT: usize = 64;

/// A picture, a sequence (height 1) or a vector (height and width 1) in memory: channels are
/// consecutive, everything else has a stride. Strides and shape are in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Bytes from the beginning of the [`Memory`].
    pub offset: usize,
    /// Pictures.
    pub batch: usize,
    /// Rows of a picture.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Values of a pixel.
    pub channels: usize,
    /// From one picture to the next.
    pub batch_stride: usize,
    /// From one row to the next.
    pub row_stride: usize,
    /// From one pixel to the next: `channels`, or more where the picture is a part of another.
    pub pixel_stride: usize,
}

impl View {
    /// Pixels of all pictures.
    pub fn pixels(&self) -> usize {
        self.batch * self.height * self.width
    }

    /// Elements from the view's beginning to the pixel `index` of [`View::pixels`].
    #[inline(always)]
    pub fn pixel(&self, index: usize) -> usize {
        let (row, x) = (index / self.width, index % self.width);
        let (batch, y) = (row / self.height, row % self.height);
        batch * self.batch_stride + y * self.row_stride + x * self.pixel_stride
    }
}

/// How levels 0..=255 stand for numbers: `scale · (level - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    /// The step between two levels.
    pub scale: f32,
    /// The level that stands for 0. (An i8 zero point of the file plus 128.)
    pub zero: i32,
}

/// What the elements of an operand are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Element {
    /// f32
    Float,
    /// One byte, as [`crate::engine::simd::Simd`] stores levels.
    Levels(Quantization),
}

impl Element {
    /// Bytes of one.
    fn bytes(self) -> usize {
        match self {
            Self::Float => size_of::<f32>(),
            Self::Levels(_) => 1,
        }
    }
}

/// An operand that may be quantized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operand {
    /// Where it lies.
    pub view: View,
    /// What it consists of.
    pub element: Element,
}

/// What follows a sum of products before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x · sigmoid(x)`
    Silu,
}

impl Activation {
    /// As it stands at the end of [`Operator::describe`].
    fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Silu => " + silu",
        }
    }
}

/// The end of a convolution or a matrix product, fused into it:
/// `store(activation(sum · (int8: scale) + bias + added + residual))`.
#[derive(Debug, Clone)]
pub struct Epilogue {
    /// One per output channel.
    pub bias: Vec<f32>,
    /// A vector of f32, one per picture (or one for all: batch 1) and output channel: the time
    /// embedding.
    pub added: Option<View>,
    /// An operand of the output's shape.
    pub residual: Option<Operand>,
    /// The activation.
    pub activation: Activation,
    /// Where the result goes, and as what.
    pub output: Operand,
}

/// The block of memory in which all buffers of a program lie.
///
/// Operators run in several threads at once; that none writes what another one reads or writes is
/// the program's order of phases and each operator's division into tasks.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    base: *mut u8,
}

// SAFETY: a `Memory` is only an address; who follows it vouches for what happens there.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// The block that begins at `base`, aligned to [`ALIGNMENT`].
    pub fn new(base: *mut u8) -> Self {
        Self { base }
    }

    /// The element type `T` at `offset` bytes.
    #[inline(always)]
    pub fn at<T>(&self, offset: usize) -> *mut T {
        self.base.wrapping_add(offset).cast()
    }
}

/// Working memory of one task: `own` belongs to the thread, `shared` to the operator for as long
/// as its phases run. Both begin at [`ALIGNMENT`].
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    /// [`Operator::own_bytes`] of the thread's own.
    pub own: *mut u8,
    /// [`Operator::shared_bytes`] that all threads see.
    pub shared: *mut u8,
}

/// Which of `items` are the task `task` of `tasks`: almost equally many for each.
fn share(items: usize, tasks: usize, task: usize) -> Range<usize> {
    items * task / tasks..items * (task + 1) / tasks
}

/// How many of `threads` are worth waking for so much `work`: a phase in which they lose `start`
/// each is done soonest by one of them, if it is short.
fn worth_waking(threads: usize, work: usize, start: usize) -> usize {
    if work < 2 * start { 1 } else { threads }
}

/// One step of a program.
pub trait Operator: Send + Sync + std::fmt::Debug {
    /// The number of tasks of each phase. Phases run one after another; the tasks of a phase run
    /// in any order, on any thread, at once. The result does not depend on any of it.
    fn phases(&self) -> &[usize];

    /// Bytes of scratch memory that each thread needs.
    fn own_bytes(&self) -> usize {
        0
    }

    /// Bytes of scratch memory that all threads share.
    fn shared_bytes(&self) -> usize {
        0
    }

    /// Runs one task.
    ///
    /// # Safety
    ///
    /// The operator's views lie in `memory`, `scratch` has the bytes that the operator asked for,
    /// and no one else writes the inputs or touches the outputs meanwhile.
    unsafe fn run(&self, phase: usize, task: usize, memory: Memory, scratch: Scratch);

    /// Multiplications of an evaluation, as a direct computation would do them.
    fn macs(&self) -> u64 {
        0
    }

    /// Bytes of operands and weights that an evaluation reads and writes, each once.
    fn bytes(&self) -> u64;

    /// What it is, in a profile: "conv 3x3 winograd 4x4 + silu".
    fn describe(&self) -> String;
}
