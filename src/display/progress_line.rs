//! A thin line that says how far a painting is.

use std::f64::consts::TAU;

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;

use super::caption::darken;
use super::frame::Frame;
use super::glass::Glass;

/// The part that is done.
const DONE: [u8; 3] = [240, 240, 240];

/// How thick the line is on a frame of this size; the frame's last rows.
pub fn thickness_px(frame: Size) -> u32 {
    let shorter = frame.width.min(frame.height);
    (shorter / 160).max(if shorter < 100 { 1 } else { 2 })
}

/// Draws the line for a `progress` of 0 to 1: along the bottom from the left, or, on round glass,
/// along the rim from the top clockwise. What is still to do is darkened.
pub fn draw(progress: f64, glass: Glass, frame: &mut Frame) {
    let progress = progress.clamp(0.0, 1.0);
    match glass {
        Glass::Rectangular => along_the_bottom(progress, frame),
        Glass::Round => along_the_rim(progress, frame),
    }
}

fn along_the_bottom(progress: f64, frame: &mut Frame) {
    let size = frame.size();
    let thickness = thickness_px(size).min(size.height);
    let corner = Point::new(0, (size.height - thickness) as i32);
    let line = Rectangle::new(corner, Size::new(size.width, thickness));
    darken(frame, line);
    let done = (progress * f64::from(size.width)).round() as u32;
    let done = Rectangle::new(corner, Size::new(done, thickness));
    let [r, g, b] = DONE;
    let Ok(()) = frame.fill_solid(&done, Rgb888::new(r, g, b));
}

fn along_the_rim(progress: f64, frame: &mut Frame) {
    let [width, height] = frame.size_px();
    let thickness = f64::from(thickness_px(frame.size()));
    let inner = 1.0 - 2.0 * thickness / width.min(height) as f64;
    let side = |at: usize, length: usize| (2 * at + 1) as f64 / length as f64 - 1.0;
    for y in 0..height {
        let down = side(y, height);
        for x in 0..width {
            let across = side(x, width);
            let distance = across * across + down * down;
            if distance > 1.0 || distance < inner * inner.abs() {
                continue;
            }
            let turned = across.atan2(-down) / TAU;
            let turned = if turned < 0.0 { turned + 1.0 } else { turned };
            let pixel = &mut frame.rgb_mut()[3 * (y * width + x)..][..3];
            if turned < progress {
                pixel.copy_from_slice(&DONE);
            } else {
                pixel.iter_mut().for_each(|value| *value /= 4);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(progress: f64, glass: Glass) -> Frame {
        let mut frame = Frame::new(240, 240);
        frame.rgb_mut().fill(100);
        draw(progress, glass, &mut frame);
        frame
    }

    fn count(frame: &Frame, pixel: [u8; 3]) -> usize {
        frame.rgb().chunks(3).filter(|&rgb| rgb == pixel).count()
    }

    #[test]
    fn the_line_is_as_long_as_the_painting_is_far() {
        for (progress, done) in [(-1.0, 0), (0.0, 0), (0.25, 60), (1.0, 240), (7.0, 240)] {
            let frame = drawn(progress, Glass::Rectangular);
            assert_eq!(count(&frame, DONE), 2 * done, "{progress}");
            assert_eq!(count(&frame, [25; 3]), 2 * (240 - done), "{progress}");
        }
        let frame = drawn(0.5, Glass::Rectangular);
        assert_eq!(frame.pixel(119, 238), DONE);
        assert_eq!(
            [frame.pixel(120, 239), frame.pixel(0, 237)],
            [[25; 3], [100; 3]]
        );
    }

    #[test]
    fn on_round_glass_it_runs_clockwise_along_the_rim() {
        let frame = drawn(0.25, Glass::Round);
        assert_eq!(frame.pixel(121, 1), DONE);
        assert_eq!(frame.pixel(238, 118), DONE);
        assert_eq!(frame.pixel(238, 122), [25; 3]);
        assert_eq!(frame.pixel(118, 1), [25; 3]);
        assert_eq!(frame.pixel(120, 120), [100; 3]);
        assert_eq!(frame.pixel(0, 0), [100; 3]);
        let rim = count(&frame, DONE) + count(&frame, [25; 3]);
        assert!((1400..1600).contains(&rim), "{rim}");
    }

    #[test]
    fn no_frame_is_too_small() {
        for (width, height) in [(1, 1), (1, 9), (9, 1), (3, 3)] {
            for glass in [Glass::Rectangular, Glass::Round] {
                draw(0.5, glass, &mut Frame::new(width, height));
            }
        }
    }
}
