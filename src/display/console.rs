//! The text console: hidden while pictures are shown, back afterwards.
//!
//! A virtual terminal in graphics mode (`KDSETMODE` with `KD_GRAPHICS`, see ioctl_console(2)) draws
//! no text, no cursor and no boot messages over the art, and does not blank. Its keyboard goes on as
//! before: Ctrl+C still ends the program.
//!
//! The mode belongs to the terminal and outlives the program. [`Console`] gives the text back when
//! it is dropped, also while a panic unwinds; [`restore`] is for the last line of `main`, when other
//! threads die with their consoles in their hands. After SIGKILL, or a crash of the machine code,
//! the terminal stays dark: the next start that ends well gives it back, and so does a getty that
//! starts on it (systemd resets the mode for units with `TTYReset=yes`, as getty@.service has).

use std::fs::{File, OpenOptions};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::ioctl::{Getter, IntegerSetter, Opcode, ioctl};

/// linux/kd.h: what a virtual terminal shows.
const KDSETMODE: Opcode = 0x4B3A;
const KDGETMODE: Opcode = 0x4B3B;
const KD_TEXT: usize = 0;
const KD_GRAPHICS: usize = 1;

/// The terminal that this process has hidden. There is one for the process: the kernel keeps one
/// mode per terminal, and several panels share it.
static HIDDEN: Mutex<Hidden> = Mutex::new(Hidden {
    terminal: None,
    holders: 0,
});

struct Hidden {
    terminal: Option<File>,
    holders: usize,
}

/// Keeps the text console hidden, from [`Console::hide`] until it is dropped.
#[derive(Debug)]
pub struct Console {
    refusal: Option<String>,
}

impl Console {
    /// Hides the console if there is one and this process may.
    ///
    /// That it cannot is no error: under a terminal emulator, over ssh without root, in a container
    /// there is nothing to hide, or somebody else's; [`Self::refusal`] says why.
    ///
    /// A service has the right to its own terminal (`TTYPath=/dev/tty1`, `StandardInput=tty`), or
    /// with CAP_SYS_TTY_CONFIG to the one in front.
    pub fn hide() -> Self {
        let mut hidden = lock();
        if hidden.terminal.is_none() {
            match terminal() {
                Ok(terminal) => hidden.terminal = Some(terminal),
                Err(refusal) => {
                    return Self {
                        refusal: Some(refusal),
                    };
                }
            }
        }
        hidden.holders += 1;
        Self { refusal: None }
    }

    /// Why the console is not hidden, in a sentence; `None` if it is.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if self.refusal.is_some() {
            return;
        }
        let mut hidden = lock();
        hidden.holders = hidden.holders.saturating_sub(1);
        if hidden.holders == 0 {
            show_text(&mut hidden);
        }
    }
}

/// Gives the text back at once, whoever still holds a [`Console`]: for the end of the program.
///
/// Not for a panic hook: a panic that is caught and becomes an error must not put text on the art.
pub fn restore() {
    show_text(&mut lock());
}

fn show_text(hidden: &mut Hidden) {
    if let Some(terminal) = hidden.terminal.take() {
        // It may have gone; then there is no text to give back either.
        let _ = set_mode(&terminal, KD_TEXT);
    }
}

/// A thread that panicked while it held the lock left nothing half done.
fn lock() -> MutexGuard<'static, Hidden> {
    HIDDEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens and hides the terminal of this process, or else the one in front.
fn terminal() -> Result<File, String> {
    let mut refusals = Vec::new();
    for path in ["/dev/tty", "/dev/tty0"] {
        let hide = || -> io::Result<File> {
            let terminal = OpenOptions::new().read(true).write(true).open(path)?;
            // A terminal that is not virtual does not know this call.
            mode(&terminal)?;
            set_mode(&terminal, KD_GRAPHICS)?;
            Ok(terminal)
        };
        match hide() {
            Ok(terminal) => return Ok(terminal),
            Err(refusal) => refusals.push(format!("{path}: {refusal}")),
        }
    }
    Err(format!(
        "the text console is not hidden: {}",
        refusals.join("; ")
    ))
}

fn mode(terminal: &File) -> io::Result<i32> {
    // SAFETY: KDGETMODE writes one int, and that is what the getter has room for.
    Ok(unsafe { ioctl(terminal, Getter::<KDGETMODE, i32>::new()) }?)
}

fn set_mode(terminal: &File, mode: usize) -> io::Result<()> {
    // SAFETY: KDSETMODE takes an integer, no pointer.
    Ok(unsafe { ioctl(terminal, IntegerSetter::<KDSETMODE>::new_usize(mode)) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_virtual_terminal_is_left_alone() {
        // A file knows no console calls, like a pseudo-terminal.
        let file = tempfile::tempfile().unwrap();
        assert!(mode(&file).is_err() && set_mode(&file, KD_GRAPHICS).is_err());
    }
}
