//! All integration tests in one binary, so that tract links once.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod boards;
mod command;
mod diffusion;
mod engine;
mod epaper;
mod fixtures;
mod frame;
mod golden;
mod kernels;
mod model;
mod painting;
mod raw;
mod run;
mod simulator;
mod tft;
mod tidy;
#[cfg(all(feature = "window", target_os = "linux"))]
mod window;

/// Counts, for the tests that say where no memory may be taken.
#[global_allocator]
static ALLOCATOR: fixtures::Counting = fixtures::Counting;
