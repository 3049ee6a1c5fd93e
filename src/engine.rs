//! Verified ONNX bytes → a network that runs. The only place that names tract.
//!
//! [`Network`] runs any graph by the names of its inputs; [`UNet`] is the network of a model
//! package and implements [`crate::diffusion::Denoiser`]. On the way in, `graph` checks the file
//! before anything is built from it, and `legalize` respells what tract does not run well.

mod dequantize;
mod graph;
mod legalize;
mod network;
mod registers;
mod unet;

pub use graph::{InspectedPort, Inspection, inspect};
pub use network::{Network, NodeProfile, Options, Port, default_threads, is_evaluating};
pub use unet::UNet;
