//! Panels without hardware: what a viewer sees of the bytes that a driver sends.

pub mod colour_epaper;
pub mod epaper;
pub mod mipi_dcs;
pub mod ssd1351;
pub mod uc8179;
pub mod wire;

use driftglass::picture::Picture;

/// A picture as a viewer sees it: colours row by row, `None` where there is no glass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub width_px: usize,
    pub pixels: Vec<Option<[u8; 3]>>,
}

impl Seen {
    /// `colour` of every column and row.
    pub fn new(size_px: [usize; 2], colour: impl Fn(usize, usize) -> [u8; 3]) -> Self {
        let [width_px, height_px] = size_px;
        let rows = (0..height_px).flat_map(|y| (0..width_px).map(move |x| (x, y)));
        Self {
            width_px,
            pixels: rows.map(|(x, y)| Some(colour(x, y))).collect(),
        }
    }

    /// Only the circle inside the square.
    pub fn round(mut self) -> Self {
        // In halves of a pixel, so that the centre lies on a corner.
        let side = self.width_px as i64;
        for (at, pixel) in self.pixels.iter_mut().enumerate() {
            let place = [at as i64 % side, at as i64 / side];
            let [dx, dy] = place.map(|place| 2 * place + 1 - side);
            if dx * dx + dy * dy > side * side {
                *pixel = None;
            }
        }
        self
    }

    /// Turned clockwise by so many quarters.
    pub fn turned(self, quarters: usize) -> Self {
        let mut seen = self;
        for _ in 0..quarters {
            let (width, height) = (seen.pixels.len() / seen.width_px, seen.width_px);
            let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
            let pixels = rows.map(|(x, y)| seen.pixels[(width - 1 - x) * height + y]);
            seen = Self {
                width_px: width,
                pixels: pixels.collect(),
            };
        }
        seen
    }

    /// A rectangle of it.
    pub fn part(&self, [left, top]: [usize; 2], [width, height]: [usize; 2]) -> Self {
        let rows = self.pixels.chunks(self.width_px).skip(top).take(height);
        Self {
            width_px: width,
            pixels: rows
                .flat_map(|row| row[left..left + width].to_vec())
                .collect(),
        }
    }

    /// The places where two pictures differ, a few of them: for a message.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self == other {
            return None;
        }
        if (self.width_px, self.pixels.len()) != (other.width_px, other.pixels.len()) {
            return Some(format!("{} and {} columns", self.width_px, other.width_px));
        }
        let pairs = self.pixels.iter().zip(&other.pixels).enumerate();
        let wrong: Vec<_> = pairs.filter(|(_, (one, other))| one != other).collect();
        let (at, (one, other)) = wrong[0];
        let place = (at % self.width_px, at / self.width_px);
        let count = wrong.len();
        Some(format!(
            "{count} pixels, first {one:?} and {other:?} at {place:?}"
        ))
    }
}

/// What is no glass is black.
impl From<&Seen> for Picture {
    fn from(seen: &Seen) -> Self {
        let height_px = seen.pixels.len() / seen.width_px;
        let rgb = seen
            .pixels
            .iter()
            .flat_map(|pixel| pixel.unwrap_or_default());
        Self::new(seen.width_px, height_px, rgb.collect())
    }
}
