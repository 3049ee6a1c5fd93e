//! An e-paper panel at the far end of its wires, with a busy line that may lie.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{self, InputPin, OutputPin};
use embedded_hal::spi::{self, Operation, SpiDevice};

/// The controllers of one glass.
pub trait Panel: Send + 'static {
    /// The reset line went low and high again.
    fn reset(&mut self);

    /// A command with all of its data; how long it keeps the controller busy, or what is wrong.
    fn run(&mut self, chip: usize, command: u8, data: &[u8]) -> Result<Duration, String>;

    /// The ink index of every native pixel.
    fn glass(&self) -> Vec<u8>;

    /// Whether every controller sleeps.
    fn sleeps(&self) -> bool;
}

/// What is wrong with the busy line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// Nothing.
    Honest,
    /// It never goes busy.
    Never,
    /// Once busy, it stays so.
    ForEver,
    /// It is busy for 20 ms only.
    Briefly,
    /// It looks idle for 20 ms in every second.
    Flickers,
    /// It cannot be read.
    Unreadable,
}

/// What crossed the wires, and what is at their end.
pub struct State {
    pub panel: Box<dyn Panel>,
    pub now: Duration,
    pub messages: usize,
    pub bytes: usize,
    pub longest: usize,
    pub busy: Busy,
    /// The message, counted from now, that fails; all after it succeed.
    pub fails_in: Option<usize>,
    /// What the driver did that the controller's maker would not.
    pub complaints: Vec<String>,
    /// Commands and how many bytes of data they had, in order.
    pub log: Vec<(u8, usize)>,
    busy_since: Duration,
    busy_until: Duration,
    idle_level: bool,
    selects: Vec<bool>,
    powered: Option<bool>,
    data: bool,
    in_reset: bool,
    open: Vec<Option<(u8, Vec<u8>)>>,
}

/// A fault of a bus or a line, in the kernel's words.
#[derive(Debug)]
pub struct Fault(&'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl spi::Error for Fault {
    fn kind(&self) -> spi::ErrorKind {
        spi::ErrorKind::Other
    }
}

impl digital::Error for Fault {
    fn kind(&self) -> digital::ErrorKind {
        digital::ErrorKind::Other
    }
}

/// The bus, the clock and, through [`Bench::line`], the lines of one panel.
#[derive(Clone)]
pub struct Bench(Arc<Mutex<State>>);

/// What a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Select(usize),
    Dc,
    Reset,
    Power,
    Busy,
}

/// A line of the header.
pub struct Line(Bench, Role);

impl Bench {
    /// `panel` of so many `chips`; with `selects` lines of their own or chosen by the bus.
    pub fn new(panel: Box<dyn Panel>, chips: usize, selects: usize, busy_high: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            panel,
            now: Duration::ZERO,
            messages: 0,
            bytes: 0,
            longest: 0,
            busy: Busy::Honest,
            fails_in: None,
            complaints: Vec::new(),
            log: Vec::new(),
            busy_since: Duration::ZERO,
            busy_until: Duration::ZERO,
            idle_level: !busy_high,
            selects: vec![true; selects],
            powered: None,
            data: false,
            in_reset: false,
            open: vec![None; chips],
        })))
    }

    /// Looks at the far end, or changes it.
    pub fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.0.lock().unwrap();
        state.finish();
        look(&mut state)
    }

    pub fn line(&self, role: Role) -> Line {
        if role == Role::Power {
            self.with(|state| state.powered = Some(false));
        }
        Line(self.clone(), role)
    }
}

impl State {
    /// A command is complete when something else begins.
    fn finish(&mut self) {
        for chip in 0..self.open.len() {
            let Some((command, data)) = self.open[chip].take() else {
                continue;
            };
            if chip == 0 {
                self.log.push((command, data.len()));
            }
            match self.panel.run(chip, command, &data) {
                Ok(time) if time > Duration::ZERO => {
                    self.busy_since = self.now;
                    self.busy_until = self.now + time;
                }
                Ok(_) => {}
                Err(complaint) => self.complaints.push(complaint),
            }
        }
    }

