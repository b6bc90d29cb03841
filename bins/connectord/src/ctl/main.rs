//! connectorctl: a daemon that runs, looked after from a terminal.
//!
//! It holds no state and decides nothing: it asks the daemon over the sockets beside its state, which knows who asks by the
//! credentials of the process. Accounts are changed by the control socket; all else is the API that the page shows too.

mod act;
mod api;
mod ask;
mod cli;
mod complete;
mod csv;
mod error;
mod events;
mod lists;
mod live;
mod one;
mod out;
mod run;
mod show;
mod status;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use connectord::password::{Source, password};
use connectord::{manual, say};
use connectord_wire::Escaped;
use serde_json::{Map, Value, json};

use self::api::Api;
use self::ask::Daemon;
use self::cli::{Account, Chosen, Command, Draft, Options, PasswordOptions, SettingOptions};
use self::error::Error;
use self::out::{Out, json_text, sure};

fn main() -> ExitCode {
    manual::complete(Options::command);
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Nothing is left to do if even that cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { error::USAGE } else { 0 });
        }
    };
    match run(&options) {
        Ok(exit) => ExitCode::from(exit),
        Err(error) => {
            if let (true, Some(said)) = (options.json, error.said()) {
                say::out(json_text(said));
            }
            say::err(format_args!("connectorctl: {error}"));
            if let Some(command) = error.remedy() {
                say::err(command);
            }
            ExitCode::from(error.exit())
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn run(options: &Options) -> Result<u8, Error> {
    let out = Out::of(options);
    match &options.command {
        Command::Account(_) if options.url.is_some() => {
            Err(Error::Usage("accounts are changed on the machine of the daemon; --url is for all else".into()))
        }
        Command::Account(verb) => account(&mut Daemon::find(options)?, out, verb),
        Command::Completion { shell } => {
            let script = manual::completion(*shell, "connectorctl").map_err(Error::io("no script can be written"))?;
            say::out_as_is(&script);
            Ok(0)
        }
        Command::Man { directory } => {
            let name = format!("cannot write manual pages to {}", directory.display());
            manual::pages(Options::command(), directory).map_err(Error::io(name))?;
            Ok(0)
        }
        command => runtime().map_err(Error::io("cannot start"))?.block_on(by_api(options, command, out)),
    }
}

async fn by_api(options: &Options, command: &Command, out: Out) -> Result<u8, Error> {
    if let Command::Status { check } = command {
        return status::status(options, *check, out).await;
    }
    let api = &Api::find(options)?;
    match command {
        Command::Watch { address: Some(address), now } => live::watch_one(api, address, *now, out).await,
        Command::Watch { address: None, .. } => live::watch_all(api, out).await,
        Command::CheckAll(chosen) => act::check_all(api, chosen, out).await,
        Command::Stop { addresses, .. } => act::stop(api, addresses, out).await,
        Command::Log { follow, account, level, text, lines } => {
            let (account, text) = (account.clone(), text.clone());
            let wanted = live::Wanted { follow: *follow, account, level: *level, text, lines: *lines };
            live::log(api, &wanted, out).await
        }
        Command::Users { text, with_accounts, paging } => {
            let with = with_accounts.map(|with| with.word().to_owned());
            lists::USERS.show(api, act::given([("q", text.clone()), ("with", with)]), Some(paging), out).await
        }
        Command::Messages { text, account, user, state, since, paging } => {
            let account = match account {
                Some(address) => Some(api.id_of(address).await?),
                None => None,
            };
            let (state, since) = (state.map(|it| it.word().to_owned()), since.map(|it| it.word().to_owned()));
            let query =
                [("q", text.clone()), ("account", account), ("user", user.clone()), ("state", state), ("since", since)];
            lists::MESSAGES.show(api, act::given(query), Some(paging), out).await
        }
        Command::Message { id } => one::message(api, id, out).await,
        Command::Quarantine(verb) => act::quarantine(api, verb, out).await,
        Command::Parked(verb) => act::parked(api, verb, out).await,
        Command::Import { file, dry_run, untested } => act::import(api, file, *dry_run, *untested, out).await,
        Command::Export => act::export(api).await,
        Command::Token(verb) => act::token(api, verb, out).await,
        Command::Person(verb) => act::person(api, verb, out).await,
        Command::Audit { paging } => lists::AUDIT.show(api, Vec::new(), Some(paging), out).await,
        Command::Health => act::health(api, out).await,
        // Done before, without the API.
        Command::Status { .. } | Command::Account(_) | Command::Completion { .. } | Command::Man { .. } => Ok(0),
    }
}

fn account(daemon: &mut Daemon, out: Out, verb: &Account) -> Result<u8, Error> {
    let request = match verb {
        Account::List { local, cause } => return list(daemon, out, local, cause.as_deref()),
        Account::Show(Chosen { address }) => json!({"verb": "show", "address": address}),
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
            sure(*yes, &format!("{} is removed then; delivered mail stays", Escaped::text(address)))?;
            json!({"verb": "remove", "address": address, "etag": etag})
        }
        Account::Enable(Chosen { address }) => json!({"verb": "enable", "address": address}),
        Account::Disable(Chosen { address }) => json!({"verb": "disable", "address": address}),
        Account::CheckNow(Chosen { address }) => json!({"verb": "check-now", "address": address}),
        Account::Test(Chosen { address }) => json!({"verb": "test", "address": address}),
        Account::TestNew(draft) => {
            let mut request = add_request(draft)?;
            request["verb"] = "test".into();
            request
        }
        Account::Changes { address, most } => json!({"verb": "changes", "address": address, "most": most}),
    };
    let (lines, exit) = daemon.ask(request)?;
    for line in &lines {
        if out.json {
            let parts = ["item", "test", "change"];
            let part = parts.iter().filter(|_| line.get("done").is_none()).find_map(|part| line.get(part));
            say::out(json_text(part.unwrap_or(line)));
        } else {
            say::out_as_is(&show::answer(line));
        }
    }
    Ok(exit)
}

fn list(daemon: &mut Daemon, out: Out, local: &[String], cause: Option<&str>) -> Result<u8, Error> {
    let (lines, exit) = daemon.ask(json!({"verb": "list"}))?;
    let total = lines.len();
    let is_wanted = |item: &&Value| {
        let mut users = item["deliver_to"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let is_for = local.is_empty() || users.any(|user| local.iter().any(|wanted| wanted == user));
        is_for && cause.is_none_or(|cause| item["cause"]["code"] == cause)
    };
    let items: Vec<&Value> = lines.iter().map(|line| &line["item"]).filter(is_wanted).collect();
    if out.json {
        say::out(json_text(&json!({"items": items, "next": null, "total": total})));
    } else {
        say::out_as_is(&show::table(&items, total, out));
    }
    Ok(exit)
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
