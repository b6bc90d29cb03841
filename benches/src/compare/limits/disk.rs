use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::Done;
use crate::options::Words;

/// `limit disk --sizes FILE --to DIR --threads N [--syncfs]`: creates, writes, fsyncs and renames a file for each line of
/// `FILE` (its octets) in a Maildir, and fsyncs the directories. What is written comes from memory.
///
/// With `--syncfs` no file is synced by itself: each batch of 250 is written, then the file system synced, then renamed.
pub(super) fn main(words: &mut Words) -> Done<()> {
    let sizes = words.value("--sizes")?.ok_or("no --sizes")?;
    let to = words.value("--to")?.ok_or("no --to")?;
    let threads = words.number("--threads")?.unwrap_or(1).max(1);
    let syncfs = words.flag("--syncfs");
    words.end()?;
    let sizes: Vec<usize> = fs::read_to_string(sizes)?.lines().filter_map(|line| line.parse().ok()).collect();
    let pattern = vec![b'x'; sizes.iter().copied().max().unwrap_or(0)];
    let to = Path::new(&to);
    for name in ["tmp", "new", "cur"] {
        fs::create_dir_all(to.join(name))?;
    }
    let write = |n: usize| -> Done<File> {
        let mut file = File::create(to.join("tmp").join(n.to_string()))?;
        file.write_all(&pattern[..sizes[n]])?;
        Ok(file)
    };
    let publish = |n: usize| fs::rename(to.join("tmp").join(n.to_string()), to.join("new").join(n.to_string()));
    if syncfs {
        let directory = File::open(to)?;
        let all: Vec<usize> = (0..sizes.len()).collect();
        for batch in all.chunks(250) {
            batch.iter().try_for_each(|n| write(*n).map(drop))?;
            rustix::fs::syncfs(&directory)?;
            batch.iter().try_for_each(|n| publish(*n))?;
        }
    } else {
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), String> {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= sizes.len() {
                    return Ok(());
                }
                write(n).and_then(|file| Ok(file.sync_all()?)).map_err(|error| error.to_string())?;
                publish(n).map_err(|error| error.to_string())?;
            }
        };
        thread::scope(|scope| -> Done<()> {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| Ok(thread.join().map_err(|_| "a writing thread panicked")??))
        })?;
    }
    for name in ["tmp", "new"] {
        File::open(to.join(name))?.sync_all()?;
    }
    Ok(())
}

/// `connectord-compare deliver DIR`: one message from standard input into a Maildir, durably; for programs that
/// cannot write one themselves. It does less than any delivery program of Debian, which favours them.
pub(crate) fn deliver(words: &mut Words) -> Done<()> {
    let to = words.required("a Maildir")?;
    let to = Path::new(&to);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let name = format!("{}.M{:06}P{}.bench", now.as_secs(), now.subsec_micros(), std::process::id());
    let mut octets = Vec::new();
    std::io::stdin().lock().read_to_end(&mut octets)?;
    let temporary = to.join("tmp").join(&name);
    let mut file = File::create(&temporary)?;
    file.write_all(&octets)?;
    file.sync_all()?;
    Ok(fs::rename(temporary, to.join("new").join(name))?)
}
