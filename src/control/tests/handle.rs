//! Changes through a `Handle`, while the control thread runs.

use super::*;
use crate::config::{RouteConfig, WEIGHT_MAX};
use crate::control::{BackendView, Handle, Patch, Refusal, State};

/// Waits for a handle's answer.
fn answer<T>(asked: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await.expect("no answer") })
}

fn backend_of(backend: &Backend) -> BackendConfig {
    super::backend("127.0.0.1", backend.address.port(), Mode::Ready)
}

fn look(handle: &Handle, backend: &Backend) -> BackendView {
    answer(handle.backend("default", &backend.address.to_string())).unwrap()
}

#[test]
fn an_empty_pool_is_filled_changed_and_emptied() {
    let backend = Backend::start(PASS);
    let control = start_with(&config(&[], PATIENCE));
    wait_for_first_round(&control);
    let (handle, authority) = (control.handle(), backend.address.to_string());
    assert!(answer(handle.pool("default")).unwrap().backends.is_empty());
    let mut changes = handle.changes();

    let done = answer(handle.add("default", backend_of(&backend))).unwrap();
    assert_eq!((done.before, done.after.unwrap().state), (None, State::Unknown));
    wait_until(&control, "1");
    let view = look(&handle, &backend);
    assert_eq!((view.state, view.source), (State::Up, Source::Api));
    assert_eq!((view.slot.number, view.weight, view.effective_weight), (0, 1, 1.0));

    let patch = Patch { weight: Some(7), mode: Some(Mode::Maintenance), ..Patch::default() };
    let stale = Some(Revision(view.revision.0 - 1));
    let refused = answer(handle.patch("default", &authority, patch, stale)).unwrap_err();
    assert_eq!(refused, Refusal::Conflict(view.revision));
    let done = answer(handle.patch("default", &authority, patch, Some(view.revision))).unwrap();
    let after = done.after.unwrap();
    assert!(after.revision > view.revision);
    assert_eq!((after.weight, after.state, after.slot), (7, State::Maintenance, view.slot));
    wait_until(&control, "0");
    let ready = Patch { mode: Some(Mode::Ready), ..Patch::default() };
    answer(handle.patch("default", &authority, ready, None)).unwrap();
    wait_until(&control, "1");

    answer(handle.remove("default", &authority, None)).unwrap();
    wait_until(&control, "");
    let unknown = Refusal::UnknownBackend(format!("default/{authority}"));
    assert_eq!(answer(handle.backend("default", &authority)).unwrap_err(), unknown);
    let mut told = Vec::new();
    while let Ok(change) = changes.try_recv() {
        told.push(change);
    }
    let text = told.iter().map(|it| format!("{}: {}\n", it.cause, it.text)).collect::<String>();
    for word in ["api: ", "is added", "health: ", "takes requests", "is removed", &authority] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let listed = answer(handle.snapshots()).unwrap();
    assert_eq!(listed.last(), told.last());
    let (first, last) = (listed[0].epoch, listed[listed.len() - 1].epoch);
    assert_eq!(answer(handle.diff(first, last)).unwrap(), [], "it came and went");
    let epoch = told[0].epoch;
    let between = answer(handle.diff(first, epoch)).unwrap();
    assert!(between.len() == 1 && between[0].before.is_none() && between[0].after.is_some());
    assert_eq!(answer(handle.diff(0, 1)).unwrap_err(), Refusal::UnknownEpoch(0));
    control.stop();
    assert_eq!(answer(handle.pools()).unwrap_err(), Refusal::Gone);
}

#[test]
fn one_that_takes_the_place_of_another_leaves_no_gap() {
    let (old, new) = (Backend::start(PASS), Backend::start(PASS));
    let control = start(&[&old]);
    wait_until(&control, "1");
    let (handle, authority) = (control.handle(), old.address.to_string());
    for (comes, goes) in [(&new, &old), (&old, &new), (&new, &old)] {
        answer(handle.add("default", backend_of(comes))).unwrap();
        let done = answer(handle.remove("default", &goes.address.to_string(), None)).unwrap();
        assert_eq!(done.after, None);
        until("the new one has taken over", || {
            let shown = eligible(&control.published().load());
            assert!(shown.contains('1'), "{shown}");
            shown == "1" && answer(handle.pools()).unwrap()[0].backends.len() == 1
        });
    }
    // One whose successor is down goes all the same.
    new.set(HANG);
    let down = super::backend("127.0.0.1", 1, Mode::Ready);
    answer(handle.add("default", down)).unwrap();
    answer(handle.remove("default", &new.address.to_string(), None)).unwrap();
    wait_until(&control, "0");
    assert!(answer(handle.backend("default", &authority)).is_err());
    control.stop();
}

