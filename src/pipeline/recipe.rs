//! Everything that decides a picture; it travels in the picture's own text chunk.

use serde::{Deserialize, Serialize};

use crate::diffusion::guidance;
use crate::diffusion::noise;
use crate::diffusion::sampler::{SamplerKind, VarianceKind};
use crate::diffusion::timesteps::Spacing;
use crate::error::{Error, Result};
use crate::model::Precision;
use crate::picture::read_texts;

/// The keyword of the PNG text chunk that holds a recipe, as JSON.
pub const KEYWORD: &str = "driftglass";

/// Two equal recipes paint the same picture, byte for byte on one machine, and within one 8-bit
/// level on another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipe {
    /// The version of driftglass that painted.
    pub version: String,
    /// The generator and the version of its mapping from seed to numbers.
    pub noise: String,
    /// The model's name.
    pub model: String,
    /// SHA-256 of the network's file.
    pub sha256: String,
    /// Which of the model's files it is.
    pub precision: Precision,
    /// The seed of the starting and of the injected noise.
    pub seed: u64,
    /// Kept steps.
    pub steps: usize,
    /// The reverse update.
    pub sampler: SamplerKind,
    /// Which steps are kept.
    pub spacing: Spacing,
    /// The variance of the reverse update, for ddpm.
    pub variance: VarianceKind,
    /// sigma^2 of every kept step, for ddpm with the analytic variance: a package's table may be
    /// measured anew, and a painted picture stays what it is. Without one, the package's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance_table: Option<Vec<f64>>,
    /// The class, by name, of a conditional model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The weight of classifier-free guidance, [`guidance::NONE`] where there is none.
    #[serde(default = "guidance::none", skip_serializing_if = "guidance::is_none")]
    pub guidance: f64,
    /// SHA-256 of the package's prior, where the first step draws from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<String>,
    /// Starting noise between two seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub morph: Option<Morph>,
    /// A picture to start from instead of pure noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
}

/// What is asked for instead of what a recipe says; what is left open stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// Kept steps.
    pub steps: Option<usize>,
    /// The reverse update.
    pub sampler: Option<SamplerKind>,
    /// Which steps are kept; one that counts them itself goes before the recipe's steps.
    pub spacing: Option<Spacing>,
    /// The variance of the reverse update.
    pub variance: Option<VarianceKind>,
    /// The weight of classifier-free guidance.
    pub guidance: Option<f64>,
    /// Whether the first step is asked of the network, though the package has a prior.
    pub no_prior: bool,
}

/// Starting noise on the arc from the recipe's seed to another one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Morph {
    /// The other seed.
    pub seed: u64,
    /// 0 is the recipe's own seed, 1 the other one.
    pub position: f64,
}

/// A picture that is noised to a kept step and denoised from there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Init {
    /// [`super::picture_sha256`] of the picture.
    pub sha256: String,
    /// The part of the steps that is walked, in (0, 1].
    pub strength: f64,
}

/// The noise format that this program paints with.
pub fn noise_format() -> String {
    format!("{} v{}", noise::FORMAT, noise::VERSION)
}

impl Recipe {
    /// The text chunks of a picture painted from this recipe: keyword and text.
    pub fn to_texts(&self) -> Vec<(String, String)> {
        let json = serde_json::to_string(self).expect("a recipe has only strings and numbers");
        let software = format!("driftglass {}", self.version);
        vec![("Software".into(), software), (KEYWORD.into(), json)]
    }

    /// The recipe in the PNG `bytes`; `place` is the file's name for the errors.
    ///
    /// # Errors
    ///
    /// When the bytes are no PNG, it carries no recipe, or one of another version's format.
    pub fn from_png(place: &str, bytes: &[u8]) -> Result<Self> {
        let texts = read_texts(place, bytes)?;
        let json = texts
            .iter()
            .find(|(keyword, _)| keyword == KEYWORD)
            .map(|(_, text)| text);
        let expected = "a picture painted by driftglass, with its recipe";
        let json = json.ok_or_else(|| Error::unexpected(place, expected, "none in it"))?;
        serde_json::from_str(json).map_err(|error| Error::unexpected(place, "a recipe", error))
    }
}
