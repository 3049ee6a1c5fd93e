//! Sixels: a picture as DEC's terminals print it, in bands six pixels high.
//!
//! A sixel is a character that sets any of six pixels below each other in one colour out of a
//! palette (VT330/VT340 Programmer Reference Manual, volume 2, chapter 14). Colours are told in
//! percent, so that even a picture of few colours comes out up to 1.3 levels of 255 off.

use std::collections::BTreeMap;
use std::io::Write;

use crate::picture::Picture;

/// How many colours a palette holds, as many as nearly every terminal does.
const MOST_COLOURS: usize = 256;

/// How often the palette is moved to the middle of what it stands for.
const REFINEMENTS: usize = 2;

/// The picture as a device control string.
pub fn encode(picture: &Picture) -> Vec<u8> {
    let (palette, indices) = quantized(picture);
    let (width, height) = (picture.width_px(), picture.height_px());
    // The second parameter leaves pixels that are not set as they are; the raster attributes say
    // that pixels are square and how many there are.
    let mut stream = format!("\x1bP0;1q\"1;1;{width};{height}").into_bytes();
    for (index, colour) in palette.iter().enumerate() {
        let [r, g, b] = colour.map(percent);
        write_in(&mut stream, format_args!("#{index};2;{r};{g};{b}"));
    }
    for band in indices.chunks(6 * width) {
        write_band(&mut stream, band, width);
    }
    // A step down after the last band could scroll.
    stream.pop();
    stream.extend(b"\x1b\\");
    stream
}

/// One pass over the band for each of its colours.
fn write_band(stream: &mut Vec<u8>, band: &[u8], width: usize) {
    // For each colour its sixels so far: column and bits, columns ascending.
    let mut columns: BTreeMap<u8, Vec<(usize, u8)>> = BTreeMap::new();
    for x in 0..width {
        for (row, index) in band.iter().skip(x).step_by(width).enumerate() {
            let sixels = columns.entry(*index).or_default();
            match sixels.last_mut() {
                Some((column, bits)) if *column == x => *bits |= 1 << row,
                _ => sixels.push((x, 1 << row)),
            }
        }
    }
    for (index, sixels) in columns {
        write_in(stream, format_args!("#{index}"));
        let (mut start, mut run, mut bits) = (0, 0, 0);
        for (column, next) in sixels {
            if column == start + run && next == bits {
                run += 1;
                continue;
            }
            write_run(stream, run, bits);
            write_run(stream, column - start - run, 0);
            (start, run, bits) = (column, 1, next);
        }
        write_run(stream, run, bits);
        stream.push(b'$');
    }
    // The last colour's return to the left is the step down to the next band.
    stream.pop();
    stream.push(b'-');
}

/// `run` times the sixel of these bits.
fn write_run(stream: &mut Vec<u8>, run: usize, bits: u8) {
    let sixel = b'?' + bits;
    if run > 3 {
        write_in(stream, format_args!("!{run}"));
        stream.push(sixel);
    } else {
        stream.extend(std::iter::repeat_n(sixel, run));
    }
}

fn write_in(stream: &mut Vec<u8>, text: std::fmt::Arguments) {
    stream
        .write_fmt(text)
        .expect("a vector takes whatever is written");
}

fn percent(level: u8) -> u8 {
    ((u16::from(level) * 100 + 127) / 255) as u8
}

/// A palette of at most 256 colours, and for each pixel its number in it.
fn quantized(picture: &Picture) -> (Vec<[u8; 3]>, Vec<u8>) {
    let pixels = picture.rgb().as_chunks::<3>().0;
    let mut counts: BTreeMap<[u8; 3], u32> = BTreeMap::new();
    for pixel in pixels {
        *counts.entry(*pixel).or_default() += 1;
    }
    let colours: Vec<Colour> = counts.into_iter().map(Colour::from).collect();
    let mut palette = if colours.len() <= MOST_COLOURS {
        colours.iter().map(|colour| colour.rgb).collect()
    } else {
        middles(&boxes(colours.clone()))
    };
    let mut nearest = assignment(&colours, &palette);
    if colours.len() > MOST_COLOURS {
        for _ in 0..REFINEMENTS {
            let mut groups = vec![Vec::new(); palette.len()];
            for (colour, index) in colours.iter().zip(&nearest) {
                groups[usize::from(*index)].push(*colour);
            }
            groups.retain(|group| !group.is_empty());
            palette = middles(&groups);
            nearest = assignment(&colours, &palette);
        }
    }
    let numbers: BTreeMap<[u8; 3], u8> = colours.iter().map(|c| c.rgb).zip(nearest).collect();
    let indices = pixels.iter().map(|pixel| numbers[pixel]).collect();
    (palette, indices)
}

