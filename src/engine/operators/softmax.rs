//! Softmax along the channels.

use std::ops::Range;

use super::math::exp;
use super::rows::{merge_pictures, rows};
use super::{Memory, Operator, Scratch, View, tile, worth_waking};
use crate::engine::simd::{Isa, LANES_MAX, Simd, Work};

/// `e^x / Σ e^x` over the channels of every pixel.
#[derive(Debug)]
pub struct Softmax {
    isa: Isa,
    input: View,
    output: View,
    phases: [usize; 1],
}

/// A task that is smaller than this many values is not worth its start.
const TASK_VALUES: usize = 4096;

/// A window of it is 0 as far as there are values, and makes -∞ of the 0 behind them.
const REST: [f32; 2 * LANES_MAX] = {
    let mut rest = [0.0; 2 * LANES_MAX];
    let mut lane = LANES_MAX;
    while lane < rest.len() {
        rest[lane] = f32::NEG_INFINITY;
        lane += 1;
    }
    rest
};

impl Softmax {
    /// The softmax of f32 for `threads` threads. `output` may be `input`.
    ///
    /// # Panics
    ///
    /// When the two have different shapes.
    pub fn new(isa: Isa, threads: usize, mut input: View, mut output: View) -> Self {
        let shape = |v: &View| [v.batch, v.height, v.width, v.channels];
        assert_eq!(
            shape(&input),
            shape(&output),
            "a result of the input's shape"
        );
        merge_pictures(&mut [&mut input, &mut output]);
        let values = input.pixels() * input.channels;
        let tasks = match worth_waking(threads, values, tile::start_values(isa)) {
            1 => 1,
            _ => (values / TASK_VALUES).clamp(1, 4 * threads),
        };
        Self {
            isa,
            input,
            output,
            phases: [tasks.min(input.pixels())],
        }
    }
}

impl Operator for Softmax {
    fn phases(&self) -> &[usize] {
        &self.phases
    }

    unsafe fn run(&self, _phase: usize, task: usize, memory: Memory, _scratch: Scratch) {
        let ([tasks], pixels) = (self.phases, self.input.pixels());
        let pixels = pixels * task / tasks..pixels * (task + 1) / tasks;
        self.isa.run(Task {
            softmax: self,
            pixels,
            memory,
        });
    }

    fn bytes(&self) -> u64 {
        (2 * self.input.pixels() * self.input.channels * size_of::<f32>()) as u64
    }

    fn describe(&self) -> String {
        format!("softmax of {}", self.input.channels)
    }
}

/// The softmax of some pixels.
struct Task<'a> {
    softmax: &'a Softmax,
    pixels: Range<usize>,
    memory: Memory,
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Softmax { input, output, .. } = self.softmax;
        for row in rows(input.width, self.pixels) {
            let (mut from, mut to) = (input.pixel(row.start), output.pixel(row.start));
            for _ in row {
                // SAFETY: the pixel is within the views, for which the caller of the operator
                // vouches; tasks have different pixels.
                unsafe {
                    let x = self.memory.at::<f32>(input.offset).add(from);
                    let y = self.memory.at::<f32>(output.offset).add(to);
                    normalize(simd, x, y, input.channels);
                }
                from += input.pixel_stride;
                to += output.pixel_stride;
            }
        }
    }
}

