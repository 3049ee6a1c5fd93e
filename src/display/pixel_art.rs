//! An enlargement for small pictures: smooth areas, hard edges, no stairs.
//!
//! The picture is doubled, and doubled again. A doubling looks at each 2x2 cell of pixels:
//!
//! ```text
//! a b      where one diagonal holds together and the other does not, an edge runs along it
//! c d
//! ```
//!
//! Which diagonal holds together is decided by the cell and its four neighbours, with the weights
//! of Hyllian's xBR (libretro's "xBR algorithm tutorial", 2011). Along an edge the two corners that
//! stick out are blended with the nearer pixel of the edge; everywhere else a new pixel is the
//! bilinear one, with each neighbour counting by its likeness, so that gradients stay smooth
//! and edges stay where they are.

use crate::picture::Picture;

/// Doublings beyond which little is seen: an edge is then smooth to a quarter of a pixel. A third
/// takes four times as long and was not told apart by eye on 32x32 pictures at 480x480.
const DOUBLINGS_MAX: u32 = 2;

/// How often a picture is doubled that is to be enlarged by `factor`: to the factor or above it,
/// at most twice.
pub fn doublings(factor: f64) -> u32 {
    (0..DOUBLINGS_MAX)
        .find(|&doublings| f64::from(1 << doublings) >= factor)
        .unwrap_or(DOUBLINGS_MAX)
}

/// The picture, doubled `doublings` times.
pub fn enlarged(picture: &Picture, doublings: u32) -> Picture {
    let mut plane = Plane::from(picture);
    for _ in 0..doublings {
        plane = plane.doubled();
    }
    Picture::new(plane.width, plane.height, plane.pixels.into_flattened())
}

/// Pixels row by row.
struct Plane {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl From<&Picture> for Plane {
    fn from(picture: &Picture) -> Self {
        let (pixels, _) = picture.rgb().as_chunks::<3>();
        Self {
            width: picture.width_px(),
            height: picture.height_px(),
            pixels: pixels.to_vec(),
        }
    }
}

impl Plane {
    /// The picture with its outermost pixels repeated `border` times.
    fn framed(&self, border: usize) -> Self {
        let inside = |at: usize, length: usize| at.saturating_sub(border).min(length - 1);
        let (width, height) = (self.width + 2 * border, self.height + 2 * border);
        let mut pixels = Vec::with_capacity(width * height);
        for y in 0..height {
            let row = &self.pixels[self.width * inside(y, self.height)..][..self.width];
            pixels.extend((0..width).map(|x| row[inside(x, self.width)]));
        }
        Self {
            width,
            height,
            pixels,
        }
    }

    fn doubled(&self) -> Self {
        let framed = self.framed(2);
        let edges = edges(&framed);
        let likeness = Likeness::new();
        let (width, height) = (2 * self.width, 2 * self.height);
        let mut pixels = vec![[0; 3]; width * height];
        for y in 0..self.height {
            let rows =
                [1, 2, 3].map(|row| &framed.pixels[framed.width * (y + row)..][..framed.width]);
            for x in 0..self.width {
                let around = rows.map(|row| [row[x + 1], row[x + 2], row[x + 3]]);
                // The cells whose one corner is this pixel, in the order of its own corners.
                let above = &edges[(framed.width - 1) * (y + 1) + x + 1..][..2];
                let below = &edges[(framed.width - 1) * (y + 2) + x + 1..][..2];
                let made = likeness.pixel(around, [above[0], above[1], below[0], below[1]]);
                for (row, pair) in made.into_iter().enumerate() {
                    let at = width * (2 * y + row) + 2 * x;
                    pixels[at..at + 2].copy_from_slice(&pair);
                }
            }
        }
        Self {
            width,
            height,
            pixels,
        }
    }
}

/// What a cell `a b / c d` is cut by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// `b` and `c` hold together: an edge "/".
    Rising,
    /// `a` and `d` hold together: an edge "\".
    Falling,
    /// Neither, or both: nothing, or an edge along rows or columns.
    Straight,
}

