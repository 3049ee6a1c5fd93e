//! exp, sigmoid, SiLU, tanh and GELU of vectors.
//!
//! Every function follows its limits at ±∞ and leaves NaN as it is. The errors that are stated
//! are bounds that the tests hold against f64. The coefficients are minimax for the relative
//! error of the result, by the exchange algorithm of Remez in 50 digits.

use std::f32::consts::LOG2_E;

use crate::engine::simd::Simd;

/// `e^x` within 1.5 ulp for -87.3 ≤ x ≤ 88.3; from there to 88.73 within 1e-5 of itself, above
/// infinite. It is never below 1.17e-38, the smallest normal number.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let (n, p) = exp_parts(simd, x);
    simd.scale_exp2(simd.add(p, simd.splat(1.0)), n)
}

/// `1 / (1 + e^-x)` within 4 ulp above -87; never above 1, nor below 0.
#[inline(always)]
pub fn sigmoid<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let one = simd.splat(1.0);
    simd.ratio(one, simd.add(one, exp(simd, negative(simd, x))))
}

/// `x · sigmoid(x)` within 4 ulp above -87; a zero below -89.
#[inline(always)]
pub fn silu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // At the bound e^-x is infinite already, so that -∞ becomes a zero and not ∞ / ∞.
    let x = simd.max(simd.splat(-100.0), x);
    simd.ratio(x, simd.add(simd.splat(1.0), exp(simd, negative(simd, x))))
}

/// The hyperbolic tangent within 4 ulp.
#[inline(always)]
pub fn tanh<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // With m = e^2x - 1 it is m / (m + 2). Beyond the bounds it is ±1 to the last bit.
    let x = simd.max(simd.splat(-10.0), x);
    let x = simd.min(simd.splat(10.0), x);
    let (n, p) = exp_parts(simd, simd.add(x, x));
    // 2^n · (1 + p) - 1 without the cancellation of p where x is small.
    let one = simd.splat(1.0);
    let whole = simd.sub(simd.scale_exp2(one, n), one);
    let m = simd.add(simd.scale_exp2(p, n), whole);
    simd.ratio(m, simd.add(m, simd.splat(2.0)))
}

/// GELU, `x · Φ(x)` with the normal distribution Φ, within 4e-7 of it relative to `|x|`.
#[inline(always)]
pub fn gelu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // x · Φ(x) = max(x, 0) - a · Φ(-a) for a = |x|. Φ(-a) is e^(-a²/2) times a function that falls
    // slowly: a polynomial in t = 1 / (1 + 0.3·a) to 1.5e-7 (the form is that of Hastings 1955,
    // Abramowitz and Stegun 7.1.26). At the bound of a nothing remains of it.
    const SLOPE: f32 = 0.3;
    const POLYNOMIAL: [f32; 8] = [
        0.035_674_763,
        -0.157_203_04,
        0.206_353_43,
        -0.053_683_57,
        0.128_561_59,
        0.099_913_5,
        0.120_753_95,
        0.119_629_3,
    ];
    let a = simd.min(simd.splat(14.0), simd.max(x, negative(simd, x)));
    let t = simd.mul_add(a, simd.splat(SLOPE), simd.splat(1.0));
    let t = simd.ratio(simd.splat(1.0), t);
    let tail = simd.mul(polynomial(simd, t, &POLYNOMIAL), simd.mul(t, a));
    let density = exp(simd, simd.mul(simd.mul(a, a), simd.splat(-0.5)));
    simd.sub(simd.max(simd.splat(0.0), x), simd.mul(tail, density))
}

/// The approximation of GELU by tanh, `x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³)))`, within
/// 4e-7 of it relative to `|x|`.
#[inline(always)]
pub fn gelu_tanh<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // (1 + tanh(u)) / 2 = 1 / (1 + e^-2u), which is 0 at the bound.
    const LINEAR: f32 = -1.595_769;
    const CUBIC: f32 = -0.071_354_82;
    let x = simd.max(simd.splat(-12.0), x);
    let slope = simd.mul_add(simd.mul(x, x), simd.splat(CUBIC), simd.splat(LINEAR));
    simd.ratio(x, simd.add(simd.splat(1.0), exp(simd, simd.mul(slope, x))))
}

