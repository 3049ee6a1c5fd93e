//! Choices on recorded tables: what real machines said of their cards.

use super::*;

fn encoder(id: u32, crtc: u32, possible_crtcs: u32) -> Encoder {
    Encoder {
        id,
        possible_crtcs,
        crtc: (crtc != 0).then_some(crtc),
    }
}

fn connector(id: u32, encoder: u32, name: &str, modes: &[Timing], encoders: &[u32]) -> Connector {
    Connector {
        id,
        name: name.into(),
        state: if modes.is_empty() {
            State::Disconnected
        } else {
            State::Connected
        },
        modes: modes.to_vec(),
        encoders: encoders.to_vec(),
        encoder: (encoder != 0).then_some(encoder),
    }
}

/// "1920x1080@60", with "i" if it is interlaced and "!" if it is preferred.
fn timing(text: &str) -> Timing {
    let plain = text.trim_end_matches(['i', '!']);
    let mode: Mode = plain.parse().unwrap();
    Timing {
        size_px: mode.size_px,
        refresh_hz: mode.refresh_hz.unwrap(),
        preferred: text.contains('!'),
        progressive: !text.contains('i'),
    }
}

fn timings(texts: &[&str]) -> Vec<Timing> {
    texts.iter().map(|text| timing(text)).collect()
}

/// A card that computes and shows nothing: asked for its resources it says EOPNOTSUPP.
fn v3d(name: &str) -> Card {
    Card {
        name: name.into(),
        dumb_buffers: false,
        resources: Resources::default(),
    }
}

/// A Pi 4 with a wide monitor at HDMI-A-1: `modetest` in raspberrypi/linux#4695. Encoders, masks and
/// the connector are as printed there; of the CRTCs 76, the one in use, was printed at the place of
/// the mask's fourth bit, and the numbers of the others are reconstructed.
fn pi4_hdmi(name: &str) -> Card {
    let modes = timings(&[
        "3440x1440@60!",
        "3440x1440@100",
        "3440x1440@100",
        "2560x1440@60",
        "2560x1080@60",
        "1920x1080@60",
        "1920x1080@60i",
        "1920x1080@50",
        "1280x720@60",
        "1280x720@50",
        "720x576@50",
        "640x480@60",
    ]);
    Card {
        name: name.into(),
        dumb_buffers: true,
        resources: Resources {
            connectors: vec![
                connector(32, 31, "HDMI-A-1", &modes, &[31]),
                connector(40, 0, "HDMI-A-2", &[], &[39]),
            ],
            encoders: vec![
                encoder(31, 76, 0b0_1000),
                encoder(39, 0, 0b1_0000),
                encoder(47, 0, 0b0_0001),
            ],
            crtcs: vec![50, 59, 68, 76, 84],
        },
    }
}

/// A Pi 4 with the first 7" touch display: `kmsprint` in raspberrypi/linux#6078. The masks of the
/// encoders are reconstructed, that of DSI from the line "Crtc 2 (86)".
fn pi4_dsi(name: &str) -> Card {
    let modes = timings(&["800x480@60!"]);
    Card {
        name: name.into(),
        dumb_buffers: true,
        resources: Resources {
            connectors: vec![
                connector(32, 0, "HDMI-A-1", &[], &[31]),
                connector(41, 0, "HDMI-A-2", &[], &[40]),
                connector(46, 45, "DSI-1", &modes, &[45]),
                connector(53, 0, "Writeback-1", &[], &[52]),
            ],
            encoders: vec![
                encoder(31, 0, 0b00_1000),
                encoder(40, 0, 0b01_0000),
                encoder(45, 86, 0b00_0100),
                encoder(52, 0, 0b00_0001),
            ],
            crtcs: vec![64, 75, 86, 97, 108],
        },
    }
}

/// A Pi 5 (Compute Module 5) with a full HD monitor: `kmsprint` in raspberrypi/linux#7363 names
/// encoder 32 and "Crtc 2 (92)"; that mop and moplet, which only write back, are the first two
/// CRTCs is from raspberrypi/linux#6035. Connector numbers and masks are reconstructed.
fn pi5_hdmi(name: &str, modes: &[Timing]) -> Card {
    let driven = if modes.is_empty() { [0, 0] } else { [32, 92] };
    Card {
        name: name.into(),
        dumb_buffers: true,
        resources: Resources {
            connectors: vec![
                connector(33, driven[0], "HDMI-A-1", modes, &[32]),
                connector(43, 0, "HDMI-A-2", &[], &[42]),
            ],
            encoders: vec![
                encoder(32, driven[1], 0b0100),
                encoder(42, 0, 0b1000),
                encoder(52, 0, 0b0001),
                encoder(67, 0, 0b0010),
            ],
            crtcs: vec![61, 78, 92, 103],
        },
    }
}

