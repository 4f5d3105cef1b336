//! What stands under the prefix, and the backends that it makes.
//!
//! A value that is broken is told once for each of its versions, and the others count. When etcd
//! has lost its data, what it named is held for a while: services register again one by one. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::{BACKENDS_MAX, parse_pool_name};
use crate::discovery::etcd::error::Failure;
use crate::discovery::etcd::wire::{Header, KeyValue};
use crate::discovery::{Entry, Found, Mark};

/// All keys under the prefix.
#[derive(Debug)]
pub(super) struct Keys {
    /// What each key begins with, `pools/` included.
    prefix: String,
    all: BTreeMap<Vec<u8>, Key>,
    /// Which cluster named them, and at which revision it was.
    seen: Option<Header>,
    /// Up to which of its changes they are known.
    told: Mark,
    /// Whether what is held comes from an earlier process, which etcd may go on from.
    is_recalled: bool,
    /// What a cluster that lost its data named, while its services may still register again,
    held: Vec<Found>,
    /// how far it was,
    held_at: Mark,
    /// and until when; not before it names anything.
    held_until: Option<Instant>,
}

#[derive(Debug)]
struct Key {
    version: i64,
    /// `None` for a key that is no backend's, or broken.
    found: Option<Found>,
}

impl Keys {
    /// Those of an etcd that told nothing yet.
    pub(super) fn new(prefix: &str) -> Keys {
        let prefix = format!("{prefix}pools/");
        Keys {
            prefix,
            all: BTreeMap::new(),
            seen: None,
            told: Mark::default(),
            is_recalled: false,
            held: Vec::new(),
            held_at: Mark::default(),
            held_until: None,
        }
    }

    /// Takes over what an earlier process knew: held if etcd has lost its data since, else what
    /// etcd names now takes its place.
    pub(super) fn recall(&mut self, mark: Mark, held: Vec<Found>) {
        let Mark { cluster_id, revision } = mark;
        self.seen = Some(Header { cluster_id, revision });
        (self.is_recalled, self.held, self.held_at) = (true, held, mark);
    }

    /// What all keys begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of a backend.
    pub(super) fn key_of(prefix: &str, pool: &str, authority: &str) -> String {
        format!("{prefix}pools/{pool}/backends/{authority}")
    }

    /// Takes over all keys as they are now; what is to be told of broken ones.
    pub(super) fn replace(
        &mut self,
        header: Header,
        kvs: &[KeyValue],
        now: Instant,
    ) -> Result<Vec<String>, Failure> {
        if kvs.len() > KEYS_MAX {
            return Err(Failure::TooLarge("keys", KEYS_MAX));
        }
        let has_lost_data = self.seen.is_some_and(|seen| {
            seen.cluster_id != header.cluster_id || header.revision < seen.revision
        });
        let is_recalled = std::mem::take(&mut self.is_recalled);
        if has_lost_data {
            self.held_at = self.mark();
            self.held = self.backends();
            self.held_until = None;
        } else if is_recalled {
            self.held.clear();
        }
        self.told = Mark { cluster_id: header.cluster_id, revision: header.revision };
        let before = std::mem::take(&mut self.all);
        let mut complaints = Vec::new();
        for kv in kvs {
            let known = before.get(&kv.key).map(|key| key.version);
            complaints.extend(self.put(kv, known.filter(|_| !has_lost_data)));
        }
        self.note(header, now);
        Ok(complaints)
    }

    /// Takes over one change; what is to be told of a broken value.
    pub(super) fn apply(
        &mut self,
        kv: &KeyValue,
        is_delete: bool,
    ) -> Result<Option<String>, Failure> {
        self.told.revision = self.told.revision.max(kv.mod_revision);
        if is_delete {
            self.all.remove(&kv.key);
            return Ok(None);
        }
        if self.all.len() >= KEYS_MAX && !self.all.contains_key(&kv.key) {
            return Err(Failure::TooLarge("keys", KEYS_MAX));
        }
        let known = self.all.get(&kv.key).map(|key| key.version);
        Ok(self.put(kv, known))
    }

