//! Deadlines on real sockets.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use super::*;
use crate::sys::Pending;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn an_overdue_read_ends_and_leaves_a_client_writable() {
    let (mut client, mut server) = pair();
    let start = clock::coarse_millis();
    let table = Deadlines::new();
    let deadline = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
    deadline.arm(Wait::Read, Duration::from_millis(100));
    table.sweep(start + 100, false);
    assert!(!deadline.expired(Wait::Read), "the clock may have been late");
    table.sweep(start + 1000, false);
    assert!(deadline.expired(Wait::Read) && !deadline.expired(Wait::Write));
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
    std::io::Write::write_all(&mut server, b"late").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"late");
}

#[test]
fn a_released_slot_is_never_shut_down() {
    let (_client, server) = pair();
    let start = clock::coarse_millis();
    let table = Deadlines::new();
    let old = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
    old.arm(Wait::Read, Duration::ZERO);
    drop(old);
    let new = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
    table.sweep(start + 1000, false);
    assert!(!new.expired(Wait::Read));
    assert_eq!(sys::peek(server.as_raw_fd()), Pending::Nothing);
}

#[test]
fn a_client_that_resets_while_it_waits_ends_its_backend() {
    let (client, server) = pair();
    let (mut backend, upstream) = pair();
    let start = clock::coarse_millis();
    let table = Deadlines::new();
    let waiting = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
    let waited_for = Deadlines::enter(&table, upstream.as_raw_fd(), Role::Backend);
    waiting.wait_for(&waited_for);
    let later = start + 1000;
    table.sweep(later, false);
    assert!(!waiting.is_gone());
    sys::reset_on_close(client.as_raw_fd()).unwrap();
    drop(client);
    table.sweep(later, false);
    assert!(waiting.is_gone());
    assert_eq!(backend.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn an_idle_client_that_is_overdue_can_be_told_apart() {
    let (mut client, mut server) = pair();
    let start = clock::coarse_millis();
    let table = Deadlines::new();
    let deadline = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
    deadline.set_idle(true);
    deadline.arm(Wait::Read, Duration::from_millis(1));
    table.sweep(start + 1000, false);
    assert!(deadline.is_closing() && !deadline.expired(Wait::Read));
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
    std::io::Write::write_all(&mut client, b"late").unwrap();
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 4);
}

#[test]
fn a_drain_ends_idle_clients_and_spares_those_that_have_spoken() {
    let (client, server) = pair();
    let (mut speaking, busy) = pair();
    std::io::Write::write_all(&mut speaking, b"G").unwrap();
    let table = Deadlines::new();
    let idle = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
    let spoken = Deadlines::enter(&table, busy.as_raw_fd(), Role::Client);
    idle.set_idle(true);
    spoken.set_idle(true);
    table.close_idle();
    assert_eq!((idle.is_closing(), spoken.is_closing()), (true, false));
    assert_eq!(sys::peek(client.as_raw_fd()), Pending::Nothing);
}
