//! What happens in one pool leaves the others alone: requests that wait for a place in it, on
//! whichever worker, and its retries.

use std::time::{Duration, Instant};

use crate::figures::scrape;
use crate::queue::{holding, numbering, send};
use crate::support::client::{Client, Fate};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::Upstream;
use crate::support::{SOON, Scratch, Turnstile, wait_until};

const HELD: usize = 8;

/// A proxy with these pools, all of whose backends have these options; requests below the pool's
/// name go there.
fn start(pools: &[(&str, &[&Upstream], &str)], flags: Flags) -> Proxy {
    let mut text = String::new();
    for (name, upstreams, options) in pools {
        let backends: Vec<_> =
            upstreams.iter().map(|it| format!("\"{}{options}\"", it.url())).collect();
        text += &format!("[[pools]]\nname = \"{name}\"\nbackends = [{}]\n", backends.join(", "));
        text += &format!("[[routes]]\npath-prefix = \"/{name}\"\npool = \"{name}\"\n");
    }
    let scratch = Scratch::new("fairness");
    std::fs::write(scratch.join("lane.toml"), text).unwrap();
    let config = scratch.join("lane.toml").display().to_string();
    flags.with("--config", &config).with("--health-interval", "60s").start()
}

/// A pool `held` with one place, and a pool `free`.
fn limited(held: &Upstream, free: &Upstream, free_conns: usize, workers: &str) -> Proxy {
    let flags = Flags::to(&[]).with("--workers", workers).with("--queue-timeout", "60s");
    let free_options = format!(",max-conns={free_conns}");
    let pools = [("held", &[held][..], ",max-conns=1"), ("free", &[free], &free_options)];
    start(&pools, flags.with("--admin", "127.0.0.1:0"))
}

/// One request that the pool `held` serves until the turnstile lets it go, and others behind it.
fn wait_in_line(proxy: &Proxy, held: &Upstream) -> Vec<Client> {
    let mut clients: Vec<_> = (0..HELD).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        send(client, &format!("/held/{number}"));
        // One after the other: what comes at the same time has no order.
        wait_until("it is served or waits", SOON, || {
            let waiting = scrape(proxy).get("corelane_queue_length");
            held.request_count() == 1 && waiting == Some(number as f64)
        });
    }
    clients
}

/// All of them send a request at once, twenty times; the median time until all have an answer.
fn rounds(clients: &mut [Client]) -> Duration {
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        clients.iter_mut().for_each(|client| send(client, "/free"));
        clients.iter_mut().for_each(|client| drop(client.read_response("GET").expect(200)));
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[test]
fn those_who_wait_for_one_pool_hold_up_no_other_and_cost_nothing() {
    // Nine places are enough for all; one passes from worker to worker.
    for free_conns in [9, 1] {
        let turnstile = Turnstile::default();
        let (held, free) = (holding(&turnstile), numbering());
        let proxy = limited(&held, &free, free_conns, "2");
        let mut waiting = wait_in_line(&proxy, &held);
        // Enough that each worker has some of either.
        let mut clients: Vec<_> = (0..12).map(|_| proxy.client()).collect();
        let median = rounds(&mut clients);
        println!("{free_conns} places: twelve requests took {median:?} beside a pool that is held");
        assert!(median < Duration::from_millis(500), "{median:?}");
        // A place that nobody wants, and those who wait for another one.
        let before = proxy.processor_time();
        assert_eq!(waiting[HELD - 1].fate(Duration::from_secs(1)), Fate::Open);
        let spent = proxy.processor_time() - before;
        assert!(spent < Duration::from_millis(100), "{spent:?} in a second of waiting");
        assert_eq!(held.request_count(), 1, "the others wait");
        turnstile.release(HELD);
        for (number, client) in waiting.iter_mut().enumerate() {
            let answer = client.read_response("GET").expect(200).text();
            assert_eq!(answer, format!("/held/{number}"));
        }
        assert!(free.most_open() <= free_conns && held.most_open() == 1);
    }
}

#[test]
fn who_waited_first_for_a_pool_is_served_first_whatever_goes_to_others() {
    let turnstile = Turnstile::default();
    let (held, free) = (holding(&turnstile), numbering());
    let proxy = limited(&held, &free, 1, "1");
    let mut waiting = wait_in_line(&proxy, &held);
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut waiting {
        turnstile.release(1);
        clients.iter_mut().for_each(|client| send(client, "/free"));
        client.read_response("GET").expect(200);
        clients.iter_mut().for_each(|client| drop(client.read_response("GET").expect(200)));
    }
    let requests = held.requests();
    let targets: Vec<_> = requests.iter().map(|request| request.head.target()).collect();
    let expected: Vec<_> = (0..HELD).map(|number| format!("/held/{number}")).collect();
    assert_eq!(targets, expected);
}

#[test]
fn the_retries_of_one_pool_leave_anothers_budget_alone() {
    let losing = || Upstream::scripted(|served| drop(served.request()));
    let ([one, other], [there, too]) = ([losing(), losing()], [numbering(), numbering()]);
    // Ten in the window's ten seconds.
    let flags = Flags::to(&[]).with("--retry-budget-percent", "0").with("--retry-budget-min", "1");
    let pools = [("one", &[&one, &there][..], ""), ("other", &[&other, &too], "")];
    let proxy = start(&pools, flags.with("--eject-after", "0"));
    let mut client = proxy.client();
    let mut failed_of = |target: &str, count: usize| {
        let statuses = (0..count).map(|_| client.get(target).status());
        statuses.filter(|status| *status != 200).count()
    };
    let failed = failed_of("/one", 60);
    assert!(failed > 0, "the budget of the first pool is used up");
    assert_eq!(failed_of("/other", 5), 0);
    assert!(other.request_count() > 0, "some were retried");
}