/// A colour and how many pixels have it.
#[derive(Clone, Copy)]
struct Colour {
    rgb: [u8; 3],
    weight: f64,
}

impl From<([u8; 3], u32)> for Colour {
    fn from((rgb, count): ([u8; 3], u32)) -> Self {
        let weight = count.into();
        Self { rgb, weight }
    }
}

/// For each colour the number of the nearest one in the palette.
fn assignment(colours: &[Colour], palette: &[[u8; 3]]) -> Vec<u8> {
    let nearest = |rgb: [u8; 3]| {
        let distance = |other: &[u8; 3]| -> i32 {
            let difference = |axis: usize| i32::from(rgb[axis]) - i32::from(other[axis]);
            (0..3).map(|axis| difference(axis).pow(2)).sum()
        };
        let numbered = palette.iter().zip(0..=u8::MAX);
        let found = numbered.min_by_key(|(other, _)| distance(other));
        found.expect("a palette has a colour").1
    };
    colours.iter().map(|colour| nearest(colour.rgb)).collect()
}

/// The colours in 256 boxes: the box with the greatest spread is divided at its mean, again and
/// again (median cut by variance, after Wan, Prusinkiewicz and Wong 1990).
fn boxes(colours: Vec<Colour>) -> Vec<Vec<Colour>> {
    let mut boxes = vec![(spread(&colours), colours)];
    while boxes.len() < MOST_COLOURS {
        let widest = (0..boxes.len()).max_by(|a, b| boxes[*a].0.1.total_cmp(&boxes[*b].0.1));
        let ((axis, _), colours) = boxes.swap_remove(widest.expect("there is a box"));
        let mean = mean(&colours)[axis];
        // The spread is not zero while there are more colours than boxes, so neither half is empty.
        let (low, high): (Vec<_>, Vec<_>) = colours
            .into_iter()
            .partition(|colour| f64::from(colour.rgb[axis]) <= mean);
        for half in [low, high] {
            boxes.push((spread(&half), half));
        }
    }
    boxes.into_iter().map(|(_, colours)| colours).collect()
}

/// The axis along which the colours differ most, and the sum of squared differences there.
fn spread(colours: &[Colour]) -> (usize, f64) {
    let mean = mean(colours);
    let along = |axis: usize| -> f64 {
        let squares = colours
            .iter()
            .map(|colour| colour.weight * (f64::from(colour.rgb[axis]) - mean[axis]).powi(2));
        squares.sum()
    };
    let axes = (0..3).map(|axis| (axis, along(axis)));
    axes.max_by(|a, b| a.1.total_cmp(&b.1))
        .expect("there are three axes")
}

fn mean(colours: &[Colour]) -> [f64; 3] {
    let total: f64 = colours.iter().map(|colour| colour.weight).sum();
    [0, 1, 2].map(|axis| {
        let weighted = colours
            .iter()
            .map(|colour| colour.weight * f64::from(colour.rgb[axis]));
        weighted.sum::<f64>() / total
    })
}

