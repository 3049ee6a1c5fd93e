//! A picture in tiles.

use super::super::View;

/// Tiles of a row that are transformed together, at most: on the way in, each shares two columns of
/// pixels with the next one.
pub const RUN: usize = 8;

/// How a convolution's output is cut into square tiles, indexed row by row and picture by picture.
#[derive(Debug, Clone, Copy)]
pub struct Tiling {
    /// The convolution's input.
    pub input: View,
    /// The convolution's output.
    pub output: View,
    /// Zeros above the input and to its left.
    pub padding: [usize; 2],
    /// Height and width of a tile.
    pub size: usize,
}

/// Consecutive tiles of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Whose tiles they are.
    pub picture: usize,
    /// Output pixels above them.
    pub y: usize,
    /// Output pixels to their left.
    pub x: usize,
    /// Their number, at most [`RUN`].
    pub tiles: usize,
}

impl Tiling {
    /// Tiles of a row.
    #[inline(always)]
    pub fn columns(&self) -> usize {
        self.output.width.div_ceil(self.size)
    }

    /// Rows of tiles of all pictures.
    pub fn rows(&self) -> usize {
        self.output.batch * self.output.height.div_ceil(self.size)
    }

    /// Tiles of all pictures.
    #[inline(always)]
    pub fn tiles(&self) -> usize {
        self.rows() * self.columns()
    }

    /// The tiles from the index `first` on that are transformed together, none from `end` on.
    #[inline(always)]
    pub fn run(&self, first: usize, end: usize) -> Run {
        let (columns, rows) = (self.columns(), self.output.height.div_ceil(self.size));
        let (row, column) = (first / columns, first % columns);
        Run {
            picture: row / rows,
            y: row % rows * self.size,
            x: column * self.size,
            tiles: RUN.min(columns - column).min(end - first),
        }
    }
}
