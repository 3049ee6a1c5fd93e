//! A card in place of a picture: a headline, a sentence, a page as a QR code.
//!
//! Cards are black and white, so that they read the same on every panel, after every dither.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use qrcodegen::{QrCode, QrCodeEcc};

use super::frame::Frame;
use super::glass::Glass;
use super::lettering::{Lettering, wrapped};

/// What a card says.
///
/// # Example
///
/// ```
/// use driftglass::display::{Frame, Glass, card::Card};
///
/// let mut frame = Frame::new(240, 240);
/// let card = Card {
///     headline: "No model",
///     sentence: "models/leaf/model.toml: expected a manifest, found nothing",
///     page: Some("http://frame.local:8080/"),
/// };
/// card.draw(Glass::Rectangular, &mut frame);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card<'a> {
    /// A few words.
    pub headline: &'a str,
    /// What happened and what to do, as one reads it.
    pub sentence: &'a str,
    /// The address of a page, to be read by a telephone.
    pub page: Option<&'a str>,
}

/// The quiet zone on each side of a QR code, in modules (ISO/IEC 18004, 5.3.8).
const QUIET: u32 = 4;
/// The smallest module that telephones still read.
const MODULE_PX_MIN: u32 = 2;

impl Card<'_> {
    /// Fills the frame with the card.
    ///
    /// The letters are as large as they fit. Where there is no room for the QR code with modules
    /// of two pixels, the address is written out, or, where there is none for that either, left
    /// out; a sentence that is too long for the smallest letters ends in "...".
    pub fn draw(&self, glass: Glass, frame: &mut Frame) {
        let all = frame.bounding_box();
        let Ok(()) = frame.fill_solid(&all, Rgb888::BLACK);
        let layout = self.layout(glass, frame.size());
        if let Some((code, area)) = &layout.code {
            draw_code(code, *area, frame);
        }
        let Layout {
            lettering, lines, ..
        } = &layout;
        let height_px = lettering.letter_px().height as i32;
        let mut at = layout.text.top_left;
        for line in &lines.headline {
            lettering.draw(line, at, Rgb888::WHITE, frame);
            at.y += height_px;
        }
        if !lines.headline.is_empty() {
            let thickness = rule_px(height_px as u32);
            let rule = Rectangle::new(
                at + Point::new(0, thickness as i32),
                Size::new(layout.text.size.width, thickness),
            );
            let Ok(()) = frame.fill_solid(&rule, Rgb888::WHITE);
            at.y += 3 * thickness as i32;
        }
        for line in &lines.body {
            lettering.draw(line, at, Rgb888::WHITE, frame);
            at.y += height_px;
        }
    }

    /// The first arrangement that fits, from the best to the least.
    fn layout(&self, glass: Glass, frame: Size) -> Layout {
        let shorter = frame.width.min(frame.height);
        let area = glass.safe_area(frame, shorter / 24);
        let code = self
            .page
            .and_then(|page| QrCode::encode_text(page, QrCodeEcc::Low).ok());
        let large = Lettering::at_most(shorter / 14);
        let comfortable = Lettering::at_most((shorter / 22).max(9));
        let with_code = |page, smallest| {
            let code = code.as_ref()?;
            code_places(code, area).find_map(|(place, text)| {
                let (lettering, lines) = self.lettered(page, text.size, large, smallest)?;
                let code = Some((code.clone(), place));
                Some(Layout {
                    code,
                    lettering,
                    lines,
                    text,
                })
            })
        };
        let without_code = |page| {
            let (lettering, lines) = self.lettered(page, area.size, large, Lettering::SMALLEST)?;
            Some(Layout {
                code: None,
                lettering,
                lines,
                text: area,
            })
        };
        with_code(self.page, comfortable)
            .or_else(|| with_code(None, comfortable))
            .or_else(|| with_code(None, Lettering::SMALLEST))
            .or_else(|| without_code(self.page))
            .or_else(|| without_code(None))
            .unwrap_or_else(|| self.shortened(area))
    }

    /// The largest letters in which all words fit, and their lines.
    fn lettered(
        &self,
        page: Option<&str>,
        size: Size,
        large: Lettering,
        smallest: Lettering,
    ) -> Option<(Lettering, Lines)> {
        let sizes = std::iter::successors(Some(large), |lettering| lettering.smaller());
        sizes
            .take_while(|lettering| *lettering >= smallest)
            .find_map(|lettering| Some((lettering, self.lines(page, lettering, size)?)))
    }

    fn lines(&self, page: Option<&str>, lettering: Lettering, size: Size) -> Option<Lines> {
        let columns = lettering.columns(size.width);
        if columns == 0 {
            return None;
        }
        let headline = wrapped(self.headline, columns);
        let mut body = wrapped(self.sentence, columns);
        body.extend(page.map(|page| wrapped(page, columns)).unwrap_or_default());
        let lines = Lines { headline, body };
        (lines.height_px(lettering) <= size.height).then_some(lines)
    }

    /// As many words as fit in the smallest letters.
    fn shortened(&self, area: Rectangle) -> Layout {
        let lettering = Lettering::SMALLEST;
        let columns = lettering.columns(area.size.width).max(1);
        let mut lines = Lines {
            headline: wrapped(self.headline, columns),
            body: wrapped(self.sentence, columns),
        };
        while lines.height_px(lettering) > area.size.height {
            if lines.body.pop().is_none() && lines.headline.pop().is_none() {
                break;
            }
        }
        let last = lines.body.last_mut().or(lines.headline.last_mut());
        if let Some(last) = last {
            let kept = last.chars().take(columns.saturating_sub(3));
            *last = kept.chain("...".chars().take(columns)).collect();
        }
        Layout {
            code: None,
            lettering,
            lines,
            text: area,
        }
    }
}

