//! TOML that a person writes: one sentence says what is wrong, and where.

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Whole numbers as serde calls them, and as a person does.
const NUMBERS: &[(&str, &str)] = &[
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number from 0"),
    ("usize", "a whole number from 0"),
    ("f32", "a number"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
];

/// Reads the text of a TOML file; `place` is its path for the errors. A byte order mark and
/// Windows line ends, as a FAT partition's editors leave them, are no errors.
///
/// # Errors
///
/// When the text is no TOML, or a key is missing, unknown or of the wrong type. The sentence has
/// the line, the key, what was expected and what was found.
pub fn parse<T: DeserializeOwned>(place: &str, text: &str) -> Result<T> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    toml::from_str(text).map_err(|error| sentence(place, text, &error))
}

fn sentence(place: &str, text: &str, error: &toml::de::Error) -> Error {
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    let start = error.span().map(|span| span.start);
    let line = start.and_then(|start| Some(text.get(..start)?.matches('\n').count() + 1));
    let at_line = line.map_or(place.to_owned(), |line| format!("{place}:{line}"));
    let key = start.and_then(|start| key_at(text, start));
    let at_key = key.map_or(at_line.clone(), |key| format!("{at_line}: {key}"));
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (name, known) = rest.split_once(", ").unwrap_or((rest, "no such key"));
        let known = known.strip_prefix("expected ").unwrap_or(known);
        return Error::unexpected(at_line, known, format!("the key {name}"));
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return Error::unexpected(at_line, format!("the key {name}"), "none");
    }
    // A value's own sentence: its place is the key, which we know better.
    if let Some((_, rest)) = message.split_once(": expected ")
        && let Some((expected, found)) = rest.rsplit_once(", found ")
    {
        return Error::unexpected(at_key, expected, found);
    }
    if let Some((found, expected)) = message.split_once(", expected ") {
        let kinds = ["invalid type: ", "invalid value: "];
        let found = kinds
            .iter()
            .find_map(|kind| found.strip_prefix(kind))
            .unwrap_or(found);
        let plain = NUMBERS.iter().find(|(name, _)| *name == expected);
        let expected = plain.map_or(expected, |(_, plain)| plain);
        return Error::unexpected(at_key, expected, found);
    }
    Error::unexpected(at_key, "TOML", message)
}

/// The key of the line in which byte `start` lies.
fn key_at(text: &str, start: usize) -> Option<&str> {
    let before = text.get(..start)?;
    let line = &text[before.rfind('\n').map_or(0, |end| end + 1)..];
    let (key, _) = line.lines().next()?.split_once('=')?;
    let is_key = |c: char| c.is_alphanumeric() || "-_.\" ".contains(c);
    let key = key.trim();
    (!key.is_empty() && key.chars().all(is_key)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    enum Mirror {
        #[default]
        No,
        LeftRight,
    }

    spelled!(Mirror, "mirror", No = "no", LeftRight = "left-right");

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Facts {
        spi_hz: u32,
        #[serde(default)]
        mirror: Mirror,
        #[serde(default)]
        inner: Inner,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
    struct Inner {
        round: bool,
    }

    fn error(text: &str) -> String {
        parse::<Facts>("a.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn every_fault_is_one_sentence_with_line_and_key() {
        for (text, sentence) in [
            (
                "spi-hz = 1\nmirror = \"up\"",
                "a.toml:2: mirror: expected no, left-right, found \"up\"",
            ),
            (
                "# a comment\n\nspi-hz = \"fast\"",
                "a.toml:3: spi-hz: expected a whole number from 0 to 4294967295, found string \
                 \"fast\"",
            ),
            (
                "spi-hz = -1",
                "a.toml:1: spi-hz: expected a whole number from 0 to 4294967295, found integer \
                 `-1`",
            ),
            (
                "spi-hz = 1\nspi-khz = 1",
                "a.toml:2: expected one of `spi-hz`, `mirror`, `inner`, found the key `spi-khz`",
            ),
            (
                "spi-hz = 1\n[inner]\nround = 1",
                "a.toml:3: round: expected true or false, found integer `1`",
            ),
            (
                "spi-hz = 1\n[inner]\nflat = true",
                "a.toml:3: expected `round`, found the key `flat`",
            ),
            (
                "mirror = \"no\"",
                "a.toml:1: expected the key `spi-hz`, found none",
            ),
            (
                "spi-hz = 1\nspi-hz = 2",
                "a.toml:2: spi-hz: expected TOML, found duplicate key",
            ),
        ] {
            assert_eq!(error(text), sentence, "of {text:?}");
        }
        assert!(
            error("spi-hz").starts_with("a.toml:1: expected"),
            "{}",
            error("spi-hz")
        );
    }

    #[test]
    fn what_windows_editors_leave_is_read() {
        let facts: Facts = parse(
            "a.toml",
            "\u{feff}spi-hz = 5\r\n[inner]\r\nround = true\r\n",
        )
        .unwrap();
        assert_eq!((facts.spi_hz, facts.inner.round), (5, true));
        assert_eq!(facts.mirror, Mirror::No);
    }
}
