//! The `driftglass` program: the only file that ends the process.

use std::process::ExitCode;

use clap::Parser;

use driftglass::cli::{self, Cli};
use driftglass::display::console;
use driftglass::engine::is_evaluating;

fn main() -> ExitCode {
    silence_the_engine();
    let ended = cli::run(Cli::parse());
    // The console's mode outlives the program, and a panel that hangs was left to its thread.
    console::restore();
    match ended {
        Ok(code) => code,
        // Whoever reads our output may stop reading, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("driftglass: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// tract panics on some graphs; the library turns that into an error, so the hook stays quiet.
fn silence_the_engine() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !is_evaluating() {
            default(info);
        }
    }));
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
