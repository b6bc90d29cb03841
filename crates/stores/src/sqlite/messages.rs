use std::collections::BTreeMap;

use connectord_account::{Entry, Key, Ledger, State};
use connectord_delivery::{Note, Recipient};
use connectord_mail::{Fingerprint, UnixTime};
use connectord_store::memory::{Delivery, Message, Trouble};
use connectord_store::{MailboxId, MessageName, MessageRef, Step};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

/// A key in a column: a UID is an integer, a digest 16 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SqlKey(pub(crate) Key);

impl ToSql for SqlKey {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match &self.0 {
            Key::Uid(uid) => ToSqlOutput::from(*uid),
            Key::Digest(digest) => ToSqlOutput::from(&digest[..]),
        })
    }
}

impl FromSql for SqlKey {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Integer(uid) => {
                u32::try_from(uid).map(|uid| Self(Key::Uid(uid))).map_err(|_| FromSqlError::OutOfRange(uid))
            }
            ValueRef::Blob(digest) => {
                let digest = digest
                    .try_into()
                    .map_err(|_| FromSqlError::InvalidBlobSize { expected_size: 16, blob_size: digest.len() })?;
                Ok(Self(Key::Digest(digest)))
            }
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A state in a column, and whether its message is adopted: 0 and 1 take no octet in SQLite's records, so the common
/// ones have them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SqlState {
    state: State,
    adopted: bool,
}

const STATES: [State; 7] =
    [State::Delivered, State::Done, State::Pending, State::Removing, State::Skipped, State::Parked, State::Discarding];

/// Added to the number of a state when its message is adopted.
const ADOPTED: i64 = 8;

/// [`State::Done`] in a column.
pub(super) const DONE: [i64; 2] = [1, 1 + ADOPTED];

impl SqlState {
    fn of(entry: &Entry) -> Self {
        Self { state: entry.state, adopted: entry.adopted }
    }
}

impl ToSql for SqlState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let number = STATES.iter().position(|state| *state == self.state).expect("all states are listed") as i64;
        Ok(ToSqlOutput::from(number + if self.adopted { ADOPTED } else { 0 }))
    }
}

impl FromSql for SqlState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        let adopted = number >= ADOPTED;
        let place = usize::try_from(if adopted { number - ADOPTED } else { number }).ok();
        let state = place.and_then(|place| STATES.get(place)).ok_or(FromSqlError::OutOfRange(number))?;
        Ok(Self { state: *state, adopted })
    }
}

/// Whether its row is in `ledger`; else it is in `trouble` alone.
fn is_finished(state: State) -> bool {
    !matches!(state, State::Pending | State::Parked | State::Discarding)
}

/// Loads all that is known about a message.
pub(super) fn load(connection: &Connection, name: MessageRef) -> rusqlite::Result<Option<Message>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, generation, state, delivered_at, print FROM ledger
         WHERE mailbox = ?1 AND key = ?2 AND generation = ?3",
    )?;
    let finished = statement.query_row(params![name.mailbox.0, SqlKey(name.key), name.generation], entry).optional()?;
    let troubled = if finished.is_none_or(|(entry, _)| entry.state == State::Delivered) {
        let mut statement = connection.prepare_cached(
            "SELECT key, generation, state, delivered_at, print, retry_at, attempts, anyway, since, reason, size_octets,
             on_server, message_id, sender, subject, postponed, filter_failures
             FROM trouble WHERE mailbox = ?1 AND key = ?2 AND generation = ?3",
        )?;
        let row = |row: &Row<'_>| Ok((troubled_entry(row)?, trouble_from(row, 8)?));
        statement.query_row(params![name.mailbox.0, SqlKey(name.key), name.generation], row).optional()?
    } else {
        None
    };
    let gone_at = finished.and_then(|(_, gone_at)| gone_at);
    let (entry, trouble) = match (finished, troubled) {
        (None, None) => return Ok(None),
        (None, Some(troubled)) => troubled,
        (Some((entry, _)), None) => (entry, Trouble::default()),
        (Some((entry, _)), Some((Entry { retry_at, attempts, .. }, trouble))) => {
            (Entry { retry_at, attempts, ..entry }, trouble)
        }
    };
    let mut deliveries = Vec::new();
    if !is_finished(entry.state) {
        let mut statement = connection.prepare_cached(
            "SELECT destination, user, address, step, attempt, note, uncertain
             FROM delivery WHERE mailbox = ?1 AND key = ?2 AND generation = ?3",
        )?;
        let rows = statement
            .query_map(params![name.mailbox.0, SqlKey(name.key), name.generation], |row| delivery_from(row, 0))?;
        deliveries = rows.collect::<Result<_, _>>()?;
    }
    Ok(Some(Message { mailbox: name.mailbox, entry, gone_at, trouble, deliveries }))
}

