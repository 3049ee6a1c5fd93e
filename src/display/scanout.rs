//! A screen's memory: where the bits of a pixel lie, and which rows are behind.
//!
//! HDMI, DSI and the old frame buffer devices show what lies in memory, row by row. What they need
//! of a frame is the same: rotate and mirror it, pack its colours into the bits that the screen
//! reads, and write no row that already holds what it should.

use std::borrow::Cow;

use super::bayer::BAYER;
use super::{Frame, Orientation};

/// The bits of a colour in a pixel, counted from the least significant one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    /// The lowest.
    pub offset: u32,
    /// How many, 1 to 16.
    pub length: u32,
}

/// A pixel in memory: little-endian, 2, 3 or 4 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelLayout {
    /// Bytes from one pixel to the next.
    pub bytes: usize,
    /// Where red lies.
    pub red: Bits,
    /// Where green lies.
    pub green: Bits,
    /// Where blue lies.
    pub blue: Bits,
}

impl PixelLayout {
    /// DRM's XR24: a byte each, blue first, the fourth unused.
    pub const XRGB8888: Self = Self::rgb(4, [16, 8, 0], [8, 8, 8]);
    /// DRM's RG16.
    pub const RGB565: Self = Self::rgb(2, [11, 5, 0], [5, 6, 5]);

    /// From the offsets and lengths of red, green and blue.
    pub const fn rgb(bytes: usize, offsets: [u32; 3], lengths: [u32; 3]) -> Self {
        const fn bits(offset: u32, length: u32) -> Bits {
            Bits { offset, length }
        }
        Self {
            bytes,
            red: bits(offsets[0], lengths[0]),
            green: bits(offsets[1], lengths[1]),
            blue: bits(offsets[2], lengths[2]),
        }
    }

    /// Whether every colour has a place inside the pixel.
    pub fn is_sound(&self) -> bool {
        let fits = |Bits { offset, length }: Bits| {
            let end = offset.checked_add(length);
            (1..=16).contains(&length) && end.is_some_and(|end| end as usize <= 8 * self.bytes)
        };
        (2..=4).contains(&self.bytes) && [self.red, self.green, self.blue].into_iter().all(fits)
    }
}

/// From 8-bit colours to the bits of a pixel.
///
/// A colour with fewer than 8 bits is dithered with an ordered 8×8 pattern, fixed to the screen, so
/// that a sky has no bands and a still picture does not flicker.
pub struct Packer {
    layout: PixelLayout,
    /// For each threshold of the pattern and each value, the bits at their place.
    tables: [Vec<[u32; 256]>; 3],
}

impl Packer {
    /// For pixels of this kind.
    ///
    /// # Panics
    ///
    /// When the layout is not sound.
    pub fn new(layout: PixelLayout) -> Self {
        assert!(layout.is_sound(), "no pixel is {layout:?}");
        let tables = [layout.red, layout.green, layout.blue].map(|bits| {
            let thresholds = if bits.length < 8 { 64 } else { 1 };
            (0..thresholds)
                .map(|threshold| table(bits, threshold, thresholds))
                .collect()
        });
        Self { layout, tables }
    }

    /// The bytes of a row of `width_px` pixels.
    pub fn row_bytes(&self, width_px: usize) -> usize {
        width_px * self.layout.bytes
    }

    /// Writes native row `y` of a screen of `native_px`.
    ///
    /// # Panics
    ///
    /// When the frame is not what a viewer of that screen sees, or the row is too short.
    pub fn write_row(
        &self,
        frame: &Frame,
        orientation: Orientation,
        native_px: [usize; 2],
        y: usize,
        row: &mut [u8],
    ) {
        assert_eq!(
            frame.size_px(),
            orientation.seen(native_px),
            "a frame of another size"
        );
        // Along a native row the source moves by the same step from pixel to pixel.
        let at = |x: usize| {
            let [column, line] = orientation.source([x, y], native_px);
            3 * (line * frame.width_px() + column)
        };
        let start = at(0) as isize;
        let step = if native_px[0] > 1 {
            at(1) as isize - start
        } else {
            0
        };
        let tables = std::array::from_fn(|x| {
            let threshold = usize::from(BAYER[y % 8][x]);
            self.tables
                .each_ref()
                .map(|table| &table[threshold % table.len()])
        });
        let row = &mut row[..self.row_bytes(native_px[0])];
        match self.layout.bytes {
            2 => pack::<2>(frame.rgb(), start, step, &tables, row),
            3 => pack::<3>(frame.rgb(), start, step, &tables, row),
            _ => pack::<4>(frame.rgb(), start, step, &tables, row),
        }
    }
}

