//! One test a rule: what is written, and exactly what is said about it.

mod common;

use common::{faults, parse, warnings, with_account};

/// Faults of an account with these further lines; its first further line is line 11.
fn account(lines: &str) -> Vec<String> {
    faults(&with_account(lines))
}

/// The same, over POP3.
fn pop3(lines: &str) -> Vec<String> {
    faults(&with_account(lines).replace("\"imap\"", "\"pop3\""))
}

/// The same, without its password.
fn without_password(lines: &str) -> Vec<String> {
    faults(&with_account(lines).replace("password_file = \"pw\"\n", ""))
}

#[test]
fn an_unknown_key_is_shown_with_the_nearest_known_one() {
    let problems = parse("[log]\nlevle = \"info\"\ncolour = 1\n").unwrap_err();
    assert_eq!(
        problems.to_string(),
        "c.toml:2:1: unknown key \"levle\" in [log]; did you mean \"level\"? known: to, level\n    \
         2 | levle = \"info\"\n      | ^^^^^\n\
         c.toml:3:1: unknown key \"colour\" in [log]; known: to, level\n    \
         3 | colour = ***\n      | ^^^^^^"
    );
}

#[test]
fn an_unknown_table_is_an_error() {
    assert_eq!(
        faults("[filters.rspamd]\nurl = \"x\"\n[acount]\n"),
        [
            "1:2: unknown key \"filters\" in the file; did you mean \"filter\"? known: account, delivery, users, state, trail, log, \
             schedule, timeouts, tls, process, notices, admin, saved, filter, quarantine",
            "3:2: unknown key \"acount\" in the file; did you mean \"account\"? known: account, delivery, users, state, trail, log, \
             schedule, timeouts, tls, process, notices, admin, saved, filter, quarantine"
        ]
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let lines = account("port = 0\nidle = \"yes\"\ndelete = 7\nmax_message_size = \"25 M\"\nenabled = 1");
    assert_eq!(
        lines,
        [
            "11:8: port must be a whole number from 1 to 65535, not 0",
            "12:8: idle must be true or false, not \"yes\"",
            "13:10: delete must be \"never\", \"immediately\", a time after delivery such as \"7d\", or an age such as \
             \"age:30d\", not 7",
            "14:20: max_message_size must be a size such as \"25 MiB\", from 1 to 1099511627776 octets, not \"25 M\"",
            "15:11: enabled must be true or false, not 1",
        ]
    );
}

#[test]
fn what_is_no_toml_is_shown_where_it_ends() {
    assert_eq!(faults("[log\n"), ["1:5: not TOML: unclosed table, expected `]`"]);
    assert_eq!(faults("[log]\nlevel = info\n"), ["2:9: not TOML: text must be in quotes"]);
    assert_eq!(faults("[log]\n[log]\n"), ["2:2: not TOML: duplicate key"]);
}

#[test]
fn no_password_is_shown_whatever_is_wrong_with_it() {
    for text in [
        with_account("password = \"hunter2\""),
        with_account("password = 4711"),
        with_account("password = [\"hunter2\"]"),
        with_account("password = \"hunter2\\n\""),
        with_account("passwort = \"hunter2\""),
        with_account("Password = { x = \"hunter2\" }"),
        with_account("kennwort = \"hunter2\""),
        with_account("password = \"\"\"\nhunter2\nmore\"\"\""),
        with_account("password = hunter2"),
        with_account("password = \"hunter2"),
        with_account("password = \"\"\"\nhunter2"),
        with_account("password =\n\"hunter2\""),
        with_account("proxy = \"socks5://ann:hunter2@host\""),
        with_account("proxy = \"socks5://ann:hunter2@host"),
        with_account("proxy = [\"socks5://ann:hunter2@host\"]"),
        with_account("password_env = \"X=hunter2\""),
        "[state]\nurl = \"postgres://ann:hunter2@db/mail\"".to_owned(),
        "[state]\nurl = \"mysql://ann:hunter2@db/mail\"".to_owned(),
        "[delivery]\ntype = \"maildir\"\npath = \"/\"\npassword = \"hunter2\"".to_owned(),
        "account = [{ password = \"hunter2\", port = 0 }]".to_owned(),
    ] {
        let shown = parse(&text).unwrap_err().to_string();
        assert!(!shown.contains("hunter2") && !shown.contains("4711"), "{text}\n{shown}");
    }
}

#[test]
fn a_key_of_another_type_of_destination_says_whose_it_is() {
    assert_eq!(
        faults("[delivery]\ntype = \"lmtp\"\naddress = \"h:24\"\npath = \"/mail\"\nadress = 1\n"),
        [
            "4:1: \"path\" belongs to type = \"maildir\", not to \"lmtp\"",
            "5:1: unknown key \"adress\" in [delivery] with type = \"lmtp\"; did you mean \"address\"? known: type, address, \
             connections, timeout, hello, ambiguous",
        ]
    );
}

#[test]
fn a_destination_needs_a_type_that_is_known() {
    assert_eq!(
        faults(
            "[delivery]\npath = \"/\"\n[delivery.x]\ntype = \"maildri\"\n[delivery.\"a b\"]\ntype = \"mbox\"\npath = \"/x\"\n\
             [delivery.default]\ntype = \"mbox\"\npath = \"/x\""
        ),
        [
            "1:1: [delivery] lacks \"type\" | write type = …, \"maildir\", \"lmtp\", \"smtp\", \"mbox\" or \"command\"",
            "4:8: type must be \"maildir\", \"lmtp\", \"smtp\", \"mbox\" or \"command\", not \"maildri\"",
            "5:11: the name of a destination has letters, digits, \"-\" and \"_\", at most 64",
            "8:11: the default destination is [delivery]: another one needs another name",
        ]
    );
}

#[test]
fn a_template_is_checked() {
    assert_eq!(
        faults("[delivery]\ntype = \"maildir\"\npath = \"/mail/{usr}\"\n"),
        ["3:8: path: unknown place {usr}; known places: {user}, {address}, {local}, {domain}"]
    );
    assert_eq!(account("recipient = \"{user\""), ["11:13: recipient: a brace at position 0 has no partner"]);
    assert_eq!(
        faults("[delivery]\ntype = \"command\"\nprogram = \"dovecot-lda\"\narguments = [\"{\", \"x\"]\n"),
        [
            "3:11: program must be a path: no search is made for it",
            "4:14: arguments: a brace at position 0 has no partner"
        ]
    );
}

#[test]
fn an_smtp_login_is_whole_or_absent() {
    let smtp = |lines: &str| faults(&format!("[delivery]\ntype = \"smtp\"\nhost = \"h\"\n{lines}"));
    assert_eq!(smtp("username = \"a\""), ["4:1: username needs password_file beside it"]);
    assert_eq!(smtp("password = \"a\""), ["4:1: password needs username beside it"]);
    assert_eq!(
        smtp("username = \"a\"\npassword = \"a\"\npassword_file = \"b\""),
        ["5:1: the password is given in several ways: password_file and password"]
    );
}

#[test]
fn an_account_without_a_destination_hears_how_to_write_one() {
    let text = with_account("").replace("[delivery]", "[delivery.other]");
    assert_eq!(
        faults(&text),
        [
            "5:1: the account has no destination: there is no [delivery], and it names no other | write [delivery] with type = \
          \"maildir\" and path = \"/var/vmail/{user}/Maildir\", for instance"
        ]
    );
}

#[test]
fn a_destination_that_is_named_must_be_there() {
    assert_eq!(account("delivery = \"files\""), ["11:12: there is no [delivery.files]"]);
    let text = with_account("delivery = \"fiels\"\n[delivery.files]\ntype = \"mbox\"\npath = \"/m/{user}\"");
    assert_eq!(faults(&text), ["11:12: there is no [delivery.fiels]; did you mean \"files\"?"]);
}

#[test]
fn accounts_need_two_brackets() {
    assert_eq!(
        faults("[account]\naddress = \"a\"\n"),
        ["1:1: accounts are a list | write [[account]] with two brackets"]
    );
}

#[test]
fn an_address_is_there_once_case_aside() {
    let second = "[[account]]\naddress = \"A@X\"\nprotocol = \"imap\"\nhost = \"i\"\ndeliver_to = \"ann\"\npassword_file = \"pw\"";
    let problems = parse(&with_account(second)).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "c.toml:12:11: the account \"A@X\" is there twice, first in line 6\n   \
         12 | address = \"A@X\"\n      |           ^^^^^\n    6 | address = \"a@x\"\n      |           ^^^^^"
    );
}

