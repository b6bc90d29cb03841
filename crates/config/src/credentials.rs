//! Where passwords come from at each login: the file itself, another file, a program, the environment.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connectord_account::{Account, CredentialSource};
use connectord_sasl::{Credential, CredentialError, Credentials, Mechanism, StaticCredentials};
use connectord_wire::{Escaped, Secret};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::PasswordSource;
use crate::keys::KeyRing;
use crate::read::is_token;

/// Longest password, in octets, and most that is read of a file or of what a program prints.
const MAX_PASSWORD: usize = 4096;

/// Longest run of a program, and longest wait for a file, which may be a pipe.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long a program's output is still waited for once it has ended: something it started may hold it open.
const LINGER: Duration = Duration::from_secs(1);

/// The credentials of an account, obtained anew at each login; `None` when the account has none.
///
/// With only token mechanisms (`XOAUTH2`, `OAUTHBEARER`) in [`Account::mechanisms`], what the source gives is an access token,
/// else a password. Its version changes with what a file holds; that of a program's output cannot be told.
///
/// ```
/// use connectord_account::{Account, CredentialSource, Protocol};
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut account = Account::new("ann@example.org", Protocol::Imap, "imap.example.org:993".parse()?, "ann");
/// account.credential = CredentialSource::Password("secret".into());
/// let credentials = connectord_config::credentials::of(&account).expect("there is a password");
/// assert_eq!(credentials.credential(None).await?.username(), Some("ann@example.org"));
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn of(account: &Account) -> Option<Arc<dyn Credentials>> {
    of_with(account, None, DEADLINE)
}

/// As [`of`], and passwords that are kept in the state are opened with the keys of this ring.
pub fn with_keys(account: &Account, keys: &Arc<KeyRing>) -> Option<Arc<dyn Credentials>> {
    of_with(account, Some(Arc::clone(keys)), DEADLINE)
}

fn of_with(account: &Account, keys: Option<Arc<KeyRing>>, deadline: Duration) -> Option<Arc<dyn Credentials>> {
    let mechanisms: Option<Vec<_>> = account.mechanisms.iter().map(|name| Mechanism::parse(name)).collect();
    let is_token = mechanisms.is_some_and(|all| !all.is_empty() && all.into_iter().all(is_token));
    match &account.credential {
        CredentialSource::Missing => None,
        CredentialSource::External => Some(Arc::new(StaticCredentials::new(Credential::external()))),
        source => {
            let source = source.clone();
            Some(Arc::new(FromSource { username: account.username.clone(), is_token, source, keys, deadline }))
        }
    }
}

/// The password that is not an account's, such as that of an SMTP server; read anew at each call.
///
/// # Errors
/// [`CredentialError`] when its source cannot be read or holds none.
pub async fn password(source: &PasswordSource) -> Result<Secret, CredentialError> {
    match source {
        PasswordSource::Inline(password) => Ok(password.clone()),
        PasswordSource::File(path) => from_file(path, DEADLINE).await,
        PasswordSource::Command(words) => from_program(words, DEADLINE).await,
        PasswordSource::Environment(name) => from_environment(name),
    }
}

struct FromSource {
    username: String,
    is_token: bool,
    source: CredentialSource,
    keys: Option<Arc<KeyRing>>,
    deadline: Duration,
}

impl FromSource {
    fn unseal(&self, account: i64, record: &[u8]) -> Result<Secret, CredentialError> {
        let keys = self.keys.as_ref().ok_or_else(|| unavailable("there is no key to open it".to_owned(), false))?;
        keys.open_password(account, record).map_err(|error| unavailable(error.to_string(), false))
    }
}

#[async_trait]
impl Credentials for FromSource {
    async fn credential(&self, _refused: Option<&str>) -> Result<Credential, CredentialError> {
        let secret = match &self.source {
            CredentialSource::Password(password) => password.clone(),
            CredentialSource::File(path) => from_file(path, self.deadline).await?,
            CredentialSource::Command(words) => from_program(words, self.deadline).await?,
            CredentialSource::Environment(name) => from_environment(name)?,
            CredentialSource::Sealed { account, record } => self.unseal(*account, record)?,
            CredentialSource::Missing | CredentialSource::External => return Ok(Credential::external()),
        };
        let make = if self.is_token { Credential::token } else { Credential::password };
        Ok(make(self.username.clone(), secret))
    }

    async fn version(&self) -> Option<[u8; 32]> {
        match &self.source {
            // Running a program only to compare may ask a person for something.
            CredentialSource::Command(_) => None,
            _ => StaticCredentials::new(self.credential(None).await.ok()?).version().await,
        }
    }
}

