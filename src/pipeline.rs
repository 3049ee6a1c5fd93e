//! Recipe → picture: a model, its sampler and a seed, step by step.

use std::ops::ControlFlow;

use ndarray::{Array, Array4, Axis, IntoDimension};

use crate::diffusion::guidance::{self, Guided};
use crate::diffusion::noise::{self, Between, Seeded, Stream};
use crate::diffusion::prior::{Informed, Prior};
use crate::diffusion::sampler::{
    NoiseSource, Sampler, SamplerKind, Step, Variance, VarianceKind, Walk,
};
use crate::diffusion::schedule::Schedule;
use crate::diffusion::timesteps::{KeptStep, Spacing, Timesteps};
use crate::diffusion::{Conditioning, Denoiser, forward};
use crate::engine::UNet;
use crate::error::{Error, Result};
use crate::model::package::sha256_hex;
use crate::model::{Manifest, Package, Precision};
use crate::picture::Picture;

pub mod check;
pub mod recipe;

pub use recipe::{Changes, Recipe};

/// Called after every step of a walk; `Break` stops it.
pub type OnStep<'a> = &'a mut dyn FnMut(&Step) -> ControlFlow<()>;

/// A loaded model that paints recipes.
pub struct Painter {
    manifest: Manifest,
    precision: Precision,
    sha256: String,
    schedule: Schedule,
    prior: Option<Prior>,
    unet: UNet,
}

impl Painter {
    /// Loads the network of `package` in `precision`, or in the package's own default.
    ///
    /// # Errors
    ///
    /// When the package has no such file, its bytes are not the manifest's, or the engine cannot
    /// run it.
    pub fn open(package: Package, precision: Option<Precision>, threads: usize) -> Result<Self> {
        let manifest = package.manifest().clone();
        let precision = precision.unwrap_or(manifest.defaults.precision);
        Ok(Self {
            unet: UNet::open(&package, precision, threads)?,
            schedule: manifest.schedule()?,
            prior: package.prior()?,
            sha256: manifest.file(precision)?.sha256.clone(),
            precision,
            manifest,
        })
    }

    /// What the package says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The precision that was loaded.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The network.
    pub fn unet(&mut self) -> &mut UNet {
        &mut self.unet
    }

    /// The model's own way to paint `seed`; a conditional model's class is drawn from the seed.
    pub fn recipe(&self, seed: u64) -> Recipe {
        let defaults = &self.manifest.defaults;
        let class = self.manifest.classes.as_ref().map(|classes| {
            let draw = u64::from(noise::word(seed, Stream::Draw(0), 0));
            classes.names[(draw % classes.names.len() as u64) as usize].clone()
        });
        let recipe = Recipe {
            version: env!("CARGO_PKG_VERSION").into(),
            noise: recipe::noise_format(),
            model: self.manifest.name.clone(),
            sha256: self.sha256.clone(),
            precision: self.precision,
            seed,
            steps: defaults.steps,
            sampler: defaults.sampler,
            spacing: defaults.spacing.clone(),
            variance: defaults.variance,
            variance_table: None,
            class,
            guidance: defaults.guidance,
            prior: self.manifest.prior.as_ref().map(|file| file.sha256.clone()),
            morph: None,
            init: None,
        };
        self.changed(&recipe, &Changes::default())
    }

    /// `recipe` with what `changes` asks for.
    ///
    /// An analytic variance is measured for certain steps. Where other ones are asked for, the
    /// recipe takes the package's table for them, and where there is none, the fixed-small
    /// variance; whoever asks for the analytic one by name is not given another.
    pub fn changed(&self, recipe: &Recipe, changes: &Changes) -> Recipe {
        let spacing = changes.spacing.as_ref();
        let counted = spacing.and_then(Spacing::steps).unwrap_or(recipe.steps);
        let mut changed = Recipe {
            steps: changes.steps.unwrap_or(counted),
            spacing: spacing.unwrap_or(&recipe.spacing).clone(),
            sampler: changes.sampler.unwrap_or(recipe.sampler),
            variance: changes.variance.unwrap_or(recipe.variance),
            guidance: changes.guidance.unwrap_or(recipe.guidance),
            ..recipe.clone()
        };
        if changes.no_prior {
            changed.prior = None;
        }
        let other_steps = (changed.steps, &changed.spacing) != (recipe.steps, &recipe.spacing);
        let table = self
            .manifest
            .variance_table(changed.steps, &changed.spacing);
        if other_steps {
            changed.variance_table = None;
            if changes.variance.is_none()
                && changed.variance == VarianceKind::Analytic
                && table.is_none()
            {
                changed.variance = VarianceKind::FixedSmall;
            }
        }
        let tabled =
            (changed.sampler, changed.variance) == (SamplerKind::Ddpm, VarianceKind::Analytic);
        let own = changed.variance_table.take();
        changed.variance_table = own.or(table.cloned()).filter(|_| tabled);
        changed
    }

