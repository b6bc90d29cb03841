//! Many accounts in IDLE in one daemon: memory for each, and how soon mail that arrives is delivered.
//!
//!     cargo build --release -p connectord -p connectord-benches
//!     target/release/idle [--program FILE] [--accounts N] [--hosts N] [--arrivals N] [--rate PER_SECOND] [--smoke]
//!
//! The server is another process, and connectord is the real program with a generated configuration. Needs two open files
//! per account, half of them in each process (`ulimit -n`).

mod floor;
mod server;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What is waited for at most: all logins, all deliveries.
const PATIENCE: Duration = Duration::from_secs(900);

/// Users whose Maildirs the accounts share.
const USERS: usize = 100;

#[derive(Clone, Debug)]
struct Wanted {
    program: PathBuf,
    accounts: usize,
    hosts: usize,
    arrivals: usize,
    rate: f64,
    quiet: Duration,
}

/// The address of a host, counted from 1: one address has ports for some 28,000 connections.
fn host(number: usize) -> String {
    let last = u8::try_from(number).expect("at most 254 hosts");
    Ipv4Addr::new(127, 0, 0, last).to_string()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no number"));
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", accounts, hosts] => return server::serve(number(accounts), number(hosts)),
        ["floor", connections, hosts, port, ca_file] => {
            let port = u16::try_from(number(port)).expect("it is a port");
            return floor::listen(number(connections), number(hosts), port, ca_file);
        }
        _ => {}
    }
    let here = std::env::current_exe().expect("a program knows where it is");
    let mut wanted = Wanted {
        program: here.with_file_name("connectord"),
        accounts: 10_000,
        hosts: 10,
        arrivals: 3000,
        rate: 100.0,
        quiet: Duration::from_secs(20),
    };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        if name == "--smoke" {
            wanted = Wanted { accounts: 20, hosts: 2, arrivals: 20, quiet: Duration::from_secs(1), ..wanted };
            continue;
        }
        let value = rest.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--program" => wanted.program = value.into(),
            "--accounts" => wanted.accounts = number(value),
            "--hosts" => wanted.hosts = number(value),
            "--arrivals" => wanted.arrivals = number(value),
            "--rate" => wanted.rate = value.parse().expect("--rate is a number"),
            _ => panic!("{name} is unknown"),
        }
    }
    measure(&wanted);
}

fn measure(wanted: &Wanted) {
    let Wanted { accounts, hosts, .. } = *wanted;
    println!("{accounts} accounts at {hosts} hosts; memory is what is resident, in KiB");
    let floor = {
        let server = Server::start(accounts, hosts);
        let plain = |connections| {
            let mut child = floor_process(connections, hosts, &server);
            let memory = memory(child.id());
            child.kill().and_then(|()| child.wait()).expect("it is our child");
            memory
        };
        let (few, many) = (plain(1), plain(accounts));
        per_account(few, many, accounts)
    };
    println!("{:<44} {floor:>10.1}", "a connection of plain tokio and rustls");
    {
        let server = Server::start(1, 1);
        let own = std::process::id();
        floor::handshakes(if accounts > 100 { 2000 } else { 20 }, server.port, &server.ca_file, || cpu(own));
    }

    let few = {
        let server = Server::start(1, 1);
        let daemon = Daemon::start(wanted, &server, 1);
        daemon.wait_until_listening(&server, 1);
        std::thread::sleep(Duration::from_secs(2));
        memory(daemon.child.id())
    };
    println!("{:<44} {few:>10}", "connectord with one account");
    let mut server = Server::start(accounts, hosts);
    let began = Instant::now();
    let daemon = Daemon::start(wanted, &server, accounts);
    daemon.wait_until_listening(&server, accounts as u64);
    let (took, cpu) = (began.elapsed(), daemon.cpu());
    println!("{:<44} {:>10.1} s", "until all listen", took.as_secs_f64());
    println!("{:<44} {:>10.2} ms", "CPU per account until it listens", cpu.as_secs_f64() * 1e3 / accounts as f64);
    std::thread::sleep(wanted.quiet);
    let many = memory(daemon.child.id());
    println!("{:<44} {many:>10}", "connectord with all accounts");
    println!("{:<44} {:>10.1}", "per account, TLS included", per_account(few, many, accounts));
    let before = daemon.cpu();
    std::thread::sleep(wanted.quiet);
    let idle = (daemon.cpu() - before).as_secs_f64() / wanted.quiet.as_secs_f64();
    println!("{:<44} {:>10.2} %", "of one CPU while nothing arrives", idle * 100.0);

    let before = daemon.cpu();
    let mut late = server.deliver(&daemon, wanted);
    let cpu = (daemon.cpu() - before).as_secs_f64() * 1e3 / late.len().max(1) as f64;
    late.sort_unstable();
    println!("{} arrivals, {} a second, from the announcement to the file in new/, in ms", late.len(), wanted.rate);
    for (name, share) in [("median", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("all", 1.0)] {
        let place = ((late.len() as f64 * share).ceil() as usize).clamp(1, late.len().max(1)) - 1;
        println!("{name:<44} {:>10.1}", late.get(place).copied().unwrap_or_default() as f64 / 1e3);
    }
    println!("{:<44} {cpu:>10.2} ms", "CPU per arrival");
    let many = memory(daemon.child.id());
    println!("{:<44} {:>10.1}", "per account after the arrivals", per_account(few, many, accounts));
    let [logins, resumed, listening, renewals, commands] = server.count();
    println!(
        "the server saw {logins} logins ({resumed} of them with a ticket), {listening} listening now, {renewals} ends of \
         IDLE, {commands} commands"
    );
}

fn per_account(few: u64, many: u64, accounts: usize) -> f64 {
    many.saturating_sub(few) as f64 / (accounts.max(2) - 1) as f64
}

/// What a process has resident, in KiB.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("it is a number")
}

