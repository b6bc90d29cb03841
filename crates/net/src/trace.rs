//! What goes over the wire, for whoever switched one of the three targets on.

use std::fmt;

use connectord_wire::Escaped;
use tracing::trace;

/// Pieces up to this many octets are shown whole among the protocol's lines; longer ones are mail.
const LINES: usize = 1024;

#[derive(Clone, Copy)]
pub(crate) enum Way {
    Sent,
    Received,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sent => "sent",
            Self::Received => "received",
        })
    }
}

/// `connectord::wire` gets every piece, long ones cut; `…::auth` that there was a login; `…::data` long ones whole.
pub(crate) fn octets(way: Way, peer: &str, octets: &[u8], confidential: bool) {
    if confidential {
        trace!(target: "connectord::wire::auth", peer, %way, octets = "***", "wire");
        return;
    }
    let shown = octets.len().min(LINES);
    trace!(target: "connectord::wire", peer, %way, length = octets.len(), octets = %Escaped(&octets[..shown]), "wire");
    if octets.len() > LINES && tracing::enabled!(target: "connectord::wire::data", tracing::Level::TRACE) {
        for piece in octets.chunks(LINES) {
            trace!(target: "connectord::wire::data", peer, %way, octets = %Escaped(piece), "wire");
        }
    }
}
