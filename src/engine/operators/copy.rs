//! Copies between layouts: a program's edges, and what could not be fused away.
//!
//! Every copy is the same one: up to six axes, each with a stride in the source and a stride in
//! the destination. What makes a copy fast is only which axes are consecutive where.

use std::mem::MaybeUninit;

use super::{Memory, Operator, Scratch, View, share, tile, worth_waking};
use crate::engine::simd::{Isa, Simd, Work};

/// Rows and columns of the blocks in which matrices are transposed: both sides of a block fit any
/// first-level cache.
const BLOCK: usize = 64;

/// Elements of 4 bytes. Columns that are a multiple of it apart cost several times as much when
/// they are written in turn, since a core tells stores that are under way apart by the last twelve
/// bits of their addresses.
const SLOW_STRIDE: usize = 1024;

/// A copy of elements of 1 or 4 bytes from one layout to another.
#[derive(Debug)]
pub struct StridedCopy {
    isa: Isa,
    name: &'static str,
    element_bytes: usize,
    source: usize,
    destination: usize,
    /// All axes but the two innermost.
    outer: Vec<Axis>,
    /// What a block has rows and columns of.
    rows: Axis,
    columns: Axis,
    order: Order,
    /// Rows and columns of a block.
    block: [usize; 2],
    phases: [usize; 1],
}

/// An axis and the distance of its neighbours in the source and in the destination, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    extent: usize,
    from: usize,
    to: usize,
}

/// How the elements of a block lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Consecutive along the columns, in the source and in the destination.
    Same,
    /// Elements of 4 bytes, consecutive along the columns in the source, along the rows in the
    /// destination.
    Transposed,
    /// Not consecutive, or not worth the effort.
    Scattered,
}

/// Where a tensor lies: bytes from the beginning of the [`Memory`], and for each axis the distance
/// of neighbours in elements. In a source it may be 0: the axis repeats what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strided<'a> {
    /// Bytes from the beginning of the [`Memory`].
    pub offset: usize,
    /// In elements, one per axis.
    pub strides: &'a [usize],
}

impl StridedCopy {
    /// A copy of a tensor of `shape`, at most six axes, for `threads` threads.
    ///
    /// # Panics
    ///
    /// When shape and strides have different lengths or more than six axes, or elements are
    /// neither of 1 nor of 4 bytes.
    pub fn new(
        isa: Isa,
        threads: usize,
        element_bytes: usize,
        shape: &[usize],
        source: Strided,
        destination: Strided,
    ) -> Self {
        assert!(
            matches!(element_bytes, 1 | 4),
            "elements of {element_bytes} bytes"
        );
        let ranks = [shape.len(), source.strides.len(), destination.strides.len()];
        assert!(
            ranks == [shape.len(); 3] && shape.len() <= 6,
            "axes {ranks:?}"
        );
        let strides = source.strides.iter().zip(destination.strides);
        let axes = shape.iter().zip(strides);
        let axes = axes.map(|(&extent, (&from, &to))| Axis { extent, from, to });
        let mut outer = merge(axes.collect());
        let single = Axis {
            extent: 1,
            from: 1,
            to: 1,
        };
        // The innermost axis of the destination comes last.
        let last = outer.pop().unwrap_or(single);
        let longest = (0..outer.len()).max_by_key(|&at| outer[at].extent);
        let consecutive = outer.iter().position(|axis| axis.from == 1);
        let mut take = |at: Option<usize>| at.map_or(single, |at| outer.remove(at));
        let (order, rows, columns) = if (last.from, last.to) == (1, 1) {
            (Order::Same, take(longest), last)
        } else if element_bytes == 4 && last.to == 1 && consecutive.is_some() {
            (Order::Transposed, last, take(consecutive))
        } else {
            (Order::Scattered, take(longest), last)
        };
        let block_columns = if order == Order::Same {
            columns.extent.max(1)
        } else {
            BLOCK
        };
        let mut copy = Self {
            isa,
            name: "copy",
            element_bytes,
            source: source.offset,
            destination: destination.offset,
            outer,
            rows,
            columns,
            order,
            block: [BLOCK, block_columns],
            phases: [1],
        };
        let values = shape.iter().product();
        let threads = worth_waking(threads, values, tile::start_values(isa));
        copy.phases = [tasks(threads, copy.blocks())];
        copy
    }

