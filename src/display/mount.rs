//! The mount: how a picture lies on a frame, and what lies around it.
//!
//! A picture is small and square, a frame is neither. A [`Mount`] computes its tables at the first
//! picture of a size and uses them for all that follow, so that every step of a painting can be
//! mounted.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::frame::Frame;
use super::glass::Glass;
use super::scale::{Scaler, Scaling, Span};
use crate::error::Error;
use crate::picture::Picture;

/// What a panel file or the owner says in `[mount]`; what neither says is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Facts {
    /// How large the picture is; "contain" by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// What lies around it; black by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
    /// How it is enlarged; "auto" by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaler: Option<Scaler>,
    /// The shape of the panel's glass; "rectangular" by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glass: Option<Glass>,
}

impl Facts {
    /// These, and what they leave open from `others`.
    pub fn or(self, others: Self) -> Self {
        Self {
            fit: self.fit.or(others.fit),
            background: self.background.or(others.background),
            scaler: self.scaler.or(others.scaler),
            glass: self.glass.or(others.glass),
        }
    }
}

/// How large a picture lies on a frame; always in its middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fit {
    /// As large as it can be seen whole.
    #[default]
    Contain,
    /// As small as it fills the frame; what sticks out is cut off.
    Cover,
    /// The largest whole multiple that can be seen whole; a picture larger than the frame, the
    /// largest of its half, third, …, of which less than one pixel's worth is cut off.
    Integer,
    /// Filling the frame, out of shape.
    Stretch,
}

spelled!(
    Fit,
    "fit",
    Contain = "contain",
    Cover = "cover",
    Integer = "integer",
    Stretch = "stretch"
);

/// What is seen beside a picture that does not fill the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Background {
    /// One colour, in text "#rrggbb".
    Colour([u8; 3]),
    /// The picture itself, filling the frame, very soft and dark.
    Blurred,
}

impl Default for Background {
    fn default() -> Self {
        Self::Colour([0, 0, 0])
    }
}

impl fmt::Display for Background {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Colour([r, g, b]) => f.pad(&format!("#{r:02x}{g:02x}{b:02x}")),
            Self::Blurred => f.pad("blurred"),
        }
    }
}

impl FromStr for Background {
    type Err = Error;

    fn from_str(text: &str) -> crate::error::Result<Self> {
        let colour = || {
            let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
            // `from_str_radix` would take a sign.
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            let [_, r, g, b] = u32::from_str_radix(digits, 16).ok()?.to_be_bytes();
            Some(Self::Colour([r, g, b]))
        };
        let blurred = (text == "blurred").then_some(Self::Blurred);
        blurred.or_else(colour).ok_or_else(|| {
            Error::unexpected(
                "background",
                "a colour such as \"#101018\", or \"blurred\"",
                format!("{text:?}"),
            )
        })
    }
}

serde_as_text!(Background);

/// Where a picture lies on a frame, and which part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The columns of the frame that the picture takes; never empty.
    pub columns: Range<usize>,
    /// The rows of the frame that it takes; never empty.
    pub rows: Range<usize>,
    /// The part of the picture that is seen: its left and upper edge, in its own pixels.
    pub from: [f64; 2],
    /// The width and height of that part, in the picture's pixels.
    pub part: [f64; 2],
}

