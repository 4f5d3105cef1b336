//! The end-to-end tests: the real binary between raw clients and real or scripted backends.
//! Raw bytes in, raw bytes out, port 0, and a deadline on everything. This list is the table of contents.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
#![allow(unreachable_pub, reason = "nothing is outside of a test binary")]

/// The support code against itself, without a proxy.
mod selftest;
/// The proxy process, scripted upstreams, raw clients, real servers, load.
mod support;

/// What once broke the proxy: refusals in the middle, clients that leave or wait.
mod abuse;
/// A line for each request however it ends; drops, renamed files, full disks.
mod access_log;
/// The admin API: what it answers and refuses, its events, and that it delays nothing.
mod admin;
/// The admin API's OpenAPI document: answers, changes and refusals are what it says.
mod admin_document;
/// Clients of the admin API that hardly read: others are answered, and they are cut.
mod admin_flood;
/// What the admin API changes: backends under load, two writers at once, a drain.
mod admin_writes;
/// Every row of the error table: status, fate of the connection, Proxy-Status.
mod answers;
/// The backends file: edits that are right, wrong, half done and many.
mod backends_file;
/// Round robin and weights.
mod balance;
/// Bodies from nothing to 200 MB through nginx, Python and Node.
mod bodies;
/// Long bodies whose senders pause, both ways.
mod bursts;
/// Requests at once and connections in the making: over their limits 503 at once.
mod busy;
/// What a probe asks and what passes, its intervals, load, agents, and a late control thread.
mod checks;
/// Sessions and retries that wait for places on some backends only.
mod choosy;
/// The configuration file and `corelane check`: what is refused, and which source wins.
mod config_file;
/// The requests of tests/data through the proxy, judged by a reader of the tests' own.
mod corpus;
/// The answers of tests/data through the proxy, judged by the same reader.
mod corpus_answers;
/// The dashboard in headless Chromium.
mod dashboard;
/// `corelane demo` and `corelane backend`.
mod demo;
/// Random requests through the proxy to hyper: it sees what is answered, and nothing else.
mod differential;
/// Backends by DNS: answers that change, are empty, fail and lie about their TTL.
mod dns;
/// `corelane doctor` on this machine and on made-up ones.
mod doctor;
/// The completions and the manual page, read by the programs that they are for.
mod documents;
/// SIGTERM and SIGINT under load and at rest.
mod drain;
/// The main scenarios again on each driver, and the well-known load generators.
mod drivers;
/// The access log's line of requests that end in ways which need a setting of their own.
mod endings;
/// Backends by etcd: changes, leases, its death and return, compaction, passwords and TLS.
mod etcd;
/// Changes of the admin API in etcd, by two processes at once, and what of etcd outlives a restart.
mod etcd_writes;
/// What happens to a request when its backend fails: retries, 502, 504, cut bodies; clients that leave.
mod failures;
/// Requests that wait for one pool, and the others.
mod fairness;
/// The metrics of a running proxy: each figure is the truth.
mod figures;
/// Flags, environment, help, exit code 64; two processes on one address.
mod flags;
/// Keep-alive, pipelining, framing both ways, HTTP/1.0, early and interim answers.
mod forward;
/// What is removed, added and passed on in heads.
mod headers;
/// Probes, rise and fall, and a backend killed under load.
mod health;
/// One client's trouble stays its own: stalls, floods, log pipes, panics.
mod isolation;
/// Requests that meet the end of the connection they are sent on.
mod keepalive;
/// Targets and bodies over their limits, and tunnels: CONNECT and upgrades.
mod limits;
/// Metrics: their text, and that each figure is the truth.
mod metrics;
/// Random exchanges, many at a time: sizes, framings and cuts of both sides mixed.
mod mixture;
/// Silent clients: nothing is lost with them, and they cost little memory.
mod parked;
/// Ejection, panic, breakers and slow start: what requests' outcomes do to a backend.
mod passive;
/// The policies' shares, maglev's keys, backups, drain and maintenance.
mod policies;
/// Kept connections to backends: how many, how long, and whether they are alive.
mod pool;
/// Random messages through the pure parts, against the strict reader.
mod properties;
/// max-conns, the queue before it, and how places pass between workers.
mod queue;
/// Backends that come, change and go under load, and the state file.
mod registry;
/// SIGHUP: other pools, backends and routes under load, and files that are refused.
mod reload;
/// What is tried again, what never, and the budget for it.
mod retries;
/// Routes by host, path and method: whom they take, rewritten paths, redirects.
mod routes;
/// Long bodies and busy tunnels, which pass through pipes.
mod splice;
/// The same bytes cut at every place, from either side.
mod splits;
/// How connections are spread over the workers, and what becomes of those on their way.
mod steer;
/// Sessions on their backends: the cookie, who moves when a backend is lost, and what else passes.
mod sticky;
/// The house rules, checked by reading the source.
mod tidy;
/// `corelane top`: one frame, and the live screen under a pty.
mod top;
/// Changes, reloads and the dashboard while oha sends requests.
mod under_oha;
/// WebSocket peers, and the ends of a tunnel.
mod websocket;
