//! Solomon Systech's SSD1351 with its OLED glass, after its datasheet (rev 1.5).

use std::time::Duration;

use super::Seen;
use super::wire::Chip;

/// Columns, and rows.
const SIDE: usize = 128;

/// The remap's bits: vertical increment, columns from the other end, red first, rows from the
/// other end.
const VERTICAL: u8 = 0x01;
const COLUMNS: u8 = 0x02;
const SWAPPED: u8 = 0x04;
const ROWS: u8 = 0x10;

/// A controller and its memory.
#[derive(Debug, Clone)]
pub struct Controller {
    on: bool,
    inverse: bool,
    /// The chip's own lock, and the lock of the commands that set voltages.
    locked: [bool; 2],
    remap: u8,
    columns: [usize; 2],
    rows: [usize; 2],
    cursor: [usize; 2],
    /// By segment and by row of the memory, colours as they came.
    memory: Vec<[u8; 3]>,
    command: u8,
    parameters: Vec<u8>,
    /// What a real controller would not have understood.
    pub complaints: Vec<String>,
}

impl Controller {
    /// Just powered, its memory full of noise.
    pub fn new() -> Self {
        let noise = |at: usize| [(at * 37) as u8, (at * 91) as u8, (at * 53) as u8];
        Self {
            on: false,
            inverse: false,
            locked: [false, true],
            remap: 0x40,
            columns: [0, SIDE - 1],
            rows: [0, SIDE - 1],
            cursor: [0; 2],
            memory: (0..SIDE * SIDE).map(noise).collect(),
            command: 0,
            parameters: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// What a viewer sees of a glass on which the maker's driver shows an upright picture in true
    /// colours with `remap`; black where nothing is lit.
    pub fn seen(&self, remap: u8) -> Seen {
        let other_end = |bit: u8, flags: u8, at: usize| match flags & bit {
            0 => at,
            _ => SIDE - 1 - at,
        };
        Seen::new([SIDE; 2], |column, row| {
            if !self.on {
                return [0; 3];
            }
            let segment = other_end(COLUMNS, remap, column);
            let common = other_end(ROWS, remap, row);
            let mut colour = self.memory[other_end(ROWS, self.remap, common) * SIDE + segment];
            if (self.remap ^ remap) & SWAPPED != 0 {
                colour.reverse();
            }
            match self.inverse {
                true => colour.map(|value| 255 - value),
                false => colour,
            }
        })
    }

    fn window(&mut self) -> Option<[usize; 2]> {
        let ends = [self.parameters[0], self.parameters[1]].map(usize::from);
        if ends[0] > ends[1] || ends[1] >= SIDE {
            self.complaints.push(format!("window {ends:?}"));
            return None;
        }
        Some(ends)
    }

    fn parameter(&mut self, byte: u8) {
        self.parameters.push(byte);
        match (self.command, self.parameters.len()) {
            (0x15, 2) => {
                self.columns = self.window().unwrap_or(self.columns);
                self.cursor[0] = self.columns[0];
            }
            (0x75, 2) => {
                self.rows = self.window().unwrap_or(self.rows);
                self.cursor[1] = self.rows[0];
            }
            (0xA0, 1) => {
                self.remap = byte;
                if byte & 0xE0 != 0x60 {
                    self.complaints.push(format!("remap {byte:#04x}"));
                }
            }
            (0xFD, 1) => match byte {
                0x12 | 0x16 => self.locked[0] = byte == 0x16,
                0xB0 | 0xB1 => self.locked[1] = byte == 0xB0,
                _ => self.complaints.push(format!("lock {byte:#04x}")),
            },
            (0x5C, 2) => self.pixel(),
            _ => {}
        }
    }

    fn pixel(&mut self) {
        let level = |level: u16, most: u16| ((level * 255 + most / 2) / most) as u8;
        let packed = u16::from_be_bytes([self.parameters[0], self.parameters[1]]);
        self.parameters.clear();
        let [column, row] = self.cursor;
        let segment = match self.remap & COLUMNS {
            0 => column,
            _ => SIDE - 1 - column,
        };
        self.memory[row * SIDE + segment] = [
            level(packed >> 11, 31),
            level(packed >> 5 & 63, 63),
            level(packed & 31, 31),
        ];
        let [first, second] = match self.remap & VERTICAL {
            0 => [0, 1],
            _ => [1, 0],
        };
        let ends = [self.columns, self.rows];
        for axis in [first, second] {
            self.cursor[axis] += 1;
            if self.cursor[axis] <= ends[axis][1] {
                break;
            }
            self.cursor[axis] = ends[axis][0];
        }
    }
}

impl Chip for Controller {
    fn command(&mut self, byte: u8, _: Duration) {
        let voltages = [0xA2, 0xB1, 0xB3, 0xBB, 0xBE, 0xC1].contains(&byte);
        if byte != 0xFD && (self.locked[0] || voltages && self.locked[1]) {
            self.complaints
                .push(format!("command {byte:#04x} while locked"));
            self.command = 0;
            return;
        }
        (self.command, self.parameters) = (byte, Vec::new());
        match byte {
            0xA6 | 0xA7 => self.inverse = byte == 0xA7,
            0xAE | 0xAF => self.on = byte == 0xAF,
            _ => {}
        }
    }

    fn data(&mut self, bytes: &[u8], _: Duration) {
        for byte in bytes {
            self.parameter(*byte);
        }
    }

    fn reset(&mut self, _: Duration) {
        let memory = std::mem::take(&mut self.memory);
        *self = Self {
            memory,
            complaints: std::mem::take(&mut self.complaints),
            ..Self::new()
        };
    }
}
