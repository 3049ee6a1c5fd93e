//! AVX2 with FMA, with and without VNNI, and AVX-512 with VNNI.
//!
//! Every method is an intrinsic or two. They are safe to call because a value of [`Avx2`] or
//! [`Avx512`] exists only where the core was asked and said yes.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use super::{Int8Simd, Int8Work, QScale, Simd, Work};

/// A method that compiles work for the instructions that `self` is the proof of, and runs it.
macro_rules! compiled {
    ($name:ident, $simd:ty, $work:ident, $features:literal) => {
        /// Runs `work` compiled for these instructions.
        pub fn $name<W: $work>(self, work: W) -> W::Output {
            #[target_feature(enable = $features)]
            fn inner<W: $work>(simd: $simd, work: W) -> W::Output {
                work.run(simd)
            }
            // SAFETY: `self` is the proof that the core has all of them.
            unsafe { inner(self, work) }
        }
    };
}

/// A core with AVX2 and FMA; with `VNNI`, with AVX-VNNI as well, which is for int8 alone.
#[derive(Debug, Clone, Copy)]
pub struct Avx2<const VNNI: bool>(());

impl Avx2<false> {
    /// The proof, if this core has AVX2 and FMA.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    compiled!(vectorize, Avx2<false>, Work, "avx2,fma");
    compiled!(vectorize_int8, Avx2<false>, Int8Work, "avx2,fma");
}

impl Avx2<true> {
    /// The proof, if this core has AVX2, FMA and AVX-VNNI.
    pub fn detect() -> Option<Self> {
        let has = Avx2::<false>::detect().is_some() && is_x86_feature_detected!("avxvnni");
        has.then_some(Self(()))
    }

    compiled!(vectorize_int8, Avx2<true>, Int8Work, "avx2,fma,avxvnni");
}

/// A core with AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// The proof, if this core has all five.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && Avx2::<false>::detect().is_some();
        has.then_some(Self(()))
    }

    compiled!(
        vectorize,
        Avx512,
        Work,
        "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma"
    );
    compiled!(
        vectorize_int8,
        Avx512,
        Int8Work,
        "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma"
    );
}

const LOW_LANES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// A mask of the first `lanes` of eight.
///
/// # Safety
///
/// The core has AVX2, `lanes` is at most 8.
#[inline(always)]
unsafe fn mask8(lanes: usize) -> __m256i {
    // SAFETY: the window of eight begins within the first nine of sixteen.
    unsafe { _mm256_loadu_si256(LOW_LANES.as_ptr().add(8 - lanes).cast()) }
}

// SAFETY of every `unsafe` block below that says nothing else: the intrinsic needs only the
// instruction set, of which `self` is the proof; pointers are the caller's to vouch for.

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    const TILE: (usize, usize) = (6, 2);
    type F32 = __m256;
    type X4 = *const f32;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_part(self, from: *const f32, lanes: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(from, mask8(lanes)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m256) {
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, value: __m256, lanes: usize) {
        unsafe { _mm256_maskstore_ps(to, mask8(lanes), value) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn scale_exp2(self, a: __m256, n: __m256) -> __m256 {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }

    #[inline(always)]
    fn largest(self, a: __m256) -> f32 {
        unsafe {
            let half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_x4(self, from: *const f32) -> *const f32 {
        from
    }

    #[inline(always)]
    unsafe fn mul_add_lane<const LANE: i32>(self, x: *const f32, w: __m256, acc: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(_mm256_set1_ps(*x.add(LANE as usize)), w, acc) }
    }

    #[inline(always)]
    unsafe fn transpose4(
        self,
        from: *const f32,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        unsafe { transpose4(from, from_stride, to, to_stride) }
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_loadu_si256(from.cast())) }
    }

    const LEVEL_BIAS: i32 = 0;

    #[inline(always)]
    unsafe fn load_levels(self, from: *const u8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_levels(self, to: *mut u8, value: __m256) {
        unsafe {
            // Beyond the range of i32 the conversion gives i32::MIN, which is right for what is
            // too small; the packing clamps the rest.
            let wide = _mm256_cvtps_epi32(self.min(self.splat(255.0), value));
            let (low, high) = (
                _mm256_castsi256_si128(wide),
                _mm256_extracti128_si256::<1>(wide),
            );
            let words = _mm_packus_epi32(low, high);
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words));
        }
    }
}

