//! Listings about which nothing was to be done: while they repeat themselves, what is known need not be read.

use std::time::Duration;

use connectord_account::{Retention, Rules};
use connectord_mail::UnixTime;
use connectord_store::{MailboxRow, Quiet};

/// A listing is compared with what is known at least so often.
const AT_LEAST: Duration = Duration::from_secs(86_400);

/// The last listing, when nothing can be due about it by now.
pub(crate) fn still_quiet(mailbox: &MailboxRow, rules: &Rules, now: UnixTime) -> Option<Quiet> {
    let dealt_with = mailbox.first_listed.is_some() && mailbox.absence.is_none();
    // What is farther ahead than it ever was has outlived a clock that ran back.
    let in_time = |until: UnixTime| now < until && until <= now.plus(AT_LEAST);
    let holds = |quiet: &Quiet| quiet.rules == tag(rules) && quiet.until.is_some_and(in_time);
    mailbox.quiet.filter(holds).filter(|_| dealt_with)
}

/// Remembers a listing about which nothing is to be done, and nothing will be before `until`.
pub(crate) fn quiet(messages: u32, digest: [u8; 16], until: Option<UnixTime>, rules: &Rules, now: UnixTime) -> Quiet {
    let looked_at = now.plus(AT_LEAST);
    let until = until.map_or(looked_at, |until| until.min(looked_at));
    Quiet { messages, digest, until: Some(until), rules: tag(rules) }
}

/// Names what decides when known messages are due.
fn tag(rules: &Rules) -> u64 {
    match rules.retention {
        Retention::Never => 0,
        Retention::Immediately => 1,
        Retention::AfterDelivery(span) => 2 | span.as_secs() << 2,
        Retention::ByAge(span) => 3 | span.as_secs() << 2,
    }
}

#[cfg(test)]
mod tests {
    use connectord_store::{Absence, AccountId, MailboxId};

    use super::*;

    #[test]
    fn a_quiet_listing_counts_until_something_is_due_and_by_the_same_rules_only() {
        let (now, rules) = (UnixTime(1_000_000), Rules::default());
        let row = |quiet| MailboxRow {
            id: MailboxId(1),
            account: AccountId(1),
            name: String::new(),
            uid_validity: 0,
            uid_next: 0,
            first_listed: Some(now),
            last_listed: Some(now),
            absence: None,
            continues: None,
            keys_recur: false,
            quiet: Some(quiet),
        };
        let soon = row(quiet(1, [0; 16], Some(UnixTime(now.0 + 10)), &rules, now));
        assert!(still_quiet(&soon, &rules, UnixTime(now.0 + 9)).is_some());
        assert!(still_quiet(&soon, &rules, UnixTime(now.0 + 10)).is_none());
        let day = row(quiet(1, [0; 16], None, &rules, now));
        assert!(still_quiet(&day, &rules, UnixTime(now.0 + 86_399)).is_some());
        assert!(still_quiet(&day, &rules, UnixTime(now.0 + 86_400)).is_none());
        assert!(still_quiet(&day, &rules, UnixTime(now.0 - 1)).is_none(), "the clock ran back");
        for retention in [
            Retention::Immediately,
            Retention::AfterDelivery(Duration::from_secs(7)),
            Retention::ByAge(Duration::from_secs(7)),
        ] {
            let others = Rules { retention, ..rules };
            assert!(still_quiet(&day, &others, now).is_none(), "{retention:?}");
            let theirs = row(quiet(1, [0; 16], None, &others, now));
            assert!(still_quiet(&theirs, &others, now).is_some() && still_quiet(&theirs, &rules, now).is_none());
        }
        assert!(still_quiet(&MailboxRow { first_listed: None, ..day.clone() }, &rules, now).is_none());
        let absence = Some(Absence { times: 1, since: now });
        assert!(still_quiet(&MailboxRow { absence, ..day }, &rules, now).is_none());
    }
}
