//! The inks of an e-paper panel, as they look and as its controller counts them.
//!
//! A picture is dithered against what the inks look like on the glass, not against the colours
//! they are named after: a "white" that reflects a third of the light is what every other colour
//! is seen against.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The most inks a palette may hold.
pub const MAX_INKS: usize = 8;

/// One ink of a panel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ink {
    /// As a person calls it: "yellow".
    pub name: String,
    /// The number its controller knows it by.
    pub index: u8,
    /// What it looks like on the glass, in sRGB.
    pub rgb: [u8; 3],
}

/// The inks of a panel, 2 to [`MAX_INKS`], the darkest first and the lightest second.
///
/// In a panel file it is one of [`Palette::NAMES`], or the inks themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Palette {
    inks: Vec<Ink>,
}

type BuiltIn = (&'static str, &'static [(&'static str, u8, [u8; 3])]);

/// The palettes that have a name, and where their colours were measured.
const BUILT_IN: &[BuiltIn] = &[
    // epaper-dithering-core 4.0.1, `measured_palettes.rs`: black and white of the Good Display
    // 3.97" panel, photographed as RAW beside a paper reference. Two inks make the tones between
    // them whatever their own, so that nothing depends on these two but a preview.
    (
        "black-white",
        &[("black", 0, [10, 7, 14]), ("white", 1, [173, 178, 174])],
    ),
    // The two greys are not measured: black and white as above, and equal steps of CIE lightness
    // between them, which is what a waveform of four greys is made to give.
    (
        "four-greys",
        &[
            ("black", 0, [10, 7, 14]),
            ("white", 3, [173, 178, 174]),
            ("dark grey", 1, [60, 61, 63]),
            ("light grey", 2, [115, 118, 117]),
        ],
    ),
    // The same photograph; its red is that of another panel with inks from the same maker.
    (
        "black-white-red",
        &[
            ("black", 0, [10, 7, 14]),
            ("white", 1, [173, 178, 174]),
            ("red", 2, [85, 24, 14]),
        ],
    ),
    // paperlesspaper/epdoptimize, `src/dither/data/default-palettes.json`, "acep".
    (
        "seven-colours",
        &[
            ("black", 0, [25, 30, 33]),
            ("white", 1, [241, 241, 241]),
            ("green", 2, [83, 164, 40]),
            ("blue", 3, [49, 49, 143]),
            ("red", 4, [210, 14, 19]),
            ("yellow", 5, [243, 207, 17]),
            ("orange", 6, [184, 94, 28]),
        ],
    ),
    // pimoroni/inky, `inky_ac073tc1a.py`, SATURATED_PALETTE.
    (
        "seven-colours-inky",
        &[
            ("black", 0, [0, 0, 0]),
            ("white", 1, [217, 242, 255]),
            ("green", 2, [3, 124, 76]),
            ("blue", 3, [27, 46, 198]),
            ("red", 4, [245, 80, 34]),
            ("yellow", 5, [255, 255, 68]),
            ("orange", 6, [239, 121, 44]),
        ],
    ),
    // aitjcize/esp32-photoframe, measured on a 7.3" panel, as republished in
    // paperlesspaper/epdoptimize, `default-palettes.json`, "aitjcize-spectra6".
    (
        "spectra-6",
        &[
            ("black", 0, [2, 2, 2]),
            ("white", 1, [190, 200, 200]),
            ("yellow", 2, [205, 202, 0]),
            ("red", 3, [135, 19, 0]),
            ("blue", 5, [5, 64, 158]),
            ("green", 6, [39, 102, 60]),
        ],
    ),
    // pimoroni/inky, `inky_e673.py` and `inky_el133uf1.py`, SATURATED_PALETTE.
    (
        "spectra-6-inky",
        &[
            ("black", 0, [0, 0, 0]),
            ("white", 1, [161, 164, 165]),
            ("yellow", 2, [208, 190, 71]),
            ("red", 3, [156, 72, 75]),
            ("blue", 5, [61, 59, 94]),
            ("green", 6, [58, 91, 70]),
        ],
    ),
];

impl Palette {
    /// The palettes a panel file may name.
    pub const NAMES: &'static [&'static str] = &[
        "black-white",
        "four-greys",
        "black-white-red",
        "seven-colours",
        "seven-colours-inky",
        "spectra-6",
        "spectra-6-inky",
    ];

    /// A palette of its own.
    ///
    /// # Errors
    ///
    /// When there are fewer than two or more than [`MAX_INKS`] inks, two share an index, or the
    /// first is not darker than the second.
    pub fn new(inks: Vec<Ink>) -> Result<Self> {
        if !(2..=MAX_INKS).contains(&inks.len()) {
            let expected = format!("2 to {MAX_INKS} inks");
            return Err(Error::unexpected("palette", expected, inks.len()));
        }
        for (at, ink) in inks.iter().enumerate() {
            if let Some(other) = inks[..at].iter().find(|other| other.index == ink.index) {
                let found = format!("{} for {} and {}", ink.index, other.name, ink.name);
                let expected = "an index of its own for each ink";
                return Err(Error::unexpected("palette", expected, found));
            }
        }
        let light = |ink: &Ink| ink.rgb.map(u32::from).iter().sum::<u32>();
        if light(&inks[0]) >= light(&inks[1]) {
            let found = format!("{}, then {}", inks[0].name, inks[1].name);
            let expected = "the darkest ink, then the lightest";
            return Err(Error::unexpected("palette", expected, found));
        }
        Ok(Self { inks })
    }

    /// One of [`Self::NAMES`].
    ///
    /// # Errors
    ///
    /// When there is no palette of this name.
    pub fn named(name: &str) -> Result<Self> {
        let found = BUILT_IN.iter().find(|(known, _)| *known == name);
        let (_, inks) = found.ok_or_else(|| {
            Error::unexpected("palette", Self::NAMES.join(", "), format!("{name:?}"))
        })?;
        let ink = |&(name, index, rgb): &(&str, u8, [u8; 3])| Ink {
            name: name.to_owned(),
            index,
            rgb,
        };
        Self::new(inks.iter().map(ink).collect())
    }

    /// The inks: the darkest, the lightest, the others.
    pub fn inks(&self) -> &[Ink] {
        &self.inks
    }

    /// Its name, when it is one of [`Self::NAMES`].
    pub fn name(&self) -> Option<&'static str> {
        let same = |inks: &[(&str, u8, [u8; 3])]| {
            let own = self
                .inks
                .iter()
                .map(|ink| (ink.name.as_str(), ink.index, ink.rgb));
            own.eq(inks.iter().copied())
        };
        let found = BUILT_IN.iter().find(|(_, inks)| same(inks));
        found.map(|(name, _)| *name)
    }
}

impl Serialize for Palette {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(name) = self.name() {
            return serializer.serialize_str(name);
        }
        let mut sequence = serializer.serialize_seq(Some(self.inks.len()))?;
        for ink in &self.inks {
            sequence.serialize_element(ink)?;
        }
        sequence.end()
    }
}

