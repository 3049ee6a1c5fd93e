//! Convolutions of small kernels with two to four times fewer multiplications.
//!
//! Winograd's minimal filtering in two dimensions (Lavin and Gray 2015, arXiv 1509.09308): patches
//! of the input, one for each square tile of the output, and the kernels are transformed; the
//! transform of the output is then, element by element, a matrix product over the channels. A tile
//! of 2x2 needs 16 products for each input and output channel and a tile of 4x4 needs 36, where a
//! direct convolution needs 36 and 144. The weights grow from 9 to 16 or 36 per kernel. For kernels of
//! 2x2, of which an upsampling makes four, tiles of 4x4 need 25 products instead of 64.
//!
//! Tiles of 6x6 would need 64 products, but a picture of 2^n pixels is no multiple of them, which
//! eats up the gain, and their error is four times that of 4x4.

mod choice;
mod division;
mod stages;
mod tiling;
mod transform;
mod weights;

pub use self::choice::Layer;

use self::division::Division;
use self::stages::{Layout, Stages, product_stride};
use self::tiling::{RUN, Tiling};
use self::weights::Weights;
use super::tile::{self, LINE};
use super::{Epilogue, Memory, Operator, Scratch, View};
use crate::engine::simd::Isa;

/// Height and width of the outputs that are computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputTile {
    /// 2x2 outputs from 4x4 inputs: F(2x2, 3x3).
    Two,
    /// 4x4 outputs from 6x6 inputs: F(4x4, 3x3).
    Four,
    /// 4x4 outputs of a kernel of 2x2 from 5x5 inputs: F(4x4, 2x2).
    FourOfPairs,
}

impl OutputTile {
    /// Height and width of the tile.
    pub fn size(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four | Self::FourOfPairs => 4,
        }
    }

    /// Height and width of the kernel.
    pub fn kernel(self) -> usize {
        match self {
            Self::Two | Self::Four => 3,
            Self::FourOfPairs => 2,
        }
    }

    /// Height and width of a patch of the input, and of a transformed patch or kernel.
    pub fn patch(self) -> usize {
        self.size() + self.kernel() - 1
    }

    /// Elements of a transformed patch or kernel.
    pub fn elements(self) -> usize {
        self.patch().pow(2)
    }
}

/// A convolution of stride 1 with everything that follows it.
#[derive(Debug)]
pub struct Winograd {
    isa: Isa,
    output_tile: OutputTile,
    tiling: Tiling,
    weights: Weights,
    epilogue: Epilogue,
    division: Division,
    scratch: Sizes,
    phases: Vec<usize>,
}

impl Winograd {
    /// A convolution of `input` with `padding` (above, left, below, right: less than the kernel
    /// each) for `threads` threads; `weights` are OIHW, where O and I are the channels of the output
    /// and of the input, and H and W are the kernel's.
    ///
    /// # Panics
    ///
    /// When the shapes do not fit together.
    pub fn new(
        isa: Isa,
        threads: usize,
        input: View,
        output_tile: OutputTile,
        padding: [usize; 4],
        weights: &[f32],
        epilogue: Epilogue,
    ) -> Self {
        let output = epilogue.output.view;
        let [top, left, bottom, right] = padding;
        let kernel = output_tile.kernel();
        assert!(
            padding.iter().all(|&zeros| zeros < kernel),
            "padding {padding:?}"
        );
        let beyond = kernel - 1;
        assert_eq!(
            [output.batch, output.height + beyond, output.width + beyond],
            [
                input.batch,
                input.height + top + bottom,
                input.width + left + right
            ],
            "{output:?} of {input:?} with padding {padding:?}"
        );
        assert_eq!(
            epilogue.bias.len(),
            output.channels,
            "one bias per output channel"
        );
        let shape = [output.channels, input.channels];
        let weights = Weights::new(isa, output_tile, shape, weights);
        let size = output_tile.size();
        let tiling = Tiling {
            input,
            output,
            padding: [top, left],
            size,
        };
        let layer = Layer::of(&input, &output, kernel);
        let division = Division::new(isa, threads, &layer, output_tile);
        let panels = weights.panels(0);
        let scratch = Sizes::new(tile::shape(isa), &tiling, output_tile, panels, &division);
        let phases = division.phases();
        Self {
            isa,
            output_tile,
            tiling,
            weights,
            epilogue,
            division,
            scratch,
            phases,
        }
    }
}

