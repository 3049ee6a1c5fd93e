//! What a controller must be told, as data: commands, bytes, waits.

/// Which of a panel's controllers are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chips {
    /// All at once.
    All,
    /// Only this one, counted from 0.
    One(usize),
}

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A command and its data.
    Send(Chips, u8, &'static [u8]),
    /// Nothing, for so many milliseconds.
    PauseMs(u32),
    /// Wait until the controller is idle; it may have been so all along.
    Settle,
    /// Wait for a refresh: the controller becomes busy, stays so for a while, and is idle again.
    Refresh,
}

/// [`Step::Send`] to every controller.
pub const fn all(command: u8, data: &'static [u8]) -> Step {
    Step::Send(Chips::All, command, data)
}

/// [`Step::Send`] to one controller.
pub const fn one(chip: usize, command: u8, data: &'static [u8]) -> Step {
    Step::Send(Chips::One(chip), command, data)
}

/// A level of the reset line and for how many milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// In reset.
    LowMs(u32),
    /// Awake.
    HighMs(u32),
}

/// A part of the controller's memory, and what belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    /// Whose memory.
    pub chips: Chips,
    /// The command that begins the data.
    pub command: u8,
    /// Which picture.
    pub picture: Picture,
    /// How it is packed.
    pub packing: Packing,
}

/// The picture before a refresh or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picture {
    /// What the glass shows by now.
    Shown,
    /// What it is to show.
    Wanted,
}

/// How ink indices become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Eight pixels a byte, the left one highest; set for these inks.
    BitsSetFor(&'static [u8]),
    /// Two pixels a byte, the left one high.
    Nibbles,
    /// The same, for column `part` of as many as there are controllers.
    NibblesOfColumn(usize),
}

/// One way to refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// After the reset, until memory can be written.
    pub wake: &'static [Step],
    /// The memory.
    pub planes: &'static [Plane],
    /// From there until the glass shows it.
    pub refresh: &'static [Step],
    /// No refresh is over sooner; a busy line that says so lies.
    pub refresh_ms_min: u32,
}

/// A controller: how it is woken, refreshed and sent to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    /// Native width and height of its glass.
    pub size_px: [usize; 2],
    /// How many controllers share the glass.
    pub chips: usize,
    /// The ink indices it knows.
    pub inks: &'static [u8],
    /// What the reset line does.
    pub reset: &'static [Reset],
    /// From the selection of a controller to its command.
    pub select_ms: u32,
    /// The whole glass.
    pub full: Pass,
    /// A window of it, where the controller can: its memory is then written through the window
    /// that [`super::uc8179::window`] sets.
    pub partial: Option<Pass>,
    /// After a refresh, to deep sleep, from which only a reset wakes.
    pub sleep: &'static [Step],
}

/// A rectangle of native pixels whose left and right are multiples of eight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first column.
    pub left: usize,
    /// The first row.
    pub top: usize,
    /// The column after the last.
    pub right: usize,
    /// The row after the last.
    pub bottom: usize,
}

impl Window {
    /// All of a glass.
    pub fn whole([width, height]: [usize; 2]) -> Self {
        Self {
            left: 0,
            top: 0,
            right: width,
            bottom: height,
        }
    }

    /// The smallest window around what differs; none when nothing does.
    pub fn around(before: &[u8], after: &[u8], width: usize) -> Option<Self> {
        let mut window: Option<Self> = None;
        let rows = before.chunks_exact(width).zip(after.chunks_exact(width));
        for (y, (before, after)) in rows.enumerate() {
            let differs = |x: &usize| before[*x] != after[*x];
            let Some(first) = (0..width).find(differs) else {
                continue;
            };
            let last = (0..width).rev().find(differs).unwrap_or(first);
            let (left, right) = (first / 8 * 8, last / 8 * 8 + 8);
            let top = window.map_or(y, |window| window.top);
            window = Some(Self {
                left: window.map_or(left, |window| window.left.min(left)),
                top,
                right: window.map_or(right, |window| window.right.max(right)),
                bottom: y + 1,
            });
        }
        window
    }

    /// The bytes of the window's part of `indices`, rows of `width` native pixels.
    pub fn packed(&self, indices: &[u8], width: usize, packing: Packing, chips: usize) -> Vec<u8> {
        let rows = indices
            .chunks_exact(width)
            .take(self.bottom)
            .skip(self.top)
            .map(|row| &row[self.left..self.right]);
        let nibbles = |row: &[u8]| -> Vec<u8> {
            let pairs = row.chunks_exact(2);
            pairs.map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        match packing {
            Packing::BitsSetFor(inks) => rows
                .flat_map(|row| row.chunks_exact(8))
                .map(|eight| {
                    let bits = eight.iter().map(|index| u8::from(inks.contains(index)));
                    bits.fold(0, |byte, bit| byte << 1 | bit)
                })
                .collect(),
            Packing::Nibbles => rows.flat_map(nibbles).collect(),
            Packing::NibblesOfColumn(part) => {
                let column = width / chips;
                rows.flat_map(|row| nibbles(&row[part * column..][..column]))
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_what_differs_and_whole_bytes() {
        let before = vec![0; 24 * 5];
        assert_eq!(Window::around(&before, &before, 24), None);
        let mut after = before.clone();
        after[24 + 9] = 1;
        after[3 * 24 + 7] = 1;
        let window = Window {
            left: 0,
            top: 1,
            right: 16,
            bottom: 4,
        };
        assert_eq!(Window::around(&before, &after, 24), Some(window));
        let bits = window.packed(&after, 24, Packing::BitsSetFor(&[1]), 1);
        assert_eq!(bits, [0, 0b0100_0000, 0, 0, 1, 0]);
    }

    #[test]
    fn nibbles_go_left_to_right_and_column_by_column() {
        let indices: Vec<u8> = (0..8).collect();
        let whole = Window::whole([4, 2]);
        let packed = |packing| whole.packed(&indices, 4, packing, 2);
        assert_eq!(packed(Packing::Nibbles), [0x01, 0x23, 0x45, 0x67]);
        assert_eq!(packed(Packing::NibblesOfColumn(0)), [0x01, 0x45]);
        assert_eq!(packed(Packing::NibblesOfColumn(1)), [0x23, 0x67]);
    }
}
