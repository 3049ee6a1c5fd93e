//! Both sizes of tiles against sums in f64, with every operand.

use super::*;
use crate::engine::operators::conv::{Conv, Geometry};
use crate::engine::operators::fixture::{Block, LEVELS, Numbers, Places, outcome};
use crate::engine::operators::{Activation, Element, Operand};

/// How far an output that is of the size of 1 may be off where the products are f16: the transform
/// that follows them enlarges the error of a sum some five times.
const HALF_TOLERANCE: f64 = 3e-2;

/// Operands, weights and what the epilogue does with them.
struct Case {
    block: Block,
    input: Operand,
    padding: [usize; 4],
    weights: Vec<f32>,
    epilogue: Epilogue,
}

impl Case {
    /// A convolution of an input of this shape with random operands.
    fn new(numbers: &mut Numbers, shape: [usize; 4], outputs: usize, padding: [usize; 4]) -> Self {
        let [batch, height, width, k] = shape;
        let [top, left, bottom, right] = padding;
        let size = [
            batch,
            height + top + bottom - 2,
            width + left + right - 2,
            outputs,
        ];
        let kind = [Element::Float, Element::Float, LEVELS];
        let element = numbers.of(&kind);
        let residual = numbers.of(&[None, Some(Element::Float), Some(LEVELS)]);
        let added = numbers.of(&[0, 1, batch]);
        let activation = numbers.of(&[Activation::None, Activation::Silu]);
        let mut places = Places { end: 0, numbers };
        let input = places.operand(shape, Element::Float);
        let output = places.operand(size, element);
        let residual = residual.map(|element| places.operand(size, element));
        let added = (added > 0).then(|| places.operand([added, 1, 1, outputs], Element::Float));
        let mut block = Block::new(places.end);
        for operand in [Some(input), residual, added].into_iter().flatten() {
            block.fill(&operand, numbers, |number| number);
        }
        let scale = (9.0 * k as f32).sqrt().recip();
        let weights = (0..outputs * k * 9)
            .map(|_| scale * numbers.real())
            .collect();
        let bias = (0..outputs).map(|_| numbers.real()).collect();
        let added = added.map(|operand| operand.view);
        let epilogue = Epilogue {
            bias,
            added,
            residual,
            activation,
            output,
        };
        Self {
            block,
            input,
            padding,
            weights,
            epilogue,
        }
    }

    /// The operator's output for every instruction set, which has to be the same however the work
    /// is divided, and close to sums in f64.
    fn check(&mut self, output_tile: OutputTile) {
        let view = self.epilogue.output.view;
        let isas = Isa::available();
        let halves = isas.iter().filter_map(|isa| isa.in_half());
        for isa in isas.iter().copied().chain(halves) {
            let outcome = outcome(&self.block, &self.epilogue.output, |threads| {
                let (weights, epilogue) = (&self.weights, self.epilogue.clone());
                let input = self.input.view;
                let operator = Winograd::new(
                    isa,
                    threads,
                    input,
                    output_tile,
                    self.padding,
                    weights,
                    epilogue,
                );
                Box::new(operator)
            });
            let mut outcome = outcome;
            // Of large pictures some pixels, in every column.
            for pixel in (0..view.pixels()).step_by((view.pixels() / 200) | 1) {
                for channel in 0..view.channels {
                    let at = view.pixel(pixel) + channel;
                    let is = f64::from(outcome.read(isa, &self.epilogue.output, at));
                    let expected = self.expected(isa, pixel, channel);
                    let (expected, step) = match self.epilogue.output.element {
                        Element::Float => (expected, 2e-5),
                        Element::Levels(levels) => {
                            let (scale, zero) = (f64::from(levels.scale), f64::from(levels.zero));
                            let [least, most] = [0.0, 255.0].map(|level| scale * (level - zero));
                            (expected.clamp(least, most), 0.501 * scale)
                        }
                    };
                    let step = step + if isa.is_half() { HALF_TOLERANCE } else { 0.0 };
                    assert!(
                        (is - expected).abs() <= step,
                        "{isa:?} {output_tile:?} {:?} {view:?} pixel {pixel} channel {channel}: \
                         {is}, expected {expected}",
                        self.input.view
                    );
                }
            }
        }
    }

