//! Controllers of the MIPI DCS family, through mipidsi.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use embedded_graphics::pixelcolor::raw::RawU16;
use embedded_graphics::pixelcolor::{Rgb565, Rgb666};
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use embedded_hal::spi::SpiDevice;
use mipidsi::interface::InterfacePixelFormat;
use mipidsi::models::Model;
use mipidsi::options::{self, ColorInversion};
use mipidsi::{Builder, InitError, NoResetPin};

use super::link::Link;
use super::{ColorOrder, Driver, Facts};
use crate::display::{Mirror, Rotation};
use crate::error::{Error, Result};

/// DISPOFF.
const DISPLAY_OFF: u8 = 0x28;
/// SLPIN.
const SLEEP: u8 = 0x10;
/// Before a sleeping controller may be woken or lose its supply: ST7789V datasheet 9.1.11.
const SLEEP_WAIT: Duration = Duration::from_millis(120);

/// A colour as the wire carries it.
pub(super) trait WireColour: RgbColor {
    /// Bytes a pixel.
    const BYTES: usize;

    /// From `Self::BYTES` bytes of [`super::colour::convert`].
    fn of_wire(bytes: &[u8]) -> Self;
}

impl WireColour for Rgb565 {
    const BYTES: usize = 2;

    fn of_wire(bytes: &[u8]) -> Self {
        RawU16::new(u16::from_be_bytes([bytes[0], bytes[1]])).into()
    }
}

impl WireColour for Rgb666 {
    const BYTES: usize = 3;

    fn of_wire(bytes: &[u8]) -> Self {
        Self::new(bytes[0] >> 2, bytes[1] >> 2, bytes[2] >> 2)
    }
}

/// A controller that mipidsi calls `M`, awake or not.
pub(super) struct Dcs<M, S, P, D>
where
    M: Model<ColorFormat: InterfacePixelFormat<u8>>,
    S: SpiDevice<Error: fmt::Display>,
    P: OutputPin<Error: fmt::Display>,
    D: DelayNs,
{
    link: Link<S, P, D>,
    place: String,
    model: fn() -> M,
    options: Options,
    awake: Option<mipidsi::Display<Link<S, P, D>, M, NoResetPin>>,
}

/// The facts in mipidsi's terms.
struct Options {
    size_px: [u16; 2],
    offset_px: [u16; 2],
    inversion: ColorInversion,
    order: options::ColorOrder,
    orientation: options::Orientation,
}

impl Options {
    fn new(facts: &Facts) -> Self {
        let rotation = match facts.rotation_deg {
            Rotation::Deg0 => options::Rotation::Deg0,
            Rotation::Deg90 => options::Rotation::Deg90,
            Rotation::Deg180 => options::Rotation::Deg180,
            Rotation::Deg270 => options::Rotation::Deg270,
        };
        let turned = options::Orientation::new().rotate(rotation);
        Self {
            size_px: [facts.width_px, facts.height_px],
            offset_px: facts.offset_px,
            inversion: match facts.invert {
                true => ColorInversion::Inverted,
                false => ColorInversion::Normal,
            },
            order: match facts.color_order {
                ColorOrder::Rgb => options::ColorOrder::Rgb,
                ColorOrder::Bgr => options::ColorOrder::Bgr,
            },
            // mipidsi flips what is already turned, as the viewer sees it: what we call mirrored.
            orientation: match facts.mirror {
                Mirror::No => turned,
                Mirror::LeftRight => turned.flip_horizontal(),
            },
        }
    }
}

impl<M, S, P, D> Dcs<M, S, P, D>
where
    M: Model<ColorFormat: InterfacePixelFormat<u8>>,
    S: SpiDevice<Error: fmt::Display>,
    P: OutputPin<Error: fmt::Display>,
    D: DelayNs,
{
    pub fn new(model: fn() -> M, facts: &Facts, link: Link<S, P, D>) -> Self {
        Self {
            link,
            place: facts.name(),
            model,
            options: Options::new(facts),
            awake: None,
        }
    }
}

impl<M, S, P, D> Driver for Dcs<M, S, P, D>
where
    M: Model<ColorFormat: InterfacePixelFormat<u8> + WireColour> + Send,
    S: SpiDevice<Error: fmt::Display> + Send,
    P: OutputPin<Error: fmt::Display> + Send,
    D: DelayNs + Send,
{
    fn wake(&mut self) -> Result<()> {
        self.awake = None;
        self.link.reset()?;
        let Options {
            size_px,
            offset_px,
            inversion,
            order,
            orientation,
        } = self.options;
        // Without its reset pin mipidsi also sends SWRESET: the only reset of a panel without one.
        let awake = Builder::new((self.model)(), self.link.clone())
            .display_size(size_px[0], size_px[1])
            .display_offset(offset_px[0], offset_px[1])
            .invert_colors(inversion)
            .color_order(order)
            .orientation(orientation)
            .init(&mut self.link.clone());
        self.awake = Some(awake.map_err(|error| match error {
            InitError::Interface(error) => error,
            InitError::ResetPin(never) => match never {},
            InitError::InvalidConfiguration(refused) => Error::unexpected(
                &self.place,
                "facts that its driver takes",
                format!("{refused:?}"),
            ),
        })?);
        Ok(())
    }

    fn fill_rows(&mut self, rows: Range<usize>, wire: &[u8]) -> Result<()> {
        let awake = self.awake.as_mut().expect("a panel is woken first");
        let side = |px: usize| u32::try_from(px).unwrap_or(u32::MAX);
        let size = Size::new(awake.size().width, side(rows.len()));
        let top_left = Point::new(0, i32::try_from(rows.start).unwrap_or(i32::MAX));
        let pixels = wire.chunks_exact(M::ColorFormat::BYTES);
        awake.fill_contiguous(
            &Rectangle::new(top_left, size),
            pixels.map(M::ColorFormat::of_wire),
        )
    }

    fn sleep(&mut self) -> Result<()> {
        self.awake = None;
        self.link.command(DISPLAY_OFF, &[])?;
        self.link.command(SLEEP, &[])?;
        self.link.wait(SLEEP_WAIT);
        Ok(())
    }
}
