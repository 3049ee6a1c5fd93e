//! Products of activations with activations.
//!
//! For graphs whose attention is not recognised.

use super::copy::{tasks, transpose};
use super::tile::{self, ROWS_MAX, columns, tile};
use super::{Memory, Operator, Scratch, share, worth_waking};
use crate::engine::simd::{Isa, Simd, Work};

/// What is multiplied: `scale · a b` for matrices `a` of `[m, k]` and `b` of `[k, n]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// Pairs of matrices, along two axes.
    pub batch: [usize; 2],
    /// Rows of `a`.
    pub m: usize,
    /// Columns of `a`, rows of `b`.
    pub k: usize,
    /// Columns of `b`.
    pub n: usize,
    /// What every sum is multiplied with.
    pub scale: f32,
}

/// Where the f32 matrices of one operand lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrices {
    /// Bytes from the beginning of the [`Memory`].
    pub offset: usize,
    /// From one matrix to the next, along both axes of [`Product::batch`], in elements. In a
    /// factor, 0 repeats the same matrix.
    pub batch_strides: [usize; 2],
    /// From one row to the next, in elements.
    pub row_stride: usize,
    /// From one column to the next, in elements.
    pub column_stride: usize,
}

impl Matrices {
    /// The matrix `index` of a batch.
    #[inline(always)]
    fn matrix(&self, memory: Memory, batch: [usize; 2], index: usize) -> *mut f32 {
        let [outer, inner] = self.batch_strides;
        let at = index / batch[1] * outer + index % batch[1] * inner;
        memory.at::<f32>(self.offset).wrapping_add(at)
    }
}

/// A batched matrix product.
///
/// `b` is packed into panels as wide as a tile: where there are enough pairs of matrices for all
/// threads, by each task for its own pairs, otherwise by all threads in a phase of its own.
#[derive(Debug)]
pub struct MatMul {
    isa: Isa,
    product: Product,
    a: Matrices,
    b: Matrices,
    output: Matrices,
    /// Rows and columns of a tile.
    tile: [usize; 2],
    /// Tiles of a block of rows.
    block_tiles: usize,
    phases: Vec<usize>,
}

impl MatMul {
    /// A product for `threads` threads.
    pub fn new(
        isa: Isa,
        threads: usize,
        product: Product,
        a: Matrices,
        b: Matrices,
        output: Matrices,
    ) -> Self {
        let tile = tile::shape(isa);
        let pairs: usize = product.batch.iter().product();
        let tiles = pairs * product.m.div_ceil(tile[0]);
        let macs = pairs * product.m * product.k * product.n;
        let threads = worth_waking(threads, macs, tile::start_macs(isa));
        let block_tiles = block_tiles(threads, tiles);
        let phases = Vec::new();
        let mut matmul = Self {
            isa,
            product,
            a,
            b,
            output,
            tile,
            block_tiles,
            phases,
        };
        matmul.phases = if fills(threads, pairs) {
            vec![tasks(threads, pairs)]
        } else {
            let items = [pairs * matmul.panels(), pairs * matmul.blocks()];
            items.map(|items| tasks(threads, items)).to_vec()
        };
        matmul
    }

    fn pairs(&self) -> usize {
        self.product.batch.iter().product()
    }

    /// Panels of one `b`.
    fn panels(&self) -> usize {
        self.product.n.div_ceil(self.tile[1])
    }

    /// Blocks of rows of one `a`.
    fn blocks(&self) -> usize {
        self.product.m.div_ceil(self.block_tiles * self.tile[0])
    }

    /// Whether the rows of `a` have to be packed, since their values are not consecutive.
    fn packs_rows(&self) -> bool {
        self.a.column_stride != 1 && self.product.k > 1
    }

    /// f32 values of one packed panel.
    fn panel_len(&self) -> usize {
        self.product.k * self.tile[1]
    }

    /// f32 values of all panels of one `b`.
    fn pair_len(&self) -> usize {
        self.panels() * self.panel_len()
    }

