//! `driftglass show`: a picture file on a panel.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::wall::{BoardArgs, Wall};
use super::{read_picture, signals};
use crate::display::mount::{self, Background, Fit};
use crate::display::scale::Scaler;
use crate::display::scene::{Composer, Scene};
use crate::display::{Frame, Rotation};
use crate::picture::Picture;

/// `driftglass show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A PNG file
    file: PathBuf,

    #[command(flatten)]
    panel: PanelArgs,

    /// How large the picture is: contain, cover, integer or stretch [default: the panel's own]
    #[arg(long)]
    fit: Option<Fit>,

    /// What lies around it: "#rrggbb" or blurred [default: the panel's own]
    #[arg(long)]
    background: Option<Background>,

    /// How it is enlarged [default: the panel's own]
    #[arg(long)]
    scaler: Option<Scaler>,
}

/// Which panel, how it hangs, and for how long; shared with `test-card`.
#[derive(Debug, clap::Args)]
pub struct PanelArgs {
    /// The panel, by name or by its file's path [default: detected]
    #[arg(long, value_name = "PANEL")]
    panel: Option<String>,

    #[command(flatten)]
    boards: BoardArgs,

    /// How far the picture is turned clockwise: 0, 90, 180 or 270 [default: the panel's own]
    #[arg(long, value_name = "DEG", value_parser = rotation)]
    rotation: Option<Rotation>,

    /// How the panel makes the tones between its own, where it does [default: the panel's own]
    #[arg(long, value_name = "NAME")]
    dither: Option<String>,

    /// How long it hangs, in seconds [default: until Ctrl-C where it would vanish with the
    /// program, else not at all]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=31_622_400))]
    hold: Option<u64>,
}

impl PanelArgs {
    /// The board and the panel, hung as asked.
    pub fn wall(&self) -> anyhow::Result<Wall> {
        let library = self.boards.library()?;
        let board = self.boards.board.as_deref();
        let mut wall = Wall::find(&library, board, self.panel.as_deref())?;
        if let Some(rotation) = self.rotation {
            wall.panel.turn(rotation)?;
        }
        if let Some(dither) = &self.dither {
            wall.panel.dither(dither)?;
        }
        Ok(wall)
    }

    /// How long it hangs.
    pub fn hold(&self) -> Option<Duration> {
        self.hold.map(Duration::from_secs)
    }
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let picture = Picture::decode_png(args.file.display(), &read_picture(&args.file)?)?;
    let mount = mount::Facts {
        fit: args.fit,
        background: args.background,
        scaler: args.scaler,
        ..mount::Facts::default()
    };
    let scene = Scene::Picture {
        picture,
        progress: None,
        captions: Vec::new(),
    };
    let stop = signals::stop()?;
    let wall = args.panel.wall()?;
    let mut draw = |composer: &mut Composer, frame: &mut Frame| composer.draw(&scene, frame);
    wall.hang(mount, &mut draw, args.panel.hold(), &stop)?;
    Ok(ExitCode::SUCCESS)
}

fn rotation(text: &str) -> Result<Rotation, String> {
    let degrees = text.parse::<u16>().ok();
    let rotation = degrees.and_then(|degrees| Rotation::try_from(degrees).ok());
    rotation.ok_or_else(|| format!("expected 0, 90, 180 or 270, found {text:?}"))
}
