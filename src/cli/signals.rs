//! The wish to stop: Ctrl-C, or a service manager's SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// From now on these signals do not end the program: the function returned says that one came.
///
/// # Errors
///
/// When the system refuses.
pub fn stop() -> std::io::Result<impl Fn() -> bool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, stop.clone())?;
    }
    Ok(move || stop.load(Ordering::Relaxed))
}
