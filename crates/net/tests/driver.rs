//! What the driver does between a machine and a peer.
#![allow(clippy::unwrap_used, reason = "a test may stop where its premise fails")]

mod common;

use std::io;
use std::time::{Duration, Instant};

use common::{Lines, LinesError, connector, quick, route, serve};
use connectord_net::{Driver, Error, ResolveProblem, Route, Stream, Timeouts, Wait};
use connectord_wire::Security;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A driver and the peer's end of its connection; time stands still but for the waits.
fn pair(timeouts: Timeouts) -> (Driver<Lines>, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    (Driver::new(Stream::from_io(ours, "mail.example.org:110"), Lines::new(), timeouts), theirs)
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_after_the_silence_and_the_error_says_so() {
    let (mut driver, _theirs) = pair(Timeouts::default());
    let begun = tokio::time::Instant::now();
    let error = driver.next().await.unwrap_err();
    assert_eq!(error.to_string(), "no answer from mail.example.org:110 for 60 s while receiving the greeting");
    assert!(matches!(error, Error::TimedOut { wait: Wait::Silence, .. }));
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn silence_counts_only_while_the_machine_awaits_something() {
    let (mut driver, mut theirs) = pair(Timeouts::default());
    driver.machine().awaiting = false;
    let idle = tokio::time::timeout(Duration::from_secs(1700), driver.next()).await;
    assert!(idle.is_err(), "{idle:?}");
    theirs.write_all(b"* 4 EXISTS\r\n").await.unwrap();
    assert_eq!(driver.next().await.unwrap(), "* 4 EXISTS");
    driver.machine().awaiting = true;
    let begun = tokio::time::Instant::now();
    assert!(matches!(driver.next().await, Err(Error::TimedOut { wait: Wait::Silence, .. })));
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_dropped_and_made_again_do_not_start_the_silence_anew() {
    let (mut driver, _theirs) = pair(Timeouts::default());
    let begun = tokio::time::Instant::now();
    let error = loop {
        tokio::select! {
            event = driver.next() => break event.unwrap_err(),
            () = tokio::time::sleep(Duration::from_secs(7)) => {}
        }
    };
    assert!(matches!(error, Error::TimedOut { wait: Wait::Silence, .. }));
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drips_is_given_up_and_one_at_the_minimum_rate_is_not() {
    let (mut driver, mut theirs) = pair(Timeouts::default());
    let drip = tokio::spawn(async move {
        while theirs.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let error = driver.next().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { wait: Wait::Rate { octets: 29..=31 }, .. }), "{error}");
    drop(driver);
    drip.await.unwrap();

    let (mut driver, mut theirs) = pair(Timeouts::default());
    tokio::spawn(async move {
        for _ in 0..300 {
            theirs.write_all(&[b'x'; 110]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        theirs.write_all(b"\r\n").await.unwrap();
    });
    assert_eq!(driver.next().await.unwrap().len(), 33_000);
}

#[tokio::test(start_paused = true)]
async fn the_session_cap_ends_even_a_busy_session() {
    let (mut driver, mut theirs) = pair(Timeouts { session: Some(Duration::from_secs(100)), ..Timeouts::default() });
    tokio::spawn(async move {
        while theirs.write_all(b"* still here\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    driver.machine().awaiting = false;
    let error = loop {
        if let Err(error) = driver.next().await {
            break error;
        }
    };
    assert!(matches!(error, Error::TimedOut { wait: Wait::Session, .. }), "{error}");
}

#[tokio::test]
async fn the_session_cap_ends_a_session_whose_peer_never_pauses() {
    let lines = 64 * 1024 * 1024 / 14;
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024 * 1024);
    theirs.write_all(&b"* still here\r\n".repeat(lines)).await.unwrap();
    let timeouts = Timeouts { session: Some(Duration::from_millis(100)), ..Timeouts::default() };
    let mut driver = Driver::new(Stream::from_io(ours, "mail.example.org:110"), Lines::new(), timeouts);
    let mut heard = 0;
    let error = loop {
        // As the engine waits: a select! yields by itself, so that no read ever seems to wait.
        let event = tokio::select! {
            event = driver.next() => event,
            () = std::future::pending() => unreachable!(),
        };
        match event {
            Err(error) => break error,
            Ok(_) => heard += 1,
        }
    };
    assert!(matches!(error, Error::TimedOut { wait: Wait::Session, .. }), "{error}");
    assert!(heard < lines, "all was heard first");
}

#[tokio::test(start_paused = true)]
async fn the_machine_is_called_at_its_deadline() {
    let (mut driver, _theirs) = pair(Timeouts::default());
    driver.machine().awaiting = false;
    let begun = tokio::time::Instant::now();
    driver.machine().deadline = Some((begun + Duration::from_secs(1680)).into_std());
    assert_eq!(driver.next().await.unwrap(), "deadline");
    assert_eq!(begun.elapsed().as_secs(), 1680);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_counts_as_silent_too() {
    let (mut driver, _theirs) = pair(Timeouts::default());
    driver.machine().awaiting = false;
    driver.machine().say(vec![b'x'; 1 << 20]);
    assert!(matches!(driver.flush().await, Err(Error::TimedOut { wait: Wait::Silence, .. })));
    assert!(driver.unsent() > 0);
}

#[tokio::test]
async fn both_sides_sending_megabytes_at_once_do_not_block_each_other() {
    const MUCH: usize = 8 << 20;
    let address = serve(|stream| async move {
        let (mut reader, mut writer) = stream.into_split();
        // Sends everything before it reads anything.
        let mut line = vec![b'y'; MUCH];
        line.extend_from_slice(b"\r\n");
        writer.write_all(&line).await.unwrap();
        let mut read = vec![0; MUCH];
        reader.read_exact(&mut read).await.unwrap();
        writer.write_all(b"+OK all read\r\n").await.unwrap();
        let _ = reader.read(&mut [0]).await;
    })
    .await;
    let mut driver = Driver::connect(&connector(), &route(address, Security::None), Lines::new()).await.unwrap();
    driver.machine().say(vec![b'x'; MUCH]);
    assert_eq!(driver.next().await.unwrap().len(), MUCH);
    assert_eq!(driver.next().await.unwrap(), "+OK all read");
    assert_eq!(driver.octets_sent(), u64::try_from(MUCH).unwrap());
    assert_eq!(driver.octets_received(), u64::try_from(MUCH + 2 + 14).unwrap());
}

#[tokio::test]
async fn an_upload_in_pieces_keeps_an_event_that_comes_meanwhile() {
    let (mut driver, mut theirs) = pair(quick());
    let peer = tokio::spawn(async move {
        theirs.write_all(b"250 early\r\n").await.unwrap();
        let mut read = vec![0; 1 << 20];
        theirs.read_exact(&mut read).await.unwrap();
        theirs.write_all(b"250 done\r\n").await.unwrap();
        theirs
    });
    for _ in 0..16 {
        driver.machine().say(vec![b'x'; 1 << 16]);
        driver.flush().await.unwrap();
    }
    assert_eq!((driver.octets_sent(), driver.unsent()), (1 << 20, 0));
    assert_eq!(driver.next().await.unwrap(), "250 early");
    assert_eq!(driver.next().await.unwrap(), "250 done");
    drop(peer.await.unwrap());
}

#[tokio::test]
async fn what_the_server_said_before_it_closed_is_heard_though_our_write_failed() {
    let address = serve(|mut stream| async move {
        stream.write_all(b"-ERR too many connections\r\n").await.unwrap();
    })
    .await;
    let mut driver = Driver::connect(&connector(), &route(address, Security::None), Lines::new()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    driver.machine().say("USER ann\r\n");
    driver.machine().say(vec![b'x'; 1 << 20]);
    assert_eq!(driver.next().await.unwrap(), "-ERR too many connections");
    // The write met a closed connection, or the read its end first; both end the session.
    assert!(matches!(driver.next().await, Err(Error::Session(LinesError::Closed) | Error::Io { .. })));
}

#[tokio::test]
async fn the_end_of_the_connection_is_the_machines_to_judge() {
    let (mut driver, mut theirs) = pair(quick());
    theirs.write_all(b"+OK one\r\n+OK tw").await.unwrap();
    drop(theirs);
    assert_eq!(driver.next().await.unwrap(), "+OK one");
    assert!(matches!(driver.next().await, Err(Error::Session(LinesError::Closed))));
}

#[tokio::test]
async fn commands_queued_together_arrive_in_one_segment_and_before_the_next_call() {
    let (mut driver, mut theirs) = pair(quick());
    theirs.write_all(b"+OK\r\n").await.unwrap();
    for number in 0..100 {
        driver.machine().say(format!("DELE {number}\r\n"));
    }
    assert_eq!(driver.next().await.unwrap(), "+OK");
    let mut read = vec![0; 4096];
    let count = theirs.read(&mut read).await.unwrap();
    assert!(read[..count].starts_with(b"DELE 0\r\n") && read[..count].ends_with(b"DELE 99\r\n"));
}

#[tokio::test]
async fn every_split_of_a_dialogue_gives_the_same_events() {
    let dialogue = b"+OK ready\r\n+OK 2 messages\r\n1 120\r\n2 200\r\n.\r\n";
    for split in 0..dialogue.len() {
        let (mut driver, mut theirs) = pair(quick());
        let peer = tokio::spawn(async move {
            theirs.write_all(&dialogue[..split]).await.unwrap();
            tokio::task::yield_now().await;
            theirs.write_all(&dialogue[split..]).await.unwrap();
        });
        let mut events = Vec::new();
        while let Ok(event) = driver.next().await {
            events.push(event);
        }
        assert_eq!(events, ["+OK ready", "+OK 2 messages", "1 120", "2 200", "."]);
        peer.await.unwrap();
    }
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_say_which() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = connector().connect(&route(closed, Security::None)).await.unwrap_err();
    let Error::Connect { attempts, .. } = &error else { panic!("{error}") };
    assert_eq!((attempts.len(), attempts[0].error.kind()), (1, io::ErrorKind::ConnectionRefused));
    assert!(error.to_string().starts_with(&format!("cannot connect to mail.example.org:{}: ", closed.port())));

    let nowhere = connectord_net::Resolver::new(
        |_: &str| Err(io::Error::other("failed to lookup address information: Name or service not known")),
        1,
        1,
    );
    let route = Route::new("mail.invalid:143".parse().unwrap(), Security::None);
    let error = connectord_net::Connector::with_resolver(nowhere).connect(&route).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot resolve mail.invalid: no such host (Name or service not known)");
    assert!(matches!(error, Error::Resolve { problem: ResolveProblem::NoSuchHost { .. }, .. }));
}

#[tokio::test]
async fn a_dead_resolver_costs_the_connect_timeout_and_no_more() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let dead = connectord_net::Resolver::new(
        move |_: &str| {
            let _ = released.lock().unwrap().recv();
            Err(io::ErrorKind::TimedOut.into())
        },
        1,
        4,
    );
    let mut route = Route::new("mail.example:143".parse().unwrap(), Security::None);
    route.timeouts.connect = Duration::from_millis(200);
    let connector = connectord_net::Connector::with_resolver(dead);
    let begun = Instant::now();
    let error = connector.connect(&route).await.unwrap_err();
    assert_eq!(error.to_string(), "no connection to mail.example:143 within 0.2 s (while resolving the host name)");
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(release);
}

#[tokio::test]
async fn a_unix_socket_is_driven_like_any_other() {
    let directory = std::env::temp_dir().join(format!("connectord-net-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("lmtp");
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 lmtp\r\n").await.unwrap();
        let _ = stream.read(&mut [0]).await;
    });
    let stream = connector().connect_unix(&path, &quick()).await.unwrap();
    let mut driver = Driver::new(stream, Lines::new(), quick());
    assert_eq!(driver.next().await.unwrap(), "220 lmtp");
    assert_eq!(driver.peer(), format!("unix:{}", path.display()));
    std::fs::remove_dir_all(&directory).unwrap();
    let error = connector().connect_unix(&path, &quick()).await.unwrap_err();
    assert!(matches!(error, Error::Io { during: "connecting", .. }), "{error}");
}

#[tokio::test]
async fn an_error_behind_events_waits_until_they_are_taken() {
    let (mut driver, mut theirs) = pair(quick());
    theirs.write_all(b"421 closing\r\n").await.unwrap();
    drop(theirs);
    driver.machine().say(vec![b'x'; 1 << 20]);
    let _ = driver.flush().await;
    assert_eq!(driver.next().await.unwrap(), "421 closing");
    assert!(driver.next().await.is_err());
}

#[tokio::test]
async fn a_driver_and_its_calls_can_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let (driver, _theirs) = pair(quick());
    let mut driver = is_send(driver);
    drop(is_send(driver.next()));
    drop(is_send(driver.flush()));
    is_send(driver.shutdown()).await;
}

#[tokio::test]
async fn a_local_address_is_used_and_decides_the_family() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let address = serve(move |stream| {
        let tell = tell.clone();
        async move { tell.send(stream.peer_addr().unwrap().ip()).unwrap() }
    })
    .await;
    let mut route = route(address, Security::None);
    let local = "127.0.0.2".parse().unwrap();
    route.local_address = Some(local);
    let stream = connector().connect(&route).await.unwrap();
    assert_eq!(stream.peer_address(), Some(address));
    assert_eq!(told.recv().await, Some(local));
    route.local_address = Some("::1".parse().unwrap());
    let error = connector().connect(&route).await.unwrap_err();
    assert!(matches!(error, Error::Resolve { problem: ResolveProblem::OtherFamily, .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_takes_no_connections_costs_the_connect_timeout() {
    let (address, _full) = full_listener().await;
    let mut route = route(address, Security::None);
    route.timeouts.connect = Duration::from_millis(300);
    let error = connector().connect(&route).await.unwrap_err();
    let peer = &route.endpoint;
    assert_eq!(error.to_string(), format!("no connection to {peer} within 0.3 s (while connecting)"));
}

#[tokio::test]
async fn an_address_that_does_not_answer_gives_way_after_a_quarter_of_a_second() {
    let (mute, _full) = full_listener().await;
    let good = tokio::net::TcpListener::bind(("127.0.0.2", mute.port())).await.unwrap();
    let both = move |_: &str| Ok(vec![mute.ip(), good_ip()]);
    let connector = connectord_net::Connector::with_resolver(connectord_net::Resolver::new(both, 1, 1));
    let begun = Instant::now();
    let stream = connector.connect(&route(mute, Security::None)).await.unwrap();
    assert_eq!(stream.peer_address(), Some(good.local_addr().unwrap()));
    assert!((200..5000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

fn good_ip() -> std::net::IpAddr {
    std::net::Ipv4Addr::new(127, 0, 0, 2).into()
}

/// A listener whose queue is full, so that further connections get no answer.
async fn full_listener() -> (std::net::SocketAddr, Vec<Box<dyn std::any::Any>>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut kept: Vec<Box<dyn std::any::Any>> = vec![Box::new(listener)];
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(address)).await
    {
        kept.push(Box::new(stream.unwrap()));
    }
    (address, kept)
}
