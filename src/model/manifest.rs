//! `model.toml`: what a package holds and how its network is to be sampled.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::diffusion::guidance;
use crate::diffusion::prediction::{Clipping, Prediction};
use crate::diffusion::sampler::{SamplerKind, VarianceKind};
use crate::diffusion::schedule::Schedule;
use crate::diffusion::timesteps::{Spacing, Timesteps};
use crate::error::{Error, Result};

/// The version of the format that this program reads and writes.
pub const FORMAT: u32 = 1;

/// The largest side of a picture, in pixels.
const MAX_SIDE_PX: usize = 1024;

/// The name of the null class.
const NO_CLASS: &str = "none";

/// The largest file of a package, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A parsed and checked `model.toml`. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format, [`FORMAT`].
    pub format: u32,
    /// The package's name: its folder's name.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// The shape of a picture.
    pub image: Image,
    /// How the graph is called.
    pub network: NetworkPorts,
    /// What the network was trained for.
    pub diffusion: Diffusion,
    /// How it is sampled when nothing else is asked for.
    pub defaults: Defaults,
    /// For a step count: σ² of every kept step, first step of sampling first, linspace spacing
    /// (Bao et al. 2022, Analytic-DPM).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub analytic_variance: BTreeMap<String, Vec<f64>>,
    /// The classes of a conditional network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
    /// The network's file in every precision that is shipped.
    pub files: BTreeMap<Precision, NetworkFile>,
    /// The trainer's trajectory.
    pub reference: File,
    /// What pictures are like, for the first step of a walk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior: Option<File>,
    /// Who may do what with it.
    pub licence: Licence,
    /// Free facts about the training.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub training: toml::Table,
}

/// The shape of a picture: `[channels, height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Rows, in pixels.
    pub height: usize,
    /// Columns, in pixels.
    pub width: usize,
}

/// How the graph is called: the names of its inputs and of its output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NetworkPorts {
    /// The input x_t, `[1, c, h, w]`.
    pub sample: String,
    /// The input t: int64, int32 or float, a scalar or `[1]`.
    pub timestep: String,
    /// The input for the class of a conditional network, int64 `[1]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The output, `[1, c, h, w]`, or `[1, 2c, h, w]` with learned variance.
    pub output: String,
    /// The network gets t times this.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub timestep_scale: f64,
}

/// What the network was trained for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Diffusion {
    /// T.
    pub train_timesteps: usize,
    /// Which schedule the betas follow.
    pub schedule: ScheduleKind,
    /// The first beta of a linear or scaled-linear schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_start: Option<f64>,
    /// The last beta of a linear or scaled-linear schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_end: Option<f64>,
    /// The T betas of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<Vec<f64>>,
    /// What the network predicts.
    pub prediction: Prediction,
    /// x0 is clamped to [-clip, clip].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f32>,
    /// x0 is thresholded dynamically (Saharia et al. 2022, Imagen).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
}

/// The schedules a manifest can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleKind {
    /// Nichol & Dhariwal 2021, s = 0.008.
    Cosine,
    /// Ho et al. 2020.
    Linear,
    /// Linear in √β.
    ScaledLinear,
    /// The manifest's own betas.
    Table,
}

spelled!(
    ScheduleKind,
    "schedule",
    Cosine = "cosine",
    Linear = "linear",
    ScaledLinear = "scaled-linear",
    Table = "table",
);

/// Dynamic thresholding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The quantile of |x0| that becomes the threshold, in (0, 1].
    pub ratio: f32,
    /// The threshold is at most this, and at least 1.
    pub max: f32,
}

/// How the network is sampled when nothing else is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Defaults {
    /// Kept steps.
    pub steps: usize,
    /// The reverse update.
    pub sampler: SamplerKind,
    /// Which steps are kept.
    pub spacing: Spacing,
    /// The variance of the reverse update.
    pub variance: VarianceKind,
    /// The weight of classifier-free guidance.
    #[serde(default = "guidance::none", skip_serializing_if = "guidance::is_none")]
    pub guidance: f64,
    /// Which file is loaded.
    pub precision: Precision,
}

/// The classes of a conditional network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// Their names, in the order of the network's indices.
    pub names: Vec<String>,
    /// The index that stands for "no class", where the network was trained with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub null: Option<usize>,
}

/// In what numbers a network's file stores its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// 16-bit floats, computed in 32 bits where the core has no FEAT_FP16.
    Fp16,
    /// 8-bit integers with scales.
    Int8,
}

spelled!(
    Precision,
    "precision",
    Fp32 = "fp32",
    Fp16 = "fp16",
    Int8 = "int8"
);

