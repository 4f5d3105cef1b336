//! What a snapshot computes for 200 endpoints, on the control thread.

use corelane::config::{Policy, StickyConfig};
use corelane::upstream::balance::Balance;
use corelane::upstream::endpoint::Tier;
use corelane::upstream::sticky;
use divan::Bencher;

use crate::{config_of, endpoints};

#[divan::bench]
fn maglev_table(bencher: Bencher<'_, '_>) {
    let (config, endpoints) = (config_of(Policy::Maglev), endpoints(|_| 1));
    bencher.bench(|| Balance::new(&config, &endpoints, Tier::Primary));
}

/// Weights without a common divisor, as while endpoints start slowly.
#[divan::bench]
fn maglev_table_of_many_weights(bencher: Bencher<'_, '_>) {
    let (config, endpoints) = (config_of(Policy::Maglev), endpoints(|number| 1 + number % 256));
    bencher.bench(|| Balance::new(&config, &endpoints, Tier::Primary));
}

#[divan::bench]
fn schedule_of_many_weights(bencher: Bencher<'_, '_>) {
    let (config, endpoints) = (config_of(Policy::RoundRobin), endpoints(|number| 1 + number % 256));
    bencher.bench(|| Balance::new(&config, &endpoints, Tier::Primary));
}

#[divan::bench]
fn sticky_table(bencher: Bencher<'_, '_>) {
    let (config, endpoints) = (sticky_config(), endpoints(|_| 1));
    bencher.bench(|| sticky::Table::new(&config, &endpoints));
}

pub(crate) fn sticky_config() -> StickyConfig {
    StickyConfig {
        name: "lane".to_owned(),
        path: "/".to_owned(),
        domain: None,
        max_age: None,
        secure: true,
        http_only: true,
        same_site: None,
        secret: b"a secret".to_vec(),
    }
}
