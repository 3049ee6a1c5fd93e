//! Curves in a terminal, drawn in braille: eight dots to a character.

use std::ops::RangeInclusive;

/// How the vertical axis runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps are equal differences.
    Linear,
    /// Equal steps are equal ratios; values that are not positive are gaps.
    Log,
}

/// One curve.
#[derive(Debug, Clone, Copy)]
pub struct Series<'a> {
    /// Its name in the legend, of characters one column wide.
    pub label: &'a str,
    /// Points (x, y), joined in their order. One that is not finite is a gap.
    pub points: &'a [(f64, f64)],
}

/// Curves over a common axis.
#[derive(Debug, Clone, Copy)]
pub struct Plot<'a> {
    /// What stands above, before the legend.
    pub title: &'a str,
    /// What stands in the middle below.
    pub x_label: &'a str,
    /// How the vertical axis runs.
    pub scale: Scale,
    /// The curves; up to three can be told apart.
    pub series: &'a [Series<'a>],
    /// The width of the whole, labels included.
    pub columns: usize,
    /// The height of the curves alone, at least 4; three more lines stand around them.
    pub rows: usize,
}

impl Plot<'_> {
    /// The plot as lines that each end in `\n`, without colours.
    ///
    /// The vertical axis is widened to round numbers. Too little room is taken as enough.
    pub fn render(&self) -> String {
        let finite = || {
            self.series
                .iter()
                .flat_map(|series| series.points)
                .filter_map(|p| self.place(*p))
        };
        let (Some(xs), Some(ys)) = (span(finite().map(|p| p.0)), span(finite().map(|p| p.1)))
        else {
            return format!("{}\nno values\n", self.title);
        };
        // Fewer rows could not keep four labels apart.
        let rows = self.rows.max(4);
        let ticks = match self.scale {
            Scale::Linear => linear_ticks(&ys),
            Scale::Log => decades(&ys, rows),
        };
        let lowest = ticks[0].0;
        let height = ticks[ticks.len() - 1].0 - lowest;
        let margin = ticks
            .iter()
            .map(|(_, label)| label.len())
            .max()
            .unwrap_or(0)
            + 1;
        let mut canvas = Canvas::new(self.columns.saturating_sub(margin).max(4), rows);
        let dots = (2 * canvas.columns - 1, 4 * canvas.rows - 1);
        let dot_y = |y: f64| dots.1 as i64 - ((y - lowest) / height * dots.1 as f64).round() as i64;
        let width = (xs.end() - xs.start()).max(f64::MIN_POSITIVE);
        let dot_x = |x: f64| ((x - xs.start()) / width * dots.0 as f64).round() as i64;
        for (series, stroke) in self.series.iter().zip(STROKES.iter().cycle()) {
            let to_dot = |point| self.place(point).map(|(x, y)| (dot_x(x), dot_y(y)));
            canvas.curve(series.points.iter().map(|point| to_dot(*point)), *stroke);
        }
        let mut text = self.head();
        for (row, line) in canvas.lines().enumerate() {
            let tick = ticks.iter().find(|(y, _)| dot_y(*y) / 4 == row as i64);
            let (label, mark) = tick.map_or(("", '│'), |(_, label)| (label.as_str(), '┤'));
            let line = format!("{label:>margin$}{mark}{line}", margin = margin - 1);
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text + &self.foot(margin, canvas.columns, &xs)
    }

    /// The point on the axes as they run; `None` for a gap.
    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let y = match self.scale {
            Scale::Linear => y,
            Scale::Log if y > 0.0 => y.log10(),
            Scale::Log => return None,
        };
        (x.is_finite() && y.is_finite()).then_some((x, y))
    }

    /// The title and, for several curves, which is which.
    fn head(&self) -> String {
        let mut parts = vec![self.title.to_owned()];
        if self.series.len() > 1 {
            for (series, stroke) in self.series.iter().zip(STROKES.iter().cycle()) {
                let mut sample = Canvas::new(4, 1);
                sample.curve([Some((0, 2)), Some((7, 2))], *stroke);
                parts.push(sample.lines().collect::<String>() + " " + series.label);
            }
        }
        parts.retain(|part| !part.is_empty());
        parts.join("   ") + "\n"
    }

    /// The horizontal axis, its ends and its name.
    fn foot(&self, margin: usize, columns: usize, xs: &RangeInclusive<f64>) -> String {
        let axis = format!("{:>margin$}{}\n", "└", "─".repeat(columns));
        let (first, last) = (number(*xs.start()), number(*xs.end()));
        let between = columns.saturating_sub(first.len() + last.len());
        axis + &format!("{:margin$}{first}{:^between$}{last}\n", "", self.x_label)
    }
}

/// Which dots along a curve are set: `on` of every `period`.
#[derive(Debug, Clone, Copy)]
struct Stroke {
    on: usize,
    period: usize,
}

