//! What a palette can show: the solid its inks span, and what makes a colour.
//!
//! A mixture of inks lies between them in linear light, so what a panel can show is the convex
//! hull of its inks: a solid, a flat (black, white and red), or a line (greys). Two tables over
//! the picture's bytes keep the work for a pixel small: for colours outside the solid the nearest
//! one inside, and for each region the simplex of inks that makes it with the least variation.

use super::tone::{self, Tone};
use super::{Colour, Dither, Shares, add, cross, dot, scaled};
use crate::display::palette::{MAX_INKS, Palette};

/// Nodes of the table of nearest colours, along each channel.
const NODES: usize = 17;

/// Cells of the tables of inks, along each channel.
const CELLS: usize = 32;

/// How much a step of lightness counts beside one of hue where a colour must change.
const LIGHTNESS: f32 = 0.08;

/// How much a step of chroma counts beside one of hue where a colour must change.
const CHROMA: f32 = 0.25;

/// How much a grain of hue counts beside one of lightness where inks are mixed.
const HUE_GRAIN: f32 = 3.0;

/// Inks and weights nearer to nothing than this count as nothing.
const TINY: f32 = 1e-4;

/// The lightness of an ink that does not exist: no error comes near it.
const FAR: f32 = 1e9;

/// See the file's head.
#[derive(Debug, Clone)]
pub struct Gamut {
    /// The inks.
    pub colours: Vec<Colour>,
    /// The luminance of each ink; far away where there is none.
    pub lightness: Shares,
    /// Outward normals and distances of the solid's faces; none when it is flat or a line.
    faces: Vec<(Colour, f32)>,
    order: Vec<u8>,
    /// The square of each ink in the measure in which mixtures vary.
    grain: Shares,
    simplices: Vec<Simplex>,
    /// For each simplex the share of each ink: a constant, and a factor for each axis.
    mixtures: Vec<[Shares; 4]>,
    nodes: Vec<Colour>,
    cells: Vec<u8>,
    nearest: Vec<u8>,
}

/// Inks of which a region of colours is mixed.
#[derive(Debug, Clone)]
struct Simplex {
    inks: Vec<u8>,
    origin: Colour,
    /// For each ink but the first: its weight is the product with (colour - origin).
    rows: Vec<Colour>,
}

impl Simplex {
    /// What each ink contributes to `colour`; the sum is 1, below 0 it lies outside.
    fn weights(&self, colour: Colour) -> [f32; 4] {
        let from = add(colour, scaled(self.origin, -1.0));
        let mut weights = [0.0; 4];
        weights[0] = 1.0;
        for (weight, row) in (1..).zip(&self.rows) {
            weights[weight] = dot(*row, from);
            weights[0] -= weights[weight];
        }
        weights
    }

    /// The same as a table for all inks, see [`Gamut::mixtures`].
    fn mixture(&self) -> [Shares; 4] {
        let mut mixture = [[0.0; MAX_INKS]; 4];
        let first = usize::from(self.inks[0]);
        mixture[0][first] = 1.0;
        for (ink, row) in self.inks[1..].iter().zip(&self.rows) {
            let constant = -dot(*row, self.origin);
            for (part, factor) in [constant, row[0], row[1], row[2]].into_iter().enumerate() {
                mixture[part][usize::from(*ink)] = factor;
                mixture[part][first] -= factor;
            }
        }
        mixture
    }

    /// How far inside a colour lies: its smallest weight.
    fn depth(&self, colour: Colour) -> f32 {
        let weights = self.weights(colour);
        weights[..self.inks.len()]
            .iter()
            .copied()
            .fold(1.0, f32::min)
    }
}

