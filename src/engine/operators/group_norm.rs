//! Group normalization, with SiLU and quantization.
//!
//! Wu and He 2018, arXiv 1803.08494.
//!
//! Over a group of consecutive channels of one picture, `y = (x - mean) / sqrt(variance + eps)`,
//! times a scale and plus a shift per channel. With one group it normalizes over the whole
//! picture, with as many as there are channels each of them alone.
//!
//! The picture is read twice: for the sums of the channels, then for the result. The sums are of
//! the distance from the picture's first pixel, so that they are accurate where the mean is many
//! deviations from 0, and they are added up in fixed blocks of pixels, so that they do not depend
//! on the number of threads.

use std::ops::Range;

use super::elements::{Elements, Floats, Levels};
use super::math::silu;
use super::rows::{merge_rows, rows};
use super::{
    Activation, Element, Memory, Operand, Operator, Scratch, View, share, tile, worth_waking,
};
use crate::engine::simd::{Isa, LANES_MAX, Simd, Work};

/// A group normalization.
#[derive(Debug)]
pub struct GroupNorm {
    isa: Isa,
    input: Operand,
    output: Operand,
    groups: usize,
    eps: f64,
    scale: Vec<f32>,
    shift: Vec<f32>,
    activation: Activation,
    /// Pixels whose sums are added up before they are added to others.
    block: usize,
    /// Channels that are normalized together: whole groups.
    chunk: usize,
    split: Split,
    phases: Vec<usize>,
}

/// How the work is divided into tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    /// One phase; a task has some chunks of channels, of one picture or several.
    Channels,
    /// Two phases; a task has some blocks of the pixels of one picture. First its sums, then its
    /// results, for which each task looks at all sums.
    Pixels,
}

/// Blocks of a picture, if they have no fewer pixels than [`BLOCK_MIN`] and no more than
/// [`BLOCK_MAX`].
const BLOCKS: usize = 16;
const BLOCK_MIN: usize = 64;
const BLOCK_MAX: usize = 512;

/// Bytes of a cache line, the least that two tasks write without disturbing each other.
const LINE: usize = 64;

/// One thread takes so many channels at once that a picture's second reading finds them in a
/// second-level cache of half a megabyte, but not so few that the first reading has too little to
/// add at once.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_MIN: usize = 64;

/// A task that is smaller than this many values is not worth its start.
const TASK_VALUES: usize = 8192;

/// A picture of so many bytes is divided by pixels, as the convolutions beside it are, although
/// that takes a phase more: each core then finds its part in its own cache.
const LARGE_BYTES: usize = 256 << 10;

impl GroupNorm {
    /// A normalization of `input` in `groups` groups of channels for `threads` threads. `scale`
    /// and `shift` have one value per channel. `output` may be where `input` is.
    ///
    /// # Panics
    ///
    /// When the shapes do not fit together.
    #[expect(
        clippy::too_many_arguments,
        reason = "each of them is an attribute of the operator"
    )]
    pub fn new(
        isa: Isa,
        threads: usize,
        mut input: Operand,
        groups: usize,
        eps: f32,
        scale: &[f32],
        shift: &[f32],
        activation: Activation,
        mut output: Operand,
    ) -> Self {
        let shape = |v: &View| [v.batch, v.height, v.width, v.channels];
        assert_eq!(
            shape(&input.view),
            shape(&output.view),
            "a result of the input's shape"
        );
        let channels = input.view.channels;
        assert!(
            channels.is_multiple_of(groups),
            "{groups} groups of {channels} channels"
        );
        assert_eq!(
            [scale.len(), shift.len()],
            [channels; 2],
            "a scale and a shift per channel"
        );
        merge_rows(&mut [&mut input.view, &mut output.view]);
        let pixels = input.view.height * input.view.width;
        let block = pixels.div_ceil(BLOCKS).clamp(BLOCK_MIN, BLOCK_MAX);
        let line = LINE / input.element.bytes().min(output.element.bytes());
        let unit = least_common_multiple(channels / groups, line);
        let mut norm = Self {
            isa,
            input,
            output,
            groups,
            eps: f64::from(eps),
            scale: scale.to_vec(),
            shift: shift.to_vec(),
            activation,
            block,
            chunk: unit.min(channels),
            split: Split::Channels,
            phases: Vec::new(),
        };
        norm.divide(threads);
        norm
    }

    /// Chooses the split, and how many of the smallest chunks are a chunk.
    fn divide(&mut self, threads: usize) {
        let View {
            batch, channels, ..
        } = self.input.view;
        let values = self.pixels() * channels;
        let threads = worth_waking(threads, batch * values, tile::start_values(self.isa));
        let tasks = match threads {
            1 => 1,
            _ => (batch * values / TASK_VALUES).clamp(1, 4 * threads),
        };
        let is_large = values * self.input.element.bytes() >= LARGE_BYTES;
        if tasks > 1 && (is_large || batch * self.chunks() < 2 * threads) {
            let parts = tasks.div_ceil(batch).min(self.blocks());
            (self.split, self.phases) = (Split::Pixels, vec![batch * parts; 2]);
            return;
        }
        let at_once = match tasks {
            1 => (CHUNK_BYTES / size_of::<f32>() / self.pixels()).max(CHUNK_MIN),
            _ => batch * channels / tasks,
        };
        self.chunk = at_once.next_multiple_of(self.chunk).min(channels);
        self.phases = vec![tasks.min(batch * self.chunks())];
    }

    /// Pixels of one picture.
    fn pixels(&self) -> usize {
        self.input.view.height * self.input.view.width
    }

    fn blocks(&self) -> usize {
        self.pixels().div_ceil(self.block)
    }

    fn chunks(&self) -> usize {
        self.input.view.channels.div_ceil(self.chunk)
    }

    /// Channels, rounded up to whole vectors.
    fn padded(&self) -> usize {
        self.input.view.channels.next_multiple_of(LANES_MAX)
    }
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    (1..=b)
        .map(|times| a * times)
        .find(|multiple| multiple % b == 0)
        .unwrap_or(a * b)
}

