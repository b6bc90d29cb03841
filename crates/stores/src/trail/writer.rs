//! What is written: entry by entry into rows that are written once for each batch.

use std::collections::{BTreeMap, HashMap};

use connectord_mail::{DeliveryId, UnixTime};
use connectord_store::{
    About, Counted, HourRow, TrailEntry, TrailId, TrailKey, TrailName, TrailRow, TrailState, TrailStep,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::file::{BLOCK, HELD, SPAM, TWICE, make_words, words};
use super::pack::{pack, unpack};
use crate::sqlite::fault::Fault;
use crate::sqlite::messages::SqlKey;

/// Messages whose words are put in at once. Those that are not in yet are few enough to be looked through.
pub(super) const TAIL: i64 = 512;

/// Messages that are forgotten in one transaction, so that nothing waits long for it.
const FORGOTTEN: i64 = 2000;

/// Accounts, mailboxes and audiences whose numbers are remembered, of each; then all are forgotten.
const REMEMBERED: usize = 20_000;

/// How long figures are kept at least, in seconds: the chart goes so far back.
const FIGURES: i64 = 32 * 86_400;

/// All columns of a message and the names that they stand for.
pub(super) const MESSAGE: &str =
    "SELECT n, at, state, flags, removed_at, seen_at, octets, score, score_limit, on_server,
    subject, sender, message_id, delivery, account.address, place.mailbox, audience.users
    FROM message JOIN place ON place.id = message.place JOIN account ON account.id = place.account
    JOIN audience ON audience.id = message.audience";

/// What the writer remembers between batches. All of it is in the file too.
#[derive(Debug, Default)]
pub(super) struct Memory {
    accounts: HashMap<String, i64>,
    places: HashMap<(i64, String, u32), i64>,
    audiences: HashMap<(i64, String), i64>,
    /// The number of the last message.
    last: Option<i64>,
    /// The last message whose words are in.
    indexed: Option<i64>,
    /// The hour that is marked as one in which we ran.
    marked: Option<i64>,
}

/// A message while a batch is worked on.
struct Open {
    row: TrailRow,
    steps: Vec<TrailStep>,
    key: Option<TrailKey>,
    held: bool,
}

/// What a batch adds to figures.
#[derive(Default)]
struct Figures {
    hours: BTreeMap<i64, (Counted, u64, Option<i64>)>,
    tallies: BTreeMap<(i64, String, i64), (Counted, u64)>,
}

/// Writes a batch, in one transaction.
pub(super) fn write(connection: &mut Connection, memory: &mut Memory, batch: &[TrailEntry]) -> Result<(), Fault> {
    let transaction = connection.transaction()?;
    let mut open: Vec<Open> = Vec::new();
    let mut by_name: HashMap<TrailName, usize> = HashMap::new();
    let mut figures = Figures::default();
    for entry in batch {
        let at = match by_name.get(&entry.name) {
            Some(at) => *at,
            None => {
                let found = match find(&transaction, memory, &entry.name)? {
                    // The same message may have been named in another way.
                    Some(found) => match open.iter().position(|known| known.row.id == found.row.id) {
                        Some(at) => Some(at),
                        None => {
                            open.push(found);
                            Some(open.len() - 1)
                        }
                    },
                    None => begin(&transaction, memory, entry)?.map(|new| {
                        open.push(new);
                        open.len() - 1
                    }),
                };
                let Some(at) = found else { continue };
                by_name.insert(entry.name.clone(), at);
                at
            }
        };
        let Open { row, steps, held, .. } = &mut open[at];
        let is_new = steps.is_empty();
        let counted = row.take(entry, steps);
        *held |= row.state == TrailState::Quarantined;
        figures.add(entry, row, counted, is_new);
    }
    for message in &open {
        save(&transaction, memory, message)?;
    }
    figures.save(&transaction)?;
    let (last, indexed) = counters(&transaction, memory)?;
    let indexed = if last - indexed >= TAIL { Some(index(&transaction, indexed, last)?) } else { None };
    transaction.commit()?;
    memory.indexed = indexed.or(memory.indexed);
    if memory.accounts.len().max(memory.places.len()).max(memory.audiences.len()) > REMEMBERED {
        (memory.accounts, memory.places, memory.audiences) = Default::default();
    }
    Ok(())
}

/// The numbers of the last message and of the last one whose words are in.
fn counters(connection: &Connection, memory: &mut Memory) -> Result<(i64, i64), Fault> {
    let last = match memory.last {
        Some(last) => last,
        None => connection.query_row("SELECT coalesce(max(n), 0) FROM message", [], |row| row.get(0))?,
    };
    let indexed = match memory.indexed {
        Some(indexed) => indexed,
        None => indexed_to(connection)?,
    };
    // Where all messages were forgotten, numbers go on behind those that were.
    (memory.last, memory.indexed) = (Some(last.max(indexed)), Some(indexed));
    Ok((last.max(indexed), indexed))
}

/// The last message whose words are in.
pub(super) fn indexed_to(connection: &Connection) -> Result<i64, Fault> {
    let sql = "SELECT value FROM meta WHERE name = 'indexed'";
    Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn find(connection: &Connection, memory: &mut Memory, name: &TrailName) -> Result<Option<Open>, Fault> {
    let found = match name {
        TrailName::Key(key) => {
            let place = place(connection, memory, key)?;
            let sql = format!("{MESSAGE} WHERE message.place = ?1 AND message.key = ?2 AND message.generation = ?3");
            let named = params![place, SqlKey(key.key), key.generation];
            connection.prepare_cached(&sql)?.query_row(named, row_of).optional()?
        }
        TrailName::Delivery(id) => {
            let sql = format!("{MESSAGE} WHERE message.delivery = ?1 AND message.flags & 4");
            connection.prepare_cached(&sql)?.query_row([&id.octets()[..]], row_of).optional()?
        }
    };
    let Some((row, flags)) = found else { return Ok(None) };
    let steps = steps_of(connection, row.id)?;
    Ok(Some(Open { row, steps, key: None, held: flags & HELD != 0 }))
}

/// What happened to a message.
pub(super) fn steps_of(connection: &Connection, id: TrailId) -> Result<Vec<TrailStep>, Fault> {
    let mut statement = connection.prepare_cached("SELECT steps FROM step WHERE n = ?1")?;
    let octets: Option<Vec<u8>> = statement.query_row([id.0], |row| row.get(0)).optional()?;
    Ok(octets.map(|octets| unpack(&octets)).unwrap_or_default())
}

fn begin(connection: &Connection, memory: &mut Memory, entry: &TrailEntry) -> Result<Option<Open>, Fault> {
    let TrailName::Key(key) = &entry.name else { return Ok(None) };
    let (last, _) = counters(connection, memory)?;
    let Some(row) = TrailRow::begin(TrailId(last + 1), entry) else { return Ok(None) };
    memory.last = Some(last + 1);
    Ok(Some(Open { row, steps: Vec::new(), key: Some(key.clone()), held: false }))
}

fn save(connection: &Connection, memory: &mut Memory, message: &Open) -> Result<(), Fault> {
    let Open { row, steps, key, held } = message;
    let About { delivery, on_server, subject, from, message_id, users, octets, seen_at } = &row.about;
    let account = account(connection, memory, &row.account)?;
    let audience = audience(connection, memory, account, users)?;
    let flag = |is: bool, flag: i64| if is { flag } else { 0 };
    let flags = flag(row.maybe_twice, TWICE) | flag(row.is_spam, SPAM) | flag(*held, HELD);
    let state = row.state as i64;
    let (removed_at, octets) = (row.removed_at.map(|at| at.0), i64::try_from(*octets).unwrap_or(i64::MAX));
    match key {
        Some(key) => {
            let place = place(connection, memory, key)?;
            connection
                .prepare_cached(
                    "INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
                     ?17, ?18)",
                )?
                .execute(params![
                    row.id.0,
                    place,
                    SqlKey(key.key),
                    key.generation,
                    audience,
                    state,
                    flags,
                    row.at.0,
                    seen_at.0,
                    removed_at,
                    octets,
                    row.milli_score,
                    row.milli_limit,
                    on_server,
                    subject,
                    from,
                    message_id,
                    &delivery.octets()[..],
                ])?;
        }
        // Its texts stay as they were first told: the words in the index are theirs.
        None => {
            connection
                .prepare_cached(
                    "UPDATE message SET audience = ?2, state = ?3, flags = ?4, at = ?5, removed_at = ?6, octets = ?7,
                     score = ?8, score_limit = ?9 WHERE n = ?1",
                )?
                .execute(params![
                    row.id.0,
                    audience,
                    state,
                    flags,
                    row.at.0,
                    removed_at,
                    octets,
                    row.milli_score,
                    row.milli_limit
                ])?;
        }
    }
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO step VALUES (?1, ?2)")?;
    statement.execute(params![row.id.0, pack(steps)])?;
    Ok(())
}

fn account(connection: &Connection, memory: &mut Memory, address: &str) -> Result<i64, Fault> {
    if let Some(known) = memory.accounts.get(address) {
        return Ok(*known);
    }
    connection.prepare_cached("INSERT OR IGNORE INTO account (address) VALUES (?1)")?.execute([address])?;
    let mut statement = connection.prepare_cached("SELECT id FROM account WHERE address = ?1")?;
    let id = statement.query_row([address], |row| row.get(0))?;
    memory.accounts.insert(address.to_owned(), id);
    Ok(id)
}

fn place(connection: &Connection, memory: &mut Memory, key: &TrailKey) -> Result<i64, Fault> {
    let account = account(connection, memory, &key.account)?;
    let name = (account, key.mailbox.to_string(), key.uid_validity);
    if let Some(known) = memory.places.get(&name) {
        return Ok(*known);
    }
    let named = params![name.0, name.1, name.2];
    let sql = "INSERT OR IGNORE INTO place (account, mailbox, uid_validity) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(named)?;
    let sql = "SELECT id FROM place WHERE account = ?1 AND mailbox = ?2 AND uid_validity = ?3";
    let id = connection.prepare_cached(sql)?.query_row(named, |row| row.get(0))?;
    memory.places.insert(name, id);
    Ok(id)
}

fn audience(connection: &Connection, memory: &mut Memory, account: i64, users: &[String]) -> Result<i64, Fault> {
    let name = (account, users.join("\n"));
    if let Some(known) = memory.audiences.get(&name) {
        return Ok(*known);
    }
    let named = params![name.0, name.1];
    let sql = "INSERT OR IGNORE INTO audience (account, users) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(named)?;
    let sql = "SELECT id FROM audience WHERE account = ?1 AND users = ?2";
    let id = connection.prepare_cached(sql)?.query_row(named, |row| row.get(0))?;
    memory.audiences.insert(name, id);
    Ok(id)
}

/// Reads [`MESSAGE`], and the flags.
pub(super) fn row_of(row: &Row<'_>) -> rusqlite::Result<(TrailRow, i64)> {
    let text = |at: usize| row.get::<_, String>(at);
    let flags: i64 = row.get(3)?;
    let users: String = text(16)?;
    let about = About {
        delivery: DeliveryId::from_octets(row.get(13)?),
        on_server: text(9)?,
        subject: text(10)?,
        from: text(11)?,
        message_id: text(12)?,
        users: users.split('\n').filter(|user| !user.is_empty()).map(str::to_owned).collect(),
        octets: u64::try_from(row.get::<_, i64>(6)?).unwrap_or(0),
        seen_at: UnixTime(row.get(5)?),
    };
    let row = TrailRow {
        id: TrailId(row.get(0)?),
        at: UnixTime(row.get(1)?),
        state: TrailState::from_number(row.get(2)?).unwrap_or_default(),
        removed_at: row.get::<_, Option<i64>>(4)?.map(UnixTime),
        maybe_twice: flags & TWICE != 0,
        is_spam: flags & SPAM != 0,
        account: text(14)?,
        mailbox: text(15)?,
        about,
        milli_score: row.get(7)?,
        milli_limit: row.get(8)?,
    };
    Ok((row, flags))
}

impl Figures {
    fn add(&mut self, entry: &TrailEntry, row: &TrailRow, counted: Counted, is_new: bool) {
        let at = HourRow::of(entry.at).0;
        if is_new {
            // By when it was seen, as lists ask for that.
            let seen = HourRow::of(row.about.seen_at).0;
            let (_, _, first) = self.hours.entry(seen).or_default();
            *first = Some(first.map_or(row.id.0, |first| first.min(row.id.0)));
        }
        if counted != Counted::default() {
            let octets = if counted.delivered + counted.spam > 0 { row.about.octets } else { 0 };
            let hour = self.hours.entry(at).or_default();
            plus((&mut hour.0, &mut hour.1), counted, octets);
            let tally = self.tallies.entry((0, row.account.clone(), at)).or_default();
            plus((&mut tally.0, &mut tally.1), counted, octets);
        }
        for user in entry.users_reached() {
            let tally = self.tallies.entry((1, user.to_owned(), at)).or_default();
            plus((&mut tally.0, &mut tally.1), Counted { delivered: 1, ..Counted::default() }, row.about.octets);
        }
    }

    fn save(self, connection: &Connection) -> Result<(), Fault> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (at, (counted, octets, first)) in self.hours {
            let Counted { delivered, spam, quarantined } = counted;
            connection
                .prepare_cached(
                    "INSERT INTO hour VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (at) DO UPDATE SET
                     first = coalesce(min(first, excluded.first), first, excluded.first),
                     delivered = delivered + ?3, spam = spam + ?4, quarantined = quarantined + ?5, octets = octets + ?6",
                )?
                .execute(params![at, first, number(delivered), number(spam), number(quarantined), number(octets)])?;
        }
        for ((whose, name, at), (counted, octets)) in self.tallies {
            let Counted { delivered, spam, quarantined } = counted;
            connection
                .prepare_cached(
                    "INSERT INTO tally VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (whose, name, at) DO UPDATE SET
                     delivered = delivered + ?4, spam = spam + ?5, quarantined = quarantined + ?6, octets = octets + ?7",
                )?
                .execute(params![
                    whose,
                    name,
                    at,
                    number(delivered),
                    number(spam),
                    number(quarantined),
                    number(octets)
                ])?;
        }
        Ok(())
    }
}

