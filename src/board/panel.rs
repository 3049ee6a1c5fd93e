//! A panel's file: its kind, the facts of that kind, its mount and its colours.

use serde::{Deserialize, Serialize};

use super::Tier;
use crate::display::glass::Glass;
use crate::display::{Rotation, correction, mount};
use crate::display::{drm, epaper, fbdev, headless, raw, terminal, tft, window};
use crate::error::{Error, Result};
use crate::strict;

/// A panel, as its file in `boards/panels/` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What a person calls it.
    pub name: String,
    /// How well it is known.
    pub tier: Tier,
    /// Where the facts are from.
    pub source: String,
    /// What must be done to a board's system for this panel.
    pub setup: Vec<String>,
    /// How pictures lie on it.
    pub mount: mount::Facts,
    /// What its colours need.
    pub correction: correction::Facts,
    /// How much longer each frame takes, to try what a slow panel does to a painter; 0 for real
    /// panels.
    pub pretend_ms: u32,
    /// The facts of its kind.
    pub facts: Facts,
}

/// The facts of a panel of each kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Facts {
    /// On an SPI bus, with its controller's memory.
    Tft(tft::Facts),
    /// E-paper.
    Epaper(Box<epaper::Facts>),
    /// HDMI or DSI.
    Drm(drm::Facts),
    /// The old frame buffer device.
    Fbdev(fbdev::Facts),
    /// A window on a desktop.
    Window(window::Facts),
    /// A terminal.
    Terminal(terminal::Facts),
    /// A file.
    Headless(headless::Facts),
    /// Another program.
    Raw(raw::Facts),
}

/// A panel's kind: each has its own table in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SPI TFT or OLED.
    Tft,
    /// E-paper.
    Epaper,
    /// HDMI and DSI screens.
    Drm,
    /// The frame buffer device.
    Fbdev,
    /// A window.
    Window,
    /// A terminal.
    Terminal,
    /// A file.
    Headless,
    /// Raw frames to another program.
    Raw,
}

spelled!(
    Kind,
    "kind",
    Tft = "tft",
    Epaper = "epaper",
    Drm = "drm",
    Fbdev = "fbdev",
    Window = "window",
    Terminal = "terminal",
    Headless = "headless",
    Raw = "raw",
);

/// The file's own shape.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    name: String,
    tier: Option<Tier>,
    source: String,
    kind: Option<Kind>,
    #[serde(default)]
    setup: Vec<String>,
    #[serde(default)]
    mount: mount::Facts,
    #[serde(default)]
    correction: correction::Facts,
    #[serde(default)]
    pretend_ms: u32,
    tft: Option<tft::Facts>,
    epaper: Option<Box<epaper::Facts>>,
    drm: Option<drm::Facts>,
    fbdev: Option<fbdev::Facts>,
    window: Option<window::Facts>,
    terminal: Option<terminal::Facts>,
    headless: Option<headless::Facts>,
    raw: Option<raw::Facts>,
}

impl File {
    /// The kinds whose tables are there.
    fn tables(&self) -> Vec<Kind> {
        let tables = [
            (self.tft.is_some(), Kind::Tft),
            (self.epaper.is_some(), Kind::Epaper),
            (self.drm.is_some(), Kind::Drm),
            (self.fbdev.is_some(), Kind::Fbdev),
            (self.window.is_some(), Kind::Window),
            (self.terminal.is_some(), Kind::Terminal),
            (self.headless.is_some(), Kind::Headless),
            (self.raw.is_some(), Kind::Raw),
        ];
        let there = tables.iter().filter(|(is_there, _)| *is_there);
        there.map(|(_, kind)| *kind).collect()
    }

