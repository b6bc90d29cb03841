//! Trying settings, step by step.

use std::time::Duration;

use connectord_admin::{Answer, Cause, Code, Entered, Refusal, Settings, Step, StepState, Test, Value};
use connectord_engine::{Trial, TrialOutcome, TrialStep};
use tokio::sync::mpsc;

use super::causes::{self, Words};
use super::{Page, settings};
use crate::accounts::Draft;

impl Page {
    pub(super) async fn tried(&self, id: Option<&str>, entered: Entered, steps: mpsc::Sender<Step>) -> Answer<Test> {
        let see = |step: TrialStep, outcome: &TrialOutcome, took: Duration| {
            // It has room for every step of a test; whoever is slower sees the whole at the end.
            let _ = steps.try_send(drawn_step(step, outcome, took, &entered.settings));
        };
        let address = entered.settings.address.trim().to_lowercase();
        let trying = async {
            match id {
                Some(id) => {
                    let entry = self.entry(id)?;
                    if entry.source == connectord_admin::Source::File {
                        return Ok(self.accounts.test(entry.address()).await);
                    }
                    let edit = self.edit(&entry, &entered, None).await?;
                    Ok(self.accounts.test_edit(entry.address(), edit, &see).await)
                }
                None => {
                    let site = self.accounts.known.borrow().config.filters.policy.clone();
                    let kept = settings::kept(&entered.settings, &site).map_err(Refusal::Fields)?;
                    let password = super::changes::password(entered.secret.as_ref());
                    let draft = Draft { address: address.clone(), settings: kept, enabled: true, password };
                    Ok(self.accounts.test_draft(draft, &see).await)
                }
            }
        };
        let trial = tokio::select! {
            trial = trying => trial?,
            () = steps.closed() => return Err(Refusal::NotFound),
        };
        match trial {
            Ok(trial) => {
                if let Some(id) = id.and_then(|id| id.parse().ok()) {
                    self.remember_folders(connectord_store::AccountId(id), &trial.folders);
                }
                Ok(drawn(&trial, &entered.settings))
            }
            Err(refusal) => Err(self.refused(refusal, &address, None).await),
        }
    }
}

/// What a test found, in the words of the page.
pub(super) fn drawn(trial: &Trial, settings: &Settings) -> Test {
    Test {
        ok: trial.failure().is_none(),
        steps: trial.steps.iter().map(|(step, outcome, took)| drawn_step(*step, outcome, *took, settings)).collect(),
        messages: trial.messages,
        folders: trial.folders.clone(),
    }
}

fn drawn_step(step: TrialStep, outcome: &TrialOutcome, took: Duration, settings: &Settings) -> Step {
    let (state, result, cause) = match outcome {
        TrialOutcome::Ok(result) => (StepState::Ok, result.clone(), None),
        TrialOutcome::Note(result) => (StepState::Note, result.clone(), None),
        TrialOutcome::Failed { reason, text, .. } => {
            let code = causes::code(&reason.code).unwrap_or(Code::NoAnswer);
            let mut told = Cause::new(code);
            for (name, value) in &reason.words {
                if let Some(word) = code.row().words.iter().find(|word| *word == name) {
                    told.words.insert(word, Value::Text(value.clone()));
                }
            }
            told.said = Some(text.clone());
            (StepState::Failed, String::new(), Some(causes::with_words(told, &Words::of_settings(settings))))
        }
        TrialOutcome::NotReached => (StepState::NotReached, String::new(), None),
    };
    let ms = (state != StepState::NotReached).then(|| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    Step { name: step.name(), state, result, ms, cause }
}
