use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use connectord_engine::{Cause, Clock, Observer, Progress, Report, RunError, chain};
use connectord_mail::UnixTime;
use tokio::sync::Notify;

use crate::watch::{Fault, Finding};

/// Hears how checks end, keeps it until the [`Desk`](crate::Desk) takes it, and passes everything on.
///
/// What is kept is one finding for each account, so nobody waits and nothing grows however slow the desk is.
pub struct Inbox {
    next: Arc<dyn Observer>,
    clock: Clock,
    findings: Mutex<BTreeMap<String, (Finding, UnixTime)>>,
    arrived: Notify,
}

impl Inbox {
    /// An empty one that passes everything on to `next`.
    pub fn new(next: Arc<dyn Observer>, clock: Clock) -> Self {
        Self { next, clock, findings: Mutex::default(), arrived: Notify::new() }
    }

    /// Takes what has come.
    pub(crate) fn take(&self) -> BTreeMap<String, (Finding, UnixTime)> {
        mem::take(&mut *self.findings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something has come.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn put(&self, account: &str, new: Finding) {
        let now = self.clock.now();
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, at) = findings.entry(account.to_owned()).or_default();
        kept.fault = new.fault;
        kept.parked |= new.parked;
        let room = 20usize.saturating_sub(kept.changes.len());
        kept.changes.extend(new.changes.into_iter().take(room));
        *at = now;
    }
}

impl Observer for Inbox {
    fn progress(&self, account: &str, progress: Progress<'_>) {
        if let Progress::Finished(report) = progress
            && let Some(finding) = finding(report, self.clock.now())
        {
            self.put(account, finding);
            self.arrived.notify_one();
        }
        self.next.progress(account, progress);
    }
}

/// What a report says about the account; nothing when it was a look only, or when somebody else is checking it.
fn finding(report: &Report, now: UnixTime) -> Option<Finding> {
    let next = report.next_check?;
    let fault = report.error.as_ref().map(|error| Fault {
        cause: error.trouble().cause,
        user: match error {
            RunError::UserGone { user, .. } => Some(user.clone()),
            _ => None,
        },
        error: chain(error),
        hint: error.hint(),
        next: Some(now.plus(next)),
    });
    // To be stopped is no trouble of the account's.
    if fault.as_ref().is_some_and(|fault| fault.cause == Cause::Stopped) {
        return None;
    }
    Some(Finding {
        fault,
        parked: report.parked > 0,
        changes: report.changes.iter().map(ToString::to_string).collect(),
    })
}
