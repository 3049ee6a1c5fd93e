//! What a panel shows: plain RGB pixels that embedded-graphics draws into.

use std::convert::Infallible;
use std::fmt;

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;

use crate::picture::Picture;

/// A frame of 8-bit RGB pixels, row by row from the viewer's top left.
///
/// What is drawn outside is discarded.
///
/// # Example
///
/// ```
/// use driftglass::display::Frame;
/// use embedded_graphics::pixelcolor::Rgb888;
/// use embedded_graphics::prelude::*;
/// use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
///
/// let mut frame = Frame::new(4, 2);
/// let dot = Rectangle::new(Point::new(3, 1), Size::new(9, 9));
/// dot.into_styled(PrimitiveStyle::with_fill(Rgb888::RED)).draw(&mut frame)?;
/// assert_eq!(frame.pixel(3, 1), [255, 0, 0]);
/// assert_eq!(frame.pixel(2, 1), [0, 0, 0]);
/// # Ok::<(), std::convert::Infallible>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    width_px: usize,
    height_px: usize,
    rgb: Vec<u8>,
}

impl Frame {
    /// A black frame.
    ///
    /// # Panics
    ///
    /// When a side is zero.
    pub fn new(width_px: usize, height_px: usize) -> Self {
        assert!(
            width_px > 0 && height_px > 0,
            "no frame of {width_px}x{height_px}"
        );
        Self {
            width_px,
            height_px,
            rgb: vec![0; 3 * width_px * height_px],
        }
    }

    /// The width, at least 1.
    pub fn width_px(&self) -> usize {
        self.width_px
    }

    /// The height, at least 1.
    pub fn height_px(&self) -> usize {
        self.height_px
    }

    /// Width and height.
    pub fn size_px(&self) -> [usize; 2] {
        [self.width_px, self.height_px]
    }

    /// All bytes: R, G, B of the top left pixel first, row by row.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The same, to be written.
    pub fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// The bytes of row `y`.
    ///
    /// # Panics
    ///
    /// When the row lies outside.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.rgb[3 * self.width_px * y..][..3 * self.width_px]
    }

    /// The colour at column `x` and row `y`.
    ///
    /// # Panics
    ///
    /// When the pixel lies outside.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let pixel = &self.row(y)[3 * x..][..3];
        [pixel[0], pixel[1], pixel[2]]
    }
}

impl From<&Picture> for Frame {
    fn from(picture: &Picture) -> Self {
        Self {
            width_px: picture.width_px(),
            height_px: picture.height_px(),
            rgb: picture.rgb().to_vec(),
        }
    }
}

impl From<&Frame> for Picture {
    fn from(frame: &Frame) -> Self {
        Self::new(frame.width_px, frame.height_px, frame.rgb.clone())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Frame {}x{}", self.width_px, self.height_px)
    }
}

impl OriginDimensions for Frame {
    fn size(&self) -> Size {
        let side = |px: usize| u32::try_from(px).unwrap_or(u32::MAX);
        Size::new(side(self.width_px), side(self.height_px))
    }
}

impl DrawTarget for Frame {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        for Pixel(Point { x, y }, colour) in pixels {
            let place = (usize::try_from(x), usize::try_from(y));
            if let (Ok(x), Ok(y)) = place
                && x < self.width_px
                && y < self.height_px
            {
                self.rgb[3 * (y * self.width_px + x)..][..3].copy_from_slice(&bytes(colour));
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: Rgb888) -> Result<(), Infallible> {
        let area = area.intersection(&self.bounding_box());
        let (left, width) = (area.top_left.x as usize, area.size.width as usize);
        for y in area.rows() {
            let row = 3 * (y as usize * self.width_px + left);
            for pixel in self.rgb[row..row + 3 * width].chunks_exact_mut(3) {
                pixel.copy_from_slice(&bytes(colour));
            }
        }
        Ok(())
    }
}

fn bytes(colour: Rgb888) -> [u8; 3] {
    [colour.r(), colour.g(), colour.b()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_is_discarded() {
        let mut frame = Frame::new(3, 2);
        let everywhere = Rectangle::new(Point::new(-5, -5), Size::new(20, 20));
        frame.fill_solid(&everywhere, Rgb888::WHITE).unwrap();
        assert!(frame.rgb().iter().all(|&byte| byte == 255));
        let around = [(-1, 0), (3, 0), (0, 2), (0, -1), (i32::MAX, i32::MIN)];
        let pixels = around.map(|(x, y)| Pixel(Point::new(x, y), Rgb888::RED));
        frame.draw_iter(pixels).unwrap();
        assert!(frame.rgb().iter().all(|&byte| byte == 255));
        let beyond = Rectangle::new(Point::new(7, 7), Size::new(2, 2));
        frame.fill_solid(&beyond, Rgb888::RED).unwrap();
        assert!(frame.rgb().iter().all(|&byte| byte == 255));
    }

    #[test]
    fn a_picture_is_a_frame_and_back() {
        let picture = Picture::new(2, 1, vec![1, 2, 3, 4, 5, 6]);
        let frame = Frame::from(&picture);
        assert_eq!(
            (frame.pixel(0, 0), frame.pixel(1, 0)),
            ([1, 2, 3], [4, 5, 6])
        );
        assert_eq!(Picture::from(&frame), picture);
    }
}