fn plus(sum: (&mut Counted, &mut u64), counted: Counted, octets: u64) {
    sum.0.delivered += counted.delivered;
    sum.0.spam += counted.spam;
    sum.0.quarantined += counted.quarantined;
    *sum.1 += octets;
}

/// The text of a message that is searched, in lower case.
pub(super) fn searched(row: &TrailRow) -> String {
    let About { subject, from, message_id, users, .. } = &row.about;
    [subject, from, message_id, &row.account, &users.join("\n")].map(|text| text.to_lowercase()).join("\n")
}

/// Puts the words in of messages after `indexed`, up to `last`.
fn index(connection: &Connection, indexed: i64, last: i64) -> Result<i64, Fault> {
    let mut messages = connection.prepare_cached(&format!("{MESSAGE} WHERE n > ?1 AND n <= ?2 ORDER BY n"))?;
    let mut rows = messages.query([indexed, last])?;
    let mut block = None;
    while let Some(row) = rows.next()? {
        let (row, _) = row_of(row)?;
        let of_row = row.id.0 / BLOCK;
        if block != Some(of_row) {
            make_words(connection, of_row)?;
            block = Some(of_row);
        }
        let sql = format!("INSERT INTO {} (rowid, text) VALUES (?1, ?2)", words(of_row));
        connection.prepare_cached(&sql)?.execute(params![row.id.0, searched(&row)])?;
    }
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('indexed', ?1)", [last])?;
    Ok(last)
}

