//! Convolutions of levels with int8 weights, and with a 1x1 kernel linear layers.
//!
//! The sums are exact, in i32: of stored bytes times weights, since that is what cores multiply,
//! plus what the zero points add to such a sum, which only the weights decide. As in
//! [`super::conv`] a tile of the product gets a list of pointers, one per tap and pixel, so that
//! padding, stride and upsampling cost nothing in the inner loop.

use std::ops::Range;

use super::conv::Geometry;
use super::epilogue::{Place, finish};
use super::window::Window;
use super::{
    ALIGNMENT, Element, Epilogue, Memory, Operand, Operator, Scratch, share, tile, worth_waking,
};
use crate::engine::aligned::Aligned;
use crate::engine::simd::{Int8Simd, Int8Work, Isa, QScale};

/// Pixels whose pointers are found at once, and which use a panel of weights one after the other.
///
/// A core multiplies at most 128 pairs a cycle: with 64 pixels it needs two bytes of weights a
/// cycle, which a cache shared by all cores delivers as well, so that one order of loops suits
/// small and large weights.
const BLOCK_PIXELS: usize = 64;

/// Multiplications below which a task is not worth its start.
const TASK_MACS: usize = 1 << 17;

/// A quantized convolution with everything that follows it.
#[derive(Debug)]
pub struct QConv {
    isa: Isa,
    tile: Tile,
    window: Window,
    weights: Panels,
    /// A pixel of which every level is the one that stands for 0: what lies beyond the edge.
    outside: Vec<u8>,
    epilogue: Epilogue,
    /// Into how many parts the tiles and the panels are divided.
    parts: [usize; 2],
    phases: [usize; 1],
}

impl QConv {
    /// A convolution of `input`, which must consist of [`Element::Levels`], for `threads` threads.
    ///
    /// - `upsample`: 1, or 2 to double every pixel of `input` in both directions first.
    /// - `weights`: OIHW, where O and I are the channels of the output and of the input.
    /// - `weight_zeros`: for each output what stands for 0 among its weights, if it is not 0.
    /// - `weight_scales`: for each output the step between two weights, or one for all.
    ///
    /// # Panics
    ///
    /// When the shapes do not fit together, or the sums might not fit in an i32.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a quantized convolution consists of"
    )]
    pub fn new(
        isa: Isa,
        threads: usize,
        input: Operand,
        geometry: Geometry,
        upsample: usize,
        weights: &[i8],
        weight_zeros: Option<&[i32]>,
        weight_scales: &[f32],
        epilogue: Epilogue,
    ) -> Self {
        let Element::Levels(levels) = input.element else {
            panic!("a quantized convolution of {:?}", input.element)
        };
        let output = epilogue.output.view;
        let window = Window::new(input.view, geometry, upsample, output);
        assert_eq!(
            epilogue.bias.len(),
            output.channels,
            "one bias per output channel"
        );
        // Of int8 a core multiplies up to four times as many as of f32.
        let start = 4 * tile::start_macs(isa);
        let tile = isa.run_int8(TileOf);
        let size = [output.channels, input.view.channels, geometry.taps()];
        let zero = levels.zero - tile.level_bias;
        let steps: Vec<f32> = weight_scales
            .iter()
            .map(|step| step * levels.scale)
            .collect();
        let weights = Panels::pack(tile, size, weights, zero, weight_zeros, &steps);
        let tiles = output.pixels().div_ceil(tile.rows);
        let macs = output.pixels() * size.iter().product::<usize>();
        let threads = worth_waking(threads, macs, start);
        let parts = divide(threads, macs, [tiles, tile.block()], weights.count);
        Self {
            isa,
            tile,
            window,
            weights,
            outside: vec![zero as u8; input.view.channels.next_multiple_of(tile.group)],
            epilogue,
            parts,
            phases: [parts[0] * parts[1]],
        }
    }

    /// Bytes of a block's pointers, `[tile][tap][row]`.
    fn pointer_bytes(&self) -> usize {
        let pointers = self.tile.block() * self.weights.taps * self.tile.rows;
        (pointers * size_of::<*const u8>()).next_multiple_of(ALIGNMENT)
    }
}

/// Into how many parts tiles and panels are divided for `threads` threads: about four tasks for
/// each thread. A part has no less than the `block` tiles that use a panel one after the other,
/// if the panels suffice.
fn divide(threads: usize, macs: usize, [tiles, block]: [usize; 2], panels: usize) -> [usize; 2] {
    if threads == 1 {
        return [1, 1];
    }
    let tasks = (4 * threads).min(macs / TASK_MACS).max(1);
    let panel_parts = tasks.div_ceil(tiles.div_ceil(block)).min(panels);
    [tasks.div_ceil(panel_parts).min(tiles), panel_parts]
}

/// The shape of [`Int8Simd::qtile`] for an instruction set.
#[derive(Debug, Clone, Copy)]
struct Tile {
    rows: usize,
    columns: usize,
    group: usize,
    level_bias: i32,
}

impl Tile {
    /// Tiles of a block of pixels.
    fn block(self) -> usize {
        BLOCK_PIXELS.div_ceil(self.rows)
    }
}

