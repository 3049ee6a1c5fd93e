//! For tests: a terminal that understands what is written to it here.

use std::collections::BTreeMap;

use super::Size;

/// A small terminal that understands exactly what is written to it here.
pub struct Screen {
    pub size: Size,
    /// From the first line ever, so that scrolling moves nothing.
    pub cells: BTreeMap<(usize, usize), Cell>,
    pub cursor: (usize, usize),
    /// The lowest line reached: the window ends there.
    pub bottom: usize,
    rendition: (Option<String>, Option<String>),
    pub in_update: bool,
    pub cursor_hidden: bool,
    /// Line, keys of the first chunk, payload.
    pub images: Vec<(usize, String, String)>,
    /// Place of the upper left corner, string.
    pub sixels: Vec<((usize, usize), String)>,
    saved_cursor: (usize, usize),
    /// What the alternate screen hides.
    pub hidden: Option<Box<Screen>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    pub character: char,
    pub upper: Option<String>,
    pub lower: Option<String>,
}

impl Screen {
    pub fn new(size: Size) -> Self {
        Self {
            size,
            cells: BTreeMap::new(),
            cursor: (0, 0),
            bottom: 0,
            rendition: (None, None),
            in_update: false,
            cursor_hidden: false,
            images: Vec::new(),
            sixels: Vec::new(),
            saved_cursor: (0, 0),
            hidden: None,
        }
    }

