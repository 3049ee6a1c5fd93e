//! Every SPI panel's file, through the real driver, into a simulated controller.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use driftglass::display::header::Active;
use driftglass::display::tft::lamp::Pin;
use driftglass::display::tft::{
    Backlight, ColorOrder, Controller, Depth, Dither, Facts, Lamp, Tft, Wire, colour,
};
use driftglass::display::{Damage, Display, Frame, Mirror, Power, Rotation, test_card};
use driftglass::picture::Picture;

use crate::golden;
use crate::simulator::mipi_dcs::{self, Glass, Kind};
use crate::simulator::wire::{Bench, Chip, Role};
use crate::simulator::{Seen, ssd1351};

/// What spidev takes unless somebody changed it.
const BUFSIZ: usize = 4096;

/// The glass of every panel in `boards/panels`, told by its maker's own driver: MADCTL, origin,
/// size, quarters that its program turns the picture before, inversion, round.
const MAKERS: &[(&str, Glass)] = &[
    (
        "adafruit-1-3-tft",
        maker(0xC0, [0, 80], [240, 240], 2, true),
    ),
    (
        "adafruit-mini-pitft-1-3",
        maker(0xC0, [0, 80], [240, 240], 2, true),
    ),
    // PIL turns counter-clockwise.
    (
        "adafruit-pitft-2-8",
        maker(0x48, [0, 0], [240, 320], 3, false),
    ),
    (
        "lcdwiki-3-5-ili9488",
        maker(0x28, [0, 0], [480, 320], 0, false),
    ),
    (
        "pimoroni-display-hat-mini",
        maker(0x70, [0, 0], [320, 240], 2, true),
    ),
    ("st7796s-3-5-ips", maker(0x48, [0, 0], [320, 480], 0, true)),
    (
        "waveshare-1-28-round-lcd",
        Glass {
            round: true,
            ..maker(0x08, [0, 0], [240, 240], 0, true)
        },
    ),
    (
        "waveshare-1-3-lcd-hat",
        maker(0x70, [0, 0], [240, 240], 0, true),
    ),
    (
        "waveshare-1-44-lcd-hat",
        maker(0x68, [1, 2], [128, 128], 0, false),
    ),
    ("waveshare-2-lcd", maker(0x70, [0, 0], [320, 240], 0, true)),
];

/// The OLED's glass: the maker's remap.
const OLED: (&str, u8) = ("waveshare-1-5-rgb-oled", 0x74);

const fn maker(
    madctl: u8,
    origin: [usize; 2],
    size_px: [usize; 2],
    turned_before: usize,
    inverted: bool,
) -> Glass {
    Glass {
        madctl,
        origin,
        size_px,
        turned_before,
        inverted,
        round: false,
    }
}

fn kind(controller: Controller) -> Kind {
    Kind {
        memory_px: controller.memory_px().map(usize::from),
        takes_565: !matches!(controller, Controller::Ili9486 | Controller::Ili9488),
    }
}

/// The facts of every TFT in `boards/panels`, by the file's name.
fn files() -> Vec<(String, Facts)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/panels");
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut table: toml::Table = text.parse().unwrap();
        if let Some(facts) = table.remove("tft") {
            let facts: Facts = facts.try_into().unwrap();
            facts.check(&path.display().to_string()).unwrap();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            files.push((stem.to_owned(), facts));
        }
    }
    files.sort_by(|one, other| one.0.cmp(&other.0));
    files
}

fn file(name: &str) -> Facts {
    let found = files().into_iter().find(|(file, _)| file == name);
    found.unwrap().1
}

/// A simulated panel and the real driver of `facts`.
fn connect<C: Chip>(facts: &Facts, chip: C, bytes_max: usize) -> (Bench<C>, Tft) {
    let bench = Bench::new(chip, bytes_max);
    let wire = Wire {
        spi: bench.clone(),
        dc: bench.line(Role::Dc),
        reset: facts.reset_gpio.map(|_| bench.line(Role::Reset)),
        delay: bench.clone(),
        message_bytes_max: bytes_max,
    };
    let lamp = Pin {
        pin: bench.line(Role::Backlight),
        active: Active::High,
    };
    let lamp: Option<Box<dyn Lamp>> = match facts.backlight {
        Some(_) => Some(Box::new(lamp)),
        None => None,
    };
    (bench, Tft::new(facts, wire, lamp).unwrap())
}

