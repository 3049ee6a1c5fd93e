//! What the network's answer means, and how one meaning is turned into another.
//!
//! x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) epsilon ties the four together, so each
//! meaning is a linear combination of x_t and any other. The estimate of x_0 is then kept within
//! reason by [`Clipping`].

use ndarray::{ArrayView4, ArrayViewMut4, Axis, Zip};

use crate::error::{Error, Result};

/// What the network predicts; in files `epsilon`, `v_prediction` and `sample`, as in diffusers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise in x_t, Ho et al. 2020.
    Epsilon,
    /// v = sqrt(alpha_bar) epsilon - sqrt(1 - alpha_bar) x_0, Salimans & Ho 2022.
    V,
    /// The clean picture; diffusers calls it `sample`.
    X0,
}

spelled!(
    Prediction,
    "prediction",
    Epsilon = "epsilon",
    V = "v_prediction",
    X0 = "sample"
);

/// A linear combination of x_t and the network's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// The coefficient of x_t.
    pub x: f64,
    /// The coefficient of the network's answer.
    pub output: f64,
}

impl Prediction {
    /// The combination that turns an answer of this kind into one of kind `to`.
    ///
    /// `alpha_cumprod` is the product of alphas at t, in (0, 1).
    ///
    /// # Example
    ///
    /// ```
    /// use driftglass::diffusion::prediction::{Mix, Prediction};
    ///
    /// let x0 = Prediction::V.to(Prediction::X0, 0.64);
    /// assert_eq!(x0, Mix { x: 0.8, output: -0.6 });
    /// ```
    pub fn to(self, to: Self, alpha_cumprod: f64) -> Mix {
        use Prediction::{Epsilon, V, X0};
        let (alpha, sigma) = (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).max(0.0).sqrt());
        let (x, output) = match (self, to) {
            (Epsilon, Epsilon) | (V, V) | (X0, X0) => (0.0, 1.0),
            (Epsilon, X0) => (1.0 / alpha, -sigma / alpha),
            (V, X0) => (alpha, -sigma),
            (X0, Epsilon) => (1.0 / sigma, -alpha / sigma),
            (V, Epsilon) => (sigma, alpha),
            (Epsilon, V) => (-sigma / alpha, 1.0 / alpha),
            (X0, V) => (alpha / sigma, -1.0 / sigma),
        };
        Mix { x, output }
    }
}

impl Mix {
    /// Writes the combination into `result`; all three `[n, c, h, w]`.
    ///
    /// # Panics
    ///
    /// When the shapes differ.
    pub fn apply(&self, x: ArrayView4<f32>, output: ArrayView4<f32>, result: ArrayViewMut4<f32>) {
        // In f64, because at t = 999 the cosine schedule multiplies a difference by 20291.
        Zip::from(result)
            .and(x)
            .and(output)
            .for_each(|result, &x, &output| {
                *result = (self.x * f64::from(x) + self.output * f64::from(output)) as f32;
            });
    }
}

/// How the estimate of x_0 is kept within the range of pictures.
///
/// Early steps multiply the network's error by up to 1 / sqrt(alpha_bar), 20291 on the cosine
/// schedule, so only a model that was trained without clipping goes without.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clipping {
    /// The estimate as it is.
    None,
    /// Clamped to [-range, range]; `clip_sample` in diffusers.
    Clamp {
        /// Above 0; 1 for pictures.
        range: f32,
    },
    /// Clamped to and divided by a quantile of |x_0|, per picture; dynamic thresholding, section
    /// 2.3 of Saharia et al. 2022 (Imagen), `thresholding` in diffusers.
    Dynamic {
        /// The quantile, in (0, 1]; 0.995 in diffusers.
        ratio: f32,
        /// The threshold is kept in [1, max]; 1 in diffusers.
        max: f32,
    },
}

impl Clipping {
    /// Whether the numbers make sense.
    ///
    /// # Errors
    ///
    /// When a number is outside the range that its field states.
    pub fn check(&self) -> Result<()> {
        match *self {
            Self::None => Ok(()),
            Self::Clamp { range } if range > 0.0 => Ok(()),
            Self::Clamp { range } => Err(Error::unexpected("clip", "a range above 0", range)),
            Self::Dynamic { ratio, .. } if !(ratio > 0.0 && ratio <= 1.0) => Err(
                Error::unexpected("threshold ratio", "a number in (0, 1]", ratio),
            ),
            Self::Dynamic { max, .. } if max >= 1.0 => Ok(()),
            Self::Dynamic { max, .. } => Err(Error::unexpected(
                "threshold max",
                "a number of at least 1",
                max,
            )),
        }
    }

