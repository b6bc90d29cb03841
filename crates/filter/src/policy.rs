use std::time::Duration;

use crate::edit::points;
use crate::{Action, Answer, Edits, Finding, Kind, Ruling, Unchecked, Verdict};

/// What a site or an account wants done about what filters find.
///
/// The defaults lose nothing: spam is marked, what a filter would refuse and what is infected is quarantined, and a
/// message that a filter could not look at stays on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether antispam filters are asked; default true.
    pub antispam: bool,
    /// Whether antivirus filters are asked; default true.
    pub antivirus: bool,
    /// What becomes of spam; default [`OnSpam::Mark`].
    pub on_spam: OnSpam,
    /// What becomes of what a filter would refuse, or a rule blocks; default [`OnSpam::Quarantine`].
    pub on_reject: OnSpam,
    /// What becomes of a virus; default [`OnVirus::Quarantine`].
    pub on_virus: OnVirus,
    /// What becomes of a message that a filter did not look at; default [`OnFailure::Keep`].
    pub on_failure: OnFailure,
    /// What becomes of a message that is too large for a filter; default [`OnTooLarge::Deliver`].
    pub on_too_large: OnTooLarge,
    /// Own thresholds in place of the filters' recommendations; default none.
    pub thresholds: Thresholds,
    /// Put in front of the subject of spam; default none.
    pub subject_prefix: Option<String>,
    /// Whether soft rejects of filters are heeded; default true.
    pub postpone: bool,
    /// How often a message is put off by soft reject; default 3.
    pub postponements: u32,
    /// For how long each time; default 10 minutes, at least what the filter's greylist lasts (Rspamd: 5 minutes).
    pub postpone_for: Duration,
    /// What follows when it has been put off that often; default [`Exhausted::Deliver`].
    pub exhausted: Exhausted,
    /// How often a message is tried that may itself be what a filter fails at; then it is parked. Default 10.
    pub attempts: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            antispam: true,
            antivirus: true,
            on_spam: OnSpam::Mark,
            on_reject: OnSpam::Quarantine,
            on_virus: OnVirus::Quarantine,
            on_failure: OnFailure::Keep,
            on_too_large: OnTooLarge::Deliver,
            thresholds: Thresholds::default(),
            subject_prefix: None,
            postpone: true,
            postponements: 3,
            postpone_for: Duration::from_secs(600),
            exhausted: Exhausted::Deliver,
            attempts: 10,
        }
    }
}

/// What becomes of spam.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnSpam {
    /// Delivered with `X-Spam: Yes` and the subject prefix.
    Mark,
    /// The same, into a folder: `Junk` is the Maildir++ folder `.Junk`; elsewhere a header names it for Sieve.
    Folder(String),
    /// Kept back until somebody releases it.
    Quarantine,
    /// Away; only where somebody wrote so.
    Discard,
}

/// What becomes of a virus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnVirus {
    /// Kept back until somebody releases it.
    Quarantine,
    /// Kept back, and a notice is delivered in its place.
    Notice,
    /// Away; only where somebody wrote so.
    Discard,
}

/// What becomes of a message that a filter did not look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It stays on the server and is tried again, with back-off.
    Keep,
    /// It is delivered, marked as unchecked.
    Deliver,
}

/// What becomes of a message that is too large for a filter: it will not shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTooLarge {
    /// Delivered, marked as unchecked.
    Deliver,
    /// Kept back.
    Quarantine,
}

/// What follows when a message was put off as often as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// It is delivered, marked as spam would be.
    Deliver,
    /// It waits for a person.
    Park,
}

/// Thresholds on the highest score of an antispam filter, in thousandths of a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// From here on it is spam.
    pub mark_at: Option<i32>,
    /// From here on it is as if refused.
    pub reject_at: Option<i32>,
}

/// What has happened to a message before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How often it was put off by soft reject.
    pub postponed: u32,
    /// How often a filter failed at it.
    pub failed: u32,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Delivered, into a folder below the inbox or the inbox itself.
    Deliver {
        /// The folder.
        folder: Option<String>,
    },
    /// Kept back. It counts as delivered for the remote copy when it is durable there, and not before.
    Quarantine,
    /// Kept back, and a notice is delivered in its place.
    Notice,
    /// Away: settled as delivered, and logged.
    Discard,
    /// It stays on the server: the same again later.
    Later {
        /// Not before this much time; the engine's back-off where it is none.
        wait: Option<Duration>,
        /// Whether it counts as [`History::postponed`]; else as [`History::failed`].
        postponed: bool,
    },
    /// It waits for a person.
    Park,
}

