//! Raw frames as receivers get them, the documented one and unruly ones.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use driftglass::display::raw::{Destination, Facts, Protocol, Raw};
use driftglass::display::{Damage, Display, Frame, Mirror, Power, Rotation};
use driftglass::picture::Picture;

fn facts(to: &str, width_px: u16, height_px: u16) -> Facts {
    Facts {
        to: to.parse().unwrap(),
        protocol: Protocol::Driftglass,
        width_px,
        height_px,
        rotation_deg: Rotation::Deg0,
        mirror: Mirror::No,
        repeat_ms: None,
    }
}

fn frame(width: usize, height: usize, seed: usize) -> Frame {
    let shade = |at: usize| ((at + seed) * (at + 7) % 253) as u8;
    Frame::from(&Picture::new(
        width,
        height,
        (0..3 * width * height).map(shade).collect(),
    ))
}

/// The receiver of `docs/raw-frames.md`.
struct Receiver {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    picture: PathBuf,
}

impl Receiver {
    /// `None` where there is no Python.
    fn start(to: &str, folder: &Path) -> Option<Self> {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/raw-frames.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, code) = page.split_once("```python\n").unwrap();
        let (code, _) = code.split_once("```").unwrap();
        let picture = folder.join("latest.ppm");
        let child = Command::new("python3")
            .args(["-c", code, to])
            .arg(&picture)
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: no python3 to run the receiver of docs/raw-frames.md");
            return None;
        };
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut receiver = Self {
            child,
            lines,
            picture,
        };
        assert_eq!(receiver.line(), "listening");
        Some(receiver)
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// The next frame.
    fn frame(&mut self) -> Frame {
        let said = self.line();
        let sides: Vec<usize> = said
            .split(' ')
            .skip(1)
            .map(|side| side.parse().unwrap())
            .collect();
        let bytes = std::fs::read(&self.picture).unwrap();
        let header = format!("P6 {} {} 255\n", sides[0], sides[1]);
        let rgb = bytes.strip_prefix(header.as_bytes()).unwrap().to_vec();
        Frame::from(&Picture::new(sides[0], sides[1], rgb))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A port that was free a moment ago.
fn udp() -> String {
    format!(
        "udp:{}",
        UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    )
}

fn assert_same(received: &Frame, shown: &Frame) {
    assert_eq!(received.size_px(), shown.size_px());
    assert!(received.rgb() == shown.rgb(), "other pixels");
}

#[test]
fn the_documented_receiver_gets_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ways = [
        udp(),
        format!("unix:{}", path("stream")),
        format!("unix-datagram:{}", path("datagram")),
    ];
    for to in ways {
        let Some(mut receiver) = Receiver::start(&to, folder.path()) else {
            return;
        };
        let mut panel = Raw::new(&facts(&to, 64, 48)).unwrap();
        assert_eq!(panel.info().name, format!("LEDs 64x48 at {to}"));
        for seed in 0..3 {
            let shown = frame(64, 48, seed);
            panel.show(&shown, Damage::Changed).unwrap();
            assert_same(&receiver.frame(), &shown);
            // The same frame is not sent again, or the next turn would see it.
            panel.show(&shown, Damage::Changed).unwrap();
        }
        panel.show(&frame(64, 48, 2), Damage::All).unwrap();
        assert_same(&receiver.frame(), &frame(64, 48, 2));
        panel.power(Power::Off).unwrap();
        assert_same(&receiver.frame(), &Frame::new(64, 48));
        panel.power(Power::On).unwrap();
        panel.show(&frame(64, 48, 2), Damage::Changed).unwrap();
        assert_same(&receiver.frame(), &frame(64, 48, 2));
    }
}

#[test]
fn a_wall_on_its_side_gets_its_own_rows() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = format!("udp:{}", receiver.local_addr().unwrap());
    let facts = Facts {
        rotation_deg: Rotation::Deg90,
        mirror: Mirror::LeftRight,
        ..facts(&to, 3, 2)
    };
    let mut panel = Raw::new(&facts).unwrap();
    assert_eq!(panel.info().size_px, [2, 3]);
    let rgb: Vec<u8> = (0..6).flat_map(|pixel| [pixel, 0, 0]).collect();
    panel
        .show(&Frame::from(&Picture::new(2, 3, rgb)), Damage::Changed)
        .unwrap();
    let mut message = [0; 2000];
    let length = receiver.recv(&mut message).unwrap();
    let reds: Vec<u8> = message[24..length].iter().copied().step_by(3).collect();
    // 0 1 / 2 3 / 4 5 in the mirror is 1 0 / 3 2 / 5 4, and turned clockwise:
    assert_eq!(reds, [5, 3, 1, 4, 2, 0]);
}

