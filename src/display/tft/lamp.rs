//! What lights the glass: a GPIO line, a PWM output, the kernel.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use embedded_hal::digital::{OutputPin, PinState};

use super::Backlight;
use crate::display::Power;
use crate::display::header::pwm::{self, Pwm};
use crate::display::header::{Active, Header, Roots};
use crate::error::{Error, Result};

/// Something that lights the glass.
pub trait Lamp: Send {
    /// Switches the light.
    ///
    /// # Errors
    ///
    /// When the line or the kernel refuses; the call may be repeated.
    fn light(&mut self, power: Power) -> Result<()>;
}

/// A lamp on a GPIO line.
#[derive(Debug)]
pub struct Pin<P> {
    /// The line.
    pub pin: P,
    /// Its level when lit.
    pub active: Active,
}

impl<P: OutputPin<Error: fmt::Display> + Send> Lamp for Pin<P> {
    fn light(&mut self, power: Power) -> Result<()> {
        let set = self.pin.set_state(level(self.active, power));
        set.map_err(|error| Error::unexpected("backlight", "its line to work", error))
    }
}

/// A lamp on a PWM output.
struct Dimmed {
    pwm: Pwm,
    active: Active,
    percent: u8,
}

impl Lamp for Dimmed {
    fn light(&mut self, power: Power) -> Result<()> {
        let lit = match power {
            Power::On => self.percent,
            Power::Off => 0,
        };
        self.pwm.set_percent(match self.active {
            Active::High => lit,
            Active::Low => 100 - lit,
        })
    }
}

/// A lamp that the kernel drives: its folder in `/sys/class/backlight`.
struct Kernel {
    folder: PathBuf,
    percent: u8,
}

impl Lamp for Kernel {
    fn light(&mut self, power: Power) -> Result<()> {
        let path = self.folder.join("max_brightness");
        let text = fs::read_to_string(&path).map_err(|cause| Error::io(&path, "read", cause))?;
        let most: u64 = text
            .trim()
            .parse()
            .map_err(|_| Error::unexpected(path.display(), "a number", text.trim()))?;
        let brightness = match power {
            Power::On => (most * u64::from(self.percent)).div_ceil(100),
            Power::Off => 0,
        };
        pwm::write(&self.folder.join("brightness"), &brightness.to_string())
    }
}

fn level(active: Active, power: Power) -> PinState {
    PinState::from((active == Active::High) == (power == Power::On))
}

/// Opens what `facts` say, dark.
pub(super) fn open(facts: &Backlight, header: &Header, roots: &Roots) -> Result<Box<dyn Lamp>> {
    let mut lamp: Box<dyn Lamp> = match *facts {
        Backlight::Gpio { gpio, active } => Box::new(Pin {
            pin: header.open_output(roots, gpio, level(active, Power::Off), "backlight")?,
            active,
        }),
        Backlight::Pwm {
            gpio,
            active,
            brightness_percent,
        } => Box::new(Dimmed {
            pwm: header.open_pwm(roots, gpio, "backlight")?,
            active,
            percent: brightness_percent,
        }),
        Backlight::Kernel {
            ref device,
            brightness_percent,
        } => Box::new(Kernel {
            folder: find_kernels(roots, device)?,
            percent: brightness_percent,
        }),
    };
    lamp.light(Power::Off)?;
    Ok(lamp)
}

fn find_kernels(roots: &Roots, device: &str) -> Result<PathBuf> {
    let class = roots.sys.join("class/backlight");
    let entries = fs::read_dir(&class).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    if names.iter().any(|name| name == device) {
        return Ok(class.join(device));
    }
    Err(Error::unexpected(
        class.display(),
        format!("the backlight {device:?}"),
        format!("{names:?}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_level_when_lit() {
        let levels = [Active::High, Active::Low]
            .map(|active| [Power::On, Power::Off].map(|power| level(active, power)));
        let (high, low) = (PinState::High, PinState::Low);
        assert_eq!(levels, [[high, low], [low, high]]);
    }

    #[test]
    fn the_kernels_backlight_is_found_by_its_name_and_dimmed() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots {
            dev: folder.path().join("dev"),
            sys: folder.path().to_owned(),
        };
        let header: Header = toml::from_str("gpio-chip-label = 'none'").unwrap();
        let facts = |device: &str| Backlight::Kernel {
            device: device.to_owned(),
            brightness_percent: 50,
        };
        let device = folder.path().join("class/backlight/soc:backlight");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("max_brightness"), "31\n").unwrap();
        let mut lamp = open(&facts("soc:backlight"), &header, &roots).unwrap();
        let brightness = || fs::read_to_string(device.join("brightness")).unwrap();
        assert_eq!(brightness(), "0");
        lamp.light(Power::On).unwrap();
        assert_eq!(brightness(), "16");
        lamp.light(Power::Off).unwrap();
        assert_eq!(brightness(), "0");

        fs::write(device.join("max_brightness"), "?").unwrap();
        assert!(lamp.light(Power::On).is_err());
        let error = open(&facts("other"), &header, &roots)
            .err()
            .unwrap()
            .to_string();
        assert!(error.ends_with("expected the backlight \"other\", found [\"soc:backlight\"]"));
    }
}
