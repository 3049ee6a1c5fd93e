//! Quantized convolutions against sums in i64, with every operand.

use super::*;
use crate::engine::operators::fixture::{Block, LEVELS, Numbers, Places, elements, outcome};
use crate::engine::operators::{Activation, Quantization, View};

/// A convolution to be tested.
#[derive(Debug)]
struct Case {
    /// Batch, height, width, channels.
    input: [usize; 4],
    levels: Quantization,
    outputs: usize,
    upsample: usize,
    geometry: Geometry,
    weights: Vec<i8>,
    zeros: Option<Vec<i32>>,
    scales: Vec<f32>,
}

const SAME: Geometry = Geometry::SAME;

impl Case {
    fn new(input: [usize; 4], outputs: usize, geometry: Geometry, numbers: &mut Numbers) -> Self {
        let weights = outputs * input[3] * geometry.taps();
        Self {
            input,
            levels: Quantization {
                scale: 0.02,
                zero: 117,
            },
            outputs,
            upsample: 1,
            geometry,
            weights: (0..weights)
                .map(|_| numbers.below(256) as u8 as i8)
                .collect(),
            zeros: None,
            scales: vec![0.01],
        }
    }

    fn random(numbers: &mut Numbers) -> Self {
        let kernel = [1 + numbers.below(3), 1 + numbers.below(3)];
        let geometry = Geometry {
            kernel,
            stride: [1 + numbers.below(2), 1 + numbers.below(2)],
            padding: std::array::from_fn(|side| numbers.below(kernel[side % 2])),
        };
        let size = [3 + numbers.below(8), 3 + numbers.below(18)];
        let channels = numbers.of(&[1, 3, 4, 16, 17, 37, 64]);
        let outputs = numbers.of(&[1, 3, 16, 31, 32, 33, 70]);
        let input = [1 + numbers.below(2), size[0], size[1], channels];
        let mut case = Self::new(input, outputs, geometry, numbers);
        case.levels.zero = numbers.of(&[0, 100, 128, 255]);
        case.upsample = numbers.of(&[1, 1, 2]);
        if numbers.below(3) == 0 {
            case.zeros = Some(
                (0..outputs)
                    .map(|_| numbers.below(256) as i32 - 128)
                    .collect(),
            );
        }
        if numbers.below(2) == 0 {
            case.scales = (0..outputs)
                .map(|_| 0.01 + numbers.real() / 200.0)
                .collect();
        }
        case
    }

    /// Batch, height, width, channels.
    fn output(&self) -> [usize; 4] {
        let [batch, height, width, _] = self.input;
        let [height, width] = self
            .geometry
            .output([height, width].map(|n| n * self.upsample));
        [batch, height, width, self.outputs]
    }

    /// The sum of products of the output value `output` of a pixel: batch, y and x. `steps` are
    /// `level - zero`, without gaps.
    fn sum(&self, steps: &[i64], pixel: [usize; 3], output: usize) -> i64 {
        let [_, height, width, channels] = self.input;
        let Geometry {
            kernel,
            stride,
            padding,
        } = self.geometry;
        let zero = self
            .zeros
            .as_ref()
            .map_or(0, |zeros| i64::from(zeros[output]));
        let mut sum = 0;
        for tap in 0..self.geometry.taps() {
            let y = (pixel[1] * stride[0] + tap / kernel[1]).wrapping_sub(padding[0]);
            let x = (pixel[2] * stride[1] + tap % kernel[1]).wrapping_sub(padding[1]);
            if y >= height * self.upsample || x >= width * self.upsample {
                continue;
            }
            let row = pixel[0] * height + y / self.upsample;
            let from = (row * width + x / self.upsample) * channels;
            for channel in 0..channels {
                let weight = (output * channels + channel) * self.geometry.taps() + tap;
                sum += steps[from + channel] * (i64::from(self.weights[weight]) - zero);
            }
        }
        sum
    }

    fn build(&self, isa: Isa, threads: usize, input: Operand, epilogue: &Epilogue) -> QConv {
        QConv::new(
            isa,
            threads,
            input,
            self.geometry,
            self.upsample,
            &self.weights,
            self.zeros.as_deref(),
            &self.scales,
            epilogue.clone(),
        )
    }

    /// Compares the convolution with the sums, for every instruction set and with a random
    /// epilogue, or with none.
    fn check(&self, seed: u64, plain: bool) {
        for isa in Isa::available() {
            self.check_one(isa, &mut Numbers(seed), plain);
        }
    }

