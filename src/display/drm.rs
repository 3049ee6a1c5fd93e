//! HDMI and DSI screens through the kernel's mode setting (DRM/KMS).
//!
//! Two plain ("dumb") buffers of exactly the mode's size; the mode is set once and each new picture
//! is a page flip, waited for with a deadline. Rotation, mirror and colours are done in software,
//! for the rows that changed. The connector is looked at again and again: a screen may be switched
//! on after the program, off and on again, or be exchanged for another one.
//!
//! Nothing here needs a compositor or a GPU, but the card must be free: one program at a time is
//! its master.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::console::Console;
use super::{Damage, Display, Frame, Mirror, Orientation, Pace, PanelInfo, Power, Rotation};
use crate::error::{Error, Result};

mod card;
pub mod choice;
mod mode;
mod screen;

pub use mode::Mode;

use card::{Card, Probe};
use choice::Outcome;
use screen::Screen;

/// How often a connector is looked at: a little more often than a caller that shows the same frame
/// again every two seconds, so that none of its calls is in vain.
const LOOK_EVERY: Duration = Duration::from_millis(1_500);
/// The size of frames while there is no screen and nobody asked for a mode.
const UNSEEN_PX: [u16; 2] = [1920, 1080];

/// What is known of a screen behind DRM; everything has a default, so that an empty table is a
/// screen that says itself what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Facts {
    /// The card, as "card1" or as a path; by default the one with a screen. The numbers change from
    /// boot to boot, so this is for machines with several cards that have screens.
    pub card: Option<String>,
    /// The connector, as the kernel names it: "HDMI-A-1"; without its number, "DSI", it is the first
    /// of its kind. By default the first one with a screen.
    pub connector: Option<String>,
    /// The resolution and, optionally, the refresh rate: "1280x720@60"; by default the one that the
    /// screen prefers.
    pub mode: Option<Mode>,
    /// How far the picture is turned clockwise on the screen.
    pub rotation_deg: Rotation,
    /// Whether the picture is mirrored.
    pub mirror: Mirror,
    /// How a pixel lies in memory.
    pub depth_bits: Depth,
}

/// How many bits of memory a pixel takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Depth {
    /// RGB565: half the memory bandwidth, which helps a Zero 2 W at large modes.
    Bits16,
    /// XRGB8888.
    #[default]
    Bits32,
}

impl TryFrom<u8> for Depth {
    type Error = Error;

    fn try_from(bits: u8) -> Result<Self> {
        match bits {
            16 => Ok(Self::Bits16),
            32 => Ok(Self::Bits32),
            _ => Err(Error::unexpected("depth-bits", "16 or 32", bits)),
        }
    }
}

impl From<Depth> for u8 {
    fn from(depth: Depth) -> Self {
        match depth {
            Depth::Bits16 => 16,
            Depth::Bits32 => 32,
        }
    }
}

impl Facts {
    /// How the screen hangs.
    pub fn orientation(&self) -> Orientation {
        Orientation {
            rotation: self.rotation_deg,
            mirror: self.mirror,
        }
    }
}

/// A screen behind DRM.
///
/// While nothing is plugged in, or the screen is off at its own switch, frames are accepted and
/// seen by nobody: that is a screen's daily life, no fault, and [`PanelInfo::name`] says so. The
/// screen is looked for in [`Display::show`], so whoever wants it lit within seconds shows the same
/// frame again every few seconds; that costs a comparison.
///
/// Another screen may have another size. [`Display::info`] then changes in a `show`, and a frame
/// that was drawn for the size before is shown in the middle.
pub struct Drm {
    facts: Facts,
    /// /dev/dri.
    folder: PathBuf,
    /// Open cards while there is no screen; a screen has its own in it.
    cards: Vec<Card>,
    screen: Option<Screen>,
    looked: Option<Instant>,
    power: Power,
    /// The last mode's size.
    native_px: [u16; 2],
    shown_before: bool,
    console: Option<Console>,
}

impl Drm {
    /// Looks for the card and the screen that `facts` ask for, and hides the text console.
    ///
    /// Without a screen this succeeds as well: it may be switched on later.
    ///
    /// # Errors
    ///
    /// When there is no card, connector or mode as asked for, when this user may not open the card,
    /// or when another program is drawing on it.
    pub fn open(facts: Facts) -> Result<Self> {
        let mut drm = Self {
            native_px: facts.mode.map_or(UNSEEN_PX, |mode| mode.size_px),
            facts,
            folder: "/dev/dri".into(),
            cards: Vec::new(),
            screen: None,
            looked: None,
            power: Power::On,
            shown_before: false,
            console: None,
        };
        drm.look()?;
        Ok(drm)
    }

