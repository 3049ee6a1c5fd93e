//! The 7.3" colour panels, 800 by 480: seven colours, later Spectra 6.
//!
//! Two makers sell the same glass with sequences of their own, and each board gets its maker's:
//! Waveshare's `epd7in3f.py` and `epd7in3e.py` (waveshareteam/e-Paper, commit 86aa993,
//! `RaspberryPi_JetsonNano/python/lib/waveshare_epd`) and Pimoroni's `inky_ac073tc1a.py` and
//! `inky_e673.py` (pimoroni/inky, commit 07035b3). Pimoroni's leave the panel awake; deep sleep
//! is Waveshare's, on the same glass. epd-waveshare 0.6 sends each byte by itself and takes greys
//! for its cleaning colour; epdsi 0.9 sends a frame in one message, which spidev refuses.

use super::script::{Chips, Packing, Pass, Picture, Plane, Reset, Script, Step, all};

const PLANES: &[Plane] = &[Plane {
    chips: Chips::All,
    command: 0x10,
    picture: Picture::Wanted,
    packing: Packing::Nibbles,
}];

/// Power on, refresh, power off: `TurnOnDisplay`.
const REFRESH: &[Step] = &[
    all(0x04, &[]),
    Step::Settle,
    all(0x12, &[0x00]),
    Step::Refresh,
    all(0x02, &[0x00]),
    Step::Settle,
];

const SLEEP: &[Step] = &[all(0x07, &[0xA5])];

/// Black 0, white 1, green 2, blue 3, red 4, yellow 5, orange 6; 7 cleans and is no colour.
pub const GDEY073D46: Script = Script {
    size_px: [800, 480],
    chips: 1,
    inks: &[0, 1, 2, 3, 4, 5, 6],
    reset: &[Reset::HighMs(20), Reset::LowMs(2), Reset::HighMs(20)],
    select_ms: 0,
    full: Pass {
        wake: &[
            Step::Settle,
            Step::PauseMs(30),
            all(0xAA, &[0x49, 0x55, 0x20, 0x08, 0x09, 0x18]),
            all(0x01, &[0x3F, 0x00, 0x32, 0x2A, 0x0E, 0x2A]),
            all(0x00, &[0x5F, 0x69]),
            all(0x03, &[0x00, 0x54, 0x00, 0x44]),
            all(0x05, &[0x40, 0x1F, 0x1F, 0x2C]),
            all(0x06, &[0x6F, 0x1F, 0x1F, 0x22]),
            all(0x08, &[0x6F, 0x1F, 0x1F, 0x22]),
            all(0x13, &[0x00, 0x04]),
            all(0x30, &[0x3C]),
            all(0x41, &[0x00]),
            all(0x50, &[0x3F]),
            all(0x60, &[0x02, 0x00]),
            all(0x61, &[0x03, 0x20, 0x01, 0xE0]),
            all(0x82, &[0x1E]),
            all(0x84, &[0x00]),
            all(0x86, &[0x00]),
            all(0xE3, &[0x2F]),
            all(0xE0, &[0x00]),
            all(0xE6, &[0x00]),
        ],
        planes: PLANES,
        refresh: REFRESH,
        refresh_ms_min: 5000,
    },
    partial: None,
    sleep: SLEEP,
};

/// The same inks.
pub const AC073TC1A: Script = Script {
    reset: &[
        Reset::LowMs(100),
        Reset::HighMs(100),
        Reset::LowMs(100),
        Reset::HighMs(0),
    ],
    full: Pass {
        wake: &[
            Step::Settle,
            all(0xAA, &[0x49, 0x55, 0x20, 0x08, 0x09, 0x18]),
            all(0x01, &[0x3F, 0x00, 0x32, 0x2A, 0x0E, 0x2A]),
            all(0x00, &[0x5F, 0x69]),
            all(0x03, &[0x00, 0x54, 0x00, 0x44]),
            all(0x05, &[0x40, 0x1F, 0x1F, 0x2C]),
            all(0x06, &[0x6F, 0x1F, 0x16, 0x25]),
            all(0x08, &[0x6F, 0x1F, 0x1F, 0x22]),
            all(0x13, &[0x00, 0x04]),
            all(0x30, &[0x02]),
            all(0x41, &[0x00]),
            all(0x50, &[0x3F]),
            all(0x60, &[0x02, 0x00]),
            all(0x61, &[0x03, 0x20, 0x01, 0xE0]),
            all(0x82, &[0x1E]),
            all(0x84, &[0x00]),
            all(0x86, &[0x00]),
            all(0xE3, &[0x2F]),
            all(0xE0, &[0x00]),
            all(0xE6, &[0x00]),
        ],
        ..GDEY073D46.full
    },
    ..GDEY073D46
};

/// Black 0, white 1, yellow 2, red 3, blue 5, green 6; there is no 4.
pub const GDEP073E01: Script = Script {
    inks: &[0, 1, 2, 3, 5, 6],
    full: Pass {
        wake: &[
            Step::Settle,
            Step::PauseMs(30),
            all(0xAA, &[0x49, 0x55, 0x20, 0x08, 0x09, 0x18]),
            all(0x01, &[0x3F]),
            all(0x00, &[0x5F, 0x69]),
            all(0x03, &[0x00, 0x54, 0x00, 0x44]),
            all(0x05, &[0x40, 0x1F, 0x1F, 0x2C]),
            all(0x06, &[0x6F, 0x1F, 0x17, 0x49]),
            all(0x08, &[0x6F, 0x1F, 0x1F, 0x22]),
            all(0x30, &[0x03]),
            all(0x50, &[0x3F]),
            all(0x60, &[0x02, 0x00]),
            all(0x61, &[0x03, 0x20, 0x01, 0xE0]),
            all(0x84, &[0x01]),
            all(0xE3, &[0x2F]),
            all(0x04, &[]),
            Step::Settle,
        ],
        ..GDEY073D46.full
    },
    ..GDEY073D46
};

/// The same inks. Its maker waits 0.3 s before each command and sets the booster a second time
/// between power on and refresh.
pub const E673: Script = Script {
    reset: &[Reset::LowMs(30), Reset::HighMs(30)],
    select_ms: 300,
    full: Pass {
        wake: &[
            Step::Settle,
            all(0xAA, &[0x49, 0x55, 0x20, 0x08, 0x09, 0x18]),
            all(0x01, &[0x3F]),
            all(0x00, &[0x5F, 0x69]),
            all(0x05, &[0x40, 0x1F, 0x1F, 0x2C]),
            all(0x08, &[0x6F, 0x1F, 0x1F, 0x22]),
            all(0x06, &[0x6F, 0x1F, 0x17, 0x17]),
            all(0x03, &[0x00, 0x54, 0x00, 0x44]),
            all(0x60, &[0x02, 0x00]),
            all(0x30, &[0x08]),
            all(0x50, &[0x3F]),
            all(0x61, &[0x03, 0x20, 0x01, 0xE0]),
            all(0xE3, &[0x2F]),
            all(0x82, &[0x01]),
        ],
        refresh: &[
            all(0x04, &[]),
            Step::Settle,
            all(0x06, &[0x6F, 0x1F, 0x17, 0x49]),
            all(0x12, &[0x00]),
            Step::Refresh,
            all(0x02, &[0x00]),
            Step::Settle,
            all(0x00, &[0x4F, 0x6E]),
        ],
        ..GDEY073D46.full
    },
    ..GDEP073E01
};
