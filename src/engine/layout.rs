//! How a value lies in memory: a buffer, an offset, and a stride for every axis.
//!
//! Reshapes, transposes and slices are other strides over the same bytes wherever that can be
//! said; only where it cannot is anything copied. Pictures lie channels-last: `[n, c, h, w]` with
//! strides `[h·w·c, 1, w·c, c]`.

use super::operators::{Element, Quantization, View};
use crate::npz::Dtype;

/// An index into a plan's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BufferId(pub usize);

/// What the elements of a value in memory are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// f32
    Float,
    /// Levels, which stand for numbers.
    Levels(Quantization),
    /// Something that only tract reads and writes, of so many bytes.
    Raw(usize),
}

impl Kind {
    /// That of a tensor that is not quantized.
    pub fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::Float,
            other => Self::Raw(other.bytes()),
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::Float => 4,
            Self::Levels(_) => 1,
            Self::Raw(bytes) => bytes,
        }
    }

    /// As operators know it.
    ///
    /// # Panics
    ///
    /// For what only tract reads.
    pub fn element(self) -> Element {
        match self {
            Self::Float => Element::Float,
            Self::Levels(quantization) => Element::Levels(quantization),
            Self::Raw(_) => panic!("an operand of numbers"),
        }
    }
}

/// A value in memory. Offset and strides are in elements.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub buffer: BufferId,
    pub offset: usize,
    pub shape: Vec<usize>,
    /// One per axis; those of axes of extent 1 say nothing.
    pub strides: Vec<usize>,
    pub kind: Kind,
}

/// The strides of a dense tensor whose axes lie in `order`, the last of which is consecutive, at
/// least `row` elements apart along the others.
pub(super) fn dense_strides(shape: &[usize], order: &[usize], padded: usize) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    let mut extent = 1;
    for (position, &axis) in order.iter().enumerate().rev() {
        strides[axis] = extent;
        extent *= shape[axis];
        if position + 1 == order.len() {
            extent = extent.next_multiple_of(padded);
        }
    }
    strides
}

impl Placed {
    /// The axes from the one with the largest stride to the one with the smallest; those of extent
    /// 1, whose strides say nothing, come first.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.shape.len()).collect();
        let stride = |axis: usize| {
            if self.shape[axis] == 1 {
                usize::MAX
            } else {
                self.strides[axis]
            }
        };
        order.sort_by_key(|&axis| std::cmp::Reverse(stride(axis)));
        order
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_row_major(&self) -> bool {
        let order: Vec<usize> = (0..self.shape.len()).collect();
        let dense = dense_strides(&self.shape, &order, 1);
        let axes = self.shape.iter().zip(self.strides.iter().zip(&dense));
        axes.into_iter().all(|(&dim, (a, b))| dim == 1 || a == b)
    }

    /// The axis whose elements are consecutive, if there is one.
    pub fn channel_axis(&self) -> Option<usize> {
        let consecutive = |axis: &usize| self.strides[*axis] == 1 && self.shape[*axis] > 1;
        (0..self.shape.len()).find(consecutive)
    }

    /// The same elements under `shape`, if strides can say that.
    pub fn reshape(&self, shape: &[usize]) -> Option<Self> {
        // Axes of extent 1 aside, walk both shapes and match runs of equal products.
        let old: Vec<usize> = (0..self.shape.len())
            .filter(|&i| self.shape[i] != 1)
            .collect();
        let mut strides = vec![1; shape.len()];
        let (mut i, mut j) = (0, 0);
        let new: Vec<usize> = (0..shape.len()).filter(|&i| shape[i] != 1).collect();
        while i < old.len() && j < new.len() {
            let (first_old, first_new) = (i, j);
            let (mut old_run, mut new_run) = (self.shape[old[i]], shape[new[j]]);
            while old_run != new_run {
                if old_run < new_run {
                    i += 1;
                    old_run *= self.shape[*old.get(i)?];
                } else {
                    j += 1;
                    new_run *= shape[*new.get(j)?];
                }
            }
            // The old axes of the run must lie as one axis.
            for pair in old[first_old..=i].windows(2) {
                let (outer, inner) = (pair[0], pair[1]);
                if self.strides[outer] != self.strides[inner] * self.shape[inner] {
                    return None;
                }
            }
            let mut stride = self.strides[old[i]];
            for &axis in new[first_new..=j].iter().rev() {
                strides[axis] = stride;
                stride *= shape[axis];
            }
            (i, j) = (i + 1, j + 1);
        }
        Some(Self {
            shape: shape.to_vec(),
            strides,
            ..self.clone()
        })
    }

