//! `connectord fetch URL --to MAILDIR`: one mailbox without a configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use connectord_account::{Account, CredentialSource, Retention};
use connectord_config::build::{job, state_directory};
use connectord_config::url::parse_fetch_url;
use connectord_config::{Config, LogLevel};
use connectord_deliveries::maildir::{self, Maildir};
use connectord_engine::{Exit, Mode};
use connectord_mail::{DeliveryId, Identity};

use crate::cli::Fetch;
use crate::error::Error;
use crate::fetch::{observer, run_all, show};
use crate::logging::Colour;
use crate::{password, setup};

pub(crate) async fn fetch_url(url: &str, options: &Fetch, colour: Colour) -> Result<Exit, Error> {
    let to = options.url.to.as_ref();
    let to = to.ok_or_else(|| Error::Usage("fetch URL needs --to MAILDIR: where should the mail go".into()))?;
    let to = absolute(to)?;
    let mut account = parse_fetch_url(url)?;
    account.retention = retention(&options.url.delete)?;
    account.ca_file.clone_from(&options.url.ca_file);
    account.pins = options.url.pin.clone().into_iter().collect();
    let url = &options.url;
    let source = password::Source { file: url.password_file.as_deref(), stdin: url.password_stdin, program: None };
    account.credential = CredentialSource::Password(password::password(source, &account.username)?);

    let mut config = Config::parse("", "command line", Path::new("/"))?;
    // The table says what happened; a line for each message is for daemons.
    config.log.level = LogLevel::Warn;
    let state = match &options.url.state {
        Some(state) => absolute(state)?,
        // The same mailbox into another Maildir is another memory of what was fetched, and nobody waits for its lock.
        None => state_directory(&config)?.join("mailboxes").join(short_name(&account, &to)),
    };
    if let Some(parent) = state.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(format!("cannot make {}", parent.display())))?;
    }
    let shown = observer(options, 1, colour);
    let _log = shown.start_log(&config, colour)?;
    let parts = setup::build_in(&config, &state, setup::Keys::AsThereAre, shown.clone().into_observer()).await?;
    let path = to.display().to_string();
    if path.contains(['{', '}']) {
        return Err(Error::Usage(format!("{path}: braces cannot be part of the Maildir's name here")));
    }
    let template = path.parse().map_err(|error| Error::Usage(format!("{path}: {error}")))?;
    let mut maildir = maildir::Options::new(template, parts.store.instance());
    maildir.create = maildir::Create::InParent;
    let delivery = Arc::new(Maildir::new(maildir));
    let credentials = connectord_config::credentials::of(&account);
    let credentials = credentials.ok_or_else(|| Error::Usage("there is no password".into()))?;
    let job = job(&config, account, credentials, "maildir".into(), delivery, &[])?;

    connectord_engine::sweep(&parts.site, std::slice::from_ref(&job)).await?;

    let mode = Mode { by_hand: true, dry_run: options.dry_run };
    let reports = run_all(Arc::clone(&parts.site), vec![job], &config, mode).await;
    shown.finish();
    let exit = show(options, &reports, colour);
    parts.close().await;
    Ok(exit)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::io(format!("cannot find {}", path.display())))
}

fn short_name(account: &Account, to: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let (account, mailbox) = (&account.address, account.endpoint.to_string());
    let identity =
        Identity { account, mailbox: &mailbox, uid_validity: 0, key: to.as_os_str().as_bytes(), generation: 0 };
    DeliveryId::new(identity).to_string()
}

fn retention(text: &str) -> Result<Retention, Error> {
    connectord_config::retention(text).ok_or_else(|| {
        Error::Usage(format!("--delete {text}: expected never, immediately, a time such as 7d, or age:30d"))
    })
}
