//! Long bodies and busy tunnels, whose bytes pass through pipes: exact, bounded in time, and nothing left behind.
//! Lengths lie on both sides of where splicing begins and of what one pass moves; `drivers` runs it all on epoll too.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::bodies::pieces;
use crate::support::client::{Client, Ended};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Served, Upstream, ok};
use crate::support::wire::{End, Wire};
use crate::support::{Gate, SOON, wait_until};

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * KIB;
/// What goes through a tunnel, each way.
const BULK: usize = 50_000_000;
const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const ASK: &str = "GET /t HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// How many leave at the same time.
const CLIENTS: usize = 4;
const LENGTHS: [usize; 14] = [
    16 * KIB,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    80 * KIB - 1,
    80 * KIB,
    128 * KIB,
    144 * KIB + 1,
    256 * KIB,
    MIB - 1,
    MIB,
    MIB + 1,
    2 * MIB + 1,
    10_000_000,
];

pub fn body(length: usize) -> Vec<u8> {
    pieces(length).flatten().copied().collect()
}

/// The number that a target ends with.
fn number(target: &str) -> usize {
    target.trim_start_matches('/').parse().unwrap()
}

/// The head of an answer of so many bytes.
pub fn head(length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// Answers `GET /N` with N bytes and any body with itself.
fn sized() -> Upstream {
    Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            let content = match request.head.method() {
                "GET" => body(number(request.head.target())),
                _ => request.body,
            };
            served.write(&head(content.len()));
            served.write(&content);
        }
    })
}

/// An upstream that sends the first `sent` of `length` bytes and then does this.
fn sending(
    length: usize,
    sent: usize,
    then: impl Fn(&mut Served) + Send + Sync + 'static,
) -> Upstream {
    Upstream::scripted(move |served| {
        if served.request().is_some() {
            served.write(&head(length));
            served.write(&body(sent));
            then(served);
        }
    })
}

pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n")
}

fn ended(upstream: &Upstream) {
    let is_over = || upstream.open_connections() == 0;
    wait_until("the upstream connection has ended", SOON, is_over);
}

#[test]
fn bodies_around_every_limit_pass_on_kept_connections() {
    let upstream = sized();
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    for length in LENGTHS {
        let content = body(length);
        let response = client.get(&format!("/{length}")).expect(200);
        assert!(response.body == content, "{length} down");
        client.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n"));
        // The answer begins when all has come.
        client.send(&content);
        assert!(client.read_response("POST").expect(200).body == content, "{length} up and down");
    }
    assert_eq!(upstream.raw().len(), 1, "one connection serves them all");
}

#[test]
fn pipelined_requests_are_answered_behind_long_bodies() {
    let upstream = sized();
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    let lengths = [MIB + 1, 5, 3_000_000, 200 * KIB, 0, 64 * KIB];
    client.send(lengths.map(|length| get(&format!("/{length}"))).concat());
    for length in lengths {
        assert!(client.read_response("GET").expect(200).body == body(length), "{length}");
    }
    assert_eq!(upstream.raw().len(), 1);
}

