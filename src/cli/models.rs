//! `driftglass models`: which packages there are, and whether they keep their word.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::process::megabytes;
use super::{CHECK_FAILED, EngineArgs, LibraryArgs, print_json, read_picture};
use crate::diffusion::guidance;
use crate::error::Result;
use crate::model::{Library, Manifest, Package, Precision};
use crate::picture::Picture;
use crate::pipeline::check::{Elbo, Replay, elbo, replay};

/// `driftglass models`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The packages that are found, one line each
    List(ListArgs),
    /// Everything a package says of itself
    Show(ShowArgs),
    /// Replay a package's reference trajectory in every precision and print the error
    ///
    /// The trajectory was walked by PyTorch on the trainer's machine. This is how an owner knows
    /// that this board paints what the trainer saw. Exit code 3 when an error is larger than the
    /// manifest promises.
    Check(CheckArgs),
}

/// `driftglass models list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    library: LibraryArgs,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// `driftglass models show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// A package's name, or the path of its folder
    model: String,

    #[command(flatten)]
    library: LibraryArgs,

    /// Print the manifest as JSON
    #[arg(long)]
    json: bool,
}

/// `driftglass models check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// A package's name, or the path of its folder; without one, all packages
    model: Option<String>,

    #[command(flatten)]
    library: LibraryArgs,

    /// Only this precision: fp32, fp16 or int8
    #[arg(long)]
    precision: Option<Precision>,

    #[command(flatten)]
    engine: EngineArgs,

    /// Also the variational bound of these pictures, in bits per dimension
    #[arg(long, value_name = "PICTURE", num_args = 1..)]
    elbo: Vec<PathBuf>,

    /// Kept steps of the bound; all of the schedule's by default
    #[arg(long, value_name = "N", requires = "elbo")]
    elbo_steps: Option<usize>,

    /// The class of the pictures of --elbo, for a conditional model
    #[arg(long, requires = "elbo")]
    class: Option<String>,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Check {
    model: String,
    precision: Precision,
    passed: bool,
    #[serde(flatten)]
    replay: Replay,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    elbo: Vec<PictureElbo>,
}

#[derive(Debug, Serialize)]
struct PictureElbo {
    picture: String,
    #[serde(flatten)]
    elbo: Elbo,
}

pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(args),
        Command::Show(args) => show(args),
        Command::Check(args) => check(args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let packages = open_all(&args.library.library()?)?;
    let (whole, broken): (Vec<_>, Vec<_>) = packages.into_iter().partition(Result::is_ok);
    let whole: Vec<Package> = whole.into_iter().flatten().collect();
    if args.json {
        print_json(&whole.iter().map(Package::manifest).collect::<Vec<_>>())?;
    } else {
        let mut out = std::io::stdout().lock();
        for package in &whole {
            let Manifest {
                name,
                title,
                image,
                files,
                ..
            } = package.manifest();
            let precisions: Vec<String> = files.keys().map(Precision::to_string).collect();
            let (size, place) = (format!("{}x{}", image.width, image.height), package.place());
            writeln!(
                out,
                "{name:<16} {size:>9}  {:<14} {title} ({place})",
                precisions.join(" ")
            )?;
        }
    }
    report(&broken)
}

/// Every package that is found, whole or not.
fn open_all(library: &Library) -> Result<Vec<Result<Package>>> {
    Ok(library
        .names()?
        .iter()
        .map(|name| library.open(name))
        .collect())
}

