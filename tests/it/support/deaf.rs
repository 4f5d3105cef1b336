//! A backend that passes its first probe, which is a bare connection, and then accepts nothing:
//! `connect` to it hangs until it gives up.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use super::proxy::{Flags, Proxy};

/// The listener, and what fills its queue of connections; deaf for as long as this lives.
pub struct Deaf(#[expect(dead_code, reason = "held open")] Vec<Socket>);

/// A proxy with these flags in front of a backend that is deaf from now on, and of those in the
/// flags.
pub fn deaf_after_the_probe(flags: Flags) -> (Deaf, Proxy) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let flags = flags.and("--backend", &format!("http://{addr}"));
    let proxy = flags.with("--health-path", "").with("--health-interval", "60s").start();
    let mut held = vec![listener];
    for _ in 0..4 {
        let filler = socket();
        filler.set_nonblocking(true).unwrap();
        // In progress is all it ever gets to.
        filler.connect(&addr.into()).ok();
        held.push(filler);
    }
    (Deaf(held), proxy)
}
