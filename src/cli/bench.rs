//! `driftglass bench`: time per step, memory, load time, and where the time goes.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ndarray::{ArrayView4, ArrayViewMut4, Axis};
use serde::Serialize;

use super::process::{median, megabytes, peak_rss_bytes};
use super::{EngineArgs, LibraryArgs, print_json};
use crate::diffusion::noise::{self, Seeded};
use crate::diffusion::sampler::Step;
use crate::diffusion::{Conditioning, Denoiser, Timestep};
use crate::display::terminal::{Colours, Method, Size, Terminal};
use crate::engine::peak::peak;
use crate::engine::simd::Isa;
use crate::engine::{NodeProfile, Port};
use crate::error::Result;
use crate::model::Precision;
use crate::model::library::DEFAULT_MODEL;
use crate::npz::Array;
use crate::picture::Picture;
use crate::pipeline::{Changes, Painter, Recipe};

mod display;

/// `driftglass bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A package's name, or the path of its folder
    #[arg(long, default_value = DEFAULT_MODEL)]
    model: String,

    #[command(flatten)]
    library: LibraryArgs,

    /// Which of the model's files: fp32, fp16 or int8 [default: the model's own]
    #[arg(long)]
    precision: Option<Precision>,

    #[command(flatten)]
    engine: EngineArgs,

    /// Steps of the walk that is timed [default: the model's own]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,

    /// Also where the time goes: by kind of operator, by node, beside the peak of one core
    #[arg(long)]
    profile: bool,

    /// Instead of a model: what it takes to turn a picture into a panel's bytes
    #[arg(long, conflicts_with_all = ["model", "precision", "steps", "profile"])]
    display: bool,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    precision: Precision,
    threads: usize,
    steps: usize,
    /// One evaluation of the network, in milliseconds.
    median_ms: f64,
    min_ms: f64,
    steps_per_second: f64,
    /// From nothing to a network that can be evaluated.
    load_ms: f64,
    /// From nothing to the end of the first step.
    first_step_ms: f64,
    /// Everything of a step that is not the network, as a part of the step.
    sampler_share: f64,
    /// A live preview in the terminal, as a part of the step.
    preview_share: f64,
    peak_rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Profile>,
}

/// Where the time of an evaluation goes.
#[derive(Debug, Serialize)]
struct Profile {
    /// What one core can do, measured.
    peak: PeakRates,
    /// By kind, the slowest first.
    operators: Vec<Row>,
    /// In the order of the evaluation.
    nodes: Vec<Row>,
}

/// The measured peak of one core.
#[derive(Debug, Serialize)]
struct PeakRates {
    /// f32, two for each multiplication with addition.
    gflops: f64,
    /// int8, counted likewise.
    int8_gops: f64,
    /// Reading memory that is in no cache.
    read_gb_per_second: f64,
}

/// A node, or all nodes of one kind.
#[derive(Debug, Clone, Serialize)]
struct Row {
    /// The kind of operator, or the node's name before it.
    name: String,
    calls: usize,
    ms: f64,
    share: f64,
    /// Read and written, each operand once.
    megabytes: f64,
    /// As a direct computation would count, two for each multiplication.
    gflops_per_second: f64,
}

/// Notes how long every evaluation took.
struct Timed<'a> {
    denoiser: &'a mut dyn Denoiser,
    elapsed: Vec<Duration>,
}