#[test]
fn a_mailbox_fetched_twice_for_the_same_user_is_a_warning() {
    let second = |host: &str, folders: &str| {
        with_account(&format!(
            "username = \"u\"\n[[account]]\naddress = \"b@x\"\nprotocol = \"imap\"\nhost = \"{host}\"\ndeliver_to = \"ann\"\n\
             password_file = \"pw\"\nusername = \"U\"\n{folders}"
        ))
    };
    assert_eq!(
        warnings(&second("H", "")),
        ["15:1: the account in line 8 has the same server, user name and users: mail comes twice"]
    );
    assert!(warnings(&second("h", "folders = \"Work\"")).is_empty());
    assert!(warnings(&second("i", "")).is_empty());
}

#[test]
fn an_account_has_one_password() {
    assert_eq!(
        without_password(""),
        [
            "5:1: the account has no password | write password_file = \"PATH\"; password_command, password_env and password are \
          there too"
        ]
    );
    assert_eq!(
        account("password = \"x\"\npassword_env = \"Y\""),
        ["11:1: the password is given in several ways: password_file and password_env and password"]
            .map(|text| text.replace("11:1", "12:1"))
    );
    assert_eq!(
        without_password("password = \"a\\u0000b\""),
        ["10:12: password must not be empty and must not contain line ends or NUL"]
    );
}