impl Fit {
    /// Where a picture of this size lies on a frame of that size.
    ///
    /// # Panics
    ///
    /// When a side is zero.
    pub fn place(self, picture_px: [usize; 2], frame_px: [usize; 2]) -> Place {
        assert!(
            !picture_px.contains(&0) && !frame_px.contains(&0),
            "{picture_px:?} on {frame_px:?}"
        );
        let factor = |axis: usize| frame_px[axis] as f64 / picture_px[axis] as f64;
        let each = |of: &dyn Fn(usize) -> f64| [of(0), of(1)];
        let (taken, part) = match self {
            Self::Stretch => (frame_px, each(&|axis| picture_px[axis] as f64)),
            Self::Contain => {
                let factor = factor(0).min(factor(1));
                let taken = [0, 1].map(|axis| {
                    let exact = picture_px[axis] as f64 * factor;
                    (exact.round() as usize).clamp(1, frame_px[axis])
                });
                (taken, each(&|axis| picture_px[axis] as f64))
            }
            Self::Cover => {
                let factor = factor(0).max(factor(1));
                let part = |axis| (frame_px[axis] as f64 / factor).min(picture_px[axis] as f64);
                (frame_px, each(&part))
            }
            Self::Integer => whole_multiple(picture_px, frame_px),
        };
        let middle = |axis: usize| (frame_px[axis] - taken[axis]) / 2;
        let from = |axis: usize| {
            let spare = (picture_px[axis] as f64 - part[axis]) / 2.0;
            // Whole pixels stay whole.
            if self == Self::Integer {
                spare.floor()
            } else {
                spare
            }
        };
        Place {
            columns: middle(0)..middle(0) + taken[0],
            rows: middle(1)..middle(1) + taken[1],
            from: each(&from),
            part,
        }
    }
}

/// The pixels that a whole multiple or a whole fraction takes, and of which part of the picture.
fn whole_multiple(picture_px: [usize; 2], frame_px: [usize; 2]) -> ([usize; 2], [f64; 2]) {
    let times = (frame_px[0] / picture_px[0]).min(frame_px[1] / picture_px[1]);
    if times > 0 {
        let taken = picture_px.map(|side| side * times);
        return (taken, picture_px.map(|side| side as f64));
    }
    let parts = picture_px[0]
        .div_ceil(frame_px[0])
        .max(picture_px[1].div_ceil(frame_px[1]));
    let taken = picture_px.map(|side| (side / parts).max(1));
    let part = [0, 1].map(|axis| (taken[axis] * parts).min(picture_px[axis]) as f64);
    (taken, part)
}

/// Lays pictures on frames.
///
/// # Example
///
/// ```
/// use driftglass::display::{Frame, mount};
/// use driftglass::picture::Picture;
///
/// let facts: mount::Facts = toml::from_str("background = '#101018'")?;
/// let mut frame = Frame::new(320, 240);
/// mount::Mount::new(facts).draw(&Picture::filled(32, 32, [200, 0, 0]), &mut frame);
/// assert_eq!(frame.pixel(39, 0), [0x10, 0x10, 0x18]);
/// assert_eq!(frame.pixel(40, 0), [200, 0, 0]);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug)]
pub struct Mount {
    fit: Fit,
    background: Background,
    scaler: Scaler,
    glass: Glass,
    tables: Option<Tables>,
}

impl Mount {
    /// A mount; what the facts leave open is the default.
    pub fn new(facts: Facts) -> Self {
        Self {
            fit: facts.fit.unwrap_or_default(),
            background: facts.background.unwrap_or_default(),
            scaler: facts.scaler.unwrap_or_default(),
            glass: facts.glass.unwrap_or_default(),
            tables: None,
        }
    }

    /// The glass, for those who draw over the picture.
    pub fn glass(&self) -> Glass {
        self.glass
    }

    /// Fills the frame with the picture and what lies around it.
    pub fn draw(&mut self, picture: &Picture, frame: &mut Frame) {
        let sizes = [[picture.width_px(), picture.height_px()], frame.size_px()];
        if self
            .tables
            .as_ref()
            .is_none_or(|tables| tables.sizes != sizes)
        {
            self.tables = Some(self.tables(sizes));
        }
        let tables = self.tables.as_mut().expect("made above");
        let corner = [tables.place.columns.start, tables.place.rows.start];
        match self.background {
            Background::Colour(colour) => {
                for bar in &tables.bars {
                    fill(frame, bar, colour);
                }
            }
            Background::Blurred => {
                if let Some(haze) = &mut tables.haze {
                    haze.draw(picture, frame, &tables.bars);
                }
            }
        }
        tables.scaling.draw(picture, frame, corner);
    }

