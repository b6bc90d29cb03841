//! The properties that the fuzz targets have, for octets that look like answers.

use connectord_filters::fuzzing;
use proptest::prelude::*;

/// Octets with many of what counts to a parser.
fn octets(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        3 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_answer_of_rspamd_is_read_or_refused(data in octets(&[
        "{", "}", "[", "]", ":", ",", "\"action\"", "\"reject\"", "\"score\"", "1e308", "-0", "null", "\"symbols\"", "\"x\"",
        "\"milter\"", "\"add_headers\"", "\"remove_headers\"", "\"value\"", "\"order\"", "\"messages\"", "\"smtp_message\"",
    ])) {
        fuzzing::rspamd_answer(&data);
    }

    #[test]
    fn any_reply_of_clamd_is_read_or_refused(data in octets(&[
        "stream: ", "OK", " FOUND", " ERROR", "\0", "\n", "size limit exceeded", "Heuristics.Limits.Exceeded", "(a:1)", ": ",
    ])) {
        fuzzing::clamd_reply(&data);
    }

    #[test]
    fn any_reply_of_spamd_is_read_or_refused(data in octets(&[
        "SPAMD/1.1 ", "0 ", "69 ", "EX_OK", "PONG", "\r\n", "Content-length: ", "Spam: ", "True", " ; ", "5.0", " / ", "A,B", "-",
    ])) {
        fuzzing::spamd_reply(&data);
    }
}