/// Saves what has changed of a message.
pub(super) fn save(connection: &Connection, before: Option<&Message>, after: &Message) -> rusqlite::Result<()> {
    let name = after.name();
    let key = SqlKey(name.key);
    let row = |message: &Message| {
        let Entry { state, delivered_at, .. } = message.entry;
        is_finished(state).then(|| (SqlState::of(&message.entry), delivered_at, pack(&message.entry, message.gone_at)))
    };
    match (before.and_then(row), row(after)) {
        (old, new) if old == new => {}
        (_, Some((state, delivered_at, print))) => {
            connection
                .prepare_cached(
                    "INSERT INTO ledger (mailbox, key, generation, state, delivered_at, print)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT DO UPDATE SET state = ?4, delivered_at = ?5, print = ?6",
                )?
                .execute(params![name.mailbox.0, key, name.generation, state, delivered_at.0, print])?;
        }
        (_, None) => {
            connection
                .prepare_cached("DELETE FROM ledger WHERE mailbox = ?1 AND key = ?2 AND generation = ?3")?
                .execute(params![name.mailbox.0, key, name.generation])?;
        }
    }
    save_trouble(connection, before, after)?;
    let known = before.map_or(&[][..], |before| &before.deliveries);
    for delivery in &after.deliveries {
        if known.contains(delivery) {
            continue;
        }
        let (step, attempt, note) = match &delivery.step {
            Step::Waiting => (0, 0, None),
            Step::Staged(note) => (1, 0, Some(&note.0)),
            Step::Delivering { attempt } => (2, *attempt, None),
            Step::Delivered => (3, 0, None),
            Step::Parked => (4, 0, None),
        };
        connection
            .prepare_cached(
                "INSERT INTO delivery
                 (mailbox, key, generation, destination, user, address, step, attempt, note, uncertain)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT DO UPDATE SET address = ?6, step = ?7, attempt = ?8, note = ?9, uncertain = ?10",
            )?
            .execute(params![
                name.mailbox.0,
                key,
                name.generation,
                delivery.destination,
                delivery.recipient.user,
                delivery.recipient.address,
                step,
                attempt,
                note,
                delivery.uncertain,
            ])?;
    }
    let is_kept = |old: &Delivery| {
        after
            .deliveries
            .iter()
            .any(|new| new.destination == old.destination && new.recipient.user == old.recipient.user)
    };
    for old in known.iter().filter(|old| !is_kept(old)) {
        connection
            .prepare_cached(
                "DELETE FROM delivery
                 WHERE mailbox = ?1 AND key = ?2 AND generation = ?3 AND destination = ?4 AND user = ?5",
            )?
            .execute(params![name.mailbox.0, key, name.generation, old.destination, old.recipient.user])?;
    }
    Ok(())
}

fn save_trouble(connection: &Connection, before: Option<&Message>, after: &Message) -> rusqlite::Result<()> {
    let name = after.name();
    let row = |message: &Message| {
        let Entry { state, retry_at, attempts, anyway, .. } = message.entry;
        let unusual = retry_at != UnixTime(0) || attempts != 0 || anyway || message.trouble != Trouble::default();
        (unusual || !is_finished(state)).then(|| (message.entry, message.trouble.clone()))
    };
    let (old, new) = (before.and_then(row), row(after));
    match new {
        _ if old == new => {}
        None => {
            connection
                .prepare_cached("DELETE FROM trouble WHERE mailbox = ?1 AND key = ?2 AND generation = ?3")?
                .execute(params![name.mailbox.0, SqlKey(name.key), name.generation])?;
        }
        Some((entry, trouble)) => {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO trouble
                     (mailbox, key, generation, state, delivered_at, print, retry_at, attempts, since, reason, size_octets,
                      on_server, message_id, sender, subject, anyway, postponed, filter_failures)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
                )?
                .execute(params![
                    name.mailbox.0,
                    SqlKey(name.key),
                    name.generation,
                    SqlState::of(&entry),
                    entry.delivered_at.0,
                    pack(&entry, None),
                    entry.retry_at.0,
                    entry.attempts,
                    trouble.since.map(|since| since.0),
                    trouble.reason,
                    i64::try_from(trouble.size_octets).unwrap_or(i64::MAX),
                    trouble.name.on_server,
                    trouble.name.message_id,
                    trouble.name.from,
                    trouble.name.subject,
                    entry.anyway,
                    trouble.postponed,
                    trouble.filter_failures,
                ])?;
        }
    }
    Ok(())
}

