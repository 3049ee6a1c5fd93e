//! `driftglass bench --display`: what a picture on a panel costs its processor.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use serde::Serialize;

use crate::cli::print_json;
use crate::cli::process::median;
use crate::display::Frame;
use crate::display::dither::{self, Look, Quantizer};
use crate::display::mount::{self, Mount};
use crate::display::palette::Palette;
use crate::display::scale::Scaler;
use crate::display::tft::{self, Depth, colour};
use crate::picture::Picture;

/// Times of which the median is told.
const ROUNDS: usize = 21;

/// One kind of work.
#[derive(Debug, Serialize)]
struct Row {
    work: String,
    median_ms: f64,
    min_ms: f64,
    per_second: f64,
}

/// Times every kind of work on one thread.
pub fn run(json: bool) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    mounts(&mut rows);
    for depth in [Depth::Rgb565, Depth::Rgb666] {
        let (frame, mut wire) = (smooth(240, 240), Vec::new());
        rows.push(timed(format!("240x240 to {depth}, dithered"), || {
            colour::convert(&frame, depth, tft::Dither::Bayer, &mut wire);
            black_box(&wire);
        }));
    }
    let palette = Palette::named("spectra-6")?;
    for name in dither::Dither::NAMES {
        let look = Look {
            dither: name.parse()?,
            ..Look::default()
        };
        let (frame, quantizer) = (smooth(800, 480), Quantizer::new(&palette, look));
        rows.push(timed(format!("800x480 to Spectra 6, {name}"), || {
            black_box(quantizer.quantize(&frame));
        }));
    }
    if json {
        return print_json(&rows);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:>9} {:>9} {:>9}  work", "ms", "least", "a second")?;
    for row in rows {
        let Row {
            work,
            median_ms,
            min_ms,
            per_second,
        } = row;
        writeln!(out, "{median_ms:9.3} {min_ms:9.3} {per_second:9.1}  {work}")?;
    }
    Ok(())
}

/// A small picture onto panels of three sizes, in every way of enlarging.
fn mounts(rows: &mut Vec<Row>) {
    for (side, [width, height]) in [(32, [240, 240]), (64, [800, 480]), (64, [1920, 1080])] {
        let picture = Picture::from(&smooth(side, side));
        for name in Scaler::NAMES {
            let facts = mount::Facts {
                scaler: name.parse().ok(),
                ..mount::Facts::default()
            };
            let (mut mount, mut frame) = (Mount::new(facts), Frame::new(width, height));
            rows.push(timed(
                format!("{side}x{side} onto {width}x{height}, {name}"),
                || mount.draw(black_box(&picture), &mut frame),
            ));
        }
    }
}

/// A frame in which every pixel differs a little from the next.
fn smooth(width: usize, height: usize) -> Frame {
    let mut frame = Frame::new(width, height);
    let (pixels, _) = frame.rgb_mut().as_chunks_mut::<3>();
    for (at, pixel) in pixels.iter_mut().enumerate() {
        let (x, y) = (at % width, at / width);
        let parts = [(x, width), (y, height), (x + y, width + height)];
        *pixel = parts.map(|(part, whole)| (part * 255 / whole) as u8);
    }
    frame
}

fn timed(work: String, mut once: impl FnMut()) -> Row {
    once();
    let mut times_ms: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            once();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    let median_ms = median(&mut times_ms);
    Row {
        work,
        median_ms,
        min_ms: times_ms[0],
        per_second: 1e3 / median_ms,
    }
}
