//! The board's 40-pin header, as a driver needs it: SPI buses, GPIO lines, PWM.
//!
//! A panel's file counts GPIO by the header's BCM numbers and names an SPI bus "spi0"; the board's
//! file says, in its table `[header]`, what its kernel calls them. Nothing here knows a board. What
//! is missing is said in a sentence with the line that mends it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod gpio;
pub mod pwm;
pub mod spi;

/// What a board's kernel calls its header: the table `[header]` of a board's file.
///
/// # Example
///
/// ```
/// let header: driftglass::display::header::Header = toml::from_str(
///     r#"
///     gpio-chip-label = "pinctrl-bcm2711"
///     spi.spi0 = { bus = 0, enable = "dtparam=spi=on in /boot/firmware/config.txt" }
///     pwm.13 = { device = "fe20c000.pwm", channel = 1, enable = "dtoverlay=pwm,pin=13,func=4" }
///     "#,
/// )?;
/// assert_eq!(header.spi["spi0"].bus, 0);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Header {
    /// The label of the GPIO chip whose line n is the header's BCM GPIO n: "pinctrl-bcm2711". The
    /// chip's number is no fact, it moves between kernels.
    pub gpio_chip_label: String,
    /// Where line n of the chip is not BCM GPIO n (a Jetson): the line's name by BCM number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpio_lines: BTreeMap<u32, String>,
    /// The SPI buses, by the names that panels use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spi: BTreeMap<String, SpiBus>,
    /// The hardware PWM outputs, by BCM number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pwm: BTreeMap<u32, PwmOutput>,
}

/// An SPI bus of the header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SpiBus {
    /// N in `/dev/spidevN.M`; M is the panel's chip select.
    pub bus: u32,
    /// What switches it on, for the sentence that says it is off.
    pub enable: String,
}

/// A GPIO of the header that can be a hardware PWM output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PwmOutput {
    /// The device that carries it, as `/sys/class/pwm/pwmchipN/device` ends: "fe20c000.pwm". N is
    /// no fact, it moves between kernels.
    pub device: String,
    /// The channel of that chip.
    pub channel: u32,
    /// What switches it on, for the sentence that says it is off.
    pub enable: String,
}

/// The user of a device file lacks its group.
fn not_allowed(group: &str) -> impl fmt::Display {
    format!(
        "no permission; join its group (sudo usermod -aG {group} USER) and log in again, or run as \
         a user who is in it"
    )
}

/// Whether a line counts as active when it is high or when it is low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Active {
    /// At the supply's level.
    #[default]
    High,
    /// At ground.
    Low,
}

spelled!(Active, "active", High = "high", Low = "low");

/// Where the kernel's devices are found: `/dev` and `/sys`, or a test's folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// `/dev`.
    pub dev: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            dev: "/dev".into(),
            sys: "/sys".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    pub(super) fn header() -> Header {
        let text = r#"
            gpio-chip-label = "pinctrl-bcm2711"
            spi.spi0 = { bus = 0, enable = "dtparam=spi=on" }
            spi.spi1 = { bus = 1, enable = "dtoverlay=spi1-3cs" }
            pwm.13 = { device = "fe20c000.pwm", channel = 1, enable = "dtoverlay=pwm,pin=13,func=4" }
        "#;
        toml::from_str(text).unwrap()
    }

    /// Empty `dev` and `sys` in `folder`.
    pub(super) fn roots(folder: &Path) -> Roots {
        let roots = Roots {
            dev: folder.join("dev"),
            sys: folder.join("sys"),
        };
        std::fs::create_dir(&roots.dev).unwrap();
        std::fs::create_dir(&roots.sys).unwrap();
        roots
    }

    #[test]
    fn a_misspelled_fact_is_refused() {
        let text = "gpio-chip-label = 'a'\nspi.spi0 = { bus = 0, enable = '', cs = 1 }";
        let error = toml::from_str::<Header>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `cs`"), "{error}");
    }
}
