//! The table that ends a `fetch`.

use std::fmt::Write;

use connectord::figures::{count, counted, duration, octets};
use connectord::look::{GREEN, Look, RED, YELLOW};
use connectord::table::{Cell, Column, Table};
use connectord_engine::{Report, RunError};

use crate::logging::Inert;

const COLUMNS: &[Column] = &[
    Column::always("ACCOUNT"),
    Column::always("STATE"),
    Column::number("LISTED"),
    Column::number("NEW"),
    Column::number("DELIVERED"),
    Column::number("PARKED"),
    Column::number("REMOVED"),
    Column::number("SIZE"),
    Column::number("TIME"),
];

/// How each account went, a total line, and beneath it what went wrong and what to do about it.
///
/// `width` is in columns; where it does not suffice, columns drop from the right. Addresses are never cut.
pub(crate) fn closing_table(rows: &[(String, Report)], width: usize, look: Look) -> String {
    let mut table = Table::new(COLUMNS);
    for (address, report) in rows {
        table.row(row(Cell::plain(Inert::text(address)), state(report, look), report));
    }
    if rows.len() > 1 {
        let (total, ok) = total(rows);
        let label = counted(rows.len() as u64, "account", "accounts");
        table.row(row(Cell::plain(label), Cell::plain(format!("{} ok", count(ok))), &total));
    }
    let mut text = table.text(Some(width), look);
    for (address, report) in rows {
        for change in &report.changes {
            let mark = look.paint(YELLOW, "~");
            let _ = writeln!(text, "{mark} {}: {}", Inert::text(address), Inert::text(&change.to_string()));
        }
        if report.repeated > 0 {
            let (mark, times) = (look.paint(YELLOW, "~"), counted(report.repeated, "delivery", "deliveries"));
            let address = Inert::text(address);
            let _ = writeln!(
                text,
                "{mark} {address}: {times} made again, as an earlier attempt may have arrived: \
                possible duplicates"
            );
        }
        let filtered = [
            (report.quarantined, "kept back in the quarantine"),
            (report.discarded, "discarded"),
            (report.unchecked, "delivered unchecked"),
        ];
        let filtered = filtered.into_iter().filter(|(messages, _)| *messages > 0);
        let filtered: Vec<_> = filtered.map(|(messages, what)| format!("{} {what}", count(messages))).collect();
        if !filtered.is_empty() {
            let (mark, address) = (look.paint(YELLOW, "~"), Inert::text(address));
            let _ = writeln!(text, "{mark} {address}: by the filters {}", filtered.join(", "));
        }
        if let Some(error) = &report.error {
            let _ = write!(text, "{}", trouble(address, error, look));
        }
    }
    text
}

fn row(account: Cell, state: Cell, report: &Report) -> Vec<Cell> {
    let number = |number| Cell::plain(count(number));
    vec![
        account,
        state,
        number(report.listed),
        number(report.new),
        number(report.delivered),
        number(report.parked),
        number(report.removed),
        Cell::plain(octets(report.octets)),
        Cell::plain(duration(report.duration)),
    ]
}

/// One mark and few words; the sentence stands beneath the table.
fn state(report: &Report, look: Look) -> Cell {
    if let Some(error) = &report.error {
        return Cell::new(RED, format!("! {}", error.trouble().cause.code().replace('_', " ")));
    }
    match (report.parked, report.deferred) {
        (0, 0) => Cell::new(GREEN, if look.utf8 { "✓ ok" } else { "ok" }.into()),
        (0, deferred) => Cell::new(YELLOW, format!("~ {} put off", count(deferred))),
        (parked, _) => Cell::new(RED, format!("! {} parked", count(parked))),
    }
}

