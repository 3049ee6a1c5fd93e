//! Where pictures hang: a board and a panel, named or detected.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::searched_first;
use crate::board::detect::System;
use crate::board::panel::Kind;
use crate::board::{Board, Library, Opened, Panel};
use crate::display::scene::{Composer, Scene};
use crate::display::stage::{Patience, Stage};
use crate::display::window::Key;
use crate::display::{Damage, Frame, Pace, correction, mount};
use crate::error::Result;

/// How often a picture that only hangs looks whether it is to be taken down.
const TICK: Duration = Duration::from_millis(100);

/// How often a panel is shown its picture again, to find out that it was switched off and on.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How long a panel may take to come to an end: one that is in the middle of a slow refresh is
/// left to finish it, since half of one stays on the glass for ever.
const LIVE_END: Duration = Duration::from_secs(1);
const SLOW_END: Duration = Duration::from_secs(60);

/// How long the last picture may take to be shown: a slow panel may have to rest first.
const LAST_PICTURE: Duration = Duration::from_secs(600);

/// A panel that failed so often in a row is not waited for.
const FAILURES_MAX: u32 = 2;

/// Which board, and where boards and panels are looked for.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct BoardArgs {
    /// The board, by name or by its file's path [default: detected]
    #[arg(long, value_name = "BOARD")]
    pub board: Option<String>,

    /// A folder of boards, with panels in its folder `panels`, searched first
    /// [env: DRIFTGLASS_BOARDS]
    #[arg(long = "boards", value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl BoardArgs {
    /// The files of boards and panels.
    pub fn library(&self) -> Result<Library> {
        let folder = searched_first(&self.folder, "DRIFTGLASS_BOARDS", "a folder of boards")?;
        Ok(Library::new(folder))
    }
}

/// A board and a panel on it.
#[derive(Debug, Clone)]
pub struct Wall {
    /// The board.
    pub board: Board,
    /// Why it is that one.
    pub board_because: String,
    /// The panel.
    pub panel: Panel,
    /// Why it is that one.
    pub panel_because: String,
}

/// A stage, and the keys of its panel where it has any.
pub struct LitStage {
    /// The panel on its thread.
    pub stage: Stage<Scene>,
    /// Whether the panel is the terminal, where nothing else may be written.
    pub is_terminal: bool,
    keys: Keys,
}

/// The keys of a panel, which has others each time it is opened.
type Keys = Arc<Mutex<Option<Receiver<Key>>>>;

impl Wall {
    /// The board and the panel of these names; what has none is detected.
    pub fn find(library: &Library, board: Option<&str>, panel: Option<&str>) -> Result<Self> {
        let system = System::default();
        let asked = || "it was asked for".to_owned();
        let (board, board_because) = match board {
            Some(name) => (library.board(name)?, asked()),
            None => {
                let found = system.board(library)?;
                (library.board(&found.name)?, found.because)
            }
        };
        let (panel, panel_because) = match panel {
            Some(name) => (library.panel(name)?, asked()),
            None => {
                let found = system.panel(desktop().as_deref());
                (library.panel(&found.name)?, found.because)
            }
        };
        Ok(Self {
            board,
            board_because,
            panel,
            panel_because,
        })
    }

    fn composer(&self, mount: mount::Facts, correction: correction::Facts) -> Result<Composer> {
        Composer::new(
            mount.or(self.panel.mount),
            correction.or(self.panel.correction),
        )
    }

    fn open(&self) -> Result<Opened> {
        let roots = System::default().roots();
        let env = |name: &str| std::env::var(name).ok();
        crate::board::open(&self.panel, &self.board, &roots, &env)
    }

    /// The panel on its own thread; what `mount` and `correction` leave open is the panel's own.
    pub fn stage(&self, mount: mount::Facts, correction: correction::Facts) -> Result<LitStage> {
        let mut composer = self.composer(mount, correction)?;
        let keys = Keys::default();
        let (wall, pressed) = (self.clone(), keys.clone());
        let open = move || {
            let opened = wall.open()?;
            *pressed.lock().unwrap_or_else(PoisonError::into_inner) = opened.keys;
            Ok(opened.display)
        };
        let compose = move |scene: &Scene, frame: &mut Frame| composer.draw(scene, frame);
        let stage = Stage::new(Box::new(open), Box::new(compose), Patience::default());
        Ok(LitStage {
            stage,
            is_terminal: self.panel.kind() == Kind::Terminal,
            keys,
        })
    }

    /// Shows what `draw` draws, at once and with its errors, and leaves it for `hold`, or until
    /// `stop`; without a `hold`, until `stop` where it would vanish with the program.
    pub fn hang(
        &self,
        mount: mount::Facts,
        draw: &mut dyn FnMut(&mut Composer, &mut Frame),
        hold: Option<Duration>,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut composer = self.composer(mount, correction::Facts::default())?;
        let Opened { mut display, keys } = self.open()?;
        let mut show = |damage| {
            let [width_px, height_px] = display.info().size_px;
            let mut frame = Frame::new(width_px, height_px);
            draw(&mut composer, &mut frame);
            display.show(&frame, damage)
        };
        show(Damage::All)?;
        let start = Instant::now();
        let vanishes = self.panel.kind().vanishes();
        let hold = hold.unwrap_or(if vanishes {
            Duration::MAX
        } else {
            Duration::ZERO
        });
        let mut last = start;
        while start.elapsed() < hold && !stop() {
            let key = keys.as_ref().and_then(|keys| keys.try_recv().ok());
            if key == Some(Key::Close) {
                break;
            }
            if vanishes && last.elapsed() >= KEEP_ALIVE {
                show(Damage::Changed)?;
                last = Instant::now();
            }
            std::thread::sleep(TICK.min(hold.saturating_sub(start.elapsed())));
        }
        Ok(())
    }
}

impl LitStage {
    /// What somebody in front of the panel asked for.
    pub fn key(&self) -> Option<Key> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.as_ref().and_then(|keys| keys.try_recv().ok())
    }

    /// Waits until the last picture is on the glass; not for a panel that keeps failing.
    pub fn finish(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let waited = self.stage.finish(KEEP_ALIVE);
            let failing = self.stage.status().failures >= FAILURES_MAX;
            if waited.is_ok() || failing || start.elapsed() > LAST_PICTURE {
                return waited;
            }
        }
    }

    /// Closes the panel, which may finish what it is doing.
    pub fn close(self) -> Result<()> {
        let end = self.end();
        self.stage.close(end)
    }

    fn end(&self) -> Duration {
        match self.stage.status().panel.map(|panel| panel.pace) {
            Some(Pace::Live) => LIVE_END,
            _ => SLOW_END,
        }
    }
}

/// The variable that says that there is a desktop, with its value.
pub fn desktop() -> Option<String> {
    let variable = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
        Some(format!("{name}={value}"))
    };
    variable("WAYLAND_DISPLAY").or_else(|| variable("DISPLAY"))
}
