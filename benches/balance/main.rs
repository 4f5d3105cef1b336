//! What a request pays for being balanced, and what a change of endpoints costs the control thread.
//! README.md says what each benchmark guards.

mod lookup;
mod pick;
mod table;

use std::sync::Arc;
use std::time::Duration;

use corelane::config::{BalanceConfig, HashKey, Policy};
use corelane::upstream::endpoint::{Address, Endpoint, Slot, Standing, Tier, WEIGHT_UNIT};
use corelane::upstream::limit::Limits;

fn main() {
    divan::main();
}

/// A pool's configuration under this policy.
fn config_of(policy: Policy) -> BalanceConfig {
    BalanceConfig {
        policy,
        hash_key: HashKey::Source,
        hash_seed: 1,
        hash_balance_percent: None,
        sticky: None,
        slow_start: Duration::ZERO,
        panic_percent: 50,
    }
}

/// `ENDPOINTS` endpoints of the weights that `weight_of` gives them.
fn endpoints(weight_of: impl Fn(u32) -> u32) -> Vec<Endpoint> {
    let endpoint = |number| Endpoint {
        slot: Slot { number, generation: 0 },
        id: format!("default/10.0.0.{number}:8080"),
        address: Some(Address::Tcp(([10, 0, 0, 1], 8080).into())),
        weight: weight_of(number) * WEIGHT_UNIT,
        tier: Tier::Primary,
        standing: Standing::Open,
        is_sick: false,
        limits: Arc::new(Limits::new(None, None, None)),
    };
    (0..ENDPOINTS).map(endpoint).collect()
}

/// The endpoints of a pool.
const ENDPOINTS: u32 = 200;