/// Asks an instruction set for its [`Tile`].
struct TileOf;

impl Int8Work for TileOf {
    type Output = Tile;

    #[inline(always)]
    fn run<S: Int8Simd>(self, _simd: S) -> Tile {
        let (rows, columns) = S::QTILE;
        Tile {
            rows,
            columns,
            group: S::QGROUP,
            level_bias: S::LEVEL_BIAS,
        }
    }
}

/// Weights in the order in which [`Int8Simd::qtile`] reads them, in panels of as many outputs as a tile
/// has columns; what is behind the last output or the last channel of the input is 0.
///
/// Asymmetric weights, which are rare, become sums of i8: all taps follow again for the second terms,
/// and once more for the third ones of a difference of 255.
#[derive(Debug)]
struct Panels {
    /// Panels.
    count: usize,
    /// Bytes of a panel.
    bytes: usize,
    /// Taps of the kernel, times the terms of a weight.
    taps: usize,
    /// `[panel][tap][group][column][k in group]`
    weights: Aligned<i8>,
    /// `[panel][column]`: what turns a sum over stored bytes into one over `level - zero`.
    start: Vec<i32>,
    /// `[panel][column]`: what such a sum is multiplied by.
    steps: Vec<f32>,
}

/// How many i8 a weight of -255..=255 is the sum of.
fn terms(weight: i32) -> usize {
    (weight.unsigned_abs() as usize)
        .div_ceil(if weight < 0 { 128 } else { 127 })
        .max(1)
}

impl Panels {
    /// Packs `weights`, which are `[outputs][k][taps]`, for bytes of which `zero` stands for 0.
    fn pack(
        tile: Tile,
        [outputs, k, taps]: [usize; 3],
        weights: &[i8],
        zero: i32,
        zeros: Option<&[i32]>,
        steps: &[f32],
    ) -> Self {
        assert_eq!(
            weights.len(),
            outputs * k * taps,
            "weights of {outputs} x {k} x {taps}"
        );
        assert!(
            [1, outputs].contains(&steps.len()),
            "{} scales of {outputs}",
            steps.len()
        );
        assert!(
            zeros.is_none_or(|zeros| zeros.len() == outputs),
            "zero points of {outputs}"
        );
        let zero_of = |output: usize| zeros.map_or(0, |zeros| zeros[output]);
        let kernels = |output: usize| &weights[output * k * taps..][..k * taps];
        let terms = |output| {
            let differences = kernels(output)
                .iter()
                .map(|&w| i32::from(w) - zero_of(output));
            differences.map(terms).max().unwrap_or(1)
        };
        // An i8 is one, as it is.
        let terms = match zeros {
            None => 1,
            Some(_) => (0..outputs).map(terms).max().unwrap_or(1),
        };
        assert!(
            k * taps * terms <= i32::MAX as usize / (255 * 128),
            "{k} x {taps} products"
        );

        let (count, groups) = (outputs.div_ceil(tile.columns), k.div_ceil(tile.group));
        let bytes = terms * taps * groups * tile.columns * tile.group;
        let tap_bytes = groups * tile.columns * tile.group;
        let mut packed = Aligned::zeroed(count * bytes);
        let mut start = vec![0; count * tile.columns];
        for (output, start) in start.iter_mut().enumerate().take(outputs) {
            let (panel, column) = (output / tile.columns, output % tile.columns);
            let mut sum = 0;
            for (group, kernels) in kernels(output).chunks(tile.group * taps).enumerate() {
                let first = panel * bytes + (group * tile.columns + column) * tile.group;
                for tap in 0..taps {
                    let column = kernels[tap..].iter().step_by(taps);
                    for (i, &weight) in column.enumerate() {
                        let mut rest = i32::from(weight) - zero_of(output);
                        sum += rest;
                        for term in 0..terms {
                            let at = first + (term * taps + tap) * tap_bytes + i;
                            packed[at] = rest.clamp(-128, 127) as i8;
                            rest -= i32::from(packed[at]);
                        }
                    }
                }
            }
            *start = -zero * sum;
        }
        let step = |column| {
            if column < outputs {
                steps[column % steps.len()]
            } else {
                0.0
            }
        };
        let steps = (0..count * tile.columns).map(step).collect();
        Self {
            count,
            bytes,
            taps: terms * taps,
            weights: packed,
            start,
            steps,
        }
    }

    /// The weights of a panel.
    #[inline(always)]
    fn panel(&self, panel: usize) -> *const i8 {
        self.weights.as_ptr().wrapping_add(panel * self.bytes)
    }

    /// What makes numbers of the sums of a panel of `columns`.
    #[inline(always)]
    fn scale(&self, panel: usize, columns: usize) -> QScale {
        let first = panel * columns;
        QScale {
            start: self.start[first..].as_ptr(),
            step: self.steps[first..].as_ptr(),
        }
    }
}

impl Operator for QConv {
    fn phases(&self) -> &[usize] {
        &self.phases
    }

    fn own_bytes(&self) -> usize {
        self.pointer_bytes() + self.tile.rows * self.tile.columns * size_of::<f32>()
    }