/// A panel of the MIPI DCS family.
fn connect_dcs(facts: &Facts) -> (Bench<mipi_dcs::Controller>, Tft) {
    let chip = mipi_dcs::Controller::new(kind(facts.controller));
    connect(facts, chip, BUFSIZ)
}

/// The test card.
fn test_card(facts: &Facts) -> Frame {
    let [width, height] = facts.size_px();
    let mut frame = Frame::new(width, height);
    test_card::draw(facts.glass(), &mut frame);
    frame
}

/// A card without any symmetry, however small: gradients of all three colours, two corners of
/// other colours, a border of one pixel.
fn card([width, height]: [usize; 2]) -> Frame {
    let mut frame = Frame::new(width, height);
    for (at, pixel) in frame.rgb_mut().chunks_exact_mut(3).enumerate() {
        let (x, y) = (at % width, at / width);
        let border = x == 0 || y == 0 || x == width - 1 || y == height - 1;
        let corner = (x < width / 6, y < height / 6, x >= width - width / 6);
        let colour = match (border, corner) {
            (true, _) => [255; 3],
            (_, (true, true, _)) => [255, 0, 0],
            (_, (_, true, true)) => [0, 255, 0],
            _ => [x * 255 / width, y * 255 / height, (x + 2 * y) % 256].map(|value| value as u8),
        };
        pixel.copy_from_slice(&colour);
    }
    frame
}

/// What a viewer is to see of `frame`: the wire's levels, upright.
fn expected(facts: &Facts, frame: &Frame) -> Seen {
    let mut wire = Vec::new();
    let depth = facts.depth();
    colour::convert(frame, depth, facts.dither, &mut wire);
    let level = |level: u16, most: u16| ((level * 255 + most / 2) / most) as u8;
    let [width, _] = frame.size_px();
    let seen = Seen::new(frame.size_px(), |x, y| {
        let bytes = &wire[(y * width + x) * depth.bytes()..][..depth.bytes()];
        let colour = match *bytes {
            [high, low] => {
                let packed = u16::from_be_bytes([high, low]);
                [
                    level(packed >> 11, 31),
                    level(packed >> 5 & 63, 63),
                    level(packed & 31, 31),
                ]
            }
            [r, g, b] => [r, g, b].map(|byte| level(u16::from(byte >> 2), 63)),
            _ => unreachable!("a pixel has two or three bytes"),
        };
        for (shown, wanted) in colour.iter().zip(frame.pixel(x, y)) {
            assert!(shown.abs_diff(wanted) <= 9, "{colour:?} at {x}, {y}");
        }
        colour
    });
    if facts.round { seen.round() } else { seen }
}

/// What a viewer sees of `frame` on `glass` that the driver takes for a panel of `facts`.
fn seen(facts: &Facts, glass: &Glass, frame: &Frame) -> Seen {
    let (bench, mut panel) = connect_dcs(facts);
    panel.show(frame, Damage::Changed).unwrap();
    bench.with(|state| {
        assert!(
            state.chip.complaints.is_empty(),
            "{:?}",
            state.chip.complaints
        );
        assert!(state.longest <= BUFSIZ && state.lit == facts.backlight.is_some());
        state.chip.seen(glass)
    })
}

/// How what is seen differs from what is to be seen.
fn difference(facts: &Facts, glass: &Glass) -> Option<String> {
    let frame = test_card(facts);
    seen(facts, glass, &frame).difference(&expected(facts, &frame))
}