/// Sums; the time is the longest, for they ran beside each other. And how many are well.
fn total(rows: &[(String, Report)]) -> (Report, u64) {
    let mut total = Report::default();
    let mut ok = 0;
    for (_, report) in rows {
        let sums = [
            (&mut total.listed, report.listed),
            (&mut total.new, report.new),
            (&mut total.delivered, report.delivered),
            (&mut total.parked, report.parked),
            (&mut total.removed, report.removed),
            (&mut total.octets, report.octets),
        ];
        for (sum, number) in sums {
            *sum = sum.saturating_add(number);
        }
        total.duration = total.duration.max(report.duration);
        ok += u64::from(report.error.is_none() && report.parked == 0 && report.deferred == 0);
    }
    (total, ok)
}

/// What went wrong with an account, with its causes, and what a person can do.
fn trouble(address: &str, error: &RunError, look: Look) -> String {
    let sentence = connectord_engine::chain(error);
    let mark = look.paint(RED, "!");
    let mut text = format!("{mark} {}: {}\n", Inert::text(address), Inert::text(&sentence));
    if let Some(hint) = error.hint() {
        let _ = writeln!(text, "  hint: {}", Inert::text(&hint));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rows() -> Vec<(String, Report)> {
        let fine = Report {
            listed: 18_204,
            new: 1240,
            delivered: 1240,
            octets: 48_100_000,
            duration: Duration::from_secs(126),
            ..Report::default()
        };
        let gone = RunError::UserGone { user: "an\x1b[2Jna".into(), reason: "not in\nthe list".into() };
        let gone = Report { duration: Duration::from_millis(84), error: Some(gone), ..Report::default() };
        let parked = Report { listed: 3, new: 3, parked: 1, delivered: 2, deferred: 1, ..Report::default() };
        let late = Report { deferred: 2, quarantined: 3, unchecked: 1, ..Report::default() };
        vec![
            ("old@isp.test".into(), fine),
            ("info\u{202e}@example.org".into(), gone),
            ("a@b.test".into(), parked),
            ("c@b.test".into(), late),
        ]
    }

    #[test]
    fn the_table_tells_all() {
        assert_eq!(
            closing_table(&rows(), 120, Look { colour: false, utf8: true }),
            r"
ACCOUNT                   STATE        LISTED    NEW  DELIVERED  PARKED  REMOVED     SIZE   TIME
old@isp.test              ✓ ok         18,204  1,240      1,240       0        0  48.1 MB  2 min
info\u{202e}@example.org  ! user gone       0      0          0       0        0      0 B  84 ms
a@b.test                  ! 1 parked        3      3          2       1        0      0 B   0 ms
c@b.test                  ~ 2 put off       0      0          0       0        0      0 B   0 ms
4 accounts                1 ok         18,207  1,243      1,242       1        0  48.1 MB  2 min
! info\u{202e}@example.org: there is no local user an\x1b[2Jna: not in\nthe list
  hint: nothing is retrieved or removed for this account until the user is back; see `deliver_to` and [users]
~ c@b.test: by the filters 3 kept back in the quarantine, 1 delivered unchecked
"
            .trim_start()
        );
    }

    #[test]
    fn columns_drop_from_the_right_and_addresses_stay() {
        let of = |width| closing_table(&rows()[..1], width, Look::default());
        assert_eq!(
            of(60),
            "ACCOUNT       STATE  LISTED    NEW  DELIVERED  PARKED\nold@isp.test  ok     18,204  1,240      1,240       0\n"
        );
        assert_eq!(of(20), "ACCOUNT       STATE\nold@isp.test  ok\n");
        assert_eq!(of(3), of(20));
    }

    #[test]
    fn colour_does_not_move_columns() {
        let colour = closing_table(&rows(), 120, Look { colour: true, utf8: true });
        let plain = closing_table(&rows(), 120, Look { colour: false, utf8: true });
        let mut stripped = colour.clone();
        for code in ["0", GREEN, RED, YELLOW, connectord::look::DIM] {
            stripped = stripped.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(stripped, plain);
        assert!(colour.contains("\x1b[32m✓ ok\x1b[0m") && colour.contains("\x1b[1;31m! user gone\x1b[0m"));
    }
}
