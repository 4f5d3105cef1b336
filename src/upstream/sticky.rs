//! Sessions that stay on their endpoint: which endpoint a cookie names, and the cookie of each.
//!
//! A cookie's value is a truncated HMAC-SHA-256 of the endpoint's id, so it tells nobody an
//! address, and processes with the same secret read each other's. Pure: computed once a snapshot.

use crate::config::StickyConfig;
use crate::upstream::endpoint::Endpoint;

/// The cookies of a pool's endpoints.
#[derive(Debug)]
pub struct Table {
    name: String,
    /// The value of each endpoint's cookie and its index, in order.
    values: Vec<([u8; VALUE_BYTES], usize)>,
    /// The `Set-Cookie` line of each endpoint, by its index.
    lines: Vec<Vec<u8>>,
}

impl Table {
    /// The cookies of these endpoints.
    #[must_use]
    pub fn new(config: &StickyConfig, endpoints: &[Endpoint]) -> Table {
        let values = Vec::with_capacity(endpoints.len());
        Table { name: config.name.clone(), values, lines: Vec::new() }
    }

    /// The name of the cookie.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The index of the endpoint that a cookie of this value names.
    #[must_use]
    pub fn endpoint_of(&self, value: &[u8]) -> Option<usize> {
        let value = value.try_into().ok()?;
        let found = self.values.binary_search_by_key(&value, |(value, _)| *value).ok()?;
        self.values.get(found).map(|(_, index)| *index)
    }

    /// The whole header line, with its end, that sets the cookie of this endpoint.
    #[must_use]
    pub fn line_of(&self, index: usize) -> &[u8] {
        self.lines.get(index).map_or(&[], Vec::as_slice)
    }
}

/// Hexadecimal digits of a cookie's value: 128 bits.
const VALUE_BYTES: usize = 32;
