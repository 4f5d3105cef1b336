//! The flags of how backends are watched: by probes, and by how requests fare on them.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::flags::{DAY, HOUR};
use crate::cli::read::{
    List, duration, lines, number, parse_health_header, parse_health_host, parse_health_method,
    parse_health_path, parse_health_statuses, percent,
};
use crate::config::{HealthHeader, Statuses};

#[derive(Debug, Args)]
#[command(next_help_heading = "Health checks")]
pub(in crate::cli) struct HealthArgs {
    /// The path that a probe asks for. With '' a probe only connects.
    #[arg(long, value_name = "PATH", default_value = "/health", env = "CORELANE_HEALTH_PATH",
        value_parser = parse_health_path)]
    pub(in crate::cli) health_path: String,
    /// A probe's method [default: GET].
    #[arg(long, value_name = "METHOD", env = "CORELANE_HEALTH_METHOD",
        value_parser = parse_health_method)]
    pub(in crate::cli) health_method: Option<String>,
    /// A probe's Host [default: the backend's HOST:PORT].
    #[arg(long, value_name = "HOST[:PORT]", env = "CORELANE_HEALTH_HOST",
        value_parser = parse_health_host)]
    pub(in crate::cli) health_host: Option<String>,
    /// A header of a probe, as in 'Authorization: Bearer x'; repeatable; as a variable one a line
    /// [limit: 32].
    #[arg(long, value_name = "NAME: VALUE", env = "CORELANE_HEALTH_HEADER",
        value_parser = lines(parse_health_header))]
    pub(in crate::cli) health_header: Vec<List<HealthHeader>>,
    /// The statuses that pass, as in 200-299,301 [default: 200-399; limits: 200 to 599].
    #[arg(long, value_name = "LIST", env = "CORELANE_HEALTH_STATUS",
        value_parser = parse_health_statuses)]
    pub(in crate::cli) health_status: Option<Statuses>,
    /// What the first 64 KiB of an answer's body must contain to pass [default: nothing].
    #[arg(long, value_name = "TEXT", env = "CORELANE_HEALTH_BODY")]
    pub(in crate::cli) health_body: Option<String>,
    /// From the start of a probe to the start of the next; up to 10 % more, at random
    /// [limits: 10ms to 1h].
    #[arg(long, value_name = "DURATION", default_value = "2s", env = "CORELANE_HEALTH_INTERVAL",
        value_parser = duration(10, HOUR))]
    pub(in crate::cli) health_interval: Duration,
    /// The same while the last probes do not agree with what the backend is taken for
    /// [default: the same; limits: 10ms to 1h].
    #[arg(long, value_name = "DURATION", env = "CORELANE_HEALTH_INTERVAL_CHANGING",
        value_parser = duration(10, HOUR))]
    pub(in crate::cli) health_interval_changing: Option<Duration>,
    /// The same while the backend is down [default: the same; limits: 10ms to 1h].
    #[arg(long, value_name = "DURATION", env = "CORELANE_HEALTH_INTERVAL_DOWN",
        value_parser = duration(10, HOUR))]
    pub(in crate::cli) health_interval_down: Option<Duration>,
    /// How long a probe may take [default: 1s, or the shortest interval if that is shorter;
    /// limits: 1ms to the shortest interval].
    #[arg(long, value_name = "DURATION", env = "CORELANE_HEALTH_TIMEOUT",
        value_parser = duration(1, HOUR))]
    pub(in crate::cli) health_timeout: Option<Duration>,
    /// Passed probes in a row that bring a sick backend back [limits: 1 to 1000].
    #[arg(long, value_name = "N", default_value = "2", env = "CORELANE_HEALTH_RISE",
        value_parser = number(1, 1000))]
    pub(in crate::cli) health_rise: u32,
    /// Failed probes in a row that take a backend out [limits: 1 to 1000].
    #[arg(long, value_name = "N", default_value = "3", env = "CORELANE_HEALTH_FALL",
        value_parser = number(1, 1000))]
    pub(in crate::cli) health_fall: u32,
    /// What a backend is before its first probe.
    #[arg(long, value_enum, default_value = "probe", env = "CORELANE_HEALTH_INITIAL")]
    pub(in crate::cli) health_initial: InitialArg,
    /// The port on which each backend's agent tells its load or state, in one line, to whoever
    /// connects [default: none is asked].
    #[arg(long, value_name = "PORT", env = "CORELANE_AGENT_PORT", value_parser = number(1, 65535))]
    pub(in crate::cli) agent_port: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum InitialArg {
    /// It takes no requests; its first probe decides alone.
    Probe,
    /// It takes requests.
    Up,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Ejection by requests' outcomes")]
pub(in crate::cli) struct EjectArgs {
    /// Failures in a row (no connection, a lost one, a timeout, an answer that breaks the grammar,
    /// a 5xx) that eject a backend: take it out for a while. 0 for never [limit: 1000000].
    #[arg(long, value_name = "N", default_value = "5", env = "CORELANE_EJECT_AFTER",
        value_parser = number(0, 1_000_000))]
    pub(in crate::cli) eject_after: u32,
    /// How many percentage points a backend's share of successes may lie below the others' before
    /// it is ejected; 0 for no such comparison [limits: 0 to 100].
    #[arg(long, value_name = "PERCENT", default_value = "30", env = "CORELANE_EJECT_SUCCESS_GAP",
        value_parser = percent())]
    pub(in crate::cli) eject_success_gap: u8,
    /// Over what time successes are compared [limits: 100ms to 1h].
    #[arg(long, value_name = "DURATION", default_value = "10s", env = "CORELANE_EJECT_INTERVAL",
        value_parser = duration(100, HOUR))]
    pub(in crate::cli) eject_interval: Duration,
    /// The requests in that time without which a backend is not compared [limits: 1 to 1000000].
    #[arg(long, value_name = "N", default_value = "100", env = "CORELANE_EJECT_REQUESTS_MIN",
        value_parser = number(1, 1_000_000))]
    pub(in crate::cli) eject_requests_min: u32,
    /// How long the first ejection lasts; each further one twice as long [limits: 10ms to 1h].
    #[arg(long, value_name = "DURATION", default_value = "5s", env = "CORELANE_EJECT_TIME",
        value_parser = duration(10, HOUR))]
    pub(in crate::cli) eject_time: Duration,
    /// The longest ejection [limits: --eject-time to 1d].
    #[arg(long, value_name = "DURATION", default_value = "5m", env = "CORELANE_EJECT_TIME_MAX",
        value_parser = duration(10, DAY))]
    pub(in crate::cli) eject_time_max: Duration,
    /// The most backends that are ejected at once, in percent of all [limits: 0 to 100].
    #[arg(long, value_name = "PERCENT", default_value = "50", env = "CORELANE_EJECT_MAX_PERCENT",
        value_parser = percent())]
    pub(in crate::cli) eject_max_percent: u8,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Circuit breaker")]
