//! Datagrams to the system's syslog, as syslog(3) sends them.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::record::Record;
use super::text::{body_with_severity, cut, severity};
use super::writer::{Refused, Sink};

/// The local socket.
pub(crate) const SOCKET: &str = "/dev/log";

/// Longest line, in octets: rsyslog cuts there too.
const MAX_LINE: usize = 8 * 1024;

/// Facility mail: its lines land in mail.log or maillog.
const MAIL: u8 = 2 << 3;

/// RFC 3164 over a local socket: no host name, local time.
pub(crate) struct Syslog {
    socket: Datagrams,
    zone: Option<TimeZone>,
    pid: u32,
    max: usize,
}

impl Syslog {
    pub(crate) fn new(path: impl AsRef<Path>) -> Self {
        Self { socket: Datagrams::new(path.as_ref()), zone: None, pid: std::process::id(), max: MAX_LINE }
    }
}

impl Sink for Syslog {
    fn encode(&self, record: &Record) -> Vec<u8> {
        // Asked for with each line: a machine may move, or its summer end.
        let zone = self.zone.clone().unwrap_or_else(TimeZone::system);
        let at = Timestamp::try_from(record.at).unwrap_or_default().to_zoned(zone);
        let priority = MAIL | severity(record.level);
        let line = format!(
            "<{priority}>{} connectord[{}]: {}",
            at.strftime("%b %e %H:%M:%S"),
            self.pid,
            body_with_severity(record)
        );
        cut(line, self.max).into_bytes()
    }

    fn send(&mut self, octets: &[u8]) -> Result<usize, Refused> {
        self.socket.send(octets, &mut self.max)
    }
}

/// A datagram socket that is connected again whenever its other end has gone and come back.
pub(crate) struct Datagrams {
    path: PathBuf,
    socket: Option<std::os::unix::net::UnixDatagram>,
}

impl Datagrams {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), socket: None }
    }

    /// Sends one datagram and never blocks. When it is too long for the socket, `max` becomes smaller.
    pub(crate) fn send(&mut self, octets: &[u8], max: &mut usize) -> Result<usize, Refused> {
        let fresh = self.socket.is_none();
        match self.send_once(octets) {
            Ok(()) => Ok(octets.len()),
            Err(error) if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::MSGSIZE) => {
                if *max <= 512 {
                    return Err(Refused::Later);
                }
                *max = (*max).min(octets.len()) / 2;
                Err(Refused::TooLong)
            }
            // Full: the same socket will have room.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(error.into()),
            // Restarted: the old socket leads nowhere (ECONNREFUSED, ENOTCONN, ECONNRESET), the new one may be there.
            Err(error) => {
                self.socket = None;
                if fresh {
                    return Err(error.into());
                }
                self.send(octets, max)
            }
        }
    }

    fn send_once(&mut self, octets: &[u8]) -> std::io::Result<()> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => {
                let socket = std::os::unix::net::UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(&self.path)?;
                self.socket.insert(socket)
            }
        };
        socket.send(octets).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use jiff::tz::offset;
    use tracing::Level;

    use super::*;

    #[test]
    fn a_line_reads_as_an_administrator_expects() {
        let zone = Some(TimeZone::fixed(offset(1)));
        let syslog = Syslog { zone, pid: 123, ..Syslog::new("/nowhere") };
        let record = Record {
            at: UNIX_EPOCH + Duration::from_secs(1_796_153_460),
            level: Level::INFO,
            target: "connectord::mail",
            message: "delivery".into(),
            fields: vec![
                ("account", "a@example.org".into()),
                ("message_id", "<1@x.test>".into()),
                ("size", "1240".into()),
                ("from", String::new()),
                ("to", "anna".into()),
                ("relay", "maildir /var/vmail".into()),
                ("dsn", "2.0.0".into()),
                ("status", "delivered".into()),
            ],
        };
        let line = String::from_utf8(syslog.encode(&record)).unwrap();
        assert_eq!(
            line,
            "<22>Dec  1 20:31:00 connectord[123]: delivery account=a@example.org message_id=<1@x.test> size=1240 from=<> \
             to=<anna> relay=\"maildir /var/vmail\" dsn=2.0.0 status=delivered"
        );
        let warning = Record { level: Level::WARN, fields: Vec::new(), ..record };
        let line = String::from_utf8(syslog.encode(&warning)).unwrap();
        assert_eq!(line, "<20>Dec  1 20:31:00 connectord[123]: warning: delivery");
    }

    #[test]
    fn a_line_is_cut_at_8_kib() {
        let record = Record { message: "ü".repeat(9000), ..Record::new(Level::INFO, "connectord") };
        let line = Syslog::new("/nowhere").encode(&record);
        assert!(line.len() <= 8192 && line.len() > 8180);
        assert!(line.ends_with("ü…".as_bytes()));
    }
}
