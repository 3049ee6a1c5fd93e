//! A terminal as a panel: the picture has the whole of it, on the alternate screen.
//!
//! What the terminal showed before comes back when the panel is dropped, by a panic as well. The
//! device is opened for the panel alone and never waited for without a deadline, because a
//! terminal can be stopped (Ctrl-S), or sit behind a connection that hangs.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};

use super::{Colours, Facts, Method, Output, Size, scaled, sixel};
use super::{write_half_block_line, write_kitty};
use crate::display::{Damage, Display, Frame, Pace, PanelInfo, Power, sides};
use crate::error::{Error, Result};
use crate::picture::Picture;

/// How long a terminal may take over a frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to become what it was, when nobody waits for it any more.
const LEAVING_PATIENCE: Duration = Duration::from_millis(500);

/// The longest side of a frame that a terminal gets as a picture: each is compressed and sent
/// whole.
const LONGEST_FRAME_PX: usize = 1024;

/// The longest side of what is printed, whatever the terminal says of itself.
const LONGEST_SIDE_PX: usize = 2048;

/// Makes the whole terminal black, whatever its own background is.
const BLACK: &str = "\x1b[0;40m\x1b[2J\x1b[0m";

/// A terminal that shows nothing but frames.
#[derive(Debug)]
pub struct Panel {
    device: PathBuf,
    tty: File,
    method: Method,
    /// The size of frames, where it does not follow the terminal's.
    fixed_px: Option<[usize; 2]>,
    image_id: u32,
    /// Whether the terminal is on its alternate screen.
    entered: bool,
    /// Whether the last bytes that it got were the beginning of something.
    torn: bool,
    shown: Option<Shown>,
}

/// What the terminal shows, and the size it had then.
#[derive(Debug, PartialEq)]
struct Shown {
    size: Size,
    picture: Picture,
}

impl Panel {
    /// The terminal of these facts, with these environment variables; nothing is drawn yet.
    ///
    /// A panel follows the size of its terminal: ask [`Display::info`] again for each frame. A
    /// frame of another size is scaled.
    ///
    /// # Errors
    ///
    /// When there is no such terminal, it shows no colours, or only one side is given.
    pub fn open(facts: &Facts, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let fixed_px = match (facts.width_px, facts.height_px) {
            (Some(width_px), Some(height_px)) => Some(sides(width_px, height_px)?),
            (None, None) => None,
            _ => {
                let expected = "both sides or neither";
                return Err(Error::unexpected("width-px, height-px", expected, "one"));
            }
        };
        let method = facts.method.method(Output::Terminal, &env);
        if matches!(method, Method::Log | Method::Line) {
            let term = env("TERM").unwrap_or_default();
            let found = if env("NO_COLOR").is_some_and(|value| !value.is_empty()) {
                "NO_COLOR in the environment".to_owned()
            } else {
                format!("TERM={term:?}")
            };
            let expected = "a terminal that shows colours, or a method";
            return Err(Error::unexpected("terminal", expected, found));
        }
        // A description of its own: not to wait must not become a habit of the shell's.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let tty = open(&facts.device, flags, Mode::empty())
            .map_err(|cause| Error::io(&facts.device, "open", cause.into()))?;
        if !rustix::termios::isatty(&tty) {
            let found = "something else";
            return Err(Error::unexpected(
                facts.device.display(),
                "a terminal",
                found,
            ));
        }
        Ok(Self {
            device: facts.device.clone(),
            tty: tty.into(),
            method,
            fixed_px,
            image_id: std::process::id().max(1),
            entered: false,
            torn: false,
            shown: None,
        })
    }

    /// How many pixels there are for a picture.
    fn area_px(&self, size: Size) -> [usize; 2] {
        let [width_px, height_px] = size.cell_px;
        let area = match self.method {
            Method::HalfBlocks(_) | Method::Line | Method::Log => [size.columns, 2 * size.rows],
            Method::Kitty => [size.columns * width_px, size.rows * height_px],
            // The last line stays free and the bands are whole, or the terminal could scroll.
            Method::Sixel => {
                let bands = size.rows.saturating_sub(1).max(1) * height_px / 6;
                [size.columns * width_px, 6 * bands.max(1)]
            }
        };
        area.map(|side| side.min(LONGEST_SIDE_PX / 6 * 6))
    }

