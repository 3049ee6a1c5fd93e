//! `driftglass run`: the frame, which paints one picture after the other by itself.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::service::Service;
use super::wall::{BoardArgs, LitStage, Wall};
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
    let stop = signals::stop()?;
    let clock = SystemClock::default();
    let env = |name: &str| std::env::var(name).ok();
    let service = RefCell::new(Service::new(&clock, &env)?);
    let Frame {
        config,
        wall,
        lit,
        order,
        fault,
    } = args.frame()?;
    let taken = wall.panel.kind() == Kind::Terminal && std::io::stderr().is_terminal();
    let say = |line: &str| {
        if !taken {
            eprintln!("driftglass: {line}");
        }
    };
    let log = |line: &str| {
        if !args.quiet {
            say(line);
        }
    };
    if let Some(fault) = &fault {
        say(&format!("settings ignored: {fault}"));
    }
    let (board, panel) = (&wall.board.name, &wall.panel.name);
    log(&format!("board: {board}, because {}", wall.board_because));
    log(&format!("panel: {panel}, because {}", wall.panel_because));
    let mut painter = ModelPainter::new(order);
    let mut report = |event| {
        let (tone, line) = said(&event);
        match tone {
            Tone::News => log(&line),
            Tone::Fault => say(&line),
        }
        service.borrow_mut().hear(&event, &line);
    };
    Kiosk {
        painter: &mut painter,
        stage: &lit.stage,
        clock: &clock,
        stop: &stop,
        keys: &|| lit.key(),
        report: &mut report,
        beat: &mut |beat| service.borrow_mut().beat(beat),
    }
    .run(&settings(&config, args, fault)?);
    service.borrow().stopping();
    if args.pictures.is_some() && !stop() {
        lit.finish()?;
    }
    lit.close()?;
    Ok(ExitCode::SUCCESS)
}

/// All that the loop needs, from the settings that hold.
struct Frame {
    config: Config,
    wall: Wall,
    lit: LitStage,
    order: Order,
    /// Why they are not the owner's.
    fault: Option<String>,
}

impl Args {
    /// The frame of the owner's file. One that does not hold, and that nobody named, is no reason
    /// for a dark panel: board and panel are taken from it if they can be, or else detected.
    fn frame(&self) -> anyhow::Result<Frame> {
        let found = PLACES.iter().map(Path::new).find(|path| path.is_file());
        let (Some(path), None) = (found, &self.config) else {
            let config = self.config.as_deref().map(Config::read).transpose()?;
            return self.frame_of(config.unwrap_or_default());
        };
        let fault = match Config::read(path).map(|config| self.frame_of(config)) {
            Ok(Ok(frame)) => return Ok(frame),
            Ok(Err(fault)) => fault,
            Err(fault) => fault.into(),
        };
        let frame = self
            .frame_of(Config::carrier(path))
            .or_else(|_| self.frame_of(Config::default()))?;
        Ok(Frame {
            fault: Some(format!("{fault:#}")),
            ..frame
        })
    }

    fn frame_of(&self, config: Config) -> anyhow::Result<Frame> {
        let config = self.over(config);
        let library = self.boards.library()?;
        let wall = Wall::find(&library, config.board.as_deref(), config.panel.as_deref())?;
        let order = order(&config, &wall, self)?;
        // Last, since it opens the panel.
        let lit = wall.stage(config.mount, config.correction)?;
        Ok(Frame {
            config,
            wall,
            lit,
            order,
            fault: None,
        })
    }

    /// What the options say goes before what the file says.
    fn over(&self, mut config: Config) -> Config {
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
        config
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
        guidance: config.guidance,
        threads: config
            .threads
            .or(board.threads)
            .unwrap_or_else(default_threads),
        model,
    })
}

fn settings(config: &Config, args: &Args, fault: Option<String>) -> anyhow::Result<Settings> {
    let by_lot = || seed("random").map_err(anyhow::Error::msg);
    Ok(Settings {
        first_seed: config.first_seed.map_or_else(by_lot, Ok)?,
        hold: config.hold(),
        emergence: config.emergence,
        captions: config.captions.clone(),
        progress_line: config.progress_line,
        pictures: args.pictures,
        fault,
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
