//! Nearest 2x upsampling and a 3x3 convolution of what it makes, in one.
//!
//! Of an enlarged picture's 3x3 pixels under the kernel, some are copies of one another: four
//! different ones remain, which four depends on whether the output's row and column are even or
//! odd. So each of the four phases of the output is a 2x2 convolution of the small picture with
//! sums of the kernel's rows and columns: 4/9 of the multiplications, and no enlarged picture.

use super::conv::{Conv, Geometry};
use super::winograd::{Layer, OutputTile, Winograd};
use super::{ALIGNMENT, Epilogue, Memory, Operand, Operator, Scratch, View};
use crate::engine::simd::Isa;

/// Nearest 2x upsampling, then a 3x3 convolution with stride 1 and padding 1.
#[derive(Debug)]
pub struct Upsampled {
    input: View,
    /// For even and odd rows, and in each for even and odd columns: alike but for where they read
    /// and write.
    convs: [Box<dyn Operator>; 4],
    phases: Vec<usize>,
}

impl Upsampled {
    /// The convolution of the enlarged `input` for `threads` threads, by the algorithm that is the
    /// fastest; `weights` are OIHW. The views of `epilogue` are twice as high and wide as
    /// `input`.
    ///
    /// # Panics
    ///
    /// When the shapes do not fit together.
    pub fn new(isa: Isa, threads: usize, input: View, weights: &[f32], epilogue: Epilogue) -> Self {
        let output = phase(epilogue.output, [0, 0]).view;
        let tile = Layer::of(&input, &output, 2).choose(isa);
        Self::by(isa, threads, input, tile, weights, epilogue)
    }

    /// [`Upsampled::new`] by Winograd's algorithm with these tiles, or directly.
    fn by(
        isa: Isa,
        threads: usize,
        input: View,
        tile: Option<OutputTile>,
        weights: &[f32],
        epilogue: Epilogue,
    ) -> Self {
        let output = epilogue.output.view;
        assert_eq!(
            [output.height, output.width],
            [2 * input.height, 2 * input.width]
        );
        let convs = [[0, 0], [0, 1], [1, 0], [1, 1]].map(|odd: [usize; 2]| {
            let [down, right] = odd;
            let padding = [1 - down, 1 - right, down, right];
            let weights = sums(weights, odd);
            let epilogue = Epilogue {
                residual: epilogue.residual.map(|operand| phase(operand, odd)),
                output: phase(epilogue.output, odd),
                ..epilogue.clone()
            };
            match tile {
                Some(tile) => Box::new(Winograd::new(
                    isa, threads, input, tile, padding, &weights, epilogue,
                )) as Box<dyn Operator>,
                None => {
                    let geometry = Geometry {
                        kernel: [2, 2],
                        stride: [1, 1],
                        padding,
                    };
                    // Four phases make four tasks for each thread.
                    Box::new(Conv::with_tasks(
                        isa, threads, input, geometry, &weights, epilogue,
                    ))
                }
            }
        });
        let phases = convs[0].phases().iter().map(|tasks| 4 * tasks).collect();
        Self {
            input,
            convs,
            phases,
        }
    }
}

/// The rows and columns of an operand that are even, or `odd`.
fn phase(operand: Operand, odd: [usize; 2]) -> Operand {
    let size = operand.element.bytes();
    let view = operand.view;
    let view = View {
        offset: view.offset + size * (odd[0] * view.row_stride + odd[1] * view.pixel_stride),
        height: view.height / 2,
        width: view.width / 2,
        row_stride: 2 * view.row_stride,
        pixel_stride: 2 * view.pixel_stride,
        ..view
    };
    Operand { view, ..operand }
}

/// 2x2 kernels from 3x3 kernels for the even, or `odd`, rows and columns.
fn sums(weights: &[f32], odd: [usize; 2]) -> Vec<f32> {
    // An even row lies over the row before and twice over its own, an odd one twice over its own
    // and over the next.
    let target = |tap: usize, odd: usize| (tap + 1 - odd) / 2;
    let mut sums = vec![0.0; weights.len() / 9 * 4];
    for (kernel, sums) in weights.chunks_exact(9).zip(sums.chunks_exact_mut(4)) {
        for (tap, weight) in kernel.iter().enumerate() {
            sums[2 * target(tap / 3, odd[0]) + target(tap % 3, odd[1])] += weight;
        }
    }
    sums
}

impl Operator for Upsampled {
    fn phases(&self) -> &[usize] {
        &self.phases
    }

    fn own_bytes(&self) -> usize {
        self.convs[0].own_bytes()
    }

    fn shared_bytes(&self) -> usize {
        4 * self.convs[0].shared_bytes().next_multiple_of(ALIGNMENT)
    }

    unsafe fn run(&self, phase: usize, task: usize, memory: Memory, scratch: Scratch) {
        let tasks = self.phases[phase] / self.convs.len();
        let (conv, task) = (task / tasks, task % tasks);
        let before = conv * self.shared_bytes() / self.convs.len();
        let scratch = Scratch {
            shared: scratch.shared.wrapping_add(before),
            ..scratch
        };
        // SAFETY: the four have equally many tasks and as much scratch memory each, and write
        // different pixels of the output; the caller vouches for the rest.
        unsafe { self.convs[conv].run(phase, task, memory, scratch) }
    }

    fn macs(&self) -> u64 {
        self.convs.iter().map(|conv| conv.macs() / 4 * 9).sum()
    }

    fn bytes(&self) -> u64 {
        let input = (self.input.pixels() * self.input.channels * size_of::<f32>()) as u64;
        self.convs.iter().map(|conv| conv.bytes()).sum::<u64>() - 3 * input
    }

    fn describe(&self) -> String {
        let [conv, ..] = &self.convs;
        conv.describe().replace("conv 2x2", "upsample 2x, conv 3x3")
    }
}

#[cfg(test)]
mod tests {
    use super::super::conv::tests::{Case, check};
    use super::super::fixture::Numbers;
    use super::*;

    #[test]
    fn the_enlarged_picture_convolved() {
        for seed in 0..30 {
            let mut numbers = Numbers(seed);
            let case = Case::random(&mut numbers, 2);
            for tile in [None, Some(OutputTile::FourOfPairs)] {
                check(seed, &case, |isa, threads, input, weights, epilogue| {
                    Box::new(Upsampled::by(isa, threads, input, tile, weights, epilogue))
                });
            }
        }
    }
}
