//! Passes against the same functions in f64, one element after the other.

use super::*;
use crate::engine::operators::fixture::{
    Block as Bytes, LEVELS, Numbers, Places, elements, outcome,
};

use Instruction::*;

/// The result of the code for one element.
fn exact(code: &[Instruction], inputs: &[f64]) -> f64 {
    let mut values: Vec<f64> = Vec::new();
    for &instruction in code {
        let v = |register: usize| values[register];
        values.push(match instruction {
            Read(input) => inputs[input],
            Add(a, b) => v(a) + v(b),
            Sub(a, b) => v(a) - v(b),
            Mul(a, b) => v(a) * v(b),
            Div(a, b) => v(a) / v(b),
            Min(a, b) => v(a).min(v(b)),
            Max(a, b) => v(a).max(v(b)),
            Sigmoid(x) => 1.0 / (1.0 + (-v(x)).exp()),
            Silu(x) => v(x) / (1.0 + (-v(x)).exp()),
            Exp(x) => v(x).exp(),
            Sqrt(x) => v(x).sqrt(),
            Tanh(x) => v(x).tanh(),
            GeluErf(x) => v(x) * libm::erfc(-v(x) / 2f64.sqrt()) / 2.0,
            GeluTanh(x) => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (v(x) + 0.044715 * v(x).powi(3));
                v(x) / 2.0 * (1.0 + u.tanh())
            }
            Neg(x) => -v(x),
            Reciprocal(x) => 1.0 / v(x),
            Abs(x) => v(x).abs(),
            Relu(x) => v(x).max(0.0),
            LeakyRelu(x, slope) => v(x) * if v(x) < 0.0 { f64::from(slope) } else { 1.0 },
            RoundTrip(x, Quantization { scale, zero }) => {
                let level = (v(x) / f64::from(scale)).round() + f64::from(zero);
                (level.clamp(0.0, 255.0) - f64::from(zero)) * f64::from(scale)
            }
        });
    }
    *values.last().expect("some code")
}

/// What an input is to be.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Whole(Element),
    /// Another view of nothing but a vector: strides of 0, for all pictures or each.
    Vector(bool),
    /// One row for all.
    Row,
    PerPixel(Element),
    Scalar,
}

impl Kind {
    fn random(numbers: &mut Numbers) -> Self {
        let element = numbers.of(&[Element::Float, LEVELS]);
        match numbers.below(7) {
            0 => Self::Vector(true),
            1 => Self::Vector(false),
            2 => Self::Row,
            3 => Self::PerPixel(element),
            4 => Self::Scalar,
            _ => Self::Whole(element),
        }
    }

    /// An input of this kind.
    fn place(self, places: &mut Places, shape: [usize; 4]) -> Input {
        let [batch, height, width, channels] = shape;
        let repeated = |mut operand: Operand, [pictures, rows, pixels]: [bool; 3]| {
            let view = &mut operand.view;
            (view.batch, view.height, view.width) = (batch, height, width);
            view.batch_stride *= usize::from(!pictures);
            view.row_stride *= usize::from(!rows);
            view.pixel_stride *= usize::from(!pixels);
            operand
        };
        match self {
            Self::Whole(element) => Input::Operand(places.operand(shape, element)),
            Self::Vector(all) => {
                let pictures = if all { 1 } else { batch };
                let vector = places.operand([pictures, 1, 1, channels], Element::Float);
                Input::Operand(repeated(vector, [all, true, true]))
            }
            Self::Row => {
                let row = places.operand([1, 1, width, channels], Element::Float);
                Input::Operand(repeated(row, [true, true, false]))
            }
            Self::PerPixel(element) => {
                Input::PerPixel(places.operand([batch, height, width, 1], element))
            }
            Self::Scalar => Input::Scalar(places.numbers.real()),
        }
    }
}

/// The numbers that an input gives for every element.
fn numbers_of(isa: Isa, block: &mut Bytes, input: &Input, shape: [usize; 4]) -> Vec<f64> {
    let [batch, height, width, channels] = shape;
    let each = (0..batch * height * width * channels).map(|i| {
        let (pixel, channel) = (i / channels, i % channels);
        f64::from(match input {
            Input::Operand(operand) => {
                block.read(isa, operand, operand.view.pixel(pixel) + channel)
            }
            Input::PerPixel(operand) => block.read(isa, operand, operand.view.pixel(pixel)),
            Input::Scalar(value) => *value,
        })
    });
    each.collect()
}

