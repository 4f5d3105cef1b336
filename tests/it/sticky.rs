//! Sessions that stay on their backends: who moves when one is lost, when the cookie is set, and that
//! an answer is otherwise what the backend sent.

use std::collections::BTreeSet;

use crate::support::client::{Client, Response};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Health, Upstream, ok};
use crate::support::{SOON, Scratch, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

fn named(name: &str) -> Upstream {
    Upstream::answering(ok(name, false))
}

fn with_cookie(cookie: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n")
}

/// `name=value` of the cookie that an answer sets.
fn cookie_of(answer: &Response) -> Option<String> {
    let set: Vec<_> = answer.head().all("set-cookie");
    assert!(set.len() <= 1, "{answer:?}");
    set.first().map(|line| line.split(';').next().unwrap_or_default().to_owned())
}

/// A file that keys the cookies of several processes.
fn secret(scratch: &Scratch) -> String {
    let path = scratch.join("secret");
    std::fs::write(&path, "a secret of sixteen bytes or more").unwrap();
    path.to_str().unwrap().to_owned()
}

/// One client: what it holds, and where it was last served.
#[derive(Clone, Debug, PartialEq)]
struct Session {
    cookie: String,
    backend: String,
}

impl Session {
    fn begin(client: &mut Client) -> Session {
        let answer = client.request(GET).expect(200);
        let cookie = cookie_of(&answer).expect("the first answer sets a cookie");
        Session { cookie, backend: answer.text() }
    }

    /// One more request; whether the session moved, which a new cookie must go with.
    #[track_caller]
    fn goes_on(&mut self, client: &mut Client) -> bool {
        let answer = client.request(with_cookie(&self.cookie)).expect(200);
        let moved = answer.text() != self.backend;
        let cookie = cookie_of(&answer);
        assert_eq!(cookie.is_some(), moved, "{self:?}: {answer:?}");
        if let Some(cookie) = cookie {
            *self = Session { cookie, backend: answer.text() };
        }
        moved
    }
}

/// Lets every session go on; those that moved, by the backend that they were on.
fn moved(sessions: &mut [Session], clients: &mut [Client]) -> Vec<String> {
    let count = clients.len();
    let mut moved = Vec::new();
    for (number, session) in sessions.iter_mut().enumerate() {
        let before = session.backend.clone();
        if session.goes_on(&mut clients[number % count]) {
            moved.push(before);
        }
    }
    moved
}

#[test]
fn of_a_thousand_sessions_over_two_processes_only_those_of_a_lost_backend_move_and_once() {
    let scratch = Scratch::new("sticky");
    let secret = secret(&scratch);
    let mut upstreams = ["a", "b", "c", "d"].map(named);
    let proxies = [(); 2].map(|()| {
        Flags::to(&upstreams.each_ref())
            .with("--workers", "2")
            .with("--health-interval", "200ms")
            .with("--health-timeout", "200ms")
            .with("--sticky-cookie", "lane")
            .with("--sticky-secret-file", &secret)
            .start()
    });
    // Seven clients: a session's requests come by either process.
    let mut clients: Vec<_> = (0..7).map(|number| proxies[number % 2].client()).collect();
    let mut sessions: Vec<_> =
        (0..1000).map(|number| Session::begin(&mut clients[number % 7])).collect();
    let on = |sessions: &[Session], name: &str| {
        sessions.iter().filter(|session| session.backend == name).count()
    };
    let lost = on(&sessions, "b");
    assert!(lost > 200, "{lost} of 1000 sessions on one of four backends");
    clients.rotate_left(1);
    assert!(moved(&mut sessions, &mut clients).is_empty());

    let addr = upstreams[1].addr;
    upstreams[1].stop();
    for proxy in &proxies {
        wait_until("it is down", SOON, || proxy.log().contains("backend is down"));
        let mut client = proxy.client();
        let on_lost = sessions.iter().find(|session| session.backend == "b").unwrap().clone();
        wait_until("the snapshot is in force", SOON, || on_lost.clone().goes_on(&mut client));
    }
    let went = moved(&mut sessions, &mut clients);
    assert_eq!((went.len(), on(&sessions, "b")), (lost, 0));
    assert!(went.iter().all(|from| from == "b"), "{went:?}");
    clients.rotate_left(1);
    assert!(moved(&mut sessions, &mut clients).is_empty(), "each moves once");

    upstreams[1] = Upstream::scripted_at(addr, |served| {
        while served.request().is_some() {
            served.write(&ok("b", false));
        }
    });
    for client in &mut clients {
        wait_until("it takes new sessions", SOON, || Session::begin(client).backend == "b");
    }
    assert!(moved(&mut sessions, &mut clients).is_empty(), "nobody moves back");
}

/// The `Set-Cookie` line that this flag makes, with VALUE for the value.
fn line_of(flag: &str) -> String {
    let upstream = named("a");
    let proxy = Flags::to(&[&upstream]).with("--sticky-cookie", flag).start();
    let answer = proxy.client().request(GET).expect(200);
    let line = answer.get("set-cookie").unwrap().to_owned();
    let value = line.split(['=', ';']).nth(1).unwrap();
    assert!(value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
    assert!(!line.contains("127.0.0.1") && !line.contains(&upstream.addr.port().to_string()));
    line.replace(value, "VALUE")
}

#[test]
fn the_cookie_has_the_attributes_of_the_flag() {
    assert_eq!(line_of("lane"), "lane=VALUE; Path=/");
    assert_eq!(
        line_of("s,path=/app,domain=example.org,max-age=3600,secure,httponly,samesite=lax"),
        "s=VALUE; Path=/app; Domain=example.org; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"
    );
    assert_eq!(line_of("s,samesite=strict"), "s=VALUE; Path=/; SameSite=Strict");
    assert_eq!(line_of("s,secure,samesite=none"), "s=VALUE; Path=/; Secure; SameSite=None");
}

#[test]
fn the_cookie_is_set_where_it_is_missing_or_names_nothing_usable() {
    let upstreams = ["a", "b"].map(named);
    let proxy = Flags::to(&upstreams.each_ref()).with("--sticky-cookie", "lane").start();
    let mut client = proxy.client();
    let Session { cookie, backend } = Session::begin(&mut client);
    let value = cookie.strip_prefix("lane=").unwrap().to_owned();
    let long = "x".repeat(16_000);
    let many = "a=b; ".repeat(2000);
    for good in [
        cookie.clone(),
        format!("a=b; {cookie}; c=d"),
        format!("a=b;{cookie}"),
        format!("lane=\"{value}\""),
        format!("{cookie}; lane=garbage"),
        format!("a=b\r\nCookie: {cookie}"),
        format!("{many}{cookie}"),
        format!("a={long}; {cookie}"),
        format!(";;; =; {cookie}"),
    ] {
        for _ in 0..2 {
            let answer = client.request(with_cookie(&good)).expect(200);
            let found = (answer.text(), cookie_of(&answer));
            assert_eq!(found, (backend.clone(), None), "{:.80}", good);
        }
    }
    for bad in [
        String::new(),
        "lane".to_owned(),
        "lane=".to_owned(),
        "lane=\"".to_owned(),
        "lane=garbage".to_owned(),
        format!("LANE={value}"),
        format!("lane={}", value.to_uppercase() + "G"),
        format!("lane={}", &value[1..]),
        format!("lane={}", &value[..31]),
        format!("lane={value}0"),
        format!("lane={long}"),
        format!("lane={}", "0".repeat(32)),
        format!("lane={}", upstreams[0].addr),
        format!("lane=garbage; {cookie}"),
        format!("lane=garbage\r\nCookie: {cookie}"),
        "lane=\u{e9}\u{ff}".to_owned(),
        format!("x{cookie}"),
    ] {
        let answer = client.request(with_cookie(&bad)).expect(200);
        let set = cookie_of(&answer).unwrap_or_else(|| panic!("none set for {bad:.80}"));
        assert_eq!(set == cookie, answer.text() == backend, "{bad:.80}");
    }
    let seen = upstreams.iter().flat_map(Upstream::requests);
    let seen: BTreeSet<_> = seen
        .flat_map(|it| it.head.all("cookie").iter().map(ToString::to_string).collect::<Vec<_>>())
        .collect();
    assert!(seen.contains(&cookie), "backends get the cookie as it was sent");
}

/// Answers each request with these bytes, and closes where that ends the answer.
fn raw(answer: &'static str) -> Upstream {
    Upstream::scripted(move |served| {
        while served.request().is_some() {
            served.write(answer.as_bytes());
            if !answer.contains("ength") && !answer.contains("chunked") && answer.contains(" 200 ")
            {
                return;
            }
        }
    })
}

/// The answer to this request with and without sessions: the line apart, they are the same.
#[track_caller]
fn check_passes(request: &str, answer: &'static str) {
    let upstream = raw(answer);
    let plain = Flags::to(&[&upstream]).start();
    let sticky = Flags::to(&[&upstream]).with("--sticky-cookie", "lane").start();
    let read = |proxy: &Proxy| proxy.client().request(request);
    let (plain, sticky) = (read(&plain), read(&sticky));
    let line = format!("Set-Cookie: {}\r\n", sticky.get("set-cookie").unwrap_or("nothing"));
    let head = String::from_utf8_lossy(&sticky.head().raw).into_owned();
    assert_eq!(head.matches(&line).count(), 1, "{head}");
    assert!(line.starts_with("Set-Cookie: lane="), "{line}");
    assert_eq!(head.replace(&line, ""), String::from_utf8_lossy(&plain.head().raw), "{request}");
    assert!(sticky.interim.iter().all(|head| head.get("set-cookie").is_none()), "{sticky:?}");
    assert_eq!(sticky.interim.len(), plain.interim.len());
    assert_eq!((&sticky.body, sticky.ended), (&plain.body, plain.ended), "{request}");
    assert_eq!(sticky.trailers.raw, plain.trailers.raw);
}

#[test]
fn answers_of_every_kind_pass_with_one_line_more() {
    check_passes(GET, "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\nx-c: d\r\n\r\nhi");
    check_passes(GET, "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n");
    check_passes(GET, "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n");
    check_passes(GET, "HTTP/1.1 500 Oh\r\nContent-Length: 1\r\n\r\n!");
    check_passes(
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nA: b\r\n\r\n",
    );
    check_passes(GET, "HTTP/1.1 200 OK\r\n\r\nto the end");
    check_passes(
        GET,
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    );
    check_passes(
        "HEAD / HTTP/1.1\r\nHost: t\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n",
    );
    let http10 = "GET / HTTP/1.0\r\nHost: t\r\n\r\n";
    check_passes(http10, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    check_passes(
        http10,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    );
    check_passes(
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    );
}

#[test]
fn a_backends_own_cookies_stay() {
    let upstream = raw(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nset-cookie: c=d; Path=/\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Flags::to(&[&upstream]).with("--sticky-cookie", "lane").start();
    let answer = proxy.client().request(GET).expect(200);
    let cookies = answer.head().all("set-cookie");
    assert_eq!((cookies.len(), &cookies[..2]), (3, &["a=b", "c=d; Path=/"][..]), "{cookies:?}");
}

#[test]
fn an_upgrade_begins_a_session() {
    let upstream = Upstream::scripted(|served| {
        while served.request().is_some() {
            served.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\ntunnelled");
            served.wait_for_end();
        }
    });
    let proxy = Flags::to(&[&upstream]).with("--sticky-cookie", "lane").start();
    let mut client = proxy.client();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let head = |cookie: &str| format!("GET / HTTP/1.1\r\nHost: t\r\n{upgrade}{cookie}\r\n");
    let answer = client.request(head(""));
    let cookie = cookie_of(&answer).expect("a 101 sets a cookie");
    assert_eq!(answer.status(), 101);
    wait_until("the tunnel stands", SOON, || {
        client.wire.ahead() == b"tunnelled" || client.wire.fill().is_err()
    });
    assert_eq!(client.wire.ahead(), b"tunnelled");
    let answer = proxy.client().request(head(&format!("Cookie: {cookie}\r\n")));
    assert_eq!((answer.status(), cookie_of(&answer)), (101, None));
}

#[test]
fn what_corelane_answers_itself_sets_no_cookie() {
    let upstream = named("a");
    upstream.set_health(Health::Down);
    let proxy = Flags::to(&[&upstream]).with("--sticky-cookie", "lane").start();
    assert_eq!(cookie_of(&proxy.client().request(GET).expect(503)), None);
    assert_eq!(cookie_of(&proxy.client().request("GET / HTTP/3\r\n\r\n")), None);
}

#[test]
fn a_connection_that_fails_moves_no_session_of_a_backend_that_is_taken_for_healthy() {
    let mut upstreams = ["a", "b"].map(named);
    let proxy = Flags::to(&upstreams.each_ref())
        .with("--sticky-cookie", "lane")
        .with("--health-interval", "60s")
        .with("--eject-after", "0")
        .start();
    let mut client = proxy.client();
    let mut session = Session::begin(&mut client);
    while session.backend != "a" {
        session = Session::begin(&mut client);
    }
    let addr = upstreams[0].addr;
    upstreams[0].stop();
    for _ in 0..5 {
        let answer = client.request(with_cookie(&session.cookie)).expect(200);
        assert_eq!((answer.text(), cookie_of(&answer)), ("b".to_owned(), None));
    }
    upstreams[0] = Upstream::scripted_at(addr, |served| {
        while served.request().is_some() {
            served.write(&ok("a", false));
        }
    });
    assert!(!session.goes_on(&mut client), "it is where it was");
}

#[test]
fn a_session_moves_from_a_backend_that_is_ejected() {
    let upstreams = ["a", "b"].map(named);
    let sick = Upstream::answering("HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nsick");
    let [a, b] = &upstreams;
    let proxy = Flags::to(&[a, b, &sick])
        .with("--sticky-cookie", "lane")
        .with("--eject-time", "60s")
        .start();
    let mut client = proxy.client();
    let mut cookie = None;
    wait_until("a session is on the sick one", SOON, || {
        let answer = client.request(GET);
        cookie = cookie_of(&answer);
        answer.status() == 500
    });
    let cookie = cookie.unwrap();
    wait_until("it moves", SOON, || client.request(with_cookie(&cookie)).status() == 200);
    let answer = client.request(with_cookie(&cookie)).expect(200);
    assert!(cookie_of(&answer).is_some_and(|new| new != cookie));
}

#[test]
fn processes_without_a_common_secret_do_not_know_each_others_cookies() {
    let upstream = named("a");
    let start = || Flags::to(&[&upstream]).with("--sticky-cookie", "lane").start();
    let (one, two) = (start(), start());
    let sessions = [&one, &two].map(|proxy| Session::begin(&mut proxy.client()));
    assert_ne!(sessions[0].cookie, sessions[1].cookie);
    let answer = two.client().request(with_cookie(&sessions[0].cookie)).expect(200);
    assert_eq!(cookie_of(&answer).as_ref(), Some(&sessions[1].cookie));
}
