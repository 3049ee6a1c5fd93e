//! One block of memory; buffers that are never needed at once share bytes.

use super::operators::ALIGNMENT;

/// The first and the last step that touches a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub first: usize,
    pub last: usize,
}

impl Lifetime {
    /// From before the first step to behind the last, and into the next evaluation.
    pub const ALWAYS: Self = Self {
        first: 0,
        last: usize::MAX,
    };

    fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Bytes behind the end of every buffer that a kernel may read (and does not use).
const SLACK: usize = 4 * ALIGNMENT;

/// The offset of every buffer, and the size of the block. The largest buffers are placed first,
/// each at the lowest gap that fits (Pisarchyk & Lee 2020, arXiv 2001.03288, greedy by size).
pub(super) fn lay_out(sizes: &[usize], lifetimes: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut by_size: Vec<usize> = (0..sizes.len()).collect();
    by_size.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), lifetimes[i].first, i));
    let mut offsets = vec![0; sizes.len()];
    // Placed buffers by offset.
    let mut placed: Vec<usize> = Vec::new();
    let mut end = 0;
    for buffer in by_size {
        let size = sizes[buffer].next_multiple_of(ALIGNMENT);
        let mut offset = 0;
        for &other in placed
            .iter()
            .filter(|&&o| lifetimes[o].overlaps(&lifetimes[buffer]))
        {
            if offsets[other] >= offset + size {
                break;
            }
            offset = offset.max(offsets[other] + sizes[other].next_multiple_of(ALIGNMENT));
        }
        offsets[buffer] = offset;
        end = end.max(offset + size);
        let at = placed.partition_point(|&other| offsets[other] <= offset);
        placed.insert(at, buffer);
    }
    (offsets, end + SLACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lives_at_once_lies_apart_and_the_rest_shares() {
        let life = |first, last| Lifetime { first, last };
        let sizes = [100, 300, 300, 64, 1];
        let lifetimes = [life(0, 9), life(0, 1), life(2, 3), life(1, 2), life(4, 4)];
        let (offsets, bytes) = lay_out(&sizes, &lifetimes);
        for a in 0..sizes.len() {
            assert_eq!(offsets[a] % ALIGNMENT, 0);
            assert!(offsets[a] + sizes[a] <= bytes);
            for b in 0..a {
                let apart =
                    offsets[a] + sizes[a] <= offsets[b] || offsets[b] + sizes[b] <= offsets[a];
                assert!(apart || !lifetimes[a].overlaps(&lifetimes[b]), "{a} {b}");
            }
        }
        assert_eq!(offsets[1], offsets[2]);
    }
}