/// A file and what its bytes must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name in the package's folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// A network's file, and how far it is from the fp32 network it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NetworkFile {
    /// Its name in the package's folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Largest difference of ε along the reference trajectory to the fp32 PyTorch network.
    pub max_error: f64,
    /// PSNR of the final picture against PyTorch's, in dB.
    pub final_psnr_db: f64,
}

/// Who may do what with a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// SPDX expression for the weights.
    pub weights: String,
    /// What they were trained on, and its licence.
    pub data: String,
}

impl Manifest {
    /// Parses and checks the text of a `model.toml`; `place` is its path for the errors.
    ///
    /// # Errors
    ///
    /// When the text is no TOML, a key is missing, unknown or of the wrong type, or a value is
    /// out of its range. The sentence names the key.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        // Before the keys, so that an older program says "format" and not "unknown key".
        let head: toml::Table = toml::from_str(text).map_err(|e| not_toml(place, text, &e))?;
        match head.get("format").and_then(toml::Value::as_integer) {
            Some(found) if found == i64::from(FORMAT) => {}
            found => {
                let found = found.map_or("none".into(), |found| found.to_string());
                return Err(Error::unexpected(format!("{place}: format"), FORMAT, found));
            }
        }
        let manifest: Self = toml::from_str(text).map_err(|e| not_toml(place, text, &e))?;
        manifest.check(place)?;
        Ok(manifest)
    }

    /// The schedule that the network was trained with.
    ///
    /// # Errors
    ///
    /// When the betas are missing or out of (0, 1); [`Manifest::parse`] has already asked.
    pub fn schedule(&self) -> Result<Schedule> {
        let d = &self.diffusion;
        let ends = || match (d.beta_start, d.beta_end) {
            (Some(start), Some(end)) => Ok((start, end)),
            _ => Err(Error::unexpected(
                "beta-start and beta-end",
                "two numbers",
                "none",
            )),
        };
        match d.schedule {
            ScheduleKind::Cosine => Schedule::cosine(d.train_timesteps),
            ScheduleKind::Linear => {
                ends().and_then(|(start, end)| Schedule::linear(d.train_timesteps, start, end))
            }
            ScheduleKind::ScaledLinear => ends()
                .and_then(|(start, end)| Schedule::scaled_linear(d.train_timesteps, start, end)),
            ScheduleKind::Table => {
                let betas = d.betas.clone().unwrap_or_default();
                if betas.len() != d.train_timesteps {
                    let expected = format!("{} numbers", d.train_timesteps);
                    return Err(Error::unexpected("betas", expected, betas.len()));
                }
                Schedule::from_betas(betas)
            }
        }
    }

    /// What happens to a predicted x0 that leaves the range of pictures.
    pub fn clipping(&self) -> Clipping {
        match (self.diffusion.clip, self.diffusion.threshold) {
            (_, Some(Threshold { ratio, max })) => Clipping::Dynamic { ratio, max },
            (Some(range), None) => Clipping::Clamp { range },
            (None, None) => Clipping::None,
        }
    }

    /// The analytic variance of every kept step, where the package has it for just these steps.
    pub fn variance_table(&self, steps: usize, spacing: &Spacing) -> Option<&Vec<f64>> {
        let table = self.analytic_variance.get(&steps.to_string());
        table.filter(|_| *spacing == Spacing::Linspace)
    }

    /// The numbers of steps that the package has an analytic variance for, rising.
    pub fn variance_steps(&self) -> Vec<usize> {
        let tables = self.analytic_variance.values();
        let mut steps: Vec<usize> = tables.map(Vec::len).collect();
        steps.sort_unstable();
        steps
    }

    /// The file of `precision`.
    ///
    /// # Errors
    ///
    /// When the package has none; the sentence says which it has.
    pub fn file(&self, precision: Precision) -> Result<&NetworkFile> {
        self.files.get(&precision).ok_or_else(|| {
            let shipped = self
                .files
                .keys()
                .map(Precision::to_string)
                .collect::<Vec<_>>();
            let place = format!("model {}: precision", self.name);
            Error::unexpected(place, shipped.join(" or "), precision)
        })
    }

    /// The index of the class called `name`, or whose index is written in `name`.
    ///
    /// # Errors
    ///
    /// When the network has no classes or none of that name; the sentence lists them.
    pub fn class_index(&self, name: &str) -> Result<usize> {
        let place = format!("model {}: class", self.name);
        let Some(classes) = &self.classes else {
            return Err(Error::unexpected(
                place,
                "none, the model is unconditional",
                name,
            ));
        };
        let by_name = classes.names.iter().position(|known| known == name);
        let by_name = by_name.or(classes.null.filter(|_| name == NO_CLASS));
        let by_index = || name.parse().ok().filter(|&index| index < classes.count());
        by_name.or_else(by_index).ok_or_else(|| {
            Error::unexpected(place, format!("one of {}", classes.names.join(", ")), name)
        })
    }

    /// The index that stands for no class, where the network was trained with one.
    pub fn null_class(&self) -> Option<usize> {
        self.classes.as_ref().and_then(|classes| classes.null)
    }

    /// The name of class `index`; "none" for the null class.
    pub fn class_name(&self, index: usize) -> &str {
        let name = self
            .classes
            .as_ref()
            .and_then(|classes| classes.names.get(index));
        name.map_or(NO_CLASS, String::as_str)
    }

    fn check(&self, place: &str) -> Result<()> {
        let at = |key: &str| format!("{place}: {key}");
        let require = |holds: bool, key: &str, expected: &str, found: &dyn fmt::Display| {
            if holds {
                Ok(())
            } else {
                Err(Error::unexpected(at(key), expected, found))
            }
        };
        let Image {
            channels,
            height,
            width,
        } = self.image;
        require(
            is_name(&self.name),
            "name",
            "lower-case letters, digits, `-`",
            &self.name,
        )?;
        require(
            [1, 3].contains(&channels),
            "image.channels",
            "1 or 3",
            &channels,
        )?;
        let side = 1..=MAX_SIDE_PX;
        require(side.contains(&height), "image.height", "1 to 1024", &height)?;
        require(side.contains(&width), "image.width", "1 to 1024", &width)?;
        self.check_schedule(place)?;
        let scale = self.network.timestep_scale;
        let scales = scale > 0.0 && scale <= 1e6;
        require(
            scales,
            "network.timestep-scale",
            "above 0, at most 1e6",
            &scale,
        )?;
        self.check_clipping(place)?;
        let shipped = self.files.contains_key(&self.defaults.precision);
        let precision = &self.defaults.precision;
        require(
            shipped,
            "defaults.precision",
            "one of the precisions in files",
            precision,
        )?;
        self.check_classes(place)?;
        let weight = self.defaults.guidance;
        guidance::check(weight, &at("defaults.guidance"))?;
        require(
            weight == guidance::NONE || self.null_class().is_some(),
            "defaults.guidance",
            "1 where there is no null class",
            &weight,
        )?;
        self.check_files(place)?;
        self.check_errors(place)?;
        self.check_texts(place)?;
        self.check_analytic_variance(place)
    }

    fn check_schedule(&self, place: &str) -> Result<()> {
        let wrong = |key: &str, error: Error| {
            Error::unexpected(format!("{place}: {key}"), "what can be sampled", error)
        };
        let d = &self.diffusion;
        let ends = d.beta_start.is_some() || d.beta_end.is_some();
        let unused = match d.schedule {
            ScheduleKind::Cosine => ends || d.betas.is_some(),
            ScheduleKind::Linear | ScheduleKind::ScaledLinear => d.betas.is_some(),
            ScheduleKind::Table => ends,
        };
        if unused {
            let place = format!("{place}: diffusion");
            let expected = format!("only the betas that a {} schedule uses", d.schedule);
            return Err(Error::unexpected(place, expected, "others as well"));
        }
        let schedule = self.schedule().map_err(|error| wrong("diffusion", error))?;
        let Defaults {
            spacing,
            steps,
            variance,
            ..
        } = &self.defaults;
        Timesteps::new(&schedule, spacing, *steps).map_err(|error| wrong("defaults", error))?;
        let table = self.variance_table(*steps, spacing);
        if *variance == VarianceKind::Analytic && table.is_none() {
            let place = format!("{place}: defaults.variance");
            let expected = format!("linspace and a table for {steps} steps");
            return Err(Error::unexpected(place, expected, "no such table"));
        }
        Ok(())
    }

    fn check_clipping(&self, place: &str) -> Result<()> {
        if let (Some(_), Some(_)) = (self.diffusion.clip, self.diffusion.threshold) {
            let place = format!("{place}: diffusion");
            return Err(Error::unexpected(place, "clip or threshold", "both"));
        }
        let clip = self.diffusion.clip;
        if let Some(found) = clip.filter(|clip| !(clip.is_finite() && *clip > 0.0)) {
            let place = format!("{place}: diffusion.clip");
            return Err(Error::unexpected(place, "a positive number", found));
        }
        let Some(Threshold { ratio, max }) = self.diffusion.threshold else {
            return Ok(());
        };
        if ratio > 0.0 && ratio <= 1.0 && max >= 1.0 && max.is_finite() {
            return Ok(());
        }
        Err(Error::unexpected(
            format!("{place}: diffusion.threshold"),
            "ratio above 0, at most 1, and max of at least 1",
            format!("ratio {ratio} and max {max}"),
        ))
    }

    fn check_classes(&self, place: &str) -> Result<()> {
        let unexpected = |expected: &str, found: String| {
            Err(Error::unexpected(
                format!("{place}: classes"),
                expected,
                found,
            ))
        };
        match (&self.classes, &self.network.class) {
            (None, None) => Ok(()),
            (Some(_), None) => unexpected("network.class as well", "no such input".into()),
            (None, Some(input)) => unexpected("names for the classes", format!("only `{input}`")),
            (Some(classes), Some(_)) => match classes.null {
                _ if classes.names.is_empty() => unexpected("names", "an empty list".into()),
                Some(null) if null != classes.names.len() => {
                    unexpected("null after the last name", null.to_string())
                }
                _ => Ok(()),
            },
        }
    }

    fn check_files(&self, place: &str) -> Result<()> {
        let network = self
            .files
            .iter()
            .map(|(precision, f)| (precision.to_string(), f.as_file()));
        let others = [
            ("reference", Some(&self.reference)),
            ("prior", self.prior.as_ref()),
        ];
        let others = others
            .into_iter()
            .filter_map(|(key, file)| Some((key.to_string(), file?.clone())));
        for (key, file) in network.chain(others) {
            let at = |part: &str| format!("{place}: {key}: {part}");
            let plain = std::path::Path::new(&file.file).file_name();
            if plain.is_none_or(|name| name != file.file.as_str()) {
                return Err(Error::unexpected(
                    at("file"),
                    "a plain file name",
                    file.file,
                ));
            }
            let hex = file
                .sha256
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !(hex && file.sha256.len() == 64) {
                let expected = "64 lower-case hexadecimal digits";
                return Err(Error::unexpected(at("sha256"), expected, file.sha256));
            }
            if file.bytes > MAX_FILE_BYTES {
                return Err(Error::unexpected(at("bytes"), "at most 1 GiB", file.bytes));
            }
        }
        Ok(())
    }

    fn check_errors(&self, place: &str) -> Result<()> {
        for (precision, file) in &self.files {
            let place = |key: &str| format!("{place}: {precision}: {key}");
            if !(file.max_error >= 0.0 && file.max_error.is_finite()) {
                let expected = "a number of at least 0";
                return Err(Error::unexpected(
                    place("max-error"),
                    expected,
                    file.max_error,
                ));
            }
            if !(0.0..=1000.0).contains(&file.final_psnr_db) {
                let found = file.final_psnr_db;
                return Err(Error::unexpected(
                    place("final-psnr-db"),
                    "0 to 1000",
                    found,
                ));
            }
        }
        Ok(())
    }

    /// What people read must not move their cursor.
    fn check_texts(&self, place: &str) -> Result<()> {
        let licence = [&self.licence.weights, &self.licence.data];
        let classes = self.classes.iter().flat_map(|classes| &classes.names);
        let texts = [&self.title].into_iter().chain(licence).chain(classes);
        match texts
            .into_iter()
            .find(|text| text.contains(char::is_control))
        {
            None => Ok(()),
            Some(text) => Err(Error::unexpected(
                place,
                "texts without control characters",
                text,
            )),
        }
    }

    fn check_analytic_variance(&self, place: &str) -> Result<()> {
        for (steps, table) in &self.analytic_variance {
            let at = format!("{place}: analytic-variance.{steps}");
            if steps.parse() != Ok(table.len()) {
                let expected = format!("{steps} numbers");
                return Err(Error::unexpected(
                    at,
                    expected,
                    format!("{} of them", table.len()),
                ));
            }
            let wrong = table
                .iter()
                .find(|value| !(value.is_finite() && **value >= 0.0));
            if let Some(value) = wrong {
                return Err(Error::unexpected(at, "numbers of at least 0", value));
            }
        }
        Ok(())
    }
}

impl Classes {
    /// How many indices the network knows, the null class included.
    pub fn count(&self) -> usize {
        self.names.len() + usize::from(self.null.is_some())
    }
}

impl NetworkFile {
    /// The part that every file has.
    pub fn as_file(&self) -> File {
        File {
            file: self.file.clone(),
            bytes: self.bytes,
            sha256: self.sha256.clone(),
        }
    }
}

fn one() -> f64 {
    1.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_one(value: &f64) -> bool {
    *value == 1.0
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.len() <= 64 && name.bytes().all(allowed)
}

/// One sentence with the line, out of the several lines of the parser.
fn not_toml(place: &str, text: &str, error: &toml::de::Error) -> Error {
    let line = error
        .span()
        .and_then(|span| Some(text.get(..span.start)?.lines().count().max(1)));
    let place = line.map_or(place.to_owned(), |line| format!("{place}:{line}"));
    let found = error.message().lines().collect::<Vec<_>>().join(" ");
    Error::unexpected(place, "a model manifest of format 1", found)
}
