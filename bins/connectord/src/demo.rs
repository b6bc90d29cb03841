//! `connectord demo`: the whole thing on this machine, with sample servers and sample mail.
//!
//! Only the servers and their mail are samples. What retrieves is what `fetch` and `serve` run, from a configuration
//! file that is there to read, and what is counted at the end are the files in the Maildirs.

mod place;
mod provider;
mod shelf;

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use connectord::figures::{count, counted, duration};
use connectord::look::{Look, width};
use connectord_config::Config;
use connectord_config::build::limits;
use connectord_engine::{Exit, Mode, Observer, Progress, Scheduler};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};

use self::place::Place;
use self::provider::{ACCOUNTS, Provider};
use self::shelf::{Balance, Shelf};
use crate::control::{self, Control};
use crate::error::Error;
use crate::fetch::{Shown, run_all};
use crate::logging::{Colour, Inert};
use crate::progress::{Bars, closing_table};
use crate::{serve, setup};

/// Between two messages that arrive.
const PACE: Duration = Duration::from_secs(4);

/// The first arrives so soon.
const FIRST: Duration = Duration::from_secs(2);

/// So many arrive; a demonstration that was forgotten does not fill the disk.
const MOST: usize = 500;

/// What arrived so shortly before the end may still wait at its server: twice the time between two checks.
const MAY_WAIT: Duration = Duration::from_secs(20);

/// How long the end waits for what is being delivered.
const FAREWELL: Duration = Duration::from_secs(12);

pub(crate) async fn demo(options: crate::cli::Demo) -> Result<Exit, Error> {
    // From the start, so that a signal is never lost between two rounds.
    let told = tokio::spawn(serve::told_to_stop());
    let place = Place::open(options.dir.as_deref())?;
    let provider = Provider::start(&place)?;
    place.describe(&provider)?;
    let config = setup::read_config(Some(place.config()))?;
    let screen = Screen { look: Look::of(&io::stdout(), Colour::Auto) };
    screen.introduction(&place, &provider);

    let bars = Arc::new(Bars::new(ACCOUNTS.len(), Look::of(&io::stderr(), Colour::Auto)));
    let shown = Shown::Bars(Arc::clone(&bars));
    let _log = shown.start_log(&config, Colour::Auto)?;
    let (deliveries, delivered) = mpsc::unbounded_channel();
    let watcher = Arc::new(Watcher { bars, feed: Arc::default(), deliveries, live: AtomicBool::new(false) });
    let parts = setup::build(&config, Arc::clone(&watcher) as Arc<dyn Observer>).await?;
    let mode = Mode { by_hand: true, dry_run: false };
    let reports = run_all(Arc::clone(&parts.site), parts.jobs().to_vec(), &config, mode).await;
    shown.finish();
    screen.say(&closing_table(&reports, width(&io::stdout()).unwrap_or(usize::MAX), screen.look));

    let mut show = Show { shelf: Shelf::new(place.mail()), place, provider, screen, waiting: HashMap::new(), shown: 0 };
    let balance = show.balance()?;
    show.screen.balance(&balance, &show.provider, &show.shelf);
    let mut exit = reports.iter().fold(verdict(&balance, 0), |exit, (_, report)| exit.worst(report.exit()));
    if !options.once && !told.is_finished() {
        watcher.live.store(true, Ordering::Relaxed);
        show.receive(&config, &parts, &watcher, delivered, told).await?;
        let balance = show.balance()?;
        let waits = show.excused();
        show.screen.end(&balance, &show.provider, &show.shelf, show.shown, waits);
        exit = exit.worst(verdict(&balance, waits));
    }
    show.screen.farewell(&show.place, options.once);
    parts.close().await;
    Ok(exit)
}

/// Whether the Maildirs have what the servers have, but for `waits` that could not come yet.
fn verdict(balance: &Balance, waits: usize) -> Exit {
    match balance {
        Balance { extra: 1.., .. } => Exit::Io,
        Balance { missing, .. } if missing.len() > waits => Exit::TempFail,
        _ => Exit::Ok,
    }
}

/// Passes progress to the bars, later to whoever watches over the control socket, and tells of each delivery.
struct Watcher {
    bars: Arc<Bars>,
    feed: Arc<control::Feed>,
    deliveries: mpsc::UnboundedSender<Instant>,
    live: AtomicBool,
}

impl Observer for Watcher {
    fn progress(&self, account: &str, progress: Progress<'_>) {
        if !self.live.load(Ordering::Relaxed) {
            self.bars.progress(account, progress);
            return;
        }
        self.feed.progress(account, progress);
        if matches!(progress, Progress::Delivered) {
            // Nobody listens when it is over.
            let _ = self.deliveries.send(Instant::now());
        }
    }
}

/// A letter that has arrived and is not with all its users yet.
struct Waiting {
    arrived: Instant,
    from: &'static str,
    subject: String,
    users: usize,
}