/// Packs the pixels at `start`, `start + step` and so on of `rgb`, with the tables of red, green and
/// blue for each column of the dither's pattern. The number of bytes is known to the compiler, since
/// this is done for millions of pixels.
fn pack<const BYTES: usize>(
    rgb: &[u8],
    start: isize,
    step: isize,
    tables: &[[&[u32; 256]; 3]; 8],
    row: &mut [u8],
) {
    let mut source = start;
    for (x, pixel) in row.chunks_exact_mut(BYTES).enumerate() {
        let [red, green, blue] = tables[x % 8];
        let colours = &rgb[source as usize..][..3];
        let packed = red[usize::from(colours[0])]
            | green[usize::from(colours[1])]
            | blue[usize::from(colours[2])];
        pixel.copy_from_slice(&packed.to_le_bytes()[..BYTES]);
        source += step;
    }
}

/// What each 8-bit value becomes under one threshold of the pattern.
fn table(bits: Bits, threshold: u32, thresholds: u32) -> [u32; 256] {
    let brightest = (1_u32 << bits.length) - 1;
    std::array::from_fn(|value| {
        // Rounded down after adding (threshold + 1/2) / thresholds of a level; with one threshold
        // this is rounding to nearest. In u64: 255 · 65535 · 128 is more than u32 holds.
        let value = value as u64;
        let (brightest, thresholds) = (u64::from(brightest), u64::from(thresholds));
        let whole = 2 * thresholds * 255;
        let level =
            (2 * thresholds * value * brightest + 255 * (2 * u64::from(threshold) + 1)) / whole;
        (level.min(brightest) as u32) << bits.offset
    })
}

/// Which rows of which buffers do not yet hold the newest frame.
///
/// With two buffers that are shown in turn, a row that changed once must be written twice.
pub struct Behind {
    orientation: Orientation,
    native_px: [usize; 2],
    newest: Option<Frame>,
    /// For each buffer and each native row.
    behind: Vec<Vec<bool>>,
}

impl Behind {
    /// Nothing is known of any of the buffers.
    pub fn new(buffers: usize, orientation: Orientation, native_px: [usize; 2]) -> Self {
        Self {
            orientation,
            native_px,
            newest: None,
            behind: vec![vec![true; native_px[1]]; buffers],
        }
    }

    /// Forgets what the buffers hold: all of the next frame is written.
    pub fn forget(&mut self) {
        self.newest = None;
    }

    /// Takes note of a frame; says whether it differs from the one before.
    pub fn note(&mut self, frame: &Frame) -> bool {
        let changed = match &self.newest {
            Some(before) => changed_rows(before, frame, self.orientation, self.native_px),
            None => vec![true; self.native_px[1]],
        };
        let any = changed.contains(&true);
        for buffer in &mut self.behind {
            for (behind, changed) in buffer.iter_mut().zip(&changed) {
                *behind |= changed;
            }
        }
        if any {
            match &mut self.newest {
                Some(newest) => newest.rgb_mut().copy_from_slice(frame.rgb()),
                None => self.newest = Some(frame.clone()),
            }
        }
        any
    }

    /// The rows of `buffer` to be written now; they count as written.
    pub fn take(&mut self, buffer: usize) -> impl Iterator<Item = usize> {
        let rows = self.behind[buffer].iter_mut().enumerate();
        rows.filter_map(|(row, behind)| std::mem::take(behind).then_some(row))
    }
}

/// The native rows in which two frames differ.
fn changed_rows(
    before: &Frame,
    after: &Frame,
    orientation: Orientation,
    native_px: [usize; 2],
) -> Vec<bool> {
    assert_eq!(
        before.size_px(),
        after.size_px(),
        "frames of different sizes"
    );
    let mut seen = vec![false; native_px[1]];
    let turned = orientation.seen([2, 1]) == [1, 2];
    let lines = (0..after.height_px()).filter(|&line| before.row(line) != after.row(line));
    for line in lines {
        if !turned {
            seen[line] = true;
            continue;
        }
        let pixels = before
            .row(line)
            .chunks_exact(3)
            .zip(after.row(line).chunks_exact(3));
        for (seen, (before, after)) in seen.iter_mut().zip(pixels) {
            *seen |= before != after;
        }
    }
    // So far they are numbered as the viewer's lines or columns.
    let native = |y| {
        let [column, line] = orientation.source([0, y], native_px);
        seen[if turned { column } else { line }]
    };
    (0..native_px[1]).map(native).collect()
}

