//! The runtime that all in-process servers share, so that a caller needs none and may block in its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;

use tokio::runtime::{Builder, Handle, Runtime};

static RUNTIME: LazyLock<io::Result<Runtime>> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).thread_name("servers").enable_all().build());

/// Where to spawn.
///
/// # Errors
/// What the system said when it was to start the threads, at the first call and again at every later one.
pub fn try_handle() -> io::Result<&'static Handle> {
    match &*RUNTIME {
        Ok(runtime) => Ok(runtime.handle()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot start a tokio runtime: {error}"))),
    }
}

/// Where to spawn.
///
/// # Panics
/// Where [`try_handle`] returns an error.
pub fn handle() -> &'static Handle {
    try_handle().unwrap_or_else(|e| panic!("{e}"))
}

/// A listener on 127.0.0.1, port 0 being any free one; bound without waiting, so that it can be made from inside any
/// runtime.
///
/// # Errors
/// When the port is taken, or none is free.
pub fn try_listen(port: u16) -> io::Result<(tokio::net::TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let _entered = try_handle()?.enter();
    Ok((tokio::net::TcpListener::from_std(listener)?, address))
}

/// A listener as [`try_listen`] makes it.
///
/// # Panics
/// Where [`try_listen`] returns an error.
pub fn listen(port: u16) -> (tokio::net::TcpListener, SocketAddr) {
    try_listen(port).unwrap_or_else(|e| panic!("cannot listen on 127.0.0.1:{port}: {e}"))
}