fn middles(groups: &[Vec<Colour>]) -> Vec<[u8; 3]> {
    let middle = |group: &Vec<Colour>| mean(group).map(|level| level.round() as u8);
    groups.iter().map(middle).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a terminal makes of the string between `ESC P` and `ESC \`; `None` where nothing was set.
    pub fn decoded(stream: &str) -> (usize, usize, Vec<Option<[u8; 3]>>) {
        let (parameters, body) = stream.split_once('q').unwrap();
        assert_eq!(parameters, "0;1");
        let body = body.strip_prefix('"').unwrap();
        let end = body
            .find(|c: char| !c.is_ascii_digit() && c != ';')
            .unwrap();
        let raster = numbers(&body[..end]);
        let [1, 1, width, height] = raster[..] else {
            panic!("{raster:?}")
        };
        let mut pixels = vec![None; width * height.next_multiple_of(6)];
        let (mut palette, mut colour) = (BTreeMap::new(), None);
        let (mut x, mut y, mut rest) = (0, 0, &body[end..]);
        while let Some(command) = rest.chars().next() {
            rest = &rest[1..];
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != ';')
                .unwrap_or(rest.len());
            let given = numbers(&rest[..digits]);
            let repeat = match command {
                '#' => {
                    if let [_, system, r, g, b] = given[..] {
                        assert!(system == 2 && [r, g, b].iter().all(|part| *part <= 100));
                        let level = |part: usize| ((part * 255 + 50) / 100) as u8;
                        palette.insert(given[0], [level(r), level(g), level(b)]);
                    }
                    colour = palette.get(&given[0]).copied();
                    assert!(palette.len() <= 256);
                    rest = &rest[digits..];
                    continue;
                }
                '$' => {
                    x = 0;
                    continue;
                }
                '-' => {
                    (x, y) = (0, y + 6);
                    continue;
                }
                '!' => {
                    rest = &rest[digits..];
                    given[0]
                }
                _ => 1,
            };
            let sixel = if command == '!' {
                let sixel = rest.chars().next().unwrap();
                rest = &rest[1..];
                sixel
            } else {
                command
            };
            let bits = u32::from(sixel).checked_sub(63).unwrap();
            assert!(bits < 64 && x + repeat <= width, "{sixel:?} at {x}");
            for row in (0..6).filter(|row| bits >> row & 1 == 1) {
                for column in x..x + repeat {
                    let pixel = &mut pixels[(y + row) * width + column];
                    assert!(pixel.replace(colour.unwrap()).is_none(), "set twice");
                }
            }
            x += repeat;
        }
        assert!(pixels[width * height..].iter().all(Option::is_none));
        pixels.truncate(width * height);
        (width, height, pixels)
    }

    fn numbers(text: &str) -> Vec<usize> {
        let parts = text.split(';').filter(|part| !part.is_empty());
        parts.map(|part| part.parse().unwrap()).collect()
    }

    pub fn as_picture(stream: &str) -> Picture {
        let (width, height, pixels) = decoded(stream);
        let rgb = pixels
            .into_iter()
            .flat_map(|pixel| pixel.unwrap())
            .collect();
        Picture::new(width, height, rgb)
    }

    fn through(picture: &Picture) -> (Picture, usize) {
        let stream = String::from_utf8(encode(picture)).unwrap();
        let inner = stream
            .strip_prefix("\x1bP")
            .unwrap()
            .strip_suffix("\x1b\\")
            .unwrap();
        (as_picture(inner), stream.len())
    }

    fn worst(a: &Picture, b: &Picture) -> u8 {
        let pairs = a.rgb().iter().zip(b.rgb());
        pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn a_picture_of_few_colours_comes_out_as_exact_as_percents_allow() {
        for (width, height) in [(1, 1), (16, 16), (37, 7), (5, 6), (300, 13)] {
            let shade = |at: usize| [at % 16 * 17, at / 16 % 16 * 16, at % 3 * 99];
            let rgb = (0..width * height).flat_map(|at| shade(at % 200).map(|level| level as u8));
            let picture = Picture::new(width, height, rgb.collect());
            let (shown, _) = through(&picture);
            assert!(worst(&picture, &shown) <= 2, "{width}x{height}");
        }
        let flat = Picture::filled(500, 300, [255, 0, 128]);
        let (shown, length) = through(&flat);
        assert_eq!(shown.pixel(499, 299), [255, 0, 128]);
        assert!(length < 500, "runs are counted: {length}");
    }

    #[test]
    fn a_picture_of_many_colours_is_as_close_as_a_palette_can_be() {
        // A smooth field, as a model paints: 64x64 pixels of some 4000 colours.
        let level = |x: f64, y: f64, phase: f64| {
            127.5 + 127.0 * (x / 17.0 + phase).sin() * (y / 23.0 + phase).cos()
        };
        let rgb = (0..64 * 64).flat_map(|at| {
            let (x, y) = ((at % 64) as f64, (at / 64) as f64);
            [0.0, 1.0, 2.5].map(|phase| level(x, y, phase) as u8)
        });
        let picture = Picture::new(64, 64, rgb.collect());
        let (shown, _) = through(&picture);
        let psnr_db = picture.psnr_db(&shown);
        assert!(psnr_db > 35.0, "{psnr_db} dB");
        // 4096 colours that no palette of 256 holds: a cube of 16 levels, 7 levels apart at most.
        let rgb = (0..4096)
            .flat_map(|at| [at % 16, at / 16 % 16, at / 256].map(|level| (level * 17) as u8));
        let cube = Picture::new(64, 64, rgb.collect());
        let psnr_db = cube.psnr_db(&through(&cube).0);
        assert!(psnr_db > 24.0, "{psnr_db} dB");
    }
}
