//! A board: what carries a panel, and what it can bear.
//!
//! `boards/*.toml` holds one file for each board and `boards/panels/*.toml` one for each panel, so
//! that a frame is a board and a panel. A file's existence makes the board: all are embedded in
//! the program, and those in a folder beside it come first. Every key is a fact with its unit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::display::header::Header;
use crate::error::{Error, Result};
use crate::model::Precision;
use crate::strict;

pub mod check;
pub mod detect;
pub mod library;
pub mod open;
pub mod panel;

pub use check::Verdict;
pub use library::Library;
pub use open::{Opened, open};
pub use panel::Panel;

/// Everything that is known of a board: a file of `boards/`. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Board {
    /// What a person calls it.
    pub name: String,
    /// How well it is known.
    pub tier: Tier,
    /// Where the facts are from.
    pub source: String,
    /// The chip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soc: Option<String>,
    /// Its cores' kind and clock.
    pub cpu: String,
    /// How many of them there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<usize>,
    /// What they can beyond ARMv8-A, as Rust's target features are called.
    pub cpu_features: Vec<String>,
    /// Memory, of the smallest model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_mib: Option<u32>,
    /// The part of it that driftglass may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_mib: Option<u32>,
    /// The temperature from which on a frame should pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_c_max: Option<u32>,
    /// The names by which the device tree knows it, carrier and module alike.
    pub compatible: Vec<String>,
    /// What must be done to its system once, for whatever panel.
    pub setup: Vec<String>,
    /// How it paints when nothing else is asked for.
    pub paint: Paint,
    /// How a program is built for it.
    pub build: Build,
    /// The 40-pin header, as its kernel calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Header>,
    /// Why it has no header, or none that could be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_header: Option<NoHeader>,
}

/// How well a board or a panel is known: 1, it is tried at each release; 2, sometimes; 3, never
/// seen by us, in simulators only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Tier(u8);

/// How a board paints when nothing else is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Paint {
    /// Threads of one evaluation; left out, all cores but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// A model package.
    pub model: String,
    /// Which of the model's files: "fp32", "fp16" or "int8".
    pub precision: Precision,
    /// Kept steps.
    pub steps: usize,
}

/// How a program is built for a board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Build {
    /// Rust's name of the target; left out, the machine's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// RUSTFLAGS that make it a little faster; a build without them runs as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rustflags: Option<String>,
}

/// Why nothing can be wired to a board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NoHeader {
    /// A clause: "a computer has no 40-pin header".
    pub because: String,
}

impl TryFrom<u8> for Tier {
    type Error = Error;

    fn try_from(tier: u8) -> Result<Self> {
        match tier {
            1..=3 => Ok(Self(tier)),
            _ => Err(Error::unexpected("tier", "1, 2 or 3", tier)),
        }
    }
}

