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

/// How wide the columns have become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Widths(Vec<usize>);

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
        self.render_below(headers, &mut Widths::default())
    }

    /// The lines of the table, its columns where they were in the lines before.
    pub(crate) fn render_below(&self, headers: Headers, before: &mut Widths) -> String {
        let header: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        let lines: Vec<&[String]> = match headers {
            Headers::Shown => Some(header.as_slice()),
            Headers::Hidden => None,
        }
        .into_iter()
        .chain(self.rows.iter().map(Vec::as_slice))
        .collect();
        before.0.resize(self.columns.len(), MINIMUM);
        for (column, width) in before.0.iter_mut().enumerate() {
            let cells = lines.iter().filter_map(|line| line.get(column));
            let widest = cells.map(|cell| cell.width()).max().unwrap_or(0);
            *width = (widest + PADDING).max(*width);
        }
        let mut text = String::new();
        for line in lines {
            push_line(&mut text, line, &before.0);
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

    #[test]
    fn columns_stay_where_they_were_and_never_get_narrower() {
        let mut widths = Widths::default();
        let mut check = |name: &str, expected: &str| {
            let mut table = Table::new(vec!["NAME", "AGE"]);
            table.push(vec![name.into(), "2m".into()]);
            assert_eq!(table.render_below(Headers::Hidden, &mut widths), expected);
        };
        check("database", "database   2m\n");
        check("web", "web        2m\n");
        check("another-one", "another-one   2m\n");
        check("web", "web           2m\n");
    }
}
