//! A CSV file in pieces, each with the line that names the columns.

use serde_json::Value;

use crate::out::{text, word};

/// Pieces of at most `most` records each, and how many lines of the file stand before each one's.
///
/// A record ends where a line ends outside of quotes (RFC 4180 §2); a quote within quotes is doubled, so that only whether their
/// number is even counts. The daemon reads it in full, and says what is wrong with it. Its first line is 1, and records are counted as
/// the daemon counts them, one a line.
pub(crate) fn pieces(csv: &str, most: usize) -> Vec<(u64, String)> {
    let mut records = Vec::new();
    let (mut start, mut quotes) = (0, 0);
    for (at, c) in csv.char_indices() {
        match c {
            '"' => quotes += 1,
            '\n' if quotes % 2 == 0 => {
                records.push(&csv[start..=at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    records.push(&csv[start..]);
    // As the daemon passes over them.
    records.retain(|record| !record.trim_matches(['\r', '\n', ',', ';', '"', '\u{feff}']).is_empty());
    let Some((head, records)) = records.split_first() else { return vec![(0, csv.to_owned())] };
    if records.is_empty() {
        return vec![(0, (*head).to_owned())];
    }
    let whole =
        |(nth, piece): (usize, &[&str])| ((nth * most) as u64, format!("{}\n{}", head.trim_end(), piece.concat()));
    records.chunks(most).enumerate().map(whole).collect()
}

/// Why a line is refused.
pub(crate) fn why(line: &Value) -> String {
    let (field, problem) = (text(&line["field"]), word(&line["problem"]));
    match (field.is_empty(), problem.is_empty()) {
        (_, true) => field,
        (true, _) => problem,
        _ => format!("{field}: {problem}"),
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn a_record_stays_whole_and_each_piece_names_the_columns() {
        let csv = "\u{feff}a,b\r\n1,\"x\r\n\"\"y\"\r\n\r\n2,z\r\n3,w";
        let two = pieces(csv, 2);
        assert_eq!(
            two,
            [(0, "\u{feff}a,b\n1,\"x\r\n\"\"y\"\r\n2,z\r\n".to_owned()), (2, "\u{feff}a,b\n3,w".to_owned())]
        );
        assert_eq!(pieces(csv, 1).len(), 3);
        assert_eq!(pieces("a,b\n", 9), [(0, "a,b\n".to_owned())]);
        assert_eq!(pieces("", 9), [(0, String::new())]);
        // Left to the daemon, which says what is wrong.
        assert_eq!(pieces("a,b\n1,\"x\n2,y\n", 1), [(0, "a,b\n1,\"x\n2,y\n".to_owned())]);
    }
}
