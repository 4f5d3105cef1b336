//! Makes the configuration of health checks, ejection and breaker of their flags.

use std::num::NonZeroU32;
use std::time::Duration;

use humantime::format_duration;

use crate::cli::build::{at_least_one, usage};
use crate::cli::flags::{BreakerArgs, EjectArgs, HealthArgs, InitialArg};
use crate::cli::read::List;
use crate::config::{BreakerConfig, EjectConfig, HealthConfig, InitialHealth, Statuses};
use crate::error::StartError;

impl HealthArgs {
    pub(super) fn into_config(self) -> Result<HealthConfig, StartError> {
        self.check_path()?;
        let interval = self.health_interval;
        let interval_changing = self.health_interval_changing.unwrap_or(interval);
        let interval_down = self.health_interval_down.unwrap_or(interval);
        let intervals = [
            ("--health-interval", interval),
            ("--health-interval-changing", interval_changing),
            ("--health-interval-down", interval_down),
        ];
        let shortest = intervals.map(|(_, interval)| interval).into_iter().fold(interval, Ord::min);
        let timeout = self.health_timeout.unwrap_or(PROBE_TIMEOUT.min(shortest));
        if let Some((flag, interval)) = intervals.into_iter().find(|(_, each)| timeout > *each) {
            return Err(usage(format!(
                "--health-timeout {} is longer than {flag} {}",
                format_duration(timeout),
                format_duration(interval)
            )));
        }
        let headers = List::join(self.health_header);
        if headers.len() > HEADERS_MAX {
            return Err(usage(format!("--health-header is given more than {HEADERS_MAX} times")));
        }
        Ok(HealthConfig {
            path: Some(self.health_path).filter(|path| !path.is_empty()),
            method: self.health_method.unwrap_or_else(|| "GET".to_owned()),
            host: self.health_host,
            headers,
            statuses: self.health_status.unwrap_or_else(|| Statuses(vec![200..=399])),
            body: self.health_body.filter(|text| !text.is_empty()),
            interval,
            interval_changing,
            interval_down,
            timeout,
            rise: at_least_one(self.health_rise),
            fall: at_least_one(self.health_fall),
            initial: match self.health_initial {
                InitialArg::Probe => InitialHealth::Probe,
                InitialArg::Up => InitialHealth::Up,
            },
            // Its flag's limits keep it within 16 bits.
            agent_port: self.agent_port.and_then(|port| u16::try_from(port).ok()),
        })
    }

    /// Refuses what needs a request of a probe that sends none, and a body of one that gets none.
    fn check_path(&self) -> Result<(), StartError> {
        let http_flags = [
            ("--health-method", self.health_method.is_some()),
            ("--health-host", self.health_host.is_some()),
            ("--health-header", !self.health_header.is_empty()),
            ("--health-status", self.health_status.is_some()),
            ("--health-body", self.health_body.is_some()),
        ];
        let given = http_flags.into_iter().find(|(_, is_given)| *is_given);
        if let Some((flag, _)) = given.filter(|_| self.health_path.is_empty()) {
            return Err(usage(format!(
                "{flag} needs a --health-path: with '' a probe only connects"
            )));
        }
        if self.health_body.is_some() && self.health_method.as_deref() == Some("HEAD") {
            return Err(usage(
                "--health-body: an answer to --health-method HEAD has none".to_owned(),
            ));
        }
        Ok(())
    }
}

impl EjectArgs {
    pub(super) fn config(&self) -> Result<EjectConfig, StartError> {
        if self.eject_time > self.eject_time_max {
            return Err(usage(format!(
                "--eject-time {} is longer than --eject-time-max {}",
                format_duration(self.eject_time),
                format_duration(self.eject_time_max)
            )));
        }
        Ok(EjectConfig {
            consecutive_max: NonZeroU32::new(self.eject_after),
            success_gap_percent: NonZeroU32::new(self.eject_success_gap.into()),
            interval: self.eject_interval,
            requests_min: self.eject_requests_min,
            time: self.eject_time,
            time_max: self.eject_time_max,
            percent_max: self.eject_max_percent,
        })
    }
}

impl BreakerArgs {
    pub(super) fn config(&self) -> Result<BreakerConfig, StartError> {
        let error_percent = NonZeroU32::new(self.breaker_error_percent.into());
        let flags = [
            ("--breaker-window", self.breaker_window.is_some()),
            ("--breaker-requests-min", self.breaker_requests_min.is_some()),
            ("--breaker-open-time", self.breaker_open_time.is_some()),
            ("--breaker-trials", self.breaker_trials.is_some()),
        ];
        let given = flags.into_iter().find(|(_, is_given)| *is_given);
        if let Some((flag, _)) = given.filter(|_| error_percent.is_none()) {
            return Err(usage(format!(
                "{flag} needs a --breaker-error-percent above 0: without one no breaker opens"
            )));
        }
        Ok(BreakerConfig {
            requests_max: self.breaker_requests_max.map(at_least_one),
            pending_max: self.breaker_pending_max.map(at_least_one),
            error_percent,
            window: self.breaker_window.unwrap_or(BREAKER_WINDOW),
            requests_min: self.breaker_requests_min.unwrap_or(BREAKER_REQUESTS_MIN),
            open_time: self.breaker_open_time.unwrap_or(BREAKER_OPEN_TIME),
            trials: at_least_one(self.breaker_trials.unwrap_or(BREAKER_TRIALS)),
        })
    }
}

/// What a breaker does by default, once it may open.
const BREAKER_WINDOW: Duration = Duration::from_secs(10);
const BREAKER_REQUESTS_MIN: u32 = 20;
const BREAKER_OPEN_TIME: Duration = Duration::from_secs(5);
const BREAKER_TRIALS: u32 = 3;

/// How long a probe may take by default, if its intervals allow that.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The most headers that flags add to a probe.
const HEADERS_MAX: usize = 32;
