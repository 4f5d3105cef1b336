//! The last snapshots in words, and how they differ.
//!
//! Keeps what each changed, not the snapshots themselves. Told by `publish` of each one; never
//! decides about any.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::SystemTime;

use tokio::sync::broadcast;

use crate::control::handle::SNAPSHOTS_MAX;
use crate::control::refusal::Refusal;
use crate::control::view::{Change, Difference, Shown};
use crate::upstream::endpoint::{Address, Endpoint, Standing, Tier, WEIGHT_UNIT};
use crate::upstream::snapshot::Snapshot;

/// The last snapshots.
#[derive(Debug)]
pub(super) struct History {
    /// The newest last.
    past: VecDeque<(Change, Vec<Difference>)>,
    /// What the last one shows.
    shown: HashMap<String, Shown>,
    changes: broadcast::Sender<Change>,
}

impl History {
    /// Before the first snapshot; each is told here.
    pub(super) fn new(changes: broadcast::Sender<Change>) -> History {
        History { past: VecDeque::new(), shown: HashMap::new(), changes }
    }

    /// Takes a snapshot over that was published for these causes; `why` says what made an endpoint
    /// what it is.
    pub(super) fn note<'w>(
        &mut self,
        snapshot: &Snapshot,
        causes: &BTreeSet<&'static str>,
        at: SystemTime,
        why: impl Fn(&str) -> Option<&'w str>,
    ) {
        let differences = self.differences_to(snapshot);
        let causes: Vec<&str> = causes.iter().copied().collect();
        let text = text_of(&differences, why);
        let change = Change { epoch: snapshot.epoch, at, cause: causes.join(","), text };
        // Without a listener there is nobody to tell.
        self.changes.send(change.clone()).ok();
        if self.past.len() >= SNAPSHOTS_MAX {
            self.past.pop_front();
        }
        self.past.push_back((change, differences));
    }

    /// The last snapshots, the newest last.
    pub(super) fn list(&self) -> Vec<Change> {
        self.past.iter().map(|(change, _)| change.clone()).collect()
    }

    /// How the snapshot of one epoch differs from that of another.
    pub(super) fn diff(&self, from: u64, to: u64) -> Result<Vec<Difference>, Refusal> {
        let is_known = |epoch| self.past.iter().any(|(change, _)| change.epoch == epoch);
        for epoch in [from, to] {
            if !is_known(epoch) {
                return Err(Refusal::UnknownEpoch(epoch));
            }
        }
        let (earlier, later) = (from.min(to), from.max(to));
        let between = self.past.iter().filter(|(it, _)| earlier < it.epoch && it.epoch <= later);
        let mut merged: BTreeMap<&str, (Option<Shown>, Option<Shown>)> = BTreeMap::new();
        for step in between.flat_map(|(_, differences)| differences) {
            merged.entry(&step.id).or_insert((step.before, None)).1 = step.after;
        }
        let changed = merged.into_iter().filter(|(_, (before, after))| before != after);
        let differences = changed.map(|(id, (before, after))| {
            let (before, after) = if from <= to { (before, after) } else { (after, before) };
            Difference { id: id.to_owned(), before, after }
        });
        Ok(differences.collect())
    }

    /// What a snapshot shows otherwise than the last.
    fn differences_to(&mut self, snapshot: &Snapshot) -> Vec<Difference> {
        let endpoints = snapshot.pools.iter().flat_map(|pool| &pool.endpoints);
        let mut differences = Vec::new();
        let mut count = 0;
        for endpoint in endpoints.clone() {
            count += 1;
            let (before, after) = (self.shown.get(&endpoint.id).copied(), shown_of(endpoint));
            if before != Some(after) {
                let id = endpoint.id.clone();
                self.shown.insert(id.clone(), after);
                differences.push(Difference { id, before, after: Some(after) });
            }
        }
        if self.shown.len() > count {
            let ids: BTreeSet<&str> = endpoints.map(|endpoint| endpoint.id.as_str()).collect();
            let gone = self.shown.extract_if(|id, _| !ids.contains(id.as_str()));
            differences.extend(gone.map(|(id, before)| Difference {
                id,
                before: Some(before),
                after: None,
            }));
        }
        differences
    }
}

fn shown_of(endpoint: &Endpoint) -> Shown {
    Shown {
        address: endpoint.address.map(|Address::Tcp(address)| address),
        weight: endpoint.weight,
        tier: endpoint.tier,
        standing: endpoint.standing,
        conns_max: endpoint.limits.conns.as_ref().map(|limit| limit.max()),
    }
}

/// The first few differences in words.
fn text_of<'w>(differences: &[Difference], why: impl Fn(&str) -> Option<&'w str>) -> String {
    let told = differences.iter().take(TOLD_MAX).map(|difference| {
        let what = words_of(difference.before, difference.after);
        match why(&difference.id).filter(|why| !why.is_empty()) {
            Some(why) => format!("{} {what} ({why})", difference.id),
            None => format!("{} {what}", difference.id),
        }
    });
    let mut text = told.collect::<Vec<_>>().join("; ");
    if let Some(more) = differences.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

fn words_of(before: Option<Shown>, after: Option<Shown>) -> String {
    let takes = |standing| match standing {
        Standing::Open => "takes requests",
        Standing::Trial => "takes trials",
        Standing::Draining => "takes its sessions",
        Standing::Out => "takes no requests",
    };
    let weight = |weight: u32| f64::from(weight) / f64::from(WEIGHT_UNIT);
    match (before, after) {
        (_, None) => "is removed".to_owned(),
        (None, Some(after)) => format!("is added and {}", takes(after.standing)),
        (Some(before), Some(after)) if before.standing != after.standing => {
            takes(after.standing).to_owned()
        }
        (Some(before), Some(after)) if before.weight != after.weight => {
            format!("weighs {} after {}", weight(after.weight), weight(before.weight))
        }
        (Some(before), Some(after)) if before.address != after.address => match after.address {
            Some(address) => format!("is at {address}"),
            None => "has no address".to_owned(),
        },
        (Some(before), Some(after)) if before.tier != after.tier => match after.tier {
            Tier::Primary => "is no backup any more".to_owned(),
            Tier::Backup => "is a backup".to_owned(),
        },
        (_, Some(after)) => match after.conns_max {
            Some(max) => format!("takes {max} connections"),
            None => "takes any number of connections".to_owned(),
        },
    }
}

/// The most differences that are told in words.
const TOLD_MAX: usize = 4;