    /// The kept steps of `recipe`, and the walk over them.
    ///
    /// # Errors
    ///
    /// When the spacing cannot keep that many steps, or the model has no analytic variance for
    /// them, or no learned variance.
    pub fn walk(&self, recipe: &Recipe) -> Result<(Timesteps, Walk)> {
        let timesteps = Timesteps::new(&self.schedule, &recipe.spacing, recipe.steps)?;
        let sampler = match recipe.sampler {
            SamplerKind::Ddpm => Sampler::Ddpm {
                variance: self.variance(recipe)?,
            },
            SamplerKind::Ddim => Sampler::Ddim { eta: 0.0 },
            SamplerKind::Dpmpp2m => Sampler::Dpmpp2m,
        };
        let diffusion = &self.manifest.diffusion;
        let clipping = self.manifest.clipping();
        let walk = Walk::new(&timesteps, diffusion.prediction, clipping, &sampler)?;
        Ok((timesteps, walk))
    }

    /// Paints `recipe`; `init` is the picture that a recipe with `init` starts from.
    ///
    /// # Errors
    ///
    /// When the recipe is for another network, asks for what the model does not have, or needs a
    /// picture that is not given; [`Error::Stopped`] when `on_step` breaks.
    pub fn paint(
        &mut self,
        recipe: &Recipe,
        init: Option<&Picture>,
        on_step: OnStep,
    ) -> Result<Picture> {
        self.check(recipe)?;
        let (timesteps, walk) = self.walk(recipe)?;
        let (mut x, from) = self.start(recipe, init, &timesteps)?;
        let class = recipe
            .class
            .as_deref()
            .map(|name| self.manifest.class_index(name))
            .transpose()?;
        let cond = Conditioning { class };
        let first = timesteps.as_slice()[from];
        let drawn = self.drawn(recipe, class, &first);
        // For no class both answers would be the same.
        let null = self
            .guiding_class(recipe)?
            .filter(|null| class != Some(*null));
        let mut seeded = Seeded(recipe.seed);
        let mut between = between(recipe);
        let noise: &mut dyn NoiseSource = match &mut between {
            None => &mut seeded,
            Some(between) => between,
        };
        let mut guided;
        let denoiser: &mut dyn Denoiser = match null {
            None => &mut self.unet,
            Some(null) => {
                guided = Guided::new(&mut self.unet, recipe.guidance, null);
                &mut guided
            }
        };
        let mut informed;
        let denoiser: &mut dyn Denoiser = match drawn {
            None => denoiser,
            Some(x0) => {
                let prediction = self.manifest.diffusion.prediction;
                informed = Informed::new(denoiser, prediction, first, x0);
                &mut informed
            }
        };
        walk.run(denoiser, &mut x, &cond, noise, from, on_step)?;
        Ok(Picture::from_tensor(x.index_axis(Axis(0), 0)))
    }

