//! Every instruction set of this core against plain Rust.

use super::*;

/// A few numbers, each different, of both signs.
fn numbers(n: usize, salt: usize) -> Vec<f32> {
    (0..n)
        .map(|i| (((i + 7 * salt) * 37 % 101) as f32 - 50.0) / 8.0)
        .collect()
}

struct Lanes;

impl Work for Lanes {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = S::LANES;
        let (a, b, c) = (numbers(n, 1), numbers(n, 2), numbers(n, 3));
        let mut out = vec![0.0f32; n];
        let mut check = |value: S::F32, expected: &dyn Fn(usize) -> f32| {
            // SAFETY: `out` has as many values as a vector has lanes.
            unsafe { simd.store(out.as_mut_ptr(), value) };
            for (i, &out) in out.iter().enumerate() {
                let want = expected(i);
                assert!(
                    (out - want).abs() <= 1e-5 * want.abs(),
                    "{simd:?} lane {i}: {out} {want}"
                );
            }
        };
        // SAFETY: each of the three has as many values as a vector has lanes.
        let (va, vb, vc) = unsafe {
            (
                simd.load(a.as_ptr()),
                simd.load(b.as_ptr()),
                simd.load(c.as_ptr()),
            )
        };
        check(simd.add(va, vb), &|i| a[i] + b[i]);
        check(simd.sub(va, vb), &|i| a[i] - b[i]);
        check(simd.mul(va, vb), &|i| a[i] * b[i]);
        check(simd.div(va, simd.splat(3.0)), &|i| a[i] / 3.0);
        for b in [3.0, 1.2e-37, -8.5e37, f32::INFINITY] {
            check(simd.ratio(va, simd.splat(b)), &|i| a[i] / b);
        }
        check(simd.min(va, vb), &|i| a[i].min(b[i]));
        check(simd.max(va, vb), &|i| a[i].max(b[i]));
        check(simd.mul_add(va, vb, vc), &|i| a[i].mul_add(b[i], c[i]));
        check(simd.round(va), &|i| a[i].round_ties_even());
        check(simd.scale_exp2(va, simd.round(vb)), &|i| {
            a[i] * b[i].round_ties_even().exp2()
        });
        let (sum, largest) = (
            a.iter().sum::<f32>(),
            a.iter().copied().fold(f32::MIN, f32::max),
        );
        assert!((simd.sum(va) - sum).abs() < 1e-3, "{simd:?}");
        assert_eq!(simd.largest(va), largest, "{simd:?}");
        for lanes in 0..=n {
            // SAFETY: `lanes` is at most the length of `a`.
            let part = unsafe { simd.load_part(a.as_ptr(), lanes) };
            check(part, &|i| if i < lanes { a[i] } else { 0.0 });
            let mut kept = vec![9.0; n];
            // SAFETY: `lanes` is at most the length of `kept`.
            unsafe { simd.store_part(kept.as_mut_ptr(), va, lanes) };
            assert_eq!(kept[..lanes], a[..lanes], "{simd:?}");
            assert!(kept[lanes..].iter().all(|&v| v == 9.0), "{simd:?}");
        }
        let x = [2.0, -3.0, 0.5, 7.0];
        // SAFETY: `x` has four values and outlives the products.
        unsafe {
            let x4 = simd.load_x4(x.as_ptr());
            check(simd.mul_add_lane::<0>(x4, va, vb), &|i| {
                x[0].mul_add(a[i], b[i])
            });
            check(simd.mul_add_lane::<1>(x4, va, vb), &|i| {
                x[1].mul_add(a[i], b[i])
            });
            check(simd.mul_add_lane::<2>(x4, va, vb), &|i| {
                x[2].mul_add(a[i], b[i])
            });
            check(simd.mul_add_lane::<3>(x4, va, vb), &|i| {
                x[3].mul_add(a[i], b[i])
            });
        }
        let (mut block, square) = (vec![9.0; 20], numbers(22, 4));
        // SAFETY: the last values are at 3 · 6 + 3 and at 3 · 5 + 3.
        unsafe { simd.transpose4(square.as_ptr(), 6, block.as_mut_ptr(), 5) };
        for (at, &value) in block.iter().enumerate() {
            let (j, i) = (at / 5, at % 5);
            assert_eq!(
                value,
                if i < 4 { square[i * 6 + j] } else { 9.0 },
                "{simd:?} {i} {j}"
            );
        }
        let whole: Vec<i32> = (0..n as i32).map(|i| i * 1001 - 5000).collect();
        // SAFETY: `whole` has as many values as a vector has lanes.
        check(unsafe { simd.load_i32(whole.as_ptr()) }, &|i| {
            whole[i] as f32
        });
    }
}

#[test]
fn every_lane_of_every_operation() {
    Isa::available().into_iter().for_each(|isa| isa.run(Lanes));
}

struct NotANumber;

impl Work for NotANumber {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (one, nan) = (simd.splat(1.0), simd.splat(f32::NAN));
        assert!(simd.sum(simd.min(one, nan)).is_nan(), "{simd:?}");
        assert!(simd.sum(simd.max(one, nan)).is_nan(), "{simd:?}");
    }
}

