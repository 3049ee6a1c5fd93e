//! One tile of a matrix product whose rows lie anywhere in memory.
//!
//! The sums of a tile stay in registers while rows and packed weights stream by. A tile is
//! [`Simd::TILE`] large; lower ones serve products of few rows, and where there are few columns, so
//! that most of a tile's would be 0, a narrow one adds up along the rows instead.

use half::f16;

use crate::engine::aligned::Aligned;
use crate::engine::simd::{Isa, Simd, Tile, Work};

/// Rows of the tallest tile of any instruction set.
pub const ROWS_MAX: usize = 8;

/// Columns of a tile: the width of a panel of packed weights.
pub const fn columns<S: Simd>() -> usize {
    S::TILE.1 * S::LANES
}

/// Columns of a narrow tile, at most.
pub const NARROW: usize = 4;

/// Rows and columns of a tile.
pub fn shape(isa: Isa) -> [usize; 2] {
    let Shape { rows, columns, .. } = isa.run(AskShape);
    [rows, columns]
}

/// What several threads lose in a phase, from the first one's start to the last one's, some six
/// microseconds, in multiplications of f32 on one core.
pub fn start_macs(isa: Isa) -> usize {
    // Cores with wider vectors have more units for them, and are faster besides.
    lanes(isa).pow(2) << 11
}

/// [`start_macs`] in values that are read, changed and written.
pub fn start_values(isa: Isa) -> usize {
    lanes(isa) << 10
}

/// Lanes of a vector.
pub fn lanes(isa: Isa) -> usize {
    isa.run(AskShape).lanes
}

struct AskShape;

struct Shape {
    rows: usize,
    columns: usize,
    lanes: usize,
}

impl Work for AskShape {
    type Output = Shape;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> Shape {
        Shape {
            rows: S::TILE.0,
            columns: columns::<S>(),
            lanes: S::LANES,
        }
    }
}

/// Packed weights: panels `[tap][k][column]`, as wide as a tile. The columns behind the last
/// output are 0.
#[derive(Debug)]
pub struct Panels {
    /// f32, or pairs of f16.
    values: Aligned<f32>,
    /// Values from one panel to the next, whole cache lines.
    stride: usize,
    half: bool,
}

/// Rows of the lowest tile whose products are computed in f16.
pub const HALF_ROWS: usize = 4;

/// Whether products of rows of `k` values are computed in f16 on `isa`.
pub fn halves(isa: Isa, k: usize) -> bool {
    isa.is_half() && k > 0 && k.is_multiple_of(8)
}

/// f32 in one cache line.
pub const LINE: usize = 16;

impl Panels {
    /// Packs `[outputs][k][taps]` weights (in ONNX: OIHW), of which `weight(output, k, tap)` is
    /// one.
    pub fn pack(
        isa: Isa,
        [outputs, k, taps]: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        let [_, columns] = shape(isa);
        Self::fill(
            outputs.div_ceil(columns),
            taps * k * columns,
            |panel, packed| {
                let first = panel * columns;
                for i in 0..k {
                    for tap in 0..taps {
                        let row = &mut packed[(tap * k + i) * columns..][..columns];
                        for (output, value) in (first..outputs).zip(row) {
                            *value = weight(output, i, tap);
                        }
                    }
                }
            },
        )
    }

    /// [`Panels::pack`] in f16.
    pub fn pack_half(
        isa: Isa,
        [outputs, k, taps]: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        let [_, columns] = shape(isa);
        let count = outputs.div_ceil(columns);
        Self::fill_half(count, taps * k * columns, |panel, packed| {
            let first = panel * columns;
            for i in 0..k {
                for tap in 0..taps {
                    let row = &mut packed[(tap * k + i) * columns..][..columns];
                    for (output, value) in (first..outputs).zip(row) {
                        *value = f16::from_f32(weight(output, i, tap));
                    }
                }
            }
        })
    }

