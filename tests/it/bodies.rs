//! Bodies of every size, up and down, in both framings, through nginx, Python and Node: the SHA-256 must be
//! equal and the proxy's memory stay small.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::support::client::Client;
use crate::support::proxy::Flags;
use crate::support::servers::Server;
use crate::support::wire::Framing;

const SMALL: [usize; 6] = [0, 1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 1024 * 1024];
const LARGE: [usize; 1] = [200_000_000];
const MEMORY_MAX: u64 = 64_000_000;
/// A server that sums 200 MB on a busy core is silent for a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bytes of all bodies, over and over; its length is no power of two, so that a shifted piece shows.
fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| {
        (0..2039).flat_map(|number: u32| Sha256::digest(number.to_string())).collect()
    })
}

pub fn pieces(length: usize) -> impl Iterator<Item = &'static [u8]> {
    let starts = (0..length).step_by(block().len());
    starts.map(move |start| &block()[..block().len().min(length - start)])
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sum(length: usize) -> String {
    let mut digest = Sha256::new();
    pieces(length).for_each(|piece| digest.update(piece));
    hex(digest)
}

/// Sends so many bytes with PUT; the answer's body.
fn upload(client: &mut Client, target: &str, length: usize, framing: Framing) -> String {
    let chunked = framing == Framing::Chunked;
    let header = if chunked {
        "Transfer-Encoding: chunked".to_string()
    } else {
        format!("Content-Length: {length}")
    };
    client.send(format!("PUT {target} HTTP/1.1\r\nHost: t\r\n{header}\r\n\r\n"));
    for piece in pieces(length) {
        if chunked {
            client.send(format!("{:x}\r\n", piece.len()));
        }
        client.send(piece);
        if chunked {
            client.send("\r\n");
        }
    }
    if chunked {
        client.send("0\r\n\r\n");
    }
    let response = client.read_response("PUT");
    let status = response.status();
    // nginx says 201 for a new file and 204 for one that it replaces.
    assert!(matches!(status, 200 | 201 | 204), "{response:?}");
    response.expect(status).text()
}

fn download(client: &mut Client, target: &str) -> (String, usize, Framing) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
    let (mut digest, mut length) = (Sha256::new(), 0);
    let response = client.read_response_into("GET", &mut |piece| {
        digest.update(piece);
        length += piece.len();
    });
    let framing = response.expect(200).framing;
    (hex(digest), length, framing)
}

/// A server that makes bodies up and sums what it is sent (Python and Node), at this address or behind it.
fn check_summing_server(addr: SocketAddr, lengths: &[usize]) {
    let mut client = Client::connect(addr);
    client.wire.patience(PATIENCE);
    for &length in lengths {
        let sum = sum(length);
        for framing in [Framing::Length(length as u64), Framing::Chunked] {
            assert_eq!(upload(&mut client, "/", length, framing), sum, "{length} up, {framing:?}");
            let kind = if framing == Framing::Chunked { "chunked" } else { "length" };
            let got = download(&mut client, &format!("/{kind}/{length}"));
            assert_eq!(got, (sum.clone(), length, framing), "{length} down, {framing:?}");
        }
    }
}

/// nginx keeps what it is sent as a file, and sends that.
fn check_nginx(server: &Server, addr: SocketAddr, lengths: &[usize]) {
    let file = server.scratch.as_ref().unwrap().join("files/body");
    let mut client = Client::connect(addr);
    client.wire.patience(PATIENCE);
    for &length in lengths {
        let sum = sum(length);
        for framing in [Framing::Length(length as u64), Framing::Chunked] {
            upload(&mut client, "/body", length, framing);
            let kept = std::fs::read(&file).unwrap();
            assert_eq!(hex(Sha256::new_with_prefix(kept)), sum, "{length} up, {framing:?}");
        }
        let got = download(&mut client, "/body");
        let framing = Framing::Length(length as u64);
        assert_eq!(got, (sum.clone(), length, framing), "{length} down");
        // Of an empty file it knows the length after all.
        let framing = if length == 0 { framing } else { Framing::Chunked };
        let got = download(&mut client, "/ssi/body");
        assert_eq!(got, (sum, length, framing), "{length} down, chunked");
    }
}

fn through_proxy(server: &Server, check: impl Fn(SocketAddr)) {
    let flags = Flags::to_addrs(&[server.addr]);
    let proxy = flags.with("--backend-response-timeout", "60s").start();
    check(proxy.addr());
    assert!(proxy.peak_memory() < MEMORY_MAX, "peak memory {}", proxy.peak_memory());
}

#[test]
fn the_servers_themselves_are_right() {
    check_summing_server(Server::python().addr, &SMALL);
    check_summing_server(Server::node().addr, &SMALL);
    let nginx = Server::nginx();
    check_nginx(&nginx, nginx.addr, &SMALL);
}

#[test]
fn bodies_to_1_mib_pass_through_nginx() {
    let server = Server::nginx();
    through_proxy(&server, |addr| check_nginx(&server, addr, &SMALL));
}

#[test]
fn bodies_to_1_mib_pass_through_python() {
    through_proxy(&Server::python(), |addr| check_summing_server(addr, &SMALL));
}

#[test]
fn bodies_to_1_mib_pass_through_node() {
    through_proxy(&Server::node(), |addr| check_summing_server(addr, &SMALL));
}

#[test]
fn bodies_of_200_mb_pass_through_nginx() {
    let server = Server::nginx();
    through_proxy(&server, |addr| check_nginx(&server, addr, &LARGE));
}

#[test]
fn bodies_of_200_mb_pass_through_nginx_on_epoll() {
    let server = Server::nginx();
    let proxy = Flags::to_addrs(&[server.addr]).with("--driver", "epoll").start();
    check_nginx(&server, proxy.addr(), &LARGE);
    assert!(proxy.peak_memory() < MEMORY_MAX, "peak memory {}", proxy.peak_memory());
}

#[test]
fn bodies_of_200_mb_pass_through_python() {
    through_proxy(&Server::python(), |addr| check_summing_server(addr, &LARGE));
}

#[test]
fn bodies_of_200_mb_pass_through_node() {
    through_proxy(&Server::node(), |addr| check_summing_server(addr, &LARGE));
}
