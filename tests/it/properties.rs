//! The pure parts of HTTP/1.1 on random and changed messages, cut at random places: what is legal
//! arrives equal; what is changed is refused or arrives equal, never differently framed.

use corelane::http1::response::AnswerTo;
use proptest::prelude::*;

use crate::support::corpus::cases;
use crate::support::messages::{self, changed, changes, cuts, request, requests, response};
use crate::support::pure::{self, Asker, Cuts, Ended};
use crate::support::strict::{self, Message, Writer};

/// What the strict reader finds in what was written.
fn read_all(written: &[Vec<u8>]) -> Vec<Message> {
    let read = |bytes: &Vec<u8>| strict::request(bytes, Writer::Proxy).unwrap().unwrap();
    written.iter().map(read).collect()
}

fn check_arrived(sent: &messages::Request, seen: &Message) {
    assert_eq!((sent.method, &sent.target), (&*seen.start[0], &seen.start[1]));
    assert_eq!(sent.body.data(), seen.body);
    assert_eq!(sent.body.trailers(), seen.trailers);
    for (name, value) in &sent.headers {
        assert!(seen.all(&name.to_lowercase()).contains(&value.as_slice()), "{name} in {seen:?}");
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn legal_requests_arrive_equal_however_they_are_cut(sent in requests(), cuts in cuts()) {
        let bytes: Vec<u8> = sent.iter().flat_map(messages::Request::bytes).collect();
        let relayed = pure::relay_requests(&bytes, Cuts(&cuts));
        prop_assert_eq!(relayed.ended, Ended::Clean);
        let seen = read_all(&relayed.complete);
        prop_assert_eq!(seen.len(), sent.len());
        sent.iter().zip(&seen).for_each(|(sent, seen)| check_arrived(sent, seen));
        pure::check_requests(&bytes, Cuts(&cuts));
    }

    #[test]
    fn legal_answers_arrive_equal_however_they_are_cut(
        sent in response(),
        is_old in any::<bool>(),
        cuts in cuts(),
    ) {
        let bytes = sent.bytes();
        let asker = Asker { is_old, keeps: true, to: AnswerTo::Other };
        let relayed = pure::relay_response(&bytes, Cuts(&cuts), asker);
        prop_assert_eq!(relayed.ended, Ended::Clean);
        let seen = strict::response(&relayed.complete[0], Writer::Proxy, "GET", true);
        let seen = seen.unwrap().unwrap();
        prop_assert_eq!((seen.status(), &seen.body), (sent.status, &sent.body.data()));
        pure::check_response(&bytes, Cuts(&cuts), asker);
    }
}

proptest! {
    #![proptest_config(config(4096))]

    #[test]
    fn changed_requests_are_refused_or_arrive_equal(
        sent in requests(),
        changes in changes(),
        cuts in cuts(),
    ) {
        let bytes = sent.iter().flat_map(messages::Request::bytes).collect();
        let bytes = changed(bytes, &changes);
        pure::check_requests(&bytes, Cuts(&cuts));
        pure::check_request_head(&bytes);
    }

    #[test]
    fn changed_answers_are_refused_or_arrive_equal(
        sent in response(),
        changes in changes(),
        mode in any::<u8>(),
        cuts in cuts(),
    ) {
        let bytes = changed(sent.bytes(), &changes);
        pure::check_exchange(mode | 1, Cuts(&cuts), &bytes);
        pure::check_response_head(&bytes);
    }

    #[test]
    fn changed_chunks_are_refused_or_read_alike(
        sent in request(),
        changes in changes(),
        cuts in cuts(),
    ) {
        let bytes = sent.bytes();
        let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        pure::check_chunked(&changed(bytes[body..].to_vec(), &changes), Cuts(&cuts));
    }
}

#[test]
fn the_corpus_passes_the_checks_of_the_fuzz_targets() {
    for case in cases("requests").into_iter().filter(|case| !case.is_open()) {
        pure::check_request_head(&case.message);
        for cut in [1, 2, 3, 7, 16] {
            pure::check_requests(&case.message, Cuts(&[cut]));
        }
    }
    for case in cases("responses").into_iter().filter(|case| !case.is_open()) {
        pure::check_response_head(&case.message);
        for (mode, cut) in (0..32).flat_map(|mode| [1, 3, 16].map(|cut| (mode << 1 | 1, cut))) {
            pure::check_exchange(mode, Cuts(&[cut]), &case.message);
        }
    }
}