/// Whether a message of a mailbox waits for anything but a person, as [`Message::waits`] says: all those are in `trouble`.
pub(super) fn any_waits(connection: &Connection, mailbox: MailboxId) -> rusqlite::Result<bool> {
    let number = |state| SqlState { state, adopted: false };
    let (pending, discarding, parked) = (number(State::Pending), number(State::Discarding), number(State::Parked));
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM trouble WHERE mailbox = ?1 AND (state & 7 IN (?2, ?3) OR state & 7 <> ?4 AND retry_at <> 0)",
    )?;
    statement.exists(params![mailbox.0, pending, discarding, parked])
}

/// What is known about the messages of a mailbox, packed while it is read.
pub(super) fn packed_ledger(
    connection: &Connection,
    mailbox: MailboxId,
    fingerprints: bool,
) -> rusqlite::Result<Ledger> {
    let mut statement = connection.prepare_cached(
        "SELECT key, generation, state, delivered_at, print, retry_at, attempts, anyway FROM trouble
         WHERE mailbox = ?1 ORDER BY key, generation",
    )?;
    let troubled: Vec<Entry> = statement.query_map([mailbox.0], troubled_entry)?.collect::<Result<_, _>>()?;
    let mut statement = connection.prepare_cached(
        "SELECT key, generation, state, delivered_at, print FROM ledger WHERE mailbox = ?1 ORDER BY key, generation",
    )?;
    let mut ledger = if fingerprints { Ledger::default() } else { Ledger::without_fingerprints() };
    // SQLite sorts as we do: integers before octets.
    let mut troubled = troubled.into_iter().peekable();
    let mut rows = statement.query([mailbox.0])?;
    while let Some(row) = rows.next()? {
        let (entry, _) = entry(row)?;
        let name = (entry.key, entry.generation);
        while let Some(before) = troubled.next_if(|troubled| (troubled.key, troubled.generation) < name) {
            ledger.push(before);
        }
        let more = troubled.next_if(|troubled| (troubled.key, troubled.generation) == name);
        ledger.push(more.unwrap_or(entry));
    }
    troubled.for_each(|entry| ledger.push(entry));
    Ok(ledger)
}

/// What is known about some messages, all generations, by key.
pub(super) fn entries(connection: &Connection, mailbox: MailboxId, keys: &[Key]) -> rusqlite::Result<Vec<Entry>> {
    let mut ledger = connection.prepare_cached(
        "SELECT key, generation, state, delivered_at, print FROM ledger WHERE mailbox = ?1 AND key = ?2",
    )?;
    let mut trouble = connection.prepare_cached(
        "SELECT key, generation, state, delivered_at, print, retry_at, attempts, anyway FROM trouble
         WHERE mailbox = ?1 AND key = ?2",
    )?;
    let mut found: BTreeMap<(Key, u16), Entry> = BTreeMap::new();
    for key in keys {
        let name = params![mailbox.0, SqlKey(*key)];
        for entry in ledger.query_map(name, |row| entry(row).map(|(entry, _)| entry))? {
            let entry = entry?;
            found.insert((entry.key, entry.generation), entry);
        }
        for entry in trouble.query_map(name, troubled_entry)? {
            let entry = entry?;
            found.insert((entry.key, entry.generation), entry);
        }
    }
    Ok(found.into_values().collect())
}