impl Gamut {
    /// The tables of `palette` in the space of `tone` that `dither` asks for: [`Self::nearest`]
    /// without dithering, the others with it.
    pub fn new(palette: &Palette, tone: &Tone, dither: Dither) -> Self {
        let light = palette.inks().iter().map(|ink| tone::linear(ink.rgb));
        let colours: Vec<Colour> = light.map(|light| tone.colour_of_light(light)).collect();
        let simplices = simplices(&colours);
        let mut grain = [0.0; MAX_INKS];
        for (square, [light, red, blue]) in grain.iter_mut().zip(&colours) {
            *square = light * light + HUE_GRAIN * (red * red + blue * blue);
        }
        let mut order: Vec<u8> = (0..colours.len() as u8).collect();
        order.sort_by(|a, b| colours[usize::from(*a)][0].total_cmp(&colours[usize::from(*b)][0]));
        let mut lightness = [FAR; MAX_INKS];
        for (lightness, colour) in lightness.iter_mut().zip(&colours) {
            *lightness = colour[0];
        }
        let mut gamut = Self {
            lightness,
            order,
            grain,
            faces: faces(&colours).into_iter().map(|(_, face)| face).collect(),
            mixtures: simplices.iter().map(Simplex::mixture).collect(),
            simplices,
            nodes: Vec::new(),
            cells: Vec::new(),
            nearest: Vec::new(),
            colours,
        };
        let centre = |cell: usize| {
            [cell / CELLS / CELLS, cell / CELLS % CELLS, cell % CELLS].map(|at| (8 * at + 4) as u8)
        };
        let centres = (0..CELLS * CELLS * CELLS).map(centre);
        if dither == Dither::None {
            gamut.nearest = centres.map(|rgb| gamut.nearest_ink(rgb, tone)).collect();
            return gamut;
        }
        gamut.nodes = gamut.nearest_colours(tone);
        gamut.cells = centres
            .map(|rgb| gamut.best_simplex(gamut.colour(rgb, tone)))
            .collect();
        gamut
    }

    /// The colour that stands for a saturated pixel: its own where the inks can make it.
    pub fn colour(&self, rgb: [u8; 3], tone: &Tone) -> Colour {
        let colour = tone.colour(rgb);
        match self.simplices[0].inks.len() {
            4 if self.holds(colour) => colour,
            4 => self.between_nodes(rgb),
            _ => self.flattened(colour),
        }
    }

    /// What each ink contributes to a saturated pixel.
    pub fn shares(&self, rgb: [u8; 3], tone: &Tone) -> Shares {
        let colour = self.colour(rgb, tone);
        let usual = usize::from(self.cells[cell(rgb)]);
        let shares = mixed(&self.mixtures[usual], colour);
        if least(&shares) >= -TINY {
            return shares;
        }
        // A thin simplex may end inside its region, and an ink with a share below nothing would
        // fall ever deeper into debt: the colour is mixed of the best inks that are around it.
        let mut best = (f32::INFINITY, shares);
        for mixture in &self.mixtures {
            let shares = mixed(mixture, colour);
            let cost = self.cost(&shares);
            if cost < best.0 {
                best = (cost, shares);
            }
        }
        best.1
    }

    /// How much a mixture varies, but for what depends on its colour alone: the mean square of
    /// its inks. One that holds its colour comes before any that does not.
    fn cost(&self, shares: &Shares) -> f32 {
        let squares = shares
            .iter()
            .zip(&self.grain)
            .map(|(share, square)| share * square);
        squares.sum::<f32>() + 1e3 * (-least(shares) - TINY).max(0.0)
    }

    /// The ink that looks most like a saturated pixel.
    pub fn nearest(&self, rgb: [u8; 3]) -> u8 {
        self.nearest[cell(rgb)]
    }

    /// The inks, the darkest first.
    pub fn by_lightness(&self) -> &[u8] {
        &self.order
    }

    /// Whether the solid holds the colour.
    fn holds(&self, colour: Colour) -> bool {
        let mut faces = self.faces.iter();
        faces.all(|(normal, distance)| dot(*normal, colour) <= *distance)
    }

    /// The nearest colour of a flat or a line.
    fn flattened(&self, colour: Colour) -> Colour {
        let plane = &self.simplices[0];
        let weights = plane.weights(colour);
        let on_it = plane.inks.iter().zip(weights);
        let on_it = on_it.fold([0.0; 3], |sum, (ink, weight)| {
            add(sum, scaled(self.colours[usize::from(*ink)], weight))
        });
        if self
            .simplices
            .iter()
            .any(|simplex| simplex.depth(on_it) >= 0.0)
        {
            return on_it;
        }
        let mut best = (f32::INFINITY, on_it);
        for (at, a) in self.colours.iter().enumerate() {
            for b in &self.colours[..at] {
                let along = add(*b, scaled(*a, -1.0));
                let from = add(on_it, scaled(*a, -1.0));
                let part = (dot(from, along) / dot(along, along)).clamp(0.0, 1.0);
                let point = add(*a, scaled(along, part));
                let off = add(on_it, scaled(point, -1.0));
                if dot(off, off) < best.0 {
                    best = (dot(off, off), point);
                }
            }
        }
        best.1
    }

