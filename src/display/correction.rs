//! The correction of a panel's colours: saturation, contrast, gamma and the rest.
//!
//! In this order: saturation, contrast, brightness, gamma, gain. A [`Correction`] is a 3x3 matrix,
//! where saturation asks for one, and a table of 256 entries for each channel. One that changes
//! nothing costs nothing.

use serde::{Deserialize, Serialize};

use super::frame::Frame;
use crate::error::{Error, Result};

/// What a panel file or the owner says in `[correction]`; what neither says changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Facts {
    /// The panel's own gamma, as the test card's patch shows it; 2.2, for which pictures are made,
    /// by default. 1 to 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// The light left of red, green and blue, to mend a tint of white; 1 by default. 0 to 2 each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<[f64; 3]>,
    /// Added to every value, in parts of white; 0 by default. -1 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brightness: Option<f64>,
    /// Distances from middle grey are multiplied by it; 1 by default. 0 to 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<f64>,
    /// Distances from a pixel's own grey are multiplied by it; 1 by default, 0 is grey. 0 to 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturation: Option<f64>,
}

/// The gamma that pictures are made for.
const PICTURE_GAMMA: f64 = 2.2;

impl Facts {
    /// These, and what they leave open from `others`.
    pub fn or(self, others: Self) -> Self {
        Self {
            gamma: self.gamma.or(others.gamma),
            gain: self.gain.or(others.gain),
            brightness: self.brightness.or(others.brightness),
            contrast: self.contrast.or(others.contrast),
            saturation: self.saturation.or(others.saturation),
        }
    }
}

/// Corrects frames for a panel.
///
/// # Example
///
/// ```
/// use driftglass::display::{Frame, correction::{Correction, Facts}};
///
/// let facts: Facts = toml::from_str("gain = [1.0, 0.5, 1.0]")?;
/// let mut frame = Frame::new(1, 1);
/// frame.rgb_mut().copy_from_slice(&[10, 100, 200]);
/// Correction::new(facts)?.apply(&mut frame);
/// assert_eq!(frame.pixel(0, 0), [10, 50, 200]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Correction {
    matrix: Option<Matrix>,
    tables: Option<Box<[[u8; 256]; 3]>>,
}

/// Rows of the new R, G and B from the old ones, in units of 1/4096.
type Matrix = [[i32; 3]; 3];

/// What one is stored as in a [`Matrix`].
const ONE: i32 = 4096;

impl Correction {
    /// The correction that the facts ask for.
    ///
    /// # Errors
    ///
    /// When a value is outside its range; the place is "correction.gamma" and so on.
    pub fn new(facts: Facts) -> Result<Self> {
        let within = |name, value: Option<f64>, default, low: f64, high: f64| {
            let value = value.unwrap_or(default);
            if (low..=high).contains(&value) {
                return Ok(value);
            }
            let expected = format!("a number from {low} to {high}");
            Err(Error::unexpected(
                format!("correction.{name}"),
                expected,
                value,
            ))
        };
        let gamma = within("gamma", facts.gamma, PICTURE_GAMMA, 1.0, 4.0)?;
        let brightness = within("brightness", facts.brightness, 0.0, -1.0, 1.0)?;
        let contrast = within("contrast", facts.contrast, 1.0, 0.0, 4.0)?;
        let saturation = within("saturation", facts.saturation, 1.0, 0.0, 4.0)?;
        let mut tables = Box::new([[0; 256]; 3]);
        for (channel, table) in tables.iter_mut().enumerate() {
            let gain = facts.gain.map(|gain| gain[channel]);
            let gain = within("gain", gain, 1.0, 0.0, 2.0)?;
            *table = std::array::from_fn(|value| {
                let value = value as f64 / 255.0;
                let value = (value - 0.5) * contrast + 0.5 + brightness;
                let value = gain * value.clamp(0.0, 1.0).powf(PICTURE_GAMMA / gamma);
                (255.0 * value).round() as u8
            });
        }
        let changes = tables.iter().any(|table| {
            let mut values = table.iter().enumerate();
            values.any(|(value, &new)| value != usize::from(new))
        });
        Ok(Self {
            matrix: (saturation != 1.0).then(|| saturated(saturation)),
            tables: changes.then_some(tables),
        })
    }

    /// Whether it changes nothing.
    pub fn is_identity(&self) -> bool {
        self.matrix.is_none() && self.tables.is_none()
    }

