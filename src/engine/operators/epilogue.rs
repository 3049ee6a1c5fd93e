//! The end of a convolution or a matrix product: from a tile of sums to memory.

use std::ops::Range;

use super::elements::{Elements, Floats, Levels, load};
use super::math::silu;
use super::{Activation, Element, Epilogue, Memory, Operand, View};
use crate::engine::simd::Simd;

/// Finishes a tile of sums as [`Epilogue`] says and stores it.
///
/// `tile` is row-major, one row for each of `pixels`, `tile_stride` values from row to row; its
/// first column is the first of `channels`. `pixels` are indices into the output's
/// [`View::pixels`].
///
/// # Safety
///
/// The views of `epilogue` lie in `memory` and contain `pixels` and `channels`; no one else
/// touches those channels of those pixels of the output. The rows of `tile` have `channels.len()`
/// readable values.
#[inline(always)]
pub unsafe fn finish<S: Simd>(
    simd: S,
    epilogue: &Epilogue,
    memory: Memory,
    tile: *const f32,
    tile_stride: usize,
    pixels: Range<usize>,
    channels: Range<usize>,
) {
    let tile = Tile {
        epilogue,
        memory,
        sums: tile,
        stride: tile_stride,
        pixels,
        channels,
    };
    let none = Floats::at(std::ptr::null_mut());
    // SAFETY: as the caller says.
    unsafe {
        match epilogue.residual.map(|operand| (operand, operand.element)) {
            None => tile.add::<S, _, false>(simd, none),
            Some((operand, Element::Float)) => {
                tile.add::<S, _, true>(simd, Floats::of(memory, &operand));
            }
            Some((operand, Element::Levels(levels))) => {
                tile.add::<S, _, true>(simd, Levels::of(memory, &operand, levels));
            }
        }
    }
}

impl Epilogue {
    /// Bytes that it reads and writes, each once.
    pub fn bytes(&self) -> u64 {
        let added = self
            .added
            .map_or(0, |view| view.batch * view.channels * size_of::<f32>());
        let operands = [Some(self.output), self.residual].into_iter().flatten();
        let operands: usize = operands
            .map(|Operand { view, element }| view.pixels() * view.channels * element.bytes())
            .sum();
        (added + operands + size_of_val(&*self.bias)) as u64
    }
}

/// The arguments of [`finish`].
struct Tile<'a> {
    epilogue: &'a Epilogue,
    memory: Memory,
    sums: *const f32,
    stride: usize,
    pixels: Range<usize>,
    channels: Range<usize>,
}

