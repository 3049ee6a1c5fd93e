//! Walking back from noise to a picture, one kept step at a time.
//!
//! Three samplers: the ancestral update of DDPM (Ho et al. 2020, arXiv 2006.11239), DDIM (Song et
//! al. 2021, arXiv 2010.02502) and DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095). Each is
//! linear in what a step has at hand, so each is a function from a kept step to coefficients,
//! computed once in f64, and one loop serves them all:
//! x_prev = a x_t + b x0 + c (x0 of the step before) + sigma z.
//!
//! In the code alpha_bar is `alpha_cumprod`, and `_prev` belongs to the next kept step below t,
//! as in the papers. x0 is always the clipped estimate, also inside DDIM's epsilon (as in
//! openai/improved-diffusion; diffusers with `use_clipped_model_output`).
//!
//! No noise is added after the last kept step, whatever its t: what comes out is the picture.
//! (diffusers decides by t > 0, which leaves noise in the picture with `trailing` spacing and
//! `fixed_large`.)

use std::mem;
use std::ops::ControlFlow;

use ndarray::{Array4, ArrayView4, ArrayViewMut4, Axis, Zip};

use super::prediction::{Clipping, Mix, Prediction};
use super::timesteps::{KeptStep, Timesteps};
use super::{Conditioning, Denoiser, Timestep};
use crate::error::{Error, Result};

/// How a walk goes from one kept step to the next.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampler {
    /// The ancestral update, Algorithm 2 of Ho et al. 2020.
    Ddpm {
        /// The variance of the injected noise.
        variance: Variance,
    },
    /// Eq. 12 and 16 of Song et al. 2021; with `eta` 0 it is Euler's method in sigma.
    Ddim {
        /// 0 injects no noise; 1 is DDPM with [`Variance::FixedSmall`]. In [0, 1].
        eta: f64,
    },
    /// DPM-Solver++(2M), Algorithm 2 of Lu et al. 2022: second order, without noise.
    ///
    /// The first step of a walk and the last are of first order: the first has no step before
    /// it, and the last goes to sigma = 0, where it is the estimate of x_0 itself.
    Dpmpp2m,
}

/// sigma^2 of the noise that DDPM injects after a kept step.
#[derive(Debug, Clone, PartialEq)]
pub enum Variance {
    /// The posterior variance, beta tilde: right for data that is one point.
    FixedSmall,
    /// The beta of the kept step: right for data that is white noise. Far too large on few
    /// steps.
    FixedLarge,
    /// Between the two, in the logarithm, where the network says: eq. 15 of Nichol & Dhariwal
    /// 2021. The network answers with 2c channels.
    LearnedRange,
    /// One per kept step, in the order of sampling; made for Analytic-DPM (Bao et al. 2022). The
    /// last is not used by a walk.
    Table(Vec<f64>),
}

/// A sampler's name on the command line and in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplerKind {
    /// [`Sampler::Ddpm`].
    Ddpm,
    /// [`Sampler::Ddim`].
    Ddim,
    /// [`Sampler::Dpmpp2m`].
    Dpmpp2m,
}

spelled!(
    SamplerKind,
    "sampler",
    Ddpm = "ddpm",
    Ddim = "ddim",
    Dpmpp2m = "dpmpp-2m"
);

/// A variance's name on the command line and in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VarianceKind {
    /// [`Variance::FixedSmall`].
    FixedSmall,
    /// [`Variance::FixedLarge`].
    FixedLarge,
    /// [`Variance::LearnedRange`].
    LearnedRange,
    /// [`Variance::Table`], from the model's package.
    Analytic,
}

spelled!(
    VarianceKind,
    "variance",
    FixedSmall = "fixed-small",
    FixedLarge = "fixed-large",
    LearnedRange = "learned-range",
    Analytic = "analytic"
);

/// Where the injected noise comes from: [`super::noise::Seeded`], or a recording.
pub trait NoiseSource {
    /// Writes the standard normal noise injected after kept step `index` into `out`,
    /// `[n, c, h, w]`. It is not called for steps that inject none.
    fn fill(&mut self, index: usize, out: ArrayViewMut4<f32>);
}

