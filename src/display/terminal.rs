//! The terminal as a panel: a picture that redraws itself in place.
//!
//! Two pixels share a character cell as "▀", the upper in the foreground and the lower in the
//! background colour; where the terminal speaks kitty's graphics protocol, or knows sixels, it
//! gets the picture itself. [`Terminal`] draws among other output, [`Panel`] has the whole
//! terminal for itself.
//!
//! Every frame is one write, wrapped in a synchronized update, and afterwards the cursor
//! stands on the line below with all colours reset: whoever stops in between leaves nothing
//! behind. What the terminal can do is guessed from the environment and never asked, because an
//! answer that comes late would land in the shell.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::picture::Picture;

mod panel;
#[cfg(test)]
mod screen;
mod sixel;

pub use panel::Panel;

/// Where standard output goes; the caller asks `std::io::IsTerminal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A terminal.
    Terminal,
    /// A file, a pipe, a journal.
    Other,
}

/// Which colours the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// All of 24-bit RGB.
    True,
    /// xterm's palette of 256: a cube of 216 colours and 24 greys.
    Palette256,
}

/// How a picture is brought to the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// kitty's graphics protocol: the picture itself, as PNG.
    Kitty,
    /// DEC's sixels: the picture itself, in at most 256 colours.
    Sixel,
    /// Two pixels in each character.
    HalfBlocks(Colours),
    /// No picture, only the status line, redrawn in place.
    Line,
    /// Nothing is ever redrawn; [`Terminal::show`] writes nothing.
    Log,
}

impl Method {
    /// What to do on this output, with these environment variables.
    ///
    /// Looks at `TERM`, `TERM_PROGRAM`, `COLORTERM`, `KITTY_WINDOW_ID`, `TMUX`, `STY` and
    /// `NO_COLOR` (<https://no-color.org>).
    ///
    /// # Example
    ///
    /// ```
    /// use driftglass::display::terminal::{Colours, Method, Output};
    ///
    /// let env = |name: &str| (name == "TERM").then(|| "linux".to_owned());
    /// assert_eq!(Method::detect(Output::Terminal, env), Method::HalfBlocks(Colours::Palette256));
    /// ```
    pub fn detect(output: Output, env: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| env(name).unwrap_or_default();
        let is_set = |name: &str| !get(name).is_empty();
        let (term, program) = (get("TERM"), get("TERM_PROGRAM"));
        if output == Output::Other || term.is_empty() || term == "dumb" {
            return Self::Log;
        }
        if is_set("NO_COLOR") {
            return Self::Line;
        }
        let in_tmux = is_set("TMUX") || term.starts_with("tmux");
        let in_screen = !in_tmux && (is_set("STY") || term.starts_with("screen"));
        if in_screen {
            // GNU screen hands COLORTERM on, but not the colours.
            return Self::HalfBlocks(Colours::Palette256);
        }
        // A program started from kitty inherits its window number: another terminal's own name,
        // where it tells one, counts more.
        let in_kitty = ["xterm-kitty", "xterm-ghostty"].contains(&term.as_str())
            || ["kitty", "ghostty"].contains(&program.as_str())
            || (is_set("KITTY_WINDOW_ID") && program.is_empty() && term.starts_with("xterm"));
        if in_kitty && !in_tmux {
            return Self::Kitty;
        }
        let knows_sixels = ["foot", "mlterm", "contour", "yaft"]
            .iter()
            .any(|name| term.starts_with(name))
            || ["iTerm.app", "WezTerm", "mlterm", "contour"].contains(&program.as_str());
        if knows_sixels && !in_tmux {
            return Self::Sixel;
        }
        Self::HalfBlocks(Self::colours(&term, &program, &get("COLORTERM")))
    }

    fn colours(term: &str, program: &str, colorterm: &str) -> Colours {
        let true_colour = ["truecolor", "24bit"].contains(&colorterm)
            || ["direct", "alacritty", "foot", "wezterm"]
                .iter()
                .any(|name| term.contains(name))
            || ["iTerm.app", "WezTerm", "vscode"].contains(&program);
        if true_colour {
            Colours::True
        } else {
            Colours::Palette256
        }
    }
}