    /// Whether `recipe` can be painted with the network that is loaded.
    ///
    /// # Errors
    ///
    /// When the recipe is for another network or another generator, or its class is missing.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        let place = |key: &str| format!("recipe: {key}");
        if recipe.model != self.manifest.name {
            return Err(Error::unexpected(
                place("model"),
                &self.manifest.name,
                &recipe.model,
            ));
        }
        if recipe.sha256 != self.sha256 {
            let expected = format!("the loaded network, {}", self.sha256);
            return Err(Error::unexpected(place("sha256"), expected, &recipe.sha256));
        }
        let prior = self.manifest.prior.as_ref().map(|file| &file.sha256);
        if let Some(found) = recipe.prior.as_ref().filter(|found| prior != Some(*found)) {
            let expected = prior.map_or("none".into(), |sha256| format!("the package's, {sha256}"));
            return Err(Error::unexpected(place("prior"), expected, found));
        }
        let noise = recipe::noise_format();
        if recipe.noise != noise {
            return Err(Error::unexpected(place("noise"), noise, &recipe.noise));
        }
        if let Some(morph) = recipe
            .morph
            .filter(|morph| !(0.0..=1.0).contains(&morph.position))
        {
            return Err(Error::unexpected(
                place("morph"),
                "a position in 0 to 1",
                morph.position,
            ));
        }
        match (&recipe.class, &self.manifest.classes) {
            (None, Some(classes)) => {
                let expected = format!("one of {}", classes.names.join(", "));
                Err(Error::unexpected(place("class"), expected, "none"))
            }
            _ => Ok(()),
        }
    }

    /// The null class, where `recipe` asks for guidance.
    fn guiding_class(&self, recipe: &Recipe) -> Result<Option<usize>> {
        guidance::check(recipe.guidance, "recipe: guidance")?;
        if recipe.guidance == guidance::NONE {
            return Ok(None);
        }
        let null = self.manifest.null_class().ok_or_else(|| {
            let place = format!("model {}: guidance", self.manifest.name);
            let expected = "1, since the network knows no null class";
            Error::unexpected(place, expected, recipe.guidance)
        });
        null.map(Some)
    }

    fn variance(&self, recipe: &Recipe) -> Result<Variance> {
        let place = || format!("model {}: variance", self.manifest.name);
        match recipe.variance {
            VarianceKind::FixedSmall => Ok(Variance::FixedSmall),
            VarianceKind::FixedLarge => Ok(Variance::FixedLarge),
            VarianceKind::LearnedRange => {
                let found = self.unet.output_channels();
                let expected = 2 * self.manifest.image.channels;
                if found == expected {
                    return Ok(Variance::LearnedRange);
                }
                let expected = format!("a network with {expected} output channels");
                Err(Error::unexpected(place(), expected, found))
            }
            VarianceKind::Analytic => {
                let own = recipe.variance_table.as_ref();
                let table = own.or(self.manifest.variance_table(recipe.steps, &recipe.spacing));
                table.cloned().map(Variance::Table).ok_or_else(|| {
                    let steps = self.manifest.variance_steps();
                    let steps: Vec<String> = steps.iter().map(usize::to_string).collect();
                    let expected = format!("linspace with a table's steps ({})", steps.join(", "));
                    let found = format!("{} with {}", recipe.spacing, recipe.steps);
                    Error::unexpected(place(), expected, found)
                })
            }
        }
    }

    /// The x_0 of the step `first`, `[1, c, h, w]`, where `recipe` draws it from the prior and
    /// nothing can be seen of it at that step.
    fn drawn(
        &self,
        recipe: &Recipe,
        class: Option<usize>,
        first: &KeptStep,
    ) -> Option<Array4<f32>> {
        let asked = recipe.prior.is_some() && Informed::fits(first);
        let prior = self.prior.as_ref().filter(|_| asked)?;
        let z = numbers(recipe, Stream::Draw(1), prior.factors());
        let image = self.manifest.image;
        Some(prior.draw(class.unwrap_or(0), &z.to_vec(), image.height, image.width))
    }

    /// What the walk starts from, `[1, c, h, w]`, and at which kept step.
    fn start(
        &self,
        recipe: &Recipe,
        init: Option<&Picture>,
        timesteps: &Timesteps,
    ) -> Result<(Array4<f32>, usize)> {
        let image = self.manifest.image;
        let shape = (1, image.channels, image.height, image.width);
        let noise = numbers(recipe, Stream::Start, shape);
        match (&recipe.init, init) {
            (None, _) => {
                check_first(recipe, timesteps)?;
                Ok((noise, 0))
            }
            (Some(_), None) => Err(Error::unexpected(
                "recipe: init",
                "the picture it starts from",
                "none",
            )),
            (Some(wanted), Some(picture)) => {
                let found = picture_sha256(picture);
                if found != wanted.sha256 {
                    let expected = format!("the picture {}", wanted.sha256);
                    return Err(Error::unexpected("recipe: init", expected, found));
                }
                let from = first_step(timesteps.as_slice().len(), wanted.strength)?;
                let picture = picture.fitted(image.width, image.height);
                let mut x = picture.to_tensor(image.channels).insert_axis(Axis(0));
                let kept = timesteps.as_slice()[from];
                forward::jump(x.view_mut(), kept.alpha_cumprod, noise.view());
                Ok((x, from))
            }
        }
    }
}

/// A walk that starts from pure noise must start where the network knows pure noise: at a first
/// step that leaves most of the picture, such as the t = 0 of a single linspace step, it would
/// only return the noise.
fn check_first(recipe: &Recipe, timesteps: &Timesteps) -> Result<()> {
    let first = timesteps.as_slice()[0];
    if first.alpha_cumprod <= 0.5 {
        return Ok(());
    }
    let place = format!("{} with {} steps", recipe.spacing, recipe.steps);
    let expected = "a first step that is mostly noise (try trailing, or more steps)";
    Err(Error::unexpected(
        place,
        expected,
        format!("t = {}", first.t.0),
    ))
}

/// The numbers of a stream of a recipe's noise, in `shape`.
fn numbers<S: IntoDimension + Copy>(
    recipe: &Recipe,
    stream: Stream,
    shape: S,
) -> Array<f32, S::Dim> {
    match between(recipe) {
        None => noise::numbers(recipe.seed, stream, shape),
        Some(between) => between.numbers(stream, shape),
    }
}

/// The noise of a recipe with a morph.
fn between(recipe: &Recipe) -> Option<Between> {
    let morph = recipe.morph.as_ref()?;
    Some(Between {
        from: recipe.seed,
        to: morph.seed,
        position: morph.position,
    })
}

/// The kept step to start at: the last `strength` part of `count` steps is walked, at least one.
fn first_step(count: usize, strength: f64) -> Result<usize> {
    if !(strength > 0.0 && strength <= 1.0) {
        return Err(Error::unexpected(
            "strength",
            "above 0, at most 1",
            strength,
        ));
    }
    let walked = ((count as f64 * strength).round() as usize).clamp(1, count);
    Ok(count - walked)
}

/// What a recipe remembers of the picture it starts from: the hash of its size and pixels.
pub fn picture_sha256(picture: &Picture) -> String {
    let size = [picture.width_px() as u64, picture.height_px() as u64];
    let mut bytes: Vec<u8> = size.iter().flat_map(|side| side.to_le_bytes()).collect();
    bytes.extend_from_slice(picture.rgb());
    sha256_hex(&bytes)
}