    /// f32 values that each thread needs for a tile of sums, for a block of rows and for panels.
    fn own_parts(&self) -> [usize; 3] {
        let [rows, columns] = self.tile;
        let block = if self.packs_rows() {
            self.block_tiles * rows * self.product.k
        } else {
            0
        };
        let panels = if self.phases.len() == 1 {
            self.pair_len()
        } else {
            0
        };
        [rows * columns, block, panels].map(|len| len.next_multiple_of(16))
    }

    /// Packs the panel `index` of the pair `pair` into `to`.
    ///
    /// # Safety
    ///
    /// `b` lies in `memory`; `to` takes a panel.
    #[inline(always)]
    unsafe fn pack<S: Simd>(
        &self,
        simd: S,
        memory: Memory,
        [pair, index]: [usize; 2],
        to: *mut f32,
    ) {
        let Product { batch, k, n, .. } = self.product;
        let first = index * columns::<S>();
        let from = self
            .b
            .matrix(memory, batch, pair)
            .wrapping_add(first * self.b.column_stride);
        let strides = [self.b.row_stride, self.b.column_stride];
        // SAFETY: the panel begins within the n columns; the caller vouches for the rest.
        unsafe { pack_panel(simd, from, strides, [k, n - first], to) };
    }

    /// Multiplies the block `index` of rows of the pair `pair` with `panels`.
    ///
    /// # Safety
    ///
    /// The operands lie in `memory`, and no one else touches those rows of the output. `panels`
    /// are those of the pair; `sums` takes a tile and `packed` what [`MatMul::own_parts`] says.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        simd: S,
        memory: Memory,
        [pair, index]: [usize; 2],
        panels: *const f32,
        [sums, packed]: [*mut f32; 2],
    ) {
        const { assert!(S::TILE.0 <= ROWS_MAX) };
        let Product { batch, m, k, n, .. } = self.product;
        let block = index * self.block_tiles * S::TILE.0;
        let count = (m - block).min(self.block_tiles * S::TILE.0);
        let output = self.output.matrix(memory, batch, pair);
        let mut rows = self
            .a
            .matrix(memory, batch, pair)
            .wrapping_add(block * self.a.row_stride);
        let mut stride = self.a.row_stride;
        // SAFETY: rows are less than m and columns less than n; the caller vouches for the rest.
        unsafe {
            if self.packs_rows() {
                gather(
                    simd,
                    rows,
                    [self.a.row_stride, self.a.column_stride],
                    [count, k],
                    packed,
                );
                (rows, stride) = (packed, k);
            }
            for panel in 0..self.panels() {
                let first = panel * columns::<S>();
                let w = panels.add(panel * self.panel_len());
                for start in (0..count).step_by(S::TILE.0) {
                    // Behind the last row comes the last one again.
                    let pointers: [_; ROWS_MAX] = std::array::from_fn(|row| {
                        rows.add((start + row).min(count - 1) * stride).cast_const()
                    });
                    tile(simd, pointers.as_ptr(), 1, k, w, sums);
                    let at = (block + start) * self.output.row_stride;
                    let to = output.add(at + first * self.output.column_stride);
                    let size = [
                        (count - start).min(S::TILE.0),
                        (n - first).min(columns::<S>()),
                    ];
                    self.store(simd, sums, size, to);
                }
            }
        }
    }

    /// Stores the first rows and columns of a tile of sums, times the scale, in the output from
    /// `to` on.
    ///
    /// # Safety
    ///
    /// Those elements can be written.
    #[inline(always)]
    unsafe fn store<S: Simd>(
        &self,
        simd: S,
        sums: *const f32,
        [row_count, column_count]: [usize; 2],
        to: *mut f32,
    ) {
        let scale = self.product.scale;
        for row in 0..row_count {
            // SAFETY: a tile has all of the rows and columns; the caller vouches for the output.
            unsafe {
                let sums = sums.add(row * columns::<S>());
                let to = to.add(row * self.output.row_stride);
                if self.output.column_stride == 1 {
                    copy_row(simd, sums, column_count, scale, to);
                } else {
                    for column in 0..column_count {
                        *to.add(column * self.output.column_stride) = *sums.add(column) * scale;
                    }
                }
            }
        }
    }
}

impl Operator for MatMul {
    fn phases(&self) -> &[usize] {
        &self.phases
    }

