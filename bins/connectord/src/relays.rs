//! `connectord relays`: whose Received fields an account might believe, found in its own mail, for a person to confirm.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use connectord_account::Account;
use connectord_config::build::{BuildError, Builder, key_ring, open_state, state_directory};
use connectord_engine::{Exit, Job, headers};
use connectord_mail::Head;
use connectord_mail::relay::{Client, Profile, Proposal, propose};
use connectord_net::Connector;
use connectord_store::StoreError;
use connectord_wire::Escaped;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::accounts::merge;
use crate::cli::Relays;
use crate::error::Error;
use crate::{control, process, say, setup};

/// How long reading the headers may take.
const WITHIN: Duration = Duration::from_secs(300);

pub(crate) async fn relays(path: Option<PathBuf>, options: Relays) -> Result<Exit, Error> {
    let config = setup::load_config(path)?;
    process::become_user(&config.process)?;
    let request = json!({"do": "relays", "account": options.account, "messages": options.messages});
    let show = |row: &Value| match &row["page"] {
        Value::String(page) if !options.json || row["found"].is_null() => say::out_as_is(page),
        _ => say::out(&row["found"]),
    };
    let connector = Connector::new();
    let here = match config.account(&options.account) {
        Some(_) => Builder::new(connector.clone(), "relays").jobs(&config).await?,
        // It may be one that is kept in the state, which a daemon may have.
        None => {
            let state = state_directory(&config)?;
            if !state.is_dir() {
                return Err(Error::Usage(unknown(&options.account)));
            }
            let store = match open_state(&state) {
                Err(BuildError::State(StoreError::Locked { .. })) => return control::ask(&state, &request, show).await,
                opened => opened?,
            };
            let keys = Arc::new(key_ring(&config, store.path(), false));
            let mut builder = Builder::new(connector.clone(), store.instance()).with_keys(keys);
            let known = merge(&config, &store, &mut builder).await;
            store.close().await;
            known?.jobs
        }
    };
    let answer = answer(&connector, &here, &request).await.map_err(Error::Usage)?;
    show(&answer.row);
    Ok(answer.exit)
}

fn unknown(account: &str) -> String {
    format!("there is no account {} that can be tried", Escaped::text(account))
}

/// What is said to a request.
pub(crate) struct Answer {
    /// `page` is for people, `found` for programs.
    pub(crate) row: Value,
    pub(crate) exit: Exit,
}

/// Looks at the newest messages of the account that a request names.
pub(crate) async fn answer(connector: &Connector, jobs: &[Job], request: &Value) -> Result<Answer, String> {
    let name = request["account"].as_str().unwrap_or_default();
    let job = jobs.iter().find(|job| job.address().eq_ignore_ascii_case(name));
    let job = job.ok_or_else(|| unknown(name))?;
    let messages = request["messages"].as_u64().and_then(|messages| u32::try_from(messages).ok()).unwrap_or(50);
    let address = job.address();
    let failed = |text: String, exit| Answer { row: json!({"page": format!("FAIL  {address}: {text}\n")}), exit };
    let headers = match timeout(WITHIN, headers(connector, job, messages)).await {
        Ok(Ok(headers)) => headers,
        Ok(Err(error)) => {
            let hint = error.hint().map(|hint| format!("\n      hint: {hint}")).unwrap_or_default();
            return Ok(failed(format!("{error}{hint}"), error.trouble().exit));
        }
        Err(_) => {
            let text = format!("the headers did not come within {} s", WITHIN.as_secs());
            return Ok(failed(text, Exit::Unavailable));
        }
    };
    let sample: Vec<_> = headers.iter().map(|header| Head::of(header)).collect();
    let known = sample.iter().filter(|head| matches!(job.relays.client(**head), Client::Known(_))).count();
    let proposals = propose(&sample);
    let found = json!({
        "account": address, "messages": sample.len(), "clients_known": known,
        "proposals": proposals.iter().map(row).collect::<Vec<_>>(),
    });
    let page = page(&job.account, sample.len(), known, &proposals);
    Ok(Answer { row: json!({"page": page, "found": found}), exit: Exit::Ok })
}

fn row(proposal: &Proposal) -> Value {
    json!({
        "domain": proposal.domain, "messages": proposal.messages, "clients_known": proposal.handoffs,
        "clients": proposal.clients, "gaps": proposal.gaps,
        "authserv_ids": proposal.authserv_ids.iter().map(|(id, count)| json!([id, count])).collect::<Vec<_>>(),
    })
}

fn page(account: &Account, messages: usize, known: usize, proposals: &[Proposal]) -> String {
    let mut page = format!("{}: the newest {messages} messages were looked at\n", account.address);
    let says = match &account.trusted_relays {
        Some(entries) if entries.is_empty() => "trusted_relays = [] believes nobody".to_owned(),
        Some(entries) => format!("trusted_relays = {entries:?}"),
        None => match Profile::of_server(account.endpoint.host()) {
            Some(profile) => format!("what is known of {} is believed", profile.name),
            None => "nobody is believed".to_owned(),
        },
    };
    page += &format!("now: {says}; the host that handed the message over is known for {known}\n");
    if proposals.is_empty() {
        page += "no Received field of them names a domain that could be proposed\n";
        return page;
    }
    page += "\nDOMAIN                          ON TOP OF   HOST KNOWN   DIFFERENT HOSTS   GAPS\n";
    for proposal in proposals {
        let Proposal { domain, messages, handoffs, clients, gaps, .. } = proposal;
        page += &format!(
            "{:<30}  {messages:>9}  {handoffs:>11}  {clients:>16}  {gaps:>5}\n",
            Escaped::text(domain).to_string()
        );
    }
    page.push('\n');
    match proposals.first().filter(|best| best.messages * 2 > messages && best.handoffs > 0) {
        Some(best) => {
            page += &advice(account, messages, best);
        }
        None => {
            page += "none of them stands on top of most messages and names who handed them over: write trusted_relays only for \
                     hosts that you know to be your provider's\n";
        }
    }
    page
}

fn advice(account: &Account, messages: usize, best: &Proposal) -> String {
    let domain = &best.domain;
    let mut entries = vec![domain.clone()];
    let foreign = |id: &str| !id.is_empty() && id != domain && !id.ends_with(&format!(".{domain}"));
    let others: Vec<_> = best.authserv_ids.iter().filter(|(id, count)| foreign(id) && *count * 2 > messages).collect();
    entries.extend(others.iter().map(|(id, _)| id.clone()));
    let mut text = format!(
        "If {domain} is the provider's own, which only you can know, write into the account {}:\n\n    trusted_relays = {:?}\n\n\
         Then SPF, DMARC and lists of addresses are about the hosts that handed {} of {messages} messages to it.\n",
        account.address,
        &entries[..1],
        best.handoffs
    );
    if let [other, ..] = &entries[1..] {
        text += &format!(
            "Most of its Authentication-Results are written as {}: if that is the provider's too, add it, and its findings count.\n",
            Escaped::text(other)
        );
    }
    if best.clients == 1 && best.handoffs > 2 {
        text += "All came from one host: that may be a relay of the provider under another name; then its name belongs there too.\n";
    }
    if best.gaps > 0 {
        text += &format!(
            "Of {} messages the way inside the provider cannot be followed: their hosts stay unknown.\n",
            best.gaps
        );
    }
    text
}
