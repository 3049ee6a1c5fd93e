//! The owner's file: what a frame paints, on what, and for how long it hangs.
//!
//! Every key may be left out; what is left out is the board's, the panel's or the model's own.
//! `docs/config.md` documents each.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diffusion::guidance;
use crate::display::{correction, emergence, mount};
use crate::error::{Error, Result};
use crate::files::read_limited;
use crate::model::Precision;
use crate::strict;

/// Where an owner's file is looked for: on the FAT partition of a Raspberry Pi, which every
/// computer can write, then where services keep theirs.
pub const PLACES: [&str; 2] = [
    "/boot/firmware/driftglass.toml",
    "/etc/driftglass/config.toml",
];

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 16;

/// The longest a picture may hang: a year.
const MAX_HOLD_S: u64 = 366 * 24 * 3600;

/// What an owner asks for. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The board; detected by default.
    pub board: Option<String>,
    /// The panel; detected by default.
    pub panel: Option<String>,
    /// The model package, by name or by its folder's path; the board's own by default.
    pub model: Option<String>,
    /// Which of the model's files; the board's own choice by default.
    pub precision: Option<Precision>,
    /// Kept steps; the board's own choice by default.
    pub steps: Option<usize>,
    /// Threads of one evaluation; the board's own choice by default.
    pub threads: Option<usize>,
    /// What to paint, for a model with classes; drawn from the seed by default.
    pub class: Option<String>,
    /// The weight of classifier-free guidance, which takes twice the time; the model's by default.
    pub guidance: Option<f64>,
    /// The first picture's seed, the others follow it; drawn by lot by default.
    pub first_seed: Option<u64>,
    /// How long a finished picture hangs before the next one is begun.
    pub hold_s: Option<u64>,
    /// What is seen while a picture is painted.
    pub emergence: emergence::Style,
    /// What is written below a picture.
    pub captions: Vec<Caption>,
    /// Whether a thin line shows how far a painting is.
    pub progress_line: bool,
    /// How pictures lie on the panel; what is left open is the panel's own.
    pub mount: mount::Facts,
    /// The panel's colours; what is left open is the panel's own.
    pub correction: correction::Facts,
}

/// Something that may be written below a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caption {
    /// "seed 42"
    Seed,
    /// "scenes-32"
    Model,
    /// "step 7/50", while a picture is painted.
    Step,
}

spelled!(
    Caption,
    "caption",
    Seed = "seed",
    Model = "model",
    Step = "step"
);

impl Config {
    /// How long a picture hangs when nothing is said.
    pub const HOLD: Duration = Duration::from_secs(60);

    /// Reads the text of an owner's file; `place` is its path for the errors.
    ///
    /// # Errors
    ///
    /// When the text is no TOML, a key is unknown or of the wrong type, or a value is out of its
    /// range. The sentence names file, line and key.
    pub fn parse(place: &str, text: &str) -> Result<Self> {
        let config: Self = strict::parse(place, text)?;
        config.check(place)?;
        Ok(config)
    }