    /// Output axis `i` is input axis `perm[i]`.
    pub fn transpose(&self, perm: &[usize]) -> Self {
        Self {
            shape: perm.iter().map(|&axis| self.shape[axis]).collect(),
            strides: perm.iter().map(|&axis| self.strides[axis]).collect(),
            ..self.clone()
        }
    }

    /// The part of `shape` that begins at `starts`.
    pub fn slice(&self, starts: &[usize], shape: &[usize]) -> Self {
        let offset: usize = starts
            .iter()
            .zip(&self.strides)
            .map(|(s, stride)| s * stride)
            .sum();
        Self {
            offset: self.offset + offset,
            shape: shape.to_vec(),
            ..self.clone()
        }
    }

    /// The part at `index` of `axis`, without the axis.
    pub fn select(&self, axis: usize, index: usize) -> Self {
        let mut selected = self.clone();
        selected.offset += index * selected.strides.remove(axis);
        selected.shape.remove(axis);
        selected
    }

    /// As an operand of `shape`: aligned at the last axis, missing or single extents repeated.
    pub fn broadcast(&self, shape: &[usize]) -> Self {
        let missing = shape.len() - self.shape.len();
        let strides = (0..shape.len()).map(|axis| match axis.checked_sub(missing) {
            Some(own) if self.shape[own] == shape[axis] && shape[axis] != 1 => self.strides[own],
            _ => 0,
        });
        Self {
            strides: strides.collect(),
            shape: shape.to_vec(),
            ..self.clone()
        }
    }
}

/// Which axes become one where they lie as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// None: of a shape of rank 4, batch, height and width stay what they are.
    Nothing,
    /// Those of a picture: the first axis stays the batch.
    Pixels,
    /// All.
    Everything,
}

/// The axes of `shape` in row-major order.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).collect()
}

/// The axes of a shape of `rank`, `last` behind all others.
pub(super) fn axis_last(rank: usize, last: usize) -> Vec<usize> {
    (0..rank)
        .filter(|&axis| axis != last)
        .chain([last])
        .collect()
}

/// The operands, all of one shape, as views of the same pixels: `channel` is the axis of the
/// channels, the other axes are merged where they lie as one in every operand, and as `merge` says.
/// `None` when more than three are left, or an operand's channels are neither consecutive nor
/// repeated.
///
/// The views' offsets are bytes from the beginning of each operand's buffer.
pub(super) fn views(operands: &[&Placed], channel: usize, merge: Merge) -> Option<Vec<View>> {
    let shape = &operands[0].shape;
    debug_assert!(operands.iter().all(|operand| operand.shape == *shape));
    let consecutive = |operand: &&Placed| shape[channel] == 1 || operand.strides[channel] <= 1;
    if !operands.iter().all(consecutive) {
        return None;
    }
    // Axes as (extent, stride per operand), outermost first; the first `kept` are merged with none.
    let kept = match merge {
        Merge::Nothing => shape.len(),
        Merge::Pixels => 1,
        Merge::Everything => 0,
    };
    let mut axes: Vec<(usize, Vec<usize>)> = Vec::new();
    for axis in (0..shape.len()).filter(|&axis| axis != channel) {
        let strides: Vec<usize> = operands
            .iter()
            .map(|operand| operand.strides[axis])
            .collect();
        let stays = axes.len() < kept;
        if shape[axis] == 1 && !stays {
            continue;
        }
        let may_join = axes.len() > kept;
        match axes.last_mut().filter(|_| may_join) {
            Some((extent, outer)) if is_one_axis(outer, &strides, shape[axis]) => {
                *extent *= shape[axis];
                *outer = strides;
            }
            _ => axes.push((shape[axis], strides)),
        }
    }
    while axes.len() < 3 {
        axes.insert(kept.min(axes.len()), (1, vec![0; operands.len()]));
    }
    let [(batch, batches), (height, rows), (width, pixels)] = axes.as_slice() else {
        return None;
    };
    let view = |(i, operand): (usize, &&Placed)| View {
        offset: operand.offset * operand.kind.bytes(),
        batch: *batch,
        height: *height,
        width: *width,
        channels: shape[channel],
        batch_stride: batches[i],
        row_stride: rows[i],
        pixel_stride: pixels[i],
    };
    Some(operands.iter().enumerate().map(view).collect())
}

