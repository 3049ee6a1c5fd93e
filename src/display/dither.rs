//! Dithering: tones that a panel has no ink for, made of those it has.
//!
//! The eye averages light, so tones are mixed in linear light: the mean of what the glass shows
//! is the mean of what it should. Before that a picture is brought into what the panel can show at
//! all: its tones between the panel's own black and white, its colours into the solid that the
//! inks span, with more regard for hue than for lightness. Each colour is then a mixture of the
//! few inks around it that vary least in lightness and hue, after the "minimal brightness
//! variation" of Shaked, Arad, Fitzhugh and Sobel 1996 (HPL-96-128), so that a grey holds no
//! specks of every ink. Error diffusion carries what each ink of the mixture is still owed: that
//! is linear in light, and no ink waits long for its turn, however far it lies from the others.

mod gamut;
mod mask;
mod tone;

use super::frame::Frame;
use super::palette::{MAX_INKS, Palette};
use gamut::Gamut;
use tone::Tone;

/// How the tones between the inks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dither {
    /// Not at all: each pixel takes the ink nearest to it. For text and plain colours.
    None,
    /// Error diffusion of Floyd and Steinberg 1976: the finest tones.
    #[default]
    FloydSteinberg,
    /// Error diffusion as in Bill Atkinson's MacPaint: three quarters of the error go on, so
    /// that contrast rises and light and dark parts stay clean.
    Atkinson,
    /// The ordered pattern of Bayer 1973, 8 by 8: a visible weave, and nothing that crawls.
    Bayer,
    /// Ordered against a mask without low frequencies (Ulichney 1993): an even grain.
    BlueNoise,
}

spelled!(
    Dither,
    "dither",
    None = "none",
    FloydSteinberg = "floyd-steinberg",
    Atkinson = "atkinson",
    Bayer = "bayer",
    BlueNoise = "blue-noise",
);

/// In which direction error diffusion walks along the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// Every row from the left.
    Raster,
    /// There and back, which breaks up the worms.
    Serpentine,
}

/// How a picture is made to look on a panel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// How the tones between the inks are made.
    pub dither: Dither,
    /// The direction of error diffusion.
    pub scan: Scan,
    /// 0 is grey, 1 as painted, at most 4.
    pub saturation: f32,
    /// The strength of the S-curve through the tones: -1 to 1, 0 for none.
    pub contrast: f32,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            dither: Dither::default(),
            scan: Scan::Serpentine,
            saturation: 1.0,
            contrast: 0.0,
        }
    }
}

/// From frames to the inks of one panel.
///
/// # Example
///
/// ```
/// use driftglass::display::dither::{Look, Quantizer};
/// use driftglass::display::palette::Palette;
/// use driftglass::display::Frame;
///
/// let quantizer = Quantizer::new(&Palette::named("black-white")?, Look::default());
/// let inks = quantizer.quantize(&Frame::new(8, 8));
/// assert_eq!(inks, [0; 64]);
/// # Ok::<(), driftglass::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Quantizer {
    look: Look,
    tone: Tone,
    gamut: Gamut,
}

/// A colour in the space of [`tone`]: luminance and two differences, linear in light.
type Colour = [f32; 3];

/// What each ink contributes, or is owed.
type Shares = [f32; MAX_INKS];

/// How much it counts that an ink is owed, beside the square of an error in lightness: less, and
/// the inks are placed by lightness alone and some wait; more, and each is spread by itself.
const OWED: f32 = 0.5;

impl Quantizer {
    /// Prepares the tables of `palette`; takes some ten milliseconds.
    pub fn new(palette: &Palette, look: Look) -> Self {
        let tone = Tone::new(palette, look.saturation, look.contrast);
        let gamut = Gamut::new(palette, &tone, look.dither);
        Self { look, tone, gamut }
    }

    /// For each pixel of `frame`, row by row, the position of its ink among
    /// [`Palette::inks`].
    pub fn quantize(&self, frame: &Frame) -> Vec<u8> {
        match self.look.dither {
            Dither::None => self.nearest(frame),
            Dither::FloydSteinberg => self.floyd_steinberg(frame),
            Dither::Atkinson => self.atkinson(frame),
            Dither::Bayer => self.ordered(frame, &mask::bayer()),
            Dither::BlueNoise => self.ordered(frame, mask::blue_noise()),
        }
    }