impl Operator for GroupNorm {
    fn phases(&self) -> &[usize] {
        &self.phases
    }

    /// Two numbers per channel: their sums, then the line `a·x + b` that replaces each by its
    /// result.
    fn own_bytes(&self) -> usize {
        2 * self.padded() * size_of::<f32>()
    }

    /// For each picture its first pixel, and two sums per block and channel.
    fn shared_bytes(&self) -> usize {
        self.input.view.batch * (1 + 2 * self.blocks()) * self.padded() * size_of::<f32>()
    }

    unsafe fn run(&self, phase: usize, task: usize, memory: Memory, scratch: Scratch) {
        self.isa.run(Task {
            norm: self,
            phase,
            task,
            memory,
            scratch,
        });
    }

    fn bytes(&self) -> u64 {
        let bytes = self.input.element.bytes() + self.output.element.bytes();
        (self.input.view.pixels() * self.input.view.channels * bytes) as u64
    }

    fn describe(&self) -> String {
        let activation = self.activation.suffix();
        format!(
            "group norm {} of {}{activation}",
            self.groups, self.input.view.channels
        )
    }
}

/// One task of a normalization.
struct Task<'a> {
    norm: &'a GroupNorm,
    phase: usize,
    task: usize,
    memory: Memory,
    scratch: Scratch,
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let input = &self.norm.input;
        match input.element {
            Element::Float => self.from(simd, Floats::of(self.memory, input)),
            Element::Levels(levels) => self.from(simd, Levels::of(self.memory, input, levels)),
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn from<S: Simd, I: Elements>(&self, simd: S, input: I) {
        let output = &self.norm.output;
        match output.element {
            Element::Float => self.to(simd, input, Floats::of(self.memory, output)),
            Element::Levels(levels) => {
                self.to(simd, input, Levels::of(self.memory, output, levels));
            }
        }
    }

    #[inline(always)]
    fn to<S: Simd, I: Elements, O: Elements>(&self, simd: S, input: I, output: O) {
        let Self {
            norm, phase, task, ..
        } = *self;
        let View {
            batch, channels, ..
        } = norm.input.view;
        let (shared, own) = (
            self.scratch.shared.cast::<f32>(),
            self.scratch.own.cast::<f32>(),
        );
        let kernel = |picture: usize| {
            let stride = (1 + 2 * norm.blocks()) * norm.padded();
            let shared = shared.wrapping_add(picture * stride);
            Kernel {
                simd,
                norm,
                input,
                output,
                picture,
                shared,
                own,
            }
        };
        // SAFETY: the pictures, pixels and channels are within the operands, for which the caller
        // of the operator vouches as well as for the scratch memory; tasks of a phase have
        // different ones.
        unsafe {
            match norm.split {
                Split::Channels => {
                    let chunks = norm.chunks();
                    for unit in share(batch * chunks, norm.phases[0], task) {
                        let first = unit % chunks * norm.chunk;
                        let channels = first..(first + norm.chunk).min(channels);
                        let kernel = kernel(unit / chunks);
                        kernel.add_up(0..norm.blocks(), channels.clone());
                        kernel.fold(channels.clone());
                        kernel.apply(0..norm.pixels(), channels);
                    }
                }
                Split::Pixels => {
                    let parts = norm.phases[0] / batch;
                    let blocks = share(norm.blocks(), parts, task % parts);
                    let kernel = kernel(task / parts);
                    if phase == 0 {
                        kernel.add_up(blocks, 0..channels);
                    } else {
                        let pixels = blocks.start * norm.block..blocks.end * norm.block;
                        kernel.fold(0..channels);
                        kernel.apply(pixels.start..pixels.end.min(norm.pixels()), 0..channels);
                    }
                }
            }
        }
    }
}

