//! How the work is divided among tasks.

use super::super::tile;
use super::choice::Layer;
use super::{OutputTile, weights};
use crate::engine::simd::Isa;

/// The tasks of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    /// Tiles that a task multiplies with a group of weights, at most.
    pub block: usize,
    /// The number of blocks.
    pub blocks: usize,
    /// The number of groups of weights.
    pub groups: usize,
    /// Into how many tasks the rows of tiles are divided, if all patches are transformed in a phase
    /// of its own, after which a task has one block and one group. Otherwise a task has one block
    /// from end to end.
    pub transforms: Option<usize>,
}

/// Second-level cache that a core has for itself, in bytes, about.
const L2_BYTES: usize = 512 << 10;

/// Tiles of a block, at least, if the weights come from afar: used for so many, they come as fast
/// as they are used.
const BLOCK_TILES: usize = 32;

/// Tiles of a block, at least, if the weights stay in the cache.
const SMALL_BLOCK_TILES: usize = 16;

impl Division {
    /// The fastest division of a layer for this number of threads.
    ///
    /// A phase of whole blocks comes first, if there are as many as threads. Otherwise the tasks
    /// divide the weights among them. Where there is too little to do, there is one task.
    pub fn new(isa: Isa, threads: usize, layer: &Layer, output_tile: OutputTile) -> Self {
        let [rows, columns] = tile::shape(isa);
        let [tile_rows, tile_columns] = layer.tiles(output_tile);
        let tiles = tile_rows * tile_columns;
        let elements = output_tile.elements();
        let panels = layer.outputs.div_ceil(columns);
        let groups = panels.div_ceil(weights::group_panels(columns, panels));
        // A block's transformed patches and its products with a group stay in the cache.
        let values = elements * (layer.channels + weights::GROUP_COLUMNS);
        let largest = (L2_BYTES / (values * size_of::<f32>())).max(BLOCK_TILES);
        let weight_bytes = elements * layer.channels * layer.outputs * size_of::<f32>();
        let smallest = if weight_bytes > 2 * L2_BYTES {
            BLOCK_TILES
        } else {
            SMALL_BLOCK_TILES
        };

        let macs = tiles * elements * layer.channels * layer.outputs;
        // Two cores do not get weights from memory twice as fast, but they wait for them together.
        let work = macs.max(layer.weights_cost(Some(output_tile), isa) as usize);
        let pays = |phases: usize| work / threads + phases * tile::start_macs(isa) < work;
        let divided = |blocks: usize, transforms| {
            let block = tiles.div_ceil(blocks).next_multiple_of(rows).min(tiles);
            Self {
                block,
                blocks: tiles.div_ceil(block),
                groups,
                transforms,
            }
        };
        let fewest = tiles.div_ceil(largest);
        let many = fewest.max((tiles / smallest).min(4 * threads)) / threads * threads;
        if threads > 1 && many > 0 && pays(1) {
            divided(many, None)
        } else if threads > 1 && pays(2) {
            let enough = (2 * threads)
                .div_ceil(groups)
                .min(tiles.div_ceil(SMALL_BLOCK_TILES));
            divided(fewest.max(enough), Some(tile_rows.min(4 * threads)))
        } else {
            divided(fewest, None)
        }
    }

    /// The number of tasks in each phase.
    pub fn phases(&self) -> Vec<usize> {
        match self.transforms {
            None => vec![self.blocks],
            Some(tasks) => vec![tasks, self.groups * self.blocks],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_divided_by_what_it_has_more_of() {
        let isa = Isa::Portable;
        let divide = |threads, pixels, channels, tile| {
            let layer = Layer {
                output: [1, pixels, pixels],
                channels,
                outputs: channels,
                kernel: 3,
            };
            Division::new(isa, threads, &layer, tile)
        };
        // 256 tiles in blocks of 32 at least, or of 16 where the weights are few.
        let large = divide(2, 64, 128, OutputTile::Four);
        assert_eq!((large.block, large.blocks, large.transforms), (32, 8, None));
        let small = divide(4, 64, 32, OutputTile::Four);
        assert_eq!(
            (small.block, small.blocks, small.transforms),
            (16, 16, None)
        );
        // 16 tiles are one block for every group of weights.
        let deep = divide(2, 16, 256, OutputTile::Four);
        assert_eq!((deep.block, deep.blocks, deep.groups), (16, 1, 8));
        assert_eq!(deep.phases(), [4, 8]);
        // Less work than two threads' starts, and nobody to share it with.
        assert_eq!(divide(4, 4, 16, OutputTile::Two).phases(), [1]);
        assert_eq!(divide(1, 16, 256, OutputTile::Four).phases(), [1]);
    }
}
