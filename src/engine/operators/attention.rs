//! Attention: what every query finds among the keys.
//!
//! For every picture and head, `softmax(scale · q kᵀ) v` (Vaswani et al. 2017, arXiv 1706.03762).
//! Keys and values are packed into panels once. Then a block of queries meets one block of keys
//! after the other; its scores stay in the cache, and the softmax is corrected whenever a larger
//! score turns up (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv
//! 2205.14135). There is no matrix of all scores.

use std::ops::Range;

use super::copy::tasks;
use super::epilogue::finish;
use super::math::exp;
use super::matmul::{block_tiles, copy_row, fills, pack_panel};
use super::tile::{self, Ahead, LINE, Operands, columns};
use super::{
    ALIGNMENT, Activation, Epilogue, Memory, Operand, Operator, Scratch, View, share, worth_waking,
};
use crate::engine::simd::{Isa, Simd, Work};

/// Keys of a block. Four tiles of eight queries have 32 KiB of scores with so many.
const BLOCK_KEYS: usize = 256;

/// The attention of all heads.
#[derive(Debug)]
pub struct Attention {
    isa: Isa,
    query: View,
    key: View,
    value: View,
    heads: usize,
    scale: f32,
    epilogue: Epilogue,
    /// Rows (queries) and columns (keys, or values' channels) of a tile.
    tile: [usize; 2],
    /// Tiles of a block of queries.
    block_tiles: usize,
    phases: Vec<usize>,
}

