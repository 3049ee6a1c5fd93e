//! The elements of an operand, f32 or levels, as vectors of numbers.

use super::{Memory, Operand, Quantization};
use crate::engine::simd::{LANES_MAX, Simd};

/// Elements of one kind in memory. Positions are in elements from the operand's beginning.
pub trait Elements: Copy {
    /// The numbers from element `at` on, `lanes` of them; the others are any.
    ///
    /// # Safety
    ///
    /// They can be read; `lanes` is at most [`Simd::LANES`].
    unsafe fn load<S: Simd>(self, simd: S, at: usize, lanes: usize) -> S::F32;

    /// As [`Elements::load`], but in units of [`Elements::step`] and from any zero.
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn load_steps<S: Simd>(self, simd: S, at: usize, lanes: usize) -> S::F32;

    /// What a difference of 1 between [`Elements::load_steps`] stands for.
    fn step(self) -> f32;

    /// Stores the first `lanes` numbers from element `at` on.
    ///
    /// # Safety
    ///
    /// They can be written; `lanes` is at most [`Simd::LANES`].
    unsafe fn store<S: Simd>(self, simd: S, at: usize, value: S::F32, lanes: usize);
}

/// [`super::Element::Float`]
#[derive(Debug, Clone, Copy)]
pub struct Floats(*mut f32);

impl Floats {
    /// Those of an operand.
    #[inline(always)]
    pub fn of(memory: Memory, operand: &Operand) -> Self {
        Self(memory.at(operand.view.offset))
    }

    /// Those that begin at an address.
    #[inline(always)]
    pub fn at(start: *mut f32) -> Self {
        Self(start)
    }
}

impl Elements for Floats {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, simd: S, at: usize, lanes: usize) -> S::F32 {
        // SAFETY: as the caller says.
        unsafe { load(simd, self.0.add(at), lanes) }
    }

    #[inline(always)]
    unsafe fn load_steps<S: Simd>(self, simd: S, at: usize, lanes: usize) -> S::F32 {
        // SAFETY: as the caller says.
        unsafe { self.load(simd, at, lanes) }
    }

    #[inline(always)]
    fn step(self) -> f32 {
        1.0
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(self, simd: S, at: usize, value: S::F32, lanes: usize) {
        // SAFETY: as the caller says.
        unsafe {
            let to = self.0.add(at);
            if lanes == S::LANES {
                simd.store(to, value)
            } else {
                simd.store_part(to, value, lanes)
            }
        }
    }
}

/// [`super::Element::Levels`]
#[derive(Debug, Clone, Copy)]
pub struct Levels {
    start: *mut u8,
    scale: f32,
    /// `1 / scale`
    steps: f32,
    zero: f32,
}

impl Levels {
    /// Those of an operand.
    #[inline(always)]
    pub fn of(
        memory: Memory,
        operand: &Operand,
        Quantization { scale, zero }: Quantization,
    ) -> Self {
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
        // SAFETY: as the caller says.
        let level = unsafe { self.load_steps(simd, at, lanes) };
        simd.mul(
            simd.sub(level, simd.splat(self.zero)),
            simd.splat(self.scale),
        )
    }

    #[inline(always)]
    unsafe fn load_steps<S: Simd>(self, simd: S, at: usize, lanes: usize) -> S::F32 {
        const { assert!(S::LANES <= LANES_MAX) };
        // SAFETY: the caller vouches for `lanes` levels; fewer than a vector go through a buffer.
        unsafe {
            let from = self.start.add(at);
            if lanes == S::LANES {
                simd.load_levels(from)
            } else {
                let mut buffer = [0; LANES_MAX];
                from.copy_to_nonoverlapping(buffer.as_mut_ptr(), lanes);
                simd.load_levels(buffer.as_ptr())
            }
        }
    }

    #[inline(always)]
    fn step(self) -> f32 {
        self.scale
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(self, simd: S, at: usize, value: S::F32, lanes: usize) {
        const { assert!(S::LANES <= LANES_MAX) };
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

/// `lanes` values, at most [`Simd::LANES`]; the others are 0.
///
/// # Safety
///
/// They can be read.
#[inline(always)]
pub unsafe fn load<S: Simd>(simd: S, from: *const f32, lanes: usize) -> S::F32 {
    // SAFETY: as the caller says.
    unsafe {
        if lanes == S::LANES {
            simd.load(from)
        } else {
            simd.load_part(from, lanes)
        }
    }
}
