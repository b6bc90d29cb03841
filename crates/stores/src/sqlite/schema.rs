use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use connectord_store::StoreError;
use rusqlite::{Connection, OpenFlags};

use super::fault::Fault;

/// "CNDR": file(1) and we ourselves know the file by it.
const APPLICATION_ID: i64 = 0x434E_4452;

/// Before this one a WAL could be reset under a second connection's commit, and the file was damaged.
const OLDEST_SQLITE: i32 = 3_051_003;

/// Each makes the next schema of the one before; `user_version` says how many have been applied. Only ever appended to.
pub(super) const MIGRATIONS: &[&str] = &[
    // A finished message is one row of `ledger` and nothing else, at most 64 octets on disk: hence no rowid, a key that
    // is an integer (UID) or 16 octets (digest), states numbered so that the common ones take no octet, and everything
    // that no query looks at packed into `print`. Rows of a large mailbox lie scattered, one page each, so a message gets
    // its row when it is finished: a pending or parked one is in `trouble` and `delivery`, which stay small, and nowhere
    // else. Delivered ones are in `trouble` too while their removal waits.
    "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('instance', lower(hex(randomblob(8))));

    -- An account whose address is NULL is being forgotten.
    CREATE TABLE account (
        id INTEGER PRIMARY KEY AUTOINCREMENT, address TEXT UNIQUE, retired_at INTEGER,
        failures INTEGER NOT NULL DEFAULT 0, login_refusals INTEGER NOT NULL DEFAULT 0,
        silences INTEGER NOT NULL DEFAULT 0, last_ok INTEGER,
        last_check INTEGER, next_check INTEGER, hold TEXT, error TEXT, refused_credential BLOB, clock_jump INTEGER);

    CREATE TABLE mailbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL REFERENCES account, name TEXT NOT NULL,
        uid_validity INTEGER NOT NULL, uid_next INTEGER NOT NULL DEFAULT 0, first_listed INTEGER, last_listed INTEGER,
        absence_times INTEGER, absence_since INTEGER, continues INTEGER, keys_recur INTEGER NOT NULL DEFAULT 0,
        UNIQUE (account, name, uid_validity));

    CREATE TABLE ledger (
        mailbox INTEGER NOT NULL, key NOT NULL, generation INTEGER NOT NULL, state INTEGER NOT NULL,
        delivered_at INTEGER NOT NULL, print BLOB, PRIMARY KEY (mailbox, key, generation)) WITHOUT ROWID;

    CREATE TABLE trouble (
        mailbox INTEGER NOT NULL, key NOT NULL, generation INTEGER NOT NULL, state INTEGER NOT NULL,
        delivered_at INTEGER NOT NULL, print BLOB, retry_at INTEGER NOT NULL, attempts INTEGER NOT NULL, since INTEGER, reason TEXT NOT NULL, size_octets INTEGER NOT NULL,
        on_server TEXT NOT NULL, message_id TEXT NOT NULL, sender TEXT NOT NULL, subject TEXT NOT NULL,
        PRIMARY KEY (mailbox, key, generation)) WITHOUT ROWID;

    CREATE TABLE delivery (
        mailbox INTEGER NOT NULL, key NOT NULL, generation INTEGER NOT NULL, destination TEXT NOT NULL,
        user TEXT NOT NULL, address TEXT NOT NULL, step INTEGER NOT NULL, attempt INTEGER NOT NULL, note BLOB,
        uncertain INTEGER NOT NULL, PRIMARY KEY (mailbox, key, generation, destination, user)) WITHOUT ROWID;

    CREATE TABLE run (
        id INTEGER PRIMARY KEY, account INTEGER NOT NULL REFERENCES account, started INTEGER NOT NULL,
        duration_ms INTEGER NOT NULL, listed INTEGER NOT NULL, retrieved INTEGER NOT NULL, octets INTEGER NOT NULL,
        delivered INTEGER NOT NULL, deferred INTEGER NOT NULL, parked INTEGER NOT NULL, removed INTEGER NOT NULL,
        error TEXT);
    CREATE INDEX run_of_account ON run (account, id);
    ",
    // What somebody was told, by subject.
    "
    CREATE TABLE notice (subject TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
    ",
    // What was the digest of Message-ID and Date in `print` is that of the body now: unknown, as nobody kept it. States of
    // 8 and above are those of adopted messages.
    "
    UPDATE ledger SET print = CAST(substr(print, 1, 8) || zeroblob(8) || substr(print, 17) AS BLOB)
        WHERE print IS NOT NULL;
    UPDATE trouble SET print = CAST(substr(print, 1, 8) || zeroblob(8) || substr(print, 17) AS BLOB)
        WHERE print IS NOT NULL;
    ALTER TABLE trouble ADD COLUMN anyway INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE run ADD COLUMN repeated INTEGER NOT NULL DEFAULT 0;
    ",
    "
    ALTER TABLE mailbox ADD COLUMN quiet BLOB;
    ",
    // What filters did.
    "
    ALTER TABLE trouble ADD COLUMN postponed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE trouble ADD COLUMN filter_failures INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE run ADD COLUMN quarantined INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE run ADD COLUMN discarded INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE run ADD COLUMN unchecked INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE run ADD COLUMN spam INTEGER NOT NULL DEFAULT 0;
    ",
    super::saved::SCHEMA,
    // Why an account is not well, as values.
    "
    ALTER TABLE account ADD COLUMN reason TEXT;
    ALTER TABLE account ADD COLUMN since INTEGER;
    ALTER TABLE run ADD COLUMN reason TEXT;
    ",
    super::values::SCHEMA,
    // What logins taught about the account's server.
    "
    ALTER TABLE account ADD COLUMN login TEXT;
    ",
];