impl Attention {
    /// Attention for `threads` threads.
    ///
    /// All views have the same pictures, a height of 1 and a pixel per token; channels are those
    /// of head 0, then those of head 1, and so on. `key` and `value` have the same tokens,
    /// `query` and `output` as well.
    ///
    /// # Panics
    ///
    /// When the shapes do not fit together.
    #[expect(
        clippy::too_many_arguments,
        reason = "eight different things, none of them optional"
    )]
    pub fn new(
        isa: Isa,
        threads: usize,
        query: View,
        key: View,
        value: View,
        heads: usize,
        scale: f32,
        output: Operand,
    ) -> Self {
        for view in [query, key, value, output.view] {
            assert!(
                view.batch == query.batch && view.height == 1,
                "{view:?} for {query:?}"
            );
            assert!(
                view.channels.is_multiple_of(heads),
                "{heads} heads of {view:?}"
            );
        }
        assert_eq!(query.channels, key.channels, "channels of queries and keys");
        assert_eq!(
            value.channels, output.view.channels,
            "channels of values and output"
        );
        assert_eq!(key.width, value.width, "tokens of keys and values");
        assert_eq!(
            query.width, output.view.width,
            "tokens of queries and output"
        );
        let epilogue = Epilogue {
            bias: vec![0.0; value.channels],
            added: None,
            residual: None,
            activation: Activation::None,
            output,
        };
        let tile = tile::shape(isa);
        let units = query.batch * heads;
        let tiles = query.width.div_ceil(tile[0]);
        let macs = query.pixels() * key.width * (query.channels + value.channels);
        let threads = worth_waking(threads, macs, tile::start_macs(isa));
        let block_tiles = block_tiles(threads, units * tiles);
        let mut attention = Self {
            isa,
            query,
            key,
            value,
            heads,
            scale,
            epilogue,
            tile,
            block_tiles,
            phases: Vec::new(),
        };
        attention.phases = if fills(threads, units) {
            vec![tasks(threads, units)]
        } else {
            let items = [units * attention.key_panels(), units * attention.blocks()];
            items.map(|items| tasks(threads, items)).to_vec()
        };
        attention
    }

    /// Pairs of a picture and a head.
    fn units(&self) -> usize {
        self.query.batch * self.heads
    }

    /// Blocks of queries of a unit.
    fn blocks(&self) -> usize {
        self.query.width.div_ceil(self.block_tiles * self.tile[0])
    }

    /// Channels of a head in queries and keys.
    fn depth(&self) -> usize {
        self.query.channels / self.heads
    }

    /// Channels of a head in values and output.
    fn value_depth(&self) -> usize {
        self.value.channels / self.heads
    }

    /// Panels of a unit's keys: `[panel][channel][key]`.
    fn key_panels(&self) -> usize {
        self.key.width.div_ceil(self.tile[1])
    }

    /// Panels of a unit's values: `[panel][key][channel]`, with as many keys as [`Self::key_panels`]
    /// have, of which those behind the last one are 0.
    fn value_panels(&self) -> usize {
        self.value_depth().div_ceil(self.tile[1])
    }

    /// Panels of keys of a block.
    fn block_panels(&self) -> usize {
        (BLOCK_KEYS / self.tile[1]).min(self.key_panels())
    }

    /// From the scores of one query to those of the next: a line more than there are, since strides
    /// that are powers of two would crowd them into a few sets of a cache.
    fn score_stride(&self) -> usize {
        self.block_panels() * self.tile[1] + LINE
    }

    /// f32 values of all panels of a unit.
    fn unit_len(&self) -> usize {
        let columns = self.tile[1];
        self.key_panels() * columns * (self.depth() + self.value_panels() * columns)
    }

    /// What the parts of a thread's own memory take, in bytes.
    fn own_lens(&self) -> [usize; OWN_PARTS] {
        let [rows, columns] = self.tile;
        let (queries, keys) = (self.block_tiles * rows, self.block_panels() * columns);
        let panels = if self.phases.len() == 1 {
            self.unit_len()
        } else {
            0
        };
        let floats = [
            queries * (keys + LINE),
            queries * self.value_panels() * columns,
            queries,
            queries,
            queries,
            panels,
        ];
        let [scores, sums, maxima, totals, corrections, panels] =
            floats.map(|len| len * size_of::<f32>());
        let [query_rows, score_rows] = [queries, queries].map(|len| len * size_of::<*const f32>());
        let lens = [
            scores,
            sums,
            maxima,
            totals,
            corrections,
            query_rows,
            score_rows,
            panels,
        ];
        lens.map(|len| len.next_multiple_of(ALIGNMENT))
    }

    /// Packs the panel `index` of a unit's keys, and the values of the same keys, into `to`, which
    /// takes all panels of the unit.
    ///
    /// # Safety
    ///
    /// Keys and values lie in `memory`; no one else touches those parts of `to`.
    #[inline(always)]
    unsafe fn pack<S: Simd>(
        &self,
        simd: S,
        memory: Memory,
        [unit, index]: [usize; 2],
        to: *mut f32,
    ) {
        let first = index * columns::<S>();
        let count = self.key.width - first;
        let (depth, value_depth) = (self.depth(), self.value_depth());
        // SAFETY: the tokens and channels are those of the views; the caller vouches for those.
        unsafe {
            let from = self
                .head(self.key, memory, unit)
                .add(first * self.key.pixel_stride);
            let keys = to.add(first * depth);
            pack_panel(simd, from, [1, self.key.pixel_stride], [depth, count], keys);
            copy_row(simd, keys, depth * columns::<S>(), self.scale, keys);
            let from = self
                .head(self.value, memory, unit)
                .add(first * self.value.pixel_stride);
            let strides = [self.value.pixel_stride, 1];
            let count = count.min(columns::<S>());
            for panel in 0..self.value_panels() {
                let channel = panel * columns::<S>();
                let size = [count, value_depth - channel];
                let values = self.values::<S>(to, panel).add(first * columns::<S>());
                pack_panel(simd, from.add(channel), strides, size, values);
                let absent = (columns::<S>() - count) * columns::<S>();
                values.add(count * columns::<S>()).write_bytes(0, absent);
            }
        }
    }

    /// The first token of a unit in a view.
    #[inline(always)]
    fn head(&self, view: View, memory: Memory, unit: usize) -> *mut f32 {
        let (picture, head) = (unit / self.heads, unit % self.heads);
        let at = picture * view.batch_stride + head * (view.channels / self.heads);
        memory.at::<f32>(view.offset).wrapping_add(at)
    }

    /// A panel of values among all panels of a unit.
    #[inline(always)]
    fn values<S: Simd>(&self, panels: *mut f32, panel: usize) -> *mut f32 {
        let keys = self.key_panels() * columns::<S>();
        panels.wrapping_add(keys * (self.depth() + panel * columns::<S>()))
    }
}

