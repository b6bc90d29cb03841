//! What waits for a person: the quarantine, and parked messages.

use std::sync::Arc;

use connectord_admin::{
    Answer, At, Caller, FieldProblem, Held, HeldDetail, HeldQuery, Page as Listed, Parked, ParkedAction, Refusal,
    Score, Why,
};
use connectord_config::build::teacher;
use connectord_filter::Verdict;
use connectord_mail::{Body, DeliveryId};
use connectord_quarantine::{DirectoryQuarantine, Entry, Query, ReleaseError, Sort, read_message};
use connectord_store::{ParkedRow, Store};
use serde_json::{Value, json};

use super::causes::at;
use super::query::paged;
use super::{Page, unavailable};
use crate::{parked, quarantine};

/// Most messages of the quarantine that are looked through for one page.
const LOOKED_THROUGH: usize = 100_000;

/// Fields of a head that are shown, and the longest value, in characters.
const FIELDS: usize = 30;
const VALUE: usize = 500;

/// What gave a score that is shown.
const SYMBOLS: usize = 8;

impl Page {
    fn held_place(&self) -> Answer<&DirectoryQuarantine> {
        self.quarantine.as_ref().ok_or(Refusal::NotFound)
    }

    pub(super) fn held_list(&self, query: &HeldQuery) -> Listed<Held> {
        let Some(place) = &self.quarantine else { return Listed::default() };
        let offset: usize = query.after.as_ref().and_then(|after| after.parse().ok()).unwrap_or(0);
        let sort = query.why.map(|why| match why {
            Why::Virus => Sort::Virus,
            Why::Spam => Sort::Spam,
            Why::Attachment | Why::Rule => Sort::Other,
        });
        let text = Some(query.text.clone()).filter(|text| !text.is_empty());
        let asked =
            Query { user: query.user.clone(), text, sort, offset, limit: Some(query.limit), ..Query::default() };
        let page = place.list(&asked);
        let until = offset + page.entries.len();
        let next = (until < page.total.min(LOOKED_THROUGH) && !page.entries.is_empty()).then(|| until.to_string());
        Listed {
            items: page.entries.iter().map(|entry| self.held_row(entry)).collect(),
            next,
            total: page.total as u64,
        }
    }

    fn held_row(&self, entry: &Entry) -> Held {
        let keep_for = self.accounts.known.borrow().config.quarantine.keep_for;
        let since = entry.arrived_at.map_or(entry.held_at, |arrived| arrived.max(entry.held_at));
        let (why, name) = match entry.sort() {
            Sort::Virus => (Why::Virus, entry.reason.clone()),
            Sort::Spam => (Why::Spam, entry.reason.clone()),
            Sort::Other => (Why::Rule, entry.reason.clone()),
        };
        Held {
            id: entry.id.to_string(),
            held_at: at(entry.held_at),
            deliver_to: entry.recipients.iter().map(|(user, _)| user.clone()).collect(),
            address: entry.account.clone(),
            why,
            name,
            score: None,
            from: entry.from.clone(),
            subject: entry.subject.clone(),
            octets: entry.size_octets,
            expires: At(since.plus(keep_for).0),
        }
    }

    fn held_id(&self, id: &str) -> Answer<DeliveryId> {
        DeliveryId::parse(id).ok_or(Refusal::NotFound)
    }

    pub(super) async fn held_detail(&self, id: &str) -> Answer<HeldDetail> {
        let details = self.held_place()?.details(self.held_id(id)?).await.map_err(not_released)?;
        let mut held = self.held_row(&details.entry);
        if let Some(virus) = details.viruses.first() {
            held.name.clone_from(virus);
        }
        let mut symbols = Vec::new();
        for answer in &details.answers {
            let Verdict::Found(finding) = &answer.verdict else { continue };
            if let Some(milli) = finding.milli_score {
                let limit_milli = finding.milli_required.map(i64::from).unwrap_or_default();
                held.score = Some(Score { milli: milli.into(), limit_milli });
            }
            symbols.extend(finding.symbols.iter().map(|it| (it.name.clone(), i64::from(it.milli_score))));
        }
        symbols.sort_by_key(|(_, milli): &(String, i64)| std::cmp::Reverse(milli.abs()));
        let symbols_total = symbols.len() as u64;
        symbols.truncate(SYMBOLS);
        let cut = |text: &str| text.chars().take(VALUE).collect::<String>();
        let head = details.fields.iter().take(FIELDS).map(|(name, value)| (cut(name), cut(value))).collect();
        let there = self
            .roster
            .of_address(&details.entry.account)
            .is_some_and(|entry| entry.settings.delete != connectord_admin::Delete::Immediately);
        let handed_over_by = details.reverse_path.clone().unwrap_or_default();
        Ok(HeldDetail { held, head, symbols, symbols_total, handed_over_by, there })
    }

    pub(super) async fn held_octets(&self, id: &str, limit: usize) -> Answer<bytes::Bytes> {
        let (path, id) = (self.held_place()?.path().to_owned(), self.held_id(id)?);
        let read = tokio::task::spawn_blocking(move || {
            let body = read_message(&path, id).map_err(|error| Refusal::Unavailable(error.to_string()))?;
            octets(&*body, limit).map_err(|error| Refusal::Unavailable(error.to_string()))
        });
        read.await.map_err(|error| Refusal::Unavailable(error.to_string()))?
    }

