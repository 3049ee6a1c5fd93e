//! Raw frames for whatever drives LEDs, over UDP or a Unix socket.
//!
//! What turns pixels into light (HUB75 panels, strips, a WLED controller) runs elsewhere and gets
//! whole frames: in our own format, which `docs/raw-frames.md` describes with a receiver in a few
//! lines, or in the Distributed Display Protocol. A receiver that is slow, absent or restarted
//! costs half a second and a sentence, never more.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Damage, Display, Frame, Mirror, Orientation, Pace, PanelInfo, Power, Rotation};
use crate::error::{Error, Result};

mod message;
mod socket;

use socket::Socket;

/// Where frames go, as which bytes, and how large they are.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Facts {
    /// `udp:host:port`, `unix:/path` (a stream) or `unix-datagram:/path`.
    pub to: Destination,
    /// What the bytes mean.
    #[serde(default)]
    pub protocol: Protocol,
    /// The width of the wall of LEDs as the receiver counts them, from 1.
    pub width_px: u16,
    /// The height of the wall, from 1.
    pub height_px: u16,
    /// How far the picture is turned clockwise on the wall.
    #[serde(default)]
    pub rotation_deg: Rotation,
    /// Of the picture, before it is turned.
    #[serde(default)]
    pub mirror: Mirror,
    /// The last frame is sent again after this time without another one, for receivers that lose
    /// datagrams or go back to something else when nothing comes. Without it a frame is sent once.
    pub repeat_ms: Option<u32>,
}

/// What the bytes of a message mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Our own header, with the size of the picture in it: `docs/raw-frames.md`.
    #[default]
    Driftglass,
    /// The Distributed Display Protocol that WLED understands, <http://www.3waylabs.com/ddp/>;
    /// over UDP only.
    Ddp,
}

spelled!(Protocol, "protocol", Driftglass = "driftglass", Ddp = "ddp");

/// Where frames go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A host, by name or address, and its port.
    Udp(String),
    /// A stream socket that somebody listens on.
    Unix(PathBuf),
    /// A datagram socket that somebody reads from.
    UnixDatagram(PathBuf),
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::UnixDatagram(path) => write!(f, "unix-datagram:{}", path.display()),
        }
    }
}

impl std::str::FromStr for Destination {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let port = |address: &str| {
            address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>())
        };
        match text.split_once(':') {
            Some(("udp", address)) if matches!(port(address), Some(Ok(1..))) => {
                Ok(Self::Udp(address.to_owned()))
            }
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("unix-datagram", path)) if !path.is_empty() => {
                Ok(Self::UnixDatagram(path.into()))
            }
            _ => Err(Error::unexpected(
                "to",
                "udp:host:port, unix:/path or unix-datagram:/path",
                format!("{text:?}"),
            )),
        }
    }
}

serde_as_text!(Destination);

/// A wall of LEDs that somebody else drives.
#[derive(Debug)]
pub struct Raw {
    orientation: Orientation,
    native_px: [usize; 2],
    shared: Arc<Shared>,
    /// Repeats the last frame, where that is wanted.
    repeater: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    line: Mutex<Line>,
    /// Told when the panel is dropped.
    ended: Condvar,
}

impl Raw {
    /// The panel of these facts; nothing is sent yet, and nobody needs to receive yet.
    ///
    /// # Errors
    ///
    /// When a side is zero, the protocol does not fit the way, or there is no thread for the
    /// repetition.
    pub fn new(facts: &Facts) -> Result<Self> {
        let native_px = super::sides(facts.width_px, facts.height_px)?;
        if facts.protocol == Protocol::Ddp && !matches!(facts.to, Destination::Udp(_)) {
            return Err(Error::unexpected(
                "to",
                "udp:host:port, since the protocol is ddp",
                &facts.to,
            ));
        }
        let shared = Arc::new(Shared {
            line: Mutex::new(Line {
                to: facts.to.clone(),
                protocol: facts.protocol,
                size_px: native_px,
                socket: None,
                number: 0,
                rgb: Vec::new(),
                arrived: false,
                sent: Instant::now(),
                ended: false,
            }),
            ended: Condvar::new(),
        });
        let repeater = match facts.repeat_ms {
            None => None,
            Some(ms) => {
                let (shared, pause) = (shared.clone(), Duration::from_millis(ms.max(1).into()));
                let builder = thread::Builder::new().name("raw frames".to_owned());
                let spawned = builder.spawn(move || shared.repeat(pause));
                Some(spawned.map_err(|cause| Error::unexpected("repeat-ms", "a thread", cause))?)
            }
        };
        Ok(Self {
            orientation: Orientation {
                rotation: facts.rotation_deg,
                mirror: facts.mirror,
            },
            native_px,
            shared,
            repeater,
        })
    }