/// What the step callback sees, after each step.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The kept step just taken, in `0..count`; 0 is the noisiest.
    pub index: usize,
    /// The number of kept steps.
    pub count: usize,
    /// The training step that the network was told.
    pub t: Timestep,
    /// `[n, c, h, w]`: the pictures after the update; after the last step they are finished.
    pub x: ArrayView4<'a, f32>,
    /// `[n, c, h, w]`: the estimate of the finished pictures, clipped. The preview to show.
    pub x0: ArrayView4<'a, f32>,
    /// `[n, c, h, w]` or `[n, 2c, h, w]`: the network's answer as it came.
    pub output: ArrayView4<'a, f32>,
}

/// A sampler on kept steps, with all its coefficients: run it as often as pictures are wanted.
///
/// # Example
///
/// ```
/// use std::ops::ControlFlow;
///
/// use driftglass::diffusion::noise::{self, Seeded};
/// use driftglass::diffusion::prediction::{Clipping, Prediction};
/// use driftglass::diffusion::sampler::{Sampler, Step, Variance, Walk};
/// use driftglass::diffusion::schedule::Schedule;
/// use driftglass::diffusion::timesteps::{Spacing, Timesteps};
/// use driftglass::diffusion::{Conditioning, Denoiser, Timestep};
/// use driftglass::error::Result;
/// use ndarray::{ArrayView4, ArrayViewMut4};
///
/// /// A network for which every picture is grey.
/// struct Grey;
///
/// impl Denoiser for Grey {
///     fn predict(
///         &mut self,
///         _x: ArrayView4<f32>,
///         _t: Timestep,
///         _cond: &Conditioning,
///         mut out: ArrayViewMut4<f32>,
///     ) -> Result<()> {
///         out.fill(0.25);
///         Ok(())
///     }
/// }
///
/// let kept = Timesteps::new(&Schedule::cosine(1000)?, &Spacing::Linspace, 10)?;
/// let sampler = Sampler::Ddpm { variance: Variance::FixedSmall };
/// let walk = Walk::new(&kept, Prediction::X0, Clipping::Clamp { range: 1.0 }, &sampler)?;
/// let mut x = noise::start(7, (1, 3, 8, 8));
/// let on_step = &mut |_: &Step| ControlFlow::Continue(());
/// walk.run(&mut Grey, &mut x, &Conditioning::default(), &mut Seeded(7), 0, on_step)?;
/// assert!(x.iter().all(|&x| x == 0.25));
/// # Ok::<(), driftglass::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Walk {
    steps: Vec<ReverseStep>,
    clipping: Clipping,
    /// Output channels per picture channel: 2 where the variance is learned.
    answers: usize,
}

/// One reverse step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ReverseStep {
    t: Timestep,
    /// From x_t and the network's answer to x0.
    estimate: Mix,
    update: Update,
}

/// x_prev = a x_t + b x0 + c (x0 of the step before) + sigma z.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Update {
    a: f64,
    b: f64,
    c: f64,
    sigma: Sigma,
}

/// What multiplies the injected noise.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sigma {
    Fixed(f64),
    Learned(LogVariance),
}

impl Walk {
    /// Prepares the coefficients of every kept step.
    ///
    /// # Errors
    ///
    /// When a number of `clipping` or `sampler` is out of its range, or a variance table has not
    /// one entry per kept step.
    pub fn new(
        timesteps: &Timesteps,
        prediction: Prediction,
        clipping: Clipping,
        sampler: &Sampler,
    ) -> Result<Self> {
        clipping.check()?;
        sampler.check(timesteps)?;
        let kept = timesteps.as_slice();
        let reverse = |(index, step): (usize, &KeptStep)| {
            let mut update = match sampler {
                Sampler::Ddpm { variance } => Update::ddpm(timesteps, index, variance),
                Sampler::Ddim { eta } => Update::ddim(step, *eta),
                Sampler::Dpmpp2m => Update::dpmpp_2m(kept, index),
            };
            if index + 1 == kept.len() {
                // The finished picture must not carry noise, whatever the variance says.
                update.sigma = Sigma::Fixed(0.0);
            }
            let estimate = prediction.to(Prediction::X0, step.alpha_cumprod);
            ReverseStep {
                t: step.t,
                estimate,
                update,
            }
        };
        let steps = kept.iter().enumerate().map(reverse).collect();
        let answers = match sampler {
            Sampler::Ddpm { variance } => variance.answers(),
            Sampler::Ddim { .. } | Sampler::Dpmpp2m => 1,
        };
        Ok(Self {
            steps,
            clipping,
            answers,
        })
    }