impl<const VNNI: bool> Int8Simd for Avx2<VNNI>
where
    Self: QTile,
{
    const QTILE: (usize, usize) = <Self as QTile>::TILE;
    const QGROUP: usize = 4;

    #[inline(always)]
    unsafe fn qtile(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
        out: *mut i32,
    ) {
        unsafe {
            let sums = self.sums(rows, taps, groups, w);
            for (r, &[low, high]) in sums.as_ref().iter().enumerate() {
                _mm256_storeu_si256(out.add(r * 16).cast(), low);
                _mm256_storeu_si256(out.add(r * 16 + 8).cast(), high);
            }
        }
    }

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
        unsafe {
            let sums = self.sums(rows, taps, groups, w);
            for (r, sums) in sums.as_ref().iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let start = _mm256_loadu_si256(scale.start.add(v * 8).cast());
                    let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, start));
                    let scaled = _mm256_mul_ps(sum, _mm256_loadu_ps(scale.step.add(v * 8)));
                    _mm256_storeu_ps(out.add(r * 16 + v * 8), scaled);
                }
            }
        }
    }
}

/// The part of [`Int8Simd`] in which the two kinds of AVX2 core differ.
trait QTile: Copy + Send + Sync + std::fmt::Debug + 'static {
    const TILE: (usize, usize);

    /// Rows of 16 columns.
    type Sums: AsRef<[[__m256i; 2]]>;

    /// The sums of [`Int8Simd::qtile`].
    unsafe fn sums(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
    ) -> Self::Sums;
}

impl QTile for Avx2<true> {
    const TILE: (usize, usize) = (6, 16);
    type Sums = [[__m256i; 2]; 6];

    #[inline(always)]
    unsafe fn sums(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
    ) -> Self::Sums {
        const ROWS: usize = 6;
        unsafe {
            let mut acc = [[_mm256_setzero_si256(); 2]; ROWS];
            let mut w = w.cast::<__m256i>();
            for tap in 0..taps {
                let rows: [*const u8; ROWS] = rows.add(tap * ROWS).cast::<[_; ROWS]>().read();
                for group in 0..groups {
                    let (w0, w1) = (_mm256_loadu_si256(w), _mm256_loadu_si256(w.add(1)));
                    w = w.add(2);
                    for (acc, row) in acc.iter_mut().zip(rows) {
                        let x = row.add(group * 4).cast::<i32>().read_unaligned();
                        let x = _mm256_set1_epi32(x);
                        acc[0] = _mm256_dpbusd_avx_epi32(acc[0], x, w0);
                        acc[1] = _mm256_dpbusd_avx_epi32(acc[1], x, w1);
                    }
                }
            }
            acc
        }
    }
}

impl QTile for Avx2<false> {
    const TILE: (usize, usize) = (4, 16);
    type Sums = [[__m256i; 2]; 4];

    /// Bytes 0 and 2 of a group, and bytes 1 and 3, are widened to 16 bits and multiplied in
    /// pairs: the sum of two products of u8 and i8 in 16 bits, as `maddubs` forms it, would
    /// saturate.
    #[inline(always)]
    unsafe fn sums(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
    ) -> Self::Sums {
        const ROWS: usize = 4;
        unsafe {
            let low_bytes = _mm256_set1_epi16(0xff);
            let mut acc = [[_mm256_setzero_si256(); 2]; ROWS];
            let mut w = w.cast::<__m256i>();
            for tap in 0..taps {
                let rows: [*const u8; ROWS] = rows.add(tap * ROWS).cast::<[_; ROWS]>().read();
                for group in 0..groups {
                    let pair = [_mm256_loadu_si256(w), _mm256_loadu_si256(w.add(1))];
                    let odd = pair.map(|w| _mm256_srai_epi16::<8>(w));
                    let even = pair.map(|w| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)));
                    w = w.add(2);
                    for (acc, row) in acc.iter_mut().zip(rows) {
                        let x = row.add(group * 4).cast::<i32>().read_unaligned();
                        let x = _mm256_set1_epi32(x);
                        let x_even = _mm256_and_si256(x, low_bytes);
                        let x_odd = _mm256_srli_epi16::<8>(x);
                        for (acc, (even, odd)) in acc.iter_mut().zip(even.into_iter().zip(odd)) {
                            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(x_even, even));
                            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(x_odd, odd));
                        }
                    }
                }
            }
            acc
        }
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const TILE: (usize, usize) = (8, 2);
    type F32 = __m512;
    type X4 = *const f32;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_part(self, from: *const f32, lanes: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask16(lanes), from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m512) {
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, value: __m512, lanes: usize) {
        unsafe { _mm512_mask_storeu_ps(to, mask16(lanes), value) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn scale_exp2(self, a: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(a, n) }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_x4(self, from: *const f32) -> *const f32 {
        from
    }

    #[inline(always)]
    unsafe fn mul_add_lane<const LANE: i32>(self, x: *const f32, w: __m512, acc: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(_mm512_set1_ps(*x.add(LANE as usize)), w, acc) }
    }

    #[inline(always)]
    unsafe fn transpose4(
        self,
        from: *const f32,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        unsafe { transpose4(from, from_stride, to, to_stride) }
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_loadu_si512(from.cast())) }
    }

    const LEVEL_BIAS: i32 = 0;

    #[inline(always)]
    unsafe fn load_levels(self, from: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_levels(self, to: *mut u8, value: __m512) {
        unsafe {
            // Beyond the range of u32 the conversion gives u32::MAX, which is right for what is
            // too large; the narrowing clamps the rest.
            let value = self.max(value, self.splat(0.0));
            _mm_storeu_si128(to.cast(), _mm512_cvtusepi32_epi8(_mm512_cvtps_epu32(value)));
        }
    }
}

