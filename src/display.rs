//! Pictures on panels: one file per kind of panel.
//!
//! Everything is drawn once, into a [`Frame`] of plain RGB; a [`Display`] brings the frame to its
//! glass with its own conversion, dither and rotation. Drawing into a frame cannot fail; showing
//! it can, and never blocks for ever. A panel never knows a board, a model or a sampler.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::picture::{MAX_PIXELS, MAX_SIDE_PX};

mod bayer;
pub mod caption;
pub mod card;
pub mod console;
pub mod correction;
pub mod dither;
pub mod drm;
pub mod emergence;
pub mod epaper;
pub mod fbdev;
pub mod frame;
pub mod glass;
pub mod header;
pub mod headless;
pub mod lettering;
pub mod mount;
pub mod orientation;
pub mod palette;
pub mod pixel_art;
pub mod progress_line;
pub mod raw;
pub mod scale;
pub mod scanout;
pub mod scene;
pub mod slow;
pub mod stage;
pub mod terminal;
pub mod test_card;
pub mod tft;
pub mod window;

pub use frame::Frame;
pub use glass::Glass;
pub use orientation::{Mirror, Orientation, Rotation};

/// A panel: something that shows frames.
///
/// A panel compares a frame with what its glass already shows and sends what differs, so that a
/// caller may drop frames as it likes.
pub trait Display: Send {
    /// What the panel is.
    fn info(&self) -> PanelInfo;

    /// Shows `frame`, whose size is that of [`PanelInfo::size_px`].
    ///
    /// # Errors
    ///
    /// When the panel, or the way to it, fails; the call may be repeated. After an error the next
    /// call shows the whole frame, whatever its `damage`.
    ///
    /// # Panics
    ///
    /// When the frame has another size, on a panel whose size never changes.
    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()>;

    /// Switches the glass on or off; what it showed is shown again by the next [`Self::show`].
    ///
    /// # Errors
    ///
    /// When the panel, or the way to it, fails; the call may be repeated.
    fn power(&mut self, power: Power) -> Result<()>;
}

/// What a caller must know of a panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanelInfo {
    /// As a person would call it: "ST7789 240x240".
    pub name: String,
    /// Width and height of its frames, as the viewer sees them: after the panel's rotation.
    /// Those of a window or a terminal may follow its size from one frame to the next; such a
    /// panel scales a frame of another size.
    pub size_px: [usize; 2],
    /// How often it is worth to show something.
    pub pace: Pace,
}

impl fmt::Display for PanelInfo {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How often a panel can show another frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Every frame, as fast as they come.
    Live,
    /// At most one frame in this time, steps among them: fast partial refresh.
    Every(Duration),
    /// Finished pictures only, at most one in this time.
    Finished(Duration),
}

/// Which part of a frame may differ from what the panel shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Anything may have changed; the panel finds out what did.
    Changed,
    /// The panel may show anything by now (it was off, or unplugged): send all.
    All,
}

/// Whether a panel's glass is lit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It shows frames.
    On,
    /// It is dark, or, on e-paper, its controller sleeps.
    Off,
}

/// The sides of a panel's facts: neither is 0, and together they are no larger than a picture may
/// be, so that a slip in a file does not take the memory.
fn sides(width_px: u16, height_px: u16) -> Result<[usize; 2]> {
    let sides = [width_px, height_px].map(usize::from);
    for (key, side) in [("width-px", sides[0]), ("height-px", sides[1])] {
        if !(1..=MAX_SIDE_PX).contains(&side) {
            let expected = format!("a side from 1 to {MAX_SIDE_PX}");
            return Err(Error::unexpected(key, expected, side));
        }
    }
    if sides[0] * sides[1] > MAX_PIXELS {
        return Err(Error::unexpected(
            "width-px, height-px",
            format!("at most {MAX_PIXELS} pixels"),
            format!("{width_px}x{height_px}"),
        ));
    }
    Ok(sides)
}
