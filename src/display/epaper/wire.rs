//! The wires of an e-paper panel, and a busy line that is not trusted.
//!
//! Time is counted in the pauses asked for, so that a test's clock need not tick. A busy line may
//! be loose, stuck or noisy: every wait has a deadline, a refresh must begin to be busy and stay
//! so for as long as a refresh takes, and idle only counts when it is seen several times in a row.

use std::fmt;
use std::time::Duration;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{InputPin, OutputPin, PinState};
use embedded_hal::spi::SpiDevice;

use super::script::{Chips, Reset, Step};
use crate::display::header::Active;
use crate::error::{Error, Result};

/// The longest piece written at once: what spidev takes by default.
const PIECE_BYTES: usize = 4096;

/// Between two looks at the busy line.
const POLL: Duration = Duration::from_millis(10);

/// Idle only counts when seen so often in a row; what is shorter is a glitch.
const IDLE_POLLS: u32 = 5;

/// The longest a controller takes from the refresh command to its busy line.
const BUSY_BEGINS: Duration = Duration::from_secs(1);

/// What a panel hangs on.
#[derive(Debug)]
pub struct Wire<S, O, I, D> {
    /// The bus; its device drives the chip select unless `selects` do.
    pub spi: S,
    /// A line for each controller, low while it is spoken to; none where `spi` does it.
    pub selects: Vec<O>,
    /// High for data, low for a command.
    pub dc: O,
    /// Low resets the controller.
    pub reset: O,
    /// High powers the panel, where its board has such a switch.
    pub power: Option<O>,
    /// Says that the controller works.
    pub busy: I,
    /// Who waits.
    pub delay: D,
}

/// What a driver asks of its wires; the types of the pins end here.
pub(super) trait Line: Send {
    /// Powers the panel and walks through its reset.
    fn wake(&mut self, reset: &[Reset]) -> Result<()>;

    /// Sends a command and its data.
    fn send(&mut self, chips: Chips, command: u8, data: &[u8]) -> Result<()>;

    /// Does what a step says; `refresh_min` is the shortest a refresh can take.
    fn step(&mut self, step: Step, refresh_min: Duration) -> Result<()>;

    /// Takes the power away after deep sleep, where there is a switch.
    fn part(&mut self) -> Result<()>;

    /// Holds the panel in reset, so that nothing drives a glass that has gone wrong.
    fn hold(&mut self);
}

/// A [`Wire`] and what must be known to use it.
pub(super) struct Held<W> {
    pub wire: W,
    pub spi_name: String,
    pub busy_name: String,
    pub busy_level: Active,
    pub busy_max: Duration,
    pub select: Duration,
}