    /// The size of the frames that suit a terminal of this size.
    fn frame_px(&self, size: Size) -> [usize; 2] {
        let area = self.area_px(size);
        let divisor = match self.method {
            Method::Kitty | Method::Sixel => area[0].max(area[1]).div_ceil(LONGEST_FRAME_PX),
            Method::HalfBlocks(_) | Method::Line | Method::Log => 1,
        };
        self.fixed_px
            .unwrap_or(area.map(|side| (side / divisor).max(1)))
    }

    /// What brings `picture` to the terminal, where `before` is what it shows.
    fn drawn(&self, picture: &Picture, size: Size, before: Option<&Picture>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let write = |bytes: &mut Vec<u8>| -> io::Result<()> {
            write!(bytes, "{}\x1b[?2026h", self.mend())?;
            if !self.entered {
                write!(bytes, "\x1b[?1049h\x1b[?25l")?;
            }
            if before.is_none() {
                write!(bytes, "{BLACK}")?;
            }
            match self.method {
                Method::Kitty => self.write_kitty(bytes, picture, size)?,
                Method::Sixel => {
                    let cells = [0, 1].map(|axis| {
                        let px = [picture.width_px(), picture.height_px()][axis];
                        px.div_ceil(size.cell_px[axis])
                    });
                    write_place(bytes, size, cells)?;
                    bytes.extend(sixel::encode(picture));
                }
                Method::HalfBlocks(colours) => {
                    write_changed_lines(bytes, picture, size, before, colours)?;
                }
                Method::Line | Method::Log => {}
            }
            write!(bytes, "\x1b[?2026l")
        };
        write(&mut bytes).expect("a vector takes whatever is written");
        bytes
    }

    /// The picture as large as the terminal allows, in its middle.
    fn write_kitty(&self, bytes: &mut Vec<u8>, picture: &Picture, size: Size) -> io::Result<()> {
        let [cell_width, cell_height] = size.cell_px;
        let (width, height) = (picture.width_px(), picture.height_px());
        let area = [size.columns * cell_width, size.rows * cell_height];
        let (place, cells) = if width * area[1] > height * area[0] {
            let rows = (area[0] * height / width).div_ceil(cell_height);
            (format!("c={}", size.columns), [size.columns, rows])
        } else {
            let columns = (area[1] * width / height).div_ceil(cell_width);
            (format!("r={}", size.rows), [columns, size.rows])
        };
        write_place(bytes, size, cells)?;
        write_kitty(bytes, picture, &place, self.image_id)
    }

    /// What ends whatever an error left unfinished: a string, a sequence, an update.
    fn mend(&self) -> &'static str {
        if self.torn { "\x1b\\\x1b[?2026l" } else { "" }
    }

    /// Writes all bytes, or gives up.
    fn send(&mut self, bytes: &[u8], patience: Duration) -> Result<()> {
        let sent = self.try_send(bytes, patience);
        self.torn = sent.is_err();
        sent.map_err(|cause| {
            let found = match cause.kind() {
                ErrorKind::TimedOut => "one that stands still (Ctrl-Q lets it go on)".to_owned(),
                _ => cause.to_string(),
            };
            let expected = "a terminal that takes what is drawn";
            Error::unexpected(self.device.display(), expected, found)
        })
    }

    fn try_send(&mut self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.tty.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => rest = &rest[taken..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    let left = Timespec::try_from(left).ok();
                    let mut waited = [PollFd::from_borrowed_fd(self.tty.as_fd(), PollFlags::OUT)];
                    match poll(&mut waited, left.as_ref()) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What takes a picture off the terminal, other than characters.
    fn erasure(&self) -> String {
        match self.method {
            Method::Kitty => format!("\x1b_Ga=d,d=I,i={},q=2;\x1b\\", self.image_id),
            _ => String::new(),
        }
    }
}

impl Display for Panel {
    fn info(&self) -> PanelInfo {
        let size = Size::of(&self.tty);
        let method = match self.method {
            Method::Kitty => "kitty graphics",
            Method::Sixel => "sixels",
            Method::HalfBlocks(_) | Method::Line | Method::Log => "half blocks",
        };
        PanelInfo {
            name: format!("terminal {}x{}, {method}", size.columns, size.rows),
            size_px: self.frame_px(size),
            pace: Pace::Live,
        }
    }

    /// A frame of any size is shown: the terminal may have changed its own since it was asked.
    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        let size = Size::of(&self.tty);
        let area = self.area_px(size);
        let picture = match self.method {
            // kitty scales by itself.
            Method::Kitty => Picture::from(frame),
            _ => scaled(&Picture::from(frame), area, area[1]),
        };
        let shown = Shown { size, picture };
        let before = self.shown.take().filter(|before| before.size == size);
        let before = before.filter(|_| damage == Damage::Changed);
        if before.as_ref() != Some(&shown) {
            let before = before.map(|before| before.picture);
            let bytes = self.drawn(&shown.picture, size, before.as_ref());
            self.entered = true;
            self.send(&bytes, PATIENCE)?;
        }
        self.shown = Some(shown);
        Ok(())
    }

    /// Off is an empty screen.
    fn power(&mut self, power: Power) -> Result<()> {
        if power == Power::Off && self.entered {
            self.shown = None;
            let bytes = format!("{}{}{BLACK}", self.mend(), self.erasure());
            self.send(bytes.as_bytes(), PATIENCE)?;
        }
        Ok(())
    }
}

