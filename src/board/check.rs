//! Whether a panel can be wired to a board: pins, buses, sizes.

use std::collections::BTreeMap;

use super::Board;
use super::panel::{Facts, Panel};
use crate::display::header::Header;
use crate::display::tft::Backlight;
use crate::error::{Error, Result};

/// The highest BCM number on a 40-pin header.
const MAX_GPIO: u32 = 27;

/// The two pins that a header keeps for the memory by which a HAT tells its name.
const HAT_MEMORY_GPIOS: [u32; 2] = [0, 1];

/// The pins of an SPI bus, in BCM numbers.
struct BusPins {
    name: &'static str,
    clock: u32,
    /// From the board to the panel; panels do not answer, so the way back is a free pin.
    data: u32,
    selects: &'static [u32],
}

/// The buses of a 40-pin header, by the Raspberry Pi's numbers; the first one lies on the same pins
/// on every board with such a header.
const BUSES: &[BusPins] = &[
    BusPins {
        name: "spi0",
        clock: 11,
        data: 10,
        selects: &[8, 7],
    },
    BusPins {
        name: "spi1",
        clock: 21,
        data: 20,
        selects: &[18, 17, 16],
    },
];

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The panel can be wired to the board.
    Fits,
    /// It cannot, and no file is wrong: the reason.
    Impossible(String),
}

/// The wires of a panel.
pub(super) struct Wires<'a> {
    pub spi: &'a str,
    /// The bus's device, and the chip select that its kernel drives.
    pub chip_select: u8,
    /// Whether the panel is selected by pins of its own, and the kernel leaves its one alone.
    pub selects_itself: bool,
    /// Pins in BCM numbers, and what for.
    pub gpios: Vec<(u32, &'static str)>,
    /// The pin of the header's hardware PWM.
    pub pwm: Option<u32>,
}

/// Whether `panel` can be wired to `board`.
///
/// # Errors
///
/// When the panel's file is wrong whatever the board, or does not fit this one: a pin that is not
/// there or taken twice, a bus that is not there, glass outside its controller's memory.
pub fn check(board: &Board, panel: &Panel) -> Result<Verdict> {
    match &panel.facts {
        Facts::Tft(tft) => tft.check(&panel.name)?,
        Facts::Epaper(paper) => paper.check()?,
        _ => {}
    }
    let Some(wires) = Wires::of(&panel.facts) else {
        return Ok(Verdict::Fits);
    };
    wires.check(&panel.name)?;
    match board.header() {
        Ok(header) => wires.check_on(header, &board.name, &panel.name),
        Err(error) => Ok(Verdict::Impossible(error.to_string())),
    }
}

impl<'a> Wires<'a> {
    pub(super) fn of(facts: &'a Facts) -> Option<Self> {
        match facts {
            Facts::Tft(tft) => Some(Self {
                spi: &tft.spi,
                chip_select: tft.chip_select,
                selects_itself: false,
                gpios: tft.gpios(),
                pwm: match tft.backlight {
                    Some(Backlight::Pwm { gpio, .. }) => Some(gpio),
                    _ => None,
                },
            }),
            Facts::Epaper(paper) => {
                let mut gpios = vec![
                    (paper.dc_gpio, "dc-gpio"),
                    (paper.reset_gpio, "reset-gpio"),
                    (paper.busy_gpio, "busy-gpio"),
                ];
                let selects = paper.select_gpios.iter();
                gpios.extend(selects.map(|gpio| (*gpio, "select-gpios")));
                gpios.extend(paper.power_gpio.map(|gpio| (gpio, "power-gpio")));
                Some(Self {
                    spi: &paper.spi,
                    chip_select: paper.chip_select,
                    selects_itself: !paper.select_gpios.is_empty(),
                    gpios,
                    pwm: None,
                })
            }
            _ => None,
        }
    }

