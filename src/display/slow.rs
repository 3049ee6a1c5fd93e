//! A panel made slower than it is, to see what slow ones do to whoever paints.

use std::thread;
use std::time::Duration;

use super::{Damage, Display, Frame, PanelInfo, Power};
use crate::error::Result;

/// Another panel, each of whose frames takes longer.
pub struct Slow {
    panel: Box<dyn Display>,
    longer: Duration,
}

impl Slow {
    /// `panel`, each of whose frames takes `longer` than it would.
    pub fn new(panel: Box<dyn Display>, longer: Duration) -> Self {
        Self { panel, longer }
    }
}

impl Display for Slow {
    fn info(&self) -> PanelInfo {
        self.panel.info()
    }

    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        thread::sleep(self.longer);
        self.panel.show(frame, damage)
    }

    fn power(&mut self, power: Power) -> Result<()> {
        self.panel.power(power)
    }
}
