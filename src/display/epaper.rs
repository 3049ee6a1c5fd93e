//! E-paper: finished pictures in a handful of inks.
//!
//! A frame is quantised to the panel's own inks, packed as its controller wants them, and shown
//! by one refresh, after which the controller sleeps. Each refresh begins with a reset and brings
//! everything the controller must know, so that no state of it outlives a fault. What the glass
//! already shows is not shown again.

use std::fmt;
use std::time::Duration;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{InputPin, OutputPin, PinState};
use embedded_hal::spi::SpiDevice;
use linux_embedded_hal::Delay;

use super::dither::Quantizer;
use super::header::spi::Clock;
use super::header::{Header, Roots};
use super::{Damage, Display, Frame, Pace, PanelInfo, Power};
use crate::error::Result;

mod el133uf1;
mod facts;
mod script;
mod seven_three;
mod uc8179;
mod wire;

pub use facts::{Bias, Controller, Facts};
pub use wire::Wire;

use script::{Chips, Pass, Picture, Step, Window};
use wire::{Held, Line};

/// An e-paper panel.
pub struct Epaper {
    facts: Facts,
    quantizer: Quantizer,
    line: Box<dyn Line>,
    /// The ink indices in native rows that the glass is known to show.
    shown: Option<Vec<u8>>,
    /// Partial refreshes since the last full one.
    partial: u32,
}

impl fmt::Debug for Epaper {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Epaper {}", self.facts.controller)
    }
}

impl Epaper {
    /// A panel of these `facts` on `wire`; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When the facts contradict each other; see [`Facts::check`].
    pub fn new<S, O, I, D>(facts: &Facts, wire: Wire<S, O, I, D>) -> Result<Self>
    where
        S: SpiDevice<Error: fmt::Display> + Send + 'static,
        O: OutputPin<Error: fmt::Display> + Send + 'static,
        I: InputPin<Error: fmt::Display> + Send + 'static,
        D: DelayNs + Send + 'static,
    {
        facts.check()?;
        let line = Held {
            wire,
            spi_name: format!("{} (chip-select {})", facts.spi, facts.chip_select),
            busy_name: format!("busy-gpio (GPIO {})", facts.busy_gpio),
            busy_level: facts.busy_level,
            busy_max: Duration::from_secs(facts.busy_s_max.into()),
            select: Duration::from_millis(facts.controller.script().select_ms.into()),
        };
        Ok(Self {
            facts: facts.clone(),
            quantizer: Quantizer::new(&facts.palette, facts.look()),
            line: Box::new(line),
            shown: None,
            partial: 0,
        })
    }

    /// What the glass would show of `frame`: the position of each ink in the palette, row by row
    /// as the viewer sees them.
    pub fn preview(&self, frame: &Frame) -> Vec<u8> {
        self.quantizer.quantize(frame)
    }

    /// The ink indices of `frame` in native rows.
    fn indices(&self, frame: &Frame) -> Vec<u8> {
        let inks = self.quantizer.quantize(frame);
        let native_px = [self.facts.width_px, self.facts.height_px];
        let orientation = self.facts.orientation();
        let palette = self.facts.palette.inks();
        let mut indices = Vec::with_capacity(inks.len());
        for y in 0..native_px[1] {
            indices.extend((0..native_px[0]).map(|x| {
                let [column, row] = orientation.source([x, y], native_px);
                palette[usize::from(inks[row * frame.width_px() + column])].index
            }));
        }
        indices
    }

