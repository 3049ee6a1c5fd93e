//! All integration tests in one binary, so that tract links once.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod command;
mod diffusion;
mod engine;
mod fixtures;
mod model;
mod painting;
mod tidy;
