//! What a service manager hears: the frame is ready, what it does, it is alive.
//!
//! The protocol of sd_notify(3): datagrams of `KEY=value` lines to the socket that `NOTIFY_SOCKET`
//! names. Every datagram is sent from the loop itself, so that none comes from a loop that hangs,
//! and none is waited for.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::kiosk::{Beat, Clock, Event};

/// How often the manager is told at most.
const EVERY: Duration = Duration::from_secs(1);

/// What a start asks for with every step: a slow board's next one is within it.
const START_PATIENCE: Duration = Duration::from_secs(300);

/// A service manager; without one, nothing is told.
pub struct Service<'a> {
    socket: Option<UnixDatagram>,
    clock: &'a dyn Clock,
    /// The silence after which the manager ends the program, if it does.
    watchdog: Option<Duration>,
    ready: bool,
    /// When the loop was alive last.
    alive: Duration,
    /// When the manager was told something last.
    told: Option<Duration>,
    doing: String,
    /// The sentence of a panel that does not work.
    fault: Option<String>,
}

impl<'a> Service<'a> {
    /// The manager that the environment names.
    ///
    /// # Errors
    ///
    /// When it names a socket that cannot be reached.
    pub fn new(clock: &'a dyn Clock, env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let socket = env("NOTIFY_SOCKET")
            .map(|name| connect(&name))
            .transpose()?;
        // A program that a service starts inherits variables that are not for it.
        let ours = env("WATCHDOG_PID").is_none_or(|id| id == std::process::id().to_string());
        let silence = env("WATCHDOG_USEC").and_then(|text| text.parse().ok());
        Ok(Self {
            socket,
            clock,
            watchdog: silence.filter(|_| ours).map(Duration::from_micros),
            ready: false,
            alive: clock.now(),
            told: None,
            doing: "starting".to_owned(),
            fault: None,
        })
    }

    /// The loop is alive.
    pub fn beat(&mut self, beat: Beat) {
        if self.socket.is_none() {
            return;
        }
        let now = self.clock.now();
        let silence = now.saturating_sub(self.alive);
        self.alive = now;
        if let Some((seed, done, count)) = beat.step {
            self.doing = format!("seed {seed}, step {done} of {count}");
        }
        let mut lines = Vec::new();
        // Steps that take long are no hang: what took once may take again, and somewhat longer.
        if self.watchdog.is_some_and(|longest| silence * 3 > longest) {
            let longest = silence * 4;
            self.watchdog = Some(longest);
            lines.push(format!("WATCHDOG_USEC={}", longest.as_micros()));
        }
        // A panel that does not work is tried again for ever: the frame is as ready as it will be.
        if !self.ready && (beat.shown || self.fault.is_some()) {
            self.ready = true;
            lines.push("READY=1".to_owned());
        }
        let due = self
            .told
            .is_none_or(|told| now.saturating_sub(told) >= EVERY);
        if !due && lines.is_empty() {
            return;
        }
        lines.push(match self.ready {
            true => "WATCHDOG=1".to_owned(),
            false => format!("EXTEND_TIMEOUT_USEC={}", START_PATIENCE.as_micros()),
        });
        lines.push(self.status());
        self.tell(&lines);
        self.told = Some(now);
    }

    /// Something happened, which `line` says.
    pub fn hear(&mut self, event: &Event, line: &str) {
        match event {
            Event::PanelFails(_) => self.fault = Some(line.to_owned()),
            Event::PanelWorks(_) => self.fault = None,
            Event::Painted { .. } | Event::Failed { .. } => self.doing = line.to_owned(),
        }
    }

    /// The loop has come to its end, and the panel is given back.
    pub fn stopping(&self) {
        self.tell(&["STOPPING=1".to_owned()]);
    }

    fn status(&self) -> String {
        let said = self.fault.as_ref().unwrap_or(&self.doing);
        // A line is a value's end.
        format!("STATUS={}", said.replace('\n', " "))
    }

    fn tell(&self, lines: &[String]) {
        if let Some(socket) = &self.socket {
            // A manager that is busy or gone is told again in a second, if it comes back.
            let _ = socket.send(lines.join("\n").as_bytes());
        }
    }
}

