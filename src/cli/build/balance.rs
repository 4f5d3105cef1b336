//! Makes the configuration of policies, sticky sessions and retries of their flags.

use std::io::Read;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::OnceLock;

use crate::cli::build::usage;
use crate::cli::flags::{BalanceArgs, PolicyArg, RetryArgs};
use crate::config::{BalanceConfig, HashKey, Policy, RetryConfig, RetryOn};
use crate::error::StartError;

impl BalanceArgs {
    pub(super) fn into_config(self) -> Result<BalanceConfig, StartError> {
        let policy = match self.policy {
            PolicyArg::RoundRobin => Policy::RoundRobin,
            PolicyArg::LeastConnections => Policy::LeastConnections,
            PolicyArg::P2c => Policy::P2c,
            PolicyArg::Ewma => Policy::Ewma,
            PolicyArg::Random => Policy::Random,
            PolicyArg::Maglev => Policy::Maglev,
        };
        let hash_flags = [
            ("--hash-key", self.hash_key.is_some()),
            ("--hash-seed", self.hash_seed.is_some()),
            ("--hash-balance-factor", self.hash_balance_factor.is_some()),
        ];
        let given = hash_flags.into_iter().find(|(_, is_given)| *is_given);
        if let Some((flag, _)) = given.filter(|_| policy != Policy::Maglev) {
            return Err(usage(format!("{flag} needs --policy maglev: no other policy hashes")));
        }
        let sticky = match (self.sticky_cookie, self.sticky_secret_file) {
            (Some(cookie), file) => Some(cookie.with_secret(secret_of(file.as_deref())?)),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(usage("--sticky-secret-file needs --sticky-cookie".to_owned()));
            }
        };
        Ok(BalanceConfig {
            policy,
            hash_key: self.hash_key.unwrap_or(HashKey::Source),
            hash_seed: self.hash_seed.unwrap_or(0),
            hash_balance_percent: self.hash_balance_factor.and_then(NonZeroU32::new),
            sticky,
            slow_start: self.slow_start,
            panic_percent: self.panic_percent,
        })
    }
}

impl RetryArgs {
    pub(super) fn into_config(self) -> Result<RetryConfig, StartError> {
        let none =
            RetryOn { lost: false, down: false, timeout: false, invalid: false, statuses: None };
        if self.retries == 0 && self.retry_on.as_ref().is_some_and(|on| *on != none) {
            return Err(usage("--retry-on needs --retries above 0, or is none".to_owned()));
        }
        Ok(RetryConfig {
            retries_max: self.retries,
            on: self.retry_on.unwrap_or(RetryOn { lost: true, down: true, ..none }),
            body_bytes_max: self.retry_body_bytes_max as usize,
            budget_percent: self.retry_budget_percent.into(),
            budget_per_second: self.retry_budget_min,
        })
    }
}

/// The content of this file, else random bytes.
fn secret_of(file: Option<&Path>) -> Result<Vec<u8>, StartError> {
    let Some(path) = file else {
        // One for the process: sessions outlive a reading of the configuration.
        static RANDOM: OnceLock<[u8; SECRET_BYTES_RANDOM]> = OnceLock::new();
        if let Some(secret) = RANDOM.get() {
            return Ok(secret.to_vec());
        }
        let mut secret = [0; SECRET_BYTES_RANDOM];
        getrandom::fill(&mut secret)
            .map_err(|error| StartError::Resource("random bytes", error.into()))?;
        tracing::info!("sticky sessions end with this process: no --sticky-secret-file");
        return Ok(RANDOM.get_or_init(|| secret).to_vec());
    };
    let refused = |reason: String| {
        usage(format!(
            "--sticky-secret-file {} {reason}; make one with: head -c 32 /dev/urandom | base64",
            path.display()
        ))
    };
    let mut secret = Vec::new();
    // One byte more shows that there is too much; a device may have no end.
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut secret));
    read.map_err(|error| refused(format!("cannot be read: {error}")))?;
    if secret.len() > SECRET_BYTES_MAX {
        return Err(refused(format!("has more than {SECRET_BYTES_MAX} bytes")));
    }
    let len = secret.strip_suffix(b"\n").map_or(secret.len(), <[u8]>::len);
    secret.truncate(len);
    if len < SECRET_BYTES_MIN {
        return Err(refused(format!("has {len} bytes, less than {SECRET_BYTES_MIN}")));
    }
    Ok(secret)
}

/// A secret's size without a file: the block that HMAC-SHA-256 draws its strength from.
const SECRET_BYTES_RANDOM: usize = 32;
/// The least and the most bytes of a file's secret.
const SECRET_BYTES_MIN: usize = 16;
const SECRET_BYTES_MAX: usize = 4096;
