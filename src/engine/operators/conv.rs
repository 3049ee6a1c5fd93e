//! Convolutions of f32, and with a 1x1 kernel linear layers.
//!
//! Every output pixel is a sum over the kernel's taps: a pixel of the input times a matrix. The
//! pixels stay where they are: a tile of the product gets a list of pointers, one per tap and
//! output pixel, in which a tap beyond the picture's edge points at zeros (the indirect
//! convolution of Dukhan 2019, arXiv 1907.02129). Nothing is copied and nothing is padded.
//!
//! A panel of weights, a tile's width of output channels, is used by a block of tiles one after
//! the other, so that it comes from far away once for all of them; meanwhile the weights that
//! follow it are on their way.

use std::ops::Range;

use super::epilogue::{Place, finish};
use super::tile::{self, Ahead, NARROW, Operands, Panels};
use super::window::Window;
use super::{Epilogue, Memory, Operator, Scratch, View, share, worth_waking};
use crate::engine::simd::{Isa, Simd, Work};

/// A kernel's size, its steps and the zeros around the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps down and to the right, in input pixels.
    pub stride: [usize; 2],
    /// Zeros above, to the left, below and to the right.
    pub padding: [usize; 4],
}

impl Geometry {
    /// A 1x1 kernel: a linear layer.
    pub const POINT: Self = Self {
        kernel: [1, 1],
        stride: [1, 1],
        padding: [0; 4],
    };

    /// A 3x3 kernel that leaves height and width as they are.
    pub const SAME: Self = Self {
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1; 4],
    };

    /// Height and width of the output for an input of the height and width `input`.
    ///
    /// # Panics
    ///
    /// When the kernel is larger than the padded input.
    pub fn output(&self, input: [usize; 2]) -> [usize; 2] {
        std::array::from_fn(|axis| {
            let padded = input[axis] + self.padding[axis] + self.padding[axis + 2];
            assert!(self.kernel[axis] <= padded, "{self:?} on {input:?}");
            (padded - self.kernel[axis]) / self.stride[axis] + 1
        })
    }

    /// Elements of the kernel.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// Tiles that use a panel of weights one after the other. With sixteen, weights are needed at a
/// byte a cycle or less, which any memory can deliver.
const BLOCK_TILES: usize = 16;

/// Weights that a block's tiles use before they go on to the next, in bytes: a part of the
/// second-level cache, with room for those that are being fetched, and for the pixels.
const CHUNK_BYTES: usize = 128 << 10;

/// Multiplications below which a task is not worth its start.
const TASK_MACS: usize = 1 << 16;

/// A convolution with everything that follows it.
#[derive(Debug)]
pub struct Conv {
    isa: Isa,
    window: Window,
    epilogue: Epilogue,
    weights: Panels,
    /// A pixel of zeros: what lies beyond the edge.
    outside: Vec<f32>,
    /// Output pixels of a tile.
    rows: usize,
    /// Output channels of a tile: a panel's, or [`NARROW`].
    columns: usize,
    /// Tiles whose pointers are found at once, [`BLOCK_TILES`] or all.
    block: usize,
    /// Taps whose weights are [`CHUNK_BYTES`] or less, or 1.
    chunk: usize,
    /// Into how many parts the tiles and the panels are divided.
    parts: [usize; 2],
    phases: [usize; 1],
}

impl Conv {
    /// A convolution of `input` for `threads` threads; `weights` are OIHW, where O and I are the
    /// channels of the output and of the input.
    ///
    /// # Panics
    ///
    /// When the shapes do not fit together.
    pub fn new(
        isa: Isa,
        threads: usize,
        input: View,
        geometry: Geometry,
        weights: &[f32],
        epilogue: Epilogue,
    ) -> Self {
        let tasks = if threads == 1 { 1 } else { 4 * threads };
        Self::with_tasks(isa, tasks, input, geometry, weights, epilogue)
    }

