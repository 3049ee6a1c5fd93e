//! What one core can do at most: the measure that a profile is held against.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::operators::ALIGNMENT;
use super::simd::{Int8Simd, Int8Work, Isa, Simd, Work};

/// The most that one core does in a second, as measured on this machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// f32 operations: a multiply-add is two.
    pub flops: f64,
    /// int8 operations of [`Int8Simd::qtile`], whose operands lie in the nearest cache: a multiply-add
    /// is two.
    pub int8_ops: f64,
    /// Bytes read from a block of memory that is larger than the caches.
    pub read_bytes_per_second: f64,
}

/// Measures the instruction set on the core that this thread runs on. It takes about 0.1 s and
/// for that time 64 MiB.
///
/// # Panics
///
/// When the core does not have the instruction set.
pub fn peak(isa: Isa) -> Peak {
    // Ones, not zeros: pages that were never written all read from one and the same page.
    let block = vec![1.0; BLOCK_BYTES / size_of::<f32>()];
    let block = &block[block.as_ptr().align_offset(ALIGNMENT)..];
    Peak {
        flops: fastest(|| isa.run(MulAdds)),
        int8_ops: fastest(|| isa.run_int8(Tiles)),
        read_bytes_per_second: fastest(|| isa.run(Reads(block))),
    }
}

/// How long each measurement repeats its run.
const BUDGET: Duration = Duration::from_millis(25);

/// What is read: twice the largest cache of the machines in question.
const BLOCK_BYTES: usize = 64 << 20;

/// The amount that `work` gives back, per second. Of all runs the fastest counts: whatever else
/// the core had to do meanwhile can only have made a run slower.
fn fastest(work: impl Fn() -> f64) -> f64 {
    let (start, mut best) = (Instant::now(), 0.0f64);
    while start.elapsed() < BUDGET {
        let start = Instant::now();
        let amount = work();
        best = best.max(amount / start.elapsed().as_secs_f64());
    }
    best
}

/// Operations of f32 multiply-adds in registers.
struct MulAdds;

impl Work for MulAdds {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        /// Two units with a latency of seven cycles are kept busy, and sixteen registers suffice.
        const CHAINS: usize = 14;
        const ROUNDS: usize = 1 << 15;
        // x ← x · s + x needs no register but x and s, and no part of it can be computed ahead; x
        // stays what it is.
        let small = simd.splat(black_box(f32::EPSILON / 16.0));
        let mut ends = vec![1.0; CHAINS * S::LANES];
        // SAFETY: `ends` has as many vectors as there are chains.
        let mut chains: [S::F32; CHAINS] = std::array::from_fn(|i| unsafe {
            simd.load(black_box(&ends)[i * S::LANES..].as_ptr())
        });
        for _ in 0..ROUNDS {
            for x in &mut chains {
                *x = simd.mul_add(*x, small, *x);
            }
        }
        for (x, end) in chains.into_iter().zip(ends.chunks_exact_mut(S::LANES)) {
            // SAFETY: `end` is one vector.
            unsafe { simd.store(end.as_mut_ptr(), x) };
        }
        black_box(ends);
        (2 * ROUNDS * CHAINS * S::LANES) as f64
    }
}

/// Operations of quantized tiles.
struct Tiles;

impl Int8Work for Tiles {
    type Output = f64;

    #[inline(always)]
    fn run<S: Int8Simd>(self, simd: S) -> f64 {
        /// Values of a row: the operands of the largest tile are 10 KiB.
        const DEPTH: usize = 256;
        const ROUNDS: usize = 256;
        let (rows, columns) = S::QTILE;
        let x = vec![1u8; rows * DEPTH];
        let w = vec![1i8; columns * DEPTH];
        let mut out = vec![0i32; rows * columns];
        let pointers: Vec<*const u8> = x.chunks(DEPTH).map(<[u8]>::as_ptr).collect();
        for _ in 0..ROUNDS {
            let (pointers, w) = (black_box(pointers.as_ptr()), black_box(w.as_ptr()));
            // SAFETY: there are `rows` pointers to `DEPTH` bytes each, `DEPTH` is a multiple of
            // every `QGROUP`, and `w` and `out` have the sizes of the tile.
            unsafe { simd.qtile(pointers, 1, DEPTH / S::QGROUP, w, out.as_mut_ptr()) };
            black_box(out.as_mut_ptr());
        }
        (2 * ROUNDS * rows * columns * DEPTH) as f64
    }
}

/// Bytes read, front to back.
struct Reads<'a>(&'a [f32]);

impl Work for Reads<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        const CHAINS: usize = 8;
        let mut sums = [simd.splat(0.0); CHAINS];
        let pieces = self.0.chunks_exact(CHAINS * S::LANES);
        let pieces_bytes = pieces.len() * CHAINS * S::LANES * size_of::<f32>();
        for piece in pieces {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a piece is as many vectors as there are sums.
                *sum = simd.add(*sum, unsafe { simd.load(piece.as_ptr().add(i * S::LANES)) });
            }
        }
        let total = sums.into_iter().reduce(|a, b| simd.add(a, b));
        black_box(total.map(|total| simd.sum(total)));
        pieces_bytes as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_a_peak() {
        for isa in Isa::available() {
            let peak = peak(isa);
            let Peak {
                flops,
                int8_ops,
                read_bytes_per_second,
            } = peak;
            for rate in [flops, int8_ops, read_bytes_per_second] {
                assert!(rate.is_finite() && rate > 0.0, "{isa:?}: {peak:?}");
            }
        }
    }

    #[test]
    fn amounts_are_what_the_shapes_say() {
        let block = vec![1.0; 1000];
        // 1000 values are 31 pieces of 8 vectors of 4 f32.
        assert_eq!(Isa::Portable.run(Reads(&block)), (31 * 8 * 4 * 4) as f64);
        assert_eq!(
            Isa::Portable.run_int8(Tiles),
            (2 * 256 * 4 * 8 * 256) as f64
        );
        let operations = 2 * (1 << 15) * 14 * 4;
        assert_eq!(Isa::Portable.run(MulAdds), f64::from(operations));
    }
}