/// One picture's normalization.
struct Kernel<'a, S, I, O> {
    simd: S,
    norm: &'a GroupNorm,
    input: I,
    output: O,
    picture: usize,
    /// The first pixel, then the sums of each block.
    shared: *mut f32,
    /// Sums, then the lines.
    own: *mut f32,
}

// SAFETY of the functions: blocks, pixels and channels are the picture's; channels begin at a
// multiple of `LANES_MAX`; no one else touches what is written. Whole vectors are read from and
// written to scratch memory, which is laid out for them.
impl<S: Simd, I: Elements, O: Elements> Kernel<'_, S, I, O> {
    /// Adds up the channels over each of some blocks.
    #[inline(always)]
    unsafe fn add_up(&self, blocks: Range<usize>, channels: Range<usize>) {
        for block in blocks {
            let (mut first, end) = (channels.start, channels.end);
            // SAFETY: as above.
            unsafe {
                while first + 4 * S::LANES <= end {
                    self.add_up_vectors::<4>(block, first, S::LANES);
                    first += 4 * S::LANES;
                }
                while first + 2 * S::LANES <= end {
                    self.add_up_vectors::<2>(block, first, S::LANES);
                    first += 2 * S::LANES;
                }
                while first < end {
                    self.add_up_vectors::<1>(block, first, S::LANES.min(end - first));
                    first += S::LANES;
                }
            }
        }
    }

    /// Adds up `V` vectors of channels, the last of which has `lanes`, over a block.
    #[inline(always)]
    unsafe fn add_up_vectors<const V: usize>(&self, block: usize, first: usize, lanes: usize) {
        let Self {
            simd, norm, input, ..
        } = *self;
        let view = &norm.input.view;
        let start = self.picture * norm.pixels();
        let pixels = block * norm.block..((block + 1) * norm.block).min(norm.pixels());
        let pixels = start + pixels.start..start + pixels.end;
        // SAFETY: as above.
        unsafe {
            let mut origin = [simd.splat(0.0); V];
            let at = view.pixel(start) + first;
            for (v, origin) in origin.iter_mut().enumerate() {
                *origin = input.load_steps(simd, at + v * S::LANES, lanes);
            }
            let (mut sums, mut squares) = ([simd.splat(0.0); V], [simd.splat(0.0); V]);
            for row in rows(view.width, pixels) {
                let mut at = view.pixel(row.start) + first;
                for _ in row {
                    for v in 0..V {
                        let x = input.load_steps(simd, at + v * S::LANES, lanes);
                        let x = simd.sub(x, origin[v]);
                        sums[v] = simd.add(sums[v], x);
                        squares[v] = simd.mul_add(x, x, squares[v]);
                    }
                    at += view.pixel_stride;
                }
            }
            for v in 0..V {
                let channel = first + v * S::LANES;
                if block == 0 {
                    simd.store(self.shared.add(channel), origin[v]);
                }
                let [to, to_squares] = self.sums(block);
                simd.store(to.add(channel), sums[v]);
                simd.store(to_squares.add(channel), squares[v]);
            }
        }
    }

    /// The sums of a block, and those of its squares.
    #[inline(always)]
    unsafe fn sums(&self, block: usize) -> [*mut f32; 2] {
        let padded = self.norm.padded();
        // SAFETY: the block is one of the picture's.
        [1, 2].map(|row| unsafe { self.shared.add((2 * block + row) * padded) })
    }

    /// From the sums of all blocks to the line `a·x + b` of each channel.
    #[inline(always)]
    unsafe fn fold(&self, channels: Range<usize>) {
        let Self {
            simd, norm, own, ..
        } = *self;
        // SAFETY: as above.
        unsafe {
            let lines = [own, own.add(norm.padded())];
            for channel in channels.clone().step_by(S::LANES) {
                let (mut sum, mut square) = (simd.splat(0.0), simd.splat(0.0));
                for block in 0..norm.blocks() {
                    let [from, from_squares] = self.sums(block);
                    sum = simd.add(sum, simd.load(from.add(channel)));
                    square = simd.add(square, simd.load(from_squares.add(channel)));
                }
                simd.store(lines[0].add(channel), sum);
                simd.store(lines[1].add(channel), square);
            }
            let width = norm.input.view.channels / norm.groups;
            for group in channels.step_by(width) {
                self.fold_group(group..group + width, lines);
            }
        }
    }

    /// From the sums in `lines` to the lines, for one group.
    #[inline(always)]
    unsafe fn fold_group(&self, channels: Range<usize>, lines: [*mut f32; 2]) {
        let norm = self.norm;
        let each = 1.0 / norm.pixels() as f64;
        let all = 1.0 / channels.len() as f64;
        let step = f64::from(self.input.step());
        // SAFETY: as above.
        unsafe {
            // Everything is in the input's steps and relative to the first pixel's first channel.
            let origin = f64::from(*self.shared.add(channels.start));
            let (mut mean, mut mean_square, mut variance) = (0.0, 0.0, 0.0);
            for channel in channels.clone() {
                let [sum, square] = lines.map(|line| f64::from(*line.add(channel)) * each);
                let distance = f64::from(*self.shared.add(channel)) - origin + sum;
                mean += distance;
                mean_square += distance * distance;
                variance += square - sum * sum;
            }
            let mean = mean * all;
            // The mean of the channels' variances, and the variance of their means.
            let variance = (variance + mean_square) * all - mean * mean;
            let steepness = step / (variance.max(0.0) * step * step + norm.eps).sqrt();
            for channel in channels {
                let a = (steepness * f64::from(norm.scale[channel])) as f32;
                let b = f64::from(norm.shift[channel]) - (origin + mean) * f64::from(a);
                *lines[0].add(channel) = a;
                *lines[1].add(channel) = b as f32;
            }
        }
    }

    /// Computes the results.
    #[inline(always)]
    unsafe fn apply(&self, pixels: Range<usize>, channels: Range<usize>) {
        // SAFETY: as above.
        unsafe {
            match self.norm.activation {
                Activation::None => self.apply_activated::<false>(pixels, channels),
                Activation::Silu => self.apply_activated::<true>(pixels, channels),
            }
        }
    }

    #[inline(always)]
    unsafe fn apply_activated<const SILU: bool>(
        &self,
        pixels: Range<usize>,
        channels: Range<usize>,
    ) {
        let norm = self.norm;
        let (from, to) = (&norm.input.view, &norm.output.view);
        let start = self.picture * norm.pixels();
        for row in rows(from.width, start + pixels.start..start + pixels.end) {
            let (mut at, mut to_at) = (from.pixel(row.start), to.pixel(row.start));
            for _ in row {
                let mut channel = channels.start;
                // SAFETY: as above.
                unsafe {
                    // Every number is a long chain of operations, of which a small core has to
                    // find several to be busy.
                    while channel + 4 * S::LANES <= channels.end {
                        self.apply_vectors::<4, SILU>(at, to_at, channel, S::LANES);
                        channel += 4 * S::LANES;
                    }
                    while channel + 2 * S::LANES <= channels.end {
                        self.apply_vectors::<2, SILU>(at, to_at, channel, S::LANES);
                        channel += 2 * S::LANES;
                    }
                    while channel < channels.end {
                        let lanes = S::LANES.min(channels.end - channel);
                        self.apply_vectors::<1, SILU>(at, to_at, channel, lanes);
                        channel += lanes;
                    }
                }
                at += from.pixel_stride;
                to_at += to.pixel_stride;
            }
        }
    }

    #[inline(always)]
    unsafe fn apply_vectors<const V: usize, const SILU: bool>(
        &self,
        from: usize,
        to: usize,
        channel: usize,
        lanes: usize,
    ) {
        let Self {
            simd, norm, own, ..
        } = *self;
        // SAFETY: as above.
        unsafe {
            let mut values = [simd.splat(0.0); V];
            for (v, value) in values.iter_mut().enumerate() {
                let channel = channel + v * S::LANES;
                let x = self.input.load_steps(simd, from + channel, lanes);
                let a = simd.load(own.add(channel));
                let b = simd.load(own.add(norm.padded() + channel));
                *value = simd.mul_add(x, a, b);
                if SILU {
                    *value = silu(simd, *value);
                }
            }
            for (v, value) in values.into_iter().enumerate() {
                self.output
                    .store(simd, to + channel + v * S::LANES, value, lanes);
            }
        }
    }
}

#[cfg(test)]
mod tests;