/// Strides and sizes of what lies in scratch memory, in values.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    layout: Layout,
    /// Lines of pixels on their way in or out, of one task.
    strip: usize,
    /// Products with a group of weights, of one task.
    products: usize,
    /// Transformed patches, of one task or of all tasks.
    data: usize,
    /// Those of all tasks, or 0.
    shared_data: usize,
}

impl Sizes {
    fn new(
        [rows, columns]: [usize; 2],
        tiling: &Tiling,
        output_tile: OutputTile,
        panels: usize,
        division: &Division,
    ) -> Self {
        let (size, patch) = (output_tile.size(), output_tile.patch());
        let elements = output_tile.elements();
        let shared = division.transforms.is_some();
        let tiles = if shared {
            tiling.tiles()
        } else {
            division.block
        };
        let data_tile = tiling.input.channels.next_multiple_of(LINE);
        let data_element = tiles * data_tile + LINE;
        let data = elements * data_element;
        let product_element = product_stride(rows, columns);
        let columns_in = (RUN * size + output_tile.kernel() - 1) * patch * LINE;
        let lines_out = size * RUN * size * panels * columns;
        Self {
            layout: Layout {
                data_tile,
                data_element,
            },
            strip: columns_in.max(lines_out),
            products: division.block.div_ceil(rows) * panels * elements * product_element,
            data,
            shared_data: if shared { data } else { 0 },
        }
    }
}

impl Operator for Winograd {
    fn phases(&self) -> &[usize] {
        &self.phases
    }

    fn own_bytes(&self) -> usize {
        let Sizes {
            strip, products, ..
        } = self.scratch;
        let data = self.scratch.data - self.scratch.shared_data;
        (strip + products + data) * size_of::<f32>()
    }

    fn shared_bytes(&self) -> usize {
        self.scratch.shared_data * size_of::<f32>()
    }

    unsafe fn run(&self, phase: usize, task: usize, memory: Memory, scratch: Scratch) {
        let Division {
            block,
            blocks,
            groups,
            transforms,
        } = self.division;
        let tiles = |index: usize| index * block..self.tiling.tiles().min((index + 1) * block);
        let (tiles, transform, groups) = match (transforms, phase) {
            (None, _) => (tiles(task), true, 0..groups),
            (Some(tasks), 0) => {
                let first = |task| self.tiling.rows() * task / tasks * self.tiling.columns();
                (first(task)..first(task + 1), true, 0..0)
            }
            // Who uses the same weights comes next: they may still be in a cache.
            (Some(_), _) => (
                tiles(task % blocks),
                false,
                task / blocks..task / blocks + 1,
            ),
        };
        let Sizes {
            layout,
            strip: strip_len,
            products: products_len,
            ..
        } = self.scratch;
        let strip = scratch.own.cast::<f32>();
        let products = strip.wrapping_add(strip_len);
        let data = match transforms {
            None => products.wrapping_add(products_len),
            Some(_) => scratch
                .shared
                .cast::<f32>()
                .wrapping_add(tiles.start * layout.data_tile),
        };
        self.isa.run(Stages {
            output_tile: self.output_tile,
            tiling: &self.tiling,
            weights: &self.weights,
            epilogue: &self.epilogue,
            memory,
            layout,
            tiles,
            transform,
            groups,
            data,
            products,
            strip,
        });
    }

    fn macs(&self) -> u64 {
        let View { channels, .. } = self.tiling.output;
        let taps = self.output_tile.kernel().pow(2);
        (self.tiling.output.pixels() * channels * self.tiling.input.channels * taps) as u64
    }

    fn bytes(&self) -> u64 {
        let input = &self.tiling.input;
        let input = input.pixels() * input.channels * size_of::<f32>();
        (input + self.weights.bytes()) as u64 + self.epilogue.bytes()
    }

    fn describe(&self) -> String {
        let (size, kernel) = (self.output_tile.size(), self.output_tile.kernel());
        let activation = self.epilogue.activation.suffix();
        let half = if self.weights.half() { " fp16" } else { "" };
        format!("conv {kernel}x{kernel} winograd {size}x{size}{half}{activation}")
    }
}

#[cfg(test)]
mod tests;
