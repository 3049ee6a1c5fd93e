//! From a picture to a frame: mounts, captions, cards and the test card.

use driftglass::display::card::Card;
use driftglass::display::correction::{self, Correction};
use driftglass::display::emergence::Style;
use driftglass::display::mount::{self, Background, Fit, Mount};
use driftglass::display::scale::Scaler;
use driftglass::display::{Frame, Glass, caption, progress_line, test_card};
use driftglass::picture::Picture;
use proptest::prelude::*;

use crate::golden;

const SCALERS: [Scaler; 5] = [
    Scaler::Auto,
    Scaler::Nearest,
    Scaler::Bilinear,
    Scaler::Lanczos3,
    Scaler::PixelArt,
];

const FITS: [Fit; 4] = [Fit::Contain, Fit::Cover, Fit::Integer, Fit::Stretch];

/// A scene of 32x32 pixels with what scalers are told apart by: a gradient, a disc, a thin line,
/// a slanted edge, single dots and a checked patch.
fn scene() -> Picture {
    let mut rgb = Vec::new();
    for y in 0..32_i32 {
        for x in 0..32_i32 {
            let mut pixel = [30 + 2 * x, 40 + 3 * y, 90 + 4 * y].map(|value| value as u8);
            if (x - 22).pow(2) + (y - 8).pow(2) <= 20 {
                pixel = [250, 230, 170];
            }
            if x + 3 * y > 78 {
                pixel = [24, 50, 30];
            }
            if 2 * x - y == 8 || 2 * x - y == 9 {
                pixel = [220, 60, 40];
            }
            if (2..8).contains(&x) && (22..28).contains(&y) && (x + y) % 2 == 0 {
                pixel = [240, 240, 240];
            }
            if [(3, 3), (6, 5), (28, 27)].contains(&(x, y)) {
                pixel = [255, 255, 255];
            }
            rgb.extend(pixel);
        }
    }
    Picture::new(32, 32, rgb)
}

/// Bytes without any order, the same ones every time.
fn noise(width_px: usize, height_px: usize, seed: u32) -> Picture {
    let mut word = seed;
    let mut byte = || {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (word >> 24) as u8
    };
    let rgb = (0..3 * width_px * height_px).map(|_| byte()).collect();
    Picture::new(width_px, height_px, rgb)
}

fn mounted(facts: mount::Facts, picture: &Picture, [width, height]: [usize; 2]) -> Frame {
    let mut frame = Frame::new(width, height);
    Mount::new(facts).draw(picture, &mut frame);
    frame
}

fn stretched(scaler: Scaler, picture: &Picture, size: [usize; 2]) -> Frame {
    let facts = mount::Facts {
        fit: Some(Fit::Stretch),
        scaler: Some(scaler),
        ..mount::Facts::default()
    };
    mounted(facts, picture, size)
}

/// The mean of each channel.
fn mean(rgb: &[u8]) -> [f64; 3] {
    [0, 1, 2].map(|channel| {
        let values = rgb.iter().skip(channel).step_by(3);
        let sum: u64 = values.map(|&value| u64::from(value)).sum();
        sum as f64 / (rgb.len() / 3) as f64
    })
}

#[test]
fn every_scaler_draws_what_was_looked_at() {
    for &scaler in &SCALERS[1..] {
        let frame = stretched(scaler, &scene(), [144, 144]);
        golden::assert(&format!("scaler-{scaler}"), &Picture::from(&frame));
    }
    let frame = stretched(Scaler::Auto, &scene(), [20, 20]);
    golden::assert("scaler-auto-shrinks", &Picture::from(&frame));
}

#[test]
fn every_fit_and_background_draws_what_was_looked_at() {
    for (fit, background) in [
        (Fit::Contain, Background::Colour([16, 16, 96])),
        (Fit::Contain, Background::Blurred),
        (Fit::Cover, Background::default()),
        (Fit::Integer, Background::Blurred),
        (Fit::Stretch, Background::default()),
    ] {
        let facts = mount::Facts {
            fit: Some(fit),
            background: Some(background),
            ..mount::Facts::default()
        };
        let frame = mounted(facts, &scene(), [160, 112]);
        let name = format!("fit-{fit}-{}", background.to_string().replace('#', ""));
        golden::assert(&name, &Picture::from(&frame));
    }
}

