//! Solomon Systech's SSD1351, 128x128 OLED, after its datasheet (rev 1.5).
//!
//! The crate `ssd1351` 0.5 sends its pixels two bytes a message and panics when one fails, in
//! `init` too; a fault of the wire must be an error here.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use embedded_hal::spi::SpiDevice;

use super::link::Link;
use super::{ColorOrder, Driver, Facts};
use crate::display::{Mirror, Orientation, Rotation};
use crate::error::Result;

/// The commands, section 10 of the datasheet.
mod command {
    pub const SET_COLUMNS: u8 = 0x15;
    pub const WRITE_MEMORY: u8 = 0x5C;
    pub const SET_ROWS: u8 = 0x75;
    pub const REMAP: u8 = 0xA0;
    pub const NORMAL: u8 = 0xA6;
    pub const INVERSE: u8 = 0xA7;
    pub const SLEEP: u8 = 0xAE;
    pub const WAKE: u8 = 0xAF;
}

/// All between the first sleep and the remap: command, parameters. The analogue values are the
/// ones that Adafruit's and Waveshare's published drivers agree on.
const SETUP: &[(u8, &[u8])] = &[
    (0xFD, &[0x12]),             // command lock: unlock the chip
    (0xFD, &[0xB1]),             // command lock: make commands A2, B1, B3, BB, BE, C1 accessible
    (command::SLEEP, &[]),       // nothing is seen of what follows
    (0xB3, &[0xF1]),             // front clock: fastest oscillator, divided by 2
    (0xCA, &[127]),              // multiplex ratio: all 128 rows
    (0xA1, &[0]),                // start line
    (0xA2, &[0]),                // display offset
    (0xB5, &[0]),                // GPIO pins off
    (0xAB, &[0x01]),             // internal regulator, 8-bit bus
    (0xB1, &[0x32]),             // phases 1 and 2
    (0xBB, &[0x17]),             // precharge voltage
    (0xBE, &[0x05]),             // VCOMH
    (0xC1, &[0xC8, 0x80, 0xC8]), // contrast of the three colours
    (0xC7, &[0x0F]),             // master contrast: full
    (0xB4, &[0xA0, 0xB5, 0x55]), // segment low voltage
    (0xB6, &[0x01]),             // second precharge period
];

/// Between waking and the first light, section 8.9: the supply VCC rises.
const WAKE_WAIT: Duration = Duration::from_millis(200);

/// An SSD1351.
pub(super) struct Ssd1351<S, P, D> {
    link: Link<S, P, D>,
    remap: u8,
    invert: u8,
    /// The first and the last address along the viewer's columns.
    columns: [u8; 2],
    /// The first address along the viewer's rows.
    first_row: u8,
    /// Whether the viewer's columns are the memory's rows.
    turned: bool,
}

impl<S, P, D> Ssd1351<S, P, D> {
    pub fn new(facts: &Facts, link: Link<S, P, D>) -> Self {
        let [width, _] = facts.size_px();
        let start = start(facts);
        Self {
            link,
            remap: remap(facts.orientation(), facts.color_order),
            invert: match facts.invert {
                true => command::INVERSE,
                false => command::NORMAL,
            },
            columns: [address(start[0]), address(start[0] + width - 1)],
            first_row: address(start[1]),
            turned: axes(facts.orientation())[2],
        }
    }
}

/// The first address along the viewer's columns and along the viewer's rows. Mirrored axes count
/// from the memory's other end.
fn start(facts: &Facts) -> [usize; 2] {
    let [mirrored_columns, mirrored_rows, turned] = axes(facts.orientation());
    let memory = facts.controller.memory_px();
    let size = [facts.width_px, facts.height_px];
    let first = |axis: usize, mirrored: bool| {
        let offset = facts.offset_px[axis];
        usize::from(match mirrored {
            true => memory[axis] - size[axis] - offset,
            false => offset,
        })
    };
    let native = [first(0, mirrored_columns), first(1, mirrored_rows)];
    match turned {
        true => [native[1], native[0]],
        false => native,
    }
}

/// Whether the memory's columns run backwards, its rows do, and the two are swapped.
fn axes(orientation: Orientation) -> [bool; 3] {
    let [columns, rows, swapped] = match orientation.rotation {
        Rotation::Deg0 => [false, false, false],
        Rotation::Deg90 => [true, false, true],
        Rotation::Deg180 => [true, true, false],
        Rotation::Deg270 => [false, true, true],
    };
    // The viewer's left and right lie along the memory's rows when the two are swapped.
    match (orientation.mirror, swapped) {
        (Mirror::No, _) => [columns, rows, swapped],
        (Mirror::LeftRight, false) => [!columns, rows, swapped],
        (Mirror::LeftRight, true) => [columns, !rows, swapped],
    }
}

/// The parameter of command A0, table 10-1: 65k colours, COM split, and how the memory is walked.
fn remap(orientation: Orientation, order: ColorOrder) -> u8 {
    let [columns, rows, swapped] = axes(orientation);
    // The usual glass has red at the segments that the chip calls A, and row 0 at its last COM.
    let [upside_down, red_first] = [!rows, order == ColorOrder::Rgb];
    0b0110_0000
        | u8::from(upside_down) << 4
        | u8::from(red_first) << 2
        | u8::from(columns) << 1
        | u8::from(swapped)
}

/// The memory has 128 columns and rows, which [`Facts::check`] holds the facts to.
fn address(px: usize) -> u8 {
    u8::try_from(px).unwrap_or(u8::MAX)
}

impl<S, P, D> Driver for Ssd1351<S, P, D>
where
    S: SpiDevice<Error: fmt::Display> + Send,
    P: OutputPin<Error: fmt::Display> + Send,
    D: DelayNs + Send,
{
    fn wake(&mut self) -> Result<()> {
        self.link.reset()?;
        for (command, parameters) in SETUP {
            self.link.command(*command, parameters)?;
        }
        self.link.command(command::REMAP, &[self.remap])?;
        self.link.command(self.invert, &[])?;
        self.link.command(command::WAKE, &[])?;
        self.link.wait(WAKE_WAIT);
        Ok(())
    }

    fn fill_rows(&mut self, rows: Range<usize>, wire: &[u8]) -> Result<()> {
        let rows = [rows.start, rows.end - 1].map(|row| self.first_row + address(row));
        let (columns, rows) = match self.turned {
            true => (rows, self.columns),
            false => (self.columns, rows),
        };
        self.link.command(command::SET_COLUMNS, &columns)?;
        self.link.command(command::SET_ROWS, &rows)?;
        self.link.command(command::WRITE_MEMORY, &[])?;
        self.link.data(wire)
    }

    fn sleep(&mut self) -> Result<()> {
        self.link.command(command::SLEEP, &[])
    }
}
