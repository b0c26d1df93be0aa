//! Tables whose columns are as wide as needed, laid out as Go's `text/tabwriter` does.

/// Rows of cells. The last cell of a row is not part of a column and gets no padding.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a header.
    pub fn new(header: &[&str]) -> Self {
        let mut table = Self::default();
        table.row(header);
        table
    }

    /// Adds a row.
    pub fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        self.rows
            .push(cells.iter().map(|cell| cell.as_ref().to_owned()).collect());
    }

    /// The text; columns are `padding` blanks apart.
    pub fn render(&self, padding: usize) -> String {
        // A column is a run of neighbouring rows that have a cell there which another one follows.
        let in_column = |row: usize, column: usize| {
            self.rows.get(row).is_some_and(|row| row.len() > column + 1)
        };
        let width = |row: usize, column: usize| {
            let (mut first, mut end) = (row, row);
            while first > 0 && in_column(first - 1, column) {
                first -= 1;
            }
            while in_column(end, column) {
                end += 1;
            }
            let widest = self.rows[first..end]
                .iter()
                .map(|row| row[column].chars().count())
                .max();
            widest.unwrap_or(0) + padding
        };
        let mut widths: Vec<usize> = Vec::new();
        let mut shape = 0;
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            // Rows of the same shape share their widths.
            if number == 0 || row.len() != shape {
                shape = row.len();
                widths = (0..shape.saturating_sub(1))
                    .map(|column| width(number, column))
                    .collect();
            }
            for (column, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if let Some(width) = widths.get(column) {
                    let blanks = width - cell.chars().count();
                    text.extend(std::iter::repeat_n(' ', blanks));
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_the_last_one_is_not_padded() {
        let mut table = Table::new(&["NAME", "PORT", "RULE"]);
        table.row(&["a-long-name", "80", ""]);
        table.row(&["b", "8080", "r"]);
        let expected = "NAME         PORT  RULE\na-long-name  80    \nb            8080  r\n";
        assert_eq!(table.render(2), expected, "{}", table.render(2));
    }

    #[test]
    fn a_row_of_another_shape_ends_a_column() {
        let mut table = Table::default();
        table.row(&["a", "b", "c"]);
        table.row(&["alone"]);
        table.row(&["longer", "b", "c"]);
        assert_eq!(table.render(1), "a b c\nalone\nlonger b c\n");
    }
}
