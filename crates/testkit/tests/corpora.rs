//! Every input of the fuzzing corpora, without a fuzzer.

#[path = "../../imap/tests/differential/property.rs"]
mod differential;

use connectord_testkit::replay;

replay!(dot_stuffing, connectord_wire::fuzzing::dot_stuffing);
replay!(header_fields, connectord_mail::fuzzing::header_fields);
replay!(received, connectord_mail::fuzzing::received);
replay!(authentication_results, connectord_mail::fuzzing::authentication_results);
replay!(relay, connectord_mail::fuzzing::relay);
replay!(attachments, connectord_filter::fuzzing::attachments);
replay!(edits, connectord_filter::fuzzing::edits);
replay!(quarantine_file, connectord_quarantine::fuzzing::quarantine_file);
replay!(rspamd_answer, connectord_filters::fuzzing::rspamd_answer);
replay!(clamd_reply, connectord_filters::fuzzing::clamd_reply);
replay!(spamd_reply, connectord_filters::fuzzing::spamd_reply);
replay!(sasl_challenge, connectord_sasl::fuzzing::challenge);
replay!(pop3_reply, connectord_pop3::fuzzing::reply);
replay!(pop3_session, connectord_pop3::fuzzing::session);
replay!(imap_response, connectord_imap::fuzzing::response);
replay!(imap_session, connectord_imap::fuzzing::session);
replay!(imap_utf7, connectord_imap::fuzzing::utf7);
replay!(imap_differential, same_meaning);
replay!(smtp_reply, connectord_lmtp::fuzzing::reply);
replay!(lmtp_session, connectord_lmtp::fuzzing::session);
replay!(proxy_answer, connectord_net::fuzzing::proxy_answer);
replay!(certificate, connectord_net::fuzzing::certificate);
replay!(configuration, connectord_config::fuzzing::config);
replay!(saved_settings, connectord_config::fuzzing::saved);
replay!(config_values, connectord_config::fuzzing::values);
replay!(csv_import, connectord_admin::fuzzing::csv_import);
replay!(maildir_names, connectord_deliveries::fuzzing::maildir_names);
replay!(written_messages, connectord_deliveries::fuzzing::written_messages);
replay!(command_output, connectord_filters::fuzzing::command_output);
replay!(notice, connectord_filter::fuzzing::notice);

fn same_meaning(data: &[u8]) {
    differential::same_meaning(data);
}

/// A target without a corpus, or a corpus without a target, is an oversight.
#[test]
fn every_fuzz_target_has_its_corpus_replayed_here() {
    let fuzz = connectord_testkit::house::workspace().join("fuzz");
    let names = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(fuzz.join(folder)).expect("the folder is there");
        let mut names: Vec<_> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned())
            .collect();
        names.sort();
        names
    };
    let mut replayed: Vec<_> = include_str!("corpora.rs")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("replay!(")?.split_once(',')?.0.to_owned()))
        .collect();
    replayed.sort();
    assert_eq!(names("fuzz_targets"), replayed);
    assert_eq!(names("corpus"), replayed);
}