impl Operator for Attention {
    fn phases(&self) -> &[usize] {
        &self.phases
    }

    fn own_bytes(&self) -> usize {
        self.own_lens().iter().sum()
    }

    fn shared_bytes(&self) -> usize {
        let units = if self.phases.len() == 1 {
            0
        } else {
            self.units()
        };
        units * self.unit_len() * size_of::<f32>()
    }

    unsafe fn run(&self, phase: usize, task: usize, memory: Memory, scratch: Scratch) {
        self.isa.run(Task {
            attention: self,
            phase,
            task,
            memory,
            scratch,
        });
    }

    fn macs(&self) -> u64 {
        let channels = self.query.channels + self.value.channels;
        (self.query.pixels() * self.key.width * channels) as u64
    }

    fn bytes(&self) -> u64 {
        let len = |view: View| view.pixels() * view.channels;
        let inputs: usize = [self.query, self.key, self.value].map(len).iter().sum();
        let output = self.epilogue.output;
        (inputs * size_of::<f32>() + len(output.view) * output.element.bytes()) as u64
    }

    fn describe(&self) -> String {
        let (queries, keys) = (self.query.width, self.key.width);
        format!(
            "attention {} x {queries}x{keys}x{}",
            self.units(),
            self.depth()
        )
    }
}

/// A task of an [`Attention`].
struct Task<'a> {
    attention: &'a Attention,
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
            attention,
            phase,
            task,
            memory,
            scratch,
        } = self;
        let (units, panels, blocks) = (
            attention.units(),
            attention.key_panels(),
            attention.blocks(),
        );
        let share = |items| share(items, attention.phases[phase], task);
        let shared = |unit: usize| {
            scratch
                .shared
                .cast::<f32>()
                .wrapping_add(unit * attention.unit_len())
        };
        // SAFETY: the caller of `run` vouches for memory and scratch; units and tokens are those
        // of the views, and every block of the output is one task's.
        unsafe {
            match (attention.phases.len(), phase) {
                (1, _) => {
                    let own = Own::new::<S>(attention, scratch.own);
                    for unit in share(units) {
                        for index in 0..panels {
                            attention.pack(simd, memory, [unit, index], own.panels);
                        }
                        for index in 0..blocks {
                            let block = Block::new(attention, unit, index, own.panels, own);
                            block.attend(simd, memory);
                        }
                    }
                }
                (_, 0) => {
                    for item in share(units * panels) {
                        let [unit, index] = [item / panels, item % panels];
                        attention.pack(simd, memory, [unit, index], shared(unit));
                    }
                }
                (_, _) => {
                    let own = Own::new::<S>(attention, scratch.own);
                    for item in share(units * blocks) {
                        let [unit, index] = [item / blocks, item % blocks];
                        let block = Block::new(attention, unit, index, shared(unit), own);
                        block.attend(simd, memory);
                    }
                }
            }
        }
    }
}

/// Parts of [`Own`].
const OWN_PARTS: usize = 8;

/// A thread's own memory, for a block of queries: R rows a tile, C columns.
#[derive(Debug, Clone, Copy)]
struct Own {
    /// What the queries think of a block of keys: a row for each, [`Attention::score_stride`] values
    /// from one to the next.
    scores: *mut f32,
    /// Values so far, each times the exponential of its score: `[tile][panel][R][C]`.
    sums: *mut f32,
    /// The largest score so far, per query.
    maxima: *mut f32,
    /// The sum of all exponentials so far, per query.
    totals: *mut f32,
    /// What the sums before a block of keys have to be multiplied with, per query.
    corrections: *mut f32,
    /// The queries' channels.
    query_rows: *mut *const f32,
    /// The rows of `scores`.
    score_rows: *mut *const f32,
    /// Keys and values, where they are not shared.
    panels: *mut f32,
}

