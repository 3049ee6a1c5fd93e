//! How much noise each of the T training steps adds.
//!
//! A schedule is a list of betas; everything else follows from their running product. It is
//! kept in f64, because the cosine schedule's last product is 2.4e-9. It knows nothing of the
//! steps that a sampler keeps: that is [`super::timesteps`].

use std::f64::consts::FRAC_PI_2;

use super::Timestep;
use crate::error::{Error, Result};

/// The most training steps a schedule may have; published models have at most 4000.
pub const MAX_TRAIN_TIMESTEPS: usize = 10_000;

/// The smallest beta: below it, 1 - alphas_cumprod of the first step has no digits left.
const MIN_BETA: f64 = 1e-12;

/// The smallest product of alphas: 1 / sqrt of it must stay far inside f32.
const MIN_ALPHA_CUMPROD: f64 = 1e-60;

/// The variances beta_t of the forward process, and alphas_cumprod_t = prod (1 - beta_s), s <= t.
///
/// The products fall strictly with t and stay inside (0, 1).
///
/// # Example
///
/// ```
/// use driftglass::diffusion::{Timestep, schedule::Schedule};
///
/// let schedule = Schedule::cosine(1000)?;
/// assert!(schedule.snr(Timestep(0)) > 1e4);
/// assert!(schedule.snr(Timestep(999)) < 1e-8);
/// # Ok::<(), driftglass::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    betas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
}

impl Schedule {
    /// Betas at equal distances, Ho et al. 2020 (there 1e-4 to 0.02); `linear` in diffusers.
    ///
    /// # Errors
    ///
    /// As [`Schedule::from_betas`].
    pub fn linear(train_timesteps: usize, beta_start: f64, beta_end: f64) -> Result<Self> {
        check_count(train_timesteps)?;
        Self::from_betas(linspace(beta_start, beta_end, train_timesteps).collect())
    }

    /// Squares of roots at equal distances, the quadratic schedule; `scaled_linear` in diffusers.
    ///
    /// # Errors
    ///
    /// As [`Schedule::from_betas`].
    pub fn scaled_linear(train_timesteps: usize, beta_start: f64, beta_end: f64) -> Result<Self> {
        check_count(train_timesteps)?;
        let roots = linspace(beta_start.sqrt(), beta_end.sqrt(), train_timesteps);
        Self::from_betas(roots.map(|root| root * root).collect())
    }

    /// The cosine schedule, eq. 17 of Nichol & Dhariwal 2021; `squaredcos_cap_v2` in diffusers.
    ///
    /// The products are those of the clipped betas, so they leave the cosine where a beta is
    /// clipped: at the last step.
    ///
    /// # Errors
    ///
    /// When `train_timesteps` is zero or above [`MAX_TRAIN_TIMESTEPS`].
    pub fn cosine(train_timesteps: usize) -> Result<Self> {
        check_count(train_timesteps)?;
        let alpha_bar = |step: usize| {
            let u = step as f64 / train_timesteps as f64;
            // libm's cosine, because the system's differs in the last bit from one to another.
            libm::cos((u + 0.008) / 1.008 * FRAC_PI_2).powi(2)
        };
        let beta = |t| (1.0 - alpha_bar(t + 1) / alpha_bar(t)).min(0.999);
        Self::from_betas((0..train_timesteps).map(beta).collect())
    }

    /// A schedule given as a table, first training step first.
    ///
    /// # Errors
    ///
    /// When there are no betas or more than [`MAX_TRAIN_TIMESTEPS`], when one is not in
    /// [1e-12, 1), or when so much noise is added that nothing of the picture is left to f32.
    pub fn from_betas(betas: Vec<f64>) -> Result<Self> {
        check_count(betas.len())?;
        if let Some(t) = betas
            .iter()
            .position(|beta| !(MIN_BETA..1.0).contains(beta))
        {
            let place = format!("beta {t} of the noise schedule");
            return Err(Error::unexpected(place, "a number in [1e-12, 1)", betas[t]));
        }
        let mut product = 1.0;
        let alphas_cumprod: Vec<f64> = betas
            .iter()
            .map(|beta| {
                product *= 1.0 - beta;
                product
            })
            .collect();
        if product < MIN_ALPHA_CUMPROD {
            let expected = format!("a product of 1 - beta of at least {MIN_ALPHA_CUMPROD:e}");
            return Err(Error::unexpected("the noise schedule", expected, product));
        }
        Ok(Self {
            betas,
            alphas_cumprod,
        })
    }

    /// T, the number of training steps.
    pub fn train_timesteps(&self) -> usize {
        self.betas.len()
    }

    /// `[T]`: beta_t, each in [1e-12, 1).
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// `[T]`: the share of the picture's variance that is left after step t, falling, in (0, 1).
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// The signal-to-noise ratio of x_t, alphas_cumprod / (1 - alphas_cumprod).
    ///
    /// # Panics
    ///
    /// When `t` is not a step of this schedule.
    pub fn snr(&self, t: Timestep) -> f64 {
        let alpha_cumprod = self.alphas_cumprod[t.0];
        alpha_cumprod / (1.0 - alpha_cumprod)
    }
}

/// Checked before anything is allocated, because the number comes from a file.
fn check_count(train_timesteps: usize) -> Result<()> {
    if (1..=MAX_TRAIN_TIMESTEPS).contains(&train_timesteps) {
        return Ok(());
    }
    let expected = format!("1 to {MAX_TRAIN_TIMESTEPS} training steps");
    Err(Error::unexpected(
        "the noise schedule",
        expected,
        train_timesteps,
    ))
}

/// numpy's `linspace`: both ends are exact.
fn linspace(start: f64, end: f64, count: usize) -> impl Iterator<Item = f64> {
    let step = (end - start) / (count.max(2) - 1) as f64;
    (0..count).map(move |i| match i {
        0 => start,
        i if i + 1 == count => end,
        i => start + i as f64 * step,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_exact() -> Result<()> {
        let schedule = Schedule::linear(1000, 1e-4, 0.02)?;
        assert_eq!((schedule.betas()[0], schedule.betas()[999]), (1e-4, 0.02));
        assert_eq!(Schedule::linear(1, 1e-4, 0.02)?.betas(), [1e-4]);
        Ok(())
    }

    #[test]
    fn only_the_last_cosine_beta_is_clipped() -> Result<()> {
        for train_timesteps in [1, 2, 10, 1000, MAX_TRAIN_TIMESTEPS] {
            let schedule = Schedule::cosine(train_timesteps)?;
            let clipped = schedule.betas().iter().position(|&beta| beta == 0.999);
            assert_eq!(clipped, Some(train_timesteps - 1));
        }
        Ok(())
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let refused = [
            Schedule::cosine(0),
            Schedule::cosine(usize::MAX),
            Schedule::linear(10, -1e-4, 0.02),
            Schedule::linear(10, 1e-4, 1.0),
            Schedule::scaled_linear(10, -1e-4, 0.02),
            Schedule::from_betas(vec![]),
            Schedule::from_betas(vec![0.1, f64::NAN]),
            Schedule::from_betas(vec![0.1, 0.0]),
            Schedule::from_betas(vec![0.9; 1000]),
        ];
        assert!(
            refused.iter().all(|schedule| schedule.is_err()),
            "{refused:?}"
        );
        let message = Schedule::from_betas(vec![0.1, 1.5]).map_err(|error| error.to_string());
        let expected = "beta 1 of the noise schedule: expected a number in [1e-12, 1), found 1.5";
        assert_eq!(message, Err(expected.to_owned()));
    }
}
