//! Every e-paper panel: the real driver into a simulated controller.

use std::time::Duration;

use driftglass::display::dither::{Dither, Look, Quantizer};
use driftglass::display::epaper::{Controller, Epaper, Facts, Wire};
use driftglass::display::palette::Palette;
use driftglass::display::{
    Damage, Display, Frame, Glass, Mirror, Pace, Power, Rotation, test_card,
};
use driftglass::picture::Picture;
use serde::Deserialize;

use crate::fixtures::{data, picture};
use crate::golden;
use crate::simulator::colour_epaper::Colours;
use crate::simulator::epaper::{Bench, Busy, Panel, Role};
use crate::simulator::uc8179::Uc8179;

#[derive(Deserialize)]
struct File {
    kind: String,
    epaper: Option<Facts>,
}

/// The facts of every e-paper panel, by the name of its file.
fn panels() -> Vec<(String, Facts)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/boards/panels");
    let mut panels = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file: File = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        if file.kind == "epaper" {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            panels.push((name, file.epaper.unwrap()));
        }
    }
    panels.sort_by(|a, b| a.0.cmp(&b.0));
    panels
}

fn facts(name: &str) -> Facts {
    let mut panels = panels().into_iter();
    panels.find(|(found, _)| found == name).unwrap().1
}

/// For what does not depend on the tones: an unoptimised build takes its time over millions.
fn undithered(mut facts: Facts) -> Facts {
    facts.dither = Dither::None;
    facts
}

fn simulated(controller: Controller) -> (Box<dyn Panel>, usize) {
    match controller {
        Controller::Uc8179 | Controller::Uc8179Grey | Controller::Uc8179Red => {
            (Box::new(Uc8179::new()), 1)
        }
        Controller::Gdey073d46 | Controller::Ac073tc1a => (Box::new(Colours::acep()), 1),
        Controller::Gdep073e01 | Controller::E673 => (Box::new(Colours::spectra()), 1),
        Controller::El133uf1 => (Box::new(Colours::el133uf1()), 2),
    }
}

fn wired(facts: &Facts) -> (Bench, Epaper) {
    let (panel, chips) = simulated(facts.controller);
    let bench = Bench::new(panel, chips, facts.select_gpios.len(), false);
    let wire = Wire {
        selects: (0..facts.select_gpios.len())
            .map(|chip| bench.line(Role::Select(chip)))
            .collect(),
        dc: bench.line(Role::Dc),
        reset: bench.line(Role::Reset),
        power: facts.power_gpio.map(|_| bench.line(Role::Power)),
        busy: bench.line(Role::Busy),
        spi: bench.clone(),
        delay: bench.clone(),
    };
    let epaper = Epaper::new(facts, wire).unwrap();
    (bench, epaper)
}

/// A picture with no symmetry: a ramp, a letter in one corner, three other corners of their own.
fn pattern(size_px: [usize; 2], shift: usize) -> Frame {
    let [width, height] = size_px;
    let mut frame = Frame::new(width, height);
    for y in 0..height {
        for x in 0..width {
            let letter = ["####", "#", "###", "#", "#"];
            let (column, row) = (x.wrapping_sub(20) / 16, y.wrapping_sub(20) / 16);
            let inked = letter.get(row).is_some_and(|line| column < line.len());
            let rgb = match (inked, x < 40, x >= width - 40, y < 40, y >= height - 40) {
                (true, ..) => [0, 0, 0],
                (_, true, _, true, _) => [255, 255, 255],
                (_, _, true, true, _) => [230, 20, 20],
                (_, true, _, _, true) => [20, 150, 40],
                (_, _, true, _, true) => [20, 40, 200],
                _ => [
                    (x * 255 / width) as u8,
                    ((y + shift) % height * 255 / height) as u8,
                    ((x + y) * 200 / (width + height)) as u8,
                ],
            };
            frame.rgb_mut()[3 * (y * width + x)..][..3].copy_from_slice(&rgb);
        }
    }
    frame
}

/// What a viewer sees of the glass: native rows turned back, then the mirror undone.
fn seen(glass: &[u8], facts: &Facts) -> Vec<u8> {
    let native = facts.width_px;
    let [width, height] = match facts.rotation_deg {
        Rotation::Deg0 | Rotation::Deg180 => [facts.width_px, facts.height_px],
        Rotation::Deg90 | Rotation::Deg270 => [facts.height_px, facts.width_px],
    };
    let at = |column: usize, row: usize| {
        let column = match facts.mirror {
            Mirror::No => column,
            Mirror::LeftRight => width - 1 - column,
        };
        let [x, y] = match facts.rotation_deg {
            Rotation::Deg0 => [column, row],
            Rotation::Deg90 => [height - 1 - row, column],
            Rotation::Deg180 => [width - 1 - column, height - 1 - row],
            Rotation::Deg270 => [row, width - 1 - column],
        };
        glass[y * native + x]
    };
    let rows = (0..height).flat_map(|row| (0..width).map(move |column| (column, row)));
    rows.map(|(column, row)| at(column, row)).collect()
}

