//! An installation in memory: accounts, messages and parts made up, the same each time, so that pages can be tested and looked at.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use connectord_admin::*;
use tokio::sync::{broadcast, mpsc};

/// What a server, a sender or a folder may send: markup, a template's braces, a terminal's escapes, a change of direction.
pub const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'{{7*7}}\u{1b}[31m\u{202e}\u{7}<script>alert(2)</script>";

pub struct Sample {
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
    now: At,
    /// Put into every text that comes from outside.
    hostile: bool,
    /// Whether a test of a connection works.
    pub login_works: std::sync::atomic::AtomicBool,
}

struct State {
    accounts: Vec<Account>,
    versions: HashMap<String, Vec<(String, Settings)>>,
    secrets: HashMap<String, String>,
    keys: HashMap<String, String>,
    audit: Vec<Audit>,
    held: Vec<Held>,
    parked: Vec<Parked>,
    made: u64,
}

const USERS: [&str; 12] =
    ["anna", "bob", "clara", "david", "elena", "felix", "giulia", "hugo", "ines", "jan", "katja", "luca"];
const HOSTS: [&str; 6] = [
    "imap.example.org",
    "outlook.office365.com",
    "imap.big.example",
    "mail.hoster.example",
    "pop.isp.test",
    "imap.gmail.com",
];
const SUBJECTS: [&str; 8] = [
    "Rechnung 4711",
    "Invitation: planning for March",
    "Re: the offer of last week",
    "Newsletter",
    "You won",
    "Fattura n. 88/2026",
    "Compte rendu de la réunion",
    "Presupuesto revisado",
];

/// Numbers that look random and are the same each time.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

impl Sample {
    pub fn new(accounts: usize) -> Self {
        Self::made(accounts, false)
    }

    pub fn hostile(accounts: usize) -> Self {
        Self::made(accounts, true)
    }

    fn made(count: usize, hostile: bool) -> Self {
        let now = At::now();
        let mut sample = Self {
            state: Mutex::new(State {
                accounts: Vec::new(),
                versions: HashMap::new(),
                secrets: HashMap::new(),
                keys: HashMap::new(),
                audit: Vec::new(),
                held: Vec::new(),
                parked: Vec::new(),
                made: 0,
            }),
            events: broadcast::channel(256).0,
            now,
            hostile,
            login_works: true.into(),
        };
        let accounts = (0..count as u64).map(|n| sample.account_of(n)).collect();
        let held = (0..14.min(count as u64)).map(|n| sample.held_of(n)).collect();
        let parked = (0..3.min(count as u64)).map(|n| sample.parked_of(n)).collect();
        let state = sample.state.get_mut().expect("new");
        (state.accounts, state.held, state.parked) = (accounts, held, parked);
        sample
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds it")
    }

    /// A text from outside.
    fn outside(&self, text: &str) -> String {
        if self.hostile { format!("{text}{HOSTILE}") } else { text.to_owned() }
    }

    fn ago(&self, seconds: u64) -> At {
        At(self.now.0 - seconds as i64)
    }

