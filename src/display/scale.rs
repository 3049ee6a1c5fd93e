//! Scaling: a part of a picture, larger or smaller, into a part of a frame.
//!
//! A [`Scaling`] holds the tables of one pair of sizes and is used for every picture of that size:
//! columns first, then rows, in whole numbers, so that it gives the same pixels on every CPU.
//! Values are averaged as they are coded, not as light.

use std::f64::consts::PI;
use std::ops::Range;

use super::frame::Frame;
use super::pixel_art;
use crate::picture::Picture;

/// How pixels between pixels are made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scaler {
    /// What suits painted pictures, judged by eye: [`Self::Lanczos3`] to enlarge,
    /// [`Self::Bilinear`] to shrink; and hard squares for a mount of whole multiples.
    #[default]
    Auto,
    /// Squares with hard edges; of unequal size where the factor is no whole number.
    Nearest,
    /// Straight lines between pixels; when it shrinks, the average of what is shrunk.
    Bilinear,
    /// Sharper, with a faint seam along hard edges: Lanczos' kernel of radius 3.
    Lanczos3,
    /// Smooth where the picture is smooth, hard where it has edges, and slanted edges without
    /// stairs: see [`pixel_art`].
    PixelArt,
}

spelled!(
    Scaler,
    "scaler",
    Auto = "auto",
    Nearest = "nearest",
    Bilinear = "bilinear",
    Lanczos3 = "lanczos3",
    PixelArt = "pixel-art"
);

/// One axis of a scaling: which part of the source becomes how many pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The source's pixels.
    pub source_px: usize,
    /// Where the part begins, in source pixels, at least 0.
    pub from: f64,
    /// How long the part is, in source pixels; it ends within the source.
    pub length: f64,
    /// How many pixels it becomes.
    pub target_px: usize,
    /// Which of those are computed.
    pub window: Range<usize>,
}

impl Span {
    /// The whole source.
    pub fn whole(source_px: usize, target_px: usize) -> Self {
        Self::part(source_px, 0.0, source_px as f64, target_px)
    }

    /// The part of the source that begins at `from` and is `length` long.
    pub fn part(source_px: usize, from: f64, length: f64, target_px: usize) -> Self {
        Self {
            source_px,
            from,
            length,
            target_px,
            window: 0..target_px,
        }
    }

    /// The same, of which only `window` is computed.
    pub fn windowed(self, window: Range<usize>) -> Self {
        Self { window, ..self }
    }

    /// Target pixels in a source pixel.
    fn factor(&self) -> f64 {
        self.target_px as f64 / self.length
    }

    /// The same part of a source enlarged by a whole number.
    fn of_enlarged(&self, times: usize) -> Self {
        Self {
            source_px: self.source_px * times,
            from: self.from * times as f64,
            length: self.length * times as f64,
            ..self.clone()
        }
    }
}

/// The tables of one scaling, and the memory it works in.
#[derive(Debug)]
pub struct Scaling {
    doublings: u32,
    columns: Taps,
    rows: Taps,
    /// The source's rows after the columns' pass, times 64.
    scaled: Vec<i16>,
}

impl Scaling {
    /// Prepares to scale with `scaler`; the columns' span and the rows'.
    ///
    /// # Panics
    ///
    /// When a span has no source, no target, or leaves its source.
    pub fn new(scaler: Scaler, columns: &Span, rows: &Span) -> Self {
        let factor = columns.factor().max(rows.factor());
        let kernel = match scaler {
            Scaler::Auto if factor <= 1.0 => Kernel::Triangle,
            Scaler::Bilinear => Kernel::Triangle,
            Scaler::Nearest => Kernel::Nearest,
            Scaler::Auto | Scaler::Lanczos3 => Kernel::Lanczos3,
            Scaler::PixelArt => Kernel::PixelArt,
        };
        Self::with_kernel(kernel, columns, rows)
    }