    /// Corrects every pixel.
    pub fn apply(&self, frame: &mut Frame) {
        let (pixels, _) = frame.rgb_mut().as_chunks_mut::<3>();
        if let Some(matrix) = &self.matrix {
            for pixel in pixels.iter_mut() {
                let old = pixel.map(i32::from);
                *pixel = matrix.map(|row| {
                    let sum: i32 = row.iter().zip(old).map(|(weight, old)| weight * old).sum();
                    ((sum + ONE / 2) >> 12).clamp(0, 255) as u8
                });
            }
        }
        if let Some(tables) = &self.tables {
            let [red, green, blue] = &**tables;
            for [r, g, b] in pixels {
                *r = red[usize::from(*r)];
                *g = green[usize::from(*g)];
                *b = blue[usize::from(*b)];
            }
        }
    }
}

/// The matrix that moves colours away from their grey, whose parts are those of Rec. 709.
fn saturated(saturation: f64) -> Matrix {
    let grey = [0.2126, 0.7152, 0.0722];
    std::array::from_fn(|row| {
        let mut weights =
            grey.map(|part| ((1.0 - saturation) * part * f64::from(ONE)).round() as i32);
        // Rows add up to exactly one: greys stay as they are.
        weights[row] += ONE - weights.iter().sum::<i32>();
        weights
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrected(facts: Facts, pixel: [u8; 3]) -> [u8; 3] {
        let mut frame = Frame::new(1, 1);
        frame.rgb_mut().copy_from_slice(&pixel);
        Correction::new(facts).unwrap().apply(&mut frame);
        frame.pixel(0, 0)
    }

    fn parsed(text: &str) -> Facts {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        let said = "gamma = 2.2\ngain = [1, 1, 1]\nbrightness = 0\ncontrast = 1\nsaturation = 1";
        for facts in [Facts::default(), parsed(said)] {
            assert!(Correction::new(facts).unwrap().is_identity(), "{facts:?}");
        }
        let facts = parsed("gamma = 1.8");
        assert!(!Correction::new(facts).unwrap().is_identity());
    }

    #[test]
    fn each_key_does_what_it_says() {
        let cases = [
            // 255 (100/255)^(2.2/1.8): a panel of gamma 1.8 is too bright in the middle.
            ("gamma = 1.8", [0, 100, 255], [0, 81, 255]),
            ("gamma = 2.6", [0, 100, 255], [0, 115, 255]),
            ("gain = [0.5, 1.0, 0.9]", [200, 200, 200], [100, 200, 180]),
            ("gain = [2.0, 1.0, 1.0]", [200, 9, 9], [255, 9, 9]),
            ("brightness = 0.2", [0, 100, 250], [51, 151, 255]),
            ("contrast = 2.0", [0, 100, 200], [0, 73, 255]),
            ("contrast = 0.0", [0, 100, 200], [128, 128, 128]),
            ("saturation = 0.0", [255, 0, 0], [54, 54, 54]),
            ("saturation = 2.0", [100, 100, 100], [100, 100, 100]),
            ("saturation = 2.0", [120, 100, 90], [136, 96, 76]),
        ];
        for (text, pixel, expected) in cases {
            assert_eq!(corrected(parsed(text), pixel), expected, "{text}");
        }
    }

    #[test]
    fn greys_stay_grey_at_any_saturation() {
        for step in 0..=40 {
            let saturation = Some(f64::from(step) / 10.0);
            let facts = Facts {
                saturation,
                ..Facts::default()
            };
            for value in 0..=255 {
                assert_eq!(corrected(facts, [value; 3]), [value; 3], "{facts:?}");
            }
        }
    }

    #[test]
    fn the_owner_comes_before_the_panel() {
        let owner = parsed("gamma = 2.4");
        let panel = parsed("gamma = 1.8\ncontrast = 1.1");
        assert_eq!(owner.or(panel), parsed("gamma = 2.4\ncontrast = 1.1"));
    }

    #[test]
    fn values_out_of_range_and_unknown_keys_are_refused() {
        let cases = [
            (
                "gamma = 0.5",
                "correction.gamma: expected a number from 1 to 4, found 0.5",
            ),
            (
                "gamma = nan",
                "correction.gamma: expected a number from 1 to 4, found NaN",
            ),
            (
                "gain = [1.0, 2.5, 1.0]",
                "correction.gain: expected a number from 0 to 2, found 2.5",
            ),
            (
                "brightness = -2",
                "correction.brightness: expected a number from -1 to 1, found -2",
            ),
        ];
        for (text, sentence) in cases {
            let error = Correction::new(parsed(text)).unwrap_err();
            assert_eq!(error.to_string(), sentence);
        }
        let error = toml::from_str::<Facts>("gama = 2").unwrap_err();
        assert!(error.to_string().contains("gama"), "{error}");
    }
}