    /// What holds on any header.
    fn check(&self, panel: &str) -> Result<()> {
        let bus = BUSES.iter().find(|bus| bus.name == self.spi);
        let Some(bus) = bus else {
            let known: Vec<_> = BUSES.iter().map(|bus| bus.name).collect();
            let place = format!("{panel}: spi");
            return Err(Error::unexpected(
                place,
                known.join(" or "),
                format!("{:?}", self.spi),
            ));
        };
        let mut taken =
            BTreeMap::from([(bus.clock, "the bus's clock"), (bus.data, "the bus's data")]);
        let Some(select) = bus.selects.get(usize::from(self.chip_select)) else {
            let place = format!("{panel}: chip-select");
            let expected = format!("one below {}", bus.selects.len());
            return Err(Error::unexpected(place, expected, self.chip_select));
        };
        if !self.selects_itself {
            taken.insert(*select, "the bus's chip select");
        }
        for (gpio, key) in &self.gpios {
            let place = format!("{panel}: {key}");
            let free = |gpio: &u32| *gpio <= MAX_GPIO && !HAT_MEMORY_GPIOS.contains(gpio);
            if !free(gpio) {
                return Err(Error::unexpected(place, "a GPIO from 2 to 27", gpio));
            }
            if let Some(other) = taken.insert(*gpio, key) {
                let found = format!("GPIO {gpio}, which is {other}");
                return Err(Error::unexpected(place, "a free GPIO", found));
            }
        }
        Ok(())
    }