    fn account_of(&self, n: u64) -> Account {
        let user = if n < 12 { ["anna", "bob"][(n % 2) as usize] } else { USERS[(mix(n) % 12) as usize] };
        let user = if n >= 24 { format!("{user}{}", n / 24) } else { user.to_owned() };
        let host = HOSTS[(mix(n + 7) % 6) as usize];
        let (protocol, security) = match (host, n % 17) {
            ("pop.isp.test", _) => (Protocol::Pop3, Security::Tls),
            (_, 3) => (Protocol::Imap, Security::Starttls),
            _ => (Protocol::Imap, Security::Tls),
        };
        let address = match n {
            0 => "info@example.org".to_owned(),
            1 => "old@isp.test".to_owned(),
            2 => "a.very.long.address.of.somebody.who.likes.long.names@department.of.long.names.example.org".to_owned(),
            _ => format!("{user}.{n}@{}", host.split_once('.').map_or(host, |(_, domain)| domain)),
        };
        let (health, cause) = match n {
            0 => (Health::Action, Some(self.cause(Code::LoginRefused, host, 5 * 3600).tried())),
            1 => (Health::Ok, None),
            n if n % 450 == 5 => (Health::Action, Some(self.cause(Code::OauthNeeded, "outlook.office365.com", 86_400))),
            n if n % 1500 == 7 => (Health::Action, Some(self.cause(Code::UserGone, host, 3600))),
            n if n % 121 == 9 => {
                (Health::Delayed, Some(self.cause(Code::NoAnswer, "imap.big.example", 2040).again(self.now.0 + 420)))
            }
            n if n % 2400 == 11 => {
                (Health::Delayed, Some(self.cause(Code::Throttled, "imap.gmail.com", 9000).again(self.now.0 + 30_000)))
            }
            n if n % 260 == 13 => (Health::New, None),
            n if n % 700 == 15 => (Health::Off, None),
            _ => (Health::Ok, None),
        };
        let activity = match n {
            1 => Activity::Checking,
            n if health == Health::Ok && n % 190 == 4 => Activity::Checking,
            n if health == Health::Ok && n % 8 == 2 => Activity::Listening,
            _ => Activity::Idle,
        };
        let progress = (activity == Activity::Checking).then(|| self.progress_of(n));
        let settings = Settings {
            address: self.outside(&address),
            protocol,
            security,
            host: self.outside(host),
            deliver_to: vec![self.outside(&user)],
            check: if activity == Activity::Listening { Check::Push } else { Check::Every(15) },
            delete: if n % 5 == 1 { Delete::After(7) } else { Delete::Never },
            folders: vec![self.outside("INBOX")],
            note: if n == 0 || self.hostile {
                self.outside("Shop of the village; the owner calls on Mondays.")
            } else {
                String::new()
            },
            enabled: health != Health::Off,
            ..Settings::default()
        };
        let quiet = matches!(health, Health::New | Health::Off);
        let row = Row {
            id: format!("a{n:x}"),
            address: settings.address.clone(),
            deliver_to: settings.deliver_to.clone(),
            protocol,
            host: settings.host.clone(),
            port: settings.effective_port(),
            security,
            health,
            activity,
            cause,
            last_ok: (!quiet).then(|| self.ago(if health == Health::Ok { 60 + mix(n) % 900 } else { 18_000 })),
            next: (!quiet && health != Health::Action).then(|| At(self.now.0 + 30 + (mix(n + 3) % 870) as i64)),
            today: (!quiet).then(|| mix(n + 1) % 30),
            parked: if n == 1 { 3 } else { 0 },
            source: if n % 800 == 6 { Source::File } else { Source::Page },
            progress,
            etag: "1".to_owned(),
        };
        let place = (row.source == Source::File).then(|| format!("config.toml, line {}", 40 + n));
        Account {
            secret: SecretState { set: true, at: Some(self.ago(200 * 86_400)), by: self.outside("anna") },
            edited_at: Some(self.ago(100 * 86_400)),
            edited_by: self.outside("anna"),
            place: place.map(|place| self.outside(&place)),
            checks: if quiet {
                Vec::new()
            } else {
                (0..48)
                    .map(|i| match mix(n * 48 + i) % 24 {
                        0 => 2,
                        1 | 2 => 1,
                        _ => 0,
                    })
                    .collect()
            },
            days: (0..14).map(|i| mix(n * 14 + i) % 40).collect(),
            days_octets: 48_100_000,
            folders_there: vec![self.outside("INBOX"), self.outside("Archive"), self.outside("Junk")],
            row,
            settings,
        }
    }

    fn cause(&self, code: Code, host: &str, since: u64) -> Cause {
        let mut cause = Cause::new(code);
        for word in code.row().words {
            let value = match *word {
                "host" => Value::Text(self.outside(host)),
                "port" => Value::Text("993".to_owned()),
                "messages" | "known" => Value::Count(3),
                "user" => Value::Text(self.outside("alice")),
                "folder" => Value::Text(self.outside("Rechnungen")),
                "part" => Value::Text(self.outside("Rspamd")),
                _ => Value::Text(self.outside("/var/lib/connectord")),
            };
            cause.words.insert(word, value);
        }
        cause.since = Some(self.ago(since));
        cause.said = (code == Code::LoginRefused)
            .then(|| self.outside("NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)"));
        cause
    }

    fn progress_of(&self, n: u64) -> Progress {
        let step = |name, state, result: &str, ms| Step { name, state, result: self.outside(result), ms, cause: None };
        let done = 100 + mix(n) % 900;
        Progress {
            steps: vec![
                step("connection", StepState::Ok, "pop.isp.test:995, TLS 1.3", Some(84)),
                step("login", StepState::Ok, "SCRAM-SHA-256", Some(120)),
                step("listed", StepState::Ok, "18,204 messages, 1,240 of them new", Some(310)),
                step("retrieving", StepState::Runs, "", None),
            ],
            done,
            total: Some(1240),
            octets: done * 34_000,
            rate_octets_s: Some(1_800_000),
            eta_s: Some(95),
            tally: vec![
                Tick { state: MessageState::Filtered, count: done - 12 },
                Tick { state: MessageState::Delivered, count: done - 19 },
                Tick { state: MessageState::Spam, count: 4 },
                Tick { state: MessageState::Quarantined, count: 1 },
                Tick { state: MessageState::Removed, count: 0 },
            ],
        }
    }