#[test]
fn what_cannot_be_is_refused_and_publishes_nothing() {
    let backend = Backend::start(PASS);
    let control = start(&[&backend]);
    wait_until(&control, "1");
    let (handle, authority) = (control.handle(), backend.address.to_string());
    let epoch = control.published().load().epoch;
    let heavy = Patch { weight: Some(WEIGHT_MAX + 1), ..Patch::default() };
    assert!(matches!(
        answer(handle.patch("default", &authority, heavy, None)),
        Err(Refusal::Invalid(_))
    ));
    let exists = Refusal::Exists(format!("default/{authority}"));
    assert_eq!(answer(handle.add("default", backend_of(&backend))).unwrap_err(), exists);
    let nowhere = Refusal::UnknownPool("nowhere".to_owned());
    assert_eq!(answer(handle.add("nowhere", backend_of(&backend))).unwrap_err(), nowhere);
    let same = Patch { weight: Some(1), ..Patch::default() };
    let done = answer(handle.patch("default", &authority, same, None)).unwrap();
    assert_eq!(done.before, done.after);
    assert_eq!(control.published().load().epoch, epoch);
    control.stop();
}

#[test]
fn other_settings_come_in_one_snapshot_and_pools_keep_their_places() {
    let (one, two) = (Backend::start(PASS), Backend::start(PASS));
    let mut pools = config(&[("127.0.0.1", one.address.port())], PATIENCE).pools;
    let control = start_with(&config(&[("127.0.0.1", one.address.port())], PATIENCE));
    wait_until(&control, "1");
    let handle = control.handle();
    let mut other = pools[0].clone();
    other.name = "other".to_owned();
    other.backends = vec![backend_of(&two)];
    pools[0].balance.panic_percent = 30;
    pools.push(other);
    answer(handle.configure(pools.clone(), vec![RouteConfig::catch_all()])).unwrap();
    let published = control.published();
    until("the other pool is up", || {
        let snapshot = published.load();
        snapshot.pools.get(1).is_some_and(|pool| pool.endpoints.iter().any(|it| it.is_eligible()))
    });
    assert_eq!(eligible(&published.load()), "1", "what stays is not touched");
    assert_eq!(published.load().pools[0].config.balance.panic_percent, 30);
    pools.remove(0);
    answer(handle.configure(pools, vec![RouteConfig::catch_all()])).unwrap();
    until("the first pool is empty", || published.load().pools[0].endpoints.is_empty());
    let snapshot = published.load();
    assert_eq!((snapshot.pools.len(), snapshot.pools[1].config.name.as_str()), (2, "other"));
    assert!(snapshot.pools[1].endpoints[0].is_eligible());
    let listed = answer(handle.pools()).unwrap();
    assert_eq!(listed.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), ["other"]);
    let mut broken = config(&[("127.0.0.1", 1)], PATIENCE).pools;
    broken[0].health.path = Some("no path".to_owned());
    let epoch = published.load().epoch;
    assert!(matches!(
        answer(handle.configure(broken, vec![RouteConfig::catch_all()])),
        Err(Refusal::Invalid(_))
    ));
    assert_eq!(published.load().epoch, epoch);
    control.stop();
}

#[test]
fn a_thousand_endpoints_come_and_go_and_slots_come_again() {
    let backend = Backend::start(PASS);
    let control = start(&[&backend]);
    wait_until(&control, "1");
    let handle = control.handle();
    for number in 0..1000 {
        let host = format!("127.1.{}.{}", number % 3, number % 250 + 1);
        let added = super::backend(&host, 9, Mode::Maintenance);
        let authority = added.authority();
        answer(handle.add("default", added)).unwrap();
        answer(handle.remove("default", &authority, None)).unwrap();
        if number % 100 == 0 {
            let epoch = control.published().load().epoch;
            until("a snapshot comes", || control.published().load().epoch > epoch);
        }
    }
    wait_until(&control, "1");
    assert_eq!(look(&handle, &backend).slot.number, 0);
    control.stop();
}
