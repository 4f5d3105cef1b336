//! Whether the process is alive, and whether it should get traffic: two questions, for `/healthz` and
//! `/readyz`. Pure; called by handlers and for the status document.

use crate::process::{Phase, WorkerState};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::snapshot::Snapshot;

/// Why it should get no traffic; empty when it should.
pub(super) fn reasons(phase: Phase, snapshot: &Snapshot) -> Vec<String> {
    let mut reasons = Vec::new();
    match phase {
        Phase::Starting => reasons.push("it starts: workers or first health checks are due".into()),
        Phase::Serving => {}
        Phase::Draining => reasons.push("it drains".into()),
    }
    let is_empty = |endpoints: &[Endpoint]| !endpoints.iter().any(Endpoint::is_eligible);
    let pools = snapshot.pools.iter().filter(|pool| is_empty(&pool.endpoints));
    reasons.extend(
        pools.map(|pool| format!("no backend of pool {} takes requests", pool.config.name)),
    );
    reasons
}

/// What of the process is dead; empty when it lives.
pub(super) fn deaths(phase: Phase, workers: &[WorkerState]) -> Vec<String> {
    if phase != Phase::Serving {
        return Vec::new();
    }
    let dead = workers.iter().enumerate().filter(|(_, worker)| !worker.is_running);
    dead.map(|(id, _)| format!("worker {id} does not run")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_serves_must_have_all_its_workers() {
        let worker = |is_running| WorkerState { core: 0, driver: None, is_running, restarts: 0 };
        let workers = [worker(true), worker(false)];
        assert_eq!(deaths(Phase::Serving, &workers), ["worker 1 does not run"]);
        assert!(deaths(Phase::Starting, &workers).is_empty());
        assert!(deaths(Phase::Draining, &workers).is_empty());
    }

    #[test]
    fn reasons_name_the_phase() {
        let empty = Snapshot::new(1, Vec::new());
        assert!(reasons(Phase::Serving, &empty).is_empty());
        assert_eq!(reasons(Phase::Draining, &empty), ["it drains"]);
        assert!(reasons(Phase::Starting, &empty)[0].starts_with("it starts"));
    }
}
