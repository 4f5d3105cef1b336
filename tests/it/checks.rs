//! What a probe asks and what passes, when probes come, the load that backends and agents tell, and
//! what a late control thread does not do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Health, Upstream, ok};
use crate::support::wire::{End, Head};
use crate::support::{SOON, wait_until};

const NOISE: Duration = Duration::from_secs(1);

fn named(name: &str) -> Upstream {
    Upstream::answering(ok(name, false))
}

/// A backend that answers `/check` with these pieces, each in a segment of its own, and anything else
/// with 200; the heads of its probes are kept.
struct Checked {
    upstream: Upstream,
    probes: Arc<Mutex<Vec<Head>>>,
}

impl Checked {
    fn answering(pieces: &'static [&'static str]) -> Checked {
        let probes = Arc::new(Mutex::new(Vec::new()));
        let upstream = Upstream::scripted({
            let probes = probes.clone();
            move |served| {
                while let Some(request) = served.request() {
                    if request.head.target() != "/check" {
                        served.write(&ok("well", false));
                        continue;
                    }
                    probes.lock().unwrap().push(request.head);
                    for piece in pieces {
                        served.write(piece.as_bytes());
                        let start = Instant::now();
                        let is_apart = || start.elapsed() > Duration::from_millis(15);
                        wait_until("the pieces are apart", SOON, is_apart);
                    }
                }
            }
        });
        Checked { upstream, probes }
    }

    fn flags(&self) -> Flags {
        Flags::to(&[&self.upstream])
            .with("--health-path", "/check")
            .with("--health-interval", "60s")
    }
}

/// Whether such an answer to the first probe passes, with these flags.
#[track_caller]
fn check_passes(flags: &[(&str, &str)], answer: &'static [&'static str], passes: bool) {
    let checked = Checked::answering(answer);
    let flags = flags.iter().fold(checked.flags(), |it, (name, value)| it.with(name, value));
    let proxy = flags.start();
    let status = proxy.client().get("/").status();
    assert_eq!(status == 200, passes, "{answer:?}: {}", proxy.log());
}

#[test]
fn the_statuses_that_pass_are_the_operators_choice() {
    const S204: &[&str] = &["HTTP/1.1 204 No Content\r\n\r\n"];
    const S302: &[&str] = &["HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"];
    const S404: &[&str] = &["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"];
    const S503: &[&str] = &["HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n"];
    for (answer, passes) in [(S204, true), (S302, true), (S404, false), (S503, false)] {
        check_passes(&[], answer, passes);
    }
    let chosen = [("--health-status", "204,404,500-503")];
    for (answer, passes) in [(S204, true), (S302, false), (S404, true), (S503, true)] {
        check_passes(&chosen, answer, passes);
    }
}

#[test]
fn a_probes_body_must_contain_the_text_however_it_comes() {
    let wanted = [("--health-body", "all is well")];
    for (answer, passes) in [
        (&["HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<all is well>"][..], true),
        (&["HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<all is", " well>"], true),
        (&["HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<all is Well>"], false),
        (&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], false),
        (&["HTTP/1.1 500 Oh\r\nContent-Length: 11\r\n\r\nall is well"], false),
        (
            &[
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nxall \r\n7\r",
                "\nis well\r\n0\r\n\r\n",
            ],
            true,
        ),
        (
            // In the text's middle the chunks' own bytes are not part of it.
            &[
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nall \r\n",
                "4\r\n1s w\r\n3\r\nell\r\n0\r\n\r\n",
            ],
            false,
        ),
    ] {
        check_passes(&wanted, answer, passes);
    }
}

#[test]
fn a_probe_asks_with_the_operators_method_host_and_headers() {
    let checked = Checked::answering(&["HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"]);
    let proxy = checked
        .flags()
        .with("--health-method", "HEAD")
        .with("--health-host", "app.example:81")
        .and("--health-header", "X-Probe: one two")
        .and("--health-header", "User-Agent: prober")
        .start();
    let probe = checked.probes.lock().unwrap()[0].clone();
    assert_eq!((probe.method(), probe.target()), ("HEAD", "/check"));
    assert_eq!(probe.all("host"), ["app.example:81"]);
    assert_eq!(probe.all("x-probe"), ["one two"]);
    assert_eq!(probe.all("user-agent"), ["prober"]);
    proxy.client().get("/").expect(200);
}

