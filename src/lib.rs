//! driftglass: a small diffusion model that paints a new picture by itself.
//!
//! # The map, in reading order
//!
//! - [`diffusion`]: the mathematics; owns [`diffusion::Denoiser`], knows no file and no engine.
//! - [`model`]: a package on disk → verified bytes and a manifest.
//! - [`engine`]: verified ONNX bytes → a network that runs; the only place that names tract.
//! - [`pipeline`]: recipe → picture, step by step.
//! - [`picture`], [`npz`], [`files`], [`error`]: what all of them stand on.
//! - [`display`]: a picture on a panel, one file for each kind of panel.
//! - [`board`]: what carries a panel; every board and every panel is a file of facts.
//! - [`config`]: the owner's file.
//! - [`kiosk`]: the loop that paints, shows, holds and goes on.
//! - [`cli`]: the commands, the only place that prints.
//!
//! # Example
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use driftglass::model::Library;
//! use driftglass::pipeline::{Changes, Painter};
//!
//! # fn main() -> driftglass::error::Result<()> {
//! let package = Library::new(None).open("scenes-32")?;
//! let mut painter = Painter::open(package, None, 1)?;
//! let four_steps = Changes { steps: Some(4), ..Changes::default() };
//! let recipe = painter.changed(&painter.recipe(7), &four_steps);
//! let picture = painter.paint(&recipe, None, &mut |_step| ControlFlow::Continue(()))?;
//! assert_eq!((picture.width_px(), picture.height_px()), (32, 32));
//! # Ok(()) }
//! ```

#[macro_use]
mod spelling;

pub mod board;
pub mod cli;
pub mod config;
pub mod diffusion;
pub mod display;
pub mod engine;
pub mod error;
pub mod files;
pub mod kiosk;
pub mod model;
pub mod npz;
pub mod picture;
pub mod pipeline;
mod strict;
