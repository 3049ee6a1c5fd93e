//! An RGB picture in memory: to and from tensors, PNG and APNG.
//!
//! Everything between the network and a file or a panel is a [`Picture`]. Text chunks carry its
//! recipe along. Nothing here opens a file: bytes come in and bytes go out, and the same picture
//! gives the same bytes on every machine.

use std::fmt;
use std::io::{Cursor, Write};
use std::time::Duration;

use ndarray::{Array3, ArrayView3};
use png::text_metadata::{ITXtChunk, TEXtChunk};

use crate::error::{Error, Result};

/// The longest side [`Picture::decode_png`] accepts.
pub const MAX_SIDE_PX: usize = 1 << 14;

/// The most pixels [`Picture::decode_png`] accepts: 64 MiB while decoding, on a 512 MiB board.
pub const MAX_PIXELS: usize = 1 << 24;

/// The most text one compressed chunk may unfold to.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// A picture of 8-bit RGB pixels, at least one, row by row from the top left.
///
/// # Example
///
/// ```
/// use driftglass::picture::Picture;
///
/// let dusk = Picture::filled(32, 32, [40, 30, 80]);
/// let png = dusk.encode_png(&[("Title".to_owned(), "dusk".to_owned())]);
/// assert_eq!(Picture::decode_png("dusk.png", &png)?, dusk);
/// # Ok::<(), driftglass::error::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width_px: usize,
    height_px: usize,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture of `width_px` by `height_px` from its bytes R, G, B, R, G, B, …
    ///
    /// # Panics
    ///
    /// When a side is zero or `rgb` does not hold exactly three bytes for each pixel.
    pub fn new(width_px: usize, height_px: usize, rgb: Vec<u8>) -> Self {
        assert!(
            width_px > 0 && height_px > 0,
            "no picture of {width_px}x{height_px}"
        );
        assert_eq!(
            rgb.len(),
            3 * width_px * height_px,
            "bytes of {width_px}x{height_px}"
        );
        Self {
            width_px,
            height_px,
            rgb,
        }
    }

    /// A picture of one colour.
    ///
    /// # Panics
    ///
    /// When a side is zero.
    pub fn filled(width_px: usize, height_px: usize, rgb: [u8; 3]) -> Self {
        Self::new(width_px, height_px, rgb.repeat(width_px * height_px))
    }

    /// The width, at least 1.
    pub fn width_px(&self) -> usize {
        self.width_px
    }

    /// The height, at least 1.
    pub fn height_px(&self) -> usize {
        self.height_px
    }

    /// All bytes: R, G, B of the top left pixel first, row by row.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The colour at column `x` and row `y`.
    ///
    /// # Panics
    ///
    /// When the pixel lies outside.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(
            x < self.width_px && y < self.height_px,
            "({x}, {y}) outside {self:?}"
        );
        let at = 3 * (y * self.width_px + x);
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// What the network painted: each value v becomes round(255 (v / 2 + 1/2)), clamped.
    ///
    /// `tensor`: `[c, h, w]` with c = 3 (RGB) or 1 (grey), about [-1, 1]. Ties round to even, as
    /// in diffusers' `VaeImageProcessor`; NaN becomes 0.
    ///
    /// # Panics
    ///
    /// When c is neither 1 nor 3, or a side is zero.
    pub fn from_tensor(tensor: ArrayView3<f32>) -> Self {
        let (channels, height_px, width_px) = tensor.dim();
        assert!(
            channels == 1 || channels == 3,
            "a picture of {channels} channels"
        );
        let mut rgb = Vec::with_capacity(3 * width_px * height_px);
        for y in 0..height_px {
            for x in 0..width_px {
                rgb.extend([0, 1, 2].map(|c| to_byte(tensor[[c.min(channels - 1), y, x]])));
            }
        }
        Self::new(width_px, height_px, rgb)
    }

    /// What the network reads: `[channels, h, w]` in [-1, 1], where each byte b becomes
    /// 2 b / 255 - 1.
    ///
    /// One channel is the luma of ITU-R BT.601, in the integer form of Pillow's `convert("L")`.
    ///
    /// # Panics
    ///
    /// When `channels` is neither 1 nor 3.
    pub fn to_tensor(&self, channels: usize) -> Array3<f32> {
        assert!(
            channels == 1 || channels == 3,
            "a tensor of {channels} channels"
        );
        Array3::from_shape_fn((channels, self.height_px, self.width_px), |(c, y, x)| {
            let rgb = self.pixel(x, y);
            let byte = if channels == 1 { luma(rgb) } else { rgb[c] };
            f32::from(byte) * 2.0 / 255.0 - 1.0
        })
    }

    /// Every pixel becomes a square of `factor` by `factor` pixels.
    ///
    /// # Panics
    ///
    /// When `factor` is zero.
    pub fn enlarged(&self, factor: usize) -> Self {
        let mut rgb = Vec::with_capacity(self.rgb.len() * factor * factor);
        for row in self.rgb.chunks_exact(3 * self.width_px) {
            let wide: Vec<u8> = row
                .chunks_exact(3)
                .flat_map(|pixel| pixel.repeat(factor))
                .collect();
            rgb.extend(wide.repeat(factor));
        }
        Self::new(self.width_px * factor, self.height_px * factor, rgb)
    }

    /// The largest centred part of the right aspect, scaled to `width_px` by `height_px`.
    ///
    /// Shrinking averages the area that falls on each pixel, enlarging interpolates linearly.
    /// Only additions and multiplications, so a start picture is the same on every machine.
    ///
    /// # Panics
    ///
    /// When a side is zero.
    pub fn fitted(&self, width_px: usize, height_px: usize) -> Self {
        assert!(
            width_px > 0 && height_px > 0,
            "no picture of {width_px}x{height_px}"
        );
        let scale = f64::min(
            self.width_px as f64 / width_px as f64,
            self.height_px as f64 / height_px as f64,
        );
        let columns = taps(self.width_px, width_px, scale);
        let rows = taps(self.height_px, height_px, scale);
        let narrow: Vec<[f32; 3]> = (0..self.height_px)
            .flat_map(|y| columns.iter().map(move |taps| (y, taps)))
            .map(|(y, taps)| weighted(taps, |x| self.pixel(x, y).map(f32::from)))
            .collect();
        let rgb = rows
            .iter()
            .flat_map(|taps| (0..width_px).map(move |x| (x, taps)))
            .flat_map(|(x, taps)| weighted(taps, |y| narrow[y * width_px + x]))
            .map(|value| value.round_ties_even() as u8)
            .collect();
        Self::new(width_px, height_px, rgb)
    }

    /// The peak signal-to-noise ratio against `other` in dB, over all three channels; infinite
    /// for equal pictures.
    ///
    /// # Panics
    ///
    /// When the sizes differ.
    pub fn psnr_db(&self, other: &Self) -> f64 {
        let sizes = [self, other].map(|picture| (picture.width_px, picture.height_px));
        assert_eq!(sizes[0], sizes[1], "pictures of different size");
        let pairs = self.rgb.iter().zip(&other.rgb);
        let squares: f64 = pairs.map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
        10.0 * (255.0 * 255.0 * self.rgb.len() as f64 / squares).log10()
    }

    /// The pictures in rows of `columns`, `gap_px` of `background` between them.
    ///
    /// Each stands in the middle of a cell as large as the largest. A strip is one row:
    /// `columns = pictures.len()`.
    ///
    /// # Panics
    ///
    /// When there is no picture or no column.
    pub fn contact_sheet(
        pictures: &[Self],
        columns: usize,
        gap_px: usize,
        background: [u8; 3],
    ) -> Self {
        assert!(
            !pictures.is_empty() && columns > 0,
            "an empty contact sheet"
        );
        let columns = columns.min(pictures.len());
        let rows = pictures.len().div_ceil(columns);
        let cell_w = pictures.iter().map(Self::width_px).fold(0, usize::max);
        let cell_h = pictures.iter().map(Self::height_px).fold(0, usize::max);
        let mut sheet = Self::filled(
            columns * (cell_w + gap_px) - gap_px,
            rows * (cell_h + gap_px) - gap_px,
            background,
        );
        for (index, picture) in pictures.iter().enumerate() {
            let x = index % columns * (cell_w + gap_px) + (cell_w - picture.width_px) / 2;
            let y = index / columns * (cell_h + gap_px) + (cell_h - picture.height_px) / 2;
            sheet.paste(picture, x, y);
        }
        sheet
    }

    /// The picture as a PNG file, with `texts` as pairs of keyword and text, in their order.
    ///
    /// Texts of plain ASCII become `tEXt` chunks; if any goes beyond, all become `iTXt`. PNG has
    /// no place for the character NUL, which is left out.
    ///
    /// # Panics
    ///
    /// When a keyword is not 1 to 79 characters of Latin-1.
    pub fn encode_png(&self, texts: &[(String, String)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = self.encoder(&mut bytes).write_header().expect(INTO_MEMORY);
        write_texts(&mut writer, texts);
        writer.write_image_data(&self.rgb).expect(INTO_MEMORY);
        writer.finish().expect(INTO_MEMORY);
        bytes
    }

    /// The frames as an animated PNG that loops for ever, each shown for `delay` and the last
    /// for `last_delay`; both are cut off at 65.5 s, the most the format can say.
    ///
    /// Viewers without animation, and [`Picture::decode_png`], show the last frame: the first
    /// one is noise. `texts` as in [`Picture::encode_png`].
    ///
    /// # Panics
    ///
    /// When there is no frame, their sizes differ, or a keyword is not fit for PNG.
    pub fn encode_apng(
        frames: &[Self],
        delay: Duration,
        last_delay: Duration,
        texts: &[(String, String)],
    ) -> Vec<u8> {
        let (last, earlier) = frames.split_last().expect("an animation has a frame");
        let milliseconds = |delay: Duration| u16::try_from(delay.as_millis()).unwrap_or(u16::MAX);
        let mut bytes = Vec::new();
        let mut encoder = last.encoder(&mut bytes);
        encoder
            .set_animated(as_u32(frames.len()), 0)
            .expect(INTO_MEMORY);
        encoder.set_sep_def_img(true).expect(INTO_MEMORY);
        let mut writer = encoder.write_header().expect(INTO_MEMORY);
        write_texts(&mut writer, texts);
        writer.write_image_data(&last.rgb).expect(INTO_MEMORY);
        let timed = earlier
            .iter()
            .map(|frame| (frame, delay))
            .chain([(last, last_delay)]);
        for (frame, delay) in timed {
            assert_eq!(
                (frame.width_px, frame.height_px),
                (last.width_px, last.height_px)
            );
            writer
                .set_frame_delay(milliseconds(delay), 1000)
                .expect(INTO_MEMORY);
            writer.write_image_data(&frame.rgb).expect(INTO_MEMORY);
        }
        writer.finish().expect(INTO_MEMORY);
        bytes
    }

    /// The picture in a PNG file of any kind: 1 to 16 bits, grey, palette or RGB. What is
    /// transparent is laid over black; of an animation, the still picture counts.
    ///
    /// `place` names the file in errors.
    ///
    /// # Errors
    ///
    /// When the bytes are no whole PNG, or the picture is larger than [`MAX_PIXELS`] or
    /// [`MAX_SIDE_PX`], which is found out before anything is allocated for it.
    pub fn decode_png(place: impl fmt::Display, bytes: &[u8]) -> Result<Self> {
        let broken = |error: png::DecodingError| unreadable(&place, &error);
        let mut decoder = png::Decoder::new(Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        let header = decoder.read_header_info().map_err(broken)?;
        let (width_px, height_px) = (header.width as usize, header.height as usize);
        if width_px.max(height_px) > MAX_SIDE_PX || width_px.saturating_mul(height_px) > MAX_PIXELS
        {
            let expected =
                format!("a picture of at most {MAX_PIXELS} pixels and {MAX_SIDE_PX} pixels a side");
            return Err(Error::unexpected(
                place,
                expected,
                format!("{width_px}x{height_px}"),
            ));
        }
        let mut reader = decoder.read_info().map_err(broken)?;
        let size = reader
            .output_buffer_size()
            .expect("a picture within the limits has a size");
        let mut samples = vec![0; size];
        reader.next_frame(&mut samples).map_err(broken)?;
        let rgb = match reader.output_color_type().0 {
            png::ColorType::Rgb => samples,
            png::ColorType::Grayscale => samples.iter().flat_map(|grey| [*grey; 3]).collect(),
            png::ColorType::GrayscaleAlpha => samples
                .chunks_exact(2)
                .flat_map(|pixel| [over_black(pixel[0], pixel[1]); 3])
                .collect(),
            png::ColorType::Rgba => samples
                .chunks_exact(4)
                .flat_map(|pixel| [0, 1, 2].map(|c| over_black(pixel[c], pixel[3])))
                .collect(),
            png::ColorType::Indexed => unreachable!("palettes are expanded"),
        };
        Ok(Self::new(width_px, height_px, rgb))
    }

    /// An encoder for pictures of this size.
    fn encoder<'a>(&self, bytes: &'a mut Vec<u8>) -> png::Encoder<'a, &'a mut Vec<u8>> {
        let mut encoder = png::Encoder::new(bytes, as_u32(self.width_px), as_u32(self.height_px));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder
    }

    /// Copies `picture` so that its top left pixel lies at (x, y).
    fn paste(&mut self, picture: &Self, x: usize, y: usize) {
        let width = 3 * picture.width_px;
        for (row, pixels) in picture.rgb.chunks_exact(width).enumerate() {
            let at = 3 * ((y + row) * self.width_px + x);
            self.rgb[at..at + width].copy_from_slice(pixels);
        }
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width_px, self.height_px)
    }
}

