//! How a picture emerges from noise before the viewer's eyes.
//!
//! Whoever paints hands over two pictures at each step, the noisy one (x_t) and the one predicted
//! from it (x0), and how far the painting is; a [`Style`] says what is seen of them.

use std::borrow::Cow;

use super::bayer::BAYER;
use crate::picture::Picture;

/// What is shown while a picture is being painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Style {
    /// The predicted picture: soft at first, ever sharper.
    #[default]
    X0,
    /// The noisy picture itself.
    XT,
    /// The predicted picture pushes the noise aside, from left to right.
    Wipe,
    /// Nothing: what was shown before stays until the picture is finished.
    None,
}

spelled!(
    Style,
    "progress style",
    X0 = "x0",
    XT = "x-t",
    Wipe = "wipe",
    None = "none"
);

/// How wide the edge of a wipe is, in parts of the picture's width.
const EDGE: f64 = 0.3;

impl Style {
    /// The picture to show, or none when what is shown stays.
    ///
    /// `progress` is 0 where everything is noise and 1 where the picture is finished; a finished
    /// picture is `x0` in every style, also in [`Self::None`].
    ///
    /// # Panics
    ///
    /// When the two pictures differ in size.
    pub fn picture<'a>(
        self,
        x0: &'a Picture,
        x_t: &'a Picture,
        progress: f64,
    ) -> Option<Cow<'a, Picture>> {
        match self {
            _ if progress >= 1.0 => Some(Cow::Borrowed(x0)),
            Self::X0 => Some(Cow::Borrowed(x0)),
            Self::XT => Some(Cow::Borrowed(x_t)),
            Self::Wipe => Some(Cow::Owned(wiped(x0, x_t, progress))),
            Self::None => None,
        }
    }
}

/// `x0` on the left of an edge and `x_t` on its right; in between, pixel by pixel one or the
/// other, in the order of a Bayer matrix, so that noise stays noise.
fn wiped(x0: &Picture, x_t: &Picture, progress: f64) -> Picture {
    let [width, height] = [x0.width_px(), x0.height_px()];
    assert_eq!(
        [width, height],
        [x_t.width_px(), x_t.height_px()],
        "two pictures of one painting"
    );
    let front = progress.max(0.0) * (1.0 + EDGE);
    let mut rgb = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let behind = (front - (x as f64 + 0.5) / width as f64) / EDGE;
            let painted = behind > (f64::from(BAYER[y % 8][x % 8]) + 0.5) / 64.0;
            rgb.extend(if painted { x0 } else { x_t }.pixel(x, y));
        }
    }
    Picture::new(width, height, rgb)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: [u8; 3] = [9, 9, 9];
    const PAINTED: [u8; 3] = [200, 100, 50];

    fn shown(style: Style, progress: f64) -> Option<Picture> {
        let x0 = Picture::filled(32, 32, PAINTED);
        let x_t = Picture::filled(32, 32, NOISE);
        style.picture(&x0, &x_t, progress).map(Cow::into_owned)
    }

    fn painted_px(picture: &Picture) -> usize {
        let pixels = picture.rgb().chunks(3);
        pixels.filter(|&pixel| pixel == PAINTED).count()
    }

    #[test]
    fn styles_show_one_the_other_or_nothing() {
        assert_eq!(
            shown(Style::X0, 0.2),
            Some(Picture::filled(32, 32, PAINTED))
        );
        assert_eq!(shown(Style::XT, 0.2), Some(Picture::filled(32, 32, NOISE)));
        assert_eq!(shown(Style::None, 0.2), None);
        for name in Style::NAMES {
            let finished = shown(name.parse().unwrap(), 1.0);
            assert_eq!(finished, Some(Picture::filled(32, 32, PAINTED)), "{name}");
        }
    }

    #[test]
    fn a_wipe_begins_as_noise_goes_forward_evenly_and_never_back() {
        let mut last = shown(Style::Wipe, 0.0).unwrap();
        assert_eq!(painted_px(&last), 0);
        for step in 1..=100 {
            let progress = f64::from(step) / 100.0;
            let now = shown(Style::Wipe, progress).unwrap();
            for (before, after) in last.rgb().chunks(3).zip(now.rgb().chunks(3)) {
                assert!(before != PAINTED || after == PAINTED, "back at {progress}");
            }
            let part = painted_px(&now) as f64 / 1024.0;
            assert!(
                (part - progress).abs() < EDGE / 2.0 + 0.01,
                "{part} at {progress}"
            );
            last = now;
        }
        assert_eq!(painted_px(&last), 1024);
    }
}