impl From<Tier> for u8 {
    fn from(tier: Tier) -> Self {
        tier.0
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Board {
    /// Reads the text of a board's file; `place` is its path for the errors.
    ///
    /// # Errors
    ///
    /// When the text is no TOML, a key is missing, unknown or of the wrong type, or a value is out
    /// of its range.
    pub fn parse(place: &str, text: &str) -> Result<Self> {
        let board: Self = strict::parse(place, text)?;
        board.check(place)?;
        Ok(board)
    }

    /// The header.
    ///
    /// # Errors
    ///
    /// When it has none: the reason.
    pub fn header(&self) -> Result<&Header> {
        self.header.as_ref().ok_or_else(|| {
            let because = self
                .no_header
                .as_ref()
                .map(|reason| reason.because.as_str());
            Error::unexpected(&self.name, "a 40-pin header", because.unwrap_or("none"))
        })
    }

    fn check(&self, place: &str) -> Result<()> {
        let wrong = |key: &str, expected: &str, found: String| {
            Err(Error::unexpected(
                format!("{place}: {key}"),
                expected,
                found,
            ))
        };
        match (&self.header, &self.no_header) {
            (Some(_), Some(_)) => return wrong("no-header", "none beside a header", "one".into()),
            (None, None) => return wrong("header", "a table, or no-header", "neither".into()),
            _ => {}
        }
        if let (Some(limit), Some(ram)) = (self.memory_limit_mib, self.ram_mib)
            && limit > ram
        {
            let expected = format!("at most ram-mib, {ram}");
            return wrong("memory-limit-mib", &expected, limit.to_string());
        }
        if let Some(threads) = self
            .paint
            .threads
            .filter(|threads| !(1..=256).contains(threads))
        {
            return wrong("paint.threads", "1 to 256", threads.to_string());
        }
        if self.paint.steps == 0 {
            return wrong("paint.steps", "at least 1", "0".into());
        }
        Ok(())
    }
}

/// The tables of `boards/README.md`: tiers, boards and panels.
///
/// # Errors
///
/// When a file of `library` cannot be read.
pub fn tier_tables(library: &Library) -> Result<String> {
    let mut text =
        String::from("| board | tier | chip | memory | header |\n|---|---|---|---|---|\n");
    for name in library.board_names()? {
        let board = library.board(&name)?;
        let memory = board.ram_mib.map_or("–".into(), |mib| format!("{mib} MiB"));
        let header = board
            .header
            .as_ref()
            .map_or("–", |header| header.gpio_chip_label.as_str());
        text += &format!(
            "| `{name}` {} | {} | {} | {memory} | {header} |\n",
            board.name,
            board.tier,
            board.soc.as_deref().unwrap_or("–"),
        );
    }
    text += "\n| panel | tier | kind | facts from |\n|---|---|---|---|\n";
    let panels: BTreeMap<String, Panel> = library.panels()?;
    for (name, panel) in panels {
        let kind = panel.kind();
        text += &format!(
            "| `{name}` {} | {} | {kind} | {} |\n",
            panel.name, panel.tier, panel.source
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: &str = r#"
name = "A board"
tier = 3
source = "its maker"
cpu = "Cortex-A53"
cpu-features = ["neon"]
ram-mib = 512
memory-limit-mib = 200
compatible = ["maker,board"]
setup = []
[paint]
model = "scenes-32"
precision = "fp16"
steps = 50
[build]
[header]
gpio-chip-label = "pinctrl-bcm2835"
"#;

    fn error(from: &str, to: &str) -> String {
        assert!(BOARD.contains(from), "{from:?} is not in the file");
        let text = BOARD.replace(from, to);
        Board::parse("a.toml", &text).unwrap_err().to_string()
    }

    #[test]
    fn a_board_is_what_its_file_says() {
        let board = Board::parse("a.toml", BOARD).unwrap();
        assert_eq!(board.header().unwrap().gpio_chip_label, "pinctrl-bcm2835");
        assert_eq!((board.paint.threads, u8::from(board.tier)), (None, 3));
        let again = toml::to_string(&board).unwrap();
        assert_eq!(Board::parse("again", &again).unwrap(), board);
    }

    #[test]
    fn what_a_file_must_not_say_is_named() {
        for (from, to, sentence) in [
            (
                "tier = 3",
                "tier = 4",
                "a.toml:3: tier: expected 1, 2 or 3, found 4",
            ),
            (
                "limit-mib = 200",
                "limit-mib = 600",
                "a.toml: memory-limit-mib: expected at most ram-mib, 512, found 600",
            ),
            (
                "steps = 50",
                "steps = 0",
                "a.toml: paint.steps: expected at least 1, found 0",
            ),
            (
                "precision = \"fp16\"",
                "precision = \"int4\"",
                "a.toml:13: precision: expected fp32, fp16, int8, found \"int4\"",
            ),
            (
                "[header]\ngpio-chip-label = \"pinctrl-bcm2835\"",
                "",
                "a.toml: header: expected a table, or no-header, found neither",
            ),
            (
                "[build]",
                "threads = 300\n[build]",
                "a.toml: paint.threads: expected 1 to 256, found 300",
            ),
        ] {
            assert_eq!(error(from, to), sentence);
        }
        assert!(error("ram-mib = 512", "ram-gb = 512").contains("found the key `ram-gb`"));
    }

    #[test]
    fn a_board_without_a_header_says_why() {
        let header = "[header]\ngpio-chip-label = \"pinctrl-bcm2835\"";
        let text = BOARD.replace(header, "[no-header]\nbecause = \"it has been sawn off\"");
        let board = Board::parse("a.toml", &text).unwrap();
        let error = board.header().unwrap_err().to_string();
        assert_eq!(
            error,
            "A board: expected a 40-pin header, found it has been sawn off"
        );
    }
}
