//! What every [`SavedAccounts`] does.

use super::{DAY, NOW, later};
use crate::{
    AccountId, Changed, Expected, Save, SavedAccount, SavedAccounts, Sealed, SecretChange, Stamp, Store, StoreError,
};

/// Runs each check on a store that `fresh` has made: an empty one.
pub async fn saved_accounts<S: Store + SavedAccounts>(fresh: impl AsyncFn() -> S) {
    macro_rules! run {
        ($($check:ident),* $(,)?) => {$(
            eprintln!("battery: {}", stringify!($check));
            $check(&fresh().await).await;
        )*};
    }
    run![
        an_account_that_was_saved_comes_back_whole,
        of_two_who_change_the_same_version_one_is_refused,
        a_secret_stays_until_it_is_set_or_cleared,
        a_deleted_account_is_retired_and_its_secret_is_gone,
        an_account_added_again_knows_what_was_fetched,
        sealing_anew_changes_nothing_else,
        every_change_stands_in_the_record_without_its_secret,
        the_record_is_read_in_parts,
        an_account_that_nobody_opened_cannot_be_saved,
    ];
}

/// The state, opened again after these: saved accounts and the record of changes are as they were.
pub async fn saved_accounts_survive<S: Store + SavedAccounts>(reopen: impl AsyncFn() -> S) {
    let store = reopen().await;
    let saved = add(&store, "ann@x").await;
    let changes = store.changes(None, None, 10).await.unwrap();
    drop(store);
    let store = reopen().await;
    assert_eq!(store.saved_accounts().await.unwrap(), [saved]);
    assert_eq!(store.changes(None, None, 10).await.unwrap(), changes);
}

const RECORD: &[u8] = b"\x01sealed";

fn save(account: AccountId, expected: Expected) -> Save {
    Save {
        account,
        expected,
        settings: "host = \"imap.example.org\"\n".to_owned(),
        enabled: true,
        secret: SecretChange::Set(RECORD.to_vec()),
        who: "anna".to_owned(),
        now: NOW,
    }
}

async fn add<S: Store + SavedAccounts>(store: &S, address: &str) -> SavedAccount {
    let account = store.open_account(address).await.unwrap().id;
    store.save_account(&save(account, Expected::New)).await.unwrap()
}

fn stamp(seconds: i64, by: &str) -> Stamp {
    Stamp { at: later(seconds), by: by.to_owned() }
}

async fn an_account_that_was_saved_comes_back_whole<S: Store + SavedAccounts>(store: &S) {
    let zoe = add(store, "Zoe@X").await;
    let ann = add(store, "ann@x").await;
    let wanted = SavedAccount {
        id: zoe.id,
        address: "zoe@x".to_owned(),
        settings: "host = \"imap.example.org\"\n".to_owned(),
        secret: Some(Sealed { record: RECORD.to_vec(), set: stamp(0, "anna") }),
        enabled: true,
        version: 1,
        created: stamp(0, "anna"),
        changed: stamp(0, "anna"),
    };
    assert_eq!(zoe, wanted);
    assert_eq!(store.saved_accounts().await.unwrap(), [ann.clone(), zoe.clone()]);
    assert_eq!(store.saved_account(zoe.id).await.unwrap(), Some(zoe));
    assert_eq!(store.saved_account(AccountId(12_345)).await.unwrap(), None);
    // Another of the same address is not added.
    assert_eq!(store.save_account(&save(ann.id, Expected::New)).await, Err(StoreError::Exists));
}

async fn of_two_who_change_the_same_version_one_is_refused<S: Store + SavedAccounts>(store: &S) {
    let ann = add(store, "ann@x").await;
    let first = Save { now: later(60), who: "bert".to_owned(), ..save(ann.id, Expected::Version(1)) };
    let second = Save { now: later(61), settings: "host = \"other\"".to_owned(), ..first.clone() };
    let after = store.save_account(&first).await.unwrap();
    assert_eq!((after.version, &after.created, &after.changed), (2, &stamp(0, "anna"), &stamp(60, "bert")));
    let refused = Err(StoreError::Changed { last: Some(stamp(60, "bert")) });
    assert_eq!(store.save_account(&second).await, refused);
    assert_eq!(store.delete_account(ann.id, 1, "carl", later(62)).await, refused.map(drop));
    assert_eq!(store.saved_account(ann.id).await.unwrap(), Some(after));
    store.delete_account(ann.id, 2, "carl", later(62)).await.unwrap();
    let gone = StoreError::Changed { last: None };
    assert_eq!(store.save_account(&second).await, Err(gone.clone()));
    assert_eq!(store.delete_account(ann.id, 2, "carl", later(63)).await, Err(gone));
    assert_eq!(store.changes(None, None, 10).await.unwrap().len(), 3);
}

async fn a_secret_stays_until_it_is_set_or_cleared<S: Store + SavedAccounts>(store: &S) {
    let ann = add(store, "ann@x").await;
    let change = |version, secret| Save {
        secret,
        now: later(60),
        who: "bert".to_owned(),
        ..save(ann.id, Expected::Version(version))
    };
    let kept = store.save_account(&change(1, SecretChange::Keep)).await.unwrap();
    assert_eq!(kept.secret, ann.secret);
    let set = store.save_account(&change(2, SecretChange::Set(b"other".to_vec()))).await.unwrap();
    assert_eq!(set.secret, Some(Sealed { record: b"other".to_vec(), set: stamp(60, "bert") }));
    assert_eq!(store.save_account(&change(3, SecretChange::Clear)).await.unwrap().secret, None);
    assert_eq!(store.saved_account(ann.id).await.unwrap().unwrap().secret, None);
}