pub(in crate::cli) struct BreakerArgs {
    /// The most requests in flight on a backend, over all workers [default: no limit].
    #[arg(long, value_name = "N", env = "CORELANE_BREAKER_REQUESTS_MAX",
        value_parser = number(1, u32::MAX))]
    pub(in crate::cli) breaker_requests_max: Option<u32>,
    /// The most requests that wait for a connection to a backend to be made, over all workers
    /// [default: no limit].
    #[arg(long, value_name = "N", env = "CORELANE_BREAKER_PENDING_MAX",
        value_parser = number(1, u32::MAX))]
    pub(in crate::cli) breaker_pending_max: Option<u32>,
    /// The share of failed requests that opens a backend's breaker: it gets none for a while.
    /// 0 for never [limits: 0 to 100].
    #[arg(long, value_name = "PERCENT", default_value = "0", env = "CORELANE_BREAKER_ERROR_PERCENT",
        value_parser = percent())]
    pub(in crate::cli) breaker_error_percent: u8,
    /// Over what time that share is counted [default: 10s; limits: 100ms to 1h].
    #[arg(long, value_name = "DURATION", env = "CORELANE_BREAKER_WINDOW",
        value_parser = duration(100, HOUR))]
    pub(in crate::cli) breaker_window: Option<Duration>,
    /// The requests in that time without which it does not open [default: 20; limits: 1 to
    /// 1000000].
    #[arg(long, value_name = "N", env = "CORELANE_BREAKER_REQUESTS_MIN",
        value_parser = number(1, 1_000_000))]
    pub(in crate::cli) breaker_requests_min: Option<u32>,
    /// How long it stays open before requests try the backend again [default: 5s; limits: 10ms to
    /// 1h].
    #[arg(long, value_name = "DURATION", env = "CORELANE_BREAKER_OPEN_TIME",
        value_parser = duration(10, HOUR))]
    pub(in crate::cli) breaker_open_time: Option<Duration>,
    /// How many requests try it, all of which must succeed to close it [default: 3; limits: 1 to
    /// 1000].
    #[arg(long, value_name = "N", env = "CORELANE_BREAKER_TRIALS",
        value_parser = number(1, 1000))]
    pub(in crate::cli) breaker_trials: Option<u32>,
}
