//! The trail of messages.

use connectord_admin::{Answer, Message, MessageQuery, MessageState, Page as Listed, Refusal, Score, Trail};
use connectord_store::{TrailId, TrailQuery, TrailRow, TrailState, TrailStep, What};

use super::causes::at;
use super::draw::moment;
use super::{Page, unavailable};

impl Page {
    pub(super) async fn messages(&self, query: &MessageQuery) -> Answer<Listed<Message>> {
        let Some(trail) = &self.trail else { return Ok(Listed::default()) };
        let account = match &query.account {
            Some(id) => Some(self.entry(id)?.address().to_owned()),
            None => None,
        };
        let (state, removed, maybe_twice) = match query.state {
            None => (None, false, false),
            Some(MessageState::Removed) => (None, true, false),
            Some(MessageState::MaybeTwice) => (None, false, true),
            Some(state) => match kept_state(state) {
                Some(state) => (Some(state), false, false),
                None => return Ok(Listed::default()),
            },
        };
        let asked = TrailQuery {
            text: query.text.clone(),
            state,
            removed,
            maybe_twice,
            account,
            user: query.user.clone(),
            since: query.since.map(moment),
            before: query.after.as_ref().and_then(|after| after.parse().ok()).map(TrailId),
            limit: query.limit,
        };
        let page = trail.messages(&asked).await.map_err(unavailable)?;
        let items = page.rows.iter().map(|row| self.message_row(row)).collect();
        Ok(Listed { items, next: page.next.map(|id| id.0.to_string()), total: page.total })
    }

    pub(super) async fn message(&self, id: &str) -> Answer<(Message, Vec<Trail>)> {
        let trail = self.trail.as_ref().ok_or(Refusal::NotFound)?;
        let id = id.parse().map(TrailId).map_err(|_| Refusal::NotFound)?;
        let found = trail.message(id).await.map_err(unavailable)?;
        let (row, steps) = found.ok_or(Refusal::NotFound)?;
        Ok((self.message_row(&row), steps.iter().map(drawn).collect()))
    }

    fn message_row(&self, row: &TrailRow) -> Message {
        let score = row.milli_score.map(|milli| Score {
            milli: milli.into(),
            limit_milli: row.milli_limit.map(i64::from).unwrap_or_default(),
        });
        let account = self.roster.of_address(&row.account).map(|entry| entry.id.0.to_string());
        Message {
            id: row.id.0.to_string(),
            at: at(row.at),
            state: shown_state(row),
            subject: row.about.subject.clone(),
            from: row.about.from.clone(),
            deliver_to: row.about.users.to_vec(),
            account: account.unwrap_or_default(),
            address: row.account.clone(),
            message_id: row.about.message_id.clone(),
            octets: row.about.octets,
            score,
        }
    }
}

fn shown_state(row: &TrailRow) -> MessageState {
    match row.state {
        TrailState::Retrieved => MessageState::Retrieved,
        TrailState::Filtered => MessageState::Filtered,
        TrailState::Delivered if row.removed_at.is_some() => MessageState::Removed,
        TrailState::Delivered if row.maybe_twice => MessageState::MaybeTwice,
        TrailState::Delivered => MessageState::Delivered,
        TrailState::Spam => MessageState::Spam,
        TrailState::Discarded => MessageState::Discarded,
        TrailState::Quarantined => MessageState::Quarantined,
        TrailState::Waiting => MessageState::Held,
        TrailState::Skipped => MessageState::Skipped,
        TrailState::Parked => MessageState::Parked,
    }
}

fn kept_state(state: MessageState) -> Option<TrailState> {
    Some(match state {
        MessageState::Retrieved => TrailState::Retrieved,
        MessageState::Filtered => TrailState::Filtered,
        MessageState::Held => TrailState::Waiting,
        MessageState::Delivered => TrailState::Delivered,
        MessageState::Spam => TrailState::Spam,
        MessageState::Quarantined => TrailState::Quarantined,
        MessageState::Parked => TrailState::Parked,
        MessageState::Discarded => TrailState::Discarded,
        MessageState::Skipped => TrailState::Skipped,
        MessageState::Waiting | MessageState::Removed | MessageState::MaybeTwice => return None,
    })
}

/// A step in the words of the page.
fn drawn(step: &TrailStep) -> Trail {
    let what = match step.what {
        What::Seen => "seen",
        What::Retrieved => "retrieved",
        What::Relay => "relay",
        What::Filter | What::Spam => "filter",
        What::Delivered | What::Notice => "delivered",
        What::Deferred => "deferred",
        What::Parked => "parked",
        What::Quarantined => "quarantined",
        What::Discarded => "discarded",
        What::Skipped => "skipped",
        What::Released => "released",
        What::Removed => "removed",
        What::Repeated => "repeated",
        What::Retried => "retried",
    };
    let thousandths = |milli: i32| format!("{:.1}", f64::from(milli) / 1000.0);
    let score = match (step.milli_score, step.milli_limit) {
        (Some(score), Some(limit)) => format!("{} / {}", thousandths(score), thousandths(limit)),
        (Some(score), None) => thousandths(score),
        _ => String::new(),
    };
    let parts = [step.who.clone(), score, step.detail.clone()];
    let detail = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ");
    Trail { at: at(step.at), what, detail }
}
