//! Happy eyeballs (RFC 8305 §5): addresses of both families raced, each a little later than the one before.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::Attempt;

/// RFC 8305 §8: the recommended delay between two attempts.
const STAGGER: Duration = Duration::from_millis(250);
/// Idle time before the first keepalive probe; routers forget silent connections after a few minutes.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// The first address that answers. Without a deadline: the caller has one.
///
/// Every attempt that failed is in `failed`, even when the caller's deadline ends this.
pub(crate) async fn dial(
    addresses: Vec<SocketAddr>,
    local: Option<IpAddr>,
    failed: &mut Vec<Attempt>,
) -> Option<TcpStream> {
    let mut waiting = interleave(addresses).into_iter();
    let mut racing = JoinSet::new();
    loop {
        if let Some(address) = waiting.next() {
            racing.spawn(async move { (address, connect(address, local).await) });
        }
        let more = waiting.len() > 0;
        tokio::select! {
            ended = racing.join_next() => match ended {
                Some(Ok((_, Ok(stream)))) => return Some(stream),
                Some(Ok((address, Err(error)))) => failed.push(Attempt { address, error }),
                // An attempt that panicked is one that did not answer.
                Some(Err(_)) => {}
                None if more => {}
                None => return None,
            },
            () = tokio::time::sleep(STAGGER), if more => {}
        }
    }
}

async fn connect(address: SocketAddr, local: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    socket.set_keepalive(true)?;
    // A system that knows no such option still has the two hours of its own.
    let _ = rustix::net::sockopt::set_tcp_keepidle(&socket, KEEPALIVE);
    let _ = rustix::net::sockopt::set_tcp_keepintvl(&socket, KEEPALIVE / 4);
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// RFC 8305 §4: families take turns, the resolver's first choice first.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first_is_ipv4);
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return mixed,
            (one, other) => mixed.extend(one.into_iter().chain(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_the_resolvers_first_choice_stays_first() {
        let list = |text: &str| -> Vec<SocketAddr> { text.split(' ').map(|one| one.parse().unwrap()).collect() };
        assert_eq!(
            interleave(list("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1 1.1.1.2:1")),
            list("[::1]:1 1.1.1.1:1 [::2]:1 1.1.1.2:1 [::3]:1")
        );
        assert_eq!(interleave(list("1.1.1.1:1 [::1]:1")), list("1.1.1.1:1 [::1]:1"));
        assert_eq!(interleave(Vec::new()), []);
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut failed = Vec::new();
        let mut quickest = Duration::MAX;
        // A busy machine may be slow once, not five times.
        for _ in 0..5 {
            failed.clear();
            let begun = tokio::time::Instant::now();
            let stream = dial(vec![closed, good], None, &mut failed).await.unwrap();
            quickest = quickest.min(begun.elapsed());
            assert_eq!((stream.peer_addr().unwrap(), failed.len()), (good, 1));
        }
        assert!(quickest < STAGGER, "{quickest:?}");
        assert!(dial(vec![closed], None, &mut failed).await.is_none());
    }
}
