//! GPIO lines of the header, found by their chip's label.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use embedded_hal::digital::PinState;
use gpiocdev::Request;
use gpiocdev::chip::Chip;
use gpiocdev::line::{Bias, Offset, Value};
use gpiocdev_embedded_hal::{InputPin, OutputPin};

use super::{Header, Roots, not_allowed};
use crate::error::{Error, Result};

/// Whom the kernel names as the user of our lines.
const CONSUMER: &str = "driftglass";

/// A line of a chip.
struct Line {
    chip: Chip,
    offset: Offset,
    /// "dc-gpio (GPIO 25)": how a sentence calls it.
    place: String,
}

impl Header {
    /// Takes BCM `gpio` as an output at `level`; `purpose` is its key in the panel's file.
    ///
    /// # Errors
    ///
    /// When the chip is not there or not this user's, or the line is taken, and by whom.
    pub fn open_output(
        &self,
        roots: &Roots,
        gpio: u32,
        level: PinState,
        purpose: &str,
    ) -> Result<OutputPin> {
        let line = self.find_line(roots, gpio, purpose)?;
        let value = match level {
            PinState::High => Value::Active,
            PinState::Low => Value::Inactive,
        };
        line.request(Request::builder().as_output(value))
            .and_then(|request| OutputPin::try_from(request).map_err(|error| line.refused(error)))
    }

    /// Takes BCM `gpio` as an input with `bias`; `purpose` is its key in the panel's file.
    ///
    /// # Errors
    ///
    /// As [`Self::open_output`].
    pub fn open_input(
        &self,
        roots: &Roots,
        gpio: u32,
        bias: Option<Bias>,
        purpose: &str,
    ) -> Result<InputPin> {
        let line = self.find_line(roots, gpio, purpose)?;
        line.request(Request::builder().as_input().with_bias(bias))
            .and_then(|request| InputPin::try_from(request).map_err(|error| line.refused(error)))
    }

    /// Who uses BCM `gpio` now, if anybody does: a program's or a driver's own name for it.
    ///
    /// # Errors
    ///
    /// As [`Self::open_output`], except that a line in use is no error.
    pub fn line_user(&self, roots: &Roots, gpio: u32, purpose: &str) -> Result<Option<String>> {
        let line = self.find_line(roots, gpio, purpose)?;
        let info = line.chip.line_info(line.offset);
        let info = info.map_err(|error| Error::unexpected(&line.place, "a line", error))?;
        Ok(info.used.then_some(info.consumer))
    }

    fn find_line(&self, roots: &Roots, gpio: u32, purpose: &str) -> Result<Line> {
        let place = format!("{purpose} (GPIO {gpio})");
        let chips = open_chips(roots, &place)?;
        let Some(name) = self.gpio_lines.get(&gpio) else {
            let chip = by_label(chips, &self.gpio_chip_label, gpio, &place)?;
            return Ok(Line {
                chip,
                offset: gpio,
                place,
            });
        };
        let mut chips = chips.into_iter();
        let found = chips.find_map(|chip| chip.find_line_info(name).map(|info| (chip, info)));
        let (chip, info) = found.ok_or_else(|| {
            let expected = format!("a GPIO line named {name:?}");
            Error::unexpected(&place, expected, "no chip with such a line")
        })?;
        Ok(Line {
            chip,
            offset: info.offset,
            place,
        })
    }
}

impl Line {
    fn request(&self, builder: &mut gpiocdev::request::Builder) -> Result<Request> {
        builder
            .on_chip(self.chip.path())
            .with_line(self.offset)
            .with_consumer(CONSUMER)
            .request()
            .map_err(|error| self.refused(error))
    }

    /// A refusal, which for a line in use means: by whom.
    fn refused(&self, error: impl std::fmt::Display) -> Error {
        let used = self
            .chip
            .line_info(self.offset)
            .ok()
            .filter(|info| info.used);
        let found = match used {
            Some(info) if info.consumer.is_empty() => "it taken by the kernel".to_owned(),
            Some(info) => format!(
                "it taken by {:?}; stop that program, or remove the overlay that claims the pin",
                info.consumer
            ),
            None => error.to_string(),
        };
        Error::unexpected(&self.place, "a free line", found)
    }
}

/// Every GPIO chip that can be opened.
fn open_chips(roots: &Roots, place: &str) -> Result<Vec<Chip>> {
    let mut chips = Vec::new();
    let mut refused = None;
    for path in chip_paths(&roots.dev) {
        match open_chip(&path) {
            Ok(chip) => chips.push(chip),
            Err(error) => refused = Some(error),
        }
    }
    match (chips.is_empty(), refused) {
        (false, _) => Ok(chips),
        (true, Some(error)) => Err(error),
        (true, None) => Err(Error::unexpected(
            place,
            format!("a GPIO chip {}", roots.dev.join("gpiochip*").display()),
            "none; this kernel has no GPIO character devices",
        )),
    }
}

fn open_chip(path: &Path) -> Result<Chip> {
    // The crate's own error would not say that it was the permission.
    match fs::File::open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Error::unexpected(
                path.display(),
                "a GPIO chip to open",
                not_allowed("gpio"),
            ));
        }
        Err(cause) => return Err(Error::io(path, "open", cause)),
        Ok(_) => {}
    }
    Chip::from_path(path).map_err(|error| Error::unexpected(path.display(), "a GPIO chip", error))
}

/// The chip with this label, which must have a line `gpio`.
fn by_label(chips: Vec<Chip>, label: &str, gpio: u32, place: &str) -> Result<Chip> {
    let mut others = Vec::new();
    for chip in chips {
        match chip.info() {
            Ok(info) if info.label == label && gpio < info.num_lines => return Ok(chip),
            Ok(info) if info.label == label => {
                let expected = format!("a line of {label}, 0 to {}", info.num_lines - 1);
                return Err(Error::unexpected(place, expected, gpio));
            }
            Ok(info) => others.push(info.label),
            Err(_) => {}
        }
    }
    let expected = format!("a GPIO chip labelled {label:?}");
    Err(Error::unexpected(place, expected, format!("{others:?}")))
}

fn chip_paths(dev: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dev).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("gpiochip"))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::super::tests::{header, roots};
    use super::*;

    #[test]
    fn a_missing_chip_is_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let open = || {
            let opened = header().open_output(&roots, 25, PinState::Low, "dc-gpio");
            opened.unwrap_err().to_string()
        };
        let none = open();
        assert!(
            none.starts_with("dc-gpio (GPIO 25): expected a GPIO chip "),
            "{none}"
        );
        assert!(none.contains("gpiochip*, found none"), "{none}");
        fs::write(roots.dev.join("gpiochip0"), "no device").unwrap();
        let file = open();
        assert!(
            file.contains("gpiochip0: expected a GPIO chip, found"),
            "{file}"
        );
    }
}
