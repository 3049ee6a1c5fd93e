//! SPI TFT and OLED panels: dither, changed strips of rows, backlight.
//!
//! The pixels travel as full-width strips of rows, only those that changed. Rotation and mirror
//! are the controller's own (MADCTL), so that the viewer's rows stay rows of the wire. The wire
//! goes one way: a panel that was unplugged swallows everything without an error, so waking it,
//! or [`Damage::All`], begins at its reset.

use std::fmt;
use std::ops::Range;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{OutputPin, PinState};
use embedded_hal::spi::SpiDevice;
use linux_embedded_hal::Delay;
use mipidsi::models;

use crate::display::header::spi::Clock;
use crate::display::header::{Header, Roots};
use crate::display::{Damage, Display, Frame, Pace, PanelInfo, Power};
use crate::error::Result;

pub mod colour;
mod dcs;
mod facts;
pub mod lamp;
mod link;
mod ssd1351;
mod strips;

pub use facts::{Backlight, ColorOrder, Controller, Depth, Dither, Facts};
pub use lamp::Lamp;
pub use link::Wire;

/// A controller's side of the work.
trait Driver: Send {
    /// Resets the controller and sets it up; its memory may hold anything then.
    fn wake(&mut self) -> Result<()>;

    /// Writes full-width rows, as the viewer counts them, from the wire's bytes.
    fn fill_rows(&mut self, rows: Range<usize>, wire: &[u8]) -> Result<()>;

    /// Switches the display off and sends the controller to sleep.
    fn sleep(&mut self) -> Result<()>;
}

/// An SPI panel.
pub struct Tft {
    facts: Facts,
    driver: Box<dyn Driver>,
    lamp: Option<Box<dyn Lamp>>,
    power: Power,
    shown: Shown,
    /// What was last to be shown, as the wire carries it.
    wanted: Vec<u8>,
    /// The next frame, until it is the wanted one.
    next: Vec<u8>,
}

/// What the panel shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Anything, or nothing at all.
    Anything,
    /// What is wanted; it is awake and lit.
    Wanted,
}

impl Tft {
    /// A panel of these `facts` on `wire`, lit by `lamp`; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When the facts contradict each other.
    pub fn new<S, P, D>(
        facts: &Facts,
        wire: Wire<S, P, D>,
        lamp: Option<Box<dyn Lamp>>,
    ) -> Result<Self>
    where
        S: SpiDevice<Error: fmt::Display> + Send + 'static,
        P: OutputPin<Error: fmt::Display> + Send + 'static,
        D: DelayNs + Send + 'static,
    {
        facts.check(&facts.name())?;
        let mut wanted = Vec::new();
        let [width_px, height_px] = facts.size_px();
        let black = Frame::new(width_px, height_px);
        colour::convert(&black, facts.depth(), facts.dither, &mut wanted);
        Ok(Self {
            driver: driver(facts, wire),
            facts: facts.clone(),
            lamp,
            power: Power::On,
            shown: Shown::Anything,
            wanted,
            next: Vec::new(),
        })
    }

    fn row_bytes(&self) -> usize {
        self.facts.size_px()[0] * self.facts.depth().bytes()
    }

    /// Wakes the panel, in the dark, and shows all that is wanted before it is lit.
    fn restore(&mut self) -> Result<()> {
        self.shown = Shown::Anything;
        self.light(Power::Off)?;
        self.driver.wake()?;
        let rows = self.wanted.len() / self.row_bytes();
        self.driver.fill_rows(0..rows, &self.wanted)?;
        self.light(Power::On)?;
        self.shown = Shown::Wanted;
        Ok(())
    }

    /// Sends the rows that differ from `old`.
    fn update(&mut self, old: &[u8]) -> Result<()> {
        let row_bytes = self.row_bytes();
        let rows = old.chunks(row_bytes).zip(self.wanted.chunks(row_bytes));
        let changed: Vec<bool> = rows.map(|(old, wanted)| old != wanted).collect();
        let gap_rows_max = strips::gap_rows_max(row_bytes, self.facts.spi_hz);
        for strip in strips::strips(&changed, gap_rows_max) {
            let bytes = strip.start * row_bytes..strip.end * row_bytes;
            let sent = self.driver.fill_rows(strip, &self.wanted[bytes]);
            // Part of the strip may have arrived, at whatever place.
            sent.inspect_err(|_| self.shown = Shown::Anything)?;
        }
        Ok(())
    }

    fn light(&mut self, power: Power) -> Result<()> {
        self.lamp.as_mut().map_or(Ok(()), |lamp| lamp.light(power))
    }
}