/// What a viewer sees of `frame` on the OLED that the driver takes for a panel of `facts`.
fn seen_on_the_oled(facts: &Facts, frame: &Frame) -> Seen {
    let (bench, mut panel) = connect(facts, ssd1351::Controller::new(), BUFSIZ);
    panel.show(frame, Damage::Changed).unwrap();
    bench.with(|state| {
        assert_eq!(state.chip.complaints, [""; 0]);
        state.chip.seen(OLED.1)
    })
}

fn glass(name: &str) -> &'static Glass {
    let found = MAKERS.iter().find(|(panel, _)| *panel == name);
    &found
        .unwrap_or_else(|| panic!("{name}: what its maker's driver sends is not in MAKERS"))
        .1
}

#[test]
fn every_panels_card_is_upright_and_in_true_colours() {
    for (name, facts) in files() {
        let frame = test_card(&facts);
        let seen = if name == OLED.0 {
            seen_on_the_oled(&facts, &frame)
        } else {
            seen(&facts, glass(&name), &frame)
        };
        assert_eq!(seen.difference(&expected(&facts, &frame)), None, "{name}");
        let [width, height] = facts.size_px();
        let golden = format!("tft-{width}x{height}-{}-{}", facts.depth(), facts.glass());
        golden::assert(&golden, &Picture::from(&seen));
    }
}

#[test]
fn no_maker_is_left_without_a_panel() {
    let files: BTreeSet<String> = files().into_iter().map(|(name, _)| name).collect();
    let makers = MAKERS.iter().map(|(name, _)| *name).chain([OLED.0]);
    assert_eq!(files, makers.map(str::to_owned).collect());
}

#[test]
fn a_wrong_fact_is_seen() {
    let next = |rotation| match rotation {
        Rotation::Deg0 => Rotation::Deg90,
        Rotation::Deg90 => Rotation::Deg180,
        Rotation::Deg180 => Rotation::Deg270,
        Rotation::Deg270 => Rotation::Deg0,
    };
    for (name, facts) in files() {
        if facts.controller == Controller::Ssd1351 {
            continue;
        }
        let wrong = [
            Facts {
                invert: !facts.invert,
                ..facts.clone()
            },
            Facts {
                color_order: match facts.color_order {
                    ColorOrder::Rgb => ColorOrder::Bgr,
                    ColorOrder::Bgr => ColorOrder::Rgb,
                },
                ..facts.clone()
            },
            Facts {
                rotation_deg: next(facts.rotation_deg),
                ..facts.clone()
            },
            Facts {
                rotation_deg: next(next(facts.rotation_deg)),
                ..facts.clone()
            },
            Facts {
                rotation_deg: next(next(next(facts.rotation_deg))),
                ..facts.clone()
            },
            Facts {
                mirror: match facts.mirror {
                    Mirror::No => Mirror::LeftRight,
                    Mirror::LeftRight => Mirror::No,
                },
                ..facts.clone()
            },
        ];
        for facts in &wrong {
            assert!(
                difference(facts, glass(&name)).is_some(),
                "{name}: {facts:?}"
            );
        }
        // Where the glass fills the memory, another offset is refused.
        for offset in [[1, 0], [0, 1]] {
            let offset_px = [0, 1].map(|axis| facts.offset_px[axis] + offset[axis]);
            let facts = Facts {
                offset_px,
                ..facts.clone()
            };
            if facts.check("it").is_ok() {
                assert!(
                    difference(&facts, glass(&name)).is_some(),
                    "{name}: {offset_px:?}"
                );
            }
        }
    }
}

#[test]
fn a_wrong_strip_boundary_is_seen() {
    let facts = file("waveshare-1-3-lcd-hat");
    let glass = glass("waveshare-1-3-lcd-hat");
    let mut frame = card([240, 240]);
    for off_by in [0, 1] {
        let (bench, mut panel) = connect_dcs(&facts);
        panel.show(&frame, Damage::Changed).unwrap();
        frame.rgb_mut()[3 * 240 * 100..3 * 240 * 110].reverse();
        bench.with(|state| state.chip.rows_off_by = off_by);
        panel.show(&frame, Damage::Changed).unwrap();
        let seen = bench.with(|state| state.chip.seen(glass));
        let difference = seen.difference(&expected(&facts, &frame));
        assert_eq!(difference.is_none(), off_by == 0, "{difference:?}");
    }
}

