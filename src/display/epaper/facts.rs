//! What is known of an e-paper panel and of its wires.

use serde::{Deserialize, Serialize};

use crate::display::dither::{Dither, Look, Scan};
use crate::display::header::Active;
use crate::display::orientation::{Mirror, Orientation, Rotation};
use crate::display::palette::Palette;
use crate::error::{Error, Result};

use super::script::Script;
use super::{el133uf1, seven_three, uc8179};

/// What is known of one e-paper panel and of its wires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Facts {
    /// The controller, and whose commands it is brought up with.
    pub controller: Controller,
    /// Pixels in a native row; a multiple of eight.
    pub width_px: usize,
    /// Native rows.
    pub height_px: usize,
    /// How far the picture is turned clockwise into native rows.
    #[serde(default)]
    pub rotation_deg: Rotation,
    /// Whether the viewer's left and right are swapped.
    #[serde(default)]
    pub mirror: Mirror,
    /// The header's SPI bus: "spi0".
    pub spi: String,
    /// The bus's device, which is also the chip select that the kernel drives.
    pub chip_select: u8,
    /// The GPIOs that select each controller in turn, low for selected, where the board's maker
    /// wired them so; the kernel must leave them alone (dtoverlay=spi0-0cs).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub select_gpios: Vec<u32>,
    /// High for data, low for a command.
    pub dc_gpio: u32,
    /// Low resets the controller.
    pub reset_gpio: u32,
    /// Says that the controller works.
    pub busy_gpio: u32,
    /// The level of `busy-gpio` while the controller works.
    pub busy_level: Active,
    /// Whether the header must pull `busy-gpio`, towards idle.
    #[serde(default)]
    pub busy_bias: Bias,
    /// High powers the panel, where its board has such a switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_gpio: Option<u32>,
    /// The clock of the bus.
    pub spi_hz: u32,
    /// How the tones between the inks are made.
    #[serde(default)]
    pub dither: Dither,
    /// Whether error diffusion turns round at each row's end, which breaks up its worms.
    #[serde(default = "yes")]
    pub serpentine: bool,
    /// 0 is grey, 1 as painted, at most 4; small gamuts look better above 1.
    #[serde(default = "one")]
    pub saturation: f32,
    /// The strength of the S-curve through the tones: -1 to 1, 0 for none.
    #[serde(default)]
    pub contrast: f32,
    /// The longest a refresh may take before the panel counts as broken.
    pub busy_s_max: u32,
    /// The shortest time between two refreshes.
    pub refresh_s_min: u32,
    /// How many partial refreshes may come between two full ones; 0, the default, means that
    /// every refresh is full.
    #[serde(default)]
    pub partial_refreshes_max: u32,
    /// The inks.
    pub palette: Palette,
}

impl Facts {
    /// How the picture hangs on the panel.
    pub fn orientation(&self) -> Orientation {
        Orientation {
            rotation: self.rotation_deg,
            mirror: self.mirror,
        }
    }

    /// How a picture is made to look.
    pub fn look(&self) -> Look {
        Look {
            dither: self.dither,
            scan: if self.serpentine {
                Scan::Serpentine
            } else {
                Scan::Raster
            },
            saturation: self.saturation,
            contrast: self.contrast,
        }
    }