/// What was decided, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub disposition: Disposition,
    /// The reason, for the log, the quarantine and the parked list; empty when nothing is to be said.
    pub reason: String,
    /// Whether it counts as spam.
    pub spam: bool,
    /// The viruses found.
    pub viruses: Vec<String>,
    /// How the header is changed if it is delivered, now or on release.
    pub edits: Edits,
}

impl Policy {
    /// Whether filters of this kind are asked.
    pub fn wants(&self, kind: Kind) -> bool {
        match kind {
            Kind::Antispam => self.antispam,
            Kind::Antivirus => self.antivirus,
            Kind::Both => self.antispam || self.antivirus,
            Kind::Rules => true,
        }
    }

    /// Decides what becomes of a message, from what each filter said. The order of the answers plays no part, but for
    /// the first ruling of a rule that decides.
    ///
    /// 1. A virus is a virus, whatever else was said.
    /// 2. A rule that discards or blocks, as that needs nobody else, unless what is blocked would be delivered (marked, or
    ///    into a folder) and a filter could not look.
    /// 3. A filter that could not look: the message stays, or is marked as unchecked.
    /// 4. Spam, unless a rule allows or keeps.
    /// 5. Soft reject, a few times. A greylist that wants so says soft reject, see [`Action::Greylist`].
    /// 6. Delivered, where the rules say.
    pub fn decide(&self, answers: &[Answer], history: History) -> Decision {
        let heard = Heard::of(self, answers);
        let mut edits = Edits::for_answers(self, answers);
        let decision = |disposition: Disposition, reason: String, spam, mut edits: Edits| {
            if let Disposition::Deliver { folder: Some(folder) } = &disposition {
                // For destinations that file by Sieve.
                edits.add.push(("X-Connectord-Folder".to_owned(), folder.clone()));
            }
            Decision { disposition, reason, spam, viruses: heard.viruses.clone(), edits }
        };

        if !heard.viruses.is_empty() {
            let disposition = match self.on_virus {
                OnVirus::Quarantine => Disposition::Quarantine,
                OnVirus::Notice => Disposition::Notice,
                OnVirus::Discard => Disposition::Discard,
            };
            return decision(disposition, format!("virus found: {}", heard.viruses.join(", ")), false, edits);
        }
        match heard.ruling {
            Some(Ruling::Discard(reason)) => return decision(Disposition::Discard, reason.clone(), false, edits),
            // What is delivered all the same must have been looked at: a filter that could not is heard first.
            Some(Ruling::Block(reason)) => {
                let disposition = self.spam_goes(&self.on_reject);
                let is_unchecked = heard.failed.is_some() && self.on_failure == OnFailure::Keep;
                if !(is_unchecked && matches!(disposition, Disposition::Deliver { .. })) {
                    edits.mark_spam(self);
                    return decision(disposition, format!("blocked: {reason}"), true, edits);
                }
            }
            _ => {}
        }
        if let Some((filter, trouble)) = heard.too_large
            && self.on_too_large == OnTooLarge::Quarantine
        {
            return decision(Disposition::Quarantine, format!("not checked by {filter}: {trouble}"), false, edits);
        }
        if let Some((filter, trouble)) = heard.failed
            && self.on_failure == OnFailure::Keep
        {
            let reason = format!("not checked by {filter}: {trouble}");
            if trouble.why.may_be_the_message() && history.failed.saturating_add(1) >= self.attempts {
                return decision(Disposition::Park, reason, false, edits);
            }
            return decision(Disposition::Later { wait: None, postponed: false }, reason, false, edits);
        }

        let spared = matches!(heard.ruling, Some(Ruling::Allow(_) | Ruling::Keep));
        let (action, why) = if spared { (Action::NoAction, String::new()) } else { heard.worst(self) };
        let folder = match heard.ruling {
            Some(Ruling::Folder(folder)) => Some(folder.clone()),
            _ => None,
        };
        match action {
            Action::Reject => {
                edits.mark_spam(self);
                decision(self.spam_goes(&self.on_reject), format!("refused by {why}"), true, edits)
            }
            Action::AddHeader | Action::RewriteSubject => {
                edits.mark_spam(self);
                edits.subject = heard.subject.filter(|_| action == Action::RewriteSubject);
                decision(self.spam_goes(&self.on_spam), format!("spam for {why}"), true, edits)
            }
            Action::SoftReject if self.postpone && history.postponed < self.postponements => {
                let later = Disposition::Later { wait: Some(self.postpone_for), postponed: true };
                decision(later, format!("put off by {why}"), false, edits)
            }
            Action::SoftReject if self.postpone && self.exhausted == Exhausted::Park => {
                decision(Disposition::Park, format!("put off {} times by {why}", history.postponed), false, edits)
            }
            // A soft reject that stays is no greylist, which lets pass who comes back: it is a suspicion.
            Action::SoftReject if self.postpone => {
                edits.mark_spam(self);
                let reason = format!("put off {} times by {why}", history.postponed);
                decision(Disposition::Deliver { folder }, reason, true, edits)
            }
            Action::Greylist | Action::SoftReject | Action::NoAction => {
                decision(Disposition::Deliver { folder }, String::new(), false, edits)
            }
        }
    }