#[test]
fn captions_and_progress_draw_what_was_looked_at() {
    let parts = ["seed 1234567890", "scenes-32", "step 12/50"];
    for (name, glass, size) in [
        ("128x128", Glass::Rectangular, [128, 128]),
        ("240x240", Glass::Rectangular, [240, 240]),
        ("240x240-round", Glass::Round, [240, 240]),
        ("480x320", Glass::Rectangular, [480, 320]),
    ] {
        let mut frame = stretched(Scaler::Nearest, &scene(), size);
        caption::draw(&parts, glass, &mut frame);
        progress_line::draw(12.0 / 50.0, glass, &mut frame);
        golden::assert(&format!("caption-{name}"), &Picture::from(&frame));
    }
}

#[test]
fn cards_draw_what_was_looked_at() {
    let card = Card {
        headline: "The model is damaged",
        sentence: "models/scenes-32/int8.onnx: expected sha256 5f3a…, found 91c0…. Copy the folder again.",
        page: Some("http://driftglass.local:8080/health"),
    };
    for (glass, size) in [
        (Glass::Rectangular, [96, 64]),
        (Glass::Rectangular, [128, 128]),
        (Glass::Rectangular, [320, 240]),
        (Glass::Round, [240, 240]),
        (Glass::Rectangular, [480, 800]),
    ] {
        let mut frame = Frame::new(size[0], size[1]);
        card.draw(glass, &mut frame);
        let name = format!("card-{}x{}-{glass}", size[0], size[1]);
        golden::assert(&name, &Picture::from(&frame));
    }
}

#[test]
fn the_test_card_draws_what_was_looked_at() {
    for (glass, size) in [
        (Glass::Rectangular, [96, 64]),
        (Glass::Rectangular, [128, 160]),
        (Glass::Rectangular, [250, 122]),
        (Glass::Round, [240, 240]),
        (Glass::Rectangular, [320, 240]),
        (Glass::Rectangular, [800, 480]),
    ] {
        let mut frame = Frame::new(size[0], size[1]);
        test_card::draw(glass, &mut frame);
        let name = format!("test-card-{}x{}-{glass}", size[0], size[1]);
        golden::assert(&name, &Picture::from(&frame));
    }
}

#[test]
fn a_wipe_and_a_correction_draw_what_was_looked_at() {
    let (x0, x_t) = (scene(), noise(32, 32, 7));
    let shown = Style::Wipe.picture(&x0, &x_t, 0.5).unwrap();
    golden::assert("emergence-wipe", &shown.enlarged(4));
    let facts: correction::Facts =
        toml::from_str("gamma = 1.8\ngain = [1.0, 0.9, 0.8]\nsaturation = 1.5\ncontrast = 1.1")
            .unwrap();
    let mut frame = stretched(Scaler::Nearest, &scene(), [128, 128]);
    Correction::new(facts).unwrap().apply(&mut frame);
    golden::assert("correction", &Picture::from(&frame));
}