/// Makes the database file when it is missing, readable by its owner only; SQLite gives its other files the same mode.
pub(crate) fn make_file(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(StoreError::Failed {
            during: "opening the state",
            text: format!("cannot make {}: {error}", path.display()),
        }),
        _ => Ok(()),
    }
}

/// A connection that is as durable as SQLite can be.
pub(super) fn connect(path: &Path, busy_timeout: Duration) -> Result<Connection, rusqlite::Error> {
    // Each connection stays on its thread, so SQLite needs no lock of its own.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    // FULL: with NORMAL the last commits are lost with the power, and their messages come twice. No mmap: an I/O error
    // would be a signal. The size of a WAL that a long read made grow is given back.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA mmap_size = 0;
         PRAGMA journal_size_limit = 16777216; PRAGMA trusted_schema = OFF;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Brings the schema up to date, all steps in one transaction, or refuses a newer one.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Fault> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        let text = format!("SQLite {} can damage its files, 3.51.3 or newer is needed", rusqlite::version());
        return Err(StoreError::Failed { during: "opening the state", text }.into());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let number = |pragma: &str| transaction.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (found, application_id) = (number("user_version")?, number("application_id")?);
    if application_id != APPLICATION_ID && (application_id, found) != (0, 0) {
        let text = "it is the database of another program".to_owned();
        return Err(StoreError::Corrupt { during: "opening the state", text }.into());
    }
    let applied = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(missing) = MIGRATIONS.get(applied..) else {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(StoreError::NewerSchema { found, known: MIGRATIONS.len() as u32 }.into());
    };
    if missing.is_empty() {
        return Ok(());
    }
    for migration in missing {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_the_first_schema_keeps_headers_and_forgets_what_it_did_not_know() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATIONS[0]).unwrap();
        // All octets, to be sure that none is taken for text.
        let print: Vec<u8> = (0..=24u8).map(|n| n.wrapping_mul(11)).collect();
        for table in ["INSERT INTO ledger VALUES (1, 1, 0, 0, 5, ?1)", "INSERT INTO ledger VALUES (1, 2, 0, 1, 5, ?1)"]
        {
            connection.execute(table, [&print]).unwrap();
        }
        connection.execute_batch("INSERT INTO ledger VALUES (1, 3, 0, 0, 5, NULL)").unwrap();
        connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        migrate(&mut connection).unwrap();
        let mut statement = connection.prepare("SELECT print FROM ledger ORDER BY key").unwrap();
        let found: Vec<Option<Vec<u8>>> =
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let wanted = [&print[..8], &[0; 8], &print[16..]].concat();
        assert_eq!(found, [Some(wanted.clone()), Some(wanted), None]);
    }

    #[test]
    fn a_state_from_before_there_were_filters_opens_and_nothing_was_put_off_in_it() {
        let mut connection = Connection::open_in_memory().unwrap();
        MIGRATIONS[..4].iter().for_each(|migration| connection.execute_batch(migration).unwrap());
        connection
            .execute_batch(
                "INSERT INTO account (id, address) VALUES (1, 'ann@example.org');
                 INSERT INTO mailbox (id, account, name, uid_validity) VALUES (1, 1, 'INBOX', 7);
                 INSERT INTO trouble VALUES (1, 5, 0, 2, 0, NULL, 77, 3, 70, 'no', 9, '5', '<1@x>', 'Bob', 'Hi', 1);
                 INSERT INTO run (account, started, duration_ms, listed, retrieved, octets, delivered, deferred, parked,
                 removed, error, repeated) VALUES (1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 'cut', 10);",
            )
            .unwrap();
        connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        connection.pragma_update(None, "user_version", 4).unwrap();
        migrate(&mut connection).unwrap();
        let rows = super::super::accounts::troubled(&connection, None, true).unwrap();
        let row = &rows[0];
        assert_eq!((row.attempts, row.anyway, row.postponed, row.filter_failures), (3, true, 0, 0));
        assert_eq!((row.reason.as_str(), row.name.subject.as_str()), ("no", "Hi"));
        let runs = super::super::accounts::runs(&connection, connectord_store::AccountId(1), None, 5).unwrap();
        let run = &runs[0].1;
        assert_eq!(
            (run.removed, run.repeated, run.quarantined, run.discarded, run.unchecked, run.spam),
            (9, 10, 0, 0, 0, 0)
        );
    }

    #[test]
    fn a_state_from_before_saved_accounts_has_its_accounts_and_takes_saved_ones() {
        let saved = MIGRATIONS.iter().position(|step| *step == super::super::saved::SCHEMA).unwrap();
        let mut connection = Connection::open_in_memory().unwrap();
        for step in &MIGRATIONS[..saved] {
            connection.execute_batch(step).unwrap();
        }
        connection.execute_batch("INSERT INTO account (address, failures) VALUES ('ann@x', 3)").unwrap();
        connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        connection.pragma_update(None, "user_version", saved as i64).unwrap();
        migrate(&mut connection).unwrap();
        let known = super::super::accounts::accounts(&connection).unwrap();
        assert_eq!((known[0].address.as_str(), known[0].health.failures), ("ann@x", 3));
        let count = |table: &str| {
            connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!((count("saved"), count("change")), (0, 0));
    }
}
