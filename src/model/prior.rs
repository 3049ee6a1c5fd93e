//! `prior.npz`: the Gaussian of thumbnails that a walk's first step draws from.

use super::manifest::Manifest;
use crate::diffusion::prior::Prior;
use crate::error::{Error, Result};
use crate::npz::Archive;

/// The largest archive, in bytes, once it is unpacked.
const MAX_UNPACKED_BYTES: usize = 1 << 24;

/// Reads the archive in `bytes`, whose arrays must fit `manifest`: `mean`, float32
/// `[classes, c, rows, columns]`, and `factors`, float32 `[classes, factors, c, rows, columns]`,
/// one class for each index that the network knows.
///
/// # Errors
///
/// When the bytes are no archive, an array is missing, has another shape, or holds what is no
/// number.
pub(super) fn read(place: &str, bytes: &[u8], manifest: &Manifest) -> Result<Prior> {
    let archive = Archive::read(place, bytes, MAX_UNPACKED_BYTES)?;
    let classes = manifest.classes.as_ref().map_or(1, |known| known.count());
    let size = |name: &str, axis: usize| -> Result<usize> {
        Ok(archive
            .require(name)?
            .shape()
            .get(axis)
            .copied()
            .unwrap_or(0))
    };
    let (c, rows, columns) = (manifest.image.channels, size("mean", 2)?, size("mean", 3)?);
    let mean = archive.require_finite("mean", (classes, c, rows, columns))?;
    let shape = (classes, size("factors", 1)?, c, rows, columns);
    let factors = archive.require_finite("factors", shape)?;
    Prior::new(mean, factors).map_err(|error| Error::unexpected(place, "a prior", error))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array4, Array5};

    use super::*;
    use crate::npz::{self, Compression};

    const MANIFEST: &str = include_str!("../../models/scenes-32/model.toml");

    /// What is said of an archive with these arrays, for a model of eight classes and none.
    fn said(arrays: Vec<(&str, npz::Array)>) -> String {
        let mut archive = Archive::default();
        for (name, array) in arrays {
            archive.insert(name, array);
        }
        let manifest = Manifest::parse(MANIFEST, "model.toml").unwrap();
        match read("prior.npz", &archive.write(Compression::Stored), &manifest) {
            Ok(prior) => format!("{} factors", prior.factors()),
            Err(error) => error.to_string(),
        }
    }

    fn mean(classes: usize, c: usize, shade: f32) -> (&'static str, npz::Array) {
        let mean = Array4::from_elem((classes, c, 4, 5), shade);
        ("mean", npz::Array::from_f32(mean.view()))
    }

    fn factors(shape: (usize, usize, usize, usize, usize)) -> (&'static str, npz::Array) {
        ("factors", npz::Array::from_f32(Array5::zeros(shape).view()))
    }

    #[test]
    fn a_prior_has_a_row_for_each_class_and_finite_numbers() {
        let whole = factors((9, 6, 3, 4, 5));
        assert_eq!(said(vec![mean(9, 3, 0.0), whole.clone()]), "6 factors");
        let wrong = [
            (vec![whole.clone()], "expected an array \"mean\""),
            (
                vec![mean(8, 3, 0.0), whole.clone()],
                "expected shape [9, 3, 4, 5]",
            ),
            (
                vec![mean(9, 1, 0.0), whole.clone()],
                "expected shape [9, 3, 4, 5]",
            ),
            (
                vec![mean(9, 3, f32::NAN), whole],
                "prior.npz: mean: expected finite numbers",
            ),
            (
                vec![mean(9, 3, 0.0), factors((9, 6, 3, 4, 4))],
                "expected shape [9, 6, 3, 4, 5]",
            ),
            (
                vec![mean(9, 3, 0.0), factors((9, 0, 3, 4, 5))],
                "prior.npz: expected a prior",
            ),
        ];
        for (arrays, expected) in wrong {
            let found = said(arrays);
            assert!(found.contains(expected), "{found}");
        }
    }
}
