use connectord_account::Key;
use connectord_mail::UnixTime;
use connectord_store::memory::Message;
use connectord_store::{
    Absence, AccountId, AccountRow, Health, Hold, MailboxId, MailboxRow, MessageRef, ParkedRow, Quiet, Reason, RunId,
    RunRow, StoreError,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Fault;
use super::messages;

const ACCOUNT: &str = "SELECT id, address, retired_at, failures, login_refusals, last_ok, last_check, next_check, hold,
    error, refused_credential, clock_jump, silences, reason, since, login FROM account";

const MAILBOX: &str = "SELECT id, account, name, uid_validity, uid_next, first_listed, last_listed, absence_times,
    absence_since, continues, keys_recur, quiet FROM mailbox";

const HOLDS: [(&str, Hold); 6] = [
    ("backoff", Hold::Backoff),
    ("login", Hold::Login),
    ("throttled", Hold::Throttled),
    ("user_gone", Hold::UserGone),
    ("destination", Hold::Destination),
    ("filter", Hold::Filter),
];

/// An account that is in use.
pub(super) fn find_account(connection: &Connection, address: &str) -> Result<Option<AccountRow>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{ACCOUNT} WHERE address = ?1 AND retired_at IS NULL"))?;
    Ok(statement.query_row([address], account).optional()?)
}

pub(super) fn open_account(connection: &Connection, address: &str) -> Result<AccountRow, Fault> {
    connection
        .prepare_cached(
            "INSERT INTO account (address) VALUES (?1) ON CONFLICT (address) DO UPDATE SET retired_at = NULL",
        )?
        .execute([address])?;
    Ok(connection.query_row(&format!("{ACCOUNT} WHERE address = ?1"), [address], account)?)
}

pub(super) fn accounts(connection: &Connection) -> Result<Vec<AccountRow>, Fault> {
    let mut statement = connection.prepare(&format!("{ACCOUNT} WHERE address IS NOT NULL ORDER BY address"))?;
    Ok(statement.query_map([], account)?.collect::<Result<_, _>>()?)
}

pub(super) fn retire(connection: &Connection, address: &str, now: UnixTime) -> Result<(), Fault> {
    let sql = "UPDATE account SET retired_at = ?2 WHERE address = ?1 AND retired_at IS NULL";
    connection.execute(sql, params![address, now.0])?;
    Ok(())
}

/// Whether there is such an account, not being forgotten.
pub(super) fn exists(connection: &Connection, account: AccountId) -> Result<bool, Fault> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM account WHERE id = ?1 AND address IS NOT NULL")?;
    Ok(statement.exists([account.0])?)
}

pub(super) fn record_health(connection: &Connection, account: AccountId, health: &Health) -> Result<(), Fault> {
    let hold = health.hold.and_then(|hold| HOLDS.iter().find(|(_, known)| *known == hold)).map(|(name, _)| *name);
    let time = |time: Option<UnixTime>| time.map(|time| time.0);
    connection
        .prepare_cached(
            "UPDATE account SET failures = ?2, login_refusals = ?3, last_ok = ?4, last_check = ?5, next_check = ?6,
             hold = ?7, error = ?8, refused_credential = ?9, clock_jump = ?10, silences = ?11, reason = ?12, since = ?13,
             login = ?14
             WHERE id = ?1",
        )?
        .execute(params![
            account.0,
            health.failures,
            health.login_refusals,
            time(health.last_ok),
            time(health.last_check),
            time(health.next_check),
            hold,
            health.error,
            health.refused_credential,
            time(health.clock_jump),
            health.silences,
            health.reason.as_ref().map(Reason::to_text),
            time(health.since),
            health.login,
        ])?;
    Ok(())
}

pub(super) fn find_mailbox(
    connection: &Connection,
    account: AccountId,
    name: &str,
    uid_validity: u32,
) -> Result<Option<MailboxRow>, Fault> {
    let find = format!("{MAILBOX} WHERE account = ?1 AND name = ?2 AND uid_validity = ?3");
    let mut statement = connection.prepare_cached(&find)?;
    Ok(statement.query_row(params![account.0, name, uid_validity], mailbox).optional()?)
}

