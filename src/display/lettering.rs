//! Lettering: embedded-graphics' own fonts in every size, and lines that fit.
//!
//! The fonts are the X11 ones of 6 to 20 pixels; larger ones are these, enlarged by a whole number.
//! They have the letters of Latin-1; other letters become the nearest of those, or "?".

use std::convert::Infallible;

use embedded_graphics::mono_font::iso_8859_1::{
    FONT_4X6, FONT_5X7, FONT_6X9, FONT_6X10, FONT_6X12, FONT_7X13, FONT_8X13, FONT_9X15, FONT_9X18,
    FONT_10X20,
};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::{Baseline, Text};

use super::frame::Frame;

/// A font in a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lettering {
    rung: usize,
}

/// All sizes, by the height of a line: a font and how often it is enlarged.
const LADDER: &[(&MonoFont<'static>, u32)] = &[
    (&FONT_4X6, 1),
    (&FONT_5X7, 1),
    (&FONT_6X9, 1),
    (&FONT_6X10, 1),
    (&FONT_6X12, 1),
    (&FONT_7X13, 1),
    (&FONT_8X13, 1),
    (&FONT_9X15, 1),
    (&FONT_9X18, 1),
    (&FONT_10X20, 1),
    (&FONT_7X13, 2),
    (&FONT_9X15, 2),
    (&FONT_9X18, 2),
    (&FONT_10X20, 2),
    (&FONT_9X15, 3),
    (&FONT_9X18, 3),
    (&FONT_10X20, 3),
    (&FONT_9X18, 4),
    (&FONT_10X20, 4),
    (&FONT_10X20, 5),
    (&FONT_10X20, 6),
    (&FONT_10X20, 8),
    (&FONT_10X20, 10),
];

impl Lettering {
    /// The smallest there is: 4x6 pixels a letter.
    pub const SMALLEST: Self = Self { rung: 0 };

    /// The largest whose lines are at most `height_px` high, or the smallest.
    pub fn at_most(height_px: u32) -> Self {
        let fits =
            |&(font, times): &(&MonoFont, u32)| font.character_size.height * times <= height_px;
        let rung = LADDER.iter().rposition(fits).unwrap_or(0);
        Self { rung }
    }

    /// The next smaller one.
    pub fn smaller(self) -> Option<Self> {
        let rung = self.rung.checked_sub(1)?;
        Some(Self { rung })
    }

    /// The width of every letter and the height of every line, space included.
    pub fn letter_px(self) -> Size {
        let (font, times) = LADDER[self.rung];
        font.character_size * times
    }

    /// How many letters fit in a line of this width.
    pub fn columns(self, width_px: u32) -> usize {
        (width_px / self.letter_px().width) as usize
    }

    /// The size of lines drawn one below the other.
    pub fn size<S: AsRef<str>>(self, lines: &[S]) -> Size {
        let columns = lines.iter().map(|line| line.as_ref().chars().count());
        let Size { width, height } = self.letter_px();
        Size::new(
            width * columns.max().unwrap_or(0) as u32,
            height * lines.len() as u32,
        )
    }

    /// Draws a line whose top left corner is `at`; of the background nothing is touched.
    pub fn draw(self, line: &str, at: Point, colour: Rgb888, frame: &mut Frame) {
        let (font, times) = LADDER[self.rung];
        let mut enlarged = Enlarged { frame, at, times };
        let style = MonoTextStyle::new(font, colour);
        let text = Text::with_baseline(line, Point::zero(), style, Baseline::Top);
        let Ok(_) = text.draw(&mut enlarged);
    }

    /// Draws lines one below the other, each in the middle of the area's width.
    pub fn draw_centred<S: AsRef<str>>(
        self,
        lines: &[S],
        area: Rectangle,
        colour: Rgb888,
        frame: &mut Frame,
    ) {
        let Size { width, height } = self.letter_px();
        for (row, line) in lines.iter().enumerate() {
            let line = line.as_ref();
            let spare = area.size.width as i32 - (width as usize * line.chars().count()) as i32;
            let corner = Point::new(spare / 2, (height as usize * row) as i32);
            self.draw(line, area.top_left + corner, colour, frame);
        }
    }
}

/// A frame on which every pixel is a square.
struct Enlarged<'a> {
    frame: &'a mut Frame,
    at: Point,
    times: u32,
}

