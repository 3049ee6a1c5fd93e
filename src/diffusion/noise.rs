//! Seeded Gaussian noise: the same numbers on every machine, bit for bit.
//!
//! Philox4x32-10 (Salmon et al. 2011) turns (seed, stream, index) into 32 random bits, and
//! algorithm AS 241 (Wichura 1988) turns those into a normal number. The generator is
//! counter-based: every number is known without the ones before it. Only integers and the f64
//! operations that IEEE 754 rounds exactly (+ - * / sqrt) are used, so no system's libm and no
//! fused multiply-add can change a bit.
//!
//! [`FORMAT`] is part of every recipe: any change to a number here is a new [`VERSION`].

use ndarray::{Array, Array4, ArrayView, ArrayViewMut4, Dimension, IntoDimension};

use super::sampler::NoiseSource;

/// The name of the generator and the normal transform, as recipes carry it.
pub const FORMAT: &str = "philox4x32-10/as241";

/// The version of the mapping from seed to numbers; recipes of another version paint otherwise.
pub const VERSION: u32 = 1;

/// Independent sequences under one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The noise x_T that a walk starts from.
    Start,
    /// The noise injected after this kept step, counted from 0.
    Step(usize),
    /// Other draws, such as the choice of a class, counted from 0.
    Draw(u64),
}

impl Stream {
    /// The upper half of the generator's counter: 0, then upwards for steps, and from the top
    /// downwards for other draws.
    pub fn id(self) -> u64 {
        match self {
            Self::Start => 0,
            Self::Step(index) => 1 + index as u64,
            Self::Draw(draw) => u64::MAX - draw,
        }
    }
}

/// 32 random bits.
pub fn word(seed: u64, stream: Stream, index: u64) -> u32 {
    block(seed, stream, index / 4)[(index % 4) as usize]
}

/// A uniform number in (0, 1), in the middle of one of 2^32 equal intervals.
pub fn uniform(word: u32) -> f64 {
    (f64::from(word) + 0.5) * (1.0 / 4_294_967_296.0)
}

/// The standard normal number whose distribution function is `u`, a number that [`uniform`]
/// gives: algorithm AS 241 (PPND16) of Wichura 1988, good to 1e-15. In
/// [-6.34, 6.34].
pub fn normal(u: f64) -> f64 {
    let q = u - 0.5;
    if q.abs() <= 0.425 {
        centre(q)
    } else {
        tail(u).copysign(q)
    }
}

/// Fills `out` with standard normal numbers: index 0 first.
pub fn fill(seed: u64, stream: Stream, out: &mut [f32]) {
    for (index, values) in out.chunks_mut(4).enumerate() {
        let words = block(seed, stream, index as u64);
        for (value, word) in values.iter_mut().zip(words) {
            *value = normal(uniform(word)) as f32;
        }
    }
}

/// The first standard normal numbers of a stream, in `shape`.
pub fn numbers<S: IntoDimension>(seed: u64, stream: Stream, shape: S) -> Array<f32, S::Dim> {
    let shape = shape.into_dimension();
    let mut values = vec![0.0; shape.size()];
    fill(seed, stream, &mut values);
    Array::from_shape_vec(shape, values).expect("there is one value per element of the shape")
}

/// x_T: what a walk with this seed starts from, `[n, c, h, w]`.
pub fn start(seed: u64, shape: (usize, usize, usize, usize)) -> Array4<f32> {
    numbers(seed, Stream::Start, shape)
}

/// The noise that a walk with this seed injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeded(pub u64);

impl NoiseSource for Seeded {
    /// # Panics
    ///
    /// When `out` is not in standard layout; a walk's own buffers are.
    fn fill(&mut self, index: usize, mut out: ArrayViewMut4<f32>) {
        let out = out
            .as_slice_mut()
            .expect("a walk's buffers are in standard layout");
        fill(self.0, Stream::Step(index), out);
    }
}

/// The noise that a walk between two seeds injects: at 0 that of the first, at 1 of the second,
/// so that the walk ends at their own pictures.
#[derive(Debug, Clone)]
pub struct Between {
    /// The seed at position 0.
    pub from: u64,
    /// The seed at position 1.
    pub to: u64,
    /// In [0, 1].
    pub position: f64,
}

impl Between {
    /// The numbers of a stream between the two seeds, in `shape`.
    pub fn numbers<S: IntoDimension + Copy>(&self, stream: Stream, shape: S) -> Array<f32, S::Dim> {
        let [from, to] = [self.from, self.to].map(|seed| numbers(seed, stream, shape));
        slerp(from.view(), to.view(), self.position)
    }
}

