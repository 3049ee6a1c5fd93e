//! The command line: one file per command. The only place that prints.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::engine::default_threads;
use crate::error::{Error, Result};
use crate::files::read_limited;
use crate::model::Library;

mod bench;
mod boards;
mod models;
mod noise;
mod onnx;
mod plot;
mod process;
mod progress;
mod run;
mod sample;
mod schedule;
mod screen;
mod service;
mod show;
mod signals;
mod test_card;
mod wall;

/// Paints new pictures out of noise with a small diffusion model.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Without a command, driftglass paints one picture: `driftglass --seed 7` is \
                  `driftglass sample --seed 7`.\n\n\
                  Exit codes: 0 done; 1 a file, a model or a value does not fit, one sentence on \
                  stderr says which; 2 an option cannot be read; 3 a check ran and did not pass.",
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    sample: sample::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Paint pictures (also what happens without a command).
    Sample(Box<sample::Args>),
    /// Paint one picture after the other on a panel, until Ctrl-C or a service manager ends it.
    Run(Box<run::Args>),
    /// Show a picture file on a panel.
    Show(show::Args),
    /// Draw a test card on a panel, and say what to do about what is wrong with it.
    TestCard(test_card::Args),
    /// List, show, detect and check boards and panels.
    #[command(subcommand)]
    Boards(boards::Command),
    /// Destroy a picture step by step: the forward process, as a strip or an animation.
    Noise(noise::Args),
    /// List, show and check the model packages.
    #[command(subcommand)]
    Models(models::Command),
    /// Print and plot a noise schedule at any shortening.
    Schedule(schedule::Args),
    /// Measure a model: time per step, memory, load time, where the time goes.
    Bench(bench::Args),
    /// Inspect, run and time any ONNX graph.
    #[command(subcommand)]
    Onnx(onnx::Command),
}

/// Where packages are looked for; shared by the commands that open one.
#[derive(Debug, clap::Args)]
struct LibraryArgs {
    /// A folder of model packages, searched first [env: DRIFTGLASS_MODELS]
    #[arg(long = "models", value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// How a network is evaluated; shared by the commands that evaluate one.
#[derive(Debug, clap::Args)]
struct EngineArgs {
    /// Threads of one evaluation, 1 to 256; what is computed does not depend on it
    #[arg(long, value_name = "N", default_value_t = default_threads(), value_parser = threads)]
    threads: usize,
}

impl LibraryArgs {
    fn library(&self) -> Result<Library> {
        let folder = searched_first(
            &self.folder,
            "DRIFTGLASS_MODELS",
            "a folder of model packages",
        )?;
        Ok(Library::new(folder))
    }
}

/// The folder of an option, or else of an environment variable, which must be there if it is named.
fn searched_first(
    option: &Option<PathBuf>,
    variable: &str,
    expected: &str,
) -> Result<Option<PathBuf>> {
    let from_env = || std::env::var_os(variable).map(PathBuf::from);
    let folder = option.clone().or_else(from_env);
    match folder.as_ref().filter(|folder| !folder.is_dir()) {
        None => Ok(folder),
        Some(missing) => Err(Error::unexpected(missing.display(), expected, "none")),
    }
}

/// Runs the command that the arguments name.
///
/// # Errors
///
/// When the command fails; the chain of causes reads as one sentence.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command.unwrap_or(Command::Sample(Box::new(cli.sample))) {
        Command::Sample(args) => sample::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Show(args) => show::run(&args),
        Command::TestCard(args) => test_card::run(&args),
        Command::Boards(command) => boards::run(&command),
        Command::Noise(args) => noise::run(&args),
        Command::Models(command) => models::run(&command),
        Command::Schedule(args) => schedule::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Onnx(command) => onnx::run(&command),
    }
}

/// A check ran and did not pass.
const CHECK_FAILED: u8 = 3;

/// The space between the pictures of a sheet or a strip, and its colour.
const GAP_PX: usize = 4;
const GAP_COLOUR: [u8; 3] = [24, 24, 28];

/// The largest picture file that is read, in bytes.
const MAX_PICTURE_BYTES: u64 = 1 << 26;

/// Reads a picture file, of a size that is still a picture's.
fn read_picture(path: &Path) -> Result<Vec<u8>> {
    read_limited(path, MAX_PICTURE_BYTES)
}

fn seed(text: &str) -> Result<u64, String> {
    if text == "random" {
        // The standard library seeds its hash maps from the system's entropy.
        return Ok(RandomState::new().hash_one(0));
    }
    text.parse()
        .map_err(|_| format!("expected a number below 2^64 or `random`, found {text:?}"))
}

fn threads(text: &str) -> Result<usize, String> {
    let threads = text
        .parse()
        .ok()
        .filter(|threads| (1..=256).contains(threads));
    threads.ok_or_else(|| format!("expected 1 to 256, found {text:?}"))
}

/// Prints `value` as indented JSON.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}
