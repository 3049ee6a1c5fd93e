//! Threshold masks of ordered dithering.

use std::sync::OnceLock;

use crate::display::bayer::BAYER;

/// A square of thresholds that tiles the plane.
#[derive(Debug)]
pub struct Mask {
    side: usize,
    thresholds: Vec<f32>,
}

impl Mask {
    /// The threshold at a pixel: above 0 and below 1, each equally often.
    pub fn threshold(&self, x: usize, y: usize) -> f32 {
        self.thresholds[y % self.side * self.side + x % self.side]
    }

    fn of_ranks(side: usize, ranks: &[usize]) -> Self {
        let count = ranks.len() as f32;
        let middle = |&rank: &usize| (rank as f32 + 0.5) / count;
        let thresholds = ranks.iter().map(middle).collect();
        Self { side, thresholds }
    }
}

/// [`BAYER`] as a mask.
pub fn bayer() -> Mask {
    let ranks = BAYER.as_flattened().iter();
    Mask::of_ranks(8, &ranks.map(|&rank| rank.into()).collect::<Vec<_>>())
}

/// The side of the blue noise mask.
const SIDE: usize = 64;

/// How far a point crowds its neighbours: four times the width of Ulichney's Gaussian.
const REACH: usize = 6;

/// A mask by the void-and-cluster method of Ulichney 1993, made once.
pub fn blue_noise() -> &'static Mask {
    static MASK: OnceLock<Mask> = OnceLock::new();
    MASK.get_or_init(|| Mask::of_ranks(SIDE, &Pattern::spread().ranks()))
}

/// Points on a torus, and how crowded every place is by them.
#[derive(Clone)]
struct Pattern {
    points: Vec<bool>,
    crowd: Vec<i64>,
    kernel: Vec<i64>,
}

impl Pattern {
    /// A tenth of the places, scattered by chance and then moved apart.
    fn spread() -> Self {
        let width = 2 * REACH + 1;
        let kernel = (0..width * width).map(|at| {
            let [x, y] = [at % width, at / width].map(|at| at as f64 - REACH as f64);
            (libm::exp(-(x * x + y * y) / (2.0 * 1.5 * 1.5)) * 65536.0) as i64
        });
        let mut pattern = Self {
            points: vec![false; SIDE * SIDE],
            crowd: vec![0; SIDE * SIDE],
            kernel: kernel.collect(),
        };
        let mut state = 1_u32;
        for _ in 0..SIDE * SIDE / 10 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let place = (state >> 16) as usize % (SIDE * SIDE);
            if !pattern.points[place] {
                pattern.flip(place);
            }
        }
        // Each move takes a point out of a cluster, and it ends when that is also the widest void.
        for _ in 0..SIDE * SIDE {
            let cluster = pattern.tightest();
            pattern.flip(cluster);
            let void = pattern.emptiest();
            pattern.flip(void);
            if void == cluster {
                break;
            }
        }
        pattern
    }

    fn flip(&mut self, place: usize) {
        self.points[place] = !self.points[place];
        let sign = if self.points[place] { 1 } else { -1 };
        let width = 2 * REACH + 1;
        for (at, weight) in self.kernel.iter().enumerate() {
            let x = (place % SIDE + at % width + SIDE - REACH) % SIDE;
            let y = (place / SIDE + at / width + SIDE - REACH) % SIDE;
            self.crowd[y * SIDE + x] += sign * weight;
        }
    }

    fn tightest(&self) -> usize {
        let places = (0..SIDE * SIDE).filter(|&place| self.points[place]);
        places.max_by_key(|&place| self.crowd[place]).unwrap_or(0)
    }

    fn emptiest(&self) -> usize {
        let places = (0..SIDE * SIDE).filter(|&place| !self.points[place]);
        places.min_by_key(|&place| self.crowd[place]).unwrap_or(0)
    }

    /// The order in which places fill: these points from the loneliest, then void after void.
    fn ranks(mut self) -> Vec<usize> {
        let mut ranks = vec![0; SIDE * SIDE];
        let count = self.points.iter().filter(|point| **point).count();
        let mut thinned = self.clone();
        for rank in (0..count).rev() {
            let place = thinned.tightest();
            thinned.flip(place);
            ranks[place] = rank;
        }
        for rank in count..SIDE * SIDE {
            let place = self.emptiest();
            self.flip(place);
            ranks[place] = rank;
        }
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_every_threshold_once(mask: &Mask) {
        let mut thresholds = mask.thresholds.clone();
        thresholds.sort_by(f32::total_cmp);
        for (rank, threshold) in thresholds.iter().enumerate() {
            assert_eq!(*threshold, (rank as f32 + 0.5) / thresholds.len() as f32);
        }
    }

    #[test]
    fn bayers_matrix_halves_the_distance_again_and_again() {
        let mask = bayer();
        assert_every_threshold_once(&mask);
        let rank = |x, y| (mask.threshold(x, y) * 64.0) as usize;
        let top: Vec<usize> = (0..8).map(|x| rank(x, 0)).collect();
        assert_eq!(top, [0, 32, 8, 40, 2, 34, 10, 42]);
        assert_eq!((rank(1, 1), rank(0, 1)), (16, 48));
        assert_eq!((rank(8, 8), rank(9, 9)), (0, 16));
    }

    #[test]
    fn blue_noise_keeps_its_points_apart() {
        let mask = blue_noise();
        assert_every_threshold_once(mask);
        // At a density of 1/32 points could lie 6 apart; white noise would have dozens of touching pairs.
        let points: Vec<[usize; 2]> = (0..SIDE * SIDE)
            .map(|at| [at % SIDE, at / SIDE])
            .filter(|[x, y]| mask.threshold(*x, *y) < 1.0 / 32.0)
            .collect();
        assert_eq!(points.len(), SIDE * SIDE / 32);
        let apart = |a: usize, b: usize| a.abs_diff(b).min(SIDE - a.abs_diff(b));
        for (at, a) in points.iter().enumerate() {
            for b in &points[..at] {
                let squared = apart(a[0], b[0]).pow(2) + apart(a[1], b[1]).pow(2);
                assert!(squared >= 9, "{a:?} and {b:?}");
            }
        }
    }
}