    fn tables(&self, sizes: [[usize; 2]; 2]) -> Tables {
        let [picture_px, frame_px] = sizes;
        let place = self.fit.place(picture_px, frame_px);
        let scaler = match (self.scaler, self.fit) {
            (Scaler::Auto, Fit::Integer) if place.columns.len() >= picture_px[0] => Scaler::Nearest,
            (scaler, _) => scaler,
        };
        let [columns, rows] = spans(&place, picture_px);
        let bars = bars(&place, frame_px);
        let is_hazy = self.background == Background::Blurred && !bars.is_empty();
        Tables {
            sizes,
            scaling: Scaling::new(scaler, &columns, &rows),
            haze: is_hazy.then(|| Haze::new(picture_px, frame_px, &bars)),
            bars,
            place,
        }
    }
}

/// What is computed once for a size of picture and a size of frame.
#[derive(Debug)]
struct Tables {
    sizes: [[usize; 2]; 2],
    place: Place,
    scaling: Scaling,
    bars: Vec<Bar>,
    haze: Option<Haze>,
}

/// A rectangle of the frame beside the picture: its columns and rows.
type Bar = [Range<usize>; 2];

/// What the picture leaves free: above, below, left and right of it.
fn bars(place: &Place, [width, height]: [usize; 2]) -> Vec<Bar> {
    let all = [
        [0..width, 0..place.rows.start],
        [0..width, place.rows.end..height],
        [0..place.columns.start, place.rows.clone()],
        [place.columns.end..width, place.rows.clone()],
    ];
    let is_there = |bar: &Bar| bar.iter().all(|side| !side.is_empty());
    all.into_iter().filter(is_there).collect()
}

fn fill(frame: &mut Frame, [columns, rows]: &Bar, colour: [u8; 3]) {
    let pitch = 3 * frame.width_px();
    for row in rows.clone() {
        let row = &mut frame.rgb_mut()[pitch * row..][3 * columns.start..3 * columns.end];
        for pixel in row.chunks_exact_mut(3) {
            pixel.copy_from_slice(&colour);
        }
    }
}

/// The columns' span and the rows' of a picture at its place.
fn spans(place: &Place, picture_px: [usize; 2]) -> [Span; 2] {
    let taken = [place.columns.len(), place.rows.len()];
    [0, 1].map(|axis| {
        Span::part(
            picture_px[axis],
            place.from[axis],
            place.part[axis],
            taken[axis],
        )
    })
}

/// The blurred background: the picture averaged to a few pixels, darkened, and softly enlarged.
#[derive(Debug)]
struct Haze {
    few: Frame,
    shrink: Scaling,
    enlarge: Vec<Scaling>,
}

impl Haze {
    /// The few pixels along the longer side.
    const SIDE_PX: usize = 8;
    /// What is left of the light, in 1/256.
    const LIGHT: u16 = 110;

    fn new(picture_px: [usize; 2], frame_px: [usize; 2], bars: &[Bar]) -> Self {
        let longer = frame_px[0].max(frame_px[1]);
        let few_px = frame_px.map(|side| (side * Self::SIDE_PX).div_ceil(longer));
        // Of the picture's own aspect it would be out of shape; what is cut off is not missed.
        let [columns, rows] = spans(&Fit::Cover.place(picture_px, few_px), picture_px);
        let enlarge = |[columns, rows]: &Bar| {
            let wide = Span::whole(few_px[0], frame_px[0]).windowed(columns.clone());
            let high = Span::whole(few_px[1], frame_px[1]).windowed(rows.clone());
            Scaling::soft(&wide, &high)
        };
        Self {
            few: Frame::new(few_px[0], few_px[1]),
            shrink: Scaling::area(&columns, &rows),
            enlarge: bars.iter().map(enlarge).collect(),
        }
    }