    /// Refreshes the glass, or a window of it, in this way to `wanted`; the controller then sleeps.
    fn refresh(
        &mut self,
        pass: &Pass,
        window: Option<Window>,
        shown: &[u8],
        wanted: &[u8],
    ) -> Result<()> {
        let script = self.facts.controller.script();
        let refresh_min = Duration::from_millis(pass.refresh_ms_min.into());
        let walk = |line: &mut dyn Line, steps: &[Step]| -> Result<()> {
            steps
                .iter()
                .try_for_each(|step| line.step(*step, refresh_min))
        };
        let line = self.line.as_mut();
        line.wake(script.reset)?;
        walk(line, pass.wake)?;
        for (command, data) in window.into_iter().flat_map(uc8179::window) {
            line.send(Chips::All, command, &data)?;
        }
        let window = window.unwrap_or(Window::whole(script.size_px));
        for plane in pass.planes {
            let indices = match plane.picture {
                Picture::Shown => shown,
                Picture::Wanted => wanted,
            };
            let bytes = window.packed(indices, script.size_px[0], plane.packing, script.chips);
            line.send(plane.chips, plane.command, &bytes)?;
        }
        walk(line, pass.refresh)?;
        walk(line, script.sleep)?;
        line.part()
    }
}

impl Display for Epaper {
    fn info(&self) -> PanelInfo {
        let native_px = [self.facts.width_px, self.facts.height_px];
        let least = Duration::from_secs(self.facts.refresh_s_min.into());
        PanelInfo {
            name: format!(
                "{} {}x{}",
                self.facts.controller, native_px[0], native_px[1]
            ),
            size_px: self.facts.orientation().seen(native_px),
            pace: match self.facts.partial_refreshes_max {
                0 => Pace::Finished(least),
                _ => Pace::Every(least),
            },
        }
    }

    /// Refreshes the glass and waits for it, 40 s on a panel of many colours. The caller keeps to
    /// [`PanelInfo::pace`].
    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        assert_eq!(frame.size_px(), self.info().size_px, "the frame's size");
        let wanted = self.indices(frame);
        let shown = self.shown.take().filter(|_| damage == Damage::Changed);
        let script = self.facts.controller.script();
        let (pass, window, partial) = match (&shown, &script.partial) {
            (Some(shown), _) if *shown == wanted => {
                self.shown = Some(wanted);
                return Ok(());
            }
            (Some(shown), Some(pass)) if self.partial < self.facts.partial_refreshes_max => {
                let window = Window::around(shown, &wanted, script.size_px[0]);
                (pass, window, self.partial + 1)
            }
            _ => (&script.full, None, 0),
        };
        let before = shown.as_deref().unwrap_or(&wanted);
        if let Err(error) = self.refresh(pass, window, before, &wanted) {
            self.line.hold();
            return Err(error);
        }
        (self.shown, self.partial) = (Some(wanted), partial);
        Ok(())
    }

    /// The controller sleeps after every refresh, and the glass keeps its picture without it.
    fn power(&mut self, _: Power) -> Result<()> {
        Ok(())
    }
}

/// Opens the panel on the board's header.
///
/// # Errors
///
/// When the facts contradict each other, or a bus or line is not there, or not ours to use.
pub fn open(facts: &Facts, header: &Header, roots: &Roots) -> Result<Epaper> {
    facts.check()?;
    let clock = Clock {
        hz: facts.spi_hz,
        mode: 0,
    };
    let output = |gpio, level, key| header.open_output(roots, gpio, level, key);
    let selects = facts.select_gpios.iter();
    let wire = Wire {
        selects: selects
            .map(|gpio| output(*gpio, PinState::High, "select-gpios"))
            .collect::<Result<_>>()?,
        dc: output(facts.dc_gpio, PinState::Low, "dc-gpio")?,
        reset: output(facts.reset_gpio, PinState::High, "reset-gpio")?,
        power: match facts.power_gpio {
            Some(gpio) => Some(output(gpio, PinState::Low, "power-gpio")?),
            None => None,
        },
        busy: header.open_input(
            roots,
            facts.busy_gpio,
            facts.busy_bias.of_line(),
            "busy-gpio",
        )?,
        spi: header.open_spi(roots, &facts.spi, facts.chip_select, clock)?,
        delay: Delay,
    };
    Epaper::new(facts, wire)
}
