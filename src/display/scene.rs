//! A scene, a picture with what is said of it or a card, drawn into a frame.

use super::card::Card;
use super::correction::{self, Correction};
use super::mount::{self, Mount};
use super::{Frame, caption, progress_line, test_card};
use crate::error::Result;
use crate::picture::Picture;

/// What whoever paints hands over to a [`super::stage::Stage`]: small, and drawn elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub enum Scene {
    /// A picture, finished or on the way.
    Picture {
        /// As it was painted, of whatever size.
        picture: Picture,
        /// How far the painting is, 0 to 1, where a line is to say so.
        progress: Option<f64>,
        /// What is written below it: "seed 42", "step 7/50".
        captions: Vec<String>,
    },
    /// Something that a person must read.
    Card {
        /// A few words.
        headline: String,
        /// What happened and what to do.
        sentence: String,
        /// The address of a page, as a QR code.
        page: Option<String>,
    },
}

/// How scenes are drawn for one panel.
#[derive(Debug)]
pub struct Composer {
    mount: Mount,
    correction: Correction,
}

impl Composer {
    /// A composer for a panel with these facts.
    ///
    /// # Errors
    ///
    /// When a value of the correction is out of its range.
    pub fn new(mount: mount::Facts, correction: correction::Facts) -> Result<Self> {
        Ok(Self {
            mount: Mount::new(mount),
            correction: Correction::new(correction)?,
        })
    }

    /// Fills `frame` with `scene`.
    pub fn draw(&mut self, scene: &Scene, frame: &mut Frame) {
        let glass = self.mount.glass();
        match scene {
            Scene::Picture {
                picture,
                progress,
                captions,
            } => {
                self.mount.draw(picture, frame);
                if !captions.is_empty() {
                    let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
                    caption::draw(&captions, glass, frame);
                }
                if let Some(progress) = progress {
                    progress_line::draw(*progress, glass, frame);
                }
            }
            Scene::Card {
                headline,
                sentence,
                page,
            } => {
                let page = page.as_deref();
                Card {
                    headline,
                    sentence,
                    page,
                }
                .draw(glass, frame);
            }
        }
        self.correction.apply(frame);
    }

    /// Fills `frame` with the test card of this panel's glass, corrected as pictures are.
    pub fn draw_test_card(&self, frame: &mut Frame) {
        test_card::draw(self.mount.glass(), frame);
        self.correction.apply(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [u8; 3] = [200, 0, 0];

    fn drawn(scene: &Scene, correction: &str) -> Frame {
        let correction = toml::from_str(correction).unwrap();
        let mut composer = Composer::new(mount::Facts::default(), correction).unwrap();
        let mut frame = Frame::new(120, 100);
        composer.draw(scene, &mut frame);
        frame
    }

    fn picture(progress: Option<f64>, captions: &[&str]) -> Scene {
        Scene::Picture {
            picture: Picture::filled(8, 8, RED),
            progress,
            captions: captions.iter().map(|part| (*part).to_owned()).collect(),
        }
    }

    #[test]
    fn a_picture_is_mounted_and_nothing_is_said_unasked() {
        let frame = drawn(&picture(None, &[]), "");
        assert_eq!((frame.pixel(0, 50), frame.pixel(60, 99)), ([0; 3], RED));
        let pixels = frame.rgb().chunks(3);
        assert_eq!(pixels.filter(|pixel| *pixel == RED).count(), 100 * 100);
    }

    #[test]
    fn the_line_and_the_caption_lie_on_it() {
        let plain = drawn(&picture(None, &[]), "");
        let line = drawn(&picture(Some(1.0), &[]), "");
        assert!(line.row(99).chunks(3).all(|pixel| pixel == [240; 3]));
        assert_eq!(line.row(50), plain.row(50));
        let caption = drawn(&picture(None, &["seed 7"]), "");
        assert_ne!(caption, plain);
        assert_eq!(caption.row(20), plain.row(20));
    }

    #[test]
    fn all_of_it_is_corrected() {
        let half = "gain = [0.5, 1.0, 1.0]";
        assert_eq!(drawn(&picture(None, &[]), half).pixel(60, 50), [100, 0, 0]);
        let card = Scene::Card {
            headline: "No model".into(),
            sentence: "models/leaf: expected a folder, found none".into(),
            page: None,
        };
        let frame = drawn(&card, half);
        assert!(frame.rgb().chunks(3).any(|pixel| pixel == [128, 255, 255]));
        assert!(
            Composer::new(
                mount::Facts::default(),
                toml::from_str("gamma = 99.0").unwrap()
            )
            .is_err()
        );
    }
}