    fn own_bytes(&self) -> usize {
        self.own_parts().iter().sum::<usize>() * size_of::<f32>()
    }

    fn shared_bytes(&self) -> usize {
        let pairs = if self.phases.len() == 1 {
            0
        } else {
            self.pairs()
        };
        pairs * self.pair_len() * size_of::<f32>()
    }

    unsafe fn run(&self, phase: usize, task: usize, memory: Memory, scratch: Scratch) {
        self.isa.run(Task {
            matmul: self,
            phase,
            task,
            memory,
            scratch,
        });
    }

    fn macs(&self) -> u64 {
        let Product { m, k, n, .. } = self.product;
        (self.pairs() * m * k * n) as u64
    }

    fn bytes(&self) -> u64 {
        let Product { batch, m, k, n, .. } = self.product;
        let distinct = |operand: &Matrices| {
            let axes = batch.iter().zip(operand.batch_strides);
            axes.filter(|(_, stride)| *stride != 0)
                .map(|(extent, _)| extent)
                .product::<usize>()
        };
        let factors = distinct(&self.a) * m * k + distinct(&self.b) * k * n;
        ((factors + self.pairs() * m * n) * size_of::<f32>()) as u64
    }

    fn describe(&self) -> String {
        let Product { m, k, n, .. } = self.product;
        format!("matmul {} x {m}x{k}x{n}", self.pairs())
    }
}

/// A task of a [`MatMul`].
struct Task<'a> {
    matmul: &'a MatMul,
    phase: usize,
    task: usize,
    memory: Memory,
    scratch: Scratch,
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            matmul,
            phase,
            task,
            memory,
            scratch,
        } = self;
        let (panels, blocks) = (matmul.panels(), matmul.blocks());
        let share = |items| share(items, matmul.phases[phase], task);
        let [sums_len, block_len, _] = matmul.own_parts();
        let sums = scratch.own.cast::<f32>();
        let own = [sums, sums.wrapping_add(sums_len)];
        // SAFETY: the caller of `run` vouches for memory and scratch, whose parts do not overlap.
        unsafe {
            match (matmul.phases.len(), phase) {
                (1, _) => {
                    let packed = own[1].add(block_len);
                    for pair in share(matmul.pairs()) {
                        for index in 0..panels {
                            let to = packed.add(index * matmul.panel_len());
                            matmul.pack(simd, memory, [pair, index], to);
                        }
                        for index in 0..blocks {
                            matmul.multiply(simd, memory, [pair, index], packed, own);
                        }
                    }
                }
                (_, 0) => {
                    for item in share(matmul.pairs() * panels) {
                        let to = scratch.shared.cast::<f32>().add(item * matmul.panel_len());
                        matmul.pack(simd, memory, [item / panels, item % panels], to);
                    }
                }
                (_, _) => {
                    for item in share(matmul.pairs() * blocks) {
                        let [pair, index] = [item / blocks, item % blocks];
                        let packed = scratch.shared.cast::<f32>().add(pair * matmul.pair_len());
                        matmul.multiply(simd, memory, [pair, index], packed, own);
                    }
                }
            }
        }
    }
}

/// How many of `tiles` make a block: as many as a panel serves from the first-level cache, unless
/// there would be too few blocks for all threads.
pub(super) fn block_tiles(threads: usize, tiles: usize) -> usize {
    const BLOCK_TILES: usize = 4;
    if threads <= 1 {
        BLOCK_TILES
    } else {
        (tiles / (4 * threads)).clamp(1, BLOCK_TILES)
    }
}

/// Whether `items` pieces of work of the same size keep all threads busy to the end.
pub(super) fn fills(threads: usize, items: usize) -> bool {
    items.is_multiple_of(threads.max(1)) || items >= 4 * threads
}

