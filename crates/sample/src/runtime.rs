use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;

use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime that all in-process servers share, so that a caller needs none and may block in its own.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("servers")
        .enable_all()
        .build()
        .unwrap_or_else(|e| panic!("cannot start a tokio runtime: {e}"))
});

/// Where to spawn.
pub(crate) fn handle() -> &'static Handle {
    RUNTIME.handle()
}

/// A listener on 127.0.0.1, port 0 being any free one; bound without waiting, so that it can be made from inside any
/// runtime.
pub(crate) fn listen(port: u16) -> (tokio::net::TcpListener, SocketAddr) {
    let bind = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _entered = RUNTIME.enter();
        Ok::<_, std::io::Error>((tokio::net::TcpListener::from_std(listener)?, address))
    };
    bind().unwrap_or_else(|e| panic!("cannot listen on 127.0.0.1:{port}: {e}"))
}
