//! What ends a wait for many bytes, on each driver. Without it these waits would be endless.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::time::Instant;

use monoio::io::Splitable;

use super::*;
use crate::config::DriverChoice;
use crate::sys::Side;
use crate::worker::driver::Runtime;
use crate::worker::join::join;

#[test]
fn many_bytes_are_waited_for_after_a_large_pass_and_never_more_than_a_pipe_leaves_room_for() {
    const KIB: usize = 1024;
    for (count, capacity, expected) in [
        (0, 1024 * KIB, 1),
        (QUICK_BYTES_MIN - 1, 1024 * KIB, 1),
        (QUICK_BYTES_MIN, 1024 * KIB, 512 * KIB),
        (1024 * KIB, 8192 * KIB, 512 * KIB),
        (256 * KIB, 256 * KIB, 128 * KIB),
    ] {
        let bytes = usize::try_from(awaited_after(count, capacity)).unwrap();
        assert_eq!(bytes, expected, "{count} {capacity}");
    }
}

#[test]
fn never_more_is_waited_for_than_will_come() {
    check(async |mut source| {
        source.peer.write_all(&[0; 100]).unwrap();
        assert_eq!(source.fill(100).await, 100);
        assert_eq!(source.splice.low_water.bytes, 100);
    });
}

#[test]
fn few_bytes_of_a_quick_sender_pass_after_a_moment_and_the_next_ones_at_once() {
    check(async |mut source| {
        let start = Instant::now();
        source.peer.write_all(&[0; 100]).unwrap();
        assert_eq!(source.fill(u64::MAX).await, 100);
        assert!(start.elapsed() >= PATIENCE, "the mark was not set");
        source.peer.write_all(&[0; 10]).unwrap();
        assert_eq!(source.splice.low_water.bytes, 1);
        assert_eq!(source.fill(u64::MAX).await, 10);
        assert_eq!(source.splice.awaited, 1);
    });
}

#[test]
fn a_wait_goes_on_when_nothing_has_come_after_a_moment() {
    check(async |source| {
        let Source { mut splice, receiver, mut peer } = source;
        let act = async {
            pause(PATIENCE * 3).await;
            peer.write_all(b"x").unwrap();
        };
        let (count, ()) = join(pin!(splice.fill(&receiver, u64::MAX)), pin!(act)).await;
        assert_eq!(count.unwrap(), 1);
        assert_eq!(splice.awaited, 1);
    });
}

#[test]
fn a_sender_is_quick_only_while_its_passes_are_large() {
    check(async |mut source| {
        let mut left = 4 * QUICK_BYTES_MIN;
        let (mut peer, bytes) = (source.peer.try_clone().unwrap(), vec![0; left]);
        let sending = std::thread::spawn(move || peer.write_all(&bytes).unwrap());
        while left > 0 {
            // Fewer than are waited for come where the kernel's window has no room for more.
            let count = source.fill(left as u64).await;
            let is_quick = source.splice.awaited > 1;
            assert!(!is_quick || count >= QUICK_BYTES_MIN, "{count}");
            left -= count;
        }
        sending.join().unwrap();
        source.peer.write_all(b"x").unwrap();
        assert_eq!(source.fill(1).await, 1);
        assert_eq!(source.splice.awaited, 1);
    });
}

#[test]
fn what_ends_a_connection_ends_the_wait_for_many_bytes() {
    let acts: [fn(TcpStream, RawFd); 5] = [
        |peer, _fd| peer.shutdown(Shutdown::Write).unwrap(),
        |peer, _fd| sys::reset_on_close(peer.as_raw_fd()).unwrap(),
        |_peer, fd| sys::shutdown(fd, Side::Read),
        |_peer, fd| sys::shutdown(fd, Side::Both),
        |_peer, fd| sys::reset(fd),
    ];
    for act in acts {
        check(async |source| {
            let Source { mut splice, receiver, mut peer } = source;
            peer.write_all(b"x").unwrap();
            splice.low_water.set(LOW_WATER_BYTES);
            let end = async {
                pause(PATIENCE).await;
                assert!(!sys::is_readable(splice.source), "the mark was not set");
                act(peer, splice.source);
            };
            let (ready, ()) = join(pin!(receiver.readable()), pin!(end)).await;
            ready.unwrap();
        });
    }
}

#[test]
fn the_next_reader_waits_for_no_more_than_a_byte() {
    check(async |mut source| {
        source.splice.low_water.set(LOW_WATER_BYTES);
        let fd = source.splice.source;
        source.peer.write_all(b"x").unwrap();
        assert!(!sys::is_readable(fd));
        drop(source.splice);
        source.receiver.readable().await.unwrap();
        assert!(sys::is_readable(fd));
    });
}

/// Where a splice takes its bytes from; the sender was quick until now.
struct Source<'w> {
    splice: Splice<'w>,
    receiver: Receiver,
    peer: TcpStream,
}

impl Source<'_> {
    async fn fill(&mut self, bytes_max: u64) -> usize {
        self.splice.fill(&self.receiver, bytes_max).await.unwrap()
    }
}

/// Runs this on each driver.
#[expect(clippy::disallowed_methods, reason = "a wait that does not end fails the test")]
fn check(scenario: impl AsyncFn(Source<'_>)) {
    for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
        let (mut runtime, _) = Runtime::build(choice, NonZeroU32::MIN).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = listener.accept().unwrap().0;
        socket.set_nonblocking(true).unwrap();
        let (pipes, fd) = (Pipes::default(), socket.as_raw_fd());
        runtime.block_on(async {
            let socket = monoio::net::TcpStream::from_std(socket).unwrap();
            let (receiver, _sender) = socket.into_split();
            let mut splice = Splice::new(&pipes, fd, fd);
            (splice.is_fresh, splice.awaited) = (false, LOW_WATER_BYTES);
            let source = Source { splice, receiver: Receiver::Tcp(receiver), peer };
            let is_over = monoio::time::timeout(SOON, scenario(source)).await.is_ok();
            assert!(is_over, "on {choice:?}");
        });
    }
}

/// Long enough for what must happen at all.
const SOON: Duration = Duration::from_secs(10);
