//! The colour e-paper controllers: four bits a pixel, some of them side by side.

use std::time::Duration;

use super::epaper::Panel;

/// One controller.
#[derive(Clone)]
struct Chip {
    asleep: bool,
    powered: bool,
    unlocked: bool,
    resolution: Option<[usize; 2]>,
    memory: Vec<u8>,
}

pub struct Colours {
    /// Columns of one controller, and rows.
    size: [usize; 2],
    /// What the resolution register must hold.
    resolution: [usize; 2],
    /// The command that unlocks the others, and its bytes.
    unlock: (u8, &'static [u8]),
    /// Ink indices that are colours.
    inks: &'static [u8],
    chips: Vec<Chip>,
    glass: Vec<u8>,
}

impl Colours {
    /// 7.3" with 7 colours.
    pub fn acep() -> Self {
        let unlock = (0xAA, &[0x49, 0x55, 0x20, 0x08, 0x09, 0x18][..]);
        Self::new([800, 480], [800, 480], unlock, &[0, 1, 2, 3, 4, 5, 6], 1)
    }

    /// 7.3" Spectra 6.
    pub fn spectra() -> Self {
        let unlock = (0xAA, &[0x49, 0x55, 0x20, 0x08, 0x09, 0x18][..]);
        Self::new([800, 480], [800, 480], unlock, &[0, 1, 2, 3, 5, 6], 1)
    }

    /// 13.3" Spectra 6: two controllers.
    pub fn el133uf1() -> Self {
        let unlock = (0xF0, &[0x49, 0x55, 0x13, 0x5D, 0x05, 0x10][..]);
        Self::new([600, 1600], [1200, 800], unlock, &[0, 1, 2, 3, 5, 6], 2)
    }

    fn new(
        size: [usize; 2],
        resolution: [usize; 2],
        unlock: (u8, &'static [u8]),
        inks: &'static [u8],
        chips: usize,
    ) -> Self {
        let chip = Chip {
            asleep: true,
            powered: false,
            unlocked: false,
            resolution: None,
            memory: Vec::new(),
        };
        Self {
            size,
            resolution,
            unlock,
            inks,
            chips: vec![chip; chips],
            glass: vec![9; size[0] * size[1] * chips],
        }
    }

    fn refresh(&mut self, at: usize) -> Result<Duration, String> {
        let [columns, rows] = self.size;
        let chip = &self.chips[at];
        if !chip.powered || chip.resolution != Some(self.resolution) {
            return Err(format!(
                "a refresh with power {}, {:?}",
                chip.powered, chip.resolution
            ));
        }
        if 2 * chip.memory.len() != columns * rows {
            return Err(format!("a refresh from {} bytes", chip.memory.len()));
        }
        let all = columns * self.chips.len();
        for (pair, byte) in chip.memory.iter().enumerate() {
            let (x, y) = (2 * pair % columns, 2 * pair / columns);
            for (offset, ink) in [byte >> 4, byte & 15].into_iter().enumerate() {
                if !self.inks.contains(&ink) {
                    return Err(format!("ink {ink} at ({x}, {y})"));
                }
                self.glass[y * all + at * columns + x + offset] = ink;
            }
        }
        Ok(Duration::from_secs(20))
    }
}

impl Panel for Colours {
    fn reset(&mut self) {
        for chip in &mut self.chips {
            chip.asleep = false;
            (chip.powered, chip.unlocked, chip.resolution) = (false, false, None);
            chip.memory.clear();
        }
    }

    fn run(&mut self, at: usize, command: u8, data: &[u8]) -> Result<Duration, String> {
        let chip = &mut self.chips[at];
        if chip.asleep {
            return Err(format!("command {command:#04x} to a sleeping controller"));
        }
        if (command, data) == self.unlock {
            chip.unlocked = true;
            return Ok(Duration::ZERO);
        }
        // The analogue settings of the 13.3" glass come before its unlocking.
        if !chip.unlocked && command != 0x74 {
            return Err(format!("command {command:#04x} before the unlocking"));
        }
        match (command, data) {
            (0x02, [0]) => {
                chip.powered = false;
                return Ok(Duration::from_millis(100));
            }
            (0x04, []) => {
                chip.powered = true;
                return Ok(Duration::from_millis(200));
            }
            (0x07, [0xA5]) if !chip.powered => chip.asleep = true,
            (0x10, data) => chip.memory = data.to_vec(),
            (0x12, [0]) => return self.refresh(at),
            (0x61, [a, b, c, d]) => {
                let number = |high: u8, low: u8| usize::from(high) << 8 | usize::from(low);
                chip.resolution = Some([number(*a, *b), number(*c, *d)]);
            }
            (0x07 | 0x12, _) => return Err(format!("command {command:#04x} with {data:?}")),
            (0x00 | 0x01 | 0x03 | 0x05 | 0x06 | 0x08 | 0x13 | 0x30 | 0x41 | 0x50 | 0x60, _) => {}
            (0x74 | 0x82 | 0x84 | 0x86 | 0xA4 | 0xA5 | 0xB0 | 0xB1 | 0xB6 | 0xB7, _) => {}
            (0xE0 | 0xE3 | 0xE6, _) => {}
            _ => return Err(format!("command {command:#04x} is none of its own")),
        }
        Ok(Duration::ZERO)
    }

    fn glass(&self) -> Vec<u8> {
        self.glass.clone()
    }

    fn sleeps(&self) -> bool {
        self.chips.iter().all(|chip| chip.asleep)
    }
}