/// One broken package must not hide the others, and must not be hidden either.
fn report(broken: &[Result<Package>]) -> anyhow::Result<ExitCode> {
    for error in broken.iter().filter_map(|package| package.as_ref().err()) {
        writeln!(std::io::stderr().lock(), "driftglass: {error}")?;
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let package = args.library.library()?.open(&args.model)?;
    let manifest = package.manifest();
    if args.json {
        print_json(manifest)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    let (image, diffusion, defaults) = (manifest.image, &manifest.diffusion, &manifest.defaults);
    writeln!(out, "{}: {}", manifest.name, manifest.title)?;
    writeln!(out, "  from       {}", package.place())?;
    writeln!(
        out,
        "  picture    {}x{}, {} channels",
        image.width, image.height, image.channels
    )?;
    if let Some(classes) = &manifest.classes {
        writeln!(out, "  classes    {}", classes.names.join(", "))?;
    }
    let (schedule, prediction) = (diffusion.schedule, diffusion.prediction);
    writeln!(
        out,
        "  trained    {schedule}, {} steps, {prediction}",
        diffusion.train_timesteps
    )?;
    let (sampler, variance) = (defaults.sampler, defaults.variance);
    let (steps, spacing) = (defaults.steps, &defaults.spacing);
    writeln!(
        out,
        "  sampled    {sampler}, {steps} steps, {spacing}, {variance}, {}",
        defaults.precision
    )?;
    if defaults.guidance != guidance::NONE {
        writeln!(out, "  guidance   {}", defaults.guidance)?;
    }
    if manifest.prior.is_some() {
        writeln!(out, "  prior      the first step draws from it")?;
    }
    let tables = manifest.variance_steps();
    if !tables.is_empty() {
        let tables: Vec<String> = tables.iter().map(usize::to_string).collect();
        writeln!(out, "  analytic   {} steps", tables.join(", "))?;
    }
    for (precision, file) in &manifest.files {
        let size = megabytes(file.bytes);
        let (error, psnr) = (file.max_error, file.final_psnr_db);
        writeln!(
            out,
            "  {:<10} {size}, error {error:.1e}, picture {psnr:.1} dB",
            precision.to_string()
        )?;
    }
    writeln!(out, "  weights    {}", manifest.licence.weights)?;
    writeln!(out, "  data       {}", manifest.licence.data)?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let library = args.library.library()?;
    let packages = match &args.model {
        Some(model) => vec![Ok(library.open(model)?)],
        None => open_all(&library)?,
    };
    let (whole, broken): (Vec<_>, Vec<_>) = packages.into_iter().partition(Result::is_ok);
    let mut checks = Vec::new();
    for package in whole.iter().flatten() {
        let shipped = package.manifest().files.keys().copied();
        let precisions: Vec<Precision> = match args.precision {
            Some(precision) if args.model.is_some() => vec![precision],
            wanted => shipped
                .filter(|shipped| wanted.is_none_or(|p| p == *shipped))
                .collect(),
        };
        for precision in precisions {
            let check = check_one(package, precision, args)?;
            if !args.json {
                print_check(&check)?;
            }
            checks.push(check);
        }
    }
    if args.json {
        print_json(&checks)?;
    }
    let passed = checks.iter().all(|check| check.passed);
    let reported = report(&broken)?;
    Ok(if passed {
        reported
    } else {
        ExitCode::from(CHECK_FAILED)
    })
}

fn check_one(package: &Package, precision: Precision, args: &CheckArgs) -> anyhow::Result<Check> {
    let threads = args.engine.threads;
    let replay = replay(package, precision, threads)?;
    let mut bounds = Vec::new();
    for path in &args.elbo {
        let place = path.display().to_string();
        let bytes = read_picture(path)?;
        let picture = Picture::decode_png(&place, &bytes)?;
        let class = args.class.as_deref();
        let bound = elbo(
            package,
            precision,
            threads,
            &picture,
            class,
            args.elbo_steps,
        )
        .with_context(|| place.clone())?;
        bounds.push(PictureElbo {
            picture: place,
            elbo: bound,
        });
    }
    let model = package.manifest().name.clone();
    Ok(Check {
        model,
        precision,
        passed: replay.passed(),
        replay,
        elbo: bounds,
    })
}

fn print_check(check: &Check) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let Check {
        model,
        precision,
        replay,
        ..
    } = check;
    let verdict = if check.passed { "passed" } else { "FAILED" };
    writeln!(out, "{model} {precision}: {verdict}")?;
    for step in &replay.steps {
        let (t, max, rms) = (step.t, step.max_error, step.rms_error);
        writeln!(
            out,
            "  t {t:>4}  error of the network {max:.2e} at most, {rms:.2e} rms"
        )?;
    }
    let (max, psnr) = (replay.final_max_error, replay.final_psnr_db);
    writeln!(out, "  picture  error {max:.2e} at most, PSNR {psnr:.1} dB")?;
    let (error, psnr) = (replay.max_error_allowed, replay.final_psnr_db_allowed);
    writeln!(
        out,
        "  allowed  {error:.2e} for the network, {psnr:.1} dB for the picture"
    )?;
    for PictureElbo { picture, elbo } in &check.elbo {
        let Elbo {
            prior,
            denoising,
            reconstruction,
            total,
            steps,
        } = elbo;
        writeln!(
            out,
            "  {picture}: {total:.3} bits/dim over {steps} steps \
             (prior {prior:.4}, denoising {denoising:.3}, reconstruction {reconstruction:.3})"
        )?;
    }
    Ok(())
}
