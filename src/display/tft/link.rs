//! The wire to a controller: commands with DC low, their data with DC high.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use embedded_hal::spi::SpiDevice;
use mipidsi::interface::{Interface, InterfaceKind};

use crate::error::{Error, Result};

/// A message holds at least a few pixels, whatever the kernel says, and at most what the length
/// registers of DMA engines count.
const MESSAGE_BYTES: std::ops::RangeInclusive<usize> = 64..=65_535;

/// How long the line RESET is held low; every controller asks for 10 µs or less, but the line may
/// have a capacitor.
const RESET_PULSE: Duration = Duration::from_millis(10);

/// How long after a reset a controller may refuse to wake: ST7789V datasheet section 7.4.5, and
/// none of the others asks for more.
const RESET_WAIT: Duration = Duration::from_millis(120);

/// What a panel hangs on.
#[derive(Debug)]
pub struct Wire<S, P, D> {
    /// Its SPI device, chip select included.
    pub spi: S,
    /// The line that tells data (high) from commands (low).
    pub dc: P,
    /// The line that resets it when low, where it is wired.
    pub reset: Option<P>,
    /// Who waits.
    pub delay: D,
    /// The longest SPI message, in bytes.
    pub message_bytes_max: usize,
}

/// A [`Wire`] with its buffer, in the hands of a driver that may lose it: mipidsi's builder keeps
/// what it was given when it fails, and the next attempt needs the same wire.
pub(super) struct Link<S, P, D>(Arc<Mutex<Held<S, P, D>>>);

struct Held<S, P, D> {
    place: String,
    wire: Wire<S, P, D>,
    buffer: Vec<u8>,
}

impl<S, P, D> Clone for Link<S, P, D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, P, D> Link<S, P, D>
where
    S: SpiDevice<Error: fmt::Display>,
    P: OutputPin<Error: fmt::Display>,
    D: DelayNs,
{
    /// `place` is how an error calls the panel.
    pub fn new(place: String, wire: Wire<S, P, D>) -> Self {
        let bytes = wire
            .message_bytes_max
            .clamp(*MESSAGE_BYTES.start(), *MESSAGE_BYTES.end());
        Self(Arc::new(Mutex::new(Held {
            place,
            wire,
            buffer: vec![0; bytes],
        })))
    }

    /// Resets the controller by its line, where it has one.
    pub fn reset(&self) -> Result<()> {
        let held = &mut *self.held();
        let Some(reset) = &mut held.wire.reset else {
            return Ok(());
        };
        let failed = |error| failure(&held.place, "its line RESET", error);
        reset.set_high().map_err(failed)?;
        reset.set_low().map_err(failed)?;
        wait(&mut held.wire.delay, RESET_PULSE);
        reset.set_high().map_err(failed)?;
        wait(&mut held.wire.delay, RESET_WAIT);
        Ok(())
    }

    /// Waits.
    pub fn wait(&self, time: Duration) {
        wait(&mut self.held().wire.delay, time);
    }

    /// Sends a command and its parameters.
    pub fn command(&self, command: u8, parameters: &[u8]) -> Result<()> {
        let held = &mut *self.held();
        held.command(command)?;
        held.data(parameters)
    }

    /// Sends pixels, after the command that writes to the memory.
    pub fn data(&self, bytes: &[u8]) -> Result<()> {
        let held = &mut *self.held();
        let most = held.buffer.len();
        bytes
            .chunks(most)
            .try_for_each(|message| held.data(message))
    }

    /// Whoever panicked with the lock held left no half-made state: the next reset mends all.
    fn held(&self) -> MutexGuard<'_, Held<S, P, D>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, P, D> Held<S, P, D>
where
    S: SpiDevice<Error: fmt::Display>,
    P: OutputPin<Error: fmt::Display>,
    D: DelayNs,
{
    fn command(&mut self, command: u8) -> Result<()> {
        let place = &self.place;
        let dc = self.wire.dc.set_low();
        dc.map_err(|error| failure(place, "its line DC", error))?;
        let sent = self.wire.spi.write(&[command]);
        sent.map_err(|error| failure(place, "its SPI bus", error))
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let place = &self.place;
        let dc = self.wire.dc.set_high();
        dc.map_err(|error| failure(place, "its line DC", error))?;
        let sent = self.wire.spi.write(bytes);
        sent.map_err(|error| failure(place, "its SPI bus", error))
    }

    /// Sends the first `bytes` of the buffer as data.
    fn flush(&mut self, bytes: usize) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let sent = self.data(&buffer[..bytes]);
        self.buffer = buffer;
        sent
    }
}

impl<S, P, D> Interface for Link<S, P, D>
where
    S: SpiDevice<Error: fmt::Display>,
    P: OutputPin<Error: fmt::Display>,
    D: DelayNs,
{
    type Word = u8;
    type Error = Error;

    const KIND: InterfaceKind = InterfaceKind::Serial4Line;

    fn send_command(&mut self, command: u8, args: &[u8]) -> Result<()> {
        self.command(command, args)?;
        if let mipidsi_waits::RESET | mipidsi_waits::WAKE = command {
            self.wait(mipidsi_waits::TIME);
        }
        Ok(())
    }

    fn send_pixels<const N: usize>(
        &mut self,
        pixels: impl IntoIterator<Item = [u8; N]>,
    ) -> Result<()> {
        let held = &mut *self.held();
        let whole = held.buffer.len() / N * N;
        let mut filled = 0;
        for pixel in pixels {
            held.buffer[filled..filled + N].copy_from_slice(&pixel);
            filled += N;
            if filled == whole {
                held.flush(filled)?;
                filled = 0;
            }
        }
        held.flush(filled)
    }

    fn send_repeated_pixel<const N: usize>(&mut self, pixel: [u8; N], count: u32) -> Result<()> {
        self.send_pixels((0..count).map(|_| pixel))
    }
}

impl<S, P, D> DelayNs for Link<S, P, D>
where
    S: SpiDevice<Error: fmt::Display>,
    P: OutputPin<Error: fmt::Display>,
    D: DelayNs,
{
    fn delay_ns(&mut self, ns: u32) {
        self.held().wire.delay.delay_ns(ns);
    }
}

/// What every MIPI DCS controller asks for and not all of mipidsi's models wait.
mod mipidsi_waits {
    use std::time::Duration;

    /// SWRESET.
    pub const RESET: u8 = 0x01;
    /// SLPOUT.
    pub const WAKE: u8 = 0x11;
    /// Before the next command: ILI9486 datasheet 8.2.12, ST7789V datasheet 9.1.12.
    pub const TIME: Duration = Duration::from_millis(5);
}

fn wait(delay: &mut impl DelayNs, time: Duration) {
    delay.delay_us(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
}

fn failure(place: &str, what: &str, error: impl fmt::Display) -> Error {
    Error::unexpected(place, format!("{what} to work"), error)
}
