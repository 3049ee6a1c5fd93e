//! Functions of each element, chained: one pass over memory, however many they are.
//!
//! A pass is a list of instructions for a machine whose registers are blocks of some hundred
//! values, so that what an instruction costs beside its arithmetic is divided among many values,
//! and every register stays in the first-level cache. A pass of one [`Instruction::Read`] is a
//! copy, a quantization or a dequantization: what the operands are decides.

use std::ops::Range;

use super::elements::{Elements, Floats, Levels};
use super::math::{exp, gelu, gelu_tanh, sigmoid, silu, tanh};
use super::rows::merge_pictures;
use super::{
    Element, Memory, Operand, Operator, Quantization, Scratch, View, share, tile, worth_waking,
};
use crate::engine::simd::{Isa, LANES_MAX, Simd, Work};

/// What a pass reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An operand of the output's shape. Its strides may be 0: one row for all pixels, one picture
    /// for all.
    Operand(Operand),
    /// The same with one element per pixel, for all channels. How many channels its view has does
    /// not matter.
    PerPixel(Operand),
    /// One value.
    Scalar(f32),
}

/// One step of a pass. Its result is the register with the instruction's index; the numbers in it
/// are registers before, unless they are said to be something else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Instruction {
    /// The input with this index.
    Read(usize),
    /// `a + b`
    Add(usize, usize),
    /// `a - b`
    Sub(usize, usize),
    /// `a · b`
    Mul(usize, usize),
    /// `a / b`
    Div(usize, usize),
    /// The smaller one.
    Min(usize, usize),
    /// The larger one.
    Max(usize, usize),
    /// `1 / (1 + e^-x)`
    Sigmoid(usize),
    /// `x · sigmoid(x)`
    Silu(usize),
    /// `e^x`
    Exp(usize),
    /// The square root.
    Sqrt(usize),
    /// The hyperbolic tangent.
    Tanh(usize),
    /// `x · Φ(x)`, GELU.
    GeluErf(usize),
    /// The approximation of GELU by tanh.
    GeluTanh(usize),
    /// `-x`
    Neg(usize),
    /// `1 / x`
    Reciprocal(usize),
    /// `|x|`
    Abs(usize),
    /// `max(x, 0)`
    Relu(usize),
    /// `x`, but where it is negative `x` times a slope.
    LeakyRelu(usize, f32),
    /// Quantized and dequantized.
    RoundTrip(usize, Quantization),
}

/// A pass.
#[derive(Debug)]
pub struct Elementwise {
    isa: Isa,
    inputs: Vec<Input>,
    code: Vec<Instruction>,
    output: Operand,
    /// Pixels of a block, of which there are several only if it has all their channels.
    pixels: usize,
    phases: [usize; 1],
}

/// Values of a block.
const BLOCK: usize = 512;

/// An instruction works on so many vectors at once: every number is a long chain of operations, of
/// which a small core has to find several to be busy.
const VECTORS: usize = 4;

/// Values from register to register: a copy into one writes whole vectors.
const REGISTER: usize = BLOCK + LANES_MAX;

/// A task that is smaller than this many values is not worth its start.
const TASK_VALUES: usize = 8192;

impl Elementwise {
    /// The pass that computes `output`, the result of the last instruction of `code`, for
    /// `threads` threads. No code copies the first input. An operand may be where `output` is, if
    /// it is the same.
    ///
    /// # Panics
    ///
    /// When the shapes do not fit together, or the code reads what is not there.
    pub fn new(
        isa: Isa,
        threads: usize,
        mut inputs: Vec<Input>,
        mut code: Vec<Instruction>,
        mut output: Operand,
    ) -> Self {
        if code.is_empty() {
            code.push(Instruction::Read(0));
        }
        for (register, instruction) in code.iter().enumerate() {
            let present = match *instruction {
                Instruction::Read(input) => input < inputs.len(),
                _ => instruction
                    .operands()
                    .into_iter()
                    .flatten()
                    .all(|from| from < register),
            };
            assert!(
                present,
                "{instruction:?} as number {register} of {} inputs",
                inputs.len()
            );
        }
        merge(&mut inputs, &mut output.view);
        let View {
            width, channels, ..
        } = output.view;
        let whole = VECTORS * LANES_MAX;
        let whole_pixels = (1..whole).find(|pixels| pixels * channels % whole == 0);
        let pixels = match (BLOCK / channels, whole_pixels.unwrap_or(whole)) {
            (0, _) => 1,
            (pixels, unit) if pixels > unit => pixels / unit * unit,
            (pixels, _) => pixels,
        };
        let mut pass = Self {
            isa,
            inputs,
            code,
            output,
            pixels: pixels.min(width),
            phases: [1],
        };
        let values = output.view.pixels() * channels;
        let threads = worth_waking(threads, values, tile::start_values(isa));
        if threads > 1 {
            let tasks = (values / TASK_VALUES).clamp(1, 4 * threads);
            pass.phases = [tasks.min(pass.blocks())];
        }
        pass
    }

