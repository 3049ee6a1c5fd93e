//! Convolutions against sums in f64, with every operand that an epilogue can have.

use super::*;
use crate::engine::operators::fixture::{Block, LEVELS, Numbers, Places, elements, outcome};
use crate::engine::operators::{Activation, Element};

/// A convolution to be tested, of the input or of the input enlarged.
#[derive(Debug, Clone)]
pub struct Case {
    /// Batch, height, width, channels.
    pub input: [usize; 4],
    /// Output channels.
    pub outputs: usize,
    /// How much the input is enlarged before the convolution.
    pub upsample: usize,
    /// The kernel.
    pub geometry: Geometry,
}

impl Case {
    /// Any convolution; of an enlarged input, one that [`super::super::upsampled`] can do.
    pub fn random(numbers: &mut Numbers, upsample: usize) -> Self {
        let kernel = [1 + numbers.below(3), 1 + numbers.below(3)];
        let geometry = Geometry {
            kernel,
            stride: [1 + numbers.below(2), 1 + numbers.below(2)],
            padding: std::array::from_fn(|side| numbers.below(kernel[side % 2])),
        };
        let same = Geometry::SAME;
        Self {
            input: [
                1 + numbers.below(2),
                3 + numbers.below(8),
                3 + numbers.below(8),
                numbers.of(&[1, 3, 4, 16, 17, 37, 64]),
            ],
            outputs: numbers.of(&[1, 3, 4, 5, 16, 32, 33, 70]),
            upsample,
            geometry: if upsample == 1 { geometry } else { same },
        }
    }
}

/// The sum of products of one output value, in f64.
fn sum(case: &Case, x: &[f32], weights: &[f32], pixel: [usize; 3], output: usize) -> f64 {
    let [_, height, width, channels] = case.input;
    let Geometry {
        kernel,
        stride,
        padding,
    } = case.geometry;
    let mut sum = 0.0;
    for tap in 0..kernel[0] * kernel[1] {
        let y = (pixel[1] * stride[0] + tap / kernel[1]).wrapping_sub(padding[0]);
        let x_at = (pixel[2] * stride[1] + tap % kernel[1]).wrapping_sub(padding[1]);
        if y >= height * case.upsample || x_at >= width * case.upsample {
            continue;
        }
        let row = pixel[0] * height + y / case.upsample;
        let from = (row * width + x_at / case.upsample) * channels;
        for channel in 0..channels {
            let weight = weights[(output * channels + channel) * kernel[0] * kernel[1] + tap];
            sum += f64::from(x[from + channel]) * f64::from(weight);
        }
    }
    sum
}

/// How far a sum of products in f16 may be off that is of the size of 1: eight units of its last
/// place, of which its terms' rounding and its own are some.
const HALF_TOLERANCE: f64 = 8e-3;

/// What builds the operator under test.
type Build<'a> = &'a dyn Fn(Isa, usize, View, &[f32], Epilogue) -> Box<dyn Operator>;

/// Compares an operator with sums in f64, for every instruction set, and its results for one,
/// two and three threads with one another.
pub fn check(
    seed: u64,
    case: &Case,
    build: impl Fn(Isa, usize, View, &[f32], Epilogue) -> Box<dyn Operator>,
) {
    let isas = Isa::available();
    let halves = isas.iter().filter_map(|isa| isa.in_half());
    for isa in isas.iter().copied().chain(halves) {
        check_one(isa, seed, case, &build);
    }
}

