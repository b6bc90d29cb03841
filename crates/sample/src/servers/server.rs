use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Counters, Mailbox, Misbehaviour, ServerOptions, imap, pop3};
use crate::{Connection, runtime};

/// What POP3 and IMAP servers have in common; made by [`Pop3Server::start`] and [`ImapServer::start`].
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

/// A POP3 server: CAPA, STLS, USER and PASS, AUTH PLAIN, STAT, LIST, UIDL, TOP, RETR, DELE, RSET, NOOP, QUIT, with PIPELINING.
///
/// Its maildrops are the users' INBOXes. A session sees the messages that were there at its login; removals happen at QUIT.
#[derive(Debug)]
pub struct Pop3Server(Server);

/// An IMAP4rev1 server: CAPABILITY, STARTTLS, LOGIN, AUTHENTICATE PLAIN with SASL-IR, ID, ENABLE, NAMESPACE, LIST, CREATE,
/// SELECT, EXAMINE, STATUS, UID SEARCH, UID FETCH, UID STORE, UID EXPUNGE, UID COPY, UID MOVE, EXPUNGE, CLOSE, UNSELECT, IDLE, NOOP,
/// LOGOUT, with LITERAL+.
///
/// Messages are addressed by UID only. Of a message it knows UID, FLAGS, INTERNALDATE, RFC822.SIZE and `BODY[]`, `BODY[HEADER]`,
/// `BODY[HEADER.FIELDS (…)]`, with or without `.PEEK` and a range. Searches know ALL, sets, UID, and the flags.
#[derive(Debug)]
pub struct ImapServer(Server);

impl Pop3Server {
    /// Listens, and serves until dropped.
    ///
    /// # Panics
    /// Where [`Pop3Server::try_start`] returns an error.
    pub fn start(options: ServerOptions) -> Self {
        Self::try_start(options).unwrap_or_else(|e| panic!("a POP3 server cannot start: {e}"))
    }

    /// Listens, and serves until dropped.
    ///
    /// # Errors
    /// When the port is taken, or none is free.
    pub fn try_start(options: ServerOptions) -> io::Result<Self> {
        Ok(Self(Server::start(options, Protocol::Pop3)?))
    }
}

impl ImapServer {
    /// Listens, and serves until dropped. Every user has INBOX, Trash, Junk, Sent and Drafts.
    ///
    /// # Panics
    /// Where [`ImapServer::try_start`] returns an error.
    pub fn start(options: ServerOptions) -> Self {
        Self::try_start(options).unwrap_or_else(|e| panic!("an IMAP server cannot start: {e}"))
    }

    /// The same, when somebody can do something about an error.
    ///
    /// # Errors
    /// When the port is taken, or none is free.
    pub fn try_start(options: ServerOptions) -> io::Result<Self> {
        Ok(Self(Server::start(options, Protocol::Imap)?))
    }
}

impl Deref for Pop3Server {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Deref for ImapServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

#[derive(Clone, Copy)]
enum Protocol {
    Pop3,
    Imap,
}

/// What the sessions of a server share with its owner.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: ServerOptions,
    users: Mutex<BTreeMap<String, User>>,
    misbehaviour: Mutex<Arc<Misbehaviour>>,
    counters: Mutex<Counters>,
}

#[derive(Clone, Debug)]
struct User {
    password: String,
    mailboxes: Arc<Mutex<BTreeMap<String, Mailbox>>>,
}

impl Server {
    fn start(mut options: ServerOptions, protocol: Protocol) -> io::Result<Self> {
        let port = options.port;
        let (listener, address) = runtime::try_listen(port)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on 127.0.0.1:{port}: {e}")))?;
        let users = std::mem::take(&mut options.users);
        let shared = Arc::new(Shared {
            options,
            users: Mutex::default(),
            misbehaviour: Mutex::default(),
            counters: Mutex::default(),
        });
        let task = runtime::try_handle()?.spawn(accept(listener, protocol, Arc::clone(&shared)));
        let server = Self { address, shared, task };
        for (name, password) in users {
            server.add_user(&name, &password);
        }
        Ok(server)
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// 127.0.0.1 and the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a user, or changes the password of one; the mail stays.
    pub fn add_user(&self, name: &str, password: &str) {
        let mut users = locked(&self.shared.users);
        if let Some(user) = users.get_mut(name) {
            password.clone_into(&mut user.password);
            return;
        }
        let mailboxes = ["INBOX", "Trash", "Junk", "Sent", "Drafts"];
        let mailboxes =
            (1..).zip(mailboxes).map(|(n, name)| (name.to_owned(), Mailbox::new(1_700_000_000 + n))).collect();
        users.insert(
            name.to_owned(),
            User { password: password.to_owned(), mailboxes: Arc::new(Mutex::new(mailboxes)) },
        );
    }

    /// Removes a user and the mail; sessions that are open go on.
    pub fn remove_user(&self, name: &str) {
        locked(&self.shared.users).remove(name);
    }

    /// The user's INBOX.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn mailbox(&self, user: &str) -> Mailbox {
        self.mailbox_named(user, "INBOX")
    }