    /// Walks from kept step `from` to the finished picture.
    ///
    /// - `x`: `[n, c, h, w]`, x_t of that step on entry (standard normal noise for 0, a picture
    ///   after [`super::forward::jump`] for later ones), about [-1, 1] on return.
    /// - `on_step`: called after every step; `Break` ends the walk.
    ///
    /// # Errors
    ///
    /// When the network fails or answers with something that is not finite, and
    /// [`Error::Stopped`] when `on_step` asks for it.
    ///
    /// # Panics
    ///
    /// When `from` is not below the number of kept steps.
    pub fn run(
        &self,
        denoiser: &mut dyn Denoiser,
        x: &mut Array4<f32>,
        cond: &Conditioning,
        noise: &mut dyn NoiseSource,
        from: usize,
        on_step: &mut dyn FnMut(&Step) -> ControlFlow<()>,
    ) -> Result<()> {
        let count = self.steps.len();
        assert!(from < count, "kept step {from} of {count}");
        let (n, channels, h, w) = x.dim();
        let mut output = Array4::zeros((n, self.answers * channels, h, w));
        let mut x0 = Array4::zeros(x.raw_dim());
        let mut x0_before = x0.clone();
        let mut z = x0.clone();
        let mut scratch = Vec::with_capacity(channels * h * w);

        let kept: Vec<Timestep> = self.steps[from..].iter().map(|step| step.t).collect();
        denoiser.prepare(&kept, cond)?;
        for (index, step) in self.steps.iter().enumerate().skip(from) {
            answer(denoiser, x.view(), step.t, cond, &mut output)?;
            let (prediction, range) = output.view().split_at(Axis(1), channels);
            mem::swap(&mut x0, &mut x0_before);
            step.estimate.apply(x.view(), prediction, x0.view_mut());
            self.clipping.apply(x0.view_mut(), &mut scratch);
            if index == from {
                // With itself as its predecessor, a multistep sampler's first step is of first
                // order.
                x0_before.assign(&x0);
            }
            let Update { a, b, c, sigma } = step.update;
            let sigma = sigma.draw(index, noise, range, &mut z);
            let terms = Zip::from(&mut *x).and(&x0).and(&x0_before).and(&z);
            terms.for_each(|x, &x0, &before, &z| {
                let (x_t, x0, before) = (f64::from(*x), f64::from(x0), f64::from(before));
                *x = (a * x_t + b * x0 + c * before + sigma * f64::from(z)) as f32;
            });
            let (x, x0, output) = (x.view(), x0.view(), output.view());
            let step = Step {
                index,
                count,
                t: step.t,
                x,
                x0,
                output,
            };
            if on_step(&step).is_break() {
                return Err(Error::Stopped);
            }
        }
        Ok(())
    }
}

impl Sampler {
    fn check(&self, timesteps: &Timesteps) -> Result<()> {
        match self {
            Self::Ddpm { variance } => variance.check(timesteps),
            Self::Ddim { eta } if !(0.0..=1.0).contains(eta) => {
                Err(Error::unexpected("eta", "a number in [0, 1]", eta))
            }
            Self::Ddim { .. } | Self::Dpmpp2m => Ok(()),
        }
    }
}

impl Update {
    /// Algorithm 2 of Ho et al. 2020: the mean of the posterior for the clipped x0, eq. 7, plus
    /// sigma z. (The paper's line 4 is the same before clipping.)
    fn ddpm(timesteps: &Timesteps, index: usize, variance: &Variance) -> Self {
        let posterior = timesteps.as_slice()[index].posterior();
        let sigma = match variance.log(timesteps, index) {
            LogVariance::Fixed(log) => Sigma::Fixed((0.5 * log).exp()),
            log @ LogVariance::Range { .. } => Sigma::Learned(log),
        };
        Self {
            a: posterior.x,
            b: posterior.x0,
            c: 0.0,
            sigma,
        }
    }

