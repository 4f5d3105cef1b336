//! Routes: which requests they take, rewritten paths, redirects, and what no route takes.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use corelane::cli::{Cli, Machine};
use corelane::config::{Action, Config, PathMatch, Redirect, RouteConfig, plain_prefix};
use corelane::server::{Server, Stopper};

use crate::answers::check_own_answer;
use crate::support::client::Client;
use crate::support::upstream::{HEALTH_PATH, Upstream};

/// corelane in this process.
struct Running {
    addr: SocketAddr,
    stopper: Stopper,
    server: Option<JoinHandle<u8>>,
}

impl Running {
    fn start(upstream: &Upstream, change: impl FnOnce(&mut Config)) -> Running {
        let flags = ["corelane", "--listen", "127.0.0.1:0", "--workers", "1", "--backend"];
        let flags = flags.iter().copied().map(str::to_owned).chain([upstream.url()]);
        let flags = flags.chain(["--health-path".to_owned(), HEALTH_PATH.to_owned()]);
        let cli = Cli::read_flags(flags).unwrap();
        let cores = core_affinity::get_core_ids().unwrap().iter().map(|core| core.id).collect();
        let machine = Machine { cores, parallelism: 1, descriptors: 1024 };
        let mut config = cli.proxy.into_config(&machine).unwrap();
        change(&mut config);
        let server = Server::bind(config).unwrap();
        let (addr, stopper) = (server.addrs()[0], server.stopper());
        let server = std::thread::spawn(move || server.run().unwrap());
        Running { addr, stopper, server: Some(server) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.server.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(0))));
    }
}

fn route(path: PathMatch, rewrite: Option<&str>, action: Action) -> RouteConfig {
    let rewrite = rewrite.map(|text| plain_prefix(text).unwrap());
    RouteConfig { path, rewrite, action, ..RouteConfig::catch_all() }
}

#[test]
fn a_route_rewrites_redirects_or_takes_nothing() {
    let upstream = Upstream::naming_targets();
    let to_default = || Action::Pool("default".to_owned());
    let redirect = Redirect::parse(308, "https://{host}{path}{query}").unwrap();
    let proxy = Running::start(&upstream, |config| {
        config.routes = vec![
            route(PathMatch::prefix("/api").unwrap(), Some("/v1"), to_default()),
            route(PathMatch::exact("/old").unwrap(), Some("/new"), Action::Redirect(redirect)),
        ];
    });
    let mut client = Client::connect(proxy.addr);
    client.send(b"GET /api/x?y HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.read_response("GET").expect(200).text(), "/v1/x?y");
    client.send(b"POST /old?q HTTP/1.1\r\nHost: H:80\r\nContent-Length: 3\r\n\r\nabc");
    let moved = client.read_response("POST").expect(308);
    assert_eq!(moved.get("location"), Some("https://H/new?q"));
    assert_eq!(moved.text(), "308 Permanent Redirect\n");
    client.send(b"HEAD /other HTTP/1.1\r\nHost: h\r\n\r\n");
    client.read_response("HEAD").expect(404);
    client.send(b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n");
    let none = client.read_response("GET");
    check_own_answer(&none, 404, "destination_not_found", "no-route");
    client.send(b"GET /api/../old HTTP/1.1\r\nHost: h\r\n\r\n");
    let refused = client.read_response("GET");
    check_own_answer(&refused, 400, "http_request_error", "request-path-ambiguous");
    client.expect_close();
    assert_eq!(upstream.request_count(), 1);
}
