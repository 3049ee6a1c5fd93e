//! Screens through the old frame buffer device, /dev/fbN, where there is no DRM.
//!
//! The device says its size and where the bits of a pixel lie; rows are written to it as to a file.
//! It could be mapped into memory too, but a device that vanishes then kills the program with a
//! signal, and a small display behind SPI would not learn which rows changed. Linux's fb.h and
//! Documentation/fb/api.rst have the calls.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::ioctl::{Getter, IntegerSetter, Opcode, Updater, ioctl};
use serde::{Deserialize, Serialize};

use super::console::Console;
use super::scanout::{Behind, Packer, PixelLayout, in_the_middle};
use super::{Damage, Display, Frame, Mirror, Orientation, Pace, PanelInfo, Power, Rotation};
use crate::error::{Error, Result};

mod geometry;

pub use geometry::{FixedInfo, Geometry, VariableInfo};

/// linux/fb.h.
const FBIOGET_VSCREENINFO: Opcode = 0x4600;
const FBIOPUT_VSCREENINFO: Opcode = 0x4601;
const FBIOGET_FSCREENINFO: Opcode = 0x4602;
const FBIOBLANK: Opcode = 0x4611;
const FB_BLANK_UNBLANK: usize = 0;
const FB_BLANK_POWERDOWN: usize = 4;

/// What is known of a screen behind a frame buffer device; size and pixels it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Facts {
    /// The device, by default "/dev/fb0".
    pub device: PathBuf,
    /// How far the picture is turned clockwise on the screen.
    pub rotation_deg: Rotation,
    /// Whether the picture is mirrored.
    pub mirror: Mirror,
    /// Whether the device's word on red and blue is to be believed.
    pub color_order: ColorOrder,
}

/// Which colour a device's "red" is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ColorOrder {
    /// Red.
    #[default]
    AsReported,
    /// Blue: some firmware's simple frame buffers have it wrong.
    Swapped,
}

spelled!(
    ColorOrder,
    "color-order",
    AsReported = "as-reported",
    Swapped = "swapped",
);

impl Default for Facts {
    fn default() -> Self {
        Self {
            device: "/dev/fb0".into(),
            rotation_deg: Rotation::default(),
            mirror: Mirror::default(),
            color_order: ColorOrder::default(),
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

/// A screen behind a frame buffer device.
///
/// A device that was taken away and came back may have another size: [`Display::info`] then changes
/// in a `show`, and a frame that was drawn for the size before is shown in the middle.
pub struct Fbdev {
    facts: Facts,
    /// `None` after a fault, until the next frame opens it again.
    device: Option<Device>,
    name: String,
    native_px: [usize; 2],
    power: Power,
    console: Console,
}

struct Device {
    file: File,
    geometry: Geometry,
    packer: Packer,
    behind: Behind,
}

impl Fbdev {
    /// Opens the device, wakes it, and hides the text console.
    ///
    /// # Errors
    ///
    /// When there is no such device, when this user may not open it, or when its pixels are not 16,
    /// 24 or 32 bits of red, green and blue.
    pub fn open(facts: Facts) -> Result<Self> {
        let (device, name) = Device::open(&facts)?;
        Ok(Self {
            name,
            native_px: device.geometry.size_px,
            device: Some(device),
            facts,
            power: Power::On,
            console: Console::hide(),
        })
    }

    /// Whether the text console is hidden, or why not.
    pub fn console(&self) -> &Console {
        &self.console
    }

    fn present(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        let device = match &mut self.device {
            Some(device) => device,
            None => {
                let (device, name) = Device::open(&self.facts)?;
                (self.name, self.native_px) = (name, device.geometry.size_px);
                self.device.insert(device)
            }
        };
        device.show(frame, damage, &self.facts)
    }
}

impl Display for Fbdev {
    fn info(&self) -> PanelInfo {
        PanelInfo {
            name: self.name.clone(),
            size_px: self.facts.orientation().seen(self.native_px),
            pace: Pace::Live,
        }
    }

    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        if self.power == Power::Off {
            return Ok(());
        }
        let result = self.present(frame, damage);
        if result.is_err() {
            self.device = None;
        }
        result
    }

    fn power(&mut self, power: Power) -> Result<()> {
        self.power = power;
        let Some(device) = &mut self.device else {
            return Ok(());
        };
        device.behind.forget();
        let result = match power {
            Power::On => {
                device.wake();
                Ok(())
            }
            Power::Off => device.darken(&self.facts),
        };
        if result.is_err() {
            self.device = None;
        }
        result
    }
}

impl Device {
    fn open(facts: &Facts) -> Result<(Self, String)> {
        let path = &facts.device;
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|cause| unopened(facts, cause))?;
        wake(&file);
        let unknown = |cause| Error::io(path, "ask for the size of", cause);
        // Asked after waking: a driver may have changed what it was told.
        let variable = variable(&file).map_err(unknown)?;
        let fixed = fixed(&file).map_err(unknown)?;
        let geometry = Geometry::new(&path.display().to_string(), &fixed, &variable)?;
        let name = fixed.name();
        let [width, height] = geometry.size_px;
        let bits = 8 * geometry.layout.bytes;
        let name = format!("{name} {width}x{height}, {bits} bits ({})", path.display());
        Ok((Self::new(file, geometry, facts), name))
    }

    /// Draws into any file of that geometry.
    fn new(file: File, geometry: Geometry, facts: &Facts) -> Self {
        let PixelLayout {
            bytes,
            red,
            green,
            blue,
        } = geometry.layout;
        let layout = match facts.color_order {
            ColorOrder::AsReported => geometry.layout,
            ColorOrder::Swapped => PixelLayout {
                bytes,
                red: blue,
                green,
                blue: red,
            },
        };
        Self {
            file,
            packer: Packer::new(layout),
            behind: Behind::new(1, facts.orientation(), geometry.size_px),
            geometry,
        }
    }

    fn show(&mut self, frame: &Frame, damage: Damage, facts: &Facts) -> Result<()> {
        if damage == Damage::All {
            self.behind.forget();
        }
        let native_px = self.geometry.size_px;
        let frame = &*in_the_middle(frame, facts.orientation().seen(native_px));
        if !self.behind.note(frame) {
            return Ok(());
        }
        let behind = self.behind.take(0);
        let row_bytes = self.packer.row_bytes(native_px[0]);
        // Where rows follow each other without a gap, several are one write.
        let gapless = self.geometry.pitch == row_bytes;
        let [least, most] = if gapless { [2, 64] } else { [1, 1] };
        let mut bytes = Vec::new();
        for (start, end) in runs(behind, native_px[1], least, most) {
            bytes.resize(row_bytes * (end - start), 0);
            for (y, row) in (start..end).zip(bytes.chunks_exact_mut(row_bytes)) {
                self.packer
                    .write_row(frame, facts.orientation(), native_px, y, row);
            }
            self.file
                .write_all_at(&bytes, self.geometry.row_start(start))
                .map_err(|cause| Error::io(&facts.device, "write", cause))?;
        }
        Ok(())
    }

    fn wake(&self) {
        wake(&self.file);
    }

    /// Switches the screen off, or, where the driver cannot, makes it black.
    fn darken(&mut self, facts: &Facts) -> Result<()> {
        if blank(&self.file, FB_BLANK_POWERDOWN).is_ok() {
            return Ok(());
        }
        let [width, height] = facts.orientation().seen(self.geometry.size_px);
        let result = self.show(&Frame::new(width, height), Damage::All, facts);
        self.behind.forget();
        result
    }
}

/// Joins neighbours among `rows`, which are in order, into runs of `least` to `most` of the
/// `height` rows that there are; a run that would be too short takes rows along that need not be
/// written. A run is its first row and the one after its last.
///
/// Runs of one row are to be avoided: for a write of exactly one whole row the kernel's DRM drivers
/// work out that nothing is to be sent to the screen (drm_fb_helper_memory_range_to_clip takes the
/// end of the row, modulo its length, for column 0; seen with 6.1).
fn runs(
    rows: impl Iterator<Item = usize>,
    height: usize,
    least: usize,
    most: usize,
) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for row in rows {
        match runs.last_mut() {
            Some((_, end)) if *end > row => {}
            Some((start, end)) if *end == row && row - *start < most => *end += 1,
            _ => {
                let end = (row + least).min(height);
                runs.push((end.saturating_sub(least), end));
            }
        }
    }
    runs
}