/// What a terminal that is a panel shows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Facts {
    /// The terminal's device; `/dev/tty` is the one that the program was started from.
    pub device: PathBuf,
    /// How pictures are brought to the terminal.
    pub method: Choice,
    /// The width of its frames, from 1. With neither side, frames are as large as the terminal.
    pub width_px: Option<u16>,
    /// The height of its frames, from 1.
    pub height_px: Option<u16>,
}

impl Default for Facts {
    /// The terminal that the program was started from, used as well as it can be.
    fn default() -> Self {
        Self {
            device: "/dev/tty".into(),
            method: Choice::default(),
            width_px: None,
            height_px: None,
        }
    }
}

/// Which [`Method`] is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The best that the environment tells of.
    #[default]
    Auto,
    /// Two pixels in each character.
    HalfBlocks,
    /// kitty's graphics protocol.
    Kitty,
    /// DEC's sixels.
    Sixel,
}

spelled!(
    Choice,
    "method",
    Auto = "auto",
    HalfBlocks = "half-blocks",
    Kitty = "kitty",
    Sixel = "sixel"
);

impl Choice {
    /// The method that is wanted on this output, with these environment variables. What was
    /// chosen counts more than what the environment tells.
    pub fn method(self, output: Output, env: impl Fn(&str) -> Option<String>) -> Method {
        match self {
            Self::Auto => Method::detect(output, env),
            Self::HalfBlocks => {
                let get = |name: &str| env(name).unwrap_or_default();
                let (term, program) = (get("TERM"), get("TERM_PROGRAM"));
                Method::HalfBlocks(Method::colours(&term, &program, &get("COLORTERM")))
            }
            Self::Kitty => Method::Kitty,
            Self::Sixel => Method::Sixel,
        }
    }
}

/// The size of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
    /// Width and height of a character in pixels, as sixels count them.
    pub cell_px: [usize; 2],
}

impl Default for Size {
    /// 80 by 24, as it has been since the VT100; characters as large as the VT340's.
    fn default() -> Self {
        Self {
            columns: 80,
            rows: 24,
            cell_px: [10, 20],
        }
    }
}

impl Size {
    /// The size of the terminal behind `terminal` at this moment; the default where it tells none.
    pub fn of(terminal: impl AsFd) -> Self {
        let unknown = Self::default();
        let Ok(told) = rustix::termios::tcgetwinsize(terminal) else {
            return unknown;
        };
        let or = |told: usize, unknown: usize| if told == 0 { unknown } else { told };
        let columns = or(told.ws_col.into(), unknown.columns);
        let rows = or(told.ws_row.into(), unknown.rows);
        let cell_px = [
            or(usize::from(told.ws_xpixel) / columns, unknown.cell_px[0]),
            or(usize::from(told.ws_ypixel) / rows, unknown.cell_px[1]),
        ];
        Self {
            columns,
            rows,
            cell_px,
        }
    }
}

/// A place in the terminal where one picture replaces the other.
#[derive(Debug)]
pub struct Terminal {
    method: Method,
    size: Size,
    image_id: u32,
    drawn_lines: usize,
    /// The widest of these lines, in characters.
    drawn_columns: usize,
}

impl Terminal {
    /// A place below whatever the terminal shows now; nothing is written yet.
    pub fn new(method: Method, size: Size) -> Self {
        Self {
            method,
            size,
            image_id: 0x6472_6966,
            drawn_lines: 0,
            drawn_columns: 0,
        }
    }

    /// The terminal has this size now: pictures are drawn for it from the next one on.
    ///
    /// Where the terminal became narrower than what is drawn, it may have broken the lines, and
    /// nobody can tell where the picture begins: the next one gets a place of its own below.
    pub fn resize(&mut self, size: Size) {
        if size.columns < self.drawn_columns {
            self.leave();
        }
        self.size = size;
    }

