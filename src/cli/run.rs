//! `driftglass run`: the frame, which paints one picture after the other by itself.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::wall::{BoardArgs, Wall};
use super::{LibraryArgs, seed, signals, threads};
use crate::board::panel::Kind;
use crate::config::{Config, PLACES};
use crate::display::emergence::Style;
use crate::engine::default_threads;
use crate::error::Result;
use crate::kiosk::painter::{ModelPainter, Order};
use crate::kiosk::{Event, Kiosk, Settings, SystemClock};
use crate::model::Precision;

/// `driftglass run`. What an option does not say, the owner's file says; what that does not say,
/// the board's.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The owner's file [default: /boot/firmware/driftglass.toml or /etc/driftglass/config.toml,
    /// the first that is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The panel, by name or by its file's path [default: detected]
    #[arg(long, value_name = "PANEL")]
    panel: Option<String>,

    #[command(flatten)]
    boards: BoardArgs,

    /// A package's name, or the path of its folder [default: the board's]
    #[arg(long)]
    model: Option<String>,

    #[command(flatten)]
    library: LibraryArgs,

    /// Which of the model's files: fp32, fp16 or int8 [default: the board's]
    #[arg(long)]
    precision: Option<Precision>,

    /// The first picture's seed; the others follow it [default: random]
    #[arg(long, value_parser = seed)]
    seed: Option<u64>,

    /// Kept steps [default: the board's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    steps: Option<u64>,

    /// Threads of one evaluation, 1 to 256 [default: the board's]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,

    /// How long a finished picture hangs, in seconds [default: 60]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=31_622_400))]
    hold: Option<u64>,

    /// What is seen while it paints: x0, x-t, wipe or none [default: x0]
    #[arg(long, value_name = "STYLE")]
    emergence: Option<Style>,

    /// End after this many pictures [default: never]
    #[arg(long, value_name = "N")]
    pictures: Option<u64>,

    /// Say nothing but what is wrong
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.config()?;
    let stop = signals::stop()?;
    let library = args.boards.library()?;
    let wall = Wall::find(&library, config.board.as_deref(), config.panel.as_deref())?;
    let taken = wall.panel.kind() == Kind::Terminal && std::io::stderr().is_terminal();
    let say = |line: String| {
        if !taken {
            eprintln!("driftglass: {line}");
        }
    };
    let log = |line: String| {
        if !args.quiet {
            say(line);
        }
    };
    log(format!(
        "board: {}, because {}",
        wall.board.name, wall.board_because
    ));
    log(format!(
        "panel: {}, because {}",
        wall.panel.name, wall.panel_because
    ));
    let lit = wall.stage(config.mount, config.correction)?;
    let mut painter = ModelPainter::new(order(&config, &wall, args)?);
    let mut report = |event| match said(&event) {
        (Tone::News, line) => log(line),
        (Tone::Fault, line) => say(line),
    };
    Kiosk {
        painter: &mut painter,
        stage: &lit.stage,
        clock: &SystemClock::default(),
        stop: &stop,
        keys: &|| lit.key(),
        report: &mut report,
    }
    .run(&settings(&config, args)?);
    if args.pictures.is_some() && !stop() {
        lit.finish()?;
    }
    lit.close()?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// The owner's file, with what the options change.
    fn config(&self) -> Result<Config> {
        let usual = || PLACES.iter().map(Path::new).find(|path| path.is_file());
        let mut config = match self.config.as_deref().or_else(usual) {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        let board = &self.boards.board;
        config.board = board.clone().or(config.board);
        config.panel = self.panel.clone().or(config.panel);
        config.model = self.model.clone().or(config.model);
        config.precision = self.precision.or(config.precision);
        config.first_seed = self.seed.or(config.first_seed);
        config.steps = self.steps.map(|steps| steps as usize).or(config.steps);
        config.threads = self.threads.or(config.threads);
        config.hold_s = self.hold.or(config.hold_s);
        config.emergence = self.emergence.unwrap_or(config.emergence);
        Ok(config)
    }
}

fn order(config: &Config, wall: &Wall, args: &Args) -> Result<Order> {
    let board = &wall.board.paint;
    let model = config.model.clone().unwrap_or_else(|| board.model.clone());
    // What a board says of precision and steps, it says of its own model.
    let own = model == board.model;
    Ok(Order {
        library: args.library.library()?,
        precision: config.precision.or(own.then_some(board.precision)),
        steps: config.steps.or(own.then_some(board.steps)),
        class: config.class.clone(),
        threads: config
            .threads
            .or(board.threads)
            .unwrap_or_else(default_threads),
        model,
    })
}

fn settings(config: &Config, args: &Args) -> anyhow::Result<Settings> {
    let by_lot = || seed("random").map_err(anyhow::Error::msg);
    Ok(Settings {
        first_seed: config.first_seed.map_or_else(by_lot, Ok)?,
        hold: config.hold(),
        emergence: config.emergence,
        captions: config.captions.clone(),
        progress_line: config.progress_line,
        pictures: args.pictures,
    })
}

enum Tone {
    News,
    Fault,
}

fn said(event: &Event) -> (Tone, String) {
    match event {
        Event::Painted { seed, took } => (
            Tone::News,
            format!("seed {seed} painted in {:.1} s", took.as_secs_f64()),
        ),
        Event::PanelWorks(panel) => {
            let [width, height] = panel.size_px;
            (Tone::News, format!("{panel} shows {width}x{height} pixels"))
        }
        Event::PanelFails(sentence) => (Tone::Fault, format!("panel: {sentence}")),
        Event::Failed { sentence, again } => {
            let again = again.as_secs();
            (
                Tone::Fault,
                format!("no picture: {sentence}; the next is tried in {again} s"),
            )
        }
    }
}