    /// From `input` to `output`, which is larger by whole factors: every pixel is repeated.
    ///
    /// # Panics
    ///
    /// When the shapes say something else; as [`StridedCopy::new`].
    pub fn upsample(
        isa: Isa,
        threads: usize,
        element_bytes: usize,
        input: View,
        output: View,
    ) -> Self {
        let [down, right] = [output.height / input.height, output.width / input.width];
        let expected = [
            input.batch,
            input.height * down,
            input.width * right,
            input.channels,
        ];
        assert_eq!(shape(output), expected, "{output:?} of {input:?}");
        let (row, pixel) = (output.row_stride, output.pixel_stride);
        let copy = Self::new(
            isa,
            threads,
            element_bytes,
            &[
                input.batch,
                input.height,
                down,
                input.width,
                right,
                input.channels,
            ],
            Strided {
                offset: input.offset,
                strides: &[
                    input.batch_stride,
                    input.row_stride,
                    0,
                    input.pixel_stride,
                    0,
                    1,
                ],
            },
            Strided {
                offset: output.offset,
                strides: &[
                    output.batch_stride,
                    row * down,
                    row,
                    pixel * right,
                    pixel,
                    1,
                ],
            },
        );
        Self {
            name: "upsample",
            ..copy
        }
    }

    /// Blocks along the rows and the columns.
    fn grid(&self) -> [usize; 2] {
        [
            self.rows.extent.div_ceil(self.block[0]),
            self.columns.extent.div_ceil(self.block[1]),
        ]
    }

    fn blocks(&self) -> usize {
        let [down, right] = self.grid();
        self.outer.iter().map(|axis| axis.extent).product::<usize>() * down * right
    }

    fn axes(&self) -> impl Iterator<Item = &Axis> {
        self.outer.iter().chain([&self.rows, &self.columns])
    }

    /// Elements of the destination.
    fn elements(&self) -> usize {
        self.axes().map(|axis| axis.extent).product()
    }

    /// Copies the block `index` of all.
    ///
    /// # Safety
    ///
    /// Source and destination lie in `memory`, and no one else touches the destination's block.
    #[inline(always)]
    unsafe fn copy_block<S: Simd, T: Copy>(&self, simd: S, index: usize, memory: Memory) {
        let [down, right] = self.grid();
        let (rest, column) = (index / right, index % right);
        let (mut rest, row) = (rest / down, rest % down);
        let first = [row * self.block[0], column * self.block[1]];
        let rows = (self.rows.extent - first[0]).min(self.block[0]);
        let columns = (self.columns.extent - first[1]).min(self.block[1]);
        let mut from = first[0] * self.rows.from + first[1] * self.columns.from;
        let mut to = first[0] * self.rows.to + first[1] * self.columns.to;
        for axis in self.outer.iter().rev() {
            from += rest % axis.extent * axis.from;
            to += rest % axis.extent * axis.to;
            rest /= axis.extent;
        }
        // SAFETY: all indices are less than the extents; the caller vouches for the rest.
        unsafe {
            let from = memory.at::<T>(self.source).add(from).cast_const();
            let to = memory.at::<T>(self.destination).add(to);
            match self.order {
                Order::Same => {
                    for row in 0..rows {
                        let from = from.add(row * self.rows.from);
                        to.add(row * self.rows.to)
                            .copy_from_nonoverlapping(from, columns);
                    }
                }
                Order::Transposed => {
                    let (from, to) = (from.cast(), to.cast::<f32>());
                    if !self.columns.to.is_multiple_of(SLOW_STRIDE) {
                        let strides = [self.rows.from, self.columns.to];
                        transpose(simd, from, to, strides, [rows, columns]);
                    } else {
                        let mut turned = MaybeUninit::<[f32; BLOCK * BLOCK]>::uninit();
                        let turned = turned.as_mut_ptr().cast::<f32>();
                        let strides = [self.rows.from, BLOCK];
                        transpose(simd, from, turned, strides, [rows, columns]);
                        for column in 0..columns {
                            let to = to.add(column * self.columns.to);
                            to.copy_from_nonoverlapping(turned.add(column * BLOCK), rows);
                        }
                    }
                }
                Order::Scattered => {
                    for row in 0..rows {
                        let from = from.add(row * self.rows.from);
                        let to = to.add(row * self.rows.to);
                        for column in 0..columns {
                            let value = *from.add(column * self.columns.from);
                            *to.add(column * self.columns.to) = value;
                        }
                    }
                }
            }
        }
    }
}

