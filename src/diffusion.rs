//! The mathematics of denoising diffusion: no files, no clock, no threads.
//!
//! Read in this order: a [`schedule`] says how much noise each of the T training steps adds,
//! [`timesteps`] keeps a few of them, [`forward`] destroys a picture, [`prediction`] reads the
//! network's answer, [`sampler`] walks back from noise to a picture, [`prior`] is its first step,
//! [`guidance`] makes it more like its class, [`noise`] is where the randomness comes from, and
//! [`elbo`] is the bound that training rests on.

use ndarray::{ArrayView4, ArrayViewMut4};

use crate::error::Result;

pub mod elbo;
pub mod forward;
pub mod guidance;
pub mod noise;
pub mod prediction;
pub mod prior;
pub mod sampler;
pub mod schedule;
pub mod timesteps;

/// A training step `t`, in `0..T`. Zero is the step closest to the clean picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestep(pub usize);

/// What the network is told beside the noisy picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conditioning {
    /// The class of every picture in the batch; `None` for an unconditional network.
    pub class: Option<usize>,
}

/// ε_θ(x_t, t): what the U-Net estimates.
///
/// The mathematics own this trait and the engine implements it, so that every sampler can be
/// tested on a denoiser that is known in closed form.
pub trait Denoiser {
    /// Gets ready for a walk over `timesteps`: computes what depends on them and on `cond` alone.
    ///
    /// # Errors
    ///
    /// When the network cannot be evaluated.
    fn prepare(&mut self, timesteps: &[Timestep], cond: &Conditioning) -> Result<()> {
        let _ = (timesteps, cond);
        Ok(())
    }

    /// Writes the network's answer for `x` into `out`.
    ///
    /// - `x`: `[n, c, h, w]`, the noisy pictures x_t, about [-1, 1] plus noise.
    /// - `out`: `[n, c, h, w]`, or `[n, 2c, h, w]` where the caller wants the learned variance
    ///   too: the second half is then the `v` of [`sampler::Variance::LearnedRange`]. A network
    ///   with 2c channels that is asked for c of them writes its first half.
    ///
    /// # Errors
    ///
    /// When the network cannot be evaluated.
    fn predict(
        &mut self,
        x: ArrayView4<f32>,
        t: Timestep,
        cond: &Conditioning,
        out: ArrayViewMut4<f32>,
    ) -> Result<()>;
}
