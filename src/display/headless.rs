//! No screen: the newest picture as a PNG file, written whole.
//!
//! A web server, a photo frame or a person looks at the file whenever they like: at every moment,
//! and after a power cut, it holds one whole picture, the old one or the new one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Damage, Display, Frame, Pace, PanelInfo, Power};
use crate::error::Result;
use crate::files;
use crate::picture::Picture;

/// The file that pictures go to when a folder is named.
const NAME: &str = "latest.png";

/// Where pictures go, and how large they are.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Facts {
    /// A file, or a folder, which then gets the file `latest.png`.
    pub path: PathBuf,
    /// The width of the picture, from 1.
    pub width_px: u16,
    /// The height of the picture, from 1.
    pub height_px: u16,
    /// The shortest time between two pictures on the way to a finished one. Without it only
    /// finished pictures are written, because SD cards wear out.
    pub steps_every_ms: Option<u32>,
}

impl Default for Facts {
    /// 512 by 512 pixels in `latest.png`, finished pictures only.
    fn default() -> Self {
        Self {
            path: NAME.into(),
            width_px: 512,
            height_px: 512,
            steps_every_ms: None,
        }
    }
}

/// A panel that is a file.
#[derive(Debug)]
pub struct Headless {
    path: PathBuf,
    size_px: [usize; 2],
    pace: Pace,
    /// What the file holds, where that is known.
    written: Option<Frame>,
}

impl Headless {
    /// The panel of these facts; nothing is written yet.
    ///
    /// # Errors
    ///
    /// When a side is zero.
    pub fn new(facts: &Facts) -> Result<Self> {
        let size_px = super::sides(facts.width_px, facts.height_px)?;
        let named_as_folder = facts.path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let path = if named_as_folder || facts.path.is_dir() {
            facts.path.join(NAME)
        } else {
            facts.path.clone()
        };
        let pace = match facts.steps_every_ms {
            Some(ms) => Pace::Every(Duration::from_millis(ms.into())),
            None => Pace::Finished(Duration::ZERO),
        };
        Ok(Self {
            path,
            size_px,
            pace,
            written: None,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Display for Headless {
    fn info(&self) -> PanelInfo {
        PanelInfo {
            name: format!("the file {}", self.path.display()),
            size_px: self.size_px,
            pace: self.pace,
        }
    }

    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        assert_eq!(frame.size_px(), self.size_px, "the frame's size");
        if damage == Damage::Changed && self.written.as_ref() == Some(frame) && self.path.exists() {
            return Ok(());
        }
        self.written = None;
        files::write_whole(&self.path, &Picture::from(frame).encode_png(&[]))?;
        self.written = Some(frame.clone());
        Ok(())
    }

    /// A file is never dark: it keeps the last picture.
    fn power(&mut self, _: Power) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn facts(path: impl Into<PathBuf>) -> Facts {
        Facts {
            path: path.into(),
            width_px: 3,
            height_px: 2,
            ..Facts::default()
        }
    }

    fn frame(shade: u8) -> Frame {
        Frame::from(&Picture::filled(3, 2, [shade, 1, 2]))
    }

    fn read(path: &Path) -> Frame {
        Frame::from(&Picture::decode_png("latest", &fs::read(path).unwrap()).unwrap())
    }

    #[test]
    fn the_file_holds_the_newest_frame_and_nothing_lies_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut panel = Headless::new(&facts(folder.path())).unwrap();
        assert_eq!(panel.path(), folder.path().join("latest.png"));
        for shade in [7, 200, 9] {
            panel.show(&frame(shade), Damage::Changed).unwrap();
            assert_eq!(read(panel.path()), frame(shade));
        }
        panel.power(Power::Off).unwrap();
        assert_eq!(read(panel.path()), frame(9));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_card_is_written_only_where_something_changed() {
        let folder = tempfile::tempdir().unwrap();
        let mut panel = Headless::new(&facts(folder.path().join("a.png"))).unwrap();
        panel.show(&frame(1), Damage::Changed).unwrap();
        fs::write(panel.path(), "a mark").unwrap();
        panel.show(&frame(1), Damage::Changed).unwrap();
        assert_eq!(fs::read(panel.path()).unwrap(), b"a mark");
        panel.show(&frame(1), Damage::All).unwrap();
        assert_eq!(read(panel.path()), frame(1));
        fs::remove_file(panel.path()).unwrap();
        panel.show(&frame(1), Damage::Changed).unwrap();
        assert_eq!(read(panel.path()), frame(1), "a file that vanished");
    }

    #[test]
    fn a_folder_that_is_missing_is_told_and_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("usb");
        let mut panel = Headless::new(&facts(missing.join("a.png"))).unwrap();
        let error = panel.show(&frame(1), Damage::Changed).unwrap_err();
        assert!(
            error.to_string().ends_with("found no such folder"),
            "{error}"
        );
        fs::create_dir(&missing).unwrap();
        panel.show(&frame(1), Damage::Changed).unwrap();
        assert_eq!(read(panel.path()), frame(1));
    }

    #[test]
    fn steps_are_written_on_request_only() {
        let finished = Headless::new(&facts("a.png")).unwrap().info().pace;
        assert_eq!(finished, Pace::Finished(Duration::ZERO));
        let steps: Facts = toml::from_str("steps-every-ms = 2000").unwrap();
        assert_eq!((steps.width_px, steps.path.to_str()), (512, Some(NAME)));
        let pace = Headless::new(&steps).unwrap().info().pace;
        assert_eq!(pace, Pace::Every(Duration::from_secs(2)));
        assert!(toml::from_str::<Facts>("steps = 1").is_err());
        let flat = Headless::new(&Facts {
            width_px: 0,
            ..steps
        })
        .unwrap_err();
        assert_eq!(
            flat.to_string(),
            "width-px: expected a side from 1 to 16384, found 0"
        );
    }
}
