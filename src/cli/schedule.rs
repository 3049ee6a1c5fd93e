//! `driftglass schedule`: β, ᾱ and the signal-to-noise ratio of the kept steps.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::plot::{Plot, Scale, Series};
use super::{LibraryArgs, print_json};
use crate::diffusion::schedule::Schedule;
use crate::diffusion::timesteps::{KeptStep, Spacing, Timesteps};
use crate::model::manifest::ScheduleKind;

/// `driftglass schedule`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The schedule of this model instead of a named one
    #[arg(long, conflicts_with_all = ["schedule", "train_timesteps", "beta_start", "beta_end"])]
    model: Option<String>,

    #[command(flatten)]
    library: LibraryArgs,

    /// cosine, linear or scaled-linear
    #[arg(long, default_value = "cosine")]
    schedule: ScheduleKind,

    /// Training steps T
    #[arg(long, value_name = "T", default_value_t = 1000)]
    train_timesteps: usize,

    /// First β of a linear or scaled-linear schedule
    #[arg(long, value_name = "BETA", default_value_t = 1e-4)]
    beta_start: f64,

    /// Last β of a linear or scaled-linear schedule
    #[arg(long, value_name = "BETA", default_value_t = 0.02)]
    beta_end: f64,

    /// Kept steps
    #[arg(long, default_value_t = 50)]
    steps: usize,

    /// Which steps are kept: linspace, leading, leading+1, trailing, ddim, sections,
    /// sections:10,10,30 or explicit:999,500,0
    #[arg(long, default_value = "linspace")]
    spacing: Spacing,

    /// Print the kept steps as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    t: usize,
    beta: f64,
    alpha_cumprod: f64,
    snr: f64,
    posterior_variance: f64,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let schedule = schedule(args)?;
    let steps = args.spacing.steps().unwrap_or(args.steps);
    let timesteps = Timesteps::new(&schedule, &args.spacing, steps)?;
    let rows: Vec<Row> = timesteps.as_slice().iter().map(row).collect();
    if args.json {
        print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:>5}  {:>12}  {:>12}  {:>12}  {:>12}",
        "t", "beta", "alpha_bar", "snr", "beta_tilde"
    )?;
    for Row {
        t,
        beta,
        alpha_cumprod,
        snr,
        posterior_variance,
    } in &rows
    {
        writeln!(
            out,
            "{t:>5}  {beta:>12.6e}  {alpha_cumprod:>12.6e}  {snr:>12.6e}  {posterior_variance:>12.6e}"
        )?;
    }
    write!(out, "\n{}", plots(&rows))?;
    Ok(ExitCode::SUCCESS)
}

fn schedule(args: &Args) -> anyhow::Result<Schedule> {
    if let Some(model) = &args.model {
        return Ok(args.library.library()?.open(model)?.manifest().schedule()?);
    }
    let (start, end) = (args.beta_start, args.beta_end);
    Ok(match args.schedule {
        ScheduleKind::Cosine => Schedule::cosine(args.train_timesteps)?,
        ScheduleKind::Linear => Schedule::linear(args.train_timesteps, start, end)?,
        ScheduleKind::ScaledLinear => Schedule::scaled_linear(args.train_timesteps, start, end)?,
        ScheduleKind::Table => anyhow::bail!("a table of betas belongs to a model: use --model"),
    })
}

fn row(kept: &KeptStep) -> Row {
    Row {
        t: kept.t.0,
        beta: kept.beta(),
        alpha_cumprod: kept.alpha_cumprod,
        snr: kept.alpha_cumprod / (1.0 - kept.alpha_cumprod),
        posterior_variance: kept.posterior().variance,
    }
}

fn plots(rows: &[Row]) -> String {
    let curve = |value: fn(&Row) -> f64| -> Vec<(f64, f64)> {
        rows.iter().map(|row| (row.t as f64, value(row))).collect()
    };
    let curves = [
        (
            "ᾱ: how much of the picture is left",
            "ᾱ",
            Scale::Linear,
            curve(|row| row.alpha_cumprod),
        ),
        (
            "β: how much noise a kept step adds",
            "β",
            Scale::Log,
            curve(|row| row.beta),
        ),
        (
            "SNR: signal to noise",
            "SNR",
            Scale::Log,
            curve(|row| row.snr),
        ),
    ];
    let plots = curves.iter().map(|(title, label, scale, points)| {
        let series = [Series { label, points }];
        let (title, x_label, scale) = (*title, "t", *scale);
        Plot {
            title,
            x_label,
            scale,
            series: &series,
            columns: 72,
            rows: 12,
        }
        .render()
    });
    plots.collect::<Vec<_>>().join("\n")
}