struct Show {
    place: Place,
    provider: Provider,
    shelf: Shelf,
    screen: Screen,
    /// By Message-ID.
    waiting: HashMap<String, Waiting>,
    /// Deliveries that were shown one by one.
    shown: usize,
}

impl Show {
    /// Goes on receiving until told to stop, or until nobody reads what is said.
    async fn receive(
        &mut self,
        config: &Config,
        parts: &setup::Parts,
        watcher: &Watcher,
        mut delivered: mpsc::UnboundedReceiver<Instant>,
        mut told: JoinHandle<()>,
    ) -> Result<(), Error> {
        // What came in the first round is not told again.
        self.shelf.news()?;
        self.screen.receiving(&self.place);
        let (_jobs, watched) = watch::channel(parts.jobs().to_vec());
        let (switch, stop) = watch::channel(false);
        let scheduler = Arc::new(Scheduler::new(Arc::clone(&parts.site), limits(config)));
        let control = Control {
            site: Arc::clone(&parts.site),
            state: Arc::clone(&parts.store),
            scheduler: Arc::clone(&scheduler),
            jobs: watched.clone(),
            feed: Arc::clone(&watcher.feed),
            stop: stop.clone(),
            config: config.clone(),
            accounts: None,
            quarantine: None,
        };
        let control = tokio::spawn(control.listen(parts.store.path())?);
        let running = tokio::spawn(async move { scheduler.run(watched, stop).await });

        let mut post = tokio::time::interval_at(tokio::time::Instant::now() + FIRST, PACE);
        post.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut arrived = 0;
        let ended = loop {
            tokio::select! {
                _ = &mut told => break Ok(()),
                Some(at) = delivered.recv() => match self.show(at) {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                },
                _ = post.tick(), if arrived < MOST => match self.arrive(arrived) {
                    Ok(()) => arrived += 1,
                    Err(error) => break Err(error),
                },
            }
        };
        switch.send_replace(true);
        for (name, task) in [("scheduler", running), ("control socket", control)] {
            match tokio::time::timeout(FAREWELL, task).await {
                Ok(Ok(())) => {}
                Ok(Err(panicked)) => error!(%panicked, name, "ended in a panic"),
                Err(_) => warn!(name, "did not end in time"),
            }
        }
        ended?;
        while let Ok(at) = delivered.try_recv() {
            self.show(at)?;
        }
        Ok(())
    }

    fn arrive(&mut self, n: usize) -> Result<(), Error> {
        let (letter, arrived, users) = self.provider.receive(n)?;
        let waiting = Waiting { arrived, from: letter.from, subject: letter.subject, users };
        self.waiting.insert(letter.message_id, waiting);
        Ok(())
    }

    /// A line for each new file; `at` is when its delivery was over. False when nobody reads it.
    fn show(&mut self, at: Instant) -> Result<bool, Error> {
        let mut heard = true;
        for found in self.shelf.news()? {
            let Some(waiting) = self.waiting.get_mut(&found.message_id) else { continue };
            let took = at.saturating_duration_since(waiting.arrived);
            heard &= self.screen.delivery(waiting, found.user, took);
            self.shown += 1;
            waiting.users = waiting.users.saturating_sub(1);
            if waiting.users == 0 {
                self.waiting.remove(&found.message_id);
            }
        }
        Ok(heard)
    }

    fn balance(&self) -> Result<Balance, Error> {
        self.shelf.balance(self.provider.due())
    }

    /// Deliveries that nobody can expect yet.
    fn excused(&self) -> usize {
        self.waiting.values().filter(|waiting| waiting.arrived.elapsed() < MAY_WAIT).map(|waiting| waiting.users).sum()
    }
}

/// What is said on standard output.
struct Screen {
    look: Look,
}

impl Screen {
    /// False when nobody reads it.
    fn say(&self, text: &str) -> bool {
        let mut out = io::stdout().lock();
        out.write_all(self.marked(text).as_bytes()).and_then(|()| out.flush()).is_ok()
    }

    /// What the terminal's locale can show.
    fn marked(&self, text: &str) -> String {
        if self.look.utf8 {
            text.to_owned()
        } else {
            text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
        }
    }

    fn introduction(&self, place: &Place, provider: &Provider) {
        let messages = counted(provider.len() as u64, "message", "messages");
        let mut text = format!("A sample provider runs in this process, with {messages} in three mailboxes:\n\n");
        for account in ACCOUNTS {
            text += &format!(
                "  {:<22}{} with TLS, port {:<5}  -> {:<9}  {}\n",
                account.address,
                if account.pop3 { "POP3" } else { "IMAP" },
                provider.port(account),
                account.users.join(", "),
                if account.listens { "listens" } else { "checked every 10 s" },
            );
        }
        text += &format!(
            "\nEverything is in {}, and nothing else is touched:\n\n  \
             connectord.toml  the configuration, to read\n  \
             mail/            the Maildirs of anna and bob\n  \
             state/           what connectord remembers\n  \
             provider/        what the sample servers have\n\n",
            Inert::text(&place.path().display().to_string()),
        );
        text += if place.is_from_earlier {
            "It is from an earlier demonstration: what was retrieved then does not come again.\n\n"
        } else {
            "First all of it is retrieved. Remote copies stay where they are.\n\n"
        };
        self.say(&text);
    }