    /// Clips `x0`, `[n, c, h, w]`, in place.
    ///
    /// `scratch` is overwritten; it is an argument so that a loop allocates it once.
    pub fn apply(&self, mut x0: ArrayViewMut4<f32>, scratch: &mut Vec<f32>) {
        match *self {
            Self::None => {}
            Self::Clamp { range } => x0.mapv_inplace(|x0| x0.clamp(-range, range)),
            Self::Dynamic { ratio, max } => {
                for mut picture in x0.axis_iter_mut(Axis(0)) {
                    scratch.clear();
                    scratch.extend(picture.iter().map(|x0| x0.abs()));
                    let threshold = quantile(scratch, f64::from(ratio)).clamp(1.0, max);
                    picture.mapv_inplace(|x0| x0.clamp(-threshold, threshold) / threshold);
                }
            }
        }
    }
}

/// The quantile of at least one value, interpolated between neighbours as `torch.quantile` does.
fn quantile(values: &mut [f32], ratio: f64) -> f32 {
    let rank = ratio * (values.len() - 1) as f64;
    let (_, &mut low, above) = values.select_nth_unstable_by(rank as usize, f32::total_cmp);
    let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    (f64::from(low) + rank.fract() * (f64::from(high) - f64::from(low))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    use ndarray::{Array4, arr1};

    const KINDS: [Prediction; 3] = [Prediction::Epsilon, Prediction::V, Prediction::X0];

    fn array(values: &[f32]) -> Array4<f32> {
        let row = arr1(values).into_shape_with_order((1, 1, 1, values.len()));
        row.expect("the shape has as many values")
    }

    /// The combination for one pixel.
    fn mixed(mix: Mix, x: f64, output: f64) -> f64 {
        mix.x * x + mix.output * output
    }

    #[test]
    fn every_kind_is_reached_from_every_other() {
        let (x0, epsilon) = (0.3, -1.2);
        for alpha_cumprod in [1e-6_f64, 0.25, 0.9999] {
            let (alpha, sigma) = (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt());
            let x = alpha * x0 + sigma * epsilon;
            let truth = [epsilon, alpha * epsilon - sigma * x0, x0];
            for (from, output) in KINDS.into_iter().zip(truth) {
                for (to, expected) in KINDS.into_iter().zip(truth) {
                    let found = mixed(from.to(to, alpha_cumprod), x, output);
                    let error = (found - expected).abs();
                    assert!(
                        error < 1e-9,
                        "{from} to {to} at {alpha_cumprod}: off by {error:e}"
                    );
                }
            }
        }
    }

    #[test]
    fn clamping_keeps_what_is_inside() {
        let mut x0 = array(&[-3.0, -0.5, 0.0, 0.7, 1.0, 1.5]);
        Clipping::Clamp { range: 1.0 }.apply(x0.view_mut(), &mut Vec::new());
        assert_eq!(x0, array(&[-1.0, -0.5, 0.0, 0.7, 1.0, 1.0]));
    }

    #[test]
    fn thresholds_are_quantiles_between_one_and_max() {
        let clipped = |max, values: &[f32]| {
            let mut x0 = array(values);
            Clipping::Dynamic { ratio: 0.5, max }.apply(x0.view_mut(), &mut Vec::new());
            x0
        };
        // The median of |x0| lies between 2 and 3.
        let values = [-4.0, 3.0, 2.0, -1.0];
        assert_eq!(clipped(9.0, &values), array(&[-1.0, 1.0, 0.8, -0.4]));
        assert_eq!(clipped(2.0, &values), array(&[-1.0, 1.0, 1.0, -0.5]));
        assert_eq!(clipped(9.0, &[0.5, -0.25]), array(&[0.5, -0.25]));
    }

    #[test]
    fn numbers_without_sense_are_refused() {
        let refused = [
            Clipping::Clamp { range: 0.0 },
            Clipping::Clamp { range: f32::NAN },
            Clipping::Dynamic {
                ratio: 0.0,
                max: 1.0,
            },
            Clipping::Dynamic {
                ratio: 1.1,
                max: 1.0,
            },
            Clipping::Dynamic {
                ratio: 0.9,
                max: 0.5,
            },
            Clipping::Dynamic {
                ratio: 0.9,
                max: f32::NAN,
            },
        ];
        for clipping in refused {
            assert!(clipping.check().is_err(), "{clipping:?}");
        }
    }
}
