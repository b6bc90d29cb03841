//! The limits: programs that do only what nobody can leave out, each a process of its own and measured like the others.

mod disk;
mod imap;
mod pop3;
mod tls;

use crate::Done;
use crate::options::Words;

pub(crate) use disk::deliver;

/// `connectord-compare limit WHAT …`, called by ourselves only.
pub(crate) fn main(words: &mut Words) -> Done<()> {
    let what = words.required("what limit")?;
    match what.as_str() {
        "imap" => imap::main(words),
        "pop3" => pop3::main(words),
        "disk" => disk::main(words),
        other => Err(format!("no limit is called {other}").into()),
    }
}
