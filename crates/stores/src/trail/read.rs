//! What is looked up. Lists are walked from the newest message down, by whichever way there has the fewest on it.

use std::collections::BTreeMap;

use connectord_mail::UnixTime;
use connectord_store::{HourRow, Of, TallyBy, TrailId, TrailPage, TrailQuery, TrailRow, TrailState, TrailStep};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::file::{BLOCK, words};
use super::writer::{MESSAGE, blocks, indexed_to, row_of, steps_of};
use crate::sqlite::fault::Fault;

/// With more messages than this on the way of an account, a user or a state, a text is looked for by its words.
const FEW: i64 = 5_000;

/// Audiences that a list of an account or user is put together from, at most.
const AUDIENCES: usize = 500;

/// Three letters of a text that are looked for at most; what is found is compared with the whole text.
const TRIGRAMS: usize = 16;

/// Which messages, in the terms of the file.
struct Plan {
    /// Audiences that it may have; all when absent.
    audiences: Option<Vec<i64>>,
    state: Option<TrailState>,
    twice: bool,
    /// The oldest that can have been seen since the time that was asked for.
    from: i64,
    /// To be looked for in the index of words.
    words: Option<String>,
    folded: String,
}

/// Goes on with a walk, or ends it.
enum Walk {
    On,
    End,
}

pub(super) fn messages(connection: &Connection, query: &TrailQuery) -> Result<TrailPage, Fault> {
    let Some(plan) = plan(connection, query)? else { return Ok(TrailPage::default()) };
    let limit = query.limit.clamp(1, TrailQuery::MOST);
    let before = query.before.map_or(i64::MAX, |before| before.0);
    let mut rows = Vec::with_capacity(limit.min(100));
    let mut is_more = false;
    let mut counted = 0;
    walk(connection, query, &plan, before, |row| {
        counted += 1;
        if rows.len() < limit {
            rows.push(row);
            // The first page counts what follows it, and every other one from the top.
            return Walk::On;
        }
        is_more = true;
        if query.before.is_none() && counted < TrailPage::COUNTED { Walk::On } else { Walk::End }
    })?;
    if query.before.is_some() {
        counted = 0;
        walk(connection, query, &plan, i64::MAX, |_| {
            counted += 1;
            if counted < TrailPage::COUNTED { Walk::On } else { Walk::End }
        })?;
    }
    let next = rows.last().filter(|_| is_more).map(|row: &TrailRow| row.id);
    Ok(TrailPage { rows, next, total: counted.min(TrailPage::COUNTED) })
}

/// Nothing when no message can match.
fn plan(connection: &Connection, query: &TrailQuery) -> Result<Option<Plan>, Fault> {
    let account = query.account.as_ref().map(|address| address.to_lowercase());
    let audiences = match (&account, &query.user) {
        (None, None) => None,
        (account, user) => {
            // Users are names without line ends, and compared whole.
            let sql = "SELECT audience.id FROM audience JOIN account ON account.id = audience.account
                WHERE (?1 IS NULL OR account.address = ?1)
                AND (?2 IS NULL OR instr(char(10) || users || char(10), char(10) || ?2 || char(10)) > 0)
                ORDER BY audience.id DESC LIMIT ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let found = statement.query_map(params![account, user, AUDIENCES as i64], |row| row.get(0))?;
            Some(found.collect::<Result<Vec<i64>, _>>()?)
        }
    };
    if audiences.as_ref().is_some_and(Vec::is_empty) {
        return Ok(None);
    }
    let from = match query.since {
        None => 0,
        Some(since) => {
            let sql = "SELECT min(first) FROM hour WHERE at >= ?1";
            let first: Option<i64> = connection.query_row(sql, [HourRow::of(since).0], |row| row.get(0))?;
            let Some(first) = first else { return Ok(None) };
            first
        }
    };
    let folded = query.folded();
    let mut plan =
        Plan { audiences, state: query.state, twice: query.maybe_twice, from, words: trigrams(&folded), folded };
    if plan.words.is_some() && is_short(connection, &plan)? {
        plan.words = None;
    }
    Ok(Some(plan))
}