impl Own {
    /// Divides the memory at `base`.
    ///
    /// # Safety
    ///
    /// It is as long as [`Attention::own_lens`] says.
    #[inline(always)]
    unsafe fn new<S: Simd>(attention: &Attention, base: *mut u8) -> Self {
        let mut end = base;
        let [
            scores,
            sums,
            maxima,
            totals,
            corrections,
            query_rows,
            score_rows,
            panels,
        ] = attention.own_lens().map(|len| {
            let start = end;
            end = end.wrapping_add(len);
            start.cast::<f32>()
        });
        let (query_rows, score_rows) = (query_rows.cast(), score_rows.cast::<*const f32>());
        for row in 0..attention.block_tiles * S::TILE.0 {
            // SAFETY: that is how many rows the scores have.
            unsafe {
                *score_rows.add(row) = scores.add(row * attention.score_stride()).cast_const()
            };
        }
        Self {
            scores,
            sums,
            maxima,
            totals,
            corrections,
            query_rows,
            score_rows,
            panels,
        }
    }
}

/// A block of queries of one unit.
struct Block<'a> {
    attention: &'a Attention,
    unit: usize,
    queries: Range<usize>,
    /// The unit's keys and values.
    panels: *mut f32,
    own: Own,
}

impl<'a> Block<'a> {
    #[inline(always)]
    fn new(
        attention: &'a Attention,
        unit: usize,
        index: usize,
        panels: *mut f32,
        own: Own,
    ) -> Self {
        let len = attention.block_tiles * attention.tile[0];
        let queries = index * len..attention.query.width.min((index + 1) * len);
        Self {
            attention,
            unit,
            queries,
            panels,
            own,
        }
    }

    /// Answers the queries.
    ///
    /// # Safety
    ///
    /// The operands lie in `memory`, and no one else touches the output of these queries. `panels`
    /// holds what [`Attention::pack`] puts there, and `own` what [`Own`] says.
    #[inline(always)]
    unsafe fn attend<S: Simd>(&self, simd: S, memory: Memory) {
        let (attention, own, count) = (self.attention, self.own, self.queries.len());
        let stride = attention.query.pixel_stride;
        let queries = attention.head(attention.query, memory, self.unit);
        // SAFETY: as the caller says.
        unsafe {
            for row in 0..self.tiles::<S>().len() * S::TILE.0 {
                // Behind the last query comes the last one again.
                let query = self.queries.start + row.min(count - 1);
                *own.query_rows.add(row) = queries.add(query * stride).cast_const();
                *own.maxima.add(row) = f32::NEG_INFINITY;
                *own.totals.add(row) = 0.0;
            }
            let panels = attention.key_panels();
            for first in (0..panels).step_by(attention.block_panels()) {
                let block = first..panels.min(first + attention.block_panels());
                self.score(simd, block.clone());
                for t in self.tiles::<S>() {
                    self.exponentiate(simd, t, block.len());
                }
                self.sum(simd, block);
            }
            self.store(simd, memory);
        }
    }

    fn tiles<S: Simd>(&self) -> Range<usize> {
        0..self.queries.len().div_ceil(S::TILE.0)
    }

    /// The scores of a tile of queries from the panel `panel` of a block of keys on.
    #[inline(always)]
    fn scores<S: Simd>(&self, tile: usize, panel: usize) -> *mut f32 {
        let row = tile * S::TILE.0 * self.attention.score_stride();
        self.own.scores.wrapping_add(row + panel * columns::<S>())
    }

    /// The sums of a tile of queries for a panel of the values' channels.
    #[inline(always)]
    fn sums<S: Simd>(&self, tile: usize, panel: usize) -> *mut f32 {
        let index = tile * self.attention.value_panels() + panel;
        self.own
            .sums
            .wrapping_add(index * S::TILE.0 * columns::<S>())
    }