    fn balance(&self, balance: &Balance, provider: &Provider, shelf: &Shelf) {
        self.say(&format!("\n{}\n\n{}", sentence(balance, provider, 0), directories(balance, shelf)));
    }

    fn receiving(&self, place: &Place) {
        let command = command(&place.config());
        let text = format!(
            "\nNow it goes on as `serve` does. Every few seconds a message arrives; Ctrl-C ends it.\n\
             Meanwhile, from another terminal:\n\n  \
             check all now   {command} fetch\n  \
             log in to all   {command} check --online\n  \
             see the mail    less {mail}\n\n{heads}",
            mail = quoted(&place.mail().join("anna/new")) + "/*",
            heads = line("TIME", "FROM", "SUBJECT", "FOR", "AFTER"),
        );
        self.say(&text);
    }

    fn delivery(&self, waiting: &Waiting, user: &str, took: Duration) -> bool {
        let now = jiff::Zoned::now().strftime("%H:%M:%S");
        let Waiting { from, subject, .. } = waiting;
        self.say(&line(&now.to_string(), from, subject, &format!("-> {user}"), &duration(took)))
    }

    fn end(&self, balance: &Balance, provider: &Provider, shelf: &Shelf, shown: usize, waits: usize) {
        let deliveries = counted(shown as u64, "delivery", "deliveries");
        let (sentence, directories) = (sentence(balance, provider, waits), directories(balance, shelf));
        self.say(&format!("\nStopped after {deliveries} while it ran.\n{sentence}\n\n{directories}"));
    }

    fn farewell(&self, place: &Place, once: bool) {
        let path = quoted(place.path());
        let once = if once { "--once " } else { "" };
        let text = format!(
            "\nThe sample servers are gone; the directory stays.\n\n  \
             read the configuration  less {config}\n  \
             run it again            {program} demo {once}--dir {path}\n  \
             remove it               rm -r {path}\n\n\
             Nothing comes twice when it is run again.\n",
            config = quoted(&place.config()),
            program = program(),
        );
        self.say(&text);
    }
}

/// A line for one delivery; how long after the message's arrival at its server comes last. The subject gets what is left.
fn line(time: &str, from: &str, subject: &str, user: &str, after: &str) -> String {
    let room = width(&io::stdout()).map_or(44, |columns| columns.saturating_sub(47).clamp(16, 44));
    // Letters are of narrow characters.
    let subject: String = if subject.chars().count() > room {
        subject.chars().take(room - 3).chain("...".chars()).collect()
    } else {
        subject.to_owned()
    };
    format!("{time:<8}  {from:<18}  {subject:<room$}  {user:<7} {after:>7}\n")
}

/// The count, in words.
fn sentence(balance: &Balance, provider: &Provider, waits: usize) -> String {
    let (there, due) = (counted(provider.len() as u64, "message", "messages"), provider.due().values().sum());
    let here = balance.here.values().sum();
    let missing = balance.missing.len().saturating_sub(waits) as u64;
    let mut text = format!(
        "Counted by Message-ID: {there} at the servers, some of them for two users;\n\
         {} to deliver, {} in the Maildirs; {} missing, {} came twice.",
        count(due),
        count(here),
        count(missing),
        count(balance.extra),
    );
    let waits = balance.missing.len().min(waits) as u64;
    if waits > 0 {
        text += &format!("\n{} only just arrived: due at the next check.", count(waits));
    }
    text
}

/// Where the Maildirs are, and how much is in each.
fn directories(balance: &Balance, shelf: &Shelf) -> String {
    let line = |user| {
        let messages = counted(balance.here.get(user).copied().unwrap_or(0), "message", "messages");
        format!("  {messages:>14}  {}\n", quoted(&shelf.maildir(user)))
    };
    Shelf::users().into_iter().map(line).collect()
}

/// This program, as it was called.
fn program() -> String {
    let program = std::env::args_os().next().unwrap_or_else(|| "connectord".into());
    quoted(Path::new(&program))
}

fn command(config: &Path) -> String {
    format!("{} --config {}", program(), quoted(config))
}

/// A path for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", Inert::text(&text).replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_differs_is_not_well() {
        let balance =
            |missing: usize, extra| Balance { missing: vec!["<a>".into(); missing], extra, ..Balance::default() };
        assert_eq!(verdict(&balance(0, 0), 0), Exit::Ok);
        assert_eq!(verdict(&balance(2, 0), 2), Exit::Ok);
        assert_eq!(verdict(&balance(3, 0), 2), Exit::TempFail);
        assert_eq!(verdict(&balance(0, 1), 0), Exit::Io);
    }

    #[test]
    fn a_path_can_be_pasted_into_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/demo-1")), "/tmp/demo-1");
        assert_eq!(quoted(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
    }
}
