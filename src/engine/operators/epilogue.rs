//! The end of a convolution or a matrix product: from a tile of sums to memory.

use std::ops::Range;

use super::math::silu;
use super::{Activation, Element, Epilogue, Memory, Operand, Quantization, View};
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
    let none = Floats(std::ptr::null_mut());
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
            .map(|Operand { view, element }| {
                let size = match element {
                    Element::Float => size_of::<f32>(),
                    Element::Levels(_) => 1,
                };
                view.pixels() * view.channels * size
            })
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
        for row in 0..pixels.len() {
            let added = epilogue.added.map(|view| {
                let picture = if view.batch == 1 { 0 } else { place.picture };
                let at = picture * view.batch_stride + channels.start;
                memory.at::<f32>(view.offset).wrapping_add(at).cast_const()
            });
            let row = Row::<_, _, ADD, SILU> {
                // SAFETY: the tile has the row.
                sums: unsafe { sums.add(row * stride) },
                bias,
                added,
                residual,
                residual_at: place.offset(&residual_view) + channels.start,
                output,
                output_at: place.offset(view) + channels.start,
            };
            let mut first = 0;
            // SAFETY: the channels are within the tile and within every operand: the caller
            // vouches for both.
            unsafe {
                while first + S::LANES <= channels.len() {
                    row.finish(simd, first, S::LANES);
                    first += S::LANES;
                }
                if first < channels.len() {
                    row.finish(simd, first, channels.len() - first);
                }
            }
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

/// Elements of one kind in memory.
trait Elements: Copy {
    /// The numbers from element `at` on, `lanes` of them.
    ///
    /// # Safety
    ///
    /// They can be read; `lanes` is at most [`Simd::LANES`].
    unsafe fn load<S: Simd>(self, simd: S, at: usize, lanes: usize) -> S::F32;

    /// Stores the first `lanes` numbers from element `at` on.
    ///
    /// # Safety
    ///
    /// They can be written; `lanes` is at most [`Simd::LANES`].
    unsafe fn store<S: Simd>(self, simd: S, at: usize, value: S::F32, lanes: usize);
}

/// [`Element::Float`]
#[derive(Debug, Clone, Copy)]
struct Floats(*mut f32);

impl Floats {
    #[inline(always)]
    fn of(memory: Memory, operand: &Operand) -> Self {
        Self(memory.at(operand.view.offset))
    }
}

impl Elements for Floats {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, simd: S, at: usize, lanes: usize) -> S::F32 {
        // SAFETY: as the caller says.
        unsafe { load(simd, self.0.add(at), lanes) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(self, simd: S, at: usize, value: S::F32, lanes: usize) {
        // SAFETY: as the caller says.
        unsafe {
            if lanes == S::LANES {
                simd.store(self.0.add(at), value);
            } else {
                simd.store_part(self.0.add(at), value, lanes);
            }
        }
    }
}

/// [`Element::Levels`]
#[derive(Debug, Clone, Copy)]
struct Levels {
    start: *mut u8,
    scale: f32,
    /// `1 / scale`
    steps: f32,
    zero: f32,
}

impl Levels {
    #[inline(always)]
    fn of(memory: Memory, operand: &Operand, levels: Quantization) -> Self {
        let Quantization { scale, zero } = levels;
        let start = memory.at(operand.view.offset);
        Self {
            start,
            scale,
            steps: scale.recip(),
            zero: zero as f32,
        }
    }
}

impl Elements for Levels {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, simd: S, at: usize, lanes: usize) -> S::F32 {
        // SAFETY: the caller vouches for `lanes` levels; fewer than a vector go through a buffer.
        let level = unsafe {
            let from = self.start.add(at);
            if lanes == S::LANES {
                simd.load_levels(from)
            } else {
                let mut buffer = [0; LANES_MAX];
                from.copy_to_nonoverlapping(buffer.as_mut_ptr(), lanes);
                simd.load_levels(buffer.as_ptr())
            }
        };
        simd.mul(
            simd.sub(level, simd.splat(self.zero)),
            simd.splat(self.scale),
        )
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(self, simd: S, at: usize, value: S::F32, lanes: usize) {
        let level = simd.mul_add(value, simd.splat(self.steps), simd.splat(self.zero));
        // SAFETY: the caller vouches for `lanes` levels; fewer than a vector go through a buffer,
        // since what follows them may be another operand's.
        unsafe {
            let to = self.start.add(at);
            if lanes == S::LANES {
                simd.store_levels(to, level);
            } else {
                let mut buffer = [0; LANES_MAX];
                simd.store_levels(buffer.as_mut_ptr(), level);
                to.copy_from_nonoverlapping(buffer.as_ptr(), lanes);
            }
        }
    }
}

/// Lanes of the widest vector.
const LANES_MAX: usize = 16;

/// `lanes` values, at most [`Simd::LANES`].
///
/// # Safety
///
/// They can be read.
#[inline(always)]
unsafe fn load<S: Simd>(simd: S, from: *const f32, lanes: usize) -> S::F32 {
    const { assert!(S::LANES <= LANES_MAX) };
    // SAFETY: as the caller says.
    unsafe {
        if lanes == S::LANES {
            simd.load(from)
        } else {
            simd.load_part(from, lanes)
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