#[test]
fn nobody_is_a_sentence_until_somebody_comes() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wall");
    let to = format!("unix:{}", socket.display());
    let mut panel = Raw::new(&facts(&to, 8, 8)).unwrap();
    let shown = frame(8, 8, 0);
    let error = panel.show(&shown, Damage::Changed).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{to}: expected somebody who receives frames, found no such socket")
    );

    let mut message = vec![0; 24 + 3 * 64];
    for _ in 0..2 {
        let listener = UnixListener::bind(&socket).unwrap();
        // The second time the old connection is broken, which must not cost a frame.
        panel.show(&shown, Damage::All).unwrap();
        listener
            .accept()
            .unwrap()
            .0
            .read_exact(&mut message)
            .unwrap();
        assert!(message[24..] == *shown.rgb());
        std::fs::remove_file(&socket).unwrap();
    }
    let _left_behind = UnixListener::bind(&socket).map(drop);
    let error = panel.show(&shown, Damage::All).unwrap_err().to_string();
    assert!(
        error.ends_with("found nobody (connection refused)"),
        "{error}"
    );
    std::fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    panel.show(&shown, Damage::Changed).unwrap();
    listener
        .accept()
        .unwrap()
        .0
        .read_exact(&mut message)
        .unwrap();
    assert!(
        message[24..] == *shown.rgb(),
        "after an error the same frame is sent"
    );

    let to = udp();
    let mut panel = Raw::new(&facts(&to, 8, 8)).unwrap();
    let error = panel.show(&shown, Damage::Changed).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{to}: expected somebody who receives frames, found nobody (connection refused)")
    );
    let receiver = UdpSocket::bind(to.strip_prefix("udp:").unwrap()).unwrap();
    panel.show(&shown, Damage::Changed).unwrap();
    assert_eq!(receiver.recv(&mut message).unwrap(), message.len());
}

#[test]
fn a_receiver_that_sleeps_costs_half_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let stream = folder.path().join("stream");
    let datagram = folder.path().join("datagram");
    let _listener = UnixListener::bind(&stream).unwrap();
    let _socket = UnixDatagram::bind(&datagram).unwrap();
    for to in [
        format!("unix:{}", stream.display()),
        format!("unix-datagram:{}", datagram.display()),
    ] {
        let mut panel = Raw::new(&facts(&to, 512, 512)).unwrap();
        let start = Instant::now();
        let error = panel
            .show(&frame(512, 512, 0), Damage::Changed)
            .unwrap_err()
            .to_string();
        let took = start.elapsed();
        assert!(
            error.ends_with("found one that does not keep up"),
            "{error}"
        );
        assert!((400..2000).contains(&took.as_millis()), "{to}: {took:?}");
    }
}

#[test]
fn a_listener_that_accepts_nobody_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wall");
    let _listener = UnixListener::bind(&path).unwrap();
    let to = format!("unix:{}", path.display());
    let start = Instant::now();
    let mut panels = Vec::new();
    let error = loop {
        // std's backlog is at most 4096 in any kernel's default.
        assert!(panels.len() < 5000 && start.elapsed() < Duration::from_secs(30));
        let mut panel = Raw::new(&facts(&to, 1, 1)).unwrap();
        match panel.show(&frame(1, 1, 0), Damage::Changed) {
            Ok(()) => panels.push(panel),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.ends_with("found one that answers nobody"), "{error}");
}

#[test]
fn the_last_frame_is_repeated_until_the_panel_is_gone() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let facts = Facts {
        protocol: Protocol::Ddp,
        repeat_ms: Some(20),
        ..facts(&format!("udp:{}", receiver.local_addr().unwrap()), 16, 16)
    };
    let mut panel = Raw::new(&facts).unwrap();
    let shown = frame(16, 16, 1);
    let mut message = [0; 2000];
    panel.show(&shown, Damage::Changed).unwrap();
    for number in [1, 2, 3] {
        assert_eq!(receiver.recv(&mut message).unwrap(), 10 + 768);
        assert_eq!(message[..4], [0x41, number, 0x0b, 1]);
        assert!(message[10..778] == *shown.rgb());
    }
    drop(panel);
    receiver
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    while receiver.recv(&mut message).is_ok() {}
    assert!(receiver.recv(&mut message).is_err());
}

#[test]
fn facts_are_read_strictly() {
    let read =
        |text: &str| toml::from_str::<Facts>(text).map_err(|error| error.message().to_owned());
    let size = "width-px = 16\nheight-px = 16\n";
    let facts = read(&format!(
        "to = 'udp:wled.local:4048'\nprotocol = 'ddp'\n{size}"
    ))
    .unwrap();
    assert_eq!(facts.to, Destination::Udp("wled.local:4048".to_owned()));
    assert_eq!((facts.protocol, facts.repeat_ms), (Protocol::Ddp, None));
    for to in [
        "wled.local",
        "udp:wled.local",
        "udp:host:0",
        "udp:host:70000",
        "unix:",
        "tcp:a:1",
    ] {
        let error = read(&format!("to = '{to}'\n{size}")).unwrap_err();
        let expected = "to: expected udp:host:port, unix:/path or unix-datagram:/path, found";
        assert!(error.starts_with(expected), "{error}");
    }
    let ddp = read(&format!("to = 'unix:/run/wall'\nprotocol = 'ddp'\n{size}")).unwrap();
    let error = Raw::new(&ddp).unwrap_err().to_string();
    assert_eq!(
        error,
        "to: expected udp:host:port, since the protocol is ddp, found unix:/run/wall"
    );
    let huge = read("to = 'udp:a:1'\nwidth-px = 16384\nheight-px = 16384").unwrap();
    assert!(Raw::new(&huge).is_err());
}