    /// A very soft scaling without any structure of pixels, for what lies behind a picture.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    pub fn soft(columns: &Span, rows: &Span) -> Self {
        Self::with_kernel(Kernel::Spline, columns, rows)
    }

    /// The average of what becomes a pixel.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    pub fn area(columns: &Span, rows: &Span) -> Self {
        Self::with_kernel(Kernel::Area, columns, rows)
    }

    fn with_kernel(kernel: Kernel, columns: &Span, rows: &Span) -> Self {
        let factor = columns.factor().max(rows.factor());
        let (doublings, finish) = match kernel {
            Kernel::PixelArt => {
                let doublings = pixel_art::doublings(factor);
                let times = 2.0_f64.powi(doublings as i32);
                let finish = if factor <= times {
                    Kernel::Area
                } else {
                    Kernel::Triangle
                };
                (doublings, finish)
            }
            kernel => (0, kernel),
        };
        let taps = |span: &Span| Taps::new(finish, &span.of_enlarged(1 << doublings));
        Self {
            doublings,
            columns: taps(columns),
            rows: taps(rows),
            scaled: Vec::new(),
        }
    }

    /// Scales `source` into the frame's rectangle whose top left pixel is (`x`, `y`) and whose
    /// size is that of the two windows.
    ///
    /// # Panics
    ///
    /// When the source has another size than the spans, or the rectangle leaves the frame.
    pub fn draw(&mut self, source: &Picture, frame: &mut Frame, [x, y]: [usize; 2]) {
        let doubled = (self.doublings > 0).then(|| pixel_art::enlarged(source, self.doublings));
        let source = doubled.as_ref().unwrap_or(source);
        assert_eq!(
            [source.width_px(), source.height_px()],
            [self.columns.source_px, self.rows.source_px],
            "tables of another size"
        );
        let width = 3 * self.columns.len();
        let used = self.rows.used();
        self.scaled.resize(width * used.len(), 0);
        for (row, scaled) in used.clone().zip(self.scaled.chunks_exact_mut(width)) {
            let row = &source.rgb()[3 * source.width_px() * row..][..3 * source.width_px()];
            self.columns.along(row, scaled);
        }
        let pitch = 3 * frame.width_px();
        for (line, (first, weights)) in self.rows.iter().enumerate() {
            let above = &self.scaled[width * (first - used.start)..];
            let target = &mut frame.rgb_mut()[pitch * (y + line) + 3 * x..][..width];
            across(above, weights, target);
        }
    }
}

/// What a pixel is worth at a distance.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kernel {
    Nearest,
    Area,
    Triangle,
    Lanczos3,
    /// The cubic B-spline.
    Spline,
    /// [`Self::Area`] or [`Self::Triangle`] after doublings.
    PixelArt,
}

impl Kernel {
    /// Beyond this distance, in source pixels, everything is worth nothing.
    fn radius(self) -> f64 {
        match self {
            Self::Nearest | Self::Area => 0.5,
            Self::Triangle | Self::PixelArt => 1.0,
            Self::Spline => 2.0,
            Self::Lanczos3 => 3.0,
        }
    }

    /// The worth at distance `x`.
    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        let sinc = |x: f64| {
            if x < 1e-9 {
                1.0
            } else {
                (PI * x).sin() / (PI * x)
            }
        };
        match self {
            _ if x >= self.radius() => 0.0,
            Self::Nearest | Self::Area => 1.0,
            Self::Triangle | Self::PixelArt => 1.0 - x,
            Self::Spline if x < 1.0 => 2.0 / 3.0 - x * x * (1.0 - x / 2.0),
            Self::Spline => (2.0 - x).powi(3) / 6.0,
            Self::Lanczos3 => sinc(x) * sinc(x / 3.0),
        }
    }
}

/// For every target pixel of an axis: the first source pixel, and the weights from there on.
#[derive(Debug)]
struct Taps {
    source_px: usize,
    /// Weights of each target pixel.
    count: usize,
    first: Vec<usize>,
    /// In units of 1/16384; those of a target pixel add up to one.
    weights: Vec<i16>,
}

/// What a weight of one is stored as.
const ONE: i32 = 1 << 14;

/// The bits behind the point in [`Scaling::scaled`].
const FRACTION: u32 = 6;

impl Taps {
    fn new(kernel: Kernel, span: &Span) -> Self {
        assert!(
            span.source_px > 0 && span.target_px > 0 && span.window.end <= span.target_px,
            "{span:?}"
        );
        assert!(
            span.from > -1e-6
                && span.length > 0.0
                && span.from + span.length < span.source_px as f64 + 1e-6,
            "{span:?}"
        );
        let all: Vec<_> = span
            .window
            .clone()
            .map(|target| taps(kernel, span, target))
            .collect();
        let count = all.iter().map(|(_, weights)| weights.len()).max();
        let count = count.unwrap_or(1);
        let mut made = Self {
            source_px: span.source_px,
            count,
            first: Vec::with_capacity(all.len()),
            weights: Vec::with_capacity(all.len() * count),
        };
        for (first, weights) in all {
            // All have as many weights as the longest, with zeros in front where the source ends.
            let start = first.min(span.source_px - count);
            made.first.push(start);
            let at = made.weights.len();
            made.weights.resize(at + count, 0);
            made.weights[at + first - start..][..weights.len()].copy_from_slice(&weights);
        }
        made
    }

