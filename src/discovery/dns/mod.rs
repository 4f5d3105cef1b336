//! Backends by DNS: asks a name again and again and tells its addresses when they change.
//!
//! An answer that is empty, failed or too large keeps the last set. A family of addresses that
//! cannot be asked keeps its last ones, while the other goes on. Runs on the control thread.

mod lookup;
mod targets;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RecordType;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::{DnsConfig, ResolverConfig};
use crate::discovery::backoff::{Backoff, jittered};
use crate::discovery::dns::lookup::{Answer, Failure, RECORDS_MAX, Srv};
use crate::discovery::dns::targets::Service;
use crate::discovery::told::Told;
use crate::discovery::{Found, Set};

/// One name, and what it last told.
pub(super) struct Name {
    config: DnsConfig,
    how: ResolverConfig,
    resolver: Option<TokioResolver>,
    /// The addresses that each host last had: IPv4, IPv6.
    hosts: BTreeMap<String, [Vec<IpAddr>; 2]>,
    last: Option<Vec<Found>>,
    told: Told,
}

impl Name {
    /// A name that was not asked for yet.
    pub(super) fn new(config: DnsConfig, how: ResolverConfig) -> Name {
        let (resolver, hosts, told) = (None, BTreeMap::new(), Told::default());
        Name { config, how, resolver, hosts, last: None, told }
    }

