//! What pictures are like before anything of one is seen: the first step of a walk.
//!
//! At t = T - 1 nothing of the picture is left in x_t, so p(x_0 | x_T) = p(x_0): the reverse step
//! from there is exact where x_0 is drawn from what pictures are like. A network can not say as
//! much. It answers with the noise, and x_0 = (x_t - √(1 - ᾱ) ε) / √ᾱ divides its error by √ᾱ,
//! 5e-5 on a cosine schedule: after clipping, x_0 is black and white, and a walk of few steps
//! takes its brightness and its colours from there, for good (Lin et al. 2024, arXiv 2305.08891,
//! section 3).
//!
//! Of the x_0 that is drawn only the coarsest features stand out of the noise that the first step
//! leaves, so the prior is a Gaussian of thumbnails, one for each class: a mean, and factors whose
//! products with themselves sum up to the covariance.

use ndarray::{Array4, Array5, ArrayView3, ArrayView4, ArrayViewMut4, Axis, Slice, s};

use super::prediction::Prediction;
use super::timesteps::KeptStep;
use super::{Conditioning, Denoiser, Timestep};
use crate::error::{Error, Result};

/// The largest ᾱ at which nothing of a picture can be seen.
const UNSEEN: f64 = 1e-4;

/// A Gaussian of thumbnails in about [-1, 1], for each class.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    /// `[classes, c, rows, columns]`.
    mean: Array4<f32>,
    /// `[classes, factors, c, rows, columns]`.
    factors: Array5<f32>,
}

impl Prior {
    /// - `mean`: `[classes, c, rows, columns]`; one class where a network knows none.
    /// - `factors`: `[classes, factors, c, rows, columns]`.
    ///
    /// # Errors
    ///
    /// When the shapes do not fit one another, or one of them is empty.
    pub fn new(mean: Array4<f32>, factors: Array5<f32>) -> Result<Self> {
        let (classes, c, rows, columns) = mean.dim();
        let expected = (classes, factors.dim().1, c, rows, columns);
        if factors.dim() != expected || factors.is_empty() {
            let found = format!("{:?}", factors.dim());
            return Err(Error::unexpected(
                "the prior's factors",
                format!("{expected:?}, none of them 0"),
                found,
            ));
        }
        Ok(Self { mean, factors })
    }

    /// How many normal numbers a draw takes.
    pub fn factors(&self) -> usize {
        self.factors.dim().1
    }

    /// The picture `[1, c, height, width]` that the normal numbers `z` draw: the thumbnail
    /// mean + Σ z_i factor_i of `class`, enlarged.
    ///
    /// # Panics
    ///
    /// When there is no such class, or `z` is not one number per factor.
    pub fn draw(&self, class: usize, z: &[f32], height: usize, width: usize) -> Array4<f32> {
        assert_eq!(z.len(), self.factors(), "one number per factor");
        let mut thumbnail = self.mean.index_axis(Axis(0), class).to_owned();
        let factors = self.factors.index_axis(Axis(0), class);
        for (&z, factor) in z.iter().zip(factors.outer_iter()) {
            thumbnail.scaled_add(z, &factor);
        }
        let (_, rows, columns) = thumbnail.dim();
        let (down, across) = (positions(rows, height), positions(columns, width));
        Array4::from_shape_fn((1, thumbnail.dim().0, height, width), |(_, c, y, x)| {
            bilinear(thumbnail.view(), c, down[y], across[x])
        })
    }
}

/// Where pixels of a side of `to` lie on one of `from`: the pixel before, the one after, and how
/// much of the latter; centres on centres, and the edge goes on outside.
fn positions(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let last = from - 1;
    let position = |pixel: usize| {
        let at = (pixel as f32 + 0.5) * from as f32 / to as f32 - 0.5;
        let at = at.clamp(0.0, last as f32);
        let before = at as usize;
        (before, (before + 1).min(last), at - before as f32)
    };
    (0..to).map(position).collect()
}