/// Intervals up, while changing and down.
fn at_intervals(upstream: &Upstream, [up, changing, down]: [&str; 3]) -> Flags {
    Flags::to(&[upstream])
        .with("--health-interval", up)
        .with("--health-interval-changing", changing)
        .with("--health-interval-down", down)
        .with("--health-timeout", "400ms")
}

/// No probe comes for a time in which three short intervals end, after this many came, or one more:
/// on a busy machine a failed one may not have counted.
#[track_caller]
fn check_rests(what: &str, count: impl Fn() -> usize, expected: usize) {
    let (mut last, mut since) = (count(), Instant::now());
    wait_until(what, SOON, || {
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(1500)
    });
    assert!((expected..expected + 3).contains(&last), "{what}: {last}, not {expected}");
}

#[test]
fn probes_come_seldom_to_what_is_down_where_that_is_asked_for() {
    let upstream = named("a");
    let proxy = at_intervals(&upstream, ["400ms", "400ms", "60s"]).start();
    wait_until("more than one has passed", SOON, || upstream.probes_passed() >= 2);
    upstream.set_health(Health::Down);
    wait_until("it is down", SOON, || proxy.client().get("/").status() == 503);
    check_rests("none comes while it is down", || upstream.probes_failed(), 3);
}

#[test]
fn probes_come_at_an_interval_of_their_own_while_a_state_changes() {
    let upstream = named("a");
    let proxy = at_intervals(&upstream, ["400ms", "60s", "400ms"]).start();
    wait_until("more than one has passed", SOON, || upstream.probes_passed() >= 2);
    upstream.set_health(Health::Down);
    wait_until("one has failed", SOON, || upstream.probes_failed() > 0);
    check_rests("none comes while it is in doubt", || upstream.probes_failed(), 1);
    proxy.client().get("/").expect(200);
}

#[test]
fn probes_come_often_to_what_is_down_where_that_is_asked_for() {
    let upstream = named("a");
    upstream.set_health(Health::Down);
    let proxy = at_intervals(&upstream, ["60s", "400ms", "400ms"]).start();
    wait_until("more than one has failed", SOON, || upstream.probes_failed() >= 2);
    upstream.set_health(Health::Up);
    wait_until("it is up", SOON, || proxy.client().get("/").status() == 200);
    check_rests("none comes while it is up", || upstream.probes_passed(), 2);
}

#[test]
fn a_backend_may_be_up_before_its_first_probe() {
    for (initial, status) in [("up", 200), ("probe", 503)] {
        let upstream = named("a");
        upstream.set_health(Health::Down);
        let proxy = Flags::to(&[&upstream])
            .with("--health-interval", "60s")
            .with("--health-initial", initial)
            .start();
        assert_eq!(proxy.client().get("/").status(), status, "{initial}");
        assert_eq!(upstream.probes_failed(), 1);
    }
}

/// The requests that each of two gets of so many.
fn shares(proxy: &Proxy, upstreams: [&Upstream; 2], total: usize) -> [usize; 2] {
    let before = upstreams.map(Upstream::request_count);
    let mut client = proxy.client();
    (0..total).for_each(|_| drop(client.get("/").expect(200)));
    [0, 1].map(|index| upstreams[index].request_count() - before[index])
}

#[test]
fn the_load_that_a_probe_tells_scales_a_backends_share() {
    for (load, expected) in [("0.75", [80, 20]), ("1", [95, 5]), ("0", [50, 50]), ("9", [50, 50])] {
        let answer = format!("HTTP/1.1 200 OK\r\nX-Load: {load}\r\nContent-Length: 0\r\n\r\n");
        let loaded = Upstream::scripted(move |served| {
            while served.request().is_some() {
                served.write(answer.as_bytes());
            }
        });
        let idle = named("idle");
        let proxy = Flags::to(&[&idle, &loaded]).with("--health-path", "/check").start();
        // Probes are among what it counts here.
        let found = shares(&proxy, [&idle, &loaded], 100);
        let is_near = found.iter().zip(expected).all(|(found, wanted)| found.abs_diff(wanted) <= 2);
        assert!(is_near, "{load}: {found:?}");
    }
}