    /// [`Conv::new`] for `tasks` tasks, or fewer if there is little to do.
    pub(super) fn with_tasks(
        isa: Isa,
        tasks: usize,
        input: View,
        geometry: Geometry,
        weights: &[f32],
        epilogue: Epilogue,
    ) -> Self {
        let output = epilogue.output.view;
        let (outputs, k, taps) = (output.channels, input.channels, geometry.taps());
        assert_eq!(
            weights.len(),
            outputs * k * taps,
            "weights of {outputs} x {k} x {taps}"
        );
        assert_eq!(epilogue.bias.len(), outputs, "one bias per output channel");
        let window = Window::new(input, geometry, 1, output);
        let [_, columns] = tile::shape(isa);
        let shape = [outputs, k, taps];
        let weight = |output, i, tap| weights[(output * k + i) * taps + tap];
        let rows = tile::height(isa, output.pixels());
        let (columns, weights) = if outputs <= NARROW && k >= tile::lanes(isa) {
            (NARROW, Panels::pack_narrow(isa, shape, weight))
        } else if rows >= tile::HALF_ROWS && tile::halves(isa, k) {
            (columns, Panels::pack_half(isa, shape, weight))
        } else {
            (columns, Panels::pack(isa, shape, weight))
        };
        let tiles = output.pixels().div_ceil(rows);
        let macs = output.pixels() * outputs * k * taps;
        let tasks = worth_waking(tasks, macs, tile::start_macs(isa));
        let pixel_bytes = input.pixels() * k * size_of::<f32>();
        let parts = divide(
            tasks,
            macs,
            [tiles, weights.count()],
            [pixel_bytes, weights.bytes()],
        );
        let chunk = CHUNK_BYTES / (k * columns * size_of::<f32>());
        Self {
            isa,
            window,
            epilogue,
            weights,
            outside: vec![0.0; k],
            rows,
            columns,
            block: BLOCK_TILES.min(tiles),
            chunk: if columns == NARROW {
                taps
            } else {
                chunk.clamp(1, taps)
            },
            parts,
            phases: [parts[0] * parts[1]],
        }
    }

    /// The convolution's input.
    pub(super) fn input(&self) -> &View {
        &self.window.input
    }
}

/// Into how many parts `tiles` and `panels` are divided for `tasks` tasks. What is larger, the
/// pixels or the weights, is divided first, so that it is read by one task only.
fn divide(
    tasks: usize,
    macs: usize,
    [tiles, panels]: [usize; 2],
    [pixel_bytes, weight_bytes]: [usize; 2],
) -> [usize; 2] {
    let tasks = tasks.min(macs / TASK_MACS).max(1);
    if weight_bytes > pixel_bytes {
        let panel_parts = panels.min(tasks);
        [tasks.div_ceil(panel_parts).min(tiles), panel_parts]
    } else {
        let tile_parts = tiles.min(tasks);
        [tile_parts, tasks.div_ceil(tile_parts).min(panels)]
    }
}

impl Operator for Conv {
    fn phases(&self) -> &[usize] {
        &self.phases
    }

    fn own_bytes(&self) -> usize {
        let pointers = self.window.geometry.taps() * self.rows * size_of::<*const f32>();
        self.block * (self.rows * self.columns * size_of::<f32>() + pointers)
    }

    unsafe fn run(&self, _phase: usize, task: usize, memory: Memory, scratch: Scratch) {
        let [_, panel_parts] = self.parts;
        let tiles = self.epilogue.output.view.pixels().div_ceil(self.rows);
        self.isa.run(Task {
            conv: self,
            tiles: share(tiles, self.parts[0], task / panel_parts),
            panels: share(self.weights.count(), panel_parts, task % panel_parts),
            memory,
            scratch,
        });
    }

    fn macs(&self) -> u64 {
        let output = &self.epilogue.output.view;
        let values = output.pixels() * output.channels;
        (values * self.window.input.channels * self.window.geometry.taps()) as u64
    }

    fn bytes(&self) -> u64 {
        let input = self.input().pixels() * self.input().channels * size_of::<f32>();
        (input + self.weights.bytes()) as u64 + self.epilogue.bytes()
    }

    fn describe(&self) -> String {
        let [height, width] = self.window.geometry.kernel;
        let activation = self.epilogue.activation.suffix();
        let half = if self.weights.half() { " fp16" } else { "" };
        format!("conv {height}x{width}{half}{activation}")
    }
}

/// One task of a convolution: some tiles of pixels times some panels of weights.
struct Task<'a> {
    conv: &'a Conv,
    tiles: Range<usize>,
    panels: Range<usize>,
    memory: Memory,
    scratch: Scratch,
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for first in self.tiles.clone().step_by(self.conv.block) {
            let block = first..(first + self.conv.block).min(self.tiles.end);
            // SAFETY: the tiles are the convolution's; that nobody else has them and that the
            // scratch memory is large enough is the caller's promise to `Operator::run`.
            unsafe {
                self.find(block.clone());
                for panel in self.panels.clone() {
                    self.multiply(simd, block.clone(), panel);
                }
            }
        }
    }
}

