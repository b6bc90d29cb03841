//! Serves the page over an installation in memory, to be looked at: `cargo run -p connectord-admin --example admin_sample [PORT] [ACCOUNTS]`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use connectord_admin::{Keep, Listener, MemoryKeep, Options, first_start, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().map_or(Ok(8025), |port| port.parse())?;
    let accounts: usize = arguments.next().map_or(Ok(4981), |count| count.parse())?;
    let keep: Arc<dyn Keep> = Arc::new(MemoryKeep::default());
    let link = first_start(keep.as_ref()).await?.ok_or("somebody can sign in already")?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}{}", listener.local_addr()?, link.path);
    let options = Options { own_accounts: true, ..Options::default() };
    serve(Listener::Tcp(listener), Arc::new(support::Sample::new(accounts)), keep, options, std::future::pending())
        .await?;
    Ok(())
}
