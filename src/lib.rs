//! corelane: a thread-per-core HTTP/1.1 load balancer for Linux.
//!
//! # The way of a request
//!
//! Follow it top to bottom, one file after the other:
//!
//! | step | file | does |
//! |---|---|---|
//! | 1 | `main` → [`cli`] → [`config`] | reads flags into a configuration that needs no second check |
//! | 2 | [`server`] | binds the listeners, starts the threads, waits for signals |
//! | 3 | [`worker`] | pins a thread, builds its runtime, starts its tasks |
//! | 4 | [`worker::listener`] | accepts a connection when there is a place ([`worker::places`]), leaves it to another worker where [`worker::steer`] says so ([`worker::handover`]), starts its task behind a panic boundary ([`panic`](mod@panic)) |
//! | 5 | [`worker::parked`] → [`worker::connection`] | receives a head, runs the exchange, again; closes; a silent client ([`worker::silence`]) is parked until it sends something |
//! | 6 | [`worker::request`] | [`http1::request`] reads the head, [`upstream::route`] finds its pool, [`upstream::hash`] and [`upstream::sticky`] what places it, [`http1::forward`] writes it for the backend |
//! | 7 | [`worker::exchange`] | attempts it on one endpoint after the other, as far as [`worker::retry`] and [`worker::budget`] allow |
//! | 8 | [`worker::placement`] | the session's endpoint, or the one that [`upstream::balance`] picks, within its limits ([`upstream::limit`]); a connection from [`upstream::pool`]; a wait in [`worker::queue`] where all places are taken |
//! | 9 | [`worker::attempt`] | [`upstream::connect`] where the pool had no connection, one send; keeps the connection; tells how the endpoint fared ([`upstream::outcome`]) |
//! | 10 | [`worker::relay`] → [`worker::upload`], [`worker::download`] | moves bodies, long ones by [`worker::splice`] through [`worker::pipes`]; [`http1::response`] reads the answer's head, [`http1::framing`] finds its end |
//! | 11 | [`worker::tunnel`] | after a 101, or a 2xx to CONNECT: bytes both ways, spliced once they are many |
//! | 12 | [`worker::answer`] | where no backend's answer can be had: the row of [`error::Cause`] as [`http1::reply`] writes it |
//!
//! After the answer, [`worker::attempt`] checks the connection in to [`upstream::pool`], and what was
//! counted lies in [`metrics`]. Each step adds what it learns to the request's [`worker::record`],
//! which is told once, when the answer has ended.
//!
//! Which backends there are is decided by `control::registry`, which merges what flags, files, other
//! sources ([`discovery`]) and changes through a [`control::Handle`] say (those that go to etcd are
//! made by `control::fleet`, and come back from there); `control::pools` brings endpoints in and out
//! as it says, with slots that are given again only when nothing is in flight on them
//! (`control::slots`). What a probe finds goes from [`health::Watch`] to a pool's roster of members
//! (`control::{roster,member}`), which puts together what probes, agents, requests' outcomes
//! (`control::passive` with [`health::outlier`] and [`health::breaker`]) and operators say, and
//! `control::publish` makes a snapshot of it.
//!
//! A configuration file ([`config::RouteConfig`], [`config::PoolConfig`]) is read by `cli::file`, as words of
//! the command line; on SIGHUP `control::reload` reads it again and makes one more snapshot of it.
//!
//! The head for the backend is written before an endpoint is picked: it does not depend on the
//! endpoint, so one synchronous pass goes from the client's bytes to the backend's bytes, nothing
//! borrowed lives across a wait, and a retry sends the same bytes again.
//!
//! # Threads
//!
//! - One **worker** per core, pinned, with its own io_uring (or epoll) runtime, its own
//!   `SO_REUSEPORT` socket for each listening address, its own connections, pool and buffers.
//! - One **control** thread, not pinned: health probes, name resolution and the admin API
//!   ([`control`], [`health`]). It alone publishes the [`upstream::snapshot::Snapshot`].
//! - The **main** thread ([`server`]): starts, supervises, drains. One thread receives signals and
//!   one writes the log, one the access log ([`access_log`]), if there is one.
//!
//! # Why no lock stands on the request path, and no thread but the worker touches a connection
//!
//! - A connection lives in a task of one runtime, for good: which one is decided when it is
//!   accepted ([`worker::steer`]), before its first byte is read. `monoio`'s tasks and sockets are
//!   not `Send`: the compiler refuses to hand them to another thread.
//! - What a worker reads of the others is the snapshot, by one atomic load of an `ArcSwap`; it
//!   wraps what it read once in an `Rc` ([`upstream::snapshot::Held`]), which requests clone.
//! - What a worker tells the others is its lane of counters ([`metrics`]): written by it alone
//!   with plain loads and stores, cache-padded, summed by the reader.
//! - Connections are counted for all workers in [`worker::places`], by one atomic when one comes and
//!   when one goes: never on a request's way.
//! - A limit of an endpoint is exact over all workers, so it is one atomic that they share
//!   ([`upstream::limit`]); endpoints without limits pay nothing. A worker whose requests wait for
//!   a place is told of a freed one by its mailbox ([`worker::waitlist`]).
//! - Failures of endpoints go to the control thread through a bounded channel, by `try_send`
//!   ([`upstream::outcome`]); successes are only counted.
//! - What reaches a worker comes through its [`worker::mailbox`]: a lock-free queue, and a socket
//!   pair that its loop reads like any connection.
//! - Its log lines go to a bounded queue that drops what one writer thread cannot keep up with,
//!   and what a client can provoke is logged once per cause and second ([`worker::causes`]).
//! - `tests/it/tidy.rs` keeps `Mutex` and `RwLock` out of `worker`, `upstream` and `http1`.
//!
//! # Time
//!
//! No operation has a timer of its own. A connection has a slot in its worker's table
//! ([`worker::deadline`]); arming stores a time there, and one sweep per worker shuts overdue
//! sockets down, which completes the operation that waits on them. An operation is never dropped
//! on a connection that lives on, so no byte is lost with it.
//!
//! A connection's task reads the clock once in each of its polls at most, but for those on epoll, and
//! deadlines are armed by the kernel's coarse clock ([`clock`]).
//!
//! # Fairness
//!
//! The loop takes completions in the order in which the kernel gives them, but of operations that
//! had to wait the kernel gives 40 a turn, and of those that found their bytes there all. A task of
//! the worker ([`worker`]) has it give all of both while many requests are in flight. Who connects
//! while many do is accepted in few turns ([`worker::listener`]).
//!
//! # Where the time goes
//!
//! With 64 kept connections and answers of 100 bytes a request takes some 10 µs, of which 87 % are
//! the kernel's TCP, twice in and twice out. corelane's own are 13,500 instructions: 5,100 carry a
//! request from step to step, 3,800 read both heads and write one, 3,000 are monoio's four operations
//! and its tasks, 700 find the endpoint and a connection, 400 tell the time and 400 copy. The peek at
//! each pooled connection that is taken (`worker::placement`) is 0.26 µs more.
//!
//! With 2,000 connections the same instructions took 3.5 µs instead of 1.4, since each poll begins with
//! memory that has left the cache; what is fetched ahead ([`sys::prefetch`]) spares 0.8 µs of it.
//!
//! # What was tried and is not here
//!
//! Figures are the processor time of a request against what is here.
//!
//! - Sending by a plain `send(2)` instead of the ring: 1.05 with 2 connections, 1.00 with 8, 1.02
//!   with 64, 1.00 with 2,000, since answers then leave in smaller batches.
//! - Buffers that begin on different lines of the processor's cache: 1.01 with 512, 1.03 with 2,000.
//! - `TCP_DEFER_ACCEPT`: see `server::listen`.
//! - `IORING_RECVSEND_POLL_FIRST`, which monoio 0.2.4 cannot set, written into the ring's memory behind
//!   its back: 0.98 with 8 and with 64 connections, 1.20 with 512, 1.06 with 2,000. The busier a worker
//!   is, the more receives find their bytes there, and need no poll.
//! - A smaller ring, which is submitted more often: with 256 entries 1.03 with 512 connections, 1.09
//!   with 2,000; with 1,024 1.01 and 0.99.
//! - Huge pages: 1.07 with 2,000.
//! - Wakers of our own that know the order of the tasks, so that each poll fetches the next task's
//!   future: 0.99, for unsafe code in each task.
//! - Parking silent clients without monoio's `Canceller`, which hashes each read twice (700
//!   instructions): a cancellation by descriptor walks all operations that wait, so that 4,000 clients
//!   who fall silent would take some 16 million steps.
//! - The counts of a worker's ring out of `/proc/PID/fdinfo`, which the kernel writes while it
//!   holds the ring: [`sys::ring`] reads them where the kernel keeps them.
//!
//! # Layers
//!
//! A file uses its own layer or lower ones, without cycles; `tests/it/tidy.rs` checks it:
//!
//! `sys error config metrics panic clock process` <
//! `access_log http1 upstream::{endpoint,limit,hash,balance,sticky,snapshot,route,outcome,patience,pool}` <
//! `worker::{driver,event,join,places,rate,handover,mailbox,waitlist,deadline,silence,stream,buffer,pipes,splice}`
//! `upstream::connect` < `health discovery worker` < `control demo doctor top` < `server` < `cli main`.
//!
//! Users know a backend, which has a name and is given by a flag; the code calls what a snapshot
//! makes of it an endpoint.
//!
//! # Invariants
//!
//! 1. One `ArcSwap`, one writer.
//! 2. No `RefCell` borrow lives across an `.await`.
//! 3. Every buffer, queue, count of headers, count of retries and pool has a limit.
//! 4. A connection on which an operation was dropped, or whose framing is in doubt, is closed.
//! 5. Bytes that could be read two ways are never forwarded: they are refused or normalised.
//! 6. Unsafe code stands in [`sys`] alone, each piece with its reason.
//! 7. Time and randomness are arguments of the pure parts (`health::{judge,outlier,breaker}`,
//!    `control::{member,registry,slots}`, `upstream::{balance,patience,pool}`, `worker::{retry,budget}`), so their tests need no clock.

pub mod access_log;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod discovery;
pub mod doctor;
pub mod error;
pub mod health;
pub mod http1;
pub mod metrics;
pub mod panic;
pub mod process;
pub mod server;
pub mod sys;
pub mod top;
pub mod upstream;
pub mod worker;
