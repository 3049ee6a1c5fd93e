//! The diffusion mathematics against golden numbers and in the large.
//!
//! The golden files are written by scripts/golden.py from two sources, the published formulas and
//! huggingface/diffusers. Where the two differ, a row says why under "differs", and the published
//! formula is ours.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use driftglass::diffusion::elbo::{self, Reverse};
use driftglass::diffusion::noise::{self, Seeded, Stream};
use driftglass::diffusion::prediction::{Clipping, Prediction};
use driftglass::diffusion::sampler::{
    NoiseSource, Sampler, SamplerKind, Step, Variance, VarianceKind, Walk,
};
use driftglass::diffusion::schedule::Schedule;
use driftglass::diffusion::timesteps::{KeptStep, Spacing, Timesteps};
use driftglass::diffusion::{Conditioning, Denoiser, Timestep};
use driftglass::error::Result;
use ndarray::{Array, Array4, ArrayView4, ArrayViewMut4};
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn golden<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let text = std::fs::read_to_string(&path).expect("the golden files are committed");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Collects every failing case and panics with all of them at the end.
#[derive(Default)]
struct Cases {
    run: usize,
    failures: Vec<String>,
}

impl Cases {
    fn check(&mut self, passed: bool, failure: impl FnOnce() -> String) {
        self.run += 1;
        if !passed {
            self.failures.push(failure());
        }
    }

    /// Compares element by element: within `tolerance`, and relative to it above 1.
    fn close(&mut self, case: &str, found: &[f64], expected: &[f64], tolerance: f64) {
        let error = worst(found, expected);
        self.check(error <= tolerance, || {
            format!("{case}: off by {error:e}, allowed {tolerance:e}\n  {found:?}\n  {expected:?}")
        });
    }

    fn finish(self) {
        let (run, failures) = (self.run, self.failures);
        assert!(run > 0, "no cases were run");
        assert!(
            failures.is_empty(),
            "{} of {run} checks failed\n{}",
            failures.len(),
            failures.join("\n")
        );
    }
}

fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    let errors = found
        .iter()
        .zip(expected)
        .map(|(f, e)| (f - e).abs() / e.abs().max(1.0));
    // `max` would drop a NaN.
    errors.fold(0.0, |worst, error| {
        if error > worst || error.is_nan() {
            error
        } else {
            worst
        }
    })
}

fn wide(values: ArrayView4<f32>) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn narrow(shape: [usize; 4], values: &[f64]) -> Array4<f32> {
    let values = values.iter().map(|&value| value as f32).collect();
    Array::from_shape_vec(shape, values).expect("a golden row has as many values as its shape")
}

// --- What a golden row is made of.

#[derive(Debug, Deserialize)]
struct Training {
    schedule: String,
    train_timesteps: usize,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
}