impl Operator for StridedCopy {
    fn phases(&self) -> &[usize] {
        &self.phases
    }

    unsafe fn run(&self, _phase: usize, task: usize, memory: Memory, _scratch: Scratch) {
        self.isa.run(Task {
            copy: self,
            task,
            memory,
        });
    }

    fn bytes(&self) -> u64 {
        let distinct = self
            .axes()
            .filter(|axis| axis.from != 0)
            .map(|axis| axis.extent);
        ((distinct.product::<usize>() + self.elements()) * self.element_bytes) as u64
    }

    fn describe(&self) -> String {
        let order = match self.order {
            Order::Same => "",
            Order::Transposed => " transposed",
            Order::Scattered => " scattered",
        };
        format!(
            "{}{order} {} x {} B",
            self.name,
            self.elements(),
            self.element_bytes
        )
    }
}

/// A task of a [`StridedCopy`].
struct Task<'a> {
    copy: &'a StridedCopy,
    task: usize,
    memory: Memory,
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { copy, task, memory } = self;
        for block in share(copy.blocks(), copy.phases[0], task) {
            // SAFETY: the caller of `run` vouches for the memory; every block is one task's.
            unsafe {
                match copy.element_bytes {
                    1 => copy.copy_block::<S, u8>(simd, block, memory),
                    _ => copy.copy_block::<S, u32>(simd, block, memory),
                }
            }
        }
    }
}

/// The axes from the largest stride in the destination to the smallest, without those that have
/// only one index, and those as one that lie as one in source and destination.
fn merge(mut axes: Vec<Axis>) -> Vec<Axis> {
    axes.retain(|axis| axis.extent != 1);
    axes.sort_by_key(|axis| std::cmp::Reverse((axis.to, axis.from)));
    let mut merged: Vec<Axis> = Vec::new();
    for inner in axes {
        match merged.last_mut() {
            Some(outer)
                if outer.from == inner.from * inner.extent
                    && outer.to == inner.to * inner.extent =>
            {
                *outer = Axis {
                    extent: outer.extent * inner.extent,
                    ..inner
                };
            }
            _ => merged.push(inner),
        }
    }
    merged
}

fn shape(view: View) -> [usize; 4] {
    [view.batch, view.height, view.width, view.channels]
}

/// Copies a matrix so that rows become columns: `to[column][row] = from[row][column]`, bit by bit.
///
/// `strides` are the distances of the source's rows and of the destination's rows (the source's
/// columns), in elements.
///
/// # Safety
///
/// The matrix of `[rows, columns]` can be read at `from` and its transpose written at `to`, and
/// they do not overlap.
#[inline(always)]
pub(super) unsafe fn transpose<S: Simd>(
    simd: S,
    from: *const f32,
    to: *mut f32,
    [from_stride, to_stride]: [usize; 2],
    [rows, columns]: [usize; 2],
) {
    // Sixteen rows at a time fill whole cache lines of the destination, whose rows may lie at a
    // power of two, where a cache has room for few of them.
    const ROWS: usize = 16;
    // SAFETY: rows and columns are less than the matrix has; the caller vouches for those.
    unsafe {
        let one = |row: usize, column: usize| {
            *to.add(column * to_stride + row) = *from.add(row * from_stride + column);
        };
        for first in (0..rows).step_by(ROWS) {
            let end = rows.min(first + ROWS);
            let whole = first + (end - first) / 4 * 4;
            for column in (0..columns / 4 * 4).step_by(4) {
                for row in (first..whole).step_by(4) {
                    let block = from.add(row * from_stride + column);
                    let turned = to.add(column * to_stride + row);
                    simd.transpose4(block, from_stride, turned, to_stride);
                }
                for row in whole..end {
                    (column..column + 4).for_each(|column| one(row, column));
                }
            }
            for column in columns / 4 * 4..columns {
                (first..end).for_each(|row| one(row, column));
            }
        }
    }
}