/// The texts in a PNG file, as pairs of keyword and text: `tEXt`, then `zTXt`, then `iTXt`, each
/// in file order.
///
/// `place` names the file in errors.
///
/// # Errors
///
/// When the bytes are no whole PNG, or a text unfolds to more than 1 MiB.
pub fn read_texts(place: impl fmt::Display, bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let broken = |error: png::DecodingError| unreadable(&place, &error);
    let mut reader = png::Decoder::new(Cursor::new(bytes))
        .read_info()
        .map_err(broken)?;
    reader.finish().map_err(broken)?;
    let info = reader.info();
    let mut texts = Vec::new();
    for chunk in &info.uncompressed_latin1_text {
        texts.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        chunk
            .decompress_text_with_limit(MAX_TEXT_BYTES)
            .map_err(broken)?;
        texts.push((chunk.keyword.clone(), chunk.get_text().map_err(broken)?));
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        chunk
            .decompress_text_with_limit(MAX_TEXT_BYTES)
            .map_err(broken)?;
        texts.push((chunk.keyword.clone(), chunk.get_text().map_err(broken)?));
    }
    Ok(texts)
}

/// Why encoding cannot fail: the sizes, the keywords and the order are ours.
const INTO_MEMORY: &str = "a well-formed PNG can always be written into memory";

