//! How requests are shared out: in turn, in proportion to the weights.

use crate::support::proxy::Flags;
use crate::support::upstream::{Upstream, ok};

fn named(name: &'static str) -> Upstream {
    Upstream::answering(ok(name, false))
}

#[test]
fn requests_go_round_the_backends() {
    let upstreams = [named("a"), named("b"), named("c")];
    let proxy = Flags::to(&upstreams.each_ref()).start();
    let mut client = proxy.client();
    let names: Vec<_> = (0..30).map(|_| client.get("/").expect(200).text()).collect();
    for window in names.windows(3) {
        assert!(
            window[0] != window[1] && window[1] != window[2] && window[0] != window[2],
            "{names:?}"
        );
    }
}

#[test]
fn weights_share_the_requests_in_proportion() {
    let (heavy, light) = (named("heavy"), named("light"));
    let flags = Flags::to(&[])
        .and("--backend", &format!("{},weight=3", heavy.url()))
        .and("--backend", &light.url());
    let proxy = flags.start();
    let mut client = proxy.client();
    for _ in 0..40 {
        client.get("/").expect(200);
    }
    assert_eq!((heavy.request_count(), light.request_count()), (30, 10));
}

#[test]
fn a_backend_may_be_named_by_a_host_name() {
    let upstream = named("local");
    let url = format!("http://localhost:{}", upstream.addr.port());
    let proxy = Flags::to(&[]).and("--backend", &url).start();
    assert_eq!(proxy.client().get("/").expect(200).text(), "local");
}

#[test]
fn a_backend_may_be_named_by_an_ipv6_address() {
    let upstream = Upstream::scripted_at("[::1]:0".parse().unwrap(), |served| {
        while served.request().is_some() {
            served.write(&ok("six", false));
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    assert_eq!(proxy.client().get("/").expect(200).text(), "six");
}