    fn draw(&mut self, picture: &Picture, frame: &mut Frame, bars: &[Bar]) {
        self.shrink.draw(picture, &mut self.few, [0, 0]);
        for value in self.few.rgb_mut() {
            *value = ((u16::from(*value) * Self::LIGHT) >> 8) as u8;
        }
        let few = Picture::from(&self.few);
        for (scaling, [columns, rows]) in self.enlarge.iter_mut().zip(bars) {
            scaling.draw(&few, frame, [columns.start, rows.start]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_lies_where_the_fit_says() {
        let cases = [
            (
                Fit::Contain,
                [32, 32],
                [320, 240],
                [40..280, 0..240],
                [32.0, 32.0],
            ),
            (
                Fit::Contain,
                [64, 32],
                [240, 240],
                [0..240, 60..180],
                [64.0, 32.0],
            ),
            (
                Fit::Cover,
                [32, 32],
                [320, 240],
                [0..320, 0..240],
                [32.0, 24.0],
            ),
            (
                Fit::Integer,
                [64, 64],
                [240, 240],
                [24..216, 24..216],
                [64.0, 64.0],
            ),
            (
                Fit::Integer,
                [100, 100],
                [128, 64],
                [39..89, 7..57],
                [100.0, 100.0],
            ),
            (
                Fit::Integer,
                [101, 100],
                [128, 64],
                [39..89, 7..57],
                [100.0, 100.0],
            ),
            (
                Fit::Stretch,
                [32, 32],
                [320, 240],
                [0..320, 0..240],
                [32.0, 32.0],
            ),
        ];
        for (fit, picture, frame, [columns, rows], part) in cases {
            let place = fit.place(picture, frame);
            assert_eq!(
                [place.columns, place.rows],
                [columns, rows],
                "{fit} {picture:?}"
            );
            assert_eq!(place.part, part, "{fit} {picture:?}");
        }
        assert_eq!(Fit::Cover.place([32, 32], [320, 240]).from, [0.0, 4.0]);
    }

    #[test]
    fn facts_are_strict_and_the_owner_comes_first() {
        let owner: Facts = toml::from_str("fit = 'cover'").unwrap();
        let panel: Facts =
            toml::from_str("fit = 'integer'\nbackground = 'blurred'\nglass = 'round'").unwrap();
        let both = owner.or(panel);
        assert_eq!(both.fit, Some(Fit::Cover));
        assert_eq!(both.background, Some(Background::Blurred));
        assert_eq!((both.glass, both.scaler), (Some(Glass::Round), None));
        let written = toml::to_string(&both).unwrap();
        assert_eq!(toml::from_str::<Facts>(&written).unwrap(), both);
        for wrong in [
            "fill = 'cover'",
            "fit = 'fill'",
            "background = '#10101'",
            "scaler = 'box'",
        ] {
            assert!(toml::from_str::<Facts>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_background_is_a_colour_or_the_picture() {
        let parse = |text: &str| text.parse::<Background>();
        assert_eq!(parse("#1020aF").unwrap(), Background::Colour([16, 32, 175]));
        assert_eq!(parse("#1020aF").unwrap().to_string(), "#1020af");
        assert_eq!(parse("blurred").unwrap(), Background::Blurred);
        for wrong in [
            "", "#", "101018", "#+10101", "#1010188", "#10101g", "#é1018",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tables_follow_the_sizes() {
        let mut mount = Mount::new(Facts::default());
        for (picture, frame) in [
            ((4, 4), (8, 8)),
            ((2, 4), (8, 8)),
            ((2, 4), (5, 9)),
            ((4, 4), (8, 8)),
        ] {
            let picture = Picture::filled(picture.0, picture.1, [1, 2, 3]);
            let mut drawn = Frame::new(frame.0, frame.1);
            mount.draw(&picture, &mut drawn);
            let mut expected = Frame::new(frame.0, frame.1);
            Mount::new(Facts::default()).draw(&picture, &mut expected);
            assert_eq!(drawn, expected);
        }
    }

    #[test]
    fn a_blurred_background_is_the_picture_darker() {
        let facts = Facts {
            background: Some(Background::Blurred),
            ..Facts::default()
        };
        let mut frame = Frame::new(300, 100);
        Mount::new(facts).draw(&Picture::filled(32, 32, [200, 100, 50]), &mut frame);
        assert_eq!(frame.pixel(150, 50), [200, 100, 50]);
        for x in [0, 99, 200, 299] {
            let [r, g, b] = frame.pixel(x, 50);
            assert!(
                (80..90).contains(&r) && (40..45).contains(&g) && b < 25,
                "{r} {g} {b}"
            );
        }
    }
}