    unsafe fn run(&self, _phase: usize, task: usize, memory: Memory, scratch: Scratch) {
        let [tile_parts, panel_parts] = self.parts;
        let tiles = self.epilogue.output.view.pixels().div_ceil(self.tile.rows);
        self.isa.run_int8(Task {
            conv: self,
            tiles: share(tiles, tile_parts, task / panel_parts),
            panels: share(self.weights.count, panel_parts, task % panel_parts),
            memory,
            pointers: scratch.own.cast(),
            sums: scratch.own.wrapping_add(self.pointer_bytes()).cast(),
        });
    }

    fn macs(&self) -> u64 {
        let output = &self.epilogue.output.view;
        let taps = self.window.geometry.taps() * self.window.input.channels;
        (output.pixels() * output.channels * taps) as u64
    }

    fn bytes(&self) -> u64 {
        let input = self.window.input.pixels() * self.window.input.channels;
        (input + size_of_val(&*self.weights.weights)) as u64 + self.epilogue.bytes()
    }

    fn describe(&self) -> String {
        let [height, width] = self.window.geometry.kernel;
        let activation = self.epilogue.activation.suffix();
        format!("int8 conv {height}x{width}{activation}")
    }
}

/// One task of a convolution: some tiles of pixels times some panels of weights.
struct Task<'a> {
    conv: &'a QConv,
    tiles: Range<usize>,
    panels: Range<usize>,
    memory: Memory,
    /// Room for the pointers of a block's tiles, `[tile][tap][row]`.
    pointers: *mut *const u8,
    /// Room for a tile's sums.
    sums: *mut f32,
}

impl Int8Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Int8Simd>(self, simd: S) {
        let block = self.conv.tile.block();
        for first in self.tiles.clone().step_by(block) {
            let block = first..(first + block).min(self.tiles.end);
            // SAFETY: the tiles and the panels are the convolution's; that nobody else has them
            // and that the scratch memory is large enough is the caller's promise to
            // `Operator::run`.
            unsafe {
                match S::QTILE.0 {
                    4 => self.find::<S, 4>(block.clone()),
                    6 => self.find::<S, 6>(block.clone()),
                    8 => self.find::<S, 8>(block.clone()),
                    rows => unreachable!("no tile has {rows} rows"),
                }
                for panel in self.panels.clone() {
                    self.multiply(simd, block.clone(), panel);
                }
            }
        }
    }
}

impl Task<'_> {
    /// The output pixels of a tile.
    #[inline(always)]
    fn pixels<S: Int8Simd>(&self, tile: usize) -> Range<usize> {
        let (rows, pixels) = (S::QTILE.0, self.conv.epilogue.output.view.pixels());
        tile * rows..((tile + 1) * rows).min(pixels)
    }

    /// Finds the pixels that a block's tiles of `R` rows are made of.
    ///
    /// # Safety
    ///
    /// There is room for a block.
    #[inline(always)]
    unsafe fn find<S: Int8Simd, const R: usize>(&self, block: Range<usize>) {
        let QConv {
            window,
            outside,
            weights,
            epilogue,
            ..
        } = self.conv;
        let input = self.memory.at::<u8>(window.input.offset).cast_const();
        let taps = window.geometry.taps();
        let mut place = Place::of(&epilogue.output.view, block.start * R);
        for (i, tile) in block.enumerate() {
            let count = self.pixels::<S>(tile).len();
            // SAFETY: there is room for the pointers of a block of tiles.
            unsafe {
                let to = self
                    .pointers
                    .add(i * weights.taps * R)
                    .cast::<[*const u8; R]>();
                window.find(input, outside.as_ptr(), &mut place, count, to);
                // Every term of a weight is multiplied with the same pixels.
                for again in (taps..weights.taps).step_by(taps) {
                    to.add(again).copy_from_nonoverlapping(to, taps);
                }
            }
        }
    }

    /// Multiplies a block of tiles with a panel of weights, and finishes them.
    ///
    /// # Safety
    ///
    /// [`Task::find`] has found the block's pixels; for the rest see [`Operator::run`].
    #[inline(always)]
    unsafe fn multiply<S: Int8Simd>(&self, simd: S, block: Range<usize>, panel: usize) {
        let QConv {
            window,
            weights,
            epilogue,
            ..
        } = self.conv;
        let (rows, columns) = S::QTILE;
        let (taps, groups) = (weights.taps, window.input.channels.div_ceil(S::QGROUP));
        let channels = panel * columns..((panel + 1) * columns).min(epilogue.output.view.channels);
        let (w, scale) = (weights.panel(panel), weights.scale(panel, columns));
        for (i, tile) in block.enumerate() {
            // SAFETY: tile and panel are within the block and the weights.
            unsafe {
                let pointers = self.pointers.add(i * taps * rows).cast_const();
                simd.qtile_scaled(pointers, taps, groups, w, scale, self.sums);
                let (pixels, channels) = (self.pixels::<S>(tile), channels.clone());
                finish(
                    simd,
                    epilogue,
                    self.memory,
                    self.sums,
                    columns,
                    pixels,
                    channels,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