    fn spam_goes(&self, on_spam: &OnSpam) -> Disposition {
        match on_spam {
            OnSpam::Mark => Disposition::Deliver { folder: None },
            OnSpam::Folder(folder) => Disposition::Deliver { folder: Some(folder.clone()) },
            OnSpam::Quarantine => Disposition::Quarantine,
            OnSpam::Discard => Disposition::Discard,
        }
    }
}

/// What all answers say together.
#[derive(Default)]
struct Heard<'a> {
    viruses: Vec<String>,
    ruling: Option<&'a Ruling>,
    failed: Option<(&'a str, &'a Unchecked)>,
    too_large: Option<(&'a str, &'a Unchecked)>,
    findings: Vec<(&'a Answer, &'a Finding)>,
    subject: Option<String>,
}

impl<'a> Heard<'a> {
    fn of(policy: &Policy, answers: &'a [Answer]) -> Self {
        let mut heard = Self::default();
        for answer in answers.iter().filter(|answer| policy.wants(answer.kind)) {
            match &answer.verdict {
                Verdict::Found(finding) => {
                    for virus in &finding.viruses {
                        let virus: String = virus.chars().filter(|c| !c.is_control()).take(120).collect();
                        if !heard.viruses.contains(&virus) && heard.viruses.len() < 20 {
                            heard.viruses.push(virus);
                        }
                    }
                    if answer.kind == Kind::Rules {
                        heard.ruling = heard.ruling.or(finding.ruling.as_ref());
                    }
                    heard.subject = heard.subject.take().or_else(|| finding.subject.clone());
                    heard.findings.push((answer, finding));
                }
                Verdict::Unchecked(trouble) if trouble.why == crate::Why::TooLarge => {
                    heard.too_large = heard.too_large.or(Some((&answer.filter, trouble)));
                }
                // What may be the message's own fault is told first, as it is bounded.
                Verdict::Unchecked(trouble) => {
                    let graver = heard
                        .failed
                        .is_none_or(|(_, known)| !known.why.may_be_the_message() && trouble.why.may_be_the_message());
                    if graver {
                        heard.failed = Some((&answer.filter, trouble));
                    }
                }
            }
        }
        heard
    }

    /// The hardest action, and who recommends it with which score.
    fn worst(&self, policy: &Policy) -> (Action, String) {
        let mut worst = (Action::NoAction, String::new());
        for (answer, finding) in &self.findings {
            // A filter for both goes on looking for viruses where nobody wants to hear of spam.
            if answer.kind == Kind::Both && !policy.antispam {
                continue;
            }
            let action = by_score(policy.thresholds, answer.kind, finding);
            if action > worst.0 {
                let score = finding.milli_score.map(|score| format!(" with {}", points(score))).unwrap_or_default();
                let text = finding.text.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
                worst = (action, format!("{}{score}{text}", answer.filter));
            }
        }
        worst
    }
}

/// An antispam filter's action, or what the site's own thresholds make of its score. A threshold does not soften what a
/// filter puts off, and without a score the filter's word counts.
fn by_score(thresholds: Thresholds, kind: Kind, finding: &Finding) -> Action {
    let (Some(score), true) = (finding.milli_score, matches!(kind, Kind::Antispam | Kind::Both)) else {
        return finding.action;
    };
    let above = |limit: Option<i32>| limit.is_some_and(|limit| score >= limit);
    match finding.action {
        _ if above(thresholds.reject_at) => Action::Reject,
        Action::Reject if thresholds.reject_at.is_some() => by_mark(thresholds, above, Action::AddHeader),
        Action::AddHeader | Action::RewriteSubject => by_mark(thresholds, above, finding.action),
        action if above(thresholds.mark_at) && !matches!(action, Action::SoftReject) => action.max(Action::AddHeader),
        action => action,
    }
}

fn by_mark(thresholds: Thresholds, above: impl Fn(Option<i32>) -> bool, action: Action) -> Action {
    if thresholds.mark_at.is_none() || above(thresholds.mark_at) { action } else { Action::NoAction }
}