/// `(n, p)` with `e^x = 2^n · (1 + p)`, `n` in -126..=127 a whole number. `p` is accurate relative
/// to itself as long as `n` is not the bound, from where it grows until the product overflows.
#[inline(always)]
fn exp_parts<S: Simd>(simd: S, x: S::F32) -> (S::F32, S::F32) {
    // n·ln 2 is subtracted in two steps (Cody and Waite 1980): n·LN2_HIGH is exact. That the upper
    // bound is on n and not on x saves a bound on x.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // (e^r - 1 - r) / r² for |r| ≤ ln(2)/2.
    const POLYNOMIAL: [f32; 5] = [
        0.001_383_175_4,
        0.008_367_343,
        0.041_667_906,
        0.166_665_36,
        0.499_999_97,
    ];
    let x = simd.max(simd.splat(-87.33), x);
    let n = simd.mul(x, simd.splat(LOG2_E));
    let n = simd.round(simd.min(simd.splat(127.0), n));
    let r = simd.mul_add(n, simd.splat(-LN2_HIGH), x);
    let r = simd.mul_add(n, simd.splat(-LN2_LOW), r);
    let r2 = simd.mul(r, r);
    let [c4, c3, c2, c1, c0] = POLYNOMIAL;
    let low = simd.mul_add(simd.splat(c1), r, simd.splat(c0));
    let high = simd.mul_add(simd.splat(c3), r, simd.splat(c2));
    let high = simd.mul_add(simd.splat(c4), r2, high);
    let q = simd.mul_add(high, r2, low);
    (n, simd.mul_add(q, r2, r))
}

/// Horner's rule; the coefficient of the highest power is the first.
#[inline(always)]
fn polynomial<S: Simd>(simd: S, x: S::F32, coefficients: &[f32]) -> S::F32 {
    let (first, others) = coefficients
        .split_first()
        .expect("at least one coefficient");
    let mut sum = simd.splat(*first);
    for &coefficient in others {
        sum = simd.mul_add(sum, x, simd.splat(coefficient));
    }
    sum
}