fn check(shape: [usize; 4], kinds: &[Kind], code: &[Instruction], result: Element, seed: u64) {
    for isa in Isa::available() {
        let mut numbers = Numbers(seed);
        let mut places = Places {
            end: 0,
            numbers: &mut numbers,
        };
        let inputs: Vec<Input> = kinds
            .iter()
            .map(|kind| kind.place(&mut places, shape))
            .collect();
        let output = places.operand(shape, result);
        let output = match (kinds[0], &inputs[0]) {
            (Kind::Whole(element), Input::Operand(input))
                if element == result && seed.is_multiple_of(3) =>
            {
                *input
            }
            _ => output,
        };
        let mut block = Bytes::new(places.end);
        for input in &inputs {
            if let Input::Operand(operand) | Input::PerPixel(operand) = input {
                block.fill(operand, &mut numbers, |x| 4.0 * x);
            }
        }
        let mut after = outcome(&block, &output, |threads| {
            Box::new(Elementwise::new(
                isa,
                threads,
                inputs.clone(),
                code.to_vec(),
                output,
            ))
        });
        let all: Vec<Vec<f64>> = inputs
            .iter()
            .map(|input| numbers_of(isa, &mut block, input, shape))
            .collect();
        let code = if code.is_empty() { &[Read(0)] } else { code };
        for (i, at) in elements(&output.view).into_iter().enumerate() {
            let arguments: Vec<f64> = all.iter().map(|numbers| numbers[i]).collect();
            let exact = exact(code, &arguments);
            let y = f64::from(after.read(isa, &output, at));
            let (exact, tolerance) = match result {
                Element::Float => (exact, 3e-6 * (1.0 + exact.abs())),
                Element::Levels(Quantization { scale, zero }) => {
                    let (scale, zero) = (f64::from(scale), f64::from(zero));
                    (
                        exact.clamp(-scale * zero, scale * (255.0 - zero)),
                        0.501 * scale,
                    )
                }
            };
            let same = (y - exact).abs() <= tolerance || (y.is_nan() && exact.is_nan());
            assert!(
                same,
                "{isa:?} {shape:?} {kinds:?} {code:?} of {arguments:?}: {y}, not {exact}"
            );
        }
    }
}

const WHOLE: Kind = Kind::Whole(Element::Float);

#[test]
fn every_instruction() {
    let quantization = Quantization {
        scale: 0.75,
        zero: 126,
    };
    let unary = [
        Sigmoid(0),
        Silu(0),
        Exp(0),
        Sqrt(0),
        Tanh(0),
        GeluErf(0),
        GeluTanh(0),
        Neg(0),
        Reciprocal(0),
        Abs(0),
        Relu(0),
        LeakyRelu(0, 0.1),
        RoundTrip(0, quantization),
    ];
    for instruction in unary {
        check(
            [1, 3, 5, 7],
            &[WHOLE],
            &[Read(0), instruction],
            Element::Float,
            1,
        );
    }
    for binary in [
        Add(0, 1),
        Sub(0, 1),
        Mul(0, 1),
        Div(0, 1),
        Min(0, 1),
        Max(0, 1),
    ] {
        check(
            [1, 3, 5, 7],
            &[WHOLE; 2],
            &[Read(0), Read(1), binary],
            Element::Float,
            1,
        );
    }
}

/// A result that is not much larger than what it is made of.
fn random_instruction(numbers: &mut Numbers, registers: usize) -> Instruction {
    let (a, b) = (numbers.below(registers), numbers.below(registers));
    let all = [
        Add(a, b),
        Sub(a, b),
        Min(a, b),
        Max(a, b),
        Silu(a),
        Tanh(a),
        Abs(a),
    ];
    numbers.of(&all)
}

#[test]
fn any_chain_of_any_inputs() {
    let mut numbers = Numbers(1);
    for seed in 0..300 {
        let kinds: Vec<Kind> = (0..1 + numbers.below(3))
            .map(|_| Kind::random(&mut numbers))
            .collect();
        let mut code: Vec<Instruction> = (0..kinds.len()).map(Read).collect();
        for _ in 0..numbers.below(4) {
            code.push(random_instruction(&mut numbers, code.len()));
        }
        let channels = numbers.of(&[1, 2, 3, 8, 16, 24, 32, 33, 64, 100, 512, 530]);
        let side = if channels > 64 { 3 } else { 9 };
        let shape = [
            1 + numbers.below(2),
            1 + numbers.below(side),
            1 + numbers.below(side),
            channels,
        ];
        check(
            shape,
            &kinds,
            &code,
            numbers.of(&[Element::Float, LEVELS]),
            seed,
        );
    }
}

#[test]
fn no_code_converts_and_copies() {
    for from in [Element::Float, LEVELS] {
        for to in [Element::Float, LEVELS] {
            for seed in 0..10 {
                check([2, 5, 6, 21], &[Kind::Whole(from)], &[], to, seed);
            }
        }
    }
}

#[test]
fn large_operands_are_divided() {
    let code = [Read(0), Read(1), Add(0, 1), Silu(2)];
    for (shape, kind) in [
        ([1, 60, 70, 16], WHOLE),
        ([2, 33, 31, 40], Kind::Vector(false)),
        ([1, 20, 3, 700], Kind::Vector(true)),
    ] {
        for seed in 0..4 {
            check(shape, &[WHOLE, kind], &code, Element::Float, seed);
        }
    }
    let dense = Operand {
        view: View::dense(0, [1, 64, 64, 32]),
        element: Element::Float,
    };
    let pass = Elementwise::new(Isa::Portable, 2, vec![Input::Operand(dense)], vec![], dense);
    assert_eq!(pass.phases(), [8]);
}