/// What an agent says to whoever connects.
#[derive(Clone, Copy, Debug)]
enum Says {
    Line(&'static str),
    Silence,
    Endless,
}

/// An agent on an address of its own.
struct Agent {
    addr: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl Agent {
    fn start(addr: SocketAddr) -> Agent {
        let listener = TcpListener::bind(addr).unwrap();
        let agent = Agent {
            addr: listener.local_addr().unwrap(),
            says: Arc::new(Mutex::new(Says::Line("100%\n"))),
            asked: Arc::default(),
            stopping: Arc::default(),
        };
        let (says, asked) = (agent.says.clone(), agent.asked.clone());
        let stopping = agent.stopping.clone();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stopping.load(SeqCst) {
                    return;
                }
                let now = *says.lock().unwrap();
                // Whoever asks may be gone before all is said.
                match now {
                    Says::Line(line) => drop(stream.write_all(line.as_bytes())),
                    Says::Silence => drop(stream.read(&mut [0])),
                    Says::Endless => while stream.write_all(&[b'x'; 64]).is_ok() {},
                }
                asked.fetch_add(1, SeqCst);
            }
        });
        agent
    }

    /// Says something else from now on, until it was heard.
    fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
        let asked = self.asked.load(SeqCst);
        wait_until("it was asked", SOON, || self.asked.load(SeqCst) >= asked + 2);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stopping.store(true, SeqCst);
        drop(std::net::TcpStream::connect(self.addr));
    }
}

#[test]
fn an_agent_sets_the_share_and_the_state_of_its_backend() {
    let plain = named("plain");
    // An address of its own, so that the other backend has no agent on that port.
    let told = Upstream::scripted_at("127.0.0.3:0".parse().unwrap(), |served| {
        while served.request().is_some() {
            served.write(&ok("told", false));
        }
    });
    let agent = Agent::start("127.0.0.3:0".parse().unwrap());
    let proxy = Flags::to(&[&plain, &told])
        .with("--agent-port", &agent.addr.port().to_string())
        .with("--health-interval", "200ms")
        .with("--health-timeout", "200ms")
        .with("--sticky-cookie", "lane")
        .start();
    let session = session_on(&mut proxy.client(), "told");
    // The share by weights of 100 to it, of 70; and whether its session stays.
    for (says, expected, stays) in [
        (Says::Line("75%\n"), [40, 30], true),
        (Says::Line("gibberish without a line end"), [40, 30], true),
        (Says::Line(""), [40, 30], true),
        (Says::Silence, [40, 30], true),
        (Says::Endless, [40, 30], true),
        (Says::Line("drain\n"), [70, 0], true),
        (Says::Line("up 100%\n"), [70, 0], true),
        (Says::Line("ready\n"), [35, 35], true),
        (Says::Line("maint#for a while\n"), [70, 0], false),
        (Says::Line("what?\n"), [70, 0], false),
        (Says::Line("up\n"), [70, 0], false),
        (Says::Line("ready\n"), [35, 35], true),
        (Says::Line("failed\n"), [35, 35], true),
        (Says::Line("fail\n"), [70, 0], false),
        (Says::Line("ready\n"), [70, 0], false),
        (Says::Line("up\n"), [35, 35], true),
        (Says::Line("0%\n"), [70, 0], true),
        (Says::Line("up ready\n"), [70, 0], true),
        (Says::Line("250%\n"), [35, 35], true),
    ] {
        agent.say(says);
        let is_near = || {
            let found = shares(&proxy, [&plain, &told], 70);
            found[0].abs_diff(expected[0]) <= 2 && found[1].abs_diff(expected[1]) <= 2
        };
        wait_until(&format!("the share after {says:?}"), SOON, is_near);
        assert!(is_near(), "{says:?}");
        let answer = proxy.client().request(&session).expect(200);
        assert_eq!(answer.text() == "told", stays, "{says:?}");
    }
    wait_until("its weight is told", SOON, || {
        proxy.log().contains("backend has now 75 % of its weight")
    });
}

#[test]
fn the_log_says_that_a_backend_is_up_only_when_it_is() {
    let upstream = named("a");
    upstream.set_health(Health::Down);
    let proxy = Flags::to(&[&upstream])
        .with("--health-initial", "up")
        .with("--health-interval", "60s")
        .start();
    wait_until("its first check failed", SOON, || {
        proxy.log().contains("backend begins up, but its first check failed")
    });
    let log = proxy.log();
    assert!(!log.contains("backend is up") && !log.contains("backend is down"), "{log}");
}

/// A request of a session that is on this backend.
fn session_on(client: &mut Client, name: &str) -> String {
    let mut cookie = String::new();
    wait_until("a session is on it", SOON, || {
        let answer = client.get("/").expect(200);
        cookie = answer.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        answer.text() == name
    });
    format!("GET / HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n")
}

