//! The flags of which backend a request goes to, how long it waits for one, and when it is tried
//! again.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::flags::{DAY, HOUR};
use crate::cli::read::{
    StickyCookie, duration, number, parse_balance_factor, parse_hash_key, parse_hash_seed,
    parse_retry_on, parse_sticky_cookie, percent,
};
use crate::config::{HashKey, RetryOn};

#[derive(Debug, Args)]
#[command(next_help_heading = "Balancing")]
pub(in crate::cli) struct BalanceArgs {
    /// How a backend is picked for a request; each policy heeds the weights.
    #[arg(long, value_enum, default_value = "round-robin", env = "CORELANE_POLICY")]
    pub(in crate::cli) policy: PolicyArg,
    /// What of a request maglev hashes: source (the client's address), uri (path and query), path,
    /// host, header:NAME, cookie:NAME or query:NAME [default: source].
    #[arg(long, value_name = "KEY", env = "CORELANE_HASH_KEY", value_parser = parse_hash_key)]
    pub(in crate::cli) hash_key: Option<HashKey>,
    /// What maglev's hash begins with: processes with the same seed and the same backends send a
    /// key to the same one [default: 0; limit: 64 bits].
    #[arg(long, value_name = "N", env = "CORELANE_HASH_SEED",
        allow_negative_numbers = true, value_parser = parse_hash_seed)]
    pub(in crate::cli) hash_seed: Option<u64>,
    /// The most requests in flight on a backend under maglev, in percent of its share of all that
    /// are; what is more goes to the next one. 0 for no limit [default: 0; limits: 101 to 65535].
    #[arg(long, value_name = "PERCENT", env = "CORELANE_HASH_BALANCE_FACTOR",
        value_parser = parse_balance_factor)]
    pub(in crate::cli) hash_balance_factor: Option<u32>,
    /// The cookie that keeps a session on its backend; corelane sets it. Options: path=PATH
    /// [default: /], domain=NAME, max-age=SECONDS, secure, httponly, samesite=strict|lax|none.
    #[arg(long, value_name = "NAME[,path=PATH][,...]", env = "CORELANE_STICKY_COOKIE",
        value_parser = parse_sticky_cookie)]
    pub(in crate::cli) sticky_cookie: Option<StickyCookie>,
    /// A file whose content keys the sticky cookies; processes with the same one share sessions.
    /// A newline at its end does not count [default: 32 random bytes, with which sessions end with
    /// the process; limits: 16 to 4096 bytes].
    #[arg(long, value_name = "PATH", env = "CORELANE_STICKY_SECRET_FILE")]
    pub(in crate::cli) sticky_secret_file: Option<PathBuf>,
    /// How long the weight of a backend that comes, or comes back, takes to grow to its full size;
    /// 0s for none [limits: 0s to 1h].
    #[arg(long, value_name = "DURATION", default_value = "0s", env = "CORELANE_SLOW_START",
        value_parser = duration(0, HOUR))]
    pub(in crate::cli) slow_start: Duration,
    /// When fewer backends than this are healthy, in percent, all take requests whatever their
    /// health; 0 for never [limits: 0 to 100].
    #[arg(long, value_name = "PERCENT", default_value = "0", env = "CORELANE_PANIC_PERCENT",
        value_parser = percent())]
    pub(in crate::cli) panic_percent: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum PolicyArg {
    /// In turn, each one's turns spread evenly.
    RoundRobin,
    /// The one with the fewest requests in flight, over all workers.
    LeastConnections,
    /// The better of two drawn at random, by requests in flight.
    P2c,
    /// The better of two drawn at random, by latency and requests in flight.
    Ewma,
    /// At random.
    Random,
    /// By a hash of the request (--hash-key).
    Maglev,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Queue")]
pub(in crate::cli) struct QueueArgs {
    /// The most requests that wait, over all workers, while every backend has all its max-conns
    /// connections; 503 then. 0 for no queue [limit: 1048576].
    ///
    /// None waits for --breaker-requests-max: what is above it gets 503 at once.
    #[arg(long, value_name = "N", default_value = "1024", env = "CORELANE_QUEUE_MAX",
        value_parser = number(0, 1_048_576))]
    pub(in crate::cli) queue_max: u32,
    /// How long a request waits in the queue; 503 then [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "5s", env = "CORELANE_QUEUE_TIMEOUT",
        value_parser = duration(1, DAY))]
    pub(in crate::cli) queue_timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Retries")]
pub(in crate::cli) struct RetryArgs {
    /// The most further attempts of one request [limits: 0 to 10].
    #[arg(long, value_name = "N", default_value = "3", env = "CORELANE_RETRIES",
        allow_negative_numbers = true, value_parser = number(0, 10))]
    pub(in crate::cli) retries: u32,
    /// What is tried again, separated by commas: lost (the connection ended before an answer
    /// began), down (the backend went down or was ejected before that, and there is another),
    /// timeout (of the answer), invalid (an answer that breaks the grammar), and statuses
    /// as in 503 or 500-599; or none.
    ///
    /// A connection that cannot be made is always tried again, since nothing was sent; all else
    /// only for idempotent methods [default: lost,down; limits of statuses: 400 to 599].
    #[arg(long, value_name = "LIST", env = "CORELANE_RETRY_ON", value_parser = parse_retry_on)]
    pub(in crate::cli) retry_on: Option<RetryOn>,
    /// The most bytes of a request's body that are held to be sent again; with a longer one a
    /// request is not tried again once sending has begun [limits: 0 to 16777216].
    #[arg(long, value_name = "BYTES", default_value = "65536",
        env = "CORELANE_RETRY_BODY_BYTES_MAX", value_parser = number(0, 16_777_216))]
    pub(in crate::cli) retry_body_bytes_max: u32,
    /// The most retries in a pool, in percent of its requests of the last 10 s; the larger of this
    /// and --retry-budget-min counts [limits: 0 to 100].
    #[arg(long, value_name = "PERCENT", default_value = "20",
        env = "CORELANE_RETRY_BUDGET_PERCENT", value_parser = percent())]
    pub(in crate::cli) retry_budget_percent: u8,
    /// The retries a second, over the last 10 s, that are allowed whatever the percentage
    /// [limit: 1000000].
    #[arg(long, value_name = "N", default_value = "3", env = "CORELANE_RETRY_BUDGET_MIN",
        value_parser = number(0, 1_000_000))]
    pub(in crate::cli) retry_budget_min: u32,
}