#[test]
fn a_bound_lets_what_is_not_a_number_pass() {
    Isa::available()
        .into_iter()
        .for_each(|isa| isa.run(NotANumber));
}

struct Levels;

impl Work for Levels {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let edges = [
            -1e30, -300.0, -0.5, 0.0, 0.49, 0.5, 1.5, 2.5, 126.6, 127.5, 128.0, 200.2, 254.5,
            255.0, 255.6, 1e30,
        ];
        for start in (0..edges.len()).step_by(S::LANES) {
            let (mut bytes, mut back) = (vec![0u8; S::LANES], vec![0.0f32; S::LANES]);
            // SAFETY: all three slices have at least as many values as a vector has lanes.
            unsafe {
                simd.store_levels(bytes.as_mut_ptr(), simd.load(edges[start..].as_ptr()));
                simd.store(back.as_mut_ptr(), simd.load_levels(bytes.as_ptr()));
            }
            for (i, (&byte, &level)) in bytes.iter().zip(&back).enumerate() {
                let want = edges[start + i].round_ties_even() as u8;
                assert_eq!(level, f32::from(want), "{simd:?}: {}", edges[start + i]);
                let stored = (i32::from(want) - S::LEVEL_BIAS) as u8;
                assert_eq!(byte, stored, "{simd:?}: {}", edges[start + i]);
            }
        }
    }
}

#[test]
fn levels_are_rounded_and_clamped() {
    Isa::available().into_iter().for_each(|isa| isa.run(Levels));
}

/// Level and weight number `i`.
struct QTile {
    level: fn(usize) -> i32,
    weight: fn(usize) -> i8,
}

impl Int8Work for QTile {
    type Output = ();

    #[inline(always)]
    fn run<S: Int8Simd>(self, simd: S) {
        let (rows, columns) = S::QTILE;
        for (taps, groups) in [(1, 1), (1, 7), (9, 3), (2, 40)] {
            let k = groups * S::QGROUP;
            let levels: Vec<i32> = (0..taps * rows * k).map(self.level).collect();
            let w: Vec<i8> = (0..taps * columns * k).map(self.weight).collect();
            let bytes: Vec<u8> = levels.iter().map(|l| (l - S::LEVEL_BIAS) as u8).collect();
            let pointers: Vec<*const u8> = (0..taps * rows)
                .map(|row| bytes[row * k..].as_ptr())
                .collect();
            let start: Vec<i32> = (0..columns as i32).map(|c| 1000 * c - 5000).collect();
            let step = numbers(columns, 5);
            let scale = QScale {
                start: start.as_ptr(),
                step: step.as_ptr(),
            };
            let (mut out, mut scaled) = (vec![0i32; rows * columns], vec![0f32; rows * columns]);
            // SAFETY: every row has k bytes, all the others have the sizes of the tile.
            unsafe {
                let (rows, w) = (pointers.as_ptr(), w.as_ptr());
                simd.qtile(rows, taps, groups, w, out.as_mut_ptr());
                simd.qtile_scaled(rows, taps, groups, w, scale, scaled.as_mut_ptr());
            };
            for r in 0..rows {
                for c in 0..columns {
                    let mut want = 0;
                    for tap in 0..taps {
                        for i in 0..k {
                            let (group, part) = (i / S::QGROUP, i % S::QGROUP);
                            let at = ((tap * groups + group) * columns + c) * S::QGROUP + part;
                            let x = levels[(tap * rows + r) * k + i] - S::LEVEL_BIAS;
                            want += x * i32::from(w[at]);
                        }
                    }
                    let place = format!("{simd:?} {taps} {groups} {r} {c}");
                    assert_eq!(out[r * columns + c], want, "{place}");
                    let want = (want + start[c]) as f32 * step[c];
                    assert_eq!(scaled[r * columns + c], want, "{place}");
                }
            }
        }
    }
}

#[test]
fn quantized_tiles_are_exact() {
    for isa in Isa::available() {
        isa.run_int8(QTile {
            level: |i| {
                if i % 3 == 0 {
                    255
                } else {
                    (i * 37 % 256) as i32
                }
            },
            weight: |i| {
                if i % 5 == 0 {
                    -128
                } else {
                    (i * 53 % 255) as u8 as i8
                }
            },
        });
    }
}

/// Products that are the largest there are must not saturate where a core adds them in 16 bits.
#[test]
fn quantized_tiles_of_extremes_are_exact() {
    for isa in Isa::available() {
        for level in [|_| 0, |_| 255, |i| if i % 16 < 4 { 0 } else { 255 }] {
            isa.run_int8(QTile {
                level,
                weight: |_| -128,
            });
            isa.run_int8(QTile {
                level,
                weight: |_| 127,
            });
            isa.run_int8(QTile {
                level,
                weight: |i| if i % 48 == 40 { 1 } else { -128 },
            });
        }
    }
}