/// Whether so few messages are on the way without the index of words that it is of no use.
fn is_short(connection: &Connection, plan: &Plan) -> Result<bool, Fault> {
    if plan.audiences.is_none() && plan.state.is_none() && !plan.twice && plan.from == 0 {
        return Ok(false);
    }
    let (way, values) = way(plan, i64::MAX);
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM message {way} LIMIT {})", FEW + 1);
    let count: i64 = connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0))?;
    Ok(count <= FEW)
}

/// The condition of a list without its text, by the index that has the fewest, and its values.
fn way(plan: &Plan, before: i64) -> (String, Vec<Value>) {
    let values = vec![Value::from(plan.from), Value::from(before)];
    let mut way = String::new();
    let (twice, state) = (plan.twice, plan.state.map(|state| state as i64));
    way.push_str(match (twice, &plan.audiences, state) {
        (true, ..) => "INDEXED BY message_twice",
        (_, Some(_), _) => "INDEXED BY message_audience",
        (_, None, Some(_)) => "INDEXED BY message_state",
        _ => "NOT INDEXED",
    });
    way.push_str(" WHERE n >= ?1 AND n < ?2");
    if twice {
        way.push_str(" AND flags & 1");
    }
    if let Some(audiences) = &plan.audiences {
        let list: Vec<String> = audiences.iter().map(i64::to_string).collect();
        way.push_str(&format!(" AND audience IN ({})", list.join(", ")));
    }
    if let Some(state) = state {
        way.push_str(&format!(" AND state = {state}"));
    }
    (way, values)
}