    /// kitty's number for the picture, not 0.
    ///
    /// A picture replaces the earlier one of its number even in the scrollback, so a program that
    /// runs again should bring another number, such as its process id.
    pub fn with_image_id(self, image_id: u32) -> Self {
        Self { image_id, ..self }
    }

    /// How pictures are shown here.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The most characters a status line can have.
    pub fn columns(&self) -> usize {
        // In the last column the cursor sticks, and erasing to the end would erase what it is on.
        self.size.columns.saturating_sub(1).max(1)
    }

    /// Draws `picture`, if there is one, at the left, and `status` below it, over what was drawn
    /// before.
    ///
    /// The picture is enlarged by the largest whole number that keeps it within five sixths
    /// of the terminal's height; one too large for the terminal is shrunk. A status line too long
    /// is cut off.
    ///
    /// # Errors
    ///
    /// When `out` cannot be written to.
    pub fn show(
        &mut self,
        out: &mut impl Write,
        picture: Option<&Picture>,
        status: &str,
    ) -> io::Result<()> {
        if self.method == Method::Log {
            return Ok(());
        }
        let mut frame = Vec::new();
        self.begin(&mut frame)?;
        let (picture_lines, picture_columns) = match (self.method, picture) {
            (Method::Log | Method::Line, _) | (_, None) => (0, 0),
            (Method::HalfBlocks(colours), Some(picture)) => {
                let picture = self.scaled(picture);
                let lines = write_half_blocks(&mut frame, &picture, colours);
                (lines, picture.width_px())
            }
            (Method::Kitty, Some(picture)) => {
                let lines = self.kitty_lines(picture);
                write_room(&mut frame, lines)?;
                write_kitty(&mut frame, picture, &format!("r={lines}"), self.image_id)?;
                write!(frame, "\x1b[{lines}B\r")?;
                (lines, 0)
            }
            (Method::Sixel, Some(picture)) => {
                let picture = self.in_sixels(picture);
                let lines = picture.height_px().div_ceil(self.size.cell_px[1]);
                write_room(&mut frame, lines)?;
                // Where the cursor is after sixels differs between terminals.
                frame.extend(b"\x1b7");
                frame.extend(sixel::encode(&picture));
                write!(frame, "\x1b8\x1b[{lines}B\r")?;
                (lines, 0)
            }
        };
        let status = status.chars().filter(|character| !character.is_control());
        let status: String = status.take(self.columns()).collect();
        if !status.is_empty() {
            writeln!(frame, "{status}\x1b[K")?;
        }
        // Whatever a taller frame left below goes, the cursor returns, the update is shown.
        write!(frame, "\x1b[J\x1b[?25h\x1b[?2026l")?;
        self.drawn_lines = picture_lines + usize::from(!status.is_empty());
        self.drawn_columns = picture_columns.max(status.chars().count());
        out.write_all(&frame)?;
        out.flush()
    }

    /// Leaves the last picture where it is: whatever is written next goes below it, and the next
    /// picture gets a place of its own.
    pub fn leave(&mut self) {
        self.drawn_lines = 0;
        // kitty replaces a picture by its number, wherever it is; 0 is no number.
        self.image_id = self.image_id.wrapping_add(1).max(1);
    }

    /// Opens a frame at the top left of the one before.
    fn begin(&self, frame: &mut Vec<u8>) -> io::Result<()> {
        write!(frame, "\x1b[?2026h\x1b[?25l\r")?;
        if self.drawn_lines > 0 {
            write!(frame, "\x1b[{}A", self.drawn_lines)?;
        }
        Ok(())
    }

    /// The lines a picture may fill: one stays for the status and one for the cursor.
    fn most_lines(&self) -> usize {
        self.size.rows.saturating_sub(2).max(1)
    }

    /// The lines it should fill: five sixths, so that the command above stays in sight.
    fn sensible_lines(&self) -> usize {
        (self.size.rows * 5 / 6).clamp(1, self.most_lines())
    }