    fn deliver(&mut self, bytes: &[u8]) {
        if !self.data {
            self.finish();
        }
        if self.powered == Some(false) || self.in_reset {
            self.complaints.push("bytes to a dead controller".into());
            return;
        }
        if self.now < self.busy_until && self.busy == Busy::Honest {
            self.complaints.push("bytes to a busy controller".into());
        }
        let mut heard = false;
        for chip in 0..self.open.len() {
            if self.selects.get(chip).copied().unwrap_or(false) {
                continue;
            }
            heard = true;
            match (&mut self.open[chip], self.data) {
                (Some((_, data)), true) => data.extend_from_slice(bytes),
                (None, true) => self.complaints.push("data without a command".into()),
                (open, false) => {
                    if bytes.len() > 1 {
                        self.complaints.push("a command of several bytes".into());
                    }
                    *open = Some((bytes[0], Vec::new()));
                }
            }
        }
        if !heard {
            self.complaints.push("bytes to nobody".into());
        }
    }

    fn is_busy(&mut self) -> bool {
        self.finish();
        let since = self.now.saturating_sub(self.busy_since).as_millis();
        match self.busy {
            Busy::Honest | Busy::Unreadable => self.now < self.busy_until,
            Busy::Never => false,
            Busy::ForEver => self.busy_until > Duration::ZERO,
            Busy::Briefly => self.now < self.busy_until && since < 20,
            Busy::Flickers => self.now < self.busy_until && since % 1000 < 980,
        }
    }
}

impl spi::ErrorType for Bench {
    type Error = Fault;
}

impl SpiDevice for Bench {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Fault> {
        let state = &mut *self.0.lock().unwrap();
        let mut sent = Vec::new();
        for operation in operations {
            match operation {
                Operation::Write(bytes) => sent.extend_from_slice(bytes),
                other => panic!("a write-only panel is asked for {other:?}"),
            }
        }
        state.messages += 1;
        state.bytes += sent.len();
        state.longest = state.longest.max(sent.len());
        if let Some(left) = &mut state.fails_in {
            if *left == 0 {
                state.fails_in = None;
                return Err(Fault("Connection timed out (os error 110)"));
            }
            *left -= 1;
        }
        state.deliver(&sent);
        Ok(())
    }
}

impl DelayNs for Bench {
    fn delay_ns(&mut self, ns: u32) {
        self.with(|state| state.now += Duration::from_nanos(ns.into()));
    }
}

impl digital::ErrorType for Line {
    type Error = Fault;
}

impl OutputPin for Line {
    fn set_low(&mut self) -> Result<(), Fault> {
        self.set(false);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Fault> {
        self.set(true);
        Ok(())
    }
}

impl Line {
    fn set(&mut self, high: bool) {
        let role = self.1;
        if role == Role::Dc {
            // Between a command and its data: nothing is complete yet.
            self.0.0.lock().unwrap().data = high;
            return;
        }
        self.0.with(|state| match role {
            Role::Select(chip) => state.selects[chip] = high,
            Role::Power => state.powered = Some(high),
            Role::Reset => {
                if state.in_reset && high {
                    state.panel.reset();
                    state.busy_until = Duration::ZERO;
                }
                state.in_reset = !high;
            }
            Role::Dc | Role::Busy => panic!("{role:?} is driven"),
        });
    }
}

impl InputPin for Line {
    fn is_high(&mut self) -> Result<bool, Fault> {
        self.0.with(|state| match state.busy {
            Busy::Unreadable => Err(Fault("No such device (os error 19)")),
            _ => Ok(state.is_busy() != state.idle_level),
        })
    }

    fn is_low(&mut self) -> Result<bool, Fault> {
        Ok(!self.is_high()?)
    }
}