fn assert_shows(bench: &Bench, epaper: &Epaper, facts: &Facts, frame: &Frame, name: &str) {
    let inks = facts.palette.inks();
    let expected: Vec<u8> = epaper
        .preview(frame)
        .iter()
        .map(|ink| inks[usize::from(*ink)].index)
        .collect();
    bench.with(|state| {
        assert_eq!(state.complaints, [""; 0], "{name}");
        assert!(state.panel.sleeps(), "{name} is awake");
        let wrong = seen(&state.panel.glass(), facts)
            .iter()
            .zip(&expected)
            .filter(|(seen, expected)| seen != expected)
            .count();
        assert_eq!(wrong, 0, "wrong pixels on {name}");
    });
}

#[test]
fn every_panel_shows_the_test_card_as_hung_and_sleeps() {
    let panels = panels();
    assert_eq!(panels.len(), 8);
    for (name, mut facts) in panels {
        let hung = facts.rotation_deg;
        for rotation in [hung, Rotation::Deg270] {
            facts.rotation_deg = rotation;
            if rotation != hung {
                facts.mirror = Mirror::LeftRight;
            }
            let (bench, mut epaper) = wired(&facts);
            let [width, height] = epaper.info().size_px;
            let mut frame = Frame::new(width, height);
            test_card::draw(Glass::Rectangular, &mut frame);
            epaper.show(&frame, Damage::Changed).unwrap();
            assert_shows(&bench, &epaper, &facts, &frame, &name);
            epaper.power(Power::Off).unwrap();
            let bytes = bench.with(|state| state.bytes);
            epaper.show(&frame, Damage::Changed).unwrap();
            assert_eq!(bench.with(|state| state.bytes), bytes, "{name}: sent again");
        }
    }
}

/// Ramps of grey, pure, pale and dark hues, skin, and a sky.
fn chart() -> Frame {
    let hue = |x: usize, low: f64, high: f64| {
        let turn = x as f64 / 239.0 * 6.0;
        [0.0, 4.0, 2.0].map(|offset: f64| {
            let part = ((turn + offset) % 6.0 - 3.0).abs() - 1.0;
            (low + (high - low) * part.clamp(0.0, 1.0)) as u8
        })
    };
    let between = |x: usize, from: [f64; 3], to: [f64; 3]| {
        let part = x as f64 / 239.0;
        [0, 1, 2].map(|c| (from[c] + (to[c] - from[c]) * part) as u8)
    };
    let mut frame = Frame::new(240, 150);
    for (at, pixel) in frame.rgb_mut().as_chunks_mut().0.iter_mut().enumerate() {
        let (x, y) = (at % 240, at / 240);
        *pixel = match y / 25 {
            0 => between(x, [0.0; 3], [255.0; 3]),
            1 => hue(x, 0.0, 255.0),
            2 => hue(x, 140.0, 230.0),
            3 => hue(x, 40.0, 100.0),
            4 => between(x, [230.0, 180.0, 150.0], [170.0, 120.0, 80.0]),
            _ => between(x, [0.0, 120.0, 255.0], [255.0, 220.0, 155.0]),
        };
    }
    frame
}

/// What the glass looks like in these inks.
fn seen_in_inks(palette: &Palette, look: Look, frame: &Frame) -> Picture {
    let inks = Quantizer::new(palette, look).quantize(frame);
    let colours = inks
        .iter()
        .flat_map(|ink| palette.inks()[usize::from(*ink)].rgb);
    let [width, height] = frame.size_px();
    Picture::new(width, height, colours.collect())
}

#[test]
fn every_palette_and_every_dither_looks_as_when_it_was_looked_at() {
    let samples = Frame::from(&picture(&data("four-scenes.png")));
    for name in Palette::NAMES {
        let palette = Palette::named(name).unwrap();
        let picture = seen_in_inks(&palette, Look::default(), &chart());
        golden::assert(&format!("epaper-{name}"), &picture);
    }
    let spectra = Palette::named("spectra-6").unwrap();
    for name in Dither::NAMES {
        let look = Look {
            dither: name.parse().unwrap(),
            saturation: 1.2,
            ..Look::default()
        };
        let picture = seen_in_inks(&spectra, look, &samples);
        golden::assert(&format!("epaper-samples-{name}"), &picture);
    }
}

