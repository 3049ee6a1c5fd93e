//! Pictures on panels: one file per kind of panel.
//!
//! A panel gets finished pixels; it never knows a board, a model or a sampler.

pub mod terminal;