    /// One output by the definition.
    fn expected(&mut self, isa: Isa, pixel: usize, channel: usize) -> f64 {
        let Epilogue {
            output,
            added,
            residual,
            activation,
            ..
        } = self.epilogue;
        let (view, input) = (output.view, self.input.view);
        let mut read = |operand: &Operand, at| f64::from(self.block.read(isa, operand, at));
        let (row, x) = (pixel / view.width, pixel % view.width);
        let (picture, y) = (row / view.height, row % view.height);
        let mut sum = f64::from(self.epilogue.bias[channel]);
        for (tap, (down, right)) in (0..3).flat_map(|y| (0..3).map(move |x| (y, x))).enumerate() {
            let y = (y + down).wrapping_sub(self.padding[0]);
            let x = (x + right).wrapping_sub(self.padding[1]);
            if y >= input.height || x >= input.width {
                continue;
            }
            let from = input.pixel((picture * input.height + y) * input.width + x);
            for i in 0..input.channels {
                let weight = self.weights[(channel * input.channels + i) * 9 + tap];
                sum += read(&self.input, from + i) * f64::from(weight);
            }
        }
        if let Some(view) = added {
            let from = if view.batch == 1 {
                0
            } else {
                view.pixel(picture)
            };
            let operand = Operand {
                view,
                element: Element::Float,
            };
            sum += read(&operand, from + channel);
        }
        if let Some(residual) = residual {
            let from = residual.view.pixel(pixel);
            sum += read(&residual, from + channel);
        }
        match activation {
            Activation::None => sum,
            Activation::Silu => sum / (1.0 + (-sum).exp()),
        }
    }
}

const BOTH: [OutputTile; 2] = [OutputTile::Two, OutputTile::Four];

#[test]
fn any_shape_is_a_convolution() {
    let mut numbers = Numbers(1);
    for _ in 0..25 {
        let padding = std::array::from_fn(|_| numbers.below(3));
        let shape = [
            1 + numbers.below(3),
            3 + numbers.below(9),
            3 + numbers.below(12),
            numbers.of(&[1, 3, 4, 15, 16, 17, 40]),
        ];
        let outputs = numbers.of(&[1, 5, 8, 31, 32, 33, 70]);
        for output_tile in BOTH {
            Case::new(&mut numbers, shape, outputs, padding).check(output_tile);
        }
    }
}

#[test]
fn the_smallest_picture_is_one_pixel() {
    let mut numbers = Numbers(2);
    for padding in [[1; 4], [2, 1, 0, 1], [0, 2, 2, 0]] {
        for output_tile in BOTH {
            Case::new(&mut numbers, [2, 1, 1, 19], 9, padding).check(output_tile);
        }
    }
}

#[test]
fn a_row_may_have_more_tiles_than_a_run() {
    let mut numbers = Numbers(3);
    for output_tile in BOTH {
        Case::new(&mut numbers, [1, 5, 75, 4], 9, [1; 4]).check(output_tile);
    }
}

#[test]
fn work_is_divided_by_blocks_or_by_weights() {
    let mut numbers = Numbers(4);
    for (shape, outputs, phases) in [([1, 48, 48, 32], 64, 1), ([1, 20, 20, 96], 160, 2)] {
        let mut case = Case::new(&mut numbers, shape, outputs, [1; 4]);
        for isa in Isa::available() {
            let (weights, epilogue) = (&case.weights, case.epilogue.clone());
            let input = case.input.view;
            let operator =
                Winograd::new(isa, 3, input, OutputTile::Four, [1; 4], weights, epilogue);
            assert_eq!(operator.phases().len(), phases, "{isa:?}");
            assert!(operator.phases().iter().all(|&tasks| tasks >= 3), "{isa:?}");
        }
        case.check(OutputTile::Four);
    }
}