impl Tile<'_> {
    /// Chooses the kind of the output; `residual` is added if `ADD`.
    ///
    /// # Safety
    ///
    /// What [`finish`] asks for.
    #[inline(always)]
    unsafe fn add<S: Simd, R: Elements, const ADD: bool>(self, simd: S, residual: R) {
        let output = &self.epilogue.output;
        // SAFETY: as the caller says.
        unsafe {
            match output.element {
                Element::Float => {
                    let output = Floats::of(self.memory, output);
                    self.activate::<S, R, _, ADD>(simd, residual, output);
                }
                Element::Levels(levels) => {
                    let output = Levels::of(self.memory, output, levels);
                    self.activate::<S, R, _, ADD>(simd, residual, output);
                }
            }
        }
    }

    /// Chooses the activation.
    ///
    /// # Safety
    ///
    /// What [`finish`] asks for.
    #[inline(always)]
    unsafe fn activate<S: Simd, R: Elements, O: Elements, const ADD: bool>(
        self,
        simd: S,
        residual: R,
        output: O,
    ) {
        // SAFETY: as the caller says.
        unsafe {
            match self.epilogue.activation {
                Activation::None => self.store::<S, R, O, ADD, false>(simd, residual, output),
                Activation::Silu => self.store::<S, R, O, ADD, true>(simd, residual, output),
            }
        }
    }

    /// Does the work, without a decision left for the inner loops.
    ///
    /// # Safety
    ///
    /// What [`finish`] asks for.
    #[inline(always)]
    unsafe fn store<S: Simd, R: Elements, O: Elements, const ADD: bool, const SILU: bool>(
        self,
        simd: S,
        residual: R,
        output: O,
    ) {
        let Self {
            epilogue,
            memory,
            sums,
            stride,
            pixels,
            channels,
        } = self;
        let view = &epilogue.output.view;
        let residual_view = epilogue.residual.map_or(*view, |operand| operand.view);
        let bias = epilogue.bias[channels.clone()].as_ptr();
        let mut place = Place::of(view, pixels.start);
        let mut sums = sums;
        let mut left = pixels.len();
        while left > 0 {
            // Along a row of the picture, everything goes on at the same distance.
            let run = left.min(view.width - place.x);
            let added = epilogue.added.map(|view| {
                let picture = if view.batch == 1 { 0 } else { place.picture };
                let at = picture * view.batch_stride + channels.start;
                memory.at::<f32>(view.offset).wrapping_add(at).cast_const()
            });
            let mut row = Row::<_, _, ADD, SILU> {
                sums,
                bias,
                added,
                residual,
                residual_at: place.offset(&residual_view) + channels.start,
                output,
                output_at: place.offset(view) + channels.start,
            };
            for _ in 0..run {
                let mut first = 0;
                // SAFETY: the tile has the row; the channels are within it and within every
                // operand: the caller vouches for both.
                unsafe {
                    while first + S::TILE.1 * S::LANES <= channels.len() {
                        for _ in 0..S::TILE.1 {
                            row.finish(simd, first, S::LANES);
                            first += S::LANES;
                        }
                    }
                    while first + S::LANES <= channels.len() {
                        row.finish(simd, first, S::LANES);
                        first += S::LANES;
                    }
                    if first < channels.len() {
                        row.finish(simd, first, channels.len() - first);
                    }
                }
                row.sums = row.sums.wrapping_add(stride);
                row.residual_at += residual_view.pixel_stride;
                row.output_at += view.pixel_stride;
            }
            sums = row.sums;
            left -= run;
            place.x += run - 1;
            place.advance(view.height, view.width);
        }
    }
}

/// A row of a tile with the operands of its pixel.
struct Row<R, O, const ADD: bool, const SILU: bool> {
    sums: *const f32,
    bias: *const f32,
    added: Option<*const f32>,
    residual: R,
    residual_at: usize,
    output: O,
    output_at: usize,
}

impl<R: Elements, O: Elements, const ADD: bool, const SILU: bool> Row<R, O, ADD, SILU> {
    /// Finishes `lanes` values from channel `first` of the tile on.
    ///
    /// # Safety
    ///
    /// All operands have them; `lanes` is at most [`Simd::LANES`].
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, simd: S, first: usize, lanes: usize) {
        // SAFETY: as the caller says.
        unsafe {
            let mut value = load(simd, self.sums.add(first), lanes);
            value = simd.add(value, load(simd, self.bias.add(first), lanes));
            if let Some(added) = self.added {
                value = simd.add(value, load(simd, added.add(first), lanes));
            }
            if ADD {
                value = simd.add(
                    value,
                    self.residual.load(simd, self.residual_at + first, lanes),
                );
            }
            if SILU {
                value = silu(simd, value);
            }
            self.output
                .store(simd, self.output_at + first, value, lanes);
        }
    }
}

/// The place of a pixel, in every view of the same shape.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Which picture.
    pub picture: usize,
    /// Rows from the top.
    pub y: usize,
    /// Pixels from the left.
    pub x: usize,
}

impl Place {
    /// The place of the pixel `index` of [`View::pixels`].
    #[inline(always)]
    pub fn of(view: &View, index: usize) -> Self {
        let (row, x) = (index / view.width, index % view.width);
        Self {
            picture: row / view.height,
            y: row % view.height,
            x,
        }
    }

    /// To the next pixel of a picture of this height and width, or to the next picture.
    #[inline(always)]
    pub fn advance(&mut self, height: usize, width: usize) {
        self.x += 1;
        if self.x == width {
            (self.x, self.y) = (0, self.y + 1);
            if self.y == height {
                (self.y, self.picture) = (0, self.picture + 1);
            }
        }
    }

    /// Elements from the beginning of a view to the pixel.
    #[inline(always)]
    pub fn offset(&self, view: &View) -> usize {
        self.picture * view.batch_stride + self.y * view.row_stride + self.x * view.pixel_stride
    }
}