impl Drop for Panel {
    fn drop(&mut self) {
        if self.entered {
            let (mend, erasure) = (self.mend(), self.erasure());
            let bytes = format!("{mend}{erasure}\x1b[0m\x1b[2J\x1b[?1049l\x1b[?25h");
            // A terminal that is gone needs nothing.
            let _ = self.send(bytes.as_bytes(), LEAVING_PATIENCE);
        }
    }
}

/// Moves the cursor to where something of `[columns, rows]` stands in the middle.
fn write_place(bytes: &mut Vec<u8>, size: Size, [columns, rows]: [usize; 2]) -> io::Result<()> {
    let row = size.rows.saturating_sub(rows) / 2 + 1;
    let column = size.columns.saturating_sub(columns) / 2 + 1;
    write!(bytes, "\x1b[{row};{column}H")
}

/// Draws the lines that `before` does not have already; without it, all.
fn write_changed_lines(
    bytes: &mut Vec<u8>,
    picture: &Picture,
    size: Size,
    before: Option<&Picture>,
    colours: Colours,
) -> io::Result<()> {
    let lines = picture.height_px().div_ceil(2);
    let side = |picture: &Picture| (picture.width_px(), picture.height_px());
    let before = before.filter(|before| side(before) == side(picture));
    if before.is_none() {
        write!(bytes, "{BLACK}")?;
    }
    let two_rows = 6 * picture.width_px();
    let old = before.map(|before| before.rgb().chunks(two_rows));
    let mut old = old.into_iter().flatten();
    for (line, new) in picture.rgb().chunks(two_rows).enumerate() {
        if old.next() != Some(new) {
            let top = size.rows.saturating_sub(lines) / 2 + line + 1;
            let left = size.columns.saturating_sub(picture.width_px()) / 2 + 1;
            write!(bytes, "\x1b[{top};{left}H")?;
            write_half_block_line(bytes, picture, line, colours);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::screen::Screen;
    use super::super::{Choice, sixel};
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// The other end of a pseudo-terminal.
    struct Pty {
        master: File,
        facts: Facts,
        screen: Screen,
    }

    impl Pty {
        fn new(method: Choice, columns: usize, rows: usize) -> Self {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
            let master: OwnedFd = openpt(flags).unwrap();
            grantpt(&master).unwrap();
            unlockpt(&master).unwrap();
            rustix::io::ioctl_fionbio(&master, true).unwrap();
            let device = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
            let facts = Facts {
                device: device.into(),
                method,
                ..Facts::default()
            };
            let mut pty = Self {
                master: master.into(),
                facts,
                screen: Screen::new(Size::default()),
            };
            pty.resize(columns, rows);
            pty.screen.take(b"$ driftglass run\n");
            pty
        }

        fn open(&self) -> Panel {
            Panel::open(&self.facts, |name| {
                (name == "COLORTERM").then(|| "truecolor".into())
            })
            .unwrap()
        }

        fn resize(&mut self, columns: usize, rows: usize) {
            let size = Winsize {
                ws_col: columns as u16,
                ws_row: rows as u16,
                ws_xpixel: 8 * columns as u16,
                ws_ypixel: 15 * rows as u16,
            };
            tcsetwinsize(&self.master, size).unwrap();
            self.screen.size = Size {
                columns,
                rows,
                cell_px: [8, 15],
            };
        }

        /// Shows the frame while somebody reads; how many bytes that took.
        fn show(&mut self, panel: &mut Panel, frame: &Frame) -> usize {
            let (mut bytes, mut ended) = (Vec::new(), None);
            std::thread::scope(|scope| {
                let showing = scope.spawn(|| panel.show(frame, Damage::Changed));
                while !showing.is_finished() {
                    bytes.extend(self.read());
                    std::thread::sleep(Duration::from_millis(1));
                }
                ended = Some(showing.join().unwrap());
            });
            ended.unwrap().unwrap();
            bytes.extend(self.read());
            self.screen.take(&bytes);
            assert!(!self.screen.in_update);
            bytes.len()
        }

        fn read(&mut self) -> Vec<u8> {
            let (mut bytes, mut buffer) = (Vec::new(), [0; 65536]);
            while let Ok(length) = self.master.read(&mut buffer) {
                bytes.extend(&buffer[..length]);
            }
            bytes
        }

        /// What a shell finds afterwards.
        fn assert_clean(&mut self) {
            let rest = self.read();
            self.screen.take(&rest);
            assert!(self.screen.hidden.is_none(), "on the alternate screen");
            assert_eq!(self.screen.text(0), "$ driftglass run");
            assert_eq!(self.screen.cells.len(), 16);
            self.screen.assert_settled();
            assert_eq!(self.screen.bottom, 1);
        }
    }

    fn frame([width, height]: [usize; 2], seed: usize) -> Frame {
        let shade = |at: usize| (at * (at + seed) % 251) as u8;
        Frame::from(&Picture::new(
            width,
            height,
            (0..3 * width * height).map(shade).collect(),
        ))
    }

    fn pixels(frame: &Frame) -> Vec<[u8; 3]> {
        frame.rgb().as_chunks().0.to_vec()
    }

    #[test]
    fn half_blocks_fill_the_terminal_and_follow_its_size() {
        let mut pty = Pty::new(Choice::HalfBlocks, 80, 24);
        let mut panel = pty.open();
        assert_eq!(panel.info().name, "terminal 80x24, half blocks");
        let first = frame(panel.info().size_px, 1);
        assert_eq!(first.size_px(), [80, 48]);
        let whole = pty.show(&mut panel, &first);
        assert_eq!(pty.screen.pixels(0, 80, 48), pixels(&first));
        assert_eq!(pty.show(&mut panel, &first), 0, "the same frame again");

        let mut second = first.clone();
        second.rgb_mut()[3 * 80 * 30] ^= 255;
        let line = pty.show(&mut panel, &second);
        assert!(line < whole / 20, "one line of 24: {line} bytes of {whole}");
        assert_eq!(pty.screen.pixels(0, 80, 48), pixels(&second));

        for (columns, rows) in [(30, 10), (100, 40)] {
            pty.resize(columns, rows);
            // A frame of the size before is in time for nothing but a smaller picture.
            pty.show(&mut panel, &second);
            let suited = frame(panel.info().size_px, 2);
            assert_eq!(suited.size_px(), [columns, 2 * rows]);
            pty.show(&mut panel, &suited);
            assert_eq!(pty.screen.pixels(0, columns, 2 * rows), pixels(&suited));
            assert_eq!(pty.screen.cells.len(), columns * rows);
        }
        drop(panel);
        pty.assert_clean();
    }

    #[test]
    fn a_fixed_frame_stands_in_the_middle() {
        let mut pty = Pty::new(Choice::HalfBlocks, 81, 25);
        (pty.facts.width_px, pty.facts.height_px) = (Some(16), Some(16));
        let mut panel = pty.open();
        assert_eq!(panel.info().size_px, [16, 16]);
        let shown = frame([16, 16], 3);
        pty.show(&mut panel, &shown);
        // 50 rows of pixels hold 16 three times.
        assert_eq!(pty.screen.cells.len(), 48 * 24);
        let left = pty.screen.cells.keys().map(|place| place.1).min();
        assert_eq!(left, Some((81 - 48) / 2));
        drop(panel);
        pty.assert_clean();
    }

    #[test]
    fn sixels_and_kitty_get_the_picture_itself() {
        for method in [Choice::Sixel, Choice::Kitty] {
            let mut pty = Pty::new(method, 40, 20);
            let mut panel = pty.open();
            let size_px = panel.info().size_px;
            // 20 or 19 lines of 15 pixels, in sixels whole bands.
            assert_eq!(
                size_px,
                [320, if method == Choice::Kitty { 300 } else { 282 }]
            );
            let shown = frame(size_px, 5);
            pty.show(&mut panel, &shown);
            if method == Choice::Sixel {
                let (place, stream) = &pty.screen.sixels[0];
                assert_eq!(*place, (0, 0));
                let picture = sixel::tests::as_picture(stream);
                assert!(picture.psnr_db(&Picture::from(&shown)) > 20.0);
            } else {
                let (_, keys, payload) = &pty.screen.images[0];
                assert!(keys.contains("r=20,C=1,q=2"), "{keys}");
                assert!(payload.len() > 1000);
            }
            panel.power(Power::Off).unwrap();
            let off = pty.read();
            pty.screen.take(&off);
            assert!(pty.screen.cells.is_empty() && pty.screen.images.is_empty());
            drop(panel);
            pty.assert_clean();
        }
    }

    #[test]
    fn a_panic_leaves_nothing_behind() {
        let mut pty = Pty::new(Choice::HalfBlocks, 20, 6);
        let mut panel = pty.open();
        pty.show(&mut panel, &frame([20, 12], 1));
        assert!(pty.screen.hidden.is_some() && pty.screen.cursor_hidden);
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _panel = panel;
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        pty.assert_clean();
    }

    #[test]
    fn a_terminal_that_stands_still_is_told_and_goes_on() {
        let mut pty = Pty::new(Choice::HalfBlocks, 200, 60);
        let mut panel = pty.open();
        let large = frame([200, 120], 1);
        let start = Instant::now();
        // Nobody reads, and the kernel's buffer is smaller than the frame.
        let error = panel.show(&large, Damage::Changed).unwrap_err().to_string();
        assert!(start.elapsed() < 2 * PATIENCE);
        assert!(
            error.ends_with("found one that stands still (Ctrl-Q lets it go on)"),
            "{error}"
        );
        // What came through is an unfinished frame, which the next one must end.
        let unfinished = pty.read();
        assert!(unfinished.len() > 1000 && !unfinished.ends_with(b"\x1b[?2026l"));
        pty.screen.take(b"\x1b[?1049h\x1b[?25l");
        pty.show(&mut panel, &large);
        assert_eq!(pty.screen.pixels(0, 200, 120), pixels(&large));
        drop(panel);
        pty.assert_clean();
    }

    #[test]
    fn what_is_no_terminal_is_told() {
        let facts = |device: &str| Facts {
            device: device.into(),
            method: Choice::HalfBlocks,
            ..Facts::default()
        };
        let none = |_: &str| None;
        let error = |facts: &Facts| Panel::open(facts, none).unwrap_err().to_string();
        assert_eq!(
            error(&facts("/dev/null")),
            "/dev/null: expected a terminal, found something else"
        );
        assert!(error(&facts("/dev/absent")).starts_with("/dev/absent: cannot open: "));
        let one = Facts {
            width_px: Some(5),
            ..facts("/dev/null")
        };
        assert!(error(&one).contains("expected both sides or neither"));
        let auto = Facts::default();
        assert_eq!(
            error(&auto),
            "terminal: expected a terminal that shows colours, or a method, found TERM=\"\""
        );
    }
}
