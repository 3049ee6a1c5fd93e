//! The way to a receiver: UDP, or a Unix socket of streams or datagrams.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::Destination;
use super::message::DATAGRAM_BYTES;

/// How long a receiver may take over a frame.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a name server may take.
const NAME_PATIENCE: Duration = Duration::from_secs(2);

/// How long the address of a name is believed: routers hand out others.
const NAME_LIFETIME: Duration = Duration::from_secs(300);

/// A message on a Unix datagram socket, far below what its buffer holds by default.
const UNIX_DATAGRAM_BYTES: usize = 32 * 1024;

/// An open way to a receiver.
#[derive(Debug)]
pub struct Socket {
    kind: Kind,
    opened: Instant,
}

#[derive(Debug)]
enum Kind {
    Udp(UdpSocket),
    Stream(UnixStream),
    Datagram(UnixDatagram),
}

impl Socket {
    /// Opens the way to `to`, within a few seconds.
    ///
    /// # Errors
    ///
    /// When nobody receives there, or a name has no address.
    pub fn open(to: &Destination) -> io::Result<Self> {
        let kind = match to {
            Destination::Udp(address) => Kind::Udp(open_udp(address)?),
            Destination::Unix(path) => Kind::Stream(open_stream(path)?),
            Destination::UnixDatagram(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Kind::Datagram(socket)
            }
        };
        let opened = Instant::now();
        Ok(Self { kind, opened })
    }

    /// The longest message that may be sent.
    pub fn limit_bytes(&self) -> usize {
        match self.kind {
            Kind::Udp(_) => DATAGRAM_BYTES,
            Kind::Stream(_) => usize::MAX,
            Kind::Datagram(_) => UNIX_DATAGRAM_BYTES,
        }
    }

    /// Whether the receiver may have moved since.
    pub fn is_stale(&self) -> bool {
        matches!(self.kind, Kind::Udp(_)) && self.opened.elapsed() > NAME_LIFETIME
    }

    /// Whether a receiver that went and came back is found by opening a new socket. Over UDP an
    /// error tells of an earlier datagram, and a new socket would only forget it.
    pub fn is_bound_to_one_receiver(&self) -> bool {
        !matches!(self.kind, Kind::Udp(_))
    }

    /// Sends all messages, within half a second.
    ///
    /// # Errors
    ///
    /// When the receiver is gone or does not keep up. After an error a stream may end within a
    /// message: it must be closed.
    pub fn send(&mut self, messages: &[Vec<u8>]) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for message in messages {
            let mut rest = &message[..];
            while !rest.is_empty() {
                let taken = self.send_some(rest, deadline)?;
                rest = &rest[taken..];
            }
        }
        match &self.kind {
            // Where the host itself knows that nobody receives, it says so at once.
            Kind::Udp(socket) => socket.take_error()?.map_or(Ok(()), Err),
            Kind::Stream(_) | Kind::Datagram(_) => Ok(()),
        }
    }

    fn send_some(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let taken = match &mut self.kind {
            Kind::Udp(socket) => {
                socket.set_write_timeout(Some(left))?;
                socket.send(bytes)
            }
            Kind::Stream(stream) => {
                stream.set_write_timeout(Some(left))?;
                stream.write(bytes)
            }
            Kind::Datagram(socket) => {
                socket.set_write_timeout(Some(left))?;
                socket.send(bytes)
            }
        };
        match taken {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            taken => taken,
        }
    }
}

fn open_udp(address: &str) -> io::Result<UdpSocket> {
    let to = resolve(address)?;
    let from: SocketAddr = if to.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(from)?;
    // A wall may listen to the whole network's broadcast address.
    socket.set_broadcast(true)?;
    socket.connect(to)?;
    Ok(socket)
}

/// The address of `host:port`; a name server that does not answer is waited for in a thread of
/// its own, which ends when the resolver gives up.
fn resolve(address: &str) -> io::Result<SocketAddr> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let (sender, receiver) = mpsc::channel();
    let name = address.to_owned();
    thread::Builder::new().spawn(move || {
        // Nobody may wait any more.
        let _ = sender.send(name.to_socket_addrs().map(|mut found| found.next()));
    })?;
    let none = || io::Error::new(ErrorKind::NotFound, "a name without an address");
    match receiver.recv_timeout(NAME_PATIENCE) {
        Ok(found) => found.map_err(|_| none())?.ok_or_else(none),
        Err(_) => Err(io::Error::new(
            ErrorKind::TimedOut,
            "no answer about the name",
        )),
    }
}

/// Connects without waiting: a listener whose queue is full would hold an ordinary connect for as
/// long as it likes.
fn open_stream(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
