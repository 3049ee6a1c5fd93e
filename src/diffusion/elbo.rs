//! The variational bound that training rests on, in bits per dimension.
//!
//! Eq. 5 of Ho et al. 2020: a prior term, one denoising term per kept step but the last, and a
//! reconstruction term for 8-bit pictures (eq. 13). With the natural logarithm inside and bits
//! per dimension outside, as openai/improved-diffusion prints it. The normal distribution's
//! integral is exact, where that program uses an approximation good to 3e-4.

use std::f64::consts::{LN_2, SQRT_2};

use ndarray::{Array4, ArrayView4, Axis, Zip};

use super::prediction::{Clipping, Prediction};
use super::sampler::{NoiseSource, Variance, answer};
use super::timesteps::Timesteps;
use super::{Conditioning, Denoiser, forward};
use crate::error::Result;

/// Half the distance of two 8-bit levels in [-1, 1].
const HALF_LEVEL: f64 = 1.0 / 255.0;

/// The bound on the negative log-likelihood, each term in bits per dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// How much x_T still says about the picture.
    pub prior: f64,
    /// One per kept step but the last, in the order of sampling.
    pub denoising: Vec<f64>,
    /// What the last step leaves open about the 8-bit values.
    pub reconstruction: f64,
}

impl Bound {
    /// The sum of all terms: the negative log-likelihood is at most this.
    pub fn total(&self) -> f64 {
        self.prior + self.denoising.iter().sum::<f64>() + self.reconstruction
    }
}

/// p(x_prev | x_t): a network's answer, read as a distribution.
#[derive(Debug, Clone, Copy)]
pub struct Reverse<'a> {
    /// The kept steps.
    pub timesteps: &'a Timesteps,
    /// What the network predicts.
    pub prediction: Prediction,
    /// How the estimate of x_0 is clipped.
    pub clipping: Clipping,
    /// The variance of each step; its last value serves the reconstruction term. A zero in a
    /// table makes the bound infinite.
    pub variance: &'a Variance,
}

impl Reverse<'_> {
    /// The bound for `pictures`, averaged over them, with one draw of noise per step.
    ///
    /// - `pictures`: `[n, c, h, w]`, 8-bit values scaled to [-1, 1].
    /// - `noise`: asked once per kept step, for the jump to that step.
    ///
    /// # Errors
    ///
    /// When the network fails or answers with something that is not finite, and when a number of
    /// the clipping or the variance is out of its range.
    pub fn bound(
        &self,
        denoiser: &mut dyn Denoiser,
        pictures: &Array4<f32>,
        cond: &Conditioning,
        noise: &mut dyn NoiseSource,
    ) -> Result<Bound> {
        self.clipping.check()?;
        self.variance.check(self.timesteps)?;
        let kept = self.timesteps.as_slice();
        let (n, c, h, w) = pictures.dim();
        let mut output = Array4::zeros((n, self.variance.answers() * c, h, w));
        let mut z = Array4::zeros(pictures.raw_dim());
        let mut terms = Vec::with_capacity(kept.len());
        for (index, step) in kept.iter().enumerate() {
            noise.fill(index, z.view_mut());
            let mut x = pictures.clone();
            forward::jump(x.view_mut(), step.alpha_cumprod, z.view());
            answer(denoiser, x.view(), step.t, cond, &mut output)?;
            terms.push(self.term(index, pictures.view(), x.view(), output.view()));
        }
        let reconstruction = terms.pop().expect("a walk has at least one step");
        let prior = prior(kept[0].alpha_cumprod, pictures.view());
        Ok(Bound {
            prior,
            denoising: terms,
            reconstruction,
        })
    }

    /// The term of one kept step in bits per dimension: L_{t-1}, or L_0 for the last.
    ///
    /// - `pictures`, `x`: `[n, c, h, w]`, x_0 and x_t.
    /// - `output`: the network's answer for `x`, `[n, c, h, w]` or `[n, 2c, h, w]`.
    ///
    /// # Panics
    ///
    /// When the shapes do not fit, or `index` is not below the number of kept steps.
    pub fn term(
        &self,
        index: usize,
        pictures: ArrayView4<f32>,
        x: ArrayView4<f32>,
        output: ArrayView4<f32>,
    ) -> f64 {
        let (n, c, h, w) = pictures.dim();
        assert_eq!(
            output.dim(),
            (n, self.variance.answers() * c, h, w),
            "the network's answer"
        );
        let kept = self.timesteps.as_slice();
        let (prediction, range) = output.split_at(Axis(1), c);
        let mut x0 = Array4::zeros(pictures.raw_dim());
        self.prediction
            .to(Prediction::X0, kept[index].alpha_cumprod)
            .apply(x, prediction, x0.view_mut());
        self.clipping.apply(x0.view_mut(), &mut Vec::new());

        let posterior = kept[index].posterior();
        let mean = |x0: f32, x: f32| posterior.x0 * f64::from(x0) + posterior.x * f64::from(x);
        let log_posterior = self.timesteps.posterior_variance_clipped(index).ln();
        let log_variance = self.variance.log(self.timesteps, index);
        let last = index + 1 == kept.len();
        // A fixed variance looks at no channels, so any serve.
        let range = if range.is_empty() { x } else { range };
        let mut nats = 0.0;
        Zip::from(pictures)
            .and(&x0)
            .and(x)
            .and(range)
            .for_each(|&picture, &x0, &x, &v| {
                let log_variance = log_variance.at(v);
                nats += if last {
                    -discretised_log_likelihood(f64::from(picture), mean(x0, x), log_variance)
                } else {
                    normal_kl(mean(picture, x), log_posterior, mean(x0, x), log_variance)
                };
            });
        bits_per_dimension(nats, pictures.len())
    }
}