    /// Packs weights for [`narrow_tile`], `[tap][vector of k][column]` with [`NARROW`] columns; the
    /// arguments are those of [`Panels::pack`].
    pub fn pack_narrow(
        isa: Isa,
        [outputs, k, taps]: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        assert!(outputs <= NARROW, "{outputs} outputs in a narrow tile");
        let lanes = lanes(isa);
        let vectors = k.div_ceil(lanes);
        Self::fill(1, taps * vectors * NARROW * lanes, |_, packed| {
            for output in 0..outputs {
                for i in 0..k {
                    for tap in 0..taps {
                        let vector = (tap * vectors + i / lanes) * NARROW + output;
                        packed[vector * lanes + i % lanes] = weight(output, i, tap);
                    }
                }
            }
        })
    }

    /// `count` panels of `len` values, which `fill(panel, values)` sets; they are 0 before.
    pub(super) fn fill(count: usize, len: usize, fill: impl Fn(usize, &mut [f32])) -> Self {
        let stride = len.next_multiple_of(LINE);
        let mut values = Aligned::zeroed(count * stride);
        for (panel, values) in values.chunks_exact_mut(stride).enumerate() {
            fill(panel, values);
        }
        let half = false;
        Self {
            values,
            stride,
            half,
        }
    }

    /// [`Panels::fill`] in f16: `count` panels of `len` values.
    pub(super) fn fill_half(count: usize, len: usize, fill: impl Fn(usize, &mut [f16])) -> Self {
        let panels = Self::fill(count, len.div_ceil(2), |panel, pairs| {
            // SAFETY: an f32 is as large as two f16 and aligned for them, and all bits are f16.
            let halves = unsafe {
                std::slice::from_raw_parts_mut(pairs.as_mut_ptr().cast(), 2 * pairs.len())
            };
            fill(panel, halves);
        });
        Self {
            half: true,
            ..panels
        }
    }

    /// Whether the weights are f16.
    #[inline(always)]
    pub fn half(&self) -> bool {
        self.half
    }

    /// The address of the weight `index` of a panel, from the panel's first one on.
    #[inline(always)]
    pub fn at(&self, panel: *const f32, index: usize) -> *const f32 {
        if self.half {
            panel.cast::<f16>().wrapping_add(index).cast()
        } else {
            panel.wrapping_add(index)
        }
    }

    /// The number of panels.
    pub fn count(&self) -> usize {
        self.values.len() / self.stride
    }

    /// The weights of one panel, for [`tile`].
    #[inline(always)]
    pub fn panel(&self, index: usize) -> *const f32 {
        self.values[index * self.stride..].as_ptr()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.values)
    }
}

/// One tile of a matrix product: `out[r][c] = Σ_tap Σ_k rows[tap · R + r][k] · w[tap][k][c]` for
/// `R = TILE.0` rows and `C = columns` columns, `out` row-major `[R][C]`.
///
/// # Safety
///
/// `rows` holds `taps · R` pointers, each to `k` readable values; `w` holds `taps · k · C` values;
/// `out` takes `R · C`.
#[inline(always)]
pub unsafe fn tile<S: Simd>(
    simd: S,
    rows: *const *const f32,
    taps: usize,
    k: usize,
    w: *const f32,
    out: *mut f32,
) {
    let ahead = Ahead { from: w, lines: 0 };
    let operands = Operands {
        rows,
        taps,
        k,
        w,
        out,
        out_stride: columns::<S>(),
        add: false,
        ahead,
        half: false,
    };
    // SAFETY: as the caller says.
    unsafe { operands.multiply(simd, S::TILE.0) }
}

/// The height of the tiles for a product of `rows` rows: 1, 2, 4 or `TILE.0`.
pub fn height(isa: Isa, rows: usize) -> usize {
    let [tallest, _] = shape(isa);
    rows.next_power_of_two().min(tallest)
}

