//! What a panel's file says of an SPI panel: the table `[tft]`.

use serde::{Deserialize, Serialize};

use crate::display::header::Active;
use crate::display::{Glass, Mirror, Orientation, Rotation};
use crate::error::{Error, Result};

/// Faster than any of these controllers, and any header, can be.
const SPI_HZ_MAX: u32 = 125_000_000;

/// The table `[tft]` of a panel's file.
///
/// Sizes and offsets are in the controller's native orientation, GPIO in BCM numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Facts {
    /// The chip on the glass.
    pub controller: Controller,
    /// The glass's columns, before any rotation.
    pub width_px: u16,
    /// The glass's rows, before any rotation.
    pub height_px: u16,
    /// Where the glass begins in the controller's memory: column and row.
    #[serde(default)]
    pub offset_px: [u16; 2],
    /// Whether true colours need the controller's inversion (INVON): most IPS glass does.
    #[serde(default)]
    pub invert: bool,
    /// The order of the glass's subpixels.
    #[serde(default)]
    pub color_order: ColorOrder,
    /// Bits a pixel on the wire; left out, the controller's usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    /// How far the picture is turned clockwise on the native glass.
    #[serde(default)]
    pub rotation_deg: Rotation,
    /// Whether the picture is mirrored for the controller: the glass of many an ILI9341 has its
    /// first column at the viewer's right.
    #[serde(default)]
    pub mirror: Mirror,
    /// Whether only the circle inside the square is glass.
    #[serde(default)]
    pub round: bool,
    /// How eight bits become five or six.
    #[serde(default)]
    pub dither: Dither,
    /// The header's bus: "spi0".
    pub spi: String,
    /// Which of the bus's chip selects.
    #[serde(default)]
    pub chip_select: u8,
    /// The wire's clock.
    pub spi_hz: u32,
    /// 0, or 3 for a module whose chip select is tied to ground.
    #[serde(default)]
    pub spi_mode: u8,
    /// The line that tells data (high) from commands (low).
    pub dc_gpio: u32,
    /// The line that resets the controller when low, where it is wired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_gpio: Option<u32>,
    /// What lights the glass, where a program can switch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlight: Option<Backlight>,
}

/// The controllers there is a driver for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Sitronix ST7789(V), memory 240x320.
    St7789,
    /// Ilitek ILI9341, memory 240x320.
    Ili9341,
    /// Ilitek ILI9486, memory 320x480.
    Ili9486,
    /// Ilitek ILI9488, memory 320x480.
    Ili9488,
    /// Galaxycore GC9A01, memory 240x240, mostly on round glass.
    Gc9a01,
    /// Sitronix ST7735S, memory 132x162.
    St7735s,
    /// Sitronix ST7796(S), memory 320x480.
    St7796,
    /// Solomon Systech SSD1351, an OLED's, memory 128x128.
    Ssd1351,
}

spelled!(
    Controller,
    "controller",
    St7789 = "st7789",
    Ili9341 = "ili9341",
    Ili9486 = "ili9486",
    Ili9488 = "ili9488",
    Gc9a01 = "gc9a01",
    St7735s = "st7735s",
    St7796 = "st7796",
    Ssd1351 = "ssd1351",
);

/// The order of a glass's subpixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ColorOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first: if it is wrong, red and blue are swapped.
    Bgr,
}

spelled!(ColorOrder, "color-order", Rgb = "rgb", Bgr = "bgr");

/// Bits a pixel on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Two bytes: five, six and five bits.
    Rgb565,
    /// Three bytes, the upper six bits of each.
    Rgb666,
}

spelled!(Depth, "depth", Rgb565 = "rgb565", Rgb666 = "rgb666");

/// How eight bits a channel become five or six.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dither {
    /// Ordered, by an 8x8 Bayer matrix.
    #[default]
    Bayer,
    /// Rounded to the nearest.
    None,
}

spelled!(Dither, "dither", Bayer = "bayer", None = "none");

/// What lights the glass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "through",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum Backlight {
    /// A GPIO line: on or off.
    Gpio {
        /// Its BCM number.
        gpio: u32,
        /// Its level when lit.
        #[serde(default)]
        active: Active,
    },
    /// A hardware PWM output of the header.
    Pwm {
        /// Its BCM number.
        gpio: u32,
        /// Its level when lit.
        #[serde(default)]
        active: Active,
        /// How bright, from 1 to 100.
        #[serde(default = "full")]
        brightness_percent: u8,
    },
    /// A backlight that the kernel drives.
    Kernel {
        /// Its name in `/sys/class/backlight`.
        device: String,
        /// How bright, from 1 to 100.
        #[serde(default = "full")]
        brightness_percent: u8,
    },
}

fn full() -> u8 {
    100
}

impl Controller {
    /// Columns and rows of its memory, which offset and size must not leave.
    pub fn memory_px(self) -> [u16; 2] {
        match self {
            Self::St7789 | Self::Ili9341 => [240, 320],
            Self::Ili9486 | Self::Ili9488 | Self::St7796 => [320, 480],
            Self::Gc9a01 => [240, 240],
            Self::St7735s => [132, 162],
            Self::Ssd1351 => [128, 128],
        }
    }