#[test]
fn a_password_command_is_a_list() {
    assert_eq!(
        without_password("password_command = \"pass mail/info\""),
        [
            "10:20: password_command must be a list of texts: it is run without a shell | write password_command = [\"pass\", \
          \"mail/info\"]"
        ]
    );
    assert_eq!(without_password("password_command = []"), ["10:20: password_command must name a program"]);
}

#[test]
fn a_readable_password_is_a_warning_but_not_on_this_machine() {
    assert_eq!(
        warnings(&with_account("security = \"none\"")),
        [
            "11:1: the password and the mail for h:143 travel readable for others | write security = \"tls\" or \"starttls\""
        ]
    );
    for host in ["localhost", "127.0.0.1", "::1"] {
        let text = with_account("security = \"none\"").replace("host = \"h\"", &format!("host = \"{host}\""));
        assert!(warnings(&text).is_empty(), "{host}");
    }
}

#[test]
fn a_host_is_a_name_or_an_address() {
    let host = |host: &str| faults(&with_account("").replace("\"h\"", &format!("{host:?}")));
    assert_eq!(
        host("h:993"),
        ["8:8: host: ':' at position 1 is not allowed in a host name | write host = \"h\" and port = 993"]
    );
    assert_eq!(host("a b"), ["8:8: host: ' ' at position 1 is not allowed in a host name"]);
    assert_eq!(host(""), ["8:8: host must not be empty"]);
}

#[test]
fn control_characters_are_refused_everywhere() {
    assert_eq!(
        account(
            "username = \"a\\r\\nQUIT\"\nfolders = [\"INBOX\", \"a\\u0000b\"]\ndelete = \"7d\"\ndelete_by = \"move:a\\nb\""
        ),
        [
            "11:12: username must not contain control characters, found \\r at character 2",
            "12:21: folders must not contain control characters, found \\x00 at character 2",
            "14:13: delete_by must not contain control characters, found \\n at character 7",
        ]
    );
}

