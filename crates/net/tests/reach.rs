//! A route that must stay out of our own networks connects to none of them, whatever its name means.
#![allow(clippy::unwrap_used, reason = "a test may stop where its premise fails")]

use std::net::{IpAddr, TcpListener};

use connectord_net::{Connector, Error, Reach, ResolveProblem, Resolver, ResolverLimits, Route};
use connectord_wire::{Endpoint, Security};

fn connector(addresses: &'static [&'static str]) -> Connector {
    let lookup = move |_: &str| Ok(addresses.iter().map(|address| address.parse().unwrap()).collect());
    Connector::with_resolver(Resolver::with_limits(lookup, ResolverLimits::default()))
}

#[tokio::test]
async fn a_name_that_means_one_of_our_own_networks_is_not_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut route = Route::new(Endpoint::new("mail.example.org", port).unwrap(), Security::None);
    route.reach = Reach::Public { also: Vec::new() };
    for addresses in [&["127.0.0.1"][..], &["::ffff:127.0.0.1"], &["127.0.0.1", "169.254.169.254", "::1"]] {
        let addresses: &'static [&'static str] = addresses;
        let refused = connector(addresses).connect(&route).await.unwrap_err();
        let first: IpAddr = addresses[0].parse().unwrap();
        assert!(
            matches!(&refused, Error::Resolve { problem: ResolveProblem::OutOfReach { address }, .. } if *address == first),
            "{refused}"
        );
    }
    assert!(listener.accept().is_err(), "nothing was connected to");
    // Of several addresses those that are allowed are used.
    route.reach = Reach::Public { also: vec!["127.0.0.1".parse().unwrap()] };
    connector(&["10.0.0.1", "127.0.0.1"]).connect(&route).await.unwrap();
}
