//! The access log's flags.

use clap::Args;

use crate::cli::read::{number, parse_access_log, parse_line_format};
use crate::config::{LineFormat, LogTarget};

#[derive(Debug, Args)]
#[command(next_help_heading = "Access log")]
pub(in crate::cli) struct AccessLogArgs {
    /// Where a line goes for each request: off, stdout, or the path of a file, which is opened
    /// again at SIGUSR1.
    #[arg(long, value_name = "off|stdout|PATH", default_value = "off",
        env = "CORELANE_ACCESS_LOG", value_parser = target)]
    pub(in crate::cli) access_log: TargetArg,
    /// What a line is made of: common, combined, json, or directives such as '%h %t "%r" %>s %O
    /// %{backend}x', which the README lists [limits: 2048 bytes, 64 directives].
    #[arg(long, value_name = "FORMAT", default_value = "combined",
        env = "CORELANE_ACCESS_LOG_FORMAT", value_parser = parse_line_format)]
    pub(in crate::cli) access_log_format: LineFormat,
    /// Log one request of N, at random, and all that failed [limits: 1 to 1000000].
    #[arg(long, value_name = "N", default_value = "1", env = "CORELANE_ACCESS_LOG_SAMPLE",
        value_parser = number(1, 1_000_000))]
    pub(in crate::cli) access_log_sample: u32,
    /// How many bytes of lines may wait to be written; more are dropped and counted
    /// [limits: 65536 to 1073741824].
    #[arg(long, value_name = "BYTES", default_value = "16777216",
        env = "CORELANE_ACCESS_LOG_BYTES_MAX", value_parser = number(65_536, 1 << 30))]
    pub(in crate::cli) access_log_bytes_max: u32,
}

/// Where lines go; `None` for off. A type of its own, since clap would take an `Option` for a flag
/// that may be left out.
#[derive(Clone, Debug)]
pub(in crate::cli) struct TargetArg(pub(in crate::cli) Option<LogTarget>);

fn target(text: &str) -> Result<TargetArg, String> {
    parse_access_log(text).map(TargetArg)
}