/// All that is known about the messages of a mailbox, by key.
pub(super) fn ledger(connection: &Connection, mailbox: MailboxId) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, generation, state, delivered_at, print, retry_at, attempts, anyway FROM trouble
         WHERE mailbox = ?1",
    )?;
    let troubled: Vec<Entry> = statement.query_map([mailbox.0], troubled_entry)?.collect::<Result<_, _>>()?;
    let mut statement = connection
        .prepare_cached("SELECT key, generation, state, delivered_at, print FROM ledger WHERE mailbox = ?1")?;
    let rows = statement.query_map([mailbox.0], |row| entry(row).map(|(entry, _)| entry))?;
    let mut entries: Vec<Entry> = rows.collect::<Result<_, _>>()?;
    // SQLite sorts as we do: integers before octets.
    let finished = entries.len();
    for entry in troubled {
        let name = (entry.key, entry.generation);
        match entries[..finished].binary_search_by_key(&name, |known| (known.key, known.generation)) {
            Ok(at) => entries[at] = entry,
            Err(_) => entries.push(entry),
        }
    }
    entries.sort_by_key(|entry| (entry.key, entry.generation));
    Ok(entries)
}

/// Forgets all about a message.
pub(super) fn remove(connection: &Connection, name: MessageRef) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM ledger WHERE mailbox = ?1 AND key = ?2 AND generation = ?3",
        "DELETE FROM trouble WHERE mailbox = ?1 AND key = ?2 AND generation = ?3",
        "DELETE FROM delivery WHERE mailbox = ?1 AND key = ?2 AND generation = ?3",
    ] {
        connection.prepare_cached(sql)?.execute(params![name.mailbox.0, SqlKey(name.key), name.generation])?;
    }
    Ok(())
}

/// Reads key, generation, state, delivered_at and print, in this order.
pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<(Entry, Option<UnixTime>)> {
    let SqlKey(key) = row.get(0)?;
    let SqlState { state, adopted } = row.get(2)?;
    let (generation, delivered_at) = (row.get(1)?, UnixTime(row.get(3)?));
    let mut entry = Entry { generation, delivered_at, adopted, ..Entry::new(key, state) };
    let gone_at = match row.get_ref(4)? {
        ValueRef::Null => None,
        ValueRef::Blob(print) => unpack(print, &mut entry).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Blob, "not a fingerprint".into())
        })?,
        _ => return Err(rusqlite::Error::InvalidColumnType(4, "print".to_owned(), row.get_ref(4)?.data_type())),
    };
    Ok((entry, gone_at))
}

/// Reads the same and then retry_at, attempts and anyway.
pub(super) fn troubled_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let (entry, _) = entry(row)?;
    Ok(Entry { retry_at: UnixTime(row.get(5)?), attempts: row.get(6)?, anyway: row.get(7)?, ..entry })
}

/// Reads since, reason, size_octets, on_server, message_id, sender, subject, postponed and filter_failures, from column
/// `at`.
pub(super) fn trouble_from(row: &Row<'_>, at: usize) -> rusqlite::Result<Trouble> {
    Ok(Trouble {
        since: row.get::<_, Option<i64>>(at)?.map(UnixTime),
        reason: row.get(at + 1)?,
        size_octets: u64::try_from(row.get::<_, i64>(at + 2)?).unwrap_or(0),
        name: MessageName {
            on_server: row.get(at + 3)?,
            message_id: row.get(at + 4)?,
            from: row.get(at + 5)?,
            subject: row.get(at + 6)?,
        },
        postponed: row.get(at + 7)?,
        filter_failures: row.get(at + 8)?,
    })
}

/// Reads destination, user, address, step, attempt, note and uncertain, from column `at`.
pub(super) fn delivery_from(row: &Row<'_>, at: usize) -> rusqlite::Result<Delivery> {
    let step = match row.get::<_, i64>(at + 3)? {
        0 => Step::Waiting,
        1 => Step::Staged(Note(row.get(at + 5)?)),
        2 => Step::Delivering { attempt: row.get(at + 4)? },
        3 => Step::Delivered,
        4 => Step::Parked,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(at + 3, other)),
    };
    Ok(Delivery {
        destination: row.get(at)?,
        recipient: Recipient { user: row.get(at + 1)?, address: row.get(at + 2)? },
        step,
        uncertain: row.get(at + 6)?,
    })
}

/// What was noted of all deliveries that are staged.
pub(super) fn staged(connection: &Connection) -> rusqlite::Result<Vec<Note>> {
    let mut statement = connection.prepare("SELECT note FROM delivery WHERE step = 1")?;
    statement.query_map([], |row| row.get(0).map(Note))?.collect()
}