/// Small facts of any controller, its glass somewhere inside its memory.
fn small(controller: Controller) -> Facts {
    let text = format!(
        "controller = '{controller}'\nwidth-px = 20\nheight-px = 28\noffset-px = [3, 5]\n\
         spi = 'spi0'\nspi-hz = 32_000_000\ndc-gpio = 25\nreset-gpio = 27\n\
         backlight = {{ through = 'gpio', gpio = 24 }}"
    );
    toml::from_str(&text).unwrap()
}

const DCS: [Controller; 7] = [
    Controller::St7789,
    Controller::Ili9341,
    Controller::Ili9486,
    Controller::Ili9488,
    Controller::Gc9a01,
    Controller::St7735s,
    Controller::St7796,
];

const ROTATIONS: [Rotation; 4] = [
    Rotation::Deg0,
    Rotation::Deg90,
    Rotation::Deg180,
    Rotation::Deg270,
];

#[test]
fn every_controller_turns_and_mirrors_as_the_others_do() {
    for controller in DCS {
        for rotation_deg in ROTATIONS {
            for mirror in [Mirror::No, Mirror::LeftRight] {
                for depth in controller.depths() {
                    let facts = Facts {
                        rotation_deg,
                        mirror,
                        depth: Some(*depth),
                        ..small(controller)
                    };
                    let (bench, mut panel) = connect_dcs(&facts);
                    let frame = card(facts.size_px());
                    panel.show(&frame, Damage::Changed).unwrap();
                    let wanted = expected(&facts, &frame);
                    for (x, y) in (0..28).flat_map(|y| (0..20).map(move |x| (x, y))) {
                        let [column, row] = facts.orientation().source([x, y], [20, 28]);
                        let wanted = wanted.pixels[row * wanted.width_px + column];
                        let found = bench.with(|state| state.chip.native([x + 3, y + 5]));
                        assert_eq!(Some(found), wanted, "{facts:?} at {x}, {y}");
                    }
                    bench.with(|state| assert_eq!(state.chip.complaints, [""; 0]));
                }
            }
        }
    }
}

#[test]
fn the_oled_turns_and_mirrors_as_the_others_do() {
    for rotation_deg in ROTATIONS {
        for mirror in [Mirror::No, Mirror::LeftRight] {
            let facts = Facts {
                rotation_deg,
                mirror,
                ..small(Controller::Ssd1351)
            };
            let frame = card(facts.size_px());
            let native = seen_on_the_oled(&facts, &frame);
            let wanted = expected(&facts, &frame);
            for (x, y) in (0..28).flat_map(|y| (0..20).map(move |x| (x, y))) {
                let [column, row] = facts.orientation().source([x, y], [20, 28]);
                let wanted = wanted.pixels[row * wanted.width_px + column];
                let found = native.pixels[(y + 5) * 128 + x + 3];
                assert_eq!(found, wanted, "{facts:?} at {x}, {y}");
            }
        }
    }
}

#[test]
fn a_wrong_fact_is_seen_on_the_oled() {
    let file = file(OLED.0);
    let frame = test_card(&file);
    let wrong = [
        Facts {
            invert: true,
            ..file.clone()
        },
        Facts {
            color_order: ColorOrder::Bgr,
            ..file.clone()
        },
        Facts {
            rotation_deg: Rotation::Deg90,
            ..file.clone()
        },
        Facts {
            rotation_deg: Rotation::Deg180,
            ..file.clone()
        },
        Facts {
            rotation_deg: Rotation::Deg270,
            ..file.clone()
        },
        Facts {
            mirror: Mirror::LeftRight,
            ..file.clone()
        },
    ];
    for facts in wrong {
        let seen = seen_on_the_oled(&facts, &frame);
        assert!(
            seen.difference(&expected(&file, &frame)).is_some(),
            "{facts:?}"
        );
    }
}

