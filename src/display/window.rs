//! A window on a desktop or under a kiosk compositor.
//!
//! The desktop's events are handled by a thread of their own, which all windows of the process
//! share: showing a frame hands it over and never waits for the desktop. What its user asks for
//! comes as [`Key`]s through a channel, and the caller decides what they mean.
//!
//! A desktop that goes away is an error of the next frame, and no window can be opened again in
//! this process, because winit allows one event loop in its life; libX11 may even end the process.
//! Whoever supervises it starts it again.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::{Damage, Display, Frame, Mirror, Orientation, Pace, PanelInfo, Power, Rotation};
use crate::error::{Error, Result};
use crate::picture::Picture;

#[cfg(not(all(feature = "window", target_os = "linux")))]
#[path = "window/absent.rs"]
mod desktop;
#[cfg(all(feature = "window", target_os = "linux"))]
mod desktop;
#[cfg(all(feature = "window", target_os = "linux"))]
mod scaling;

/// What a window looks like.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Facts {
    /// What its title bar says.
    pub title: String,
    /// The width of its frames as the window counts pixels, from 1. With neither side, frames are
    /// as large as the window.
    pub width_px: Option<u16>,
    /// The height of its frames, from 1.
    pub height_px: Option<u16>,
    /// How a frame is brought to the window's size.
    pub scaling: Scaling,
    /// Whether it opens over the whole screen; F and F11 change that.
    pub full_screen: bool,
    /// How far the picture is turned clockwise, for a screen that hangs on its side.
    pub rotation_deg: Rotation,
    /// Of the picture, before it is turned.
    pub mirror: Mirror,
}

impl Default for Facts {
    /// Frames as large as the window.
    fn default() -> Self {
        Self {
            title: "driftglass".to_owned(),
            width_px: None,
            height_px: None,
            scaling: Scaling::default(),
            full_screen: false,
            rotation_deg: Rotation::default(),
            mirror: Mirror::default(),
        }
    }
}

/// How a frame is brought to the window's size; what remains is black.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// Enlarged by the largest whole number that fits: every pixel a square.
    #[default]
    Integer,
    /// As large as fits, its pixels blended into each other.
    Smooth,
}

spelled!(Scaling, "scaling", Integer = "integer", Smooth = "smooth");

/// What somebody in front of the window asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The next picture: space, the right arrow or N.
    Next,
    /// To pause, or to go on: P.
    Pause,
    /// The window was closed: Escape, Q, or its own button. It shows nothing from now on.
    Close,
}

/// A window that shows frames.
///
/// F and F11 bring it over the whole screen and back. Without `width-px` and `height-px` its
/// frames are as large as it is itself, so that [`Display::info`] is to be asked for each frame;
/// one of another size is scaled.
#[derive(Debug)]
pub struct Window {
    name: String,
    orientation: Orientation,
    /// The size of frames, as the viewer sees them, where it does not follow the window's.
    fixed_px: Option<[usize; 2]>,
    client: desktop::Client,
    shown: Option<Arc<Picture>>,
}

impl Window {
    /// Opens the window; it is black until the first frame. `env` gives environment variables:
    /// `WAYLAND_DISPLAY` and `DISPLAY` say where the desktop is.
    ///
    /// # Errors
    ///
    /// When there is no desktop, or it allows no window within ten seconds, or only one side is
    /// given. The call may be repeated.
    pub fn open(
        facts: &Facts,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Receiver<Key>)> {
        let orientation = Orientation {
            rotation: facts.rotation_deg,
            mirror: facts.mirror,
        };
        let fixed_px = match (facts.width_px, facts.height_px) {
            (Some(width_px), Some(height_px)) => Some(super::sides(width_px, height_px)?),
            (None, None) => None,
            _ => {
                let expected = "both sides or neither";
                return Err(Error::unexpected("width-px, height-px", expected, "one"));
            }
        };
        let (client, keys) = desktop::Client::open(facts, env)?;
        let window = Self {
            name: format!("window \"{}\"", facts.title),
            orientation,
            fixed_px: fixed_px.map(|size| orientation.seen(size)),
            client,
            shown: None,
        };
        Ok((window, keys))
    }

    fn turned(&self, frame: &Frame) -> Picture {
        if self.orientation == Orientation::default() {
            return Picture::from(frame);
        }
        // What is seen of the native size is the frame's, and the other way round.
        let native_px @ [width, height] = self.orientation.seen(frame.size_px());
        let places = (0..height).flat_map(|y| (0..width).map(move |x| [x, y]));
        let pixels = places.flat_map(|place| {
            let [x, y] = self.orientation.source(place, native_px);
            frame.pixel(x, y)
        });
        Picture::new(width, height, pixels.collect())
    }
}

impl Display for Window {
    fn info(&self) -> PanelInfo {
        let size_px = self
            .fixed_px
            .unwrap_or_else(|| self.orientation.seen(self.client.size_px()));
        PanelInfo {
            name: self.name.clone(),
            size_px,
            pace: Pace::Live,
        }
    }

    /// Hands the frame to the window's thread; an error tells of an earlier frame, or that the
    /// window is closed.
    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        if let Some(size_px) = self.fixed_px {
            assert_eq!(frame.size_px(), size_px, "the frame's size");
        }
        let picture = self.turned(frame);
        let before = self.shown.take().filter(|_| damage == Damage::Changed);
        let picture = match before {
            Some(before) if *before == picture => before,
            _ => Arc::new(picture),
        };
        self.client.show(Some(&picture))?;
        self.shown = Some(picture);
        Ok(())
    }

    /// Off is a black window.
    fn power(&mut self, power: Power) -> Result<()> {
        match power {
            Power::On => Ok(()),
            Power::Off => {
                self.shown = None;
                self.client.show(None)
            }
        }
    }
}