async fn a_deleted_account_is_retired_and_its_secret_is_gone<S: Store + SavedAccounts>(store: &S) {
    let ann = add(store, "ann@x").await;
    add(store, "bob@x").await;
    store.delete_account(ann.id, 1, "anna", later(60)).await.unwrap();
    let left: Vec<_> = store.saved_accounts().await.unwrap().into_iter().map(|saved| saved.address).collect();
    assert_eq!(left, ["bob@x"]);
    let retired: Vec<_> =
        store.accounts().await.unwrap().into_iter().map(|row| (row.address, row.retired_at)).collect();
    assert_eq!(retired, [("ann@x".to_owned(), Some(later(60))), ("bob@x".to_owned(), None)]);
    // What is retired is forgotten in the end, and its line in the record stays.
    store.tidy(later(60 + 90 * DAY)).await.unwrap();
    assert_eq!(store.accounts().await.unwrap().len(), 1);
    assert_eq!(store.changes(Some("ann@x"), None, 10).await.unwrap().len(), 2);
}

async fn an_account_added_again_knows_what_was_fetched<S: Store + SavedAccounts>(store: &S) {
    let ann = add(store, "ann@x").await;
    store.delete_account(ann.id, 1, "anna", later(60)).await.unwrap();
    let again = add(store, "ann@x").await;
    assert_eq!((again.id, again.version), (ann.id, 1));
    assert_eq!(store.accounts().await.unwrap()[0].retired_at, None);
}

async fn sealing_anew_changes_nothing_else<S: Store + SavedAccounts>(store: &S) {
    let ann = add(store, "ann@x").await;
    assert!(!store.reseal(ann.id, b"never", b"new").await.unwrap());
    assert_eq!(store.saved_account(ann.id).await.unwrap(), Some(ann.clone()));
    assert!(store.reseal(ann.id, RECORD, b"new").await.unwrap());
    let mut wanted = ann.clone();
    wanted.secret.as_mut().unwrap().record = b"new".to_vec();
    assert_eq!(store.saved_account(ann.id).await.unwrap(), Some(wanted));
    assert_eq!(store.changes(None, None, 10).await.unwrap().len(), 1);
}

async fn every_change_stands_in_the_record_without_its_secret<S: Store + SavedAccounts>(store: &S) {
    let ann = add(store, "ann@x").await;
    let keep = |version| Save { secret: SecretChange::Keep, ..save(ann.id, Expected::Version(version)) };
    store.save_account(&Save { enabled: false, ..keep(1) }).await.unwrap();
    store.save_account(&keep(2)).await.unwrap();
    store.save_account(&Save { settings: "host = \"other\"".to_owned(), ..keep(3) }).await.unwrap();
    store.delete_account(ann.id, 4, "bert", later(60)).await.unwrap();
    let other = Changed {
        stamp: stamp(70, "carl"),
        what: "token_made".to_owned(),
        about: "monitoring".to_owned(),
        before: None,
        after: Some("read".to_owned()),
    };
    store.record_change(&other).await.unwrap();
    let lines = store.changes(None, None, 10).await.unwrap();
    let told: Vec<_> = lines.iter().map(|line| (line.change.what.as_str(), line.change.stamp.by.as_str())).collect();
    let wanted = [
        ("token_made", "carl"),
        ("deleted", "bert"),
        ("edited", "anna"),
        ("enabled", "anna"),
        ("disabled", "anna"),
        ("added", "anna"),
    ];
    assert_eq!(told, wanted);
    assert_eq!(lines[0].change, other);
    let edited = &lines[2].change;
    assert_eq!(edited.before.as_deref(), lines[3].change.after.as_deref());
    let text = edited.after.as_deref().unwrap();
    assert!(text.starts_with("host = \"other\"\n# enabled: true\n# password: set "), "{text}");
    assert!(lines[1].change.before.is_some() && lines[1].change.after.is_none());
    assert!(!format!("{lines:?}").contains("sealed"));
}

async fn the_record_is_read_in_parts<S: Store + SavedAccounts>(store: &S) {
    for address in ["a@x", "b@x", "c@x", "a@y"] {
        add(store, address).await;
    }
    let about = |lines: &[crate::ChangeRow]| lines.iter().map(|line| line.change.about.clone()).collect::<Vec<_>>();
    let first = store.changes(None, None, 2).await.unwrap();
    assert_eq!(about(&first), ["a@y", "c@x"]);
    let rest = store.changes(None, Some(first[1].id), 10).await.unwrap();
    assert_eq!(about(&rest), ["b@x", "a@x"]);
    assert_eq!(about(&store.changes(Some("b@x"), None, 10).await.unwrap()), ["b@x"]);
}

async fn an_account_that_nobody_opened_cannot_be_saved<S: Store + SavedAccounts>(store: &S) {
    let refused = store.save_account(&save(AccountId(12_345), Expected::New)).await;
    assert!(matches!(refused, Err(StoreError::Failed { .. })));
    assert_eq!(store.saved_accounts().await.unwrap(), []);
}