/// RP1's own card of a Pi 5 for a DSI panel: one of each; numbers reconstructed from the driver
/// (drm-rp1-dsi makes a simple display pipe).
fn pi5_dsi(name: &str) -> Card {
    Card {
        name: name.into(),
        dumb_buffers: true,
        resources: Resources {
            connectors: vec![connector(
                36,
                0,
                "DSI-2",
                &timings(&["720x1280@60!"]),
                &[35],
            )],
            encoders: vec![encoder(35, 0, 0b1)],
            crtcs: vec![34],
        },
    }
}

/// RP1's card for composite video, which never knows whether there is a screen.
fn pi5_composite(name: &str) -> Card {
    let modes = timings(&["720x480@30i!", "720x576@25i"]);
    let mut socket = connector(36, 0, "Composite-1", &modes, &[35]);
    socket.state = State::Unknown;
    Card {
        name: name.into(),
        dumb_buffers: true,
        resources: Resources {
            connectors: vec![socket],
            encoders: vec![encoder(35, 0, 0b1)],
            crtcs: vec![34],
        },
    }
}

/// A board with a Mali whose encoders can each be fed from two CRTCs: `modetest` in
/// ardera/flutter-pi#412; the first CRTC's number is reconstructed.
fn rockchip_dsi(name: &str) -> Card {
    let modes = timings(&["480x854@60!"]);
    Card {
        name: name.into(),
        dumb_buffers: true,
        resources: Resources {
            connectors: vec![connector(164, 163, "DSI-1", &modes, &[163])],
            encoders: vec![encoder(161, 0, 0b11), encoder(163, 93, 0b10)],
            crtcs: vec![75, 93],
        },
    }
}

fn facts(toml: &str) -> Facts {
    toml::from_str(toml).unwrap()
}