/// Whether an outer axis continues where an inner one of `extent` ends, in every operand.
fn is_one_axis(outer: &[usize], inner: &[usize], extent: usize) -> bool {
    outer
        .iter()
        .zip(inner)
        .all(|(outer, inner)| *outer == inner * extent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels_last(shape: [usize; 4]) -> Placed {
        Placed {
            buffer: BufferId(0),
            offset: 0,
            shape: shape.to_vec(),
            strides: dense_strides(&shape, &[0, 2, 3, 1], 1),
            kind: Kind::Float,
        }
    }

    #[test]
    fn a_picture_becomes_tokens_without_a_copy() {
        let picture = channels_last([1, 64, 8, 8]);
        let rows = picture
            .reshape(&[1, 64, 64])
            .expect("height and width lie as one");
        let tokens = rows.transpose(&[0, 2, 1]);
        assert_eq!(tokens.strides[1..], [64, 1]);
        assert!(tokens.is_row_major());
        let heads = tokens.reshape(&[1, 64, 4, 16]).expect("channels split");
        assert_eq!(heads.transpose(&[0, 2, 1, 3]).strides[1..], [16, 64, 1]);
    }

    #[test]
    fn a_reshape_across_the_channels_needs_a_copy() {
        assert_eq!(channels_last([1, 64, 8, 8]).reshape(&[1, 8, 512]), None);
        assert!(channels_last([1, 64, 1, 1]).reshape(&[64]).is_some());
    }

    #[test]
    fn a_vector_is_repeated_over_pixels() {
        let vector = Placed {
            shape: vec![1, 64, 1, 1],
            ..channels_last([1, 64, 1, 1])
        };
        assert_eq!(vector.broadcast(&[2, 64, 8, 8]).strides, [0, 1, 0, 0]);
        let scalar = Placed {
            shape: vec![],
            strides: vec![],
            ..vector
        };
        assert_eq!(scalar.broadcast(&[2, 64]).strides, [0, 0]);
    }

    #[test]
    fn dense_pictures_are_one_run_of_pixels() {
        let picture = channels_last([2, 64, 8, 8]);
        let later = Placed {
            offset: 64,
            ..picture.clone()
        };
        let views = views(&[&picture, &later], 1, Merge::Everything).expect("three axes");
        assert_eq!(
            (views[1].width, views[1].pixel_stride, views[1].offset),
            (128, 64, 256)
        );
    }

    #[test]
    fn pictures_stay_apart_where_they_must() {
        let pictures = channels_last([2, 64, 8, 8]);
        let of = |merge| views(&[&pictures], 1, merge).expect("three axes")[0];
        let sizes = |view: View| [view.batch, view.height, view.width];
        assert_eq!(sizes(of(Merge::Everything)), [1, 1, 128]);
        assert_eq!(sizes(of(Merge::Pixels)), [2, 1, 64]);
        assert_eq!(of(Merge::Pixels).batch_stride, 64 * 64);
        assert_eq!(sizes(of(Merge::Nothing)), [2, 8, 8]);
        let tokens = pictures.reshape(&[2, 64, 64]).expect("rows lie as one");
        let view = views(&[&tokens], 1, Merge::Pixels).expect("two axes")[0];
        assert_eq!(sizes(view), [2, 1, 64]);
    }

    #[test]
    fn the_order_of_axes_is_that_of_their_strides() {
        assert_eq!(channels_last([2, 64, 8, 8]).order(), [0, 2, 3, 1]);
        assert_eq!(channels_last([1, 64, 8, 8]).order(), [0, 2, 3, 1]);
    }
}
