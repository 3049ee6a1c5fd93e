//! The test card: what a panel does wrong is seen, and what to write in its file.
//!
//! From outside to inside: a border one pixel wide on the outermost pixels, a mark in each corner
//! with as many dots as its number, the four sides by name, eight named bars, a grey ramp in
//! sixteen steps, an arrow that points up and has its flag on the right, and the gamma patches:
//! lines of black and white beside the grey that is as bright on a panel of the gamma written in
//! it.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{
    PrimitiveStyle, PrimitiveStyleBuilder, Rectangle, StrokeAlignment, Triangle,
};

use super::frame::Frame;
use super::glass::Glass;
use super::lettering::Lettering;

/// The bars from left to right, each with its letter.
const BARS: [(&str, Rgb888); 8] = [
    ("R", Rgb888::RED),
    ("G", Rgb888::GREEN),
    ("B", Rgb888::BLUE),
    ("C", Rgb888::CYAN),
    ("M", Rgb888::MAGENTA),
    ("Y", Rgb888::YELLOW),
    ("W", Rgb888::WHITE),
    ("K", Rgb888::BLACK),
];

/// The gammas of the patches, as they are written.
const GAMMAS: [(&str, f64); 3] = [("1.8", 1.8), ("2.2", 2.2), ("2.6", 2.6)];

/// Neither black nor white, so that both are seen on it.
const GROUND: Rgb888 = Rgb888::new(40, 40, 48);

/// Fills the frame with the test card; from 96x64 on everything is on it.
pub fn draw(glass: Glass, frame: &mut Frame) {
    let size = frame.size();
    let all = frame.bounding_box();
    let Ok(()) = frame.fill_solid(&all, GROUND);
    let shorter = size.width.min(size.height);
    let lettering = Lettering::at_most((shorter / 16).max(6));
    let edge = Edge {
        glass,
        lettering,
        corner_px: (shorter / 10).max(7),
    };
    edge.draw(frame);
    let inside = edge.inside(size);
    let [bars, ramp, rest] = stacked(inside, [4, 2, 4]);
    draw_bars(bars, lettering, frame);
    draw_ramp(ramp, frame);
    let arrow_px = rest.size.width / 5;
    let arrow = Rectangle::new(rest.top_left, Size::new(arrow_px, rest.size.height));
    draw_arrow(arrow, frame);
    let corner = rest.top_left + Point::new(arrow_px as i32, 0);
    let patches = Rectangle::new(
        corner,
        Size::new(rest.size.width - arrow_px, rest.size.height),
    );
    draw_gamma(patches, lettering, frame);
    draw_border(glass, frame);
}

/// A symptom and its remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// What is seen on the card, or instead of it.
    pub symptom: &'static str,
    /// What to do; keys are those of the panel's file.
    pub remedy: &'static str,
}

/// What to do about what is seen, the most frequent first.
pub fn advice() -> &'static [Advice] {
    ADVICE
}

const fn when(symptom: &'static str, remedy: &'static str) -> Advice {
    Advice { symptom, remedy }
}

const ADVICE: &[Advice] = &[
    when(
        "red and blue are swapped: the bar R is blue, B is red",
        "set color-order = \"bgr\", or \"rgb\" where it is \"bgr\" already",
    ),
    when(
        "negative colours: W is black, K is white, R is cyan",
        "set invert = true, or false where it is true already",
    ),
    when(
        "the border is missing on one or two sides, or noise is seen along an edge",
        "set offset-px to the columns and rows by which the picture is shifted; width-px and height-px to the glass",
    ),
    when(
        "the border is cut on the right or below, with noise beside it",
        "set width-px and height-px to the panel's own size, before rotation-deg",
    ),
    when(
        "TOP is not at the top",
        "set rotation-deg to 0, 90, 180 or 270",
    ),
    when(
        "the letters are mirrored, the arrow's flag is on the left",
        "set mirror = \"left-right\"",
    ),
    when(
        "the picture is torn, sheared, or rows are repeated",
        "exchange width-px and height-px: they are those of the controller before rotation-deg",
    ),
    when(
        "noise, wrong dots or a picture that comes and goes",
        "lower spi-hz, to 16000000 first; use shorter wires",
    ),
    when(
        "nothing, with the backlight on",
        "compare controller, dc-gpio and reset-gpio with the maker's page; lower spi-hz",
    ),
    when(
        "nothing, with the backlight off",
        "compare the backlight's pin with the maker's page",
    ),
    when(
        "the colours are wrong in another way: grey ramp coloured, bars in false order",
        "compare controller with the maker's page",
    ),
    when(
        "the grey ramp is too bright or too dark in the middle",
        "step back until the lines are grey, and write the number of the patch that vanishes in them into [correction]: gamma = 1.8",
    ),
    when(
        "the white bar has a tint",
        "lower that channel in [correction]: gain = [1.0, 1.0, 0.9]",
    ),
    when(
        "the corners are missing on round glass",
        "set glass = \"round\" in [mount]",
    ),
];

