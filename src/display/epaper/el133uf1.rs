//! EL133UF1, Spectra 6 at 13.3": a glass of 1200 by 1600 and two controllers.
//!
//! Each drives half of the columns. Bytes as in Pimoroni's `inky_el133uf1.py` (pimoroni/inky,
//! commit 07035b3); deep sleep as in Waveshare's `epd13in3E.py` for the same glass
//! (waveshareteam/e-Paper, commit 86aa993, `E-paper_Separate_Program/13.3inch_e-Paper_E`). No
//! crate drives it.

use super::script::{Chips, Packing, Pass, Picture, Plane, Reset, Script, Step, all, one};

const fn half(chip: usize) -> Plane {
    Plane {
        chips: Chips::One(chip),
        command: 0x10,
        picture: Picture::Wanted,
        packing: Packing::NibblesOfColumn(chip),
    }
}

/// Black 0, white 1, yellow 2, red 3, blue 5, green 6. The first controller also makes the
/// voltages of both.
pub const EL133UF1: Script = Script {
    size_px: [1200, 1600],
    chips: 2,
    inks: &[0, 1, 2, 3, 5, 6],
    reset: &[Reset::LowMs(30), Reset::HighMs(30)],
    select_ms: 300,
    full: Pass {
        wake: &[
            Step::Settle,
            one(
                0,
                0x74,
                &[0x00, 0x0C, 0x0C, 0xD9, 0xDD, 0xDD, 0x15, 0x15, 0x55],
            ),
            all(0xF0, &[0x49, 0x55, 0x13, 0x5D, 0x05, 0x10]),
            all(0x00, &[0xDF, 0x6B]),
            one(0, 0xA5, &[0x44, 0x54, 0x00]),
            all(0x30, &[0x08]),
            all(0x50, &[0x37]),
            all(0x60, &[0x03, 0x03]),
            one(0, 0x03, &[0x00, 0xC0, 0x03, 0xA8]),
            one(1, 0x03, &[0x00, 0xC0, 0x03, 0x9A]),
            all(0x86, &[0x10]),
            all(0xE3, &[0x22]),
            all(0xE0, &[0x01]),
            all(0x61, &[0x04, 0xB0, 0x03, 0x20]),
            one(
                0,
                0xA4,
                &[0x03, 0x00, 0x01, 0x03, 0x00, 0x03, 0x00, 0x00, 0x00],
            ),
            one(0, 0x01, &[0x0F, 0x00, 0x28, 0x2C, 0x28, 0x38]),
            one(0, 0xB6, &[0x07]),
            one(0, 0x06, &[0xE0, 0x20]),
            one(0, 0xB7, &[0x01]),
            one(0, 0x05, &[0xE0, 0x20]),
            one(0, 0xB0, &[0x01]),
            one(0, 0xB1, &[0x02]),
        ],
        planes: &[half(0), half(1)],
        refresh: &[
            all(0x04, &[]),
            Step::Settle,
            all(0x12, &[0x00]),
            Step::Refresh,
            all(0x02, &[0x00]),
            Step::Settle,
        ],
        refresh_ms_min: 5000,
    },
    partial: None,
    sleep: &[all(0x07, &[0xA5])],
};