    /// Blocks of one row, in pixels and in channels.
    fn row_blocks(&self) -> [usize; 2] {
        let View {
            width, channels, ..
        } = self.output.view;
        [width.div_ceil(self.pixels), channels.div_ceil(BLOCK)]
    }

    /// Blocks of all rows.
    fn blocks(&self) -> usize {
        let [across, deep] = self.row_blocks();
        self.output.view.batch * self.output.view.height * across * deep
    }

    fn block(&self, index: usize) -> Block {
        let View {
            width, channels, ..
        } = self.output.view;
        let [across, deep] = self.row_blocks();
        let (row, x) = (index / deep / across, index / deep % across * self.pixels);
        let channel = index % deep * BLOCK;
        Block {
            pixel: row * width + x,
            pixels: self.pixels.min(width - x),
            channel,
            channels: BLOCK.min(channels - channel),
        }
    }
}

/// Checks that the views fit and makes their rows as long as possible; pixels become channels if
/// they follow one another everywhere.
fn merge(inputs: &mut [Input], output: &mut View) {
    let shape = |view: &View| [view.batch, view.height, view.width];
    let (expected, channels) = (shape(output), output.channels);
    let mut pixels_follow = true;
    let mut views = vec![];
    for input in inputs {
        if let (Input::PerPixel(operand), 1) = (&*input, channels) {
            *input = Input::Operand(Operand {
                view: View {
                    channels,
                    ..operand.view
                },
                ..*operand
            });
        }
        match input {
            Input::Operand(operand) => {
                assert_eq!(operand.view.channels, channels, "channels of {operand:?}");
                pixels_follow &= operand.view.pixel_stride == channels;
                views.push(&mut operand.view);
            }
            Input::PerPixel(operand) => {
                pixels_follow = false;
                views.push(&mut operand.view);
            }
            Input::Scalar(_) => {}
        }
    }
    for view in &views {
        assert_eq!(shape(view), expected, "{view:?}");
    }
    pixels_follow &= output.pixel_stride == channels;
    views.push(output);
    merge_pictures(&mut views);
    // Where a row has one pixel, merging may have found it another stride.
    pixels_follow &= views.iter().all(|view| view.pixel_stride == channels);
    if pixels_follow {
        for view in views {
            (view.channels, view.width) = (view.channels * view.width, 1);
        }
    }
}

impl Instruction {
    /// The registers that it uses.
    fn operands(&self) -> [Option<usize>; 2] {
        use Instruction::*;
        match *self {
            Read(_) => [None; 2],
            Add(a, b) | Sub(a, b) | Mul(a, b) | Div(a, b) | Min(a, b) | Max(a, b) => {
                [Some(a), Some(b)]
            }
            Sigmoid(x)
            | Silu(x)
            | Exp(x)
            | Sqrt(x)
            | Tanh(x)
            | GeluErf(x)
            | GeluTanh(x)
            | Neg(x)
            | Reciprocal(x)
            | Abs(x)
            | Relu(x)
            | LeakyRelu(x, _)
            | RoundTrip(x, _) => [Some(x), None],
        }
    }
}

impl Operator for Elementwise {
    fn phases(&self) -> &[usize] {
        &self.phases
    }

    /// A register for each instruction, then the place of each one's values.
    fn own_bytes(&self) -> usize {
        self.code.len() * (REGISTER * size_of::<f32>() + size_of::<*mut f32>())
    }

    unsafe fn run(&self, _phase: usize, task: usize, memory: Memory, scratch: Scratch) {
        let [tasks] = self.phases;
        let blocks = share(self.blocks(), tasks, task);
        self.isa.run(Task {
            pass: self,
            blocks,
            memory,
            registers: scratch.own.cast(),
        });
    }

