//! The window on an X server without a screen: what is seen and heard.
//!
//! They run where Xvfb and xdotool are installed, and say so where they are not. winit believes
//! the environment, so each test starts this binary again with `DISPLAY` set: there it is
//! [`in_front_of_the_server`], which does what it is told line by line.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use driftglass::display::window::{Facts, Key, Window};
use driftglass::display::{Damage, Display, Frame, Power, Rotation};
use driftglass::picture::Picture;

/// The size of the server's screen.
const SCREEN: [usize; 2] = [800, 600];

/// An X server that keeps its screen in a file.
struct Server {
    child: Child,
    display: String,
    folder: tempfile::TempDir,
}

impl Server {
    /// `None` where something is not installed.
    fn start() -> Option<Self> {
        let found = |program: &str| {
            let found = Command::new(program)
                .arg("-version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if found.is_err() {
                eprintln!("skipped: {program} is not installed");
            }
            found.is_ok()
        };
        if !found("Xvfb") || !found("xdotool") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let [width, height] = SCREEN;
        let mut child = Command::new("Xvfb")
            .args([
                "-displayfd",
                "1",
                "-nolisten",
                "tcp",
                "-noreset",
                "-screen",
                "0",
            ])
            .arg(format!("{width}x{height}x24"))
            .arg("-fbdir")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut number = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut number)
            .unwrap();
        let display = format!(":{}", number.trim());
        Some(Self {
            child,
            display,
            folder,
        })
    }

    /// The whole screen (the X Window Dump format, XWDFile.h: 32-bit numbers, then the pixels).
    fn screen(&self) -> Picture {
        let path: PathBuf = self.folder.path().join("Xvfb_screen0");
        let bytes = std::fs::read(path).unwrap();
        let number =
            |at: usize| u32::from_be_bytes(bytes[4 * at..][..4].try_into().unwrap()) as usize;
        let (header, width, height) = (number(0), number(4), number(5));
        let (bits, line_bytes, colours) = (number(11), number(12), number(19));
        assert_eq!((bits, [width, height]), (32, SCREEN));
        let pixels = &bytes[header + 12 * colours..];
        let rows = pixels.chunks(line_bytes).take(height);
        // Little-endian 0x00RRGGBB.
        let rgb = rows.flat_map(|row| row[..4 * width].chunks(4).flat_map(|p| [p[2], p[1], p[0]]));
        Picture::new(width, height, rgb.collect())
    }

    /// The part of the screen where something is not black: left, top, and the picture.
    fn lit(&self) -> Option<([usize; 2], Picture)> {
        let screen = self.screen();
        let [width, height] = SCREEN;
        let is_lit = |x: usize, y: usize| screen.pixel(x, y) != [0; 3];
        let columns: Vec<usize> = (0..width)
            .filter(|x| (0..height).any(|y| is_lit(*x, y)))
            .collect();
        let rows: Vec<usize> = (0..height)
            .filter(|y| (0..width).any(|x| is_lit(x, *y)))
            .collect();
        let (left, right) = (*columns.first()?, *columns.last()?);
        let (top, bottom) = (*rows.first()?, *rows.last()?);
        let places = (top..=bottom).flat_map(|y| (left..=right).map(move |x| (x, y)));
        let rgb = places.flat_map(|(x, y)| screen.pixel(x, y)).collect();
        Some((
            [left, top],
            Picture::new(right - left + 1, bottom - top + 1, rgb),
        ))
    }

    /// Waits until the screen shows exactly this, wherever it is; its place.
    fn await_picture(&self, expected: &Picture) -> [usize; 2] {
        let start = Instant::now();
        loop {
            let lit = self.lit();
            if let Some((place, picture)) = &lit
                && picture == expected
            {
                return *place;
            }
            if start.elapsed() > Duration::from_secs(20) {
                let seen = std::env::temp_dir().join("driftglass-window-seen.png");
                std::fs::write(&seen, self.screen().encode_png(&[])).unwrap();
                let lit =
                    lit.map(|(place, picture)| (place, picture.width_px(), picture.height_px()));
                panic!(
                    "expected {expected:?}, the screen is in {}: {lit:?}",
                    seen.display()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn await_black(&self) {
        let start = Instant::now();
        while self.lit().is_some() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the screen is not black"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn xdotool(&self, arguments: &[&str]) -> String {
        let ended = Command::new("xdotool")
            .args(arguments)
            .env("DISPLAY", &self.display)
            .output()
            .unwrap();
        assert!(ended.status.success(), "xdotool {arguments:?}: {ended:?}");
        String::from_utf8(ended.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The other process.
struct Inner {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Inner {
    fn start(server: &Server, facts: &Facts) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--include-ignored"])
            .arg(
                concat!(module_path!(), "::in_front_of_the_server")
                    .split_once("::")
                    .unwrap()
                    .1,
            )
            .env("DISPLAY", &server.display)
            .env_remove("WAYLAND_DISPLAY")
            .env("DRIFTGLASS_TEST_WINDOW", toml::to_string(facts).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut inner = Self {
            child,
            orders,
            answers,
        };
        assert_eq!(inner.answer(), "open");
        inner
    }

    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.answer()
    }

    /// The next line of those that begin with a mark, since libtest writes its own.
    fn answer(&mut self) -> String {
        loop {
            let line = self
                .answers
                .next()
                .expect("the other process goes on")
                .unwrap();
            if let Some((_, answer)) = line.split_once("> ") {
                return answer.to_owned();
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// 16 by 8 pixels, none of them black.
fn picture(seed: usize) -> Picture {
    let shade = |at: usize| 1 + ((at + 1) * (at + seed) % 250) as u8;
    Picture::new(16, 8, (0..3 * 16 * 8).map(shade).collect())
}

#[test]
#[ignore = "is started by the tests below, in a process of its own"]
fn in_front_of_the_server() {
    let Ok(facts) = std::env::var("DRIFTGLASS_TEST_WINDOW") else {
        eprintln!("skipped: nobody says what to show");
        return;
    };
    let facts: Facts = toml::from_str(&facts).unwrap();
    let env = |name: &str| std::env::var(name).ok();
    let (mut window, mut keys) = Window::open(&facts, env).unwrap();
    println!("> open");
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let told = |result: driftglass::error::Result<()>| match result {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        let answer = match order.split_once(' ').unwrap_or((&order, "")) {
            ("show", seed) => {
                let frame = Frame::from(&picture(seed.parse().unwrap()));
                told(window.show(&frame, Damage::Changed))
            }
            ("off", _) => told(window.power(Power::Off)),
            ("size", _) => format!("{:?}", window.info().size_px),
            ("key", _) => format!("{:?}", keys.recv_timeout(Duration::from_secs(20))),
            ("nothing", _) => format!("{:?}", keys.try_recv().ok()),
            ("again", _) => {
                drop(window);
                (window, keys) = Window::open(&facts, env).unwrap();
                "open".to_owned()
            }
            _ => panic!("unknown order {order}"),
        };
        println!("> {answer}");
    }
}

#[test]
fn the_screen_shows_the_picture_at_every_size() {
    let Some(server) = Server::start() else {
        return;
    };
    let facts = Facts {
        title: "a frame".to_owned(),
        width_px: Some(16),
        height_px: Some(8),
        ..Facts::default()
    };
    let mut inner = Inner::start(&server, &facts);
    assert_eq!(inner.order("size"), "[16, 8]");
    assert_eq!(inner.order("show 1"), "done");
    // 512 by 256, as large as a window should at least be.
    server.await_picture(&picture(1).enlarged(32));
    assert_eq!(inner.order("show 2"), "done");
    let [left, top] = server.await_picture(&picture(2).enlarged(32));

    let id = server.xdotool(&["search", "--name", "^a frame$"]);
    for (width, height, factor) in [(700, 600, 43), (100, 500, 6), (47, 20, 2)] {
        server.xdotool(&["windowsize", &id, &width.to_string(), &height.to_string()]);
        let place = server.await_picture(&picture(2).enlarged(factor));
        let margins = [width - 16 * factor, height - 8 * factor].map(|margin| margin / 2);
        assert_eq!(place, [left + margins[0], top + margins[1]]);
    }
    // Smaller than the picture: shrunk, all of it.
    server.xdotool(&["windowsize", &id, "8", "8"]);
    server.await_picture(&picture(2).fitted(8, 4));
    server.xdotool(&["windowsize", &id, "160", "80"]);
    server.await_picture(&picture(2).enlarged(10));

    assert_eq!(inner.order("off"), "done");
    server.await_black();
    assert_eq!(inner.order("show 2"), "done");
    server.await_picture(&picture(2).enlarged(10));

    // Covered by another window and exposed again.
    let mut cover = Inner::start(&server, &facts);
    assert_eq!(cover.order("show 5"), "done");
    server.await_picture(&picture(5).enlarged(32));
    drop(cover);
    server.await_picture(&picture(2).enlarged(10));

    // The one event loop of the process serves another window.
    assert_eq!(inner.order("again"), "open");
    server.await_black();
    assert_eq!(inner.order("show 3"), "done");
    server.await_picture(&picture(3).enlarged(32));
}

#[test]
fn a_smooth_window_is_as_large_as_its_frames_or_scales_them() {
    let Some(server) = Server::start() else {
        return;
    };
    let facts: Facts =
        toml::from_str("title = 'smooth'\nscaling = 'smooth'\nrotation-deg = 90").unwrap();
    assert_eq!(facts.rotation_deg, Rotation::Deg90);
    let mut inner = Inner::start(&server, &facts);
    assert_eq!(inner.order("size"), "[512, 512]");
    let id = server.xdotool(&["search", "--name", "^smooth$"]);
    server.xdotool(&["windowsize", &id, "300", "200"]);
    let start = Instant::now();
    // Turned by a quarter, the viewer sees the window's height as the width.
    while inner.order("size") != "[200, 300]" {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(inner.order("show 1"), "done");
    let frame = picture(1);
    let turned = (0..16).flat_map(|y| (0..8).map(move |x| (y, 7 - x)));
    let turned = turned
        .flat_map(|(column, row)| frame.pixel(column, row))
        .collect();
    let place = server.await_picture(&Picture::new(8, 16, turned).fitted(100, 200));
    assert_eq!(place[0] % 300, 100);
}

#[test]
fn keys_are_heard() {
    let Some(server) = Server::start() else {
        return;
    };
    let facts = Facts {
        title: "keys".to_owned(),
        width_px: Some(16),
        height_px: Some(8),
        ..Facts::default()
    };
    let mut inner = Inner::start(&server, &facts);
    assert_eq!(inner.order("show 1"), "done");
    server.await_picture(&picture(1).enlarged(32));
    // Without a window manager nobody gives the focus.
    let id = server.xdotool(&["search", "--name", "^keys$"]);
    server.xdotool(&["windowfocus", "--sync", &id]);
    for (key, expected) in [
        ("space", Key::Next),
        ("Right", Key::Next),
        ("n", Key::Next),
        ("p", Key::Pause),
        ("shift+p", Key::Pause),
    ] {
        server.xdotool(&["key", key]);
        assert_eq!(inner.order("key"), format!("Ok({expected:?})"), "{key}");
    }
    server.xdotool(&["key", "x", "F11", "f"]);
    server.xdotool(&["key", "Escape"]);
    assert_eq!(inner.order("key"), "Ok(Close)");
    server.await_black();
    let closed = "window: expected an open window, found a closed one";
    assert_eq!(inner.order("show 2"), closed);
    assert_eq!(inner.order("show 2"), closed);
}

#[test]
fn a_server_that_goes_away_is_told_or_ends_the_process() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut inner = Inner::start(&server, &Facts::default());
    assert_eq!(inner.order("show 1"), "done");
    drop(server);
    let start = Instant::now();
    for seed in 2.. {
        // libX11 ends the process where it notices first, and winit panics where it does.
        if writeln!(inner.orders, "show {seed}").is_err() {
            break;
        }
        let answer = inner
            .answers
            .find_map(|line| Some(line.unwrap().split_once("> ")?.1.to_owned()));
        match answer.as_deref() {
            Some("done") => {}
            Some(error) => {
                assert!(
                    error.starts_with("window: expected a desktop that shows it, found "),
                    "{error}"
                );
                let again = inner.order("show 1");
                assert_eq!(
                    again,
                    "window: expected a desktop that shows it, found one that went away; start again"
                );
                break;
            }
            None => break,
        }
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(50));
    }
}
