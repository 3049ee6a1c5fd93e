//! The 8x8 matrix of ordered dithering, one for all that dithers.

/// The order in which the pixels of an 8x8 square grow brighter, `[row][column]`, 0 to 63: Bayer
/// (1973). Every number of bright pixels is spread as evenly as a fixed order can.
pub(super) const BAYER: [[u8; 8]; 8] = [
    [0, 32, 8, 40, 2, 34, 10, 42],
    [48, 16, 56, 24, 50, 18, 58, 26],
    [12, 44, 4, 36, 14, 46, 6, 38],
    [60, 28, 52, 20, 62, 30, 54, 22],
    [3, 35, 11, 43, 1, 33, 9, 41],
    [51, 19, 59, 27, 49, 17, 57, 25],
    [15, 47, 7, 39, 13, 45, 5, 37],
    [63, 31, 55, 23, 61, 29, 53, 21],
];

#[cfg(test)]
mod tests {
    use super::*;

    /// By its recursion: the bits of x ^ y and of y, interleaved, the finest first.
    #[test]
    fn each_quarter_of_a_cell_repeats_the_cell() {
        for (y, row) in BAYER.iter().enumerate() {
            for (x, rank) in row.iter().enumerate() {
                let bit = |bit: usize| (((x ^ y) >> bit & 1) << 1) | (y >> bit & 1);
                assert_eq!(usize::from(*rank), bit(0) << 4 | bit(1) << 2 | bit(2));
            }
        }
    }
}
