//! Boards and panels: their files, their README, and the commands about them.

use std::fs;
use std::path::Path;

use driftglass::board::check::check;
use driftglass::board::{Library, Verdict, tier_tables};
use driftglass::picture::Picture;

use super::command::{fail, run, succeed};
use super::fixtures::picture;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_readme_has_a_row_for_every_file() {
    let readme = fs::read_to_string(root().join("boards/README.md")).unwrap();
    let tables = tier_tables(&Library::embedded()).unwrap();
    assert!(
        readme.contains(&tables),
        "boards/README.md does not hold these tables:\n{tables}"
    );
}

#[test]
fn every_pair_fits_or_is_impossible_for_a_reason() {
    let library = Library::embedded();
    let (mut fit, mut impossible) = (0, 0);
    for (board_name, board) in library.boards().unwrap() {
        for (panel_name, panel) in library.panels().unwrap() {
            match check(&board, &panel) {
                Ok(Verdict::Fits) => fit += 1,
                Ok(Verdict::Impossible(because)) => {
                    assert!(panel.kind().is_wired(), "{panel_name} needs no header");
                    assert!(because.contains(&board.name), "{because}");
                    impossible += 1;
                }
                Err(error) => panic!("{board_name} + {panel_name}: {error}"),
            }
            // A Raspberry Pi carries everything.
            if board_name.starts_with("raspberry-pi") {
                let verdict = check(&board, &panel).unwrap();
                assert_eq!(verdict, Verdict::Fits, "{board_name} + {panel_name}");
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let printed = succeed(folder.path(), &["boards", "check"]);
    let last = format!("{fit} fit, {impossible} are impossible, 0 are wrong");
    assert_eq!(printed.lines().last(), Some(last.as_str()));
    let lines = printed.lines().count();
    assert_eq!(lines, fit + impossible + 1);
}

#[test]
fn files_are_listed_shown_and_found_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let boards = succeed(here, &["boards", "list"]);
    assert!(
        boards.contains("raspberry-pi-zero-2-w  tier 3  Raspberry Pi Zero 2 W: 4 x Cortex-A53")
    );
    let panels = succeed(here, &["boards", "panels"]);
    assert!(
        panels
            .lines()
            .any(|line| line.starts_with("hdmi ") && line.contains("drm"))
    );
    let file = fs::read_to_string(root().join("boards/panels/hdmi.toml")).unwrap();
    assert_eq!(succeed(here, &["boards", "show", "hdmi"]), file);
    let error = fail(here, &["boards", "show", "no-such-panel"], 1);
    assert!(error.contains("panel: expected one of"), "{error}");

    fs::create_dir_all(here.join("mine/panels")).unwrap();
    fs::write(
        here.join("mine/panels/hall.toml"),
        file.replace("HDMI screen", "The hall"),
    )
    .unwrap();
    let panels = succeed(here, &["boards", "panels", "--boards", "mine"]);
    assert!(panels.contains("The hall"), "{panels}");
    let error = fail(here, &["boards", "panels", "--boards", "nowhere"], 1);
    assert!(
        error.contains("nowhere: expected a folder of boards, found none"),
        "{error}"
    );
}

#[test]
fn a_wrong_file_is_named_with_its_line_and_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let file = fs::read_to_string(root().join("boards/panels/headless.toml")).unwrap();
    let line = 1 + file
        .lines()
        .position(|line| line.starts_with("width-px"))
        .unwrap();
    let wrong = file.replace("width-px = 512", "width-px = \"wide\"");
    fs::write(here.join("wrong.toml"), wrong).unwrap();
    let error = fail(here, &["boards", "check", "host", "wrong.toml"], 1);
    let sentence = format!(
        "wrong.toml:{line}: width-px: expected a whole number from 0 to 65535, found string \"wide\""
    );
    assert!(error.contains(&sentence), "{error}");

    // Facts that a file may say, and that cannot be.
    let tft = fs::read_to_string(root().join("boards/panels/waveshare-1-3-lcd-hat.toml")).unwrap();
    let line = tft
        .lines()
        .find(|line| line.starts_with("dc-gpio"))
        .unwrap();
    fs::write(here.join("taken.toml"), tft.replace(line, "dc-gpio = 11")).unwrap();
    let output = run(here, &["boards", "check", "raspberry-pi-4", "taken.toml"]);
    assert_eq!(output.status.code(), Some(3));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("WRONG") && printed.contains("the bus's clock"),
        "{printed}"
    );
}

