//! From a panel's facts, and a board's, to a panel that shows frames.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::panel::Facts;
use super::{Board, Panel};
use crate::display::drm::Drm;
use crate::display::fbdev::Fbdev;
use crate::display::header::Roots;
use crate::display::headless::Headless;
use crate::display::raw::Raw;
use crate::display::slow::Slow;
use crate::display::window::{Key, Window};
use crate::display::{Display, epaper, terminal, tft};
use crate::error::Result;

/// A panel that is open.
pub struct Opened {
    /// It shows frames.
    pub display: Box<dyn Display>,
    /// What somebody in front of it asks for, where it has keys.
    pub keys: Option<Receiver<Key>>,
}

/// Opens `panel` on `board`; `env` reads the environment, which a terminal tells of itself in.
///
/// # Errors
///
/// When the board has no header for it, or the way to the panel cannot be opened: a sentence with
/// what mends it.
pub fn open(
    panel: &Panel,
    board: &Board,
    roots: &Roots,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Opened> {
    let mut keys = None;
    let display: Box<dyn Display> = match &panel.facts {
        Facts::Tft(facts) => Box::new(tft::open(facts, board.header()?, roots)?),
        Facts::Epaper(facts) => Box::new(epaper::open(facts, board.header()?, roots)?),
        Facts::Drm(facts) => Box::new(Drm::open(facts.clone())?),
        Facts::Fbdev(facts) => Box::new(Fbdev::open(facts.clone())?),
        Facts::Window(facts) => {
            let (window, pressed) = Window::open(facts, env)?;
            keys = Some(pressed);
            Box::new(window)
        }
        Facts::Terminal(facts) => Box::new(terminal::Panel::open(facts, env)?),
        Facts::Headless(facts) => Box::new(Headless::new(facts)?),
        Facts::Raw(facts) => Box::new(Raw::new(facts)?),
    };
    let display = match panel.pretend_ms {
        0 => display,
        longer => Box::new(Slow::new(display, Duration::from_millis(longer.into()))),
    };
    Ok(Opened { display, keys })
}
