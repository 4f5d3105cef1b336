//! The data plane: one worker per core, each with its own runtime, listeners, connections, pool
//! and buffers.
//!
//! Nothing here waits for another thread. What a worker shares it reads with one atomic load (the
//! snapshot) or writes alone (its lane of counters); what reaches it comes through its mailbox.

pub mod answer;
pub mod attempt;
pub mod budget;
pub mod buffer;
pub mod causes;
pub mod connection;
pub mod deadline;
pub mod download;
pub mod driver;
pub mod event;
pub mod exchange;
pub mod handover;
pub mod join;
pub mod listener;
pub mod mailbox;
pub mod parked;
pub mod peer;
pub mod pipes;
pub mod placement;
pub mod places;
pub mod progress;
pub mod queue;
pub mod rate;
pub mod record;
pub mod relay;
pub mod request;
pub mod retry;
pub mod silence;
pub mod splice;
pub mod state;
pub mod steer;
pub mod stream;
pub mod tried;
pub mod tunnel;
pub mod upload;
pub mod waitlist;

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::{Config, Faults, PoolConfig};
use crate::error::StartError;
use crate::metrics::Counter;
use crate::panic::message_of;
use crate::sys::{self, Pending};
use crate::upstream::snapshot::{Pool, Snapshot};
use budget::MARK_INTERVAL;
use deadline::Deadlines;
use driver::Runtime;
use mailbox::{Inbox, Message};
use state::{Kept, Shared, Worker};

/// What a worker's thread is started with.
#[derive(Debug)]
pub struct Seat {
    /// What it has in common with the others.
    pub shared: Shared,
    /// The core it is pinned to.
    pub core: usize,
    /// This worker's own socket for each of `Config::listeners`.
    pub listeners: Vec<TcpListener>,
    /// What other threads tell it.
    pub inbox: Inbox,
    /// Whether it takes over from a worker that died.
    pub is_successor: bool,
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

/// Runs a worker on this thread until it is told to end; `on_start` gets the driver's name once
/// it accepts connections.
///
/// # Errors
/// When the thread cannot be pinned or no driver works.
pub fn run(seat: Seat, on_start: impl FnOnce(&'static str)) -> Result<Ended, StartError> {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: seat.core }) {
        return Err(StartError::Pin(seat.core));
    }
    let workers = &seat.shared.config.workers;
    let (mut runtime, driver) = Runtime::build(workers.driver, workers.ring_entries)?;
    let deadlines = Deadlines::new();
    let Shared { id, lanes, places, .. } = seat.shared.clone();
    lanes.lane(id).take_up(thread_id());
    let ran = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(serve(seat, deadlines.clone(), driver, on_start))
    }));
    lanes.lane(id).put_down(clock::thread_time());
    match ran {
        Ok(served) => served.map(|death| death.map_or(Ended::Regularly, Ended::Panicked)),
        Err(panic) => {
            // Operations under way keep their sockets open: shut down, they complete.
            deadlines.abort_all();
            drop(runtime);
            deadlines.close_leaked();
            let conns = lanes.lane(id).get(Counter::ClientsOpen);
            places.reclaim(id, usize::try_from(conns).unwrap_or_default());
            lanes.lane(id).reset_gauges();
            Ok(Ended::Panicked(message_of(panic.as_ref())))
        }
    }
}

/// The kernel's number of this thread.
fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
}

