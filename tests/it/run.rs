//! `driftglass run` and `sample --display`, until a signal ends them.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use driftglass::config::Config;
use driftglass::picture::Picture;

use super::command::{fail, succeed};
use super::fixtures::{picture, program};

const SOON: Duration = Duration::from_secs(60);

/// A panel that is a file.
const PANEL: &str = r#"
name = "A file"
tier = 1
source = "a test"
kind = "headless"
[headless]
path = "out.png"
width-px = 96
height-px = 64
steps-every-ms = 1
"#;

/// Starts the frame in `folder`; what it says goes to the file "log".
fn start(folder: &Path, arguments: &[&str]) -> Child {
    command(folder, arguments).spawn().unwrap()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut command = program();
    command
        .arg("run")
        .args(arguments)
        .current_dir(folder)
        .env_remove("DRIFTGLASS_MODELS")
        .env_remove("DRIFTGLASS_BOARDS")
        .env_remove("NOTIFY_SOCKET")
        .stdout(Stdio::null())
        .stderr(log);
    command
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap()
}

fn until(what: &str, folder: &Path, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "still not: {what}\n{}", log(folder));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to the program, which then must end by itself, successfully.
fn end(mut child: Child, signal: &str, folder: &Path) -> Duration {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status().unwrap();
    assert!(sent.success());
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}: {}", log(folder));
            return start.elapsed();
        }
        if start.elapsed() > SOON {
            child.kill().unwrap();
            panic!("it did not end: {}", log(folder));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn shown(folder: &Path) -> Picture {
    picture(&folder.join("out.png"))
}

#[test]
fn it_paints_one_after_the_other_until_a_signal_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("panel.toml"), PANEL).unwrap();
    let config = "panel = \"./panel.toml\"\nsteps = 3\nhold-s = 0\nfirst-seed = 7\n\
                  captions = [\"seed\"]\nprogress-line = true\n";
    fs::write(here.join("frame.toml"), config).unwrap();
    let child = start(here, &["--config", "frame.toml"]);
    until("two pictures", here, || {
        log(here).contains("seed 8 painted")
    });
    let took = end(child, "-TERM", here);
    assert!(took < SOON / 4, "{took:?}");
    let said = log(here);
    assert!(
        said.contains("panel: A file, because it was asked for"),
        "{said}"
    );
    assert!(said.contains("seed 7 painted in"), "{said}");
    assert_eq!((shown(here).width_px(), shown(here).height_px()), (96, 64));
    let names = fs::read_dir(here)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(
        names.count(),
        4,
        "the panel's file, and nothing half written"
    );
}

#[test]
fn ctrl_c_ends_a_picture_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("panel.toml"), PANEL).unwrap();
    let child = start(
        here,
        &[
            "--panel",
            "./panel.toml",
            "--steps",
            "2",
            "--hold",
            "3600",
            "--seed",
            "1",
        ],
    );
    until("a picture", here, || log(here).contains("seed 1 painted"));
    end(child, "-INT", here);
}

#[test]
fn a_service_manager_hears_that_it_is_ready_alive_and_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("panel.toml"), PANEL).unwrap();
    let manager = UnixDatagram::bind(here.join("notify")).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let told = || {
        let mut bytes = [0; 1024];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let arguments = ["--panel", "./panel.toml", "--steps", "2", "--seed", "5"];
    let child = command(here, &arguments)
        .env("NOTIFY_SOCKET", here.join("notify"))
        .env("WATCHDOG_USEC", "60000000")
        .spawn()
        .unwrap();
    let mut before_ready = told();
    while !before_ready.contains("READY=1") {
        assert!(
            before_ready.starts_with("EXTEND_TIMEOUT_USEC="),
            "{before_ready}"
        );
        before_ready = told();
    }
    assert!(
        here.join("out.png").exists(),
        "ready before the first pixel"
    );
    let mut alive = told();
    while !alive.contains("STATUS=seed 5 painted in") {
        assert!(alive.starts_with("WATCHDOG=1\nSTATUS=seed 5"), "{alive}");
        alive = told();
    }
    end(child, "-TERM", here);
    let mut last = told();
    while last != "STOPPING=1" {
        assert!(last.contains("WATCHDOG=1"), "{last}");
        last = told();
    }
}

#[test]
fn as_many_pictures_as_asked_and_the_last_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("panel.toml"), PANEL).unwrap();
    let arguments = [
        "run",
        "--panel",
        "./panel.toml",
        "--pictures",
        "2",
        "--hold",
        "0",
    ];
    let more = ["--steps", "2", "--seed", "3", "--quiet"];
    succeed(here, &[&arguments[..], &more].concat());
    let last = shown(here);
    // The same picture as `sample` paints, in the middle of the panel.
    succeed(
        here,
        &[
            "--seed",
            "4",
            "--steps",
            "2",
            "--precision",
            "fp16",
            "--scale",
            "1",
            "--out",
            "four.png",
        ],
    );
    succeed(here, &["show", "four.png", "--panel", "./panel.toml"]);
    let sampled = shown(here);
    if fs::read_to_string("/proc/device-tree/compatible").is_err() {
        assert!(last == sampled, "run and sample paint the same");
    }
}

