//! How far a picture has come, in one line of text.
//!
//! Pure functions of numbers: the clock and the width of the terminal come from the caller.

use std::time::Duration;

/// The longest bar, in characters.
const MAX_BAR: usize = 20;

/// How far a run of steps has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The steps that are finished, `0..=count`.
    pub index: usize,
    /// The steps in all.
    pub count: usize,
    /// The time since the first step began.
    pub elapsed: Duration,
    /// What one step takes; it decides the time left.
    pub per_step: Duration,
}

impl Progress {
    /// The line for a terminal of `columns`: less and less is said in less and less room.
    ///
    /// `step 12/50 [████······] 8.31 ms/step 0:01 left`, and at the end `in 0.42 s`.
    pub fn line(&self, columns: usize) -> String {
        let (step, pace, time) = (self.step(), self.pace(), self.time());
        let join = |parts: &[&str]| {
            let parts: Vec<_> = parts
                .iter()
                .copied()
                .filter(|part| !part.is_empty())
                .collect();
            parts.join(" ")
        };
        let with_bar = |least: usize, parts: &[&str]| {
            let after = join(parts);
            let around = step.len() + 3 + if after.is_empty() { 0 } else { 1 };
            let room = columns.checked_sub(around + after.chars().count())?;
            let bar = (room >= least).then(|| self.bar(room.min(MAX_BAR)))?;
            Some(join(&[&step, &bar, &after]))
        };
        let fitting = |line: String| (line.chars().count() <= columns).then_some(line);
        with_bar(10, &[&pace, &time])
            .or_else(|| with_bar(5, &[&time]))
            .or_else(|| fitting(join(&[&step, &time])))
            .or_else(|| fitting(step.clone()))
            .unwrap_or_else(|| format!("{}/{}", self.index, self.count))
    }

    /// The line for a log, at every tenth of the way and at no other step.
    ///
    /// `step 10/50, 20 %, 8.31 ms/step, 0:01 left`
    pub fn plain(&self) -> Option<String> {
        let tenths = |index: usize| 10 * index / self.count.max(1);
        let crossed = self.index > 0 && tenths(self.index) > tenths(self.index - 1);
        crossed.then(|| {
            let percent = format!("{} %", 100 * self.index / self.count.max(1));
            [self.step(), percent, self.pace(), self.time()].join(", ")
        })
    }

    /// "step 12/50", always equally long, so that nothing to the right of it jumps.
    fn step(&self) -> String {
        let width = self.count.to_string().len();
        format!("step {:width$}/{}", self.index, self.count)
    }

    fn bar(&self, width: usize) -> String {
        let done = (width * self.index / self.count.max(1)).min(width);
        format!("[{}{}]", "█".repeat(done), "·".repeat(width - done))
    }

    /// "8.31 ms/step"; nothing before the first step is over.
    fn pace(&self) -> String {
        if self.index == 0 {
            String::new()
        } else {
            format!("{}/step", short(self.per_step))
        }
    }

    /// "0:01 left"; at the end "in 0.42 s"; nothing before the first step is over.
    fn time(&self) -> String {
        let left = self.count.saturating_sub(self.index);
        if self.index == 0 {
            String::new()
        } else if left > 0 {
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            format!("{} left", clock(self.per_step.saturating_mul(left)))
        } else if self.elapsed < Duration::from_secs(60) {
            format!("in {}", short(self.elapsed))
        } else {
            format!("in {}", clock(self.elapsed))
        }
    }
}

/// A time in three digits and the unit that suits: "831 µs", "8.31 ms", "83.1 s".
fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        0.0..0.000_999_5 => (seconds * 1e6, "µs"),
        0.000_999_5..0.999_5 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let decimals = match value {
        0.0..9.995 => 2,
        9.995..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// "0:07", "12:30", "1:02:03"; a begun second counts.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: usize, count: usize, per_step_us: u64) -> Progress {
        let per_step = Duration::from_micros(per_step_us);
        Progress {
            index,
            count,
            elapsed: per_step * index as u32,
            per_step,
        }
    }

    #[test]
    fn the_line_says_less_where_there_is_less_room() {
        let half = at(25, 50, 8310);
        for (columns, line) in [
            (
                200,
                "step 25/50 [██████████··········] 8.31 ms/step 0:01 left",
            ),
            (
                56,
                "step 25/50 [██████████··········] 8.31 ms/step 0:01 left",
            ),
            (46, "step 25/50 [█████·····] 8.31 ms/step 0:01 left"),
            (45, "step 25/50 [██████████··········] 0:01 left"),
            (28, "step 25/50 [██···] 0:01 left"),
            (27, "step 25/50 0:01 left"),
            (20, "step 25/50 0:01 left"),
            (19, "step 25/50"),
            (9, "25/50"),
            (0, "25/50"),
        ] {
            assert_eq!(half.line(columns), line, "in {columns} columns");
        }
    }

    #[test]
    fn the_line_fits_at_every_width_and_step() {
        for columns in 7..100 {
            for index in 0..=120 {
                let line = at(index, 120, 1_234_567).line(columns);
                assert!(
                    line.chars().count() <= columns,
                    "{line:?} in {columns} columns"
                );
            }
        }
    }

    #[test]
    fn the_first_and_the_last_line_know_what_they_know() {
        assert_eq!(at(0, 50, 0).line(40), "step  0/50 [····················]");
        assert_eq!(
            at(50, 50, 8310).line(46),
            "step 50/50 [██████████] 8.31 ms/step in 416 ms"
        );
        assert!(
            at(50, 50, 2_000_000)
                .line(80)
                .ends_with("2.00 s/step in 1:40")
        );
        assert_eq!(at(0, 0, 0).line(80), "step 0/0 [····················]");
    }

    #[test]
    fn a_log_gets_ten_lines() {
        let lines: Vec<_> = (0..=250)
            .filter_map(|index| at(index, 250, 500).plain())
            .collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[0], "step  25/250, 10 %, 500 µs/step, 0:01 left");
        assert_eq!(lines[9], "step 250/250, 100 %, 500 µs/step, in 125 ms");
        let few: Vec<_> = (0..=3)
            .filter_map(|index| at(index, 3, 500).plain())
            .collect();
        assert_eq!(few.len(), 3);
        assert_eq!(at(0, 0, 0).plain(), None);
    }

    #[test]
    fn times_have_three_digits() {
        for (micros, text) in [
            (0, "0.00 µs"),
            (831, "831 µs"),
            (999, "999 µs"),
            (1000, "1.00 ms"),
            (9_996, "10.0 ms"),
            (83_100, "83.1 ms"),
            (999_600, "1.00 s"),
            (120_000_000, "120 s"),
        ] {
            assert_eq!(short(Duration::from_micros(micros)), text);
        }
        for (seconds, text) in [(0, "0:00"), (59, "0:59"), (60, "1:00"), (3723, "1:02:03")] {
            assert_eq!(clock(Duration::from_secs(seconds)), text);
        }
        assert_eq!(clock(Duration::from_millis(1)), "0:01");
    }
}