    /// The rows of the wall.
    fn native(&self, frame: &Frame) -> Vec<u8> {
        if self.orientation == Orientation::default() {
            return frame.rgb().to_vec();
        }
        let [width, height] = self.native_px;
        let places = (0..height).flat_map(|y| (0..width).map(move |x| [x, y]));
        let pixels = places.flat_map(|place| {
            let [x, y] = self.orientation.source(place, self.native_px);
            frame.pixel(x, y)
        });
        pixels.collect()
    }
}

impl Display for Raw {
    fn info(&self) -> PanelInfo {
        let [width, height] = self.native_px;
        PanelInfo {
            name: format!("LEDs {width}x{height} at {}", self.shared.lock().to),
            size_px: self.orientation.seen(self.native_px),
            pace: Pace::Live,
        }
    }

    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        let size_px = self.orientation.seen(self.native_px);
        assert_eq!(frame.size_px(), size_px, "the frame's size");
        let rgb = self.native(frame);
        let mut line = self.shared.lock();
        if damage == Damage::Changed && line.arrived && line.rgb == rgb {
            return Ok(());
        }
        line.rgb = rgb;
        line.send()
    }

    /// Off is a black frame.
    fn power(&mut self, power: Power) -> Result<()> {
        let [width_px, height_px] = self.orientation.seen(self.native_px);
        match power {
            Power::On => Ok(()),
            Power::Off => self.show(&Frame::new(width_px, height_px), Damage::Changed),
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.ended.notify_all();
        if let Some(repeater) = self.repeater.take() {
            // A repeater that panicked has told so itself.
            let _ = repeater.join();
        }
    }
}

impl Shared {
    /// The line; what a panic left behind is whole, since a frame is replaced at once.
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Sends the last frame again whenever nothing was sent for `pause`, until the end.
    fn repeat(&self, pause: Duration) {
        let mut line = self.lock();
        while !line.ended {
            let wait = pause.saturating_sub(line.sent.elapsed());
            if wait.is_zero() {
                if line.rgb.is_empty() {
                    line.sent = Instant::now();
                } else {
                    // The next frame meets the same error and tells it.
                    let _ = line.send();
                }
                continue;
            }
            let waited = self.ended.wait_timeout(line, wait);
            line = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

/// What goes over the way, and what went.
#[derive(Debug)]
struct Line {
    to: Destination,
    protocol: Protocol,
    size_px: [usize; 2],
    socket: Option<Socket>,
    /// Of the next frame.
    number: u32,
    /// The newest frame in native rows; empty before the first.
    rgb: Vec<u8>,
    /// Whether `rgb` was sent without an error.
    arrived: bool,
    /// When it was last tried.
    sent: Instant,
    ended: bool,
}

impl Line {
    /// Sends the newest frame, over a new socket where the old one is of no use.
    fn send(&mut self) -> Result<()> {
        self.arrived = false;
        let result = self.try_send();
        self.sent = Instant::now();
        match result {
            Ok(()) => {
                self.arrived = true;
                Ok(())
            }
            Err(cause) => {
                self.socket = None;
                Err(Error::unexpected(
                    &self.to,
                    "somebody who receives frames",
                    found(&cause),
                ))
            }
        }
    }

    fn try_send(&mut self) -> io::Result<()> {
        if self.socket.as_ref().is_some_and(Socket::is_stale) {
            // The old address is better than none.
            self.socket = Socket::open(&self.to).ok().or(self.socket.take());
        }
        if let Some(mut socket) = self.socket.take() {
            match self.send_over(&mut socket) {
                Err(error) if error.kind() == ErrorKind::TimedOut => return Err(error),
                Err(_) if socket.is_bound_to_one_receiver() => {}
                result => {
                    self.socket = Some(socket);
                    return result;
                }
            }
        }
        let mut socket = Socket::open(&self.to)?;
        self.send_over(&mut socket)?;
        self.socket = Some(socket);
        Ok(())
    }

    fn send_over(&mut self, socket: &mut Socket) -> io::Result<()> {
        let number = self.number;
        self.number = number.wrapping_add(1);
        socket.send(&message::messages(
            self.protocol,
            number,
            self.size_px,
            &self.rgb,
            socket.limit_bytes(),
        ))
    }
}

/// What was found instead of a receiver.
fn found(cause: &io::Error) -> String {
    match cause.kind() {
        ErrorKind::ConnectionRefused => "nobody (connection refused)".to_owned(),
        ErrorKind::TimedOut if cause.get_ref().is_none() => "one that does not keep up".to_owned(),
        ErrorKind::WouldBlock => "one that answers nobody".to_owned(),
        ErrorKind::NotFound if cause.get_ref().is_none() => "no such socket".to_owned(),
        _ => cause.to_string(),
    }
}
