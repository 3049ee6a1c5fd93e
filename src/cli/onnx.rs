//! `driftglass onnx`: the engine on any ONNX graph.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::value_parser;
use serde::Serialize;

use super::process::{median, megabytes, peak_rss_bytes};
use super::{EngineArgs, print_json};
use crate::engine::{self, Network, Options, Port};
use crate::error::Result;
use crate::files::{read_limited, write_whole};
use crate::npz::{Archive, Array, Compression};

/// The largest ONNX or npz file, in bytes.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// `driftglass onnx`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print a graph's inputs, outputs and operators
    Info(InfoArgs),
    /// Evaluate a graph on arrays from an npz archive
    Run(RunArgs),
    /// Time a graph's evaluation
    Bench(BenchArgs),
}

/// `driftglass onnx info`.
#[derive(Debug, clap::Args)]
pub struct InfoArgs {
    /// The ONNX file
    file: PathBuf,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// `driftglass onnx run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The ONNX file
    file: PathBuf,

    /// One array per input, by the input's name
    #[arg(long, value_name = "NPZ")]
    inputs: PathBuf,

    /// Where to write one array per output, by the output's name
    #[arg(long, value_name = "NPZ")]
    outputs: PathBuf,

    #[command(flatten)]
    engine: EngineArgs,

    /// Multiply in fp16 where the weights are fp16 and the core can: less exact, less to do
    #[arg(long)]
    half: bool,
}

/// `driftglass onnx bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// The ONNX file
    file: PathBuf,

    /// One array per input, by the input's name; without, zeros of the shapes in the file
    #[arg(long, value_name = "NPZ")]
    inputs: Option<PathBuf>,

    #[command(flatten)]
    engine: EngineArgs,

    /// Multiply in fp16 where the weights are fp16 and the core can: less exact, less to do
    #[arg(long)]
    half: bool,

    /// Timed evaluations, after three that are not timed
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Timing {
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    load_ms: f64,
    peak_rss_bytes: Option<u64>,
    threads: usize,
    rounds: u32,
}

pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Info(args) => info(args),
        Command::Run(args) => evaluate(args),
        Command::Bench(args) => bench(args),
    }
}

fn info(args: &InfoArgs) -> anyhow::Result<ExitCode> {
    let bytes = read_limited(&args.file, MAX_FILE_BYTES)?;
    let info = engine::inspect(&bytes, &args.file.display().to_string())?;
    if args.json {
        print_json(&info)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "operator set {}", info.opset)?;
    for (kind, ports) in [("input", &info.inputs), ("output", &info.outputs)] {
        for port in ports {
            writeln!(
                out,
                "{kind:<7} {:<20} {:<8} [{}]",
                port.name,
                port.dtype,
                port.shape.join(", ")
            )?;
        }
    }
    for (op, count) in &info.operators {
        writeln!(out, "{count:>7} {op}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn evaluate(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let arrays = read_arrays(&args.inputs)?;
    let options = Options {
        threads: args.engine.threads,
        half: args.half,
        ..Options::default()
    };
    let mut network = load(&args.file, Some(&arrays), options)?;
    let inputs = inputs_for(&network, Some(&arrays))?;
    let outputs = network.run(&inputs)?;
    let mut archive = Archive::default();
    for (port, array) in network.outputs().iter().zip(outputs) {
        archive.insert(port.name.clone(), array);
    }
    write_whole(&args.outputs, &archive.write(Compression::Deflated))?;
    Ok(ExitCode::SUCCESS)
}

fn bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let arrays = args.inputs.as_deref().map(read_arrays).transpose()?;
    let threads = args.engine.threads;
    let start = Instant::now();
    let options = Options {
        threads,
        half: args.half,
        ..Options::default()
    };
    let mut network = load(&args.file, arrays.as_ref(), options)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let inputs = inputs_for(&network, arrays.as_ref())?;
    for _ in 0..3 {
        network.run(&inputs)?;
    }
    let mut times_ms = Vec::new();
    for _ in 0..args.rounds {
        let start = Instant::now();
        network.run(&inputs)?;
        times_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let timing = Timing {
        median_ms: median(&mut times_ms),
        min_ms: times_ms[0],
        max_ms: times_ms[times_ms.len() - 1],
        load_ms,
        peak_rss_bytes: peak_rss_bytes(),
        threads,
        rounds: args.rounds,
    };
    if args.json {
        print_json(&timing)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Timing {
        median_ms,
        min_ms,
        max_ms,
        ..
    } = timing;
    let memory = timing.peak_rss_bytes.map_or("unknown".into(), megabytes);
    writeln!(
        std::io::stdout().lock(),
        "{median_ms:.3} ms median ({min_ms:.3} to {max_ms:.3}, {} rounds, {threads} threads), \
         loaded in {load_ms:.0} ms, peak memory {memory}",
        args.rounds
    )?;
    Ok(ExitCode::SUCCESS)
}

fn read_arrays(path: &Path) -> Result<Archive> {
    let bytes = read_limited(path, MAX_FILE_BYTES)?;
    Archive::read(path.display(), &bytes, MAX_FILE_BYTES as usize)
}

fn load(file: &Path, arrays: Option<&Archive>, options: Options) -> Result<Network> {
    let bytes = read_limited(file, MAX_FILE_BYTES)?;
    let shapes: BTreeMap<String, Vec<usize>> = match arrays {
        None => BTreeMap::new(),
        Some(arrays) => {
            let named = arrays
                .names()
                .filter_map(|name| Some((name, arrays.get(name)?)));
            named
                .map(|(name, array)| (name.to_owned(), array.shape().to_vec()))
                .collect()
        }
    };
    Network::load_owned(
        bytes,
        &file.display().to_string(),
        &Options { shapes, ..options },
    )
}

fn inputs_for(network: &Network, arrays: Option<&Archive>) -> Result<Vec<Array>> {
    let array = |port: &Port| match arrays {
        Some(arrays) => arrays.require(&port.name).cloned(),
        None => Ok(Array::zeros(port.dtype, &port.shape)),
    };
    network.inputs().iter().map(array).collect()
}
