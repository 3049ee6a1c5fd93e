//! UC8179, 800 by 480: black and white, four greys, or black, white and red.
//!
//! Bytes as in Waveshare's own drivers (waveshareteam/e-Paper, commit 86aa993,
//! `RaspberryPi_JetsonNano/python/lib/waveshare_epd/epd7in5_V2.py` and `epd7in5b_V2.py`).
//! epd-waveshare 0.6 knows the controller, but waits for ever for a busy line and takes an error
//! of it for idle.

use super::script::{Chips, Packing, Pass, Picture, Plane, Reset, Script, Step, Window, all};

const SIZE_PX: [usize; 2] = [800, 480];

const RESET: &[Reset] = &[Reset::HighMs(20), Reset::LowMs(2), Reset::HighMs(20)];

/// Booster soft start, power, panel (black and white, waveforms of its own memory), resolution,
/// no dual SPI, border and data polarity (1 is black), gate timing: `init`.
const WAKE: &[Step] = &[
    all(0x06, &[0x17, 0x17, 0x28, 0x17]),
    all(0x01, &[0x07, 0x07, 0x28, 0x17]),
    all(0x04, &[]),
    Step::PauseMs(100),
    Step::Settle,
    all(0x00, &[0x1F]),
    all(0x61, &[0x03, 0x20, 0x01, 0xE0]),
    all(0x15, &[0x00]),
    all(0x50, &[0x10, 0x07]),
    all(0x60, &[0x22]),
];

/// The border floats, power is off, deep sleep: `sleep`.
const SLEEP: &[Step] = &[
    all(0x50, &[0xF7]),
    all(0x02, &[]),
    Step::Settle,
    all(0x07, &[0xA5]),
];

const REFRESH: &[Step] = &[all(0x12, &[]), Step::Refresh];

const fn bits(command: u8, picture: Picture, inks: &'static [u8]) -> Plane {
    Plane {
        chips: Chips::All,
        command,
        picture,
        packing: Packing::BitsSetFor(inks),
    }
}

/// Black 0, white 1.
pub const BLACK_WHITE: Script = Script {
    size_px: SIZE_PX,
    chips: 1,
    inks: &[0, 1],
    reset: RESET,
    select_ms: 0,
    full: Pass {
        wake: WAKE,
        // `display`: the old picture is sent as the new one's opposite, so that every pixel moves.
        planes: &[
            bits(0x10, Picture::Wanted, &[1]),
            bits(0x13, Picture::Wanted, &[0]),
        ],
        refresh: REFRESH,
        refresh_ms_min: 500,
    },
    partial: Some(Pass {
        // `init_part`, and the data polarity of `display_Partial` (1 is white).
        wake: &[
            all(0x00, &[0x1F]),
            all(0x04, &[]),
            Step::PauseMs(100),
            Step::Settle,
            all(0xE0, &[0x02]),
            all(0xE5, &[0x6E]),
            all(0x50, &[0xA9, 0x07]),
        ],
        // The old picture too, for deep sleep forgets it.
        planes: &[
            bits(0x10, Picture::Shown, &[1]),
            bits(0x13, Picture::Wanted, &[1]),
        ],
        refresh: REFRESH,
        refresh_ms_min: 100,
    }),
    sleep: SLEEP,
};

/// Black 0, dark grey 1, light grey 2, white 3: `init_4Gray` and `display_4Gray`.
pub const GREYS: Script = Script {
    inks: &[0, 1, 2, 3],
    full: Pass {
        wake: &[
            all(0x00, &[0x1F]),
            all(0x50, &[0x10, 0x07]),
            all(0x04, &[]),
            Step::PauseMs(100),
            Step::Settle,
            all(0x06, &[0x27, 0x27, 0x18, 0x17]),
            all(0xE0, &[0x02]),
            all(0xE5, &[0x5F]),
        ],
        planes: &[
            bits(0x10, Picture::Wanted, &[0, 2]),
            bits(0x13, Picture::Wanted, &[0, 1]),
        ],
        refresh: REFRESH,
        refresh_ms_min: 500,
    },
    partial: None,
    ..BLACK_WHITE
};

/// Black 0, white 1, red 2: `epd7in5b_V2.py`, whose black plane is white where the red one is set.
pub const RED: Script = Script {
    inks: &[0, 1, 2],
    reset: &[Reset::HighMs(200), Reset::LowMs(4), Reset::HighMs(200)],
    full: Pass {
        wake: &[
            all(0x01, &[0x07, 0x07, 0x3F, 0x3F]),
            all(0x06, &[0x17, 0x17, 0x28, 0x17]),
            all(0x04, &[]),
            Step::PauseMs(100),
            Step::Settle,
            all(0x00, &[0x0F]),
            all(0x61, &[0x03, 0x20, 0x01, 0xE0]),
            all(0x15, &[0x00]),
            all(0x50, &[0x11, 0x07]),
            all(0x60, &[0x22]),
        ],
        planes: &[
            bits(0x10, Picture::Wanted, &[1, 2]),
            bits(0x13, Picture::Wanted, &[2]),
        ],
        refresh: REFRESH,
        refresh_ms_min: 3000,
    },
    partial: None,
    sleep: &[all(0x02, &[]), Step::Settle, all(0x07, &[0xA5])],
    ..BLACK_WHITE
};

/// The commands that confine what follows to `window`: into partial mode, and its edges, the last
/// included (`display_Partial`).
pub fn window(window: Window) -> [(u8, Vec<u8>); 2] {
    let edges = [window.left, window.right - 1, window.top, window.bottom - 1];
    let edges = edges.map(|edge| [(edge >> 8) as u8, edge as u8]);
    let mut data = edges.concat();
    data.push(0x01);
    [(0x91, Vec::new()), (0x90, data)]
}