impl OriginDimensions for Enlarged<'_> {
    fn size(&self) -> Size {
        self.frame.size()
    }
}

impl DrawTarget for Enlarged<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        let side = Size::new_equal(self.times);
        for Pixel(place, colour) in pixels {
            let corner = self.at + place * self.times as i32;
            self.frame
                .fill_solid(&Rectangle::new(corner, side), colour)?;
        }
        Ok(())
    }
}

/// The text in letters that the fonts have, on one line.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\u{2010}'..='\u{2015}' | '\u{2212}' => plain.push('-'),
            '\u{2018}' | '\u{2019}' => plain.push('\''),
            '\u{201c}'..='\u{201e}' => plain.push('"'),
            '\u{2026}' => plain.push_str("..."),
            letter if letter.is_control() => plain.push(' '),
            // What a font does not have, it draws as "?" itself; the width is the same.
            letter => plain.push(letter),
        }
    }
    plain
}

/// The words in lines of at most `columns` letters; longer words are broken, where they can be
/// after a sign.
///
/// # Panics
///
/// When `columns` is zero.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    assert!(columns > 0, "lines without a letter");
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in plain(text).split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let used = line.chars().count();
        if used > 0 && used + 1 + word.len() > columns {
            lines.push(std::mem::take(&mut line));
        }
        while word.len() > columns {
            let end_of = |signs: &str, from: usize| {
                let found = word[from..columns]
                    .iter()
                    .rposition(|sign| signs.contains(*sign));
                found.map(|sign| from + sign + 1)
            };
            let at = end_of("/", columns / 3).or_else(|| end_of("-_.,:;?&=", columns / 2));
            let at = at.unwrap_or(columns);
            lines.push(word.drain(..at).collect());
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_and_the_largest_that_fits_is_taken() {
        let heights: Vec<u32> = LADDER
            .iter()
            .map(|(font, times)| font.character_size.height * times)
            .collect();
        assert!(heights.is_sorted(), "{heights:?}");
        assert_eq!(Lettering::at_most(0), Lettering::SMALLEST);
        assert_eq!(Lettering::at_most(20).letter_px(), Size::new(10, 20));
        assert_eq!(Lettering::at_most(41).letter_px(), Size::new(20, 40));
        assert_eq!(Lettering::at_most(41).columns(99), 4);
        assert_eq!(Lettering::SMALLEST.smaller(), None);
    }

    #[test]
    fn words_are_wrapped_and_long_ones_broken() {
        let cases: &[(&str, usize, &[&str])] = &[
            ("", 5, &[]),
            ("one two three", 7, &["one two", "three"]),
            ("one  two\nthree", 100, &["one two three"]),
            ("incomprehensible", 7, &["incompr", "ehensib", "le"]),
            (
                "see http://frame.local/log",
                12,
                &["see", "http://", "frame.local/", "log"],
            ),
            ("a–b “c” … é", 20, &["a-b \"c\" ... é"]),
            ("ab", 1, &["a", "b"]),
        ];
        for (text, columns, lines) in cases {
            assert_eq!(wrapped(text, *columns), *lines, "{text:?}");
        }
    }

    #[test]
    fn an_enlarged_letter_is_the_letter_in_squares() {
        let mut small = Frame::new(20, 40);
        let mut large = small.clone();
        Lettering::at_most(20).draw("g", Point::zero(), Rgb888::WHITE, &mut small);
        Lettering::at_most(40).draw("g", Point::zero(), Rgb888::WHITE, &mut large);
        assert!(small.rgb().contains(&255));
        for y in 0..40 {
            for x in 0..20 {
                assert_eq!(large.pixel(x, y), small.pixel(x / 2, y / 2), "{x} {y}");
            }
        }
    }
}
