//! connectorctl: accounts looked at and changed, in a daemon that runs.
//!
//! It holds no state and decides nothing: it asks the daemon over the socket beside its state, which knows who asks by the
//! credentials of the process.

mod ask;
mod cli;
mod show;

use std::process::ExitCode;

use clap::Parser;
use connectord::password::{Source, password};
use connectord::say;
use connectord_wire::Escaped;
use serde_json::{Map, Value, json};

use self::ask::{Daemon, Error};
use self::cli::{Account, Chosen, Command, Draft, Options, PasswordOptions, SettingOptions};

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Nothing is left to do if even that cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { ask::USAGE } else { 0 });
        }
    };
    let json = options.json;
    match run(&options) {
        Ok(exit) => ExitCode::from(exit),
        Err(error) => {
            if let (true, Error::Refused { refused, .. }) = (json, &error) {
                say::out(refused);
            }
            say::err(format_args!("connectorctl: {error}"));
            if let Some(command) = error.remedy() {
                say::err(command);
            }
            ExitCode::from(error.exit())
        }
    }
}

fn run(options: &Options) -> Result<u8, Error> {
    let mut daemon = Daemon::find(options)?;
    match &options.command {
        Command::Status { check } => status(&mut daemon, options, *check),
        Command::Account(verb) => account(&mut daemon, options, verb),
    }
}

fn account(daemon: &mut Daemon, options: &Options, verb: &Account) -> Result<u8, Error> {
    let request = match verb {
        Account::List { local, cause } => return list(daemon, options, local, cause.as_deref()),
        Account::Show { address } => json!({"verb": "show", "address": address}),
        Account::Add { draft, disabled } => {
            let mut request = add_request(draft)?;
            request["enabled"] = (!disabled).into();
            request
        }
        Account::Edit { address, settings, new_password, etag, anyway } => {
            let mut request = json!({"verb": "edit", "address": address, "etag": etag, "anyway": anyway});
            request["settings"] = Value::Object(changes(settings)?);
            if new_password.is_given() {
                request["password"] = password_text(&new_password.from, address)?;
            }
            request
        }
        Account::Remove { address, yes, etag } => {
            sure(*yes, address)?;
            json!({"verb": "remove", "address": address, "etag": etag})
        }
        Account::Enable(Chosen { address }) => json!({"verb": "enable", "address": address}),
        Account::Disable(Chosen { address }) => json!({"verb": "disable", "address": address}),
        Account::CheckNow(Chosen { address }) => json!({"verb": "check-now", "address": address}),
        Account::Test { address } => json!({"verb": "test", "address": address}),
        Account::TestNew(draft) => {
            let mut request = add_request(draft)?;
            request["verb"] = "test".into();
            request
        }
        Account::Changes { address, most } => json!({"verb": "changes", "address": address, "most": most}),
    };
    let (lines, exit) = daemon.ask(request)?;
    for line in &lines {
        if options.json {
            let parts = ["item", "test", "change"];
            say::out(
                parts.iter().filter(|_| line.get("done").is_none()).find_map(|part| line.get(part)).unwrap_or(line),
            );
        } else {
            say::out_as_is(&show::answer(line));
        }
    }
    Ok(exit)
}

fn list(daemon: &mut Daemon, options: &Options, local: &[String], cause: Option<&str>) -> Result<u8, Error> {
    let (lines, exit) = daemon.ask(json!({"verb": "list"}))?;
    let total = lines.len();
    let is_wanted = |item: &&Value| {
        let mut users = item["deliver_to"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let is_for = local.is_empty() || users.any(|user| local.iter().any(|wanted| wanted == user));
        is_for && cause.is_none_or(|cause| item["cause"]["code"] == cause)
    };
    let items: Vec<&Value> = lines.iter().map(|line| &line["item"]).filter(is_wanted).collect();
    if options.json {
        say::out(json!({"items": items, "next": null, "total": total}));
    } else {
        say::out_as_is(&show::table(&items, total));
    }
    Ok(exit)
}

fn status(daemon: &mut Daemon, options: &Options, check: bool) -> Result<u8, Error> {
    let (lines, exit) = daemon.ask(json!({"verb": "list"}))?;
    let items: Vec<&Value> = lines.iter().map(|line| &line["item"]).collect();
    let status = show::status(&items);
    if options.json {
        say::out(&status);
    } else {
        say::out_as_is(&show::status_page(&status));
    }
    let needs_action = items.iter().any(|item| item["health"] == "action");
    let delayed = items.iter().any(|item| item["health"] == "delayed");
    Ok(match (check, needs_action, delayed) {
        (true, true, _) => ask::CONFIG,
        (true, false, true) => ask::TEMP_FAIL,
        _ => exit,
    })
}

fn add_request(draft: &Draft) -> Result<Value, Error> {
    let mut settings = changes(&draft.settings)?;
    if let Some(protocol) = &draft.protocol {
        settings.insert("protocol".into(), protocol.as_str().into());
    }
    Ok(json!({
        "verb": "add", "address": draft.address, "anyway": draft.anyway, "settings": settings,
        "password": password_text(&draft.password, &draft.address)?,
    }))
}

/// What is set, and null for what is taken away.
fn changes(options: &SettingOptions) -> Result<Map<String, Value>, Error> {
    let mut settings = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            settings.insert(key.to_owned(), value);
        }
    };
    put("host", options.host.clone().map(Value::from));
    put("port", options.port.map(Value::from));
    put("security", options.security.clone().map(Value::from));
    put("username", options.username.clone().map(Value::from));
    put("deliver_to", (!options.deliver_to.is_empty()).then(|| options.deliver_to.clone().into()));
    put("check_every", options.check_every.clone().map(Value::from));
    put("delete", options.delete.clone().map(Value::from));
    for assignment in &options.set {
        let (key, value) = assignment
            .split_once('=')
            .ok_or_else(|| Error::Usage(format!("--set {}: KEY=VALUE is expected", Escaped::text(assignment))))?;
        put(key.trim(), Some(value_of(value)));
    }
    for key in &options.unset {
        put(key, Some(Value::Null));
    }
    Ok(settings)
}

/// A number, true, false or a list, if it can be read as one; else a text.
fn value_of(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::String(_))) => value,
        _ => text.into(),
    }
}

fn password_text(options: &PasswordOptions, address: &str) -> Result<Value, Error> {
    let source = Source {
        file: options.password_file.as_deref(),
        stdin: options.password_stdin,
        program: options.password_command.as_deref(),
    };
    let secret = password(source, address)?;
    let text = std::str::from_utf8(secret.expose());
    Ok(text.map_err(|_| Error::Usage("the password is not UTF-8".into()))?.into())
}

/// Asks on a terminal, elsewhere needs `--yes`.
fn sure(yes: bool, address: &str) -> Result<(), Error> {
    use std::io::{BufRead, IsTerminal};
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::Usage(format!("{address} would be removed; say --yes if that is so")));
    }
    say::err(format_args!("{address} is removed; delivered mail stays. Type yes to go on:"));
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if read.is_ok() && line.trim() == "yes" {
        return Ok(());
    }
    Err(Error::Usage("nothing was removed".into()))
}
