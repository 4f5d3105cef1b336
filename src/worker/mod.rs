//! The data plane: one worker per core, each with its own runtime, listeners, connections, pool
//! and buffers.
//!
//! Nothing here waits for another thread. What a worker shares it reads with one atomic load (the
//! snapshot) or writes alone (its lane of counters); what reaches it comes through its mailbox.

pub mod buffer;
pub mod causes;
pub mod connection;
pub mod deadline;
pub mod driver;
pub mod event;
pub mod exchange;
pub mod listener;
pub mod mailbox;
pub mod relay;
pub mod stream;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::{Cause, StartError};
use crate::metrics::{Counter, Lane, Lanes};
use crate::sys::Pending;
use crate::upstream::balance::{self, Cursor};
use crate::upstream::endpoint::{Address, Slot};
use crate::upstream::pool::IdlePool;
use crate::upstream::snapshot::{PoolId, Published, Snapshot, View};
use buffer::Buffers;
use causes::CauseLog;
use deadline::Deadlines;
use driver::Runtime;
use event::Event;
use mailbox::{Inbox, Message};
use stream::Stream;

/// What a worker's thread is started with.
#[derive(Debug)]
pub struct Seat {
    /// The worker's number, and its lane's.
    pub id: usize,
    /// The core it is pinned to.
    pub core: usize,
    /// The process's configuration.
    pub config: Arc<Config>,
    /// The counters of all workers.
    pub lanes: Lanes,
    /// The snapshot in force.
    pub published: Published,
    /// This worker's own socket for each of `Config::listeners`.
    pub listeners: Vec<TcpListener>,
    /// What other threads tell it.
    pub inbox: Inbox,
}

/// How a worker's thread ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, or has drained.
    Regularly,
    /// Something outside a connection panicked: its connections are shut down, and another thread
    /// may take its lane over.
    Panicked(String),
}

/// A worker's state, shared by its tasks; never by threads.
#[derive(Debug)]
pub struct Worker {
    /// The process's configuration.
    pub config: Arc<Config>,
    /// When its connections are overdue.
    pub deadlines: Rc<Deadlines>,
    /// The unused connections to backends.
    pub idle: RefCell<IdlePool<Stream>>,
    /// The unused buffers.
    pub buffers: Buffers,
    id: usize,
    lanes: Lanes,
    view: RefCell<View>,
    snapshot: RefCell<Rc<Arc<Snapshot>>>,
    cursors: RefCell<Vec<Cursor>>,
    causes: CauseLog,
    accepted: Cell<usize>,
    clients: Cell<usize>,
    /// The listening sockets, until a drain closes them.
    listeners: RefCell<Vec<Rc<monoio::net::TcpListener>>>,
    /// How many of them still accept.
    listening: Cell<usize>,
    draining: Cell<bool>,
    ended: Event,
}

/// Runs a worker on this thread until it is told to end; `on_start` gets the driver's name once
/// it accepts connections.
///
/// # Errors
/// When the thread cannot be pinned or no driver works.
pub fn run(seat: Seat, on_start: impl FnOnce(&'static str)) -> Result<Ended, StartError> {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: seat.core }) {
        return Err(StartError::Pin(seat.core));
    }
    let workers = &seat.config.workers;
    let (mut runtime, driver) = Runtime::build(workers.driver, workers.ring_entries)?;
    let deadlines = Deadlines::new(Instant::now());
    let lanes = seat.lanes.clone();
    let id = seat.id;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(serve(seat, deadlines.clone(), driver, on_start))
    }));
    match ran {
        Ok(served) => served.map(|()| Ended::Regularly),
        Err(panic) => {
            // Operations under way keep their sockets open: shut down, they complete.
            deadlines.abort_all();
            drop(runtime);
            lanes.lane(id).reset_gauges();
            Ok(Ended::Panicked(message_of(panic.as_ref())))
        }
    }
}

