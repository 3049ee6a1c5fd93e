//! The shape of the glass in front of a panel's pixels.

use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;

/// Which pixels of a frame can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Glass {
    /// All.
    #[default]
    Rectangular,
    /// Those in the ellipse that touches all four sides, as on a round watch.
    Round,
}

spelled!(Glass, "glass", Rectangular = "rectangular", Round = "round");

impl Glass {
    /// Whether the middle of a pixel of the frame can be seen.
    pub fn sees(self, frame: Size, pixel: Point) -> bool {
        if !Rectangle::new(Point::zero(), frame).contains(pixel) {
            return false;
        }
        let [width, height] = [frame.width, frame.height].map(i128::from);
        let across = (2 * i128::from(pixel.x) + 1 - width) * height;
        let down = (2 * i128::from(pixel.y) + 1 - height) * width;
        match self {
            Self::Rectangular => true,
            Self::Round => across.pow(2) + down.pow(2) <= (width * height).pow(2),
        }
    }

    /// A centred rectangle that can be seen whole, `margin_px` within the glass where the frame is
    /// large enough; never empty.
    pub fn safe_area(self, frame: Size, margin_px: u32) -> Rectangle {
        let side = |length: u32| {
            let seen = match self {
                Self::Rectangular => length,
                // The square in a circle has 0.707 of its diameter.
                Self::Round => (length * 7 / 10).max(1),
            };
            seen.saturating_sub(2 * margin_px).max(seen.min(1))
        };
        let size = Size::new(side(frame.width), side(frame.height));
        let spare = frame - size;
        let corner = Point::new(spare.width as i32 / 2, spare.height as i32 / 2);
        Rectangle::new(corner, size)
    }

    /// The widest centred row that can be seen from row `top` to row `bottom`, both included: its
    /// first column and its width, which may be 0.
    pub fn row(self, frame: Size, top: u32, bottom: u32) -> (u32, u32) {
        if self == Self::Rectangular {
            return (0, frame.width);
        }
        // The ends of the rows are counted from the middle, in half pixels.
        let from_middle = |y: u32| (2.0 * f64::from(y) + 1.0 - f64::from(frame.height)).abs() + 1.0;
        let reach = from_middle(top).max(from_middle(bottom)) / f64::from(frame.height);
        let part = (1.0 - reach * reach).max(0.0).sqrt();
        let left = ((1.0 - part) * f64::from(frame.width) / 2.0).ceil() as u32;
        (left, frame.width.saturating_sub(2 * left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safe_area_is_seen_on_round_glass() {
        for size in [Size::new(240, 240), Size::new(96, 64), Size::new(480, 480)] {
            let area = Glass::Round.safe_area(size, 2);
            assert!(area.size.width > size.width / 2, "{area:?}");
            for corner in [area.top_left, area.bottom_right().unwrap()] {
                assert!(Glass::Round.sees(size, corner), "{corner} of {size}");
            }
        }
        let all = Glass::Rectangular.safe_area(Size::new(9, 5), 0);
        assert_eq!(all, Rectangle::new(Point::zero(), Size::new(9, 5)));
    }

    #[test]
    fn round_glass_hides_the_corners_and_touches_the_sides() {
        for frame in [Size::new(240, 240), Size::new(241, 101)] {
            let (right, bottom) = (frame.width as i32 - 1, frame.height as i32 - 1);
            let seen = |x, y| Glass::Round.sees(frame, Point::new(x, y));
            for (x, y) in [
                (0, bottom / 2),
                (right, bottom / 2),
                (right / 2, 0),
                (right / 2, bottom),
            ] {
                assert!(seen(x, y), "{x} {y} of {frame}");
            }
            for (x, y) in [
                (0, 0),
                (right, 0),
                (0, bottom),
                (right, bottom),
                (-1, 50),
                (50, 9999),
            ] {
                assert!(!seen(x, y), "{x} {y} of {frame}");
            }
            assert!(Glass::Rectangular.sees(frame, Point::zero()));
        }
    }

    #[test]
    fn no_frame_is_too_small_for_a_safe_area() {
        for (width, height) in [(1, 1), (1, 9), (2, 3)] {
            for glass in [Glass::Rectangular, Glass::Round] {
                let area = glass.safe_area(Size::new(width, height), 20);
                assert!(!area.is_zero_sized(), "{area:?}");
            }
        }
    }

    #[test]
    fn a_row_on_round_glass_ends_where_the_glass_does() {
        let frame = Size::new(240, 240);
        assert_eq!(Glass::Rectangular.row(frame, 230, 239), (0, 240));
        for (top, bottom) in [(0, 9), (100, 139), (200, 219)] {
            let (left, width) = Glass::Round.row(frame, top, bottom);
            for y in [top, bottom] {
                for x in [left, left + width - 1] {
                    assert!(
                        Glass::Round.sees(frame, Point::new(x as i32, y as i32)),
                        "{x} {y}"
                    );
                }
            }
        }
        let (left, width) = Glass::Round.row(frame, 119, 120);
        assert!(left == 0 || left == 1, "{left}, {width}");
    }
}