    /// Notes how far etcd has told.
    pub(super) fn note(&mut self, header: Header, now: Instant) {
        self.seen = Some(header);
        let names_any = self.all.values().any(|key| key.found.is_some());
        if !self.held.is_empty() && self.held_until.is_none() && names_any {
            self.held_until = Some(now + HOLD);
        }
    }

    /// What is to be remembered: where what was lost is held, how far etcd was before, so that it
    /// is held after a restart, too.
    pub(super) fn mark(&self) -> Mark {
        if self.held.is_empty() { self.told } else { self.held_at }
    }

    /// Up to where etcd's changes are known.
    pub(super) fn told(&self) -> Mark {
        self.told
    }

    /// Until when what was lost is held, if anything is.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Lets go of what was lost; how many did not come back.
    pub(super) fn let_go(&mut self) -> usize {
        let with_held = self.backends().len();
        self.held.clear();
        self.held_until = None;
        with_held - self.backends().len()
    }

    /// Whether etcd, which has so many keys of which the last changed then, told of all.
    pub(super) fn is_told(&self, count: usize, newest: i64) -> bool {
        let known = self.all.values().map(|key| key.version).max().unwrap_or(0);
        self.all.len() == count && (count == 0 || known == newest)
    }

    /// The backends, in the order of their keys, each place once and no more than `BACKENDS_MAX`.
    pub(super) fn backends(&self) -> Vec<Found> {
        let mut seen = BTreeSet::new();
        let named = self.all.values().filter_map(|key| key.found.as_ref());
        let mut all: Vec<Found> = named
            .chain(&self.held)
            .filter(|found| seen.insert(found.place()))
            .take(BACKENDS_MAX)
            .cloned()
            .collect();
        all.sort_by_cached_key(Found::place);
        all
    }

    fn put(&mut self, kv: &KeyValue, known_version: Option<i64>) -> Option<String> {
        let read = self.read(kv);
        let complaint = match &read {
            Err(reason) if known_version != Some(kv.mod_revision) => {
                let key = String::from_utf8_lossy(&kv.key);
                Some(format!("{key} (revision {}): {reason}", kv.mod_revision))
            }
            _ => None,
        };
        let found = read.ok().flatten();
        if let Some(found) = &found {
            // It came back, and may go for good from now on.
            self.held.retain(|held| held.place() != found.place());
        }
        self.all.insert(kv.key.clone(), Key { version: kv.mod_revision, found });
        complaint
    }

    /// The backend of a key; none for a key that is no backend's.
    pub(super) fn read(&self, kv: &KeyValue) -> Result<Option<Found>, String> {
        let key = std::str::from_utf8(&kv.key).map_err(|_no| "the key is not UTF-8".to_owned())?;
        let Some((pool, rest)) =
            key.strip_prefix(&self.prefix).and_then(|rest| rest.split_once('/'))
        else {
            return Ok(None);
        };
        let Some(id) = rest.strip_prefix("backends/") else { return Ok(None) };
        let pool = parse_pool_name(pool)?;
        if kv.value.len() > VALUE_BYTES_MAX {
            return Err(format!("the value is longer than {VALUE_BYTES_MAX} bytes"));
        }
        let mut value: Value =
            serde_json::from_slice(&kv.value).map_err(|error| format!("no JSON: {error}"))?;
        if let Some(fields) = value.as_object_mut() {
            fields.entry("url").or_insert_with(|| json!(format!("http://{id}")));
        }
        let entry: Entry = serde_json::from_value(value).map_err(|error| error.to_string())?;
        Ok(Some(Found { pool, backend: entry.backend()? }))
    }
}