    fn bytes(&self) -> u64 {
        let View { channels, .. } = self.output.view;
        let pixels = self.output.view.pixels();
        let bytes = |operand: &Operand| operand.element.bytes();
        let read = self.inputs.iter().map(|input| match input {
            Input::Operand(operand) => pixels * channels * bytes(operand),
            Input::PerPixel(operand) => pixels * bytes(operand),
            Input::Scalar(_) => 0,
        });
        (read.sum::<usize>() + pixels * channels * bytes(&self.output)) as u64
    }

    fn describe(&self) -> String {
        let names = self.code.iter().filter_map(|instruction| {
            let name = format!("{instruction:?}");
            let end = name.find('(').unwrap_or(name.len());
            (!matches!(instruction, Instruction::Read(_))).then(|| name[..end].to_lowercase())
        });
        let names: Vec<String> = names.collect();
        if names.is_empty() {
            "copy".to_owned()
        } else {
            names.join(" ")
        }
    }
}

/// A part of the output: pixels of one row with all channels, or channels of one pixel.
#[derive(Debug, Clone, Copy)]
struct Block {
    /// The first pixel, an index into [`View::pixels`].
    pixel: usize,
    pixels: usize,
    /// The first channel.
    channel: usize,
    channels: usize,
}

impl Block {
    fn len(&self) -> usize {
        self.pixels * self.channels
    }

    /// Elements from the beginning of a view to the block's.
    #[inline(always)]
    fn at(&self, view: &View) -> usize {
        view.pixel(self.pixel) + self.channel
    }

    /// The block as it lies in a view: elements that follow one another, how often, and the
    /// stride.
    #[inline(always)]
    fn runs(&self, view: &View) -> [usize; 3] {
        if self.pixels == 1 || view.pixel_stride == self.channels {
            [self.len(), 1, 0]
        } else {
            [self.channels, self.pixels, view.pixel_stride]
        }
    }
}

/// Some blocks of a pass.
struct Task<'a> {
    pass: &'a Elementwise,
    blocks: Range<usize>,
    memory: Memory,
    registers: *mut f32,
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let code = &self.pass.code;
        for (index, instruction) in code.iter().enumerate() {
            if let Instruction::Read(input) = *instruction
                && let Input::Scalar(value) = self.pass.inputs[input]
            {
                // SAFETY: a register has so many values.
                unsafe { fill(simd, self.register(index), BLOCK, simd.splat(value)) };
            }
        }
        for index in self.blocks.clone() {
            let block = self.pass.block(index);
            // SAFETY: the block is within the operands, for which the caller of the operator
            // vouches; no other task has the same one.
            unsafe { self.compute(simd, block) };
        }
    }
}

/// Applies a function of vectors to all vectors of registers, some at a time. It is not a closure,
/// since a closure that is not inlined calls every single instruction as a function.
macro_rules! apply {
    ($simd:ident, $places:ident, $len:ident, $to:ident, |$($x:ident),+| $value:expr) => {{
        $(let $x = *$places.add($x);)+
        for at in (0..$len).step_by(VECTORS * S::LANES) {
            let mut values = [$simd.splat(0.0); VECTORS];
            for (v, value) in values.iter_mut().enumerate() {
                $(let $x = $simd.load($x.add(at + v * S::LANES));)+
                *value = $value;
            }
            for (v, value) in values.into_iter().enumerate() {
                $simd.store($to.add(at + v * S::LANES), value);
            }
        }
    }};
}

