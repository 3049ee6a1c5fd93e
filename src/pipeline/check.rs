//! Whether this machine paints what the trainer saw.

use std::ops::ControlFlow;

use ndarray::{ArrayView4, ArrayViewMut4, Axis};
use serde::Serialize;

use crate::diffusion::noise::Seeded;
use crate::diffusion::sampler::{Sampler, SamplerKind, Step, Variance, VarianceKind, Walk};
use crate::diffusion::timesteps::{Spacing, Timesteps};
use crate::diffusion::{Conditioning, Denoiser, Timestep, elbo as bound};
use crate::engine::UNet;
use crate::error::{Error, Result};
use crate::model::manifest::Defaults;
use crate::model::{Package, Precision, Reference};
use crate::picture::Picture;

/// How far another machine or another engine may be from the manifest's own measurement of the
/// network's error, which it rounds otherwise: a factor and a constant.
const ERROR_SLACK: (f64, f64) = (1.5, 2e-3);

/// How much worse the finished picture may be, in dB, and how good is good enough. A walk carries
/// every difference on: at the first steps of a cosine schedule x0 is ε times ten thousand, and
/// clipping decides pixels by the last bits.
const PSNR_SLACK_DB: (f64, f64) = (15.0, 40.0);

/// A reference trajectory, walked again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// One per kept step, t descending.
    pub steps: Vec<StepError>,
    /// The largest error of the network's answers.
    pub max_error: f64,
    /// What the manifest allows, with some slack.
    pub max_error_allowed: f64,
    /// The largest difference of the finished picture, in [-1, 1] units.
    pub final_max_error: f64,
    /// PSNR of the finished picture in 8 bits, in dB; at most 120, which is "equal".
    pub final_psnr_db: f64,
    /// What the manifest promises, with some slack.
    pub final_psnr_db_allowed: f64,
}

/// The difference of the network's answer at one kept step to the trainer's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepError {
    /// The kept step.
    pub t: usize,
    /// The largest difference.
    pub max_error: f64,
    /// The root of the mean squared difference.
    pub rms_error: f64,
}

/// The variational bound of one picture, in bits per dimension.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Elbo {
    /// How much x_T still says about the picture.
    pub prior: f64,
    /// All denoising steps together.
    pub denoising: f64,
    /// What the last step leaves open.
    pub reconstruction: f64,
    /// The sum.
    pub total: f64,
    /// Kept steps.
    pub steps: usize,
}

impl Replay {
    /// Whether the answers and the picture are as close as the manifest promises.
    pub fn passed(&self) -> bool {
        self.max_error <= self.max_error_allowed && self.final_psnr_db >= self.final_psnr_db_allowed
    }
}

/// Asks the network, notes how far its answer is from the trainer's, and goes on with the
/// trainer's, so that every step is compared at the trainer's own x_t.
struct Compared<'a> {
    unet: &'a mut UNet,
    reference: &'a Reference,
    steps: Vec<StepError>,
}

impl Denoiser for Compared<'_> {
    fn prepare(&mut self, timesteps: &[Timestep], cond: &Conditioning) -> Result<()> {
        self.unet.prepare(timesteps, cond)
    }

    fn predict(
        &mut self,
        x: ArrayView4<f32>,
        t: Timestep,
        cond: &Conditioning,
        mut out: ArrayViewMut4<f32>,
    ) -> Result<()> {
        self.unet.predict(x, t, cond, out.view_mut())?;
        let index = self.steps.len();
        let recorded = self.reference.outputs.index_axis(Axis(0), index);
        // The learned variance, where a reference has it and the walk does not ask for it.
        let channels = out.len_of(Axis(1));
        let recorded = recorded.slice_axis(Axis(1), (0..channels).into());
        let (max_error, rms_error) = difference(out.view(), recorded);
        self.steps.push(StepError {
            t: t.0,
            max_error,
            rms_error,
        });
        out.assign(&recorded);
        Ok(())
    }
}

