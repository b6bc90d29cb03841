//! What a refusal by an LMTP or SMTP server means for the mail.

use connectord_delivery::{Failure, FailureKind};
use connectord_lmtp::Reply;
use connectord_mail::Status;

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Sender,
    Recipient,
    Data,
    Message,
}

impl Stage {
    fn during(self) -> &'static str {
        match self {
            Self::Sender => "MAIL FROM",
            Self::Recipient => "RCPT TO",
            Self::Data => "DATA",
            Self::Message => "the message",
        }
    }
}

/// The failure for a refusal, with the server's words.
pub(crate) fn refusal(stage: Stage, server: &str, reply: &Reply) -> Failure {
    let text = format!("{server} answered \"{reply}\" (during {})", stage.during());
    Failure::new(classify(stage, reply.code, reply.status), text).with_status(reply.status)
}

/// The server, the error and all its causes, on one line.
pub(crate) fn with_causes(server: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{server}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// By the enhanced status code where there is one (RFC 3463 §3), else by the code and what it answers.
fn classify(stage: Stage, code: u16, status: Option<Status>) -> FailureKind {
    let transient = code < 500;
    let condition = status.map(|status| (status.subject, status.detail));
    match condition {
        _ if code == 421 => FailureKind::Unavailable,
        // Mailbox full.
        Some((2, 2)) => FailureKind::OverQuota,
        // Mail system full: nobody's mail gets in.
        Some((3, 1)) if transient => FailureKind::DiskFull,
        // Bad destination mailbox, system, syntax; mailbox has moved.
        Some((1, 0..=3 | 6)) if !transient && stage != Stage::Sender => FailureKind::NoUser,
        // RFC 5321 §4.2.2: 550 no such mailbox, 551 not local, 452 and 552 out of storage; of a sender 552 says that
        // the message is too large (RFC 1870 §6.1).
        None | Some((0, 0)) => match (stage, code) {
            (Stage::Recipient, 550 | 551) => FailureKind::NoUser,
            (Stage::Recipient | Stage::Message, 452 | 552) => FailureKind::OverQuota,
            _ => by_severity(transient),
        },
        Some(_) => by_severity(transient),
    }
}

fn by_severity(transient: bool) -> FailureKind {
    if transient { FailureKind::Transient } else { FailureKind::Permanent }
}

/// Whether a refused sender is refused for its address, so that the null reverse-path may pass: better a message without
/// a sender's address than no message.
pub(crate) fn is_about_the_senders_address(reply: &Reply) -> bool {
    match reply.status.map(|status| (status.subject, status.detail)) {
        Some((1, 7 | 8) | (5, 4) | (6, 7)) => true,
        None | Some((0, 0)) => matches!(reply.code, 501 | 553 | 555),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sort_of_refusal_has_its_kind() {
        use FailureKind::*;
        use Stage::*;
        for (stage, line, kind) in [
            (Recipient, "550 5.1.1 unknown", NoUser),
            (Recipient, "550 unknown", NoUser),
            (Recipient, "551 not local", NoUser),
            (Recipient, "550 5.7.1 policy", Permanent),
            (Recipient, "553 odd name", Permanent),
            (Recipient, "452 4.2.2 full", OverQuota),
            (Recipient, "452 full", OverQuota),
            (Recipient, "452 4.5.3 too many recipients", Transient),
            (Recipient, "452 4.3.1 disk", DiskFull),
            (Recipient, "552 5.2.2 full", OverQuota),
            (Recipient, "450 4.2.0 busy", Transient),
            (Recipient, "451 4.1.1 directory down", Transient),
            (Recipient, "421 4.3.2 closing", Unavailable),
            (Sender, "552 too large", Permanent),
            (Sender, "552 5.3.4 too large", Permanent),
            (Sender, "550 5.1.1 bad sender", Permanent),
            (Sender, "451 4.3.0 later", Transient),
            (Data, "451 later", Transient),
            (Data, "554 no", Permanent),
            (Message, "452 4.2.2 quota", OverQuota),
            (Message, "552 5.2.2 quota", OverQuota),
            (Message, "552 quota", OverQuota),
            (Message, "550 5.1.1 gone", NoUser),
            (Message, "550 refused", Permanent),
            (Message, "554 5.6.0 bad message", Permanent),
            (Message, "451 4.2.0 later", Transient),
        ] {
            let limits = connectord_lmtp::parse::Limits { line_octets: 99, lines: 1 };
            let (reply, _) = connectord_lmtp::parse::reply(format!("{line}\n").as_bytes(), limits).unwrap();
            assert_eq!(refusal(stage, "x", &reply).kind, kind, "{stage:?} {line}");
        }
    }
}