/// Card, connector, CRTC and mode by name, as a person reads them.
fn chosen(cards: &[Card], facts: &Facts, before_px: Option<[u16; 2]>) -> String {
    match choose(cards, facts, before_px) {
        Ok(Outcome::NoScreen) => "no screen".into(),
        Ok(Outcome::Screen(choice)) => {
            let card = &cards[choice.card];
            let mut connectors = card.resources.connectors.iter();
            let socket = connectors.find(|socket| socket.id == choice.connector);
            let socket = socket.unwrap();
            let Timing {
                size_px: [w, h],
                refresh_hz,
                progressive,
                ..
            } = socket.modes[choice.mode];
            let scan = if progressive { "" } else { "i" };
            format!(
                "{} {} {} {w}x{h}@{refresh_hz}{scan}",
                card.name, socket.name, choice.crtc
            )
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_pi_4_is_fed_from_the_fourth_crtc_whatever_its_cards_are_called() {
    let no_wishes = Facts::default();
    let cards = [v3d("card0"), pi4_hdmi("card1")];
    assert_eq!(
        chosen(&cards, &no_wishes, None),
        "card1 HDMI-A-1 76 3440x1440@60"
    );
    let cards = [pi4_hdmi("card0"), v3d("card1")];
    assert_eq!(
        chosen(&cards, &no_wishes, None),
        "card0 HDMI-A-1 76 3440x1440@60"
    );
}

#[test]
fn a_mode_is_taken_as_asked_for() {
    let cards = [v3d("card0"), pi4_hdmi("card1")];
    let mode = |mode: &str| chosen(&cards, &facts(&format!("mode = {mode:?}")), None);
    assert_eq!(mode("1280x720"), "card1 HDMI-A-1 76 1280x720@60");
    assert_eq!(mode("1280x720@50"), "card1 HDMI-A-1 76 1280x720@50");
    assert_eq!(mode("1920x1080"), "card1 HDMI-A-1 76 1920x1080@60");
    assert_eq!(
        mode("1366x768"),
        "mode of HDMI-A-1: expected 3440x1440@60, 3440x1440@100, 2560x1440@60, 2560x1080@60, \
         1920x1080@60, 1920x1080@50, 1280x720@60, 1280x720@50, 720x576@50, 640x480@60, \
         found 1366x768"
    );
}

#[test]
fn a_screen_that_comes_back_keeps_its_size_if_it_can() {
    let cards = [v3d("card0"), pi4_hdmi("card1")];
    let before = |px| chosen(&cards, &Facts::default(), Some(px));
    assert_eq!(before([1920, 1080]), "card1 HDMI-A-1 76 1920x1080@60");
    assert_eq!(before([1024, 600]), "card1 HDMI-A-1 76 3440x1440@60");
}

#[test]
fn the_touch_display_of_a_pi_4_is_fed_from_the_third() {
    let cards = [v3d("card0"), pi4_dsi("card1")];
    let expected = "card1 DSI-1 86 800x480@60";
    assert_eq!(chosen(&cards, &Facts::default(), None), expected);
    assert_eq!(
        chosen(&cards, &facts("connector = \"DSI\""), None),
        expected
    );
    assert_eq!(
        chosen(&cards, &facts("connector = \"HDMI-A\""), None),
        "no screen"
    );
    assert_eq!(
        chosen(&cards, &facts("connector = \"DSI-2\""), None),
        "connector: expected HDMI-A-1, HDMI-A-2, DSI-1, found \"DSI-2\""
    );
}

#[test]
fn a_pi_5_is_fed_from_a_crtc_that_does_not_write_back() {
    let modes = timings(&["1920x1080@60!", "1280x720@60"]);
    let orders = [
        ["card0", "card1", "card2", "card3"],
        ["card3", "card0", "card2", "card1"],
    ];
    for [a, b, c, d] in orders {
        let cards = [v3d(a), pi5_composite(b), pi5_hdmi(c, &modes), pi5_dsi(d)];
        let chosen = |toml| chosen(&cards, &facts(toml), None);
        assert_eq!(chosen(""), format!("{c} HDMI-A-1 92 1920x1080@60"));
        assert_eq!(
            chosen("connector = \"DSI\""),
            format!("{d} DSI-2 34 720x1280@60")
        );
        let composite = format!("{b} Composite-1 34 720x480@30i");
        assert_eq!(chosen("connector = \"Composite\""), composite);
    }
}

#[test]
fn a_screen_that_is_still_off_is_waited_for() {
    let cards = [v3d("card0"), pi5_composite("card1"), pi5_hdmi("card2", &[])];
    assert_eq!(chosen(&cards, &Facts::default(), None), "no screen");
    // Nothing drives the socket yet when its screen is switched on: its CRTC is still known.
    let mut on = pi5_hdmi("card2", &timings(&["1920x1080@60!"]));
    on.resources.connectors[0].encoder = None;
    on.resources.encoders[0].crtc = None;
    let cards = [v3d("card0"), pi5_composite("card1"), on];
    let expected = "card2 HDMI-A-1 92 1920x1080@60";
    assert_eq!(chosen(&cards, &Facts::default(), None), expected);
}

#[test]
fn a_pi_5_with_an_spi_display_alone_shows_there() {
    // RPi-Distro/vlc#102: card2 has SPI-1, card1 (vc4 without HDMI) no connector, card0 is v3d.
    let spi = Card {
        name: "card2".into(),
        dumb_buffers: true,
        resources: Resources {
            connectors: vec![connector(
                31,
                34,
                "SPI-1",
                &timings(&["240x240@60!"]),
                &[34],
            )],
            encoders: vec![encoder(34, 33, 0b1)],
            crtcs: vec![33],
        },
    };
    let vc4 = Card {
        name: "card1".into(),
        dumb_buffers: true,
        resources: Resources::default(),
    };
    let cards = [v3d("card0"), vc4, spi];
    assert_eq!(
        chosen(&cards, &Facts::default(), None),
        "card2 SPI-1 33 240x240@60"
    );
}

#[test]
fn of_two_cards_with_screens_the_named_one_is_taken() {
    let modes = timings(&["1920x1080@60!"]);
    let cards = [rockchip_dsi("card0"), pi5_hdmi("card1", &modes)];
    let chosen = |toml| chosen(&cards, &facts(toml), None);
    assert_eq!(chosen(""), "card1 HDMI-A-1 92 1920x1080@60");
    assert_eq!(chosen("card = \"card0\""), "card0 DSI-1 93 480x854@60");
    assert_eq!(
        chosen("card = \"/dev/dri/card0\""),
        "card0 DSI-1 93 480x854@60"
    );
    assert_eq!(
        chosen("card = \"card7\""),
        "card: expected card0, card1, found \"card7\""
    );
}

#[test]
fn a_crtc_that_feeds_another_screen_is_left_to_it() {
    let mut card = rockchip_dsi("card0");
    let modes = timings(&["1920x1080@60!"]);
    card.resources
        .connectors
        .push(connector(170, 0, "HDMI-A-1", &modes, &[161]));
    assert_eq!(
        chosen(&[card], &Facts::default(), None),
        "card0 HDMI-A-1 75 1920x1080@60"
    );
}

#[test]
fn a_machine_without_a_usable_card_says_what_mends_it() {
    let expected = "/dev/dri: expected a card with a connector and plain buffers (on a Raspberry \
                    Pi: dtoverlay=vc4-kms-v3d in config.txt), found ";
    assert_eq!(
        chosen(&[], &Facts::default(), None),
        format!("{expected}none")
    );
    let cards = [v3d("card0")];
    assert_eq!(
        chosen(&cards, &Facts::default(), None),
        format!("{expected}card0")
    );
}

#[test]
fn interlaced_modes_are_a_last_resort() {
    let modes = timings(&["1920x1080@30i!", "1920x1080@60", "1280x720@60"]);
    let cards = [pi5_hdmi("card0", &modes)];
    let chosen = |toml| chosen(&cards, &facts(toml), None);
    assert_eq!(chosen(""), "card0 HDMI-A-1 92 1920x1080@60");
    assert_eq!(
        chosen("mode = \"1920x1080\""),
        "card0 HDMI-A-1 92 1920x1080@60"
    );
    assert_eq!(
        chosen("mode = \"1920x1080@30\""),
        "card0 HDMI-A-1 92 1920x1080@30i"
    );
}
