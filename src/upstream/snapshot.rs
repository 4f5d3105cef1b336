//! Everything a worker reads to place a request, whole and immutable.
//!
//! The control thread alone publishes a new one, through `Published`; a worker reads it with one
//! atomic load and keeps what it read through a request's retries.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use crate::config::PoolConfig;
use crate::metrics::POOLS_COUNTED;
use crate::upstream::balance::Balance;
use crate::upstream::endpoint::{Endpoint, Slot, Tier};
use crate::upstream::route::Routes;
use crate::upstream::sticky;

pub use crate::upstream::route::PoolId;

/// The one pointer to the snapshot in force.
pub type Published = Arc<ArcSwap<Snapshot>>;
/// A worker's view of `Published`: reads cost one atomic load while nothing changed.
pub type View = Cache<Published, Arc<Snapshot>>;

/// A snapshot as one worker holds it. The worker makes one for each snapshot it reads and its
/// requests share it by `Rc`, so that no count which other cores write is touched on their way.
#[derive(Debug)]
pub struct Held(Arc<Snapshot>);

impl Held {
    /// Holds the snapshot in force.
    pub fn load(view: &mut View) -> Held {
        Held(view.load().clone())
    }

    /// Whether this is still the snapshot in force.
    pub fn is_latest(&self, view: &mut View) -> bool {
        Arc::ptr_eq(view.load(), &self.0)
    }
}

impl std::ops::Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// The pools in force.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the snapshots of this process.
    pub epoch: u64,
    /// The pools; a `PoolId` is an index here. Snapshots share those that did not change.
    pub pools: Vec<Arc<Pool>>,
    /// Which requests go to which of them.
    pub routes: Arc<Routes>,
}

/// A named set of endpoints that requests are spread over.
#[derive(Debug)]
pub struct Pool {
    /// All that may differ between pools; its backends are those of the start.
    pub config: Arc<PoolConfig>,
    /// All endpoints, eligible or not.
    pub endpoints: Vec<Endpoint>,
    /// How one of the primary endpoints is picked,
    pub primary: Balance,
    /// and one of the backups, where no primary one can be had.
    pub backup: Balance,
    /// The sessions' cookies, where sessions are kept.
    pub sticky: Option<sticky::Table>,
    /// Whether too few endpoints are healthy to heed health.
    pub is_panicking: bool,
}

impl Pool {
    /// A pool of these endpoints, with the policy's tables.
    #[must_use]
    pub fn new(config: Arc<PoolConfig>, endpoints: Vec<Endpoint>) -> Pool {
        let balance = &config.balance;
        Pool {
            primary: Balance::new(balance, &endpoints, Tier::Primary),
            backup: Balance::new(balance, &endpoints, Tier::Backup),
            sticky: balance.sticky.as_ref().map(|sticky| sticky::Table::new(sticky, &endpoints)),
            config,
            endpoints,
            is_panicking: false,
        }
    }

    /// The index of the endpoint in this slot.
    #[must_use]
    pub fn index_of(&self, slot: Slot) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| endpoint.slot == slot)
    }
}

impl Snapshot {
    /// A snapshot of these pools, to the first of which everything goes.
    #[must_use]
    pub fn new(epoch: u64, pools: Vec<Arc<Pool>>) -> Snapshot {
        Snapshot { epoch, pools, routes: Arc::new(Routes::to_first()) }
    }

    /// The same with these routes.
    #[must_use]
    pub fn with_routes(self, routes: Arc<Routes>) -> Snapshot {
        Snapshot { routes, ..self }
    }

    /// Puts this snapshot into force as the first one.
    #[must_use]
    pub fn publish(self) -> Published {
        Arc::new(ArcSwap::from_pointee(self))
    }

    /// The pool of this id.
    ///
    /// # Panics
    /// When the id was read from a later snapshot.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[id.0]
    }
}

/// The most pools of a process, with those that were: each index is below, and counted apart.
pub const POOLS_MAX: usize = POOLS_COUNTED;
