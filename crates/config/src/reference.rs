//! The reference page, written from the tables that the reader checks by.

use std::fmt::Write;

use crate::schema::{self, IfAbsent, Key, Kind, Schema};

/// The reference of all keys as Markdown: `docs/configuration.md`.
///
/// ```
/// assert!(connectord_config::reference().contains("| `check_every` |"));
/// ```
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for schema in schema::ALL {
        section(&mut page, schema);
    }
    page.push_str(NOTES);
    page
}

const INTRODUCTION: &str = "\
<!-- Generated from the code (crates/config/src/schema.rs). To change it, change that and run
     UPDATE_DOCS=1 cargo test -p connectord-config --test reference -->

# Configuration reference

The configuration is one TOML file, named with `--config FILE`. `connectord check` reads it and tells all mistakes at once, each with
its line.

- It is strict: an unknown key is an error. There are no includes and no defaults from elsewhere; it has at most 16 MiB.
- Relative paths start at the file's directory.
- A **time** is written with units: `\"90s\"`, `\"15m\"`, `\"12h\"`, `\"7d\"`, `\"2w\"`, or several, `\"1h 30m\"`.
- A **size** is a number of octets or a text with a unit: `\"25 MiB\"`, `\"50 MB\"`.
- Control characters are refused in all texts.
- A file that holds a password itself must be readable by its owner only (`chmod 600`); one that belongs to root may also be readable by
  its group (`chmod 640`, `chown root:connectord`).

```toml
[delivery]
type = \"maildir\"
path = \"/var/vmail/{user}/Maildir\"

[[account]]
address = \"info@example.org\"
protocol = \"imap\"
host = \"imap.example.org\"
password_file = \"/etc/connectord/info.password\"
deliver_to = \"alice\"
delete = \"7d\"
```
";

const NOTES: &str = "
## Not in this version yet

`[account.oauth2]` and a `postgres:` URL in `[state]` are errors.
";

fn section(page: &mut String, schema: &Schema) {
    let mut write = |text: std::fmt::Arguments<'_>| page.write_fmt(text).expect("writing to a String never fails");
    write(format_args!("\n## `{}`\n", schema.title));
    if !schema.doc.is_empty() {
        write(format_args!("\n{}\n", schema.doc));
    }
    write(format_args!("\n| key | value | default | what it does |\n|---|---|---|---|\n"));
    // The type of a destination has its own table.
    let is_delivery = schema::DELIVERIES.iter().any(|(_, delivery)| delivery.title == schema.title);
    for Key { name, kind, default, doc } in schema.keys.iter().filter(|key| !(is_delivery && key.name == "type")) {
        let default = match default {
            IfAbsent::Required => "**required**".to_owned(),
            IfAbsent::Value(value) => format!("`{value}`"),
            IfAbsent::Words(words) => (*words).to_owned(),
        };
        write(format_args!("| `{name}` | {} | {} | {} |\n", cell(&value(*kind)), cell(&default), cell(doc)));
    }
}

fn value(kind: Kind) -> String {
    match kind {
        Kind::Choice(words) => {
            let words: Vec<_> = words.iter().map(|(word, meaning)| format!("`\"{word}\"`: {meaning}")).collect();
            words.join("; ")
        }
        Kind::NotYet(_) => "not in this version yet".to_owned(),
        kind => kind.allowed(),
    }
}

/// A pipe would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
