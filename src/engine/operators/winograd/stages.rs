//! The three stages of Winograd's convolution.
//!
//! Patches of the input are transformed, their elements multiplied with those of the kernels, and
//! the products transformed to outputs.

use std::ops::Range;

use super::super::epilogue::finish;
use super::super::tile::{self, Ahead, LINE, Operands};
use super::super::{Epilogue, Memory, View};
use super::OutputTile;
use super::tiling::{RUN, Tiling};
use super::transform::{Four, FourOfPairs, Transform, Two};
use super::weights::Weights;
use crate::engine::simd::{Simd, Work};

/// Strides in scratch memory, in values. Elements lie a cache line further apart than they need to:
/// strides that are powers of two would crowd them into a few sets of a cache.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Transformed patches, `[element][tile][k]`: from one tile to the next.
    pub data_tile: usize,
    /// Transformed patches: from one element to the next.
    pub data_element: usize,
}

/// Products, `[tile of the product][panel][element][row][column]`: from one element to the next, in
/// values.
pub const fn product_stride(rows: usize, columns: usize) -> usize {
    rows * columns + LINE
}

/// What a task does: the tiles that it transforms, or multiplies, or both.
#[derive(Debug)]
pub struct Stages<'a> {
    /// Height and width of the output's tiles.
    pub output_tile: OutputTile,
    /// The operands in tiles.
    pub tiling: &'a Tiling,
    /// Transformed kernels.
    pub weights: &'a Weights,
    /// What follows.
    pub epilogue: &'a Epilogue,
    /// Where the operands lie.
    pub memory: Memory,
    /// Strides of the scratch memory.
    pub layout: Layout,
    /// The tiles of this task.
    pub tiles: Range<usize>,
    /// Whether their patches are to be transformed, or are transformed already.
    pub transform: bool,
    /// The groups of weights with which they are to be multiplied.
    pub groups: Range<usize>,
    /// Transformed patches of the task's first tile.
    pub data: *mut f32,
    /// Products of a group.
    pub products: *mut f32,
    /// Lines of pixels that are half transformed on the way in, or finished on the way out.
    pub strip: *mut f32,
}

impl Work for Stages<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.output_tile {
            OutputTile::Two => self.all::<S, Two, 2, 4, 3>(simd),
            OutputTile::Four => self.all::<S, Four, 4, 6, 3>(simd),
            OutputTile::FourOfPairs => self.all::<S, FourOfPairs, 4, 5, 2>(simd),
        }
    }
}