/// Bytes of a refresh, its longest message, and how many messages that makes.
#[test]
fn a_refresh_is_its_planes_and_a_few_settings() {
    for (name, settings, planes, plane_bytes) in [
        ("inky-impression-13in3", 92, 2, 480_000),
        ("inky-impression-7in3", 74, 1, 192_000),
        ("inky-impression-7in3-spectra", 64, 1, 192_000),
        ("waveshare-7in3e", 57, 1, 192_000),
        ("waveshare-7in3f", 74, 1, 192_000),
        ("waveshare-7in5-v2", 33, 2, 48_000),
        ("waveshare-7in5-v2-grey", 23, 2, 48_000),
        ("waveshare-7in5b", 31, 2, 48_000),
    ] {
        let (bench, mut epaper) = wired(&facts(name));
        let frame = pattern(epaper.info().size_px, 0);
        epaper.show(&frame, Damage::All).unwrap();
        bench.with(|state| {
            assert_eq!(state.bytes, settings + planes * plane_bytes, "{name}");
            assert_eq!(state.longest, 4096, "{name}");
            let pieces = planes * usize::div_ceil(plane_bytes, 4096);
            assert!(
                state.messages < pieces + 70,
                "{name}: {} messages",
                state.messages
            );
        });
    }
}

#[test]
fn the_pace_is_the_panels() {
    for (name, facts) in panels() {
        let (_, epaper) = wired(&facts);
        let least = Duration::from_secs(facts.refresh_s_min.into());
        let pace = match name.as_str() {
            "waveshare-7in5-v2" => Pace::Every(least),
            _ => Pace::Finished(least),
        };
        assert_eq!(epaper.info().pace, pace, "{name}");
    }
}

#[test]
fn a_fast_panel_refreshes_the_changed_window_and_now_and_then_all() {
    let facts = facts("waveshare-7in5-v2");
    let (bench, mut epaper) = wired(&facts);
    let mut frame = pattern([800, 480], 0);
    epaper.show(&frame, Damage::Changed).unwrap();
    let refreshes = 2 * facts.partial_refreshes_max as usize + 3;
    for at in 1..refreshes {
        // A square of 20 by 10 pixels, which touches 4 bytes of each of its rows.
        let ink = if at % 2 == 0 { 0 } else { 255 };
        for y in 100..110 {
            frame.rgb_mut()[3 * (y * 800 + 301)..][..60].fill(ink);
        }
        let before = bench.with(|state| state.log.len());
        epaper.show(&frame, Damage::Changed).unwrap();
        assert_shows(&bench, &epaper, &facts, &frame, "partial");
        let log = bench.with(|state| state.log[before..].to_vec());
        let full = at % (facts.partial_refreshes_max as usize + 1) == 0;
        assert_eq!(log.contains(&(0x13, 48_000)), full, "refresh {at}: {log:?}");
        assert_eq!(log.contains(&(0x91, 0)), !full, "refresh {at}");
    }
    epaper.show(&frame, Damage::All).unwrap();
    let last = bench.with(|state| state.log.clone());
    assert!(
        last[last.len() - 12..].contains(&(0x13, 48_000)),
        "Damage::All is a full refresh"
    );
}

/// Every fault of the busy line is a sentence before its deadline, on the fake clock, and the
/// next picture is shown whole.
#[test]
fn a_busy_line_that_lies_is_a_sentence_and_no_hang() {
    for (name, facts) in panels() {
        let facts = undithered(facts);
        let gpio = facts.busy_gpio;
        let refresh_ms = match facts.controller {
            Controller::Uc8179 | Controller::Uc8179Grey => 500,
            Controller::Uc8179Red => 3000,
            _ => 5000,
        };
        for (fault, expected) in [
            (
                Busy::Never,
                "expected low while the panel refreshes, found high all along; a loose wire, \
                 another panel, or a wrong busy-level"
                    .to_owned(),
            ),
            (
                Busy::ForEver,
                format!(
                    "expected work to end within {} s, found the panel busy (low) all along",
                    facts.busy_s_max
                ),
            ),
            (
                Busy::Briefly,
                format!(
                    "expected a refresh of {refresh_ms} ms or more, found the panel idle after 10 ms"
                ),
            ),
            (
                Busy::Unreadable,
                "expected a line that can be read, found No such device (os error 19)".to_owned(),
            ),
        ] {
            let (bench, mut epaper) = wired(&facts);
            let frame = pattern(epaper.info().size_px, 0);
            bench.with(|state| state.busy = fault);
            let error = epaper
                .show(&frame, Damage::Changed)
                .unwrap_err()
                .to_string();
            let expected = format!("busy-gpio (GPIO {gpio}): {expected}");
            assert_eq!(error, expected, "{name} with {fault:?}");
            let waited = bench.with(|state| state.now);
            let most = Duration::from_secs(u64::from(facts.busy_s_max) + 15);
            assert!(waited < most, "{name} with {fault:?}: {waited:?}");
            bench.with(|state| {
                state.busy = Busy::Honest;
                state.complaints.clear();
            });
            epaper.show(&frame, Damage::Changed).unwrap();
            assert_shows(&bench, &epaper, &facts, &frame, &name);
        }
    }
}