impl<'de> Deserialize<'de> for Palette {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrInks)
    }
}

struct NameOrInks;

impl<'de> Visitor<'de> for NameOrInks {
    type Value = Palette;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "one of {}, or a list of inks", Palette::NAMES.join(", "))
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Palette, E> {
        Palette::named(name).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Palette, A::Error> {
        let mut inks = Vec::new();
        while let Some(ink) = sequence.next_element()? {
            inks.push(ink);
        }
        Palette::new(inks).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        palette: Palette,
    }

    #[test]
    fn every_name_is_a_palette_and_is_written_as_its_name() {
        for (at, name) in Palette::NAMES.iter().enumerate() {
            assert_eq!(BUILT_IN[at].0, *name);
            let text = format!("palette = \"{name}\"\n");
            let file: File = toml::from_str(&text).unwrap();
            assert_eq!(file.palette.name(), Some(*name));
            assert_eq!(toml::to_string(&file).unwrap(), text);
        }
        assert_eq!(BUILT_IN.len(), Palette::NAMES.len());
    }

    #[test]
    fn inks_of_its_own_are_read_and_written() {
        let text = r#"
            [[palette]]
            name = "black"
            index = 0
            rgb = [9, 9, 9]
            [[palette]]
            name = "white"
            index = 1
            rgb = [180, 181, 182]
        "#;
        let file: File = toml::from_str(text).unwrap();
        assert_eq!(file.palette.inks()[1].rgb, [180, 181, 182]);
        assert_eq!(file.palette.name(), None);
        let again: File = toml::from_str(&toml::to_string(&file).unwrap()).unwrap();
        assert_eq!(again, file);
    }

    #[test]
    fn what_cannot_be_a_palette_is_refused_in_a_sentence() {
        let ink = |name: &str, index, grey| Ink {
            name: name.to_owned(),
            index,
            rgb: [grey; 3],
        };
        for (inks, expected) in [
            (
                vec![ink("black", 0, 0)],
                "palette: expected 2 to 8 inks, found 1",
            ),
            (
                vec![ink("white", 0, 200), ink("black", 1, 5)],
                "palette: expected the darkest ink, then the lightest, found white, then black",
            ),
            (
                vec![ink("black", 0, 0), ink("white", 0, 200)],
                "palette: expected an index of its own for each ink, found 0 for black and white",
            ),
        ] {
            assert_eq!(Palette::new(inks).unwrap_err().to_string(), expected);
        }
        let error = Palette::named("spectra").unwrap_err().to_string();
        assert!(
            error.ends_with("found \"spectra\"") && error.contains("spectra-6"),
            "{error}"
        );
    }
}
