//! What is done by the API, but for accounts.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use connectord::figures::{count, counted};
use connectord::say;
use connectord::table::{Cell, Column, Table};
use connectord_wire::Escaped;
use serde_json::{Value, json};

use crate::api::{Api, segment};
use crate::cli::{Ids, Named, Parked, Person, Quarantine, Selection, Token};
use crate::error::{DATA, Error, UNAVAILABLE};
use crate::lists::{HEALTH, PARKED, PEOPLE, QUARANTINE, TOKENS, part};
use crate::out::{Out, full, json_text, sure, text};
use crate::{csv, one};

/// Shows the answer of an action: as JSON, or as a sentence about its count.
fn done(out: Out, answer: &Value, sentence: impl FnOnce(u64) -> String) -> u8 {
    match out.json {
        true => say::out(json_text(answer)),
        false => say::out(sentence(answer["count"].as_u64().unwrap_or_default())),
    }
    0
}

pub(crate) async fn check_all(api: &Api, chosen: &Selection, out: Out) -> Result<u8, Error> {
    let mut filter = serde_json::Map::new();
    let parts = [
        ("state", chosen.state.map(|state| state.word().to_owned())),
        ("user", chosen.user.clone()),
        ("host", chosen.host.clone()),
        ("cause", chosen.cause.clone()),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            filter.insert(name.to_owned(), value.into());
        }
    }
    let answer = api.post("/api/v1/check", &json!({ "filter": filter })).await?;
    Ok(done(out, &answer, |n| match n {
        0 => "No account matches.".to_owned(),
        1 => "1 account is checked now.".to_owned(),
        n => format!("{} accounts are checked now, their starts spread. Watch them: connectorctl watch", count(n)),
    }))
}

pub(crate) async fn stop(api: &Api, addresses: &[String], out: Out) -> Result<u8, Error> {
    // Without addresses the command line has --all.
    let which = match addresses {
        [] => json!({ "filter": {} }),
        addresses => {
            let mut ids = Vec::new();
            for address in addresses {
                ids.push(api.id_of(address).await?);
            }
            json!({ "ids": ids })
        }
    };
    let answer = api.post("/api/v1/stop", &which).await?;
    Ok(done(out, &answer, |n| format!("{} stopped; what was retrieved is kept.", counted(n, "check is", "checks are"))))
}

pub(crate) async fn quarantine(api: &Api, verb: &Quarantine, out: Out) -> Result<u8, Error> {
    let (path, body, what) = match verb {
        Quarantine::List { text, user, why, paging } => {
            let why = why.map(|why| why.word().to_owned());
            let query = [("q", text.clone()), ("user", user.clone()), ("why", why)];
            return QUARANTINE.show(api, given(query), Some(paging), out).await;
        }
        Quarantine::Show { id, output: None } => return one::held(api, id, out).await,
        Quarantine::Show { id, output: Some(file) } => return save(api, id, file).await,
        Quarantine::Release { ids, learn } => (
            "/api/v1/quarantine/release",
            json!({ "ids": ids, "learn_as_good": learn }),
            "delivered without a new scan",
        ),
        Quarantine::Discard { ids, yes } => {
            sure(*yes, &format!("{} discarded for good", messages(ids.len() as u64)))?;
            ("/api/v1/quarantine/discard", json!({ "ids": ids }), "discarded")
        }
    };
    let answer = api.post(path, &body).await?;
    Ok(done(out, &answer, |n| format!("{} {what}.", messages(n))))
}

pub(crate) async fn parked(api: &Api, verb: &Parked, out: Out) -> Result<u8, Error> {
    let (action, Ids { ids }, what) = match verb {
        Parked::List { text, user, paging } => {
            return PARKED.show(api, given([("q", text.clone()), ("user", user.clone())]), Some(paging), out).await;
        }
        Parked::Retry(ids) => ("retry", ids, "tried again at the next check"),
        Parked::Anyway(ids) => ("anyway", ids, "retrieved at the next check, whatever parked it"),
        Parked::Skip(ids) => ("skip", ids, "left there for good"),
    };
    let answer = api.post(&format!("/api/v1/parked/{action}"), &json!({ "ids": ids })).await?;
    Ok(done(out, &answer, |n| format!("{} {what}.", messages(n))))
}