    /// Eq. 12 of Song et al. 2021, with sigma from eq. 16:
    /// x_prev = sqrt(alpha_bar_prev) x0 + sqrt(1 - alpha_bar_prev - sigma^2) epsilon + sigma z,
    /// where epsilon = (x_t - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar).
    fn ddim(step: &KeptStep, eta: f64) -> Self {
        let (alpha_bar, alpha_bar_prev) = (step.alpha_cumprod, step.alpha_cumprod_prev);
        let sigma = eta * step.posterior().variance.sqrt();
        let direction = (1.0 - alpha_bar_prev - sigma * sigma).max(0.0).sqrt();
        let a = direction / (1.0 - alpha_bar).sqrt();
        let b = alpha_bar_prev.sqrt() - a * alpha_bar.sqrt();
        Self {
            a,
            b,
            c: 0.0,
            sigma: Sigma::Fixed(sigma),
        }
    }

    /// Algorithm 2 of Lu et al. 2022, from x_s to x_t (here from x_t to x_prev):
    /// x_t = sigma_t / sigma_s x_s + alpha_t (1 - exp(-h)) D, where h = lambda_t - lambda_s,
    /// D = (1 + 1 / (2 r)) x0 - 1 / (2 r) x0_before and r = h_before / h.
    fn dpmpp_2m(kept: &[KeptStep], index: usize) -> Self {
        let lambda = |alpha_bar: f64| 0.5 * (alpha_bar / (1.0 - alpha_bar)).ln();
        let h = |step: &KeptStep| lambda(step.alpha_cumprod_prev) - lambda(step.alpha_cumprod);
        let step = &kept[index];
        let a = ((1.0 - step.alpha_cumprod_prev) / (1.0 - step.alpha_cumprod)).sqrt();
        // exp(-h) = (sigma_t / sigma_s) (alpha_s / alpha_t), which is finite where h is not.
        let exp_minus_h = a * (step.alpha_cumprod / step.alpha_cumprod_prev).sqrt();
        let weight = step.alpha_cumprod_prev.sqrt() * (1.0 - exp_minus_h);
        let second_order = index > 0 && index + 1 < kept.len();
        let half_over_r = if second_order {
            0.5 * h(step) / h(&kept[index - 1])
        } else {
            0.0
        };
        let (b, c) = (weight * (1.0 + half_over_r), -weight * half_over_r);
        Self {
            a,
            b,
            c,
            sigma: Sigma::Fixed(0.0),
        }
    }
}

impl Sigma {
    /// Draws the noise of kept step `index` into `z`, where there is any, and returns its factor.
    fn draw(
        self,
        index: usize,
        noise: &mut dyn NoiseSource,
        range: ArrayView4<f32>,
        z: &mut Array4<f32>,
    ) -> f64 {
        match self {
            Self::Fixed(0.0) => 0.0,
            Self::Fixed(sigma) => {
                noise.fill(index, z.view_mut());
                sigma
            }
            Self::Learned(log) => {
                noise.fill(index, z.view_mut());
                Zip::from(z).and(range).for_each(|z, &v| {
                    *z = (f64::from(*z) * libm::exp(0.5 * log.at(v))) as f32;
                });
                1.0
            }
        }
    }
}

/// The logarithm of sigma^2 at one kept step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum LogVariance {
    Fixed(f64),
    Range { small: f64, large: f64 },
}

impl LogVariance {
    /// For one value of the network's `v`, in [-1, 1].
    pub(super) fn at(&self, v: f32) -> f64 {
        match *self {
            Self::Fixed(log) => log,
            Self::Range { small, large } => {
                let fraction = 0.5 * (f64::from(v) + 1.0);
                fraction * large + (1.0 - fraction) * small
            }
        }
    }
}

impl Variance {
    /// The network's output channels per picture channel.
    pub(super) fn answers(&self) -> usize {
        match self {
            Self::FixedSmall | Self::FixedLarge | Self::Table(_) => 1,
            Self::LearnedRange => 2,
        }
    }