/// What every cell is cut by, row by row; the outermost cells, which lack neighbours, by nothing.
fn edges(plane: &Plane) -> Vec<Edge> {
    let (width, height) = (plane.width - 1, plane.height - 1);
    let mut across = Vec::with_capacity(width * height);
    for y in 0..height {
        let upper = &plane.pixels[plane.width * y..][..plane.width];
        let lower = &plane.pixels[plane.width * (y + 1)..][..plane.width];
        let cells = upper.windows(2).zip(lower.windows(2));
        across.extend(cells.map(|(ab, cd)| [difference(ab[1], cd[0]), difference(ab[0], cd[1])]));
    }
    let mut edges = vec![Edge::Straight; width * height];
    for y in 1..height - 1 {
        let upper = &plane.pixels[plane.width * y..][..plane.width];
        let lower = &plane.pixels[plane.width * (y + 1)..][..plane.width];
        for x in 1..width - 1 {
            let at = width * y + x;
            let around = [at - width, at - 1, at + 1, at + width];
            let sum = |diagonal: usize| {
                let sides = around.map(|at| across[at][diagonal]);
                4 * across[at][diagonal] + sides.iter().sum::<u32>()
            };
            let cell = [upper[x], upper[x + 1], lower[x], lower[x + 1]];
            edges[at] = Edge::of(cell, sum(0), sum(1));
        }
    }
    edges
}

impl Edge {
    /// Of the cell `[a, b, c, d]`, from the differences along both diagonals, each with a weight
    /// of 8 in all.
    fn of([a, b, c, d]: [[u8; 3]; 4], rising: u32, falling: u32) -> Self {
        let (less, more, edge) = if rising < falling {
            (rising, falling, Self::Rising)
        } else {
            (falling, rising, Self::Falling)
        };
        // Noise is no edge: one diagonal must differ more than the other, by a quarter and by ten
        // levels. Nor are the squares of a checkerboard, both of whose diagonals are alike.
        if 4 * more <= 5 * less + 4 * 8 * 100 {
            return Self::Straight;
        }
        let sides = [(a, b), (a, c), (b, d), (c, d)].map(|(a, b)| difference(a, b));
        if sides.iter().any(|&side| more - less < 2 * side) {
            return Self::Straight;
        }
        edge
    }
}

/// How different two colours look, 0 to 2550: green counts most.
fn difference(a: [u8; 3], b: [u8; 3]) -> u32 {
    let [r, g, b] = std::array::from_fn(|channel| u32::from(a[channel].abs_diff(b[channel])));
    3 * r + 5 * g + 2 * b
}

/// How much a neighbour counts, by its difference.
struct Likeness {
    /// 16 to 0, by the difference over 16.
    counts: [u32; 160],
    /// 2^20 over a sum of weights.
    reciprocals: [u32; 257],
}

impl Likeness {
    /// Below this difference (a tenth of a level) a neighbour counts in full.
    const ALIKE: u32 = 300;
    /// Above this difference it does not count.
    const UNLIKE: u32 = 1300;

    fn new() -> Self {
        let count = |step: usize| {
            let difference = 16 * step as u32;
            let left = Self::UNLIKE.saturating_sub(difference);
            (16 * left / (Self::UNLIKE - Self::ALIKE)).min(16)
        };
        Self {
            counts: std::array::from_fn(count),
            reciprocals: std::array::from_fn(|sum| (1 << 20) / (sum as u32).max(1)),
        }
    }

    fn count(&self, a: [u8; 3], b: [u8; 3]) -> u32 {
        self.counts[difference(a, b) as usize / 16]
    }

    /// The four pixels that the middle one of `around` becomes; `cells` are cut by these edges,
    /// from the upper left one to the lower right one.
    fn pixel(&self, around: [[[u8; 3]; 3]; 3], cells: [Edge; 4]) -> [[[u8; 3]; 2]; 2] {
        let sticking_out = [Edge::Rising, Edge::Falling, Edge::Falling, Edge::Rising];
        let is_cut = [0, 1, 2, 3].map(|corner| cells[corner] == sticking_out[corner]);
        let cuts = is_cut.iter().filter(|&&is_cut| is_cut).count();
        let pixel = around[1][1];
        let count = |row: usize, column: usize| self.count(pixel, around[row][column]);
        let beside = [count(1, 0), count(1, 2)];
        let below = [count(0, 1), count(2, 1)];
        let made = [0, 1, 2, 3].map(|corner| {
            let (right, down) = (corner % 2, corner / 2);
            let neighbours = [
                around[1][2 * right],
                around[2 * down][1],
                around[2 * down][2 * right],
            ];
            if is_cut[corner] {
                return cut(pixel, neighbours[0], neighbours[1], cuts);
            }
            let opposite = self.count(pixel, neighbours[2]);
            let weights = [3 * beside[right], 3 * below[down], opposite];
            self.smooth(pixel, neighbours, weights)
        });
        [[made[0], made[1]], [made[2], made[3]]]
    }