impl NoiseSource for Between {
    fn fill(&mut self, index: usize, mut out: ArrayViewMut4<f32>) {
        let mut to = Array4::zeros(out.raw_dim());
        Seeded(self.from).fill(index, out.view_mut());
        Seeded(self.to).fill(index, to.view_mut());
        let between = slerp(out.view(), to.view(), self.position);
        out.assign(&between);
    }
}

/// Spherical interpolation from `a` (at 0) to `b` (at 1), Shoemake 1985.
///
/// Between two noises it stays as long as noise is, where a straight line would pass through a
/// shorter, greyer one.
///
/// # Panics
///
/// When the shapes differ.
pub fn slerp<D: Dimension>(
    a: ArrayView<f32, D>,
    b: ArrayView<f32, D>,
    position: f64,
) -> Array<f32, D> {
    assert_eq!(a.shape(), b.shape(), "noises of different shapes");
    let dot = |a: &ArrayView<f32, D>, b: &ArrayView<f32, D>| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
    let angle = libm::acos(cosine.clamp(-1.0, 1.0));
    let sine = libm::sin(angle);
    // Parallel noises, or one of length zero: the arc is a straight line.
    let (from, to) = if sine > 1e-6 {
        (
            libm::sin((1.0 - position) * angle) / sine,
            libm::sin(position * angle) / sine,
        )
    } else {
        (1.0 - position, position)
    };
    let mut result = a.to_owned();
    result.zip_mut_with(&b, |a, &b| {
        *a = (from * f64::from(*a) + to * f64::from(b)) as f32
    });
    result
}

/// Block `index` of a stream: four words.
fn block(seed: u64, stream: Stream, index: u64) -> [u32; 4] {
    let ([i0, i1], [s0, s1]) = (halves(index), halves(stream.id()));
    philox([i0, i1, s0, s1], halves(seed))
}

/// The low and the high 32 bits.
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// Philox4x32-10, Salmon et al. 2011, section 3.3 and Random123's `philox.h`.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [low0, high0] = halves(u64::from(counter[0]) * 0xD251_1F53);
        let [low1, high1] = halves(u64::from(counter[2]) * 0xCD9E_8D57);
        counter = [
            high1 ^ counter[1] ^ key[0],
            low1,
            high0 ^ counter[3] ^ key[1],
            low0,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

/// AS 241 for |q| <= 0.425, where q = u - 1/2.
fn centre(q: f64) -> f64 {
    let [numerator, denominator] = &CENTRE;
    let r = 0.180625 - q * q;
    q * horner(numerator, r) / horner(denominator, r)
}

/// AS 241 outside of that: the absolute value. The algorithm's third range, u below 1.4e-11, is
/// left out because no [`uniform`] number is below 2^-33.
fn tail(u: f64) -> f64 {
    let [numerator, denominator] = &TAIL;
    let r = (-ln(u.min(1.0 - u))).sqrt() - 1.6;
    horner(numerator, r) / horner(denominator, r)
}

/// A polynomial, highest power first.
fn horner(coefficients: &[f64; 8], r: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * r + c)
}

#[expect(clippy::excessive_precision, reason = "as published")]
const CENTRE: [[f64; 8]; 2] = [
    [
        2.509_080_928_730_122_672_7e3,
        3.343_057_558_358_812_810_5e4,
        6.726_577_092_700_870_085_3e4,
        4.592_195_393_154_987_145_7e4,
        1.373_169_376_550_946_112_5e4,
        1.971_590_950_306_551_442_7e3,
        1.331_416_678_917_843_774_5e2,
        3.387_132_872_796_366_608_0,
    ],
    [
        5.226_495_278_852_854_561_0e3,
        2.872_908_573_572_194_267_4e4,
        3.930_789_580_009_271_061_0e4,
        2.121_379_430_158_659_586_7e4,
        5.394_196_021_424_751_107_7e3,
        6.871_870_074_920_579_083_0e2,
        4.231_333_070_160_091_125_2e1,
        1.0,
    ],
];

#[expect(clippy::excessive_precision, reason = "as published")]
const TAIL: [[f64; 8]; 2] = [
    [
        7.745_450_142_783_414_076_40e-4,
        2.272_384_498_926_918_458_33e-2,
        2.417_807_251_774_506_117_70e-1,
        1.270_458_252_452_368_382_58,
        3.647_848_324_763_204_605_04,
        5.769_497_221_460_691_405_50,
        4.630_337_846_156_545_295_90,
        1.423_437_110_749_683_577_34,
    ],
    [
        1.050_750_071_644_416_843_24e-9,
        5.475_938_084_995_344_946_00e-4,
        1.519_866_656_361_645_719_66e-2,
        1.481_039_764_274_800_745_90e-1,
        6.897_673_349_851_000_045_50e-1,
        1.676_384_830_183_803_849_40,
        2.053_191_626_637_758_821_87,
        1.0,
    ],
];