fn write_texts<W: Write>(writer: &mut png::Writer<W>, texts: &[(String, String)]) {
    let ascii = texts.iter().all(|(_, text)| text.is_ascii());
    for (keyword, text) in texts {
        let text = text.replace('\0', "");
        let written = if ascii {
            writer.write_text_chunk(&TEXtChunk::new(keyword, text))
        } else {
            writer.write_text_chunk(&ITXtChunk::new(keyword, text))
        };
        written.expect("a keyword is 1 to 79 characters of Latin-1");
    }
}

fn unreadable(place: &dyn fmt::Display, error: &png::DecodingError) -> Error {
    Error::unexpected(
        place,
        "a PNG picture",
        error.to_string().trim_end_matches('.'),
    )
}

fn as_u32(size: usize) -> u32 {
    u32::try_from(size).expect("a picture in memory has fewer than 2^32 pixels a side")
}

/// The cast clamps, and makes NaN 0.
fn to_byte(value: f32) -> u8 {
    ((value * 0.5 + 0.5) * 255.0).round_ties_even() as u8
}

fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = 19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + 0x8000;
    (sum >> 16) as u8
}

fn over_black(value: u8, alpha: u8) -> u8 {
    ((u16::from(value) * u16::from(alpha) + 127) / 255) as u8
}

