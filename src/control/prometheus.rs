//! The metrics as text: what the lanes, the snapshot and the kernel say when somebody asks.
//!
//! Nothing is copied or kept between two scrapes, and no request pays for one. Called by the
//! admin server on the control thread. No label's value comes from a client.

mod backends;
mod exposition;
mod health;
mod machine;
mod page;
mod traffic;
mod workers;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use crate::health::vitals::Vitals;
use crate::metrics::Lanes;
use crate::upstream::snapshot::Published;

use page::Page;

pub use exposition::Format;
pub use workers::busy_time;

/// Where the numbers come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The workers' counters.
    pub lanes: Lanes,
    /// The snapshot in force.
    pub published: Published,
    /// The control thread's counters.
    pub vitals: Arc<Vitals>,
    /// When the process started.
    pub started: SystemTime,
}

/// All metrics in a format that `Format::asked` chose; the content type is `Format::content_type`.
#[must_use]
pub fn render(sources: &Sources, format: Format) -> String {
    let mut own = Registry::with_prefix("corelane");
    own.register_collector(Box::new(Own(sources.clone())));
    let mut process = Registry::with_prefix("process");
    process.register_collector(Box::new(Process(sources.started)));
    let mut written = String::new();
    let result = text::encode_registry(&mut written, &own)
        .and_then(|()| text::encode_registry(&mut written, &process))
        .and_then(|()| text::encode_eof(&mut written));
    if result.is_err() {
        // Without `# EOF`, a reader of OpenMetrics refuses what it got.
        tracing::error!("the metrics could not be written whole");
    }
    format.of(written)
}

/// The metrics of corelane itself.
#[derive(Debug)]
struct Own(Sources);

impl Collector for Own {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (sources, page) = (&self.0, &mut Page::new(encoder));
        let snapshot = sources.published.load();
        traffic::write(&sources.lanes, page)?;
        backends::write(&sources.lanes, &snapshot, page)?;
        workers::write(&sources.lanes, page)?;
        health::write(&sources.vitals, &sources.lanes, &snapshot, page)?;
        machine::write_build(page)
    }
}

/// The metrics of the process, by the names that every exporter gives them.
#[derive(Debug)]
struct Process(SystemTime);

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        machine::write_process(self.0, &mut Page::new(encoder))
    }
}