#[test]
fn a_local_user_cannot_become_a_path_or_an_option() {
    let user = |user: &str| faults(&with_account("").replace("\"ann\"", user));
    assert_eq!(user("\"../root\""), ["9:14: deliver_to: the user \"../root\" starts with a dot"]);
    assert_eq!(user("\"a/b\""), ["9:14: deliver_to: the user \"a/b\" contains \"/\""]);
    assert_eq!(
        user("[\"ann\", \"-x\"]"),
        ["9:22: deliver_to: the user \"-x\" starts with \"-\", which programs take for an option"]
    );
    assert_eq!(user("\"a b\""), ["9:14: deliver_to: the user \"a b\" contains white space"]);
    assert_eq!(user("[]"), ["9:14: deliver_to must name at least one user"]);
}

#[test]
fn a_group_must_be_there() {
    let text = with_account("[users.groups]\nsales = [\"bob\"]").replace("\"ann\"", "\"@sale\"");
    assert_eq!(
        faults(&text),
        ["9:14: deliver_to: there is no group \"sale\" in [users.groups]; did you mean \"@sales\"?"]
    );
    assert_eq!(
        faults("[users.groups]\na = []\nb = \"x\"\nc = [\"@a\"]\nd = [\"x\"]\nD = [\"y\"]"),
        [
            "2:5: a group must have at least one user",
            "3:5: a group must be a list of users, such as [\"alice\", \"bob\"]",
            "4:6: a group: the user \"@a\" starts with \"@\": a group cannot stand here",
            "5:1: this group is there twice, case aside",
        ]
    );
}

#[test]
fn a_user_who_is_not_in_the_list_is_a_warning() {
    assert_eq!(
        warnings(&with_account("[users]\nsource = \"list\"\nlist = [\"bob\"]")),
        ["9:14: \"ann\" is not in the list of [users]: the account will be held"]
    );
}

#[test]
fn a_list_of_users_and_its_source_belong_together() {
    assert_eq!(
        faults("[users]\nlist = [\"a\"]"),
        ["2:1: list has no effect with this source | write source = \"list\", or remove list"]
    );
    assert_eq!(
        faults("[users]\nsource = \"list\""),
        ["1:1: [users] lacks \"list\" | write list = …, text in quotes or a list of texts"]
    );
}

#[test]
fn pop3_knows_neither_folders_nor_idle_nor_marks() {
    assert_eq!(
        pop3("folders = [\"INBOX\"]\nidle = true\nmark_seen = true\ndelete = \"7d\"\ndelete_by = \"trash\""),
        [
            "11:1: POP3 knows no folders: remove folders, or use protocol = \"imap\"",
            "12:1: POP3 knows no IDLE: use check_every, or protocol = \"imap\"",
            "13:1: POP3 cannot mark messages: remove mark_seen, or use protocol = \"imap\"",
            "15:1: POP3 can only delete: remove delete_by, or use protocol = \"imap\"",
        ]
    );
}

#[test]
fn idle_waits_at_exactly_one_folder_and_alone() {
    assert_eq!(
        account("idle = true\ncheck_every = \"never\""),
        ["12:1: idle = true checks by itself: check_every cannot stand beside it"]
    );
    for folders in ["[\"INBOX\", \"x\"]", "\"x*\""] {
        assert_eq!(
            account(&format!("idle = true\nfolders = {folders}")),
            ["11:1: idle = true waits at exactly one folder; folders names more, or a pattern"]
        );
    }
    assert!(parse(&with_account("idle = true\nfolders = \"Work\"")).is_ok());
}

#[test]
fn an_interval_is_at_least_ten_seconds() {
    for value in ["\"9s\"", "\"15\"", "\"often\"", "\"2 years\"", "\"53w\""] {
        assert_eq!(
            account(&format!("check_every = {value}")),
            [format!("11:15: check_every must be a time from 10s to 366d such as \"15m\", or \"never\", not {value}")]
        );
    }
    assert!(parse(&with_account("check_every = \"10s\"")).is_ok());
}