    /// The facts; a kind whose facts all have defaults needs no table.
    fn facts(&mut self, kind: Kind) -> Option<Facts> {
        Some(match kind {
            Kind::Tft => Facts::Tft(self.tft.take()?),
            Kind::Epaper => Facts::Epaper(self.epaper.take()?),
            Kind::Raw => Facts::Raw(self.raw.take()?),
            Kind::Drm => Facts::Drm(self.drm.take().unwrap_or_default()),
            Kind::Fbdev => Facts::Fbdev(self.fbdev.take().unwrap_or_default()),
            Kind::Window => Facts::Window(self.window.take().unwrap_or_default()),
            Kind::Terminal => Facts::Terminal(self.terminal.take().unwrap_or_default()),
            Kind::Headless => Facts::Headless(self.headless.take().unwrap_or_default()),
        })
    }
}

impl Kind {
    /// Whether it hangs on the board's 40-pin header.
    pub fn is_wired(self) -> bool {
        matches!(self, Self::Tft | Self::Epaper)
    }

    /// Whether what it shows vanishes with the program.
    pub fn vanishes(self) -> bool {
        matches!(
            self,
            Self::Drm | Self::Fbdev | Self::Window | Self::Terminal
        )
    }
}

impl Panel {
    /// Reads the text of a panel's file; `place` is its path for the errors.
    ///
    /// # Errors
    ///
    /// When the text is no TOML, a key is missing, unknown or of the wrong type, or the table is
    /// another kind's.
    pub fn parse(place: &str, text: &str) -> Result<Self> {
        let mut file: File = strict::parse(place, text)?;
        let missing = |key: &str| Error::unexpected(place, format!("the key `{key}`"), "none");
        let kind = file.kind.ok_or_else(|| missing("kind"))?;
        let tier = file.tier.ok_or_else(|| missing("tier"))?;
        if let Some(other) = file.tables().into_iter().find(|table| *table != kind) {
            let expected = format!("the table [{kind}] only, as its kind says");
            return Err(Error::unexpected(place, expected, format!("[{other}]")));
        }
        let facts = file.facts(kind);
        let facts = facts.ok_or_else(|| {
            Error::unexpected(
                place,
                format!("the table [{kind}], as its kind says"),
                "none",
            )
        })?;
        Ok(Self {
            name: file.name,
            tier,
            source: file.source,
            setup: file.setup,
            mount: file.mount.or(glass_of(&facts)),
            correction: file.correction,
            pretend_ms: file.pretend_ms,
            facts,
        })
    }

    /// Turns the picture on the glass, whatever its file says.
    ///
    /// # Errors
    ///
    /// When the kind cannot be turned: a file or a terminal has no glass.
    pub fn turn(&mut self, rotation: Rotation) -> Result<()> {
        let turned = match &mut self.facts {
            Facts::Tft(facts) => &mut facts.rotation_deg,
            Facts::Epaper(facts) => &mut facts.rotation_deg,
            Facts::Drm(facts) => &mut facts.rotation_deg,
            Facts::Fbdev(facts) => &mut facts.rotation_deg,
            Facts::Window(facts) => &mut facts.rotation_deg,
            Facts::Raw(facts) => &mut facts.rotation_deg,
            Facts::Terminal(_) | Facts::Headless(_) if rotation == Rotation::Deg0 => return Ok(()),
            Facts::Terminal(_) | Facts::Headless(_) => {
                let expected = format!("0 for a panel of kind {}", self.kind());
                return Err(Error::unexpected("rotation", expected, rotation.degrees()));
            }
        };
        *turned = rotation;
        Ok(())
    }

    /// Dithers as `name` says, whatever its file says.
    ///
    /// # Errors
    ///
    /// When the kind does not dither, or not like that: the sentence lists what it can.
    pub fn dither(&mut self, name: &str) -> Result<()> {
        match &mut self.facts {
            Facts::Tft(facts) => facts.dither = name.parse()?,
            Facts::Epaper(facts) => facts.dither = name.parse()?,
            _ => {
                let expected = format!("none for a panel of kind {}", self.kind());
                return Err(Error::unexpected("dither", expected, name));
            }
        }
        Ok(())
    }