impl Stages<'_> {
    /// The task with tiles of `M` pixels and patches of `N`.
    #[inline(always)]
    fn all<S: Simd, T: Transform<M, N, K>, const M: usize, const N: usize, const K: usize>(
        self,
        simd: S,
    ) {
        // SAFETY: the tiles are within the tiling; who made this vouches for all memory.
        unsafe {
            if self.transform {
                self.scatter::<S, T, M, N, K>(simd);
            }
            for group in self.groups.clone() {
                self.multiply::<S, N>(simd, group);
                self.gather::<S, T, M, N, K>(simd, group);
            }
        }
    }

    /// Transforms the patches of all tiles.
    ///
    /// # Safety
    ///
    /// The input lies in memory; `data` and `strip` have room.
    #[inline(always)]
    unsafe fn scatter<
        S: Simd,
        T: Transform<M, N, K>,
        const M: usize,
        const N: usize,
        const K: usize,
    >(
        &self,
        simd: S,
    ) {
        let channels = self.tiling.input.channels;
        let mut first = self.tiles.start;
        while first < self.tiles.end {
            let run = self.tiling.run(first, self.tiles.end);
            let y = run.y.wrapping_sub(self.tiling.padding[0]);
            let x = run.x.wrapping_sub(self.tiling.padding[1]);
            for channel in (0..channels).step_by(LINE) {
                let line = channel..channels.min(channel + LINE);
                // SAFETY: `run` and `line` are within the tiling and its channels.
                unsafe {
                    for column in 0..run.tiles * M + K - 1 {
                        let place = [run.picture, y, x.wrapping_add(column)];
                        let to = self.strip.add(column * N * LINE);
                        self.column::<S, T, M, N, K>(simd, place, line.clone(), to);
                    }
                    let tile = (first - self.tiles.start) * self.layout.data_tile;
                    let to = self.data.add(tile + channel);
                    for tile in 0..run.tiles {
                        let from = self.strip.add(tile * M * N * LINE);
                        let to = to.add(tile * self.layout.data_tile);
                        self.rows::<S, T, M, N, K>(simd, from, line.len(), to);
                    }
                }
            }
            first += run.tiles;
        }
    }

    /// Transforms a column of `N` pixels, of which `place` is the upper one's picture, y and x: the
    /// channels `line`, to `[N][LINE]`.
    ///
    /// # Safety
    ///
    /// `line` is at most [`LINE`] channels of the input; there is room for the result.
    #[inline(always)]
    unsafe fn column<
        S: Simd,
        T: Transform<M, N, K>,
        const M: usize,
        const N: usize,
        const K: usize,
    >(
        &self,
        simd: S,
        [picture, y, x]: [usize; 3],
        line: Range<usize>,
        to: *mut f32,
    ) {
        static OUTSIDE: [f32; LINE] = [0.0; LINE];
        let View {
            offset,
            height,
            width,
            batch_stride,
            row_stride,
            pixel_stride,
            ..
        } = self.tiling.input;
        let mut rows = [OUTSIDE.as_ptr(); N];
        // Beyond the upper and the left edge the coordinates wrap around to enormous ones.
        if x < width {
            let at = picture * batch_stride + x * pixel_stride + line.start;
            let upper = self.memory.at::<f32>(offset).cast_const().wrapping_add(at);
            for (i, row) in rows.iter_mut().enumerate() {
                let y = y.wrapping_add(i);
                if y < height {
                    *row = upper.wrapping_add(y * row_stride);
                }
            }
        }
        for lane in (0..line.len()).step_by(S::LANES) {
            let lanes = line.len() - lane;
            let mut d = [simd.splat(0.0); N];
            // SAFETY: every row has the channels `line` of a pixel, or zeros.
            unsafe {
                for (d, row) in d.iter_mut().zip(rows) {
                    *d = if lanes >= S::LANES {
                        simd.load(row.add(lane))
                    } else {
                        simd.load_part(row.add(lane), lanes)
                    };
                }
                for (i, d) in T::data(simd, d).into_iter().enumerate() {
                    simd.store(to.add(i * LINE + lane), d);
                }
            }
        }
    }

    /// Transforms the rows of a patch, the columns of which are transformed; its elements go to
    /// `to` and on, a [`Layout::data_element`] apart.
    ///
    /// # Safety
    ///
    /// `from` is `[N][N][LINE]`, column by column; of the lines, `lanes` values matter, for which
    /// `to` has room, rounded up to vectors.
    #[inline(always)]
    unsafe fn rows<
        S: Simd,
        T: Transform<M, N, K>,
        const M: usize,
        const N: usize,
        const K: usize,
    >(
        &self,
        simd: S,
        from: *const f32,
        lanes: usize,
        to: *mut f32,
    ) {
        for lane in (0..lanes).step_by(S::LANES) {
            for i in 0..N {
                let mut d = [simd.splat(0.0); N];
                // SAFETY: `i`, the column and `lane` are within the patch and its elements.
                unsafe {
                    for (j, d) in d.iter_mut().enumerate() {
                        *d = simd.load(from.add((j * N + i) * LINE + lane));
                    }
                    for (j, d) in T::data(simd, d).into_iter().enumerate() {
                        simd.store(to.add((i * N + j) * self.layout.data_element + lane), d);
                    }
                }
            }
        }
    }

    /// Multiplies all tiles with the panels of a group.
    ///
    /// # Safety
    ///
    /// `data` holds the transformed patches; `products` has room.
    #[inline(always)]
    unsafe fn multiply<S: Simd, const N: usize>(&self, simd: S, group: usize) {
        let (k, tiles) = (self.tiling.input.channels, self.tiles.len());
        let (columns, panels) = (tile::columns::<S>(), self.weights.panels(group));
        let blocks = tiles.div_ceil(S::TILE.0);
        let half = self.weights.half();
        let lowest = if half { tile::HALF_ROWS } else { 1 };
        for element in 0..N * N {
            let data = self
                .data
                .cast_const()
                .wrapping_add(element * self.layout.data_element);
            for block in 0..blocks {
                let first = block * S::TILE.0;
                let height = (tiles - first).next_power_of_two();
                let height = height.clamp(lowest, S::TILE.0);
                let mut rows = [data.wrapping_add(first * self.layout.data_tile); tile::ROWS_MAX];
                for row in 1..S::TILE.0 {
                    // What a tile has too many of repeats the last one.
                    let step = if first + row < tiles {
                        self.layout.data_tile
                    } else {
                        0
                    };
                    rows[row] = rows[row - 1].wrapping_add(step);
                }
                for panel in 0..panels {
                    let at = (block * panels + panel) * N * N + element;
                    let w = self.weights.panel(group, element, panel);
                    let rows = rows.as_ptr();
                    let next = w.wrapping_add(panels * k * columns);
                    let ahead = ahead(next, [k, columns], [block, blocks]);
                    // SAFETY: the rows are `k` values each; `at` is within the products.
                    unsafe {
                        let out = self
                            .products
                            .add(at * product_stride(S::TILE.0, tile::columns::<S>()));
                        let operands = Operands {
                            rows,
                            taps: 1,
                            k,
                            w,
                            out,
                            out_stride: columns,
                            add: false,
                            ahead,
                            half,
                        };
                        operands.multiply(simd, height);
                    }
                }
            }
        }
    }

    /// Transforms the products with a group and finishes the group's channels of all tiles.
    ///
    /// # Safety
    ///
    /// `products` holds them; `strip` has room; the epilogue's operands lie in memory, and no one
    /// else touches these pixels and channels of the output.
    #[inline(always)]
    unsafe fn gather<
        S: Simd,
        T: Transform<M, N, K>,
        const M: usize,
        const N: usize,
        const K: usize,
    >(
        &self,
        simd: S,
        group: usize,
    ) {
        let (columns, panels) = (tile::columns::<S>(), self.weights.panels(group));
        let view = &self.tiling.output;
        let width = panels * columns;
        let start = group * self.weights.panels(0) * columns;
        let channels = start..view.channels.min(start + width);
        let mut first = self.tiles.start;
        while first < self.tiles.end {
            let run = self.tiling.run(first, self.tiles.end);
            for tile in 0..run.tiles {
                let index = first - self.tiles.start + tile;
                let (block, row) = (index / S::TILE.0, index % S::TILE.0);
                for panel in 0..panels {
                    let at = (block * panels + panel)
                        * N
                        * N
                        * product_stride(S::TILE.0, tile::columns::<S>());
                    for lane in (0..columns).step_by(S::LANES) {
                        // SAFETY: the tile's row of the block's products, and its pixels of each
                        // of the strip's `M` lines.
                        unsafe {
                            let from = self.products.add(at + row * columns + lane);
                            let to = self.strip.add(tile * M * width + panel * columns + lane);
                            self.outputs::<S, T, M, N, K>(simd, from, to, width);
                        }
                    }
                }
            }
            let pixels = (run.tiles * M).min(view.width - run.x);
            for line in 0..M.min(view.height - run.y) {
                let y = run.picture * view.height + run.y + line;
                let pixel = y * view.width + run.x;
                // SAFETY: the pixels and channels are within the output and the strip.
                unsafe {
                    let sums = self.strip.add(line * RUN * M * width);
                    let (pixels, channels) = (pixel..pixel + pixels, channels.clone());
                    finish(
                        simd,
                        self.epilogue,
                        self.memory,
                        sums,
                        width,
                        pixels,
                        channels,
                    );
                }
            }
            first += run.tiles;
        }
    }

    /// Transforms a vector of one tile's products to its pixels: `M` lines, [`RUN`] times `M`
    /// pixels apart, of pixels that are `width` values apart.
    ///
    /// # Safety
    ///
    /// `from` holds `N²` elements, a [`product_stride`] apart; `to` has room.
    #[inline(always)]
    unsafe fn outputs<
        S: Simd,
        T: Transform<M, N, K>,
        const M: usize,
        const N: usize,
        const K: usize,
    >(
        &self,
        simd: S,
        from: *const f32,
        to: *mut f32,
        width: usize,
    ) {
        let mut lines = [[simd.splat(0.0); N]; M];
        // SAFETY: the caller vouches for all elements and pixels.
        unsafe {
            for j in 0..N {
                let mut m = [simd.splat(0.0); N];
                for (i, m) in m.iter_mut().enumerate() {
                    *m = simd.load(
                        from.add((i * N + j) * product_stride(S::TILE.0, tile::columns::<S>())),
                    );
                }
                for (line, m) in lines.iter_mut().zip(T::output(simd, m)) {
                    line[j] = m;
                }
            }
            for (i, line) in lines.into_iter().enumerate() {
                for (j, y) in T::output(simd, line).into_iter().enumerate() {
                    simd.store(to.add((i * RUN * M + j) * width), y);
                }
            }
        }
    }
}

/// What a tile of the product, number `tile` of `tiles` that use the same weights, fetches
/// meanwhile: its share of a panel of `[k][columns]` weights.
#[inline(always)]
fn ahead(panel: *const f32, [k, columns]: [usize; 2], [tile, tiles]: [usize; 2]) -> Ahead {
    let all = 4 * columns / LINE;
    let share = if tiles == 1 { 0 } else { all.div_ceil(tiles) };
    let before = tile * share;
    let from = panel.wrapping_add(k / 4 * before * LINE);
    Ahead {
        from,
        lines: share.min(all.saturating_sub(before)),
    }
}
