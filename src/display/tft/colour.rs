//! Eight bits a channel become the five or six of a wire, with ordered dither.

use super::{Depth, Dither};
use crate::display::Frame;
use crate::display::bayer::BAYER;

impl Depth {
    /// Bytes of one pixel on the wire.
    pub fn bytes(self) -> usize {
        match self {
            Self::Rgb565 => 2,
            Self::Rgb666 => 3,
        }
    }
}

/// Turns `frame` into the bytes of the wire, row by row, in place of what `wire` held.
///
/// Black stays black and white stays white; over any 8x8 pixels of one colour the mean stays
/// within 1/255 of it in every channel; where red and blue are equal, they stay equal.
pub fn convert(frame: &Frame, depth: Depth, dither: Dither, wire: &mut Vec<u8>) {
    let row_bytes = frame.width_px() * depth.bytes();
    wire.resize(row_bytes * frame.height_px(), 0);
    for (y, row) in wire.chunks_exact_mut(row_bytes).enumerate() {
        let thresholds = thresholds(dither, y);
        match depth {
            Depth::Rgb565 => row_565(frame.row(y), &thresholds, row),
            Depth::Rgb666 => row_666(frame.row(y), &thresholds, row),
        }
    }
}

/// Row `y`'s thresholds: what is added, in 255ths of a level, before a value is cut down to a
/// level. They lie evenly and symmetrically in 0..255, so that neither end moves.
fn thresholds(dither: Dither, y: usize) -> [u16; 8] {
    match dither {
        Dither::Bayer => BAYER[y % 8].map(|rank| (2 * u16::from(rank) + 1) * 255 / 128),
        Dither::None => [127; 8],
    }
}

fn row_565(rgb: &[u8], thresholds: &[u16; 8], wire: &mut [u8]) {
    let pixel = |[r, g, b]: [u8; 3], threshold| {
        let [r, b] = [r, b].map(|value| level::<31>(value, threshold));
        let packed = r << 11 | level::<63>(g, threshold) << 5 | b;
        packed.to_be_bytes()
    };
    by_cells(rgb, thresholds, wire, pixel);
}

fn row_666(rgb: &[u8], thresholds: &[u16; 8], wire: &mut [u8]) {
    // The wire carries the six bits in the upper part of a byte.
    let pixel =
        |rgb: [u8; 3], threshold| rgb.map(|value| (level::<63>(value, threshold) << 2) as u8);
    by_cells(rgb, thresholds, wire, pixel);
}

/// `pixel` of every pixel; eight at a time, so that the compiler knows each one's threshold.
fn by_cells<const BYTES: usize>(
    rgb: &[u8],
    thresholds: &[u16; 8],
    wire: &mut [u8],
    pixel: impl Fn([u8; 3], u16) -> [u8; BYTES],
) {
    let (rgb, _) = rgb.as_chunks::<3>();
    let (wire, _) = wire.as_chunks_mut::<BYTES>();
    for (rgb, wire) in rgb.chunks(8).zip(wire.chunks_mut(8)) {
        for ((rgb, wire), threshold) in rgb.iter().zip(wire).zip(thresholds) {
            *wire = pixel(*rgb, *threshold);
        }
    }
}

/// The level of 0..=MAX for `value`.
fn level<const MAX: u16>(value: u8, threshold: u16) -> u16 {
    (u16::from(value) * MAX + threshold) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the eye gets of an 8x8 cell of one colour: the pixels, each channel from 0 to 255.
    fn shown(rgb: [u8; 3], depth: Depth, dither: Dither) -> Vec<[f64; 3]> {
        let mut frame = Frame::new(8, 8);
        for pixel in frame.rgb_mut().chunks_exact_mut(3) {
            pixel.copy_from_slice(&rgb);
        }
        let mut wire = Vec::new();
        convert(&frame, depth, dither, &mut wire);
        let of_max = |level: u16, max: u16| f64::from(level) * 255.0 / f64::from(max);
        let pixels = wire.chunks_exact(depth.bytes()).map(|bytes| match *bytes {
            [high, low] => {
                let packed = u16::from_be_bytes([high, low]);
                let [r, g, b] = [packed >> 11, packed >> 5 & 63, packed & 31];
                [of_max(r, 31), of_max(g, 63), of_max(b, 31)]
            }
            [r, g, b] => [r, g, b].map(|byte| {
                assert_eq!(byte & 3, 0);
                of_max(u16::from(byte) >> 2, 63)
            }),
            _ => unreachable!("a pixel has two or three bytes"),
        });
        pixels.collect()
    }

    fn mean(pixels: &[[f64; 3]], channel: usize) -> f64 {
        pixels.iter().map(|pixel| pixel[channel]).sum::<f64>() / pixels.len() as f64
    }

    #[test]
    fn the_mean_is_kept_in_every_channel() {
        for depth in [Depth::Rgb565, Depth::Rgb666] {
            for value in 0..=255 {
                let rgb = [value, 255 - value, value / 2];
                let pixels = shown(rgb, depth, Dither::Bayer);
                for (channel, value) in rgb.into_iter().enumerate() {
                    let error = mean(&pixels, channel) - f64::from(value);
                    assert!(error.abs() < 1.0, "{depth} {rgb:?}: {error} in {channel}");
                }
            }
        }
    }

    #[test]
    fn grey_stays_grey() {
        for value in 0..=255 {
            for [r, g, b] in shown([value; 3], Depth::Rgb666, Dither::Bayer) {
                assert!(r == g && g == b);
            }
            for [r, g, b] in shown([value; 3], Depth::Rgb565, Dither::Bayer) {
                // Green has twice as many levels; it is never further off than two of them.
                assert!(
                    r == b && (g - r).abs() < 2.0 * 255.0 / 63.0,
                    "{value}: {r} {g} {b}"
                );
            }
        }
    }

    #[test]
    fn black_and_white_are_no_pattern() {
        for depth in [Depth::Rgb565, Depth::Rgb666] {
            for dither in [Dither::Bayer, Dither::None] {
                for value in [0, 255] {
                    let pixels = shown([value; 3], depth, dither);
                    assert_eq!(pixels, [[f64::from(value); 3]; 64], "{depth} {dither}");
                }
            }
        }
    }

    #[test]
    fn without_dither_every_value_takes_the_nearest_level() {
        for value in 0..=255 {
            let [r, g, _] = shown([value; 3], Depth::Rgb565, Dither::None)[0];
            let value = f64::from(value);
            assert!((r - value).abs() <= 255.0 / 62.0, "{value}: {r}");
            assert!((g - value).abs() <= 255.0 / 126.0, "{value}: {g}");
        }
    }

    #[test]
    fn the_pattern_lies_on_the_frame_and_not_on_the_rows_sent() {
        let mut frame = Frame::new(21, 13);
        frame.rgb_mut().fill(100);
        let mut wire = Vec::new();
        convert(&frame, Depth::Rgb565, Dither::Bayer, &mut wire);
        let pixel = |x: usize, y: usize| &wire[2 * (21 * y + x)..][..2];
        for y in 0..5 {
            for x in 0..13 {
                assert_eq!(pixel(x, y), pixel(x + 8, y + 8));
            }
        }
        assert!((0..8).any(|x| pixel(x, 0) != pixel(x, 1)));
    }
}