/// Sets the mode that is set already, by force, and switches the screen on: where no text console
/// is on this device nobody has done so, and it would stay dark. A driver may know neither call; it
/// has no need of them then.
fn wake(file: &File) {
    if let Ok(variable) = variable(file) {
        let mut by_force = variable.activated_by_force();
        // SAFETY: FBIOPUT_VSCREENINFO reads one fb_var_screeninfo and writes it back, and that is
        // what VariableInfo is.
        let _ = unsafe {
            let put = Updater::<FBIOPUT_VSCREENINFO, VariableInfo>::new(&mut by_force);
            ioctl(file, put)
        };
    }
    let _ = blank(file, FB_BLANK_UNBLANK);
}

fn blank(file: &File, how: usize) -> io::Result<()> {
    // SAFETY: FBIOBLANK takes an integer, no pointer.
    Ok(unsafe { ioctl(file, IntegerSetter::<FBIOBLANK>::new_usize(how)) }?)
}

fn variable(file: &File) -> io::Result<VariableInfo> {
    // SAFETY: FBIOGET_VSCREENINFO writes one fb_var_screeninfo, and that is what VariableInfo is.
    Ok(unsafe { ioctl(file, Getter::<FBIOGET_VSCREENINFO, VariableInfo>::new()) }?)
}

fn fixed(file: &File) -> io::Result<FixedInfo> {
    // SAFETY: FBIOGET_FSCREENINFO writes one fb_fix_screeninfo, and that is what FixedInfo is.
    Ok(unsafe { ioctl(file, Getter::<FBIOGET_FSCREENINFO, FixedInfo>::new()) }?)
}

fn unopened(facts: &Facts, cause: io::Error) -> Error {
    let place = facts.device.display();
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            let expected = "the right to open it (sudo usermod -aG video USER, and log in again)";
            Error::unexpected(place, expected, "permission denied")
        }
        io::ErrorKind::NotFound => {
            let expected = "a frame buffer device (ls /dev/fb* shows which there are)";
            Error::unexpected(place, expected, "no such device")
        }
        _ => Error::io(&facts.device, "open", cause),
    }
}

#[cfg(test)]
mod tests;