pub(super) fn open_mailbox(
    connection: &Connection,
    account: AccountId,
    name: &str,
    uid_validity: u32,
) -> Result<MailboxRow, Fault> {
    if let Some(known) = find_mailbox(connection, account, name, uid_validity)? {
        return Ok(known);
    }
    connection.execute(
        "INSERT INTO mailbox (account, name, uid_validity, continues)
         VALUES (?1, ?2, ?3, (SELECT max(id) FROM mailbox WHERE account = ?1 AND name = ?2))",
        params![account.0, name, uid_validity],
    )?;
    Ok(find_mailbox(connection, account, name, uid_validity)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?)
}

pub(super) fn mailboxes(connection: &Connection, account: AccountId) -> Result<Vec<MailboxRow>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{MAILBOX} WHERE account = ?1 ORDER BY id DESC"))?;
    Ok(statement.query_map([account.0], mailbox)?.collect::<Result<_, _>>()?)
}

pub(super) fn record_mailbox(connection: &Connection, mailbox: &MailboxRow) -> Result<(), Fault> {
    let may_be_quiet = mailbox.quiet.is_some() && !messages::any_waits(connection, mailbox.id)?;
    let time = |time: Option<UnixTime>| time.map(|time| time.0);
    connection
        .prepare_cached(
            "UPDATE mailbox SET uid_next = ?2, first_listed = ?3, last_listed = ?4, absence_times = ?5,
             absence_since = ?6, continues = ?7, keys_recur = ?8, quiet = ?9 WHERE id = ?1",
        )?
        .execute(params![
            mailbox.id.0,
            mailbox.uid_next,
            time(mailbox.first_listed),
            time(mailbox.last_listed),
            mailbox.absence.map(|absence| absence.times),
            mailbox.absence.map(|absence| absence.since.0),
            mailbox.continues.map(|continues| continues.0),
            mailbox.keys_recur,
            if may_be_quiet { mailbox.quiet.map(pack_quiet) } else { None },
        ])?;
    Ok(())
}

/// What is known of a message of a mailbox changes: its last listing is not quiet any more.
pub(super) fn disturb(connection: &Connection, mailbox: MailboxId) -> Result<(), Fault> {
    let sql = "UPDATE mailbox SET quiet = NULL WHERE id = ?1 AND quiet IS NOT NULL";
    connection.prepare_cached(sql)?.execute([mailbox.0])?;
    Ok(())
}

/// A lease is good for its own account's mailboxes, whose messages are about to change.
pub(super) fn owned(
    connection: &Connection,
    account: AccountId,
    mailboxes: impl IntoIterator<Item = MailboxId>,
) -> Result<(), Fault> {
    let sql = "SELECT quiet IS NOT NULL FROM mailbox WHERE id = ?1 AND account = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut last = None;
    for mailbox in mailboxes {
        if last == Some(mailbox) {
            continue;
        }
        match statement.query_row([mailbox.0, account.0], |row| row.get(0)).optional()? {
            None => return Err(StoreError::LeaseLost.into()),
            Some(true) => disturb(connection, mailbox)?,
            Some(false) => {}
        }
        last = Some(mailbox);
    }
    Ok(())
}

pub(super) fn troubled(
    connection: &Connection,
    account: Option<AccountId>,
    pending: bool,
) -> Result<Vec<ParkedRow>, Fault> {
    // Every pending or parked message has a row in `trouble`, and few others have: the join begins there.
    let mut statement = connection.prepare_cached(
        "SELECT trouble.mailbox, trouble.key, trouble.generation, account.address, mailbox.name
         FROM trouble JOIN mailbox ON mailbox.id = trouble.mailbox JOIN account ON account.id = mailbox.account
         WHERE account.address IS NOT NULL AND (?1 IS NULL OR account.id = ?1)",
    )?;
    let names = statement.query_map([account.map(|account| account.0)], |row| {
        Ok((messages::name_from(row)?, row.get::<_, String>(3)?, row.get::<_, String>(4)?))
    })?;
    let mut rows = Vec::new();
    for name in names {
        let (name, address, mailbox) = name?;
        let message = messages::load(connection, name)?.filter(|message: &Message| message.is_troubled(pending));
        rows.extend(message.map(|message| message.parked_row(&address, &mailbox)));
    }
    rows.sort_by_key(|row| (row.since, row.message));
    Ok(rows)
}

