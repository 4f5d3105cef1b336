//! One process: binds the listeners, starts the workers and the control thread, waits for
//! signals, drains and ends.
//!
//! Runs on the thread that calls it, which does nothing else. A worker that died is started again
//! on a new thread.

mod event;
mod files;
mod listen;
mod ready_file;
mod signals;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use signal_hook::consts::SIGTERM;

use crate::access_log::AccessLog;
use crate::config::{Config, SLOTS_MAX};
use crate::control::admin::{self, Api};
use crate::control::{Bell, Control, Handle, StateLock};
use crate::error::{Cause, StartError};
use crate::metrics::{Counter, Lanes, Latency};
use crate::process::{Phase, Process};
use crate::upstream::outcome::{self, Outcome};
use crate::worker::mailbox::{Inbox, Mailbox, Message};
use crate::worker::places::Places;
use crate::worker::state::Shared;
use crate::worker::waitlist::Waitlist;
use crate::worker::{self, Ended, Seat};
use event::{Event, Next, Stop, drain_by, next_event, report};
pub use files::look_at_files;
use listen::{listen, local_addr};
pub use signals::{Signals, survive_usr1};

/// A process whose addresses are bound.
#[derive(Debug)]
pub struct Server {
    config: Arc<Config>,
    lanes: Lanes,
    outcomes: Sender<Outcome>,
    client_places: Arc<Places>,
    waitlist: Arc<Waitlist>,
    access_log: Option<AccessLog>,
    control: Control,
    process: Arc<Process>,
    addrs: Vec<SocketAddr>,
    posts: Vec<Post>,
    is_draining: bool,
    /// The ready file that this process wrote, by its inode.
    announced: Option<u64>,
    events: Receiver<Event>,
    event_sender: Sender<Event>,
}

/// What a worker needs to be started, and to be started again.
#[derive(Debug)]
struct Post {
    core: usize,
    listeners: Vec<TcpListener>,
    mailbox: Arc<Mailbox>,
    inbox: Inbox,
    restarts: u32,
}

/// Asks a running server to drain, as a signal would.
#[derive(Clone, Debug)]
pub struct Stopper {
    events: Sender<Event>,
}

impl Stopper {
    /// Begins to drain; the second call ends at once.
    pub fn stop(&self) {
        if self.events.send(Event::Signal(SIGTERM)).is_err() {
            tracing::debug!("the server has ended before it was stopped");
        }
    }
}

impl Server {
    /// Binds every listening address and starts the control thread.
    ///
    /// # Errors
    /// When an address cannot be had, or a resource of the process.
    pub fn bind(config: Config) -> Result<Server, StartError> {
        let config = Arc::new(config);
        if let Some(path) = &config.ready_file {
            ready_file::prepare(path)?;
        }
        let workers = config.workers.cores.len();
        let mut posts = Vec::with_capacity(workers);
        for core in &config.workers.cores {
            let (mailbox, inbox) =
                Mailbox::new().map_err(|error| StartError::Resource("a mailbox", error))?;
            posts.push(Post { core: *core, listeners: Vec::new(), mailbox, inbox, restarts: 0 });
        }
        // Before anything listens: whoever is refused must not have taken a client.
        let state = config.registry.state_file.as_deref().map(StateLock::of).transpose()?;
        let mut addrs = Vec::new();
        for listener in &config.listeners {
            let sockets = listen(listener, workers)?;
            addrs.push(local_addr(&sockets[0], listener.addr)?);
            for (post, socket) in posts.iter_mut().zip(sockets) {
                post.listeners.push(socket);
            }
        }
        let lanes = Lanes::new(workers, SLOTS_MAX);
        let admin = config.admin.as_ref().map(admin::Listener::bind).transpose()?;
        let client = &config.client;
        let client_places =
            Arc::new(Places::new(workers, client.conns_max, client.conns_per_address_max));
        let access_log = config.access_log.clone();
        let access_log = access_log.map(|it| AccessLog::start(it, lanes.clone())).transpose()?;
        let waitlist = Waitlist::new(mailboxes_of(&posts), config.queue_max);
        let (outcomes, received) = outcome::channel();
        let control = Control::start(&config, lanes.clone(), received, bell_of(&posts), state)?;
        let (event_sender, events) = crossbeam::channel::bounded(EVENTS_MAX);
        let process = Arc::new(Process::new(&config.workers.cores, drain_by(&event_sender)));
        if let (Some(listener), Some(admin)) = (admin, &config.admin) {
            let api = Api::new(admin, &config, &process, &lanes, &control);
            control.spawn(admin::serve(listener, api));
        }
        Ok(Server {
            config,
            lanes,
            outcomes,
            client_places,
            waitlist,
            access_log,
            control,
            process,
            addrs,
            posts,
            is_draining: false,
            announced: None,
            events,
            event_sender,
        })
    }

