//! Vectors of one instruction set behind one trait: a kernel is written once.
//!
//! A kernel implements [`Work`], generic over [`Simd`]; [`Isa::run`] compiles it for every
//! instruction set and calls the one that the core has. [`portable::Portable`] is plain Rust: the
//! reference that the others are tested against, and what any other core runs.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

pub use portable::Portable;

use half::f16;

/// Lanes of the widest vector: room for one of any instruction set.
pub const LANES_MAX: usize = 16;

/// Products that [`Simd::half_tile`] adds in f16 before it goes on in f32. The error of 64 is a
/// third more than that of 32, and of 32 a third more than that of 16.
pub const HALF_TERMS: usize = 32;

/// A kernel, to be compiled for every instruction set.
pub trait Work {
    /// What it computes.
    type Output;

    /// The work itself; implementations and all that they call are `#[inline(always)]`, so that
    /// they are compiled with the instructions of `S`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// A kernel that multiplies int8; for the rest as [`Work`].
pub trait Int8Work {
    /// What it computes.
    type Output;

    /// The work itself, `#[inline(always)]` as that of [`Work`].
    fn run<S: Int8Simd>(self, simd: S) -> Self::Output;
}

/// One instruction set. A value of the type is the proof that the core has it.
///
/// # Safety of the pointers
///
/// Loads and stores read or write as many consecutive elements as they say, at any alignment.
pub trait Simd: Copy + Send + Sync + std::fmt::Debug + 'static {
    /// f32 values in one vector.
    const LANES: usize;
    /// Rows and vectors of columns of one tile of a matrix product: `TILE.0 × (TILE.1 · LANES)`.
    const TILE: (usize, usize);
    /// A vector of [`Simd::LANES`] f32.
    type F32: Copy;
    /// Four consecutive f32 of a row, each of which multiplies whole vectors.
    type X4: Copy;

    /// The value in every lane.
    fn splat(self, value: f32) -> Self::F32;
    /// Reads [`Simd::LANES`] values.
    ///
    /// # Safety
    ///
    /// All of them can be read.
    unsafe fn load(self, from: *const f32) -> Self::F32;
    /// Reads the first `lanes` values, at most [`Simd::LANES`]; the others are 0.
    ///
    /// # Safety
    ///
    /// The first `lanes` can be read.
    unsafe fn load_part(self, from: *const f32, lanes: usize) -> Self::F32;
    /// Writes all lanes.
    ///
    /// # Safety
    ///
    /// All of them can be written.
    unsafe fn store(self, to: *mut f32, value: Self::F32);
    /// Writes the first `lanes` lanes, at most [`Simd::LANES`].
    ///
    /// # Safety
    ///
    /// The first `lanes` can be written.
    unsafe fn store_part(self, to: *mut f32, value: Self::F32, lanes: usize);

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b` within 3 ulp, where `|b|` is infinite or between 2^-126 and 2^126, as fast as it can.
    #[inline(always)]
    fn ratio(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.div(a, b)
    }
    /// The smaller of the two, lane by lane; where `b` is NaN, NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The larger of the two, lane by lane; where `b` is NaN, NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`, rounded once where the core can.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// To the nearest whole number, ties to the even one.
    fn round(self, a: Self::F32) -> Self::F32;
    /// `a · 2^n` for whole numbers `n` in -126..=127.
    fn scale_exp2(self, a: Self::F32, n: Self::F32) -> Self::F32;
    /// The sum of all lanes.
    fn sum(self, a: Self::F32) -> f32;
    /// The largest lane.
    fn largest(self, a: Self::F32) -> f32;

