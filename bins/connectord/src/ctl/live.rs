//! What happens, as it happens: `watch`, and `log`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use connectord::figures::count;
use connectord::look::{DIM, RED, YELLOW, size};
use connectord::say;
use connectord::table::Table;
use connectord_wire::Escaped;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::api::{Answer, Api, Query, segment};
use crate::cli::Level;
use crate::error::{Error, exit_of};
use crate::events::{Event, Reader};
use crate::out::{Out, Screen, clock, distance, json_text, number, text};
use crate::run::{BOARD, Watched, bar_line, board_row, line};

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(250);

/// A tally that is a line of its own comes this often for each account.
const TALLY: Duration = Duration::from_secs(5);

/// Counts of the whole are asked for this often.
const HEADING: Duration = Duration::from_secs(2);

/// Accounts that are watched at once; those beyond are passed over until others are done.
const MAX_WATCHED: usize = 1000;

/// The daemon's events, one by one.
struct Live {
    answer: Answer,
    reader: Reader,
    waiting: VecDeque<Event>,
}

impl Live {
    async fn open(api: &Api, query: &Query) -> Result<Self, Error> {
        let answer = api.pieces("/api/v1/events", query).await?;
        Ok(Self { answer, reader: Reader::default(), waiting: VecDeque::new() })
    }

    /// The next one: its name and its value. Nothing is lost when it is no longer awaited.
    async fn next(&mut self) -> Result<(String, Value), Error> {
        let ended = || Error::Broken("the daemon ended the stream of events".to_owned());
        loop {
            if let Some(event) = self.waiting.pop_front() {
                if event.name == "bye" {
                    return Err(ended());
                }
                let value = serde_json::from_str(&event.data).map_err(|error| Error::Broken(error.to_string()))?;
                return Ok((event.name, value));
            }
            let octets = self.answer.next().await?.ok_or_else(ended)?;
            self.waiting.extend(self.reader.feed(&octets).map_err(|error| Error::Broken(error.to_string()))?);
        }
    }
}

fn now() -> Value {
    Timestamp::now().to_string().into()
}

/// Whoever read has gone: that ends a command that has no end of its own, and is no mistake.
fn gone(_: std::io::Error) -> Stop {
    Stop::Unread
}