    fn nearest(&self, frame: &Frame) -> Vec<u8> {
        let pixels = frame.rgb().as_chunks().0.iter();
        pixels
            .map(|rgb| self.gamut.nearest(self.tone.saturated(*rgb)))
            .collect()
    }

    fn ordered(&self, frame: &Frame, mask: &mask::Mask) -> Vec<u8> {
        let mut inks = Vec::with_capacity(frame.width_px() * frame.height_px());
        for y in 0..frame.height_px() {
            let row = frame.row(y).as_chunks().0.iter().enumerate();
            inks.extend(row.map(|(x, rgb)| {
                let shares = self.gamut.shares(self.tone.saturated(*rgb), &self.tone);
                self.reached(&shares, mask.threshold(x, y))
            }));
        }
        inks
    }

    /// The ink that `threshold`, from 0 to 1, falls on when the shares lie side by side, the
    /// darkest ink first.
    fn reached(&self, shares: &Shares, threshold: f32) -> u8 {
        let (mut rest, mut last) = (threshold, 0);
        for ink in self.gamut.by_lightness() {
            let share = shares[usize::from(*ink)];
            if share > 0.0 {
                (rest, last) = (rest - share, *ink);
            }
            if rest < 0.0 {
                break;
            }
        }
        last
    }

    /// Whether row `y` is walked from the right.
    fn turned(&self, y: usize) -> bool {
        self.look.scan == Scan::Serpentine && y % 2 == 1
    }

    /// Sixteenths of what is owed go on: 7 ahead, 3, 5 and 1 to the row below. What would leave
    /// the frame at its sides goes below instead, so that only the last row's is lost.
    fn floyd_steinberg(&self, frame: &Frame) -> Vec<u8> {
        let [width, height] = frame.size_px();
        let mut inks = vec![0; width * height];
        let (mut this, mut below) = (vec![NOTHING; width], vec![NOTHING; width]);
        for y in 0..height {
            let row = frame.row(y).as_chunks().0;
            let ahead = if self.turned(y) { -1 } else { 1 };
            let mut carried = NOTHING;
            for step in 0..width {
                let x = if ahead < 0 { width - 1 - step } else { step };
                owe(&mut carried, &this[x], 1.0);
                let (ink, owed) = self.choose(row[x], &carried);
                inks[y * width + x] = ink;
                let next = x.checked_add_signed(ahead).filter(|&x| x < width);
                let behind = x.checked_add_signed(-ahead).filter(|&x| x < width);
                let (forward, beneath) = match next {
                    Some(_) => (0.4375, 0.3125),
                    None => (0.0, 0.75),
                };
                carried = NOTHING;
                owe(&mut carried, &owed, forward);
                owe(&mut below[behind.unwrap_or(x)], &owed, 0.1875);
                owe(&mut below[x], &owed, beneath);
                owe(&mut below[next.unwrap_or(x)], &owed, 0.0625);
            }
            std::mem::swap(&mut this, &mut below);
            below.fill(NOTHING);
        }
        inks
    }

    /// An eighth of what is owed goes to each of the next two pixels, three below and one below
    /// those; the rest is forgotten.
    fn atkinson(&self, frame: &Frame) -> Vec<u8> {
        let [width, height] = frame.size_px();
        let mut inks = vec![0; width * height];
        let mut rows = [(); 3].map(|()| vec![NOTHING; width]);
        for y in 0..height {
            let row = frame.row(y).as_chunks().0;
            let ahead = if self.turned(y) { -1 } else { 1 };
            for step in 0..width {
                let x = if ahead < 0 { width - 1 - step } else { step };
                let (ink, owed) = self.choose(row[x], &rows[0][x]);
                inks[y * width + x] = ink;
                for (row, step) in [(0, 1), (0, 2), (1, -1), (1, 0), (1, 1), (2, 0)] {
                    let to = x.checked_add_signed(step * ahead);
                    if let Some(to) = to.filter(|&to| to < width) {
                        owe(&mut rows[row][to], &owed, 0.125);
                    }
                }
            }
            rows.rotate_left(1);
            rows[2].fill(NOTHING);
        }
        inks
    }