fn connect(name: &str) -> Result<UnixDatagram> {
    let connected = || {
        // One that begins with @ is in no folder.
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    connected().map_err(|error| Error::io(format!("NOTIFY_SOCKET={name}"), "reach", error))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A clock that a test sets, in milliseconds.
    #[derive(Default)]
    struct Hand(Cell<u64>);

    impl Clock for Hand {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.get())
        }

        fn sleep(&self, _: Duration) {}
    }

    /// A manager's end of the socket, and what it puts into the environment.
    struct Manager {
        socket: UnixDatagram,
        name: String,
        watchdog_usec: &'static str,
    }

    impl Manager {
        fn new(name: &str, watchdog_usec: &'static str) -> Self {
            let address = match name.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(name),
            };
            let socket = UnixDatagram::bind_addr(&address.unwrap()).unwrap();
            socket.set_nonblocking(true).unwrap();
            let name = name.to_owned();
            Self {
                socket,
                name,
                watchdog_usec,
            }
        }

        fn env(&self, name: &str) -> Option<String> {
            match name {
                "NOTIFY_SOCKET" => Some(self.name.clone()),
                "WATCHDOG_USEC" => Some(self.watchdog_usec.to_owned()),
                _ => None,
            }
        }

        /// The next datagram, if there is one.
        fn told(&self) -> Option<String> {
            let mut bytes = [0; 512];
            let length = self.socket.recv(&mut bytes).ok()?;
            Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
        }
    }

    const MINUTE_USEC: &str = "60000000";

    const HANGS: Beat = Beat {
        shown: true,
        step: None,
    };

    fn step(done: usize, shown: bool) -> Beat {
        Beat {
            shown,
            step: Some((7, done, 50)),
        }
    }

    #[test]
    fn ready_with_the_first_pixel_and_alive_once_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = Manager::new(path.to_str().unwrap(), MINUTE_USEC);
        let clock = Hand::default();
        let mut service = Service::new(&clock, &|name| manager.env(name)).unwrap();
        let mut at = |ms, beat| {
            clock.0.set(ms);
            service.beat(beat);
            manager.told()
        };
        let patience = "EXTEND_TIMEOUT_USEC=300000000\nSTATUS=seed 7, step 1 of 50";
        assert_eq!(at(5_000, step(1, false)).unwrap(), patience);
        assert_eq!(at(5_400, step(2, false)), None);
        let ready = "READY=1\nWATCHDOG=1\nSTATUS=seed 7, step 3 of 50";
        assert_eq!(at(5_800, step(3, true)).unwrap(), ready);
        assert_eq!(at(6_700, step(4, true)), None);
        let alive = "WATCHDOG=1\nSTATUS=seed 7, step 5 of 50";
        assert_eq!(at(6_800, step(5, true)).unwrap(), alive);
        service.stopping();
        assert_eq!(manager.told().unwrap(), "STOPPING=1");
    }

    #[test]
    fn the_status_is_what_happens_and_a_panel_that_fails_is_not_waited_for() {
        let name = format!("@driftglass-test-{}", std::process::id());
        let manager = Manager::new(&name, MINUTE_USEC);
        let clock = Hand::default();
        let mut service = Service::new(&clock, &|name| manager.env(name)).unwrap();
        let mut at = |ms, event: Option<(Event, &str)>, beat| {
            clock.0.set(ms);
            if let Some((event, line)) = event {
                service.hear(&event, line);
            }
            service.beat(beat);
            manager.told().unwrap()
        };
        let unseen = Beat {
            shown: false,
            step: None,
        };
        let fails = Event::PanelFails(String::new());
        assert_eq!(
            at(1_000, Some((fails, "panel: no\nwire")), unseen),
            "READY=1\nWATCHDOG=1\nSTATUS=panel: no wire"
        );
        assert_eq!(
            at(2_000, None, step(9, false)),
            "WATCHDOG=1\nSTATUS=panel: no wire"
        );
        let works = Event::PanelWorks(crate::display::PanelInfo {
            name: "wall".into(),
            size_px: [4, 4],
            pace: crate::display::Pace::Live,
        });
        assert_eq!(
            at(3_000, Some((works, "wall shows")), HANGS),
            "WATCHDOG=1\nSTATUS=seed 7, step 9 of 50"
        );
        let failed = Event::Failed {
            sentence: String::new(),
            again: Duration::ZERO,
        };
        assert_eq!(
            at(4_000, Some((failed, "no picture: no model")), HANGS),
            "WATCHDOG=1\nSTATUS=no picture: no model"
        );
    }

    #[test]
    fn slow_steps_are_no_hang() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = Manager::new(path.to_str().unwrap(), MINUTE_USEC);
        let clock = Hand::default();
        let mut service = Service::new(&clock, &|name| manager.env(name)).unwrap();
        clock.0.set(40_000);
        service.beat(step(1, true));
        assert_eq!(
            manager.told().unwrap(),
            "WATCHDOG_USEC=160000000\nREADY=1\nWATCHDOG=1\nSTATUS=seed 7, step 1 of 50"
        );
        clock.0.set(90_000);
        service.beat(step(2, true));
        assert_eq!(
            manager.told().unwrap(),
            "WATCHDOG=1\nSTATUS=seed 7, step 2 of 50"
        );
    }

    #[test]
    fn without_a_manager_nothing_is_told_and_a_full_one_is_not_waited_for() {
        let clock = Hand::default();
        let mut alone = Service::new(&clock, &|_| None).unwrap();
        alone.beat(HANGS);
        alone.stopping();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = Manager::new(path.to_str().unwrap(), MINUTE_USEC);
        let mut service = Service::new(&clock, &|name| manager.env(name)).unwrap();
        // More than any socket holds; it would wait for ever.
        for second in 0..100_000 {
            clock.0.set(second * 1_000);
            service.beat(HANGS);
        }
        drop(manager);
        service.stopping();

        let missing = |name: &str| (name == "NOTIFY_SOCKET").then(|| "/nowhere/at/all".to_owned());
        let error = Service::new(&clock, &missing).err().unwrap().to_string();
        assert!(error.contains("NOTIFY_SOCKET=/nowhere/at/all"), "{error}");
    }
}
