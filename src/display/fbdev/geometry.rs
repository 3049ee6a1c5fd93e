//! What a frame buffer device says of itself, and what follows for its memory.

use crate::display::scanout::{Bits, PixelLayout};
use crate::error::{Error, Result};

/// linux/fb.h.
const FB_TYPE_PACKED_PIXELS: u32 = 0;
const FB_VISUAL_TRUECOLOR: u32 = 2;
const FB_VISUAL_DIRECTCOLOR: u32 = 4;
const FB_ACTIVATE_FORCE: u32 = 128;

/// linux/fb.h, fb_bitfield.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct BitField {
    /// The lowest bit.
    pub offset: u32,
    /// How many bits.
    pub length: u32,
    /// Whether the most significant bit is on the right.
    pub msb_right: u32,
}

/// linux/fb.h, fb_var_screeninfo: what a program may ask to change.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct VariableInfo {
    /// Visible columns.
    pub xres: u32,
    /// Visible rows.
    pub yres: u32,
    /// Columns in memory.
    pub xres_virtual: u32,
    /// Rows in memory.
    pub yres_virtual: u32,
    /// The first visible column.
    pub xoffset: u32,
    /// The first visible row.
    pub yoffset: u32,
    /// From one pixel to the next.
    pub bits_per_pixel: u32,
    /// 0 for colours; above 1 it is a four-letter code.
    pub grayscale: u32,
    /// Where red lies.
    pub red: BitField,
    /// Where green lies.
    pub green: BitField,
    /// Where blue lies.
    pub blue: BitField,
    /// Where the transparency lies.
    pub transp: BitField,
    /// Not 0 for pixels of no standard kind.
    pub nonstd: u32,
    /// When what is asked for becomes true.
    pub activate: u32,
    /// Sizes in mm, timings and more, which go back as they came.
    pub rest: [u32; 18],
}

/// linux/fb.h, fb_fix_screeninfo: what the device is.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct FixedInfo {
    /// The driver's name, ended by 0 if there is room.
    pub id: [u8; 16],
    /// Where the memory is; the kernel's affair.
    pub smem_start: usize,
    /// How many bytes it has.
    pub smem_len: u32,
    /// 0 for pixels one after the other.
    pub kind: u32,
    /// More of that.
    pub kind_aux: u32,
    /// What the bits of a pixel mean.
    pub visual: u32,
    /// Steps for panning.
    pub pan_steps: [u16; 3],
    /// Bytes from one row to the next.
    pub line_length: u32,
    /// Where the registers are; the kernel's affair.
    pub mmio_start: usize,
    /// How many bytes they have.
    pub mmio_len: u32,
    /// What accelerates it.
    pub accel: u32,
    /// More of that.
    pub capabilities: u16,
    /// Nothing yet.
    pub reserved: [u16; 2],
}

/// Where the pixels of a device lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Visible columns and rows.
    pub size_px: [usize; 2],
    /// A pixel.
    pub layout: PixelLayout,
    /// Bytes from one row to the next.
    pub pitch: usize,
    /// The byte where the first visible pixel begins.
    pub start: usize,
}

impl VariableInfo {
    /// The same, to be made true at once even if it is true already.
    pub fn activated_by_force(self) -> Self {
        Self {
            activate: FB_ACTIVATE_FORCE,
            ..self
        }
    }
}

impl FixedInfo {
    /// The driver's name.
    pub fn name(&self) -> String {
        let end = self.id.iter().position(|&byte| byte == 0);
        String::from_utf8_lossy(&self.id[..end.unwrap_or(self.id.len())]).into_owned()
    }
}

impl Geometry {
    /// From what the device at `place` says.
    ///
    /// # Errors
    ///
    /// When its pixels are not red, green and blue in 16, 24 or 32 bits, or do not fit into its
    /// memory.
    pub fn new(place: &str, fixed: &FixedInfo, variable: &VariableInfo) -> Result<Self> {
        let bits = |field: BitField| Bits {
            offset: field.offset,
            length: field.length,
        };
        let layout = PixelLayout {
            bytes: variable.bits_per_pixel as usize / 8,
            red: bits(variable.red),
            green: bits(variable.green),
            blue: bits(variable.blue),
        };
        let fields = [variable.red, variable.green, variable.blue];
        let coloured = matches!(fixed.visual, FB_VISUAL_TRUECOLOR | FB_VISUAL_DIRECTCOLOR)
            && fixed.kind == FB_TYPE_PACKED_PIXELS
            && variable.grayscale == 0
            && variable.nonstd == 0
            && fields.iter().all(|field| field.msb_right == 0);
        if !coloured || !variable.bits_per_pixel.is_multiple_of(8) || !layout.is_sound() {
            let expected = "pixels of red, green and blue in 16, 24 or 32 bits";
            let found = format!(
                "{} bits per pixel, visual {}, type {}",
                variable.bits_per_pixel, fixed.visual, fixed.kind
            );
            return Err(Error::unexpected(place, expected, found));
        }
        let [width, height, pitch, x, y] = [
            variable.xres,
            variable.yres,
            fixed.line_length,
            variable.xoffset,
            variable.yoffset,
        ]
        .map(u64::from);
        let (bytes, memory) = (layout.bytes as u64, u64::from(fixed.smem_len));
        // None of these products of 32-bit numbers is more than 64 bits hold.
        let start = y * pitch + x * bytes;
        let fits = width > 0
            && height > 0
            && (x + width) * bytes <= pitch
            && (y + height - 1) * pitch + (x + width) * bytes <= memory;
        if !fits {
            let found = format!("{width}x{height} from ({x}, {y}), {pitch} bytes a row");
            let expected = format!("rows within {memory} bytes of memory");
            return Err(Error::unexpected(place, expected, found));
        }
        Ok(Self {
            size_px: [width as usize, height as usize],
            layout,
            pitch: pitch as usize,
            start: start as usize,
        })
    }

    /// The byte where visible row `y` begins.
    pub fn row_start(&self, y: usize) -> u64 {
        (self.start + self.pitch * y) as u64
    }
}