    /// The ink for a pixel that is owed `before`, and what is owed after it.
    fn choose(&self, rgb: [u8; 3], before: &Shares) -> (u8, Shares) {
        let rgb = self.tone.saturated(rgb);
        let mut owed = self.gamut.shares(rgb, &self.tone);
        owe(&mut owed, before, 1.0);
        let lightness = &self.gamut.lightness;
        let wanted: f32 = owed.iter().zip(lightness).map(|(a, b)| a * b).sum();
        let mut costs = [0.0; MAX_INKS];
        for (ink, cost) in costs.iter_mut().enumerate() {
            let off = wanted - lightness[ink];
            *cost = off * off - 2.0 * OWED * owed[ink];
        }
        let mut best = 0;
        for ink in 1..MAX_INKS {
            best = if costs[ink] < costs[best] { ink } else { best };
        }
        owed[best] -= 1.0;
        (best as u8, owed)
    }
}

const NOTHING: Shares = [0.0; MAX_INKS];

fn owe(to: &mut Shares, owed: &Shares, part: f32) {
    for (to, owed) in to.iter_mut().zip(owed) {
        *to += part * owed;
    }
}

fn add(a: Colour, b: Colour) -> Colour {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn scaled(colour: Colour, factor: f32) -> Colour {
    colour.map(|part| part * factor)
}

fn dot(a: Colour, b: Colour) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: Colour, b: Colour) -> Colour {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quantizer(name: &str, look: Look) -> Quantizer {
        Quantizer::new(&Palette::named(name).unwrap(), look)
    }

    fn of(dither: Dither) -> Look {
        Look {
            dither,
            ..Look::default()
        }
    }

    fn frame(width: usize, height: usize, rgb: impl Fn(usize, usize) -> [u8; 3]) -> Frame {
        let mut frame = Frame::new(width, height);
        for (at, pixel) in frame.rgb_mut().as_chunks_mut().0.iter_mut().enumerate() {
            *pixel = rgb(at % width, at / width);
        }
        frame
    }

    /// How far the light of the inks is from the light wanted, on the mean, in each channel;
    /// white's luminance is 1.
    fn mean_error(quantizer: &Quantizer, frame: &Frame) -> Colour {
        let mut sum = [0.0_f64; 3];
        let inks = quantizer.quantize(frame);
        for (rgb, ink) in frame.rgb().as_chunks().0.iter().zip(&inks) {
            let rgb = quantizer.tone.saturated(*rgb);
            let wanted = quantizer.gamut.colour(rgb, &quantizer.tone);
            let found = quantizer.gamut.colours[usize::from(*ink)];
            for axis in 0..3 {
                sum[axis] += f64::from(found[axis] - wanted[axis]);
            }
        }
        let mean = sum.map(|sum| (sum / inks.len() as f64) as f32);
        quantizer.tone.light(mean)
    }

    fn assert_within(error: Colour, most: f32, what: &str) {
        let worst = error.into_iter().map(f32::abs).fold(0.0, f32::max);
        assert!(worst < most, "{what}: {error:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// In a frame as high as a panel: the error under way in its last row is lost.
        #[test]
        fn error_diffusion_keeps_the_mean(
            a in any::<[u8; 3]>(),
            b in any::<[u8; 3]>(),
            seed in any::<u32>(),
            scan in prop::sample::select(vec![Scan::Raster, Scan::Serpentine]),
        ) {
            let noise = |x: usize, y: usize| {
                let mix = (x as u32 * 0x9E37 + y as u32 * 0x85EB) ^ seed;
                mix.wrapping_mul(0x2545_F491) >> 24 & 1 == 1
            };
            for name in Palette::NAMES {
                let quantizer = quantizer(name, Look { scan, ..Look::default() });
                let plain = frame(40, 480, |_, _| a);
                assert_within(mean_error(&quantizer, &plain), 1.0 / 255.0, name);
                let mixed = frame(40, 480, |x, y| if noise(x, y) { a } else { b });
                assert_within(mean_error(&quantizer, &mixed), 1.0 / 255.0, name);
            }
        }

        #[test]
        fn ordered_dithering_keeps_the_mean_as_finely_as_its_mask(a in any::<[u8; 3]>()) {
            for name in Palette::NAMES {
                let plain = frame(64, 64, |_, _| a);
                let blue = quantizer(name, of(Dither::BlueNoise));
                assert_within(mean_error(&blue, &plain), 1.0 / 255.0, name);
                let bayer = quantizer(name, of(Dither::Bayer));
                assert_within(mean_error(&bayer, &plain), 4.0 / 64.0, name);
            }
        }

        /// All that is owed carried from pixel to pixel is the worst case of any diffusion.
        #[test]
        fn the_error_stays_bounded(colours in prop::collection::vec(any::<[u8; 3]>(), 500..800)) {
            for name in Palette::NAMES {
                let quantizer = quantizer(name, Look::default());
                let mut owed = NOTHING;
                for rgb in &colours {
                    owed = quantizer.choose(*rgb, &owed).1;
                    prop_assert!(owed.iter().all(|owed| owed.abs() < 1.5), "{name}: {owed:?}");
                }
            }
        }
    }

    const ALL: [Dither; 5] = [
        Dither::None,
        Dither::FloydSteinberg,
        Dither::Atkinson,
        Dither::Bayer,
        Dither::BlueNoise,
    ];

    #[test]
    fn black_and_white_stay_pure() {
        for name in Palette::NAMES {
            for dither in ALL {
                let look = Look {
                    saturation: 1.3,
                    contrast: 0.4,
                    ..of(dither)
                };
                let quantizer = quantizer(name, look);
                for (ink, byte) in [(0, 0), (1, 255)] {
                    let inks = quantizer.quantize(&frame(32, 16, |_, _| [byte; 3]));
                    assert!(inks.iter().all(|found| *found == ink), "{name} {dither}");
                }
            }
        }
    }

    #[test]
    fn pure_colours_take_the_ink_they_are_named_after() {
        let colours = [
            ("red", [255, 0, 0]),
            ("yellow", [255, 255, 0]),
            ("green", [0, 255, 0]),
            ("blue", [0, 0, 255]),
        ];
        for name in &Palette::NAMES[3..] {
            let palette = Palette::named(name).unwrap();
            let quantizer = quantizer(name, of(Dither::None));
            for (colour, rgb) in colours {
                let ink = quantizer.quantize(&frame(1, 1, |_, _| rgb))[0];
                assert_eq!(palette.inks()[usize::from(ink)].name, colour, "{name}");
            }
        }
    }

    #[test]
    fn half_the_light_is_every_other_pixel() {
        // sRGB 188 is half the light of 255.
        let quantizer = quantizer("black-white", Look::default());
        let inks = quantizer.quantize(&frame(64, 64, |_, _| [188; 3]));
        let white = inks.iter().filter(|ink| **ink == 1).count();
        assert!(white.abs_diff(64 * 64 / 2) < 20, "{white}");
    }

    #[test]
    fn contrast_moves_tones_away_from_the_middle_and_saturation_from_grey() {
        let white = |contrast, grey: u8| {
            let look = Look {
                contrast,
                ..Look::default()
            };
            let inks = quantizer("black-white", look).quantize(&frame(64, 64, |_, _| [grey; 3]));
            inks.iter().filter(|ink| **ink == 1).count()
        };
        assert!(white(0.8, 70) < white(0.0, 70) && white(0.0, 70) < white(-0.8, 70));
        assert!(white(0.8, 200) > white(0.0, 200) && white(0.0, 200) > white(-0.8, 200));
        let look = Look {
            saturation: 0.0,
            ..Look::default()
        };
        let grey = quantizer("spectra-6", look);
        let coloured = frame(40, 30, |x, y| [(6 * x) as u8, (8 * y) as u8, 99]);
        let same = frame(40, 30, |x, y| grey.tone.saturated(coloured.pixel(x, y)));
        assert!(
            same.rgb()
                .as_chunks::<3>()
                .0
                .iter()
                .all(|[r, g, b]| r == g && g == b)
        );
        assert_eq!(grey.quantize(&coloured), grey.quantize(&same));
    }

    #[test]
    fn oklab_of_its_author() {
        // Ottosson's page gives white as (1, 0, 0); sRGB red after his matrices.
        for (rgb, expected) in [
            ([255, 255, 255], [1.0, 0.0, 0.0]),
            ([255, 0, 0], [0.628, 0.225, 0.126]),
            ([0, 0, 255], [0.452, -0.032, -0.312]),
        ] {
            let found = tone::oklab(tone::linear(rgb));
            let off = add(found, scaled(expected, -1.0));
            assert!(dot(off, off) < 1e-5, "{rgb:?}: {found:?}");
        }
    }
}