    /// The number of target pixels.
    fn len(&self) -> usize {
        self.first.len()
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i16])> {
        let weights = self.weights.chunks_exact(self.count);
        self.first.iter().copied().zip(weights)
    }

    /// The source pixels that are read.
    fn used(&self) -> Range<usize> {
        let start = self.first.iter().min().copied().unwrap_or(0);
        let end = self.first.iter().max().map_or(0, |last| last + self.count);
        start..end
    }

    /// One row of RGB, scaled, times 64.
    fn along(&self, row: &[u8], scaled: &mut [i16]) {
        for ((first, weights), scaled) in self.iter().zip(scaled.chunks_exact_mut(3)) {
            let mut sums = [0; 3];
            for (pixel, &weight) in row[3 * first..].chunks_exact(3).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(weight) * i32::from(value);
                }
            }
            for (scaled, sum) in scaled.iter_mut().zip(sums) {
                *scaled = (sum >> (14 - FRACTION)) as i16;
            }
        }
    }
}

/// The weights of one target pixel, with the first source pixel they belong to.
fn taps(kernel: Kernel, span: &Span, target: usize) -> (usize, Vec<i16>) {
    let step = span.length / span.target_px as f64;
    let begin = span.from + target as f64 * step;
    let last = span.source_px - 1;
    // Where a centre falls on an edge, the pixel behind it counts, whatever a division rounded.
    let inside = |place: f64| ((place + 1e-9).floor().max(0.0) as usize).min(last);
    let (low, high) = match kernel {
        Kernel::Nearest => (inside(begin + step / 2.0), inside(begin + step / 2.0)),
        Kernel::Area => (inside(begin), inside(begin + step - 2e-9)),
        _ => {
            let reach = kernel.radius() * step.max(1.0);
            let centre = begin + step / 2.0 - 0.5;
            let low = (centre - reach).floor() as i64 + 1;
            let high = (centre + reach).ceil() as i64 - 1;
            return folded(kernel, centre, step.max(1.0), low..=high, last);
        }
    };
    let covered = |pixel: usize| {
        let (left, right) = (pixel as f64, pixel as f64 + 1.0);
        (right.min(begin + step) - left.max(begin)).max(0.0)
    };
    let weights = if low == high {
        vec![1.0]
    } else {
        (low..=high).map(covered).collect()
    };
    (low, whole(&weights))
}

/// A kernel's weights; what lies beyond the source counts as its edge.
fn folded(
    kernel: Kernel,
    centre: f64,
    stretch: f64,
    pixels: std::ops::RangeInclusive<i64>,
    last: usize,
) -> (usize, Vec<i16>) {
    let clamped = |pixel: i64| pixel.clamp(0, last as i64) as usize;
    let low = clamped(*pixels.start());
    let mut weights = vec![0.0; clamped(*pixels.end()) - low + 1];
    for pixel in pixels {
        weights[clamped(pixel) - low] += kernel.at((pixel as f64 - centre) / stretch);
    }
    (low, whole(&weights))
}

/// Weights in units of 1/16384 that add up to exactly one.
fn whole(weights: &[f64]) -> Vec<i16> {
    let sum: f64 = weights.iter().sum();
    // What has been handed out so far is kept next to what should have been: no rounding grows.
    let (mut exact, mut given) = (0.0, 0);
    weights
        .iter()
        .map(|weight| {
            exact += weight / sum;
            let next = (exact * f64::from(ONE)).round() as i32;
            let weight = next - given;
            given = next;
            weight as i16
        })
        .collect()
}

/// One row of the target from rows that lie one after another, each as long as the target.
fn across(rows: &[i16], weights: &[i16], target: &mut [u8]) {
    match *weights {
        [_] => rounded(rows, target),
        [a, b] => weighted([a, b], rows, target),
        [a, b, c] => weighted([a, b, c], rows, target),
        [a, b, c, d] => weighted([a, b, c, d], rows, target),
        [a, b, c, d, e, f] => weighted([a, b, c, d, e, f], rows, target),
        _ => {
            let mut sums = vec![0; target.len()];
            for (&weight, row) in weights.iter().zip(rows.chunks_exact(target.len())) {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += i32::from(weight) * i32::from(value);
                }
            }
            for (target, sum) in target.iter_mut().zip(sums) {
                *target = byte(sum);
            }
        }
    }
}

