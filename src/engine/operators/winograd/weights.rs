//! Kernels, transformed and packed for the products.

use half::f16;

use super::super::tile::{self, Panels};
use super::OutputTile;
use super::transform::{Four, FourOfPairs, Transform, Two};
use crate::engine::simd::{Isa, Simd, Work};

/// Columns of a group, about: a value of the transformed patches that comes from the second-level
/// cache is used for as many.
pub const GROUP_COLUMNS: usize = 32;

/// Panels of a group, if it is not the last one.
pub fn group_panels(columns: usize, panels: usize) -> usize {
    GROUP_COLUMNS.div_ceil(columns).min(panels)
}

/// Transformed weights, `[group][element][panel][k][column]`: a group is some panels, each as wide
/// as a tile of the product; an element is one of a transformed kernel. The columns behind the last
/// output are 0.
#[derive(Debug)]
pub struct Weights {
    groups: Panels,
    /// Panels of all groups.
    panels: usize,
    /// Panels of a group; the last group has those that are left.
    group_panels: usize,
    /// Values of one element in one panel.
    panel_len: usize,
}

impl Weights {
    /// Transforms `outputs` times `k` kernels, OIHW.
    ///
    /// # Panics
    ///
    /// When there are more or fewer of them.
    pub fn new(
        isa: Isa,
        output_tile: OutputTile,
        [outputs, k]: [usize; 2],
        kernels: &[f32],
    ) -> Self {
        let taps = output_tile.kernel().pow(2);
        assert_eq!(
            kernels.len(),
            outputs * k * taps,
            "weights of {outputs} x {k} x {taps}"
        );
        let [_, columns] = tile::shape(isa);
        let panels = outputs.div_ceil(columns);
        let group_panels = group_panels(columns, panels);
        let panel_len = k * columns;
        let group_len = output_tile.elements() * group_panels * panel_len;
        let transform = |group: usize, values: &mut [f32]| {
            let first = group * group_panels;
            let kernels = &kernels[first * panel_len * taps..];
            let panels = group_panels.min(panels - first);
            isa.run(Group {
                output_tile,
                kernels,
                k,
                panels,
                values,
            });
        };
        let count = panels.div_ceil(group_panels);
        let groups = if tile::halves(isa, k) {
            Panels::fill_half(count, group_len, |group, halves| {
                let mut values = vec![0.0; group_len];
                transform(group, &mut values);
                for (half, value) in halves.iter_mut().zip(values) {
                    *half = f16::from_f32(value);
                }
            })
        } else {
            Panels::fill(count, group_len, transform)
        };
        Self {
            groups,
            panels,
            group_panels,
            panel_len,
        }
    }

    /// The number of panels in a group.
    #[inline(always)]
    pub fn panels(&self, group: usize) -> usize {
        self.group_panels
            .min(self.panels - group * self.group_panels)
    }

    /// The weights of an element in a panel of a group, `[k][column]`.
    #[inline(always)]
    pub fn panel(&self, group: usize, element: usize, panel: usize) -> *const f32 {
        let before = element * self.panels(group) + panel;
        self.groups
            .at(self.groups.panel(group), before * self.panel_len)
    }

    /// Whether they are f16.
    #[inline(always)]
    pub fn half(&self) -> bool {
        self.groups.half()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.groups.bytes()
    }
}

/// The kernels of a group, and where they go.
struct Group<'a> {
    output_tile: OutputTile,
    /// Those of the group's outputs, and all that follow.
    kernels: &'a [f32],
    k: usize,
    panels: usize,
    values: &'a mut [f32],
}

impl Work for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.output_tile {
            OutputTile::Two => self.pack::<S, Two, 2, 4, 3>(simd),
            OutputTile::Four => self.pack::<S, Four, 4, 6, 3>(simd),
            OutputTile::FourOfPairs => self.pack::<S, FourOfPairs, 4, 5, 2>(simd),
        }
    }
}

/// Columns of the widest tile.
const COLUMNS_MAX: usize = 32;

impl Group<'_> {
    /// Transforms the group's kernels, a vector of outputs at a time.
    #[inline(always)]
    fn pack<S: Simd, T: Transform<M, N, K>, const M: usize, const N: usize, const K: usize>(
        self,
        simd: S,
    ) {
        let Self {
            kernels,
            k,
            panels,
            values,
            ..
        } = self;
        let columns = tile::columns::<S>();
        assert!(columns <= COLUMNS_MAX, "a tile of {columns} columns");
        let panel_len = k * columns;
        for panel in 0..panels {
            let kernels = &kernels[panel * columns * k * K * K..];
            let outputs = columns.min(kernels.len() / (k * K * K));
            // All taps of one input channel for all outputs of the panel; what follows the last
            // output stays 0.
            let mut taps = [[[0.0; COLUMNS_MAX]; K]; K];
            for i in 0..k {
                for column in 0..outputs {
                    let kernel = &kernels[(column * k + i) * K * K..][..K * K];
                    for (tap, &weight) in taps.as_flattened_mut().iter_mut().zip(kernel) {
                        tap[column] = weight;
                    }
                }
                let values = &mut values[panel * panel_len + i * columns..];
                for lane in (0..columns).step_by(S::LANES) {
                    let kernel = taps
                        .each_ref()
                        .map(|row| row.each_ref().map(|tap| tap[lane..].as_ptr()));
                    let last = (N * N - 1) * panels * panel_len + lane;
                    assert!(last + S::LANES <= values.len(), "a panel beyond its group");
                    // SAFETY: every row of taps has a vector at `lane`, and so has every element,
                    // up to the last one.
                    unsafe {
                        let to = values.as_mut_ptr().add(lane);
                        elements::<S, T, M, N, K>(simd, kernel, to, panels * panel_len);
                    }
                }
            }
        }
    }
}

/// Transforms a vector of kernels, given as `K²` vectors, to `N²` elements, `stride` values apart.
///
/// # Safety
///
/// The taps can be read and the elements written.
#[inline(always)]
unsafe fn elements<
    S: Simd,
    T: Transform<M, N, K>,
    const M: usize,
    const N: usize,
    const K: usize,
>(
    simd: S,
    taps: [[*const f32; K]; K],
    to: *mut f32,
    stride: usize,
) {
    let mut rows = [[simd.splat(0.0); K]; N];
    // SAFETY: as the caller says.
    unsafe {
        for x in 0..K {
            let column = taps.map(|row| simd.load(row[x]));
            for (row, value) in rows.iter_mut().zip(T::kernel(simd, column)) {
                row[x] = value;
            }
        }
        for (y, row) in rows.into_iter().enumerate() {
            for (x, value) in T::kernel(simd, row).into_iter().enumerate() {
                simd.store(to.add((y * N + x) * stride), value);
            }
        }
    }
}