    /// Multiplies all queries with a block of keys.
    ///
    /// # Safety
    ///
    /// What [`Block::attend`] asks for.
    #[inline(always)]
    unsafe fn score<S: Simd>(&self, simd: S, block: Range<usize>) {
        let (depth, width) = (self.attention.depth(), columns::<S>());
        let stride = self.attention.score_stride();
        for (index, panel) in block.enumerate() {
            let present = (self.attention.key.width - panel * width).min(width);
            for t in self.tiles::<S>() {
                let scores = self.scores::<S>(t, index);
                // SAFETY: panel and tile are within the block; the caller vouches for the rest.
                unsafe {
                    let w = self.panels.add(panel * width * depth);
                    Operands {
                        rows: self.own.query_rows.add(t * S::TILE.0),
                        taps: 1,
                        k: depth,
                        w,
                        out: scores,
                        out_stride: stride,
                        add: false,
                        ahead: Ahead { from: w, lines: 0 },
                        half: false,
                    }
                    .multiply(simd, S::TILE.0);
                    // The last panel may have columns for which there is no key.
                    for row in 0..S::TILE.0 {
                        for column in present..width {
                            *scores.add(row * stride + column) = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }

    /// Replaces the scores of a tile of queries with exponentials: `e^(score - maximum)`, where the
    /// maximum is that of this block of keys and all before it.
    ///
    /// # Safety
    ///
    /// What [`Block::attend`] asks for.
    #[inline(always)]
    unsafe fn exponentiate<S: Simd>(&self, simd: S, t: usize, panels: usize) {
        let scores = self.scores::<S>(t, 0);
        let (stride, len) = (self.attention.score_stride(), panels * columns::<S>());
        let first = t * S::TILE.0;
        let rows = (self.queries.len() - first).min(S::TILE.0);
        let [maxima, totals, corrections] =
            [self.own.maxima, self.own.totals, self.own.corrections]
                .map(|values| values.wrapping_add(first));
        // Rows wait for the sums and the maxima over their lanes. One loop after the other lets
        // them wait at once.
        // SAFETY: rows and panels are within the block; the caller vouches for the rest.
        unsafe {
            for row in 0..rows {
                let scores = scores.add(row * stride);
                let mut largest = simd.load(scores);
                for key in (0..len).step_by(S::LANES) {
                    largest = simd.max(largest, simd.load(scores.add(key)));
                }
                let before = *maxima.add(row);
                let maximum = before.max(simd.largest(largest));
                *maxima.add(row) = maximum;
                *corrections.add(row) = before - maximum;
            }
            for row in (0..rows).step_by(S::LANES) {
                let lanes = (rows - row).min(S::LANES);
                let correction = exp(simd, simd.load_part(corrections.add(row), lanes));
                let total = simd.mul(simd.load_part(totals.add(row), lanes), correction);
                simd.store_part(corrections.add(row), correction, lanes);
                simd.store_part(totals.add(row), total, lanes);
            }
            for row in 0..rows {
                let maximum = simd.splat(*maxima.add(row));
                let mut total = simd.splat(0.0);
                let scores = scores.add(row * stride);
                for key in (0..len).step_by(S::LANES) {
                    let weight = exp(simd, simd.sub(simd.load(scores.add(key)), maximum));
                    simd.store(scores.add(key), weight);
                    total = simd.add(total, weight);
                }
                *totals.add(row) += simd.sum(total);
            }
        }
    }

    /// Adds the values of a block of keys, times the exponentials.
    ///
    /// # Safety
    ///
    /// What [`Block::attend`] asks for.
    #[inline(always)]
    unsafe fn sum<S: Simd>(&self, simd: S, block: Range<usize>) {
        let (attention, own, width) = (self.attention, self.own, columns::<S>());
        // A panel that is not full goes on with scores that are 0; alone, it would be most of the sum.
        let keys = attention.key.width - block.start * width;
        let k = if keys < width {
            keys
        } else {
            block.len() * width
        };
        for panel in 0..attention.value_panels() {
            let values = attention.values::<S>(self.panels, panel);
            let w = values
                .wrapping_add(block.start * width * width)
                .cast_const();
            for t in self.tiles::<S>() {
                let sums = self.sums::<S>(t, panel);
                let first = t * S::TILE.0;
                let add = block.start > 0;
                // SAFETY: panels and tile are within the block; the caller vouches for the rest.
                unsafe {
                    if add {
                        scale_rows(simd, sums, own.corrections.add(first), S::TILE.0);
                    }
                    let rows = own.score_rows.add(first);
                    let ahead = Ahead { from: w, lines: 0 };
                    Operands {
                        rows,
                        taps: 1,
                        k,
                        w,
                        out: sums,
                        out_stride: width,
                        add,
                        ahead,
                        half: false,
                    }
                    .multiply(simd, S::TILE.0);
                }
            }
        }
    }

    /// Divides the sums by the totals and stores them.
    ///
    /// # Safety
    ///
    /// What [`Block::attend`] asks for.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, simd: S, memory: Memory) {
        let (attention, width) = (self.attention, columns::<S>());
        let (picture, head) = (self.unit / attention.heads, self.unit % attention.heads);
        let depth = attention.value_depth();
        for query in 0..self.queries.len() {
            // SAFETY: the query is one of the block's.
            unsafe { *self.own.totals.add(query) = self.own.totals.add(query).read().recip() };
        }
        for t in self.tiles::<S>() {
            let first = t * S::TILE.0;
            let rows = (self.queries.len() - first).min(S::TILE.0);
            let pixel = picture * attention.query.width + self.queries.start + first;
            for panel in 0..attention.value_panels() {
                let sums = self.sums::<S>(t, panel);
                let channels = panel * width..depth.min((panel + 1) * width);
                let channels = head * depth + channels.start..head * depth + channels.end;
                // SAFETY: tile and panel are within the block; the caller vouches for the rest.
                unsafe {
                    scale_rows(simd, sums, self.own.totals.add(first), rows);
                    let pixels = pixel..pixel + rows;
                    finish(
                        simd,
                        &attention.epilogue,
                        memory,
                        sums,
                        width,
                        pixels,
                        channels,
                    );
                }
            }
        }
    }
}

/// Multiplies every row of a tile with a number of its own.
///
/// # Safety
///
/// The tile has so many rows and `factors` as many numbers.
#[inline(always)]
unsafe fn scale_rows<S: Simd>(simd: S, tile: *mut f32, factors: *const f32, rows: usize) {
    for row in 0..rows {
        // SAFETY: as the caller says.
        unsafe {
            let (row_start, factor) = (tile.add(row * columns::<S>()), *factors.add(row));
            copy_row(simd, row_start, columns::<S>(), factor, row_start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::operators::Element;
    use crate::engine::operators::fixture::{self, LEVELS, Numbers, Places, elements, outcome};

    struct Case {
        batch: usize,
        /// Tokens of queries and of keys.
        tokens: [usize; 2],
        heads: usize,
        /// Channels of a head in keys and in values.
        depth: [usize; 2],
        scale: f32,
        element: Element,
        /// What queries and keys are made of, from numbers in -1..1.
        numbers: [fn(f32) -> f32; 2],
    }

    /// Every instruction set against sums in f64; queries and output have gaps, keys and values are
    /// parts of one buffer.
    fn check(case: Case) {
        let Case {
            batch,
            tokens,
            heads,
            depth,
            scale,
            element,
            numbers: [query_of, key_of],
        } = case;
        let channels = depth.map(|depth| heads * depth);
        let mut numbers = Numbers(11);
        let mut places = Places {
            end: 0,
            numbers: &mut numbers,
        };
        let query = places.operand([batch, 1, tokens[0], channels[0]], Element::Float);
        let both = [batch, 1, tokens[1], channels[0] + channels[1]];
        let both = places.operand(both, Element::Float);
        let output = places.operand([batch, 1, tokens[0], channels[1]], element);
        let part = |channels: usize, first: usize| {
            let view = View {
                channels,
                offset: both.view.offset + 4 * first,
                ..both.view
            };
            Operand {
                view,
                element: Element::Float,
            }
        };
        let (key, value) = (part(channels[0], 0), part(channels[1], channels[0]));
        let mut block = fixture::Block::new(places.end);
        block.fill(&query, &mut numbers, query_of);
        block.fill(&key, &mut numbers, key_of);
        block.fill(&value, &mut numbers, |number| number);
        for isa in Isa::available() {
            let mut at = |operand: &Operand, picture: usize, token: usize, channel: usize| {
                let pixel = operand.view.pixel(picture * operand.view.width + token);
                f64::from(block.read(isa, operand, pixel + channel))
            };
            let mut expected = Vec::new();
            for pixel in 0..output.view.pixels() {
                let (picture, token) = (pixel / tokens[0], pixel % tokens[0]);
                for head in 0..heads {
                    let mut score = |other: usize| -> f64 {
                        let channels = head * depth[0]..(head + 1) * depth[0];
                        let terms = channels.map(|channel| {
                            at(&query, picture, token, channel) * at(&key, picture, other, channel)
                        });
                        f64::from(scale) * terms.sum::<f64>()
                    };
                    let scores: Vec<f64> = (0..tokens[1]).map(&mut score).collect();
                    let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for channel in head * depth[1]..(head + 1) * depth[1] {
                        let values = (0..tokens[1]).map(|key| at(&value, picture, key, channel));
                        let sum: f64 = values.zip(&weights).map(|(value, w)| value * w).sum();
                        expected.push(sum / total);
                    }
                }
            }
            let mut result = outcome(&block, &output, |threads| {
                let (query, key, value) = (query.view, key.view, value.view);
                let attention =
                    Attention::new(isa, threads, query, key, value, heads, scale, output);
                Box::new(attention)
            });
            // Half a level, and what f32 makes of scores around 50.
            let tolerance = if element == Element::Float {
                2e-5
            } else {
                0.01 + 2e-5
            };
            for (at, want) in elements(&output.view).into_iter().zip(expected) {
                let got = f64::from(result.read(isa, &output, at));
                let error = (got - want).abs();
                assert!(
                    error < tolerance,
                    "{isa:?} {tokens:?} {depth:?} {at}: {got} {want}"
                );
            }
        }
    }

    #[test]
    fn any_size_is_a_weighted_mean_of_values() {
        let same = |number| number;
        for (batch, tokens, heads, depth) in [
            (1, [1, 1], 1, [1, 1]),
            (2, [16, 16], 3, [8, 8]),
            (1, [64, 64], 4, [32, 32]),
            (2, [9, 37], 2, [13, 13]),
            (1, [40, 77], 2, [40, 40]),
            (1, [17, 5], 5, [3, 35]),
        ] {
            for element in [Element::Float, LEVELS] {
                let scale = (depth[0] as f32).sqrt().recip();
                let numbers: [fn(f32) -> f32; 2] = [same; 2];
                check(Case {
                    batch,
                    tokens,
                    heads,
                    depth,
                    scale,
                    element,
                    numbers,
                });
            }
        }
    }

    #[test]
    fn a_larger_score_corrects_what_came_before() {
        let (element, scale, depth) = (Element::Float, 10.0, [7, 33]);
        let numbers: [fn(f32) -> f32; 2] = [|number| number, |number| number];
        check(Case {
            batch: 1,
            tokens: [11, 2 * BLOCK_KEYS + 9],
            heads: 1,
            depth,
            scale,
            element,
            numbers,
        });
        let tokens = [9, 3 * BLOCK_KEYS];
        check(Case {
            batch: 1,
            tokens,
            heads: 2,
            depth,
            scale: -3.0,
            element,
            numbers,
        });
    }

    /// 0 would be the largest score by far.
    #[test]
    fn there_is_no_key_behind_the_last_one() {
        let numbers: [fn(f32) -> f32; 2] = [|number| 3.0 + number, |number| number - 3.0];
        for keys in [1, 3, 33, BLOCK_KEYS + 1] {
            let (tokens, depth, element) = ([5, keys], [20, 4], Element::Float);
            check(Case {
                batch: 1,
                tokens,
                heads: 1,
                depth,
                scale: 1.0,
                element,
                numbers,
            });
        }
    }
}
