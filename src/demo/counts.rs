//! Counts how often each request was executed, to show that none was executed twice.
//!
//! At most `IDS_MAX` ids of `ID_BYTES_MAX` bytes are held: 64 MB of ids at the most, and what the
//! map needs. A file of ids, one a line, outlives a backend that is killed. Called by `service`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Value, json};

/// The executions of requests by their id.
#[derive(Debug)]
pub(super) struct Counts {
    executions: HashMap<String, u64>,
    total: u64,
    /// Ids that were executed more than once.
    repeated: u64,
    file: Option<Arc<File>>,
}

impl Counts {
    pub(super) fn new(file: Option<Arc<File>>) -> Self {
        Self { executions: HashMap::new(), total: 0, repeated: 0, file }
    }

    /// Counts one more of this id and returns how many it has; `None` where there is no room for
    /// another id.
    pub(super) fn add(&mut self, id: String) -> io::Result<Option<u64>> {
        if self.executions.len() >= IDS_MAX && !self.executions.contains_key(&id) {
            return Ok(None);
        }
        if let Some(file) = &self.file {
            // One write for the line: it is whole in the file even if the next instruction is a kill.
            (&mut &**file).write_all(format!("{id}\n").as_bytes())?;
        }
        let count = self.executions.entry(id).or_insert(0);
        *count += 1;
        self.total += 1;
        self.repeated += u64::from(*count == 2);
        Ok(Some(*count))
    }

    pub(super) fn summary(&self) -> Value {
        json!({
            "total": self.total,
            "distinct": self.executions.len(),
            "repeated": self.repeated,
        })
    }
}

/// The most ids of a backend, and the most bytes of one.
pub(super) const IDS_MAX: usize = 1_000_000;
pub(super) const ID_BYTES_MAX: usize = 64;
