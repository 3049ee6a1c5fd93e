//! Verified ONNX bytes → a network that runs. The only place that names tract.
//!
//! [`Network`] runs any graph by the names of its inputs; [`UNet`] is the network of a model
//! package and implements [`crate::diffusion::Denoiser`].
//!
//! On the way in, a file passes these rooms: `graph` checks it, `legalize` respells it in fp32 and
//! standard operators, `prologue` takes out what depends on the time step alone, `import` makes it
//! our own graph (`ir`) with tract's analysis of shapes, `verify` holds every shape to what its node computes, `rewrite`
//! joins what belongs together,
//! `plan` decides where every value lies, and a `program` of `operators` runs, each compiled for
//! the instruction sets of [`simd`], on the threads of a [`pool`]. What no operator of ours
//! computes is left to `tract`, node by node.

mod aligned;
mod arena;
mod dequantize;
mod graph;
mod import;
mod ir;
mod layout;
mod legalize;
mod network;
mod operators;
pub mod peak;
mod plan;
pub mod pool;
mod program;
mod prologue;
mod registers;
mod rewrite;
pub mod simd;
mod tract;
mod unet;
mod verify;

pub use graph::{InspectedPort, Inspection, inspect};
pub use network::{Network, NodeProfile, Options, Port, default_threads};
pub use tract::is_evaluating;
pub use unet::UNet;
