//! A UC8179 with a glass of black and white, four greys, or black, white and red.

use std::time::Duration;

use super::epaper::Panel;

const WIDTH: usize = 800;
const HEIGHT: usize = 480;

pub struct Uc8179 {
    asleep: bool,
    powered: bool,
    panel: u8,
    polarity: u8,
    /// What the waveform is chosen by: the forced temperature.
    temperature: Option<u8>,
    cascade: bool,
    window: Option<[usize; 4]>,
    planes: [Vec<bool>; 2],
    glass: Vec<u8>,
}

impl Uc8179 {
    pub fn new() -> Self {
        let mut chip = Self {
            asleep: true,
            powered: false,
            panel: 0,
            polarity: 0,
            temperature: None,
            cascade: false,
            window: None,
            planes: [Vec::new(), Vec::new()],
            glass: vec![9; WIDTH * HEIGHT],
        };
        chip.forget();
        chip
    }

    /// Registers as after a reset, and memory that holds anything.
    fn forget(&mut self) {
        self.powered = false;
        (self.panel, self.polarity) = (0x0F, 0x31);
        (self.temperature, self.cascade, self.window) = (None, false, None);
        for plane in &mut self.planes {
            *plane = (0..WIDTH * HEIGHT).map(|at| at % 3 == 0).collect();
        }
    }

    fn places(&self) -> Vec<usize> {
        let [left, right, top, bottom] = self.window.unwrap_or([0, WIDTH - 1, 0, HEIGHT - 1]);
        let rows = top..=bottom;
        rows.flat_map(|y| (left..=right).map(move |x| y * WIDTH + x))
            .collect()
    }

    fn write(&mut self, plane: usize, data: &[u8]) -> Result<Duration, String> {
        let places = self.places();
        if 8 * data.len() != places.len() {
            let (got, expected) = (data.len(), places.len() / 8);
            return Err(format!("plane {plane}: {got} bytes for {expected}"));
        }
        for (at, place) in places.into_iter().enumerate() {
            self.planes[plane][place] = data[at / 8] << (at % 8) & 0x80 != 0;
        }
        Ok(Duration::ZERO)
    }

    fn refresh(&mut self) -> Result<Duration, String> {
        if !self.powered {
            return Err("a refresh without power".into());
        }
        let grey = self.cascade && self.temperature == Some(0x5F);
        let partial = self.window.is_some();
        if partial != (self.cascade && self.temperature == Some(0x6E)) {
            return Err("a window without its waveform, or the other way round".into());
        }
        for place in self.places() {
            let (old, new) = (self.planes[0][place], self.planes[1][place]);
            let one_is_white = self.polarity & 1 == 1;
            let ink = match (self.panel, old, new) {
                (0x0F, _, true) => 2,
                (0x0F, white, false) => u8::from(white == one_is_white),
                (0x1F, old, new) if grey => match (old, new) {
                    (false, false) => 3,
                    (true, false) => 2,
                    (false, true) => 1,
                    (true, true) => 0,
                },
                (0x1F, old, new) => {
                    let [old, new] = [old, new].map(|bit| u8::from(bit == one_is_white));
                    if partial && old != self.glass[place] {
                        return Err("a partial refresh from what the glass does not show".into());
                    }
                    new
                }
                _ => return Err(format!("panel setting {:#04x}", self.panel)),
            };
            self.glass[place] = ink;
        }
        Ok(match (partial, self.panel) {
            (true, _) => Duration::from_millis(400),
            (false, 0x0F) => Duration::from_secs(16),
            _ => Duration::from_secs(4),
        })
    }

    fn set_window(&mut self, data: &[u8]) -> Result<Duration, String> {
        let number = |at: usize| usize::from(data[at]) << 8 | usize::from(data[at + 1]);
        let window = [number(0), number(2), number(4), number(6)];
        let [left, right, top, bottom] = window;
        let whole = left % 8 == 0 && right % 8 == 7;
        if !whole || right >= WIDTH || bottom >= HEIGHT || left > right || top > bottom {
            return Err(format!("window {window:?}"));
        }
        self.window = Some(window);
        Ok(Duration::ZERO)
    }
}

impl Panel for Uc8179 {
    fn reset(&mut self) {
        self.asleep = false;
        self.forget();
    }

    fn run(&mut self, _: usize, command: u8, data: &[u8]) -> Result<Duration, String> {
        if self.asleep {
            return Err(format!("command {command:#04x} to a sleeping controller"));
        }
        match (command, data) {
            (0x00, [panel]) => self.panel = *panel,
            (0x01, [_, _, _, _]) | (0x06, [_, _, _, _]) | (0x15, [0]) | (0x60, [0x22]) => {}
            (0x02, []) => {
                self.powered = false;
                return Ok(Duration::from_millis(60));
            }
            (0x04, []) => {
                self.powered = true;
                return Ok(Duration::from_millis(150));
            }
            (0x07, [0xA5]) if !self.powered => self.asleep = true,
            (0x10, data) => return self.write(0, data),
            (0x13, data) => return self.write(1, data),
            (0x12, []) => return self.refresh(),
            (0x50, [polarity]) => self.polarity = *polarity,
            (0x50, [polarity, 0x07]) => self.polarity = *polarity,
            (0x61, [0x03, 0x20, 0x01, 0xE0]) => {}
            (0x91, []) => self.window = Some([0, WIDTH - 1, 0, HEIGHT - 1]),
            (0x90, [_, _, _, _, _, _, _, _, 1]) if self.window.is_some() => {
                return self.set_window(data);
            }
            (0xE0, [2]) => self.cascade = true,
            (0xE5, [temperature]) => self.temperature = Some(*temperature),
            _ => return Err(format!("command {command:#04x} with {} bytes", data.len())),
        }
        Ok(Duration::ZERO)
    }

    fn glass(&self) -> Vec<u8> {
        self.glass.clone()
    }

    fn sleeps(&self) -> bool {
        self.asleep
    }
}
