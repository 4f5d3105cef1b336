//! Clients that are silent for so long that they are parked: they lose no byte and no deadline, and
//! cost little memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::client::{Client, Fate};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Upstream, ok};
use crate::support::{SOON, raise_open_files, wait_until};

const DRIVERS: [&str; 2] = ["uring", "epoll"];
/// Longer than a client may be silent without being parked.
const PARKED: Duration = Duration::from_millis(3_500);
const REQUEST: &[u8] = b"GET /100 HTTP/1.1\r\nHost: t\r\n\r\n";

fn wait_for(what: &str, time: Duration) {
    let begin = Instant::now();
    wait_until(what, time + SOON, || begin.elapsed() >= time);
}

fn proxy_to(upstream: &Upstream, driver: &str) -> Flags {
    Flags::to(&[upstream]).with("--driver", driver).with("--workers", "1")
}

#[test]
fn a_parked_client_is_served_again_and_again() {
    let upstream = Upstream::naming_targets();
    for driver in DRIVERS {
        let proxy = proxy_to(&upstream, driver).start();
        let mut clients = [proxy.client(), proxy.client()];
        for round in 0..2 {
            for client in &mut clients {
                assert_eq!(
                    client.get(&format!("/{round}")).expect(200).text(),
                    format!("/{round}")
                );
            }
            wait_for("they are parked", PARKED);
        }
        // A request in pieces, and two at once.
        let [first, second] = &mut clients;
        first.send("GET /pie");
        wait_for("the first piece has woken it", Duration::from_millis(50));
        first.send("ces HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(first.read_response("GET").expect(200).text(), "/pieces");
        second.send("GET /a HTTP/1.1\r\nHost: t\r\n\r\nGET /b HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(second.read_response("GET").expect(200).text(), "/a");
        assert_eq!(second.read_response("GET").expect(200).text(), "/b");
    }
}

#[test]
fn a_request_that_comes_just_as_its_client_is_parked_is_answered() {
    let upstream = Upstream::naming_targets();
    for driver in DRIVERS {
        let proxy = proxy_to(&upstream, driver).start();
        // Each is silent for another time, from before to after the moment that parks it.
        let mut clients: Vec<(Duration, Client)> =
            (0..300).map(|step| (Duration::from_millis(600 + 7 * step), proxy.client())).collect();
        clients.iter_mut().for_each(|(_, client)| drop(client.get("/first").expect(200)));
        let begin = Instant::now();
        for (silence, client) in &mut clients {
            wait_for("its time has come", silence.saturating_sub(begin.elapsed()));
            let target = format!("/{}", silence.as_millis());
            assert_eq!(client.get(&target).expect(200).text(), target);
        }
    }
}

#[test]
fn a_parked_client_is_closed_when_it_has_been_idle_for_too_long() {
    let upstream = Upstream::naming_targets();
    for driver in DRIVERS {
        let proxy = proxy_to(&upstream, driver)
            .with("--client-idle-timeout", "4s")
            .with("--client-header-timeout", "4s")
            .start();
        let (mut idle, mut mute) = (proxy.client(), proxy.client());
        idle.get("/").expect(200);
        let begin = Instant::now();
        for client in [&mut idle, &mut mute] {
            assert_eq!(client.fate(SOON), Fate::CleanClose);
        }
        let after = begin.elapsed();
        assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&after), "{after:?}");
    }
}

/// Each wakes it, and none begins a request.
#[test]
fn empty_lines_give_a_parked_client_no_more_time() {
    let upstream = Upstream::naming_targets();
    let proxy = proxy_to(&upstream, "uring")
        .with("--client-idle-timeout", "6s")
        .with("--client-header-timeout", "6s")
        .start();
    let mut clients = [proxy.client(), proxy.client()];
    clients[0].get("/").expect(200);
    let begin = Instant::now();
    wait_for("they are parked", PARKED);
    clients.iter_mut().for_each(|client| client.send("\r\n"));
    for client in &mut clients {
        assert_eq!(client.fate(SOON), Fate::CleanClose);
    }
    let after = begin.elapsed();
    assert!(after < Duration::from_secs(9), "{after:?}: the last line gave it its time anew");
}

#[test]
fn a_drain_closes_parked_clients_at_once() {
    let upstream = Upstream::naming_targets();
    for driver in DRIVERS {
        let mut proxy = proxy_to(&upstream, driver).start();
        let mut clients: Vec<Client> = (0..50).map(|_| proxy.client()).collect();
        clients.iter_mut().for_each(|client| drop(client.get("/").expect(200)));
        wait_for("they are parked", PARKED);
        let begin = Instant::now();
        proxy.drain();
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        clients.iter_mut().for_each(Client::expect_close);
    }
}

#[test]
fn a_parked_client_that_leaves_is_forgotten() {
    let upstream = Upstream::naming_targets();
    for driver in DRIVERS {
        let proxy = proxy_to(&upstream, driver).start();
        proxy.client().get("/").expect(200);
        let before = proxy.open_files();
        let mut clients: Vec<Client> = (0..40).map(|_| proxy.client()).collect();
        clients.iter_mut().for_each(|client| drop(client.get("/").expect(200)));
        wait_for("they are parked", PARKED);
        assert!(proxy.open_files() >= before + 38, "{} files, before {before}", proxy.open_files());
        for (number, client) in clients.into_iter().enumerate() {
            if number % 2 == 0 { client.reset() } else { drop(client) }
        }
        wait_until("their descriptors are closed", SOON, || proxy.open_files() <= before + 2);
    }
}

#[test]
fn a_head_that_has_begun_is_never_parked() {
    let upstream = Upstream::naming_targets();
    let proxy = proxy_to(&upstream, "uring").with("--client-header-timeout", "5s").start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHo");
    wait_for("it would be parked", PARKED);
    client.send("st: t\r\n\r\n");
    client.read_response("GET").expect(200);
    client.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(client.read_response("GET").status(), 408);
}

#[test]
fn silent_clients_cost_little_memory() {
    const CLIENTS: usize = 2_000;
    const AT_ONCE: usize = 50;
    raise_open_files();
    let upstream = Upstream::answering(ok(&"x".repeat(100), false));
    let proxy = Flags::to(&[&upstream]).with("--workers", "1").start();
    let mut clients: Vec<TcpStream> = Vec::new();
    ask(&proxy, &mut clients, 1);
    let before = proxy.memory();
    // No more at once than the backend's queue of new connections holds.
    (0..CLIENTS / AT_ONCE).for_each(|_| ask(&proxy, &mut clients, AT_ONCE));
    wait_until("they are parked", SOON, || {
        let each = proxy.memory().saturating_sub(before) / CLIENTS as u64;
        each < CLIENT_BYTES_MAX
    });
}

/// So many clients more, and one request from each of them, all at the same time.
fn ask(proxy: &Proxy, clients: &mut Vec<TcpStream>, count: usize) {
    let begin = clients.len();
    clients.extend((0..count).map(|_| TcpStream::connect(proxy.addr()).unwrap()));
    clients[begin..].iter_mut().for_each(|client| client.write_all(REQUEST).unwrap());
    for client in &mut clients[begin..] {
        client.set_read_timeout(Some(SOON)).unwrap();
        let (mut buf, mut len) = ([0; 1024], 0);
        while !buf[..len].ends_with(b"x".repeat(100).as_slice()) {
            let count = client.read(&mut buf[len..]).unwrap();
            assert!(count > 0, "the connection has ended");
            len += count;
        }
    }
}

/// 0.8 to 1.3 kB when measured; 15 while they have their buffers.
const CLIENT_BYTES_MAX: u64 = 2_500;