impl Display for Tft {
    fn info(&self) -> PanelInfo {
        PanelInfo {
            name: self.facts.name(),
            size_px: self.facts.size_px(),
            pace: Pace::Live,
        }
    }

    /// With [`Damage::All`] the panel begins at its reset, dark for half a second. While it is
    /// switched off, the frame is only kept for when it is switched on.
    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        assert_eq!(
            frame.size_px(),
            self.facts.size_px(),
            "a frame of another size"
        );
        colour::convert(frame, self.facts.depth(), self.facts.dither, &mut self.next);
        std::mem::swap(&mut self.wanted, &mut self.next);
        match (self.power, damage, self.shown) {
            (Power::Off, _, _) => Ok(()),
            (Power::On, Damage::Changed, Shown::Wanted) => {
                let old = std::mem::take(&mut self.next);
                let sent = self.update(&old);
                self.next = old;
                sent
            }
            (Power::On, Damage::All, _) | (Power::On, _, Shown::Anything) => self.restore(),
        }
    }

    /// Switched on, the panel begins at its reset and shows the last frame again.
    fn power(&mut self, power: Power) -> Result<()> {
        let before = std::mem::replace(&mut self.power, power);
        match power {
            Power::On if before == Power::On && self.shown == Shown::Wanted => Ok(()),
            Power::On => self.restore(),
            Power::Off => {
                self.shown = Shown::Anything;
                // The light goes off even where the wire is broken.
                let dark = self.light(Power::Off);
                self.driver.sleep().and(dark)
            }
        }
    }
}

impl fmt::Debug for Tft {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { power, shown, .. } = self;
        write!(f, "Tft {} ({power:?}, {shown:?})", self.facts.name())
    }
}

/// The driver of the facts' controller at the facts' depth.
fn driver<S, P, D>(facts: &Facts, wire: Wire<S, P, D>) -> Box<dyn Driver>
where
    S: SpiDevice<Error: fmt::Display> + Send + 'static,
    P: OutputPin<Error: fmt::Display> + Send + 'static,
    D: DelayNs + Send + 'static,
{
    let link = link::Link::new(facts.name(), wire);
    match (facts.controller, facts.depth()) {
        (Controller::St7789, _) => Box::new(dcs::Dcs::new(|| models::ST7789, facts, link)),
        (Controller::Ili9341, Depth::Rgb565) => {
            Box::new(dcs::Dcs::new(|| models::ILI9341Rgb565, facts, link))
        }
        (Controller::Ili9341, Depth::Rgb666) => {
            Box::new(dcs::Dcs::new(|| models::ILI9341Rgb666, facts, link))
        }
        (Controller::Ili9486, _) => Box::new(dcs::Dcs::new(|| models::ILI9486Rgb666, facts, link)),
        (Controller::Ili9488, _) => Box::new(dcs::Dcs::new(|| models::ILI9488Rgb666, facts, link)),
        (Controller::Gc9a01, _) => Box::new(dcs::Dcs::new(|| models::GC9A01, facts, link)),
        (Controller::St7735s, _) => Box::new(dcs::Dcs::new(|| models::ST7735s, facts, link)),
        (Controller::St7796, _) => Box::new(dcs::Dcs::new(|| models::ST7796, facts, link)),
        (Controller::Ssd1351, _) => Box::new(ssd1351::Ssd1351::new(facts, link)),
    }
}

/// Opens the panel of `facts` on a board's `header`.
///
/// # Errors
///
/// When the facts contradict each other, or the SPI device, a line or the backlight cannot be had:
/// a sentence with what mends it.
pub fn open(facts: &Facts, header: &Header, roots: &Roots) -> Result<Tft> {
    facts.check(&facts.name())?;
    let clock = Clock {
        hz: facts.spi_hz,
        mode: facts.spi_mode,
    };
    let spi = header.open_spi(roots, &facts.spi, facts.chip_select, clock)?;
    let wire = Wire {
        message_bytes_max: spi.bytes_max(),
        spi,
        dc: header.open_output(roots, facts.dc_gpio, PinState::High, "dc-gpio")?,
        reset: facts
            .reset_gpio
            .map(|gpio| header.open_output(roots, gpio, PinState::High, "reset-gpio"))
            .transpose()?,
        delay: Delay,
    };
    let lamp = facts
        .backlight
        .as_ref()
        .map(|backlight| lamp::open(backlight, header, roots))
        .transpose()?;
    Tft::new(facts, wire, lamp)
}
