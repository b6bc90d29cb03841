/// What a filter says of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It looked, and this is what it found.
    Found(Finding),
    /// It did not look, or not to the end.
    Unchecked(Unchecked),
}

/// What a filter found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// What it recommends.
    pub action: Action,
    /// Its score, in thousandths of a point.
    pub milli_score: Option<i32>,
    /// The score from which on it takes a message for spam, in thousandths of a point.
    pub milli_required: Option<i32>,
    /// What its score is made of; at most 200 are shown.
    pub symbols: Vec<Symbol>,
    /// Names of the viruses found; not empty means infected, whatever the action is.
    pub viruses: Vec<String>,
    /// Header changes it asks for (Rspamd's milter headers, a command's output).
    pub headers: Vec<HeaderChange>,
    /// The subject it asks for with [`Action::RewriteSubject`]; without it the policy's prefix is used.
    pub subject: Option<String>,
    /// What it says to people, such as the text of a rejection; escaped.
    pub text: Option<String>,
    /// What a rule decides; heard only from filters of [`crate::Kind::Rules`].
    pub ruling: Option<Ruling>,
}

/// What a filter recommends, from the mildest to the hardest (Rspamd's own list).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Nothing.
    #[default]
    NoAction,
    /// Doubtful enough that a greylist would put it off. It is put off only when the filter says [`Action::SoftReject`]:
    /// Rspamd's greylist does when it wants so, and without one this action stands on every message of such a score.
    Greylist,
    /// Mark as spam.
    AddHeader,
    /// Mark as spam, in the subject too.
    RewriteSubject,
    /// Come back later: something is not decided, or too much came at once.
    SoftReject,
    /// Refuse.
    Reject,
}

impl Action {
    /// As Rspamd names it.
    ///
    /// ```
    /// use connectord_filter::Action;
    /// assert_eq!(Action::parse("add header"), Some(Action::AddHeader));
    /// assert_eq!(Action::AddHeader.name(), "add header");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::NoAction => "no action",
            Self::Greylist => "greylist",
            Self::AddHeader => "add header",
            Self::RewriteSubject => "rewrite subject",
            Self::SoftReject => "soft reject",
            Self::Reject => "reject",
        }
    }

    /// Reads what Rspamd names it, case and `_` aside.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim().replace('_', " ").to_ascii_lowercase();
        [Self::NoAction, Self::Greylist, Self::AddHeader, Self::RewriteSubject, Self::SoftReject, Self::Reject]
            .into_iter()
            .find(|action| action.name() == name)
    }
}

/// One reason of a score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// As the filter calls it.
    pub name: String,
    /// What it adds to the score, in thousandths of a point; 0 is not shown, as some filters do not tell.
    pub milli_score: i32,
}

/// A change of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderChange {
    /// A field in front; those of one filter stand in the order in which it asks for them.
    Add {
        /// Its name.
        name: String,
        /// Its value; control characters become spaces.
        value: String,
    },
    /// A field is taken out.
    Remove {
        /// Its name, case aside.
        name: String,
        /// Which one of that name: from 1 on from the top, from -1 on from the bottom; 0 is all of them.
        nth: i32,
    },
}

/// What a rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// The sender or recipient is on an allow list: no spam, whatever the antispam filters say. Viruses are viruses.
    Allow(String),
    /// Blocked; the text says by what.
    Block(String),
    /// Into a folder.
    Folder(String),
    /// Away, for the reason in the text.
    Discard(String),
    /// Into the inbox, whatever the antispam filters say.
    Keep,
}

/// Why a message was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Unchecked {
    /// The sort of trouble; decides between trying again and parking.
    pub why: Why,
    /// What happened, during what, and what the filter said; escaped.
    pub text: String,
}

impl Unchecked {
    /// A trouble of this sort.
    pub fn new(why: Why, text: impl Into<String>) -> Self {
        Self { why, text: text.into() }
    }
}

/// The sorts of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The filter cannot be reached, is starting, or says that it cannot work now: nothing is wrong with the message.
    Unavailable,
    /// It did not answer within the message's deadline: the filter may hang, on this message or on all.
    TimedOut,
    /// It answered what cannot be understood.
    Rubbish,
    /// It says itself that it failed at this message.
    Failed,
    /// It refuses this message, for good.
    Refused,
    /// The message is larger than it looks at.
    TooLarge,
    /// A person must act: a password is wrong, a program is missing.
    Misconfigured,
}

impl Why {
    /// Whether the same message may be looked at some other time.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Unavailable | Self::TimedOut | Self::Rubbish | Self::Failed | Self::Misconfigured)
    }

    /// Whether it may be this message that brings the trouble: then it is not tried for ever.
    pub fn may_be_the_message(self) -> bool {
        matches!(self, Self::TimedOut | Self::Rubbish | Self::Failed | Self::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_go_from_mild_to_hard_and_read_back() {
        let all = ["no action", "greylist", "add header", "rewrite subject", "soft reject", "reject"];
        let actions: Vec<_> = all.iter().map(|name| Action::parse(name).unwrap()).collect();
        assert!(actions.is_sorted());
        assert!(actions.iter().zip(all).all(|(action, name)| action.name() == name));
        assert_eq!(Action::parse("Soft_Reject"), Some(Action::SoftReject));
        assert_eq!(Action::parse("quarantine"), None);
    }
}