#[test]
fn a_frame_takes_few_messages_and_an_unchanged_one_none() {
    let facts = file("waveshare-1-3-lcd-hat");
    let (bench, mut panel) = connect_dcs(&facts);
    let mut frame = card([240, 240]);
    panel.show(&frame, Damage::Changed).unwrap();

    frame
        .rgb_mut()
        .iter_mut()
        .for_each(|byte| *byte = 255 - *byte);
    let all = bench.traffic(|| panel.show(&frame, Damage::Changed).unwrap());
    // A window is three commands and two times four bytes; the pixels are 28.125 times 4096 bytes.
    assert_eq!(all, (5 + 29, 11 + 2 * 240 * 240));
    assert!(all.0 <= 40);

    let same = bench.traffic(|| panel.show(&frame, Damage::Changed).unwrap());
    assert_eq!(same, (0, 0));

    frame.rgb_mut()[3 * (240 * 77 + 5)] ^= 0x80;
    let row = bench.traffic(|| panel.show(&frame, Damage::Changed).unwrap());
    assert_eq!(row, (5 + 1, 11 + 2 * 240));

    // Less than a level of the wire, where no threshold lies between.
    let (one, two) = (frame.clone(), &mut frame);
    two.rgb_mut()[0] ^= 1;
    assert_ne!(&one, two);
    let nothing = bench.traffic(|| panel.show(&frame, Damage::Changed).unwrap());
    assert_eq!(nothing, (0, 0));
}

#[test]
fn rows_far_apart_are_strips_and_rows_close_together_are_one() {
    let facts = file("waveshare-1-3-lcd-hat");
    let (bench, mut panel) = connect_dcs(&facts);
    let mut frame = card([240, 240]);
    panel.show(&frame, Damage::Changed).unwrap();
    for row in [10, 12, 200] {
        frame.rgb_mut()[3 * (240 * row + 9)] ^= 0x80;
    }
    let strips = bench.traffic(|| panel.show(&frame, Damage::Changed).unwrap());
    assert_eq!(strips, (2 * (5 + 1), 2 * 11 + (3 + 1) * 2 * 240));
}

#[test]
fn a_smaller_or_larger_bufsiz_is_held_to() {
    let facts = file("waveshare-1-3-lcd-hat");
    for (bufsiz, messages) in [(512, 225), (4096, 29), (65_535, 2)] {
        let chip = mipi_dcs::Controller::new(kind(facts.controller));
        let (bench, mut panel) = connect(&facts, chip, bufsiz);
        let mut frame = card([240, 240]);
        panel.show(&frame, Damage::Changed).unwrap();
        frame
            .rgb_mut()
            .iter_mut()
            .for_each(|byte| *byte = 255 - *byte);
        let all = bench.traffic(|| panel.show(&frame, Damage::Changed).unwrap());
        assert_eq!(all.0, 5 + messages, "{bufsiz}");
        assert!(bench.with(|state| state.longest) <= bufsiz);
    }
}

#[test]
fn whatever_message_fails_the_next_call_shows_all() {
    for controller in DCS.into_iter().chain([Controller::Ssd1351]) {
        let facts = small(controller);
        match controller {
            Controller::Ssd1351 => fails_anywhere(&facts, ssd1351::Controller::new(), |chip| {
                chip.seen(OLED.1).part([3, 5], [20, 28])
            }),
            _ => {
                let bgr = maker(0x00, [3, 5], [20, 28], 0, false);
                let chip = mipi_dcs::Controller::new(kind(controller));
                fails_anywhere(&facts, chip, |chip| chip.seen(&bgr));
            }
        }
    }
}