    fn message_of(&self, n: u64) -> Message {
        let state = match n % 11 {
            3 | 7 => MessageState::Spam,
            5 => MessageState::Quarantined,
            9 => MessageState::Removed,
            _ => MessageState::Delivered,
        };
        let score = matches!(state, MessageState::Spam).then_some(Score { milli: 14_200, limit_milli: 6_000 });
        let user = USERS[(mix(n) % 2) as usize];
        Message {
            id: format!("m{n}"),
            at: self.ago(20 + n * 97),
            state,
            subject: if n % 13 == 12 { String::new() } else { self.outside(SUBJECTS[(n % 8) as usize]) },
            from: self.outside(&format!("sender{}@shop.test", n % 40)),
            deliver_to: vec![self.outside(user)],
            account: format!("a{:x}", n % 12),
            address: self.outside("info@example.org"),
            message_id: self.outside(&format!("<{n}.4711@shop.test>")),
            octets: 3_000 + mix(n) % 90_000,
            score,
        }
    }

    fn held_of(&self, n: u64) -> Held {
        let virus = n.is_multiple_of(3);
        Held {
            id: format!("q{n}"),
            held_at: self.ago(7200 + n * 11_000),
            deliver_to: vec![self.outside(USERS[(n % 2) as usize])],
            address: self.outside("info@example.org"),
            why: if virus { Why::Virus } else { Why::Spam },
            name: if virus { self.outside("Eicar-Test") } else { String::new() },
            score: (!virus).then_some(Score { milli: 21_400 + n as i64 * 100, limit_milli: 15_000 }),
            from: self.outside("news@shop.test"),
            subject: self.outside(if virus { "Invoice.zip" } else { "Sale" }),
            octets: 34_000,
            expires: At(self.now.0 + (30 - n as i64) * 86_400),
        }
    }

    fn parked_of(&self, n: u64) -> Parked {
        Parked {
            id: format!("p{n}"),
            at: self.ago(5000 * (n + 1)),
            account: "a1".to_owned(),
            address: self.outside("old@isp.test"),
            deliver_to: vec![self.outside("anna")],
            from: self.outside("photos@family.test"),
            subject: self.outside("All the pictures"),
            octets: 84_000_000,
            reason: self.outside(
                ["84 MB, the limit is 50 MB", "cut short 3 times", "refused here: «550 5.7.1 no»"][(n % 3) as usize],
            ),
            tries: 3,
        }
    }

    fn changed(&self, id: &str) {
        let _ = self.events.send(Event::Account { id: id.to_owned() });
    }

    /// Tells a line of the log.
    pub fn log_line(&self, text: &str) {
        let line = LogLine { at: At::now(), level: "info", account: String::new(), text: text.to_owned() };
        let _ = self.events.send(Event::Log(Box::new(line)));
    }

    /// Lets an account's check come further.
    pub fn advance(&self, id: &str, done: u64) {
        if let Some(account) = self.state().accounts.iter_mut().find(|a| a.row.id == id) {
            account.row.activity = Activity::Checking;
            account.row.progress = Some(Progress { done, total: Some(1240), ..Progress::default() });
        }
        self.changed(id);
    }

    /// Lets an account's next check have been due so long ago.
    pub fn overdue(&self, id: &str, seconds: u64) {
        let at = self.ago(seconds);
        if let Some(account) = self.state().accounts.iter_mut().find(|a| a.row.id == id) {
            account.row.next = Some(at);
            account.row.activity = Activity::Idle;
        }
    }

    /// Lets an account deliver to these users.
    pub fn deliver_to(&self, id: &str, users: &[&str]) {
        if let Some(account) = self.state().accounts.iter_mut().find(|a| a.row.id == id) {
            account.row.deliver_to = users.iter().map(|user| (*user).to_owned()).collect();
            account.settings.deliver_to.clone_from(&account.row.deliver_to);
        }
    }

    /// What the audit says, newest last.
    pub fn audit_words(&self) -> Vec<String> {
        self.state().audit.iter().map(|audit| format!("{} {}", audit.who, audit.what)).collect()
    }

    /// The secret of an account, as stored.
    pub fn secret(&self, id: &str) -> Option<String> {
        self.state().secrets.get(id).cloned()
    }

