//! A worker's state, shared by its tasks and never by threads.

mod guards;
mod logs;
mod retries;
mod waiting;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use monoio::io::{CancelHandle, Canceller};
use monoio::net::TcpListener;

use crate::access_log::{Inlet, Pen};
use crate::clock;
use crate::config::{Config, Faults, Policy};
use crate::http1::client;
use crate::metrics::{Counter, Lane, Lanes};
use crate::panic::contained;
use crate::upstream::balance::{Ask, Cursor};
use crate::upstream::endpoint::Slot;
use crate::upstream::outcome::{self, Kind};
use crate::upstream::pool::IdlePool;
use crate::upstream::snapshot::{Held, Pool, PoolId, Published, View};
use crate::worker::budget::Budget;
use crate::worker::buffer::{Buffers, Store};
use crate::worker::causes::CauseLog;
use crate::worker::deadline::Deadlines;
use crate::worker::event::Event;
use crate::worker::mailbox::Mailbox;
use crate::worker::pipes::Pipes;
use crate::worker::places::Places;
use crate::worker::queue::Queue;
use crate::worker::rate::{ADDRESSES_MAX, RateLimit};
use crate::worker::record::Facts;
use crate::worker::request::Request;
use crate::worker::silence::Silence;
use crate::worker::steer::Steering;
use crate::worker::waitlist::Waitlist;

pub use guards::{Admission, InFlight, Kept};

/// A worker's state, shared by its tasks; never by threads.
pub struct Worker {
    /// The process's configuration.
    pub config: Arc<Config>,
    /// When its connections are overdue.
    pub deadlines: Rc<Deadlines>,
    /// The unused connections to backends.
    pub idle: RefCell<IdlePool<Kept>>,
    /// The unused buffers.
    pub buffers: Buffers,
    /// Writes lines of the access log, if there is one.
    pub access_log: Option<RefCell<Pen>>,
    /// The unused records of requests.
    pub facts: Store<Rc<Facts>>,
    /// The clients that may be silent.
    pub silence: Silence,
    /// Which worker serves a connection that this one accepted.
    pub steering: Steering,
    /// The unused pipes.
    pub pipes: Pipes,
    /// The requests that wait for a place on an endpoint,
    pub queue: Queue,
    /// and those of all workers.
    pub waitlist: Arc<Waitlist>,
    id: usize,
    /// The retry budgets, by pool.
    budgets: RefCell<Vec<Budget>>,
    /// The epoch of the snapshot that requests in the queue were last told of.
    heeded: Cell<u64>,
    outcomes: Sender<outcome::Outcome>,
    lanes: Lanes,
    /// The same, for what outlives a borrow of this.
    lanes_held: Rc<Lanes>,
    places: Arc<Places>,
    rate: RefCell<Option<RateLimit>>,
    view: RefCell<View>,
    snapshot: RefCell<Rc<Held>>,
    cursors: RefCell<Vec<Cursor>>,
    causes: CauseLog,
    faults: Faults,
    accepted: Cell<usize>,
    clients: Cell<usize>,
    /// The listening sockets, until a drain closes them.
    listeners: RefCell<Vec<Rc<TcpListener>>>,
    /// How many of them still accept.
    listening: Cell<usize>,
    draining: Cell<bool>,
    is_stopping: Cell<bool>,
    ended: Event,
    /// What a task outside a connection panicked with.
    death: RefCell<Option<String>>,
    /// Ends the operations that nothing else ends: accepting, and waiting for messages.
    canceller: RefCell<Canceller>,
}