/// Packs the first columns of a matrix of `[k, n]`, as many as a tile has, into a panel
/// `[k][column]` for [`tile::tile`]. Columns behind the last one are 0.
///
/// `strides` are the distances of neighbouring rows and columns, in elements.
///
/// # Safety
///
/// The matrix can be read at `from`; `to` takes `k` rows of a tile's columns.
#[inline(always)]
pub(super) unsafe fn pack_panel<S: Simd>(
    simd: S,
    from: *const f32,
    strides: [usize; 2],
    [k, n]: [usize; 2],
    to: *mut f32,
) {
    let (width, used) = (columns::<S>(), n.min(columns::<S>()));
    // SAFETY: rows are less than k, columns less than n and a tile's; the caller vouches for those.
    unsafe {
        if strides[1] == 1 {
            for row in 0..k {
                let to = to.add(row * width);
                copy_row(simd, from.add(row * strides[0]), used, 1.0, to);
                (used..width).for_each(|column| *to.add(column) = 0.0);
            }
            return;
        }
        if used < width {
            to.write_bytes(0, k * width);
        }
        if strides[0] == 1 {
            transpose(simd, from, to, [strides[1], width], [used, k]);
            return;
        }
        for row in 0..k {
            for column in 0..used {
                let value = *from.add(row * strides[0] + column * strides[1]);
                *to.add(row * width + column) = value;
            }
        }
    }
}

/// Packs a matrix row after row, without gaps.
///
/// `strides` are the distances of neighbouring rows and columns, in elements.
///
/// # Safety
///
/// The matrix of `[rows, columns]` can be read at `from` and has room at `to`.
#[inline(always)]
unsafe fn gather<S: Simd>(
    simd: S,
    from: *const f32,
    strides: [usize; 2],
    [rows, columns]: [usize; 2],
    to: *mut f32,
) {
    // SAFETY: rows and columns are less than the matrix has; the caller vouches for those.
    unsafe {
        if strides[0] == 1 {
            transpose(simd, from, to, [strides[1], columns], [columns, rows]);
            return;
        }
        for row in 0..rows {
            for column in 0..columns {
                let value = *from.add(row * strides[0] + column * strides[1]);
                *to.add(row * columns + column) = value;
            }
        }
    }
}