impl Int8Simd for Avx512 {
    const QTILE: (usize, usize) = (QROWS, 32);
    const QGROUP: usize = 4;

    #[inline(always)]
    unsafe fn qtile(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
        out: *mut i32,
    ) {
        unsafe {
            for (r, [low, high]) in self.sums(rows, taps, groups, w).into_iter().enumerate() {
                _mm512_storeu_si512(out.add(r * 32).cast(), low);
                _mm512_storeu_si512(out.add(r * 32 + 16).cast(), high);
            }
        }
    }

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
        unsafe {
            for (r, sums) in self.sums(rows, taps, groups, w).into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    let start = _mm512_loadu_si512(scale.start.add(v * 16).cast());
                    let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(sum, start));
                    let scaled = _mm512_mul_ps(sum, _mm512_loadu_ps(scale.step.add(v * 16)));
                    _mm512_storeu_ps(out.add(r * 32 + v * 16), scaled);
                }
            }
        }
    }
}

/// Rows of a tile of a quantized matrix product. With two vectors of columns they are 16 chains of
/// additions, twice what the latency asks for, and ten loads for 16 products.
const QROWS: usize = 8;

impl Avx512 {
    /// The sums of [`Int8Simd::qtile`].
    #[inline(always)]
    unsafe fn sums(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
    ) -> [[__m512i; 2]; QROWS] {
        unsafe {
            let mut acc = [[_mm512_setzero_si512(); 2]; QROWS];
            let mut w = w.cast::<__m512i>();
            for tap in 0..taps {
                let rows: [*const u8; QROWS] = rows.add(tap * QROWS).cast::<[_; QROWS]>().read();
                for group in 0..groups {
                    let (w0, w1) = (_mm512_loadu_si512(w), _mm512_loadu_si512(w.add(1)));
                    w = w.add(2);
                    for (acc, row) in acc.iter_mut().zip(rows) {
                        let x = row.add(group * 4).cast::<i32>().read_unaligned();
                        let x = _mm512_set1_epi32(x);
                        acc[0] = _mm512_dpbusd_epi32(acc[0], x, w0);
                        acc[1] = _mm512_dpbusd_epi32(acc[1], x, w1);
                    }
                }
            }
            acc
        }
    }
}

/// See [`Simd::transpose4`]: pairs of rows are interleaved, and then their halves joined.
///
/// # Safety
///
/// What [`Simd::transpose4`] asks for.
#[inline(always)]
unsafe fn transpose4(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: every x86_64 core has SSE; the caller vouches for the pointers.
    unsafe {
        let (a, b) = (_mm_loadu_ps(from), _mm_loadu_ps(from.add(from_stride)));
        let from = from.add(2 * from_stride);
        let (c, d) = (_mm_loadu_ps(from), _mm_loadu_ps(from.add(from_stride)));
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        _mm_storeu_ps(to, _mm_movelh_ps(ab, cd));
        _mm_storeu_ps(to.add(to_stride), _mm_movehl_ps(cd, ab));
        let (ab, cd) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        _mm_storeu_ps(to.add(2 * to_stride), _mm_movelh_ps(ab, cd));
        _mm_storeu_ps(to.add(3 * to_stride), _mm_movehl_ps(cd, ab));
    }
}

/// A mask of the first `lanes` of sixteen.
#[inline(always)]
fn mask16(lanes: usize) -> __mmask16 {
    ((1u32 << lanes) - 1) as __mmask16
}