    /// Reads an owner's file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, and as [`Config::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let bytes = read_limited(path, MAX_FILE_BYTES)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::unexpected(&place, "text in UTF-8", "other bytes"))?;
        Self::parse(&place, &text)
    }

    /// Board and panel alone, of a file that does not hold: whoever is to read what is wrong with
    /// it needs a panel. Each is taken from the line that says it, if that line can be read.
    pub fn carrier(path: &Path) -> Self {
        let bytes = read_limited(path, MAX_FILE_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.trim_start_matches('\u{feff}').lines();
        let mut carrier = Self::default();
        for line in lines.take_while(|line| !line.trim_start().starts_with('[')) {
            if let Ok(said) = Self::parse("", line) {
                carrier.board = said.board.or(carrier.board);
                carrier.panel = said.panel.or(carrier.panel);
            }
        }
        carrier
    }

    /// How long a finished picture hangs.
    pub fn hold(&self) -> Duration {
        self.hold_s.map_or(Self::HOLD, Duration::from_secs)
    }

    fn check(&self, place: &str) -> Result<()> {
        let within = |key: &str, least: u64, most: u64, found: Option<u64>| match found {
            Some(found) if !(least..=most).contains(&found) => {
                let place = format!("{place}: {key}");
                Err(Error::unexpected(
                    place,
                    format!("{least} to {most}"),
                    found,
                ))
            }
            _ => Ok(()),
        };
        within("threads", 1, 256, self.threads.map(|n| n as u64))?;
        within("steps", 1, 1000, self.steps.map(|n| n as u64))?;
        within("hold-s", 0, MAX_HOLD_S, self.hold_s)?;
        if let Some(weight) = self.guidance {
            guidance::check(weight, &format!("{place}: guidance"))?;
        }
        correction::Correction::new(self.correction).map_err(|error| match error {
            Error::Unexpected {
                place: key,
                expected,
                found,
            } => Error::unexpected(format!("{place}: {key}"), expected, found),
            other => other,
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::emergence::Style;

    fn error(text: &str) -> String {
        Config::parse("driftglass.toml", text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_empty_file_asks_for_nothing() {
        let config = Config::parse("driftglass.toml", "").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.hold(), Duration::from_secs(60));
        assert_eq!((config.emergence, config.captions.len()), (Style::X0, 0));
    }

    #[test]
    fn what_is_wrong_is_said_with_file_line_and_key() {
        for (text, sentence) in [
            (
                "panel = \"hdmi\"\nhold-s = \"long\"",
                "driftglass.toml:2: hold-s: expected a whole number from 0, found string \"long\"",
            ),
            (
                "emergence = \"fade\"",
                "driftglass.toml:1: emergence: expected x0, x-t, wipe, none, found \"fade\"",
            ),
            (
                "captions = [\"seed\", \"name\"]",
                "driftglass.toml:1: captions: expected seed, model, step, found \"name\"",
            ),
            (
                "steps = 0",
                "driftglass.toml: steps: expected 1 to 1000, found 0",
            ),
            (
                "threads = 257",
                "driftglass.toml: threads: expected 1 to 256, found 257",
            ),
            (
                "guidance = -1.0",
                "driftglass.toml: guidance: expected a number in 0 to 20, found -1",
            ),
            (
                "hold-s = 99999999",
                "driftglass.toml: hold-s: expected 0 to 31622400, found 99999999",
            ),
            (
                "[mount]\nfit = \"big\"",
                "driftglass.toml:2: fit: expected contain, cover, integer, stretch, found \"big\"",
            ),
        ] {
            assert_eq!(error(text), sentence);
        }
        let gamma = error("[correction]\ngamma = 9.0");
        assert!(
            gamma.starts_with("driftglass.toml: correction.gamma: expected"),
            "{gamma}"
        );
        let key = error("[mount]\n\nzoom = 3");
        assert!(
            key.starts_with("driftglass.toml:3: expected one of `fit`"),
            "{key}"
        );
        assert!(key.ends_with("found the key `zoom`"), "{key}");
    }

    #[test]
    fn board_and_panel_are_found_in_a_file_that_does_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("driftglass.toml");
        let carrier = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let carrier = Config::carrier(&path);
            (carrier.board, carrier.panel)
        };
        let found = |name: &str| Some(name.to_owned());
        assert_eq!(
            carrier(
                b"\xef\xbb\xbfpanel = 'hdmi' # the large one\r\nhold = = 5\r\nboard='host'\r\n"
            ),
            (found("host"), found("hdmi"))
        );
        assert_eq!(carrier(b"panel = 3\n\xff\nboard = 'a'"), (found("a"), None));
        assert_eq!(carrier(b"[mount]\npanel = 'hdmi'"), (None, None));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Config::carrier(&path), Config::default());
    }

    #[test]
    fn a_file_that_is_no_text_or_huge_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("driftglass.toml");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("expected text in UTF-8, found other bytes"),
            "{error}"
        );
        std::fs::write(&path, vec![b'\n'; 1 << 17]).unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(error.contains("expected at most 65536 bytes"), "{error}");
        std::fs::write(&path, "hold-s = 5").unwrap();
        assert_eq!(Config::read(&path).unwrap().hold(), Duration::from_secs(5));
    }
}