pub(super) fn record_run(connection: &Connection, account: AccountId, run: &RunRow, kept: i64) -> Result<(), Fault> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "INSERT INTO run (account, started, duration_ms, listed, retrieved, octets, delivered, deferred, parked,
             removed, error, repeated, quarantined, discarded, unchecked, spam, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        )?
        .execute(params![
            account.0,
            run.started.0,
            number(run.duration_ms),
            number(run.listed),
            number(run.retrieved),
            number(run.octets),
            number(run.delivered),
            number(run.deferred),
            number(run.parked),
            number(run.removed),
            run.error,
            number(run.repeated),
            number(run.quarantined),
            number(run.discarded),
            number(run.unchecked),
            number(run.spam),
            run.reason.as_ref().map(Reason::to_text),
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM run WHERE account = ?1 AND id <=
             (SELECT id FROM run WHERE account = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute([account.0, kept])?;
    Ok(())
}

pub(super) fn runs(
    connection: &Connection,
    account: AccountId,
    before: Option<RunId>,
    most: usize,
) -> Result<Vec<(RunId, RunRow)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT started, duration_ms, listed, retrieved, octets, delivered, deferred, parked, removed, error,
         repeated, quarantined, discarded, unchecked, spam, reason, id
         FROM run WHERE account = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
    )?;
    let (before, most) = (before.map_or(i64::MAX, |before| before.0), i64::try_from(most).unwrap_or(i64::MAX));
    let rows = statement.query_map([account.0, before, most], |row| {
        let number = |at: usize| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0));
        let run = RunRow {
            started: UnixTime(row.get(0)?),
            duration_ms: number(1)?,
            listed: number(2)?,
            retrieved: number(3)?,
            octets: number(4)?,
            delivered: number(5)?,
            deferred: number(6)?,
            parked: number(7)?,
            removed: number(8)?,
            error: row.get(9)?,
            repeated: number(10)?,
            quarantined: number(11)?,
            discarded: number(12)?,
            unchecked: number(13)?,
            spam: number(14)?,
            reason: row.get::<_, Option<String>>(15)?.as_deref().map(Reason::parse),
        };
        Ok((RunId(row.get(16)?), run))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Remembers the time; the one before.
pub(super) fn tick(connection: &Connection, now: UnixTime) -> Result<Option<UnixTime>, Fault> {
    let before = last_tick(connection)?;
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('tick', ?1)", [now.0])?;
    Ok(before)
}

pub(super) fn last_tick(connection: &Connection) -> Result<Option<UnixTime>, Fault> {
    let found = connection.query_row("SELECT value FROM meta WHERE name = 'tick'", [], |row| row.get(0)).optional()?;
    Ok(found.map(UnixTime))
}

/// Accounts that are retired since before `limit`, and those whose forgetting was cut short.
pub(super) fn forgettable(connection: &Connection, limit: UnixTime) -> Result<Vec<AccountId>, Fault> {
    let mut statement = connection.prepare("SELECT id FROM account WHERE retired_at <= ?1 OR address IS NULL")?;
    Ok(statement.query_map([limit.0], |row| row.get(0).map(AccountId))?.collect::<Result<_, _>>()?)
}

/// Forgets a part of an account, at most `most` messages; whether there is more to forget.
pub(super) fn forget(connection: &Connection, account: AccountId, limit: UnixTime, most: usize) -> Result<bool, Fault> {
    // The first part takes the address away: an account half forgotten is never found again.
    let sql = "UPDATE account SET address = NULL WHERE id = ?1 AND (retired_at <= ?2 OR address IS NULL)";
    if connection.execute(sql, [account.0, limit.0])? == 0 {
        return Ok(false);
    }
    let mut statement = connection.prepare_cached(
        "SELECT mailbox, key, generation FROM ledger WHERE mailbox IN (SELECT id FROM mailbox WHERE account = ?1)
         UNION ALL
         SELECT mailbox, key, generation FROM trouble WHERE mailbox IN (SELECT id FROM mailbox WHERE account = ?1)
         LIMIT ?2",
    )?;
    let rows = statement.query_map(params![account.0, most as i64], messages::name_from)?;
    let names: Vec<MessageRef> = rows.collect::<Result<_, _>>()?;
    for name in &names {
        messages::remove(connection, *name)?;
    }
    if names.len() == most {
        return Ok(true);
    }
    connection.execute("DELETE FROM run WHERE account = ?1", [account.0])?;
    connection.execute("DELETE FROM saved WHERE account = ?1", [account.0])?;
    connection.execute("DELETE FROM mailbox WHERE account = ?1", [account.0])?;
    connection.execute("DELETE FROM account WHERE id = ?1", [account.0])?;
    Ok(false)
}

/// Messages of a mailbox that are gone from the server, at most `most` of them after `after`.
pub(super) fn gone(
    connection: &Connection,
    mailbox: MailboxId,
    after: Option<(Key, u16)>,
    most: usize,
) -> Result<Vec<Message>, Fault> {
    // Keys sort as SQLite sorts them: integers before octets, and nothing before the least integer.
    let (after_key, after_generation) = match after {
        Some((key, generation)) => (value(key), i64::from(generation)),
        None => (rusqlite::types::Value::Integer(-1), 0),
    };
    let mut statement = connection.prepare_cached(
        "SELECT key, generation, state, delivered_at, print FROM ledger
         WHERE mailbox = ?1 AND (key, generation) > (?2, ?3) AND state IN (?4, ?5) ORDER BY key, generation
         LIMIT ?6",
    )?;
    let [done, adopted] = messages::DONE;
    let rows = statement
        .query_map(params![mailbox.0, after_key, after_generation, done, adopted, most as i64], messages::entry)?;
    let mut found = Vec::new();
    for row in rows {
        let (entry, gone_at) = row?;
        found.push(Message { mailbox, entry, gone_at, trouble: Default::default(), deliveries: Vec::new() });
    }
    Ok(found)
}

fn value(key: Key) -> rusqlite::types::Value {
    match key {
        Key::Uid(uid) => uid.into(),
        Key::Digest(digest) => digest.to_vec().into(),
    }
}

fn account(row: &Row<'_>) -> rusqlite::Result<AccountRow> {
    let time = |at: usize| row.get::<_, Option<i64>>(at).map(|time| time.map(UnixTime));
    let hold: Option<String> = row.get(8)?;
    Ok(AccountRow {
        id: AccountId(row.get(0)?),
        address: row.get(1)?,
        retired_at: time(2)?,
        health: Health {
            failures: row.get(3)?,
            login_refusals: row.get(4)?,
            last_ok: time(5)?,
            last_check: time(6)?,
            next_check: time(7)?,
            hold: hold.and_then(|hold| HOLDS.iter().find(|(name, _)| *name == hold)).map(|(_, hold)| *hold),
            error: row.get(9)?,
            refused_credential: row.get(10)?,
            clock_jump: time(11)?,
            silences: row.get(12)?,
            reason: row.get::<_, Option<String>>(13)?.as_deref().map(Reason::parse),
            since: time(14)?,
            login: row.get("login")?,
        },
    })
}

fn mailbox(row: &Row<'_>) -> rusqlite::Result<MailboxRow> {
    let time = |at: usize| row.get::<_, Option<i64>>(at).map(|time| time.map(UnixTime));
    let times: Option<u32> = row.get(7)?;
    Ok(MailboxRow {
        id: MailboxId(row.get(0)?),
        account: AccountId(row.get(1)?),
        name: row.get(2)?,
        uid_validity: row.get(3)?,
        uid_next: row.get(4)?,
        first_listed: time(5)?,
        last_listed: time(6)?,
        absence: times.zip(time(8)?).map(|(times, since)| Absence { times, since }),
        continues: row.get::<_, Option<i64>>(9)?.map(MailboxId),
        keys_recur: row.get(10)?,
        quiet: row.get::<_, Option<[u8; 36]>>(11)?.map(|packed| unpack_quiet(&packed)),
    })
}

/// Messages, digest, rules and time, all of them as they are; the last time there is stands for never.
fn pack_quiet(quiet: Quiet) -> [u8; 36] {
    let until = quiet.until.map_or(i64::MAX, |until| until.0);
    let mut packed = [0; 36];
    packed[..4].copy_from_slice(&quiet.messages.to_be_bytes());
    packed[4..20].copy_from_slice(&quiet.digest);
    packed[20..28].copy_from_slice(&quiet.rules.to_be_bytes());
    packed[28..].copy_from_slice(&until.to_be_bytes());
    packed
}

fn unpack_quiet(packed: &[u8; 36]) -> Quiet {
    fn take<const LENGTH: usize>(octets: &[u8; 36], at: usize) -> [u8; LENGTH] {
        std::array::from_fn(|place| octets[at + place])
    }
    let until = i64::from_be_bytes(take(packed, 28));
    Quiet {
        messages: u32::from_be_bytes(take(packed, 0)),
        digest: take(packed, 4),
        until: (until != i64::MAX).then_some(UnixTime(until)),
        rules: u64::from_be_bytes(take(packed, 20)),
    }
}