    fn wanted(state: &State, which: &Which) -> Vec<String> {
        match which {
            Which::Ids(ids) => ids.clone(),
            Which::Matching(query) => {
                state.accounts.iter().filter(|a| matches(a, query)).map(|a| a.row.id.clone()).collect()
            }
        }
    }

    fn tested(&self, entered: &Entered) -> Test {
        let works = self.login_works.load(std::sync::atomic::Ordering::SeqCst);
        let mut steps = Vec::new();
        for name in Step::NAMES {
            let after = steps.iter().any(|step: &Step| step.state == StepState::Failed);
            let failed = name == "login" && !works;
            let state = if after {
                StepState::NotReached
            } else if failed {
                StepState::Failed
            } else {
                StepState::Ok
            };
            let result = match (name, state) {
                (_, StepState::NotReached) => "",
                ("name", _) => "3 addresses",
                ("connection", _) => "192.0.2.7:993",
                ("encryption", _) => "TLS 1.3, until 3 Mar 2027",
                ("greeting", _) => "IMAP4rev1",
                ("login", _) => "SCRAM-SHA-256",
                ("mailbox", _) => "18,204 messages in 4 folders",
                _ => "anna is known",
            };
            let cause = failed.then(|| self.cause(Code::LoginRefused, &entered.settings.host, 0));
            let ms = (state != StepState::NotReached).then_some(12);
            steps.push(Step { name, state, result: self.outside(result), ms, cause });
        }
        let messages = works.then_some(18_204);
        Test {
            ok: works,
            steps,
            messages,
            folders: if works { vec![self.outside("INBOX"), self.outside("Archive")] } else { Vec::new() },
        }
    }
}

trait Tried {
    fn tried(self) -> Self;
    fn again(self, next: i64) -> Self;
}

impl Tried for Cause {
    fn tried(mut self) -> Self {
        self.tries = 2;
        self
    }

    fn again(mut self, next: i64) -> Self {
        self.next = Some(At(next));
        self
    }
}

fn holds(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

fn matches(account: &Account, query: &AccountQuery) -> bool {
    let row = &account.row;
    let code = row.cause.as_ref().map(|cause| cause.code.word());
    (query.ids.is_empty() || query.ids.contains(&row.id))
        && query.health.is_none_or(|health| health == row.health)
        && query.activity.is_none_or(|activity| activity == row.activity)
        && query.source.is_none_or(|source| source == row.source)
        && query
            .user
            .as_ref()
            .is_none_or(|user| row.deliver_to.contains(user) && (!query.alone || row.deliver_to.len() == 1))
        && query.host.as_ref().is_none_or(|host| holds(&row.host, host))
        && query.cause.as_ref().is_none_or(|cause| code == Some(cause))
        && query.text.split_whitespace().all(|word| {
            holds(&row.address, word)
                || holds(&row.host, word)
                || holds(&account.settings.note, word)
                || row.deliver_to.iter().any(|user| holds(user, word))
        })
}

/// A page by its offset: good enough for what does not change meanwhile.
fn paged<T: Clone>(items: &[T], after: Option<&str>, limit: usize) -> Page<T> {
    let from: usize = after.and_then(|after| after.parse().ok()).unwrap_or(0);
    let page: Vec<T> = items.iter().skip(from).take(limit).cloned().collect();
    let next = (from + page.len() < items.len()).then(|| (from + page.len()).to_string());
    Page { items: page, next, total: items.len() as u64 }
}

fn counted<'a>(accounts: impl Iterator<Item = &'a Account>) -> Counts {
    let mut counts = Counts::default();
    for account in accounts {
        counts.add(account.row.health, account.row.source);
    }
    counts
}