impl Task<'_> {
    /// Room for the sums of a block's tiles, `[tile][row][column]`.
    #[inline(always)]
    fn sums(&self) -> *mut f32 {
        self.scratch.own.cast()
    }

    /// Room for the pointers of a block's tiles, `[tile][tap][row]`.
    #[inline(always)]
    fn pointers(&self) -> *mut *const f32 {
        let sums = self.conv.block * self.conv.rows * self.conv.columns;
        self.sums().wrapping_add(sums).cast()
    }

    /// The output pixels of a tile.
    #[inline(always)]
    fn pixels(&self, tile: usize) -> Range<usize> {
        let (rows, pixels) = (self.conv.rows, self.conv.epilogue.output.view.pixels());
        tile * rows..((tile + 1) * rows).min(pixels)
    }

    /// Finds the pixels that a block's tiles are made of.
    ///
    /// # Safety
    ///
    /// The scratch memory has the convolution's [`Operator::own_bytes`].
    #[inline(always)]
    unsafe fn find(&self, block: Range<usize>) {
        let Conv {
            window,
            rows,
            outside,
            ..
        } = self.conv;
        let input = self.memory.at::<f32>(window.input.offset).cast_const();
        let outside = outside.as_ptr();
        let mut place = Place::of(&self.conv.epilogue.output.view, block.start * rows);
        for (i, tile) in block.enumerate() {
            let count = self.pixels(tile).len();
            // SAFETY: there is room for the pointers of a block of tiles.
            unsafe {
                let to = self.pointers().add(i * window.geometry.taps() * rows);
                match rows {
                    1 => window.find::<_, 1>(input, outside, &mut place, count, to.cast()),
                    2 => window.find::<_, 2>(input, outside, &mut place, count, to.cast()),
                    4 => window.find::<_, 4>(input, outside, &mut place, count, to.cast()),
                    6 => window.find::<_, 6>(input, outside, &mut place, count, to.cast()),
                    8 => window.find::<_, 8>(input, outside, &mut place, count, to.cast()),
                    _ => unreachable!("no tile has {rows} rows"),
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
    unsafe fn multiply<S: Simd>(&self, simd: S, block: Range<usize>, panel: usize) {
        let Conv {
            window,
            epilogue,
            weights,
            rows,
            columns,
            chunk,
            ..
        } = self.conv;
        let (k, taps) = (window.input.channels, window.geometry.taps());
        let channels = panel * columns..((panel + 1) * columns).min(epilogue.output.view.channels);
        for first in (0..taps).step_by(*chunk) {
            let chunk = first..(first + chunk).min(taps);
            for (i, tile) in block.clone().enumerate() {
                let sums = if chunk.len() < taps {
                    i * rows * columns
                } else {
                    0
                };
                // SAFETY: tile, tap and panel are within the block, the kernel and the weights.
                unsafe {
                    let out = self.sums().add(sums);
                    let pointers = self.pointers().add((i * taps + first) * rows).cast_const();
                    if *columns == NARROW {
                        let w = weights.panel(panel);
                        tile::narrow_tile(simd, *rows, pointers, taps, k, w, out);
                    } else {
                        let w = weights.at(weights.panel(panel), first * k * columns);
                        let ahead = ahead(w, [chunk.len(), k, *columns], [i, block.len()]);
                        let (taps, add) = (chunk.len(), first > 0);
                        let operands = Operands {
                            rows: pointers,
                            taps,
                            k,
                            w,
                            out,
                            out_stride: tile::columns::<S>(),
                            add,
                            ahead,
                            half: weights.half(),
                        };
                        operands.multiply(simd, *rows);
                    }
                    if chunk.end == taps {
                        let (pixels, channels) = (self.pixels(tile), channels.clone());
                        finish(simd, epilogue, self.memory, out, *columns, pixels, channels);
                    }
                }
            }
        }
    }
}

/// What tile `i` of a block of `tiles` fetches while it uses the weights `w`, `[taps][k][columns]`:
/// its share of as many that follow. A tile alone is as fast as the memory, and fetches nothing.
#[inline(always)]
fn ahead(w: *const f32, [taps, k, columns]: [usize; 3], [i, tiles]: [usize; 2]) -> Ahead {
    let all = 4 * columns / tile::LINE;
    let share = if tiles == 1 { 0 } else { all.div_ceil(tiles) };
    let before = i * share;
    let from = w.wrapping_add(taps * (k * columns + k / 4 * before * tile::LINE));
    Ahead {
        from,
        lines: share.min(all.saturating_sub(before)),
    }
}

#[cfg(test)]
pub(super) mod tests;
