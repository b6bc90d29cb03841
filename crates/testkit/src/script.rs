use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use connectord_wire::Escaped;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use connectord_sample::{Certificates, Connection, runtime};

/// A dialogue: what a server says and what it expects to hear, in order.
///
/// Lines are given without CRLF. A client that says something else, or nothing for 10 seconds, breaks the script: the
/// connection is reset, and [`ScriptServer::finish`] panics with the step, what was expected and what came. After the last
/// step the connection stays open, and anything more that the client says is a fault, too; after [`close`](Self::close)
/// it is not.
///
/// ```
/// use std::io::{Read, Write};
/// use connectord_testkit::Script;
///
/// let server = Script::new().server("+OK ready").client("QUIT").server("+OK bye").close().listen();
/// let mut client = std::net::TcpStream::connect(server.address())?;
/// client.write_all(b"QUIT\r\n")?;
/// let mut said = String::new();
/// client.read_to_string(&mut said)?;
/// assert_eq!(said, "+OK ready\r\n+OK bye\r\n");
/// assert_eq!(server.finish(), [["QUIT"]]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Script {
    steps: Vec<Step>,
    patience: Option<Duration>,
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    SendTagged(String),
    Line(Expected),
    Octets(usize),
    Data,
    EndOfFile,
    Pause(Duration),
    Tls(Arc<ServerConfig>),
    Close,
    Reset,
}

#[derive(Clone, Debug)]
enum Expected {
    Exactly(String),
    Prefix(String),
    Tagged(String),
    Anything,
}

impl Script {
    /// Says nothing and expects nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The server sends this line and a CRLF; `{tag}` in it is the tag of the last [`client_tagged`](Self::client_tagged).
    pub fn server(self, line: &str) -> Self {
        self.step(Step::SendTagged(format!("{line}\r\n")))
    }

    /// The server sends these octets as they are.
    pub fn server_raw(self, octets: impl AsRef<[u8]>) -> Self {
        self.step(Step::Send(octets.as_ref().to_vec()))
    }

    /// The client must send exactly this line.
    pub fn client(self, line: &str) -> Self {
        self.step(Step::Line(Expected::Exactly(line.to_owned())))
    }

    /// The client must send a line that starts so.
    pub fn client_prefix(self, start: &str) -> Self {
        self.step(Step::Line(Expected::Prefix(start.to_owned())))
    }

    /// The client must send a tag of its choice, a space, and exactly this.
    pub fn client_tagged(self, command: &str) -> Self {
        self.step(Step::Line(Expected::Tagged(command.to_owned())))
    }

    /// The client must send a line; any.
    pub fn client_any(self) -> Self {
        self.step(Step::Line(Expected::Anything))
    }

    /// The client must send so many octets, such as those of a literal.
    pub fn client_octets(self, count: usize) -> Self {
        self.step(Step::Octets(count))
    }

    /// The client must send lines up to a lone dot; they are recorded as one, each with CRLF, without the dot.
    pub fn client_data(self) -> Self {
        self.step(Step::Data)
    }

    /// The client must end the connection, without a further line.
    pub fn client_closes(self) -> Self {
        self.step(Step::EndOfFile)
    }

    /// The server is silent for a while.
    pub fn pause(self, time: Duration) -> Self {
        self.step(Step::Pause(time))
    }

    /// TLS begins here: as the first step for implicit TLS, or elsewhere behind a line of the server's. Octets that the
    /// client sent before it are a fault.
    pub fn tls(self, certificates: &Certificates) -> Self {
        self.step(Step::Tls(certificates.server_config()))
    }

    /// The server answers with this line, and then TLS begins.
    pub fn starttls(self, answer: &str, certificates: &Certificates) -> Self {
        self.server(answer).tls(certificates)
    }

    /// The server ends the connection in order; the script is over.
    pub fn close(self) -> Self {
        self.step(Step::Close)
    }

    /// The server resets the connection; the script is over.
    pub fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    /// How long the client may take for each thing expected of it; default 10 seconds.
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = Some(time);
        self
    }

    /// Serves this script to the first connection, and refuses others.
    pub fn listen(self) -> ScriptServer {
        ScriptServer::start(vec![self])
    }
}