/// `0 - x`
#[inline(always)]
fn negative<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    simd.sub(simd.splat(0.0), x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::simd::{Isa, Work};

    /// One of the functions above.
    #[derive(Clone, Copy, Debug)]
    enum Function {
        Exp,
        Sigmoid,
        Silu,
        Tanh,
        Gelu,
        GeluTanh,
    }

    use Function::*;

    impl Function {
        fn exact(self, x: f64) -> f64 {
            match self {
                Exp => x.exp(),
                Sigmoid => 1.0 / (1.0 + (-x).exp()),
                Silu => x / (1.0 + (-x).exp()),
                Tanh => x.tanh(),
                Gelu => x * libm::erfc(-x / 2f64.sqrt()) / 2.0,
                GeluTanh => {
                    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                    x / (1.0 + (-2.0 * u).exp())
                }
            }
        }
    }

    struct Apply<'a>(Function, &'a [f32]);

    impl Work for Apply<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut out = vec![0.0; self.1.len()];
            for (out, x) in out.chunks_mut(S::LANES).zip(self.1.chunks(S::LANES)) {
                // SAFETY: both chunks have the same length, at most one vector.
                unsafe {
                    let x_lanes = simd.load_part(x.as_ptr(), x.len());
                    let y = match self.0 {
                        Exp => exp(simd, x_lanes),
                        Sigmoid => sigmoid(simd, x_lanes),
                        Silu => silu(simd, x_lanes),
                        Tanh => tanh(simd, x_lanes),
                        Gelu => gelu(simd, x_lanes),
                        GeluTanh => gelu_tanh(simd, x_lanes),
                    };
                    simd.store_part(out.as_mut_ptr(), y, out.len());
                }
            }
            out
        }
    }

    /// `n` numbers evenly from `low` to `high`, and from 1e-30 to 1 a few of every magnitude.
    fn sweep(low: f32, high: f32, n: usize) -> Vec<f32> {
        let step = (f64::from(high) - f64::from(low)) / n as f64;
        let even = (0..=n).map(|i| (f64::from(low) + step * i as f64) as f32);
        let small = (0..3000).flat_map(|i| {
            let x = 10f32.powf(-(i as f32) / 100.0);
            [x, -x]
        });
        even.chain(small).collect()
    }

    /// The largest error in units of the last place of the exact value.
    fn worst_ulp(isa: Isa, function: Function, low: f32, high: f32) -> (f64, f32) {
        let x = sweep(low, high, 100_000);
        let y = isa.run(Apply(function, &x));
        let errors = x.iter().zip(y).map(|(&x, y)| {
            let exact = function.exact(f64::from(x));
            let rounded = (exact as f32).abs();
            let ulp = f64::from(rounded.next_up()) - f64::from(rounded);
            ((f64::from(y) - exact).abs() / ulp, x)
        });
        errors.fold(
            (0.0, 0.0),
            |worst, error| if error.0 > worst.0 { error } else { worst },
        )
    }

    #[test]
    fn errors_in_units_of_the_last_place() {
        for isa in Isa::available() {
            for (function, low, high, bound) in [
                (Exp, -87.3, 88.3, 1.5),
                (Exp, 88.3, 88.72, 1e-5 * 2f64.powi(24)),
                (Exp, -2.0, 2.0, 1.5),
                (Sigmoid, -87.0, 100.0, 4.0),
                (Silu, -87.0, 100.0, 4.0),
                (Silu, -3.0, 3.0, 4.0),
                (Tanh, -12.0, 12.0, 4.0),
                (Tanh, -0.6, 0.6, 4.0),
            ] {
                let (worst, x) = worst_ulp(isa, function, low, high);
                assert!(
                    worst <= bound,
                    "{function:?} of {x} on {isa:?}: {worst} ulp"
                );
            }
        }
    }

    #[test]
    fn errors_relative_to_the_argument() {
        for isa in Isa::available() {
            for function in [Gelu, GeluTanh] {
                let x = sweep(-20.0, 20.0, 100_000);
                for (&x, y) in x.iter().zip(isa.run(Apply(function, &x))) {
                    let error = (f64::from(y) - function.exact(f64::from(x))).abs();
                    assert!(
                        error <= 4e-7 * f64::from(x.abs()),
                        "{function:?} of {x} on {isa:?}: {y}"
                    );
                }
            }
        }
    }

    #[test]
    fn limits() {
        let (inf, huge) = (f32::INFINITY, f32::MAX);
        let x = [-inf, -huge, -200.0, -100.0, 88.74, 200.0, huge, inf];
        let zero_to_itself = [0.0, 0.0, 0.0, 0.0, 88.74, 200.0, huge, inf];
        let zero_to_one = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        for isa in Isa::available() {
            for (function, limits) in [
                (Exp, [0.0, 0.0, 0.0, 0.0, inf, inf, inf, inf]),
                (Sigmoid, zero_to_one),
                (Silu, zero_to_itself),
                (Tanh, [-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0]),
                (Gelu, zero_to_itself),
                (GeluTanh, zero_to_itself),
            ] {
                for (i, y) in isa.run(Apply(function, &x)).into_iter().enumerate() {
                    let close = y == limits[i] || (y - limits[i]).abs() < 1.2e-38;
                    assert!(close, "{function:?} of {} on {isa:?}: {y}", x[i]);
                }
                let y = isa.run(Apply(function, &[1.0, f32::NAN, -1.0]));
                assert!(
                    y[1].is_nan() && !y[0].is_nan() && !y[2].is_nan(),
                    "{function:?} {isa:?}"
                );
            }
        }
    }
}