impl Task<'_> {
    fn register(&self, index: usize) -> *mut f32 {
        self.registers.wrapping_add(index * REGISTER)
    }

    /// Where the values of each register are.
    fn places(&self) -> *mut *mut f32 {
        self.register(self.pass.code.len()).cast()
    }

    /// Where the block lies in an operand, if it can be used there and need not be copied: if it
    /// has no gaps and ends with a vector.
    #[inline(always)]
    fn place<S: Simd>(&self, block: Block, operand: &Operand) -> Option<*mut f32> {
        let view = &operand.view;
        let whole = block.len().is_multiple_of(VECTORS * S::LANES) && block.runs(view)[1] == 1;
        (whole && operand.element == Element::Float).then(|| {
            self.memory
                .at::<f32>(view.offset)
                .wrapping_add(block.at(view))
        })
    }

    /// Computes a block of the output.
    ///
    /// # Safety
    ///
    /// The block is within the operands, and no one else writes it.
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, simd: S, block: Block) {
        let Self { pass, memory, .. } = *self;
        let (output, places) = (&pass.output, self.places());
        let end = self.place::<S>(block, output);
        let mut value = self.register(0);
        // SAFETY: registers have the length of a block, rounded up to whole vectors, and so has
        // what is used where it lies; the caller vouches for the operands.
        unsafe {
            for (index, &instruction) in pass.code.iter().enumerate() {
                value = self.register(index);
                if let Instruction::Read(input) = instruction {
                    value = self.read(simd, block, input, value);
                } else {
                    if let (Some(end), true) = (end, index + 1 == pass.code.len()) {
                        value = end;
                    }
                    execute(simd, instruction, places, block.len(), value);
                }
                places.add(index).write(value);
            }
            let from = Floats::at(value);
            match output.element {
                Element::Float if end == Some(value) => {}
                Element::Float => {
                    write(simd, from, Floats::of(memory, output), block, &output.view);
                }
                Element::Levels(levels) => {
                    write(
                        simd,
                        from,
                        Levels::of(memory, output, levels),
                        block,
                        &output.view,
                    );
                }
            }
        }
    }

    /// Where the values of an input are: where it lies, or else in `register`, into which they
    /// are copied.
    ///
    /// # Safety
    ///
    /// As for [`Task::compute`].
    #[inline(always)]
    unsafe fn read<S: Simd>(
        &self,
        simd: S,
        block: Block,
        input: usize,
        register: *mut f32,
    ) -> *mut f32 {
        let memory = self.memory;
        // SAFETY: as the caller says; a register takes a whole vector behind its end.
        unsafe {
            match &self.pass.inputs[input] {
                Input::Operand(operand) => {
                    if let Some(place) = self.place::<S>(block, operand) {
                        return place;
                    }
                    let (at, runs) = (block.at(&operand.view), block.runs(&operand.view));
                    match operand.element {
                        Element::Float => {
                            read(simd, Floats::of(memory, operand), at, runs, register);
                        }
                        Element::Levels(levels) => {
                            let from = Levels::of(memory, operand, levels);
                            read(simd, from, at, runs, register);
                        }
                    }
                }
                Input::PerPixel(operand) => match operand.element {
                    Element::Float => {
                        repeat(
                            simd,
                            Floats::of(memory, operand),
                            block,
                            &operand.view,
                            register,
                        );
                    }
                    Element::Levels(levels) => {
                        let from = Levels::of(memory, operand, levels);
                        repeat(simd, from, block, &operand.view, register);
                    }
                },
                // The register holds it since the task began.
                Input::Scalar(_) => {}
            }
        }
        register
    }
}

/// Computes an instruction that is no [`Instruction::Read`]; `places` says where the values of the
/// registers are.
///
/// # Safety
///
/// All that it uses have `len` values, rounded up to whole vectors.
#[inline(always)]
unsafe fn execute<S: Simd>(
    simd: S,
    instruction: Instruction,
    places: *const *mut f32,
    len: usize,
    to: *mut f32,
) {
    use Instruction::*;
    let zero = simd.splat(0.0);
    // SAFETY: as the caller says.
    unsafe {
        match instruction {
            Read(_) => {}
            Add(a, b) => apply!(simd, places, len, to, |a, b| simd.add(a, b)),
            Sub(a, b) => apply!(simd, places, len, to, |a, b| simd.sub(a, b)),
            Mul(a, b) => apply!(simd, places, len, to, |a, b| simd.mul(a, b)),
            Div(a, b) => apply!(simd, places, len, to, |a, b| simd.div(a, b)),
            Min(a, b) => apply!(simd, places, len, to, |a, b| simd.min(a, b)),
            Max(a, b) => apply!(simd, places, len, to, |a, b| simd.max(a, b)),
            Sigmoid(x) => apply!(simd, places, len, to, |x| sigmoid(simd, x)),
            Silu(x) => apply!(simd, places, len, to, |x| silu(simd, x)),
            Exp(x) => apply!(simd, places, len, to, |x| exp(simd, x)),
            Sqrt(x) => {
                let from = *places.add(x);
                for i in 0..len {
                    *to.add(i) = (*from.add(i)).sqrt();
                }
            }
            Tanh(x) => apply!(simd, places, len, to, |x| tanh(simd, x)),
            GeluErf(x) => apply!(simd, places, len, to, |x| gelu(simd, x)),
            GeluTanh(x) => apply!(simd, places, len, to, |x| gelu_tanh(simd, x)),
            Neg(x) => apply!(simd, places, len, to, |x| simd.mul(x, simd.splat(-1.0))),
            Reciprocal(x) => apply!(simd, places, len, to, |x| simd.div(simd.splat(1.0), x)),
            Abs(x) => apply!(simd, places, len, to, |x| simd.max(x, simd.sub(zero, x))),
            Relu(x) => apply!(simd, places, len, to, |x| simd.max(zero, x)),
            LeakyRelu(x, slope) => {
                let slope = simd.splat(slope);
                apply!(simd, places, len, to, |x| {
                    simd.mul_add(simd.min(zero, x), slope, simd.max(zero, x))
                });
            }
            RoundTrip(
                x,
                Quantization {
                    scale,
                    zero: offset,
                },
            ) => {
                let (steps, scale) = (simd.splat(scale.recip()), simd.splat(scale));
                let (offset, highest) = (simd.splat(offset as f32), simd.splat(255.0));
                apply!(simd, places, len, to, |x| {
                    let level = simd.round(simd.mul_add(x, steps, offset));
                    let level = simd.min(highest, simd.max(zero, level));
                    simd.mul(simd.sub(level, offset), scale)
                });
            }
        }
    }
}