#[test]
fn a_retention_is_one_of_its_forms() {
    for value in ["\"7\"", "\"age:\"", "\"after 7d\"", "\"0d\"", "\"100000d\"", "true"] {
        let expected = "11:10: delete must be \"never\", \"immediately\", a time after delivery such as \"7d\", or an age such as \
                        \"age:30d\", not ";
        assert_eq!(account(&format!("delete = {value}")), [format!("{expected}{value}")]);
    }
}

#[test]
fn a_removal_is_one_of_its_forms_and_needs_a_retention() {
    for value in ["\"move\"", "\"move:\"", "\"delete\""] {
        assert_eq!(
            account(&format!("delete = \"7d\"\ndelete_by = {value}")),
            [format!("12:13: delete_by must be \"expunge\", \"trash\", \"seen\" or \"move:FOLDER\", not {value}")]
        );
    }
    assert_eq!(
        warnings(&with_account("delete_by = \"trash\"")),
        ["11:1: delete_by has no effect while delete is \"never\""]
    );
}

#[test]
fn what_was_moved_is_not_retrieved_again() {
    assert_eq!(
        account("delete = \"7d\"\ndelete_by = \"move:Done\"\nfolders = [\"INBOX\", \"Done\"]"),
        ["12:13: messages moved to this folder would be retrieved again from there"]
    );
}

#[test]
fn folders_are_names_patterns_or_known_roles() {
    assert_eq!(
        account("folders = [\"\\\\Jnk\"]"),
        [
            "11:12: folders: \\Jnk is no role; did you mean \\Junk? known: \\All, \\Archive, \\Drafts, \\Flagged, \\Important, \
          \\Junk, \\Sent, \\Trash"
        ]
    );
    assert_eq!(account("folders = []"), ["11:11: folders must name at least one folder"]);
    assert_eq!(account("folders = [\"a\", 7]"), ["11:17: folders must be a list of texts; 7 is among them"]);
    assert_eq!(warnings(&with_account("folders = [\"INBOX\", \"inbox\"]")), ["11:21: this folder is there twice"]);
}

#[test]
fn oauth2_is_refused_with_a_way_out() {
    assert_eq!(
        account("[account.oauth2]\nclient_id = \"x\""),
        [
            "11:10: OAuth2 sign-in is not in this version yet; a program that prints an access token works: password_command, \
          with mechanisms = [\"XOAUTH2\"]"
        ]
    );
}

#[test]
fn mechanisms_are_known_and_of_one_kind() {
    assert_eq!(
        account("mechanisms = [\"PLIAN\", \"EXTERNAL\", \"XOAUTH2\", \"LOGIN\"]"),
        [
            "11:14: mechanisms mixes those for a password with those for an access token",
            "11:15: mechanisms: \"PLIAN\" is not known; known: LOGIN, PLAIN, CRAM-MD5, XOAUTH2, OAUTHBEARER, EXTERNAL, \
             SCRAM-SHA-1, SCRAM-SHA-256, SCRAM-SHA-1-PLUS, SCRAM-SHA-256-PLUS",
            "11:24: EXTERNAL needs a client certificate, which this version cannot present",
        ]
    );
}

#[test]
fn a_pin_is_a_fingerprint_and_needs_tls() {
    assert_eq!(
        account("pin = \"sha256:00\""),
        ["11:7: pin: expected sha256: and 64 hexadecimal digits or 44 characters of base64"]
    );
    assert_eq!(
        account("security = \"none\"\nca_file = \"x\""),
        ["12:1: ca_file protects nothing with security = \"none\""]
    );
}

#[test]
fn a_proxy_is_a_url() {
    assert_eq!(
        account("proxy = \"ftp://host:1\""),
        ["11:9: proxy: expected socks5://[user:password@]host:port or http://[user:password@]host:port"]
    );
    assert_eq!(account("proxy = \"http://host\""), ["11:9: proxy: expected a port from 1 to 65535"]);
}