/// Makes the name of a message of mailbox, key and generation, the first columns.
pub(super) fn name_from(row: &Row<'_>) -> rusqlite::Result<MessageRef> {
    let SqlKey(key) = row.get(1)?;
    Ok(MessageRef { mailbox: MailboxId(row.get(0)?), key, generation: row.get(2)? })
}

/// 2020-01-01: days are counted from here, in two octets until 2064.
const FIRST_DAY: i64 = 18_262;
const DAY: i64 = 86_400;

/// Packs the fingerprint, how long before its delivery a message arrived, and the day since which it is gone.
///
/// Digests as they are, then LEB128 numbers, each 0 when unknown; `None` when all is.
fn pack(entry: &Entry, gone_at: Option<UnixTime>) -> Option<Vec<u8>> {
    if entry.fingerprint == Fingerprint::default() && entry.arrived_at == UnixTime(0) && gone_at.is_none() {
        return None;
    }
    let mut packed = Vec::with_capacity(24);
    packed.extend(entry.fingerprint.head.to_be_bytes());
    packed.extend(entry.fingerprint.body.to_be_bytes());
    push_number(&mut packed, entry.fingerprint.size.into());
    let age = entry.delivered_at.0.wrapping_sub(entry.arrived_at.0);
    let age = ((age << 1) ^ (age >> 63)) as u64;
    // The one age that has no successor is no age of a message.
    push_number(&mut packed, if entry.arrived_at == UnixTime(0) { 0 } else { age.saturating_add(1) });
    if let Some(gone_at) = gone_at {
        // The next midnight: never forgotten early.
        let day = gone_at.0.saturating_add(DAY - 1).div_euclid(DAY);
        push_number(&mut packed, u64::try_from(day - FIRST_DAY).unwrap_or(0) + 1);
    }
    Some(packed)
}

/// The reverse of [`pack`]; `None` for octets that it does not make.
fn unpack(packed: &[u8], entry: &mut Entry) -> Option<Option<UnixTime>> {
    let (head, rest) = packed.split_first_chunk()?;
    let (body, mut rest) = rest.split_first_chunk()?;
    let size = u32::try_from(take_number(&mut rest)?).ok()?;
    entry.fingerprint = Fingerprint { head: u64::from_be_bytes(*head), body: u64::from_be_bytes(*body), size };
    if let Some(age) = take_number(&mut rest)?.checked_sub(1) {
        let age = (age >> 1) as i64 ^ -((age & 1) as i64);
        entry.arrived_at = UnixTime(entry.delivered_at.0.wrapping_sub(age));
    }
    if rest.is_empty() {
        return Some(None);
    }
    let days = i64::try_from(take_number(&mut rest)?.checked_sub(1)?).ok()?;
    Some(Some(UnixTime(days.checked_add(FIRST_DAY)?.checked_mul(DAY)?)))
}

fn push_number(octets: &mut Vec<u8>, mut number: u64) {
    while number > 0x7F {
        octets.push(number as u8 | 0x80);
        number >>= 7;
    }
    octets.push(number as u8);
}

fn take_number(octets: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (octet, rest) = octets.split_first()?;
        *octets = rest;
        number |= u64::from(octet & 0x7F) << shift;
        if octet & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_fingerprint_unpacks_to_the_same() {
        let fingerprint = Fingerprint { head: u64::MAX, body: 1, size: u32::MAX };
        for (delivered, arrived, gone) in [
            (0, 0, None),
            (1_800_000_000, 1_799_999_000, None),
            (0, 1_800_000_000, None),
            (5, 1_800_000_000, Some(FIRST_DAY * DAY)),
            (1_800_000_000, 0, Some(20_833 * DAY)),
            (i64::MAX, 1, None),
        ] {
            let wanted = Entry {
                delivered_at: UnixTime(delivered),
                arrived_at: UnixTime(arrived),
                fingerprint,
                ..Entry::new(Key::Uid(1), State::Delivered)
            };
            let mut found = Entry { delivered_at: wanted.delivered_at, ..Entry::new(Key::Uid(1), State::Delivered) };
            let gone = gone.map(UnixTime);
            assert_eq!(unpack(&pack(&wanted, gone).unwrap(), &mut found), Some(gone));
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn any_octets_unpack_to_something_or_nothing() {
        for length in 0..40 {
            for octet in [0, 0x7F, 0x80, 0xFF] {
                let _ = unpack(&vec![octet; length], &mut Entry::new(Key::Uid(1), State::Done));
            }
        }
    }
}
