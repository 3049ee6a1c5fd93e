//! A picture in the middle of a window, enlarged or shrunk to it, black around it.

use std::borrow::Cow;

use super::Scaling;
use crate::picture::Picture;

/// Fills `pixels`, `window_px` large, each pixel `0x00RRGGBB`.
pub fn paint(picture: &Picture, scaling: Scaling, pixels: &mut [u32], window_px: [usize; 2]) {
    let [width, height] = window_px;
    let scaled = scaled(picture, scaling, window_px);
    let left = (width - scaled.width_px()) / 2;
    let top = (height - scaled.height_px()) / 2;
    pixels.fill(0);
    let source = scaled.rgb().chunks_exact(3 * scaled.width_px());
    for (row, source) in pixels.chunks_exact_mut(width).skip(top).zip(source) {
        for (pixel, rgb) in row[left..].iter_mut().zip(source.as_chunks::<3>().0) {
            *pixel = u32::from_be_bytes([0, rgb[0], rgb[1], rgb[2]]);
        }
    }
}

/// The picture at the size that it has in the window; never larger than the window.
fn scaled(
    picture: &Picture,
    scaling: Scaling,
    [most_width, most_height]: [usize; 2],
) -> Cow<'_, Picture> {
    let (width, height) = (picture.width_px(), picture.height_px());
    let factor = usize::min(most_width / width, most_height / height);
    match (scaling, factor) {
        (_, 1) if most_width == width || most_height == height => Cow::Borrowed(picture),
        (Scaling::Integer, 1..) => Cow::Owned(picture.enlarged(factor)),
        // A window too small for every pixel shows all of the picture nevertheless.
        _ if width * most_height > height * most_width => {
            let height = (height * most_width / width).max(1);
            Cow::Owned(picture.fitted(most_width, height))
        }
        _ => {
            let width = (width * most_height / height).max(1);
            Cow::Owned(picture.fitted(width, most_height))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(picture: &Picture, scaling: Scaling, [width, height]: [usize; 2]) -> Vec<u32> {
        let mut pixels = vec![0xff_ff_ff; width * height];
        paint(picture, scaling, &mut pixels, [width, height]);
        pixels
    }

    #[test]
    fn whole_numbers_make_squares_in_the_middle() {
        let picture = Picture::new(2, 1, vec![1, 2, 3, 4, 5, 6]);
        let (a, b) = (0x01_02_03, 0x04_05_06);
        let squares = painted(&picture, Scaling::Integer, [5, 4]);
        let black = [0; 5];
        let row = [a, a, b, b, 0];
        assert_eq!(squares, [black, row, row, black].concat());
        assert_eq!(painted(&picture, Scaling::Smooth, [2, 2]), [a, b, 0, 0]);
    }

    #[test]
    fn smooth_pictures_fill_the_window_one_way() {
        let rgb = (0..4 * 3).flat_map(|at| [20 * at as u8 + 1; 3]).collect();
        let picture = Picture::new(4, 3, rgb);
        for window_px in [[100, 90], [37, 11], [3, 50], [4, 3], [1, 1], [9, 7]] {
            for scaling in [Scaling::Smooth, Scaling::Integer] {
                let [width, height] = window_px;
                let pixels = painted(&picture, scaling, window_px);
                let is_lit = |column: usize, row: usize| pixels[row * width + column] != 0;
                let columns = (0..width)
                    .filter(|x| (0..height).any(|y| is_lit(*x, y)))
                    .count();
                let rows = (0..height)
                    .filter(|y| (0..width).any(|x| is_lit(x, *y)))
                    .count();
                let enlarged = scaling == Scaling::Integer && width >= 4 && height >= 3;
                if enlarged {
                    assert!(
                        columns % 4 == 0 && rows == columns / 4 * 3,
                        "{columns}x{rows}"
                    );
                    assert!(columns + 4 > width || rows + 3 > height);
                } else {
                    assert!(
                        columns == width || rows == height,
                        "{columns}x{rows} in {window_px:?}"
                    );
                }
            }
        }
    }
}
