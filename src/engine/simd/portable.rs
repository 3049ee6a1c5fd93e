//! Plain Rust: four lanes, one after the other.

use super::{Int8Simd, Simd};

/// Any core.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

const LANES: usize = 4;
const COLUMNS: usize = 8;
const ROWS: usize = 4;
const GROUP: usize = 4;

impl Simd for Portable {
    const LANES: usize = LANES;
    const TILE: (usize, usize) = (4, 2);
    type F32 = [f32; LANES];
    type X4 = [f32; 4];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F32 {
        // SAFETY: the caller says that all lanes can be read.
        unsafe { from.cast::<Self::F32>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_part(self, from: *const f32, lanes: usize) -> Self::F32 {
        let mut values = [0.0; LANES];
        for (lane, value) in values.iter_mut().enumerate().take(lanes) {
            // SAFETY: the caller says that the first `lanes` can be read.
            *value = unsafe { from.add(lane).read_unaligned() };
        }
        values
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::F32) {
        // SAFETY: the caller says that all lanes can be written.
        unsafe { to.cast::<Self::F32>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, value: Self::F32, lanes: usize) {
        for (lane, value) in value.into_iter().enumerate().take(lanes) {
            // SAFETY: the caller says that the first `lanes` can be written.
            unsafe { to.add(lane).write_unaligned(value) };
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // A core without the instruction would call a function for every lane.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn round(self, a: Self::F32) -> Self::F32 {
        // From 2^23 on a number has no fraction. A core without the instruction would call a function
        // for every lane.
        const WHOLE: f32 = 8_388_608.0;
        a.map(|a| {
            let whole = (a.abs() + WHOLE - WHOLE).copysign(a);
            if a.abs() < WHOLE { whole } else { a }
        })
    }

    #[inline(always)]
    fn scale_exp2(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        // The last bits of 2^23 + m are those of m: no conversion, which would saturate slowly.
        const BIASED: f32 = 8_388_608.0 + 127.0;
        std::array::from_fn(|i| a[i] * f32::from_bits((n[i] + BIASED).to_bits() << 23))
    }

    #[inline(always)]
    fn sum(self, a: Self::F32) -> f32 {
        (a[0] + a[1]) + (a[2] + a[3])
    }

    #[inline(always)]
    fn largest(self, a: Self::F32) -> f32 {
        a[0].max(a[1]).max(a[2].max(a[3]))
    }

    #[inline(always)]
    unsafe fn load_x4(self, from: *const f32) -> Self::X4 {
        // SAFETY: the caller says that all four can be read.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn mul_add_lane<const LANE: i32>(
        self,
        x: Self::X4,
        w: Self::F32,
        acc: Self::F32,
    ) -> Self::F32 {
        self.mul_add(self.splat(x[LANE as usize]), w, acc)
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> Self::F32 {
        // SAFETY: the caller says that all lanes can be read.
        unsafe { from.cast::<[i32; LANES]>().read_unaligned() }.map(|value| value as f32)
    }

    const LEVEL_BIAS: i32 = 0;

    #[inline(always)]
    unsafe fn load_levels(self, from: *const u8) -> Self::F32 {
        // SAFETY: the caller says that all lanes can be read.
        unsafe { from.cast::<[u8; LANES]>().read_unaligned() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn store_levels(self, to: *mut u8, value: Self::F32) {
        // The cast saturates.
        let levels = self.round(value).map(|value| value as u8);
        // SAFETY: the caller says that all lanes can be written.
        unsafe { to.cast::<[u8; LANES]>().write_unaligned(levels) }
    }
}

impl Int8Simd for Portable {
    const QTILE: (usize, usize) = (ROWS, COLUMNS);
    const QGROUP: usize = GROUP;

    #[inline(always)]
    unsafe fn qtile(
        self,
        rows: *const *const u8,
        taps: usize,
        groups: usize,
        w: *const i8,
        out: *mut i32,
    ) {
        let mut acc = [[0i32; COLUMNS]; ROWS];
        for tap in 0..taps {
            for group in 0..groups {
                // SAFETY: `tap` and `group` are within what the caller vouches for.
                let w: [[i8; GROUP]; COLUMNS] = unsafe {
                    let start = w.add((tap * groups + group) * COLUMNS * GROUP);
                    start.cast::<[[i8; GROUP]; COLUMNS]>().read_unaligned()
                };
                for (r, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: as above, for row `r` of `ROWS`.
                    let x: [u8; GROUP] = unsafe {
                        let row = *rows.add(tap * ROWS + r);
                        row.add(group * GROUP)
                            .cast::<[u8; GROUP]>()
                            .read_unaligned()
                    };
                    for (acc, w) in acc.iter_mut().zip(w) {
                        for (x, w) in x.into_iter().zip(w) {
                            *acc += i32::from(x) * i32::from(w);
                        }
                    }
                }
            }
        }
        // SAFETY: the caller says that `out` takes the whole tile.
        unsafe { out.cast::<[[i32; COLUMNS]; ROWS]>().write_unaligned(acc) }
    }
}