#[test]
fn a_busy_line_that_flickers_is_waited_out() {
    for (name, facts) in panels() {
        let facts = undithered(facts);
        let (bench, mut epaper) = wired(&facts);
        let frame = pattern(epaper.info().size_px, 0);
        bench.with(|state| state.busy = Busy::Flickers);
        epaper.show(&frame, Damage::Changed).unwrap();
        bench.with(|state| state.busy = Busy::Honest);
        assert_shows(&bench, &epaper, &facts, &frame, &name);
    }
}

/// A refresh stuck after power on: the deadline that names the refresh.
#[test]
fn a_refresh_that_never_ends_is_named() {
    let mut facts = facts("waveshare-7in3e");
    facts.busy_s_max = 15;
    let (bench, mut epaper) = wired(&facts);
    let frame = pattern(epaper.info().size_px, 0);
    let error = epaper
        .show(&frame, Damage::Changed)
        .unwrap_err()
        .to_string();
    let expected = "expected the refresh to end within 15 s, found the panel busy (low) all along";
    assert_eq!(error, format!("busy-gpio (GPIO 24): {expected}"));
    assert!(bench.with(|state| state.now) < Duration::from_secs(17));
}

#[test]
fn a_bus_that_fails_anywhere_is_a_sentence_and_the_next_picture_comes_whole() {
    for (name, facts) in panels() {
        let facts = undithered(facts);
        let (bench, mut epaper) = wired(&facts);
        let size_px = epaper.info().size_px;
        for message in [0, 1, 20, 41] {
            let frame = pattern(size_px, 7 * message);
            bench.with(|state| state.fails_in = Some(message));
            let error = epaper
                .show(&frame, Damage::Changed)
                .unwrap_err()
                .to_string();
            let expected = "spi0 (chip-select 0): expected the panel's bytes to be written, found \
                            Connection timed out (os error 110)";
            assert_eq!(error, expected, "{name}");
            bench.with(|state| state.complaints.clear());
            epaper.show(&frame, Damage::Changed).unwrap();
            assert_shows(&bench, &epaper, &facts, &frame, &name);
        }
    }
}

#[test]
fn facts_that_cannot_be_true_are_refused() {
    type Change = fn(&mut Facts);
    let changes: [(&str, Change, &str); 6] = [
        (
            "waveshare-7in3e",
            |facts| facts.width_px = 640,
            "width-px: expected 800, what gdep073e01 drives, found 640",
        ),
        (
            "inky-impression-13in3",
            |facts| facts.select_gpios = vec![26],
            "select-gpios: expected a GPIO for each controller of el133uf1: 2, found 1",
        ),
        (
            "waveshare-7in3e",
            |facts| facts.palette = crate::epaper::facts("waveshare-7in3f").palette,
            "palette: expected an ink that gdep073e01 has: [0, 1, 2, 3, 5, 6], found red as 4",
        ),
        (
            "waveshare-7in5b",
            |facts| facts.partial_refreshes_max = 3,
            "partial-refreshes-max: expected 0, for uc8179-red refreshes in full, found 3",
        ),
        (
            "waveshare-7in5b",
            |facts| facts.contrast = f32::NAN,
            "contrast: expected -1 to 1, found NaN",
        ),
        (
            "waveshare-7in5b",
            |facts| facts.busy_s_max = 0,
            "busy-s-max: expected at least 1, found 0",
        ),
    ];
    for (name, change, expected) in changes {
        let mut facts = facts(name);
        change(&mut facts);
        assert_eq!(facts.check().unwrap_err().to_string(), expected);
    }
}
