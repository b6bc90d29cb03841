//! The ways that notices go: all of them at once, each with its deadline and few attempts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{info, warn};

use crate::bundle::Bundle;
use crate::command::Program;
use crate::mail::{self, Down, Reader};
use crate::webhook::Webhook;

/// Where notices go; nowhere but to the log by default.
#[derive(Debug, Default)]
pub struct Ways {
    /// The sender of notices by mail: a mail address, or a name at this machine.
    pub mail_from: String,
    /// Who gets all of them by mail.
    pub mail_to: Vec<Reader>,
    /// Whether local users get those about their own accounts by mail; default false.
    pub to_users: bool,
    /// A program that gets all of them.
    pub program: Option<Program>,
    /// A web address that gets all of them.
    pub webhook: Option<Webhook>,
    /// Ways that took nothing the last time get one attempt.
    broken: Broken,
}

#[derive(Debug, Default)]
struct Broken {
    mail: AtomicBool,
    program: AtomicBool,
    webhook: AtomicBool,
}

impl Ways {
    /// Nothing but the log.
    pub fn none() -> Self {
        Self { mail_from: "connectord".into(), ..Self::default() }
    }

    /// Sends a notice everywhere, once, and says what became of it: for each way its name, and what went wrong.
    pub async fn try_all(&self, bundle: &Bundle) -> Vec<(String, Result<(), String>)> {
        let mut tried = Vec::new();
        for reader in &self.mail_to {
            let sent = mail::deliver(bundle, &self.mail_from, reader, 1).await;
            tried.push((format!("mail to {}", reader.recipient.address), sent.map_err(|error| error.text)));
        }
        if let Some(program) = &self.program {
            let sent = program.give(&bundle.json(), &bundle.title()).await;
            tried.push((format!("command {}", program.program.display()), sent));
        }
        if let Some(webhook) = &self.webhook {
            tried.push((format!("webhook {}", webhook.name()), webhook.give(&bundle.json()).await.map_err(|e| e.text)));
        }
        tried
    }

    /// Gives a notice to whoever gets all of them, and says whether anybody got it. What could not be given is logged.
    ///
    /// Cancel safe: a program that runs is killed.
    pub(crate) async fn give(&self, bundle: &Bundle, waits: &[Duration]) -> bool {
        let json = bundle.json();
        let mails = async {
            let (mut down, mut any) = (Down::default(), false);
            for reader in &self.mail_to {
                any |= self.mail(bundle, reader, waits, &mut down).await;
            }
            any
        };
        let program = async {
            let Some(program) = &self.program else { return false };
            let title = bundle.title();
            let mut tries = Tries::new(&self.broken.program, waits);
            while tries.again(program.give(&json, &title).await.map_err(|text| (text, true))).await {}
            tries.went_well
        };
        let webhook = async {
            let Some(webhook) = &self.webhook else { return false };
            let mut tries = Tries::new(&self.broken.webhook, waits);
            while tries.again(webhook.give(&json).await.map_err(|untold| (untold.text, untold.again))).await {}
            tries.went_well
        };
        let (mails, program, webhook) = tokio::join!(mails, program, webhook);
        mails || program || webhook
    }

    /// Whether there is anybody who gets all of them.
    pub(crate) fn is_empty(&self) -> bool {
        self.mail_to.is_empty() && self.program.is_none() && self.webhook.is_none()
    }

    /// Gives one notice to one reader, unless its destination is down; whether it arrived.
    pub(crate) async fn mail(&self, bundle: &Bundle, reader: &Reader, waits: &[Duration], down: &mut Down) -> bool {
        if down.is(reader) {
            warn!(to = reader.recipient.address, notice = bundle.id, "a notice is not given: its destination is down");
            return false;
        }
        let mut tries = Tries::new(&self.broken.mail, waits);
        loop {
            let mut is_down = false;
            let result = mail::deliver(bundle, &self.mail_from, reader, tries.attempt).await.map_err(|error| {
                is_down = error.destination;
                (error.text, error.again)
            });
            if tries.again(result).await {
                continue;
            }
            if is_down {
                down.note(reader);
            }
            return tries.went_well;
        }
    }
}

/// Attempts at one way, until one went well, none will, or the waits are used up.
struct Tries<'a> {
    broken: &'a AtomicBool,
    waits: std::slice::Iter<'a, Duration>,
    /// Counts from 1.
    attempt: u32,
    went_well: bool,
}

impl<'a> Tries<'a> {
    fn new(broken: &'a AtomicBool, waits: &'a [Duration]) -> Self {
        let waits = if broken.load(Ordering::Relaxed) { &[] } else { waits };
        Self { broken, waits: waits.iter(), attempt: 1, went_well: false }
    }

    /// Whether to try once more, after the wait for it; the error says whether that may help.
    async fn again(&mut self, result: Result<(), (String, bool)>) -> bool {
        let attempt = self.attempt;
        let Err((error, may_help)) = result else {
            self.broken.store(false, Ordering::Relaxed);
            self.went_well = true;
            return false;
        };
        let Some(wait) = self.waits.next().filter(|_| may_help) else {
            warn!(error, attempt, "a notice could not be given");
            self.broken.store(true, Ordering::Relaxed);
            return false;
        };
        info!(error, attempt, "a notice could not be given; it is tried again");
        tokio::time::sleep(*wait).await;
        self.attempt += 1;
        true
    }
}
