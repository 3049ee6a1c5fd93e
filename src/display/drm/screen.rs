//! A screen that is there: its mode, its two buffers, which of them is in front.

use std::io;

use drm::buffer::{Buffer as _, DrmFourcc};
use drm::control::dumbbuffer::DumbBuffer;
use drm::control::{Device as _, connector, crtc, framebuffer, from_u32};

use super::card::Card;
use super::choice::Choice;
use super::{Depth, Facts, Mode};
use crate::display::scanout::{Behind, Packer, PixelLayout, in_the_middle};
use crate::display::{Damage, Frame, Orientation, Power};
use crate::error::{Error, Result};

/// drm_mode.h: the values of a connector's property DPMS.
const DPMS_ON: u64 = 0;
const DPMS_OFF: u64 = 3;

pub(super) struct Screen {
    card: Card,
    name: String,
    connector: connector::Handle,
    crtc: crtc::Handle,
    mode: drm::control::Mode,
    orientation: Orientation,
    packer: Packer,
    buffers: [Buffer; 2],
    behind: Behind,
    /// The buffer that is shown; `None` before the mode was set.
    front: Option<usize>,
}

/// Memory that a CRTC can read from.
struct Buffer {
    memory: DumbBuffer,
    framebuffer: framebuffer::Handle,
}

impl Screen {
    /// Takes the memory for two pictures; nothing is shown yet.
    pub(super) fn new(
        card: Card,
        connectors: &[connector::Info],
        choice: Choice,
        facts: &Facts,
    ) -> Result<Self> {
        let chosen = connectors
            .iter()
            .find(|info| u32::from(info.handle()) == choice.connector);
        let info = chosen.expect("the choice was made among these connectors");
        let mode = info.modes()[choice.mode];
        let crtc = from_u32(choice.crtc).expect("the kernel numbers CRTCs from 1");
        let said = Mode {
            size_px: mode.size().into(),
            refresh_hz: Some(mode.vrefresh()),
        };
        let name = format!("{info} {said} ({})", card.name());
        let buffer = || {
            let buffer = Buffer::new(&card, said.size_px, facts.depth_bits);
            buffer.map_err(|cause| no_memory(&card, facts.depth_bits, cause))
        };
        let orientation = facts.orientation();
        Ok(Self {
            buffers: [buffer()?, buffer()?],
            name,
            connector: info.handle(),
            crtc,
            mode,
            orientation,
            packer: Packer::new(layout(facts.depth_bits)),
            behind: Behind::new(2, orientation, said.size_px.map(usize::from)),
            front: None,
            card,
        })
    }

    /// "HDMI-A-1 1920x1080@60 (card1)".
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn native_px(&self) -> [u16; 2] {
        self.mode.size().into()
    }

    pub(super) fn is_connected(&self) -> Result<bool> {
        let connected = self.card.is_connected(self.connector);
        connected.map_err(|cause| self.card.refused("ask", cause))
    }

    /// Shows a frame, or, if it is what is shown, does nothing.
    pub(super) fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        let native_px = self.native_px().map(usize::from);
        let frame = in_the_middle(frame, self.orientation.seen(native_px));
        if damage == Damage::All {
            self.behind.forget();
        }
        if !self.behind.note(&frame) {
            return Ok(());
        }
        let back = self.front.map_or(0, |front| 1 - front);
        self.write(&frame, back)?;
        let framebuffer = self.buffers[back].framebuffer;
        match self.front {
            Some(_) => self.card.flip(self.crtc, framebuffer)?,
            None => {
                let (connectors, mode) = ([self.connector], Some(self.mode));
                self.card
                    .set_crtc(self.crtc, Some(framebuffer), (0, 0), &connectors, mode)
                    .map_err(|cause| self.card.refused("set the mode of", cause))?;
            }
        }
        self.front = Some(back);
        Ok(())
    }

    /// Writes the rows of a buffer that are behind.
    fn write(&mut self, frame: &Frame, buffer: usize) -> Result<()> {
        let native_px = self.native_px().map(usize::from);
        let memory = &mut self.buffers[buffer].memory;
        let pitch = memory.pitch() as usize;
        let mut mapped = self
            .card
            .map_dumb_buffer(memory)
            .map_err(|cause| self.card.refused("map the memory of", cause))?;
        for y in self.behind.take(buffer) {
            let row = &mut mapped[pitch * y..][..self.packer.row_bytes(native_px[0])];
            self.packer
                .write_row(frame, self.orientation, native_px, y, row);
        }
        Ok(())
    }

    /// Lights the screen or lets it sleep; a screen that shows nothing yet is left as it is.
    pub(super) fn power(&mut self, power: Power) -> Result<()> {
        let value = match power {
            Power::On => DPMS_ON,
            Power::Off => DPMS_OFF,
        };
        self.behind.forget();
        match self.front {
            Some(_) => self.card.set_dpms(self.connector, value),
            None => Ok(()),
        }
    }

    /// Gives the memory back and switches the signal off: the screen is gone.
    pub(super) fn leave(self) -> Card {
        // Whatever of this fails ends with the card's file.
        let _ = self.card.set_crtc(self.crtc, None, (0, 0), &[], None);
        for buffer in self.buffers {
            let _ = self.card.destroy_framebuffer(buffer.framebuffer);
            let _ = self.card.destroy_dumb_buffer(buffer.memory);
        }
        self.card
    }
}

impl Buffer {
    fn new(card: &Card, [width_px, height_px]: [u16; 2], depth: Depth) -> io::Result<Self> {
        let (format, depth_bits, bits_per_pixel) = match depth {
            Depth::Bits16 => (DrmFourcc::Rgb565, 16, 16),
            Depth::Bits32 => (DrmFourcc::Xrgb8888, 24, 32),
        };
        let size = (width_px.into(), height_px.into());
        let memory = card.create_dumb_buffer(size, format, bits_per_pixel)?;
        let framebuffer = card.add_framebuffer(&memory, depth_bits, bits_per_pixel)?;
        Ok(Self {
            memory,
            framebuffer,
        })
    }
}

/// Many a card, a virtual one above all, has no pixels of 16 bits.
fn no_memory(card: &Card, depth: Depth, cause: io::Error) -> Error {
    if depth == Depth::Bits16 && cause.kind() == io::ErrorKind::InvalidInput {
        let expected = format!("32, which is all that {} has", card.name());
        return Error::unexpected("depth-bits", expected, u8::from(depth));
    }
    card.refused("get memory for pictures from", cause)
}

fn layout(depth: Depth) -> PixelLayout {
    match depth {
        Depth::Bits16 => PixelLayout::RGB565,
        Depth::Bits32 => PixelLayout::XRGB8888,
    }
}
