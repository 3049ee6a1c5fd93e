//! A recording SPI device, lines and a clock, a simulated chip at their end.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{self, OutputPin};
use embedded_hal::spi::{ErrorType, Operation, SpiDevice};

/// A chip behind the wire.
pub trait Chip: Send + 'static {
    /// Bytes while the line DC is low.
    fn command(&mut self, byte: u8, now: Duration);

    /// Bytes while the line DC is high.
    fn data(&mut self, bytes: &[u8], now: Duration);

    /// The line RESET changed: it forgets its settings, and begins when the line is high again.
    fn reset(&mut self, now: Duration);
}

/// The far end of a panel's connection, shared by its SPI device, its lines and its clock.
pub struct Bench<C>(Arc<Mutex<State<C>>>);

/// What crosses the wire, and what goes wrong there.
pub struct State<C> {
    /// The chip.
    pub chip: C,
    /// SPI messages so far.
    pub messages: usize,
    /// Bytes so far.
    pub bytes: usize,
    /// The longest message so far.
    pub longest: usize,
    /// The time that was waited so far.
    pub now: Duration,
    /// Whether the backlight's line is high.
    pub lit: bool,
    /// How often it went high.
    pub times_lit: usize,
    /// spidev refuses longer messages.
    pub bytes_max: usize,
    /// The message, counted from now, that fails; all after it succeed.
    pub fails_in: Option<usize>,
    /// The line DC fails.
    pub dc_fails: bool,
    /// Nothing arrives at the chip, and nobody is told.
    pub unplugged: bool,
    data: bool,
}

/// What the kernel says of a broken bus.
#[derive(Debug)]
pub struct Fault(pub &'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl embedded_hal::spi::Error for Fault {
    fn kind(&self) -> embedded_hal::spi::ErrorKind {
        embedded_hal::spi::ErrorKind::Other
    }
}

impl digital::Error for Fault {
    fn kind(&self) -> digital::ErrorKind {
        digital::ErrorKind::Other
    }
}

impl<C> Clone for Bench<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Chip> Bench<C> {
    /// A bench whose spidev takes messages of at most `bytes_max` bytes.
    pub fn new(chip: C, bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            chip,
            messages: 0,
            bytes: 0,
            longest: 0,
            now: Duration::ZERO,
            lit: false,
            times_lit: 0,
            bytes_max,
            fails_in: None,
            dc_fails: false,
            unplugged: false,
            data: true,
        })))
    }

    /// Looks at the far end, or changes it.
    pub fn with<R>(&self, look: impl FnOnce(&mut State<C>) -> R) -> R {
        look(&mut self.0.lock().unwrap())
    }

    /// A line of the header.
    pub fn line(&self, role: Role) -> Line<C> {
        Line {
            bench: self.clone(),
            role,
            high: None,
        }
    }

    /// The messages and bytes that `act` causes.
    pub fn traffic(&self, act: impl FnOnce()) -> (usize, usize) {
        let before = self.with(|state| (state.messages, state.bytes));
        act();
        self.with(|state| (state.messages - before.0, state.bytes - before.1))
    }
}

impl<C> ErrorType for Bench<C> {
    type Error = Fault;
}

impl<C: Chip> SpiDevice for Bench<C> {
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
        if sent.len() > state.bytes_max {
            return Err(Fault("Message too long (os error 90)"));
        }
        if let Some(left) = &mut state.fails_in {
            if *left == 0 {
                state.fails_in = None;
                // Half of it arrived.
                let half = sent.len() / 2;
                state.deliver(&sent[..half]);
                return Err(Fault("Connection timed out (os error 110)"));
            }
            *left -= 1;
        }
        state.deliver(&sent);
        Ok(())
    }
}

impl<C: Chip> State<C> {
    fn deliver(&mut self, bytes: &[u8]) {
        match (self.unplugged, self.data) {
            (true, _) => {}
            (false, true) => self.chip.data(bytes, self.now),
            (false, false) => {
                for byte in bytes {
                    self.chip.command(*byte, self.now);
                }
            }
        }
    }
}

impl<C: Chip> DelayNs for Bench<C> {
    fn delay_ns(&mut self, ns: u32) {
        self.with(|state| state.now += Duration::from_nanos(ns.into()));
    }
}

/// What a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Dc,
    Reset,
    Backlight,
}

/// A GPIO line.
pub struct Line<C> {
    bench: Bench<C>,
    role: Role,
    high: Option<bool>,
}

impl<C: Chip> Line<C> {
    fn set(&mut self, high: bool) -> Result<(), Fault> {
        let edge = self.high.replace(high) != Some(high);
        let role = self.role;
        self.bench.with(|state| {
            match role {
                Role::Dc if state.dc_fails => {
                    return Err(Fault("Input/output error (os error 5)"));
                }
                Role::Dc => state.data = high,
                Role::Reset if edge && !state.unplugged => state.chip.reset(state.now),
                Role::Reset => {}
                Role::Backlight => {
                    state.times_lit += usize::from(high && !state.lit);
                    state.lit = high;
                }
            }
            Ok(())
        })
    }
}

impl<C> digital::ErrorType for Line<C> {
    type Error = Fault;
}

impl<C: Chip> OutputPin for Line<C> {
    fn set_low(&mut self) -> Result<(), Fault> {
        self.set(false)
    }

    fn set_high(&mut self) -> Result<(), Fault> {
        self.set(true)
    }
}
