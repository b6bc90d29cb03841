//! Whether a message is durable before the server is asked to remove it: read from the order of the program's calls.

/// A call that matters for that, in the order in which they took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Octets for a file, at the entry of the call.
    Wrote(String),
    /// A file or directory, with success.
    Synced(String),
    /// A file got a new name, with success.
    Moved { from: String, to: String },
    /// Octets for the server, at the entry of the call.
    Asked(String),
}

/// What a run did in front of its removals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Messages that were moved to a `new/` before a removal was asked for.
    pub delivered: usize,
    /// How often the server was asked to remove something.
    pub asked: usize,
    /// What was asked for before something was durable.
    pub faults: Vec<String>,
}

impl Order {
    pub(super) fn of(deeds: &[Deed]) -> Self {
        let mut order = Self::default();
        let asked = deeds.iter().enumerate().filter(|(_, deed)| matches!(deed, Deed::Asked(text) if removes(text)));
        for (end, _) in asked {
            order.asked += 1;
            let before = &deeds[..end];
            let moved = before.iter().enumerate().filter_map(|(at, deed)| match deed {
                Deed::Moved { from, to } if to.contains("/new/") => Some((at, from, to)),
                _ => None,
            });
            for (at, from, to) in moved {
                order.delivered = order.delivered.max(before[..=at].iter().filter(|deed| is_delivery(deed)).count());
                if let Err(fault) = durable(before, at, from, to) {
                    order.faults.push(fault);
                }
            }
        }
        order.faults.sort();
        order.faults.dedup();
        order
    }
}

fn is_delivery(deed: &Deed) -> bool {
    matches!(deed, Deed::Moved { to, .. } if to.contains("/new/"))
}

/// A command of POP3 or IMAP that removes.
fn removes(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("DELE ") || line.contains(" EXPUNGE") || line.contains(" MOVE "))
}

/// File, `tmp/`, new name, `new/`, state: in this order, and each with success.
fn durable(before: &[Deed], moved: usize, from: &str, to: &str) -> Result<(), String> {
    let directory = |path: &str| path.rsplit_once('/').map_or_else(String::new, |(directory, _)| directory.to_owned());
    let synced = |from: usize, to: usize, path: &dyn Fn(&str) -> bool| {
        (from..to).find(|at| matches!(&before[*at], Deed::Synced(synced) if path(synced)))
    };
    let wrote = before[..moved].iter().rposition(|deed| matches!(deed, Deed::Wrote(path) if path == from));
    let wrote = wrote.ok_or_else(|| format!("{to} was never written"))?;
    let file =
        synced(wrote, moved, &|path| path == from).ok_or_else(|| format!("{from} was moved before it was synced"))?;
    let tmp = directory(from);
    synced(file, moved, &|path| path == tmp).ok_or_else(|| format!("{from} was moved before {tmp} was synced"))?;
    let new = directory(to);
    let named = synced(moved, before.len(), &|path| path == new)
        .ok_or_else(|| format!("{to} was to be removed before {new} was synced"))?;
    let state = synced(named, before.len(), &|path| path.ends_with("-wal"));
    state.map(|_| ()).ok_or_else(|| format!("{to} was to be removed before the state said that it is there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Vec<Deed> {
        let synced = |path: &str| Deed::Synced(path.to_owned());
        vec![
            Deed::Wrote("/m/tmp/a".into()),
            synced("/m/tmp/a"),
            synced("/m/tmp"),
            synced("/s/state.db-wal"),
            Deed::Moved { from: "/m/tmp/a".into(), to: "/m/new/b".into() },
            synced("/m/new"),
            synced("/s/state.db-wal"),
            Deed::Asked("a1 UID EXPUNGE 1\r\n".into()),
        ]
    }

    #[test]
    fn whatever_is_left_out_before_a_removal_is_noticed() {
        assert_eq!(Order::of(&good()), Order { delivered: 1, asked: 1, faults: Vec::new() });
        // The state is written twice; only the later time is about the delivery's outcome.
        for left_out in [0, 1, 2, 5, 6] {
            let mut deeds = good();
            deeds.remove(left_out);
            assert_eq!(Order::of(&deeds).faults.len(), 1, "without {:?}", good()[left_out]);
        }
        for at in [4, 5, 6] {
            let mut deeds = good();
            deeds.insert(at, Deed::Asked("DELE 1\r\n".into()));
            assert_eq!(Order::of(&deeds).faults.len(), usize::from(at > 4), "asked at {at}");
        }
    }
}
