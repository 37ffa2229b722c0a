//! Tables as kubectl prints them: columns three spaces apart, nothing after the last one.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr as _;

/// Whether the column names are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Headers {
    Shown,
    /// `--no-headers`.
    Hidden,
}

/// Rows under column names.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<Cow<'static, str>>,
    rows: Vec<Vec<String>>,
}

/// Spaces between columns.
const PADDING: usize = 3;
/// A column's least width, padding included, as kubectl's.
const MINIMUM: usize = 6;

impl Table {
    /// An empty table.
    pub(crate) fn new<C: Into<Cow<'static, str>>>(columns: Vec<C>) -> Self {
        Self {
            columns: columns.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with one cell per column; a line break in a cell becomes a space.
    pub(crate) fn push(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "one cell per column");
        let cells = cells
            .into_iter()
            .map(|cell| cell.replace(['\n', '\t', '\r', '\x1b'], " "));
        self.rows.push(cells.collect());
    }

    /// The lines of the table.
    pub(crate) fn render(&self, headers: Headers) -> String {
        let header: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        let lines: Vec<&[String]> = match headers {
            Headers::Shown => Some(header.as_slice()),
            Headers::Hidden => None,
        }
        .into_iter()
        .chain(self.rows.iter().map(Vec::as_slice))
        .collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let widest = lines.iter().filter_map(|line| line.get(column));
                let widest = widest.map(|cell| cell.width()).max().unwrap_or(0);
                (widest + PADDING).max(MINIMUM)
            })
            .collect();
        let mut text = String::new();
        for line in lines {
            push_line(&mut text, line, &widths);
        }
        text
    }
}

fn push_line(text: &mut String, cells: &[String], widths: &[usize]) {
    for (position, (cell, width)) in cells.iter().zip(widths).enumerate() {
        text.push_str(cell);
        if position + 1 < cells.len() {
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width())));
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_three_spaces_apart_and_wide_characters_count_twice() {
        let mut table = Table::new(vec!["NAME", "X", "AGE"]);
        table.push(vec!["web-0".into(), "1".into(), "2m".into()]);
        table.push(vec!["日本".into(), "line\nbreak".into(), "3d".into()]);
        assert_eq!(
            table.render(Headers::Shown),
            "NAME    X            AGE\n\
             web-0   1            2m\n\
             日本    line break   3d\n"
        );
        let mut small = Table::new(vec!["A", "B"]);
        small.push(vec!["1".into(), "2".into()]);
        assert_eq!(small.render(Headers::Hidden), "1     2\n");
    }
}