    /// A mailbox of the user, made if it is not there; the name as it is sent, in modified UTF-7, levels parted by `/`.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn mailbox_named(&self, user: &str, name: &str) -> Mailbox {
        let mailboxes = locked(&self.shared.users).get(user).map(|user| Arc::clone(&user.mailboxes));
        let mailboxes = mailboxes.unwrap_or_else(|| panic!("this server has no user {user:?}"));
        create(&mailboxes, name)
    }

    /// What goes wrong from now on, instead of what went wrong before. Sessions that are open obey, too.
    pub fn misbehave(&self, misbehaviour: Misbehaviour) {
        *locked(&self.shared.misbehaviour) = Arc::new(misbehaviour);
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        *locked(&self.shared.counters)
    }
}

impl Drop for Server {
    /// Closes the port and all connections.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The mailboxes of the user who logged in.
pub(super) type Mailboxes = Arc<Mutex<BTreeMap<String, Mailbox>>>;

impl Shared {
    pub(super) fn misbehaviour(&self) -> Arc<Misbehaviour> {
        Arc::clone(&locked(&self.misbehaviour))
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut locked(&self.counters));
    }

    /// The user's mailboxes; or the text of the refusal.
    pub(super) fn log_in(&self, user: &str, password: &str) -> Result<Mailboxes, String> {
        let refusal = self.misbehaviour().refuse_login.clone();
        let found = locked(&self.users).get(user).filter(|u| u.password == password).map(|u| Arc::clone(&u.mailboxes));
        let result = match (refusal, found) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(mailboxes)) => Ok(mailboxes),
            (None, None) => Err("[AUTHENTICATIONFAILED] wrong user name or password".to_owned()),
        };
        self.count(|counters| match &result {
            Ok(_) => counters.logins += 1,
            Err(_) => counters.refused_logins += 1,
        });
        result
    }
}

/// The mailbox of that name, made if it is not there.
pub(super) fn create(mailboxes: &Mailboxes, name: &str) -> Mailbox {
    let mut mailboxes = locked(mailboxes);
    let name = if name.eq_ignore_ascii_case("INBOX") { "INBOX" } else { name };
    let uid_validity = 1_700_000_001 + u32::try_from(mailboxes.len()).expect("fewer mailboxes than that");
    mailboxes.entry(name.to_owned()).or_insert_with(|| Mailbox::new(uid_validity)).clone()
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, protocol: Protocol, shared: Arc<Shared>) {
    // Aborted with this task, and so are all sessions.
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    sessions.spawn(serve(stream, protocol, Arc::clone(&shared)));
                }
            }
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
        }
    }
}

/// Counts a connection while it is open.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count(|counters| counters.open -= 1);
    }
}

async fn serve(stream: TcpStream, protocol: Protocol, shared: Arc<Shared>) {
    shared.count(|counters| {
        counters.connections += 1;
        counters.open += 1;
    });
    let _open = Open(Arc::clone(&shared));
    let mut connection = Connection::new(stream);
    // What a client does wrong, or a cut on purpose, ends its connection and nothing else.
    let _: io::Result<()> = async {
        if let Some(config) = &shared.options.tls {
            connection.encrypt(Arc::clone(config)).await?;
        }
        connection.cut_after(shared.misbehaviour().close_after_octets);
        match protocol {
            Protocol::Pop3 => pop3::serve(&mut connection, &shared).await?,
            Protocol::Imap => imap::serve(&mut connection, &shared).await?,
        }
        connection.close().await;
        Ok(())
    }
    .await;
}