/// What lies along the sides of the frame.
struct Edge {
    glass: Glass,
    lettering: Lettering,
    corner_px: u32,
}

impl Edge {
    /// What is left for the rest.
    fn inside(&self, size: Size) -> Rectangle {
        let (names, line_px) = self.names(size);
        let letter_px = self.lettering.letter_px().width;
        let widest = letter_px * names.iter().map(|name| name.len()).max().unwrap_or(0) as u32;
        let area = match self.glass {
            Glass::Rectangular => {
                let (across, down) = (
                    self.corner_px.max(widest + 3),
                    self.corner_px.max(line_px + 2),
                );
                let left = Size::new(
                    size.width.saturating_sub(2 * (across + 1)).max(1),
                    size.height.saturating_sub(2 * (down + 1)).max(1),
                );
                let corner = (size - left) / 2;
                Rectangle::new(Point::new(corner.width as i32, corner.height as i32), left)
            }
            Glass::Round => self.glass.safe_area(size, size.width.min(size.height) / 60),
        };
        area.intersection(&Rectangle::new(Point::zero(), size))
    }

    /// What is written at the top, at the bottom, on the left and on the right, and how high.
    fn names(&self, size: Size) -> ([&'static str; 4], u32) {
        let Size { width, height } = self.lettering.letter_px();
        let names = if size.width >= 30 * width && self.glass == Glass::Rectangular {
            ["TOP", "BOTTOM", "LEFT", "RIGHT"]
        } else {
            ["T", "B", "L", "R"]
        };
        (names, height)
    }

    fn draw(&self, frame: &mut Frame) {
        let size = frame.size();
        let ([top, bottom, left, right], line_px) = self.names(size);
        let letter_px = self.lettering.letter_px().width;
        let width = |name: &str| letter_px as i32 * name.len() as i32;
        let (across, down) = (size.width as i32, size.height as i32);
        // The border and a pixel beside it stay free; on round glass, the rim.
        let free = match self.glass {
            Glass::Rectangular => 2,
            Glass::Round => 3 + line_px as i32 / 4,
        };
        let middle = (down - line_px as i32) / 2;
        let places = [
            (top, Point::new((across - width(top)) / 2, free)),
            (
                bottom,
                Point::new((across - width(bottom)) / 2, down - free - line_px as i32),
            ),
            (left, Point::new(free, middle)),
            (right, Point::new(across - free - width(right), middle)),
        ];
        for (name, at) in places {
            self.lettering.draw(name, at, Rgb888::WHITE, frame);
        }
        self.draw_corners(frame);
    }

    /// One to four dots, clockwise from the top left, each corner on another colour.
    fn draw_corners(&self, frame: &mut Frame) {
        let Size { width, height } = frame.size();
        let side = self.corner_px as i32;
        let (right, bottom) = (width as i32 - side - 1, height as i32 - side - 1);
        let corners = [
            (Point::new(1, 1), Rgb888::RED),
            (Point::new(right, 1), Rgb888::GREEN),
            (Point::new(right, bottom), Rgb888::BLUE),
            (Point::new(1, bottom), Rgb888::YELLOW),
        ];
        for (number, (corner, colour)) in corners.into_iter().enumerate() {
            let square = Rectangle::new(corner, Size::new_equal(self.corner_px));
            let Ok(()) = frame.fill_solid(&square, colour);
            let ink = if colour == Rgb888::BLUE || colour == Rgb888::RED {
                Rgb888::WHITE
            } else {
                Rgb888::BLACK
            };
            // Two dots a row, each a quarter of the square.
            let dot = self.corner_px / 4;
            for place in 0..=number as i32 {
                let step = side / 2;
                let inset = (step - dot as i32) / 2 + 1;
                let at = corner + Point::new(place % 2 * step + inset, place / 2 * step + inset);
                let Ok(()) = frame.fill_solid(&Rectangle::new(at, Size::new_equal(dot)), ink);
            }
        }
    }
}

/// White on the outermost pixels, and, on round glass, on the outermost that are seen.
fn draw_border(glass: Glass, frame: &mut Frame) {
    let white = PrimitiveStyleBuilder::new()
        .stroke_color(Rgb888::WHITE)
        .stroke_width(1)
        .stroke_alignment(StrokeAlignment::Inside)
        .build();
    let all = frame.bounding_box();
    let Ok(()) = all.into_styled(white).draw(frame);
    if glass == Glass::Round {
        let size = all.size;
        let beside = [(1, 0), (-1, 0), (0, 1), (0, -1)].map(|(x, y)| Point::new(x, y));
        let is_rim = |&pixel: &Point| {
            glass.sees(size, pixel) && beside.iter().any(|&step| !glass.sees(size, pixel + step))
        };
        let rim = all
            .points()
            .filter(is_rim)
            .map(|at| Pixel(at, Rgb888::WHITE));
        let Ok(()) = frame.draw_iter(rim);
    }
}

/// Parts of an area from top to bottom, with a small gap between them.
fn stacked<const N: usize>(area: Rectangle, shares: [u32; N]) -> [Rectangle; N] {
    let gap = (area.size.height / 40).max(1);
    let sum: u32 = shares.iter().sum();
    let height = area.size.height.saturating_sub(gap * (N as u32 - 1));
    let mut before = 0;
    std::array::from_fn(|part| {
        let [from, to] = [before, before + shares[part]].map(|share| height * share / sum);
        before += shares[part];
        let corner = Point::new(0, (from + gap * part as u32) as i32);
        Rectangle::new(
            area.top_left + corner,
            Size::new(area.size.width, to - from),
        )
    })
}

/// Parts of an area from left to right.
fn beside(area: Rectangle, count: u32) -> impl Iterator<Item = Rectangle> {
    let width = area.size.width;
    (0..count).map(move |part| {
        let [from, to] = [part, part + 1].map(|part| width * part / count);
        let corner = area.top_left + Point::new(from as i32, 0);
        Rectangle::new(corner, Size::new(to - from, area.size.height))
    })
}

fn draw_bars(area: Rectangle, lettering: Lettering, frame: &mut Frame) {
    for ((name, colour), bar) in BARS.iter().zip(beside(area, BARS.len() as u32)) {
        let Ok(()) = frame.fill_solid(&bar, *colour);
        let is_dark = ["R", "B", "K"].contains(name);
        let ink = if is_dark {
            Rgb888::WHITE
        } else {
            Rgb888::BLACK
        };
        let letter = lettering.letter_px();
        if letter.width <= bar.size.width && letter.height <= bar.size.height {
            let spare = bar.size - letter;
            let corner = Point::new(spare.width as i32 / 2, spare.height as i32 / 2);
            lettering.draw(name, bar.top_left + corner, ink, frame);
        }
    }
}

fn draw_ramp(area: Rectangle, frame: &mut Frame) {
    for (step, part) in beside(area, 16).enumerate() {
        let grey = 17 * step as u8;
        let Ok(()) = frame.fill_solid(&part, Rgb888::new(grey, grey, grey));
    }
}

/// An arrow up, with a flag on its right.
fn draw_arrow(area: Rectangle, frame: &mut Frame) {
    let white = PrimitiveStyle::with_fill(Rgb888::WHITE);
    let side = area.size.width.min(area.size.height) as i32;
    let spare = area.size.width as i32 - side;
    let at = |across: i32, down: i32| {
        area.top_left
            + Point::new(
                spare / 2 + side * across / 12,
                area.size.height as i32 * down / 12,
            )
    };
    let head = Triangle::new(at(4, 0), at(0, 4), at(8, 4));
    let Ok(()) = head.into_styled(white).draw(frame);
    let shaft = Rectangle::with_corners(at(3, 4), at(5, 12) - Point::new(1, 1));
    let flag = Rectangle::with_corners(at(5, 6), at(10, 9) - Point::new(1, 1));
    for part in [shaft, flag] {
        let Ok(()) = part.into_styled(white).draw(frame);
    }
}

/// For each gamma, black and white lines with a grey field in their middle.
fn draw_gamma(area: Rectangle, lettering: Lettering, frame: &mut Frame) {
    for ((name, gamma), patch) in GAMMAS.iter().zip(beside(area, GAMMAS.len() as u32)) {
        let patch = Rectangle::new(patch.top_left, patch.size.saturating_sub(Size::new(1, 0)));
        for (row, y) in patch.rows().enumerate() {
            let ink = if row % 2 == 0 {
                Rgb888::WHITE
            } else {
                Rgb888::BLACK
            };
            let line = Rectangle::new(
                Point::new(patch.top_left.x, y),
                Size::new(patch.size.width, 1),
            );
            let Ok(()) = frame.fill_solid(&line, ink);
        }
        let grey = half_light(*gamma);
        let inset = (patch.size.height / 5).min(patch.size.width / 8);
        let field = patch.offset(-(inset as i32));
        let Ok(()) = frame.fill_solid(&field, Rgb888::new(grey, grey, grey));
        let letters = lettering.size(&[name]);
        if letters.width <= field.size.width && letters.height <= field.size.height {
            let spare = field.size - letters;
            let corner = Point::new(spare.width as i32 / 2, spare.height as i32 / 2);
            lettering.draw(name, field.top_left + corner, Rgb888::BLACK, frame);
        }
    }
}

/// The value that is half as bright as white on a panel of this gamma.
fn half_light(gamma: f64) -> u8 {
    (255.0 * 0.5_f64.powf(1.0 / gamma)).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [(usize, usize); 8] = [
        (96, 64),
        (64, 96),
        (128, 128),
        (160, 80),
        (240, 240),
        (250, 122),
        (800, 480),
        (1080, 1920),
    ];

    fn drawn(glass: Glass, (width, height): (usize, usize)) -> Frame {
        let mut frame = Frame::new(width, height);
        draw(glass, &mut frame);
        frame
    }

    #[test]
    fn the_outermost_pixels_are_the_border() {
        for (width, height) in SIZES {
            let frame = drawn(Glass::Rectangular, (width, height));
            let across = (0..width).flat_map(|x| [(x, 0), (x, height - 1)]);
            let down = (0..height).flat_map(|y| [(0, y), (width - 1, y)]);
            for (x, y) in across.chain(down) {
                assert_eq!(frame.pixel(x, y), [255; 3], "{x} {y} of {width}x{height}");
            }
            for (x, y) in [(width / 3, 1), (1, height / 3), (width - 2, height / 3)] {
                assert_ne!(frame.pixel(x, y), [255; 3], "{x} {y} of {width}x{height}");
            }
        }
    }

    /// Any turn, mirror image, swap of colours or inversion of the card is another card.
    #[test]
    fn no_symptom_looks_like_the_card_itself() {
        let frame = drawn(Glass::Rectangular, (128, 128));
        let side = 127;
        for turn in 1..8 {
            let turned = |x: usize, y: usize| {
                let (x, y) = if turn & 4 == 0 { (x, y) } else { (y, x) };
                let flipped = |at: usize, bit: usize| if turn & bit == 0 { at } else { side - at };
                frame.pixel(flipped(x, 1), flipped(y, 2))
            };
            let differ = (0..128 * 128).filter(|at| {
                let (x, y) = (at % 128, at / 128);
                frame.pixel(x, y) != turned(x, y)
            });
            assert!(differ.count() > 2000, "turn {turn}");
        }
        let pixels = frame.rgb().chunks(3);
        assert!(pixels.clone().filter(|rgb| rgb[0] != rgb[2]).count() > 2000);
        assert!(
            pixels
                .filter(|rgb| rgb.iter().any(|&v| v != 255 - v))
                .count()
                > 2000
        );
    }

    #[test]
    fn everything_is_on_it_from_96x64_on() {
        for size in SIZES {
            for glass in [Glass::Rectangular, Glass::Round] {
                let frame = drawn(glass, size);
                let count =
                    |colour: [u8; 3]| frame.rgb().chunks(3).filter(|&rgb| rgb == colour).count();
                for (name, colour) in BARS {
                    let colour = [colour.r(), colour.g(), colour.b()];
                    assert!(count(colour) >= 40, "{name} on {glass} {size:?}");
                }
                for step in 0..16 {
                    assert!(
                        count([17 * step; 3]) >= 8,
                        "step {step} on {glass} {size:?}"
                    );
                }
                for (name, gamma) in GAMMAS {
                    assert!(
                        count([half_light(gamma); 3]) >= 40,
                        "{name} on {glass} {size:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_patch_is_as_bright_as_its_lines() {
        for (name, gamma) in GAMMAS {
            let light = (f64::from(half_light(gamma)) / 255.0).powf(gamma);
            assert!((light - 0.5).abs() < 0.005, "{name}: {light}");
        }
    }

    #[test]
    fn no_frame_is_too_small() {
        for width in 1..50 {
            for height in 1..50 {
                drawn(Glass::Rectangular, (width, height));
                drawn(Glass::Round, (width, height));
            }
        }
    }

    #[test]
    fn every_remedy_is_a_sentence_that_does_something() {
        for Advice { symptom, remedy } in advice() {
            let verbs = ["set", "exchange", "lower", "compare", "step"];
            assert!(
                verbs.iter().any(|verb| remedy.starts_with(verb)),
                "{remedy}"
            );
            assert!(
                !symptom.ends_with('.') && !remedy.ends_with('.'),
                "{symptom}"
            );
        }
    }
}