    /// Asks and tells until nobody listens.
    pub(super) async fn run(mut self, sets: mpsc::Sender<Set>) {
        let mut backoff = Backoff::new(self.how.ttl_min, self.how.ttl_max.min(BACKOFF_MAX));
        loop {
            let wait = match self.ask().await {
                Ok((backends, ttl)) => {
                    backoff.reset();
                    if !self.tell(backends, &sets).await {
                        return;
                    }
                    let ttl = Duration::from_secs(ttl.into());
                    let ttl = ttl.clamp(self.how.ttl_min, self.how.ttl_max);
                    jittered(ttl, fastrand::f64())
                }
                Err(failure) => {
                    self.complain(&failure);
                    // The servers may have changed.
                    self.resolver = None;
                    backoff.next(fastrand::f64())
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Tells the set if it is another one; whether anybody listens.
    async fn tell(&mut self, backends: Vec<Found>, sets: &mpsc::Sender<Set>) -> bool {
        if self.last.as_ref() == Some(&backends) {
            return !sets.is_closed();
        }
        self.last = Some(backends.clone());
        sets.send(Set { backends, ..Set::default() }).await.is_ok()
    }

    fn complain(&mut self, failure: &Failure) {
        let Some(untold) = self.told.now(failure.cause(), Instant::now()) else { return };
        let (name, cause) = (self.config.origin(), failure.cause());
        let kept = self.last.as_ref().map_or(0, Vec::len);
        tracing::warn!(name, cause, kept, untold, "DNS told nothing new: {failure}");
    }

    /// The name's backends, and the seconds until they should be asked for again.
    async fn ask(&mut self) -> Result<(Vec<Found>, u32), Failure> {
        let resolver = match &self.resolver {
            Some(resolver) => resolver.clone(),
            None => {
                let made = lookup::resolver(&self.how.servers).map_err(Failure::Failed)?;
                self.resolver.insert(made).clone()
            }
        };
        let name = self.config.name.clone();
        let (backends, ttl) = match targets::of_plain(&self.config) {
            Some((port, weight, is_backup)) => {
                let answers = families(resolver, name.clone()).await;
                let (addresses, ttl) = self.learn(&name, answers)?;
                (targets::of_addresses(&self.config, port, weight, is_backup, &addresses), ttl)
            }
            None => self.ask_services(&resolver, &name).await?,
        };
        match backends.len() {
            0 => Err(Failure::Empty),
            count if count > RECORDS_MAX => Err(Failure::TooMany(RECORDS_MAX)),
            _ => Ok((backends, ttl)),
        }
    }

    /// The services of the name, with the addresses of their targets.
    async fn ask_services(
        &mut self,
        resolver: &TokioResolver,
        name: &str,
    ) -> Result<(Vec<Found>, u32), Failure> {
        let (records, mut ttl) = lookup::services(resolver, name).await?;
        if records.len() > SERVICES_MAX {
            return Err(Failure::TooMany(SERVICES_MAX));
        }
        let mut answers = BTreeMap::new();
        let mut targets: Vec<&String> = records.iter().map(|record| &record.target).collect();
        targets.sort_unstable();
        targets.dedup();
        for some in targets.chunks(HOSTS_AT_ONCE) {
            let mut asked = JoinSet::new();
            for target in some {
                let (resolver, target) = (resolver.clone(), (*target).clone());
                asked.spawn(async move { (target.clone(), families(resolver, target).await) });
            }
            while let Some(done) = asked.join_next().await {
                let (target, both) = done.map_err(|error| Failure::Failed(error.to_string()))?;
                answers.insert(target, both);
            }
        }
        self.hosts.retain(|host, _| answers.contains_key(host));
        let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        let mut failed = None;
        for (target, both) in answers {
            match self.learn(&target, both) {
                Ok((found, of_target)) => {
                    ttl = ttl.min(of_target);
                    addresses.insert(target, found);
                }
                Err(failure) => {
                    self.complain(&failure);
                    // It is asked again soon, with what it last had.
                    ttl = 0;
                    let kept = self.hosts.get(&target).map(|families| families.concat());
                    addresses.insert(target, kept.unwrap_or_default());
                    failed = Some(failure);
                }
            }
        }
        let service = |record: &Srv| Service {
            priority: record.priority,
            weight: record.weight,
            port: record.port,
            addresses: addresses.get(&record.target).cloned().unwrap_or_default(),
        };
        let services: Vec<_> = records.iter().map(service).collect();
        let backends = targets::of_services(&self.config, &services);
        // Nothing at all is a failure of the targets, if one failed.
        match failed.filter(|_| backends.is_empty()) {
            Some(failure) => Err(failure),
            None => Ok((backends, ttl)),
        }
    }

    /// Keeps what is known of a host: the addresses that both families have now.
    fn learn(
        &mut self,
        host: &str,
        answers: [Answer<IpAddr>; 2],
    ) -> Result<(Vec<IpAddr>, u32), Failure> {
        let failed = |answer: &Answer<IpAddr>| match answer {
            Err(failure) if *failure != Failure::Empty => Some(failure.clone()),
            _ => None,
        };
        let failure = answers.iter().find_map(failed);
        if answers.iter().all(Result::is_err) {
            return Err(failure.unwrap_or(Failure::Empty));
        }
        if let Some(failure) = failure {
            self.complain(&failure);
        }
        let known = self.hosts.entry(host.to_owned()).or_default();
        let mut ttl = u32::MAX;
        for (family, answer) in known.iter_mut().zip(answers) {
            match answer {
                Ok((addresses, of_family)) => {
                    *family = addresses;
                    ttl = ttl.min(of_family);
                }
                Err(Failure::Empty) => family.clear(),
                // Its last ones stay.
                Err(Failure::Failed(_) | Failure::TooMany(_)) => {}
            }
        }
        Ok((known.concat(), ttl))
    }
}

/// Asks for the addresses of both families at once.
async fn families(resolver: TokioResolver, host: String) -> [Answer<IpAddr>; 2] {
    let (v4, v6) = tokio::join!(
        lookup::addresses(&resolver, &host, RecordType::A),
        lookup::addresses(&resolver, &host, RecordType::AAAA)
    );
    [v4, v6]
}

/// The longest wait after failures in a row, if `--dns-ttl-max` is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The most SRV records of a name.
const SERVICES_MAX: usize = 64;
/// Targets of SRV records that are asked for at once.
const HOSTS_AT_ONCE: usize = 8;