    /// What this board's header must have.
    fn check_on(&self, header: &Header, board: &str, panel: &str) -> Result<Verdict> {
        let impossible = |what: String| Ok(Verdict::Impossible(format!("{board} has no {what}")));
        if !header.spi.contains_key(self.spi) {
            return impossible(format!("bus {} on its header", self.spi));
        }
        let named = !header.gpio_lines.is_empty();
        for (gpio, key) in &self.gpios {
            if named && !header.gpio_lines.contains_key(gpio) {
                return impossible(format!("GPIO {gpio} on its header, {panel}'s {key}"));
            }
        }
        match self.pwm {
            Some(gpio) if !header.pwm.contains_key(&gpio) => {
                impossible(format!("PWM output on GPIO {gpio}, {panel}'s backlight"))
            }
            _ => Ok(Verdict::Fits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Library;

    const TFT: &str = r#"
name = "A panel"
tier = 3
source = "its maker"
kind = "tft"
[tft]
controller = "st7789"
width-px = 240
height-px = 240
spi = "spi0"
spi-hz = 40000000
dc-gpio = 25
reset-gpio = 27
backlight = { through = "pwm", gpio = 13 }
"#;

    const PAPER: &str = r#"
name = "Paper"
tier = 3
source = "its maker"
kind = "epaper"
[epaper]
controller = "uc8179"
width-px = 800
height-px = 480
spi = "spi0"
chip-select = 0
dc-gpio = 25
reset-gpio = 17
busy-gpio = 24
busy-level = "low"
spi-hz = 4000000
busy-s-max = 30
refresh-s-min = 180
palette = "black-white"
"#;

    fn on(board: &str, text: &str) -> Result<Verdict> {
        let board = Library::embedded().board(board).unwrap();
        check(&board, &Panel::parse("a.toml", text).unwrap())
    }

    fn error(from: &str, to: &str) -> String {
        assert!(TFT.contains(from), "{from:?} is not in the file");
        let text = TFT.replace(from, to);
        on("raspberry-pi-4", &text).unwrap_err().to_string()
    }

    #[test]
    fn a_panel_fits_or_the_board_says_why_not() {
        for board in [
            "raspberry-pi-zero-2-w",
            "raspberry-pi-5",
            "jetson-orin-nano",
        ] {
            assert_eq!(on(board, TFT).unwrap(), Verdict::Fits, "{board}");
        }
        let host = "This computer: expected a 40-pin header, found a computer has no 40-pin header";
        assert_eq!(on("host", TFT).unwrap(), Verdict::Impossible(host.into()));
        let spi1 = TFT.replace("spi0", "spi1");
        assert_eq!(on("raspberry-pi-4", &spi1).unwrap(), Verdict::Fits);
        let none = "NVIDIA Jetson Xavier NX has no bus spi1 on its header";
        assert_eq!(
            on("jetson-xavier-nx", &spi1).unwrap(),
            Verdict::Impossible(none.into())
        );
        let pwm = TFT.replace("gpio = 13 }", "gpio = 18 }");
        assert_eq!(on("raspberry-pi-4", &pwm).unwrap(), Verdict::Fits);
        let none = "NVIDIA Jetson Orin Nano has no PWM output on GPIO 18, A panel's backlight";
        assert_eq!(
            on("jetson-orin-nano", &pwm).unwrap(),
            Verdict::Impossible(none.into())
        );
        let far = TFT.replace("reset-gpio = 27", "reset-gpio = 2");
        let none = "NVIDIA Jetson Orin Nano has no GPIO 2 on its header, A panel's reset-gpio";
        assert_eq!(
            on("jetson-orin-nano", &far).unwrap(),
            Verdict::Impossible(none.into())
        );
    }

    #[test]
    fn a_pin_is_taken_once() {
        for (from, to, sentence) in [
            (
                "dc-gpio = 25",
                "dc-gpio = 27",
                "A panel: tft.reset-gpio: expected another line than dc-gpio's, found 27",
            ),
            (
                "dc-gpio = 25",
                "dc-gpio = 11",
                "A panel: dc-gpio: expected a free GPIO, found GPIO 11, which is the bus's clock",
            ),
            (
                "dc-gpio = 25",
                "dc-gpio = 7\nchip-select = 1",
                "A panel: dc-gpio: expected a free GPIO, found GPIO 7, which is the bus's chip \
                 select",
            ),
            (
                "dc-gpio = 25",
                "dc-gpio = 28",
                "A panel: dc-gpio: expected a GPIO from 2 to 27, found 28",
            ),
            (
                "dc-gpio = 25",
                "dc-gpio = 1",
                "A panel: dc-gpio: expected a GPIO from 2 to 27, found 1",
            ),
            (
                "dc-gpio = 25",
                "dc-gpio = 25\nchip-select = 2",
                "A panel: chip-select: expected one below 2, found 2",
            ),
            (
                "\"spi0\"",
                "\"spi9\"",
                "A panel: spi: expected spi0 or spi1, found \"spi9\"",
            ),
        ] {
            assert_eq!(error(from, to), sentence);
        }
        // The way back from a panel is free: nothing answers.
        let miso = TFT.replace("dc-gpio = 25", "dc-gpio = 9");
        assert_eq!(on("raspberry-pi-4", &miso).unwrap(), Verdict::Fits);
    }

    #[test]
    fn glass_lies_within_the_controllers_memory() {
        let error = error("height-px = 240", "height-px = 240\noffset-px = [0, 81]");
        assert!(
            error.starts_with("A panel: tft.offset-px: expected at most"),
            "{error}"
        );
        let within = TFT.replace("height-px = 240", "height-px = 240\noffset-px = [0, 80]");
        assert_eq!(on("raspberry-pi-4", &within).unwrap(), Verdict::Fits);
    }

    #[test]
    fn paper_has_a_busy_pin_and_may_select_itself() {
        assert_eq!(on("raspberry-pi-4", PAPER).unwrap(), Verdict::Fits);
        let own = PAPER.replace("chip-select = 0", "chip-select = 0\nselect-gpios = [8]");
        assert_eq!(on("raspberry-pi-4", &own).unwrap(), Verdict::Fits);
        let twice = PAPER.replace("dc-gpio = 25", "dc-gpio = 8");
        let error = on("raspberry-pi-4", &twice).unwrap_err().to_string();
        assert!(
            error.ends_with("found GPIO 8, which is the bus's chip select"),
            "{error}"
        );
        let busy = PAPER.replace("busy-gpio = 24", "busy-gpio = 17");
        let error = on("raspberry-pi-4", &busy).unwrap_err().to_string();
        assert!(
            error.ends_with("found GPIO 17, which is reset-gpio"),
            "{error}"
        );
    }

    #[test]
    fn every_panel_fits_every_board_or_is_impossible_on_it() {
        let library = Library::embedded();
        for (board_name, board) in library.boards().unwrap() {
            for (panel_name, panel) in library.panels().unwrap() {
                let checked = check(&board, &panel);
                assert!(
                    checked.is_ok(),
                    "{panel_name} on {board_name}: {}",
                    checked.unwrap_err()
                );
            }
        }
    }
}