#[test]
fn a_probe_that_hangs_delays_no_others() {
    let (hanging, well) = (named("hanging"), named("well"));
    hanging.set_health(Health::Hang);
    let _proxy = Flags::to(&[&hanging, &well])
        .with("--health-interval", "3s")
        .with("--health-timeout", "3s")
        .with("--health-initial", "up")
        .spawn();
    wait_until("both are asked", SOON, || {
        hanging.probes_failed() == 1 && well.probes_passed() == 1
    });
    let fast = named("fast");
    let both = Flags::to(&[&fast, &hanging])
        .with("--health-interval", "200ms")
        .with("--health-timeout", "200ms")
        .start();
    let took = wait_until("many have passed", SOON, || fast.probes_passed() >= 8);
    assert!(took < 8 * Duration::from_millis(220) + NOISE, "{took:?}");
    drop(both);
}

#[test]
fn the_probes_of_fifty_backends_run_side_by_side() {
    let upstreams: Vec<_> = (0..50).map(|_| slow_to_probes(Duration::from_millis(300))).collect();
    let all: Vec<_> = upstreams.iter().collect();
    let start = Instant::now();
    let proxy = Flags::to(&all)
        .with("--health-path", "/check")
        .with("--health-interval", "5s")
        .with("--health-timeout", "5s")
        .start();
    let took = start.elapsed();
    assert!(took < Duration::from_millis(300) + 3 * NOISE, "{took:?}");
    wait_until("all passed", SOON, || proxy.log().contains("healthy=50 backends=50"));
}

/// Answers probes so late.
fn slow_to_probes(late: Duration) -> Upstream {
    Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            let start = Instant::now();
            let is_probe = request.head.target() == "/check";
            wait_until("it is late", SOON, || !is_probe || start.elapsed() > late);
            served.write(&ok("late", false));
        }
    })
}

/// Backends and load balancer stand still together, as on a machine that is paused: the probes under
/// way have no answer when their time is over.
#[test]
fn a_control_thread_that_was_late_takes_no_backend_out() {
    let is_paused = Arc::new(AtomicBool::new(false));
    let upstreams: Vec<_> = (0..8).map(|_| pausing(&is_paused)).collect();
    let proxy = Flags::to(&upstreams.iter().collect::<Vec<_>>())
        .with("--health-path", "/check")
        .with("--health-interval", "1s")
        .with("--health-timeout", "1s")
        .with("--health-fall", "1")
        .start();
    let probes = || upstreams.iter().map(Upstream::request_count).sum::<usize>();
    let alarm = "the control thread was late; probes that failed do not count";
    for alarms in [1, 2] {
        let before = probes();
        is_paused.store(true, SeqCst);
        wait_until("a probe is under way", SOON, || probes() > before);
        proxy.signal(Signal::STOP);
        let start = Instant::now();
        wait_until("the stop is over", SOON, || start.elapsed() > Duration::from_secs(2));
        proxy.signal(Signal::CONT);
        wait_until("the alarm", SOON, || proxy.log().matches(alarm).count() >= alarms);
        is_paused.store(false, SeqCst);
        let before = probes();
        wait_until("the next round", SOON, || probes() >= before + 8);
    }
    assert!(!proxy.log().contains("backend is down"), "{}", proxy.log());
    proxy.client().get("/").expect(200);
}

/// Answers nothing while that is set.
fn pausing(is_paused: &Arc<AtomicBool>) -> Upstream {
    let is_paused = is_paused.clone();
    Upstream::scripted(move |served| {
        while served.request().is_some() {
            wait_until("the pause is over", SOON, || !is_paused.load(SeqCst));
            served.write(&ok("well", false));
        }
    })
}

/// What ends a probe that must not be cut, as its backend sees it.
#[test]
fn a_probe_ends_without_a_reset() {
    let end = Arc::new(Mutex::new(None));
    let upstream = Upstream::scripted({
        let end = end.clone();
        move |served| {
            if served.request().is_some() {
                served.write(&ok(&"x".repeat(2000), false));
                *end.lock().unwrap() = Some(served.wait_for_end());
            }
        }
    });
    let _proxy = Flags::to(&[&upstream]).with("--health-path", "/check").start();
    wait_until("the probe ends", SOON, || end.lock().unwrap().is_some());
    assert_eq!(*end.lock().unwrap(), Some(Some(End::CleanClose)));
}