/// Takes each message that matches, from the newest below `before` on.
fn walk(
    connection: &Connection,
    query: &TrailQuery,
    plan: &Plan,
    before: i64,
    mut each: impl FnMut(TrailRow) -> Walk,
) -> Result<(), Fault> {
    let mut offer = |row: TrailRow| if query.wants(&row, &plan.folded) { each(row) } else { Walk::On };
    let Some(searched) = &plan.words else { return by_way(connection, plan, before, &mut offer) };
    // Those whose words are not in yet are the newest.
    let indexed = indexed_to(connection)?;
    let tail = Plan {
        from: plan.from.max(indexed + 1),
        words: None,
        folded: String::new(),
        audiences: None,
        state: None,
        twice: false,
    };
    if let Walk::End = by_way_until(connection, &tail, before, &mut offer)? {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(&format!("{MESSAGE} WHERE n = ?1"))?;
    for block in blocks(connection)? {
        if block * BLOCK >= before || (block + 1) * BLOCK <= plan.from {
            continue;
        }
        let table = words(block);
        let sql = format!("SELECT rowid FROM {table} WHERE {table} MATCH ?1 AND rowid < ?2 ORDER BY rowid DESC");
        let mut found = connection.prepare_cached(&sql)?;
        let mut numbers = found.query(params![searched, before.min(indexed.saturating_add(1))])?;
        while let Some(number) = numbers.next()? {
            let number: i64 = number.get(0)?;
            if number < plan.from {
                return Ok(());
            }
            // One that was forgotten is still in the index, until all of its block are.
            let row = statement.query_row([number], row_of).optional()?;
            if let Some((row, _)) = row
                && let Walk::End = offer(row)
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn by_way(
    connection: &Connection,
    plan: &Plan,
    before: i64,
    offer: &mut impl FnMut(TrailRow) -> Walk,
) -> Result<(), Fault> {
    by_way_until(connection, plan, before, offer).map(|_| ())
}

fn by_way_until(
    connection: &Connection,
    plan: &Plan,
    before: i64,
    offer: &mut impl FnMut(TrailRow) -> Walk,
) -> Result<Walk, Fault> {
    let (way, values) = way(plan, before);
    // The numbers first: a list of several audiences is sorted, and a number is all that is needed for that.
    let mut numbers = connection.prepare_cached(&format!("SELECT n FROM message {way} ORDER BY n DESC"))?;
    let mut message = connection.prepare_cached(&format!("{MESSAGE} WHERE n = ?1"))?;
    let mut numbers = numbers.query(params_from_iter(values))?;
    while let Some(number) = numbers.next()? {
        let number: i64 = number.get(0)?;
        let row = message.query_row([number], row_of).optional()?;
        if let Some((row, _)) = row
            && let Walk::End = offer(row)
        {
            return Ok(Walk::End);
        }
    }
    Ok(Walk::On)
}

/// A query of the index of words: every three letters in a row, or some of them; nothing for shorter texts.
fn trigrams(folded: &str) -> Option<String> {
    let letters: Vec<char> = folded.chars().collect();
    let count = letters.len().checked_sub(2).filter(|count| *count > 0)?;
    let step = count.div_ceil(TRIGRAMS);
    let places = (0..count).step_by(step).chain([count - 1]);
    let words: Vec<String> = places
        .map(|at| {
            let word: String = letters[at..at + 3].iter().collect();
            format!("\"{}\"", word.replace('"', "\"\""))
        })
        .collect();
    Some(words.join(" AND "))
}

pub(super) fn message(connection: &Connection, id: TrailId) -> Result<Option<(TrailRow, Vec<TrailStep>)>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{MESSAGE} WHERE n = ?1"))?;
    match statement.query_row([id.0], row_of).optional()? {
        Some((row, _)) => Ok(Some((row, steps_of(connection, id)?))),
        None => Ok(None),
    }
}

/// Whose figures, owned.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    All,
    Account(String),
    User(String),
}

impl From<Of<'_>> for Whose {
    fn from(of: Of<'_>) -> Self {
        match of {
            Of::All => Self::All,
            Of::Account(address) => Self::Account(address.to_lowercase()),
            Of::User(user) => Self::User(user.to_owned()),
        }
    }
}

pub(super) fn hours(
    connection: &Connection,
    whose: &Whose,
    from: UnixTime,
    until: UnixTime,
) -> Result<Vec<HourRow>, Fault> {
    let mut hours = HourRow::empty(from, until);
    let (Some(first), Some(last)) = (hours.first().map(|hour| hour.at.0), hours.last().map(|hour| hour.at.0)) else {
        return Ok(hours);
    };
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let mut known: BTreeMap<i64, HourRow> = BTreeMap::new();
    let read = |row: &rusqlite::Row<'_>| {
        let hour = HourRow {
            at: UnixTime(row.get(0)?),
            delivered: number(row.get(1)?),
            spam: number(row.get(2)?),
            quarantined: number(row.get(3)?),
            octets: number(row.get(4)?),
            down: false,
        };
        Ok(hour)
    };
    let columns = "SELECT at, delivered, spam, quarantined, octets FROM";
    let found: Vec<HourRow> = match whose {
        Whose::All => {
            let mut statement = connection.prepare_cached(&format!("{columns} hour WHERE at BETWEEN ?1 AND ?2"))?;
            statement.query_map([first, last], read)?.collect::<Result<_, _>>()?
        }
        Whose::Account(name) | Whose::User(name) => {
            let whose = i64::from(matches!(whose, Whose::User(_)));
            let sql = format!("{columns} tally WHERE whose = ?3 AND name = ?4 AND at BETWEEN ?1 AND ?2");
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_map(params![first, last, whose, name], read)?.collect::<Result<_, _>>()?
        }
    };
    known.extend(found.into_iter().map(|hour| (hour.at.0, hour)));
    let mut statement = connection.prepare_cached("SELECT at FROM hour WHERE at BETWEEN ?1 AND ?2")?;
    let ran: Vec<i64> = statement.query_map([first, last], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let began: Option<i64> = connection.query_row("SELECT min(at) FROM hour", [], |row| row.get(0))?;
    for hour in &mut hours {
        if let Some(known) = known.remove(&hour.at.0) {
            *hour = known;
        }
        hour.down = began.is_some_and(|began| hour.at.0 > began) && ran.binary_search(&hour.at.0).is_err();
    }
    Ok(hours)
}

pub(super) fn delivered(connection: &Connection, by: TallyBy, since: UnixTime) -> Result<Vec<(String, u64)>, Fault> {
    let whose = match by {
        TallyBy::Account => 0,
        TallyBy::User => 1,
    };
    let sql = "SELECT name, sum(delivered + spam) FROM tally INDEXED BY tally_at WHERE whose = ?1 AND at >= ?2
        GROUP BY name HAVING sum(delivered + spam) > 0 ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![whose, HourRow::of(since).0], |row| {
        Ok((row.get(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