    /// Begins to bring the cache line at `from` near, where the core can be asked to; any address
    /// will do.
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        let _ = from;
    }

    /// Reads four values of a row.
    ///
    /// # Safety
    ///
    /// All four can be read for as long as the answer is used.
    unsafe fn load_x4(self, from: *const f32) -> Self::X4;
    /// `x[LANE] · w + acc`
    ///
    /// # Safety
    ///
    /// What [`Simd::load_x4`] asks for.
    unsafe fn mul_add_lane<const LANE: i32>(
        self,
        x: Self::X4,
        w: Self::F32,
        acc: Self::F32,
    ) -> Self::F32;

    /// One tile of a matrix product of `R` rows and `V` vectors of columns, or `false` and nothing done
    /// where [`Simd::mul_add_lane`] serves as well: `out[r][c] = Σ_tap Σ_k rows[tap · R + r][k] ·
    /// w[tap][k][c]`, in that order, plus what is in `out` before if `add`.
    ///
    /// # Safety
    ///
    /// As [`Tile`] says, whose rows are `R` and whose columns are `V · LANES`.
    #[inline(always)]
    unsafe fn tile<const R: usize, const V: usize>(self, tile: Tile) -> bool {
        let _ = tile;
        false
    }

    /// [`Simd::tile`] in f16, with weights of f16: every value of a row is rounded, every product is
    /// added in f16, and the sum of [`HALF_TERMS`] of them, or of those that are left in its tap, is
    /// added in f32. This is plain Rust, which says what an instruction set with f16 computes.
    ///
    /// # Safety
    ///
    /// What [`Simd::tile`] asks for; `k` is a multiple of 8, the weights are of f16, and the core has
    /// f16 where [`Isa::in_half`] was asked.
    #[inline(always)]
    unsafe fn half_tile<const R: usize, const V: usize>(self, tile: Tile) {
        let columns = V * Self::LANES;
        for r in 0..R {
            for c in 0..columns {
                // SAFETY: tap, row, k and column are within what the caller vouches for.
                unsafe {
                    let out = tile.out.add(r * tile.out_stride + c);
                    let mut sum = if tile.add { *out } else { 0.0 };
                    for tap in 0..tile.taps {
                        let row = *tile.rows.add(tap * R + r);
                        for first in (0..tile.k).step_by(HALF_TERMS) {
                            let mut part = f16::ZERO;
                            for k in first..tile.k.min(first + HALF_TERMS) {
                                let w = tile.w.cast::<f16>().add((tap * tile.k + k) * columns + c);
                                let x = f16::from_f32(*row.add(k)).to_f64();
                                part = f16::from_f64(x * (*w).to_f64() + part.to_f64());
                            }
                            sum += part.to_f32();
                        }
                    }
                    *out = sum;
                }
            }
        }
    }

    /// Copies a block of 4 x 4 values, bit by bit, so that rows become columns:
    /// `to[j · to_stride + i] = from[i · from_stride + j]`.
    ///
    /// # Safety
    ///
    /// They can be read and written, and the two blocks do not overlap.
    #[inline(always)]
    unsafe fn transpose4(
        self,
        from: *const f32,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        for i in 0..4 {
            for j in 0..4 {
                // SAFETY: both are among the 4 x 4 values for which the caller vouches.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) };
            }
        }
    }

    /// Reads [`Simd::LANES`] i32 as f32.
    ///
    /// # Safety
    ///
    /// All of them can be read.
    unsafe fn load_i32(self, from: *const i32) -> Self::F32;

    // Quantized activations are levels 0..=255. They lie in memory as bytes `level - LEVEL_BIAS`:
    // u8 where the core multiplies u8 by i8, i8 where it multiplies i8 by i8.

    /// What is subtracted from a level before it is stored: 0 or 128.
    const LEVEL_BIAS: i32;
    /// Reads [`Simd::LANES`] levels as f32 in 0..=255.
    ///
    /// # Safety
    ///
    /// All of them can be read.
    unsafe fn load_levels(self, from: *const u8) -> Self::F32;
    /// Rounds to the nearest level (ties to even), clamps to 0..=255, writes [`Simd::LANES`] bytes.
    ///
    /// # Safety
    ///
    /// All of them can be written.
    unsafe fn store_levels(self, to: *mut u8, value: Self::F32);
}

/// What an instruction set multiplies int8 with: the part in which two of them may differ that are
/// one in all else.
pub trait Int8Simd: Simd {
    /// Rows and columns of one tile of a quantized matrix product.
    const QTILE: (usize, usize);
    /// Consecutive k of one column that lie together in packed int8 weights: 4 or 16.
    const QGROUP: usize;
    /// One tile of a quantized matrix product: `out[r][c] = Σ_tap Σ_k rows[tap·R + r][k] · w[...]`
    /// for `R = QTILE.0` rows and `C = QTILE.1` columns, `out` row-major `[R][C]`.
    ///
    /// `groups` is `k` in units of [`Int8Simd::QGROUP`]; `w` is `[tap][group][column][k in group]`.
    ///
    /// # Safety
    ///
    /// `rows` holds `taps · R` pointers, each to `groups · QGROUP` readable bytes; `w` holds
    /// `taps · groups · C · QGROUP` bytes; `out` takes `R · C` values.
    unsafe fn qtile(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
        out: *mut i32,
    );
    /// [`Int8Simd::qtile`] in f32: `out[r][c] = (sum + start[c]) · step[c]`. The addition wraps.
    ///
    /// # Safety
    ///
    /// What [`Int8Simd::qtile`] asks for; `scale` has `C` values each.
    #[inline(always)]
    unsafe fn qtile_scaled(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
        scale: QScale,
        out: *mut f32,
    ) {
        const { assert!(Self::LANES <= LANES_MAX) };
        let sums = out.cast::<i32>();
        // SAFETY: the caller vouches for the operands; `out` is as large for i32 as for f32.
        unsafe {
            self.qtile(rows, taps, groups, w, sums);
            for column in (0..Self::QTILE.1).step_by(Self::LANES) {
                let step = self.load(scale.step.add(column));
                for row in 0..Self::QTILE.0 {
                    let at = row * Self::QTILE.1 + column;
                    let mut whole = [0; LANES_MAX];
                    for (lane, whole) in whole[..Self::LANES].iter_mut().enumerate() {
                        let start = *scale.start.add(column + lane);
                        *whole = (*sums.add(at + lane)).wrapping_add(start);
                    }
                    self.store(out.add(at), self.mul(self.load_i32(whole.as_ptr()), step));
                }
            }
        }
    }
}