/// Where everything lies.
struct Layout {
    code: Option<(QrCode, Rectangle)>,
    lettering: Lettering,
    lines: Lines,
    text: Rectangle,
}

/// The words, in lines.
struct Lines {
    headline: Vec<String>,
    body: Vec<String>,
}

impl Lines {
    fn height_px(&self, lettering: Lettering) -> u32 {
        let line_px = lettering.letter_px().height;
        let count = (self.headline.len() + self.body.len()) as u32;
        let rule = if self.headline.is_empty() {
            0
        } else {
            3 * rule_px(line_px)
        };
        count * line_px + rule
    }
}

/// How thick the rule below a headline is; as much is free above and below it.
fn rule_px(line_px: u32) -> u32 {
    (line_px / 10).max(1)
}

/// Places for the code, the largest first, each with what it leaves for the text.
fn code_places(code: &QrCode, area: Rectangle) -> impl Iterator<Item = (Rectangle, Rectangle)> {
    let Size { width, height } = area.size;
    let is_wide = 5 * width > 6 * height;
    let modules = code.size() as u32 + 2 * QUIET;
    let (shorter, longer) = (width.min(height), width.max(height));
    // A code of half the card is read from across a room.
    let largest = shorter.min(longer / 2) / modules;
    // Where text and code must share a small card, the code may be larger than half.
    let largest = largest.max(MODULE_PX_MIN.min(shorter / modules));
    (MODULE_PX_MIN..=largest)
        .rev()
        .filter_map(move |module_px| {
            let side = module_px * modules;
            let gap = shorter / 30 + 1;
            let left = longer.checked_sub(side + gap)?;
            let end = area.top_left + area.size - Size::new_equal(side);
            let (code, text) = if is_wide {
                let middle = area.top_left.y + (height - side) as i32 / 2;
                (Point::new(end.x, middle), Size::new(left, height))
            } else {
                let middle = area.top_left.x + (width - side) as i32 / 2;
                (Point::new(middle, end.y), Size::new(width, left))
            };
            let code = Rectangle::new(code, Size::new_equal(side));
            Some((code, Rectangle::new(area.top_left, text)))
        })
}