/// The natural logarithm of a normal positive number, after fdlibm's `e_log.c` (Sun, 1993).
///
/// Our own, because `f64::ln` is the system's and differs in the last bit from one to another.
#[expect(clippy::excessive_precision, reason = "as published")]
fn ln(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238_164_90e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_700_02e-10;
    const SERIES: [f64; 7] = [
        6.666_666_666_666_735_130e-1,
        3.999_999_999_940_941_908e-1,
        2.857_142_874_366_239_149e-1,
        2.222_219_843_214_978_396e-1,
        1.818_357_216_161_805_012e-1,
        1.531_383_769_920_937_332e-1,
        1.479_819_860_511_658_591e-1,
    ];
    // x = 2^exponent (1 + f), with 1 + f between sqrt(1/2) and sqrt(2).
    let above = x.to_bits() + (1.0f64.to_bits() - std::f64::consts::FRAC_1_SQRT_2.to_bits());
    let exponent = (above >> 52) as i32 - 1023;
    let f = f64::from_bits(x.to_bits().wrapping_sub((exponent as u64) << 52)) - 1.0;
    let exponent = f64::from(exponent);
    // ln(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)), with R in two halves, as the original sums it.
    let s = f / (2.0 + f);
    let (z, w) = (s * s, (s * s) * (s * s));
    let even = w * (SERIES[1] + w * (SERIES[3] + w * SERIES[5]));
    let odd = z * (SERIES[0] + w * (SERIES[2] + w * (SERIES[4] + w * SERIES[6])));
    let half = 0.5 * f * f;
    s * (half + (odd + even)) + exponent * LN2_LOW - half + f + exponent * LN2_HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    use ndarray::{Array3, arr1};

    #[test]
    fn philox_gives_the_published_answers() {
        // kat_vectors of DEShawResearch/random123.
        let answers = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in answers {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn every_value_is_known_without_the_ones_before() {
        let (seed, stream) = (u64::MAX - 5, Stream::Draw(2));
        let mut values = [0.0; 4099];
        fill(seed, stream, &mut values);
        for (index, value) in values.into_iter().enumerate() {
            assert_eq!(
                value,
                normal(uniform(word(seed, stream, index as u64))) as f32
            );
        }
    }

    #[test]
    fn the_logarithm_is_good_to_the_last_bit() {
        let smallest = uniform(0);
        for x in (0..100_000).map(|i| smallest + f64::from(i) * 1e-5) {
            let (found, expected) = (ln(x), libm::log(x));
            assert!(
                (found - expected).abs() <= expected.abs() * f64::EPSILON,
                "ln {x}: {found}"
            );
        }
    }

    #[test]
    fn normal_numbers_rise_and_are_odd() {
        let words = (0..=u32::MAX).step_by(65_537);
        assert!(words.clone().map(|word| normal(uniform(word))).is_sorted());
        for word in words {
            assert_eq!(normal(uniform(word)), -normal(uniform(u32::MAX - word)));
        }
        assert!(normal(uniform(u32::MAX)) < 6.34);
    }

    #[test]
    fn noise_has_the_moments_of_the_normal_distribution() {
        let noise = start(11, (16, 3, 32, 32));
        let n = noise.len() as f64;
        let moment = |k| noise.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / n;
        // Five standard errors of each: the variance of x^k is E x^2k - (E x^k)^2.
        for (k, expected, variance) in
            [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)]
        {
            let (found, tolerance) = (moment(k), 5.0 * f64::sqrt(variance / n));
            assert!((found - expected).abs() < tolerance, "moment {k}: {found}");
        }
    }

    #[test]
    fn slerp_keeps_the_ends_and_the_length() {
        let noise = |seed| start(seed, (1, 3, 32, 32)).remove_axis(ndarray::Axis(0));
        let (a, b): (Array3<f32>, Array3<f32>) = (noise(1), noise(2));
        assert_eq!(slerp(a.view(), b.view(), 0.0), a);
        assert_eq!(slerp(a.view(), b.view(), 1.0), b);
        assert_eq!(slerp(a.view(), a.view(), 0.3), a);
        for position in [0.1, 0.5, 0.9] {
            let between = slerp(a.view(), b.view(), position);
            let variance = between.iter().map(|x| x * x).sum::<f32>() / between.len() as f32;
            assert!((variance - 1.0).abs() < 0.15, "{variance} at {position}");
        }
        let (east, north) = (arr1(&[2.0, 0.0]), arr1(&[0.0, 2.0]));
        let middle = slerp(east.view(), north.view(), 0.5);
        assert_eq!(middle, arr1(&[f32::sqrt(2.0); 2]));
    }
}