/// The operands of [`Simd::tile`].
#[derive(Debug, Clone, Copy)]
pub struct Tile {
    /// Pointers to the rows, `[taps][rows]`.
    pub rows: *const *const f32,
    /// Matrices that are multiplied and summed.
    pub taps: usize,
    /// Readable values of a row.
    pub k: usize,
    /// Weights, `[taps][k][columns]`; for [`Simd::half_tile`] an address of f16.
    pub w: *const f32,
    /// The sums: rows of so many columns.
    pub out: *mut f32,
    /// From one row of sums to the next, in values.
    pub out_stride: usize,
    /// Whether `out` holds sums already.
    pub add: bool,
}

/// What makes numbers of a quantized matrix product's sums: one value per column of a tile.
#[derive(Debug, Clone, Copy)]
pub struct QScale {
    /// What is added to a sum.
    pub start: *const i32,
    /// What it is multiplied by then.
    pub step: *const f32,
}

/// The instruction sets that there are kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA; int8 in 16-bit products.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2, FMA and AVX-VNNI: int8 dot products.
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni,
    /// AVX-512 (F, BW, DQ, VL) with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON; int8 in 16-bit products.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON with int8 dot products.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    /// NEON with int8 dot products and products in f16.
    #[cfg(target_arch = "aarch64")]
    NeonHalf,
    /// Plain Rust with products in f16: what that of NEON is tested against.
    #[cfg(test)]
    PortableHalf,
}

impl Isa {
    /// Every instruction set of this core, the fastest first; [`Isa::Portable`] is the last.
    pub fn available() -> Vec<Self> {
        let mut isas = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            isas.extend(Avx512::detect().map(|_| Self::Avx512));
            isas.extend(Avx2::<true>::detect().map(|_| Self::Avx2Vnni));
            isas.extend(Avx2::<false>::detect().map(|_| Self::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        {
            isas.extend(Neon::<true>::detect().map(|_| Self::NeonDot));
            isas.extend(Neon::<false>::detect().map(|_| Self::Neon));
        }
        isas.push(Self::Portable);
        isas
    }

    /// The fastest of [`Isa::available`].
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// The same instruction set with products in f16, if this core has them: for networks whose
    /// weights are f16.
    pub fn in_half(self) -> Option<Self> {
        match self {
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot if std::arch::is_aarch64_feature_detected!("fp16") => {
                Some(Self::NeonHalf)
            }
            #[cfg(test)]
            Self::Portable => Some(Self::PortableHalf),
            _ => None,
        }
    }

    /// Whether it is one that [`Isa::in_half`] gives.
    pub fn is_half(self) -> bool {
        match self {
            #[cfg(target_arch = "aarch64")]
            Self::NeonHalf => true,
            #[cfg(test)]
            Self::PortableHalf => true,
            _ => false,
        }
    }

    /// Runs `work` on this instruction set; those that differ in int8 alone share what is compiled.
    ///
    /// # Panics
    ///
    /// When the core does not have it.
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self {
            Self::Portable => work.run(Portable),
            #[cfg(test)]
            Self::PortableHalf => work.run(Portable),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::Avx2Vnni => Avx2::<false>::detect().expect(ABSENT).vectorize(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().expect(ABSENT).vectorize(work),
            #[cfg(target_arch = "aarch64")]
            Self::Neon | Self::NeonDot | Self::NeonHalf => {
                work.run(Neon::<false>::detect().expect(ABSENT))
            }
        }
    }

    /// [`Isa::run`] for work that multiplies int8.
    ///
    /// # Panics
    ///
    /// When the core does not have the instruction set.
    pub fn run_int8<W: Int8Work>(self, work: W) -> W::Output {
        match self {
            Self::Portable => work.run(Portable),
            #[cfg(test)]
            Self::PortableHalf => work.run(Portable),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::<false>::detect().expect(ABSENT).vectorize_int8(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Vnni => Avx2::<true>::detect().expect(ABSENT).vectorize_int8(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().expect(ABSENT).vectorize_int8(work),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => work.run(Neon::<false>::detect().expect(ABSENT)),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot | Self::NeonHalf => work.run(Neon::<true>::detect().expect(ABSENT)),
        }
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const ABSENT: &str = "an instruction set that the core has";

#[cfg(test)]
mod tests;
