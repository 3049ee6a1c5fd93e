//! What can go wrong: the place, what was expected there and what was found.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// A `Result` whose error is this library's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong outside the program: files, values, networks.
///
/// The text of each variant is one sentence that starts with the place. A fault of the program
/// itself is an assertion, never an `Error`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file or a folder.
    #[error("{}: cannot {action}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: "read", "write".
        action: &'static str,
        /// The operating system's own words.
        cause: std::io::Error,
    },

    /// Something given from outside is not what it must be.
    #[error("{place}: expected {expected}, found {found}")]
    Unexpected {
        /// The file, the key in it, or the command-line option.
        place: String,
        /// What would have been right.
        expected: String,
        /// What was there instead.
        found: String,
    },

    /// The network could not be prepared or evaluated.
    #[error("{place}: the network cannot be {action}: {reason}")]
    Network {
        /// The ONNX file.
        place: String,
        /// "loaded" or "evaluated".
        action: &'static str,
        /// The engine's own words.
        reason: String,
    },

    /// The caller's step callback asked to stop.
    #[error("stopped before the picture was finished")]
    Stopped,
}

impl Error {
    /// An [`Error::Io`] at `path`; `action` is a verb.
    pub fn io(path: impl AsRef<Path>, action: &'static str, cause: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_owned(),
            action,
            cause,
        }
    }

    /// An [`Error::Unexpected`].
    pub fn unexpected(place: impl Display, expected: impl Display, found: impl Display) -> Self {
        Self::Unexpected {
            place: one_line(&place),
            expected: one_line(&expected),
            found: one_line(&found),
        }
    }
}

/// A file's own words may hold line breaks and worse; a sentence holds none.
fn one_line(text: &impl Display) -> String {
    let text = text.to_string();
    if !text.contains(char::is_control) {
        return text;
    }
    let escaped = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.into()
        }
    };
    text.chars().map(escaped).collect()
}