    /// The addresses that clients can connect to, one for each listener.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// How to ask the control thread and what to tell it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.control.handle()
    }

    /// The counters of all workers.
    #[must_use]
    pub fn lanes(&self) -> Lanes {
        self.lanes.clone()
    }

    /// What stops this server from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper { events: self.event_sender.clone() }
    }

    /// Serves until it is stopped; the process may exit with this code then.
    ///
    /// # Errors
    /// When a worker cannot start, or the ready file cannot be written.
    pub fn run(mut self) -> Result<u8, StartError> {
        for id in 0..self.posts.len() {
            self.start(id)?;
        }
        let mut signal = self.wait_until_started()?;
        if signal.is_none() {
            signal = self.wait_until_probed()?;
        }
        if signal.is_none() {
            self.process.enter(Phase::Serving);
            self.announce()?;
            signal = self.supervise(None)?;
        }
        self.process.enter(Phase::Draining);
        let signal = signal.map_or("none", Stop::name);
        tracing::info!(signal, timeout = ?self.config.drain_timeout, "draining");
        if let Some(path) = &self.config.ready_file {
            self.withdraw(path);
        }
        self.is_draining = true;
        self.tell(Message::Drain);
        let deadline = Instant::now() + self.config.drain_timeout;
        self.control.handle().leave_state();
        let second = self.supervise(Some(deadline))?;
        let left = self.lanes.sum(Counter::ClientsOpen);
        match second {
            Some(_) => tracing::warn!(connections = left, "a second signal: ending at once"),
            None if left > 0 => tracing::warn!(connections = left, "the time to drain is over"),
            None => {}
        }
        // What is left is reset, so that nobody takes half an answer for a whole one.
        self.tell(Message::Stop);
        if second.is_some() || left > 0 {
            self.supervise(Some(Instant::now() + ABORT_TIME))?;
        }
        if let Some(access_log) = self.access_log.take() {
            access_log.end();
        }
        self.tell_end();
        self.control.stop();
        Ok(second.map_or(0, Stop::code))
    }

    /// Starts a worker's thread.
    fn start(&self, id: usize) -> Result<(), StartError> {
        let resource = |error| StartError::Resource("a worker's thread and sockets", error);
        let post = &self.posts[id];
        let listeners: Result<Vec<_>, _> =
            post.listeners.iter().map(TcpListener::try_clone).collect();
        let seat = Seat {
            shared: Shared {
                id,
                config: self.config.clone(),
                lanes: self.lanes.clone(),
                places: self.client_places.clone(),
                mailboxes: mailboxes_of(&self.posts),
                waitlist: self.waitlist.clone(),
                access_log: self.access_log.as_ref().map(AccessLog::inlet),
                published: self.control.published(),
                outcomes: self.outcomes.clone(),
            },
            core: post.core,
            listeners: listeners.map_err(resource)?,
            inbox: post.inbox.try_clone().map_err(resource)?,
            is_successor: post.restarts > 0,
        };
        let events = self.event_sender.clone();
        let started = events.clone();
        let work = move || {
            let on_start = |driver| report(&started, Event::Started { id, driver });
            let how = worker::run(seat, on_start);
            report(&events, Event::Ended { id, how });
        };
        let builder = std::thread::Builder::new().name(format!("corelane-{id}"));
        builder.spawn(work).map_err(resource)?;
        Ok(())
    }

    /// Waits until every worker accepts connections; a signal may come first.
    fn wait_until_started(&mut self) -> Result<Option<Stop>, StartError> {
        let mut started = 0;
        while started < self.posts.len() {
            match self.events.recv() {
                Ok(Event::Started { id, driver }) => {
                    started += 1;
                    self.process.worker_started(id, driver);
                    tracing::info!(driver, started, of = self.posts.len(), "a worker is up");
                }
                Ok(Event::Signal(signal)) => return Ok(Some(Stop::Signal(signal))),
                Ok(Event::Drain) => return Ok(Some(Stop::Admin)),
                Ok(Event::Reload) => self.reload(),
                Ok(Event::Ended { id, how }) => self.replace(id, &how?)?,
                Err(_closed) => break,
            }
        }
        Ok(None)
    }

    /// Waits until every backend was probed once, one probe's time at most; a signal may come
    /// first.
    fn wait_until_probed(&mut self) -> Result<Option<Stop>, StartError> {
        let timeout = crossbeam::channel::after(self.config.probe_timeout_max() + PROBE_GRACE);
        let (first_round, events) = (self.control.first_round().clone(), self.events.clone());
        loop {
            crossbeam::select! {
                recv(first_round) -> _round => return Ok(None),
                recv(timeout) -> _now => return Ok(None),
                recv(events) -> event => match event {
                    Ok(Event::Signal(signal)) => return Ok(Some(Stop::Signal(signal))),
                    Ok(Event::Drain) => return Ok(Some(Stop::Admin)),
                    Ok(Event::Reload) => self.reload(),
                    Ok(Event::Ended { id, how }) => self.replace(id, &how?)?,
                    Ok(Event::Started { id, driver }) => self.process.worker_started(id, driver),
                    Err(_closed) => return Ok(None),
                },
            }
        }
    }

    /// Says that all is ready, and where.
    fn announce(&mut self) -> Result<(), StartError> {
        let addrs: Vec<String> = self.addrs.iter().map(ToString::to_string).collect();
        if let Some(path) = &self.config.ready_file {
            ready_file::write_whole(path, &(addrs.join("\n") + "\n"))
                .map_err(ready_file::error_of(path))?;
            self.announced = std::fs::metadata(path).ok().map(|file| file.ino());
        }
        let snapshot = self.control.published().load_full();
        let endpoints = || snapshot.pools.iter().flat_map(|pool| &pool.endpoints);
        let healthy = endpoints().filter(|endpoint| endpoint.is_eligible()).count();
        let backends = endpoints().count();
        if healthy == 0 {
            tracing::warn!(
                "no backend is healthy: every request gets 503 until one passes its check"
            );
        }
        tracing::info!(healthy, backends, "ready on {}", addrs.join(" "));
        Ok(())
    }

    /// Removes the ready file, unless a successor has written its own by now.
    fn withdraw(&self, path: &Path) {
        let is_ours = self.announced == std::fs::metadata(path).ok().map(|file| file.ino());
        if is_ours
            && self.announced.is_some()
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(%error, file = %path.display(), "the ready file is left behind");
        }
    }

    /// Keeps the workers running until a signal comes; when draining, until all have ended or the
    /// deadline has passed.
    fn supervise(&mut self, deadline: Option<Instant>) -> Result<Option<Stop>, StartError> {
        let mut running = self.posts.len();
        let control_ended = self.control.ended().clone();
        let mut control = Some(&control_ended);
        while running > 0 {
            let event = next_event(&self.events, control, deadline);
            match event {
                Next::Event(Event::Signal(signal)) => return Ok(Some(Stop::Signal(signal))),
                Next::Event(Event::Reload) => self.reload(),
                Next::Event(Event::Drain) if self.is_draining => {}
                Next::Event(Event::Drain) => return Ok(Some(Stop::Admin)),
                Next::Event(Event::Started { id, driver }) => {
                    self.process.worker_started(id, driver);
                }
                Next::Event(Event::Ended { id, how }) => match how? {
                    Ended::Regularly => {
                        self.process.worker_ended(id, self.posts[id].restarts);
                        running -= 1;
                    }
                    how @ Ended::Panicked(_) => self.replace(id, &how)?,
                },
                Next::ControlEnded => {
                    control = None;
                    tracing::error!(
                        "the control thread has died: health checks have stopped and the last \
                         known backends stay in use; restart corelane"
                    );
                }
                Next::Deadline => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Reads the configuration again. The workers go on meanwhile; what is refused is logged.
    fn reload(&self) {
        if self.is_draining {
            tracing::info!("the configuration is not read again: corelane drains");
        } else if self.control.handle().reload_blocking().is_err() {
            tracing::debug!("the last configuration stays in force");
        }
    }

    /// Starts a worker that died again on a new thread.
    fn replace(&mut self, id: usize, how: &Ended) -> Result<(), StartError> {
        let Ended::Panicked(panic) = how else { return Ok(()) };
        let restarts = &mut self.posts[id].restarts;
        *restarts += 1;
        self.process.worker_ended(id, *restarts);
        tracing::error!(
            worker = id,
            restarts,
            panic,
            "a worker died with its connections and is started again"
        );
        self.start(id)?;
        if self.is_draining {
            // Its predecessor may have taken the message with it.
            self.tell_worker(id, Message::Drain);
        }
        Ok(())
    }

    fn tell(&self, message: Message) {
        for id in 0..self.posts.len() {
            self.tell_worker(id, message);
        }
    }

    fn tell_worker(&self, id: usize, message: Message) {
        if self.posts[id].mailbox.post(message).is_err() {
            tracing::error!(worker = id, ?message, "a worker was not told");
        }
    }

    /// The last lines: what this process did, and how long it took.
    fn tell_end(&self) {
        let requests = self.lanes.sum(Counter::Requests);
        let relayed = self.lanes.sum(Counter::Relayed);
        let (in_flight, cut) = (self.lanes.in_flight_total(), self.lanes.sum_cause(Cause::Stopped));
        for cause in Cause::ALL {
            let count = self.lanes.sum_cause(cause);
            if count > 0 {
                tracing::debug!(cause = cause.name(), count, "counted");
            }
        }
        for latency in Latency::ALL {
            let times = self.lanes.distribution(latency);
            let [p50, p99, p999] = [500, 990, 999].map(|per_mille| times.quantile(per_mille));
            if let (Some(p50), Some(p99), Some(p999)) = (p50, p99, p999) {
                let (of, count) = (latency.name(), times.count());
                tracing::info!(of, count, ?p50, ?p99, ?p999, "latency");
            }
        }
        let handed_over = self.lanes.sum(Counter::HandedOver);
        let imbalance = format_args!("{:.2}", self.lanes.imbalance(Counter::Accepted));
        tracing::info!(requests, relayed, in_flight, cut, handed_over, %imbalance, "ended");
    }
}

fn mailboxes_of(posts: &[Post]) -> Vec<Arc<Mailbox>> {
    posts.iter().map(|post| post.mailbox.clone()).collect()
}

/// Tells all workers of endpoints that are gone.
fn bell_of(posts: &[Post]) -> Bell {
    let mailboxes = mailboxes_of(posts);
    Bell(Box::new(move || {
        for mailbox in &mailboxes {
            if mailbox.post(Message::Heed).is_err() {
                tracing::error!("a worker was not told of endpoints that are gone");
            }
        }
    }))
}

/// How long workers may take to reset what a drain has left.
const ABORT_TIME: Duration = Duration::from_millis(200);
/// The most events that wait for the main thread.
const EVENTS_MAX: usize = 1024;
/// How much longer than one probe's time the first round of probes may take.
const PROBE_GRACE: Duration = Duration::from_millis(200);