    /// A bilinear pixel a quarter of the way into a cell, of the neighbours that are alike.
    fn smooth(&self, pixel: [u8; 3], neighbours: [[u8; 3]; 3], weights: [u32; 3]) -> [u8; 3] {
        let own = 9 * 16;
        let reciprocal = self.reciprocals[(own + weights.iter().sum::<u32>()) as usize];
        std::array::from_fn(|channel| {
            let of = |pixel: [u8; 3]| u32::from(pixel[channel]);
            let terms = neighbours.iter().zip(weights);
            let others: u32 = terms.map(|(&pixel, weight)| weight * of(pixel)).sum();
            (((own * of(pixel) + others) * reciprocal + (1 << 19)) >> 20).min(255) as u8
        })
    }
}

/// A corner that sticks out of an edge: half of it is the nearer pixel of the edge. Of a pixel
/// with three or four such corners, which is a dot, less is cut, lest it fade.
fn cut(pixel: [u8; 3], one: [u8; 3], other: [u8; 3], cuts: usize) -> [u8; 3] {
    let nearer = if difference(pixel, one) <= difference(pixel, other) {
        one
    } else {
        other
    };
    let eighths = [4, 4, 4, 3, 2][cuts];
    std::array::from_fn(|channel| {
        let of = |pixel: [u8; 3]| u16::from(pixel[channel]);
        (((8 - eighths) * of(pixel) + eighths * of(nearer) + 4) / 8) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of "#" and ".", doubled, as levels of its green.
    fn doubled<const N: usize>(rows: [&str; N]) -> Vec<Vec<u8>> {
        let grey = |sign: u8| [if sign == b'#' { 255 } else { 0 }; 3];
        let pixels = rows
            .iter()
            .flat_map(|row| row.bytes().flat_map(grey))
            .collect();
        let picture = Picture::new(rows[0].len(), N, pixels);
        let picture = enlarged(&picture, 1);
        let row = |y: usize| {
            (0..picture.width_px())
                .map(|x| picture.pixel(x, y)[1])
                .collect()
        };
        (0..picture.height_px()).map(row).collect()
    }

    #[test]
    fn straight_edges_stay_hard() {
        let rows = doubled(["..##", "..##", "..##"]);
        assert!(
            rows.iter()
                .all(|row| row == &[0, 0, 0, 0, 255, 255, 255, 255]),
            "{rows:?}"
        );
    }

    #[test]
    fn stairs_become_slopes() {
        let rows = doubled(["....#", "...##", "..###", ".####", "#####"]);
        // One row of the middle: the corner of the stair is half, on both sides of the edge.
        assert_eq!(rows[4], [0, 0, 0, 0, 128, 255, 255, 255, 255, 255]);
        assert_eq!(rows[5], [0, 0, 0, 128, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn a_checkerboard_is_no_edge() {
        let light = |x: usize, y: usize| (x + y).is_multiple_of(2);
        let squares = (0..36).flat_map(|at| {
            // Not even one whose dark squares differ.
            let dark = 40 * (at / 6) as u8 / 2;
            [if light(at % 6, at / 6) { 255 } else { dark }; 3]
        });
        let picture = enlarged(&Picture::new(6, 6, squares.collect()), 1);
        for y in 2..10 {
            for x in 2..10 {
                let grey = picture.pixel(x, y)[1];
                assert_eq!(grey > 200, light(x / 2, y / 2), "{x} {y}: {grey}");
            }
        }
        let rows = doubled(["#.#.", ".#.#", "#.#.", ".#.#"]);
        for (y, row) in rows.iter().enumerate() {
            for (x, &grey) in row.iter().enumerate() {
                let is_light = (x / 2 + y / 2).is_multiple_of(2);
                assert_eq!(grey > 127, is_light, "{x} {y}: {rows:?}");
            }
        }
    }

    #[test]
    fn a_dot_stays_a_dot() {
        let rows = doubled([".....", ".....", "..#..", ".....", "....."]);
        let light: u32 = rows.iter().flatten().map(|&grey| u32::from(grey)).sum();
        assert!(rows[4][4] > 180 && light >= 4 * 190, "{rows:?}");
    }

    #[test]
    fn a_gradient_goes_on_in_smaller_steps() {
        let rgb: Vec<u8> = (0..8).flat_map(|x| [16 * x; 3]).collect();
        let picture = enlarged(&Picture::new(8, 1, rgb), 1);
        let greys: Vec<u8> = (4..12).map(|x| picture.pixel(x, 0)[0]).collect();
        assert_eq!(greys, [28, 36, 44, 52, 60, 68, 76, 84]);
    }

    #[test]
    fn two_doublings_are_enough() {
        for (factor, expected) in [(0.5, 0), (1.0, 0), (1.1, 1), (2.0, 1), (2.1, 2), (40.0, 2)] {
            assert_eq!(doublings(factor), expected, "{factor}");
        }
    }
}
