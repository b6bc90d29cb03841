//! Where the page and the API listen: as the configuration says, and always on a Unix socket beside the state.

use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use connectord_admin::{Backend, Listener, Options, first_start, serve};
use connectord_config::{AdminSettings, Listen};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::Page;
use crate::error::Error;

/// The socket beside the state.
const SOCKET: &str = "api.sock";

/// The file with the first link, beside the state.
const FIRST: &str = "first-start";

/// Everything that is listened on.
pub(crate) struct Doors {
    page: Arc<Page>,
    open: Vec<Door>,
}

struct Door {
    listener: Listener,
    options: Options,
    /// A socket that goes with the daemon.
    path: Option<PathBuf>,
}

impl Doors {
    /// Listens, and makes the first link while nobody can sign in.
    ///
    /// # Errors
    /// When a place cannot be listened on.
    pub(crate) async fn open(page: Arc<Page>, admin: Option<&AdminSettings>) -> Result<Self, Error> {
        let state = page.accounts.store.path().to_owned();
        let mut options = Options { socket_admins: Vec::new(), ..Options::default() };
        let mut open = Vec::new();
        if let Some(admin) = admin {
            options.public_url.clone_from(&admin.public_url);
            options.own_accounts = admin.own_accounts;
            let door = front(admin, &mut options).await?;
            info!(listen = %admin.listen, "the page is served");
            open.push(door);
        }
        let local = state.join(SOCKET);
        // The state is locked by us, so a socket that is there belongs to nobody any more.
        let listener = bind(&local, 0o600)?;
        let ours = rustix::process::geteuid().as_raw();
        let options = Options { socket_admins: vec![0, ours], behind_proxy: false, ..options };
        if admin.is_some() {
            first_link(&page, &options, &state.join(FIRST)).await;
        }
        open.push(Door { listener: Listener::Unix(listener), options, path: Some(local) });
        Ok(Self { page, open })
    }

    /// Serves until the daemon stops, and waits for what is being answered.
    pub(crate) async fn serve(self, stop: watch::Receiver<bool>) {
        let mut serving = JoinSet::new();
        for Door { listener, options, path } in self.open {
            let (backend, keep): (Arc<dyn Backend>, _) = (self.page.clone(), Arc::clone(&self.page.keep));
            let mut stop = stop.clone();
            serving.spawn(async move {
                let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
                if let Err(problem) = serve(listener, backend, keep, options, stopped).await {
                    error!(%problem, "the page is not served");
                }
                if let Some(path) = path {
                    // A socket that stays is replaced at the next start.
                    let _ = std::fs::remove_file(path);
                }
            });
        }
        while let Some(ended) = serving.join_next().await {
            if let Err(panicked) = ended {
                error!(%panicked, "serving the page ended in a panic");
            }
        }
    }
}

/// What the configuration says.
async fn front(admin: &AdminSettings, options: &mut Options) -> Result<Door, Error> {
    let failed = || Error::io(format!("[admin] listen: cannot listen on {}", admin.listen));
    match &admin.listen {
        Listen::Tcp(endpoint) => {
            let listener = TcpListener::bind((endpoint.host(), endpoint.port())).await.map_err(failed())?;
            let address = listener.local_addr().map_err(failed())?;
            options.here = Some(format!("http://{address}"));
            let options = Options { behind_proxy: admin.behind_proxy, ..options.clone() };
            Ok(Door { listener: Listener::Tcp(listener), options, path: None })
        }
        Listen::Unix(path) => {
            // Somebody else's would be taken from under them.
            if UnixStream::connect(path).await.is_ok() {
                return Err(failed()(std::io::ErrorKind::AddrInUse.into()));
            }
            // A proxy's user is in our group; nobody is an administrator here by who they are.
            let listener = bind(path, 0o660)?;
            let options = Options { behind_proxy: admin.behind_proxy, ..options.clone() };
            Ok(Door { listener: Listener::Unix(listener), options, path: Some(path.clone()) })
        }
    }
}

/// A socket in the place of one that nobody listens on.
fn bind(path: &Path, mode: u32) -> Result<UnixListener, Error> {
    let failed = || Error::io(format!("cannot listen on {}", path.display()));
    match path.symlink_metadata() {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path).map_err(failed())?,
        Ok(_) => return Err(failed()(std::io::ErrorKind::AlreadyExists.into())),
        Err(_) => {}
    }
    // The process' umask makes it 0600 until it is what it is to be.
    let listener = UnixListener::bind(path).map_err(failed())?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed())?;
    Ok(listener)
}

/// Makes the link of the first administrator, or takes away an old one.
async fn first_link(page: &Page, options: &Options, file: &Path) {
    let link = match first_start(&*page.keep).await {
        Ok(Some(link)) => link,
        Ok(None) => {
            // Whoever used it does not need it any more.
            let _ = std::fs::remove_file(file);
            return;
        }
        Err(error) => return warn!(%error, "no first link can be made"),
    };
    let base = options.public_url.as_deref().or(options.here.as_deref()).unwrap_or_default();
    match link.write(base, file) {
        Ok(()) => {
            let link = format!("{base}{}", link.path);
            info!(link, file = %file.display(), "nobody can sign in yet: open this link within a day");
        }
        Err(error) => warn!(%error, file = %file.display(), "the first link cannot be written"),
    }
}