    /// The depths that it takes over SPI, its usual one first.
    pub fn depths(self) -> &'static [Depth] {
        match self {
            Self::Ili9341 => &[Depth::Rgb565, Depth::Rgb666],
            // Over SPI neither knows 16 bits: ILI9486 datasheet section 4.3, ILI9488 datasheet
            // section 4.2. mipidsi 0.10 refuses them for the first only.
            Self::Ili9486 | Self::Ili9488 => &[Depth::Rgb666],
            Self::St7789 | Self::Gc9a01 | Self::St7735s | Self::St7796 | Self::Ssd1351 => {
                &[Depth::Rgb565]
            }
        }
    }
}

impl Facts {
    /// Whether the facts agree with each other; `place` is their file.
    ///
    /// # Errors
    ///
    /// When the glass leaves the controller's memory, the controller cannot take the depth, two
    /// purposes share a line, or a number is out of its range.
    pub fn check(&self, place: &str) -> Result<()> {
        let wrong = |key: &str, expected: &str, found: String| {
            Err(Error::unexpected(
                format!("{place}: tft.{key}"),
                expected,
                found,
            ))
        };
        let (size, offset) = ([self.width_px, self.height_px], self.offset_px);
        let memory = self.controller.memory_px();
        if size.contains(&0) || size[0] > memory[0] || size[1] > memory[1] {
            let expected = format!(
                "1x1 to {}x{}, in the {}'s native orientation",
                memory[0], memory[1], self.controller
            );
            return wrong(
                "width-px, height-px",
                &expected,
                format!("{}x{}", size[0], size[1]),
            );
        }
        let most = [memory[0] - size[0], memory[1] - size[1]];
        if offset[0] > most[0] || offset[1] > most[1] {
            let expected = format!("at most {most:?}, so that the glass lies in the memory");
            return wrong("offset-px", &expected, format!("{offset:?}"));
        }
        if !self.controller.depths().contains(&self.depth()) {
            let names: Vec<_> = self
                .controller
                .depths()
                .iter()
                .map(Depth::to_string)
                .collect();
            let expected = format!("{} for a {} on SPI", names.join(" or "), self.controller);
            return wrong("depth", &expected, self.depth().to_string());
        }
        if self.round && self.width_px != self.height_px {
            return wrong("round", "a square", format!("{}x{}", size[0], size[1]));
        }
        if self.spi_hz == 0 || self.spi_hz > SPI_HZ_MAX {
            return wrong(
                "spi-hz",
                &format!("1 to {SPI_HZ_MAX}"),
                self.spi_hz.to_string(),
            );
        }
        if ![0, 3].contains(&self.spi_mode) {
            return wrong("spi-mode", "0 or 3", self.spi_mode.to_string());
        }
        self.check_lines(&wrong)?;
        match self.backlight {
            Some(
                Backlight::Pwm {
                    brightness_percent, ..
                }
                | Backlight::Kernel {
                    brightness_percent, ..
                },
            ) if !(1..=100).contains(&brightness_percent) => wrong(
                "backlight.brightness-percent",
                "1 to 100",
                brightness_percent.to_string(),
            ),
            _ => Ok(()),
        }
    }

    fn check_lines(&self, wrong: &dyn Fn(&str, &str, String) -> Result<()>) -> Result<()> {
        let gpios = self.gpios();
        for (at, (gpio, key)) in gpios.iter().enumerate() {
            if let Some((_, other)) = gpios[..at].iter().find(|(taken, _)| taken == gpio) {
                let expected = format!("another line than {other}'s");
                return wrong(key, &expected, gpio.to_string());
            }
        }
        Ok(())
    }

    /// Bits a pixel on the wire.
    pub fn depth(&self) -> Depth {
        self.depth.unwrap_or(self.controller.depths()[0])
    }

    /// As a person would call it: "ST7789 240x240".
    pub fn name(&self) -> String {
        let controller = self.controller.to_string().to_uppercase();
        let [width, height] = self.size_px();
        format!("{controller} {width}x{height}")
    }

    /// How the glass hangs.
    pub fn orientation(&self) -> Orientation {
        Orientation {
            rotation: self.rotation_deg,
            mirror: self.mirror,
        }
    }

    /// The shape of the glass.
    pub fn glass(&self) -> Glass {
        match self.round {
            true => Glass::Round,
            false => Glass::Rectangular,
        }
    }

    /// Width and height of its frames, as the viewer sees them.
    pub fn size_px(&self) -> [usize; 2] {
        self.orientation()
            .seen([self.width_px.into(), self.height_px.into()])
    }

    /// The header's lines that it takes, in BCM numbers, and what for.
    pub fn gpios(&self) -> Vec<(u32, &'static str)> {
        let mut gpios = vec![(self.dc_gpio, "dc-gpio")];
        gpios.extend(self.reset_gpio.map(|gpio| (gpio, "reset-gpio")));
        if let Some(Backlight::Gpio { gpio, .. } | Backlight::Pwm { gpio, .. }) = self.backlight {
            gpios.push((gpio, "backlight"));
        }
        gpios
    }
}