#[async_trait]
impl Backend for Sample {
    async fn overview(&self, hours: u32) -> Answer<Overview> {
        let state = self.state();
        let mut lines: BTreeMap<(bool, &str, String), CauseLine> = BTreeMap::new();
        for account in &state.accounts {
            let Some(cause) = &account.row.cause else { continue };
            let needs_action = account.row.health == Health::Action;
            let host = if let Some(Value::Text(host)) = cause.words.get("host") { host.clone() } else { String::new() };
            let line = lines.entry((!needs_action, cause.code.word(), host.clone())).or_insert_with(|| CauseLine {
                cause: cause.clone(),
                host,
                accounts: 0,
                account: Some((account.row.id.clone(), account.row.address.clone())),
                needs_action,
                since: cause.since,
                next: cause.next,
            });
            line.accounts += 1;
            if line.accounts > 1 {
                line.account = None;
            }
        }
        let of = |activity| state.accounts.iter().filter(|a| a.row.activity == activity).count() as u64;
        let (count, step) = if hours > 48 { (hours / 24, 86_400) } else { (hours, 3600) };
        let hours = (0..u64::from(count)).map(|n| {
            let at = self.ago((u64::from(count) - n) * step);
            let busy = 200 + mix(n) % 900 + if (7..18).contains(&(n % 24)) { 700 } else { 0 };
            let down = n == 3 && !state.accounts.is_empty();
            if state.accounts.is_empty() {
                Hour { at, ..Hour::default() }
            } else {
                Hour { at, delivered: busy, spam: busy / 9, quarantined: busy / 90, down }
            }
        });
        let part = |name: &str, ms, detail: &str| Part {
            name: self.outside(name),
            state: PartState::Ok,
            latency_ms: ms,
            detail: self.outside(detail),
        };
        Ok(Overview {
            version: "0.4.0".to_owned(),
            machine: "mail.example.org".to_owned(),
            since: self.ago(525_600),
            accounts: counted(state.accounts.iter()),
            checking: of(Activity::Checking),
            queued: of(Activity::Queued),
            listening: of(Activity::Listening),
            today: Hour { at: self.now, delivered: 16_302, spam: 1902, quarantined: 14, down: false },
            quarantine: state.held.len() as u64,
            parked: state.parked.len() as u64,
            causes: lines.into_values().collect(),
            running: state
                .accounts
                .iter()
                .filter(|a| a.row.activity == Activity::Checking)
                .take(6)
                .map(|a| a.row.clone())
                .collect(),
            hours: hours.collect(),
            health: vec![
                part("Rspamd", Some(38), "http://127.0.0.1:11333"),
                part("ClamAV", Some(12), "/run/clamav/clamd.ctl"),
                part("LMTP", Some(4), "/run/dovecot/lmtp"),
            ],
            users: 1204,
        })
    }

    async fn accounts(&self, query: &AccountQuery) -> Answer<(Page<Row>, Counts)> {
        let state = self.state();
        let broad = AccountQuery { health: None, ..query.clone() };
        let counts = counted(state.accounts.iter().filter(|a| matches(a, &broad)));
        let mut found: Vec<&Account> = state.accounts.iter().filter(|a| matches(a, query)).collect();
        found.sort_by_key(|a| match (query.group, query.sort) {
            (Group::User, _) => (0, a.row.deliver_to[0].clone()),
            (_, Sort::Worst) => (
                u64::from(a.row.activity != Activity::Checking && a.row.health == Health::Ok) + a.row.health as u64 * 2,
                String::new(),
            ),
            (_, Sort::Address) => (0, a.row.address.clone()),
            (_, Sort::User) => (0, a.row.deliver_to[0].clone()),
            (_, Sort::Host) => (0, a.row.host.clone()),
            (_, Sort::LastOk) => (a.row.last_ok.map_or(0, |at| at.0 as u64), String::new()),
        });
        let rows: Vec<Row> = found.into_iter().map(|a| a.row.clone()).collect();
        Ok((paged(&rows, query.after.as_deref(), query.limit), counts))
    }

    async fn account(&self, id: &str) -> Answer<Account> {
        self.state().accounts.iter().find(|a| a.row.id == id).cloned().ok_or(Refusal::NotFound)
    }

    async fn create(&self, caller: &Caller, entered: Entered, saving: Saving) -> Answer<String> {
        if let Some(id) = saving.idempotency_key.as_ref().and_then(|key| self.state().keys.get(key).cloned()) {
            return Ok(id);
        }
        let same = |a: &Account| {
            a.settings.host.eq_ignore_ascii_case(&entered.settings.host)
                && a.settings.effective_username().eq_ignore_ascii_case(entered.settings.effective_username())
                && a.settings.deliver_to == entered.settings.deliver_to
        };
        if let Some(other) = self.state().accounts.iter().find(|a| same(a)) {
            return Err(Refusal::Duplicate { id: other.row.id.clone(), address: other.row.address.clone() });
        }
        let test = self.tested(&entered);
        if !test.ok && !saving.untested {
            return Err(Refusal::TestFailed(Box::new(test)));
        }
        let mut account = self.account_of(100_013);
        let mut state = self.state();
        state.made += 1;
        account.row = Row {
            id: format!("n{}", state.made),
            address: entered.settings.address.clone(),
            deliver_to: entered.settings.deliver_to.clone(),
            host: entered.settings.host.clone(),
            port: entered.settings.effective_port(),
            protocol: entered.settings.protocol,
            security: entered.settings.security,
            health: Health::New,
            activity: Activity::Queued,
            cause: None,
            last_ok: None,
            next: None,
            today: None,
            parked: 0,
            source: Source::Page,
            progress: None,
            etag: "1".to_owned(),
        };
        account.place = None;
        account.settings = entered.settings;
        account.secret = SecretState { set: entered.secret.is_some(), at: Some(At::now()), by: caller.name.clone() };
        account.edited_by.clone_from(&caller.name);
        let id = account.row.id.clone();
        if let Some(secret) = entered.secret {
            state.secrets.insert(id.clone(), secret.expose().to_owned());
        }
        if let Some(key) = saving.idempotency_key {
            state.keys.insert(key, id.clone());
        }
        state.accounts.insert(0, account);
        drop(state);
        self.changed(&id);
        Ok(id)
    }