/// For each of `target` pixels along one axis, the source pixels it is made of and their
/// weights, which sum to 1. `scale` source pixels fall on one target pixel, centred.
fn taps(source: usize, target: usize, scale: f64) -> Vec<Vec<(usize, f32)>> {
    // A start between two pixels would blur what needs no scaling at all.
    let start = ((source as f64 - scale * target as f64) / 2.0)
        .floor()
        .max(0.0);
    let last = source - 1;
    let area = |index: usize| {
        let from = (start + index as f64 * scale).max(0.0);
        let to = (from + scale).min(source as f64);
        let covered = |pixel: usize| to.min(pixel as f64 + 1.0) - from.max(pixel as f64);
        (from as usize..=(to as usize).min(last))
            .map(|pixel| (pixel, (covered(pixel) / (to - from)) as f32))
            .filter(|(_, weight)| *weight > 0.0)
            .collect()
    };
    let linear = |index: usize| {
        let middle = (start + (index as f64 + 0.5) * scale - 0.5).clamp(0.0, last as f64);
        let (left, part) = (middle as usize, middle.fract() as f32);
        vec![(left, 1.0 - part), ((left + 1).min(last), part)]
    };
    (0..target)
        .map(|index| {
            if scale >= 1.0 {
                area(index)
            } else {
                linear(index)
            }
        })
        .collect()
}

