//! No windows: the program was built without them, or for another system.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::{Facts, Key};
use crate::error::{Error, Result};
use crate::picture::Picture;

/// A window, of which there is none.
#[derive(Debug)]
pub enum Client {}

impl Client {
    pub fn open(_: &Facts, _: impl Fn(&str) -> Option<String>) -> Result<(Self, Receiver<Key>)> {
        Err(Error::unexpected(
            "window",
            "a program that was built for Linux with the feature \"window\"",
            "one without",
        ))
    }

    pub fn size_px(&self) -> [usize; 2] {
        match *self {}
    }

    pub fn show(&self, _: Option<&Arc<Picture>>) -> Result<()> {
        match *self {}
    }
}