/// Into how many tasks `items` equal pieces of work are divided.
pub(super) fn tasks(threads: usize, items: usize) -> usize {
    const TASKS_PER_THREAD: usize = 4;
    if threads <= 1 {
        1
    } else {
        items.clamp(1, TASKS_PER_THREAD * threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs an operator on `bytes` of memory, the tasks of each phase backwards.
    fn run(operator: &StridedCopy, memory: &mut [u32]) {
        let scratch = Scratch {
            own: std::ptr::null_mut(),
            shared: std::ptr::null_mut(),
        };
        let memory = Memory::new(memory.as_mut_ptr().cast());
        for task in (0..operator.phases()[0]).rev() {
            // SAFETY: the tests lay out their tensors within the memory; a copy needs no scratch.
            unsafe { operator.run(0, task, memory, scratch) };
        }
    }

    /// Every instruction set with 1, 2 and 3 threads.
    fn everywhere() -> impl Iterator<Item = (Isa, usize)> {
        Isa::available()
            .into_iter()
            .flat_map(|isa| (1..=3).map(move |threads| (isa, threads)))
    }

    /// Elements from the beginning to the element `index` of `shape`.
    fn place(shape: &[usize], strides: &[usize], mut index: usize) -> usize {
        let mut place = 0;
        for (&extent, &stride) in shape.iter().zip(strides).rev() {
            place += index % extent * stride;
            index /= extent;
        }
        place
    }

    /// Row-major strides of `shape`, its axes in the order `axes`, every row `gap` longer.
    fn strides(shape: &[usize], axes: &[usize], gap: usize) -> Vec<usize> {
        let mut strides = vec![0; shape.len()];
        let mut stride = 1;
        for &axis in axes.iter().rev() {
            strides[axis] = stride;
            stride = stride * shape[axis] + gap;
        }
        strides
    }

    /// Elements that a tensor spans.
    fn span(shape: &[usize], strides: &[usize]) -> usize {
        shape
            .iter()
            .zip(strides)
            .map(|(extent, stride)| (extent - 1) * stride)
            .sum::<usize>()
            + 1
    }

    fn check(shape: &[usize], from: &[usize], to: &[usize]) {
        let len: usize = shape.iter().product();
        let start = span(shape, from) + 3;
        let total = start + span(shape, to);
        for (isa, threads) in everywhere() {
            let source = Strided {
                offset: 0,
                strides: from,
            };
            let destination = Strided {
                offset: 4 * start,
                strides: to,
            };
            let copy = StridedCopy::new(isa, threads, 4, shape, source, destination);
            let mut memory: Vec<u32> = (0..total as u32).collect();
            run(&copy, &mut memory);
            let mut expected: Vec<u32> = (0..total as u32).collect();
            for index in 0..len {
                let from = place(shape, from, index);
                expected[start + place(shape, to, index)] = from as u32;
            }
            assert!(
                memory == expected,
                "{shape:?} {from:?} {to:?} {threads}: {copy:?}"
            );
        }
    }

    #[test]
    fn any_order_of_axes() {
        let cases: [(&[usize], &[usize], &[usize]); 11] = [
            (&[], &[], &[]),
            (&[7], &[0], &[0]),
            (&[5, 130], &[0, 1], &[1, 0]),
            (&[67, 130], &[0, 1], &[1, 0]),
            (&[2, 3, 70], &[0, 2, 1], &[0, 1, 2]),
            (&[35, SLOW_STRIDE], &[1, 0], &[0, 1]),
            (&[2, 70, 3], &[0, 1, 2], &[2, 1, 0]),
            (&[3, 1, 20, 17], &[0, 2, 3, 1], &[0, 1, 2, 3]),
            (&[2, 4, 8, 16], &[0, 1, 2, 3], &[0, 1, 2, 3]),
            (
                &[2, 3, 4, 5, 6, 7],
                &[5, 3, 1, 0, 2, 4],
                &[4, 5, 0, 1, 3, 2],
            ),
            (
                &[2, 3, 2, 1, 5, 18],
                &[0, 4, 5, 1, 2, 3],
                &[0, 1, 2, 3, 4, 5],
            ),
        ];
        for (shape, from, to) in cases {
            for gaps in [[0, 0], [3, 0], [0, 5], [1, 2]] {
                let (from, to) = (strides(shape, from, gaps[0]), strides(shape, to, gaps[1]));
                check(shape, &from, &to);
            }
        }
    }

    #[test]
    fn a_source_repeats_itself() {
        check(&[3, 70], &[0, 1], &[70, 1]);
        check(&[70, 3], &[1, 0], &[3, 1]);
        check(&[4, 5], &[0, 0], &[5, 1]);
        check(&[6, 4], &[8, 2], &[12, 3]);
    }

    fn view(offset: usize, [batch, height, width, channels]: [usize; 4], gap: usize) -> View {
        let pixel_stride = channels + gap;
        let row_stride = width * pixel_stride + gap;
        let batch_stride = height * row_stride + gap;
        let dense = View::dense(offset, [batch, height, width, channels]);
        View {
            batch_stride,
            row_stride,
            pixel_stride,
            ..dense
        }
    }

    fn pixel_strides(view: View) -> [usize; 4] {
        [view.batch_stride, view.row_stride, view.pixel_stride, 1]
    }

    /// Where batch, row, column and channel of a view lie in `[batch][channel][row][column]`.
    fn planar_strides(view: View) -> [usize; 4] {
        let plane = view.height * view.width;
        [view.channels * plane, view.width, 1, plane]
    }

    #[test]
    fn planar_pictures_and_back() {
        for (shape, gap) in [([2, 5, 7, 3], 0), ([1, 8, 8, 20], 4), ([2, 9, 16, 1], 2)] {
            for (isa, threads) in everywhere() {
                let len: usize = shape.iter().product();
                let middle = view(4 * len, shape, gap);
                let end = len + 2 * middle.batch_stride;
                let mut memory: Vec<u32> = (0..(end + len) as u32).collect();
                let (planar, pixels) = (planar_strides(middle), pixel_strides(middle));
                let at = |offset, strides| Strided { offset, strides };
                let copy =
                    |from, to| StridedCopy::new(isa, threads, 4, &super::shape(middle), from, to);
                let inside = at(middle.offset, &pixels);
                run(&copy(at(0, &planar), inside), &mut memory);
                let [_, height, width, channels] = shape;
                for index in 0..len {
                    let (rest, x) = (index / width, index % width);
                    let (rest, y) = (rest / height, rest % height);
                    let (n, c) = (rest / channels, rest % channels);
                    let pixel = middle.pixel((n * height + y) * width + x);
                    assert_eq!(memory[len + pixel + c], index as u32, "{shape:?}");
                }
                run(&copy(inside, at(4 * end, &planar)), &mut memory);
                assert!(memory[end..].iter().copied().eq(0..len as u32), "{shape:?}");
            }
        }
    }

    #[test]
    fn pixels_are_repeated() {
        for ([batch, height, width, channels], [down, right], gap) in [
            ([2, 3, 5, 4], [2, 2], 0),
            ([1, 4, 3, 17], [3, 2], 5),
            ([2, 2, 66, 1], [1, 4], 3),
        ] {
            for ((isa, threads), bytes) in everywhere().flat_map(|at| [(at, 1), (at, 4)]) {
                let input = view(0, [batch, height, width, channels], gap);
                let start = input.batch * input.batch_stride;
                let shape = [batch, height * down, width * right, channels];
                let output = view(start * bytes, shape, gap + 1);
                let len = start + batch * output.batch_stride;
                let mut memory: Vec<u32> = (0..len as u32).collect();
                let element = |memory: &[u32], at: usize| match bytes {
                    1 => u32::from(memory[at / 4].to_le_bytes()[at % 4]),
                    _ => memory[at],
                };
                let before = memory.clone();
                let copy = StridedCopy::upsample(isa, threads, bytes, input, output);
                run(&copy, &mut memory);
                for index in 0..output.pixels() {
                    let (row, x) = (index / output.width, index % output.width);
                    let (n, y) = (row / output.height, row % output.height);
                    let from = input.pixel((n * height + y / down) * width + x / right);
                    for channel in 0..output.pixel_stride {
                        let at = start + output.pixel(index) + channel;
                        let source = if channel < channels {
                            from + channel
                        } else {
                            at
                        };
                        let expected = element(&before, source);
                        assert_eq!(element(&memory, at), expected, "{copy:?} {index} {channel}");
                    }
                }
            }
        }
    }
}