/// What a worker has in common with the others.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The worker's number, and its lane's.
    pub id: usize,
    /// The process's configuration.
    pub config: Arc<Config>,
    /// The counters of all workers.
    pub lanes: Lanes,
    /// The places for client connections, of all workers.
    pub places: Arc<Places>,
    /// The mailboxes of all workers.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// The requests of all workers that wait for a place on an endpoint.
    pub waitlist: Arc<Waitlist>,
    /// The snapshot in force.
    pub published: Published,
    /// Where failures of backends are told.
    pub outcomes: Sender<outcome::Outcome>,
    /// Where lines of the access log go, if there is one.
    pub access_log: Option<Inlet>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker with nothing open.
    #[must_use]
    pub fn new(shared: Shared, deadlines: Rc<Deadlines>, faults: Faults) -> Worker {
        let steering = Steering::new(&shared);
        let Shared { id, config, lanes, places, waitlist, published, outcomes, access_log, .. } =
            shared;
        let mut view = View::new(published);
        let snapshot = Rc::new(Held::load(&mut view));
        let budgets = retries::budgets(&lanes, snapshot.pools.len());
        let rate = config.client.rate_max.map(|per_second| {
            RateLimit::new(per_second.get(), config.workers.cores.len(), ADDRESSES_MAX)
        });
        Worker {
            idle: RefCell::default(),
            config,
            deadlines,
            buffers: Buffers::default(),
            access_log: access_log.map(|inlet| RefCell::new(Pen::new(inlet))),
            facts: Store::new(FACTS_KEPT_MIN, FACTS_KEPT_MAX),
            silence: Silence::default(),
            steering,
            pipes: Pipes::default(),
            queue: Queue::default(),
            waitlist,
            id,
            budgets: RefCell::new(budgets),
            heeded: Cell::new(0),
            outcomes,
            lanes_held: Rc::new(lanes.clone()),
            lanes,
            places,
            rate: RefCell::new(rate),
            view: RefCell::new(view),
            snapshot: RefCell::new(snapshot),
            cursors: RefCell::default(),
            causes: CauseLog::new(id, Instant::now()),
            faults,
            accepted: Cell::new(0),
            clients: Cell::new(0),
            listeners: RefCell::default(),
            listening: Cell::new(0),
            draining: Cell::new(false),
            is_stopping: Cell::new(false),
            ended: Event::default(),
            death: RefCell::default(),
            canceller: RefCell::default(),
        }
    }

    /// This worker's counters.
    #[must_use]
    pub fn lane(&self) -> &Lane {
        self.lanes.lane(self.id)
    }

    /// The snapshot in force; what is read from it holds for the whole request.
    #[must_use]
    pub fn snapshot(&self) -> Rc<Held> {
        let mut view = self.view.borrow_mut();
        let mut held = self.snapshot.borrow_mut();
        if !held.is_latest(&mut view) {
            *held = Rc::new(Held::load(&mut view));
        }
        held.clone()
    }

    /// The number of this worker.
    #[must_use]
    pub fn id(&self) -> usize {
        self.id
    }

    /// The index of the endpoint for the next attempt of a request, and never one that is not free.
    pub fn pick(
        &self,
        pool: &Pool,
        request: &Request,
        now: Instant,
        is_free: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let ask = Ask { hash: request.hash, lanes: &self.lanes, now };
        self.with_cursor(request.pool, |cursor| {
            let primary = pool.primary.pick(&pool.endpoints, cursor, &ask, &is_free);
            primary.or_else(|| pool.backup.pick(&pool.endpoints, cursor, &ask, &is_free))
        })
    }

    /// Remembers how long an endpoint took until its answer began, where the policy heeds that.
    pub fn observe(&self, request: &Request, slot: Slot, latency: Duration, now: Instant) {
        if request.config().balance.policy != Policy::Ewma {
            return;
        }
        self.with_cursor(request.pool, |cursor| cursor.observe(slot, latency, now));
    }

    fn with_cursor<T>(&self, pool: PoolId, with: impl FnOnce(&mut Cursor) -> T) -> T {
        let mut cursors = self.cursors.borrow_mut();
        while cursors.len() <= pool.0 {
            cursors.push(Cursor::new(self.id));
        }
        with(&mut cursors[pool.0])
    }

    /// Tells the control thread, and whoever reads the counters, how a request fared.
    pub fn report(&self, slot: Slot, kind: Option<Kind>) {
        let Some(kind) = kind else { return self.lane().add_success(slot.number) };
        self.lane().add_failure(slot.number);
        let successes = self.lanes.succeeded(slot.number);
        if self.outcomes.try_send(outcome::Outcome { slot, kind, successes }).is_err() {
            self.lane().add(Counter::OutcomesDropped);
        }
    }

    /// The faults that tests provoke; a worker that took over from a dead one has none.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Whether this worker completes what is under way and takes nothing new.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Takes a place for a connection, if the process has one left.
    #[must_use]
    pub fn take_place(&self) -> bool {
        self.places.take()
    }

    /// Counts a connection in, for which a place was taken, until the guard is dropped.
    #[must_use]
    pub fn admit(self: &Rc<Worker>, addr: IpAddr) -> Admission {
        self.clients.set(self.clients.get() + 1);
        self.accepted.set(self.accepted.get() + 1);
        self.lane().add(Counter::Accepted);
        self.lane().add(Counter::ClientsOpen);
        // A proxy speaks for many.
        let is_proxy = client::is_trusted(addr, &self.config.forward.trusted_proxies);
        let counted = (!is_proxy).then_some(addr);
        let is_within_limit = counted.is_none_or(|addr| self.places.enter(self.id, addr));
        Admission { worker: self.clone(), counted, number: self.accepted.get(), is_within_limit }
    }

    /// Whether the client that sent a request has not sent too many; `client_of` finds its
    /// address, where there is a limit.
    pub fn allows_request(&self, client_of: impl FnOnce() -> IpAddr) -> bool {
        let mut rate = self.rate.borrow_mut();
        rate.as_mut().is_none_or(|rate| rate.allow(client_of(), clock::now()))
    }

    /// Counts a listening socket in, which `begin_drain` gives back.
    pub fn add_listener(&self, socket: Rc<TcpListener>) {
        self.listeners.borrow_mut().push(socket);
        self.listening.set(self.listening.get() + 1);
    }

    /// Counts a listening socket out, once it accepts no more.
    pub fn listener_ended(&self) {
        self.listening.set(self.listening.get() - 1);
        self.end_if_drained();
    }

    /// From now on, completes what is under way and takes nothing new; the listening sockets are
    /// the caller's to close.
    #[must_use]
    pub fn begin_drain(&self) -> Vec<Rc<TcpListener>> {
        self.draining.set(true);
        self.steering.inlet().close();
        self.deadlines.close_idle();
        self.end_if_drained();
        self.listeners.take()
    }

    /// Ends everything at once.
    pub fn stop(&self) {
        self.steering.inlet().close();
        self.deadlines.abort_all();
        self.idle.borrow_mut().clear();
        // A canceller that was used is none for operations that begin later.
        let canceller = self.canceller.take();
        *self.canceller.borrow_mut() = canceller.cancel();
        self.is_stopping.set(true);
        self.queue.call_all();
        self.ended.notify();
    }

    /// Runs a task that is no connection's; its panic is the worker's end.
    pub fn spawn(self: &Rc<Worker>, task: impl Future<Output = ()> + 'static) {
        let worker = self.clone();
        monoio::spawn(async move {
            if let Err(panic) = contained(task).await {
                *worker.death.borrow_mut() = Some(panic);
                worker.ended.notify();
            }
        });
    }

    /// What the worker died of, if it did.
    #[must_use]
    pub fn death(&self) -> Option<String> {
        self.death.borrow().clone()
    }

    /// What an operation is started with that only the worker's end may end.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.canceller.borrow().handle()
    }

    /// Whether everything is being ended.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// Whether a connection or a listening socket is still open.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.clients.get() > 0 || self.listening.get() > 0
    }

    /// Waits until the worker has drained, was stopped or has died.
    pub async fn ended(&self) {
        self.ended.wait().await;
    }

    /// Ends the worker once it drains and nothing is open, or comes from another worker.
    pub fn end_if_drained(&self) {
        let is_unused = self.listening.get() == 0 && self.clients.get() == 0;
        if self.draining.get() && is_unused && self.steering.inlet().is_settled() {
            self.ended.notify();
        }
    }
}

/// How many unused records are kept, 0.3 kB each: some always, and as many as a burst needs.
const FACTS_KEPT_MIN: usize = 64;
const FACTS_KEPT_MAX: usize = 1024;
