//! A small DNS server on loopback, UDP and TCP, whose answers the test changes as it likes.
//! Messages are written and read by hand (RFC 1035 §4), so that they can be wrong on purpose.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The types of records that are served.
pub const A: u16 = 1;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;

/// How a question is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These records, each with this TTL.
    Records(u32, Vec<Vec<u8>>),
    /// No error and no records.
    Empty,
    /// This code: 2 is SERVFAIL, 3 is NXDOMAIN.
    Code(u8),
    /// Nothing.
    Silent,
    /// Bytes that are no message.
    Garbage,
    /// The right records under another id.
    WrongId,
    /// Truncated over UDP; these records over TCP.
    Truncated(u32, Vec<Vec<u8>>),
}

/// Addresses with a TTL, as A or AAAA records.
pub fn addresses(ttl: u32, addresses: &[&str]) -> Reply {
    Reply::Records(ttl, data_of(addresses))
}

pub fn data_of(addresses: &[&str]) -> Vec<Vec<u8>> {
    let octets = |text: &&str| match text.parse().unwrap() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    addresses.iter().map(octets).collect()
}

/// The data of an SRV record.
pub fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
    let numbers = [priority, weight, port].map(u16::to_be_bytes).concat();
    [numbers, name_of(target)].concat()
}

type Zone = Arc<Mutex<State>>;

#[derive(Default)]
struct State {
    replies: BTreeMap<(String, u16), Reply>,
    asked: BTreeMap<(String, u16), usize>,
}

/// The server; it ends when this is dropped.
pub struct DnsServer {
    pub addr: SocketAddr,
    zone: Zone,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// One that knows no name: NXDOMAIN for all.
    pub fn start() -> DnsServer {
        // The port must be free for both.
        let (tcp, udp) = (0..100)
            .find_map(|_| {
                let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
                let udp = UdpSocket::bind(tcp.local_addr().unwrap()).ok()?;
                Some((tcp, udp))
            })
            .expect("a port that is free for TCP and UDP");
        let addr = tcp.local_addr().unwrap();
        let (zone, ended) = (Zone::default(), Arc::new(AtomicBool::new(false)));
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let over_udp = {
            let (zone, ended) = (zone.clone(), ended.clone());
            std::thread::spawn(move || serve_udp(&udp, &zone, &ended))
        };
        let over_tcp = {
            let (zone, ended) = (zone.clone(), ended.clone());
            std::thread::spawn(move || serve_tcp(&tcp, &zone, &ended))
        };
        DnsServer { addr, zone, ended, threads: vec![over_udp, over_tcp] }
    }

    /// Sets how a question is answered from now on.
    pub fn set(&self, name: &str, kind: u16, reply: Reply) {
        self.zone.lock().unwrap().replies.insert((name.to_owned(), kind), reply);
    }

    /// How often a question was asked.
    pub fn asked(&self, name: &str, kind: u16) -> usize {
        self.zone.lock().unwrap().asked.get(&(name.to_owned(), kind)).copied().unwrap_or_default()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the acceptor; fails only where it has ended already.
        TcpStream::connect(self.addr).ok();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Zone, ended: &AtomicBool) {
    let mut buf = [0; 4096];
    while !ended.load(Ordering::Relaxed) {
        let Ok((count, from)) = socket.recv_from(&mut buf) else { continue };
        if let Some(answer) = answer(&buf[..count], zone, true) {
            // The asker may be gone.
            socket.send_to(&answer, from).ok();
        }
    }
}

fn serve_tcp(listener: &TcpListener, zone: &Zone, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else { continue };
        let zone = zone.clone();
        std::thread::spawn(move || serve_stream(stream, &zone));
    }
}

/// Messages behind their length in two bytes, until the other side is done or silent.
fn serve_stream(mut stream: TcpStream, zone: &Zone) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        let Some(answer) = answer(&message, zone, false) else { return };
        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
        if stream.write_all(&[&length[..], &answer].concat()).is_err() {
            return;
        }
    }
}

fn answer(message: &[u8], zone: &Zone, is_udp: bool) -> Option<Vec<u8>> {
    let (name, kind, question) = question_of(message)?;
    let reply = {
        let mut zone = zone.lock().unwrap();
        *zone.asked.entry((name.clone(), kind)).or_default() += 1;
        let default = match zone.replies.keys().any(|(known, _)| *known == name) {
            true => Reply::Empty,
            false => Reply::Code(3),
        };
        zone.replies.get(&(name, kind)).cloned().unwrap_or(default)
    };
    let id = [message[0], message[1]];
    let message = |id: [u8; 2], truncated: bool, code: u8, ttl: u32, records: &[Vec<u8>]| {
        // A response, recursion desired and available.
        let flags = [0x81 | u8::from(truncated) << 1, 0x80 | code];
        let count = u16::try_from(records.len()).unwrap();
        let counts = [1, count, 0, 0].map(u16::to_be_bytes).concat();
        let mut bytes = [&id[..], &flags, &counts, question].concat();
        for data in records {
            // The name is the question's, at byte 12.
            bytes.extend([0xC0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(ttl.to_be_bytes());
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes
    };
    let plain = |ttl, records: &[Vec<u8>]| {
        let whole = message(id, false, 0, ttl, records);
        match is_udp && whole.len() > UDP_BYTES_MAX {
            true => message(id, true, 0, ttl, &[]),
            false => whole,
        }
    };
    match reply {
        Reply::Records(ttl, records) => Some(plain(ttl, &records)),
        Reply::Empty => Some(message(id, false, 0, 0, &[])),
        Reply::Code(code) => Some(message(id, false, code, 0, &[])),
        Reply::Silent => None,
        Reply::Garbage => Some(b"\x01\x02 this is no message at all".to_vec()),
        Reply::WrongId => Some(message([id[0] ^ 0x55, id[1]], false, 0, 1, &[])),
        Reply::Truncated(ttl, _) if is_udp => Some(message(id, true, 0, ttl, &[])),
        Reply::Truncated(ttl, records) => Some(plain(ttl, &records)),
    }
}

/// The name and type of a message's question, and its bytes.
fn question_of(message: &[u8]) -> Option<(String, u16, &[u8])> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = message.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
    Some((labels.join("."), kind, message.get(12..at + 4)?))
}

fn name_of(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// What is sent over UDP; more is truncated.
const UDP_BYTES_MAX: usize = 1200;
