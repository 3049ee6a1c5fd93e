//! `driftglass noise`: the forward process, a picture being destroyed.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::value_parser;
use ndarray::Axis;

use super::plot::{Plot, Scale, Series};
use super::{GAP_COLOUR, GAP_PX, LibraryArgs, read_picture, seed};
use crate::diffusion::schedule::Schedule;
use crate::diffusion::timesteps::{Spacing, Timesteps};
use crate::diffusion::{forward, noise};
use crate::files::{create_folder, folder_of, write_whole};
use crate::picture::Picture;

/// The largest side of a frame, in pixels; a larger picture is scaled down.
const MAX_SIDE_PX: usize = 256;

/// `driftglass noise`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The picture (PNG)
    file: PathBuf,

    /// The schedule of this model; without, the cosine schedule of 1000 steps
    #[arg(long)]
    model: Option<String>,

    #[command(flatten)]
    library: LibraryArgs,

    /// Pictures on the way from the clean one to pure noise, 2 to 100
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u8).range(2..=100))]
    steps: u8,

    /// The seed of the noise, a number or `random`
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// Where to write; an animation if it ends in .apng, else a strip
    #[arg(long, value_name = "FILE", default_value = "pictures/noise.png")]
    out: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let extension = args.out.extension().map(OsStr::to_ascii_lowercase);
    let place = args.out.display();
    let animated = match extension.as_deref().and_then(OsStr::to_str) {
        Some("apng") => true,
        Some("png") => false,
        _ => bail!("{place}: expected a .png or an .apng file, found another ending"),
    };
    create_folder(folder_of(&args.out))?;
    let schedule = match &args.model {
        Some(model) => args.library.library()?.open(model)?.manifest().schedule()?,
        None => Schedule::cosine(1000)?,
    };
    let bytes = read_picture(&args.file)?;
    let picture = Picture::decode_png(args.file.display(), &bytes)?;
    let timesteps = Timesteps::new(&schedule, &Spacing::Linspace, args.steps.into())?;
    let frames = destroy(&picture, &timesteps, args.seed);
    let file = if animated {
        let (frame, last) = (Duration::from_millis(120), Duration::from_secs(2));
        Picture::encode_apng(&frames, frame, last, &[])
    } else {
        Picture::contact_sheet(&frames, frames.len(), GAP_PX, GAP_COLOUR).encode_png(&[])
    };
    write_whole(&args.out, &file)?;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", plot(&schedule))?;
    writeln!(out, "{}", args.out.display())?;
    Ok(ExitCode::SUCCESS)
}

/// The picture, then x_t at every kept step, t rising: the same noise, more and more of it.
fn destroy(picture: &Picture, timesteps: &Timesteps, seed: u64) -> Vec<Picture> {
    let (width, height) = (picture.width_px(), picture.height_px());
    let largest = width.max(height);
    let scale = |side: usize| (side * MAX_SIDE_PX).div_ceil(largest).max(1);
    let picture = match largest > MAX_SIDE_PX {
        true => picture.fitted(scale(width), scale(height)),
        false => picture.clone(),
    };
    let x0 = picture.to_tensor(3).insert_axis(Axis(0));
    let epsilon = noise::start(seed, x0.dim());
    let noised = timesteps.as_slice().iter().rev().map(|kept| {
        let mut x = x0.clone();
        forward::jump(x.view_mut(), kept.alpha_cumprod, epsilon.view());
        Picture::from_tensor(x.index_axis(Axis(0), 0))
    });
    std::iter::once(picture.clone()).chain(noised).collect()
}

/// ᾱ of the whole schedule.
fn plot(schedule: &Schedule) -> String {
    let all = schedule.alphas_cumprod().iter().enumerate();
    let all: Vec<(f64, f64)> = all.map(|(t, &alpha)| (t as f64, alpha)).collect();
    let series = [Series {
        label: "ᾱ",
        points: &all,
    }];
    let (x_label, scale) = ("t", Scale::Linear);
    Plot {
        title: "ᾱ_t, the part of the picture's variance that is left",
        x_label,
        scale,
        series: &series,
        columns: 72,
        rows: 12,
    }
    .render()
}
