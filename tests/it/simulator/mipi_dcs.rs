//! The MIPI DCS family: ST7789, ILI9341 and their kin, from the bytes to the glass.
//!
//! After the datasheets: ST7789V (Sitronix, V1.6), ILI9341 (V1.11), ILI9486, ILI9488, GC9A01,
//! ST7735S, ST7796S. What they share is here; what sets a voltage or a gamma is passed over.

use std::time::Duration;

use super::Seen;
use super::wire::Chip;

/// What a controller's kind decides.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Columns and rows of its memory.
    pub memory_px: [usize; 2],
    /// Whether its SPI takes 16 bits a pixel; all take 18.
    pub takes_565: bool,
}

/// The glass in front of it, told by the settings with which its maker's own driver shows an
/// upright picture in true colours.
#[derive(Debug, Clone, Copy)]
pub struct Glass {
    /// The maker's MADCTL.
    pub madctl: u8,
    /// The first column and row that the maker's driver addresses.
    pub origin: [usize; 2],
    /// The columns and rows that it addresses.
    pub size_px: [usize; 2],
    /// How many quarters clockwise the maker's program turns a picture before it sends it.
    pub turned_before: usize,
    /// Whether the maker sends INVON.
    pub inverted: bool,
    /// Whether only the circle is glass.
    pub round: bool,
}

/// MADCTL's bits.
const MY: u8 = 0x80;
const MX: u8 = 0x40;
const MV: u8 = 0x20;
const BGR: u8 = 0x08;

/// After SWRESET, SLPOUT and SLPIN the controller hears nothing for so long.
const DEAF: Duration = Duration::from_millis(5);

/// A controller and its memory.
#[derive(Debug, Clone)]
pub struct Controller {
    kind: Kind,
    asleep: bool,
    on: bool,
    inverted: bool,
    madctl: u8,
    bits: u8,
    columns: [usize; 2],
    rows: [usize; 2],
    /// Colours as they came, first component first, row by row.
    memory: Vec<[u8; 3]>,
    command: u8,
    parameters: Vec<u8>,
    cursor: [usize; 2],
    deaf_until: Duration,
    /// What a real controller would not have understood.
    pub complaints: Vec<String>,
    /// Hung, by a spark from a visitor's sleeve: it hears nothing but its line RESET.
    pub hung: bool,
    /// A fault of the test's own making: added to the first row of every window.
    pub rows_off_by: usize,
}

impl Controller {
    /// Just powered, its memory full of noise.
    pub fn new(kind: Kind) -> Self {
        let mut controller = Self {
            kind,
            asleep: true,
            on: false,
            inverted: false,
            madctl: 0,
            bits: 18,
            columns: [0; 2],
            rows: [0; 2],
            memory: Vec::new(),
            command: 0,
            parameters: Vec::new(),
            cursor: [0; 2],
            deaf_until: Duration::ZERO,
            complaints: Vec::new(),
            hung: false,
            rows_off_by: 0,
        };
        controller.power_on();
        controller
    }

    /// The supply comes back.
    pub fn power_on(&mut self) {
        let [width, height] = self.kind.memory_px;
        let noise = |at: usize| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes();
        let pixel = |at| [noise(at)[0], noise(at)[1], noise(at)[2]];
        self.memory = (0..width * height).map(pixel).collect();
        self.default_state();
    }

    fn default_state(&mut self) {
        let [width, height] = self.kind.memory_px;
        (self.asleep, self.on, self.inverted) = (true, false, false);
        (self.madctl, self.bits) = (0, 18);
        (self.columns, self.rows) = ([0, width - 1], [0, height - 1]);
        self.command = 0;
    }

    /// Whether the glass shows its memory.
    pub fn is_on(&self) -> bool {
        self.on && !self.asleep
    }

    /// Whether the glass is blank and the controller asleep.
    pub fn is_off(&self) -> bool {
        !self.on && self.asleep
    }

    /// What a viewer sees; white where a transmissive glass has nothing to show.
    pub fn seen(&self, glass: &Glass) -> Seen {
        let seen = Seen::new(glass.size_px, |column, row| {
            if !self.is_on() {
                return [255; 3];
            }
            let address = [column + glass.origin[0], row + glass.origin[1]];
            let place = self.place(glass.madctl, address).unwrap();
            let mut colour = self.memory[place];
            if (self.madctl ^ glass.madctl) & BGR != 0 {
                colour.reverse();
            }
            match self.inverted == glass.inverted {
                true => colour,
                false => colour.map(|value| 255 - value),
            }
        });
        let seen = seen.turned((4 - glass.turned_before) % 4);
        if glass.round { seen.round() } else { seen }
    }

