//! A worker's way in for connections that another worker accepted.
//!
//! Lock-free and bounded: who wants to hand a connection over reserves its way first, so that
//! nothing that was sent is ever lost, and a worker that drains ends only when nothing is under
//! way to it any more. `steer` decides what goes this way, `mailbox` wakes the worker for it.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::worker::places::Places;

/// The way in.
#[derive(Debug)]
pub struct Inlet {
    /// How many connections are under way, times `ONE`, and whether it is `CLOSED`.
    state: Arc<AtomicUsize>,
    queue: ArrayQueue<Handed>,
}

/// A connection on its way to another worker.
#[derive(Debug)]
pub struct Handed {
    /// Its socket; whether it is non-blocking is the sender's choice.
    pub socket: TcpStream,
    /// Where it comes from.
    pub origin: Origin,
    /// The place that was taken for it.
    pub claim: Claim,
    /// Counts it for the worker that gets it, until that one counts it itself.
    pub under_way: UnderWay,
}

/// Where a client's connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The client's address.
    pub addr: SocketAddr,
    /// The address that it connected to, if that is the same for all of its listener.
    pub local: Option<SocketAddr>,
    /// The listener's index in the config.
    pub listener: usize,
}

/// A place for a client connection, given back when this is dropped.
#[derive(Debug)]
pub struct Claim(Option<Arc<Places>>);

/// A connection that was promised to an inlet, counted until this is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<AtomicUsize>);

impl Inlet {
    /// One that is closed.
    #[must_use]
    pub fn new() -> Inlet {
        Inlet { state: Arc::new(AtomicUsize::new(CLOSED)), queue: ArrayQueue::new(HANDED_MAX) }
    }

    /// From now on connections may be handed to its worker.
    pub fn open(&self) {
        self.state.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// From now on none are; those under way still come.
    pub fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// How many connections are under way; `None` if it takes no more.
    #[must_use]
    pub fn load(&self) -> Option<usize> {
        let state = self.state.load(Ordering::Acquire);
        (state & CLOSED == 0).then_some(state / ONE)
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state.load(Ordering::Acquire) < ONE
    }

    /// Counts a connection in that will be sent; `None` when it is closed, or too many are under
    /// way.
    #[must_use]
    pub fn reserve(&self) -> Option<UnderWay> {
        let next =
            |state: usize| (state & CLOSED == 0 && state / ONE < HANDED_MAX).then_some(state + ONE);
        let reserved = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        reserved.ok().map(|_| UnderWay(self.state.clone()))
    }

    /// Whether something was sent that was not taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What was sent first.
    pub fn take(&self) -> Option<Handed> {
        self.queue.pop()
    }

    /// Puts a connection in whose way was reserved here.
    pub(super) fn put(&self, handed: Handed) {
        if let Err(handed) = self.queue.push(handed) {
            // Each entry holds a reservation, and there are no more of these.
            tracing::error!(client = %handed.origin.addr, "a connection found no way in");
        }
    }
}

impl Default for Inlet {
    fn default() -> Inlet {
        Inlet::new()
    }
}

impl Claim {
    /// Of a place that was taken.
    #[must_use]
    pub fn new(places: Arc<Places>) -> Claim {
        Claim(Some(places))
    }

    /// Somebody else gives the place back.
    pub fn pass_on(mut self) {
        self.0 = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(places) = &self.0 {
            places.give();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(ONE, Ordering::AcqRel);
    }
}

/// The most connections under way to one worker.
const HANDED_MAX: usize = 1024;
/// Of an inlet's state: takes no more,
const CLOSED: usize = 1;
/// and one connection.
const ONE: usize = 2;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn handed(inlet: &Inlet, places: &Arc<Places>) -> Option<Handed> {
        let under_way = inlet.reserve()?;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let socket = TcpStream::connect(local).unwrap();
        let origin = Origin { addr: local, local: Some(local), listener: 0 };
        assert!(places.take());
        Some(Handed { socket, origin, claim: Claim::new(places.clone()), under_way })
    }

    #[test]
    fn a_connection_is_under_way_until_its_receiver_counts_it() {
        let (inlet, places) = (Inlet::new(), Arc::new(Places::new(1, 9, None)));
        inlet.open();
        inlet.put(handed(&inlet, &places).unwrap());
        assert_eq!((inlet.load(), places.taken()), (Some(1), 1));
        let Handed { claim, under_way, .. } = inlet.take().unwrap();
        claim.pass_on();
        assert_eq!((inlet.load(), inlet.is_settled(), places.taken()), (Some(1), false, 1));
        drop(under_way);
        assert_eq!((inlet.load(), inlet.is_settled()), (Some(0), true));
    }

    #[test]
    fn a_closed_inlet_takes_what_is_under_way_and_nothing_more() {
        let (inlet, places) = (Inlet::new(), Arc::new(Places::new(1, 9, None)));
        assert!(inlet.reserve().is_none(), "closed at first");
        inlet.open();
        let late = handed(&inlet, &places).unwrap();
        inlet.close();
        assert!(inlet.reserve().is_none() && inlet.load().is_none() && !inlet.is_settled());
        inlet.put(late);
        drop(inlet.take().unwrap());
        assert!(inlet.is_settled() && places.taken() == 0);
    }

    #[test]
    fn a_full_inlet_promises_nothing_more() {
        let inlet = Inlet::new();
        inlet.open();
        let promised: Vec<_> = std::iter::from_fn(|| inlet.reserve()).collect();
        assert_eq!(promised.len(), HANDED_MAX);
        drop(promised);
        assert!(inlet.reserve().is_some());
    }
}