    /// The picture as many pixels large as it is to have half cells.
    fn scaled(&self, picture: &Picture) -> Picture {
        let most = [self.columns(), 2 * self.most_lines()];
        scaled(picture, most, 2 * self.sensible_lines())
    }

    /// The picture as large as it is to be printed in sixels: whole bands, or the last one could
    /// reach below the terminal and scroll it.
    fn in_sixels(&self, picture: &Picture) -> Picture {
        let [width_px, height_px] = self.size.cell_px;
        let bands = |lines: usize| (lines * height_px / 6).max(1) * 6;
        let most = [self.columns() * width_px, bands(self.most_lines())];
        scaled(picture, most, bands(self.sensible_lines()))
    }

    /// The lines that kitty scales the picture to, when a cell is about twice as high as wide.
    fn kitty_lines(&self, picture: &Picture) -> usize {
        let widest = self.columns() * picture.height_px() / (2 * picture.width_px());
        self.sensible_lines().min(widest).max(1)
    }
}

/// The picture enlarged by the largest whole number that keeps it within `most` pixels and
/// `sensible_height`, or, where it is larger than `most`, shrunk to fit.
fn scaled(picture: &Picture, most: [usize; 2], sensible_height: usize) -> Picture {
    let (width, height) = (picture.width_px(), picture.height_px());
    let [most_width, most_height] = most;
    if width > most_width || height > most_height {
        return if width * most_height > height * most_width {
            picture.fitted(most_width, (height * most_width / width).max(1))
        } else {
            picture.fitted((width * most_height / height).max(1), most_height)
        };
    }
    let factor = usize::min(most_width / width, sensible_height / height);
    picture.enlarged(factor.max(1))
}

/// Makes room for a picture of this many lines, because it scrolls with the text it stands in.
fn write_room(frame: &mut Vec<u8>, lines: usize) -> io::Result<()> {
    frame.extend(b"\x1b[K\n".repeat(lines));
    write!(frame, "\x1b[{lines}A")
}

/// Draws two rows of pixels in each line; the number of lines.
fn write_half_blocks(frame: &mut Vec<u8>, picture: &Picture, colours: Colours) -> usize {
    let lines = picture.height_px().div_ceil(2);
    for line in 0..lines {
        write_half_block_line(frame, picture, line, colours);
        frame.extend(b"\x1b[K\n");
    }
    lines
}

/// Draws the rows 2 `line` and 2 `line` + 1, and resets the colours.
fn write_half_block_line(frame: &mut Vec<u8>, picture: &Picture, line: usize, colours: Colours) {
    let mut current = None;
    for x in 0..picture.width_px() {
        let upper = sgr(picture.pixel(x, 2 * line), colours);
        // Below the last row of an odd height lies the terminal's own background.
        let lower = if 2 * line + 1 < picture.height_px() {
            format!("48;{}", sgr(picture.pixel(x, 2 * line + 1), colours))
        } else {
            "49".to_owned()
        };
        let cell = format!("\x1b[38;{upper};{lower}m");
        if current.as_ref() != Some(&cell) {
            frame.extend(cell.as_bytes());
            current = Some(cell);
        }
        frame.extend("▀".as_bytes());
    }
    frame.extend(b"\x1b[0m");
}

/// The colour as parameters of "select graphic rendition", after 38 or 48 (ISO 8613-6).
fn sgr(rgb: [u8; 3], colours: Colours) -> String {
    match colours {
        Colours::True => format!("2;{};{};{}", rgb[0], rgb[1], rgb[2]),
        Colours::Palette256 => format!("5;{}", nearest_of_256(rgb)),
    }
}