    /// Between the eight nodes around a pixel. Each is inside the solid, so what lies between is.
    fn between_nodes(&self, rgb: [u8; 3]) -> Colour {
        let places = rgb.map(|byte| f32::from(byte) * ((NODES - 1) as f32 / 255.0));
        let low = places.map(|place| (place as usize).min(NODES - 2));
        let part = [0, 1, 2].map(|axis| places[axis] - low[axis] as f32);
        let mut sum = [0.0; 3];
        for corner in 0..8 {
            let bits = [corner >> 2 & 1, corner >> 1 & 1, corner & 1];
            let weight = |axis: usize| match bits[axis] {
                0 => 1.0 - part[axis],
                _ => part[axis],
            };
            let at = [0, 1, 2].map(|axis| low[axis] + bits[axis]);
            let node = self.nodes[(at[0] * NODES + at[1]) * NODES + at[2]];
            sum = add(sum, scaled(node, weight(0) * weight(1) * weight(2)));
        }
        sum
    }

    /// For each node the colour of the solid that looks most like it.
    fn nearest_colours(&self, tone: &Tone) -> Vec<Colour> {
        let surface = Surface::new(&self.colours, tone);
        if surface.triangles.is_empty() {
            return Vec::new();
        }
        let byte = |at: usize| (at * 255 / (NODES - 1)) as u8;
        let nodes = (0..NODES * NODES * NODES)
            .map(|node| [node / NODES / NODES, node / NODES % NODES, node % NODES].map(byte));
        nodes
            .map(|rgb| match tone.colour(rgb) {
                colour if self.holds(colour) => colour,
                colour => surface.nearest(colour, tone),
            })
            .collect()
    }

    fn nearest_ink(&self, rgb: [u8; 3], tone: &Tone) -> u8 {
        let wanted = tone::oklab(tone.light(tone.colour(rgb)));
        let mut best = (f32::INFINITY, 0);
        for (ink, colour) in self.colours.iter().enumerate() {
            let difference = unlikeness(wanted, tone::oklab(tone.light(*colour)));
            if difference < best.0 {
                best = (difference, ink as u8);
            }
        }
        best.1
    }

    /// The simplex around a colour whose inks vary least.
    fn best_simplex(&self, colour: Colour) -> u8 {
        let mut best = (f32::INFINITY, 0);
        for (at, mixture) in self.mixtures.iter().enumerate() {
            let cost = self.cost(&mixed(mixture, colour));
            if cost < best.0 {
                best = (cost, at as u8);
            }
        }
        best.1
    }
}

/// The shares of a mixture at a colour.
fn mixed([constant, by_axis @ ..]: &[Shares; 4], colour: Colour) -> Shares {
    let mut shares = *constant;
    for (part, factors) in colour.into_iter().zip(by_axis) {
        for (share, factor) in shares.iter_mut().zip(factors) {
            *share += part * factor;
        }
    }
    shares
}

fn least(shares: &Shares) -> f32 {
    shares.iter().copied().fold(0.0, f32::min)
}

fn cell(rgb: [u8; 3]) -> usize {
    let [r, g, b] = rgb.map(|byte| usize::from(byte) * CELLS / 256);
    (r * CELLS + g) * CELLS + b
}

/// The squared difference of two colours in Oklab, with more regard for hue.
fn unlikeness(a: Colour, b: Colour) -> f32 {
    let [lightness, u, v] = add(a, scaled(b, -1.0));
    let chroma = (a[1] * a[1] + a[2] * a[2]).sqrt() - (b[1] * b[1] + b[2] * b[2]).sqrt();
    let hue = u * u + v * v - chroma * chroma;
    LIGHTNESS * lightness * lightness + CHROMA * chroma * chroma + hue
}

/// Every set of inks that spans the space of the palette, without an ink inside it on a line.
fn simplices(colours: &[Colour]) -> Vec<Simplex> {
    for size in [4, 3] {
        let sets = (0_u32..1 << colours.len()).filter(|set| set.count_ones() == size);
        let found: Vec<Simplex> = sets.filter_map(|set| simplex(colours, set)).collect();
        if !found.is_empty() {
            return found;
        }
    }
    let mut order: Vec<usize> = (0..colours.len()).collect();
    order.sort_by(|a, b| colours[*a][0].total_cmp(&colours[*b][0]));
    let neighbours = order.windows(2);
    neighbours
        .filter_map(|pair| simplex(colours, 1 << pair[0] | 1 << pair[1]))
        .collect()
}

