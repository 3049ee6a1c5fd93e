//! A model package: verified bytes and the manifest that says what they are.
//!
//! [`manifest`] is the text, [`package`] the folder whose bytes it vouches for, [mod@reference] the
//! trainer's own trajectory, and [`library`] the places where packages are looked for.

pub mod library;
pub mod manifest;
pub mod package;
mod prior;
pub mod reference;

pub use library::Library;
pub use manifest::{Manifest, Precision};
pub use package::Package;
pub use reference::Reference;