impl<S, O, I, D> Held<Wire<S, O, I, D>>
where
    S: SpiDevice<Error: fmt::Display>,
    O: OutputPin<Error: fmt::Display>,
    I: InputPin<Error: fmt::Display>,
    D: DelayNs,
{
    fn pause(&mut self, time: Duration) {
        let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.wire.delay.delay_ms(ms);
    }

    fn is_busy(&mut self) -> Result<bool> {
        let busy = match self.busy_level {
            Active::High => self.wire.busy.is_high(),
            Active::Low => self.wire.busy.is_low(),
        };
        busy.map_err(|error| Error::unexpected(&self.busy_name, "a line that can be read", error))
    }

    fn idle_level(&self) -> Active {
        match self.busy_level {
            Active::High => Active::Low,
            Active::Low => Active::High,
        }
    }

    /// Waits until the controller is idle, and says how long that took.
    fn settle(&mut self, what: &str) -> Result<Duration> {
        let (mut waited, mut idle) = (Duration::ZERO, 0);
        while idle < IDLE_POLLS {
            if waited >= self.busy_max {
                let expected = format!("{what} to end within {} s", self.busy_max.as_secs());
                let found = format!("the panel busy ({}) all along", self.busy_level);
                return Err(Error::unexpected(&self.busy_name, expected, found));
            }
            self.pause(POLL);
            waited += POLL;
            idle = if self.is_busy()? { 0 } else { idle + 1 };
        }
        Ok(waited.saturating_sub(POLL * IDLE_POLLS))
    }

    fn refresh(&mut self, refresh_min: Duration) -> Result<()> {
        let mut waited = Duration::ZERO;
        while !self.is_busy()? {
            if waited >= BUSY_BEGINS {
                let expected = format!("{} while the panel refreshes", self.busy_level);
                let found = format!(
                    "{} all along; a loose wire, another panel, or a wrong busy-level",
                    self.idle_level()
                );
                return Err(Error::unexpected(&self.busy_name, expected, found));
            }
            self.pause(POLL);
            waited += POLL;
        }
        let busy = self.settle("the refresh")?;
        if busy < refresh_min {
            let expected = format!("a refresh of {} ms or more", refresh_min.as_millis());
            let found = format!("the panel idle after {} ms", busy.as_millis());
            return Err(Error::unexpected(&self.busy_name, expected, found));
        }
        Ok(())
    }

    fn write(&mut self, kind: PinState, bytes: &[u8]) -> Result<()> {
        let set = self.wire.dc.set_state(kind);
        set.map_err(|error| Error::unexpected("dc-gpio", "a line that can be set", error))?;
        for piece in bytes.chunks(PIECE_BYTES) {
            self.wire.spi.write(piece).map_err(|error| {
                Error::unexpected(&self.spi_name, "the panel's bytes to be written", error)
            })?;
        }
        Ok(())
    }

    fn select(&mut self, chips: Chips, state: PinState) -> Result<()> {
        for (chip, line) in self.wire.selects.iter_mut().enumerate() {
            if chips == Chips::All || chips == Chips::One(chip) {
                line.set_state(state).map_err(|error| {
                    Error::unexpected("select-gpios", "lines that can be set", error)
                })?;
            }
        }
        Ok(())
    }
}

impl<S, O, I, D> Line for Held<Wire<S, O, I, D>>
where
    S: SpiDevice<Error: fmt::Display> + Send,
    O: OutputPin<Error: fmt::Display> + Send,
    I: InputPin<Error: fmt::Display> + Send,
    D: DelayNs + Send,
{
    fn wake(&mut self, reset: &[Reset]) -> Result<()> {
        self.select(Chips::All, PinState::High)?;
        if let Some(power) = &mut self.wire.power {
            power.set_high().map_err(|error| {
                Error::unexpected("power-gpio", "a line that can be set", error)
            })?;
        }
        for level in reset {
            let (state, ms) = match *level {
                Reset::LowMs(ms) => (PinState::Low, ms),
                Reset::HighMs(ms) => (PinState::High, ms),
            };
            self.wire.reset.set_state(state).map_err(|error| {
                Error::unexpected("reset-gpio", "a line that can be set", error)
            })?;
            self.pause(Duration::from_millis(ms.into()));
        }
        Ok(())
    }

    fn send(&mut self, chips: Chips, command: u8, data: &[u8]) -> Result<()> {
        self.select(chips, PinState::Low)?;
        self.pause(self.select);
        self.write(PinState::Low, &[command])?;
        if !data.is_empty() {
            self.write(PinState::High, data)?;
        }
        self.select(Chips::All, PinState::High)
    }

    fn step(&mut self, step: Step, refresh_min: Duration) -> Result<()> {
        match step {
            Step::Send(chips, command, data) => self.send(chips, command, data),
            Step::PauseMs(ms) => {
                self.pause(Duration::from_millis(ms.into()));
                Ok(())
            }
            Step::Settle => self.settle("work").map(|_| ()),
            Step::Refresh => self.refresh(refresh_min),
        }
    }

    fn part(&mut self) -> Result<()> {
        let Some(power) = &mut self.wire.power else {
            return Ok(());
        };
        // Lines left high would feed the unpowered controller through its inputs.
        let lines = [&mut self.wire.reset, &mut self.wire.dc, power];
        for line in lines {
            line.set_low()
                .map_err(|error| Error::unexpected("power-gpio", "lines that can be set", error))?;
        }
        Ok(())
    }

    fn hold(&mut self) {
        // The fault that led here is the one to tell.
        let _ = self.select(Chips::All, PinState::High);
        let _ = self.wire.reset.set_low();
    }
}