/// The number in xterm's palette of the colour nearest to `rgb`.
fn nearest_of_256(rgb: [u8; 3]) -> u8 {
    let distance = |other: [u8; 3]| -> u32 {
        rgb.iter()
            .zip(other)
            .map(|(a, b)| u32::from(a.abs_diff(b)).pow(2))
            .sum()
    };
    // The steps of the cube lie at 0, 95, 135, 175, 215, 255.
    let steps = rgb.map(|value| match value {
        0..48 => 0,
        48..115 => 1,
        _ => (value - 35) / 40,
    });
    let in_cube = steps.map(|step| if step == 0 { 0 } else { 55 + 40 * step });
    // The greys lie at 8, 18, …, 238.
    let mean = rgb.iter().map(|value| u32::from(*value)).sum::<u32>() / 3;
    let grey_step = (mean.saturating_sub(3) / 10).min(23) as u8;
    if distance([8 + 10 * grey_step; 3]) < distance(in_cube) {
        232 + grey_step
    } else {
        16 + 36 * steps[0] + 6 * steps[1] + steps[2]
    }
}

/// Transmits and displays the picture at the cursor, which stays where it is (kitty's "terminal
/// graphics protocol").
///
/// `place` tells one side in characters, `r=` or `c=`, so that the other one keeps the aspect.
fn write_kitty(
    frame: &mut Vec<u8>,
    picture: &Picture,
    place: &str,
    image_id: u32,
) -> io::Result<()> {
    // The terminal smooths what it enlarges: pixels must be large before they get there.
    let longest_px = picture.width_px().max(picture.height_px());
    let png = picture.enlarged((512 / longest_px).max(1)).encode_png(&[]);
    // C=1 leaves the cursor alone and q=2 asks for no answer.
    write!(frame, "\x1b_Ga=T,f=100,i={image_id},p=1,{place},C=1,q=2,")?;
    let base64 = base64(&png);
    let mut chunks = base64.as_bytes().chunks(4096).peekable();
    let mut keys = "";
    while let Some(chunk) = chunks.next() {
        write!(frame, "{keys}m={};", u8::from(chunks.peek().is_some()))?;
        frame.extend(chunk);
        frame.extend(b"\x1b\\");
        keys = "\x1b_G";
    }
    Ok(())
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for place in 0..4 {
            let sextet = (word >> (18 - 6 * place)) & 63;
            let letter = ALPHABET[sextet as usize] as char;
            text.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::screen::{Screen, rgb_of};
    use super::*;

    fn shades(width: usize, height: usize) -> Picture {
        let shade = |at: usize| (at * at % 251) as u8;
        Picture::new(width, height, (0..3 * width * height).map(shade).collect())
    }

    fn rows(picture: &Picture) -> Vec<[u8; 3]> {
        picture.rgb().as_chunks().0.to_vec()
    }

    const TRUE: Method = Method::HalfBlocks(Colours::True);
    const WIDE: Size = Size {
        columns: 200,
        rows: 51,
        cell_px: [10, 20],
    };

    fn size(columns: usize, rows: usize) -> Size {
        Size {
            columns,
            rows,
            ..Size::default()
        }
    }

    #[test]
    fn the_terminal_shows_the_picture() {
        for (picture, factor) in [
            (shades(32, 32), 2),
            (shades(5, 7), 12),
            (shades(64, 64), 1),
            (shades(60, 3), 3),
            (shades(1, 1), 84),
        ] {
            let (mut screen, mut bytes) = (Screen::new(WIDE), Vec::new());
            Terminal::new(TRUE, WIDE)
                .show(&mut bytes, Some(&picture), "status")
                .unwrap();
            screen.take(&bytes);
            screen.assert_settled();
            let large = picture.enlarged(factor);
            let shown = screen.pixels(0, large.width_px(), large.height_px());
            assert_eq!(shown, rows(&large), "{picture:?}");
            let lines = large.height_px().div_ceil(2);
            assert_eq!(screen.cells.len(), lines * large.width_px() + 6);
            assert_eq!(screen.text(lines), "status");
            let below = large.height_px() % 2 == 1;
            assert_eq!(screen.cells[&(lines - 1, 0)].lower.is_none(), below);
        }
    }

    #[test]
    fn frames_are_drawn_over_each_other_and_leave_nothing() {
        let (mut screen, mut bytes) = (Screen::new(Size::default()), Vec::new());
        screen.take(b"$ driftglass sample\n");
        let mut terminal = Terminal::new(TRUE, Size::default());
        let frames = [shades(16, 16), shades(8, 44), shades(20, 4), shades(16, 16)];
        for (picture, status) in frames.iter().zip(["first", "second, longer", "", "last"]) {
            bytes.clear();
            terminal.show(&mut bytes, Some(picture), status).unwrap();
            screen.take(&bytes);
            assert!(!screen.in_update && !screen.cursor_hidden);
        }
        assert_eq!(screen.text(0), "$ driftglass sample");
        let large = frames[3].enlarged(2);
        assert_eq!(screen.pixels(1, 32, 32), rows(&large));
        assert_eq!(screen.text(17), "last");
        assert_eq!(screen.cells.len(), 19 + 32 * 16 + 4);
        assert_eq!(screen.cursor, (18, 0));
    }

    #[test]
    fn a_picture_too_large_is_shrunk() {
        for (width, height) in [(512, 512), (300, 20), (10, 300), (64, 64), (79, 45)] {
            for size in [Size::default(), size(20, 10), size(1, 1)] {
                let terminal = Terminal::new(TRUE, size);
                let scaled = terminal.scaled(&shades(width, height));
                assert!(scaled.width_px() <= terminal.columns());
                assert!(scaled.height_px() <= 2 * terminal.most_lines());
            }
        }
        let terminal = Terminal::new(TRUE, Size::default());
        let sizes = [shades(64, 64), shades(158, 40)].map(|picture| {
            let scaled = terminal.scaled(&picture);
            (scaled.width_px(), scaled.height_px())
        });
        assert_eq!(sizes, [(44, 44), (79, 20)]);
    }

    #[test]
    fn the_palette_holds_the_nearest_colour() {
        for rgb in [
            [0; 3],
            [255; 3],
            [8; 3],
            [128; 3],
            [95, 135, 175],
            [250, 4, 120],
            [47, 48, 114],
        ] {
            let distance = |other: [u8; 3]| -> i32 {
                rgb.iter()
                    .zip(other)
                    .map(|(a, b)| (i32::from(*a) - i32::from(b)).pow(2))
                    .sum()
            };
            let best = (16..=255)
                .map(|index| distance(rgb_of(&format!("5;{index}"))))
                .min();
            let found = rgb_of(&sgr(rgb, Colours::Palette256));
            assert_eq!(Some(distance(found)), best, "{rgb:?} as {found:?}");
        }
        let (mut screen, mut bytes) = (Screen::new(WIDE), Vec::new());
        let picture = Picture::filled(34, 34, [95, 0, 255]);
        let mut terminal = Terminal::new(Method::HalfBlocks(Colours::Palette256), WIDE);
        terminal.show(&mut bytes, Some(&picture), "").unwrap();
        screen.take(&bytes);
        assert_eq!(screen.pixels(0, 68, 68), rows(&picture.enlarged(2)));
    }

    #[test]
    fn kitty_gets_the_picture_as_png_in_chunks() {
        let (mut screen, mut bytes) = (Screen::new(WIDE), Vec::new());
        let mut terminal = Terminal::new(Method::Kitty, WIDE).with_image_id(7);
        for frame in [shades(100, 100), shades(100, 50)] {
            bytes.clear();
            terminal.show(&mut bytes, Some(&frame), "status").unwrap();
            screen.take(&bytes);
            screen.assert_settled();
            let (line, keys, payload) = screen.images.last().unwrap();
            assert_eq!((*line, screen.text(42).as_str()), (0, "status"));
            assert_eq!(keys, "a=T,f=100,i=7,p=1,r=42,C=1,q=2,m=1");
            let shown = Picture::decode_png("payload", &from_base64(payload)).unwrap();
            assert_eq!(shown, frame.enlarged(5));
        }
    }

    fn from_base64(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for four in text.as_bytes().chunks(4) {
            let padding = four.iter().filter(|letter| **letter == b'=').count();
            let word = four.iter().fold(0_u32, |word, letter| {
                word << 6
                    | match letter {
                        b'A'..=b'Z' => u32::from(letter - b'A'),
                        b'a'..=b'z' => u32::from(letter - b'a' + 26),
                        b'0'..=b'9' => u32::from(letter - b'0' + 52),
                        b'+' => 62,
                        b'/' => 63,
                        _ => 0,
                    }
            });
            bytes.extend(&word.to_be_bytes()[1..4 - padding]);
        }
        bytes
    }

    #[test]
    fn base64_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text), bytes.as_bytes());
        }
    }

    #[test]
    fn without_colour_only_the_status_is_redrawn() {
        let (mut screen, mut bytes) = (Screen::new(WIDE), Vec::new());
        let mut terminal = Terminal::new(Method::Line, WIDE);
        for status in ["step 1/2", "2/2", &"long\x1b\n".repeat(99)] {
            bytes.clear();
            terminal
                .show(&mut bytes, Some(&shades(4, 4)), status)
                .unwrap();
            assert!(!bytes.contains(&b'm'));
            screen.take(&bytes);
            screen.assert_settled();
            let expected: String = status
                .replace(['\x1b', '\n'], "")
                .chars()
                .take(199)
                .collect();
            assert_eq!(screen.text(0), expected);
            assert_eq!(screen.cursor, (1, 0));
        }
        bytes.clear();
        Terminal::new(Method::Log, WIDE)
            .show(&mut bytes, Some(&shades(4, 4)), "status")
            .unwrap();
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_picture_that_is_left_stays_above_what_follows() {
        let (mut screen, mut bytes) = (Screen::new(Size::default()), Vec::new());
        let mut terminal = Terminal::new(TRUE, Size::default());
        for (size, path) in [(4, "first.png\n"), (2, "second.png\n")] {
            terminal
                .show(&mut bytes, Some(&shades(size, size)), "done")
                .unwrap();
            terminal.leave();
            bytes.extend_from_slice(path.as_bytes());
        }
        screen.take(&bytes);
        let lines: Vec<String> = (0..=screen.bottom).map(|row| screen.text(row)).collect();
        let places = ["done", "first.png", "second.png"]
            .map(|word| lines.iter().position(|line| line.contains(word)));
        assert!(places.iter().all(Option::is_some), "{lines:?}");
        assert!(places[0] < places[1] && places[1] < places[2], "{lines:?}");
    }

    #[test]
    fn the_method_follows_the_environment() {
        let palette = Method::HalfBlocks(Colours::Palette256);
        for (environment, expected) in [
            ("", Method::Log),
            ("TERM=dumb COLORTERM=truecolor", Method::Log),
            ("TERM=linux", palette),
            ("TERM=xterm-256color", palette),
            ("TERM=xterm-256color COLORTERM=truecolor", TRUE),
            ("TERM=xterm-256color COLORTERM=24bit", TRUE),
            ("TERM=xterm-256color TERM_PROGRAM=Apple_Terminal", palette),
            ("TERM=xterm-256color TERM_PROGRAM=iTerm.app", Method::Sixel),
            ("TERM=xterm-256color TERM_PROGRAM=WezTerm", Method::Sixel),
            ("TERM=foot COLORTERM=truecolor", Method::Sixel),
            ("TERM=mlterm", Method::Sixel),
            ("TERM=tmux-256color TMUX=/tmp/x TERM_PROGRAM=WezTerm", TRUE),
            ("TERM=alacritty", TRUE),
            ("TERM=xterm-direct", TRUE),
            ("TERM=xterm-kitty", Method::Kitty),
            ("TERM=xterm-ghostty", Method::Kitty),
            ("TERM=xterm-256color TERM_PROGRAM=ghostty", Method::Kitty),
            ("TERM=xterm-256color KITTY_WINDOW_ID=1", Method::Kitty),
            (
                "TERM=xterm-256color KITTY_WINDOW_ID=1 TERM_PROGRAM=vscode",
                TRUE,
            ),
            ("TERM=alacritty KITTY_WINDOW_ID=1", TRUE),
            ("TERM=tmux-256color TMUX=/tmp/x KITTY_WINDOW_ID=1", palette),
            ("TERM=screen-256color TMUX=/tmp/x COLORTERM=truecolor", TRUE),
            ("TERM=xterm-kitty TMUX=/tmp/x COLORTERM=truecolor", TRUE),
            (
                "TERM=screen.xterm-256color STY=1 COLORTERM=truecolor",
                palette,
            ),
            ("TERM=xterm-kitty NO_COLOR=1", Method::Line),
            ("TERM=xterm-kitty NO_COLOR=", Method::Kitty),
        ] {
            let env = |name: &str| {
                let mut pairs = environment
                    .split(' ')
                    .filter_map(|pair| pair.split_once('='));
                pairs
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.to_owned())
            };
            assert_eq!(
                Method::detect(Output::Terminal, env),
                expected,
                "{environment}"
            );
            assert_eq!(
                Method::detect(Output::Other, env),
                Method::Log,
                "{environment}"
            );
        }
    }

    #[test]
    fn what_was_chosen_counts_more_than_the_environment() {
        let none = |_: &str| None;
        let kitty = |name: &str| (name == "TERM").then(|| "xterm-kitty".to_owned());
        let direct = |name: &str| (name == "COLORTERM").then(|| "truecolor".to_owned());
        let palette = Method::HalfBlocks(Colours::Palette256);
        assert_eq!(Choice::Auto.method(Output::Terminal, kitty), Method::Kitty);
        assert_eq!(Choice::Sixel.method(Output::Terminal, kitty), Method::Sixel);
        assert_eq!(Choice::Kitty.method(Output::Terminal, none), Method::Kitty);
        assert_eq!(Choice::HalfBlocks.method(Output::Terminal, kitty), palette);
        assert_eq!(Choice::HalfBlocks.method(Output::Terminal, direct), TRUE);
    }

    #[test]
    fn sixels_stand_where_a_picture_would() {
        let (mut screen, mut bytes) = (Screen::new(WIDE), Vec::new());
        let mut terminal = Terminal::new(Method::Sixel, WIDE);
        for (picture, factor, lines) in [(shades(1700, 30), 1, 2), (shades(32, 32), 26, 42)] {
            bytes.clear();
            terminal.show(&mut bytes, Some(&picture), "status").unwrap();
            screen.take(&bytes);
            screen.assert_settled();
            let (place, stream) = screen.sixels.last().unwrap();
            assert_eq!((*place, screen.text(lines).as_str()), ((0, 0), "status"));
            let shown = sixel::tests::as_picture(stream);
            let large = picture.enlarged(factor);
            assert_eq!(
                (shown.width_px(), shown.height_px()),
                (large.width_px(), large.height_px())
            );
            assert!(shown.psnr_db(&large) > 30.0);
        }
    }

    #[test]
    fn a_terminal_that_changes_its_size_keeps_one_picture_where_it_can() {
        let narrow = size(60, 24);
        let (mut screen, mut bytes) = (Screen::new(Size::default()), Vec::new());
        let mut terminal = Terminal::new(TRUE, Size::default());
        let mut show = |terminal: &mut Terminal, screen: &mut Screen| {
            bytes.clear();
            terminal
                .show(&mut bytes, Some(&shades(39, 20)), "status")
                .unwrap();
            screen.take(&bytes);
            screen.assert_settled();
        };
        show(&mut terminal, &mut screen);
        assert_eq!((screen.text(20).as_str(), screen.bottom), ("status", 21));
        // Wider: the lines are as they were, the picture is replaced.
        terminal.resize(WIDE);
        screen.size = WIDE;
        show(&mut terminal, &mut screen);
        assert_eq!(screen.pixels(0, 156, 80), rows(&shades(39, 20).enlarged(4)));
        assert_eq!(screen.bottom, 41);
        // Narrower than the picture: the lines may be broken, and a new one begins below.
        terminal.resize(narrow);
        screen.size = narrow;
        show(&mut terminal, &mut screen);
        assert_eq!(screen.pixels(41, 39, 20), rows(&shades(39, 20)));
        assert_eq!(screen.bottom, 52);
    }
}