/// Starts the worker's tasks and waits for its end; returns what it died of, if it did.
async fn serve(
    seat: Seat,
    deadlines: Rc<Deadlines>,
    driver: &'static str,
    on_start: impl FnOnce(&'static str),
) -> Result<Option<String>, StartError> {
    let Seat { shared, core: _, listeners, inbox, is_successor } = seat;
    let faults = if is_successor { Faults::default() } else { shared.config.faults };
    let worker = Rc::new(Worker::new(shared, deadlines, faults));
    for (index, socket) in listeners.into_iter().enumerate() {
        let socket = listener::adopt(socket)
            .map_err(|error| StartError::Resource("a listening socket for a worker", error))?;
        let socket = Rc::new(socket);
        worker.add_listener(socket.clone());
        worker.spawn(listener::accept(worker.clone(), socket, index));
    }
    worker.spawn(sweep(worker.clone()));
    let told = worker.clone();
    worker.spawn(async move {
        let cancel = told.cancel_handle();
        if let Err(error) = inbox.receive(cancel, |message| obey(&told, message)).await {
            tracing::error!(%error, "a worker lost its mailbox and ends");
            obey(&told, Message::Stop);
        }
    });
    worker.steering.inlet().open();
    on_start(driver);
    worker.ended().await;
    if worker.death().is_some() {
        wind_up(&worker, WIND_UP_TIME).await;
    } else if worker.is_stopping() {
        // What was cut is counted and logged.
        wind_up(&worker, CUT_TIME).await;
    }
    worker.finish_access_log();
    worker.flush_log();
    driver::count_operations(worker.lane());
    let (accepted, handed_over) =
        [Counter::Accepted, Counter::HandedOver].map(|counter| worker.lane().get(counter)).into();
    tracing::debug!(worker = worker.id(), accepted, handed_over, "a worker has ended");
    Ok(worker.death())
}

/// Ends what a dying worker has open, so that its ring holds no accept, which would take a
/// connection from its successor, and its sockets are closed.
async fn wind_up(worker: &Rc<Worker>, time: Duration) {
    worker.stop();
    let deadline = Instant::now() + time;
    while worker.is_busy() && Instant::now() < deadline {
        monoio::time::sleep(WIND_UP_POLL).await;
    }
}

/// Does what a message says; whether more messages are read.
fn obey(worker: &Rc<Worker>, message: Message) -> bool {
    match message {
        Message::Drain => {
            for socket in worker.begin_drain() {
                monoio::spawn(listener::close(socket));
            }
            true
        }
        Message::Stop => {
            worker.stop();
            false
        }
        Message::Heed => {
            worker.heed_snapshot();
            true
        }
        Message::PlacesFreed => {
            worker.call_waiting();
            true
        }
        Message::CloseIdle(slot) => {
            worker.give_up_idle_to(slot);
            true
        }
        Message::CloseIdleOf(pool) => {
            worker.give_up_idle_of(pool);
            true
        }
        // A worker that dies leaves it to its successor.
        Message::TakeOver if worker.is_stopping() => false,
        Message::TakeOver => {
            listener::take_over(worker);
            true
        }
    }
}

/// Walks the deadlines and the pool again and again.
async fn sweep(worker: Rc<Worker>) {
    let mut tidied = Instant::now();
    let mut freed = 0;
    loop {
        if !worker.has_unlogged() && !worker.has_lines() && worker.buffers.is_small() {
            worker.deadlines.filled().await;
        }
        let tick = tick_of(&worker.config, &worker.snapshot());
        pass(&worker, tick).await;
        let now = Instant::now();
        let half_close_counts = worker.config.client.abort_on_half_close;
        worker.deadlines.sweep(clock::coarse_millis(), half_close_counts);
        worker.heed_snapshot();
        worker.queue.sweep(now, |client| worker.deadlines.is_gone(client));
        worker.call_waiting();
        worker.ask_again();
        worker.flush_access_log();
        worker.lane().add(Counter::Sweeps);
        driver::count_operations(worker.lane());
        let passed = now.duration_since(tidied);
        if passed >= TIDY_INTERVAL {
            tidied = now;
            // The oldest ones of each endpoint, since each look costs a system call.
            let is_alive = |kept: &Kept| kept.stream.pending() == Pending::Nothing;
            worker.idle.borrow_mut().sweep(now, POOL_LOOKS_MAX, is_alive);
            worker.mark_budgets(passed);
            worker.facts.trim();
            freed += worker.silence.turn() + worker.buffers.trim();
            if freed >= FREED_MIN || (freed > 0 && worker.deadlines.is_empty()) {
                freed = 0;
                sys::release_freed_memory();
            }
            worker.flush_log();
        }
    }
}

/// Waits for a tick, and while many requests are in flight has the ring complete all that is due.
///
/// In a turn of the loop the kernel completes 40 of the operations that had to wait (twice the
/// `IO_LOCAL_TW_DEFAULT_MAX` of Linux 6.13 and later), and all those that need not. The longer a
/// turn, the more of the next one's need not, so turns grow, and the others starve: with 2,000
/// clients p99 was 200 ms without this, where it is 70.
async fn pass(worker: &Worker, tick: Duration) {
    let until = Instant::now() + tick;
    loop {
        let is_crowded = worker.lane().in_flight_total() >= CROWD;
        if is_crowded {
            driver::complete_due();
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        monoio::time::sleep(if is_crowded { left.min(COMPLETE_INTERVAL) } else { left }).await;
    }
}

/// A quarter of the shortest timeout, so that none is late by more than that and two of the kernel's
/// ticks.
fn tick_of(config: &Config, snapshot: &Snapshot) -> Duration {
    let client = &config.client;
    let clients = [client.header_timeout, client.idle_timeout, client.body_timeout];
    let of_pool = |pool: &Arc<Pool>| {
        let PoolConfig { limits, queue_timeout, .. } = &*pool.config;
        [limits.response_timeout, limits.body_timeout, limits.idle.timeout, *queue_timeout]
    };
    let shortest = snapshot.pools.iter().flat_map(of_pool).chain(clients).min();
    (shortest.unwrap_or(TICK_MAX) / 4).clamp(TICK_MIN, TICK_MAX)
}

/// From how many requests in flight on more operations may wait than a turn completes.
const CROWD: u32 = 32;
/// How long one of them may wait.
const COMPLETE_INTERVAL: Duration = Duration::from_millis(5);
/// The most pooled connections of an endpoint that are looked at in one sweep.
const POOL_LOOKS_MAX: usize = 32;
/// How long a dying worker may take to end its connections, and how often it looks.
const WIND_UP_TIME: Duration = Duration::from_secs(1);
/// How long connections that a stopping worker has cut may take to end.
const CUT_TIME: Duration = Duration::from_millis(100);
const WIND_UP_POLL: Duration = Duration::from_millis(5);
/// How often dead pooled connections are closed, silent clients parked, kept log lines written, and
/// the windows of the retry budgets moved on.
const TIDY_INTERVAL: Duration = MARK_INTERVAL;
/// How many buffers and parked clients make it worth while to give their memory back: about 1 MiB.
const FREED_MIN: usize = 64;
/// The shortest and the longest time between two sweeps.
const TICK_MIN: Duration = Duration::from_millis(5);
const TICK_MAX: Duration = Duration::from_millis(100);