/// Walks the package's reference trajectory with the network in `precision`: once beside the
/// trainer, to compare every answer, and once alone, to compare the finished picture.
///
/// # Errors
///
/// When a file is not what the manifest says, or the network cannot be run.
pub fn replay(package: &Package, precision: Precision, threads: usize) -> Result<Replay> {
    let manifest = package.manifest();
    let reference = package.reference()?;
    let mut unet = UNet::open(package, precision, threads)?;
    let spacing = Spacing::Explicit(reference.timesteps.iter().map(|t| t.0).collect());
    let timesteps = Timesteps::new(&manifest.schedule()?, &spacing, reference.timesteps.len())?;
    let sampler = replayed_sampler(&manifest.defaults);
    let prediction = manifest.diffusion.prediction;
    let walk = Walk::new(&timesteps, prediction, manifest.clipping(), &sampler)?;
    let cond = Conditioning {
        class: reference.class,
    };
    let from_start = |denoiser: &mut dyn Denoiser| {
        let mut x = reference.start.clone();
        let mut noise = reference.recorded_noise();
        let on_step = &mut |_: &Step| ControlFlow::Continue(());
        walk.run(denoiser, &mut x, &cond, &mut noise, 0, on_step)
            .map(|()| x)
    };
    let mut compared = Compared {
        unet: &mut unet,
        reference: &reference,
        steps: Vec::new(),
    };
    from_start(&mut compared)?;
    let steps = compared.steps;
    let x = from_start(&mut unet)?;

    let promised = manifest.file(precision)?;
    let picture = Picture::from_tensor(x.index_axis(Axis(0), 0));
    let expected = Picture::from_tensor(reference.finished.index_axis(Axis(0), 0));
    Ok(Replay {
        max_error: steps.iter().map(|step| step.max_error).fold(0.0, f64::max),
        max_error_allowed: ERROR_SLACK.0 * promised.max_error + ERROR_SLACK.1,
        final_max_error: difference(x.view(), reference.finished.view()).0,
        final_psnr_db: picture.psnr_db(&expected).min(120.0),
        final_psnr_db_allowed: (promised.final_psnr_db - PSNR_SLACK_DB.0).min(PSNR_SLACK_DB.1),
        steps,
    })
}

/// The variational bound of `picture` under the network in `precision`: over all steps of the
/// schedule, or over `steps` of them at equal distances.
///
/// # Errors
///
/// As [`replay`]; when the network is conditional and `class` is missing or unknown.
pub fn elbo(
    package: &Package,
    precision: Precision,
    threads: usize,
    picture: &Picture,
    class: Option<&str>,
    steps: Option<usize>,
) -> Result<Elbo> {
    let manifest = package.manifest();
    let class = match (&manifest.classes, class) {
        (_, Some(name)) => Some(manifest.class_index(name)?),
        (Some(classes), None) => Some(classes.null.ok_or_else(|| {
            let expected = format!("one of {}", classes.names.join(", "));
            Error::unexpected("class", expected, "none")
        })?),
        (None, None) => None,
    };
    let steps = steps.unwrap_or(manifest.diffusion.train_timesteps);
    let timesteps = Timesteps::new(&manifest.schedule()?, &Spacing::Linspace, steps)?;
    let image = manifest.image;
    let x0 = picture
        .fitted(image.width, image.height)
        .to_tensor(image.channels);
    let reverse = bound::Reverse {
        timesteps: &timesteps,
        prediction: manifest.diffusion.prediction,
        clipping: manifest.clipping(),
        variance: &Variance::FixedSmall,
    };
    let mut unet = UNet::open(package, precision, threads)?;
    let cond = Conditioning { class };
    let x0 = x0.insert_axis(Axis(0));
    let terms = reverse.bound(&mut unet, &x0, &cond, &mut Seeded(0))?;
    Ok(Elbo {
        prior: terms.prior,
        denoising: terms.denoising.iter().sum(),
        reconstruction: terms.reconstruction,
        total: terms.total(),
        steps,
    })
}

/// A reference is walked with the model's own sampler, dpmpp-2m's with ddpm, which asks the network
/// the same; and with its own variance, or where that is a table, which belongs to other steps,
/// with the posterior's.
fn replayed_sampler(defaults: &Defaults) -> Sampler {
    let variance = match defaults.variance {
        VarianceKind::FixedSmall | VarianceKind::Analytic => Variance::FixedSmall,
        VarianceKind::FixedLarge => Variance::FixedLarge,
        VarianceKind::LearnedRange => Variance::LearnedRange,
    };
    match defaults.sampler {
        SamplerKind::Ddim => Sampler::Ddim { eta: 0.0 },
        SamplerKind::Ddpm | SamplerKind::Dpmpp2m => Sampler::Ddpm { variance },
    }
}

/// The largest and the root mean square difference.
fn difference(found: ArrayView4<f32>, expected: ArrayView4<f32>) -> (f64, f64) {
    let differences = found
        .iter()
        .zip(expected)
        .map(|(a, b)| f64::from((a - b).abs()));
    let (max, sum) = differences.fold((0.0_f64, 0.0), |(max, sum), d| (max.max(d), sum + d * d));
    (max, (sum / found.len() as f64).sqrt())
}