#[test]
fn a_state_url_is_sqlite() {
    assert_eq!(
        faults("[state]\nurl = \"postgres://db/mail\""),
        ["2:7: PostgreSQL is not in this version yet | write url = \"sqlite:///PATH\""]
    );
    for url in ["/var/lib/x.db", "sqlite://", "sqlite:///x?mode=rw", "sqlite:///x/"] {
        assert_eq!(
            faults(&format!("[state]\nurl = {url:?}")),
            [format!(
                "2:7: url must be \"sqlite:\" and a path, such as \"sqlite:///var/lib/connectord/state.db\", not {url:?}"
            )]
        );
    }
}

#[test]
fn a_database_is_called_state_db() {
    assert_eq!(
        faults("[state]\nurl = \"sqlite:///var/lib/mail.db\""),
        ["2:7: the database must be called state.db; its directory is free"]
    );
}

#[test]
fn the_page_listens_where_nobody_else_reaches_it_unless_a_proxy_with_tls_is_in_front() {
    let admin = |text: &str| parse(&format!("[admin]\n{text}")).unwrap().admin.unwrap();
    let plain = admin("listen = \"unix:/run/c.sock\"");
    assert_eq!(
        (plain.listen.to_string().as_str(), plain.public_url, plain.behind_proxy),
        ("unix:/run/c.sock", None, false)
    );
    for listen in ["127.0.0.1:8025", "[::1]:8025", "localhost:8025"] {
        assert!(!admin(&format!("listen = \"{listen}\"")).own_accounts, "{listen}");
    }
    let proxied = admin(
        "listen = \"0.0.0.0:8025\"\npublic_url = \"https://Mail.example.org/\"\nbehind_proxy = true\nown_accounts = true",
    );
    assert_eq!(proxied.public_url.as_deref(), Some("https://mail.example.org"));
    assert!(proxied.behind_proxy && proxied.own_accounts);
    let exposed = "is reached from elsewhere, and the page has no TLS: passwords would travel readable";
    let remedy = "write listen = \"127.0.0.1:8025\"; with a reverse proxy that has TLS in front, also public_url and behind_proxy";
    for more in ["", "\npublic_url = \"https://mail.example.org\""] {
        let fault = faults(&format!("[admin]\nlisten = \"0.0.0.0:8025\"{more}"));
        assert_eq!(fault, [format!("2:10: 0.0.0.0:8025 {exposed} | {remedy}")]);
    }
    assert_eq!(
        faults("[admin]\nlisten = \"127.0.0.1:8025\"\nbehind_proxy = true"),
        [
            "3:1: behind_proxy = true needs public_url: requests for other names are refused | write public_url = \"https://NAME\", as people reach the proxy"
        ]
    );
    for url in ["http://mail.example.org", "https://", "https://mail.example.org/mail", "https://a@b", "https://a b"] {
        let fault = faults(&format!("[admin]\nlisten = \"127.0.0.1:8025\"\npublic_url = \"{url}\""));
        assert_eq!(fault, [format!("3:14: public_url must be \"https://NAME\", without a path, not \"{url}\"")]);
    }
    assert_eq!(
        faults("[admin]\nlisten = \"8025\""),
        ["2:10: listen must be \"host:port\" or \"unix:/path\", not \"8025\""]
    );
}

#[test]
fn bounds_are_kept_and_named() {
    assert_eq!(
        faults(
            "[schedule]\nconcurrency = 0\njitter = 0.6\nquiet = \"22-6\"\n[timeouts]\nconnect = \"1d\"\nminimum_rate = -1"
        ),
        [
            "2:15: concurrency must be a whole number from 1 to 10000, not 0",
            "3:10: jitter must be a part such as 0.1 or \"10%\", at most 50%, not 0.6",
            "4:9: quiet must be two times of the day such as \"22:00-06:00\", not \"22-6\"",
            "6:11: connect must be a time such as \"15m\" or \"1h 30m\", from 1s to 10m, not \"1d\"",
            "7:16: minimum_rate must be a whole number from 0 to 1000000, not -1",
        ]
    );
}

