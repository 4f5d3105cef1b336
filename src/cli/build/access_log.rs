//! Makes the access log's configuration of its flags.

use crate::cli::build::at_least_one;
use crate::cli::flags::AccessLogArgs;
use crate::config::AccessLogConfig;

impl AccessLogArgs {
    /// `None` where there is no access log.
    pub(super) fn into_config(self) -> Option<AccessLogConfig> {
        self.access_log.0.map(|target| AccessLogConfig {
            target,
            format: self.access_log_format,
            sample: at_least_one(self.access_log_sample),
            bytes_max: self.access_log_bytes_max as usize,
        })
    }
}
