use rusqlite::Connection;

use super::fault::Fault;

/// All that was told, by subject.
pub(super) fn all(connection: &Connection) -> Result<Vec<(String, String)>, Fault> {
    let mut statement = connection.prepare_cached("SELECT subject, text FROM notice ORDER BY subject")?;
    Ok(statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
}

/// Remembers and forgets.
pub(super) fn record(connection: &Connection, changes: &[(String, Option<String>)]) -> Result<(), Fault> {
    for (subject, text) in changes {
        match text {
            Some(text) => {
                connection.prepare_cached("INSERT OR REPLACE INTO notice VALUES (?1, ?2)")?.execute([subject, text])?
            }
            None => connection.prepare_cached("DELETE FROM notice WHERE subject = ?1")?.execute([subject])?,
        };
    }
    Ok(())
}
