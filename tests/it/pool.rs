//! Connections to backends that are kept for the next request: how many, how long, and whether they live.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::support::client::Client;
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Upstream, ok};
use crate::support::{Gate, SOON, wait_until};

#[test]
fn a_kept_upstream_connection_serves_the_next_client() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client.get("/1").expect(200);
    drop(client);
    proxy.client().get("/2").expect(200);
    assert_eq!(upstream.raw().len(), 1);
}

#[test]
fn an_idle_upstream_connection_that_was_closed_is_not_used() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(&ok("once", false));
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    for count in 1..=20 {
        // No retry can hide behind a POST.
        let response =
            client.request("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx").expect(200);
        assert_eq!((response.text().as_str(), upstream.request_count()), ("once", count));
        wait_until("the upstream has closed", Duration::from_secs(5), || {
            upstream.open_connections() == 0
        });
    }
}

/// Three requests at the same time, so over three upstream connections.
fn three_at_once(flags: impl Fn(Flags) -> Flags) -> (Upstream, Proxy) {
    let gate = Gate::default();
    let upstream = Upstream::scripted({
        let gate = gate.clone();
        move |served| {
            while served.request().is_some() {
                gate.wait();
                served.write(&ok("done", false));
            }
        }
    });
    let proxy = flags(Flags::to(&[&upstream])).start();
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    wait_until("all have arrived", SOON, || upstream.request_count() == 3);
    assert_eq!(upstream.open_connections(), 3);
    gate.open();
    for client in &mut clients {
        client.read_response("GET").expect(200);
    }
    (upstream, proxy)
}

#[test]
fn no_more_idle_connections_are_kept_than_allowed() {
    let (upstream, proxy) = three_at_once(|flags| flags.with("--backend-idle-max", "2"));
    wait_until("the third is closed", SOON, || upstream.open_connections() == 2);
    proxy.client().get("/").expect(200);
    assert_eq!((upstream.raw().len(), upstream.open_connections()), (3, 2));
}

#[test]
fn connections_that_lie_idle_for_too_long_are_closed() {
    let (upstream, proxy) = three_at_once(|flags| flags.with("--backend-idle-timeout", "300ms"));
    assert_eq!(upstream.open_connections(), 3);
    wait_until("all are closed", Duration::from_secs(3), || upstream.open_connections() == 0);
    proxy.client().get("/").expect(200);
    assert_eq!(upstream.raw().len(), 4);
}

#[test]
fn a_connection_on_which_the_backend_said_too_much_is_not_reused() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    for count in 1..=5 {
        assert_eq!(client.get("/").expect(200).text(), "ok");
        assert_eq!(upstream.raw().len(), count);
    }
}

#[test]
fn a_connection_whose_request_was_not_read_whole_is_not_reused() {
    let upstream = Upstream::scripted(|served| {
        while let Some(head) = served.head() {
            served.write(&ok(head.method(), false));
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    // The backend answers before it has the body, and would take the body's rest for a request.
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n");
    assert_eq!(client.read_response("POST").expect(200).text(), "POST");
    assert_eq!(proxy.client().get("/").expect(200).text(), "GET");
    assert_eq!(upstream.raw().len(), 2);
}

#[test]
fn a_connection_on_which_something_came_unasked_is_not_reused() {
    let (answered, poisoned) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let upstream = Upstream::scripted({
        let (answered, poisoned) = (answered.clone(), poisoned.clone());
        move |served| {
            if served.request().is_some() {
                served.write(&ok("asked", false));
                answered.wait();
                // Through the loopback interface it has arrived when it is written.
                served.write(&ok("unasked", false));
                poisoned.fetch_add(1, SeqCst);
                served.wait_for_end();
            }
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    for count in 1..=5 {
        assert_eq!(client.get("/").expect(200).text(), "asked");
        answered.open();
        wait_until("the unasked bytes are there", SOON, || poisoned.load(SeqCst) == count);
    }
    assert_eq!(upstream.raw().len(), 5);
}
