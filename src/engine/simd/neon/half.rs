//! Tiles in f16, for cores with FEAT_FP16: Cortex-A76 and later, and A55.
//!
//! A multiplication has eight lanes instead of four. Its error is three decimal digits, so that
//! only few products are added in f16; their sums go on in f32, in the memory of the tile.

use std::arch::asm;

use super::super::HALF_TERMS;
use super::Tile;

/// Products of value `$lane` of every row with the weights of sixteen columns, in two registers.
macro_rules! column {
    ($lane:literal $w:literal $v:literal; $($x:literal $a:literal $b:literal),*) => {
        concat!(
            concat!("ldp q", $w, ", q", $v, ", [{w}], #32\n"),
            $(
                concat!("fmla v", $a, ".8h, v", $w, ".8h, v", $x, ".h[", $lane, "]\n"),
                concat!("fmla v", $b, ".8h, v", $v, ".8h, v", $x, ".h[", $lane, "]\n"),
            )*
        )
    };
}

/// Makes a tile of sixteen columns: of every row its pointer, the register of eight of its values
/// (one of the first sixteen, which alone can be multiplied by lanes) and those of its sums.
macro_rules! tile {
    (
        $name:ident, $chunk:ident, $rows:literal,
        $($pointer:ident $x:literal $a:literal $b:literal),*
    ) => {
        /// [`super::super::Simd::half_tile`] for tiles of so many rows.
        ///
        /// # Safety
        ///
        /// What [`super::super::Simd::half_tile`] asks for, and that the core has FEAT_FP16.
        #[target_feature(enable = "fp16")]
        pub unsafe fn $name(tile: Tile) {
            let mut w = tile.w.cast::<[u16; 16]>();
            let mut add = tile.add;
            for tap in 0..tile.taps {
                for first in (0..tile.k).step_by(HALF_TERMS) {
                    let k = HALF_TERMS.min(tile.k - first);
                    // SAFETY: the rows of this tap, these of their values and their weights are
                    // among those of the tile.
                    unsafe {
                        let rows = tile.rows.add(tap * $rows);
                        $chunk(rows, first, k, w, tile.out, tile.out_stride, add);
                        w = w.add(k);
                    }
                    add = true;
                }
            }
        }

        /// The sums of `k` products in f16, from value `first` of every row on, added to `out` in
        /// f32 if `add`, or written there.
        ///
        /// # Safety
        ///
        /// What [`super::super::Simd::half_tile`] asks for, and that the core has FEAT_FP16; `k` is
        /// not 0.
        #[inline]
        #[target_feature(enable = "fp16")]
        unsafe fn $chunk(
            rows: *const *const f32,
            first: usize,
            k: usize,
            w: *const [u16; 16],
            out: *mut f32,
            out_stride: usize,
            add: bool,
        ) {
            // SAFETY: what is read and written is what the caller vouches for. Every register that
            // is used is named.
            unsafe {
                asm!(
                    $(
                        concat!("ldr {", stringify!($pointer), "}, [{rows}], #8"),
                        concat!("movi v", $a, ".16b, #0"),
                        concat!("movi v", $b, ".16b, #0"),
                    )*
                    $(concat!(
                        "add {", stringify!($pointer), "}, {", stringify!($pointer), "}, {first}"
                    ),)*
                    "2:",
                    $(concat!("ldp q12, q13, [{", stringify!($pointer), "}], #32\n",
                        "fcvtn v", $x, ".4h, v12.4s\n",
                        "fcvtn2 v", $x, ".8h, v13.4s"),)*
                    column!("0" "28" "29"; $($x $a $b),*),
                    column!("1" "30" "31"; $($x $a $b),*),
                    column!("2" "28" "29"; $($x $a $b),*),
                    column!("3" "30" "31"; $($x $a $b),*),
                    column!("4" "28" "29"; $($x $a $b),*),
                    column!("5" "30" "31"; $($x $a $b),*),
                    column!("6" "28" "29"; $($x $a $b),*),
                    column!("7" "30" "31"; $($x $a $b),*),
                    "subs {steps}, {steps}, #1",
                    "b.ne 2b",
                    "cbz {add}, 3f",
                    $(
                        "ldp q4, q5, [{out}]",
                        "ldp q6, q7, [{out}, #32]",
                        concat!("fcvtl v0.4s, v", $a, ".4h"),
                        concat!("fcvtl2 v1.4s, v", $a, ".8h"),
                        concat!("fcvtl v2.4s, v", $b, ".4h"),
                        concat!("fcvtl2 v3.4s, v", $b, ".8h"),
                        "fadd v0.4s, v0.4s, v4.4s",
                        "fadd v1.4s, v1.4s, v5.4s",
                        "fadd v2.4s, v2.4s, v6.4s",
                        "fadd v3.4s, v3.4s, v7.4s",
                        "stp q0, q1, [{out}]",
                        "stp q2, q3, [{out}, #32]",
                        "add {out}, {out}, {stride}",
                    )*
                    "b 4f",
                    "3:",
                    $(
                        concat!("fcvtl v0.4s, v", $a, ".4h"),
                        concat!("fcvtl2 v1.4s, v", $a, ".8h"),
                        concat!("fcvtl v2.4s, v", $b, ".4h"),
                        concat!("fcvtl2 v3.4s, v", $b, ".8h"),
                        "stp q0, q1, [{out}]",
                        "stp q2, q3, [{out}, #32]",
                        "add {out}, {out}, {stride}",
                    )*
                    "4:",
                    $($pointer = out(reg) _,)*
                    rows = inout(reg) rows => _,
                    first = in(reg) first * size_of::<f32>(),
                    steps = inout(reg) k / 8 => _,
                    w = inout(reg) w => _,
                    out = inout(reg) out => _,
                    stride = in(reg) out_stride * size_of::<f32>(),
                    add = in(reg) usize::from(add),
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                    out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                    out("v12") _, out("v13") _,
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
    six_rows, six_rows_chunk, 6,
    row0 "0" "16" "17",
    row1 "1" "18" "19",
    row2 "2" "20" "21",
    row3 "3" "22" "23",
    row4 "4" "24" "25",
    row5 "5" "26" "27"
);
tile!(
    four_rows, four_rows_chunk, 4,
    row0 "0" "16" "17",
    row1 "1" "18" "19",
    row2 "2" "20" "21",
    row3 "3" "22" "23"
);