/// What [`tile`] multiplies, and two things more.
#[derive(Debug, Clone, Copy)]
pub struct Operands {
    /// Pointers to the rows, `[taps][R]`.
    pub rows: *const *const f32,
    /// Matrices that are multiplied and summed.
    pub taps: usize,
    /// Values of a row.
    pub k: usize,
    /// Weights, `[taps][k][C]`.
    pub w: *const f32,
    /// The sums, `[R]` rows of `C`.
    pub out: *mut f32,
    /// From one row of sums to the next, in values.
    pub out_stride: usize,
    /// Whether `out` holds sums already, of taps before these. The result is that of one product
    /// of all taps, to the last bit.
    pub add: bool,
    /// What the core may fetch meanwhile.
    pub ahead: Ahead,
    /// Whether `w` is an address of f16, and the product one of f16: [`Simd::half_tile`]. The rows of
    /// the tile are then [`HALF_ROWS`] or more.
    pub half: bool,
}

/// Weights that will be needed soon, to be fetched during a product.
#[derive(Debug, Clone, Copy)]
pub struct Ahead {
    /// The first of them.
    pub from: *const f32,
    /// Cache lines of them to be fetched for every four k.
    pub lines: usize,
}

impl Operands {
    /// One tile of `R = height` rows, which is a [`height`].
    ///
    /// # Safety
    ///
    /// What [`tile`] asks for; if `add`, `out` can be read.
    #[inline(always)]
    pub unsafe fn multiply<S: Simd>(self, simd: S, height: usize) {
        const {
            assert!(
                S::TILE.1 == 2 || S::TILE.1 == 4,
                "a tile is two or four vectors wide"
            )
        };
        // SAFETY: the width is that of a panel; the caller vouches for the rest.
        unsafe {
            if S::TILE.1 == 4 {
                self.rows::<S, 4>(simd, height);
            } else {
                self.rows::<S, 2>(simd, height);
            }
        }
    }

    /// One tile of `height` rows and `V` vectors of columns.
    ///
    /// # Safety
    ///
    /// What [`Operands::multiply`] asks for; `V` is `TILE.1`.
    #[inline(always)]
    unsafe fn rows<S: Simd, const V: usize>(self, simd: S, height: usize) {
        // SAFETY: the arm that is taken has the height for which the caller vouches.
        unsafe {
            match height {
                1 => self.product::<S, 1, V>(simd),
                2 => self.product::<S, 2, V>(simd),
                4 => self.product::<S, 4, V>(simd),
                6 if S::TILE.0 == 6 => self.product::<S, 6, V>(simd),
                8 if S::TILE.0 == 8 => self.product::<S, 8, V>(simd),
                _ => unreachable!("no tile has {height} rows"),
            }
        }
    }