/// A server that plays a [`Script`] to each connection.
#[derive(Debug)]
pub struct ScriptServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    plays: Mutex<Vec<Play>>,
    changed: Condvar,
}

#[derive(Clone, Debug, Default)]
struct Play {
    state: State,
    heard: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    Playing {
        step: String,
    },
    /// The last step was done; the client may still be connected.
    Met,
    /// Met, and the client is gone.
    Over,
    Broken {
        why: String,
    },
}

impl ScriptServer {
    /// Plays the scripts in order, one for each connection on a free port of 127.0.0.1; further connections are reset.
    pub fn start(scripts: Vec<Script>) -> Self {
        let (listener, address) = runtime::listen(0);
        let shared =
            Arc::new(Shared { plays: Mutex::new(vec![Play::default(); scripts.len()]), changed: Condvar::new() });
        let task = runtime::handle().spawn(accept(listener, scripts, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// 127.0.0.1 and the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits up to 10 seconds for the scripts to end; what each client sent, line by line.
    ///
    /// It blocks: call it when the client is done, not while a task of the same single-threaded runtime still runs it.
    ///
    /// # Panics
    /// When a script was broken, did not come to its end, or had no connection.
    pub fn finish(self) -> Vec<Vec<String>> {
        let begun = Instant::now();
        let mut plays = self.shared.lock();
        loop {
            let running = plays.iter().any(|p| matches!(p.state, State::Waiting | State::Playing { .. }));
            let connected = plays.iter().any(|p| p.state == State::Met);
            let broken = plays.iter().any(|p| matches!(p.state, State::Broken { .. }));
            // A script that was met gets a moment more, for a client that has too much to say.
            let patience = if running { 10_000 } else { 100 };
            let left = Duration::from_millis(patience).saturating_sub(begun.elapsed());
            if broken || !(running || connected) || left.is_zero() {
                break;
            }
            plays = self.shared.changed.wait_timeout(plays, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut faults = Vec::new();
        for (n, play) in plays.iter().enumerate() {
            let why = match &play.state {
                State::Met | State::Over => continue,
                State::Waiting => "nobody connected".to_owned(),
                State::Playing { step } => format!("did not get past its step: {step}"),
                State::Broken { why } => why.clone(),
            };
            faults.push(format!("script {n}: {why}; heard before: {:?}", play.heard));
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        plays.iter().map(|play| play.heard.clone()).collect()
    }
}

impl Drop for ScriptServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Play>> {
        self.plays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, n: usize, change: impl FnOnce(&mut Play)) {
        change(&mut self.lock()[n]);
        self.changed.notify_all();
    }
}

async fn accept(listener: TcpListener, scripts: Vec<Script>, shared: Arc<Shared>) {
    let mut scripts = scripts.into_iter().enumerate();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let connection = Connection::new(stream);
        let Some((n, script)) = scripts.next() else {
            connection.reset();
            continue;
        };
        tokio::spawn(serve(n, script, connection, Arc::clone(&shared)));
    }
}

async fn serve(n: usize, script: Script, mut connection: Connection, shared: Arc<Shared>) {
    match play(n, &script, &mut connection, &shared).await {
        Ok(()) => {}
        Err(why) => {
            shared.update(n, |play| play.state = State::Broken { why });
            connection.reset();
            return;
        }
    }
    shared.update(n, |play| play.state = State::Met);
    let may_say_more = match script.steps.last() {
        Some(Step::Reset) => {
            connection.reset();
            shared.update(n, |play| play.state = State::Over);
            return;
        }
        Some(Step::Close) => true,
        _ => false,
    };
    while let Ok(Some(line)) = connection.line().await {
        if !may_say_more {
            let why = format!("it was over, and the client sent \"{}\"", Escaped(&line));
            shared.update(n, |play| play.state = State::Broken { why });
            connection.reset();
            return;
        }
    }
    shared.update(n, |play| play.state = State::Over);
}

async fn play(n: usize, script: &Script, connection: &mut Connection, shared: &Shared) -> Result<(), String> {
    let patience = script.patience.unwrap_or(Duration::from_secs(10));
    let mut tag = String::new();
    for (number, step) in script.steps.iter().enumerate() {
        let name = format!("{} ({})", number + 1, step.describe());
        shared.update(n, |play| play.state = State::Playing { step: name.clone() });
        let hear =
            |octets: &[u8]| shared.update(n, |play| play.heard.push(String::from_utf8_lossy(octets).into_owned()));
        let act = async {
            match step {
                Step::Send(octets) => connection.send(octets).await.map_err(|e| e.to_string()),
                Step::SendTagged(text) => {
                    connection.send(text.replace("{tag}", &tag).as_bytes()).await.map_err(|e| e.to_string())
                }
                Step::Line(expected) => {
                    let line = connection.line().await.map_err(|e| e.to_string())?;
                    let line = line.ok_or("the client closed the connection")?;
                    hear(&line);
                    match expected.matches(&line) {
                        Some(found) => {
                            if let Some(found) = found {
                                tag = found;
                            }
                            Ok(())
                        }
                        None => Err(format!("the client sent \"{}\"", Escaped(&line))),
                    }
                }
                Step::Octets(count) => {
                    hear(&connection.octets(*count).await.map_err(|e| e.to_string())?);
                    Ok(())
                }
                Step::Data => {
                    let mut data = Vec::new();
                    loop {
                        let line = connection.line().await.map_err(|e| e.to_string())?;
                        let line = line.ok_or("the client closed the connection within its data")?;
                        if line == b"." {
                            hear(&data);
                            return Ok(());
                        }
                        data.extend_from_slice(&line);
                        data.extend_from_slice(b"\r\n");
                    }
                }
                Step::EndOfFile => match connection.line().await {
                    Ok(Some(line)) => Err(format!("the client sent \"{}\"", Escaped(&line))),
                    Ok(None) | Err(_) => Ok(()),
                },
                Step::Pause(time) => {
                    sleep(*time).await;
                    Ok(())
                }
                Step::Tls(config) => connection.encrypt(Arc::clone(config)).await.map_err(|e| e.to_string()),
                Step::Close => {
                    connection.close().await;
                    Ok(())
                }
                Step::Reset => Ok(()),
            }
        };
        let patience = if let Step::Pause(time) = step { *time + patience } else { patience };
        match timeout(patience, act).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(format!("step {name}: {why}")),
            Err(_) => return Err(format!("step {name}: nothing happened for {patience:?}")),
        }
    }
    Ok(())
}

impl Expected {
    /// Whether the line is what was expected; and its tag, if one was.
    fn matches(&self, line: &[u8]) -> Option<Option<String>> {
        match self {
            Self::Exactly(text) => (line == text.as_bytes()).then_some(None),
            Self::Prefix(text) => line.starts_with(text.as_bytes()).then_some(None),
            Self::Anything => Some(None),
            Self::Tagged(text) => {
                let line = String::from_utf8_lossy(line);
                let (tag, command) = line.split_once(' ')?;
                (command == text).then(|| Some(tag.to_owned()))
            }
        }
    }
}

impl Step {
    fn describe(&self) -> String {
        match self {
            Self::Send(octets) => format!("the server sends \"{}\"", Escaped(octets)),
            Self::SendTagged(text) => format!("the server sends \"{}\"", Escaped::text(text)),
            Self::Line(Expected::Exactly(text)) => format!("expected {text:?}"),
            Self::Line(Expected::Prefix(text)) => format!("expected a line that starts with {text:?}"),
            Self::Line(Expected::Tagged(text)) => format!("expected a tag and {text:?}"),
            Self::Line(Expected::Anything) => "expected a line".to_owned(),
            Self::Octets(count) => format!("expected {count} octets"),
            Self::Data => "expected lines up to a lone dot".to_owned(),
            Self::EndOfFile => "expected the client to close the connection".to_owned(),
            Self::Pause(time) => format!("the server pauses for {time:?}"),
            Self::Tls(_) => "a TLS handshake".to_owned(),
            Self::Close => "the server closes".to_owned(),
            Self::Reset => "the server resets".to_owned(),
        }
    }
}