#[test]
fn this_machine_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["boards", "detect", "headless"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(
        printed.starts_with("board: ") && printed.contains(", because "),
        "{printed}"
    );
    assert!(printed.ends_with("nothing is missing\n"), "{printed}");
    let panel = "waveshare-1-3-lcd-hat";
    let output = run(
        folder.path(),
        &["boards", "detect", panel, "--board", "raspberry-pi-4"],
    );
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("board: Raspberry Pi 4 Model B, because it was asked for"),
        "{printed}"
    );
    if !Path::new("/dev/spidev0.0").exists() {
        assert_eq!(output.status.code(), Some(3));
        let missing = "missing: /dev/spidev0.0: expected a device, found none\n    \
                       mend: dtparam=spi=on in /boot/firmware/config.txt";
        assert!(printed.contains(missing), "{printed}");
    }
}

/// A panel that is a file, of this size.
fn panel(folder: &Path, size_px: [u16; 2]) {
    let [width, height] = size_px;
    let text = format!(
        "name = \"A file\"\ntier = 1\nsource = \"a test\"\nkind = \"headless\"\n[headless]\n\
         path = \"out.png\"\nwidth-px = {width}\nheight-px = {height}\n"
    );
    fs::write(folder.join("panel.toml"), text).unwrap();
}

fn shown(folder: &Path) -> Picture {
    picture(&folder.join("out.png"))
}

#[test]
fn a_picture_file_is_shown_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    panel(here, [120, 80]);
    let red = Picture::filled(8, 8, [200, 0, 0]);
    fs::write(here.join("red.png"), red.encode_png(&[])).unwrap();
    let show = |more: &[&str]| {
        let arguments = [&["show", "red.png", "--panel", "./panel.toml"], more].concat();
        succeed(here, &arguments);
        shown(here)
    };
    let contained = show(&[]);
    assert_eq!(
        (contained.pixel(0, 40), contained.pixel(60, 0)),
        ([0; 3], [200, 0, 0])
    );
    assert_eq!(show(&["--fit", "cover"]).pixel(0, 40), [200, 0, 0]);
    let around = show(&["--background", "#102030"]);
    assert_eq!(around.pixel(0, 40), [0x10, 0x20, 0x30]);
    let error = fail(
        here,
        &[
            "show",
            "red.png",
            "--panel",
            "./panel.toml",
            "--rotation",
            "90",
        ],
        1,
    );
    assert!(
        error.contains("rotation: expected 0 for a panel of kind headless"),
        "{error}"
    );
    let error = fail(
        here,
        &[
            "show",
            "red.png",
            "--panel",
            "./panel.toml",
            "--rotation",
            "45",
        ],
        2,
    );
    assert!(error.contains("expected 0, 90, 180 or 270"), "{error}");
    let error = fail(
        here,
        &[
            "show",
            "red.png",
            "--panel",
            "./panel.toml",
            "--dither",
            "bayer",
        ],
        1,
    );
    assert!(error.contains("dither: expected none"), "{error}");
    fs::write(here.join("red.png"), "no picture").unwrap();
    assert!(fail(here, &["show", "red.png", "--panel", "./panel.toml"], 1).contains("red.png"));
}

#[test]
fn the_test_card_comes_with_its_advice() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    panel(here, [240, 240]);
    let printed = succeed(here, &["test-card", "--panel", "./panel.toml"]);
    assert!(printed.contains("red and blue are swapped") && printed.contains("color-order"));
    let card = shown(here);
    // The border is one pixel wide, all around.
    assert!((0..240).all(|x| card.pixel(x, 0) == card.pixel(0, 0)));
    assert!((0..240).all(|y| card.pixel(239, y) == card.pixel(0, 0)));
    assert_ne!(card.pixel(2, 120), card.pixel(0, 120));
    assert_eq!(
        succeed(here, &["test-card", "--panel", "./panel.toml", "--quiet"]),
        ""
    );
    let error = fail(
        here,
        &[
            "test-card",
            "--panel",
            "waveshare-1-3-lcd-hat",
            "--board",
            "host",
        ],
        1,
    );
    assert!(error.contains("expected a 40-pin header"), "{error}");
}
