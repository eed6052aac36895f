//! Tables for people: columns as wide as what stands in them.

/// Which side of its column a cell leans to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows under a head.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub(super) fn new(head: &[(&str, Side)]) -> Self {
        let titles = head.iter().map(|(title, _)| (*title).to_owned()).collect();
        Self { columns: head.iter().map(|&(_, side)| side).collect(), rows: vec![titles] }
    }

    /// Adds a row; it has as many cells as the head.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width_of).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, side), width) in row.iter().zip(&self.columns).zip(&widths) {
                let width = *width;
                line.push_str(&match side {
                    Side::Left => format!("{cell:<width$}  "),
                    Side::Right => format!("{cell:>width$}  "),
                });
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A count with its thousands apart.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the unit that suits it.
#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
pub(super) fn bytes(count: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", count as f64 / *size as f64),
        None => format!("{count} B"),
    }
}

/// A duration in the unit that suits it.
pub(super) fn seconds(seconds: f64) -> String {
    let units = [("s", 1.0), ("ms", 1e-3)];
    let (unit, size) = units.into_iter().find(|(_, size)| seconds >= *size).unwrap_or(("us", 1e-6));
    let number = format!("{:.3}", seconds / size);
    format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
}

/// How long a node has been running.
pub(super) fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("name", Side::Left), ("count", Side::Right)]);
        table.row(vec!["a".into(), "1".into()]);
        table.row(vec!["longer".into(), "123456".into()]);
        assert_eq!(table.to_string(), "name     count\na            1\nlonger  123456\n");
    }

    #[test]
    fn figures_are_read_at_a_glance() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!([5, 2_048, 3 << 29].map(bytes), ["5 B", "2.0 KiB", "1.5 GiB"]);
        assert_eq!([0.000_002_5, 0.05, 2.5].map(seconds), ["2.5 us", "50 ms", "2.5 s"]);
        assert_eq!(
            [7, 130, 7_300, 200_000].map(age),
            ["7 s", "2 min 10 s", "2 h 1 min", "2 d 7 h"]
        );
    }
}