    /// One tile of `R` rows and `V` vectors of columns.
    ///
    /// # Safety
    ///
    /// What [`Operands::multiply`] asks for.
    #[inline(always)]
    unsafe fn product<S: Simd, const R: usize, const V: usize>(self, simd: S) {
        let Self {
            rows,
            taps,
            k,
            mut w,
            out,
            out_stride,
            add,
            ahead: Ahead {
                from: mut ahead,
                lines,
            },
            half,
        } = self;
        let whole = Tile {
            rows,
            taps,
            k,
            w,
            out,
            out_stride,
            add,
        };
        if half {
            // SAFETY: as the caller says.
            unsafe { simd.half_tile::<R, V>(whole) };
            return;
        }
        // SAFETY: as the caller says.
        if unsafe { simd.tile::<R, V>(whole) } {
            return;
        }
        let mut acc = [[simd.splat(0.0); V]; R];
        // SAFETY: tap, row, k and column are within the bounds that the caller vouches for.
        unsafe {
            if add {
                for (r, acc) in acc.iter_mut().enumerate() {
                    for (v, acc) in acc.iter_mut().enumerate() {
                        *acc = simd.load(out.add(r * out_stride + v * S::LANES));
                    }
                }
            }
            for tap in 0..taps {
                let rows: [*const f32; R] = rows.add(tap * R).cast::<[_; R]>().read();
                let mut at = 0;
                while at + 4 <= k {
                    for _ in 0..lines {
                        simd.prefetch(ahead);
                        ahead = ahead.wrapping_add(LINE);
                    }
                    let x = rows.map(|row| simd.load_x4(row.add(at)));
                    step::<S, 0, R, V>(simd, &x, w, &mut acc);
                    step::<S, 1, R, V>(simd, &x, w.add(V * S::LANES), &mut acc);
                    step::<S, 2, R, V>(simd, &x, w.add(2 * V * S::LANES), &mut acc);
                    step::<S, 3, R, V>(simd, &x, w.add(3 * V * S::LANES), &mut acc);
                    w = w.add(4 * V * S::LANES);
                    at += 4;
                }
                while at < k {
                    let w_row: [_; V] = std::array::from_fn(|v| simd.load(w.add(v * S::LANES)));
                    for (acc, row) in acc.iter_mut().zip(rows) {
                        let x = simd.splat(*row.add(at));
                        for (acc, w) in acc.iter_mut().zip(w_row) {
                            *acc = simd.mul_add(x, w, *acc);
                        }
                    }
                    w = w.add(V * S::LANES);
                    at += 1;
                }
            }
            for (r, acc) in acc.into_iter().enumerate() {
                for (v, acc) in acc.into_iter().enumerate() {
                    simd.store(out.add(r * out_stride + v * S::LANES), acc);
                }
            }
        }
    }
}

/// Adds the products of value `LANE` of every row with one row of weights.
///
/// # Safety
///
/// `w` has `V` readable vectors; `x` is as [`Simd::mul_add_lane`] wants it.
#[inline(always)]
unsafe fn step<S: Simd, const LANE: i32, const R: usize, const V: usize>(
    simd: S,
    x: &[S::X4; R],
    w: *const f32,
    acc: &mut [[S::F32; V]; R],
) {
    // SAFETY: the caller vouches for both.
    unsafe {
        let w: [S::F32; V] = std::array::from_fn(|v| simd.load(w.add(v * S::LANES)));
        for (acc, &x) in acc.iter_mut().zip(x) {
            for (acc, w) in acc.iter_mut().zip(w) {
                *acc = simd.mul_add_lane::<LANE>(x, w, *acc);
            }
        }
    }
}

