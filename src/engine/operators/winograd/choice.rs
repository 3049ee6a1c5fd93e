//! Whether a convolution is direct or by Winograd, with which tiles.

use super::super::View;
use super::super::tile;
use super::OutputTile;
use crate::engine::simd::Isa;

/// A convolution of stride 1, as far as its cost depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Pictures, and the height and width of the output.
    pub output: [usize; 3],
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
}

/// What an instruction set's cores and their memory take for what is no product, in multiplications
/// of one core at its peak.
#[derive(Debug, Clone, Copy)]
struct Prices {
    /// While a byte of weights comes from memory, or from a last-level cache that is no faster.
    weight_byte: f64,
    /// For each lane of a vector while it transforms a channel of a tile's patch, in and out.
    transforms: fn(OutputTile) -> [usize; 2],
    /// Whether the convolutions of 2x2 are worth their weights, which grow sixfold.
    pairs: bool,
}

/// What a product in f16 takes, in products in f32: instructions of a tile were counted.
const HALF_PRODUCT: f64 = 0.68;

impl Prices {
    fn of(isa: Isa) -> Self {
        match isa {
            // Instructions were counted. A board's core does 5 to 16 G/s, and its memory, as its
            // users measure it, 3 to 10 GB/s.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot | Isa::NeonHalf => Self {
                weight_byte: 1.5,
                transforms: |tile| match tile {
                    OutputTile::Two => [16, 12],
                    OutputTile::Four => [60, 45],
                    OutputTile::FourOfPairs => [45, 40],
                },
                pairs: true,
            },
            // Measured with AVX-512 on an EPYC, 125 G/s over 30 GB/s, and on a Xeon, 88 G/s over
            // 17 GB/s. It is assumed of others, whose slower cores sit in front of slower memory.
            _ => Self {
                weight_byte: 4.0,
                transforms: |tile| match tile {
                    OutputTile::Two => [8, 6],
                    OutputTile::Four => [33, 25],
                    OutputTile::FourOfPairs => [23, 21],
                },
                pairs: false,
            },
        }
    }
}

impl Layer {
    /// The convolution from `input` to `output`.
    pub fn of(input: &View, output: &View, kernel: usize) -> Self {
        Self {
            output: [output.batch, output.height, output.width],
            channels: input.channels,
            outputs: output.channels,
            kernel,
        }
    }

    /// Rows of tiles of all pictures, and tiles of a row.
    pub(super) fn tiles(&self, output_tile: OutputTile) -> [usize; 2] {
        let [batch, height, width] = self.output;
        let size = output_tile.size();
        [batch * height.div_ceil(size), width.div_ceil(size)]
    }

    /// The fastest algorithm for this layer on one core, `None` being the direct convolution. More
    /// cores do not choose differently, so that they compute the same bits.
    pub fn choose(&self, isa: Isa) -> Option<OutputTile> {
        if self.outputs <= tile::NARROW {
            return None;
        }
        let cost = |algorithm| self.cost(algorithm, isa);
        let algorithms: &[Option<OutputTile>] = match self.kernel {
            2 if Prices::of(isa).pairs => &[None, Some(OutputTile::FourOfPairs)],
            3 => &[None, Some(OutputTile::Two), Some(OutputTile::Four)],
            _ => &[None],
        };
        algorithms
            .iter()
            .copied()
            .min_by(|&a, &b| cost(a).total_cmp(&cost(b)))
            .flatten()
    }

    /// How long an evaluation takes, in multiplications of one core at its peak. It is a model,
    /// about a tenth off where it was compared with the clock: the products of whole tiles and the
    /// transforms, or the weights' way from memory, if that is longer.
    pub fn cost(&self, algorithm: Option<OutputTile>, isa: Isa) -> f64 {
        let [rows, columns] = tile::shape(isa);
        let prices = Prices::of(isa);
        let outputs = self.outputs.next_multiple_of(columns);
        let [batch, height, width] = self.output;
        let (tiles, elements, transforms) = match algorithm {
            None => (batch * height * width, self.kernel.pow(2), 0),
            Some(tile) => {
                let [tile_rows, tile_columns] = self.tiles(tile);
                let tiles = tile_rows * tile_columns;
                let [data, output] = (prices.transforms)(tile);
                let lanes = tile::lanes(isa);
                let channels = self.channels.next_multiple_of(lanes);
                let each = lanes * (data * channels + output * outputs);
                (tiles, tile.elements(), tiles * each)
            }
        };
        // A lower tile of the product is slower than its rows: it loads as many weights.
        let rest = match tiles % rows {
            0 => 0.0,
            rest => (2 * rest.next_power_of_two().min(rows) + rows) as f64 / 3.0,
        };
        let products = ((tiles - tiles % rows) as f64 + rest) * (elements * self.channels) as f64;
        let product = match tile::halves(isa, self.channels) {
            true => HALF_PRODUCT,
            false => 1.0,
        };
        let work = product * products * outputs as f64 + transforms as f64;
        work.max(self.weights_cost(algorithm, isa))
    }

    /// How long the algorithm's weights are on their way from memory, likewise.
    pub(super) fn weights_cost(&self, algorithm: Option<OutputTile>, isa: Isa) -> f64 {
        let elements = algorithm.map_or(self.kernel.pow(2), OutputTile::elements);
        let weight = match tile::halves(isa, self.channels) {
            true => size_of::<u16>(),
            false => size_of::<f32>(),
        };
        let bytes = elements * self.channels * self.outputs * weight;
        bytes as f64 * Prices::of(isa).weight_byte
    }
}