    /// The panel's kind.
    pub fn kind(&self) -> Kind {
        match self.facts {
            Facts::Tft(_) => Kind::Tft,
            Facts::Epaper(_) => Kind::Epaper,
            Facts::Drm(_) => Kind::Drm,
            Facts::Fbdev(_) => Kind::Fbdev,
            Facts::Window(_) => Kind::Window,
            Facts::Terminal(_) => Kind::Terminal,
            Facts::Headless(_) => Kind::Headless,
            Facts::Raw(_) => Kind::Raw,
        }
    }
}

/// What a kind's own facts say of the glass.
fn glass_of(facts: &Facts) -> mount::Facts {
    let is_round = matches!(facts, Facts::Tft(tft) if tft.round);
    mount::Facts {
        glass: is_round.then_some(Glass::Round),
        ..mount::Facts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name = \"A panel\"\ntier = 3\nsource = \"its maker\"\n";

    fn parse(rest: &str) -> Result<Panel> {
        Panel::parse("a.toml", &format!("{HEAD}{rest}"))
    }

    fn error(rest: &str) -> String {
        parse(rest).unwrap_err().to_string()
    }

    #[test]
    fn a_kind_whose_facts_have_defaults_needs_no_table() {
        for kind in [
            Kind::Drm,
            Kind::Fbdev,
            Kind::Window,
            Kind::Terminal,
            Kind::Headless,
        ] {
            let panel = parse(&format!("kind = \"{kind}\"")).unwrap();
            assert_eq!(panel.kind(), kind);
        }
        for kind in [Kind::Tft, Kind::Epaper, Kind::Raw] {
            let expected =
                format!("a.toml: expected the table [{kind}], as its kind says, found none");
            assert_eq!(error(&format!("kind = \"{kind}\"")), expected);
        }
    }

    #[test]
    fn a_panel_can_be_turned_and_dithered_otherwise() {
        let tft = "kind = \"tft\"\n[tft]\ncontroller = \"gc9a01\"\nwidth-px = 240\nheight-px = 240\n\
                   round = true\nspi = \"spi0\"\nspi-hz = 1\ndc-gpio = 25";
        let mut panel = parse(tft).unwrap();
        assert_eq!(panel.mount.glass, Some(Glass::Round));
        panel.turn(Rotation::Deg90).unwrap();
        panel.dither("none").unwrap();
        let Facts::Tft(facts) = &panel.facts else {
            panic!()
        };
        assert_eq!(
            (facts.rotation_deg, facts.dither),
            (Rotation::Deg90, tft::Dither::None)
        );
        let error = panel.dither("atkinson").unwrap_err().to_string();
        assert_eq!(error, "dither: expected bayer, none, found \"atkinson\"");

        let mut file = parse("kind = \"headless\"").unwrap();
        assert_eq!(file.mount, mount::Facts::default());
        file.turn(Rotation::Deg0).unwrap();
        let error = file.turn(Rotation::Deg180).unwrap_err().to_string();
        assert_eq!(
            error,
            "rotation: expected 0 for a panel of kind headless, found 180"
        );
        let error = file.dither("bayer").unwrap_err().to_string();
        assert_eq!(
            error,
            "dither: expected none for a panel of kind headless, found bayer"
        );
    }

    #[test]
    fn the_table_is_that_of_the_kind() {
        let two = "kind = \"headless\"\n[headless]\nwidth-px = 3\n[window]\ntitle = \"x\"";
        assert_eq!(
            error(two),
            "a.toml: expected the table [headless] only, as its kind says, found [window]"
        );
        assert_eq!(error(""), "a.toml: expected the key `kind`, found none");
        let kind = error("kind = \"oled\"");
        assert!(
            kind.starts_with("a.toml:4: kind: expected tft, epaper, drm"),
            "{kind}"
        );
        let inside = error("kind = \"headless\"\n[headless]\nwidth-px = \"wide\"");
        assert_eq!(
            inside,
            "a.toml:6: width-px: expected a whole number from 0 to 65535, found string \"wide\""
        );
    }
}