/// User and system time of a process so far.
fn cpu(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |place: usize| fields.get(place).and_then(|text| text.parse().ok()).unwrap_or(0u64);
    // In hundredths of a second on every Linux: USER_HZ.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

struct Server {
    child: Child,
    input: ChildStdin,
    said: mpsc::Receiver<String>,
    port: u16,
    ca_file: String,
}

impl Server {
    fn start(accounts: usize, hosts: usize) -> Self {
        let here = std::env::current_exe().expect("a program knows where it is");
        let mut child = Command::new(here)
            .args(["server", &accounts.to_string(), &hosts.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let input = child.stdin.take().expect("it is a pipe");
        let said = lines(&mut child);
        let ready: String = said.recv().expect("the server is ready");
        let words: Vec<&str> = ready.split(' ').collect();
        let ["ready", port, ca_file] = words[..] else { panic!("the server said {ready}") };
        Self { child, input, said, port: port.parse().expect("it is a port"), ca_file: ca_file.to_owned() }
    }

    /// Logins, those with a ticket, listening now, ends of IDLE, commands.
    fn count(&mut self) -> [u64; 5] {
        writeln!(self.input, "count").expect("the server reads");
        let line = loop {
            let line = self.said.recv_timeout(PATIENCE).expect("the server answers");
            if let Some(counts) = line.strip_prefix("count ") {
                break counts.to_owned();
            }
        };
        let counts: Vec<u64> = line.split(' ').filter_map(|count| count.parse().ok()).collect();
        counts.try_into().expect("five numbers")
    }

    /// How late each arrival was delivered, in microseconds.
    fn deliver(&mut self, daemon: &Daemon, wanted: &Wanted) -> Vec<u64> {
        writeln!(self.input, "arrive {} {}", wanted.arrivals, wanted.rate).expect("the server reads");
        let mut announced: HashMap<String, u64> = HashMap::new();
        while announced.len() < wanted.arrivals {
            let line = self.said.recv_timeout(PATIENCE).expect("the server goes on");
            if let Some((token, at)) = line.strip_prefix("at ").and_then(|line| line.split_once(' ')) {
                announced.insert(token.to_owned(), at.parse().expect("a time"));
            }
        }
        let began = Instant::now();
        loop {
            let delivered = daemon.delivered();
            if delivered.len() >= wanted.arrivals || began.elapsed() > Duration::from_secs(60) {
                let known = delivered.iter().filter_map(|(token, at)| Some(at.saturating_sub(*announced.get(token)?)));
                return known.collect();
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // Nothing is left to do for a child that is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

/// What a child says, line by line.
fn lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

fn floor_process(connections: usize, hosts: usize, server: &Server) -> Child {
    let here = std::env::current_exe().expect("a program knows where it is");
    let mut child = Command::new(here)
        .args(["floor", &connections.to_string(), &hosts.to_string(), &server.port.to_string(), &server.ca_file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the client starts");
    let said = lines(&mut child);
    assert_eq!(said.recv_timeout(PATIENCE).as_deref(), Ok("listening"));
    std::thread::sleep(Duration::from_secs(1));
    child
}

struct Daemon {
    child: Child,
    directory: tempfile::TempDir,
}

impl Daemon {
    fn start(wanted: &Wanted, server: &Server, accounts: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the daemon");
        let config = directory.path().join("connectord.toml");
        configuration(directory.path(), &config, wanted, server, accounts).expect("the configuration can be written");
        let log = std::fs::File::create(directory.path().join("log")).expect("the log can be written");
        let child = Command::new(&wanted.program)
            .arg("--config")
            .arg(&config)
            .arg("serve")
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", wanted.program.display()));
        Self { child, directory }
    }

    fn wait_until_listening(&self, server: &Server, accounts: u64) {
        let began = Instant::now();
        loop {
            let input = &server.input;
            writeln!(&mut &*input, "count").expect("the server reads");
            let line = server.said.recv_timeout(PATIENCE).expect("the server answers");
            let listening: u64 = line.split(' ').nth(3).and_then(|count| count.parse().ok()).unwrap_or_default();
            if listening >= accounts {
                return;
            }
            if began.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                panic!("{listening} listen; the log ends with {:?}", log.lines().last());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }

    /// Tokens of delivered messages, and when they came into `new/`.
    fn delivered(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for user in 0..USERS {
            let new = self.directory.path().join(format!("mail/v{user}/new"));
            for entry in std::fs::read_dir(new).into_iter().flatten().flatten() {
                let (Ok(text), Ok(metadata)) = (std::fs::read(entry.path()), entry.metadata()) else { continue };
                let head = String::from_utf8_lossy(&text[..text.len().min(2000)]).into_owned();
                let token = head.lines().find_map(|line| line.strip_prefix("X-Token: ")).map(str::to_owned);
                // The name's change is the file's: when it was moved to new/.
                let at = metadata.ctime() as u64 * 1_000_000 + metadata.ctime_nsec() as u64 / 1000;
                found.extend(token.map(|token| (token, at)));
            }
        }
        found
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn configuration(
    directory: &Path,
    config: &Path,
    wanted: &Wanted,
    server: &Server,
    accounts: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let path = directory.display();
    for made in ["mail", "state"] {
        std::fs::create_dir(directory.join(made))?;
    }
    for user in 0..USERS {
        for part in ["tmp", "new", "cur"] {
            std::fs::create_dir_all(directory.join(format!("mail/v{user}/{part}")))?;
        }
    }
    let password = directory.join("password");
    std::fs::write(&password, "secret\n")?;
    let mut text = format!(
        "[state]\nurl = \"sqlite://{path}/state/state.db\"\n[tls]\nca_file = \"{}\"\n[users]\nsource = \"any\"\n[delivery]\n\
         type = \"maildir\"\npath = \"{path}/mail/{{user}}\"\n[schedule]\nidle_per_host = 10000\n",
        server.ca_file
    );
    for number in 0..accounts {
        let host = host(number % wanted.hosts + 1);
        write!(
            text,
            "[[account]]\naddress = \"u{number}@example.org\"\nprotocol = \"imap\"\nhost = \"{host}\"\nport = {}\nusername = \
             \"u{number}\"\npassword_file = \"{}\"\ndeliver_to = \"v{}\"\nidle = true\n",
            server.port,
            password.display(),
            number % USERS
        )?;
    }
    std::fs::write(config, text)?;
    Ok(())
}
