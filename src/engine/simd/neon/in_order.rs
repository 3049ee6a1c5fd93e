//! Tiles for cores that take instructions in their order.
//!
//! Such a core (Cortex-A35, A53, A55) waits where a value is not there yet. By what the authors of
//! ncnn measured on an A53 (their arm-a53-a55-dual-issue.md), a load of 128 bits into a vector
//! register also keeps it from multiplying for two cycles, while one of 64 bits takes a cycle, in
//! which the other half of a vector can be inserted from a general register, and that register is
//! loaded beside a multiplication. So here every vector comes in halves, a vector's products ahead
//! of its use: 128 cycles for 24 × 4 products of vectors, instead of 140 and the waiting if they
//! are loaded whole. It takes 170 instructions instead of 111, which other cores notice.
//!
//! The sums are the same to the last bit: each is added up in the same order.

use std::arch::asm;
use std::sync::OnceLock;

use super::Tile;

/// Whether all cores of this machine take instructions in their order.
pub fn everywhere() -> bool {
    static EVERYWHERE: OnceLock<bool> = OnceLock::new();
    *EVERYWHERE.get_or_init(|| {
        std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|told| all_in_order(&told))
    })
}

/// Whether Linux, by what it says of its processors, knows such cores and no others. Beside
/// others, which are faster, their order of instructions is not worth what it costs those.
fn all_in_order(cpuinfo: &str) -> bool {
    // Arm's own: A35, A53 and A55.
    const IMPLEMENTER: &str = "0x41";
    const PARTS: [&str; 3] = ["0xd04", "0xd03", "0xd05"];
    let values = |wanted: &'static str| {
        let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields
            .filter(move |(name, _)| name.trim_end() == wanted)
            .map(|(_, value)| value.trim())
    };
    values("CPU part").next().is_some()
        && values("CPU implementer").all(|maker| maker == IMPLEMENTER)
        && values("CPU part").all(|part| PARTS.contains(&part))
}

/// Products of one vector of weights and value `$lane` of every row. `$weights` is where the next
/// vector of weights goes, or nothing; `$insert` is what the cycle of its load has room for besides,
/// and `$value` what the second product has.
///
/// Three products stand between a load and an insertion and between an insertion and a load: none
/// of them is four cycles after a product then, when this one meets its sum and nothing can be
/// loaded.
macro_rules! vector {
    (
        $w:literal $next:literal $lane:literal, $insert:literal, $value:literal;
        $a:literal $x:literal, $b:literal $y:literal $(, $c:literal $z:literal)*;
        $($d:literal $u:literal),*
    ) => {
        concat!(
            concat!("ldr d", $next, ", [{w}], #8\n"),
            $insert,
            concat!("fmla v", $a, ".4s, v", $w, ".4s, v", $x, ".s[", $lane, "]\n"),
            "ldr {weights}, [{w}], #8\n",
            concat!("fmla v", $b, ".4s, v", $w, ".4s, v", $y, ".s[", $lane, "]\n"),
            $value,
            $(concat!("fmla v", $c, ".4s, v", $w, ".4s, v", $z, ".s[", $lane, "]\n"),)*
            concat!("ins v", $next, ".d[1], {weights}\n"),
            $(concat!("fmla v", $d, ".4s, v", $w, ".4s, v", $u, ".s[", $lane, "]\n"),)*
        )
    };
    ($w:literal $lane:literal; $($a:literal $x:literal),*; $($d:literal $u:literal),*) => {
        concat!(
            $(concat!("fmla v", $a, ".4s, v", $w, ".4s, v", $x, ".s[", $lane, "]\n"),)*
            $(concat!("fmla v", $d, ".4s, v", $w, ".4s, v", $u, ".s[", $lane, "]\n"),)*
        )
    };
}