/// A tile of `height` rows and [`NARROW`] columns: `out[r][c] = Σ_tap Σ_k rows[tap · height + r][k]
/// · w[...]` with the weights of [`Panels::pack_narrow`], `out` row-major `[height][NARROW]`.
///
/// # Safety
///
/// `rows` holds `taps · height` pointers, each to `k` readable values; `w` holds packed weights for
/// `taps` and `k`; `out` takes `height · NARROW` values.
#[inline(always)]
pub unsafe fn narrow_tile<S: Simd>(
    simd: S,
    height: usize,
    rows: *const *const f32,
    taps: usize,
    k: usize,
    w: *const f32,
    out: *mut f32,
) {
    // Two rows at a time use a weight twice and leave registers for eight sums.
    for first in (0..height).step_by(2) {
        let pair = [first, (first + 1).min(height - 1)];
        let mut acc = [[simd.splat(0.0); 2]; NARROW];
        let mut w = w;
        // SAFETY: tap, row, k and column are within the bounds that the caller vouches for.
        unsafe {
            for tap in 0..taps {
                let rows = pair.map(|row| *rows.add(tap * height + row));
                for at in (0..k).step_by(S::LANES) {
                    let x = if at + S::LANES <= k {
                        rows.map(|row| simd.load(row.add(at)))
                    } else {
                        rows.map(|row| simd.load_part(row.add(at), k - at))
                    };
                    for acc in &mut acc {
                        let column = simd.load(w);
                        w = w.add(S::LANES);
                        for (acc, x) in acc.iter_mut().zip(x) {
                            *acc = simd.mul_add(x, column, *acc);
                        }
                    }
                }
            }
            for (column, acc) in acc.into_iter().enumerate() {
                for (row, acc) in pair.into_iter().zip(acc) {
                    *out.add(row * NARROW + column) = simd.sum(acc);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::simd::HALF_TERMS;

    /// Tiles of one size, of every height, against sums in f64.
    struct Tiles {
        isa: Isa,
        taps: usize,
        k: usize,
    }

    /// A number in -1..1, different for neighbouring `i`.
    fn number(i: usize) -> f32 {
        (i * 7919 % 2003) as f32 / 1001.5 - 1.0
    }

    impl Work for Tiles {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let Self { isa, taps, k } = self;
            let tallest = S::TILE.0;
            let x: Vec<f32> = (0..taps * tallest * k).map(number).collect();
            let weight =
                |output: usize, i: usize, tap: usize| number((output * k + i) * taps + tap + 5);
            let sum = |height: usize, row: usize, column: usize| -> f64 {
                let terms = (0..taps * k).map(|i| {
                    let (tap, i) = (i / k, i % k);
                    f64::from(x[(tap * height + row) * k + i]) * f64::from(weight(column, i, tap))
                });
                terms.sum()
            };
            // A second panel that is not full.
            let outputs = columns::<S>() + 3;
            let wide = Panels::pack(isa, [outputs, k, taps], weight);
            let narrow = Panels::pack_narrow(isa, [3, k, taps], weight);
            assert_eq!((wide.count(), narrow.count()), (2, 1));
            for height in [1, 2, 4, tallest] {
                let rows: Vec<*const f32> = (0..taps * height)
                    .map(|row| x[row * k..].as_ptr())
                    .collect();
                let close = |out: &[f32], width: usize, first: usize, used: usize| {
                    for (i, &got) in out.iter().enumerate() {
                        let (row, column) = (i / width, i % width);
                        let want = if column < used {
                            sum(height, row, first + column)
                        } else {
                            0.0
                        };
                        let error = (f64::from(got) - want).abs();
                        assert!(error < 1e-4, "{simd:?} {taps}x{k} {height} {row} {column}");
                    }
                };
                let rows = rows.as_ptr();
                for (panel, used) in [(0, columns::<S>()), (1, 3)] {
                    // Between the rows is what others may have.
                    let out_stride = columns::<S>() + 5;
                    let mut out = vec![f32::NAN; height * out_stride];
                    let w = wide.panel(panel);
                    let ahead = Ahead { from: w, lines: 3 };
                    let whole = Operands {
                        rows,
                        taps,
                        k,
                        w,
                        out: out.as_mut_ptr(),
                        out_stride,
                        add: false,
                        ahead,
                        half: false,
                    };
                    // SAFETY: rows, weights and sums are as large as the tile.
                    unsafe { whole.multiply(simd, height) };
                    let rows_of = out.chunks_exact(out_stride);
                    assert!(
                        rows_of
                            .clone()
                            .all(|row| row[columns::<S>()..].iter().all(|x| x.is_nan()))
                    );
                    let out: Vec<f32> = rows_of
                        .flat_map(|row| &row[..columns::<S>()])
                        .copied()
                        .collect();
                    close(&out, columns::<S>(), panel * columns::<S>(), used);
                    let mut parts = vec![f32::NAN; out.len()];
                    for tap in 0..taps {
                        // SAFETY: as above, one tap after the other.
                        unsafe {
                            let rows = rows.add(tap * height);
                            let w = w.add(tap * k * columns::<S>());
                            let (out, add) = (parts.as_mut_ptr(), tap > 0);
                            Operands {
                                rows,
                                taps: 1,
                                k,
                                w,
                                out,
                                out_stride: columns::<S>(),
                                add,
                                ahead,
                                half: false,
                            }
                            .multiply(simd, height);
                        }
                    }
                    assert_eq!(out, parts, "{simd:?}");
                }
                let mut out = vec![f32::NAN; height * NARROW];
                let w = narrow.panel(0);
                // SAFETY: rows, weights and sums are as large as the tile.
                unsafe { narrow_tile(simd, height, rows, taps, k, w, out.as_mut_ptr()) };
                close(&out, NARROW, 0, 3);
            }
        }
    }

    /// Tiles whose products are f16, against the definition, to the last bit.
    struct HalfTiles {
        isa: Isa,
        taps: usize,
        k: usize,
        add: bool,
    }

    impl Work for HalfTiles {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let Self { isa, taps, k, add } = self;
            let (columns, tallest) = (columns::<S>(), S::TILE.0);
            let x: Vec<f32> = (0..taps * tallest * k).map(number).collect();
            let weight =
                |output: usize, i: usize, tap: usize| number((output * k + i) * taps + tap + 5);
            let panels = Panels::pack_half(isa, [columns - 3, k, taps], weight);
            for height in [HALF_ROWS, tallest] {
                let rows: Vec<*const f32> = (0..taps * height)
                    .map(|row| x[row * k..].as_ptr())
                    .collect();
                let before: Vec<f32> = (0..height * columns).map(number).collect();
                let mut out = before.clone();
                let w = panels.panel(0);
                let operands = Operands {
                    rows: rows.as_ptr(),
                    taps,
                    k,
                    w,
                    out: out.as_mut_ptr(),
                    out_stride: columns,
                    add,
                    ahead: Ahead { from: w, lines: 0 },
                    half: panels.half(),
                };
                // SAFETY: rows, weights and sums are as large as the tile.
                unsafe { operands.multiply(simd, height) };
                for (i, &got) in out.iter().enumerate() {
                    let (row, column) = (i / columns, i % columns);
                    let mut want = if add { before[i] } else { 0.0 };
                    for tap in 0..taps {
                        let terms: Vec<usize> = (0..k).collect();
                        for terms in terms.chunks(HALF_TERMS) {
                            let part = terms.iter().fold(f16::ZERO, |sum, &i| {
                                let x = f16::from_f32(x[(tap * height + row) * k + i]);
                                let w = match column < columns - 3 {
                                    true => f16::from_f32(weight(column, i, tap)),
                                    false => f16::ZERO,
                                };
                                f16::from_f64(x.to_f64() * w.to_f64() + sum.to_f64())
                            });
                            want += part.to_f32();
                        }
                    }
                    assert_eq!(got, want, "{isa:?} {taps}x{k} {height} {row} {column}");
                }
            }
        }
    }

    #[test]
    fn half_tiles_are_the_definition() {
        for isa in Isa::available().iter().filter_map(|isa| isa.in_half()) {
            for (taps, k) in [(1, 8), (1, 32), (1, 40), (1, 128), (9, 16), (4, 72)] {
                for add in [false, true] {
                    isa.run(HalfTiles { isa, taps, k, add });
                }
            }
        }
    }

    #[test]
    fn every_tile_is_a_product() {
        for isa in Isa::available() {
            for (taps, k) in [
                (1, 1),
                (1, 4),
                (1, 64),
                (9, 3),
                (3, 12),
                (4, 17),
                (2, 30),
                (9, 8),
            ] {
                isa.run(Tiles { isa, taps, k });
            }
        }
    }

    #[test]
    fn a_height_is_that_of_a_tile() {
        for isa in Isa::available() {
            let [tallest, _] = shape(isa);
            for rows in 1..100 {
                let height = height(isa, rows);
                assert!(height == tallest || matches!(height, 1 | 2 | 4) && height >= rows);
            }
        }
    }
}