    fn check_one(&self, isa: Isa, numbers: &mut Numbers, plain: bool) {
        let shape = self.output();
        let [batch, height, width, outputs] = shape;
        let output_of = if plain {
            Element::Float
        } else {
            numbers.of(&[Element::Float, LEVELS])
        };
        let residual_of = numbers.of(&[Element::Float, LEVELS]);
        let mut places = Places {
            end: 0,
            numbers: &mut *numbers,
        };
        let input = places.operand(self.input, Element::Levels(self.levels));
        let output = places.operand(shape, output_of);
        let residual = places.operand(shape, residual_of);
        let added_batch = places.numbers.of(&[1, batch]);
        let added = places.operand([added_batch, 1, 1, outputs], Element::Float);
        let mut block = Block::new(places.end);
        for operand in [&input, &residual, &added] {
            block.fill(operand, numbers, |number| number);
        }
        let mut epilogue = Epilogue {
            bias: vec![0.0; outputs],
            added: None,
            residual: None,
            activation: Activation::None,
            output,
        };
        if !plain {
            epilogue.bias.fill_with(|| numbers.real());
            epilogue.added = numbers.of(&[None, Some(added.view)]);
            epilogue.residual = numbers.of(&[None, Some(residual)]);
            epilogue.activation = numbers.of(&[Activation::None, Activation::Silu]);
        }
        let mut result = outcome(&block, &output, |threads| {
            Box::new(self.build(isa, threads, input, &epilogue))
        });

        let unit = Element::Levels(Quantization {
            scale: 1.0,
            ..self.levels
        });
        let steps = Operand {
            element: unit,
            ..input
        };
        let steps: Vec<i64> = elements(&input.view)
            .iter()
            .map(|&at| block.read(isa, &steps, at) as i64)
            .collect();
        for (i, at) in elements(&output.view).into_iter().enumerate() {
            let (pixel, channel) = (i / outputs, i % outputs);
            let place = [
                pixel / width / height,
                pixel / width % height,
                pixel % width,
            ];
            let sum = self.sum(&steps, place, channel);
            let scale = self.levels.scale * self.scales[channel % self.scales.len()];
            let got = result.read(isa, &output, at);
            if plain {
                assert_eq!(
                    got,
                    sum as f32 * scale,
                    "{isa:?} {self:?} {place:?} {channel}"
                );
                continue;
            }
            let mut want = sum as f64 * f64::from(scale) + f64::from(epilogue.bias[channel]);
            if let Some(view) = epilogue.added {
                let picture = if view.batch == 1 { 0 } else { place[0] };
                want += f64::from(block.read(isa, &added, view.pixel(picture) + channel));
            }
            if let Some(operand) = &epilogue.residual {
                want += f64::from(block.read(isa, operand, operand.view.pixel(pixel) + channel));
            }
            if epilogue.activation == Activation::Silu {
                want /= 1.0 + (-want).exp();
            }
            let (want, tolerance) = match output.element {
                Element::Float => (want, 1e-5 * want.abs().max(1.0)),
                Element::Levels(_) => (want.clamp(-117.0 * 0.02, 138.0 * 0.02), 0.0101),
            };
            let error = (f64::from(got) - want).abs();
            assert!(
                error < tolerance,
                "{isa:?} {self:?} {epilogue:?} {place:?} {channel}: {got} {want}"
            );
        }
    }
}

#[test]
fn any_convolution() {
    for seed in 0..80 {
        let numbers = &mut Numbers(seed);
        let case = Case::random(numbers);
        case.check(seed, false);
    }
}

#[test]
fn sums_are_exact() {
    for seed in 0..40 {
        let mut case = Case::random(&mut Numbers(seed));
        (case.levels.scale, case.scales) = (1.0, vec![1.0]);
        case.check(seed, true);
    }
    let numbers = &mut Numbers(0);
    for (zero, weight, weight_zero) in [(0, -128, 127), (255, 127, -128), (0, 127, 0)] {
        let mut case = Case::new([1, 2, 5, 600], 3, SAME, numbers);
        (case.levels, case.scales) = (Quantization { scale: 1.0, zero }, vec![1.0]);
        case.weights.fill(weight);
        case.zeros = (weight_zero != 0).then(|| vec![weight_zero; 3]);
        case.check(1, true);
    }
}

#[test]
fn many_blocks_and_panels() {
    let numbers = &mut Numbers(7);
    let cases = [
        ([1, 4, 4, 130], 100, SAME),
        ([1, 18, 17, 20], 36, SAME),
        ([2, 1, 150, 40], 70, Geometry::POINT),
        ([1, 1, 1, 500], 300, Geometry::POINT),
        ([9, 1, 1, 77], 65, Geometry::POINT),
        (
            [1, 12, 20, 8],
            3,
            Geometry {
                stride: [2, 2],
                ..SAME
            },
        ),
    ];
    for (seed, (input, outputs, geometry)) in (0..).zip(cases) {
        Case::new(input, outputs, geometry, numbers).check(seed, false);
    }
}

#[test]
fn tasks_divide_blocks_first_and_then_panels() {
    let macs = 100 * TASK_MACS;
    assert_eq!(divide(1, macs, [1000, 8], 9), [1, 1]);
    assert_eq!(divide(2, macs, [1000, 8], 9), [8, 1]);
    assert_eq!(divide(2, macs, [32, 8], 9), [4, 2]);
    assert_eq!(divide(2, macs, [2, 8], 9), [1, 8]);
    assert_eq!(divide(2, macs, [6, 8], 2), [4, 2]);
    assert_eq!(divide(2, macs, [1, 8], 1), [1, 1]);
    assert_eq!(divide(2, 3 * TASK_MACS, [1000, 8], 9), [3, 1]);
}

#[test]
#[should_panic(expected = "a quantized convolution of Float")]
fn f32_is_refused() {
    let case = Case::new([1, 3, 3, 4], 4, SAME, &mut Numbers(0));
    let view = View::dense(0, case.output());
    let float = Operand {
        view,
        element: Element::Float,
    };
    let epilogue = Epilogue {
        bias: vec![0.0; 4],
        added: None,
        residual: None,
        activation: Activation::None,
        output: float,
    };
    case.build(Isa::Portable, 1, float, &epilogue);
}