#[test]
fn scalers_keep_the_mean_colour() {
    // A nearest neighbour keeps it only where all pixels become equally large.
    let pictures = [scene(), noise(32, 32, 1), noise(64, 64, 2)];
    let sizes = [[240, 240], [320, 240], [480, 480], [1080, 1080], [96, 128]];
    for picture in &pictures {
        let whole = [5, 4].map(|factor| factor * picture.width_px());
        for scaler in SCALERS {
            let sizes = if scaler == Scaler::Nearest {
                &[whole][..]
            } else {
                &sizes
            };
            for &size in sizes {
                let frame = stretched(scaler, picture, size);
                let (before, after) = (mean(picture.rgb()), mean(frame.rgb()));
                for (before, after) in before.into_iter().zip(after) {
                    let difference = (before - after).abs();
                    assert!(
                        difference <= 1.0,
                        "{scaler} {picture:?} {size:?}: {difference}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_picture_lies_on_any_frame(
        picture_px in [1..=300_usize, 1..=300],
        frame_px in [1..=300_usize, 1..=300],
        fit in prop::sample::select(&FITS[..]),
        scaler in prop::sample::select(&SCALERS[..]),
        is_blurred in any::<bool>(),
    ) {
        let background = if is_blurred { Background::Blurred } else { Background::default() };
        let facts = mount::Facts {
            fit: Some(fit),
            background: Some(background),
            scaler: Some(scaler),
            glass: None,
        };
        // Every scaler of a plain picture is plain, to the level.
        let plain = Picture::filled(picture_px[0], picture_px[1], [200, 100, 51]);
        let frame = mounted(facts, &plain, frame_px);
        let place = fit.place(picture_px, frame_px);
        for y in place.rows.clone() {
            for x in place.columns.clone() {
                prop_assert_eq!(frame.pixel(x, y), [200, 100, 51]);
            }
        }
        let (columns, rows) = (place.columns, place.rows);
        for y in 0..frame_px[1] {
            for x in 0..frame_px[0] {
                let inside = columns.contains(&x) && rows.contains(&y);
                prop_assert!(inside || frame.pixel(x, y) != [200, 100, 51]);
            }
        }
        mounted(facts, &noise(picture_px[0], picture_px[1], 3), frame_px);
    }

    #[test]
    fn every_fit_keeps_its_promise(
        picture_px in [1..=300_usize, 1..=300],
        frame_px in [1..=300_usize, 1..=300],
    ) {
        let sides = |place: &mount::Place| [place.columns.len(), place.rows.len()];
        let whole = picture_px.map(|side| side as f64);

        let contain = Fit::Contain.place(picture_px, frame_px);
        let taken = sides(&contain);
        prop_assert_eq!(contain.part, whole);
        prop_assert!(taken[0] == frame_px[0] || taken[1] == frame_px[1]);
        let factor = f64::min(frame_px[0] as f64 / whole[0], frame_px[1] as f64 / whole[1]);
        for axis in [0, 1] {
            prop_assert!((taken[axis] as f64 - whole[axis] * factor).abs() <= 1.0);
        }

        let cover = Fit::Cover.place(picture_px, frame_px);
        prop_assert_eq!(sides(&cover), frame_px);
        let factors = [0, 1].map(|axis| frame_px[axis] as f64 / cover.part[axis]);
        prop_assert!((factors[0] / factors[1] - 1.0).abs() < 1e-9);
        prop_assert!(cover.part[0] >= whole[0] - 1e-9 || cover.part[1] >= whole[1] - 1e-9);

        let integer = Fit::Integer.place(picture_px, frame_px);
        let taken = sides(&integer);
        if picture_px[0] <= frame_px[0] && picture_px[1] <= frame_px[1] {
            let times = taken[0] / picture_px[0];
            prop_assert_eq!(taken, picture_px.map(|side| side * times));
            prop_assert!((0..2).any(|axis| picture_px[axis] * (times + 1) > frame_px[axis]));
        } else {
            let parts = (0..2).map(|axis| picture_px[axis].div_ceil(frame_px[axis])).max().unwrap();
            for axis in [0, 1] {
                prop_assert_eq!(taken[axis], (picture_px[axis] / parts).max(1));
                prop_assert!(whole[axis] - integer.part[axis] < parts as f64);
                prop_assert_eq!(integer.from[axis].fract(), 0.0);
            }
        }

        let stretch = Fit::Stretch.place(picture_px, frame_px);
        prop_assert_eq!((sides(&stretch), stretch.part), (frame_px, whole));
        for place in [contain, cover, integer, stretch] {
            for (axis, range) in [place.columns, place.rows].into_iter().enumerate() {
                let (before, after) = (range.start, frame_px[axis] - range.end);
                prop_assert!(after == before || after == before + 1);
                prop_assert!(place.from[axis] >= 0.0);
                prop_assert!(place.from[axis] + place.part[axis] <= whole[axis] + 1e-9);
            }
        }
    }

    #[test]
    fn shrinking_by_whole_numbers_keeps_the_mean(
        target in [1..=12_usize, 1..=12],
        parts in 2..=6_usize,
        seed in any::<u32>(),
    ) {
        let picture = noise(target[0] * parts, target[1] * parts, seed);
        let facts = mount::Facts {
            fit: Some(Fit::Integer),
            scaler: Some(Scaler::PixelArt),
            ..mount::Facts::default()
        };
        let frame = mounted(facts, &picture, target);
        for (before, after) in mean(picture.rgb()).into_iter().zip(mean(frame.rgb())) {
            prop_assert!((before - after).abs() <= 1.0, "{} {}", before, after);
        }
    }

    #[test]
    fn words_are_drawn_on_any_frame(
        frame_px in [1..=300_usize, 1..=300],
        words in ".{0,200}",
        is_round in any::<bool>(),
    ) {
        let glass = if is_round { Glass::Round } else { Glass::Rectangular };
        let mut frame = Frame::new(frame_px[0], frame_px[1]);
        Card { headline: &words, sentence: &words, page: Some(&words) }.draw(glass, &mut frame);
        caption::draw(&[&words, "step 1/2"], glass, &mut frame);
        progress_line::draw(0.3, glass, &mut frame);
        test_card::draw(glass, &mut frame);
    }
}
