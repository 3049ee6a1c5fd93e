//! What a person watches: the picture emerging, the progress, where the files are.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::progress::Progress;
use crate::display::terminal::{Method, Output, Size, Terminal};
use crate::picture::Picture;

/// The part of the time that drawing may take; what does not fit is not drawn.
const DRAWING_SHARE: f64 = 0.02;

/// Progress goes to stderr, so that stdout holds nothing but the paths.
pub struct Screen {
    terminal: Option<Terminal>,
    /// The time spent on drawing the present picture.
    drawing: Duration,
}

impl Screen {
    /// The terminal behind stderr, if there is one.
    pub fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let output = if is_terminal {
            Output::Terminal
        } else {
            Output::Other
        };
        let method = Method::detect(output, |name| std::env::var(name).ok());
        let size = Size::of(std::io::stderr());
        let terminal = Terminal::new(method, size).with_image_id(std::process::id());
        Self {
            terminal: Some(terminal),
            drawing: Duration::ZERO,
        }
    }

    /// Nobody watches.
    pub fn silent() -> Self {
        Self {
            terminal: None,
            drawing: Duration::ZERO,
        }
    }

    /// Whether a picture handed to [`Screen::show`] now would be drawn.
    pub fn shows(&self, progress: &Progress) -> bool {
        let method = self.terminal.as_ref().map(Terminal::method);
        let draws = matches!(
            method,
            Some(Method::Kitty | Method::Sixel | Method::HalfBlocks(_))
        );
        let last = progress.index == progress.count;
        draws && (last || self.drawing <= progress.elapsed.mul_f64(DRAWING_SHARE))
    }

    /// Draws the picture and the progress. A terminal that goes away does not stop the painting.
    pub fn show(&mut self, picture: Option<&Picture>, progress: &Progress) {
        let last = progress.index == progress.count;
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        let mut out = std::io::stderr().lock();
        terminal.resize(Size::of(&out));
        let shown = if terminal.method() == Method::Log {
            progress
                .plain()
                .map_or(Ok(()), |line| writeln!(out, "{line}"))
        } else if picture.is_some() || terminal.method() == Method::Line || last {
            let start = Instant::now();
            let shown = terminal.show(&mut out, picture, &progress.line(terminal.columns()));
            self.drawing += start.elapsed();
            shown
        } else {
            Ok(())
        };
        if shown.is_err() {
            self.terminal = None;
        }
    }

    /// Leaves what is drawn where it is and says where a file went.
    pub fn say(&mut self, path: &Path) -> std::io::Result<()> {
        self.drawing = Duration::ZERO;
        if let Some(terminal) = &mut self.terminal {
            terminal.leave();
        }
        writeln!(std::io::stdout().lock(), "{}", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::terminal::Colours;

    fn progress(index: usize) -> Progress {
        let per_step = Duration::from_millis(10);
        Progress {
            index,
            count: 50,
            elapsed: per_step * index as u32,
            per_step,
        }
    }

    #[test]
    fn drawing_never_takes_more_than_its_share() {
        let method = Method::HalfBlocks(Colours::True);
        let mut screen = Screen {
            terminal: Some(Terminal::new(method, Size::default())),
            drawing: Duration::ZERO,
        };
        assert!(screen.shows(&progress(1)));
        // One slow frame, and the next ones wait until fifty times as much time has passed.
        screen.drawing = Duration::from_millis(3);
        assert!(!screen.shows(&progress(2)));
        assert!(!screen.shows(&progress(14)));
        assert!(screen.shows(&progress(15)));
        screen.drawing = Duration::from_secs(9);
        assert!(
            screen.shows(&progress(50)),
            "the finished picture is always drawn"
        );
    }

    #[test]
    fn nobody_watching_is_shown_nothing() {
        assert!(!Screen::silent().shows(&progress(50)));
    }
}