/// Copies runs of elements, `[elements, runs, stride]` from `at` on, one behind the other.
///
/// # Safety
///
/// The elements can be read; `to` takes all of them, and a vector.
#[inline(always)]
unsafe fn read<S: Simd, E: Elements>(
    simd: S,
    from: E,
    mut at: usize,
    [elements, runs, stride]: [usize; 3],
    mut to: *mut f32,
) {
    for _ in 0..runs {
        let mut done = 0;
        // SAFETY: as the caller says; what is too much is overwritten by the next run.
        unsafe {
            while done + S::LANES <= elements {
                simd.store(to.add(done), from.load(simd, at + done, S::LANES));
                done += S::LANES;
            }
            if done < elements {
                simd.store(to.add(done), from.load(simd, at + done, elements - done));
            }
            to = to.add(elements);
        }
        at += stride;
    }
}

/// Repeats one element per pixel of a block as often as it has channels.
///
/// # Safety
///
/// As for [`read`].
#[inline(always)]
unsafe fn repeat<S: Simd, E: Elements>(
    simd: S,
    from: E,
    block: Block,
    view: &View,
    mut to: *mut f32,
) {
    let mut at = view.pixel(block.pixel);
    for _ in 0..block.pixels {
        let mut number = 0.0;
        // SAFETY: as the caller says.
        unsafe {
            simd.store_part(&mut number, from.load(simd, at, 1), 1);
            fill(simd, to, block.channels, simd.splat(number));
            to = to.add(block.channels);
        }
        at += view.pixel_stride;
    }
}

/// Writes a value `len` times, rounded up to whole vectors.
///
/// # Safety
///
/// `to` takes as many.
#[inline(always)]
unsafe fn fill<S: Simd>(simd: S, to: *mut f32, len: usize, value: S::F32) {
    for at in (0..len).step_by(S::LANES) {
        // SAFETY: as the caller says.
        unsafe { simd.store(to.add(at), value) };
    }
}

/// Writes a block's values into a view.
///
/// # Safety
///
/// `from` has as many, and no one else touches the block.
#[inline(always)]
unsafe fn write<S: Simd, E: Elements>(simd: S, from: Floats, to: E, block: Block, view: &View) {
    let [elements, runs, stride] = block.runs(view);
    let (mut from_at, mut at) = (0, block.at(view));
    for _ in 0..runs {
        let mut done = 0;
        // SAFETY: as the caller says.
        unsafe {
            while done + S::LANES <= elements {
                let value = from.load(simd, from_at + done, S::LANES);
                to.store(simd, at + done, value, S::LANES);
                done += S::LANES;
            }
            if done < elements {
                let value = from.load(simd, from_at + done, elements - done);
                to.store(simd, at + done, value, elements - done);
            }
        }
        from_at += elements;
        at += stride;
    }
}

#[cfg(test)]
mod tests;