/// The frame itself, or, if it was drawn for the screen before this one, black with the frame in
/// the middle, cut where it is too large.
pub fn in_the_middle(frame: &Frame, size_px: [usize; 2]) -> Cow<'_, Frame> {
    let before_px = frame.size_px();
    if before_px == size_px {
        return Cow::Borrowed(frame);
    }
    let mut middle = Frame::new(size_px[0], size_px[1]);
    let [width, height] = [0, 1].map(|side| before_px[side].min(size_px[side]));
    let [from_x, from_y] = [(before_px[0] - width) / 2, (before_px[1] - height) / 2];
    let [to_x, to_y] = [(size_px[0] - width) / 2, (size_px[1] - height) / 2];
    for y in 0..height {
        let row = &frame.row(from_y + y)[3 * from_x..][..3 * width];
        let at = 3 * ((to_y + y) * size_px[0] + to_x);
        middle.rgb_mut()[at..at + row.len()].copy_from_slice(row);
    }
    Cow::Owned(middle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::{Mirror, Rotation};

    /// A frame whose pixels are all different.
    fn frame(width_px: usize, height_px: usize) -> Frame {
        let mut frame = Frame::new(width_px, height_px);
        for (at, pixel) in frame.rgb_mut().chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&[at as u8, 100 + at as u8, 255 - at as u8]);
        }
        frame
    }

    fn packed(layout: PixelLayout, rgb: [u8; 3]) -> Vec<u8> {
        let mut frame = Frame::new(1, 1);
        frame.rgb_mut().copy_from_slice(&rgb);
        let packer = Packer::new(layout);
        let mut row = vec![0xAA; packer.row_bytes(1)];
        packer.write_row(&frame, Orientation::default(), [1, 1], 0, &mut row);
        row
    }

    #[test]
    fn eight_bit_colours_are_packed_exactly() {
        let bgr = PixelLayout::rgb(4, [0, 8, 16], [8, 8, 8]);
        let packed_24 = PixelLayout::rgb(3, [16, 8, 0], [8, 8, 8]);
        let high = PixelLayout::rgb(4, [24, 16, 8], [8, 8, 8]);
        for rgb in [[1, 2, 3], [0, 128, 255], [254, 127, 64]] {
            let [r, g, b] = rgb;
            assert_eq!(packed(PixelLayout::XRGB8888, rgb), [b, g, r, 0]);
            assert_eq!(packed(bgr, rgb), [r, g, b, 0]);
            assert_eq!(packed(packed_24, rgb), [b, g, r]);
            assert_eq!(packed(high, rgb), [0, b, g, r]);
        }
    }

    #[test]
    fn ten_bit_colours_use_the_whole_range() {
        let layout = PixelLayout::rgb(4, [20, 10, 0], [10, 10, 10]);
        let number = |rgb| u32::from_le_bytes(packed(layout, rgb).try_into().unwrap());
        assert_eq!(number([255, 0, 255]), 0x3FF0_03FF);
        assert_eq!(number([128, 128, 128]), 514 << 20 | 514 << 10 | 514);
    }

    #[test]
    fn sixteen_bits_keep_black_white_and_pure_colours() {
        for (rgb, expected) in [
            ([0, 0, 0], 0x0000_u16),
            ([255, 255, 255], 0xFFFF),
            ([255, 0, 0], 0xF800),
            ([0, 255, 0], 0x07E0),
            ([0, 0, 255], 0x001F),
        ] {
            assert_eq!(packed(PixelLayout::RGB565, rgb), expected.to_le_bytes());
        }
    }

    #[test]
    fn dither_keeps_the_mean_of_every_grey() {
        let packer = Packer::new(PixelLayout::RGB565);
        let mut grey = Frame::new(8, 8);
        let mut row = vec![0; packer.row_bytes(8)];
        for value in 0..=255_u8 {
            grey.rgb_mut().fill(value);
            let mut sums = [0.0; 3];
            for y in 0..8 {
                packer.write_row(&grey, Orientation::default(), [8, 8], y, &mut row);
                for pixel in row.chunks_exact(2) {
                    let pixel = u16::from_le_bytes([pixel[0], pixel[1]]);
                    let levels = [pixel >> 11, pixel >> 5 & 63, pixel & 31];
                    for (sum, (level, most)) in sums.iter_mut().zip(levels.iter().zip([31, 63, 31]))
                    {
                        *sum += f64::from(*level) * 255.0 / f64::from(most) / 64.0;
                    }
                }
            }
            for sum in sums {
                assert!((sum - f64::from(value)).abs() < 0.1, "{value} became {sum}");
            }
        }
    }

    #[test]
    fn every_rotation_and_mirror_writes_what_the_orientation_says() {
        let native_px = [5, 3];
        for degrees in [0, 90, 180, 270] {
            for mirror in [Mirror::No, Mirror::LeftRight] {
                let rotation = Rotation::try_from(degrees).unwrap();
                let orientation = Orientation { rotation, mirror };
                let [width, height] = orientation.seen(native_px);
                let frame = frame(width, height);
                let packer = Packer::new(PixelLayout::XRGB8888);
                let mut row = vec![0; packer.row_bytes(5)];
                for y in 0..3 {
                    packer.write_row(&frame, orientation, native_px, y, &mut row);
                    for x in 0..5 {
                        let [column, line] = orientation.source([x, y], native_px);
                        let [r, g, b] = frame.pixel(column, line);
                        assert_eq!(
                            row[4 * x..4 * x + 4],
                            [b, g, r, 0],
                            "{degrees} {mirror} {x} {y}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_that_changed_is_written_once_to_each_buffer() {
        let mut behind = Behind::new(2, Orientation::default(), [4, 3]);
        let mut frame = frame(4, 3);
        assert!(behind.note(&frame));
        assert_eq!(behind.take(0).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(!behind.note(&frame));
        frame.rgb_mut()[3 * 4] ^= 1;
        assert!(behind.note(&frame));
        assert_eq!(behind.take(1).collect::<Vec<_>>(), [0, 1, 2]);
        frame.rgb_mut()[3 * 8] ^= 1;
        assert!(behind.note(&frame));
        assert_eq!(behind.take(0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(behind.take(1).collect::<Vec<_>>(), [2]);
        assert_eq!(behind.take(0).count(), 0);
        behind.forget();
        assert!(behind.note(&frame));
        assert_eq!(behind.take(0).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn on_a_turned_screen_a_column_is_a_row() {
        for (degrees, row) in [(0, 1), (90, 3), (180, 1), (270, 1)] {
            let rotation = Rotation::try_from(degrees).unwrap();
            let mirror = Mirror::No;
            let orientation = Orientation { rotation, mirror };
            let [width, height] = [5, 3];
            let native_px = orientation.seen([width, height]);
            let mut behind = Behind::new(1, orientation, native_px);
            let mut frame = frame(width, height);
            behind.note(&frame);
            behind.take(0).for_each(drop);
            // Column 3, line 1.
            frame.rgb_mut()[3 * (5 + 3)] ^= 1;
            assert!(behind.note(&frame));
            assert_eq!(behind.take(0).collect::<Vec<_>>(), [row], "{degrees}");
        }
    }

    #[test]
    fn layouts_that_would_write_beside_the_pixel_are_unsound() {
        for layout in [
            PixelLayout::rgb(2, [11, 5, 0], [8, 6, 5]),
            PixelLayout::rgb(4, [16, 8, 0], [8, 8, 0]),
            PixelLayout::rgb(4, [u32::MAX, 8, 0], [8, 8, 8]),
            PixelLayout::rgb(1, [5, 2, 0], [3, 3, 2]),
            PixelLayout::rgb(4, [0, 0, 0], [17, 8, 8]),
        ] {
            assert!(!layout.is_sound(), "{layout:?}");
        }
        assert!(PixelLayout::RGB565.is_sound() && PixelLayout::XRGB8888.is_sound());
    }

    #[test]
    fn a_frame_for_another_screen_is_shown_in_the_middle() {
        let mut frame = Frame::new(4, 2);
        frame.rgb_mut().fill(9);
        assert_eq!(*in_the_middle(&frame, [4, 2]), frame);
        let larger = in_the_middle(&frame, [6, 4]);
        let lit = |x, y| larger.pixel(x, y) == [9; 3];
        assert!(lit(1, 1) && lit(4, 2) && !lit(0, 1) && !lit(5, 2) && !lit(1, 0) && !lit(4, 3));
        let smaller = in_the_middle(&frame, [2, 3]);
        assert_eq!(smaller.rgb(), [[9; 6], [9; 6], [0; 6]].concat());
    }
}
