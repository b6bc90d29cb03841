//! A disk that others use, too: a process that writes and fsyncs all the time.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::Done;
use crate::options::Words;

/// Writing threads, octets of each write, and the pause after each fsync.
const THREADS: usize = 4;
const OCTETS: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(2);

/// In words, for the table.
pub(crate) const WHAT: &str = "four threads, each writing 1 MiB over and over into a file of 16 MiB of its own in the same file \
    system, an fsync after each, 2 ms apart";

/// The load, until it is dropped.
#[derive(Debug)]
pub(crate) struct Load(Child);

impl Load {
    pub(crate) fn start(directory: &Path) -> Done<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["load", &directory.display().to_string()])
            .stdin(Stdio::piped())
            .spawn()?;
        // Until its first files are there and the disk's queue is full.
        thread::sleep(Duration::from_millis(500));
        Ok(Self(child))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `connectord-compare load DIR`: until standard input ends.
pub(crate) fn main(words: &mut Words) -> Done<()> {
    let directory = words.required("a directory")?;
    for n in 0..THREADS {
        let path = Path::new(&directory).join(format!("load.{n}"));
        fs::create_dir_all(&directory)?;
        thread::spawn(move || {
            let work = || -> std::io::Result<()> {
                let mut file = File::create(&path)?;
                let octets = vec![b'x'; OCTETS];
                for round in 0_u64.. {
                    file.seek(std::io::SeekFrom::Start(round % 16 * OCTETS as u64))?;
                    file.write_all(&octets)?;
                    file.sync_all()?;
                    thread::sleep(PAUSE);
                }
                Ok(())
            };
            if let Err(error) = work() {
                eprintln!("the load on the disk stopped: {error}");
            }
        });
    }
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    Ok(())
}