    async fn update(&self, caller: &Caller, id: &str, entered: Entered, saving: Saving) -> Answer<()> {
        let current = self.account(id).await?;
        if current.row.source == Source::File {
            return Err(Refusal::FromFile);
        }
        if saving.if_match.as_ref().is_some_and(|etag| *etag != current.row.etag) {
            let state = self.state();
            let versions = state.versions.get(id);
            let base =
                versions.and_then(|versions| versions.iter().find(|(etag, _)| Some(etag) == saving.if_match.as_ref()));
            return Err(Refusal::Changed {
                base: base.map(|(_, settings)| Box::new(settings.clone())),
                current: Box::new(current),
            });
        }
        let connection = !entered.settings.same_recipient_of_secret(&current.settings) || entered.secret.is_some();
        let test = self.tested(&entered);
        if connection && !test.ok && !saving.untested {
            return Err(Refusal::TestFailed(Box::new(test)));
        }
        let mut state = self.state();
        state.versions.entry(id.to_owned()).or_default().push((current.row.etag.clone(), current.settings.clone()));
        if let Some(secret) = &entered.secret {
            state.secrets.insert(id.to_owned(), secret.expose().to_owned());
        }
        if let Some(account) = state.accounts.iter_mut().find(|a| a.row.id == id) {
            let etag: u64 = account.row.etag.parse().unwrap_or(0);
            account.row.etag = (etag + 1).to_string();
            account.row.address.clone_from(&entered.settings.address);
            account.row.host.clone_from(&entered.settings.host);
            account.row.deliver_to.clone_from(&entered.settings.deliver_to);
            account.settings = entered.settings;
            account.edited_by.clone_from(&caller.name);
            account.edited_at = Some(At::now());
        }
        drop(state);
        self.changed(id);
        Ok(())
    }

    async fn delete(&self, _: &Caller, id: &str, if_match: Option<&str>) -> Answer<()> {
        let current = self.account(id).await?;
        if if_match.is_some_and(|etag| etag != current.row.etag) {
            return Err(Refusal::Changed { base: None, current: Box::new(current) });
        }
        self.state().accounts.retain(|a| a.row.id != id);
        let _ = self.events.send(Event::Gone { id: id.to_owned() });
        Ok(())
    }

    async fn switch(&self, _: &Caller, which: Which, on: bool) -> Answer<u64> {
        let mut state = self.state();
        let ids = Self::wanted(&state, &which);
        for account in state.accounts.iter_mut().filter(|a| ids.contains(&a.row.id)) {
            account.settings.enabled = on;
            account.row.health = if on { Health::New } else { Health::Off };
        }
        Ok(ids.len() as u64)
    }

    async fn check(&self, _: &Caller, which: Which) -> Answer<u64> {
        let mut state = self.state();
        let ids = Self::wanted(&state, &which);
        for account in state.accounts.iter_mut().filter(|a| ids.contains(&a.row.id)) {
            account.row.activity = Activity::Queued;
        }
        drop(state);
        ids.iter().take(50).for_each(|id| self.changed(id));
        Ok(ids.len() as u64)
    }

    async fn stop(&self, _: &Caller, which: Which) -> Answer<u64> {
        let mut state = self.state();
        let ids = Self::wanted(&state, &which);
        for account in state.accounts.iter_mut().filter(|a| ids.contains(&a.row.id)) {
            account.row.activity = Activity::Idle;
            account.row.progress = None;
        }
        drop(state);
        ids.iter().take(50).for_each(|id| self.changed(id));
        Ok(ids.len() as u64)
    }