fn check_one(isa: Isa, seed: u64, case: &Case, build: Build) {
    let mut numbers = Numbers(seed + 1000);
    let [batch, height, width, k] = case.input;
    let [rows, columns] = case
        .geometry
        .output([height, width].map(|size| size * case.upsample));
    let shape = [batch, rows, columns, case.outputs];
    let elements_of = [Element::Float, LEVELS];
    let (residual_of, output_of) = (numbers.of(&elements_of), numbers.of(&elements_of));
    let mut places = Places {
        end: 0,
        numbers: &mut numbers,
    };
    let input = places.operand(case.input, Element::Float);
    let output = places.operand(shape, output_of);
    let residual = places.operand(shape, residual_of);
    let added_batch = places.numbers.of(&[1, batch]);
    let added = places.operand([added_batch, 1, 1, case.outputs], Element::Float);
    let mut block = Block::new(places.end);
    for operand in [&input, &residual, &added] {
        block.fill(operand, &mut numbers, |number| number);
    }
    let size = 1.0 / ((k * case.geometry.taps()) as f32).sqrt();
    let weights: Vec<f32> = (0..case.outputs * k * case.geometry.taps())
        .map(|_| numbers.real() * size)
        .collect();
    let epilogue = Epilogue {
        bias: (0..case.outputs).map(|_| numbers.real()).collect(),
        added: numbers.of(&[None, Some(added.view)]),
        residual: numbers.of(&[None, Some(residual)]),
        activation: numbers.of(&[Activation::None, Activation::Silu]),
        output,
    };

    let mut result = outcome(&block, &output, |threads| {
        build(isa, threads, input.view, &weights, epilogue.clone())
    });
    let x: Vec<f32> = elements(&input.view)
        .into_iter()
        .map(|at| block.read(isa, &input, at))
        .collect();
    for (i, at) in elements(&output.view).into_iter().enumerate() {
        let (pixel, channel) = (i / case.outputs, i % case.outputs);
        let place = [
            pixel / columns / rows,
            pixel / columns % rows,
            pixel % columns,
        ];
        let mut want = sum(case, &x, &weights, place, channel) + f64::from(epilogue.bias[channel]);
        if let Some(view) = epilogue.added {
            let picture = if view.batch == 1 { 0 } else { place[0] };
            want += f64::from(block.read(isa, &added, view.pixel(picture) + channel));
        }
        if let Some(operand) = &epilogue.residual {
            let at = operand.view.pixel(pixel) + channel;
            want += f64::from(block.read(isa, operand, at));
        }
        if epilogue.activation == Activation::Silu {
            want /= 1.0 + (-want).exp();
        }
        let (low, high, tolerance) = match output.element {
            Element::Float => (f64::MIN, f64::MAX, 1e-5),
            Element::Levels(_) => (-117.0 * 0.02, 138.0 * 0.02, 0.0101),
        };
        let tolerance = tolerance + if isa.is_half() { HALF_TOLERANCE } else { 0.0 };
        let got = f64::from(result.read(isa, &output, at));
        let error = (got - want.clamp(low, high)).abs();
        assert!(
            error < tolerance,
            "{isa:?} {case:?} {epilogue:?} {place:?} {channel}: {got} {want}"
        );
    }
}

/// [`check`] of a [`Conv`].
fn check_conv(seed: u64, case: &Case) {
    let geometry = case.geometry;
    check(seed, case, |isa, threads, input, weights, epilogue| {
        Box::new(Conv::new(isa, threads, input, geometry, weights, epilogue))
    });
}

#[test]
fn any_convolution() {
    for seed in 0..100 {
        let case = Case::random(&mut Numbers(seed), 1);
        check_conv(seed, &case);
    }
}

#[test]
fn weights_in_chunks_and_pixels_in_blocks() {
    let same = Geometry::SAME;
    let cases = [
        ([1, 4, 5, 520], 9, same),
        ([1, 18, 17, 20], 36, same),
        ([1, 1, 300, 40], 70, Geometry::POINT),
        ([1, 1, 1, 500], 300, Geometry::POINT),
        ([2, 1, 1, 77], 65, Geometry::POINT),
        ([3, 1, 1, 40], 33, Geometry::POINT),
        ([1, 20, 20, 16], 3, same),
    ];
    for (seed, (input, outputs, geometry)) in (200..).zip(cases) {
        let case = Case {
            input,
            outputs,
            upsample: 1,
            geometry,
        };
        (0..3).for_each(|epilogue| check_conv(seed + 50 * epilogue, &case));
    }
}

#[test]
fn tasks_divide_the_larger_side_first() {
    let macs = 100 * TASK_MACS;
    assert_eq!(divide(1, macs, [128, 4], [1, 9]), [1, 1]);
    assert_eq!(divide(8, macs, [128, 4], [9, 1]), [8, 1]);
    assert_eq!(divide(8, macs, [2, 16], [1, 9]), [1, 8]);
    assert_eq!(divide(8, macs, [9, 4], [1, 9]), [2, 4]);
    assert_eq!(divide(8, macs, [3, 2], [9, 1]), [3, 2]);
    assert_eq!(divide(8, 2 * TASK_MACS, [9, 9], [9, 1]), [2, 1]);
}

#[test]
fn parts_are_everything_once() {
    for (count, parts) in [(1, 1), (7, 3), (8, 8), (100, 7)] {
        let all: Vec<usize> = (0..parts)
            .flat_map(|index| share(count, parts, index))
            .collect();
        assert_eq!(all, (0..count).collect::<Vec<_>>());
        assert!((0..parts).all(|index| share(count, parts, index).len() <= count.div_ceil(parts)));
    }
}

#[test]
fn sizes_are_those_of_onnx() {
    let same = Geometry::SAME;
    assert_eq!(same.output([5, 8]), [5, 8]);
    let half = Geometry {
        stride: [2, 2],
        ..same
    };
    assert_eq!(half.output([5, 8]), [3, 4]);
    let uneven = Geometry {
        kernel: [2, 3],
        stride: [1, 2],
        padding: [1, 0, 0, 2],
    };
    assert_eq!(uneven.output([4, 7]), [4, 4]);
    assert_eq!((uneven.taps(), Geometry::POINT.output([1, 9])), (6, [1, 9]));
}
