//! Random exchanges, many at a time: whatever mixture of sizes, framings and cuts both sides choose, each
//! client gets its own bytes back. The randomness is seeded by the number of the client, so a failure repeats.

use crate::support::client::Client;
use crate::support::proxy::Flags;
use crate::support::upstream::{Served, Upstream};

const CLIENTS: u64 = 12;
const REQUESTS: u64 = 150;
const LENGTH_MAX: u64 = 120_000;

/// Numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit).unwrap()
    }

    /// Mostly small, sometimes large.
    fn length(&mut self) -> usize {
        let limit = [2, 100, 5_000, LENGTH_MAX][self.below(4)];
        self.below(limit)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256).try_into().unwrap()).collect()
    }

    /// `body` in chunks of any sizes.
    fn chunked(&mut self, body: &[u8]) -> Vec<u8> {
        let (mut rest, mut out) = (body, Vec::new());
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at((1 + self.length()).min(rest.len()));
            out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
            rest = after;
        }
        out.extend_from_slice(b"0\r\n\r\n");
        out
    }

    /// A message whose body has a known length or comes in chunks.
    fn message(&mut self, start: &str, body: &[u8]) -> Vec<u8> {
        let (header, body) = match self.below(2) {
            0 => (format!("Content-Length: {}", body.len()), body.to_vec()),
            _ => ("Transfer-Encoding: chunked".to_string(), self.chunked(body)),
        };
        [format!("{start}\r\n{header}\r\n\r\n").as_bytes(), &body].concat()
    }

    /// Cuts anywhere; each piece is a write of its own.
    fn pieces<'a>(&mut self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let (mut rest, mut pieces) = (bytes, Vec::new());
        while !rest.is_empty() && pieces.len() < 20 {
            let (piece, after) = rest.split_at((1 + self.length()).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        pieces
    }
}

/// Sends every body back, framed and cut by the number that the target carries.
fn echo(served: &mut Served) {
    while let Some(request) = served.request() {
        let seed = request.head.target()[1..].parse().unwrap();
        let mut random = Random(seed);
        let answer = match random.below(8) {
            0 => [b"HTTP/1.1 200 OK\r\n\r\n", request.body.as_slice()].concat(),
            1 => random.message("HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK", &request.body),
            _ => random.message("HTTP/1.1 200 OK", &request.body),
        };
        for piece in random.pieces(&answer) {
            served.write(piece);
        }
        if answer.starts_with(b"HTTP/1.1 200 OK\r\n\r\n") {
            return;
        }
    }
}

fn exchange(client: &mut Client, random: &mut Random, number: u64) -> bool {
    let length = random.length();
    let body = random.bytes(length);
    let request = random.message(&format!("POST /{number} HTTP/1.1\r\nHost: t"), &body);
    for piece in random.pieces(&request) {
        client.send(piece);
    }
    let response = client.read_response("POST");
    assert_eq!(response.status(), 200, "request {number}: {response:?}");
    assert_eq!(response.ended, crate::support::client::Ended::Complete, "request {number}");
    assert!(
        response.body == body,
        "request {number}: {} bytes of {}",
        response.body.len(),
        body.len()
    );
    response.get("connection") != Some("close")
}

#[test]
fn every_client_gets_its_own_bytes_back() {
    let upstreams = [Upstream::scripted(echo), Upstream::scripted(echo)];
    let proxy = Flags::to(&upstreams.each_ref()).with("--workers", "2").start();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let addr = proxy.addr();
            scope.spawn(move || {
                let mut random = Random(client);
                let mut connection = Client::connect(addr);
                for request in 0..REQUESTS {
                    if !exchange(&mut connection, &mut random, client * REQUESTS + request) {
                        connection = Client::connect(addr);
                    }
                }
            });
        }
    });
}