fn weighted(taps: &[(usize, f32)], pixel: impl Fn(usize) -> [f32; 3]) -> [f32; 3] {
    let mut sum = [0.0; 3];
    for &(index, weight) in taps {
        for (sum, value) in sum.iter_mut().zip(pixel(index)) {
            *sum += weight * value;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, array};

    /// A picture in which every pixel of a neighbourhood differs.
    fn pattern(width_px: usize, height_px: usize) -> Picture {
        let mut word = 1_u32;
        let mut byte = || {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (word >> 24) as u8
        };
        Picture::new(
            width_px,
            height_px,
            (0..3 * width_px * height_px).map(|_| byte()).collect(),
        )
    }

    fn encoded_as(
        color: png::ColorType,
        depth: png::BitDepth,
        palette: &[u8],
        transparency: &[u8],
        data: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if !palette.is_empty() {
            encoder.set_palette(palette.to_vec());
        }
        if !transparency.is_empty() {
            encoder.set_trns(transparency.to_vec());
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(keyword, text)| ((*keyword).into(), (*text).into()))
            .collect()
    }

    #[test]
    fn tensors_round_as_diffusers_does_and_clamp() {
        let values = array![[[
            -1.0,
            1.0,
            0.0,
            -1.5,
            1.5,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            -0.996
        ]]];
        let picture = Picture::from_tensor(values.view());
        let greys: Vec<u8> = picture.rgb().chunks(3).map(|pixel| pixel[0]).collect();
        assert_eq!(greys, [0, 255, 128, 0, 255, 0, 255, 0, 1]);
        assert!(picture.rgb().chunks(3).all(|pixel| pixel == [pixel[0]; 3]));
    }

    #[test]
    fn channels_of_a_tensor_are_planes() {
        let tensor = Array::from_shape_fn((3, 2, 4), |(c, y, x)| {
            (c * 80 + y * 30 + x * 5) as f32 * 2.0 / 255.0 - 1.0
        });
        let picture = Picture::from_tensor(tensor.view());
        assert_eq!((picture.width_px(), picture.height_px()), (4, 2));
        assert_eq!(picture.pixel(3, 1), [45, 125, 205]);
        assert!(
            (picture.to_tensor(3) - tensor)
                .iter()
                .all(|difference| difference.abs() < 1e-6)
        );
    }

    #[test]
    fn every_byte_survives_a_tensor() {
        let greys = Picture::new(256, 1, (0..=255).flat_map(|grey| [grey; 3]).collect());
        for channels in [1, 3] {
            let tensor = greys.to_tensor(channels);
            assert_eq!((tensor[[0, 0, 0]], tensor[[0, 0, 255]]), (-1.0, 1.0));
            assert_eq!(Picture::from_tensor(tensor.view()), greys);
        }
    }

    #[test]
    fn grey_is_the_luma_of_pillow() {
        let grey = |rgb| {
            Picture::from_tensor(Picture::filled(1, 1, rgb).to_tensor(1).view()).pixel(0, 0)[0]
        };
        assert_eq!(
            [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3]].map(grey),
            [76, 150, 29, 255]
        );
    }

    #[test]
    fn enlarging_repeats_pixels() {
        let picture = pattern(3, 2);
        let large = picture.enlarged(4);
        assert_eq!((large.width_px(), large.height_px()), (12, 8));
        for (x, y) in [(0, 0), (3, 3), (4, 3), (11, 7)] {
            assert_eq!(large.pixel(x, y), picture.pixel(x / 4, y / 4));
        }
        assert_eq!(large.fitted(3, 2), picture);
    }

    #[test]
    fn fitting_keeps_what_needs_no_change() {
        let picture = pattern(7, 5);
        assert_eq!(picture.fitted(7, 5), picture);
        assert_eq!(picture.fitted(6, 5).pixel(5, 4), picture.pixel(5, 4));
        for (width, height) in [(1, 1), (3, 9), (64, 64), (9, 2)] {
            let grey = Picture::filled(17, 11, [200, 100, 7]).fitted(width, height);
            assert_eq!(grey, Picture::filled(width, height, [200, 100, 7]));
        }
    }

    #[test]
    fn fitting_takes_the_middle_and_averages_areas() {
        // Columns 0 and 3 are cut away; the rest is 2x2 to be averaged.
        let column = |x: usize| [9, 10, 30, 9][x];
        let rgb = (0..8)
            .flat_map(|at| [column(at % 4) + 2 * (at / 4) as u8; 3])
            .collect();
        assert_eq!(
            Picture::new(4, 2, rgb).fitted(1, 1),
            Picture::filled(1, 1, [21; 3])
        );
        // 3 pixels on 2: each takes one and a half.
        let three = Picture::new(3, 3, [[0; 3], [90; 3], [240; 3]].concat().repeat(3));
        let two = three.fitted(2, 2);
        assert_eq!([two.pixel(0, 0)[0], two.pixel(1, 1)[0]], [30, 190]);
    }

    #[test]
    fn fitting_enlarges_without_steps() {
        let two = Picture::new(2, 2, [[0; 3], [80; 3]].concat().repeat(2));
        let eight = two.fitted(8, 8);
        let row: Vec<u8> = (0..8).map(|x| eight.pixel(x, 3)[0]).collect();
        assert_eq!(row, [0, 0, 10, 30, 50, 70, 80, 80]);
    }

    #[test]
    fn psnr_of_known_differences() {
        let (black, white) = (
            Picture::filled(4, 4, [0; 3]),
            Picture::filled(4, 4, [255; 3]),
        );
        assert_eq!(black.psnr_db(&white), 0.0);
        assert_eq!(black.psnr_db(&black), f64::INFINITY);
        let nearly = black.psnr_db(&Picture::filled(4, 4, [1; 3]));
        assert!((nearly - 48.130_803_608_679_1).abs() < 1e-9, "{nearly}");
    }

    #[test]
    fn a_contact_sheet_is_a_grid_with_gaps() {
        let pictures = [[1; 3], [2; 3], [3; 3]].map(|rgb| Picture::filled(4, 3, rgb));
        let sheet = Picture::contact_sheet(&pictures, 2, 1, [9; 3]);
        assert_eq!((sheet.width_px(), sheet.height_px()), (9, 7));
        let at = |x, y| sheet.pixel(x, y)[0];
        assert_eq!(
            [at(3, 2), at(4, 2), at(5, 2), at(0, 3), at(0, 4), at(5, 4)],
            [1, 9, 2, 9, 3, 9]
        );
        let strip = Picture::contact_sheet(&pictures, 99, 2, [9; 3]);
        assert_eq!((strip.width_px(), strip.height_px()), (16, 3));
        let mixed = [Picture::filled(5, 5, [1; 3]), Picture::filled(1, 3, [2; 3])];
        let middle = Picture::contact_sheet(&mixed, 1, 0, [9; 3]);
        assert_eq!(
            [middle.pixel(2, 6), middle.pixel(1, 6), middle.pixel(2, 5)].map(|p| p[0]),
            [2, 9, 9]
        );
    }

    #[test]
    fn a_png_comes_back_and_is_always_the_same() {
        for (width, height) in [(1, 1), (3, 7), (32, 32), (65, 2)] {
            let picture = pattern(width, height);
            let bytes = picture.encode_png(&[]);
            assert_eq!(bytes, picture.encode_png(&[]));
            assert_eq!(Picture::decode_png("a.png", &bytes).unwrap(), picture);
            assert!(read_texts("a.png", &bytes).unwrap().is_empty());
        }
    }

    #[test]
    fn texts_come_back_in_order() {
        let plain = texts(&[
            ("Title", "dusk"),
            ("driftglass", "{\"seed\": 7}"),
            ("Title", ""),
        ]);
        let accented = texts(&[("b", "plain"), ("a", "Füße, ᾱ, 山"), ("c", "two\nlines")]);
        for texts in [plain, accented] {
            let bytes = pattern(2, 2).encode_png(&texts);
            assert_eq!(read_texts("a.png", &bytes).unwrap(), texts);
            assert_eq!(Picture::decode_png("a.png", &bytes).unwrap(), pattern(2, 2));
        }
        let nul = pattern(1, 1).encode_png(&texts(&[("k", "a\0b")]));
        assert_eq!(read_texts("a.png", &nul).unwrap(), texts(&[("k", "ab")]));
    }

    #[test]
    fn compressed_texts_are_read_up_to_a_limit() {
        let with_text = |text: &str| {
            let mut bytes = Vec::new();
            let mut encoder = pattern(2, 2).encoder(&mut bytes);
            encoder
                .add_ztxt_chunk("recipe".into(), text.into())
                .unwrap();
            encoder
                .write_header()
                .unwrap()
                .write_image_data(pattern(2, 2).rgb())
                .unwrap();
            bytes
        };
        let recipe = read_texts("a.png", &with_text("x y z")).unwrap();
        assert_eq!(recipe, texts(&[("recipe", "x y z")]));
        assert!(read_texts("a.png", &with_text(&"a".repeat(MAX_TEXT_BYTES + 1))).is_err());
    }

    #[test]
    fn every_kind_of_png_is_read() {
        use png::{BitDepth::*, ColorType::*};
        let palette = [10, 20, 30, 200, 100, 50];
        for (bytes, first, second) in [
            (
                encoded_as(Grayscale, One, &[], &[], &[0b0100_0000]),
                [0; 3],
                [255; 3],
            ),
            (
                encoded_as(Grayscale, Sixteen, &[], &[], &[7, 7, 200, 200]),
                [7; 3],
                [200; 3],
            ),
            (
                encoded_as(GrayscaleAlpha, Eight, &[], &[], &[9, 255, 200, 51]),
                [9; 3],
                [40; 3],
            ),
            (
                encoded_as(Rgba, Eight, &[], &[], &[1, 2, 3, 255, 255, 100, 50, 0]),
                [1, 2, 3],
                [0; 3],
            ),
            (
                encoded_as(
                    Rgb,
                    Sixteen,
                    &[],
                    &[],
                    &[1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6],
                ),
                [1, 2, 3],
                [4, 5, 6],
            ),
            (
                encoded_as(Indexed, Four, &palette, &[], &[0x10]),
                [200, 100, 50],
                [10, 20, 30],
            ),
            (
                encoded_as(Indexed, Eight, &palette, &[255, 51], &[0, 1]),
                [10, 20, 30],
                [40, 20, 10],
            ),
        ] {
            let picture = Picture::decode_png("a.png", &bytes).unwrap();
            assert_eq!([picture.pixel(0, 0), picture.pixel(1, 0)], [first, second]);
        }
    }

    #[test]
    fn an_animation_shows_its_end_where_it_cannot_move() {
        let frames: Vec<_> = (1..=3)
            .map(|shade| Picture::filled(4, 4, [60 * shade; 3]))
            .collect();
        let recipe = texts(&[("driftglass", "{}")]);
        let (short, long) = (Duration::from_millis(80), Duration::from_secs(70));
        let bytes = Picture::encode_apng(&frames, short, long, &recipe);
        assert_eq!(Picture::decode_png("a.png", &bytes).unwrap(), frames[2]);
        assert_eq!(read_texts("a.png", &bytes).unwrap(), recipe);

        let mut reader = png::Decoder::new(Cursor::new(&bytes)).read_info().unwrap();
        let animation = reader.info().animation_control.unwrap();
        assert_eq!((animation.num_frames, animation.num_plays), (3, 0));
        let mut samples = vec![0; 48];
        reader.next_frame(&mut samples).unwrap();
        for (frame, delay_ms) in frames.iter().zip([80, 80, u16::MAX]) {
            reader.next_frame(&mut samples).unwrap();
            let control = reader.info().frame_control.unwrap();
            assert_eq!((control.delay_num, control.delay_den), (delay_ms, 1000));
            assert_eq!(samples, frame.rgb());
        }
    }

    #[test]
    fn what_is_no_png_or_too_large_is_refused() {
        let error = Picture::decode_png("cat.png", b"GIF89a")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cat.png: expected a PNG picture, found "),
            "{error}"
        );
        let mut bomb = pattern(1, 1).encode_png(&[]);
        bomb[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        let checksum = crc32(&bomb[12..29]).to_be_bytes();
        bomb[29..33].copy_from_slice(&checksum);
        let error = Picture::decode_png("bomb.png", &bomb)
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("found 16384x16384"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                crc >> 1 ^ (0xEDB8_8320 * (crc & 1))
            })
        })
    }

    #[test]
    fn a_damaged_png_is_an_error_and_never_a_panic() {
        let frames = [pattern(9, 7), pattern(9, 7)];
        let bytes = Picture::encode_apng(
            &frames,
            Duration::ZERO,
            Duration::ZERO,
            &texts(&[("k", "é")]),
        );
        for length in 0..bytes.len() {
            let _ = read_texts("a.png", &bytes[..length]);
            let _ = Picture::decode_png("a.png", &bytes[..length]);
        }
        assert!(Picture::decode_png("a.png", &bytes[..bytes.len() / 3]).is_err());
        for bit in (0..8 * bytes.len()).step_by(5) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = read_texts("a.png", &damaged);
            let _ = Picture::decode_png("a.png", &damaged);
        }
    }
}