const STROKES: [Stroke; 3] = [
    Stroke { on: 1, period: 1 },
    Stroke { on: 1, period: 3 },
    Stroke { on: 4, period: 6 },
];

/// A grid of braille characters, 2 dots wide and 4 high each.
struct Canvas {
    columns: usize,
    rows: usize,
    /// Row by row; the bits are those of Unicode's braille patterns.
    cells: Vec<u8>,
}

impl Canvas {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            columns,
            rows,
            cells: vec![0; columns * rows],
        }
    }

    /// Joins the dots with straight lines; `None` is a gap.
    fn curve(&mut self, dots: impl IntoIterator<Item = Option<(i64, i64)>>, stroke: Stroke) {
        let mut length = 0;
        let mut before = None;
        for dot in dots {
            if let Some((x1, y1)) = dot {
                let (x0, y0) = before.unwrap_or((x1, y1));
                let steps = (x1 - x0).abs().max((y1 - y0).abs());
                let first = i64::from(before.is_some());
                for step in first..=steps {
                    let part = step as f64 / steps.max(1) as f64;
                    let between = |a: i64, b: i64| a + ((b - a) as f64 * part).round() as i64;
                    if length % stroke.period < stroke.on {
                        self.set(between(x0, x1), between(y0, y1));
                    }
                    length += 1;
                }
            }
            before = dot;
        }
    }

    fn set(&mut self, x: i64, y: i64) {
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else {
            return;
        };
        if x / 2 < self.columns && y / 4 < self.rows {
            self.cells[y / 4 * self.columns + x / 2] |= BITS[y % 4][x % 2];
        }
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let braille = |bits: &u8| match bits {
            0 => ' ',
            bits => char::from_u32(0x2800 + u32::from(*bits)).expect("a braille pattern"),
        };
        self.cells
            .chunks(self.columns)
            .map(move |row| row.iter().map(braille).collect())
    }
}

/// The smallest and the largest of the values, if there is one.
fn span(values: impl Iterator<Item = f64>) -> Option<RangeInclusive<f64>> {
    let range = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    (range.0 <= range.1).then_some(range.0..=range.1)
}

/// Two to four round numbers that enclose the range, with their labels.
fn linear_ticks(range: &RangeInclusive<f64>) -> Vec<(f64, String)> {
    let (mut low, mut high) = (*range.start(), *range.end());
    if high - low <= 1e-9 * low.abs().max(high.abs()) {
        // A constant has no range of its own: it is shown against zero.
        (low, high) = (low.min(0.0), high.max(if low == 0.0 { 1.0 } else { 0.0 }));
    }
    let least = high / 2.0 - low / 2.0;
    let power = 10_f64.powf(least.log10().floor());
    // The logarithm may be a hair off at a power of ten itself.
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    let step = step
        .into_iter()
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(10.0 * power);
    let first = (low / step + 1e-9).floor();
    let last = (high / step - 1e-9).ceil().max(first + 1.0);
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let label = |value: f64| {
        if decimals < 5 && value.abs() < 1e6 {
            format!("{value:.decimals$}")
        } else {
            number(value)
        }
    };
    (0..=(last - first) as usize)
        .map(|index| (first + index as f64) * step)
        .map(|value| (value, label(value)))
        .collect()
}

/// Powers of ten that enclose the range (of logarithms), at most one to every second row.
fn decades(range: &RangeInclusive<f64>, rows: usize) -> Vec<(f64, String)> {
    let first = range.start().floor() as i64;
    let last = (range.end().ceil() as i64).max(first + 1);
    let most = (rows / 2).max(1) as i64;
    let step = (last - first + most - 1) / most;
    let last = first + (last - first + step - 1) / step * step;
    let label = |exponent: i64| match exponent {
        -2..=3 => number(10_f64.powi(exponent as i32)),
        _ => format!("1e{exponent}"),
    };
    let exponents = (first..=last).step_by(step as usize);
    exponents
        .map(|exponent| (exponent as f64, label(exponent)))
        .collect()
}

