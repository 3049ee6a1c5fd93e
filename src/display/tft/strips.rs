//! Which rows go to the glass: runs of changed rows, joined where that is cheaper.

use std::ops::Range;
use std::time::Duration;

/// What a strip costs before its first pixel: five messages of the window's commands and as many
/// turns of the line DC. An estimate: a system call of a small board's core and its SPI driver.
const STRIP_COST: Duration = Duration::from_micros(150);

/// How many unchanged rows are sent along rather than beginning another strip.
pub(super) fn gap_rows_max(row_bytes: usize, spi_hz: u32) -> usize {
    let row = Duration::from_secs_f64(8.0 * row_bytes as f64 / f64::from(spi_hz));
    (STRIP_COST.as_nanos() / row.as_nanos().max(1)) as usize
}

/// The strips of `changed` rows; a gap of at most `gap_rows_max` rows is part of one.
pub(super) fn strips(changed: &[bool], gap_rows_max: usize) -> Vec<Range<usize>> {
    let mut strips: Vec<Range<usize>> = Vec::new();
    for (row, _) in changed.iter().enumerate().filter(|(_, changed)| **changed) {
        match strips.last_mut() {
            Some(strip) if row - strip.end <= gap_rows_max => strip.end = row + 1,
            _ => strips.push(row..row + 1),
        }
    }
    strips
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first row of each strip and the row after its last.
    fn of(rows: &str, gap_rows_max: usize) -> Vec<[usize; 2]> {
        let changed: Vec<bool> = rows.chars().map(|row| row == '#').collect();
        let strips = strips(&changed, gap_rows_max).into_iter();
        strips.map(|strip| [strip.start, strip.end]).collect()
    }

    #[test]
    fn runs_of_rows_are_strips() {
        assert_eq!(of("", 1), [[0; 2]; 0]);
        assert_eq!(of("....", 1), [[0; 2]; 0]);
        assert_eq!(of("####", 0), [[0, 4]]);
        assert_eq!(of("#..##...#", 0), [[0, 1], [3, 5], [8, 9]]);
    }

    #[test]
    fn small_gaps_are_sent_along() {
        assert_eq!(of(".#.##..#", 0), [[1, 2], [3, 5], [7, 8]]);
        assert_eq!(of(".#.##..#", 1), [[1, 5], [7, 8]]);
        assert_eq!(of(".#.##..#", 2), [[1, 8]]);
        assert_eq!(of("#.", 9), [[0, 1]]);
    }

    #[test]
    fn the_faster_the_wire_the_wider_the_gap() {
        assert_eq!(gap_rows_max(480, 10_000_000), 0);
        assert_eq!(gap_rows_max(480, 32_000_000), 1);
        assert_eq!(gap_rows_max(480, 62_500_000), 2);
    }
}
