//! What every [`Values`] does.

use crate::Values;

/// Checks an empty store.
pub async fn values<S: Values>(store: &S) {
    eprintln!("battery: values");
    assert_eq!(store.value("person/anna").await.unwrap(), None);
    assert!(store.create_value("person/anna", b"1").await.unwrap());
    assert!(!store.create_value("person/anna", b"2").await.unwrap());
    assert_eq!(store.value("person/anna").await.unwrap().as_deref(), Some(&b"1"[..]));
    store.set_value("person/anna", b"3").await.unwrap();
    store.set_value("person/_%", b"\0\xff").await.unwrap();
    store.set_value("person", b"").await.unwrap();
    store.set_value("persons/x", b"").await.unwrap();
    store.set_value("Person/x", b"").await.unwrap();

    let of = |values: Vec<(String, Vec<u8>)>| values.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(of(store.values("person/", 10).await.unwrap()), ["person/_%", "person/anna"]);
    assert_eq!(of(store.values("person/", 1).await.unwrap()), ["person/_%"]);
    assert_eq!(of(store.values("person/_", 10).await.unwrap()), ["person/_%"]);
    assert_eq!(store.values("", 10).await.unwrap().len(), 5);
    assert_eq!(store.values("nobody/", 10).await.unwrap(), []);

    assert!(store.remove_value("person/anna").await.unwrap());
    assert!(!store.remove_value("person/anna").await.unwrap());
    assert_eq!(store.value("person/anna").await.unwrap(), None);
}

/// The state, opened again after these: values are as they were.
pub async fn values_survive<S: Values>(reopen: impl AsyncFn() -> S) {
    let store = reopen().await;
    store.set_value("token/1", b"x").await.unwrap();
    drop(store);
    assert_eq!(reopen().await.values("", 10).await.unwrap(), [("token/1".to_owned(), b"x".to_vec())]);
}
