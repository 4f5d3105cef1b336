//! The one hash of corelane: XXH3, 64 bits, with a seed (the specification of xxHash 0.8).
//!
//! It decides which endpoint a key or an id belongs to, so processes of any version agree on it
//! only as long as it stays as it is; known answers hold it. It is no defence against who chooses
//! the keys.

use std::net::IpAddr;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::config::HashKey;
use crate::http1::key::{self, Key};
use crate::http1::request::RequestHead;

/// The hash of some bytes.
#[must_use]
pub fn of_bytes(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// The hash of what `key` names in a request, `None` where the request has no such thing. The
/// client's address is asked for only if it is hashed.
pub fn of_request(
    key: &HashKey,
    head: &RequestHead<'_, '_>,
    client: impl FnOnce() -> IpAddr,
    seed: u64,
) -> Option<u64> {
    Some(match key::of(key, head, client)? {
        Key::Address(IpAddr::V4(addr)) => of_bytes(&addr.octets(), seed),
        Key::Address(IpAddr::V6(addr)) => of_bytes(&addr.octets(), seed),
        Key::Bytes(bytes) => of_bytes(bytes, seed),
        Key::Joined(first, second) => {
            let mut state = Xxh3::with_seed(seed);
            state.update(first);
            state.update(second);
            state.digest()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HeadLimits;
    use crate::http1::request;

    /// The seed and, by lengths of the sample, the hashes of xxHash's own sanity test.
    const SAMPLE_SEED: u64 = 0x9E37_79B1_85EB_CA8D;
    const SAMPLES: [(usize, u64, u64); 6] = [
        (0, 0x2D06_8005_38D3_94C2, 0xA8A6_B918_B2F0_364A),
        (1, 0xC44B_DFF4_074E_ECDB, 0x032B_E332_DD76_6EF8),
        (6, 0x27B5_6A84_CD2D_7325, 0x8458_9C11_6AB5_9AB9),
        (12, 0xA713_DAF0_DFBB_77E7, 0xE730_3E1B_2336_DE0E),
        (24, 0xA3FE_70BF_9D35_10EB, 0x850E_80FC_35BD_D690),
        (48, 0x397D_A259_ECBA_1F11, 0xADC2_CBAA_44AC_C616),
    ];

    #[test]
    fn hashes_are_those_of_the_specification() {
        let mut state: u64 = 2_654_435_761;
        let next = |()| {
            let byte = (state >> 56) as u8;
            state = state.wrapping_mul(11_400_714_785_074_694_797);
            byte
        };
        let sample: Vec<u8> = std::iter::repeat_n((), 48).map(next).collect();
        for (len, unseeded, seeded) in SAMPLES {
            assert_eq!(of_bytes(&sample[..len], 0), unseeded, "{len} bytes");
            assert_eq!(of_bytes(&sample[..len], SAMPLE_SEED), seeded, "{len} bytes, seeded");
        }
    }

    fn check(key: &HashKey, head: &str, client: &str, expected: Option<&[u8]>) {
        let limits = HeadLimits { bytes_max: 1000, headers_max: 10, target_bytes_max: 1000 };
        let mut space = [const { std::mem::MaybeUninit::uninit() }; 10];
        let head = request::parse(head.as_bytes(), &mut space, &limits, true).unwrap().unwrap();
        let hash = of_request(key, &head, || client.parse().unwrap(), 7);
        assert_eq!(hash, expected.map(|bytes| of_bytes(bytes, 7)), "{key:?}");
    }

    #[test]
    fn a_request_is_hashed_by_its_key() {
        let head = "GET /a?b=c HTTP/1.1\r\nHost: one.example\r\n\r\n";
        let absolute = "GET http://one.example?b=c HTTP/1.1\r\nHost: one.example\r\n\r\n";
        check(&HashKey::Source, head, "10.0.0.1", Some(&[10, 0, 0, 1]));
        check(&HashKey::Source, head, "::ffff:10.0.0.1", Some(&[10, 0, 0, 1]));
        let octets = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        check(&HashKey::Source, head, "2001:db8::1", Some(&octets));
        check(&HashKey::Uri, head, "::1", Some(b"/a?b=c"));
        check(&HashKey::Uri, absolute, "::1", Some(b"/?b=c"));
        check(&HashKey::Cookie("none".to_owned()), head, "::1", None);
    }
}
