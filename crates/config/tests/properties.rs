//! The fuzz properties over texts that resemble a configuration.

use connectord_config::fuzzing;
use proptest::prelude::*;

fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("address"),
        Just("host"),
        Just("port"),
        Just("protocol"),
        Just("deliver_to"),
        Just("password"),
        Just("folders"),
        Just("delete"),
        Just("delete_by"),
        Just("idle"),
        Just("type"),
        Just("path"),
        Just("list"),
        Just("proxy"),
        Just("pin"),
        Just("check_every"),
        Just("recipient"),
        Just("delivery"),
        Just("quiet"),
        Just("\"ü\\u001b\""),
        Just("jitter"),
        Just("on_spam"),
        Just("mark_at"),
        Just("exit_spam"),
        Just("trusted_relays"),
        Just("then"),
        Just("header"),
    ];
    let value = prop_oneof![
        Just("true".to_owned()),
        Just("\"imap\"".into()),
        Just("\"pop3\"".into()),
        Just("[]".into()),
        Just("7".into()),
        Just("\"maildir\"".into()),
        Just("\"/mail/{user}\"".into()),
        Just("[\"a\", 1, []]".into()),
        Just("\"@g\"".into()),
        Just("{ a = 1 }".into()),
        Just("1e400".into()),
        Just("0xffffffffffffffffff".into()),
        Just("\"move:INBOX\"".into()),
        Just("\"http://a:b@c:1\"".into()),
        Just("\"\"\"\n\t\u{202e}\n\"\"\"".into()),
        "\"\\PC{0,12}\"",
        "\\PC{0,12}",
    ];
    let table = prop_oneof![
        Just("[[account]]"),
        Just("[delivery]"),
        Just("[delivery.x]"),
        Just("[users]"),
        Just("[users.groups]"),
        Just("[log]"),
        Just("[schedule]"),
        Just("[state]"),
        Just("[account]"),
        Just("[filter]"),
        Just("[filter.rspamd]"),
        Just("[filter.command.x]"),
        Just("[filter.rules]"),
        Just("[[filter.rules.rule]]"),
        Just("[quarantine]"),
        Just("[x"),
        Just("\r\n"),
    ];
    prop_oneof![3 => (name, value).prop_map(|(name, value)| format!("{name} = {value}")), 1 => table.prop_map(str::to_owned)]
}

proptest! {
    #[test]
    fn any_configuration_is_read_or_explained(lines in prop::collection::vec(line(), 0..20)) {
        fuzzing::config(lines.join("\n").as_bytes());
    }

    #[test]
    fn any_settings_are_an_account_or_explained(lines in prop::collection::vec(line(), 0..8)) {
        fuzzing::saved(lines.join("\n").as_bytes());
    }

    #[test]
    fn any_octets_are_read_or_explained(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::config(&octets);
        fuzzing::saved(&octets);
        fuzzing::values(&octets);
    }
}

#[test]
fn deep_nesting_and_many_accounts_end_soon() {
    fuzzing::config(format!("a = {}", "[".repeat(100_000)).as_bytes());
    for depth in [70, 79, 80, 81, 200, 50_000] {
        fuzzing::config(format!("{}a = 1", "a.".repeat(depth)).as_bytes());
        fuzzing::config(format!("[{}a]\nb = 1", "a.".repeat(depth)).as_bytes());
        fuzzing::config(format!("a = {}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes());
        fuzzing::config(format!("a = {}1{}", "{ a = ".repeat(depth), "}".repeat(depth)).as_bytes());
    }
    fuzzing::config("a.".repeat(50_000).as_bytes());
    fuzzing::config("[[account]]\naddress = \"a\"\n".repeat(20_000).as_bytes());
    fuzzing::config(format!("[delivery]\n{}", "x = 1\n".repeat(20_000)).as_bytes());
}