fn bilinear(
    picture: ArrayView3<f32>,
    c: usize,
    (above, below, down): (usize, usize, f32),
    (left, right, across): (usize, usize, f32),
) -> f32 {
    let row = |y| picture[[c, y, left]] * (1.0 - across) + picture[[c, y, right]] * across;
    row(above) * (1.0 - down) + row(below) * down
}

/// A network whose first answer is a drawn picture, and which is asked from the second step on.
pub struct Informed<'a> {
    denoiser: &'a mut dyn Denoiser,
    prediction: Prediction,
    first: KeptStep,
    x0: Array4<f32>,
}

impl<'a> Informed<'a> {
    /// Whether a walk whose first step is `first` begins where nothing can be seen.
    pub fn fits(first: &KeptStep) -> bool {
        first.alpha_cumprod <= UNSEEN
    }

    /// `denoiser`, which predicts `prediction`, but at the step `first` the answer for which x_0
    /// is `x0`, `[n, c, h, w]`.
    pub fn new(
        denoiser: &'a mut dyn Denoiser,
        prediction: Prediction,
        first: KeptStep,
        x0: Array4<f32>,
    ) -> Self {
        Self {
            denoiser,
            prediction,
            first,
            x0,
        }
    }
}

impl Denoiser for Informed<'_> {
    fn prepare(&mut self, timesteps: &[Timestep], cond: &Conditioning) -> Result<()> {
        let asked: Vec<Timestep> = timesteps
            .iter()
            .copied()
            .filter(|&t| t != self.first.t)
            .collect();
        self.denoiser.prepare(&asked, cond)
    }

    /// A learned variance is the posterior's at the first step, which is right for a known x_0.
    fn predict(
        &mut self,
        x: ArrayView4<f32>,
        t: Timestep,
        cond: &Conditioning,
        mut out: ArrayViewMut4<f32>,
    ) -> Result<()> {
        if t != self.first.t {
            return self.denoiser.predict(x, t, cond, out);
        }
        let channels = self.x0.dim().1;
        let answer = Prediction::X0.to(self.prediction, self.first.alpha_cumprod);
        out.slice_axis_mut(Axis(1), Slice::from(channels..))
            .fill(-1.0);
        let out = out.slice_mut(s![.., ..channels, .., ..]);
        answer.apply(x, self.x0.view(), out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use ndarray::{Array, arr1};

    use super::*;
    use crate::diffusion::noise::{self, Seeded, Stream};
    use crate::diffusion::prediction::Clipping;
    use crate::diffusion::sampler::{Sampler, Step, Variance, Walk};
    use crate::diffusion::schedule::Schedule;
    use crate::diffusion::timesteps::{Spacing, Timesteps};

    /// Two classes of 2 by 3 thumbnails in one channel, with two factors.
    fn prior() -> Result<Prior> {
        let counted = |count: usize| Array::from_iter((0..count).map(|i| i as f32 / 24.0 - 0.5));
        let mean = counted(12).into_shape_with_order((2, 1, 2, 3));
        let factors = counted(24).into_shape_with_order((2, 2, 1, 2, 3));
        Prior::new(mean.expect("12 numbers"), factors.expect("24 numbers"))
    }

    #[test]
    fn a_draw_is_the_mean_and_as_much_of_each_factor() -> Result<()> {
        let prior = prior()?;
        let drawn = prior.draw(1, &[2.0, -1.0], 2, 3);
        let mean = prior.mean.index_axis(Axis(0), 1);
        let factors = prior.factors.index_axis(Axis(0), 1);
        let expected =
            &mean + &(&factors.index_axis(Axis(0), 0) * 2.0) - factors.index_axis(Axis(0), 1);
        let off = (&drawn.index_axis(Axis(0), 0) - &expected).mapv(f32::abs);
        assert!(off.iter().all(|&off| off < 1e-6), "{drawn} {expected}");
        Ok(())
    }

    #[test]
    fn a_thumbnail_is_enlarged_from_centre_to_centre() -> Result<()> {
        let mean = arr1(&[0.0, 1.0]).into_shape_with_order((1, 1, 1, 2));
        let factors = Array5::zeros((1, 1, 1, 1, 2));
        let prior = Prior::new(mean.expect("two numbers"), factors)?;
        let drawn = prior.draw(0, &[0.0], 2, 8);
        // PyTorch: interpolate(tensor([[[[0., 1.]]]]), (2, 8), mode="bilinear").
        let row = [0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 1.0, 1.0];
        for y in 0..2 {
            let found: Vec<f32> = drawn.slice(s![0, 0, y, ..]).to_vec();
            assert_eq!(found, row);
        }
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let mean = || Array4::zeros((2, 3, 4, 4));
        for shape in [(2, 5, 3, 4, 5), (1, 5, 3, 4, 4), (2, 0, 3, 4, 4)] {
            let refused = Prior::new(mean(), Array5::zeros(shape));
            assert!(refused.is_err(), "{shape:?}");
        }
        assert!(Prior::new(Array4::zeros((0, 3, 4, 4)), Array5::zeros((0, 5, 3, 4, 4))).is_err());
    }

    /// Answers with grey, and notes when it is asked.
    struct Asked {
        prediction: Prediction,
        schedule: Schedule,
        prepared: Vec<Timestep>,
        asked: Vec<Timestep>,
    }

    impl Denoiser for Asked {
        fn prepare(&mut self, timesteps: &[Timestep], _: &Conditioning) -> Result<()> {
            self.prepared = timesteps.to_vec();
            Ok(())
        }

        fn predict(
            &mut self,
            x: ArrayView4<f32>,
            t: Timestep,
            _: &Conditioning,
            mut out: ArrayViewMut4<f32>,
        ) -> Result<()> {
            self.asked.push(t);
            let answer = Prediction::X0.to(self.prediction, self.schedule.alphas_cumprod()[t.0]);
            let channels = x.dim().1;
            let out = out.slice_mut(s![.., ..channels, .., ..]);
            answer.apply(x, Array4::zeros(x.raw_dim()).view(), out);
            Ok(())
        }
    }

    #[test]
    fn a_walk_begins_with_the_drawn_picture_and_asks_the_network_afterwards() -> Result<()> {
        let schedule = Schedule::cosine(1000)?;
        let timesteps = Timesteps::new(&schedule, &Spacing::Trailing, 4)?;
        let first = timesteps.as_slice()[0];
        assert!(Informed::fits(&first));
        assert!(!Informed::fits(&timesteps.as_slice()[1]));
        let drawn = prior()?.draw(0, &[0.3, -0.2], 8, 8);
        for prediction in [Prediction::Epsilon, Prediction::V, Prediction::X0] {
            for variance in [Variance::FixedSmall, Variance::LearnedRange] {
                let sampler = Sampler::Ddpm { variance };
                let clipping = Clipping::Clamp { range: 1.0 };
                let walk = Walk::new(&timesteps, prediction, clipping, &sampler)?;
                let mut network = Asked {
                    prediction,
                    schedule: schedule.clone(),
                    prepared: Vec::new(),
                    asked: Vec::new(),
                };
                let mut informed = Informed::new(&mut network, prediction, first, drawn.clone());
                let mut x = noise::start(3, (1, 1, 8, 8));
                let mut estimates = Vec::new();
                let on_step = &mut |step: &Step| {
                    estimates.push(step.x0.to_owned());
                    ControlFlow::Continue(())
                };
                let cond = Conditioning::default();
                walk.run(&mut informed, &mut x, &cond, &mut Seeded(3), 0, on_step)?;
                let later: Vec<Timestep> = timesteps.as_slice()[1..].iter().map(|k| k.t).collect();
                assert_eq!((&network.prepared, &network.asked), (&later, &later));
                // epsilon in f32 is rounded to 2^-22, and the estimate multiplies that by 20291.
                let off = |estimate: &Array4<f32>, expected: &Array4<f32>| {
                    (estimate - expected).fold(0.0f32, |most, off| most.max(off.abs()))
                };
                assert!(off(&estimates[0], &drawn) < 1e-2, "{prediction}");
                assert!(off(&estimates[1], &Array4::zeros(drawn.raw_dim())) < 1e-2);
            }
        }
        Ok(())
    }

    /// The best denoiser of pictures of one shade each, which is a normal number: all that x_t
    /// tells is its mean.
    struct Shades<'a> {
        schedule: &'a Schedule,
        mean: f64,
        deviation: f64,
    }

    impl Denoiser for Shades<'_> {
        fn predict(
            &mut self,
            x: ArrayView4<f32>,
            t: Timestep,
            _: &Conditioning,
            mut out: ArrayViewMut4<f32>,
        ) -> Result<()> {
            let alpha_bar = self.schedule.alphas_cumprod()[t.0];
            let pixels = x.len() as f64;
            let seen = x.fold(0.0, |sum, &x| sum + f64::from(x)) / pixels / alpha_bar.sqrt();
            let precision = pixels * alpha_bar / (1.0 - alpha_bar);
            let own = self.deviation.powi(-2);
            let shade = (own * self.mean + precision * seen) / (own + precision);
            out.fill(shade as f32);
            Ok(())
        }
    }

    /// Shades that 400 walks of few steps end at: their mean and deviation.
    fn shades(prior: Option<&Prior>, mean: f64, deviation: f64) -> Result<(f64, f64)> {
        let schedule = Schedule::cosine(1000)?;
        let timesteps = Timesteps::new(&schedule, &Spacing::Trailing, 10)?;
        let sampler = Sampler::Ddpm {
            variance: Variance::FixedSmall,
        };
        let walk = Walk::new(&timesteps, Prediction::X0, Clipping::None, &sampler)?;
        let ends: Vec<f64> = (0..400)
            .map(|seed| {
                let mut network = Shades {
                    schedule: &schedule,
                    mean,
                    deviation,
                };
                let mut x = noise::start(seed, (1, 1, 64, 64));
                let mut informed;
                let denoiser: &mut dyn Denoiser = match prior {
                    None => &mut network,
                    Some(prior) => {
                        let z = noise::numbers(seed, Stream::Draw(1), 1).to_vec();
                        let x0 = prior.draw(0, &z, 64, 64);
                        let first = timesteps.as_slice()[0];
                        informed = Informed::new(&mut network, Prediction::X0, first, x0);
                        &mut informed
                    }
                };
                let (cond, mut noise) = (Conditioning::default(), Seeded(seed));
                let on_step = &mut |_: &Step| ControlFlow::Continue(());
                walk.run(denoiser, &mut x, &cond, &mut noise, 0, on_step)?;
                Ok(f64::from(x.sum()) / x.len() as f64)
            })
            .collect::<Result<_>>()?;
        let n = ends.len() as f64;
        let found = ends.iter().sum::<f64>() / n;
        let squares = ends.iter().map(|end| (end - found).powi(2)).sum::<f64>();
        Ok((found, (squares / n).sqrt()))
    }

    #[test]
    fn a_short_walk_spreads_as_pictures_do_with_a_prior_and_less_without() -> Result<()> {
        let (mean, deviation) = (-0.6, 0.3);
        let drawn = Prior::new(
            Array4::from_elem((1, 1, 1, 1), mean as f32),
            Array5::from_elem((1, 1, 1, 1, 1), deviation as f32),
        )?;
        // Five standard errors of 400 draws.
        let (mean_off, deviation_off) =
            (5.0 * deviation / 20.0, 5.0 * deviation / f64::sqrt(800.0));
        let with = shades(Some(&drawn), mean, deviation)?;
        assert!((with.0 - mean).abs() < mean_off, "{with:?}");
        assert!((with.1 - deviation).abs() < deviation_off, "{with:?}");
        let without = shades(None, mean, deviation)?;
        assert!(without.1 < 0.7 * with.1, "{without:?} {with:?}");
        Ok(())
    }
}
