//! `driftglass test-card`: what a panel shows, and what to do where it is wrong.

use std::io::Write;
use std::process::ExitCode;

use super::show::PanelArgs;
use super::signals;
use crate::display::Frame;
use crate::display::mount;
use crate::display::scene::Composer;
use crate::display::test_card::advice;

/// `driftglass test-card`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    panel: PanelArgs,

    /// Print nothing
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let stop = signals::stop()?;
    let wall = args.panel.wall()?;
    if !args.quiet {
        // Before the card: a terminal that is the panel has no room beside it.
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "panel: {}, because {}",
            wall.panel.name, wall.panel_because
        )?;
        writeln!(
            out,
            "What is wrong with the card, and what to set in the panel's file:"
        )?;
        for advice in advice() {
            writeln!(out, "- {}:\n  {}", advice.symptom, advice.remedy)?;
        }
    }
    let mut draw = |composer: &mut Composer, frame: &mut Frame| composer.draw_test_card(frame);
    wall.hang(mount::Facts::default(), &mut draw, args.panel.hold(), &stop)?;
    Ok(ExitCode::SUCCESS)
}