impl Training {
    fn schedule(&self) -> Schedule {
        let steps = self.train_timesteps;
        let (start, end) = (self.beta_start.unwrap_or(0.0), self.beta_end.unwrap_or(0.0));
        match self.schedule.as_str() {
            "cosine" => Schedule::cosine(steps),
            "linear" => Schedule::linear(steps, start, end),
            "scaled-linear" => Schedule::scaled_linear(steps, start, end),
            other => panic!("no schedule is called {other}"),
        }
        .expect("a golden schedule is valid")
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Clip {
    Clamp { clip: f32 },
    Dynamic { ratio: f32, max: f32 },
}

#[derive(Debug, Deserialize)]
struct Recipe {
    #[serde(flatten)]
    training: Training,
    spacing: Spacing,
    steps: usize,
    sampler: SamplerKind,
    variance: Option<VarianceKind>,
    eta: Option<f64>,
    prediction: Prediction,
    clipping: Option<Clip>,
}

impl Recipe {
    fn timesteps(&self) -> Timesteps {
        Timesteps::new(&self.training.schedule(), &self.spacing, self.steps).expect("a valid row")
    }

    fn clipping(&self) -> Clipping {
        match self.clipping {
            None => Clipping::None,
            Some(Clip::Clamp { clip }) => Clipping::Clamp { range: clip },
            Some(Clip::Dynamic { ratio, max }) => Clipping::Dynamic { ratio, max },
        }
    }

    fn variance(&self) -> Variance {
        match self.variance.expect("a ddpm row has a variance") {
            VarianceKind::FixedSmall => Variance::FixedSmall,
            VarianceKind::FixedLarge => Variance::FixedLarge,
            VarianceKind::LearnedRange => Variance::LearnedRange,
            VarianceKind::Analytic => panic!("no golden row has a table"),
        }
    }

    fn walk(&self) -> Walk {
        let sampler = match self.sampler {
            SamplerKind::Ddpm => Sampler::Ddpm {
                variance: self.variance(),
            },
            SamplerKind::Ddim => Sampler::Ddim {
                eta: self.eta.expect("a ddim row has an eta"),
            },
            SamplerKind::Dpmpp2m => Sampler::Dpmpp2m,
        };
        Walk::new(
            &self.timesteps(),
            self.prediction,
            self.clipping(),
            &sampler,
        )
        .expect("a valid row")
    }
}

/// A network whose answer is known: from x_t and t, element by element.
struct Known<F>(F);

impl<F: FnMut(f32, Timestep) -> f64> Denoiser for Known<F> {
    fn predict(
        &mut self,
        x: ArrayView4<f32>,
        t: Timestep,
        _: &Conditioning,
        mut out: ArrayViewMut4<f32>,
    ) -> Result<()> {
        // A learned variance, where one is asked for, is the answer again.
        let values = x.iter().chain(&x);
        out.iter_mut()
            .zip(values)
            .for_each(|(out, &x)| *out = (self.0)(x, t) as f32);
        Ok(())
    }
}

/// A network, and a source of noise, that plays a recording.
struct Recorded(Array4<f32>);

impl Denoiser for Recorded {
    fn predict(
        &mut self,
        _: ArrayView4<f32>,
        _: Timestep,
        _: &Conditioning,
        mut out: ArrayViewMut4<f32>,
    ) -> Result<()> {
        out.assign(&self.0);
        Ok(())
    }
}

impl NoiseSource for Recorded {
    fn fill(&mut self, _: usize, mut out: ArrayViewMut4<f32>) {
        out.assign(&self.0);
    }
}

/// Noise that is a formula: from the step's index and the element's.
struct Formula(fn(usize, usize) -> f64);

impl NoiseSource for Formula {
    fn fill(&mut self, index: usize, mut out: ArrayViewMut4<f32>) {
        let elements = out.iter_mut().enumerate();
        elements.for_each(|(element, out)| *out = (self.0)(index, element) as f32);
    }
}

// --- Golden numbers.

#[test]
fn schedules_are_those_of_the_papers_and_of_diffusers() {
    #[derive(Deserialize)]
    struct Row {
        #[serde(flatten)]
        training: Training,
        sources: Vec<Source>,
    }
    #[derive(Deserialize)]
    struct Source {
        source: String,
        betas: BTreeMap<usize, f64>,
        alphas_cumprod: BTreeMap<usize, f64>,
    }
    let mut cases = Cases::default();
    for (name, row) in golden::<BTreeMap<String, Row>>("schedules.json") {
        let schedule = row.training.schedule();
        for source in row.sources {
            // (of a beta, of a product relative to itself): diffusers stores both in f32.
            let (beta_tolerance, product_tolerance) = if source.source == "published" {
                (5e-16, 1e-12)
            } else {
                (1e-7, 2e-3)
            };
            for (t, expected) in source.betas {
                let error = (schedule.betas()[t] - expected).abs();
                cases.check(error <= beta_tolerance, || {
                    format!("{name}: beta {t} {error:e}")
                });
            }
            for (t, expected) in source.alphas_cumprod {
                let error = (schedule.alphas_cumprod()[t] / expected - 1.0).abs();
                cases.check(error <= product_tolerance, || {
                    format!("{name}: product {t} {error:e}")
                });
            }
        }
    }
    cases.finish();
}

#[test]
fn kept_steps_and_their_previous_steps_are_those_of_the_originals() {
    #[derive(Deserialize)]
    struct Row {
        spacing: Spacing,
        steps: usize,
        train_timesteps: usize,
        source: String,
        differs: Option<String>,
        timesteps: Vec<i64>,
        prev: Vec<i64>,
    }
    let mut cases = Cases::default();
    for row in golden::<Vec<Row>>("timesteps.json") {
        let schedule = Schedule::cosine(row.train_timesteps).expect("a valid schedule");
        let kept = Timesteps::new(&schedule, &row.spacing, row.steps).expect("a valid row");
        let found: Vec<i64> = kept.as_slice().iter().map(|step| step.t.0 as i64).collect();
        let same = found == row.timesteps;
        cases.check(same != row.differs.is_some(), || {
            format!("{} {} {}: {found:?}", row.source, row.spacing, row.steps)
        });
        if row.differs.is_some() {
            continue;
        }
        for (step, prev) in kept.as_slice().iter().zip(row.prev) {
            let expected = usize::try_from(prev).map_or(1.0, |t| schedule.alphas_cumprod()[t]);
            cases.check(step.alpha_cumprod_prev == expected, || {
                format!(
                    "{} {} {}: before {:?}",
                    row.source, row.spacing, row.steps, step.t
                )
            });
        }
    }
    cases.finish();
}

#[test]
fn single_steps_are_those_of_the_papers_and_of_diffusers() {
    #[derive(Deserialize)]
    struct Row {
        #[serde(flatten)]
        recipe: Recipe,
        index: usize,
        shape: [usize; 4],
        x: Vec<f64>,
        output: Vec<f64>,
        noise: Vec<f64>,
        tolerance: f64,
        expected: Vec<Expected>,
    }
    #[derive(Deserialize)]
    struct Expected {
        source: String,
        differs: Option<String>,
        prev: Vec<f64>,
        x0: Vec<f64>,
    }
    let mut cases = Cases::default();
    for (number, row) in golden::<Vec<Row>>("steps.json").into_iter().enumerate() {
        let [n, c, h, w] = row.shape;
        let mut x = narrow(row.shape, &row.x);
        let channels = row.output.len() / (n * h * w);
        assert!(channels == c || channels == 2 * c);
        let mut network = Recorded(narrow([n, channels, h, w], &row.output));
        let mut noise = Recorded(narrow(row.shape, &row.noise));
        let mut seen = None;
        let stopped = row.recipe.walk().run(
            &mut network,
            &mut x,
            &Conditioning::default(),
            &mut noise,
            row.index,
            &mut |step| {
                seen = Some((wide(step.x), wide(step.x0)));
                ControlFlow::Break(())
            },
        );
        assert!(stopped.is_err(), "a callback that breaks stops the walk");
        let (prev, x0) = seen.expect("the callback was called");
        for expected in row
            .expected
            .iter()
            .filter(|expected| expected.differs.is_none())
        {
            let case = format!("row {number} by {}: {:?}", expected.source, row.recipe);
            cases.close(&case, &prev, &expected.prev, row.tolerance);
            cases.close(&case, &x0, &expected.x0, row.tolerance);
        }
    }
    cases.finish();
}

#[test]
fn whole_walks_are_those_of_the_papers_and_of_diffusers() {
    #[derive(Deserialize)]
    struct File {
        loops: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        #[serde(flatten)]
        recipe: Recipe,
        denoiser: String,
        m: Option<f64>,
        s: Option<f64>,
        shape: [usize; 4],
        tolerance: f64,
        expected: Vec<Expected>,
    }
    #[derive(Deserialize)]
    struct Expected {
        source: String,
        r#final: Vec<f64>,
    }
    let mut cases = Cases::default();
    for row in golden::<File>("loops.json").loops {
        let schedule = row.recipe.training.schedule();
        let start: Vec<f64> = (0..6).map(|element| (element as f64 - 2.5) / 2.0).collect();
        let mut x = narrow(row.shape, &start);
        let mut noise = Formula(|i, k| (((7 * i + 3 * k) % 11) as f64 - 5.0) / 4.0);
        let mut network = Known(|x: f32, t: Timestep| match row.denoiser.as_str() {
            "half" => 0.5 * f64::from(x) * (t.0 + 1) as f64 / schedule.train_timesteps() as f64,
            "gaussian" => {
                let (m, s) = (
                    row.m.expect("a gaussian has m"),
                    row.s.expect("a gaussian has s"),
                );
                gaussian(&schedule, m, s, row.recipe.prediction, f64::from(x), t)
            }
            other => panic!("no denoiser is called {other}"),
        });
        let on_step = &mut |_: &Step| ControlFlow::Continue(());
        row.recipe
            .walk()
            .run(
                &mut network,
                &mut x,
                &Conditioning::default(),
                &mut noise,
                0,
                on_step,
            )
            .expect("a network in closed form does not fail");
        for expected in &row.expected {
            let case = format!("{} by {}: {:?}", row.denoiser, expected.source, row.recipe);
            cases.close(&case, &wide(x.view()), &expected.r#final, row.tolerance);
        }
    }
    cases.finish();
}

/// The optimal denoiser of pictures whose values are N(m, s^2).
fn gaussian(
    schedule: &Schedule,
    m: f64,
    s: f64,
    prediction: Prediction,
    x: f64,
    t: Timestep,
) -> f64 {
    let alpha_bar = schedule.alphas_cumprod()[t.0];
    let (alpha, sigma) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
    let x0 = m + alpha * s * s * (x - alpha * m) / (alpha_bar * s * s + 1.0 - alpha_bar);
    let epsilon = (x - alpha * x0) / sigma;
    match prediction {
        Prediction::Epsilon => epsilon,
        Prediction::V => alpha * epsilon - sigma * x0,
        Prediction::X0 => x0,
    }
}

#[test]
fn noise_has_the_committed_bits() {
    #[derive(Deserialize)]
    struct File {
        format: String,
        version: u32,
        draws: Vec<Draw>,
        quantiles: Vec<Quantile>,
    }
    #[derive(Deserialize)]
    struct Draw {
        seed: u64,
        stream: u64,
        index: u64,
        word: u32,
        normal_bits: String,
    }
    #[derive(Deserialize)]
    struct Quantile {
        u: f64,
        ndtri: f64,
    }
    let file: File = golden("noise.json");
    assert_eq!(
        (noise::FORMAT, noise::VERSION),
        (file.format.as_str(), file.version)
    );
    let mut cases = Cases::default();
    for draw in file.draws {
        // Every stream has a number, and `Draw` counts from the top.
        let stream = Stream::Draw(u64::MAX - draw.stream);
        assert_eq!(stream.id(), draw.stream);
        let word = noise::word(draw.seed, stream, draw.index);
        let bits = format!(
            "0x{:08x}",
            (noise::normal(noise::uniform(word)) as f32).to_bits()
        );
        cases.check(word == draw.word && bits == draw.normal_bits, || {
            let Draw {
                seed,
                stream,
                index,
                ..
            } = draw;
            format!("seed {seed}, stream {stream}, index {index}: {word}, {bits}")
        });
    }
    let smallest = noise::uniform(0);
    let reachable = smallest..=1.0 - smallest;
    for Quantile { u, ndtri } in file.quantiles {
        if reachable.contains(&u) {
            cases.close(
                &format!("normal of {u}"),
                &[noise::normal(u)],
                &[ndtri],
                2e-15,
            );
        }
    }
    cases.finish();
}

#[test]
fn terms_of_the_bound_are_those_of_the_paper() {
    #[derive(Deserialize)]
    struct File {
        prior: Vec<Prior>,
        denoising: Vec<Term>,
        reconstruction: Vec<Term>,
    }
    #[derive(Deserialize)]
    struct Prior {
        #[serde(flatten)]
        training: Training,
        shape: [usize; 4],
        x0: Vec<f64>,
        bits: f64,
    }
    #[derive(Deserialize)]
    struct Term {
        #[serde(flatten)]
        recipe: Recipe,
        index: usize,
        shape: [usize; 4],
        x0: Vec<f64>,
        x: Vec<f64>,
        output: Vec<f64>,
        bits: f64,
    }
    let file: File = golden("elbo.json");
    let mut cases = Cases::default();
    for row in file.prior {
        let schedule = row.training.schedule();
        let noisiest = schedule.alphas_cumprod()[schedule.train_timesteps() - 1];
        let bits = elbo::prior(noisiest, narrow(row.shape, &row.x0).view());
        // The golden one subtracts numbers near 1, to get one near 1e-13.
        let error = (bits - row.bits).abs();
        cases.check(error <= 1e-9 * row.bits + 1e-15, || {
            format!("prior {:?}: off by {error:e}", row.training)
        });
    }
    for row in file.denoising.iter().chain(&file.reconstruction) {
        let timesteps = row.recipe.timesteps();
        let reverse = Reverse {
            timesteps: &timesteps,
            prediction: row.recipe.prediction,
            clipping: row.recipe.clipping(),
            variance: &row.recipe.variance(),
        };
        let values = |values: &[f64]| narrow(row.shape, values);
        let (x0, x, output) = (values(&row.x0), values(&row.x), values(&row.output));
        let bits = reverse.term(row.index, x0.view(), x.view(), output.view());
        let case = format!("step {} of {:?}", row.index, row.recipe);
        cases.close(&case, &[bits], &[row.bits], 1e-5);
    }
    cases.finish();
}

/// So little is left of the picture that f64 cannot tell beta from 1.
#[test]
fn a_step_out_of_pure_noise_has_a_posterior() {
    let schedule = Schedule::linear(1600, 1.6e-4, 0.048).unwrap();
    let timesteps = Timesteps::new(&schedule, &Spacing::Linspace, 2).unwrap();
    let first = timesteps.as_slice()[0];
    assert!(first.alpha_cumprod > 0.0 && first.alpha_cumprod < f64::EPSILON / 2.0);
    assert_eq!(first.beta(), 1.0);
    let posterior = first.posterior();
    assert_eq!(posterior.x0, first.alpha_cumprod_prev.sqrt());
    assert_eq!(posterior.variance, 1.0 - first.alpha_cumprod_prev);
}

// --- Properties of every schedule and spacing.

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let ends = (1e-5..1e-3, 1e-3..0.05f64);
    prop_oneof![
        (1..2000usize).prop_map(Schedule::cosine),
        (1..2000usize, ends.clone()).prop_map(|(t, (start, end))| Schedule::linear(t, start, end)),
        (1..2000usize, ends).prop_map(|(t, (start, end))| Schedule::scaled_linear(t, start, end)),
        prop::collection::vec(1e-6..0.05f64, 1..1000).prop_map(Schedule::from_betas),
    ]
    .prop_map(|schedule| schedule.expect("the ranges above are valid"))
}

/// A spacing without numbers; every one of them can keep any number of steps.
fn any_spacing() -> impl Strategy<Value = Spacing> {
    prop_oneof![
        Just(Spacing::Linspace),
        Just(Spacing::Leading { offset: 0 }),
        Just(Spacing::Trailing),
        Just(Spacing::Sections(Vec::new())),
    ]
}

fn any_timesteps() -> impl Strategy<Value = Timesteps> {
    (any_schedule(), any_spacing(), any::<prop::sample::Index>()).prop_map(
        |(schedule, spacing, steps)| {
            let steps = 1 + steps.index(schedule.train_timesteps());
            Timesteps::new(&schedule, &spacing, steps).expect("any number of steps up to T")
        },
    )
}

fn any_sampler() -> impl Strategy<Value = Sampler> {
    let ddpm = |variance| Just(Sampler::Ddpm { variance });
    prop_oneof![
        ddpm(Variance::FixedSmall),
        ddpm(Variance::FixedLarge),
        ddpm(Variance::LearnedRange),
        (0.0..=1.0).prop_map(|eta| Sampler::Ddim { eta }),
        Just(Sampler::Dpmpp2m),
    ]
}

fn any_clipping() -> impl Strategy<Value = Clipping> {
    prop_oneof![
        Just(Clipping::None),
        Just(Clipping::Clamp { range: 1.0 }),
        Just(Clipping::Dynamic {
            ratio: 0.995,
            max: 3.0
        }),
    ]
}

fn any_prediction() -> impl Strategy<Value = Prediction> {
    prop_oneof![
        Just(Prediction::Epsilon),
        Just(Prediction::V),
        Just(Prediction::X0)
    ]
}

proptest! {
    #[test]
    fn schedules_fall_inside_the_unit_interval(schedule in any_schedule()) {
        prop_assert!(schedule.alphas_cumprod().is_sorted_by(|above, below| above > below));
        prop_assert!(schedule.alphas_cumprod().iter().all(|product| (0.0..1.0).contains(product)));
        prop_assert!(schedule.betas().iter().all(|beta| (0.0..1.0).contains(beta)));
    }

    #[test]
    fn kept_steps_fall_and_lead_to_the_clean_picture(timesteps in any_timesteps()) {
        let kept = timesteps.as_slice();
        prop_assert!(kept.is_sorted_by(|above, below| above.t > below.t));
        let linked = |pair: &[KeptStep]| pair[0].alpha_cumprod_prev == pair[1].alpha_cumprod;
        prop_assert!(kept.windows(2).all(linked));
        prop_assert_eq!(kept[kept.len() - 1].alpha_cumprod_prev, 1.0);
    }

    #[test]
    fn posteriors_are_distributions(timesteps in any_timesteps()) {
        for step in timesteps.as_slice() {
            let (posterior, beta) = (step.posterior(), step.beta());
            // Below 1, but f64 rounds a beta next to 1 to it.
            prop_assert!((0.0..=1.0).contains(&beta));
            prop_assert!((0.0..=beta).contains(&posterior.variance));
            // The posterior's mean of the forward process' mean is the forward process' mean.
            let mean = posterior.x0 + posterior.x * step.alpha_cumprod.sqrt();
            prop_assert!((mean - step.alpha_cumprod_prev.sqrt()).abs() < 1e-9);
        }
    }

    #[test]
    fn walks_are_finite(
        timesteps in any_timesteps(),
        sampler in any_sampler(),
        clipping in any_clipping(),
        prediction in any_prediction(),
        seed: u64,
    ) {
        let count = timesteps.as_slice().len();
        let walk = Walk::new(&timesteps, prediction, clipping, &sampler).expect("a valid sampler");
        let mut x = noise::start(seed, (1, 1, 2, 2));
        let mut network = Known(|x: f32, _| f64::from(x).clamp(-2.0, 2.0));
        let mut seen = Vec::new();
        let mut finite = true;
        walk.run(
            &mut network,
            &mut x,
            &Conditioning::default(),
            &mut Seeded(seed),
            0,
            &mut |step| {
                finite &= step.x.iter().chain(&step.x0).all(|value| value.is_finite());
                seen.push((step.index, step.count, step.t));
                ControlFlow::Continue(())
            },
        ).expect("a network in closed form does not fail");
        prop_assert!(finite);
        let steps = timesteps.as_slice().iter().enumerate();
        let expected: Vec<_> = steps.map(|(index, step)| (index, count, step.t)).collect();
        prop_assert_eq!(seen, expected);
        if clipping != Clipping::None {
            let largest = if let Clipping::Clamp { range } = clipping { range } else { 1.0 };
            prop_assert!(x.iter().all(|x| x.abs() <= largest));
        }
    }

    #[test]
    fn spellings_are_read_back(
        spacing in prop_oneof![
            any_spacing(),
            Just(Spacing::Ddim),
            any::<usize>().prop_map(|offset| Spacing::Leading { offset }),
            prop::collection::vec(any::<usize>(), 1..5).prop_map(Spacing::Sections),
            prop::collection::vec(any::<usize>(), 1..5).prop_map(Spacing::Explicit),
        ]
    ) {
        let text = spacing.to_string();
        prop_assert_eq!(text.parse::<Spacing>().expect("its own spelling"), spacing.clone());
        let json = serde_json::to_string(&spacing).expect("a string");
        prop_assert_eq!(&json, &format!("{text:?}"));
        prop_assert_eq!(serde_json::from_str::<Spacing>(&json).expect("its own spelling"), spacing);
    }

    #[test]
    fn any_text_is_a_spacing_or_an_error(text in "(leading|sections|explicit|ddim)?[+:]?[0-9,+ ]{0,30}") {
        if let Ok(spacing) = text.parse::<Spacing>() {
            let schedule = Schedule::cosine(10).expect("a valid schedule");
            let _ = Timesteps::new(&schedule, &spacing, spacing.steps().unwrap_or(3));
        }
    }
}

#[test]
fn every_step_count_of_every_spacing_is_kept() {
    let mut cases = Cases::default();
    for train in [1, 2, 7, 100, 1000] {
        let schedule = Schedule::cosine(train).expect("a valid schedule");
        for spacing in ["linspace", "leading", "trailing", "sections"] {
            let spacing: Spacing = spacing.parse().expect("a spelling of the documentation");
            for steps in 1..=train {
                let found = Timesteps::new(&schedule, &spacing, steps);
                let count = found.as_ref().map(|kept| kept.as_slice().len()).ok();
                cases.check(count == Some(steps), || {
                    format!("{spacing} {steps} of {train}")
                });
            }
            for steps in [0, train + 1, usize::MAX] {
                let found = Timesteps::new(&schedule, &spacing, steps);
                cases.check(found.is_err(), || format!("{spacing} {steps} of {train}"));
            }
        }
    }
    cases.finish();
}
