//! Tables of text: names to the left, numbers to the right.

/// A table whose first column holds names.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|name| name.to_string()).collect(), rows: Vec::new() }
    }

    /// Adds a row with as many cells as the head.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().collect();
        debug_assert_eq!(row.len(), self.head.len());
        self.rows.push(row);
    }

    /// The same table without the columns at these positions.
    pub fn without(&self, places: &[usize]) -> Self {
        let kept = |row: &Vec<String>| {
            let cells = row.iter().enumerate().filter(|(i, _)| !places.contains(i));
            cells.map(|(_, cell)| cell.clone()).collect()
        };
        Self { head: kept(&self.head), rows: self.rows.iter().map(kept).collect() }
    }

    fn widths(&self) -> Vec<usize> {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        (0..self.head.len()).map(|i| all().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect()
    }

    fn line(row: &[String], widths: &[usize], between: &str) -> String {
        let cell = |(i, (cell, &width)): (usize, (&String, &usize))| {
            if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        };
        let cells: Vec<String> = row.iter().zip(widths).enumerate().map(cell).collect();
        cells.join(between)
    }

    /// For a terminal: one line per row, the head underlined.
    pub fn plain(&self) -> String {
        self.indented(0)
    }

    /// Like [`Table::plain`], indented by this many blanks.
    pub fn indented(&self, blanks: usize) -> String {
        let widths = self.widths();
        let rule: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
        let lines = [&self.head, &rule].into_iter().chain(&self.rows);
        lines.map(|row| " ".repeat(blanks) + Self::line(row, &widths, "  ").trim_end() + "\n").collect()
    }

    /// For Markdown.
    pub fn markdown(&self) -> String {
        let widths = self.widths();
        let rule = |(i, &width): (usize, &usize)| {
            if i == 0 { "-".repeat(width.max(3)) } else { "-".repeat(width.max(3) - 1) + ":" }
        };
        let rule: Vec<String> = widths.iter().enumerate().map(rule).collect();
        let escaped = |row: &Vec<String>| row.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>();
        let lines = [self.head.clone(), rule].into_iter().chain(self.rows.iter().map(escaped));
        lines.map(|row| format!("| {} |\n", Self::line(&row, &widths, " | "))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["name", "±"]);
        table.row(["a".into(), "1.0 ± 0.5".into()]);
        table.row(["longer".into(), "–".into()]);
        assert_eq!(table.plain(), "name            ±\n──────  ─────────\na       1.0 ± 0.5\nlonger          –\n");
        assert_eq!(table.without(&[1]).plain(), "name\n──────\na\nlonger\n");
        assert_eq!(
            table.markdown(),
            "| name   |         ± |\n| ------ | --------: |\n| a      | 1.0 ± 0.5 |\n| longer |         – |\n"
        );
    }
}
