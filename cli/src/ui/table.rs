//! Aligned columns, two spaces apart, no borders: they survive `grep`, `awk` and a narrow window.

use unicode_width::UnicodeWidthStr;

use super::{Tone, paint};

/// Columns that a text takes on a terminal: a Hangul syllable takes two.
fn columns(text: &str) -> usize {
    text.width()
}

/// What other machines named must not move the cursor or fake a line: control characters become `·`.
pub(crate) fn clip(text: &str, most: usize) -> String {
    let clean = |c: char| if c.is_control() { '·' } else { c };
    let text: String = text.chars().map(clean).collect();
    if columns(&text) <= most {
        return text;
    }
    let mut kept = String::new();
    for c in text.chars() {
        if columns(&kept) + columns(c.encode_utf8(&mut [0; 4])) + 1 > most {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

#[derive(Clone, Debug)]
struct Cell {
    text: String,
    tone: Option<Tone>,
}

/// Rows of cells under headers, or without.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(headers: &[&str]) -> Self {
        let row = headers.iter().map(|text| Cell { text: text.to_uppercase(), tone: Some(Tone::Faint) });
        Self { rows: vec![row.collect()] }
    }

    /// Names on the left, values on the right, no headers.
    pub(crate) fn fields() -> Self {
        Self::default()
    }

    pub(crate) fn field(&mut self, name: &str, value: impl AsRef<str>) {
        self.row([(name, Some(Tone::Faint)), (value.as_ref(), None)]);
    }

    pub(crate) fn row<'a>(&mut self, cells: impl IntoIterator<Item = (&'a str, Option<Tone>)>) {
        let cell = |(text, tone): (&str, _)| Cell { text: clip(text, 4096), tone };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    pub(crate) fn text(&self, colour: bool) -> String {
        // The last cell of a row needs no room: nothing follows it.
        let inner = |row: &Vec<Cell>| row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; count];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row.iter().take(inner(row))) {
                *width = columns(&cell.text).max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let last = inner(row);
            for (at, cell) in row.iter().enumerate().take(last + 1) {
                text.push_str(
                    &cell.tone.map_or_else(|| cell.text.clone(), |tone| paint(colour, tone, &cell.text)),
                );
                if at < last {
                    text.push_str(&" ".repeat(widths[at] - columns(&cell.text) + 2));
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
    fn columns_stay_aligned_with_wide_letters_and_colours() {
        let mut table = Table::new(&["name", "상태", "x"]);
        table.row([("버치-1", None), ("ready", Some(Tone::Good)), ("", None)]);
        table.row([("a", None), ("대기", None), ("1", None)]);
        assert_eq!(table.text(false), "NAME    상태  X\n버치-1  ready\na       대기  1\n");
        assert!(table.text(true).contains("\x1b[32mready\x1b[0m\n"));
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(clip("a\x1b[2Jb\nc", 80), "a·[2Jb·c");
        assert_eq!(clip("abcdef", 4), "abc…");
        assert_eq!(clip("가나다", 5), "가나…");
    }
}