/// A number at the end of an axis, in at most four digits.
fn number(value: f64) -> String {
    if value == value.round() && value.abs() < 1e6 {
        return format!("{value:.0}");
    }
    let rounded: f64 = format!("{value:.3e}").parse().unwrap_or(value);
    if (1e-3..1e6).contains(&value.abs()) {
        rounded.to_string()
    } else {
        format!("{rounded:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot<'a>(scale: Scale, series: &'a [Series<'a>]) -> Plot<'a> {
        Plot {
            title: "schedule",
            x_label: "t",
            scale,
            series,
            columns: 30,
            rows: 4,
        }
    }

    fn check(plot: Plot, expected: &str) {
        let text = plot.render();
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_straight_line_is_straight() {
        let points: Vec<_> = (0..1000)
            .map(|t| (f64::from(t), 1.0 - f64::from(t) / 999.0))
            .collect();
        let series = [Series {
            label: "ᾱ",
            points: &points,
        }];
        let expected = "\
schedule
1.0┤⠉⠓⠲⠤⢄⣀⡀
0.5┤      ⠉⠙⠒⠲⠤⣄⣀
   │             ⠉⠙⠒⠦⠤⣄⣀
0.0┤                   ⠈⠉⠑⠒⠦⢤⣀
   └──────────────────────────
    0          t           999
";
        check(plot(Scale::Linear, &series), expected);
    }

    #[test]
    fn powers_are_straight_on_a_log_axis() {
        let falling: Vec<_> = (0..=8)
            .map(|x| (f64::from(x), 10_f64.powi(2 - x)))
            .collect();
        let rising: Vec<_> = (0..=8)
            .map(|x| (f64::from(x), 10_f64.powi(x - 6)))
            .collect();
        let series = [
            Series {
                label: "SNR",
                points: &falling,
            },
            Series {
                label: "β",
                points: &rising,
            },
        ];
        let expected = "\
schedule   ⠤⠤⠤⠤ SNR   ⠄⠠ ⠄ β
 100┤⠉⠒⠢⠤⣀⡀             ⢀ ⠄⠐ ⠁
0.01┤     ⠈⠉⠒⠢⠤⠤⣀⣀⣀ ⠄⠐ ⠁
    │      ⡀⠠ ⠂⠈  ⠈⠉⠒⠢⠤⣀⡀
1e-6┤⡀⠠ ⠂⠈              ⠈⠉⠒⠢⠤⣀
    └─────────────────────────
     0           t           8
";
        check(plot(Scale::Log, &series), expected);
    }

    #[test]
    fn what_is_no_number_is_a_gap() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let points = [
            (0.0, 1.0),
            (1.0, 1.0),
            (2.0, nan),
            (3.0, inf),
            (4.0, 1.0),
            (5.0, 1.0),
        ];
        let series = [Series {
            label: "",
            points: &points,
        }];
        let expected = "\
schedule
1.0┤⠉⠉⠉⠁        ⠈⠉⠉⠉
0.5┤
   │
0.0┤
   └────────────────
    0      t       5
";
        check(
            Plot {
                columns: 20,
                ..plot(Scale::Linear, &series)
            },
            expected,
        );
        let nothing = [Series {
            label: "",
            points: &[(0.0, 0.0), (inf, 1.0)],
        }];
        check(plot(Scale::Log, &nothing), "schedule\nno values\n");
        check(plot(Scale::Linear, &[]), "schedule\nno values\n");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let labels = |low: f64, high: f64| -> Vec<String> {
            linear_ticks(&(low..=high))
                .into_iter()
                .map(|(_, label)| label)
                .collect()
        };
        assert_eq!(labels(0.003, 0.97), ["0.0", "0.5", "1.0"]);
        assert_eq!(labels(1e-4, 0.02), ["0.00", "0.01", "0.02"]);
        assert_eq!(labels(-1.0, 1.0), ["-1", "0", "1"]);
        assert_eq!(labels(3.0, 3.0), ["0", "2", "4"]);
        assert_eq!(labels(-7.0, -7.0), ["-10", "-5", "0"]);
        assert_eq!(labels(0.0, 0.0), ["0.0", "0.5", "1.0"]);
        assert_eq!(labels(2e-7, 1.1e-6), ["0", "5e-7", "1e-6", "1.5e-6"]);
        assert_eq!(labels(1.0, 3e9), ["0", "2e9", "4e9"]);
        let labels = |low: f64, high: f64, rows| -> Vec<String> {
            decades(&(low..=high), rows)
                .into_iter()
                .map(|(_, label)| label)
                .collect()
        };
        assert_eq!(
            labels(-8.6, 4.3, 10),
            ["1e-9", "1e-6", "1e-3", "1", "1000", "1e6"]
        );
        assert_eq!(labels(0.0, 0.0, 10), ["1", "10"]);
    }

    #[test]
    fn any_size_and_any_values_are_drawn_within_the_width() {
        let points = [
            (0.0, 1e300),
            (1.0, 1e-300),
            (-1e308, -1e308),
            (1e308, 5e-324),
            (0.0, 0.0),
        ];
        let series = [Series {
            label: "",
            points: &points,
        }; 4];
        for columns in [0, 1, 7, 30, 200] {
            for rows in [0, 1, 2, 40] {
                for scale in [Scale::Linear, Scale::Log] {
                    let text = Plot {
                        columns,
                        rows,
                        ..plot(scale, &series)
                    }
                    .render();
                    assert_eq!(text.lines().count(), rows.max(4) + 3);
                    let widest = text.lines().skip(1).map(|line| line.chars().count()).max();
                    assert!(
                        widest.is_some_and(|widest| widest <= columns.max(24)),
                        "{text}"
                    );
                }
            }
        }
    }
}