    pub(super) fn check(&self, timesteps: &Timesteps) -> Result<()> {
        let Self::Table(table) = self else {
            return Ok(());
        };
        let steps = timesteps.as_slice().len();
        if table.len() != steps {
            let expected = format!("{steps} values, one per step");
            return Err(Error::unexpected("variance table", expected, table.len()));
        }
        match table
            .iter()
            .find(|variance| !(0.0..f64::INFINITY).contains(*variance))
        {
            Some(variance) => Err(Error::unexpected(
                "variance table",
                "finite values, not negative",
                variance,
            )),
            None => Ok(()),
        }
    }

    /// At kept step `index`; finite, but for a zero in a table.
    pub(super) fn log(&self, timesteps: &Timesteps, index: usize) -> LogVariance {
        let kept = timesteps.as_slice();
        let small = timesteps.posterior_variance_clipped(index).ln();
        let large = kept[index].beta().ln();
        match self {
            Self::FixedSmall => LogVariance::Fixed(small),
            // As in openai/improved-diffusion; only the bound looks at the last step's variance.
            Self::FixedLarge if index + 1 == kept.len() => LogVariance::Fixed(small),
            Self::FixedLarge => LogVariance::Fixed(large),
            Self::LearnedRange => LogVariance::Range { small, large },
            Self::Table(table) => LogVariance::Fixed(table[index].ln()),
        }
    }
}

