use connectord_mail::UnixTime;

use super::row::{TrailId, TrailRow, TrailState};

/// Which messages of the trail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrailQuery {
    /// Occurs in sender, recipient, account, subject or Message-ID, case aside; empty for all. At most
    /// [`TrailQuery::MOST_TEXT`] octets of it are looked at.
    pub text: String,
    /// Only in this state.
    pub state: Option<TrailState>,
    /// Only those that were removed at the provider.
    pub removed: bool,
    /// Only those that somebody may have twice.
    pub maybe_twice: bool,
    /// Only of the account with this address.
    pub account: Option<String>,
    /// Only for this local user.
    pub user: Option<String>,
    /// Only those that were seen since then.
    pub since: Option<UnixTime>,
    /// Only those before this one, where the last page ended.
    pub before: Option<TrailId>,
    /// How many at most; 1 to [`TrailQuery::MOST`].
    pub limit: usize,
}

impl TrailQuery {
    /// Rows of one page at most.
    pub const MOST: usize = 1000;

    /// Octets of the text at most.
    pub const MOST_TEXT: usize = 200;

    /// The text as it is compared: in lower case, without blanks around it.
    pub fn folded(&self) -> String {
        let text = self.text.trim();
        text[..text.floor_char_boundary(Self::MOST_TEXT)].to_lowercase()
    }

    /// For back ends: whether a row is one of those, the place in the list aside; `folded` is [`TrailQuery::folded`].
    pub fn wants(&self, row: &TrailRow, folded: &str) -> bool {
        self.state.is_none_or(|state| row.state == state)
            && (!self.removed || row.removed_at.is_some())
            && (!self.maybe_twice || row.maybe_twice)
            && self.account.as_ref().is_none_or(|account| row.account == account.to_lowercase())
            && self.user.as_ref().is_none_or(|user| row.about.users.iter().any(|known| known == user))
            && self.since.is_none_or(|since| row.about.seen_at >= since)
            && (folded.is_empty() || row.mentions(folded))
    }
}

/// A page of the trail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrailPage {
    /// The messages, newest first.
    pub rows: Vec<TrailRow>,
    /// Give it back as [`TrailQuery::before`] for what follows; absent at the end.
    pub next: Option<TrailId>,
    /// How many match, those of other pages included; counted up to [`TrailPage::COUNTED`].
    pub total: u64,
}

impl TrailPage {
    /// A total of this many means: so many or more.
    pub const COUNTED: u64 = 1000;
}

/// Whose figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of<'a> {
    /// All.
    All,
    /// Those of the account with this address.
    Account(&'a str),
    /// Those delivered to this local user; nothing but deliveries is counted by user.
    User(&'a str),
}

/// By what deliveries are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TallyBy {
    /// By address of the account.
    Account,
    /// By local user.
    User,
}

/// What came in one hour. A message counts in the hour in which it got there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HourRow {
    /// When it began.
    pub at: UnixTime,
    /// Delivered, but for spam.
    pub delivered: u64,
    /// Delivered as spam.
    pub spam: u64,
    /// Kept back.
    pub quarantined: u64,
    /// Octets of what was delivered.
    pub octets: u64,
    /// Whether the daemon did not run in this hour, though it had before.
    pub down: bool,
}

impl HourRow {
    /// Seconds of one.
    pub const SECONDS: i64 = 3600;

    /// Hours of one answer at most: 31 days and one.
    pub const MOST: usize = 31 * 24 + 1;

    /// When the hour began that a moment is in.
    pub fn of(moment: UnixTime) -> UnixTime {
        UnixTime(moment.0.saturating_sub(moment.0.rem_euclid(Self::SECONDS)))
    }

    /// For back ends: an empty row for each hour of an answer.
    pub fn empty(from: UnixTime, until: UnixTime) -> Vec<Self> {
        let (from, until) = (Self::of(from).0, Self::of(until).0);
        let oldest = until.saturating_sub((Self::MOST as i64 - 1) * Self::SECONDS);
        let hours = (from.max(oldest)..=until).step_by(Self::SECONDS as usize);
        hours.map(|at| Self { at: UnixTime(at), ..Self::default() }).collect()
    }
}