/// Marks the hour as one in which we ran.
pub(super) fn mark(connection: &Connection, memory: &mut Memory, now: UnixTime) -> Result<(), Fault> {
    let at = HourRow::of(now).0;
    if memory.marked != Some(at) {
        connection.execute("INSERT OR IGNORE INTO hour (at) VALUES (?1)", [at])?;
        memory.marked = Some(at);
    }
    Ok(())
}

/// Forgets some messages that were seen before `kept`; false when none is left. Figures that are too old go with them.
pub(super) fn forget(connection: &mut Connection, now: UnixTime, kept: UnixTime) -> Result<bool, Fault> {
    let transaction = connection.transaction()?;
    let hour = HourRow::of(kept).0;
    // The hour that `kept` is in stays whole.
    let first: Option<i64> =
        transaction.query_row("SELECT min(first) FROM hour WHERE at >= ?1", [hour], |row| row.get(0))?;
    let first = match first {
        Some(first) => first,
        None => transaction.query_row("SELECT coalesce(max(n), 0) + 1 FROM message", [], |row| row.get(0))?,
    };
    let oldest: Option<i64> = transaction.query_row("SELECT min(n) FROM message", [], |row| row.get(0))?;
    let end = oldest.map_or(first, |oldest| first.min(oldest.saturating_add(FORGOTTEN)));
    for table in ["message", "step"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE n < ?1"), [end])?;
    }
    let old = hour.min(HourRow::of(now).0.saturating_sub(FIGURES));
    transaction.execute("DELETE FROM hour WHERE at < ?1", [old])?;
    transaction.execute("DELETE FROM tally WHERE whose IN (0, 1) AND at < ?1", [old])?;
    for block in blocks(&transaction)? {
        if (block + 1) * BLOCK <= end {
            transaction.execute_batch(&format!("DROP TABLE {}", words(block)))?;
        }
    }
    transaction.commit()?;
    Ok(end < first)
}

/// Blocks that have words, the newest first.
pub(super) fn blocks(connection: &Connection) -> Result<Vec<i64>, Fault> {
    let sql = "SELECT CAST(substr(name, 7) AS INTEGER) FROM sqlite_schema
        WHERE name GLOB 'words_[0-9]*' AND sql LIKE 'CREATE VIRTUAL%' ORDER BY 1 DESC";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}
