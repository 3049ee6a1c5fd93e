//! Destroying a picture: the forward process q, one step or all of them at once.
//!
//! Both draw from the same distribution, which the tests compare. The noise is an argument, so
//! nothing here is random.

use ndarray::{ArrayView4, ArrayViewMut4, Zip};

/// One Markov step, x_t from x_{t-1}: q(x_t | x_{t-1}), eq. 2 of Ho et al. 2020.
///
/// - `x`: `[n, c, h, w]`, x_{t-1} on entry and x_t on return.
/// - `beta`: the variance of the step, in [0, 1].
/// - `noise`: `[n, c, h, w]`, standard normal.
///
/// # Panics
///
/// When the shapes differ or `beta` is not in [0, 1].
pub fn step(x: ArrayViewMut4<f32>, beta: f64, noise: ArrayView4<f32>) {
    jump(x, 1.0 - beta, noise);
}

/// The jump from the clean picture to x_t: q(x_t | x_0), eq. 4 of Ho et al. 2020.
///
/// - `x`: `[n, c, h, w]`, x_0 in [-1, 1] on entry and x_t on return.
/// - `alpha_cumprod`: the product of alphas at t, in [0, 1].
/// - `noise`: `[n, c, h, w]`, standard normal.
///
/// # Panics
///
/// When the shapes differ or `alpha_cumprod` is not in [0, 1].
pub fn jump(x: ArrayViewMut4<f32>, alpha_cumprod: f64, noise: ArrayView4<f32>) {
    assert!(
        (0.0..=1.0).contains(&alpha_cumprod),
        "{alpha_cumprod} is no share of variance"
    );
    let (signal, sigma) = (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt());
    Zip::from(x).and(noise).for_each(|x, &noise| {
        *x = (signal * f64::from(*x) + sigma * f64::from(noise)) as f32;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::diffusion::noise::{self, Stream};
    use crate::diffusion::schedule::Schedule;
    use crate::error::Result;
    use ndarray::Array4;

    const SHAPE: (usize, usize, usize, usize) = (8, 3, 32, 32);

    fn draw(stream: usize) -> Array4<f32> {
        let mut noise = Array4::zeros(SHAPE);
        let values = noise
            .as_slice_mut()
            .expect("a new array is in standard layout");
        noise::fill(3, Stream::Step(stream), values);
        noise
    }

    /// Mean and variance over all 24576 draws.
    fn moments(x: &Array4<f32>) -> (f64, f64) {
        let (n, mean) = (
            x.len() as f64,
            x.fold(0.0, |sum, &x| sum + f64::from(x)) / x.len() as f64,
        );
        (
            mean,
            x.fold(0.0, |sum, &x| sum + (f64::from(x) - mean).powi(2)) / (n - 1.0),
        )
    }

    #[test]
    fn many_steps_and_one_jump_have_the_same_distribution() -> Result<()> {
        let schedule = Schedule::linear(50, 1e-3, 0.08)?;
        let picture = 0.75;
        let mut walked = Array4::from_elem(SHAPE, picture);
        for (t, (&beta, &product)) in schedule
            .betas()
            .iter()
            .zip(schedule.alphas_cumprod())
            .enumerate()
        {
            step(walked.view_mut(), beta, draw(t).view());
            let mut jumped = Array4::from_elem(SHAPE, picture);
            jump(jumped.view_mut(), product, draw(1000 + t).view());

            let (mean, variance) = (f64::from(picture) * product.sqrt(), 1.0 - product);
            // Five standard errors, of the mean and of the variance of normal draws.
            let draws = walked.len() as f64;
            let mean_tolerance = 5.0 * (variance / draws).sqrt();
            let variance_tolerance = 5.0 * variance * (2.0 / draws).sqrt();
            for (found, name) in [(moments(&walked), "steps"), (moments(&jumped), "jump")] {
                assert!(
                    (found.0 - mean).abs() < mean_tolerance,
                    "{name} to {t}: {found:?}"
                );
                assert!(
                    (found.1 - variance).abs() < variance_tolerance,
                    "{name} to {t}: {found:?}"
                );
            }
        }
        Ok(())
    }
}