/// Why watching ends.
enum Stop {
    Unread,
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn ended(how: Result<u8, Stop>) -> Result<u8, Error> {
    match how {
        Ok(exit) => Ok(exit),
        Err(Stop::Unread) => Ok(0),
        Err(Stop::Error(error)) => Err(error),
    }
}

/// One account, until its check has ended.
pub(crate) async fn watch_one(api: &Api, address: &str, check_now: bool, out: Out) -> Result<u8, Error> {
    ended(one(api, address, check_now, out).await)
}

async fn one(api: &Api, address: &str, check_now: bool, out: Out) -> Result<u8, Stop> {
    let id = api.id_of(address).await?;
    let path = format!("/api/v1/accounts/{}", segment(&id));
    // First the events, then how it stands: nothing falls between the two.
    let mut events = Live::open(api, &vec![("account", id)]).await?;
    let mut row = api.get(&path, &Vec::new()).await?;
    let (mut watched, mut screen) = (Watched::default(), Screen::new());
    let mut said = Vec::new();
    let is_checked = matches!(row["activity"].as_str(), Some("checking" | "queued"));
    if !is_checked && !check_now && !out.json {
        let next =
            distance(&row["next"]).map_or_else(|| "no check is planned".to_owned(), |it| format!("next check in {it}"));
        said.push(format!("{} is not checked now; {next}", text(&row["address"])));
    }
    let (mut told, mut is_over) = (None, false);
    watched.changes(&row, &now()).iter().for_each(|event| told_line(event, out, false, &mut told, &mut said));
    if check_now {
        api.post(&format!("{path}/check"), &json!({})).await?;
    }
    loop {
        let board: Vec<String> = bar_line(&row, out.look).filter(|_| !out.json).into_iter().collect();
        screen.show(&std::mem::take(&mut said), if is_over { &[] } else { &board }).map_err(gone)?;
        if is_over {
            return Ok(exit_of(&row["cause"]));
        }
        match events.next().await? {
            (name, value) if name == "account" => row = value,
            (name, _) if name == "reset" => row = api.get(&path, &Vec::new()).await?,
            (name, _) if name == "gone" => {
                return Err(Error::Usage(format!("{} was deleted meanwhile", Escaped::text(address))).into());
            }
            _ => continue,
        }
        for event in watched.changes(&row, &now()) {
            is_over |= event["event"] == "done";
            told_line(&event, out, false, &mut told, &mut said);
        }
    }
}

/// Adds an event as a line, if it is one: tallies of text come every few seconds, and not at all where a bar is drawn.
fn told_line(event: &Value, out: Out, is_one_of_many: bool, told: &mut Option<Instant>, said: &mut Vec<String>) {
    if out.json {
        said.push(json_text(event));
        return;
    }
    if event["event"] == "tally" {
        let is_due = told.is_none_or(|at| at.elapsed() >= TALLY);
        if out.width.is_some() || !is_due {
            return;
        }
        *told = Some(Instant::now());
    }
    said.extend(line(event, is_one_of_many, out.look));
}

/// What is watched of one account among many.
struct Entry {
    watched: Watched,
    row: Value,
    told: Option<Instant>,
    is_over: bool,
}

/// All that runs, without end.
pub(crate) async fn watch_all(api: &Api, out: Out) -> Result<u8, Error> {
    ended(all(api, out).await)
}

async fn all(api: &Api, out: Out) -> Result<u8, Stop> {
    let mut events = Live::open(api, &Vec::new()).await?;
    let (mut screen, mut said) = (Screen::new(), Vec::new());
    let draws = screen.redraws && !out.json;
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for row in running(api).await? {
        note(&mut entries, row, out, draws, &mut said);
    }
    let (mut heading, mut heading_at) =
        (api.get("/api/v1/overview", &vec![("hours", "1".to_owned())]).await?, Instant::now());
    let (mut is_heading_old, mut is_old, mut drawn) = (false, true, Instant::now());
    loop {
        if is_heading_old && draws && heading_at.elapsed() >= HEADING {
            heading = api.get("/api/v1/overview", &vec![("hours", "1".to_owned())]).await?;
            (is_heading_old, heading_at, is_old) = (false, Instant::now(), true);
        }
        if !said.is_empty() || (draws && is_old && drawn.elapsed() >= FRAME) {
            let board = if draws { board(&heading, &mut entries, out) } else { Vec::new() };
            screen.show(&std::mem::take(&mut said), &board).map_err(gone)?;
            (is_old, drawn) = (false, Instant::now());
        }
        let Ok(event) = timeout_at(Instant::now() + FRAME, events.next()).await else { continue };
        match event? {
            (name, row) if name == "account" => note(&mut entries, row, out, draws, &mut said),
            (name, value) if name == "gone" => drop(entries.remove(value["id"].as_str().unwrap_or_default())),
            (name, _) if name == "reset" => {
                for row in running(api).await? {
                    note(&mut entries, row, out, draws, &mut said);
                }
            }
            (name, _) if name == "overview" => {}
            _ => continue,
        }
        (is_old, is_heading_old) = (true, true);
    }
}

/// Accounts that are checked now, a page of them at most: the others come as they change.
async fn running(api: &Api) -> Result<Vec<Value>, Error> {
    let query: Query = vec![("activity", "checking".to_owned()), ("limit", crate::api::PAGE.to_string())];
    let mut page = api.get("/api/v1/accounts", &query).await?;
    Ok(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

fn note(entries: &mut BTreeMap<String, Entry>, row: Value, out: Out, draws: bool, said: &mut Vec<String>) {
    let Some(id) = row["id"].as_str().map(str::to_owned) else { return };
    let is_running = row["activity"] == "checking";
    if !entries.contains_key(&id) && (!is_running || entries.len() >= MAX_WATCHED) {
        return;
    }
    let entry = entries.entry(id.clone()).or_insert_with(|| Entry {
        watched: Watched::default(),
        row: Value::Null,
        told: None,
        is_over: false,
    });
    for event in entry.watched.changes(&row, &now()) {
        if !draws {
            told_line(&event, out, true, &mut entry.told, said);
        }
    }
    (entry.row, entry.is_over) = (row, !is_running);
    // On a terminal it keeps its place for a while.
    if entry.is_over && !draws {
        entries.remove(&id);
    }
}

/// The picture: counts of the whole, and a row for each account that has room.
fn board(heading: &Value, entries: &mut BTreeMap<String, Entry>, out: Out) -> Vec<String> {
    let (width, lines) = size(&std::io::stdout()).map_or((80, 24), |size| (size.columns, size.lines));
    let room = lines.saturating_sub(4).max(1);
    let over: Vec<String> = entries.iter().filter(|(_, entry)| entry.is_over).map(|(id, _)| id.clone()).collect();
    let surplus = entries.len().saturating_sub(room);
    over.iter().take(surplus).for_each(|id| drop(entries.remove(id)));
    let counts = ["checking", "queued", "listening"].map(|name| format!("{} {name}", number(&heading[name])));
    let mut table = Table::new(BOARD);
    entries.values().take(room).for_each(|entry| table.row(board_row(&entry.row, out)));
    let fits = |line: &str| line.chars().take(width.saturating_sub(1)).collect::<String>();
    let mut board = vec![fits(&format!("{}   {}", clock(&now()), counts.join("   ")))];
    board.extend(table.text(Some(width.saturating_sub(1)), out.look).lines().map(str::to_owned));
    if entries.len() > room {
        board.push(format!("and {} more", count((entries.len() - room) as u64)));
    }
    board
}

/// What the log is asked for.
pub(crate) struct Wanted {
    pub(crate) follow: bool,
    pub(crate) account: Option<String>,
    pub(crate) level: Level,
    pub(crate) text: Option<String>,
    pub(crate) lines: u64,
}

impl Wanted {
    /// Whether a line that comes by itself is one of those that were asked for.
    fn is(&self, line: &Value) -> bool {
        const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];
        let rank = |level: &str| LEVELS.iter().position(|known| *known == level).unwrap_or(LEVELS.len());
        let field = |name: &str| line[name].as_str().unwrap_or_default();
        rank(field("level")) <= rank(self.level.word())
            && self.account.as_ref().is_none_or(|account| field("account").eq_ignore_ascii_case(account))
            && self.text.as_ref().is_none_or(|text| field("text").to_lowercase().contains(&text.to_lowercase()))
    }
}

pub(crate) async fn log(api: &Api, wanted: &Wanted, out: Out) -> Result<u8, Error> {
    ended(lines(api, wanted, out).await)
}

async fn lines(api: &Api, wanted: &Wanted, out: Out) -> Result<u8, Stop> {
    // First the events, then what was logged: nothing falls between the two, and what is in both is left out.
    let mut events = match wanted.follow {
        true => Some(Live::open(api, &Vec::new()).await?),
        false => None,
    };
    let mut query: Query = vec![("level", wanted.level.word().to_owned()), ("limit", wanted.lines.to_string())];
    query.extend(wanted.account.iter().map(|account| ("account", account.clone())));
    query.extend(wanted.text.iter().map(|text| ("q", text.clone())));
    let answer = api.get("/api/v1/log", &query).await?;
    let mut known: VecDeque<Value> = answer["items"].as_array().cloned().unwrap_or_default().into();
    let mut screen = Screen::new();
    screen.show(&known.iter().map(|line| log_line(line, out)).collect::<Vec<_>>(), &[]).map_err(gone)?;
    let Some(events) = &mut events else { return Ok(0) };
    loop {
        let (name, value) = events.next().await?;
        match name.as_str() {
            "log" if !wanted.is(&value) => {}
            "log" => match known.iter().position(|line| *line == value) {
                Some(at) => drop(known.drain(..=at)),
                None => {
                    screen.show(&[log_line(&value, out)], &[]).map_err(gone)?;
                }
            },
            "reset" => say::err("connectorctl: lines were lost here: they came faster than they were read"),
            _ => {}
        }
    }
}

fn log_line(line: &Value, out: Out) -> String {
    if out.json {
        return json_text(line);
    }
    let level = text(&line["level"]);
    let paint = match level.as_str() {
        "error" => RED,
        "warn" => YELLOW,
        "debug" => DIM,
        _ => "",
    };
    let account = text(&line["account"]);
    let gap = if account.is_empty() { "" } else { "  " };
    format!(
        "{}  {}  {account}{gap}{}",
        clock(&line["at"]),
        out.look.paint(paint, &format!("{level:<5}")),
        text(&line["text"])
    )
}
