//! The filters' own limit: a client that retrieves nothing and delivers nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connectord_filter::{Filter, Message, Verdict};
use connectord_mail::{DeliveryId, Envelope, Head, Identity};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// More than any filter takes for one message.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has each filter look at each message, as many at a time as it bears, and says how long that took. No filter waits for
/// another one.
pub(crate) async fn ask(filters: &[Arc<dyn Filter>], bodies: &[Vec<u8>]) -> Duration {
    let messages: Vec<Message> = bodies.iter().enumerate().map(|(n, octets)| message(n, octets)).collect();
    let rooms: Vec<_> = filters.iter().map(|filter| Arc::new(Semaphore::new(filter.limits().at_once))).collect();
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for message in messages {
        for (filter, room) in filters.iter().zip(&rooms) {
            let (filter, room, message) = (Arc::clone(filter), Arc::clone(room), message.clone());
            asking.spawn(async move {
                let _turn = room.acquire().await.expect("it is never closed");
                let message = Message { deadline: Instant::now() + PATIENCE, ..message };
                if let Verdict::Unchecked(trouble) = filter.check(&message).await {
                    panic!("{} did not look at a message: {trouble}", filter.describe());
                }
            });
        }
    }
    while let Some(asked) = asking.join_next().await {
        asked.expect("every message is looked at");
    }
    began.elapsed()
}

/// A message as the engine shows it to filters.
fn message(n: usize, octets: &[u8]) -> Message {
    let key = u32::try_from(n).expect("some hundreds").to_be_bytes();
    let octets = Bytes::copy_from_slice(octets);
    let head = octets.slice(..Head::of(&octets).octets().len());
    Message {
        id: DeliveryId::new(Identity {
            account: "ann@example.org",
            mailbox: "INBOX",
            uid_validity: 7,
            key: &key,
            generation: 0,
        }),
        account: "ann@example.org".to_owned(),
        recipients: vec!["ann".to_owned()],
        envelope: Envelope::recover(Head::of(&head)),
        head,
        body: Arc::new(octets),
        deadline: Instant::now(),
    }
}
