//! Sessions that stay on their endpoint: which endpoint a cookie names, and the cookie of each.
//!
//! A cookie's value is a truncated HMAC-SHA-256 of the endpoint's id, so it tells nobody an
//! address, and processes with the same secret read each other's. Pure: computed once a snapshot.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::config::{SameSite, StickyConfig};
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
    /// The cookies of these endpoints, whatever requests they take now.
    #[must_use]
    pub fn new(config: &StickyConfig, endpoints: &[Endpoint]) -> Table {
        let values = endpoints.iter().map(|endpoint| value_of(&endpoint.id, &config.secret));
        let lines = values.clone().map(|value| line(config, &value)).collect();
        let mut values: Vec<_> = values.enumerate().map(|(index, value)| (value, index)).collect();
        values.sort_unstable();
        Table { name: config.name.clone(), values, lines }
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

/// The first half of the id's HMAC-SHA-256, in lower-case hexadecimal.
fn value_of(id: &str, secret: &[u8]) -> [u8; VALUE_BYTES] {
    #[expect(clippy::expect_used, reason = "an HMAC has a key of any length (RFC 2104 §2)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    mac.update(id.as_bytes());
    let digest = mac.finalize().into_bytes();
    let mut value = [0; VALUE_BYTES];
    for (digits, byte) in value.chunks_exact_mut(2).zip(digest) {
        digits[0] = HEX_DIGITS[usize::from(byte >> 4)];
        digits[1] = HEX_DIGITS[usize::from(byte & 15)];
    }
    value
}

/// `Set-Cookie: name=value; …` with its line end (RFC 6265 §4.1.1).
fn line(config: &StickyConfig, value: &[u8; VALUE_BYTES]) -> Vec<u8> {
    let value = String::from_utf8_lossy(value);
    let mut line = format!("Set-Cookie: {}={value}; Path={}", config.name, config.path);
    if let Some(domain) = &config.domain {
        line.push_str("; Domain=");
        line.push_str(domain);
    }
    if let Some(seconds) = config.max_age {
        line.push_str("; Max-Age=");
        line.push_str(&seconds.to_string());
    }
    if config.secure {
        line.push_str("; Secure");
    }
    if config.http_only {
        line.push_str("; HttpOnly");
    }
    line.push_str(match config.same_site {
        None => "",
        Some(SameSite::Strict) => "; SameSite=Strict",
        Some(SameSite::Lax) => "; SameSite=Lax",
        Some(SameSite::None) => "; SameSite=None",
    });
    line.push_str("\r\n");
    line.into_bytes()
}

/// Hexadecimal digits of a cookie's value: 128 bits.
const VALUE_BYTES: usize = 32;
const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::sync::Arc;

    use super::*;
    use crate::upstream::endpoint::{Slot, Standing, Tier, WEIGHT_UNIT};
    use crate::upstream::limit::Limits;

    /// `hmac.new(b"a secret", b"default/127.0.0.1:<port>", "sha256").hexdigest()[:32]` in Python.
    const VALUES: [(u16, &str); 2] =
        [(3000, "ca0f85858a9f29d65e4007251c886714"), (3001, "a1856efc2e4790d0d859e6751399f609")];

    fn config() -> StickyConfig {
        StickyConfig {
            name: "lane".to_owned(),
            path: "/".to_owned(),
            domain: None,
            max_age: None,
            secure: false,
            http_only: false,
            same_site: None,
            secret: b"a secret".to_vec(),
        }
    }

    fn endpoint(port: u16, standing: Standing) -> Endpoint {
        Endpoint {
            slot: Slot { number: u32::from(port), generation: 0 },
            id: format!("default/127.0.0.1:{port}"),
            address: None,
            weight: WEIGHT_UNIT,
            tier: Tier::Primary,
            standing,
            is_sick: false,
            limits: Arc::new(Limits::new(None, None, None)),
        }
    }

    fn check_line(config: &StickyConfig, expected: &str) {
        let table = Table::new(config, &[endpoint(3000, Standing::Open)]);
        let expected = expected.replace("VALUE", VALUES[0].1);
        assert_eq!(String::from_utf8_lossy(table.line_of(0)), expected);
    }

    #[test]
    fn a_cookie_is_the_hmac_of_the_endpoints_id() {
        for (port, value) in VALUES {
            let id = format!("default/127.0.0.1:{port}");
            assert_eq!(value_of(&id, b"a secret"), value.as_bytes(), "{id}");
        }
        // RFC 4231 §4.3.
        let digest = value_of("what do ya want for nothing?", b"Jefe");
        assert_eq!(&digest, b"5bdcc146bf60754e6a042426089575c7");
    }

    #[test]
    fn a_cookie_names_its_endpoint_in_any_order_and_standing() {
        for standing in [Standing::Open, Standing::Draining, Standing::Out] {
            let ports: Vec<u16> = (2900..3100).rev().collect();
            let endpoints: Vec<_> = ports.iter().map(|port| endpoint(*port, standing)).collect();
            let table = Table::new(&config(), &endpoints);
            for (index, endpoint) in endpoints.iter().enumerate() {
                let value = value_of(&endpoint.id, b"a secret");
                assert_eq!(table.endpoint_of(&value), Some(index));
            }
        }
    }

    #[test]
    fn a_value_of_no_endpoint_names_none() {
        let table = Table::new(&config(), &[endpoint(3000, Standing::Open)]);
        let upper = VALUES[0].1.to_uppercase();
        for value in ["", "3000", VALUES[1].1, &VALUES[0].1[1..], &upper] {
            assert_eq!(table.endpoint_of(value.as_bytes()), None, "{value}");
        }
        assert_eq!((table.name(), table.line_of(1)), ("lane", &b""[..]));
    }

    #[test]
    fn the_line_has_the_attributes_that_are_configured() {
        check_line(&config(), "Set-Cookie: lane=VALUE; Path=/\r\n");
        let all = StickyConfig {
            path: "/app".to_owned(),
            domain: Some("example.org".to_owned()),
            max_age: NonZeroU64::new(3600),
            secure: true,
            http_only: true,
            same_site: Some(SameSite::Lax),
            ..config()
        };
        check_line(
            &all,
            "Set-Cookie: lane=VALUE; Path=/app; Domain=example.org; Max-Age=3600; Secure; \
             HttpOnly; SameSite=Lax\r\n",
        );
        let strict = StickyConfig { same_site: Some(SameSite::Strict), ..config() };
        check_line(&strict, "Set-Cookie: lane=VALUE; Path=/; SameSite=Strict\r\n");
        let none = StickyConfig { same_site: Some(SameSite::None), ..config() };
        check_line(&none, "Set-Cookie: lane=VALUE; Path=/; SameSite=None\r\n");
    }
}
