//! The log lines that administrators and their tools read: one per message and recipient, one per run. Field names are
//! an interface.

use connectord_delivery::Recipient;
use connectord_store::ParkedRow;
use connectord_wire::Escaped;
use tracing::info;

use crate::Report;

/// Target of the lines that belong into the mail log.
const TARGET: &str = "connectord::mail";

/// What became of one message for one recipient.
pub(crate) struct MessageLine<'a> {
    pub(crate) account: &'a str,
    pub(crate) server: &'a str,
    pub(crate) mailbox: &'a str,
    /// Unique-id or UID as the server writes it.
    pub(crate) on_server: &'a str,
    pub(crate) message_id: &'a str,
    pub(crate) size: u64,
    pub(crate) from: &'a str,
    pub(crate) to: &'a Recipient,
    pub(crate) relay: &'a str,
    pub(crate) id: String,
    pub(crate) dsn: String,
    pub(crate) status: &'static str,
    /// 1 for the first; more when an earlier one may have arrived.
    pub(crate) attempt: u32,
    pub(crate) delay_ms: u64,
    pub(crate) detail: &'a str,
    /// What filters made of it; empty when nothing is to be said.
    pub(crate) verdict: &'a str,
}

impl MessageLine<'_> {
    pub(crate) fn write(&self) {
        let Self { account, server, id, dsn, status, attempt, delay_ms, size, relay, .. } = self;
        let verdict = (!self.verdict.is_empty()).then(|| tracing::field::display(Escaped::text(self.verdict)));
        info!(
            target: TARGET,
            account, server, mailbox = %Escaped::text(self.mailbox), uid = %self.on_server,
            message_id = %self.message_id, spool_id = %id, size, from = %Escaped::text(self.from),
            to = %Escaped::text(&self.to.user), relay, dsn = %dsn, status, attempt, delay_ms, verdict,
            detail = %Escaped::text(self.detail), "delivery"
        );
    }
}

/// A message was removed from the server because a person said so, though not everybody had it.
pub(crate) fn discarded(account: &str, server: &str, row: &ParkedRow) {
    info!(
        target: TARGET,
        account, server, mailbox = %Escaped::text(&row.mailbox), uid = %row.name.on_server,
        message_id = %row.name.message_id, size = row.size_octets, from = %row.name.from, status = "discarded",
        detail = %Escaped::text(&row.reason), "removed at a person's word"
    );
}

/// How one check of one account went.
pub(crate) fn run(account: &str, server: &str, report: &Report) {
    let Report { listed, retrieved, delivered, deferred, parked, removed, repeated, duration, .. } = report;
    let Report { quarantined, discarded, unchecked, spam, .. } = report;
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let error = report.error.as_ref().map(ToString::to_string).unwrap_or_default();
    let status = if report.error.is_some() { "failed" } else { "done" };
    info!(
        target: TARGET,
        account, server, listed, retrieved, delivered, deferred, parked, removed, repeated, quarantined, discarded,
        unchecked, spam, duration_ms, status, error = %error, "run"
    );
}
