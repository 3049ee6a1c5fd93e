//! `driftglass boards`: what there is, which this is, and what fits.

use std::io::Write;
use std::process::ExitCode;

use super::CHECK_FAILED;
use super::wall::{BoardArgs, Wall, desktop};
use crate::board::check::check;
use crate::board::detect::{Missing, System};
use crate::board::{Library, Verdict};

/// `driftglass boards`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the boards.
    List(Args),
    /// List the panels.
    Panels(Args),
    /// Print the file of a board or a panel: the facts, and where they are from.
    Show(Show),
    /// Say which board and panel this is, why, and what its system lacks.
    Detect(Detect),
    /// Check whether a panel can be wired to a board: every pair, or those that are named.
    Check(Check),
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    boards: BoardArgs,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    /// A board's or a panel's name
    name: String,

    #[command(flatten)]
    boards: BoardArgs,
}

#[derive(Debug, clap::Args)]
pub struct Detect {
    /// The panel that is to be used [default: detected]
    panel: Option<String>,

    #[command(flatten)]
    boards: BoardArgs,
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// A board's name, or a file [default: all]
    #[arg(value_name = "BOARD")]
    checked: Option<String>,

    /// A panel's name, or a file [default: all]
    panel: Option<String>,

    #[command(flatten)]
    boards: BoardArgs,
}

pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(&args.boards.library()?),
        Command::Panels(args) => panels(&args.boards.library()?),
        Command::Show(args) => {
            let text = args.boards.library()?.text(&args.name)?;
            write!(std::io::stdout().lock(), "{text}")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Detect(args) => detect(args),
        Command::Check(args) => check_all(args),
    }
}

fn list(library: &Library) -> anyhow::Result<ExitCode> {
    let boards = library.boards()?;
    let width = boards.keys().map(String::len).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for (name, board) in boards {
        let memory = board.ram_mib.map(|mib| format!(", {mib} MiB"));
        let cores = board.cores.map(|cores| format!("{cores} x "));
        writeln!(
            out,
            "{name:width$}  tier {}  {}: {}{}{}",
            board.tier,
            board.name,
            cores.unwrap_or_default(),
            board.cpu,
            memory.unwrap_or_default()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn panels(library: &Library) -> anyhow::Result<ExitCode> {
    let panels = library.panels()?;
    let width = panels.keys().map(String::len).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for (name, panel) in panels {
        let kind = panel.kind().to_string();
        writeln!(
            out,
            "{name:width$}  tier {}  {kind:8}  {}",
            panel.tier, panel.name
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn detect(args: &Detect) -> anyhow::Result<ExitCode> {
    let library = args.boards.library()?;
    let wall = Wall::find(
        &library,
        args.boards.board.as_deref(),
        args.panel.as_deref(),
    )?;
    let system = System::default();
    let mut out = std::io::stdout().lock();
    let model = system.model().map(|model| format!(" ({model})"));
    writeln!(
        out,
        "board: {}{}, because {}",
        wall.board.name,
        model.unwrap_or_default(),
        wall.board_because
    )?;
    writeln!(
        out,
        "panel: {}, because {}",
        wall.panel.name, wall.panel_because
    )?;
    for line in wall.board.setup.iter().chain(&wall.panel.setup) {
        writeln!(out, "once: {line}")?;
    }
    let missing = system.missing(&wall.board, &wall.panel, desktop().is_some());
    if missing.is_empty() {
        writeln!(out, "nothing is missing")?;
        return Ok(ExitCode::SUCCESS);
    }
    for Missing { what, mend } in missing {
        writeln!(out, "missing: {what}")?;
        if !mend.is_empty() {
            writeln!(out, "    mend: {mend}")?;
        }
    }
    Ok(ExitCode::from(CHECK_FAILED))
}

fn check_all(args: &Check) -> anyhow::Result<ExitCode> {
    let library = args.boards.library()?;
    let boards = match &args.checked {
        Some(name) => vec![(name.clone(), library.board(name)?)],
        None => library.boards()?.into_iter().collect(),
    };
    let panels = match &args.panel {
        Some(name) => vec![(name.clone(), library.panel(name)?)],
        None => library.panels()?.into_iter().collect(),
    };
    let (mut fit, mut impossible, mut wrong) = (0, 0, 0);
    let mut out = std::io::stdout().lock();
    for (board_name, board) in &boards {
        for (panel_name, panel) in &panels {
            let pair = format!("{board_name} + {panel_name}");
            match check(board, panel) {
                Ok(Verdict::Fits) => {
                    fit += 1;
                    writeln!(out, "{pair}: fits")?;
                }
                Ok(Verdict::Impossible(because)) => {
                    impossible += 1;
                    writeln!(out, "{pair}: impossible, {because}")?;
                }
                Err(error) => {
                    wrong += 1;
                    writeln!(out, "{pair}: WRONG, {error}")?;
                }
            }
        }
    }
    writeln!(
        out,
        "{fit} fit, {impossible} are impossible, {wrong} are wrong"
    )?;
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(CHECK_FAILED)
    })
}