/// Lets each message of a start and of a change fail once.
fn fails_anywhere<C: Chip + Clone>(facts: &Facts, chip: C, seen: impl Fn(&C) -> Seen) {
    let first = card(facts.size_px());
    let mut second = first.clone();
    second.rgb_mut()[3 * 20 * 3..3 * 20 * 9].reverse();
    for fails_in in 0.. {
        let (bench, mut panel) = connect(facts, chip.clone(), BUFSIZ);
        bench.with(|state| state.fails_in = Some(fails_in));
        let mut failed = 0;
        for frame in [&first, &second] {
            if let Err(error) = panel.show(frame, Damage::Changed) {
                let sentence = error.to_string();
                assert!(
                    sentence.contains("20x28: expected its SPI bus to work"),
                    "{sentence}"
                );
                assert!(sentence.ends_with("timed out (os error 110)"), "{sentence}");
                failed += 1;
                panel.show(frame, Damage::Changed).unwrap();
            }
            let found = bench.with(|state| {
                assert!(state.lit);
                seen(&state.chip)
            });
            assert_eq!(
                found.difference(&expected(facts, frame)),
                None,
                "{fails_in}"
            );
        }
        if failed == 0 {
            assert!(fails_in > 20, "only {fails_in} messages");
            return;
        }
    }
}

#[test]
fn a_line_that_fails_is_a_sentence_too() {
    let facts = file("waveshare-1-3-lcd-hat");
    let (bench, mut panel) = connect_dcs(&facts);
    bench.with(|state| state.dc_fails = true);
    let frame = card([240, 240]);
    let error = panel.show(&frame, Damage::Changed).unwrap_err().to_string();
    assert!(
        error.starts_with("ST7789 240x240: expected its line DC to work"),
        "{error}"
    );
    assert!(
        !bench.with(|state| state.lit),
        "what the glass shows is noise"
    );
    bench.with(|state| state.dc_fails = false);
    panel.show(&frame, Damage::Changed).unwrap();
    assert!(bench.with(|state| state.lit));
}

#[test]
fn a_panel_that_was_unplugged_comes_back_with_everything() {
    for (name, glass) in MAKERS {
        let facts = file(name);
        let (bench, mut panel) = connect_dcs(&facts);
        let frame = card(facts.size_px());
        panel.show(&frame, Damage::Changed).unwrap();
        bench.with(|state| state.unplugged = true);
        let mut other = frame.clone();
        other.rgb_mut().reverse();
        // The wire goes one way: nobody can know.
        panel.show(&other, Damage::Changed).unwrap();
        bench.with(|state| {
            state.chip.power_on();
            state.unplugged = false;
        });
        panel.show(&other, Damage::All).unwrap();
        let seen = bench.with(|state| {
            assert_eq!(state.chip.complaints, [""; 0], "{name}");
            state.chip.seen(glass)
        });
        assert_eq!(seen.difference(&expected(&facts, &other)), None, "{name}");
    }
}

#[test]
fn a_panel_that_hangs_is_reset_by_its_line() {
    let name = "waveshare-1-3-lcd-hat";
    let (facts, glass) = (file(name), glass(name));
    let (bench, mut panel) = connect_dcs(&facts);
    let frame = card([240, 240]);
    panel.show(&frame, Damage::Changed).unwrap();
    bench.with(|state| state.chip.hung = true);
    let mut other = frame.clone();
    other.rgb_mut().reverse();
    panel.show(&other, Damage::All).unwrap();
    let seen = bench.with(|state| state.chip.seen(glass));
    assert_eq!(seen.difference(&expected(&facts, &other)), None);
}

#[test]
fn switched_off_it_is_dark_and_switched_on_it_shows_the_last_frame() {
    let name = "waveshare-1-3-lcd-hat";
    let (facts, glass) = (file(name), glass(name));
    let (bench, mut panel) = connect_dcs(&facts);
    let frame = card([240, 240]);
    panel.show(&frame, Damage::Changed).unwrap();
    panel.power(Power::Off).unwrap();
    bench.with(|state| assert!(!state.lit && state.chip.is_off()));

    let mut later = frame.clone();
    later.rgb_mut().reverse();
    let none = bench.traffic(|| panel.show(&later, Damage::Changed).unwrap());
    assert_eq!(none, (0, 0));
    // Its supply was cut overnight.
    bench.with(|state| state.chip.power_on());
    panel.power(Power::On).unwrap();
    bench.with(|state| {
        assert!(state.lit && state.chip.is_on());
        let seen = state.chip.seen(glass);
        assert_eq!(seen.difference(&expected(&facts, &later)), None);
    });
    let none = bench.traffic(|| panel.power(Power::On).unwrap());
    assert_eq!(none, (0, 0), "it is on");
    let none = bench.traffic(|| panel.show(&later, Damage::Changed).unwrap());
    assert_eq!(none, (0, 0));
}