    /// The colour at a native column and row, as it came.
    pub fn native(&self, [x, y]: [usize; 2]) -> [u8; 3] {
        self.memory[y * self.kind.memory_px[0] + x]
    }

    /// Where in the memory an address lies.
    fn place(&self, madctl: u8, [column, row]: [usize; 2]) -> Option<usize> {
        let [width, height] = self.kind.memory_px;
        let [mut x, mut y] = if madctl & MV == 0 {
            [column, row]
        } else {
            [row, column]
        };
        if x >= width || y >= height {
            return None;
        }
        if madctl & MX != 0 {
            x = width - 1 - x;
        }
        if madctl & MY != 0 {
            y = height - 1 - y;
        }
        Some(y * width + x)
    }

    fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }

    /// A window's first and last, or nothing where the controller would ignore it.
    fn window(&mut self, most: usize) -> Option<[usize; 2]> {
        let [a, b, c, d] = self.parameters[..] else {
            return None;
        };
        let ends = [[a, b], [c, d]].map(|end| usize::from(u16::from_be_bytes(end)));
        if ends[0] > ends[1] || ends[1] >= most {
            self.complain(format!("window {ends:?} of {most}"));
            return None;
        }
        Some(ends)
    }

    fn parameter(&mut self, byte: u8) {
        self.parameters.push(byte);
        let [width, height] = self.kind.memory_px;
        let [columns, rows] = match self.madctl & MV {
            0 => [width, height],
            _ => [height, width],
        };
        match (self.command, self.parameters.len()) {
            (0x2A, 4) => self.columns = self.window(columns).unwrap_or(self.columns),
            (0x2B, 4) => {
                let mut window = self.window(rows).unwrap_or(self.rows);
                window[0] += self.rows_off_by;
                self.rows = window;
            }
            (0x36, 1) => self.madctl = byte,
            (0x3A, 1) => match (byte & 7, self.kind.takes_565) {
                (5, true) => self.bits = 16,
                (6, _) => self.bits = 18,
                _ => self.complain(format!("pixel format {byte:#04x}")),
            },
            (0x2C | 0x3C, bytes) if bytes == usize::from(self.bits).div_ceil(8) => self.pixel(),
            _ => {}
        }
    }

    fn pixel(&mut self) {
        let level = |level: u16, most: u16| ((level * 255 + most / 2) / most) as u8;
        let colour = match std::mem::take(&mut self.parameters)[..] {
            [high, low] => {
                let packed = u16::from_be_bytes([high, low]);
                [
                    level(packed >> 11, 31),
                    level(packed >> 5 & 63, 63),
                    level(packed & 31, 31),
                ]
            }
            [r, g, b] => [r, g, b].map(|byte| level(u16::from(byte >> 2), 63)),
            _ => unreachable!("a pixel has two or three bytes"),
        };
        match self.place(self.madctl, self.cursor) {
            Some(place) => self.memory[place] = colour,
            None => self.complain(format!("pixel at {:?}", self.cursor)),
        }
        self.cursor[0] += 1;
        if self.cursor[0] > self.columns[1] {
            self.cursor = [self.columns[0], self.cursor[1] + 1];
        }
        if self.cursor[1] > self.rows[1] {
            self.cursor[1] = self.rows[0];
        }
    }
}

impl Chip for Controller {
    fn command(&mut self, byte: u8, now: Duration) {
        if self.hung {
            return;
        }
        if now < self.deaf_until {
            self.complain(format!("command {byte:#04x} while deaf"));
            return;
        }
        (self.command, self.parameters) = (byte, Vec::new());
        match byte {
            0x01 => {
                self.default_state();
                self.deaf_until = now + DEAF;
            }
            0x10 | 0x11 => {
                self.asleep = byte == 0x10;
                self.deaf_until = now + DEAF;
            }
            0x20 | 0x21 => self.inverted = byte == 0x21,
            0x28 | 0x29 => self.on = byte == 0x29,
            0x2C => self.cursor = [self.columns[0], self.rows[0]],
            _ => {}
        }
    }

    fn data(&mut self, bytes: &[u8], now: Duration) {
        if self.hung {
            return;
        }
        if now < self.deaf_until {
            self.complain(format!("{} bytes while deaf", bytes.len()));
            return;
        }
        for byte in bytes {
            self.parameter(*byte);
        }
    }

    fn reset(&mut self, now: Duration) {
        self.hung = false;
        self.default_state();
        self.deaf_until = now + DEAF;
    }
}