/// Starts the worker's tasks and waits for its end.
async fn serve(
    seat: Seat,
    deadlines: Rc<Deadlines>,
    driver: &'static str,
    on_start: impl FnOnce(&'static str),
) -> Result<(), StartError> {
    let Seat { id, core: _, config, lanes, published, listeners, inbox } = seat;
    let worker = Rc::new(Worker::new(id, config, lanes, published, deadlines, listeners.len()));
    for (index, socket) in listeners.into_iter().enumerate() {
        let socket = listener::adopt(socket)
            .map_err(|error| StartError::Resource("a listening socket for a worker", error))?;
        let socket = Rc::new(socket);
        worker.listeners.borrow_mut().push(socket.clone());
        monoio::spawn(listener::accept(worker.clone(), socket, index));
    }
    monoio::spawn(sweep(worker.clone()));
    let told = worker.clone();
    monoio::spawn(async move {
        if let Err(error) = inbox.receive(|message| told.obey(message)).await {
            tracing::error!(%error, worker = told.id, "a worker lost its mailbox and ends");
            told.obey(Message::Stop);
        }
    });
    on_start(driver);
    worker.ended.wait().await;
    worker.causes.flush();
    Ok(())
}

/// Walks the deadlines and the pool again and again.
async fn sweep(worker: Rc<Worker>) {
    let tick = tick_of(&worker.config);
    let mut tidied = Instant::now();
    loop {
        worker.deadlines.filled().await;
        monoio::time::sleep(tick).await;
        let now = Instant::now();
        worker.deadlines.sweep(now, worker.config.client.abort_on_half_close);
        worker.lane().add(Counter::Sweeps);
        if now.duration_since(tidied) >= TIDY_INTERVAL {
            tidied = now;
            let is_alive = |stream: &Stream| stream.pending() == Pending::Nothing;
            worker.idle.borrow_mut().sweep(now, is_alive);
            worker.causes.flush();
        }
    }
}

/// A quarter of the shortest timeout, so that none is late by more than that.
fn tick_of(config: &Config) -> Duration {
    let (client, backend) = (&config.client, &config.backend);
    let shortest = [
        client.header_timeout,
        client.idle_timeout,
        client.body_timeout,
        backend.response_timeout,
        backend.body_timeout,
        backend.idle_timeout,
    ]
    .into_iter()
    .min();
    (shortest.unwrap_or(TICK_MAX) / 4).clamp(TICK_MIN, TICK_MAX)
}

impl Worker {
    fn new(
        id: usize,
        config: Arc<Config>,
        lanes: Lanes,
        published: Published,
        deadlines: Rc<Deadlines>,
        listening: usize,
    ) -> Worker {
        let mut view = View::new(published);
        let snapshot = Rc::new(view.load().clone());
        let backend = &config.backend;
        let idle = IdlePool::new(backend.idle_per_endpoint_max, backend.idle_timeout);
        Worker {
            idle: RefCell::new(idle),
            config,
            deadlines,
            buffers: Buffers::default(),
            id,
            lanes,
            view: RefCell::new(view),
            snapshot: RefCell::new(snapshot),
            cursors: RefCell::default(),
            causes: CauseLog::new(Instant::now()),
            accepted: Cell::new(0),
            clients: Cell::new(0),
            listeners: RefCell::default(),
            listening: Cell::new(listening),
            draining: Cell::new(false),
            ended: Event::default(),
        }
    }

    /// This worker's counters.
    #[must_use]
    pub fn lane(&self) -> &Lane {
        self.lanes.lane(self.id)
    }

    /// The snapshot in force; what is read from it holds for the whole request.
    #[must_use]
    pub fn snapshot(&self) -> Rc<Arc<Snapshot>> {
        let mut view = self.view.borrow_mut();
        let latest = view.load();
        let mut current = self.snapshot.borrow_mut();
        if !Arc::ptr_eq(latest, &current) {
            *current = Rc::new(latest.clone());
        }
        current.clone()
    }

    /// The endpoint for the next attempt of a request, and never one of `tried`.
    #[must_use]
    pub fn pick(
        &self,
        snapshot: &Snapshot,
        pool: PoolId,
        tried: &[Slot],
    ) -> Option<(Slot, Address)> {
        let mut cursors = self.cursors.borrow_mut();
        while cursors.len() <= pool.0 {
            cursors.push(Cursor::new(self.id));
        }
        let endpoint = balance::pick(snapshot.pool(pool)?, cursors.get_mut(pool.0)?, tried)?;
        Some((endpoint.slot, endpoint.address?))
    }

    /// Counts and logs what ended a request or a connection.
    pub fn note(&self, cause: Cause, peer: &impl std::fmt::Display) {
        self.lane().add_cause(cause);
        self.causes.note(cause, peer);
    }

    /// Whether this worker completes what is under way and takes nothing new.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Does what a message says; whether more messages are read.
    fn obey(self: &Rc<Worker>, message: Message) -> bool {
        match message {
            Message::Drain => {
                if !self.draining.replace(true) {
                    for socket in self.listeners.take() {
                        monoio::spawn(listener::close(socket));
                    }
                    self.deadlines.close_idle();
                    self.end_if_drained();
                }
                true
            }
            Message::Stop => {
                self.deadlines.abort_all();
                self.ended.notify();
                false
            }
        }
    }

    /// Counts a connection in, until the guard is dropped.
    fn admit(self: &Rc<Worker>) -> Admission {
        self.clients.set(self.clients.get() + 1);
        self.accepted.set(self.accepted.get() + 1);
        self.lane().add(Counter::Accepted);
        self.lane().add(Counter::ClientsOpen);
        Admission { worker: self.clone(), number: self.accepted.get() }
    }

    fn listener_ended(&self) {
        self.listening.set(self.listening.get() - 1);
        self.end_if_drained();
    }

    fn end_if_drained(&self) {
        if self.draining.get() && self.listening.get() == 0 && self.clients.get() == 0 {
            self.ended.notify();
        }
    }
}

/// An open client connection, counted until this is dropped.
#[derive(Debug)]
pub struct Admission {
    worker: Rc<Worker>,
    /// Counts the connections of this worker from one.
    pub number: usize,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.worker.clients.set(self.worker.clients.get() - 1);
        self.worker.lane().subtract(Counter::ClientsOpen);
        self.worker.end_if_drained();
    }
}

/// A request in flight on an endpoint, counted until this is dropped.
#[derive(Debug)]
pub struct InFlight<'w> {
    worker: &'w Worker,
    slot: Slot,
}

impl<'w> InFlight<'w> {
    /// Counts a request in.
    #[must_use]
    pub fn new(worker: &'w Worker, slot: Slot) -> InFlight<'w> {
        worker.lane().begin(slot.number);
        InFlight { worker, slot }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.worker.lane().end(self.slot.number);
    }
}

/// What a panic said.
#[must_use]
pub fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// How often dead pooled connections are closed and kept log lines written.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest and the longest time between two sweeps.
const TICK_MIN: Duration = Duration::from_millis(5);
const TICK_MAX: Duration = Duration::from_millis(100);