#[test]
fn the_light_goes_off_though_the_bus_is_broken() {
    let (bench, mut panel) = connect_dcs(&file("waveshare-1-3-lcd-hat"));
    panel.show(&card([240, 240]), Damage::Changed).unwrap();
    bench.with(|state| state.fails_in = Some(0));
    assert!(panel.power(Power::Off).is_err());
    assert!(!bench.with(|state| state.lit));
    panel.power(Power::Off).unwrap();
    panel.power(Power::On).unwrap();
    assert!(bench.with(|state| state.lit && state.chip.is_on()));
}

#[test]
fn nothing_is_lit_before_there_is_a_picture() {
    let facts = file("waveshare-1-3-lcd-hat");
    let (bench, mut panel) = connect_dcs(&facts);
    let mut frame = card([240, 240]);
    for call in 1..4 {
        frame.rgb_mut()[3 * 240 * 50 + call] ^= 0x80;
        panel.show(&frame, Damage::Changed).unwrap();
        assert_eq!(bench.with(|state| state.times_lit), 1, "it stays lit");
    }
    // Set up anew, it goes dark for that time.
    panel.show(&frame, Damage::All).unwrap();
    assert_eq!(bench.with(|state| state.times_lit), 2);
}

#[test]
fn a_start_takes_less_than_a_second() {
    for controller in DCS {
        let facts = small(controller);
        let (bench, mut panel) = connect_dcs(&facts);
        panel.show(&card(facts.size_px()), Damage::Changed).unwrap();
        let waited = bench.with(|state| state.now);
        assert!(waited < Duration::from_secs(1), "{controller}: {waited:?}");
    }
}

#[test]
fn facts_that_contradict_each_other_are_sentences() {
    let facts = file("waveshare-1-3-lcd-hat");
    let wrong = |facts: Facts| facts.check("a.toml").unwrap_err().to_string();
    let landscape = wrong(Facts {
        width_px: 320,
        ..facts.clone()
    });
    assert!(
        landscape.contains("240x320, in the st7789's native orientation"),
        "{landscape}"
    );
    let outside = wrong(Facts {
        offset_px: [0, 81],
        ..facts.clone()
    });
    assert!(
        outside.starts_with("a.toml: tft.offset-px: expected at most [0, 80]"),
        "{outside}"
    );
    let depth = wrong(Facts {
        controller: Controller::Ili9488,
        depth: Some(Depth::Rgb565),
        ..facts.clone()
    });
    assert!(
        depth.ends_with("expected rgb666 for a ili9488 on SPI, found rgb565"),
        "{depth}"
    );
    let twice = wrong(Facts {
        dc_gpio: 27,
        ..facts.clone()
    });
    assert!(
        twice.contains("tft.reset-gpio: expected another line than dc-gpio's"),
        "{twice}"
    );
    let dim = Backlight::Pwm {
        gpio: 13,
        active: Active::High,
        brightness_percent: 0,
    };
    let dark = wrong(Facts {
        backlight: Some(dim),
        ..facts.clone()
    });
    assert!(
        dark.ends_with("brightness-percent: expected 1 to 100, found 0"),
        "{dark}"
    );
    let zero = wrong(Facts {
        spi_hz: 0,
        ..facts.clone()
    });
    assert!(zero.contains("tft.spi-hz"), "{zero}");
    let mode = wrong(Facts {
        spi_mode: 1,
        ..facts.clone()
    });
    assert!(
        mode.ends_with("tft.spi-mode: expected 0 or 3, found 1"),
        "{mode}"
    );
    let undithered = Facts {
        dither: Dither::None,
        ..facts
    };
    undithered.check("a.toml").unwrap();
}
