//! A resolution and a refresh rate as an owner writes them: "1280x720@60".

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The resolution, and optionally the refresh rate, that an owner asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Visible columns and rows.
    pub size_px: [u16; 2],
    /// Frames per second, rounded; `None` takes what the screen prefers, or else its fastest.
    pub refresh_hz: Option<u32>,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [width, height] = self.size_px;
        write!(f, "{width}x{height}")?;
        match self.refresh_hz {
            Some(refresh_hz) => write!(f, "@{refresh_hz}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (size, refresh_hz) = match text.split_once('@') {
                Some((size, refresh_hz)) => (size, Some(positive(refresh_hz)?)),
                None => (text, None),
            };
            let (width, height) = size.split_once('x')?;
            let side = |text: &str| u16::try_from(positive(text)?).ok();
            Some(Self {
                size_px: [side(width)?, side(height)?],
                refresh_hz,
            })
        };
        let example = "a mode such as \"1280x720\" or \"1280x720@60\"";
        parse().ok_or_else(|| Error::unexpected("mode", example, format!("{text:?}")))
    }
}

serde_as_text!(Mode);

/// Decimal digits alone: no sign, no blank.
fn positive(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|&number| number > 0);
    number.filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_written_as_it_is_read() {
        for text in ["1280x720@60", "1920x1080", "720x1280@59", "65535x1@1"] {
            assert_eq!(text.parse::<Mode>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_mode_is_refused_in_a_sentence() {
        for text in [
            "",
            "1280",
            "1280x",
            "1280x720@",
            "0x720",
            "1280x720@0",
            "+1280x720",
            "70000x1",
            "1280x720@60i",
            "1280 x 720",
            "1280x720x60",
        ] {
            let error = text.parse::<Mode>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "mode: expected a mode such as \"1280x720\" or \"1280x720@60\", found {text:?}"
                )
            );
        }
    }
}