    async fn test(&self, _: &Caller, _: Option<&str>, entered: Entered, steps: mpsc::Sender<Step>) -> Answer<Test> {
        let test = self.tested(&entered);
        for step in &test.steps {
            let _ = steps.send(step.clone()).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(test)
    }

    async fn suggest(&self, address: &str) -> Answer<Option<Settings>> {
        let domain = address.rsplit('@').next().unwrap_or("");
        Ok((domain == "example.org").then(|| Settings { host: "imap.example.org".to_owned(), ..Settings::default() }))
    }

    async fn runs(&self, id: &str, after: Option<&str>, limit: usize) -> Answer<Page<Run>> {
        let account = self.account(id).await?;
        if account.checks.is_empty() {
            return Ok(Page::default());
        }
        let runs: Vec<Run> = (0..60)
            .map(|n| Run {
                number: 1000 - n,
                at: self.ago(900 * n + 100),
                duration_ms: 1200 + mix(n) % 3000,
                listed: 18_204,
                retrieved: mix(n) % 9,
                delivered: mix(n) % 9,
                removed: 0,
                octets: 100_000,
                cause: (n == 2).then(|| self.cause(Code::NoAnswer, &account.row.host, 2000)),
            })
            .collect();
        Ok(paged(&runs, after, limit))
    }

    async fn users(&self, query: &UserQuery) -> Answer<Page<User>> {
        let state = self.state();
        let mut users: Vec<User> = USERS
            .iter()
            .chain(&["mark", "alice"])
            .map(|name| {
                let name = self.outside(name);
                let accounts = counted(state.accounts.iter().filter(|a| a.row.deliver_to.contains(&name)));
                User { here: !name.starts_with("mark"), today: (accounts.total > 0).then_some(214), accounts, name }
            })
            .collect();
        users.retain(|user| {
            holds(&user.name, &query.text) && query.with_accounts.is_none_or(|with| with == (user.accounts.total > 0))
        });
        Ok(paged(&users, query.after.as_deref(), query.limit))
    }

    async fn messages(&self, query: &MessageQuery) -> Answer<Page<Message>> {
        let messages: Vec<Message> = (0..400)
            .map(|n| self.message_of(n))
            .filter(|m| query.state.is_none_or(|state| state == m.state))
            .filter(|m| query.user.as_ref().is_none_or(|user| m.deliver_to.contains(user)))
            .filter(|m| query.account.as_ref().is_none_or(|account| m.account == *account))
            .filter(|m| {
                holds(&m.subject, &query.text) || holds(&m.from, &query.text) || holds(&m.message_id, &query.text)
            })
            .collect();
        Ok(paged(&messages, query.after.as_deref(), query.limit))
    }

    async fn message(&self, id: &str) -> Answer<(Message, Vec<Trail>)> {
        let n = id.strip_prefix('m').and_then(|n| n.parse().ok()).filter(|n| *n < 400).ok_or(Refusal::NotFound)?;
        let message = self.message_of(n);
        let step = |seconds: i64, what, detail: &str| Trail {
            at: At(message.at.0 - seconds),
            what,
            detail: self.outside(detail),
        };
        let trail = vec![
            step(8, "seen", "INBOX, UID 4711"),
            step(7, "retrieved", "34 kB"),
            step(7, "relay", "198.51.100.7 (mx.shop.test)"),
            step(3, "filter", "Rspamd 1.2 of 6"),
            step(3, "filter", "ClamAV clean"),
            step(1, "delivered", "250 2.0.0 Saved"),
            step(0, "removed", ""),
        ];
        Ok((message, trail))
    }

    async fn quarantine(&self, query: &HeldQuery) -> Answer<Page<Held>> {
        let held: Vec<Held> = self
            .state()
            .held
            .iter()
            .filter(|h| query.why.is_none_or(|why| why == h.why))
            .filter(|h| query.user.as_ref().is_none_or(|user| h.deliver_to.contains(user)))
            .filter(|h| holds(&h.subject, &query.text) || holds(&h.from, &query.text))
            .cloned()
            .collect();
        Ok(paged(&held, query.after.as_deref(), query.limit))
    }

    async fn held(&self, id: &str) -> Answer<HeldDetail> {
        let held = self.state().held.iter().find(|h| h.id == id).cloned().ok_or(Refusal::NotFound)?;
        Ok(HeldDetail {
            head: vec![
                ("From".to_owned(), held.from.clone()),
                ("To".to_owned(), self.outside("info@example.org")),
                ("Subject".to_owned(), held.subject.clone()),
                (
                    "Received".to_owned(),
                    self.outside(
                        "from mx.shop.test (198.51.100.7) by mail.provider.test; Mon, 30 Nov 2026 14:02:11 +0100",
                    ),
                ),
            ],
            symbols: [("BAYES_SPAM", 5_100), ("URIBL_BLACK", 7_500), ("FORGED_SENDER", 300)]
                .map(|(name, n)| (self.outside(name), n))
                .to_vec(),
            symbols_total: 31,
            handed_over_by: self.outside("198.51.100.7 (mx.shop.test)"),
            there: true,
            held,
        })
    }

    async fn held_octets(&self, id: &str, _: usize) -> Answer<bytes::Bytes> {
        self.held(id).await?;
        Ok(bytes::Bytes::from(format!("Subject: {HOSTILE}\r\n\r\n<script>alert(3)</script>\r\n")))
    }

    async fn release(&self, _: &Caller, ids: &[String], _: bool) -> Answer<u64> {
        let mut state = self.state();
        let before = state.held.len();
        state.held.retain(|h| !ids.contains(&h.id));
        Ok((before - state.held.len()) as u64)
    }

    async fn discard(&self, caller: &Caller, ids: &[String]) -> Answer<u64> {
        self.release(caller, ids, false).await
    }

    async fn parked(&self, query: &HeldQuery) -> Answer<Page<Parked>> {
        let parked: Vec<Parked> = self
            .state()
            .parked
            .iter()
            .filter(|p| holds(&p.subject, &query.text) || holds(&p.address, &query.text))
            .cloned()
            .collect();
        Ok(paged(&parked, query.after.as_deref(), query.limit))
    }

    async fn settle_parked(&self, _: &Caller, ids: &[String], _: ParkedAction) -> Answer<u64> {
        let mut state = self.state();
        let before = state.parked.len();
        state.parked.retain(|p| !ids.contains(&p.id));
        Ok((before - state.parked.len()) as u64)
    }

    async fn log(&self, query: &LogQuery) -> Answer<Vec<LogLine>> {
        const LINES: [(&str, &str, &str); 5] = [
            (
                "info",
                "info@example.org",
                "check ended listed=18204 retrieved=4 delivered=4 deferred=0 removed=0 duration_ms=1312",
            ),
            (
                "info",
                "anna@example.org",
                "delivery message_id=<1.4711@shop.test> size=34120 to=anna relay=lmtp dsn=2.0.0 status=delivered delay_ms=41",
            ),
            (
                "warn",
                "u9@big.example",
                "check ended error=\"no answer from imap.big.example:993 within 20s\" during=connect",
            ),
            ("debug", "", "lease renewed"),
            ("error", "", "filter rspamd: connection refused"),
        ];
        let lines = (0..120_u64).map(|n| {
            let (level, account, text) = LINES[(mix(n) % 5) as usize];
            LogLine {
                at: self.ago(1200 - n * 10),
                level,
                account: if account.is_empty() { String::new() } else { self.outside(account) },
                text: self.outside(text),
            }
        });
        Ok(lines.filter(|line| query.wants(line)).take(query.limit).collect())
    }

    async fn installation(&self) -> Answer<Installation> {
        let entry =
            |key: &str, value: &str, line| ConfigEntry { key: key.to_owned(), value: self.outside(value), line };
        Ok(Installation {
            file: self.outside("/etc/connectord/config.toml"),
            entries: vec![
                entry("state.url", "sqlite:///var/lib/connectord/state.db", Some(2)),
                entry("admin.listen", "127.0.0.1:8025", Some(6)),
                entry("delivery.type", "lmtp", Some(9)),
                entry("delivery.address", "unix:/run/dovecot/lmtp", Some(10)),
                entry("filter.rspamd.url", "http://127.0.0.1:11333", Some(14)),
                entry("filter.clamav.address", "unix:/run/clamav/clamd.ctl", Some(17)),
                entry("schedule.per_host", "4", None),
            ],
            deliveries: vec!["archive".to_owned()],
            users_source: self.outside("the LMTP server"),
            antispam: "Rspamd".to_owned(),
            antivirus: "ClamAV".to_owned(),
            trail_days: 90,
            quarantine_days: 30,
        })
    }

    async fn health(&self) -> Answer<Vec<Part>> {
        Ok(self.overview(1).await?.health)
    }

    async fn note(&self, audit: Audit) {
        self.state().audit.push(audit);
    }

    async fn audit(&self, after: Option<&str>, limit: usize) -> Answer<Page<Audit>> {
        let mut audit = self.state().audit.clone();
        audit.push(Audit {
            at: self.now,
            who: self.outside("anna"),
            what: "account.update".to_owned(),
            subject: self.outside("info@example.org"),
            detail: self.outside("check: 30m to 15m"),
        });
        audit.reverse();
        Ok(paged(&audit, after, limit))
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
