use connectord_mail::UnixTime;

use super::step::{About, MAX_STEPS, TrailEntry, TrailName, TrailStep, What};

/// Names a message of the trail. Rises with each message that is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrailId(pub i64);

/// What became of a message. Of what happened to it for several recipients in one attempt, the later of these counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrailState {
    /// Retrieved.
    #[default]
    Retrieved = 0,
    /// Looked at by filters.
    Filtered = 1,
    /// Delivered.
    Delivered = 2,
    /// Delivered as spam.
    Spam = 3,
    /// Discarded.
    Discarded = 4,
    /// In the quarantine.
    Quarantined = 5,
    /// There, to be tried again.
    Waiting = 6,
    /// Left there for good.
    Skipped = 7,
    /// Waits for a person.
    Parked = 8,
}

impl TrailState {
    /// Every one, in order; each stands at the place of its number.
    pub const ALL: [Self; 9] = [
        Self::Retrieved,
        Self::Filtered,
        Self::Delivered,
        Self::Spam,
        Self::Discarded,
        Self::Quarantined,
        Self::Waiting,
        Self::Skipped,
        Self::Parked,
    ];

    /// For back ends: the one with this number, which never changes.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// One message of the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailRow {
    /// Its number in the trail.
    pub id: TrailId,
    /// When something last happened to it.
    pub at: UnixTime,
    /// What became of it.
    pub state: TrailState,
    /// When it was removed at the provider.
    pub removed_at: Option<UnixTime>,
    /// Whether somebody may have it twice.
    pub maybe_twice: bool,
    /// Whether it was taken for spam.
    pub is_spam: bool,
    /// Address of its account.
    pub account: String,
    /// Its mailbox; empty for POP3.
    pub mailbox: String,
    /// What it is recognised by.
    pub about: About,
    /// The antispam filter's score, in thousandths.
    pub milli_score: Option<i32>,
    /// From which score on it is spam, in thousandths.
    pub milli_limit: Option<i32>,
}

/// What an entry adds to the figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Delivered, but for spam.
    pub delivered: u64,
    /// Delivered as spam.
    pub spam: u64,
    /// Kept back.
    pub quarantined: u64,
}

impl TrailRow {
    /// For back ends: the row of a message of which this is the first entry; `None` when it does not say all that is
    /// needed.
    pub fn begin(id: TrailId, entry: &TrailEntry) -> Option<Self> {
        let (TrailName::Key(key), Some(about)) = (&entry.name, &entry.about) else { return None };
        let about = about.as_ref().clone().bounded();
        Some(Self {
            id,
            at: entry.at,
            state: TrailState::Retrieved,
            removed_at: None,
            maybe_twice: false,
            is_spam: false,
            account: key.account.to_string(),
            mailbox: key.mailbox.to_string(),
            about,
            milli_score: None,
            milli_limit: None,
        })
    }

    /// For back ends: takes an entry in; its steps are added to `steps`.
    pub fn take(&mut self, entry: &TrailEntry, steps: &mut Vec<TrailStep>) -> Counted {
        let before = self.state;
        self.at = entry.at;
        if let Some(about) = &entry.about {
            // What it is recognised by stays as it was first told, so that nobody has to look for it anew.
            let About { users, octets, .. } = about.as_ref().clone().bounded();
            (self.about.users, self.about.octets) = (users, octets);
        }
        for step in &entry.steps {
            let step = TrailStep { at: entry.at, ..step.clone() }.bounded();
            self.follow(&step);
            if steps.len() >= MAX_STEPS {
                steps.remove(MAX_STEPS / 2);
            }
            steps.push(step);
        }
        let mut counted = Counted::default();
        if before != self.state {
            match self.state {
                TrailState::Delivered => counted.delivered = 1,
                TrailState::Spam => counted.spam = 1,
                TrailState::Quarantined => counted.quarantined = 1,
                _ => {}
            }
        }
        counted
    }

    fn follow(&mut self, step: &TrailStep) {
        let delivered = if self.is_spam { TrailState::Spam } else { TrailState::Delivered };
        let at_least = |state: TrailState| self.state.max(state);
        self.state = match step.what {
            What::Retrieved => {
                (self.is_spam, self.milli_score, self.milli_limit) = (false, None, None);
                TrailState::Retrieved
            }
            What::Filter => {
                if step.milli_score.is_some() {
                    (self.milli_score, self.milli_limit) = (step.milli_score, step.milli_limit);
                }
                at_least(TrailState::Filtered)
            }
            What::Spam => {
                self.is_spam = true;
                at_least(TrailState::Filtered)
            }
            What::Delivered => at_least(delivered),
            What::Deferred => at_least(TrailState::Waiting),
            What::Parked => at_least(TrailState::Parked),
            What::Quarantined => at_least(TrailState::Quarantined),
            // A person's word, or what follows from it, is about the message as a whole.
            What::Discarded => TrailState::Discarded,
            What::Skipped => TrailState::Skipped,
            What::Released => delivered,
            What::Retried => TrailState::Waiting,
            What::Removed => {
                self.removed_at = Some(step.at);
                self.state
            }
            What::Repeated => {
                self.maybe_twice = true;
                self.state
            }
            What::Seen | What::Relay | What::Notice => self.state,
        };
    }

    /// Whether a text occurs in sender, recipient, account, subject or Message-ID; `folded` is in lower case.
    pub fn mentions(&self, folded: &str) -> bool {
        let About { subject, from, message_id, users, .. } = &self.about;
        // Most texts are ASCII, and lists look through very many of them.
        let holds = |text: &str| match (text.is_ascii(), folded.is_ascii()) {
            (true, true) if !folded.is_empty() => {
                text.as_bytes().windows(folded.len()).any(|part| part.eq_ignore_ascii_case(folded.as_bytes()))
            }
            (true, false) => false,
            _ => text.to_lowercase().contains(folded),
        };
        holds(subject)
            || holds(from)
            || holds(message_id)
            || holds(&self.account)
            || users.iter().any(|user| holds(user))
    }
}