/// The error for random input of unit variance, over the output: root mean square, and the largest.
fn error(output_tile: Option<OutputTile>, k: usize) -> [f64; 2] {
    const OUTPUTS: usize = 8;
    let mut case = Case::new(&mut Numbers(5), [1, 8, 8, k], OUTPUTS, [1; 4]);
    case.epilogue.output.element = Element::Float;
    (case.epilogue.added, case.epilogue.residual) = (None, None);
    case.epilogue.activation = Activation::None;
    case.epilogue.bias.fill(0.0);
    case.block
        .fill(&case.input, &mut Numbers(6), |number| 3f32.sqrt() * number);
    let (isa, input, output) = (Isa::best(), case.input.view, case.epilogue.output);
    let geometry = Geometry {
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1; 4],
    };
    let mut outcome = outcome(&case.block, &output, |threads| {
        let (weights, epilogue) = (&case.weights, case.epilogue.clone());
        match output_tile {
            None => Box::new(Conv::new(isa, threads, input, geometry, weights, epilogue)),
            Some(tile) => Box::new(Winograd::new(
                isa, threads, input, tile, [1; 4], weights, epilogue,
            )),
        }
    });
    let (mut square, mut error_square, mut largest) = (0.0, 0.0, 0.0f64);
    for pixel in 0..output.view.pixels() {
        for channel in 0..OUTPUTS {
            let expected = case.expected(isa, pixel, channel);
            let is = outcome.read(isa, &output, output.view.pixel(pixel) + channel);
            let error = f64::from(is) - expected;
            square += expected * expected;
            error_square += error * error;
            largest = largest.max(error.abs());
        }
    }
    let root = square.sqrt();
    [
        error_square.sqrt() / root,
        largest / root * (output.view.pixels() as f64 * OUTPUTS as f64).sqrt(),
    ]
}

#[test]
fn the_error_is_near_that_of_a_direct_sum() {
    for k in [128, 512] {
        let [direct, ..] = error(None, k);
        let [two, _] = error(Some(OutputTile::Two), k);
        let [four, largest] = error(Some(OutputTile::Four), k);
        assert!(direct > 1e-8, "{k} channels: {direct}");
        assert!(two < 1.2 * direct, "{k} channels: {two}, direct {direct}");
        assert!(four < 2.5 * direct, "{k} channels: {four}, direct {direct}");
        assert!(largest < 5e-5, "{k} channels: {largest}");
    }
}

/// On a board memory is slow, but cores are slower.
#[cfg(target_arch = "aarch64")]
#[test]
fn a_board_has_larger_tiles() {
    let choose = |pixels, kernel| {
        let layer = Layer {
            output: [1, pixels, pixels],
            channels: 256,
            outputs: 256,
            kernel,
        };
        layer.choose(Isa::Neon)
    };
    assert_eq!(choose(16, 3), Some(OutputTile::Four));
    assert_eq!(choose(8, 3), Some(OutputTile::Four));
    assert_eq!(choose(4, 3), Some(OutputTile::Two));
    assert_eq!(choose(1, 3), None);
    assert_eq!(choose(16, 2), Some(OutputTile::FourOfPairs));
    assert_eq!(choose(4, 2), None);
}

#[test]
fn the_choice_weighs_products_transforms_and_weights() {
    let choose = |pixels, channels| {
        let layer = Layer {
            output: [1, pixels, pixels],
            channels,
            outputs: channels,
            kernel: 3,
        };
        layer.choose(Isa::Portable)
    };
    assert_eq!(choose(32, 128), Some(OutputTile::Four));
    assert_eq!(choose(16, 256), Some(OutputTile::Four));
    assert_eq!(choose(8, 256), Some(OutputTile::Two));
    assert_eq!(choose(4, 256), None);
    assert_eq!(choose(64, 3), None);
}
