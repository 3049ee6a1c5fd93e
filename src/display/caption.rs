//! A caption below a picture: seed, model, step, or what the owner wants to read.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;

use super::frame::Frame;
use super::glass::Glass;
use super::lettering::{Lettering, wrapped};
use super::progress_line;

/// Draws `parts`, such as `["seed 42", "scenes-32", "step 7/50"]`, on a darkened band at the
/// bottom, above where [`progress_line::draw`] draws.
///
/// Parts stand on one line as long as they fit. The band takes at most a third of the frame; what
/// does not fit there even in the smallest letters is left out.
pub fn draw(parts: &[&str], glass: Glass, frame: &mut Frame) {
    let Some((lettering, lines, band)) = layout(parts, glass, frame.size()) else {
        return;
    };
    darken(frame, band);
    let text = Rectangle::new(band.top_left + Point::new(0, PADDING_PX as i32), band.size);
    lettering.draw_centred(&lines, text, Rgb888::new(240, 240, 240), frame);
}

/// Between the letters and the band's edge.
const PADDING_PX: u32 = 1;

/// Darkens an area to a quarter of its values: white letters on it have a contrast of at least 7.
pub(super) fn darken(frame: &mut Frame, area: Rectangle) {
    let area = area.intersection(&frame.bounding_box());
    let pitch = 3 * frame.width_px();
    let (left, width) = (3 * area.top_left.x as usize, 3 * area.size.width as usize);
    for row in area.rows() {
        for value in &mut frame.rgb_mut()[pitch * row as usize + left..][..width] {
            *value /= 4;
        }
    }
}

/// The letters, the lines and the band they lie on.
fn layout(
    parts: &[&str],
    glass: Glass,
    frame: Size,
) -> Option<(Lettering, Vec<String>, Rectangle)> {
    let shorter = frame.width.min(frame.height);
    let foot = match glass {
        Glass::Rectangular => progress_line::thickness_px(frame),
        // Lower down, a row of a round glass has no room for letters.
        Glass::Round => frame.height / 8,
    };
    let bottom = frame.height.checked_sub(foot + 1)?;
    let mut lettering = Lettering::at_most((shorter / 26).max((shorter / 12).min(10)));
    loop {
        let line_px = lettering.letter_px().height;
        let lines_max = (frame.height / 3).saturating_sub(2 * PADDING_PX) / line_px;
        let fits = |count: u32| {
            let height = count * line_px + 2 * PADDING_PX;
            let top = (bottom + 1).checked_sub(height)?;
            let (left, width) = glass.row(frame, top, bottom);
            let columns = lettering.columns(width.saturating_sub(2 * PADDING_PX));
            let lines = (columns > 0).then(|| joined(parts, columns))?;
            let corner = Point::new(left as i32, top as i32);
            let band = Rectangle::new(corner, Size::new(width, height));
            (lines.len() as u32 <= count).then_some((lines, band))
        };
        if let Some((lines, band)) = (1..=lines_max).find_map(fits) {
            return (!lines.is_empty()).then_some((lettering, lines, band));
        }
        let Some(smaller) = lettering.smaller() else {
            // Less is better than nothing: the last part goes.
            let (_, fewer) = parts.split_last()?;
            return layout(fewer, glass, frame);
        };
        lettering = smaller;
    }
}

/// The parts in lines of at most `columns` letters, several in a line where they fit.
fn joined(parts: &[&str], columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        let mut part = wrapped(part, columns);
        if let ([only], Some(last)) = (&part[..], lines.last_mut()) {
            let length = last.chars().count() + 3 + only.chars().count();
            if length <= columns {
                *last = format!("{last} · {only}");
                continue;
            }
        }
        lines.append(&mut part);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [&str; 3] = ["seed 18446744073709551615", "scenes-32", "step 1000/1000"];

    #[test]
    fn parts_share_a_line_where_they_fit() {
        let one = ["seed 18446744073709551615 · scenes-32 · step 1000/1000"];
        assert_eq!(joined(&PARTS, 60), one);
        let two = ["seed 18446744073709551615", "scenes-32 · step 1000/1000"];
        assert_eq!(joined(&PARTS, 30), two);
        let broken = [
            "seed",
            "18446744073709551",
            "615 · scenes-32",
            "step 1000/1000",
        ];
        assert_eq!(joined(&PARTS, 17), broken);
    }

    #[test]
    fn all_is_said_on_every_frame_from_128x64_up() {
        for size in [
            (128, 64),
            (128, 128),
            (240, 240),
            (480, 320),
            (800, 480),
            (1920, 1080),
        ] {
            for glass in [Glass::Rectangular, Glass::Round] {
                let frame = Size::new(size.0, size.1);
                let (lettering, lines, band) = layout(&PARTS, glass, frame).unwrap();
                assert!(band.size.height <= frame.height / 3, "{size:?}");
                assert!(lettering.size(&lines).width <= band.size.width, "{size:?}");
                if glass == Glass::Rectangular {
                    let said = lines.concat().replace(" · ", "").replace(' ', "");
                    assert_eq!(said, PARTS.concat().replace(' ', ""), "{size:?}");
                }
            }
        }
    }

    #[test]
    fn letters_have_contrast_on_any_picture() {
        let light = |value: u8| (f64::from(value) / 255.0).powf(2.2);
        let mut frame = Frame::new(240, 240);
        frame.rgb_mut().fill(255);
        draw(&PARTS, Glass::Rectangular, &mut frame);
        let (_, _, band) = layout(&PARTS, Glass::Rectangular, frame.size()).unwrap();
        let mut values = Vec::new();
        for point in band.points() {
            values.extend(frame.pixel(point.x as usize, point.y as usize));
        }
        values.sort_unstable();
        values.dedup();
        let [dark, letters] = values[..] else {
            panic!("{values:?}")
        };
        let contrast = (light(letters) + 0.05) / (light(dark) + 0.05);
        assert!(contrast > 7.0, "{contrast}");
        assert_eq!(frame.pixel(120, band.top_left.y as usize - 1), [255; 3]);
    }

    #[test]
    fn no_frame_is_too_small() {
        for (width, height) in [(1, 1), (5, 5), (300, 2), (2, 300), (20, 20)] {
            for glass in [Glass::Rectangular, Glass::Round] {
                draw(&PARTS, glass, &mut Frame::new(width, height));
            }
        }
        let mut frame = Frame::new(64, 64);
        draw(&[], Glass::Rectangular, &mut frame);
        assert_eq!(frame, Frame::new(64, 64));
    }
}
