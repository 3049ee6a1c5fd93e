//! Tones: from a picture's bytes to light between the panel's black and white.

use super::super::palette::Palette;
use super::Colour;

/// The palette counts as grey when no ink's channels differ by more.
const GREY_SPREAD: u8 = 16;

/// The part of each linear channel in luminance, ITU-R BT.709.
const LUMINANCE: Colour = [0.2126, 0.7152, 0.0722];

/// What a step of the two chroma axes counts beside one of luminance: the eye sees a grain of
/// lightness at a distance at which it no longer sees a grain of hue.
const CHROMA: [f32; 2] = [0.7, 0.6];

/// A tone curve with its saturation, and the space of the diffusion.
///
/// The space has luminance first and two differences of colour after it, linear in light, with
/// the panel's white at luminance 1. All of it is linear, so that a mean here is a mean of light.
#[derive(Debug, Clone)]
pub struct Tone {
    /// In 256ths.
    saturation: i32,
    /// What each byte of each channel adds to a colour.
    parts: [[Colour; 256]; 3],
    /// Luminance only: the inks are greys.
    grey: bool,
    /// One over the luminance of white.
    scale: f32,
}

impl Tone {
    /// The tones of `palette`; see [`super::Look`] for the other two.
    pub fn new(palette: &Palette, saturation: f32, contrast: f32) -> Self {
        let [black, white] = [0, 1].map(|ink| linear(palette.inks()[ink].rgb));
        let spread = |rgb: [u8; 3]| {
            let least = rgb.into_iter().fold(255, u8::min);
            rgb.into_iter().fold(0, u8::max) - least
        };
        let grey = palette
            .inks()
            .iter()
            .all(|ink| spread(ink.rgb) <= GREY_SPREAD);
        let mut tone = Self {
            saturation: (saturation.clamp(0.0, 4.0) * 256.0) as i32,
            parts: [[[0.0; 3]; 256]; 3],
            grey,
            scale: 1.0 / super::dot(LUMINANCE, white),
        };
        let curve: Vec<f32> = (0..=255).map(|byte| curved(byte, contrast)).collect();
        for channel in 0..3 {
            let (dark, range) = (black[channel], white[channel] - black[channel]);
            for (byte, light) in curve.iter().enumerate() {
                let mut rgb = [0.0; 3];
                rgb[channel] = dark + range * light;
                tone.parts[channel][byte] = tone.colour_of_light(rgb);
            }
        }
        tone
    }

    /// A pixel with its distance from grey stretched.
    pub fn saturated(&self, rgb: [u8; 3]) -> [u8; 3] {
        if self.saturation == 256 {
            return rgb;
        }
        let [r, g, b] = rgb.map(i32::from);
        let luma = (54 * r + 183 * g + 19 * b) >> 8;
        [r, g, b].map(|part| (luma + (((part - luma) * self.saturation) >> 8)).clamp(0, 255) as u8)
    }

    /// The colour of a saturated pixel, whether or not the inks can make it.
    pub fn colour(&self, [r, g, b]: [u8; 3]) -> Colour {
        let [red, green, blue] = &self.parts;
        let [red, green, blue] = [
            red[usize::from(r)],
            green[usize::from(g)],
            blue[usize::from(b)],
        ];
        super::add(super::add(red, green), blue)
    }

    /// Where linear light lies in the space of the diffusion.
    pub fn colour_of_light(&self, rgb: Colour) -> Colour {
        let [r, _, b] = rgb.map(|part| part * self.scale);
        let luminance = super::dot(LUMINANCE, rgb) * self.scale;
        if self.grey {
            return [luminance, 0.0, 0.0];
        }
        [
            luminance,
            (r - luminance) * CHROMA[0],
            (b - luminance) * CHROMA[1],
        ]
    }

    /// The other way round, with white's luminance 1; greys come out neutral.
    pub fn light(&self, [luminance, red, blue]: Colour) -> Colour {
        let (r, b) = (luminance + red / CHROMA[0], luminance + blue / CHROMA[1]);
        let g = (luminance - LUMINANCE[0] * r - LUMINANCE[2] * b) / LUMINANCE[1];
        [r, g, b]
    }
}

/// The light of a byte after the S-curve: 0 to 1.
fn curved(byte: u8, contrast: f32) -> f32 {
    let value = f32::from(byte) / 255.0;
    let curve = value * value * (3.0 - 2.0 * value);
    to_linear(value + contrast.clamp(-1.0, 1.0) * (curve - value))
}

/// Linear light of sRGB bytes, each part 0 to 1.
pub fn linear(rgb: [u8; 3]) -> Colour {
    rgb.map(|byte| to_linear(f32::from(byte) / 255.0))
}

/// IEC 61966-2-1; through libm, so that every machine dithers alike.
fn to_linear(value: f32) -> f32 {
    if value <= 0.04045 {
        value / 12.92
    } else {
        libm::powf((value + 0.055) / 1.055, 2.4)
    }
}

/// Oklab (Ottosson 2020) of linear light: a space in which distances look alike.
pub fn oklab([r, g, b]: Colour) -> Colour {
    let cones = [
        0.412_221_46 * r + 0.536_332_55 * g + 0.051_445_995 * b,
        0.211_903_5 * r + 0.680_699_5 * g + 0.107_396_96 * b,
        0.088_302_46 * r + 0.281_718_85 * g + 0.629_978_7 * b,
    ];
    let [l, m, s] = cones.map(libm::cbrtf);
    [
        0.210_454_26 * l + 0.793_617_8 * m - 0.004_072_047 * s,
        1.977_998_5 * l - 2.428_592_2 * m + 0.450_593_7 * s,
        0.025_904_037 * l + 0.782_771_77 * m - 0.808_675_77 * s,
    ]
}