#[test]
fn a_model_that_is_missing_becomes_a_card_on_the_panel() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("panel.toml"), PANEL).unwrap();
    let child = start(
        here,
        &[
            "--panel",
            "./panel.toml",
            "--model",
            "./no-model",
            "--hold",
            "0",
        ],
    );
    until("a card", here, || here.join("out.png").is_file());
    until("two tries", here, || {
        log(here).matches("no picture: ").count() >= 2
    });
    end(child, "-TERM", here);
    let card = shown(here);
    let white = (0..64).flat_map(|y| (0..96).map(move |x| [x, y]));
    assert!(
        white
            .filter(|[x, y]| card.pixel(*x, *y) == [255; 3])
            .count()
            > 50,
        "no letters"
    );
    assert!(log(here).contains("no-model"), "{}", log(here));
}

#[test]
fn a_panel_that_is_missing_is_told_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let lost = PANEL.replace("out.png", "unplugged/out.png");
    fs::write(here.join("panel.toml"), lost).unwrap();
    let child = start(
        here,
        &[
            "--panel",
            "./panel.toml",
            "--steps",
            "2",
            "--hold",
            "0",
            "--seed",
            "1",
        ],
    );
    until("three pictures", here, || {
        log(here).contains("seed 3 painted")
    });
    until("the fault", here, || {
        log(here).contains("panel: unplugged/out.png: ")
    });
    fs::create_dir(here.join("unplugged")).unwrap();
    until("the panel", here, || {
        here.join("unplugged/out.png").is_file()
    });
    end(child, "-TERM", here);
}

#[test]
fn a_wrong_file_of_the_owner_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("frame.toml"), "steps = 3\nhold = 5\n").unwrap();
    let error = fail(here, &["run", "--config", "frame.toml"], 1);
    assert!(
        error.contains("frame.toml:2: expected one of `board`"),
        "{error}"
    );
    assert!(error.contains("found the key `hold`"), "{error}");
    assert!(fail(here, &["run", "--config", "none.toml"], 1).contains("none.toml"));
    let error = fail(here, &["run", "--panel", "no-such-panel"], 1);
    assert!(error.contains("panel: expected one of"), "{error}");
}

#[test]
fn every_snippet_of_the_documentation_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    let text = fs::read_to_string(path).unwrap();
    let snippets: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(snippets.len() >= 5, "{} snippets", snippets.len());
    for snippet in &snippets {
        Config::parse("docs/config.md", snippet).unwrap();
    }
    // And every key is there.
    let all = toml::to_string(&Config {
        board: Some(String::new()),
        panel: Some(String::new()),
        model: Some(String::new()),
        precision: Some(driftglass::model::Precision::Fp16),
        steps: Some(1),
        threads: Some(1),
        class: Some(String::new()),
        guidance: Some(1.0),
        first_seed: Some(1),
        hold_s: Some(1),
        ..Config::default()
    });
    for line in all.unwrap().lines() {
        let key = line.split(" = ").next().unwrap();
        let documented = snippets.iter().any(|snippet| snippet.contains(key));
        assert!(documented, "docs/config.md: no snippet with `{key}`");
    }
}

#[test]
fn the_packages_own_file_asks_for_nothing_and_every_key_in_it_holds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/debian/config.toml");
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(
        Config::parse("config.toml", &text).unwrap(),
        Config::default()
    );
    let asked = text.lines().filter_map(|line| line.strip_prefix('#'));
    let asked: Vec<&str> = asked.filter(|line| !line.starts_with(' ')).collect();
    assert!(asked.len() >= 5, "{asked:?}");
    Config::parse("config.toml", &asked.join("\n")).unwrap();
}

#[test]
fn sample_shows_its_pictures_on_a_panel() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("panel.toml"), PANEL).unwrap();
    let arguments = [
        "--seed", "9", "--steps", "3", "--scale", "1", "--out", "nine.png",
    ];
    succeed(
        here,
        &[&["sample", "--display", "./panel.toml"], &arguments[..]].concat(),
    );
    let painted = picture(&here.join("nine.png"));
    let on_panel = shown(here);
    succeed(here, &["show", "nine.png", "--panel", "./panel.toml"]);
    assert!(on_panel == shown(here));
    assert_eq!(painted.width_px(), 32);
    let error = fail(here, &["sample", "--display", "nowhere"], 1);
    assert!(error.contains("panel: expected one of"), "{error}");
}

#[test]
fn a_slow_panel_does_not_delay_the_painter() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let slow = PANEL.replace("kind = ", "pretend-ms = 700\nkind = ");
    fs::write(here.join("slow.toml"), slow).unwrap();
    let start = Instant::now();
    let arguments = [
        "sample",
        "--display",
        "./slow.toml",
        "--steps",
        "40",
        "--count",
        "2",
    ];
    succeed(
        here,
        &[&arguments[..], &["--quiet", "--scale", "1"]].concat(),
    );
    // Eighty steps and two pictures, one after the other, would take 57 s on this panel alone.
    assert!(
        start.elapsed() < Duration::from_secs(40),
        "{:?}",
        start.elapsed()
    );
}
