//! The headers of some messages of an account, to learn from: nothing is retrieved, remembered or changed.

use connectord_account::{Folder, Protocol};
use connectord_imap as imap;
use connectord_mail::UnixTime;
use connectord_mail::head::MAX_HEAD;
use connectord_net::{Connector, Driver};
use connectord_pop3 as pop3;

use crate::login::log_in;
use crate::trouble::RunError;
use crate::{Job, Logins};

/// The headers of the newest `most` messages of an account's first named mailbox, at most 1,000, each at most 256 KiB.
///
/// IMAP: EXAMINE and `BODY.PEEK[HEADER]`; POP3: TOP. The waits are those of the account's route.
///
/// # Errors
/// [`RunError`] as of a check that cannot connect, log in or open the mailbox.
pub async fn headers(connector: &Connector, job: &Job, most: u32) -> Result<Vec<Vec<u8>>, RunError> {
    let most = most.min(1_000);
    match job.account.protocol {
        Protocol::Imap => of_imap(connector, job, most).await,
        Protocol::Pop3 => of_pop3(connector, job, most).await,
    }
}

async fn of_imap(connector: &Connector, job: &Job, most: u32) -> Result<Vec<Vec<u8>>, RunError> {
    let mut driver = Driver::connect(connector, &job.route, crate::imap::session(job)).await?;
    log_in(&mut driver, &Logins::default(), UnixTime(0), job).await?;
    let name = job.account.folders.iter().find_map(|folder| match folder {
        Folder::Name(name) => Some(name.as_str()),
        Folder::Pattern(_) | Folder::Role(_) => None,
    });
    let name = name.unwrap_or("INBOX");
    let mailbox = imap::MailboxName::new(name).map_err(|error| refused(job, name, error.to_string()))?;
    let mut uids: Vec<imap::Uid> = Vec::new();
    driver.machine().examine(&mailbox);
    let search = driver.machine().uid_search(imap::UidSearch::all());
    until_done(&mut driver, job, name, search, |event| {
        if let imap::Event::Found(found) = event {
            uids.extend(found.iter());
        }
    })
    .await?;
    uids.sort_unstable();
    let newest: imap::UidSet = uids[uids.len().saturating_sub(most as usize)..].iter().copied().collect();
    let mut sample = Sample::default();
    if !uids.is_empty() {
        let items = imap::FetchItems { body: Some(imap::Section::Header), ..imap::FetchItems::default() };
        let fetch = driver.machine().uid_fetch(&newest, items);
        until_done(&mut driver, job, name, fetch, |event| match event {
            imap::Event::BodyStart { .. } => sample.begin(),
            imap::Event::Body(octets) => sample.push(&octets),
            _ => {}
        })
        .await?;
    }
    driver.machine().logout();
    // A courtesy: what was asked for is here.
    let _ = driver.flush().await;
    driver.shutdown().await;
    Ok(sample.headers)
}

async fn until_done(
    driver: &mut Driver<imap::Session>,
    job: &Job,
    mailbox: &str,
    command: imap::CommandId,
    mut see: impl FnMut(imap::Event),
) -> Result<(), RunError> {
    loop {
        match driver.next().await? {
            imap::Event::Done { command: done, result } => {
                result.map_err(|refusal| refused(job, mailbox, refusal.to_string()))?;
                if done == command {
                    return Ok(());
                }
            }
            event => see(event),
        }
    }
}

async fn of_pop3(connector: &Connector, job: &Job, most: u32) -> Result<Vec<Vec<u8>>, RunError> {
    let mut driver = Driver::connect(connector, &job.route, crate::pop3::session(job)).await?;
    log_in(&mut driver, &Logins::default(), UnixTime(0), job).await?;
    driver.machine().stat();
    let messages = loop {
        match driver.next().await? {
            pop3::Event::Stat { messages, .. } => break messages,
            pop3::Event::StatRefused(refusal) => return Err(refused(job, "INBOX", refusal.to_string())),
            _ => {}
        }
    };
    let numbers = (messages.saturating_sub(most) + 1..=messages).filter_map(pop3::MessageNumber::new);
    let mut left = 0;
    for number in numbers {
        driver.machine().top(number, 0);
        left += 1;
    }
    let (mut sample, mut refusal) = (Sample::default(), None);
    while left > 0 {
        match driver.next().await? {
            pop3::Event::BodyStart { .. } => sample.begin(),
            pop3::Event::Body(octets) => sample.push(&octets),
            pop3::Event::BodyEnd { .. } => left -= 1,
            pop3::Event::RetrieveRefused { refusal: said, .. } => {
                left -= 1;
                refusal = Some(said);
            }
            _ => {}
        }
    }
    driver.machine().quit();
    // A courtesy: nothing was marked.
    let _ = driver.flush().await;
    driver.shutdown().await;
    match refusal {
        // TOP is optional (RFC 1939 §7).
        Some(refusal) if sample.headers.is_empty() => Err(refused(job, "INBOX", refusal.to_string())),
        _ => Ok(sample.headers),
    }
}

fn refused(job: &Job, mailbox: &str, refusal: String) -> RunError {
    RunError::Mailbox { server: job.server(), mailbox: mailbox.to_owned(), refusal, temporary: false }
}

#[derive(Default)]
struct Sample {
    headers: Vec<Vec<u8>>,
}

impl Sample {
    fn begin(&mut self) {
        self.headers.push(Vec::new());
    }

    fn push(&mut self, octets: &[u8]) {
        let Some(header) = self.headers.last_mut() else { return };
        let room = MAX_HEAD.saturating_sub(header.len());
        header.extend_from_slice(&octets[..octets.len().min(room)]);
    }
}