/// The most keys under the prefix.
pub(super) const KEYS_MAX: usize = 4 * BACKENDS_MAX;
/// The most bytes of a backend's value.
const VALUE_BYTES_MAX: usize = 1024;
/// How long what was lost is held, from the first backend that is named again.
const HOLD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str, version: i64) -> KeyValue {
        let (key, value) = (format!("/c/pools/{key}").into_bytes(), value.as_bytes().to_vec());
        KeyValue { key, value, mod_revision: version }
    }

    fn at(cluster_id: u64, revision: i64) -> Header {
        Header { cluster_id, revision }
    }

    fn ids(keys: &Keys) -> Vec<String> {
        let id = |found: &Found| format!("{}/{}", found.pool, found.backend.authority());
        keys.backends().iter().map(id).collect()
    }

    #[test]
    fn backends_are_read_and_what_is_none_is_passed_over() {
        let mut keys = Keys::new("/c/");
        let kvs = [
            kv("default/backends/10.0.0.1:80", "{}", 2),
            kv("default/backends/x", r#"{"url":"http://10.0.0.2:80","weight":3}"#, 3),
            kv("default/backends/y", r#"{"url":"http://10.0.0.2:80"}"#, 4),
            kv("other/backends/10.0.0.1:80", "{}", 5),
            kv("other/settings", "{}", 6),
        ];
        assert_eq!(keys.replace(at(1, 6), &kvs, Instant::now()).unwrap(), Vec::<String>::new());
        let expected = ["default/10.0.0.1:80", "default/10.0.0.2:80", "other/10.0.0.1:80"];
        assert_eq!(ids(&keys), expected);
        assert_eq!(keys.backends()[1].backend.weight.get(), 3, "the first of two keys counts");
        assert!(keys.is_told(5, 6) && !keys.is_told(4, 6) && !keys.is_told(5, 7));
    }

    #[test]
    fn a_broken_value_is_told_once_for_each_version_and_the_others_count() {
        let (mut keys, now) = (Keys::new("/c/"), Instant::now());
        let long = format!("{{\"url\":\"{}\"}}", "x".repeat(VALUE_BYTES_MAX));
        for (value, named) in [
            ("", "JSON"),
            ("[]", "Entry"),
            (r#"{"weight":0}"#, "weight"),
            (r#"{"colour":1}"#, "colour"),
            (&long, "longer"),
        ] {
            let kvs =
                [kv("p/backends/10.0.0.1:80", value, 2), kv("p/backends/10.0.0.2:80", "{}", 3)];
            let mut keys = Keys::new("/c/");
            let complaints = keys.replace(at(1, 3), &kvs, now).unwrap();
            assert_eq!(complaints.len(), 1, "{complaints:?}");
            assert!(complaints[0].contains(named), "{complaints:?}");
            assert_eq!(ids(&keys), ["p/10.0.0.2:80"]);
            assert_eq!(keys.replace(at(1, 3), &kvs, now).unwrap().len(), 0, "told before");
        }
        let bad = kv("p/backends/10.0.0.1:80", "?", 2);
        assert!(keys.apply(&bad, false).unwrap().is_some());
        assert!(keys.apply(&bad, false).unwrap().is_none());
        assert!(keys.apply(&kv("p/backends/10.0.0.1:80", "?", 4), false).unwrap().is_some());
        assert!(keys.apply(&kv("p/backends/10.0.0.1:80", "{}", 5), false).unwrap().is_none());
        assert_eq!(ids(&keys), ["p/10.0.0.1:80"]);
        keys.apply(&kv("p/backends/10.0.0.1:80", "", 6), true).unwrap();
        assert_eq!(ids(&keys), Vec::<String>::new());
    }

    #[test]
    fn what_a_cluster_named_before_it_lost_its_data_is_held_for_a_while() {
        let (a, b) = (kv("p/backends/10.0.0.1:80", "{}", 8), kv("p/backends/10.0.0.2:80", "{}", 9));
        for lost in [at(2, 20), at(1, 1)] {
            let (mut keys, now) = (Keys::new("/c/"), Instant::now());
            let kvs =
                [kv("p/backends/10.0.0.1:80", "{}", 8), kv("p/backends/10.0.0.2:80", "{}", 9)];
            keys.replace(at(1, 9), &kvs, now).unwrap();
            keys.replace(lost, &[], now).unwrap();
            let Header { cluster_id, revision } = lost;
            let told = Mark { cluster_id, revision };
            assert_eq!((keys.mark(), keys.told()), (Mark { cluster_id: 1, revision: 9 }, told));
            assert_eq!(ids(&keys).len(), 2, "both are held");
            assert_eq!(keys.held_until(), None, "and as long as it names nothing");
            keys.apply(&a, false).unwrap();
            keys.note(Header { revision: lost.revision + 1, ..lost }, now);
            assert_eq!((ids(&keys).len(), keys.held_until()), (2, Some(now + HOLD)));
            keys.apply(&a, true).unwrap();
            assert_eq!(ids(&keys), ["p/10.0.0.2:80"], "what came back may go");
            keys.apply(&a, false).unwrap();
            assert_eq!(keys.let_go(), 1);
            assert_eq!(keys.mark(), keys.told(), "nothing is held any more");
            assert_eq!(ids(&keys), ["p/10.0.0.1:80"]);
            assert_eq!(keys.held_until(), None);
        }
        // A cluster that goes on and names fewer means it.
        let (mut keys, now) = (Keys::new("/c/"), Instant::now());
        keys.replace(at(1, 9), &[a, b], now).unwrap();
        keys.replace(at(1, 11), &[], now).unwrap();
        assert_eq!(ids(&keys), Vec::<String>::new());
    }

    #[test]
    fn what_an_earlier_process_knew_is_held_only_if_etcd_has_lost_its_data() {
        let now = Instant::now();
        let kvs = [kv("p/backends/10.0.0.1:80", "{}", 8), kv("p/backends/10.0.0.2:80", "{}", 9)];
        let mut before = Keys::new("/c/");
        before.replace(at(1, 9), &kvs, now).unwrap();
        for (header, names, expected) in [
            (at(1, 9), &kvs[..1], 1),
            (at(1, 12), &[], 0),
            (at(1, 3), &[], 2),
            (at(2, 20), &[], 2),
            (at(2, 20), &kvs[1..], 2),
        ] {
            let mut keys = Keys::new("/c/");
            keys.recall(before.mark(), before.backends());
            keys.replace(header, names, now).unwrap();
            assert_eq!(ids(&keys).len(), expected, "{header:?}");
            assert_eq!(keys.held_until().is_some(), expected == 2 && !names.is_empty());
            // What is held is held after one more restart, too.
            let mut again = Keys::new("/c/");
            again.recall(keys.mark(), keys.backends());
            again.replace(header, names, now).unwrap();
            assert_eq!(ids(&again), ids(&keys), "{header:?}");
        }
    }

    #[test]
    fn the_mark_is_the_last_change_that_was_told_of() {
        let mut keys = Keys::new("/c/");
        keys.replace(at(1, 9), &[], Instant::now()).unwrap();
        keys.apply(&kv("p/backends/10.0.0.1:80", "{}", 11), false).unwrap();
        // The header runs ahead of what is told.
        keys.note(at(1, 15), Instant::now());
        assert_eq!(keys.mark(), Mark { cluster_id: 1, revision: 11 });
    }

    #[test]
    fn more_keys_than_the_limit_change_nothing() {
        let mut keys = Keys::new("/c/");
        let many: Vec<_> =
            (0..=KEYS_MAX).map(|n| kv(&format!("p/backends/h{n}:80"), "{}", 1)).collect();
        let now = Instant::now();
        assert!(keys.replace(at(1, 1), &many, now).is_err());
        keys.replace(at(1, 1), &many[1..], now).unwrap();
        assert_eq!(keys.backends().len(), BACKENDS_MAX);
        assert!(keys.apply(&many[0], false).is_err());
    }
}