/// Makes a tile as [`super::tile`] does, of rows in two halves. `$load` and `$upper` load and insert
/// the upper half of a row's four values, `$load` and `$lower` the lower half of its next four.
macro_rules! tile {
    (
        $name:ident,
        $($p:ident $x:literal $a:literal $b:literal $c:literal $d:literal),*;
        $($q:ident $y:literal $e:literal $f:literal $g:literal $h:literal),*;
        $l0:literal $l1:literal $l2:literal $l3:literal $l4:literal $l5:literal;
        $u0:literal $u1:literal $u2:literal $u3:literal $u4:literal $u5:literal;
        $v0:literal $v1:literal $v2:literal $v3:literal $v4:literal $v5:literal
    ) => {
        /// [`super::super::Simd::tile`] for tiles of so many rows and four vectors of columns.
        ///
        /// # Safety
        ///
        /// What [`super::super::Simd::tile`] asks for; neither `taps` nor `k` is 0, and `k` is a
        /// multiple of 4.
        #[inline(always)]
        pub unsafe fn $name(tile: Tile) {
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
                    $(
                        concat!("ldp q", $e, ", q", $f, ", [{from}]"),
                        concat!("ldp q", $g, ", q", $h, ", [{from}, #32]"),
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
                    $(
                        concat!("movi v", $e, ".16b, #0"),
                        concat!("movi v", $f, ".16b, #0"),
                        concat!("movi v", $g, ".16b, #0"),
                        concat!("movi v", $h, ".16b, #0"),
                    )*
                    // Tap by tap; four values of every row at a time, the last four apart, since
                    // nothing is loaded for any that follow.
                    "3:",
                    $(concat!("ldr {", stringify!($p), "}, [{rows}], #8"),)*
                    $(concat!("ldr {", stringify!($q), "}, [{rows}], #8"),)*
                    $(concat!("ldr d", $x, ", [{", stringify!($p), "}], #8"),)*
                    $(concat!("ldr d", $y, ", [{", stringify!($q), "}], #8"),)*
                    "ldr q30, [{w}], #16",
                    "subs {left}, {steps}, #1",
                    "b.eq 5f",
                    "4:",
                    vector!("30" "31" "0", "", $l0; $($a $x),*; $($e $y),*),
                    vector!("31" "30" "0", $u0, $l1; $($b $x),*; $($f $y),*),
                    vector!("30" "31" "0", $u1, $l2; $($c $x),*; $($g $y),*),
                    vector!("31" "30" "0", $u2, $l3; $($d $x),*; $($h $y),*),
                    vector!("30" "31" "1", $u3, $l4; $($a $x),*; $($e $y),*),
                    vector!("31" "30" "1", $u4, $l5; $($b $x),*; $($f $y),*),
                    vector!("30" "31" "1", $u5, ""; $($c $x),*; $($g $y),*),
                    vector!("31" "30" "1", "", ""; $($d $x),*; $($h $y),*),
                    vector!("30" "31" "2", "", $l0; $($a $x),*; $($e $y),*),
                    vector!("31" "30" "2", $v0, $l1; $($b $x),*; $($f $y),*),
                    vector!("30" "31" "2", $v1, $l2; $($c $x),*; $($g $y),*),
                    vector!("31" "30" "2", $v2, $l3; $($d $x),*; $($h $y),*),
                    vector!("30" "31" "3", $v3, $l4; $($a $x),*; $($e $y),*),
                    vector!("31" "30" "3", $v4, $l5; $($b $x),*; $($f $y),*),
                    vector!("30" "31" "3", $v5, ""; $($c $x),*; $($g $y),*),
                    "subs {left}, {left}, #1",
                    vector!("31" "30" "3", "", ""; $($d $x),*; $($h $y),*),
                    "b.ne 4b",
                    "5:",
                    vector!("30" "31" "0", "", $l0; $($a $x),*; $($e $y),*),
                    vector!("31" "30" "0", $u0, $l1; $($b $x),*; $($f $y),*),
                    vector!("30" "31" "0", $u1, $l2; $($c $x),*; $($g $y),*),
                    vector!("31" "30" "0", $u2, $l3; $($d $x),*; $($h $y),*),
                    vector!("30" "31" "1", $u3, $l4; $($a $x),*; $($e $y),*),
                    vector!("31" "30" "1", $u4, $l5; $($b $x),*; $($f $y),*),
                    vector!("30" "31" "1", $u5, ""; $($c $x),*; $($g $y),*),
                    vector!("31" "30" "1", "", ""; $($d $x),*; $($h $y),*),
                    vector!("30" "31" "2", "", ""; $($a $x),*; $($e $y),*),
                    vector!("31" "30" "2", "", ""; $($b $x),*; $($f $y),*),
                    vector!("30" "31" "2", "", ""; $($c $x),*; $($g $y),*),
                    vector!("31" "30" "2", "", ""; $($d $x),*; $($h $y),*),
                    vector!("30" "31" "3", "", ""; $($a $x),*; $($e $y),*),
                    vector!("31" "30" "3", "", ""; $($b $x),*; $($f $y),*),
                    vector!("30" "31" "3", "", ""; $($c $x),*; $($g $y),*),
                    vector!("31" "3"; $($d $x),*; $($h $y),*),
                    "subs {taps}, {taps}, #1",
                    "b.ne 3b",
                    $(
                        concat!("stp q", $a, ", q", $b, ", [{out}]"),
                        concat!("stp q", $c, ", q", $d, ", [{out}, #32]"),
                        "add {out}, {out}, {stride}",
                    )*
                    $(
                        concat!("stp q", $e, ", q", $f, ", [{out}]"),
                        concat!("stp q", $g, ", q", $h, ", [{out}, #32]"),
                        "add {out}, {out}, {stride}",
                    )*
                    $($p = out(reg) _,)*
                    $($q = out(reg) _,)*
                    rows = inout(reg) tile.rows => _,
                    taps = inout(reg) tile.taps => _,
                    steps = in(reg) tile.k / 4,
                    left = out(reg) _,
                    weights = out(reg) _,
                    values = out(reg) _,
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
    row2 "26" "8" "9" "10" "11";
    row3 "27" "12" "13" "14" "15",
    row4 "28" "16" "17" "18" "19",
    row5 "29" "20" "21" "22" "23";
    "ldr {values}, [{row0}], #8\n" "ldr {values}, [{row1}], #8\n" "ldr {values}, [{row2}], #8\n"
    "ldr {values}, [{row3}], #8\n" "ldr {values}, [{row4}], #8\n" "ldr {values}, [{row5}], #8\n";
    "ins v24.d[1], {values}\n" "ins v25.d[1], {values}\n" "ins v26.d[1], {values}\n"
    "ins v27.d[1], {values}\n" "ins v28.d[1], {values}\n" "ins v29.d[1], {values}\n";
    "ins v24.d[0], {values}\n" "ins v25.d[0], {values}\n" "ins v26.d[0], {values}\n"
    "ins v27.d[0], {values}\n" "ins v28.d[0], {values}\n" "ins v29.d[0], {values}\n"
);
tile!(
    four_rows,
    row0 "24" "0" "1" "2" "3",
    row1 "25" "4" "5" "6" "7";
    row2 "26" "8" "9" "10" "11",
    row3 "27" "12" "13" "14" "15";
    "ldr {values}, [{row0}], #8\n" "ldr {values}, [{row1}], #8\n" "ldr {values}, [{row2}], #8\n"
    "ldr {values}, [{row3}], #8\n" "" "";
    "ins v24.d[1], {values}\n" "ins v25.d[1], {values}\n" "ins v26.d[1], {values}\n"
    "ins v27.d[1], {values}\n" "" "";
    "ins v24.d[0], {values}\n" "ins v25.d[0], {values}\n" "ins v26.d[0], {values}\n"
    "ins v27.d[0], {values}\n" "" ""
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_known_by_its_maker_and_its_part() {
        let core = |implementer: &str, part: &str| {
            format!(
                "processor\t: 0\nCPU implementer\t: {implementer}\nCPU architecture: 8\n\
                 CPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 4\n\n"
            )
        };
        assert!(all_in_order(&core("0x41", "0xd03")));
        assert!(!all_in_order(&core("0x41", "0xd08")));
        assert!(!all_in_order(&core("0x43", "0xd03")));
        let both = core("0x41", "0xd05") + &core("0x41", "0xd0b");
        assert!(!all_in_order(&both));
        let alike = core("0x41", "0xd03").repeat(4);
        assert!(all_in_order(&alike));
        assert!(!all_in_order("processor : 0\nflags : fpu\n"));
        assert!(!all_in_order(""));
    }

    /// Both orders of instructions add up alike.
    #[test]
    fn the_order_of_instructions_changes_no_sum() {
        let number = |i: usize| (i * 7919 % 2003) as f32 / 1001.5 - 1.0;
        for (taps, k) in [(1, 4), (1, 8), (1, 12), (2, 4), (9, 16), (3, 20)] {
            for add in [false, true] {
                let x: Vec<f32> = (0..taps * 6 * k).map(number).collect();
                let w: Vec<f32> = (0..taps * k * 16).map(|i| number(i + 5)).collect();
                let before: Vec<f32> = (0..6 * 19).map(|i| number(i + 11)).collect();
                let sums = |rows: usize, tile: fn(Tile)| {
                    let rows: Vec<_> = (0..taps * rows).map(|row| x[row * k..].as_ptr()).collect();
                    let mut out = before.clone();
                    tile(Tile {
                        rows: rows.as_ptr(),
                        taps,
                        k,
                        w: w.as_ptr(),
                        out: out.as_mut_ptr(),
                        out_stride: 19,
                        add,
                    });
                    out
                };
                // SAFETY: rows, weights and sums are as large as a tile of so many rows needs.
                let [six, four, others_six, others_four] = unsafe {
                    [
                        sums(6, |tile| six_rows(tile)),
                        sums(4, |tile| four_rows(tile)),
                        sums(6, |tile| super::super::six_rows(tile)),
                        sums(4, |tile| super::super::four_rows(tile)),
                    ]
                };
                assert_eq!(six, others_six, "{taps} x {k}");
                assert_eq!(four, others_four, "{taps} x {k}");
            }
        }
    }
}
