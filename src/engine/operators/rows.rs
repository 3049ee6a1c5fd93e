//! Pixels in rows that are as long as possible.

use std::ops::Range;

use super::View;

/// Makes a picture one row, if its rows follow one another in every view. The views have the same
/// height and width.
pub fn merge_rows(views: &mut [&mut View]) {
    let follow = |view: &&mut View| {
        view.height == 1 || view.width == 1 || view.row_stride == view.width * view.pixel_stride
    };
    if views.iter().all(follow) {
        for view in views {
            if view.width == 1 {
                view.pixel_stride = view.row_stride;
            }
            (view.width, view.height) = (view.width * view.height, 1);
            view.row_stride = view.width * view.pixel_stride;
        }
    }
}

/// Makes all pictures one row, if they follow one another in every view, or each a row of one
/// picture, if that can be said.
pub fn merge_pictures(views: &mut [&mut View]) {
    merge_rows(views);
    if views.iter().all(|view| view.height == 1) {
        for view in views.iter_mut() {
            (view.batch, view.height, view.row_stride) = (1, view.batch, view.batch_stride);
        }
        merge_rows(views);
    }
}

/// `pixels`, indices into [`View::pixels`], cut where a row of `width` pixels ends.
#[inline(always)]
pub fn rows(width: usize, pixels: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut start = pixels.start;
    std::iter::from_fn(move || {
        let row = start..pixels.end.min((start / width + 1) * width);
        start = row.end;
        (!row.is_empty()).then_some(row)
    })
}
