use connectord_delivery::Note;
use connectord_mail::DeliveryId;

use super::names;
use super::note::Row;
use super::quota::Quota;

/// Whatever others have put into a Maildir, and whatever a server calls its mailboxes: a name tells an id and a size or does
/// not, no folder leaves the Maildir, a quota is summed up without overflow, and a note comes back.
pub fn maildir_names(data: &[u8]) {
    if let Some(id) = names::id_of(data) {
        assert!(contains(data, id.to_string().as_bytes()));
        let flagged = [data, b":2,S"].concat();
        assert_eq!(names::id_of(&flagged), Some(id));
    }
    if let Some(size) = names::size_of(data) {
        assert!(contains(data, b",S="), "{size}");
    }
    let text = String::from_utf8_lossy(data);
    if let Some(folder) = names::folder(&text) {
        assert!(folder.starts_with('.') && folder.len() > 1 && folder.len() <= 200, "{folder:?}");
        assert!(!folder.contains('/') && !folder.chars().any(char::is_control), "{folder:?}");
        assert!(folder.split('.').skip(1).all(|level| !level.is_empty()), "{folder:?}");
    }
    for part in [names::host(&text), names::instance(&text)] {
        assert!(!part.is_empty() && part.len() < 128, "{part:?}");
        assert!(!part.contains(['/', ':', ',']) && !part.chars().any(char::is_control), "{part:?}");
    }
    if let Some(mut quota) = Quota::parse(&text) {
        let before = quota;
        let fits = quota.take(u64::MAX);
        assert!(fits || quota == before);
    }
    let note = Note(data.to_vec());
    if let Some(row) = Row::parse(&note) {
        assert!(
            !row.target.contains('/')
                && row.id().is_some_and(|id: DeliveryId| names::id_of(row.target.as_bytes()) == Some(id))
        );
        let written = row.to_note().expect("no longer than it was");
        assert_eq!(Row::parse(&written), Some(row));
    }
}

fn contains(octets: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(octets, what).is_some()
}