    pub fn take(&mut self, bytes: &[u8]) {
        let mut rest = str::from_utf8(bytes).unwrap();
        while let Some(character) = rest.chars().next() {
            rest = &rest[character.len_utf8()..];
            match character {
                '\x1b' if rest.starts_with('_') => {
                    let (command, after) = rest.split_once("\x1b\\").unwrap();
                    self.graphics(command.strip_prefix("_G").unwrap());
                    rest = after;
                }
                '\x1b' if rest.starts_with('P') => {
                    let (stream, after) = rest[1..].split_once("\x1b\\").unwrap();
                    self.sixels.push((self.cursor, stream.to_owned()));
                    // Terminals differ in where they leave the cursor.
                    self.cursor = (self.cursor.0 + 1, 17);
                    rest = after;
                }
                '\x1b' if rest.starts_with(['7', '8', '\\']) => {
                    match &rest[..1] {
                        "7" => self.saved_cursor = self.cursor,
                        "8" => self.cursor = self.saved_cursor,
                        _ => {}
                    }
                    rest = &rest[1..];
                }
                '\x1b' => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    self.control(rest[..end].strip_prefix('[').unwrap(), &rest[end..=end]);
                    rest = &rest[end + 1..];
                }
                '\r' => self.cursor.1 = 0,
                '\n' => {
                    self.cursor = (self.cursor.0 + 1, 0);
                    self.bottom = self.bottom.max(self.cursor.0);
                }
                _ => {
                    let (upper, lower) = self.rendition.clone();
                    self.cells.insert(
                        self.cursor,
                        Cell {
                            character,
                            upper,
                            lower,
                        },
                    );
                    self.cursor.1 += 1;
                    // There the cursor sticks; only whoever places it anew may go that far.
                    let limit = self.size.columns + usize::from(self.hidden.is_some());
                    assert!(self.cursor.1 < limit, "the last column is touched");
                }
            }
        }
    }

    fn control(&mut self, parameters: &str, command: &str) {
        let number = || parameters.parse::<usize>().unwrap();
        match (parameters, command) {
            ("?2026", "h" | "l") => self.in_update = command == "h",
            ("?25", "h" | "l") => self.cursor_hidden = command == "l",
            ("?1049", "h") => {
                assert!(self.hidden.is_none());
                let alternate = Self::new(self.size);
                let hidden = std::mem::replace(self, alternate);
                self.in_update = hidden.in_update;
                self.hidden = Some(Box::new(hidden));
            }
            ("?1049", "l") => {
                let hidden = *self.hidden.take().unwrap();
                let (in_update, cursor_hidden) = (self.in_update, self.cursor_hidden);
                *self = hidden;
                (self.in_update, self.cursor_hidden) = (in_update, cursor_hidden);
            }
            ("2", "J") => self.cells.clear(),
            (_, "H") => {
                let (row, column) = parameters.split_once(';').unwrap();
                let top = (self.bottom + 1).saturating_sub(self.size.rows);
                let [row, column] = [row, column].map(|place| place.parse::<usize>().unwrap());
                assert!(
                    (1..=self.size.rows).contains(&row)
                        && (1..=self.size.columns).contains(&column)
                );
                self.cursor = (top + row - 1, column - 1);
            }
            ("", "K") => self
                .cells
                .retain(|place, _| place.0 != self.cursor.0 || place.1 < self.cursor.1),
            ("", "J") => self.cells.retain(|place, _| *place < self.cursor),
            ("0;40", "m") => self.rendition = (None, Some("black".to_owned())),
            ("0", "m") => self.rendition = (None, None),
            (_, "m") => {
                let numbers: Vec<_> = parameters.split(';').collect();
                // 38;2;r;g;b or 38;5;n, then 48;… likewise or 49.
                let (upper, lower) = numbers.split_at(if numbers[1] == "2" { 5 } else { 3 });
                assert_eq!(upper[0], "38");
                let has_lower = lower[0] == "48";
                assert!(has_lower || lower == ["49"]);
                self.rendition = (
                    Some(upper[1..].join(";")),
                    has_lower.then(|| lower[1..].join(";")),
                );
            }
            (_, "A") => {
                self.cursor.0 -= number();
                let top = (self.bottom + 1).saturating_sub(self.size.rows);
                assert!(
                    self.cursor.0 >= top,
                    "the cursor stops at the top of the window"
                );
            }
            (_, "B") => self.cursor.0 += number(),
            _ => panic!("unknown control sequence {parameters}{command}"),
        }
    }

    fn graphics(&mut self, command: &str) {
        let (keys, payload) = command.split_once(';').unwrap();
        assert!(payload.len() <= 4096);
        if keys.starts_with("a=d") {
            self.images.clear();
            return;
        }
        if keys.starts_with("a=T") {
            self.images
                .push((self.cursor.0, keys.to_owned(), String::new()));
        }
        self.images.last_mut().unwrap().2.push_str(payload);
    }

    pub fn assert_settled(&self) {
        assert!(!self.in_update && !self.cursor_hidden);
        assert_eq!(self.rendition, (None, None));
        assert_eq!(self.cursor, (self.bottom, 0));
    }

    pub fn text(&self, line: usize) -> String {
        self.cells
            .range((line, 0)..(line + 1, 0))
            .map(|(_, cell)| cell.character)
            .collect()
    }

    /// The picture in half blocks from `line` on, `None` where there is only background.
    pub fn pixels(&self, line: usize, width: usize, height: usize) -> Vec<[u8; 3]> {
        let mut pixels = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let cell = &self.cells[&(line + y / 2, x)];
                assert_eq!(cell.character, '▀');
                let colour = if y % 2 == 0 { &cell.upper } else { &cell.lower };
                pixels.push(rgb_of(colour.as_ref().unwrap()));
            }
        }
        pixels
    }
}

/// Which colour the parameters after 38 or 48 select.
pub fn rgb_of(parameters: &str) -> [u8; 3] {
    let numbers: Vec<u8> = parameters
        .split(';')
        .map(|number| number.parse().unwrap())
        .collect();
    match numbers[..] {
        [2, r, g, b] => [r, g, b],
        [5, grey @ 232..=255] => [8 + 10 * (grey - 232); 3],
        [5, colour @ 16..=231] => [36, 6, 1].map(|place| match (colour - 16) / place % 6 {
            0 => 0,
            step => 55 + 40 * step,
        }),
        _ => panic!("unknown colour {parameters}"),
    }
}