impl Denoiser for Timed<'_> {
    fn prepare(&mut self, timesteps: &[Timestep], cond: &Conditioning) -> Result<()> {
        self.denoiser.prepare(timesteps, cond)
    }

    fn predict(
        &mut self,
        x: ArrayView4<f32>,
        t: Timestep,
        cond: &Conditioning,
        out: ArrayViewMut4<f32>,
    ) -> Result<()> {
        let start = Instant::now();
        let result = self.denoiser.predict(x, t, cond, out);
        self.elapsed.push(start.elapsed());
        result
    }
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.display {
        display::run(args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = measure(args)?;
    if args.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args) -> anyhow::Result<Report> {
    let start = Instant::now();
    let package = args.library.library()?.open(&args.model)?;
    let threads = args.engine.threads;
    let mut painter = Painter::open(package, args.precision, threads)?;
    let load_ms = ms(start.elapsed());
    let changes = Changes {
        steps: args.steps,
        ..Changes::default()
    };
    let recipe = painter.changed(&painter.recipe(0), &changes);
    let walk = walk(&mut painter, &recipe)?;
    let first_step_ms = load_ms + walk.network_ms[0];
    let peak_rss_bytes = peak_rss_bytes();
    let profile = match args.profile {
        true => Some(profile(&mut painter, recipe.steps)?),
        false => None,
    };
    let mut network_ms = walk.network_ms;
    let median_ms = median(&mut network_ms);
    let step_ms = median_ms + walk.sampler_ms;
    Ok(Report {
        model: args.model.clone(),
        precision: painter.precision(),
        threads,
        steps: recipe.steps,
        median_ms,
        min_ms: network_ms[0],
        steps_per_second: 1e3 / step_ms,
        load_ms,
        first_step_ms,
        sampler_share: walk.sampler_ms / step_ms,
        preview_share: walk.preview_ms / step_ms,
        peak_rss_bytes,
        profile,
    })
}

/// The times of a walk's steps.
struct WalkTimes {
    /// One per step.
    network_ms: Vec<f64>,
    /// The median of everything else in a step: sampler, injected noise.
    sampler_ms: f64,
    /// The median of drawing x0 into a terminal of 80 by 24.
    preview_ms: f64,
}

/// Walks `recipe` with a clock on the network, on the preview and on what is left.
fn walk(painter: &mut Painter, recipe: &Recipe) -> anyhow::Result<WalkTimes> {
    let (_, walk) = painter.walk(recipe)?;
    let image = painter.manifest().image;
    let mut x = noise::start(recipe.seed, (1, image.channels, image.height, image.width));
    let class = recipe
        .class
        .as_deref()
        .map(|name| painter.manifest().class_index(name));
    let cond = Conditioning {
        class: class.transpose()?,
    };
    let mut terminal = Terminal::new(Method::HalfBlocks(Colours::True), Size::default());
    let mut timed = Timed {
        denoiser: painter.unet(),
        elapsed: Vec::new(),
    };
    let (mut ends, mut previews) = (vec![Instant::now()], Vec::new());
    let mut failure = Ok(());
    let mut on_step = |step: &Step| {
        let start = Instant::now();
        let picture = Picture::from_tensor(step.x0.index_axis(Axis(0), 0));
        failure = terminal.show(&mut std::io::sink(), Some(&picture), "");
        previews.push(start.elapsed());
        ends.push(Instant::now());
        ControlFlow::Continue(())
    };
    walk.run(
        &mut timed,
        &mut x,
        &cond,
        &mut Seeded(recipe.seed),
        0,
        &mut on_step,
    )?;
    failure?;
    let network_ms: Vec<f64> = timed.elapsed.into_iter().map(ms).collect();
    let mut preview_ms: Vec<f64> = previews.into_iter().map(ms).collect();
    let steps = ends.windows(2).map(|pair| ms(pair[1] - pair[0]));
    let parts = network_ms.iter().zip(&preview_ms);
    let mut sampler_ms: Vec<f64> = steps
        .zip(parts)
        .map(|(step, (network, preview))| step - network - preview)
        .collect();
    Ok(WalkTimes {
        sampler_ms: median(&mut sampler_ms),
        preview_ms: median(&mut preview_ms),
        network_ms,
    })
}

/// The time of every node and of every kind of operator.
fn profile(painter: &mut Painter, rounds: usize) -> anyhow::Result<Profile> {
    let network = painter.unet().network();
    let zeros = |port: &Port| Array::zeros(port.dtype, &port.shape);
    let inputs: Vec<Array> = network.inputs().iter().map(zeros).collect();
    let nodes = network.profile(&inputs, rounds)?;
    let mut kinds: BTreeMap<&str, Vec<&NodeProfile>> = BTreeMap::new();
    for node in &nodes {
        kinds.entry(&node.op).or_default().push(node);
    }
    let total = nodes.iter().map(|node| ms(node.elapsed)).sum::<f64>() / rounds as f64;
    let row = |name: String, nodes: &[&NodeProfile]| {
        let ms = nodes.iter().map(|node| ms(node.elapsed)).sum::<f64>() / rounds as f64;
        let macs: u64 = nodes.iter().map(|node| node.macs).sum();
        let bytes: u64 = nodes.iter().map(|node| node.bytes).sum();
        Row {
            name,
            calls: nodes.len(),
            ms,
            share: ms / total,
            megabytes: bytes as f64 / 1e6,
            gflops_per_second: 2.0 * macs as f64 / (ms * 1e6),
        }
    };
    let kinds = kinds.into_iter();
    let mut operators: Vec<Row> = kinds
        .map(|(op, nodes)| row(op.to_owned(), &nodes))
        .collect();
    operators.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    let nodes = nodes.iter();
    let nodes = nodes.map(|node| row(format!("{} ({})", node.name, node.op), &[node]));
    let peak = peak(Isa::best());
    Ok(Profile {
        peak: PeakRates {
            gflops: peak.flops / 1e9,
            int8_gops: peak.int8_ops / 1e9,
            read_gb_per_second: peak.read_bytes_per_second / 1e9,
        },
        operators,
        nodes: nodes.collect(),
    })
}

fn print(report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let Report {
        model,
        precision,
        threads,
        steps,
        ..
    } = report;
    writeln!(out, "{model} {precision}, {threads} threads, {steps} steps")?;
    let Report {
        median_ms,
        min_ms,
        steps_per_second,
        ..
    } = report;
    writeln!(
        out,
        "  step       {median_ms:.2} ms median, {min_ms:.2} ms least, {steps_per_second:.1} steps/s"
    )?;
    let (sampler, preview) = (100.0 * report.sampler_share, 100.0 * report.preview_share);
    writeln!(
        out,
        "  of a step  {sampler:.2} % sampler arithmetic, {preview:.2} % live preview"
    )?;
    let Report {
        load_ms,
        first_step_ms,
        ..
    } = report;
    writeln!(
        out,
        "  load       {load_ms:.0} ms, {first_step_ms:.0} ms to the end of the first step"
    )?;
    let memory = report.peak_rss_bytes.map_or("unknown".into(), megabytes);
    writeln!(out, "  memory     {memory} at the peak")?;
    match &report.profile {
        Some(profile) => print_profile(&mut out, profile),
        None => Ok(()),
    }
}

fn print_profile(out: &mut impl Write, profile: &Profile) -> anyhow::Result<()> {
    let PeakRates {
        gflops,
        int8_gops,
        read_gb_per_second,
    } = profile.peak;
    writeln!(
        out,
        "  peak       {gflops:.0} GFLOP/s, {int8_gops:.0} GOP/s int8, {read_gb_per_second:.1} GB/s from memory, of one core"
    )?;
    for (title, rows) in [("operator", &profile.operators), ("node", &profile.nodes)] {
        writeln!(
            out,
            "\n     share        ms  calls       MB  GFLOP/s  {title}"
        )?;
        for row in rows {
            let share = 100.0 * row.share;
            writeln!(
                out,
                "  {share:>6.1} %  {:>8.3}  {:>5}  {:>7.2}  {:>7.1}  {}",
                row.ms, row.calls, row.megabytes, row.gflops_per_second, row.name
            )?;
        }
    }
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
