//! The file of the trail: its schema, and what is done when it is damaged.

use std::path::{Path, PathBuf};

use connectord_store::StoreError;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::sqlite::fault::Fault;
use crate::sqlite::schema::make_file;

/// "CNDT".
const APPLICATION_ID: i64 = 0x434E_4454;

/// Of a file with another one, nothing is read.
const VERSION: i64 = 1;

/// Messages whose words are in one table: old ones go with their table, at once and whole, and none grows so large that
/// putting something in becomes slow.
pub(super) const BLOCK: i64 = 1 << 17;

/// A message is one row, found again by its name at the provider; what happened to it is packed beside it, so that the list
/// reads nothing of it. An audience is the local users that an account had at some time: few for each account, so one
/// index serves the lists of an account and of a user.
const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
    CREATE TABLE account (id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE);
    CREATE TABLE place (
        id INTEGER PRIMARY KEY, account INTEGER NOT NULL, mailbox TEXT NOT NULL, uid_validity INTEGER NOT NULL,
        UNIQUE (account, mailbox, uid_validity));
    CREATE TABLE audience (
        id INTEGER PRIMARY KEY, account INTEGER NOT NULL, users TEXT NOT NULL, UNIQUE (account, users));
    CREATE TABLE message (
        n INTEGER PRIMARY KEY, place INTEGER NOT NULL, key NOT NULL, generation INTEGER NOT NULL,
        audience INTEGER NOT NULL, state INTEGER NOT NULL, flags INTEGER NOT NULL, at INTEGER NOT NULL,
        seen_at INTEGER NOT NULL, removed_at INTEGER, octets INTEGER NOT NULL, score INTEGER, score_limit INTEGER,
        on_server TEXT NOT NULL, subject TEXT NOT NULL, sender TEXT NOT NULL, message_id TEXT NOT NULL,
        delivery BLOB NOT NULL);
    CREATE UNIQUE INDEX message_name ON message (place, key, generation);
    CREATE INDEX message_audience ON message (audience, n);
    CREATE INDEX message_state ON message (state, n);
    CREATE INDEX message_twice ON message (n) WHERE flags & 1;
    CREATE INDEX message_held ON message (delivery) WHERE flags & 4;
    CREATE TABLE step (n INTEGER PRIMARY KEY, steps BLOB NOT NULL);
    CREATE TABLE hour (
        at INTEGER PRIMARY KEY, first INTEGER, delivered INTEGER NOT NULL DEFAULT 0, spam INTEGER NOT NULL DEFAULT 0,
        quarantined INTEGER NOT NULL DEFAULT 0, octets INTEGER NOT NULL DEFAULT 0);
    -- By account (0) and by user (1).
    CREATE TABLE tally (
        whose INTEGER NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, delivered INTEGER NOT NULL DEFAULT 0,
        spam INTEGER NOT NULL DEFAULT 0, quarantined INTEGER NOT NULL DEFAULT 0, octets INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (whose, name, at)) WITHOUT ROWID;
    CREATE INDEX tally_at ON tally (whose, at, name, delivered, spam);
";

/// Somebody may have it twice.
pub(super) const TWICE: i64 = 1;
/// It was taken for spam.
pub(super) const SPAM: i64 = 2;
/// It was in the quarantine: it is found by its identity too.
pub(super) const HELD: i64 = 4;

/// Name of the table with the words of a block.
pub(super) fn words(block: i64) -> String {
    format!("words_{block}")
}

/// Makes the table with the words of a block. It holds no text and no places in it, only which message has which three
/// letters: what is found is compared with the message itself.
pub(super) fn make_words(connection: &Connection, block: i64) -> Result<(), Fault> {
    let table = words(block);
    connection.execute_batch(&format!(
        "CREATE VIRTUAL TABLE IF NOT EXISTS {table} USING fts5(
             text, content = '', columnsize = 0, detail = none, tokenize = 'trigram case_sensitive 1');
         INSERT INTO {table} ({table}, rank) VALUES ('automerge', 8);"
    ))?;
    Ok(())
}

/// Opens the file, which is made when it is missing; one that is damaged, or none of ours, is set aside, and another one
/// begun.
pub(super) fn open(path: &Path) -> Result<Connection, Fault> {
    match open_as_it_is(path) {
        Err(fault) if is_damage(&fault) => {
            set_aside(path, &fault)?;
            open_as_it_is(path)
        }
        opened => opened,
    }
}

fn open_as_it_is(path: &Path) -> Result<Connection, Fault> {
    make_file(path)?;
    let mut connection = connect(path)?;
    // NORMAL: a commit waits for no disk. The last ones are lost with the power, and the file is whole all the same.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4096;
         PRAGMA journal_size_limit = 33554432; PRAGMA cache_size = -8192;",
    )?;
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION_ID, VERSION) => {}
        (0, 0) => {
            let transaction = connection.transaction()?;
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        (id, version) => {
            let text = format!("it is of another program or version ({id:x}, {version})");
            return Err(StoreError::Corrupt { during: "opening the trail", text }.into());
        }
    }
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, Fault> {
    let connection = connect(path)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -8192;")?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.execute_batch("PRAGMA mmap_size = 0; PRAGMA trusted_schema = OFF;")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Whether what is there is of no use any more.
pub(super) fn is_damage(fault: &Fault) -> bool {
    match fault {
        Fault::Sql(error) => {
            // What is missing, or has no such column, is a file that somebody has changed.
            let code = error.sqlite_error_code();
            matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown))
                || matches!(
                    error,
                    rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..)
                )
        }
        Fault::Store(error) => matches!(error, StoreError::Corrupt { .. }),
    }
}

/// Moves the file away, over one that was moved away before. Nobody may have it open.
pub(super) fn set_aside(path: &Path, fault: &Fault) -> Result<(), Fault> {
    let failed = |error: std::io::Error| StoreError::Failed {
        during: "setting the trail aside",
        text: format!("{}: {error}", path.display()),
    };
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = beside(".damaged");
    tracing::warn!(path = %path.display(), aside = %aside.display(), problem = ?fault, "trail: damaged, begun anew");
    // What is in its WAL belongs to it and would spoil the next file.
    for suffix in ["-wal", "-shm"] {
        match std::fs::remove_file(beside(suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error).into()),
            _ => {}
        }
    }
    std::fs::rename(path, aside).map_err(failed)?;
    Ok(())
}