fn messages(n: u64) -> String {
    counted(n, "message is", "messages are")
}

/// Those parameters that were given.
pub(crate) fn given<const N: usize>(query: [(&'static str, Option<String>); N]) -> crate::api::Query {
    query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Writes a message into a new file.
async fn save(api: &Api, id: &str, file: &Path) -> Result<u8, Error> {
    let path = format!("/api/v1/quarantine/{}/message", segment(id));
    let mut answer = api.pieces(&path, &Vec::new()).await?;
    let name = format!("cannot write {}", file.display());
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut to = opened.map_err(Error::io(name.clone()))?;
    while let Some(piece) = answer.next().await? {
        to.write_all(&piece).map_err(Error::io(name.clone()))?;
    }
    to.sync_all().map_err(Error::io(name))?;
    Ok(0)
}

pub(crate) async fn token(api: &Api, verb: &Token, out: Out) -> Result<u8, Error> {
    match verb {
        Token::List => TOKENS.show(api, Vec::new(), None, out).await,
        Token::Create(named) => {
            let answer = api.post("/api/v1/tokens", &invitation(named)).await?;
            if out.json {
                say::out(json_text(&answer));
            } else {
                say::out(text(&answer["token"]));
                say::err("It is shown this once; connectord keeps its digest only.");
            }
            Ok(0)
        }
        Token::Revoke { token, yes } => {
            let tokens = api.get("/api/v1/tokens", &Vec::new()).await?;
            let is_it = |it: &&Value| {
                it["name"] == token.as_str()
                    || (token.len() >= 8 && it["id"].as_str().is_some_and(|id| id.starts_with(token)))
            };
            let found: Vec<&Value> = tokens["items"].as_array().into_iter().flatten().filter(is_it).collect();
            let shown = Escaped::text(token);
            let [found] = found.as_slice() else {
                return Err(Error::Usage(match found.len() {
                    0 => format!("there is no token {shown}"),
                    n => format!("{n} tokens are called {shown}; name one by the beginning of its ID"),
                }));
            };
            sure(*yes, &format!("the token {} opens nothing any more then", text(&found["name"])))?;
            api.delete(&format!("/api/v1/tokens/{}", segment(found["id"].as_str().unwrap_or_default()))).await?;
            Ok(done(out, &json!({ "count": 1 }), |_| format!("The token {} is revoked.", text(&found["name"]))))
        }
        Token::FirstStart => link(&api.post("/api/v1/first-start", &json!({})).await?, out),
    }
}

fn invitation(Named { name, role, user }: &Named) -> Value {
    let mut invitation = json!({ "name": name, "role": role.word() });
    if let Some(user) = user {
        invitation["user"] = user.as_str().into();
    }
    invitation
}

/// Shows a one-time link.
fn link(answer: &Value, out: Out) -> Result<u8, Error> {
    if out.json {
        say::out(json_text(answer));
    } else {
        say::out(text(&answer["link"]));
        say::err(format_args!("It works once, until {}.", full(&answer["expires"])));
    }
    Ok(0)
}

pub(crate) async fn person(api: &Api, verb: &Person, out: Out) -> Result<u8, Error> {
    match verb {
        Person::List => PEOPLE.show(api, Vec::new(), None, out).await,
        Person::Invite(named) => link(&api.post("/api/v1/people", &invitation(named)).await?, out),
        Person::Remove { name, yes } => {
            let shown = Escaped::text(name);
            sure(*yes, &format!("{shown} cannot sign in any more then"))?;
            api.delete(&format!("/api/v1/people/{}", segment(name))).await?;
            Ok(done(out, &json!({ "count": 1 }), |_| format!("{shown} is removed, and signed out everywhere.")))
        }
    }
}

pub(crate) async fn health(api: &Api, out: Out) -> Result<u8, Error> {
    let parts = api.get("/api/v1/health", &Vec::new()).await?;
    let items = parts["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if out.json {
        say::out(json_text(&parts));
    } else {
        let mut table = Table::new(HEALTH);
        items.iter().for_each(|item| table.row(part(item, out)));
        say::out_as_is(&table.text(out.width, out.look));
    }
    Ok(if items.iter().any(|part| part["state"] == "down") { UNAVAILABLE } else { 0 })
}

/// Lines that go at once where nothing is tested.
const LINES: usize = 100;

const IMPORTED: &[Column] =
    &[Column::number("LINE"), Column::always("OUTCOME"), Column::always("ADDRESS"), Column::cut("WHY")];

/// Adds and updates accounts. The file goes to the daemon in pieces: a test of a connection takes its time, and one answer to all of
/// them would come too late.
pub(crate) async fn import(api: &Api, file: &Path, dry_run: bool, untested: bool, out: Out) -> Result<u8, Error> {
    let octets = read(file)?;
    let csv = String::from_utf8(octets).map_err(|_| Error::Usage(format!("{} is not UTF-8", file.display())))?;
    let at_once = if dry_run || untested { LINES } else { 1 };
    let pieces = csv::pieces(&csv, at_once);
    let mut table = Table::new(IMPORTED);
    let (mut counts, mut shown) = ([0_u64; 4], 0_u64);
    if out.json {
        say::out_as_is("{\"lines\":[");
    }
    for (before, piece) in pieces {
        let answer =
            api.post("/api/v1/import", &json!({ "csv": piece, "dry_run": dry_run, "untested": untested })).await?;
        for line in answer["lines"].as_array().into_iter().flatten() {
            let mut line = line.clone();
            line["line"] = (line["line"].as_u64().unwrap_or_default() + before).into();
            let outcome = line["outcome"].as_str().unwrap_or_default();
            let kind = ["add", "update", "same", "refused"].iter().position(|word| *word == outcome);
            kind.into_iter().for_each(|kind| counts[kind] += 1);
            if out.json {
                say::out_as_is(&format!("{}{}", if shown > 0 { "," } else { "" }, json_text(&line)));
            } else if dry_run || outcome == "refused" {
                let why = csv::why(&line);
                let number = line["line"].to_string();
                table.row([number, text(&line["outcome"]), text(&line["address"]), why].map(Cell::plain).to_vec());
                say::out_as_is(&table.text(out.width, out.look));
            }
            shown += 1;
        }
    }
    let [add, update, same, refused] = counts.map(count);
    if out.json {
        say::out_as_is("]}\n");
    } else if dry_run {
        say::out(format_args!(
            "{add} to add, {update} to update, {same} the same, {refused} refused. Nothing was changed."
        ));
    } else {
        say::out(format_args!("{add} added, {update} updated, {same} the same, {refused} refused."));
    }
    Ok(if counts[3] > 0 { DATA } else { 0 })
}

/// At most 16 MiB.
fn read(file: &Path) -> Result<Vec<u8>, Error> {
    const MOST: u64 = 16 << 20;
    let name = format!("cannot read {}", file.display());
    let mut octets = Vec::new();
    let read = match file == Path::new("-") {
        true => io::stdin().lock().take(MOST + 1).read_to_end(&mut octets),
        false => File::open(file).map_err(Error::io(name.clone()))?.take(MOST + 1).read_to_end(&mut octets),
    };
    read.map_err(Error::io(name))?;
    if octets.len() as u64 > MOST {
        return Err(Error::Usage(format!("{} has more than {MOST} octets", file.display())));
    }
    Ok(octets)
}

/// All accounts; on a terminal what could do something to it is shown escaped.
pub(crate) async fn export(api: &Api) -> Result<u8, Error> {
    let mut answer = api.pieces("/accounts/export.csv", &Vec::new()).await?;
    let mut stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let mut line = Vec::new();
    let failed = || Error::io("cannot write the export");
    while let Some(piece) = answer.next().await? {
        if !is_terminal {
            stdout.write_all(&piece).map_err(failed())?;
            continue;
        }
        line.extend_from_slice(&piece);
        while let Some(end) = line.iter().position(|octet| *octet == b'\n') {
            let whole: Vec<u8> = line.drain(..=end).collect();
            say::out(Escaped(whole.strip_suffix(b"\r\n").unwrap_or(&whole)));
        }
    }
    stdout.flush().map_err(failed())?;
    Ok(0)
}