#[test]
fn what_a_backend_sends_behind_a_long_body_is_never_an_answer() {
    let upstream = Upstream::scripted(|served| {
        while served.request().is_some() {
            served.write(&[head(MIB), body(MIB), ok("nobody asked", false)].concat());
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    for _ in 0..5 {
        assert!(client.get("/").expect(200).body == body(MIB));
    }
}

#[test]
fn an_answer_that_begins_before_its_request_has_ended_passes_whole() {
    let upstream = Upstream::scripted(|served| {
        while let Some(head_of) = served.head() {
            served.write(&head(3 * MIB));
            served.write(&body(3 * MIB)[..MIB]);
            if served.wire.body(head_of.request_framing(), &mut |_| {}).is_err() {
                return;
            }
            served.write(&body(3 * MIB)[MIB..]);
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {MIB}\r\n\r\n"));
        let answer = client.wire.head().unwrap();
        assert_eq!(answer.status(), 200);
        client.send(body(MIB));
        let mut got: Vec<u8> = Vec::new();
        client.wire.body(answer.response_framing("POST"), &mut |piece| got.extend(piece)).unwrap();
        assert!(got == body(3 * MIB));
    }
}

#[test]
fn interim_answers_pass_while_a_long_upload_does() {
    let early_hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let upstream = Upstream::scripted(move |served| {
        while let Some(head_of) = served.head() {
            let (mut got, mut hints, stream) = (Vec::new(), 0, served.wire.stream().clone());
            let body = served.wire.body(head_of.request_framing(), &mut |piece| {
                got.extend_from_slice(piece);
                if got.len() / MIB > hints && hints < 4 {
                    hints += 1;
                    (&*stream).write_all(early_hints.as_bytes()).unwrap();
                }
            });
            if body.is_err() {
                return;
            }
            served.write(&head(got.len()));
            served.write(&got);
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", 5 * MIB));
        client.send(body(5 * MIB));
        let response = client.read_response("POST").expect(200);
        assert!(response.interim.len() == 4 && response.body == body(5 * MIB), "{response:?}");
    }
    assert_eq!(upstream.raw().len(), 1);
}

#[test]
fn an_answer_to_a_long_upload_that_is_not_wanted_arrives() {
    let upstream = Upstream::scripted(|served| {
        if served.head().is_some() {
            served.wire.fill().unwrap();
            served.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            served.wait_for_end();
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {BULK}\r\n\r\n"));
    let stream = client.wire.stream().clone();
    // Ends when the proxy has read enough of what nobody wants.
    let sending = std::thread::spawn(move || (&*stream).write_all(&body(BULK)).is_ok());
    assert_eq!(client.read_response("POST").expect(403).text(), "no");
    ended(&upstream);
    drop(client);
    sending.join().unwrap();
}

#[test]
fn a_long_upload_that_stops_or_ends_early_is_never_complete() {
    // client-body-timeout, client-left
    for stops in [true, false] {
        let upstream = sized();
        let proxy = Flags::to(&[&upstream]).with("--client-body-timeout", "300ms").start();
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {BULK}\r\n\r\n"));
        client.send(body(3 * MIB));
        if stops {
            assert_eq!(client.read_response("POST").expect(408).get("connection"), Some("close"));
        } else {
            client.reset();
        }
        ended(&upstream);
        assert_eq!(upstream.request_count(), 0);
        // A reset takes with it what was not read yet.
        assert!(!stops || upstream.raw()[0].len() > 3 * MIB, "what came was sent on");
    }
}

#[test]
fn a_long_body_up_to_the_connections_end_is_whole_or_reset() {
    for is_reset in [false, true] {
        let gate = Gate::default();
        let opened = gate.clone();
        let upstream = Upstream::scripted(move |served| {
            if served.request().is_some() {
                served.write(b"HTTP/1.1 200 OK\r\n\r\n");
                served.write(&body(5_000_000));
                opened.wait();
                if is_reset {
                    served.reset_on_return();
                }
            }
        });
        let proxy = Flags::to(&[&upstream]).start();
        let mut client = proxy.client();
        client.send(get("/"));
        assert_eq!(client.wire.head().unwrap().status(), 200);
        gate_behind(&mut client, 5_000_000, &gate);
        let end = client.wire.fill().expect_err("nothing follows");
        assert_eq!(end, if is_reset { End::Reset } else { End::CleanClose });
    }
}

/// Reads so many bytes and then opens the gate.
fn gate_behind(client: &mut Client, length: usize, gate: &Gate) {
    while client.wire.ahead().len() < length {
        client.wire.fill().unwrap();
    }
    assert!(client.wire.take_ahead() == body(length));
    gate.open();
}

#[test]
fn a_long_body_that_its_backend_cuts_never_looks_complete() {
    // response-truncated
    for is_reset in [false, true] {
        let upstream = sending(10 * MIB, 3 * MIB, move |served| {
            if is_reset {
                served.reset_on_return();
            }
        });
        let proxy = Flags::to(&[&upstream]).start();
        let response = proxy.client().get("/");
        assert!(matches!(response.ended, Ended::CleanClose | Ended::Reset), "{:?}", response.ended);
        assert!(body(3 * MIB).starts_with(&response.body));
        assert!(is_reset || response.body.len() == 3 * MIB, "what came is passed on");
        wait_until("it is logged", SOON, || proxy.log().contains("response-truncated"));
    }
}

#[test]
fn a_long_body_that_stalls_is_cut() {
    let upstream = sending(10 * MIB, 3 * MIB, |served| {
        served.wait_for_end();
    });
    let proxy = Flags::to(&[&upstream]).with("--backend-body-timeout", "300ms").start();
    let response = proxy.client().get("/");
    assert!(matches!(response.ended, Ended::CleanClose | Ended::Reset), "{:?}", response.ended);
    assert_eq!(response.body.len(), 3 * MIB);
    ended(&upstream);
    wait_until("it is logged", SOON, || proxy.log().contains("response-body-timeout"));
}

#[test]
fn a_client_that_takes_nothing_of_a_long_body_is_given_up() {
    let upstream = sized();
    let proxy = Flags::to(&[&upstream]).with("--client-body-timeout", "300ms").start();
    let mut client = proxy.client();
    client.send(get("/50000000"));
    wait_until("it is logged", SOON, || proxy.log().contains("client-read-timeout"));
    assert_eq!(client.read_response("GET").ended, Ended::Reset);
    ended(&upstream);
}

#[test]
fn a_client_that_takes_a_long_body_slowly_gets_all_of_it() {
    let upstream = sized();
    let proxy = Flags::to(&[&upstream]).with("--client-body-timeout", "1s").start();
    let mut client = proxy.client();
    client.send(get("/8000000"));
    let framing = client.wire.head().unwrap().response_framing("GET");
    let (mut got, mut paused) = (0, 0);
    let result = client.wire.body(framing, &mut |piece| {
        got += piece.len();
        // A second and a half in all, and never as long as a standstill.
        if got / 500_000 > paused {
            paused += 1;
            wait_until("a while has passed", SOON, after(Duration::from_millis(100)));
        }
    });
    assert!(result.is_ok() && got == 8_000_000, "{result:?} after {got}");
}

fn after(time: Duration) -> impl FnMut() -> bool {
    let start = std::time::Instant::now();
    move || start.elapsed() >= time
}

#[test]
fn clients_that_leave_inside_long_bodies_leave_nothing_open() {
    // client-left
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(&head(20_000_000));
            served.write(&body(20_000_000));
        }
    });
    let proxy = Flags::to(&[&upstream]).with("--health-interval", "60s").start();
    let before = proxy.open_files();
    for is_reset in [false, true, false, true, false] {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| proxy.client()).collect();
        for client in &mut clients {
            client.send(get("/"));
            assert_eq!(client.wire.head().unwrap().status(), 200);
        }
        for client in clients {
            if is_reset {
                client.reset();
            }
        }
        ended(&upstream);
        // Empty pipes are kept: one for each client that there was at the same time.
        let allowed = before + 2 * CLIENTS;
        wait_until("nothing is left open", SOON, || proxy.open_files() <= allowed);
    }
    assert!(proxy.client().get("/").expect(200).body == body(20_000_000));
}

#[test]
fn long_bodies_are_copied_when_no_pipe_can_be_had() {
    let upstream = sized();
    let flags = Flags::to(&[&upstream]).with("--health-interval", "60s");
    let proxy = flags.with("--log-level", "debug").start();
    let mut client = proxy.client();
    client.get("/5").expect(200);
    // Both connections are open; nothing else can be.
    proxy.limit_open_files(3);
    for length in [3_000_000, 100_000] {
        assert!(client.get(&format!("/{length}")).expect(200).body == body(length), "{length}");
    }
    wait_until("it is logged", SOON, || proxy.log().contains("no pipe"));
    proxy.limit_open_files(1000);
    assert!(client.get("/3000000").expect(200).body == body(3_000_000));
}

/// A tunnel whose upstream end runs this script after the 101.
fn tunnel(
    configure: impl FnOnce(Flags) -> Flags,
    script: impl Fn(&mut Served) + Send + Sync + 'static,
) -> (Upstream, Proxy, Client) {
    let upstream = Upstream::scripted(move |served| {
        if served.head().is_some() {
            served.write(SWITCH);
            script(served);
        }
    });
    let proxy = configure(Flags::to(&[&upstream])).start();
    let mut client = proxy.client();
    client.send(ASK);
    assert_eq!(client.wire.head().unwrap().status(), 101);
    (upstream, proxy, client)
}

/// Sends a long body's bytes from another thread, and then ends this half.
fn sender(stream: &Arc<TcpStream>, length: usize) -> JoinHandle<()> {
    let stream = stream.clone();
    std::thread::spawn(move || {
        for piece in pieces(length) {
            (&*stream).write_all(piece).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

/// Reads to the end of the peer's half; whether these were its bytes.
fn is_body(wire: &mut Wire, length: usize) -> bool {
    let (mut got, mut is_equal) = (0, true);
    for piece in pieces(length) {
        while wire.ahead().len() < piece.len() && wire.fill().is_ok() {}
        let came = wire.take_ahead_of(piece.len());
        got += came.len();
        is_equal &= came == piece;
    }
    is_equal && got == length && wire.fill() == Err(End::CleanClose)
}

#[test]
fn a_tunnel_that_is_full_both_ways_passes_every_byte_and_both_ends() {
    let (got, is_equal) = mpsc::channel();
    let got = Mutex::new(got);
    let (_upstream, _proxy, mut client) = tunnel(
        |flags| flags,
        move |served| {
            let sending = sender(served.wire.stream(), BULK);
            got.lock().unwrap().send(is_body(&mut served.wire, BULK)).unwrap();
            sending.join().unwrap();
        },
    );
    let sending = sender(client.wire.stream(), BULK);
    assert!(is_body(&mut client.wire, BULK), "what the client got");
    assert_eq!(is_equal.recv_timeout(SOON), Ok(true), "what the backend got");
    sending.join().unwrap();
}

#[test]
fn a_tunnel_passes_small_messages_between_large_ones() {
    let (_upstream, _proxy, mut client) = tunnel(
        |flags| flags,
        |served| {
            while served.wire.fill().is_ok() {
                let bytes = served.wire.take_ahead();
                served.write(&bytes);
            }
        },
    );
    for length in [1, 300_000, 5, 16 * KIB, 17, 2_000_000, 1, 1] {
        let sent = body(length);
        let stream = client.wire.stream().clone();
        let (message, writer) = (sent.clone(), stream);
        let sending = std::thread::spawn(move || (&*writer).write_all(&message).unwrap());
        while client.wire.ahead().len() < length {
            client.wire.fill().unwrap();
        }
        assert!(client.wire.take_ahead() == sent, "{length}");
        sending.join().unwrap();
    }
}

#[test]
fn a_tunnel_that_stands_still_while_it_is_full_is_closed() {
    // tunnel-idle
    let (_upstream, proxy, mut client) = tunnel(
        |flags| flags.with("--tunnel-timeout", "300ms"),
        |served| while served.write(&[b'x'; 65536]) {},
    );
    wait_until("it is logged", SOON, || proxy.log().contains("tunnel-idle"));
    while client.wire.fill().is_ok() {
        client.wire.take_ahead();
    }
}