    /// Whether the text console is hidden, or why not; `None` before there was a screen.
    pub fn console(&self) -> Option<&Console> {
        self.console.as_ref()
    }

    /// Finds out, if it is time to, whether the screen is still there or has appeared.
    fn look(&mut self) -> Result<()> {
        let now = Instant::now();
        let due = self
            .looked
            .is_none_or(|before| now.duration_since(before) >= LOOK_EVERY);
        if !due {
            return Ok(());
        }
        self.looked = Some(now);
        if let Some(screen) = self.screen.take() {
            if screen.is_connected()? {
                self.screen = Some(screen);
                return Ok(());
            }
            // The card stays open: nobody else becomes its master while the screen is off.
            self.cards.push(screen.leave());
        }
        self.connect()
    }

    /// Takes the screen that is there now, if there is one.
    fn connect(&mut self) -> Result<()> {
        self.open_cards()?;
        let mut tables: Vec<_> = self
            .cards
            .iter()
            .map(|card| card.tables(Probe::Screen))
            .collect();
        let described: Vec<_> = tables.iter().map(|tables| tables.card.clone()).collect();
        let before_px = self.shown_before.then_some(self.native_px);
        let Outcome::Screen(choice) = choice::choose(&described, &self.facts, before_px)? else {
            return Ok(());
        };
        let card = self.cards.swap_remove(choice.card);
        let connectors = tables.swap_remove(choice.card).connectors;
        card.become_master()?;
        // The other cards are left to others.
        self.cards.clear();
        let screen = Screen::new(card, &connectors, choice, &self.facts)?;
        self.console.get_or_insert_with(Console::hide);
        self.native_px = screen.native_px();
        self.shown_before = true;
        self.screen = Some(screen);
        Ok(())
    }

    /// Opens every card that is not open yet.
    fn open_cards(&mut self) -> Result<()> {
        let missing = |cause: io::Error| {
            if cause.kind() != io::ErrorKind::NotFound {
                return Error::io(&self.folder, "read", cause);
            }
            let expected = "a graphics card (on a Raspberry Pi: dtoverlay=vc4-kms-v3d in \
                config.txt; without one, the panel \"framebuffer\")";
            Error::unexpected(self.folder.display(), expected, "no such folder")
        };
        let entries = fs::read_dir(&self.folder).map_err(missing)?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| is_card(path));
        paths.sort();
        let mut failure = None;
        for path in paths {
            if self.cards.iter().any(|card| card.path() == path) {
                continue;
            }
            match Card::open(&path) {
                Ok(card) => self.cards.push(card),
                Err(cause) => failure = failure.or(Some((path, cause))),
            }
        }
        // A card that cannot be opened matters only if no other one has a connector.
        let usable = |card: &Card| !card.tables(Probe::Kernel).connectors.is_empty();
        match failure {
            Some((path, cause)) if !self.cards.iter().any(usable) => Err(unopened(&path, cause)),
            _ => Ok(()),
        }
    }

    fn present(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        if self.power == Power::Off {
            return Ok(());
        }
        self.look()?;
        match &mut self.screen {
            Some(screen) => screen.show(frame, damage),
            None => Ok(()),
        }
    }

    /// After a fault everything is opened anew: the card may be another one by then.
    fn forget_on_error<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.screen = None;
            self.cards.clear();
            self.looked = None;
        }
        result
    }
}

fn unopened(path: &Path, cause: io::Error) -> Error {
    if cause.kind() != io::ErrorKind::PermissionDenied {
        return Error::io(path, "open", cause);
    }
    let expected = "the right to open it (sudo usermod -aG video USER, and log in again)";
    Error::unexpected(path.display(), expected, "permission denied")
}

/// "card0" and so on; beside them lie render nodes and a folder of links.
fn is_card(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix("card"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

impl Display for Drm {
    fn info(&self) -> PanelInfo {
        let name = match &self.screen {
            Some(screen) => screen.name().to_owned(),
            None => "no screen: not plugged in, or switched off".into(),
        };
        PanelInfo {
            name,
            size_px: self
                .facts
                .orientation()
                .seen(self.native_px.map(usize::from)),
            pace: Pace::Live,
        }
    }

    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        let result = self.present(frame, damage);
        self.forget_on_error(result)
    }

    fn power(&mut self, power: Power) -> Result<()> {
        self.power = power;
        let result = match &mut self.screen {
            Some(screen) => screen.power(power),
            None => Ok(()),
        };
        self.forget_on_error(result)
    }
}