/// The code with its quiet zone, filling a square area.
fn draw_code(code: &QrCode, area: Rectangle, frame: &mut Frame) {
    let Ok(()) = frame.fill_solid(&area, Rgb888::WHITE);
    let module_px = area.size.width / (code.size() as u32 + 2 * QUIET);
    for y in 0..code.size() {
        for x in 0..code.size() {
            if code.get_module(x, y) {
                let place = Point::new(x + QUIET as i32, y + QUIET as i32) * module_px as i32;
                let module = Rectangle::new(area.top_left + place, Size::new_equal(module_px));
                let Ok(()) = frame.fill_solid(&module, Rgb888::BLACK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "http://driftglass.local:8080/help/no-model";
    const CARD: Card = Card {
        headline: "No picture yet",
        sentence: "models/scenes-32/model.toml: expected a manifest of format 1, found nothing. \
                   Copy the model again.",
        page: Some(PAGE),
    };

    /// What a telephone reads on the frame.
    fn read(frame: &Frame) -> Option<String> {
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(
            frame.width_px(),
            frame.height_px(),
            |x, y| frame.pixel(x, y)[1],
        );
        let grids = image.detect_grids();
        let (_, text) = grids.first()?.decode().ok()?;
        Some(text)
    }

    fn drawn(card: Card, glass: Glass, (width, height): (usize, usize)) -> Frame {
        let mut frame = Frame::new(width, height);
        card.draw(glass, &mut frame);
        frame
    }

    #[test]
    fn the_code_is_read_back() {
        let sizes = [
            (128, 128),
            (128, 160),
            (160, 128),
            (240, 240),
            (320, 240),
            (240, 320),
            (480, 320),
            (320, 480),
            (800, 480),
            (1280, 720),
            (1080, 1920),
        ];
        for size in sizes {
            let frame = drawn(CARD, Glass::Rectangular, size);
            assert_eq!(read(&frame).as_deref(), Some(PAGE), "{size:?}");
        }
        for size in [(240, 240), (480, 480)] {
            let frame = drawn(CARD, Glass::Round, size);
            assert_eq!(read(&frame).as_deref(), Some(PAGE), "round {size:?}");
        }
    }

    #[test]
    fn without_room_for_the_code_the_words_stay() {
        let layout = |size| CARD.layout(Glass::Rectangular, size);
        let tiny = layout(Size::new(128, 64));
        assert!(tiny.code.is_none());
        let said = tiny.lines.body.concat().replace(' ', "");
        assert_eq!(said, format!("{}{PAGE}", CARD.sentence).replace(' ', ""));
        assert!(layout(Size::new(128, 128)).code.is_some());
    }

    #[test]
    fn a_sentence_without_end_ends_in_dots() {
        let sentence = "word ".repeat(1000);
        let card = Card {
            sentence: &sentence,
            ..CARD
        };
        let layout = card.layout(Glass::Rectangular, Size::new(128, 128));
        assert_eq!(layout.lines.headline, ["No picture yet"]);
        let last = layout.lines.body.last().unwrap();
        assert!(last.ends_with("..."), "{last}");
    }

    /// Whatever is drawn lies in the safe area: beside it all is black.
    #[test]
    fn nothing_is_cut_off() {
        let long = "x".repeat(300);
        let cards = [
            CARD,
            Card { page: None, ..CARD },
            Card {
                headline: "",
                sentence: &long,
                page: Some("http://a.b/"),
            },
            Card {
                headline: &long,
                sentence: "",
                page: Some(&long),
            },
            Card {
                headline: "",
                sentence: "",
                page: None,
            },
        ];
        let sizes = [
            (96, 64),
            (128, 64),
            (128, 128),
            (160, 80),
            (80, 160),
            (240, 240),
            (320, 170),
            (250, 122),
        ];
        for card in cards {
            for (width, height) in sizes {
                for glass in [Glass::Rectangular, Glass::Round] {
                    let frame = drawn(card, glass, (width, height));
                    let margin = width.min(height) as u32 / 24;
                    let safe = glass.safe_area(frame.size(), margin);
                    for point in frame.bounding_box().points() {
                        let pixel = frame.pixel(point.x as usize, point.y as usize);
                        assert!(
                            safe.contains(point) || pixel == [0; 3],
                            "{card:?} on {width}x{height}: {point}"
                        );
                    }
                    let layout = card.layout(glass, frame.size());
                    let text = layout.text.size;
                    let lines = [&layout.lines.headline[..], &layout.lines.body[..]].concat();
                    assert!(layout.lettering.size(&lines).width <= text.width);
                    assert!(layout.lines.height_px(layout.lettering) <= text.height);
                }
            }
        }
    }

    #[test]
    fn no_frame_is_too_small() {
        for width in 1..40 {
            for height in 1..40 {
                drawn(CARD, Glass::Rectangular, (width, height));
                drawn(CARD, Glass::Round, (width, height));
            }
        }
    }
}
