//! Normalizations against the definition in f64.

use super::*;
use crate::engine::operators::fixture::{Block, LEVELS, Numbers, Places, elements, outcome};

/// A normalization to be tested.
#[derive(Debug, Clone, Copy)]
struct Case {
    shape: [usize; 4],
    groups: usize,
    elements: [Element; 2],
    activation: Activation,
    /// What the input is made of.
    mean: f32,
    deviation: f32,
    /// The error that is allowed, next to that of the output's levels.
    tolerance: f64,
}

const CASE: Case = Case {
    shape: [1, 1, 1, 1],
    groups: 1,
    elements: [Element::Float; 2],
    activation: Activation::None,
    mean: 0.5,
    deviation: 2.0,
    tolerance: 1e-5,
};

/// The definition: `x` and the result are `[pixel][channel]` of one picture.
fn exact(case: &Case, x: &[f32], scale: &[f32], shift: &[f32]) -> Vec<f64> {
    let channels = scale.len();
    let width = channels / case.groups;
    let group_of = |i: usize| i % channels / width;
    let mut moments = vec![[0.0; 2]; case.groups];
    let count = (x.len() / case.groups) as f64;
    for (i, &x) in x.iter().enumerate() {
        moments[group_of(i)][0] += f64::from(x) / count;
    }
    for (i, &x) in x.iter().enumerate() {
        let [mean, variance] = &mut moments[group_of(i)];
        *variance += (f64::from(x) - *mean).powi(2) / count;
    }
    let each = x.iter().enumerate().map(|(i, &x)| {
        let ([mean, variance], channel) = (moments[group_of(i)], i % channels);
        let y = (f64::from(x) - mean) / (variance + 1e-5).sqrt();
        let y = y * f64::from(scale[channel]) + f64::from(shift[channel]);
        match case.activation {
            Activation::None => y,
            Activation::Silu => y / (1.0 + (-y).exp()),
        }
    });
    each.collect()
}

fn check(case: &Case, seed: u64) {
    for isa in Isa::available() {
        let mut numbers = Numbers(seed);
        let mut places = Places {
            end: 0,
            numbers: &mut numbers,
        };
        let input = places.operand(case.shape, case.elements[0]);
        let in_place = case.elements == [Element::Float; 2] && places.numbers.below(3) == 0;
        let output = places.operand(case.shape, case.elements[1]);
        let output = if in_place { input } else { output };
        let mut block = Block::new(places.end);
        // Three even distributions: deviations from -3 to 3.
        block.fill(&input, &mut numbers, |x| {
            case.mean + case.deviation * x * 1.7
        });
        let channels = case.shape[3];
        let scale: Vec<f32> = (0..channels).map(|_| 0.5 + numbers.real()).collect();
        let shift: Vec<f32> = (0..channels).map(|_| numbers.real()).collect();
        let x: Vec<f32> = elements(&input.view)
            .into_iter()
            .map(|at| block.read(isa, &input, at))
            .collect();
        let mut after = outcome(&block, &output, |threads| {
            let Case {
                groups, activation, ..
            } = *case;
            Box::new(GroupNorm::new(
                isa, threads, input, groups, 1e-5, &scale, &shift, activation, output,
            ))
        });
        let picture = x.len() / case.shape[0];
        let exact = x
            .chunks(picture)
            .flat_map(|x| exact(case, x, &scale, &shift));
        for (at, exact) in elements(&output.view).into_iter().zip(exact) {
            let y = f64::from(after.read(isa, &output, at));
            let (exact, tolerance) = match output.element {
                Element::Float => (exact, case.tolerance),
                Element::Levels(levels) => {
                    let (scale, zero) = (f64::from(levels.scale), f64::from(levels.zero));
                    let clamped = exact.clamp(-scale * zero, scale * (255.0 - zero));
                    (clamped, case.tolerance + 0.501 * scale)
                }
            };
            assert!(
                (y - exact).abs() <= tolerance,
                "{isa:?} {case:?}: {y}, not {exact}"
            );
        }
    }
}

#[test]
fn any_shape() {
    let mut numbers = Numbers(1);
    for seed in 0..100 {
        let width = numbers.of(&[1, 2, 3, 4, 7, 16]);
        let groups = numbers.of(&[1, 2, 5, 8]);
        let case = Case {
            shape: [
                1 + numbers.below(2),
                1 + numbers.below(12),
                1 + numbers.below(12),
                width * groups,
            ],
            groups,
            elements: [
                numbers.of(&[Element::Float, LEVELS]),
                numbers.of(&[Element::Float, LEVELS]),
            ],
            activation: numbers.of(&[Activation::None, Activation::Silu]),
            ..CASE
        };
        check(&case, seed);
    }
}

#[test]
fn large_pictures_are_divided() {
    for (shape, groups) in [
        ([1, 40, 41, 24], 8),
        ([1, 17, 33, 128], 32),
        ([1, 9, 60, 130], 13),
        ([3, 30, 30, 20], 1),
        ([2, 24, 24, 96], 96),
    ] {
        for elements in [
            [Element::Float; 2],
            [LEVELS, LEVELS],
            [Element::Float, LEVELS],
        ] {
            let activation = Activation::Silu;
            let case = Case {
                shape,
                groups,
                elements,
                activation,
                ..CASE
            };
            check(&case, shape[3] as u64);
        }
    }
}

#[test]
fn a_task_for_every_part() {
    let phases = |threads, shape: [usize; 4], groups| {
        let operand = Operand {
            view: View::dense(0, shape),
            element: Element::Float,
        };
        let ones = vec![1.0; shape[3]];
        let activation = Activation::None;
        let isa = Isa::Portable;
        let norm = GroupNorm::new(
            isa, threads, operand, groups, 1e-5, &ones, &ones, activation, operand,
        );
        norm.phases().to_vec()
    };
    assert_eq!(phases(1, [1, 64, 64, 32], 8), [1]);
    assert_eq!(phases(4, [1, 8, 8, 64], 8), [1]);
    assert_eq!(phases(4, [1, 16, 16, 128], 8), [4]);
    // A large picture stays where the convolutions before it have put it.
    assert_eq!(phases(4, [1, 32, 32, 128], 8), [16, 16]);
    assert_eq!(phases(4, [1, 64, 64, 32], 8), [16, 16]);
    assert_eq!(phases(3, [1, 32, 32, 128], 1), [12, 12]);
    assert_eq!(phases(2, [8, 32, 32, 32], 1), [8]);
}

#[test]
fn a_mean_far_from_zero() {
    for (shape, groups) in [
        ([1, 32, 32, 32], 8),
        ([2, 50, 50, 12], 3),
        ([1, 1, 7000, 4], 1),
    ] {
        // The numbers themselves are rounded to 7.6e-6, which is 8e-5 deviations.
        let (mean, deviation, tolerance) = (100.0, 0.1, 2e-4);
        check(
            &Case {
                shape,
                groups,
                mean,
                deviation,
                tolerance,
                ..CASE
            },
            1,
        );
    }
}

#[test]
fn nothing_but_one_value() {
    let case = Case {
        shape: [2, 9, 9, 20],
        groups: 5,
        mean: -3.0,
        deviation: 0.0,
        tolerance: 3e-4,
        ..CASE
    };
    check(&case, 1);
}