fn from_environment(name: &str) -> Result<Secret, CredentialError> {
    use std::os::unix::ffi::OsStringExt;
    let what = format!("environment variable {}", Escaped::text(name));
    let value = std::env::var_os(name).ok_or_else(|| unavailable(format!("{what} is not set"), false))?;
    first_line(Secret::new(value.into_vec()), &what)
}

async fn from_file(path: &Path, deadline: Duration) -> Result<Secret, CredentialError> {
    let what = format!("password file {}", Escaped(path.as_os_str().as_encoded_bytes()));
    let read = async {
        let mut file = tokio::fs::File::open(path).await?;
        read_some(&mut file).await
    };
    let octets = timeout(deadline, read)
        .await
        .map_err(|_| unavailable(format!("{what} could not be read within {deadline:?}"), true))?
        .map_err(|error| {
            use std::io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
            let temporary = !matches!(error.kind(), NotFound | PermissionDenied | IsADirectory);
            unavailable(format!("{what} cannot be read: {error}"), temporary)
        })?;
    first_line(octets, &what)
}

/// Runs a program without a shell, in a process group of its own, and takes the first line that it prints.
async fn from_program(words: &[String], deadline: Duration) -> Result<Secret, CredentialError> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(unavailable("password_command names no program".to_owned(), false));
    };
    let what = format!("password command {}", Escaped::text(program));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            let temporary = error.kind() != std::io::ErrorKind::NotFound;
            unavailable(format!("{what} cannot be started: {error}"), temporary)
        })?;
    let mut group = Group::of(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let output = async { tokio::join!(drain(stdout), drain(stderr)) };
    tokio::pin!(output);
    let run = async {
        let (status, early) = tokio::select! {
            // First the output: a program that has ended has mostly been read already.
            biased;
            pipes = &mut output => (child.wait().await, Some(pipes)),
            status = child.wait() => (status, None),
        };
        let pipes = match early {
            Some(pipes) => pipes,
            None => timeout(LINGER, &mut output).await.map_err(|_| ())?,
        };
        Ok::<_, ()>((status, pipes))
    };
    let ended = timeout(deadline, run).await;
    let (status, (printed, complained)) = match ended {
        Ok(Ok(ended)) => ended,
        Ok(Err(())) => {
            // The program was waited for: its number may be another's by now.
            group.is_over();
            let text = format!("{what} ended, but something that it started holds its output open");
            return Err(unavailable(text, true));
        }
        // The group is killed when it is dropped.
        Err(_) => return Err(unavailable(format!("{what} did not end within {deadline:?} and was killed"), true)),
    };
    group.is_over();
    let status = status.map_err(|error| unavailable(format!("{what} cannot be waited for: {error}"), true))?;
    if !status.success() {
        let said = complained.expose().split(|octet| *octet == b'\n').find(|line| !line.is_empty());
        let said = said.map_or_else(String::new, |line| format!(": {:?}", Escaped(line)));
        return Err(unavailable(format!("{what} ended with {status}{said}"), true));
    }
    first_line(printed, &what)
}

/// The process group of a program; killed when dropped before the program was over.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    fn is_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may be gone already; nobody else can have its number before the program was waited for.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Reads the beginning, and the rest for nothing, so that the program does not wait for a reader.
async fn drain(pipe: Option<impl AsyncRead + Unpin>) -> Secret {
    let Some(mut pipe) = pipe else { return Secret::default() };
    let beginning = read_some(&mut pipe).await.unwrap_or_default();
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    beginning
}

