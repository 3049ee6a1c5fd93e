//! NEON, which every 64-bit Arm core has, with and without its int8 dot products.
//!
//! Every method is an intrinsic or a few. The compiler uses NEON everywhere; only the dot products
//! are asked for one by one. They are safe to call because `neon` is a part of the
//! architecture; `sdot` is used only where a [`Neon<true>`] exists, which is where the core was
//! asked and said yes.

mod half;
mod in_order;

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Int8Simd, QScale, Simd, Tile};

/// A core with NEON; with `DOT`, with FEAT_DotProd as well (Cortex-A76 and later, and A55), which is
/// for int8 alone.
#[derive(Debug, Clone, Copy)]
pub struct Neon<const DOT: bool>(());

impl Neon<false> {
    /// The proof that this core has NEON.
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

impl Neon<true> {
    /// The proof, if this core has the dot products.
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }
}

// SAFETY of every `unsafe` block below that says nothing else: the intrinsic needs only NEON;
// pointers are the caller's to vouch for.

impl<const DOT: bool> Simd for Neon<DOT> {
    const LANES: usize = 4;
    const TILE: (usize, usize) = (6, 4);
    type F32 = float32x4_t;
    type X4 = float32x4_t;

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn load_part(self, from: *const f32, lanes: usize) -> float32x4_t {
        unsafe {
            let zero = vdup_n_f32(0.0);
            match lanes {
                0 => vdupq_n_f32(0.0),
                1 => vcombine_f32(vld1_lane_f32::<0>(from, zero), zero),
                2 => vcombine_f32(vld1_f32(from), zero),
                3 => vcombine_f32(vld1_f32(from), vld1_lane_f32::<0>(from.add(2), zero)),
                _ => vld1q_f32(from),
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: float32x4_t) {
        unsafe { vst1q_f32(to, value) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, value: float32x4_t, lanes: usize) {
        unsafe {
            match lanes {
                0 => {}
                1 => vst1q_lane_f32::<0>(to, value),
                2 => vst1_f32(to, vget_low_f32(value)),
                3 => {
                    vst1_f32(to, vget_low_f32(value));
                    vst1q_lane_f32::<2>(to.add(2), value);
                }
                _ => vst1q_f32(to, value),
            }
        }
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn ratio(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // A division keeps a small core busy for 20 cycles and more, two steps of Newton's method
        // for 10.
        unsafe {
            let rough = vrecpeq_f32(b);
            let better = vmulq_f32(rough, vrecpsq_f32(b, rough));
            vmulq_f32(a, vmulq_f32(better, vrecpsq_f32(b, better)))
        }
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vminq_f32(a, b) }
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmaxq_f32(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn round(self, a: float32x4_t) -> float32x4_t {
        unsafe { vrndnq_f32(a) }
    }

    #[inline(always)]
    fn scale_exp2(self, a: float32x4_t, n: float32x4_t) -> float32x4_t {
        unsafe {
            // A fixed-point number with 23 bits behind the point has `n` where an f32 has its
            // exponent.
            let exponent = vcvtq_n_s32_f32::<23>(vaddq_f32(n, vdupq_n_f32(127.0)));
            vmulq_f32(a, vreinterpretq_f32_s32(exponent))
        }
    }

    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        unsafe { vaddvq_f32(a) }
    }

    #[inline(always)]
    fn largest(self, a: float32x4_t) -> f32 {
        unsafe { vmaxvq_f32(a) }
    }

    #[inline(always)]
    unsafe fn load_x4(self, from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn mul_add_lane<const LANE: i32>(
        self,
        x: float32x4_t,
        w: float32x4_t,
        acc: float32x4_t,
    ) -> float32x4_t {
        unsafe { vfmaq_laneq_f32::<LANE>(acc, w, x) }
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const V: usize>(self, tile: Tile) -> bool {
        if tile.taps == 0 || tile.k == 0 || !tile.k.is_multiple_of(4) {
            return false;
        }
        // SAFETY: the tile is as the caller says, and `taps` and `k` are what the kernels ask for.
        unsafe {
            match (R, V, in_order::everywhere()) {
                (6, 4, false) => six_rows(tile),
                (4, 4, false) => four_rows(tile),
                (6, 4, true) => in_order::six_rows(tile),
                (4, 4, true) => in_order::four_rows(tile),
                _ => return false,
            }
        }
        true
    }

    #[inline(always)]
    unsafe fn half_tile<const R: usize, const V: usize>(self, tile: Tile) {
        // SAFETY: the caller vouches for the tile, and that the core was asked for f16.
        unsafe {
            match (R, V) {
                (6, 4) => half::six_rows(tile),
                (4, 4) => half::four_rows(tile),
                _ => unreachable!("no tile in f16 has {R} rows"),
            }
        }
    }

    #[inline(always)]
    unsafe fn transpose4(
        self,
        from: *const f32,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        unsafe {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| vld1q_u32(from.add(i * from_stride).cast()));
            // Columns 0 and 2 side by side, and columns 1 and 3.
            let (ab, ab_odd) = (vtrn1q_u32(a, b), vtrn2q_u32(a, b));
            let (cd, cd_odd) = (vtrn1q_u32(c, d), vtrn2q_u32(c, d));
            for (i, upper, lower) in [(0, ab, cd), (1, ab_odd, cd_odd)] {
                let (upper, lower) = (vreinterpretq_u64_u32(upper), vreinterpretq_u64_u32(lower));
                vst1q_u64(to.add(i * to_stride).cast(), vtrn1q_u64(upper, lower));
                vst1q_u64(to.add((i + 2) * to_stride).cast(), vtrn2q_u64(upper, lower));
            }
        }
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> float32x4_t {
        unsafe { vcvtq_f32_s32(vld1q_s32(from)) }
    }

    const LEVEL_BIAS: i32 = 128;

    #[inline(always)]
    unsafe fn load_levels(self, from: *const u8) -> float32x4_t {
        unsafe {
            let bytes = vcreate_s8(u64::from(from.cast::<u32>().read_unaligned()));
            let wide = vmovl_s16(vget_low_s16(vmovl_s8(bytes)));
            vaddq_f32(vcvtq_f32_s32(wide), vdupq_n_f32(Self::LEVEL_BIAS as f32))
        }
    }

    #[inline(always)]
    unsafe fn store_levels(self, to: *mut u8, value: float32x4_t) {
        unsafe {
            // Every step saturates.
            let words = vqmovn_s32(vcvtnq_s32_f32(value));
            let words = vqsub_s16(words, vdup_n_s16(Self::LEVEL_BIAS as i16));
            let bytes = vqmovn_s16(vcombine_s16(words, words));
            let bytes = vget_lane_u32::<0>(vreinterpret_u32_s8(bytes));
            to.cast::<u32>().write_unaligned(bytes);
        }
    }
}

impl<const DOT: bool> Int8Simd for Neon<DOT>
where
    Self: QTile,
{
    const QTILE: (usize, usize) = <Self as QTile>::TILE;
    const QGROUP: usize = <Self as QTile>::GROUP;

    #[inline(always)]
    unsafe fn qtile(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
        out: *mut i32,
    ) {
        unsafe { QTile::qtile(self, rows, taps, groups, w, out) }
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
        let (row_count, columns) = Self::QTILE;
        unsafe {
            QTile::qtile(self, rows, taps, groups, w, out.cast());
            for column in (0..columns).step_by(4) {
                let start = vld1q_s32(scale.start.add(column));
                let step = vld1q_f32(scale.step.add(column));
                for row in 0..row_count {
                    let to = out.add(row * columns + column);
                    let sum = vaddq_s32(vld1q_s32(to.cast()), start);
                    vst1q_f32(to, vmulq_f32(vcvtq_f32_s32(sum), step));
                }
            }
        }
    }
}

/// Adds the products of a row's value `$lane` and two vectors of weights.
macro_rules! multiply {
    ($x:literal, $lane:literal, $a:literal, $b:literal) => {
        concat!(
            concat!("fmla v", $a, ".4s, v30.4s, v", $x, ".s[", $lane, "]\n"),
            concat!("fmla v", $b, ".4s, v31.4s, v", $x, ".s[", $lane, "]\n"),
        )
    };
}

/// Adds the products of four values of every row: each multiplies two vectors of weights, and two
/// more.
macro_rules! four_values {
    ($($pointer:ident $x:literal $a:literal $b:literal $c:literal $d:literal),*) => {
        concat!(
            "ldp q30, q31, [{w}], #32\n",
            $(concat!("ldr q", $x, ", [{", stringify!($pointer), "}], #16\n"),)*
            $(multiply!($x, "0", $a, $b),)*
            "ldp q30, q31, [{w}], #32\n",
            $(multiply!($x, "0", $c, $d),)*
            "ldp q30, q31, [{w}], #32\n",
            $(multiply!($x, "1", $a, $b),)*
            "ldp q30, q31, [{w}], #32\n",
            $(multiply!($x, "1", $c, $d),)*
            "ldp q30, q31, [{w}], #32\n",
            $(multiply!($x, "2", $a, $b),)*
            "ldp q30, q31, [{w}], #32\n",
            $(multiply!($x, "2", $c, $d),)*
            "ldp q30, q31, [{w}], #32\n",
            $(multiply!($x, "3", $a, $b),)*
            "ldp q30, q31, [{w}], #32\n",
            $(multiply!($x, "3", $c, $d),)*
        )
    };
}

/// Makes a [`Simd::tile`] for four vectors of columns and a `k` of whole vectors: of every row its
/// pointer, the register of four of its values, and those of its sums.
///
/// For six rows, 24 sums, six values and two weights are all the registers that there are, and
/// compilers do not find the order of instructions for which they are enough. By hand it takes 111
/// for 96 products of vectors, and no sum leaves its register.
macro_rules! tile {
    ($name:ident, $($pointer:ident $x:literal $a:literal $b:literal $c:literal $d:literal),*) => {
        /// [`Simd::tile`] for tiles of so many rows.
        ///
        /// # Safety
        ///
        /// What [`Simd::tile`] asks for; neither `taps` nor `k` is 0, and `k` is a multiple of 4.
        #[inline(always)]
        unsafe fn $name(tile: Tile) {
            // SAFETY: what is read and written is what the caller vouches for: rows of `k`, weights
            // of `taps · k` rows and the tile of sums. Every register that is used is named.
            unsafe {
                asm!(
                    "cbz {add}, 2f",
                    $(
                        concat!("ldp q", $a, ", q", $b, ", [{from}]"),
                        concat!("ldp q", $c, ", q", $d, ", [{from}, #32]"),
                        "add {from}, {from}, {stride}",
                    )*
                    "b 3f",
                    "2:",
                    $(
                        concat!("movi v", $a, ".16b, #0"),
                        concat!("movi v", $b, ".16b, #0"),
                        concat!("movi v", $c, ".16b, #0"),
                        concat!("movi v", $d, ".16b, #0"),
                    )*
                    // Tap by tap, four values of every row where their number is odd, and then eight.
                    "3:",
                    $(concat!("ldr {", stringify!($pointer), "}, [{rows}], #8"),)*
                    "mov {left}, {steps}",
                    "tbz {left}, #0, 4f",
                    four_values!($($pointer $x $a $b $c $d),*),
                    "subs {left}, {left}, #1",
                    "b.eq 5f",
                    "4:",
                    four_values!($($pointer $x $a $b $c $d),*),
                    "subs {left}, {left}, #2",
                    four_values!($($pointer $x $a $b $c $d),*),
                    "b.ne 4b",
                    "5:",
                    "subs {taps}, {taps}, #1",
                    "b.ne 3b",
                    $(
                        concat!("stp q", $a, ", q", $b, ", [{out}]"),
                        concat!("stp q", $c, ", q", $d, ", [{out}, #32]"),
                        "add {out}, {out}, {stride}",
                    )*
                    $($pointer = out(reg) _,)*
                    rows = inout(reg) tile.rows => _,
                    taps = inout(reg) tile.taps => _,
                    steps = in(reg) tile.k / 4,
                    left = out(reg) _,
                    w = inout(reg) tile.w => _,
                    from = inout(reg) tile.out => _,
                    out = inout(reg) tile.out => _,
                    stride = in(reg) tile.out_stride * size_of::<f32>(),
                    add = in(reg) usize::from(tile.add),
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                    out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                    out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                    out("v12") _, out("v13") _, out("v14") _, out("v15") _,
                    out("v16") _, out("v17") _, out("v18") _, out("v19") _,
                    out("v20") _, out("v21") _, out("v22") _, out("v23") _,
                    out("v24") _, out("v25") _, out("v26") _, out("v27") _,
                    out("v28") _, out("v29") _, out("v30") _, out("v31") _,
                    options(nostack),
                );
            }
        }
    };
}

tile!(
    six_rows,
    row0 "24" "0" "1" "2" "3",
    row1 "25" "4" "5" "6" "7",
    row2 "26" "8" "9" "10" "11",
    row3 "27" "12" "13" "14" "15",
    row4 "28" "16" "17" "18" "19",
    row5 "29" "20" "21" "22" "23"
);
tile!(
    four_rows,
    row0 "24" "0" "1" "2" "3",
    row1 "25" "4" "5" "6" "7",
    row2 "26" "8" "9" "10" "11",
    row3 "27" "12" "13" "14" "15"
);

/// The part of [`Int8Simd`] in which the two kinds of core differ.
trait QTile: Copy + Send + Sync + std::fmt::Debug + 'static {
    const TILE: (usize, usize);
    const GROUP: usize;

    /// See [`Int8Simd::qtile`].
    unsafe fn qtile(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
        out: *mut i32,
    );
}

impl QTile for Neon<true> {
    const TILE: (usize, usize) = (8, 8);
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn qtile(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
        out: *mut i32,
    ) {
        // SAFETY: `self` is the proof that the core has dot products.
        unsafe { dot_tile(rows, taps, groups, w.cast(), out) }
    }
}

/// Rows of [`dot_tile`].
const DOT_ROWS: usize = <Neon<true> as QTile>::TILE.0;

/// [`Int8Simd::qtile`] in dot products: `w` is `[tap][group]` of two vectors of four columns.
///
/// # Safety
///
/// What [`Int8Simd::qtile`] asks for, and that the core has dot products.
#[target_feature(enable = "dotprod")]
unsafe fn dot_tile(
    rows: *const *const u8,
    taps: usize,
    groups: usize,
    mut w: *const [i8; 32],
    out: *mut i32,
) {
    unsafe {
        let mut acc = [[vdupq_n_s32(0); 2]; DOT_ROWS];
        for tap in 0..taps {
            let rows: [*const u8; DOT_ROWS] = rows.add(tap * DOT_ROWS).cast::<[_; _]>().read();
            let single = groups % 4;
            for group in 0..single {
                let x = rows.map(|row| {
                    let x = row.add(group * 4).cast::<i32>().read_unaligned();
                    vreinterpretq_s8_s32(vdupq_n_s32(x))
                });
                dot_step::<0>(&x, w, &mut acc);
                w = w.add(1);
            }
            for group in (single..groups).step_by(4) {
                let x = rows.map(|row| vld1q_s8(row.add(group * 4).cast()));
                dot_step::<0>(&x, w, &mut acc);
                dot_step::<1>(&x, w.add(1), &mut acc);
                dot_step::<2>(&x, w.add(2), &mut acc);
                dot_step::<3>(&x, w.add(3), &mut acc);
                w = w.add(4);
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            vst1q_s32(out.add(r * 8), acc[0]);
            vst1q_s32(out.add(r * 8 + 4), acc[1]);
        }
    }
}

/// Adds the products of group `LANE` of every row with one group of eight columns.
///
/// # Safety
///
/// `w` can be read, and the core has dot products.
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn dot_step<const LANE: i32>(
    x: &[int8x16_t; DOT_ROWS],
    w: *const [i8; 32],
    acc: &mut [[int32x4_t; 2]; DOT_ROWS],
) {
    unsafe {
        let (w0, w1) = (vld1q_s8(w.cast()), vld1q_s8(w.cast::<i8>().add(16)));
        for (acc, &x) in acc.iter_mut().zip(x) {
            acc[0] = dot::<LANE>(acc[0], w0, x);
            acc[1] = dot::<LANE>(acc[1], w1, x);
        }
    }
}

/// `acc[i] + Σ_j w[4i + j] · x[4·LANE + j]`; the compiler's own `vdotq_laneq_s32` is not stable.
#[inline]
#[target_feature(enable = "dotprod")]
fn dot<const LANE: i32>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction reads and writes its registers alone.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            acc = inlateout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

impl QTile for Neon<false> {
    const TILE: (usize, usize) = (4, 4);
    const GROUP: usize = 16;

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
            let w = w.cast();
            let least = pair_tile::<false>(rows, taps, groups, w, out);
            if least == i8::MIN && overflow(w, taps * groups) {
                pair_tile::<true>(rows, taps, groups, w, out);
            }
        }
    }
}

/// Rows of [`pair_tile`], and columns.
const PAIR_ROWS: usize = <Neon<false> as QTile>::TILE.0;
const PAIR_COLUMNS: usize = <Neon<false> as QTile>::TILE.1;

/// Sixteen weights of each of a tile's columns.
type PairGroup = [[i8; 16]; PAIR_COLUMNS];

/// [`Int8Simd::qtile`] in 16-bit products, of which value `k` and value `k + 8` of a group are added
/// in 16 bits, or unless `APART` is true. Returns the least weight.
///
/// A sum of two products overflows where all four factors are -128, and nowhere else.
///
/// # Safety
///
/// What [`Int8Simd::qtile`] asks for.
#[inline]
unsafe fn pair_tile<const APART: bool>(
    rows: *const *const u8,
    taps: usize,
    groups: usize,
    mut w: *const PairGroup,
    out: *mut i32,
) -> i8 {
    unsafe {
        let mut acc = [[vdupq_n_s32(0); PAIR_COLUMNS]; PAIR_ROWS];
        let mut least = vdupq_n_s8(0);
        for tap in 0..taps {
            let rows: [*const u8; PAIR_ROWS] = rows.add(tap * PAIR_ROWS).cast::<[_; _]>().read();
            for group in 0..groups {
                let x = rows.map(|row| vld1q_s8(row.add(group * 16).cast()));
                for column in 0..PAIR_COLUMNS {
                    let w = vld1q_s8((*w)[column].as_ptr());
                    least = vminq_s8(least, w);
                    for (acc, x) in acc.iter_mut().zip(x) {
                        let mut sum = vmull_s8(vget_low_s8(x), vget_low_s8(w));
                        if APART {
                            acc[column] = vpadalq_s16(acc[column], sum);
                            sum = vmull_high_s8(x, w);
                        } else {
                            sum = vmlal_high_s8(sum, x, w);
                        }
                        acc[column] = vpadalq_s16(acc[column], sum);
                    }
                }
                w = w.add(1);
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            let (low, high) = (vpaddq_s32(acc[0], acc[1]), vpaddq_s32(acc[2], acc[3]));
            vst1q_s32(out.add(r * PAIR_COLUMNS), vpaddq_s32(low, high));
        }
        vminvq_s8(least)
    }
}

/// Whether weight `k` and weight `k + 8` of any column of any group are both -128.
///
/// # Safety
///
/// `w` holds `groups`.
#[cold]
unsafe fn overflow(w: *const PairGroup, groups: usize) -> bool {
    // SAFETY: the caller vouches for the groups.
    let columns = unsafe { std::slice::from_raw_parts(w, groups) }.as_flattened();
    columns
        .iter()
        .any(|w| (0..8).any(|k| w[k] == i8::MIN && w[k + 8] == i8::MIN))
}
