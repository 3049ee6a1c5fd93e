//! `reference.npz`: a short trajectory that the trainer's own framework walked.

use ndarray::{Array4, Array5, ArrayViewMut4, Axis};

use super::manifest::Manifest;
use crate::diffusion::Timestep;
use crate::diffusion::sampler::NoiseSource;
use crate::error::{Error, Result};
use crate::npz::Archive;

/// The largest archive, in bytes, once it is unpacked.
const MAX_UNPACKED_BYTES: usize = 1 << 28;

/// What PyTorch computed for the shipped weights. `n` kept steps, t descending.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Starting noise x_T, `[1, c, h, w]`.
    pub start: Array4<f32>,
    /// The kept steps.
    pub timesteps: Vec<Timestep>,
    /// Noise injected after every kept step, `[n, 1, c, h, w]`.
    pub noise: Array5<f32>,
    /// The network's answers, `[n, 1, c, h, w]`; `2c` channels with learned variance.
    pub outputs: Array5<f32>,
    /// The finished picture x0, `[1, c, h, w]`, in [-1, 1].
    pub finished: Array4<f32>,
    /// The class that was asked for.
    pub class: Option<usize>,
}

impl Reference {
    /// Reads the archive in `bytes`, whose arrays must fit `manifest`.
    ///
    /// # Errors
    ///
    /// When the bytes are no archive, an array is missing or has another shape, or the timesteps
    /// do not descend within the schedule.
    pub fn read(place: &str, bytes: &[u8], manifest: &Manifest) -> Result<Self> {
        let archive = Archive::read(place, bytes, MAX_UNPACKED_BYTES)?;
        let image = manifest.image;
        let one = [1, image.channels, image.height, image.width];
        let timesteps = archive.require("timesteps")?;
        let timesteps = archive.require_i64("timesteps", &[timesteps.len()])?;
        let timesteps = descending(place, timesteps.iter().copied(), manifest)?;
        let n = timesteps.len();
        let channels = archive.require("epsilon")?.shape().get(2).copied();
        let doubled = channels.filter(|&found| found == 2 * image.channels);
        let answer = [
            n,
            1,
            doubled.unwrap_or(image.channels),
            image.height,
            image.width,
        ];
        let walk = [n, 1, image.channels, image.height, image.width];
        let class = match manifest.classes.as_ref() {
            None => None,
            Some(classes) => {
                let class = archive.require_i64("class", &[1])?[0];
                let index = usize::try_from(class)
                    .ok()
                    .filter(|&index| index < classes.count());
                Some(index.ok_or_else(|| {
                    let expected = format!("0 to {}", classes.count() - 1);
                    Error::unexpected(format!("{place}: class"), expected, class)
                })?)
            }
        };
        Ok(Self {
            start: archive.require_finite("start", one)?,
            timesteps,
            noise: archive.require_finite("noise", walk)?,
            outputs: archive.require_finite("epsilon", answer)?,
            finished: archive.require_finite("final", one)?,
            class,
        })
    }

    /// The recorded noise, for a walk that repeats this one.
    pub fn recorded_noise(&self) -> RecordedNoise<'_> {
        RecordedNoise(&self.noise)
    }
}

/// Injects the noise that a [`Reference`] recorded.
#[derive(Debug, Clone, Copy)]
pub struct RecordedNoise<'a>(&'a Array5<f32>);

impl NoiseSource for RecordedNoise<'_> {
    fn fill(&mut self, index: usize, mut out: ArrayViewMut4<f32>) {
        out.assign(&self.0.index_axis(Axis(0), index));
    }
}

fn descending(
    place: &str,
    values: impl Iterator<Item = i64>,
    manifest: &Manifest,
) -> Result<Vec<Timestep>> {
    let count = manifest.diffusion.train_timesteps;
    let values: Vec<i64> = values.collect();
    let in_range = values.iter().all(|&t| (0..count as i64).contains(&t));
    let falls = values.windows(2).all(|pair| pair[1] < pair[0]);
    if in_range && falls && !values.is_empty() {
        return Ok(values.into_iter().map(|t| Timestep(t as usize)).collect());
    }
    let expected = format!("descending steps below {count}");
    Err(Error::unexpected(
        format!("{place}: timesteps"),
        expected,
        format!("{values:?}"),
    ))
}