/// A row that is taken as it is.
fn rounded(row: &[i16], target: &mut [u8]) {
    for (target, &value) in target.iter_mut().zip(row) {
        *target = byte(ONE * i32::from(value));
    }
}

/// The sum of `N` rows; a number of rows known in advance is what makes the loop a fast one.
fn weighted<const N: usize>(weights: [i16; N], rows: &[i16], target: &mut [u8]) {
    let length = target.len();
    let rows: [&[i16]; N] = std::array::from_fn(|row| &rows[length * row..][..length]);
    for (at, target) in target.iter_mut().enumerate() {
        let terms = rows.iter().zip(weights);
        let sum = terms.map(|(row, weight)| i32::from(weight) * i32::from(row[at]));
        *target = byte(sum.sum());
    }
}

/// A sum of products with [`FRACTION`] + 14 bits behind the point, as a byte.
fn byte(sum: i32) -> u8 {
    const BITS: u32 = FRACTION + 14;
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALERS: [Scaler; 5] = [
        Scaler::Auto,
        Scaler::Nearest,
        Scaler::Bilinear,
        Scaler::Lanczos3,
        Scaler::PixelArt,
    ];

    /// A row of greys, scaled.
    fn row(scaler: Scaler, greys: &[u8], target_px: usize) -> Vec<u8> {
        let rgb = greys.iter().flat_map(|&grey| [grey; 3]).collect();
        let source = Picture::new(greys.len(), 1, rgb);
        let mut frame = Frame::new(target_px, 1);
        let columns = Span::whole(greys.len(), target_px);
        Scaling::new(scaler, &columns, &Span::whole(1, 1)).draw(&source, &mut frame, [0, 0]);
        frame.rgb().chunks(3).map(|rgb| rgb[1]).collect()
    }

    #[test]
    fn kernels_are_what_their_names_say() {
        let cases: &[(Scaler, &[u8], &[u8])] = &[
            (Scaler::Nearest, &[10, 20], &[10, 10, 20, 20]),
            (Scaler::Nearest, &[10, 20, 30], &[10, 20, 20, 30]),
            (Scaler::Nearest, &[10, 20, 30, 40], &[20, 40]),
            (Scaler::Bilinear, &[0, 100], &[0, 25, 75, 100]),
            (Scaler::Bilinear, &[0, 80, 0, 80], &[30, 50]),
            (
                Scaler::Lanczos3,
                &[50, 50, 50],
                &[50, 50, 50, 50, 50, 50, 50],
            ),
            (Scaler::PixelArt, &[0, 255], &[0, 0, 255, 255]),
            (Scaler::PixelArt, &[100, 120], &[100, 105, 115, 120]),
        ];
        for (scaler, source, target) in cases {
            assert_eq!(row(*scaler, source, target.len()), *target, "{scaler}");
        }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let greys: Vec<u8> = (0..50).map(|at| (at * 97 % 256) as u8).collect();
        for scaler in SCALERS {
            assert_eq!(row(scaler, &greys, 50), greys, "{scaler}");
        }
    }

    /// Lanczos' kernel overshoots: values must stop at black and white, and not come round.
    #[test]
    fn an_overshoot_is_clamped() {
        let edge = [0, 0, 0, 255, 255, 255];
        let scaled = row(Scaler::Lanczos3, &edge, 60);
        assert_eq!((scaled[0], scaled[59]), (0, 255));
        assert!(scaled[..25].iter().all(|&grey| grey < 30), "{scaled:?}");
        assert!(scaled[35..].iter().all(|&grey| grey > 225), "{scaled:?}");
    }

    #[test]
    fn a_window_is_a_part_of_the_whole() {
        let rgb: Vec<u8> = (0..3 * 7 * 5).map(|at| (at * 41 % 256) as u8).collect();
        let source = Picture::new(7, 5, rgb);
        let (columns, rows) = (Span::whole(7, 40), Span::whole(5, 30));
        for scaler in SCALERS {
            let mut whole = Frame::new(40, 30);
            Scaling::new(scaler, &columns, &rows).draw(&source, &mut whole, [0, 0]);
            let mut part = Frame::new(40, 30);
            let windows = (
                columns.clone().windowed(11..29),
                rows.clone().windowed(20..30),
            );
            Scaling::new(scaler, &windows.0, &windows.1).draw(&source, &mut part, [11, 20]);
            for y in 20..30 {
                for x in 11..29 {
                    assert_eq!(part.pixel(x, y), whole.pixel(x, y), "{scaler} {x} {y}");
                }
            }
            assert_eq!(part.pixel(10, 25), [0; 3]);
        }
    }
}