/// The simplex of the inks whose bits are set, unless it is flat.
fn simplex(colours: &[Colour], set: u32) -> Option<Simplex> {
    let inks: Vec<u8> = (0..colours.len() as u8)
        .filter(|ink| set >> ink & 1 == 1)
        .collect();
    let origin = colours[usize::from(inks[0])];
    let edge = |at: usize| add(colours[usize::from(inks[at])], scaled(origin, -1.0));
    let rows = match inks.len() {
        2 => {
            let along = edge(1);
            let square = dot(along, along);
            (square > TINY).then(|| vec![scaled(along, 1.0 / square)])?
        }
        3 => {
            let (a, b) = (edge(1), edge(2));
            let normal = cross(a, b);
            let square = dot(normal, normal);
            (square > TINY * TINY).then(|| {
                let (for_a, for_b) = (cross(b, normal), cross(normal, a));
                vec![scaled(for_a, 1.0 / square), scaled(for_b, 1.0 / square)]
            })?
        }
        _ => {
            let (a, b, c) = (edge(1), edge(2), edge(3));
            let volume = dot(a, cross(b, c));
            (volume.abs() > TINY).then(|| {
                [cross(b, c), cross(c, a), cross(a, b)]
                    .map(|row| scaled(row, 1.0 / volume))
                    .to_vec()
            })?
        }
    };
    Some(Simplex { inks, origin, rows })
}

type Face = (Colour, f32);

/// The triangles of inks that have all other inks on one side, with outward normals.
fn faces(colours: &[Colour]) -> Vec<([usize; 3], Face)> {
    let mut faces = Vec::new();
    for a in 0..colours.len() {
        for b in 0..a {
            for c in 0..b {
                let edge = |ink: usize| add(colours[ink], scaled(colours[a], -1.0));
                let normal = cross(edge(b), edge(c));
                let length = dot(normal, normal).sqrt();
                if length <= TINY {
                    continue;
                }
                let normal = scaled(normal, 1.0 / length);
                let sides: Vec<f32> = (0..colours.len())
                    .map(|ink| dot(normal, edge(ink)))
                    .collect();
                let highest = sides.iter().copied().fold(0.0, f32::max);
                let lowest = sides.iter().copied().fold(0.0, f32::min);
                if highest - lowest <= TINY || highest.min(-lowest) > TINY {
                    continue;
                }
                let outward = if highest > TINY { -1.0 } else { 1.0 };
                let normal = scaled(normal, outward);
                faces.push(([a, b, c], (normal, dot(normal, colours[a]) + TINY)));
            }
        }
    }
    faces
}

/// The surface of the solid, sampled.
struct Surface {
    triangles: Vec<[Colour; 3]>,
    /// The triangle, the place in it and the look of each sample.
    samples: Vec<(usize, [f32; 2], Colour)>,
}

impl Surface {
    fn new(colours: &[Colour], tone: &Tone) -> Self {
        const STEPS: usize = 8;
        let corners = |(inks, _): ([usize; 3], Face)| inks.map(|ink| colours[ink]);
        let triangles: Vec<_> = faces(colours).into_iter().map(corners).collect();
        let mut samples = Vec::new();
        for (at, triangle) in triangles.iter().enumerate() {
            for i in 0..=STEPS {
                for j in 0..=STEPS - i {
                    let place = [i, j].map(|part| part as f32 / STEPS as f32);
                    samples.push((at, place, look(triangle, place, tone)));
                }
            }
        }
        Self { triangles, samples }
    }

    fn nearest(&self, colour: Colour, tone: &Tone) -> Colour {
        let wanted = tone::oklab(tone.light(colour));
        let mut best = (f32::INFINITY, 0, [0.0; 2]);
        for (triangle, place, look) in &self.samples {
            let difference = unlikeness(wanted, *look);
            if difference < best.0 {
                best = (difference, *triangle, *place);
            }
        }
        let triangle = &self.triangles[best.1];
        let (mut difference, mut place, mut step) = (best.0, best.2, 1.0 / 16.0);
        while step > 1.0 / 256.0 {
            let ways = [[1, 0], [-1, 0], [0, 1], [0, -1], [1, -1], [-1, 1]];
            let tried = ways.map(|[i, j]| [place[0] + step * i as f32, place[1] + step * j as f32]);
            let inside =
                |place: &[f32; 2]| place[0] >= 0.0 && place[1] >= 0.0 && place[0] + place[1] <= 1.0;
            let before = difference;
            for near in tried.into_iter().filter(inside) {
                let found = unlikeness(wanted, look(triangle, near, tone));
                if found < difference {
                    (difference, place) = (found, near);
                }
            }
            if difference >= before {
                step /= 2.0;
            }
        }
        point(triangle, place)
    }
}

fn point([a, b, c]: &[Colour; 3], [i, j]: [f32; 2]) -> Colour {
    add(add(scaled(*a, 1.0 - i - j), scaled(*b, i)), scaled(*c, j))
}

fn look(triangle: &[Colour; 3], place: [f32; 2], tone: &Tone) -> Colour {
    tone::oklab(tone.light(point(triangle, place)))
}