/// Asks the network and refuses what no picture can be made of.
pub(super) fn answer(
    denoiser: &mut dyn Denoiser,
    x: ArrayView4<f32>,
    t: Timestep,
    cond: &Conditioning,
    output: &mut Array4<f32>,
) -> Result<()> {
    denoiser.predict(x, t, cond, output.view_mut())?;
    // Without an early exit, so that it is one vector loop.
    if output
        .iter()
        .fold(true, |finite, value| finite & value.is_finite())
    {
        return Ok(());
    }
    let place = format!("the network's answer at t = {}", t.0);
    Err(Error::unexpected(
        place,
        "finite numbers",
        "infinity or NaN",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::diffusion::noise::{self, Seeded};
    use crate::diffusion::schedule::Schedule;
    use crate::diffusion::timesteps::Spacing;

    /// Pictures whose values are independent normal numbers, and their optimal denoiser.
    struct Gaussian {
        schedule: Schedule,
        mean: f64,
        deviation: f64,
    }

    impl Gaussian {
        /// The variance of x_t.
        fn variance(&self, alpha_bar: f64) -> f64 {
            alpha_bar * self.deviation.powi(2) + 1.0 - alpha_bar
        }

        /// E[epsilon | x_t].
        fn epsilon(&self, x: f64, alpha_bar: f64) -> f64 {
            (1.0 - alpha_bar).sqrt() * (x - alpha_bar.sqrt() * self.mean) / self.variance(alpha_bar)
        }

        /// Where the probability flow, which DDIM and DPM-Solver++ follow, takes `x`.
        fn flow(&self, x: f64, from: f64, to: f64) -> f64 {
            let stretch = (self.variance(to) / self.variance(from)).sqrt();
            to.sqrt() * self.mean + (x - from.sqrt() * self.mean) * stretch
        }

        /// The variance of x_prev given x_t, which is what Analytic-DPM measures; the network's
        /// mean is right, so with it every step is.
        fn table(&self, timesteps: &Timesteps) -> Vec<f64> {
            let variance = |step: &KeptStep| {
                let uncertainty = (1.0 - step.alpha_cumprod) * self.deviation.powi(2)
                    / self.variance(step.alpha_cumprod);
                let posterior = step.posterior();
                posterior.variance + posterior.x0.powi(2) * uncertainty
            };
            timesteps.as_slice().iter().map(variance).collect()
        }
    }

    impl Denoiser for Gaussian {
        fn predict(
            &mut self,
            x: ArrayView4<f32>,
            t: Timestep,
            _: &Conditioning,
            out: ArrayViewMut4<f32>,
        ) -> Result<()> {
            let alpha_bar = self.schedule.alphas_cumprod()[t.0];
            Zip::from(out).and(x).for_each(|out, &x| {
                *out = self.epsilon(f64::from(x), alpha_bar) as f32;
            });
            Ok(())
        }
    }

    /// A network that answers a number: the same for every channel, or another for the upper half.
    struct Constant(f32, f32);

    impl Denoiser for Constant {
        fn predict(
            &mut self,
            x: ArrayView4<f32>,
            _: Timestep,
            _: &Conditioning,
            mut out: ArrayViewMut4<f32>,
        ) -> Result<()> {
            out.fill(self.1);
            out.slice_axis_mut(Axis(1), (..x.dim().1).into())
                .fill(self.0);
            Ok(())
        }
    }

    fn ddpm(variance: Variance) -> Sampler {
        Sampler::Ddpm { variance }
    }

    fn keep(schedule: &Schedule, spacing: Spacing, steps: usize) -> Timesteps {
        Timesteps::new(schedule, &spacing, steps).expect("a spacing that keeps any number")
    }

    /// Runs an epsilon network without clipping, from kept step `from`.
    fn run(
        timesteps: &Timesteps,
        sampler: &Sampler,
        denoiser: &mut dyn Denoiser,
        x: &mut Array4<f32>,
        from: usize,
    ) -> Result<()> {
        let walk = Walk::new(timesteps, Prediction::Epsilon, Clipping::None, sampler)?;
        let on_step = &mut |_: &Step| ControlFlow::Continue(());
        walk.run(
            denoiser,
            x,
            &Conditioning::default(),
            &mut Seeded(5),
            from,
            on_step,
        )
    }

    #[test]
    fn gaussian_pictures_have_their_mean_and_variance() -> Result<()> {
        for schedule in [Schedule::cosine(1000)?, Schedule::linear(1000, 1e-4, 0.02)?] {
            let mut data = Gaussian {
                schedule,
                mean: 0.25,
                deviation: 0.5,
            };
            let samplers = [
                (ddpm(Variance::FixedSmall), 500),
                (ddpm(Variance::FixedLarge), 1000),
                (ddpm(Variance::Table(vec![])), 10),
                (Sampler::Ddim { eta: 0.0 }, 250),
                (Sampler::Ddim { eta: 0.5 }, 500),
                (Sampler::Dpmpp2m, 50),
            ];
            for (mut sampler, steps) in samplers {
                let timesteps = keep(&data.schedule, Spacing::Linspace, steps);
                if let Sampler::Ddpm {
                    variance: Variance::Table(table),
                } = &mut sampler
                {
                    *table = data.table(&timesteps);
                }
                let mut x = noise::start(5, (4, 1, 32, 32));
                run(&timesteps, &sampler, &mut data, &mut x, 0)?;

                let draws = x.len() as f64;
                let mean = x.fold(0.0, |sum, &x| sum + f64::from(x)) / draws;
                let variance = x.fold(0.0, |sum, &x| sum + (f64::from(x) - mean).powi(2)) / draws;
                // Five standard errors of each.
                let mean_tolerance = 5.0 * data.deviation / draws.sqrt();
                let variance_tolerance = 5.0 * data.deviation.powi(2) * (2.0 / draws).sqrt();
                let case = format!("{sampler:?}: {mean} {variance}");
                assert!((mean - data.mean).abs() < mean_tolerance, "{case}");
                assert!(
                    (variance - data.deviation.powi(2)).abs() < variance_tolerance,
                    "{case}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn one_point_is_reached_from_anywhere() -> Result<()> {
        let schedule = Schedule::cosine(1000)?;
        let mut data = Gaussian {
            schedule,
            mean: -0.7,
            deviation: 0.0,
        };
        let samplers = [
            ddpm(Variance::FixedSmall),
            ddpm(Variance::FixedLarge),
            Sampler::Ddim { eta: 0.0 },
            Sampler::Ddim { eta: 1.0 },
            Sampler::Dpmpp2m,
        ];
        for sampler in samplers {
            for spacing in [
                Spacing::Linspace,
                Spacing::Leading { offset: 0 },
                Spacing::Trailing,
            ] {
                for steps in [1, 2, 3, 10, 100] {
                    let timesteps = keep(&data.schedule, spacing.clone(), steps);
                    // What an f32 epsilon leaves of x0 at the last kept step.
                    let last = timesteps.as_slice()[steps - 1].alpha_cumprod;
                    let tolerance = 1e-6 / last.sqrt();
                    let mut x = noise::start(9, (1, 1, 4, 4));
                    run(&timesteps, &sampler, &mut data, &mut x, 0)?;
                    let error = x.fold(0.0, |worst: f64, &x| worst.max((f64::from(x) + 0.7).abs()));
                    let case = format!("{sampler:?}, {steps} steps, {spacing}");
                    assert!(
                        error < tolerance,
                        "{case}: off by {error:e}, allowed {tolerance:e}"
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn ddim_has_order_one_and_dpm_solver_order_two() -> Result<()> {
        let schedule = Schedule::linear(1000, 1e-4, 0.02)?;
        let mut data = Gaussian {
            schedule,
            mean: 0.25,
            deviation: 0.5,
        };
        let mut error = |sampler: &Sampler, steps: usize| -> Result<f64> {
            // From t = 900 to t = 100 in equal steps, and one more, which is not looked at.
            let kept = (0..=steps).map(|i| 900 - 800 * i / steps).collect();
            let timesteps = keep(&data.schedule, Spacing::Explicit(kept), steps + 1);
            let walk = Walk::new(&timesteps, Prediction::Epsilon, Clipping::None, sampler)?;
            let mut reached = f64::NAN;
            let on_step = &mut |step: &Step| {
                if step.index + 1 == steps {
                    reached = f64::from(step.x[[0, 0, 0, 0]]);
                }
                ControlFlow::Continue(())
            };
            let mut x = Array4::from_elem((1, 1, 1, 1), 1.0);
            let cond = Conditioning::default();
            walk.run(&mut data, &mut x, &cond, &mut Seeded(0), 0, on_step)?;
            let kept = timesteps.as_slice();
            let expected = data.flow(1.0, kept[0].alpha_cumprod, kept[steps].alpha_cumprod);
            Ok((reached - expected).abs())
        };
        for (sampler, ratio) in [(Sampler::Ddim { eta: 0.0 }, 2.0), (Sampler::Dpmpp2m, 4.0)] {
            for steps in [10, 20] {
                // Twice the steps, so 2^order of the accuracy or better.
                let found = error(&sampler, steps)? / error(&sampler, 2 * steps)?;
                assert!(found > 0.9 * ratio, "{sampler:?}, {steps} steps: {found}");
            }
        }
        Ok(())
    }

    #[test]
    fn noise_and_direction_share_the_variance() -> Result<()> {
        let schedule = Schedule::cosine(1000)?;
        for steps in (1..50).chain([100, 999, 1000]) {
            let timesteps = keep(&schedule, Spacing::Linspace, steps);
            for (index, step) in timesteps.as_slice().iter().enumerate() {
                let (rest, rest_prev) = (1.0 - step.alpha_cumprod, 1.0 - step.alpha_cumprod_prev);
                for eta in [0.0, 0.3, 1.0] {
                    let Update {
                        a,
                        sigma: Sigma::Fixed(sigma),
                        ..
                    } = Update::ddim(step, eta)
                    else {
                        panic!("DDIM learns no variance");
                    };
                    let error = (a * a * rest + sigma * sigma - rest_prev).abs();
                    assert!(
                        error < 1e-12,
                        "eta {eta}, step {index} of {steps}: {error:e}"
                    );
                }
                if index + 1 < steps {
                    let ddpm = Update::ddpm(&timesteps, index, &Variance::FixedSmall);
                    let ddim = Update::ddim(step, 1.0);
                    assert!((ddpm.a - ddim.a).abs() < 1e-9, "{ddpm:?} {ddim:?}");
                    assert!((ddpm.b - ddim.b).abs() < 1e-9, "{ddpm:?} {ddim:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_finished_picture_carries_no_noise() -> Result<()> {
        /// Noise that must not be asked for after the last step.
        struct Until(usize);
        impl NoiseSource for Until {
            fn fill(&mut self, index: usize, mut out: ArrayViewMut4<f32>) {
                assert!(index < self.0, "noise after kept step {index}");
                out.fill(1e3);
            }
        }
        let timesteps = keep(&Schedule::cosine(1000)?, Spacing::Trailing, 13);
        let table = Variance::Table(vec![1.0; 13]);
        for variance in [
            Variance::FixedSmall,
            Variance::FixedLarge,
            Variance::LearnedRange,
            table,
        ] {
            let walk = Walk::new(&timesteps, Prediction::X0, Clipping::None, &ddpm(variance))?;
            let mut x = noise::start(1, (1, 3, 2, 2));
            let on_step = &mut |_: &Step| ControlFlow::Continue(());
            let cond = Conditioning::default();
            walk.run(
                &mut Constant(0.5, 1.0),
                &mut x,
                &cond,
                &mut Until(12),
                0,
                on_step,
            )?;
            assert_eq!(x, Array4::from_elem((1, 3, 2, 2), 0.5));
        }
        Ok(())
    }

    #[test]
    fn a_learned_variance_reaches_from_small_to_large() -> Result<()> {
        let timesteps = keep(&Schedule::cosine(1000)?, Spacing::Linspace, 20);
        let finished = |variance, v| -> Result<Array4<f32>> {
            let mut x = noise::start(1, (1, 3, 4, 4));
            run(
                &timesteps,
                &ddpm(variance),
                &mut Constant(0.0, v),
                &mut x,
                0,
            )?;
            Ok(x)
        };
        for (v, fixed) in [(-1.0, Variance::FixedSmall), (1.0, Variance::FixedLarge)] {
            let (learned, fixed) = (finished(Variance::LearnedRange, v)?, finished(fixed, v)?);
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
            assert!(learned.iter().zip(&fixed).all(close), "{learned} {fixed}");
        }
        Ok(())
    }

    #[test]
    fn a_walk_can_start_late() -> Result<()> {
        let schedule = Schedule::cosine(1000)?;
        let whole = keep(&schedule, Spacing::Linspace, 10);
        let rest = Spacing::Explicit(whole.as_slice()[4..].iter().map(|step| step.t.0).collect());
        let rest = keep(&schedule, rest, 6);
        let mut data = Gaussian {
            schedule,
            mean: 0.25,
            deviation: 0.5,
        };
        for sampler in [Sampler::Ddim { eta: 0.0 }, Sampler::Dpmpp2m] {
            let (mut late, mut early) =
                (noise::start(1, (1, 1, 2, 2)), noise::start(1, (1, 1, 2, 2)));
            run(&whole, &sampler, &mut data, &mut late, 4)?;
            run(&rest, &sampler, &mut data, &mut early, 0)?;
            let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
            assert!(
                late.iter().zip(&early).all(close),
                "{sampler:?}: {late} {early}"
            );
        }
        Ok(())
    }

    #[test]
    fn what_cannot_be_walked_is_refused() -> Result<()> {
        let timesteps = keep(&Schedule::cosine(1000)?, Spacing::Linspace, 2);
        let refused = [
            Sampler::Ddim { eta: 1.5 },
            Sampler::Ddim { eta: f64::NAN },
            ddpm(Variance::Table(vec![0.1])),
            ddpm(Variance::Table(vec![0.1, -0.1])),
            ddpm(Variance::Table(vec![0.1, f64::INFINITY])),
        ];
        for sampler in refused {
            let walk = Walk::new(&timesteps, Prediction::Epsilon, Clipping::None, &sampler);
            assert!(walk.is_err(), "{sampler:?}");
        }
        let (sampler, mut x) = (ddpm(Variance::FixedSmall), Array4::zeros((1, 1, 1, 1)));
        let failed = run(
            &timesteps,
            &sampler,
            &mut Constant(f32::NAN, 0.0),
            &mut x,
            0,
        );
        let message = failed.map_err(|error| error.to_string());
        let expected =
            "the network's answer at t = 999: expected finite numbers, found infinity or NaN";
        assert_eq!(message, Err(expected.to_owned()));
        Ok(())
    }
}