/// The prior term: the divergence of q(x_T | x_0) from the standard normal, in bits per
/// dimension.
///
/// `alpha_cumprod` belongs to the noisiest kept step; `pictures` are `[n, c, h, w]` in [-1, 1].
pub fn prior(alpha_cumprod: f64, pictures: ArrayView4<f32>) -> f64 {
    let (signal, log_variance) = (alpha_cumprod.sqrt(), (-alpha_cumprod).ln_1p());
    let nats = |&x0: &f32| normal_kl(signal * f64::from(x0), log_variance, 0.0, 0.0);
    bits_per_dimension(pictures.iter().map(nats).sum(), pictures.len())
}

/// The divergence of one normal distribution from another, in nats.
pub fn normal_kl(mean: f64, log_variance: f64, other_mean: f64, other_log_variance: f64) -> f64 {
    let log_ratio = log_variance - other_log_variance;
    let distance = (mean - other_mean).powi(2) * (-other_log_variance).exp();
    0.5 * (log_ratio.exp_m1() - log_ratio + distance)
}

/// The logarithm of the probability that a normal number, rounded to 8 bits, is `x`: eq. 13 of
/// Ho et al. 2020, in nats, at least ln(1e-12).
///
/// `x` is an 8-bit value scaled to [-1, 1]; the outermost intervals reach to infinity.
pub fn discretised_log_likelihood(x: f64, mean: f64, log_variance: f64) -> f64 {
    let scale = (-0.5 * log_variance).exp() / SQRT_2;
    let (low, high) = (
        (x - mean - HALF_LEVEL) * scale,
        (x - mean + HALF_LEVEL) * scale,
    );
    let probability = if x < -0.999 {
        0.5 * libm::erfc(-high)
    } else if x > 0.999 {
        0.5 * libm::erfc(low)
    } else {
        0.5 * (libm::erf(high) - libm::erf(low))
    };
    probability.max(1e-12).ln()
}

fn bits_per_dimension(nats: f64, dimensions: usize) -> f64 {
    nats / (LN_2 * dimensions as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::diffusion::Timestep;
    use crate::diffusion::noise::Seeded;
    use crate::diffusion::schedule::Schedule;
    use crate::diffusion::timesteps::Spacing;
    use ndarray::ArrayViewMut4;

    /// A network that knows the picture, and says nothing of the variance.
    struct Knows(Array4<f32>);

    impl Denoiser for Knows {
        fn predict(
            &mut self,
            _: ArrayView4<f32>,
            _: Timestep,
            _: &Conditioning,
            mut out: ArrayViewMut4<f32>,
        ) -> Result<()> {
            // A learned variance of -1 is the posterior's.
            out.fill(-1.0);
            out.slice_axis_mut(Axis(1), (..self.0.dim().1).into())
                .assign(&self.0);
            Ok(())
        }
    }

    fn picture() -> Array4<f32> {
        Array4::from_shape_fn((1, 3, 4, 4), |(_, c, y, x)| {
            (c * 80 + y * 20 + x) as f32 / 127.5 - 1.0
        })
    }

    #[test]
    fn the_prior_term_is_its_closed_form() {
        // For one pixel x: (a x^2 - a - ln(1 - a)) / 2 nats, with a = alphas_cumprod.
        for (alpha_cumprod, x) in [(0.5_f64, 0.25_f32), (0.01, -1.0), (0.9, 0.0)] {
            let square = f64::from(x * x);
            let nats = 0.5 * (alpha_cumprod * (square - 1.0) - (1.0 - alpha_cumprod).ln());
            let bits = prior(alpha_cumprod, Array4::from_elem((2, 1, 1, 1), x).view());
            assert!(
                (bits - nats / LN_2).abs() < 1e-14,
                "{bits} at {alpha_cumprod}, {x}"
            );
        }
        assert_eq!(prior(0.0, picture().view()), 0.0);
    }

    #[test]
    fn probabilities_of_all_levels_sum_to_one() {
        for (mean, log_variance) in [(0.0, 0.0), (-0.99, -8.0), (0.3, -3.0), (1.5, -2.0)] {
            let levels = (0..256).map(|level| f64::from(level) / 127.5 - 1.0);
            let likelihoods = levels.map(|x| discretised_log_likelihood(x, mean, log_variance));
            let sum: f64 = likelihoods.map(f64::exp).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{sum} for {mean}, {log_variance}");
        }
    }

    #[test]
    fn a_network_that_knows_the_picture_pays_only_for_the_last_step() -> Result<()> {
        let timesteps = Timesteps::new(&Schedule::cosine(1000)?, &Spacing::Linspace, 20)?;
        for variance in [Variance::FixedSmall, Variance::LearnedRange] {
            let reverse = Reverse {
                timesteps: &timesteps,
                prediction: Prediction::X0,
                clipping: Clipping::Clamp { range: 1.0 },
                variance: &variance,
            };
            let cond = Conditioning::default();
            let bound = reverse.bound(&mut Knows(picture()), &picture(), &cond, &mut Seeded(1))?;
            assert!(
                bound.denoising.iter().all(|bits| bits.abs() < 1e-12),
                "{bound:?}"
            );
            assert_eq!(bound.denoising.len(), 19);
            // One level is 0.61 standard deviations of the last step to either side.
            let likelihood = discretised_log_likelihood(0.0, 0.0, 4.0382e-5_f64.ln());
            assert!(
                (bound.reconstruction + likelihood / LN_2).abs() < 0.1,
                "{bound:?}"
            );
            assert!(bound.total() >= bound.reconstruction + bound.prior);
        }
        Ok(())
    }
}