    /// Has the desk do something with messages of the quarantine; answers how many.
    async fn at_the_desk(&self, caller: &Caller, request: Value) -> Answer<u64> {
        let known = Arc::clone(&self.accounts.known.borrow());
        let desk = quarantine::Desk {
            quarantine: self.quarantine.as_ref(),
            jobs: &known.jobs,
            teacher: teacher(&known.config),
            now: self.now(),
            machine: self.accounts.site.hostname.clone(),
            trail: &*self.accounts.site.trail,
        };
        let answer = desk.answer(&request).await.map_err(Refusal::Unavailable)?;
        let done = answer.rows.iter().filter(|row| row["done"] == true).count() as u64;
        tracing::info!(messages = done, who = caller.name, what = %request["verb"], "a person decided in the quarantine");
        let _ = self.events.send(connectord_admin::Event::Overview);
        // Of one that was refused, why is what counts.
        match (done, answer.rows.iter().find_map(|row| row["refused"].as_str())) {
            (0, Some(why)) => Err(Refusal::Fields(vec![FieldProblem::new("ids", why)])),
            _ => Ok(done),
        }
    }

    pub(super) async fn release(&self, caller: &Caller, ids: &[String], learn: bool) -> Answer<u64> {
        self.at_the_desk(caller, json!({"verb": "release", "ids": ids, "infected": true, "teach": learn})).await
    }

    pub(super) async fn discard(&self, caller: &Caller, ids: &[String]) -> Answer<u64> {
        self.at_the_desk(caller, json!({"verb": "discard", "ids": ids})).await
    }

    pub(super) async fn parked_list(&self, query: &HeldQuery) -> Answer<Listed<Parked>> {
        let mut rows = self.accounts.store.troubled(None, false).await.map_err(unavailable)?;
        rows.sort_by_key(|row| std::cmp::Reverse(row.since));
        let text = query.text.to_lowercase();
        let drawn = rows.iter().map(|row| self.parked_row(row));
        let found: Vec<Parked> = drawn
            .filter(|row| query.user.as_ref().is_none_or(|user| row.deliver_to.contains(user)))
            .filter(|row| {
                let texts = [&row.subject, &row.from, &row.address, &row.reason];
                text.is_empty() || texts.into_iter().any(|shown| shown.to_lowercase().contains(&text))
            })
            .collect();
        Ok(paged(found, query.after.as_deref(), query.limit))
    }

    fn parked_row(&self, row: &ParkedRow) -> Parked {
        let entry = self.roster.of_address(&row.account);
        Parked {
            id: parked::id_of(row.message),
            at: at(row.since),
            account: entry.as_ref().map(|entry| entry.id.0.to_string()).unwrap_or_default(),
            address: row.account.clone(),
            deliver_to: entry.map(|entry| entry.settings.deliver_to.clone()).unwrap_or_default(),
            from: row.name.from.clone(),
            subject: row.name.subject.clone(),
            octets: row.size_octets,
            reason: row.reason.clone(),
            tries: u32::from(row.attempts),
        }
    }

    pub(super) async fn settle(&self, caller: &Caller, ids: &[String], action: ParkedAction) -> Answer<u64> {
        let verb = match action {
            ParkedAction::Retry => "retry",
            ParkedAction::Anyway => "deliver",
            ParkedAction::Skip => "skip",
        };
        let (trail, request) = (&*self.accounts.site.trail, json!({"verb": verb, "ids": ids}));
        let answer = parked::answer(&*self.accounts.store, trail, self.now(), &request).await;
        let answer = answer.map_err(|problem| Refusal::Fields(vec![FieldProblem::new("ids", &problem)]))?;
        self.accounts.scheduler.check_all(answer.check.iter().map(String::as_str));
        let done = answer.rows.iter().filter(|row| row["done"] == true).count() as u64;
        tracing::info!(messages = done, who = caller.name, what = verb, "a person decided about parked messages");
        self.read_parked().await;
        if done == 0 { Err(Refusal::NotFound) } else { Ok(done) }
    }
}

fn not_released(error: ReleaseError) -> Refusal {
    match error {
        ReleaseError::NotHeld => Refusal::NotFound,
        other => Refusal::Unavailable(other.to_string()),
    }
}

/// The octets of a message, so many at most, with every line end as CRLF.
fn octets(body: &dyn Body, limit: usize) -> std::io::Result<bytes::Bytes> {
    let mut whole = Vec::new();
    quarantine::write_out(body, &mut Upto { to: &mut whole, left: limit })?;
    Ok(whole.into())
}

/// Takes so many octets and drops the rest.
struct Upto<'a> {
    to: &'a mut Vec<u8>,
    left: usize,
}

impl std::io::Write for Upto<'_> {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        let take = octets.len().min(self.left);
        self.to.extend_from_slice(&octets[..take]);
        self.left -= take;
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