#[test]
fn mail_of_several_users_in_one_place_is_a_warning() {
    let text = with_account("").replace("/mail/{user}", "/mail/all").replace("\"ann\"", "[\"ann\", \"bob\"]");
    assert_eq!(warnings(&text), ["3:8: the mail of 2 users ends in this one place | put {user} into the path"]);
    let text = with_account("recipient = \"x@y\"").replace("\"ann\"", "[\"ann\", \"bob\"]");
    assert_eq!(
        warnings(&text),
        ["11:13: all 2 users of deliver_to get their copies at this one address | put {user} into it"]
    );
}

#[test]
fn hostile_text_is_shown_inert() {
    let problems = parse("\"a\\u001b[2J\\u202e\" = 1\n").unwrap_err();
    assert!(problems.to_string().starts_with("c.toml:1:1: unknown key \"a\\x1b[2J\\u{202e}\" in the file; known:"));
    let shown = parse("[log]\nto = \"\u{202e}x\"").unwrap_err().to_string();
    assert!(!shown.contains('\u{202e}'), "{shown:?}");
}

/// Faults of a file with a destination and this table; its first line is line 5.
fn notices(lines: &str) -> Vec<String> {
    faults(&format!("[delivery.files]\ntype = \"maildir\"\npath = \"/mail/{{user}}\"\n[notices]\n{lines}"))
}

#[test]
fn who_is_told_must_be_somebody_that_can_be_told() {
    assert_eq!(
        notices("mail_to = [\"ann\", \"two words\", \"@x\", \"a@b@c\"]\ndelivery = \"file\"\n"),
        [
            "5:19: mail_to: \"two words\" is neither a mail address nor a local user",
            "5:32: mail_to: \"@x\" is neither a mail address nor a local user",
            "5:38: mail_to: \"a@b@c\" is neither a mail address nor a local user",
            "6:12: there is no [delivery.file] | did you mean \"files\"?",
        ]
    );
    assert_eq!(
        notices("mail_to = \"ann\"\n"),
        ["5:1: mail_to needs a destination, and there is no [delivery] | write delivery = \"NAME\""]
    );
    assert_eq!(
        notices("to_users = true\ndelivery = \"files\"\nwebhook_token_file = \"t\"\n"),
        [
            "6:1: delivery has no effect without mail_to | write mail_to = …, or remove delivery",
            "7:1: webhook_token_file has no effect without webhook | write webhook = …, or remove webhook_token_file",
        ]
    );
    assert_eq!(notices("command = [\"tell\"]\n"), ["5:12: command must begin with the absolute path of a program"]);
    assert_eq!(notices("command = []\n"), ["5:11: command must name a program"]);
}

#[test]
fn what_is_not_told_has_a_name() {
    assert_eq!(
        notices("to_users = true\nleave_out = [\"well\", \"remainder\"]\n"),
        [
            "6:22: leave_out: unknown kind \"remainder\"; did you mean \"reminder\"? | known: failing, delivery, disk, parked, \
             changed, well, reminder"
        ]
    );
}

#[test]
fn a_token_is_never_sent_in_clear() {
    for url in ["ftp://h", "https://", "https://ann:pw@h/", "http://h /"] {
        assert_eq!(
            notices(&format!("webhook = \"{url}\"\n")),
            [format!("5:11: webhook must be a URL such as \"https://example.org/hook\", not \"{url}\"")]
        );
    }
    assert_eq!(
        notices("webhook = \"http://hooks.example.org/\"\nwebhook_token_file = \"t\"\n"),
        ["5:11: webhook: the token would be sent without encryption | write https://…"]
    );
    assert_eq!(
        warnings("[notices]\nwebhook = \"http://hooks.example.org/\"\n"),
        ["2:11: webhook: notices are sent without encryption"]
    );
    for here in ["http://127.0.0.1:8080/x", "http://[::1]:8080", "http://localhost"] {
        assert_eq!(warnings(&format!("[notices]\nwebhook = \"{here}\"\nwebhook_token_file = \"t\"\n")), [""; 0]);
    }
    assert_eq!(
        warnings("[notices]\nafter = \"1h\"\n"),
        [
            "1:1: [notices] names nobody who is told: notices go to the log alone | write mail_to, to_users, command or webhook"
        ]
    );
}