async fn read_some(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Secret> {
    let limit = MAX_PASSWORD + 2;
    let mut octets = Vec::with_capacity(limit + 1);
    let read = reader.take(limit as u64).read_to_end(&mut octets).await;
    let octets = Secret::new(octets);
    read.map(|_| octets)
}

/// The first line without its end.
fn first_line(octets: Secret, what: &str) -> Result<Secret, CredentialError> {
    let line = octets.expose().split(|octet| *octet == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let fault = match line {
        [] => "has an empty first line",
        line if line.len() > MAX_PASSWORD => "has a first line of more than 4096 octets",
        line if line.contains(&0) => "has a NUL in its first line",
        line => return Ok(Secret::new(line.to_vec())),
    };
    Err(unavailable(format!("{what} {fault}"), false))
}

fn unavailable(text: String, temporary: bool) -> CredentialError {
    CredentialError::Unavailable { text, temporary }
}

#[cfg(test)]
mod tests {
    use connectord_account::Protocol;

    use super::*;

    fn account(credential: CredentialSource) -> Account {
        let endpoint = "localhost:993".parse().unwrap();
        Account { credential, ..Account::new("ann", Protocol::Imap, endpoint, "ann") }
    }

    fn obtain(account: &Account) -> Result<Credential, CredentialError> {
        obtain_within(account, DEADLINE)
    }

    fn obtain_within(account: &Account, deadline: Duration) -> Result<Credential, CredentialError> {
        let credentials = of_with(account, None, deadline).unwrap();
        run(async { credentials.credential(None).await })
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn shell(script: &str) -> Account {
        account(CredentialSource::Command(["sh", "-c", script].map(str::to_owned).into()))
    }

    fn failure(text: impl Into<String>, temporary: bool) -> Result<Credential, CredentialError> {
        Err(unavailable(text.into(), temporary))
    }

    #[test]
    fn a_password_file_is_read_anew_at_each_login_and_its_version_changes_with_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let account = account(CredentialSource::File(file.path().into()));
        let credentials = of(&account).unwrap();
        let mut versions = Vec::new();
        for (text, password) in [("one\n", "one"), ("two\r\nrest\n", "two"), ("thr ee", "thr ee")] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(obtain(&account), Ok(Credential::password("ann", password)));
            versions.push(run(credentials.version()).unwrap());
            assert_eq!(run(credentials.version()).as_ref(), versions.last());
        }
        versions.dedup();
        assert_eq!(versions.len(), 3);
    }

    #[test]
    fn a_file_without_a_password_is_named_with_its_fault() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let account = account(CredentialSource::File(file.path().into()));
        let name = file.path().display();
        for (octets, fault) in [
            (Vec::new(), "has an empty first line"),
            (b"\nsecret\n".to_vec(), "has an empty first line"),
            (vec![b'x'; 5000], "has a first line of more than 4096 octets"),
            (b"a\0b".to_vec(), "has a NUL in its first line"),
        ] {
            std::fs::write(file.path(), octets).unwrap();
            assert_eq!(obtain(&account), failure(format!("password file {name} {fault}"), false));
        }
        std::fs::write(file.path(), vec![b'x'; 4096]).unwrap();
        assert!(obtain(&account).is_ok());
        let path = file.path().to_owned();
        drop(file);
        let text = format!("password file {} cannot be read: No such file or directory (os error 2)", path.display());
        assert_eq!(obtain(&account), failure(text, false));
    }

    #[test]
    fn a_program_gives_its_first_line() {
        assert_eq!(obtain(&shell("echo secret; echo rest")), Ok(Credential::password("ann", "secret")));
        assert_eq!(obtain(&shell("echo secret; yes | head -c 300000")), Ok(Credential::password("ann", "secret")));
        assert_eq!(obtain(&shell("echo secret; yes | head -c 300000 >&2")), Ok(Credential::password("ann", "secret")));
    }

    #[test]
    fn a_program_with_token_mechanisms_gives_a_token() {
        let account = Account { mechanisms: vec!["XOAUTH2".into()], ..shell("echo ya29") };
        assert_eq!(obtain(&account), Ok(Credential::token("ann", "ya29")));
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let text = r#"password command sh ended with exit status: 3: "no\x1b[2Jpe""#;
        assert_eq!(obtain(&shell("printf '\\nno\\033[2Jpe\\nmore' >&2; echo secret; exit 3")), failure(text, true));
        let missing = account(CredentialSource::Command(vec!["/nowhere/at-all".into()]));
        let text = "password command /nowhere/at-all cannot be started: No such file or directory (os error 2)";
        assert_eq!(obtain(&missing), failure(text, false));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let witness = folder.path().join("witness");
        let script = format!("(sleep 2; touch {}) & echo secret; wait", witness.display());
        assert_eq!(
            obtain_within(&shell(&script), Duration::from_millis(300)),
            failure("password command sh did not end within 300ms and was killed", true)
        );
        std::thread::sleep(Duration::from_millis(2500));
        assert!(!witness.exists());
    }

    #[test]
    fn a_pipe_that_nobody_writes_does_not_hold_a_login_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        // Open for reading and writing: the opening succeeds, the reading waits.
        let holder = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let account = account(CredentialSource::File(pipe.clone()));
        let credentials = of_with(&account, None, Duration::from_millis(200)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async { credentials.credential(None).await });
        let text = format!("password file {} could not be read within 200ms", pipe.display());
        assert_eq!(result, failure(text, true));
        use std::io::Write;
        (&holder).write_all(b"end\n").unwrap();
        drop(holder);
    }

    #[test]
    fn an_environment_variable_is_read_and_one_that_is_not_set_is_named() {
        let path = std::env::var("PATH").unwrap();
        let account_of = |name: &str| account(CredentialSource::Environment(name.into()));
        assert_eq!(obtain(&account_of("PATH")), Ok(Credential::password("ann", path.as_str())));
        assert_eq!(
            obtain(&account_of("CONNECTORD_NO_SUCH")),
            failure("environment variable CONNECTORD_NO_SUCH is not set", false)
        );
    }

    #[test]
    fn an_account_without_a_password_has_no_credentials() {
        assert!(of(&account(CredentialSource::Missing)).is_none());
    }
}