/// Copies `len` values times `scale`.
///
/// # Safety
///
/// They can be read at `from` and written at `to`.
#[inline(always)]
pub(super) unsafe fn copy_row<S: Simd>(
    simd: S,
    from: *const f32,
    len: usize,
    scale: f32,
    to: *mut f32,
) {
    let scale = simd.splat(scale);
    let whole = len / S::LANES * S::LANES;
    // SAFETY: every index is less than `len`, for which the caller vouches.
    unsafe {
        for at in (0..whole).step_by(S::LANES) {
            simd.store(to.add(at), simd.mul(simd.load(from.add(at)), scale));
        }
        if whole < len {
            let value = simd.load_part(from.add(whole), len - whole);
            simd.store_part(to.add(whole), simd.mul(value, scale), len - whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::operators::ALIGNMENT;

    /// The lines of memory that begin where buffers do.
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line([f32; 16]);

    const _: () = assert!(align_of::<Line>() == ALIGNMENT);

    fn lines(bytes: usize, value: f32) -> Vec<Line> {
        vec![Line([value; 16]); bytes.div_ceil(64) + 1]
    }

    fn run(operator: &dyn Operator, memory: &mut [Line]) {
        // What is in the scratch memory must not matter.
        let mut own = lines(operator.own_bytes(), f32::NAN);
        let mut shared = lines(operator.shared_bytes(), f32::NAN);
        let scratch = Scratch {
            own: own.as_mut_ptr().cast(),
            shared: shared.as_mut_ptr().cast(),
        };
        let memory = Memory::new(memory.as_mut_ptr().cast());
        for (phase, &tasks) in operator.phases().iter().enumerate() {
            for task in (0..tasks).rev() {
                // SAFETY: the tests lay out their operands within the memory.
                unsafe { operator.run(phase, task, memory, scratch) };
            }
        }
    }

    /// Numbers of both signs, below 1 and without a pattern.
    fn number(i: usize) -> f32 {
        let mixed = (i as u32).wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995;
        (mixed.wrapping_mul(0x85eb_ca6b) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Matrices that lie with their axes (outer, inner, row, column) in the order `axes`, rows
    /// `gap` longer, and their last element.
    fn place(
        offset: usize,
        extents: [usize; 4],
        axes: [usize; 4],
        gap: usize,
    ) -> (Matrices, usize) {
        let mut strides = [0; 4];
        let mut stride = 1;
        for &axis in axes.iter().rev() {
            strides[axis] = stride;
            stride = stride * extents[axis] + gap;
        }
        let [outer, inner, row_stride, column_stride] = strides;
        let batch_strides = [outer, inner];
        (
            Matrices {
                offset,
                batch_strides,
                row_stride,
                column_stride,
            },
            offset + 4 * stride,
        )
    }

    fn at(matrices: &Matrices, [outer, inner, row, column]: [usize; 4]) -> usize {
        let [outer_stride, inner_stride] = matrices.batch_strides;
        matrices.offset / 4
            + outer * outer_stride
            + inner * inner_stride
            + row * matrices.row_stride
            + column * matrices.column_stride
    }

    fn values(memory: &[Line]) -> Vec<f32> {
        memory.iter().flat_map(|line| line.0).collect()
    }

    fn check(product: Product, axes: [[usize; 4]; 3], gap: usize, repeat: bool) {
        let Product {
            batch: [outer, inner],
            m,
            k,
            n,
            scale,
        } = product;
        let (a, end) = place(0, [outer, inner, m, k], axes[0], gap);
        let (mut b, end) = place(end, [outer, inner, k, n], axes[1], gap);
        let (output, end) = place(end, [outer, inner, m, n], axes[2], gap);
        if repeat {
            b.batch_strides[1] = 0;
        }
        let mut start = lines(end, 0.0);
        for (i, line) in start.iter_mut().enumerate() {
            line.0 = std::array::from_fn(|j| number(16 * i + j));
        }
        let before = values(&start);
        let mut expected: Vec<f64> = before.iter().copied().map(f64::from).collect();
        for index in 0..outer * inner * m * n {
            let (rest, column) = (index / n, index % n);
            let (pair, row) = (rest / m, rest % m);
            let (o, i) = (pair / inner, pair % inner);
            let term = |k| {
                let [a, b] = [at(&a, [o, i, row, k]), at(&b, [o, i, k, column])];
                f64::from(before[a]) * f64::from(before[b])
            };
            let sum: f64 = (0..k).map(term).sum();
            expected[at(&output, [o, i, row, column])] = f64::from(scale) * sum;
        }
        for isa in Isa::available() {
            let results = [1, 2, 3].map(|threads| {
                let mut memory = start.clone();
                run(
                    &MatMul::new(isa, threads, product, a, b, output),
                    &mut memory,
                );
                values(&memory)
            });
            for (i, (&got, &want)) in results[0].iter().zip(&expected).enumerate() {
                let error = (f64::from(got) - want).abs();
                assert!(
                    error <= 1e-6 * k as f64,
                    "{isa:?} {product:?} {axes:?} {i}: {got} {want}"
                );
            }
            assert!(
                results.iter().all(|result| *result == results[0]),
                "{isa:?} {product:?}"
            );
        }
    }

    #[test]
    fn any_order_of_axes() {
        let rows = [0, 1, 2, 3];
        let columns = [0, 1, 3, 2];
        let heads = [0, 2, 1, 3];
        let nothing = [2, 3, 0, 1];
        for (batch, [m, k, n], axes) in [
            ([1, 1], [1, 1, 1], [rows, rows, rows]),
            ([2, 3], [9, 7, 5], [rows, columns, rows]),
            ([2, 2], [35, 17, 33], [heads, rows, heads]),
            ([2, 1], [64, 32, 64], [columns, heads, columns]),
            ([1, 2], [13, 1, 70], [nothing, nothing, nothing]),
            ([3, 1], [70, 20, 34], [nothing, columns, rows]),
        ] {
            for (gap, scale) in [(0, 1.0), (3, -0.25)] {
                check(
                    Product {
                        batch,
                        m,
                        k,
                        n,
                        scale,
                    },
                    axes,
                    gap,
                    false,
                );
            }
        }
    }

    #[test]
    fn a_factor_repeats_itself() {
        let product = Product {
            batch: [2, 3],
            m: 10,
            k: 6,
            n: 40,
            scale: 2.0,
        };
        check(product, [[0, 1, 2, 3]; 3], 1, true);
    }
}
