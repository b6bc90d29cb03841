//! Tables that fit the terminal: columns drop from the right, one may be cut, none wraps.

use std::fmt::Write;

use crate::look::{DIM, Look, columns, columns_of};

/// A column that may be cut keeps this many characters; with fewer it drops.
const LEAST: usize = 12;

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    head: &'static str,
    fit: Fit,
    is_number: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// Always there in full.
    Always,
    /// There while there is room for it.
    Drops,
    /// Cut to the room there is.
    Cut,
}

impl Column {
    /// On the left, always there in full, whatever the room.
    pub const fn always(head: &'static str) -> Self {
        Self { head, fit: Fit::Always, is_number: false }
    }

    /// On the left, there while there is room for it.
    pub const fn text(head: &'static str) -> Self {
        Self { head, fit: Fit::Drops, is_number: false }
    }

    /// On the left, cut to the room there is.
    pub const fn cut(head: &'static str) -> Self {
        Self { head, fit: Fit::Cut, is_number: false }
    }

    /// On the right, there while there is room for it.
    pub const fn number(head: &'static str) -> Self {
        Self { head, fit: Fit::Drops, is_number: true }
    }
}

/// One cell. Its text can do nothing to a terminal: whoever makes it has escaped it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    paint: &'static str,
    text: String,
}

impl Cell {
    /// With the colour of this code.
    pub fn new(paint: &'static str, text: String) -> Self {
        Self { paint, text }
    }

    /// Without colour.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::new("", text.into())
    }
}

/// Rows below a head. What is written out is forgotten, but for the widths, so that a list of any length can be shown piece by piece.
#[derive(Clone, Debug)]
pub struct Table {
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
    widths: Vec<usize>,
}

impl Table {
    /// A table of these columns, with its head as the first row.
    pub fn new(columns: &'static [Column]) -> Self {
        let head = columns.iter().map(|column| Cell::new(DIM, column.head.to_owned())).collect();
        let mut table = Self { columns, rows: Vec::new(), widths: vec![0; columns.len()] };
        table.row(head);
        table
    }

    /// Adds a row; cells that are missing are empty.
    pub fn row(&mut self, cells: Vec<Cell>) {
        for (widest, cell) in self.widths.iter_mut().zip(&cells) {
            *widest = columns(&cell.text).max(*widest);
        }
        self.rows.push(cells);
    }

    /// The rows that were added since the last time, a line each; `width` is the terminal's, none where there is no terminal.
    pub fn text(&mut self, width: Option<usize>, look: Look) -> String {
        let widths = self.fitted(width);
        let mut text = String::new();
        for row in self.rows.drain(..) {
            let mut line = String::new();
            for (at, (cell, column)) in row.iter().zip(self.columns).enumerate() {
                let Some(width) = widths[at] else { continue };
                let shown = cut(&cell.text, width, look);
                let pad = " ".repeat(width - columns(&shown));
                let gap = if at == 0 { "" } else { "  " };
                let painted = look.paint(cell.paint, &shown);
                // Writing to a String does not fail.
                let _ = match column.is_number {
                    true => write!(line, "{gap}{pad}{painted}"),
                    false => write!(line, "{gap}{painted}{pad}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// The width of each column; `None` for those that dropped.
    fn fitted(&self, width: Option<usize>) -> Vec<Option<usize>> {
        let mut widths: Vec<Option<usize>> = self.widths.iter().copied().map(Some).collect();
        let Some(width) = width else { return widths };
        loop {
            let shown = widths.iter().flatten();
            let taken = shown.clone().sum::<usize>() + 2 * shown.count().saturating_sub(1);
            let Some(over) = taken.checked_sub(width).filter(|over| *over > 0) else { break };
            let columns = self.columns.iter().zip(&widths).enumerate().rev();
            let cuttable = columns.clone().find_map(|(at, (column, width))| {
                width.filter(|width| column.fit == Fit::Cut && *width > LEAST).map(|width| (at, width))
            });
            let mut droppable = columns.filter(|(_, (column, width))| width.is_some() && column.fit != Fit::Always);
            match (cuttable, droppable.next()) {
                (Some((at, now)), _) => widths[at] = Some(now.saturating_sub(over).max(LEAST)),
                (None, Some((at, _))) => widths[at] = None,
                (None, None) => break,
            }
        }
        widths
    }
}

/// At most `width` columns of a text, with a sign where it was cut.
fn cut(text: &str, width: usize, look: Look) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(columns(look.ellipsis()));
    let mut taken = 0;
    let fits = |c: &char| {
        taken += columns_of(*c);
        taken <= room
    };
    let mut shown: String = text.chars().take_while(fits).collect();
    shown.push_str(look.ellipsis());
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] =
        &[Column::always("ADDRESS"), Column::text("FOR"), Column::number("SIZE"), Column::cut("SUBJECT")];

    fn table(subject: &str) -> Table {
        let mut table = Table::new(COLUMNS);
        table.row(["a@example.org", "anna", "34 kB", subject].map(Cell::plain).to_vec());
        table
    }

    fn lines(width: Option<usize>, subject: &str) -> Vec<String> {
        table(subject).text(width, Look::default()).lines().map(str::to_owned).collect()
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_while_the_address_has_room() {
        let long = "the quarterly figures, as agreed upon".repeat(9);
        for width in 13..140 {
            for line in lines(Some(width), &long) {
                assert!(columns(&line) <= width, "{width}: {line:?}");
            }
        }
        assert!(columns(&lines(Some(100), &long)[1]) > 90, "the room is not used");
        assert_eq!(lines(None, &long)[1], format!("a@example.org  anna  34 kB  {long}"));
    }

    #[test]
    fn the_subject_is_cut_then_columns_drop_from_the_right_and_the_address_stays() {
        let shown = |width| lines(Some(width), "Rechnung 4711 of the year 2026")[1].clone();
        assert_eq!(shown(80), "a@example.org  anna  34 kB  Rechnung 4711 of the year 2026");
        assert_eq!(shown(44), "a@example.org  anna  34 kB  Rechnung 4711...");
        assert_eq!(shown(39), "a@example.org  anna  34 kB");
        assert_eq!(shown(20), "a@example.org  anna");
        assert_eq!(shown(5), "a@example.org");
    }

    #[test]
    fn what_comes_later_has_the_columns_of_what_came_first() {
        let mut table = table("x");
        table.text(None, Look::default());
        table.row(["b@c.de", "bob", "1 B", "y"].map(Cell::plain).to_vec());
        assert_eq!(table.text(None, Look::default()), "b@c.de         bob     1 B  y\n");
    }

    #[test]
    fn a_wide_character_is_not_cut_in_half() {
        assert_eq!(cut("日本語日本語", 6, Look { colour: false, utf8: true }), "日本…");
    }
}