/// The softmax of `len` values at `x`, to `y`.
///
/// # Safety
///
/// They can be read there and written here.
#[inline(always)]
unsafe fn normalize<S: Simd>(simd: S, x: *const f32, y: *mut f32, len: usize) {
    const { assert!(S::LANES <= LANES_MAX) };
    let (fours, whole) = (len - len % (4 * S::LANES), len - len % S::LANES);
    let lanes = len - whole;
    // SAFETY: as the caller says; a vector's lanes are at most as many as `REST` has zeros.
    unsafe {
        // What does not fill a vector is followed by values whose exponential is nothing.
        let nothing = simd.load(REST.as_ptr().add(LANES_MAX - lanes));
        let rest = simd.add(simd.load_part(x.add(whole), lanes), nothing);

        let mut largest = [rest; 4];
        for at in (0..fours).step_by(4 * S::LANES) {
            for (v, largest) in largest.iter_mut().enumerate() {
                *largest = simd.max(*largest, simd.load(x.add(at + v * S::LANES)));
            }
        }
        let [mut a, b, c, d] = largest;
        for at in (fours..whole).step_by(S::LANES) {
            a = simd.max(a, simd.load(x.add(at)));
        }
        let largest = simd.max(simd.max(a, b), simd.max(c, d));
        let largest = simd.splat(simd.largest(largest));

        // Every power is a long chain of operations, of which a small core has to find several to
        // be busy.
        let mut sums = [simd.splat(0.0); 4];
        for at in (0..fours).step_by(4 * S::LANES) {
            let mut powers = [simd.splat(0.0); 4];
            for (v, power) in powers.iter_mut().enumerate() {
                *power = exp(simd, simd.sub(simd.load(x.add(at + v * S::LANES)), largest));
            }
            for (v, (power, sum)) in powers.into_iter().zip(&mut sums).enumerate() {
                simd.store(y.add(at + v * S::LANES), power);
                *sum = simd.add(*sum, power);
            }
        }
        let [a, b, c, d] = sums;
        let mut sum = simd.add(simd.add(a, b), simd.add(c, d));
        for at in (fours..whole).step_by(S::LANES) {
            let power = exp(simd, simd.sub(simd.load(x.add(at)), largest));
            simd.store(y.add(at), power);
            sum = simd.add(sum, power);
        }
        if lanes > 0 {
            let power = exp(simd, simd.sub(rest, largest));
            simd.store_part(y.add(whole), power, lanes);
            sum = simd.add(sum, power);
        }

        let scale = simd.splat(simd.sum(sum).recip());
        for at in (0..whole).step_by(S::LANES) {
            simd.store(y.add(at), simd.mul(simd.load(y.add(at)), scale));
        }
        if lanes > 0 {
            let power = simd.load_part(y.add(whole), lanes);
            simd.store_part(y.add(whole), simd.mul(power, scale), lanes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::operators::fixture::{Block, Numbers, Places, elements, outcome};
    use crate::engine::operators::{Element, Operand};

    fn exact(x: &[f32]) -> Vec<f64> {
        let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> = x.iter().map(|x| f64::from(x - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }

    fn check(shape: [usize; 4], size: f32, seed: u64) {
        for isa in Isa::available() {
            let mut numbers = Numbers(seed);
            let mut places = Places {
                end: 0,
                numbers: &mut numbers,
            };
            let input = places.operand(shape, Element::Float);
            let output = places.operand(shape, Element::Float);
            let output = if seed.is_multiple_of(3) {
                input
            } else {
                output
            };
            let mut block = Block::new(places.end);
            block.fill(&input, &mut numbers, |x| {
                if x < -0.95 {
                    f32::NEG_INFINITY
                } else {
                    size * x
                }
            });
            let mut after = outcome(&block, &output, |threads| {
                Box::new(Softmax::new(isa, threads, input.view, output.view))
            });
            let read = |block: &mut Block, operand: &Operand| -> Vec<f32> {
                elements(&operand.view)
                    .into_iter()
                    .map(|at| block.read(isa, operand, at))
                    .collect()
            };
            let (x, y) = (read(&mut block, &input), read(&mut after, &output));
            let exact = x.chunks(shape[3]).flat_map(exact);
            for (y, exact) in y.into_iter().zip(exact) {
                // Where all are -∞ it is 0 / 0.
                let same = (f64::from(y) - exact).abs() <= 2e-6 * exact + 1e-37;
                assert!(
                    same || exact.is_nan() && y.is_nan(),
                    "{isa:?} {shape:?}: {y}, not {exact}"
                );
            }
        }
    }

    #[test]
    fn any_shape() {
        let mut numbers = Numbers(1);
        for seed in 0..100 {
            let shape = [
                1 + numbers.below(2),
                1 + numbers.below(5),
                1 + numbers.below(5),
                1 + numbers.below(100),
            ];
            check(shape, numbers.of(&[1.0, 10.0, 1000.0]), seed);
        }
    }

    #[test]
    fn large_operands_are_divided() {
        check([1, 8, 256, 256], 5.0, 1);
        check([2, 30, 31, 10], 5.0, 3);
        let view = View::dense(0, [1, 4, 256, 256]);
        assert_eq!(Softmax::new(Isa::Portable, 3, view, view).phases(), [12]);
        assert_eq!(Softmax::new(Isa::Portable, 1, view, view).phases(), [1]);
    }
}