    /// Whether the facts can all be true.
    ///
    /// # Errors
    ///
    /// When a value is out of its range, or not one its controller knows.
    pub fn check(&self) -> Result<()> {
        let script = self.controller.script();
        let controller = self.controller;
        let [width_px, height_px] = script.size_px;
        let size_px = [self.width_px, self.height_px];
        for (key, expected, found) in [
            ("width-px", width_px, size_px[0]),
            ("height-px", height_px, size_px[1]),
        ] {
            if expected != found {
                let expected = format!("{expected}, what {controller} drives");
                return Err(Error::unexpected(key, expected, found));
            }
        }
        if self.select_gpios.len() != script.chips
            && (script.chips, self.select_gpios.len()) != (1, 0)
        {
            let expected = format!(
                "a GPIO for each controller of {controller}: {}",
                script.chips
            );
            return Err(Error::unexpected(
                "select-gpios",
                expected,
                self.select_gpios.len(),
            ));
        }
        let stranger = |index: &u8| !script.inks.contains(index);
        let inks = self.palette.inks();
        if let Some(ink) = inks.iter().find(|ink| stranger(&ink.index)) {
            let expected = format!("an ink that {controller} has: {:?}", script.inks);
            return Err(Error::unexpected(
                "palette",
                expected,
                format!("{} as {}", ink.name, ink.index),
            ));
        }
        if !(0.0..=4.0).contains(&self.saturation) {
            return Err(Error::unexpected("saturation", "0 to 4", self.saturation));
        }
        if !(-1.0..=1.0).contains(&self.contrast) {
            return Err(Error::unexpected("contrast", "-1 to 1", self.contrast));
        }
        if self.busy_s_max == 0 {
            return Err(Error::unexpected("busy-s-max", "at least 1", 0));
        }
        if self.partial_refreshes_max > 0 && script.partial.is_none() {
            let expected = format!("0, for {controller} refreshes in full");
            return Err(Error::unexpected(
                "partial-refreshes-max",
                expected,
                self.partial_refreshes_max,
            ));
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}

fn one() -> f32 {
    1.0
}

/// A controller, and whose commands bring it up where makers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// UC8179: black and white, full or partial refresh (Waveshare 7.5" V2).
    Uc8179,
    /// UC8179 with four greys (Waveshare 7.5" V2 sold after 2023-10-24).
    Uc8179Grey,
    /// UC8179 with black, white and red (Waveshare 7.5" B V2 and V3).
    Uc8179Red,
    /// Seven colours, as Waveshare's 7.3" F brings them up.
    Gdey073d46,
    /// Seven colours, as Pimoroni's Inky Impression 7.3" of 2023 brings them up.
    Ac073tc1a,
    /// Spectra 6, as Waveshare's 7.3" E brings it up.
    Gdep073e01,
    /// Spectra 6, as Pimoroni's Inky Impression 7.3" of 2025 brings it up.
    E673,
    /// Spectra 6 at 13.3", two controllers side by side (Inky Impression 13.3").
    El133uf1,
}

spelled!(
    Controller,
    "controller",
    Uc8179 = "uc8179",
    Uc8179Grey = "uc8179-grey",
    Uc8179Red = "uc8179-red",
    Gdey073d46 = "gdey073d46",
    Ac073tc1a = "ac073tc1a",
    Gdep073e01 = "gdep073e01",
    E673 = "e673",
    El133uf1 = "el133uf1",
);

impl Controller {
    /// What it must be told.
    pub(super) fn script(self) -> &'static Script {
        match self {
            Self::Uc8179 => &uc8179::BLACK_WHITE,
            Self::Uc8179Grey => &uc8179::GREYS,
            Self::Uc8179Red => &uc8179::RED,
            Self::Gdey073d46 => &seven_three::GDEY073D46,
            Self::Ac073tc1a => &seven_three::AC073TC1A,
            Self::Gdep073e01 => &seven_three::GDEP073E01,
            Self::E673 => &seven_three::E673,
            Self::El133uf1 => &el133uf1::EL133UF1,
        }
    }
}

/// Whether the header pulls a line that nothing drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bias {
    /// It does not.
    #[default]
    None,
    /// Up.
    PullUp,
    /// Down.
    PullDown,
}

spelled!(
    Bias,
    "bias",
    None = "none",
    PullUp = "pull-up",
    PullDown = "pull-down"
);

impl Bias {
    /// As the kernel is asked for it.
    pub(super) fn of_line(self) -> Option<gpiocdev::line::Bias> {
        match self {
            Self::None => None,
            Self::PullUp => Some(gpiocdev::line::Bias::PullUp),
            Self::PullDown => Some(gpiocdev::line::Bias::PullDown),
        }
    }
}
