use std::fmt;
use std::sync::Arc;

use crate::{Filter, Kind, Message, Policy, Unchecked, Verdict, Why};

/// The filters of a site, in the order of the configuration.
///
/// It asks nobody itself: the engine asks each filter that [`Chain::wanted`] names, side by side, under that filter's
/// own limit, and collects an [`Answer`] from each.
///
/// ```
/// use connectord_filter::{Answer, Chain, Decision, History, Message, Policy};
///
/// # async fn example(chain: &Chain, policy: &Policy, message: &Message, history: History) -> Decision {
/// let mut answers = Vec::new();
/// for filter in chain.wanted(policy) {
///     // The engine does this side by side, each under the filter's own limit and with a deadline outside of it.
///     answers.push(match Chain::beforehand(&**filter, message) {
///         Some(answer) => answer,
///         None => Answer::new(&**filter, filter.check(message).await),
///     });
/// }
/// policy.decide(&answers, history)
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Chain {
    /// The filters.
    pub filters: Vec<Arc<dyn Filter>>,
}

/// What one filter said of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The filter's name.
    pub filter: String,
    /// What it is for.
    pub kind: Kind,
    /// What it said.
    pub verdict: Verdict,
}

impl Chain {
    /// The filters that look at a message under this policy.
    pub fn wanted<'a>(&'a self, policy: &'a Policy) -> impl Iterator<Item = &'a Arc<dyn Filter>> {
        self.filters.iter().filter(|filter| policy.wants(filter.kind()))
    }

    /// What can be answered for a filter without asking it: that the message is larger than it looks at.
    pub fn beforehand(filter: &dyn Filter, message: &Message) -> Option<Answer> {
        let size = message.body.size_octets();
        let limit = filter.limits().max_octets.filter(|limit| size > *limit)?;
        let text = format!("message of {size} octets exceeds the limit of {limit} of {}", filter.describe());
        Some(Answer::unchecked(filter, Why::TooLarge, text))
    }
}

impl Answer {
    /// A filter's answer.
    pub fn new(filter: &dyn Filter, verdict: Verdict) -> Self {
        Self { filter: filter.name().to_owned(), kind: filter.kind(), verdict }
    }

    /// The answer of a filter that did not look; also for one that was still silent when its time was over.
    pub fn unchecked(filter: &dyn Filter, why: Why, text: impl Into<String>) -> Self {
        Self::new(filter, Verdict::Unchecked(Unchecked::new(why, text)))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.filters.iter().map(|filter| filter.describe())).finish()
    }
}
