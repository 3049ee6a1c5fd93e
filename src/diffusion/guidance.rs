//! Classifier-free guidance: a picture that is made more like its class.
//!
//! Ho & Salimans 2022 (arXiv 2207.12598), with the weight as it is usually written since Imagen:
//! 1 is the network as it is, 0 asks it for no class, above 1 exaggerates the class. The answers
//! are combined, so it is the same for every prediction: at one x_t, epsilon, v and x0 are linear
//! in one another.

use ndarray::{Array4, ArrayView4, ArrayViewMut4, Axis, Zip};

use super::{Conditioning, Denoiser, Timestep};
use crate::error::{Error, Result};

/// The weight that guides nowhere: the network as it is.
pub const NONE: f64 = 1.0;

/// The largest weight.
const MAX_WEIGHT: f64 = 20.0;

/// Whether `weight` can be one; `place` is for the error.
///
/// # Errors
///
/// When it is not a number in 0 to 20.
pub fn check(weight: f64, place: &str) -> Result<()> {
    if (0.0..=MAX_WEIGHT).contains(&weight) {
        return Ok(());
    }
    let expected = format!("a number in 0 to {MAX_WEIGHT}");
    Err(Error::unexpected(place, expected, weight))
}

/// [`NONE`], for files that say nothing.
pub(crate) fn none() -> f64 {
    NONE
}

/// Whether a file need not say it.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
pub(crate) fn is_none(weight: &f64) -> bool {
    *weight == NONE
}

/// A network that is asked twice at every step: for the class, and for none.
pub struct Guided<'a> {
    denoiser: &'a mut dyn Denoiser,
    weight: f64,
    null: Conditioning,
    /// The answer for no class, like x.
    unconditional: Array4<f32>,
}

impl<'a> Guided<'a> {
    /// Guides `denoiser` with `weight`; `null` is the class that stands for none.
    pub fn new(denoiser: &'a mut dyn Denoiser, weight: f64, null: usize) -> Self {
        Self {
            denoiser,
            weight,
            null: Conditioning { class: Some(null) },
            unconditional: Array4::zeros((0, 0, 0, 0)),
        }
    }
}

impl Denoiser for Guided<'_> {
    fn prepare(&mut self, timesteps: &[Timestep], cond: &Conditioning) -> Result<()> {
        self.denoiser.prepare(timesteps, cond)?;
        self.denoiser.prepare(timesteps, &self.null)
    }

    /// out = null + weight (class - null). A learned variance stays the class's own.
    fn predict(
        &mut self,
        x: ArrayView4<f32>,
        t: Timestep,
        cond: &Conditioning,
        mut out: ArrayViewMut4<f32>,
    ) -> Result<()> {
        if self.unconditional.dim() != x.dim() {
            self.unconditional = Array4::zeros(x.raw_dim());
        }
        self.denoiser
            .predict(x, t, &self.null, self.unconditional.view_mut())?;
        self.denoiser.predict(x, t, cond, out.view_mut())?;
        let channels = x.len_of(Axis(1));
        let answer = out.slice_axis_mut(Axis(1), (0..channels).into());
        let terms = Zip::from(answer).and(&self.unconditional);
        terms.for_each(|out, &null| {
            let (class, null) = (f64::from(*out), f64::from(null));
            *out = (null + self.weight * (class - null)) as f32;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with the class's number in the first half of its channels and 9 in the second, and
    /// remembers what it was prepared for.
    #[derive(Default)]
    struct Classes {
        prepared: Vec<(usize, usize)>,
    }

    impl Denoiser for Classes {
        fn prepare(&mut self, timesteps: &[Timestep], cond: &Conditioning) -> Result<()> {
            let class = cond.class.unwrap();
            self.prepared.extend(timesteps.iter().map(|t| (t.0, class)));
            Ok(())
        }

        fn predict(
            &mut self,
            x: ArrayView4<f32>,
            _: Timestep,
            cond: &Conditioning,
            mut out: ArrayViewMut4<f32>,
        ) -> Result<()> {
            out.fill(9.0);
            let channels = x.len_of(Axis(1));
            let mut answer = out.slice_axis_mut(Axis(1), (0..channels).into());
            answer.fill(cond.class.unwrap() as f32);
            Ok(())
        }
    }

    #[test]
    fn the_answer_is_on_the_line_through_no_class_and_the_class() {
        let x = Array4::zeros((2, 1, 2, 2));
        let cond = Conditioning { class: Some(3) };
        for (weight, expected) in [(0.0, 8.0), (1.0, 3.0), (2.0, -2.0), (0.5, 5.5)] {
            let mut classes = Classes::default();
            let mut guided = Guided::new(&mut classes, weight, 8);
            let mut out = Array4::zeros((2, 2, 2, 2));
            let t = Timestep(4);
            guided.prepare(&[t], &cond).unwrap();
            guided.predict(x.view(), t, &cond, out.view_mut()).unwrap();
            let (answer, variance) = out.view().split_at(Axis(1), 1);
            assert!(answer.iter().all(|&value| value == expected), "{answer:?}");
            assert!(variance.iter().all(|&value| value == 9.0), "{variance:?}");
            assert_eq!(classes.prepared, [(4, 3), (4, 8)]);
        }
    }
}
