//! Real WebSocket peers through the proxy, and what a tunnel must do with the ends of both sides.
//! That h2c never passes and an unasked 101 is a 502 stands in tests/data.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use socket2::SockRef;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use crate::support::client::Client;
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{HEALTH_PATH, Served, Upstream, ok};
use crate::support::wire::{End, Wire};
use crate::support::{Gate, SOON};

const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const ASK: &str = "GET /t HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A WebSocket server for one client, which does with it what it is told to.
fn server<T: Send + 'static>(
    serve: impl FnOnce(WebSocket<TcpStream>) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        loop {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut start = [0; 4 + HEALTH_PATH.len()];
            while stream.peek(&mut start).unwrap() < start.len() {}
            if start.ends_with(HEALTH_PATH.as_bytes()) {
                let mut wire = Wire::new(stream);
                wire.head().unwrap();
                wire.write(&ok("", false)).unwrap();
                continue;
            }
            return serve(tungstenite::accept(stream).unwrap());
        }
    });
    (addr, thread)
}

fn connect(addr: SocketAddr) -> (Proxy, WebSocket<TcpStream>) {
    let proxy = Flags::to_addrs(&[addr]).start();
    let stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let url = format!("ws://{}/chat?room=1", proxy.addr());
    let (socket, response) = tungstenite::client(url, stream).unwrap();
    assert_eq!(response.status().as_u16(), 101);
    (proxy, socket)
}

/// Sends back what comes until the client closes; how it closed.
fn echo(mut socket: WebSocket<TcpStream>) -> Option<CloseFrame> {
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => {
                // What is left to send is the answer to the close.
                while socket.flush().is_ok() {}
                return frame;
            }
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).unwrap(),
            Ok(_) => {}
            Err(error) => panic!("the server's side failed: {error}"),
        }
    }
}

#[test]
fn websocket_messages_of_every_size_come_back_and_the_close_arrives() {
    let (addr, server) = server(echo);
    let (_proxy, mut client) = connect(addr);
    for size in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
        let data: Vec<u8> = (0..size).map(|at| (at * 7) as u8).collect();
        client.send(Message::binary(data.clone())).unwrap();
        let back = client.read().unwrap();
        assert!(back.is_binary() && back.into_data() == data, "{size} bytes");
    }
    // Many at once, before any is read.
    for number in 0..1000 {
        client.send(Message::text(format!("message {number}"))).unwrap();
    }
    for number in 0..1000 {
        assert_eq!(client.read().unwrap().into_text().unwrap(), format!("message {number}"));
    }
    client.send(Message::Ping("are you there".into())).unwrap();
    assert!(client.read().unwrap().is_pong());
    let frame = CloseFrame { code: CloseCode::Away, reason: "leaving".into() };
    client.close(Some(frame.clone())).unwrap();
    assert!(matches!(client.read(), Ok(Message::Close(_))));
    assert!(matches!(client.read(), Err(Error::ConnectionClosed)));
    assert_eq!(server.join().unwrap(), Some(frame));
}

#[test]
fn a_websocket_server_may_speak_first_and_close_first() {
    let (addr, server) = server(|mut socket| {
        socket.send(Message::text("welcome")).unwrap();
        socket.close(Some(CloseFrame { code: CloseCode::Again, reason: "full".into() })).unwrap();
        while socket.read().is_ok() {}
    });
    let (_proxy, mut client) = connect(addr);
    assert_eq!(client.read().unwrap().into_text().unwrap(), "welcome");
    let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("no close") };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Again, "full"));
    assert!(matches!(client.read(), Err(Error::ConnectionClosed)));
    server.join().unwrap();
}

/// A tunnel whose upstream end runs this script after the 101.
fn tunnel(script: impl Fn(&mut Served) + Send + Sync + 'static) -> (Upstream, Proxy, Client) {
    let upstream = Upstream::scripted(move |served| {
        if served.head().is_some() {
            served.write(SWITCH);
            script(served);
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client.send(ASK);
    assert_eq!(client.wire.head().unwrap().status(), 101);
    (upstream, proxy, client)
}

/// Everything up to the end of the other side's half.
fn read_to_end(wire: &mut Wire) -> (Vec<u8>, End) {
    loop {
        if let Err(end) = wire.fill() {
            return (wire.take_ahead(), end);
        }
    }
}

#[test]
fn a_client_that_ends_its_half_of_a_tunnel_still_gets_what_the_backend_sends() {
    let (_upstream, _proxy, mut client) = tunnel(|served| {
        let (bytes, end) = read_to_end(&mut served.wire);
        assert_eq!(end, End::CleanClose);
        served.write(&bytes.repeat(100_000));
    });
    client.send("last words");
    client.wire.half_close();
    let (bytes, end) = read_to_end(&mut client.wire);
    assert_eq!((bytes.len(), end), (1_000_000, End::CleanClose));
}

#[test]
fn a_backend_that_ends_its_half_of_a_tunnel_still_gets_what_the_client_sends() {
    let (gate, total) = (Gate::default(), std::sync::Arc::new(std::sync::Mutex::new(None)));
    let (_upstream, _proxy, mut client) = tunnel({
        let (gate, total) = (gate.clone(), total.clone());
        move |served| {
            served.write(b"that is all");
            SockRef::from(&**served.wire.stream()).shutdown(Shutdown::Write).unwrap();
            let (bytes, end) = read_to_end(&mut served.wire);
            *total.lock().unwrap() = Some((bytes.len(), end));
            gate.open();
        }
    });
    let (bytes, end) = read_to_end(&mut client.wire);
    assert_eq!((&bytes[..], end), (&b"that is all"[..], End::CleanClose));
    for _ in 0..100 {
        client.send([b'x'; 10_000]);
    }
    client.wire.half_close();
    gate.wait();
    assert_eq!(*total.lock().unwrap(), Some((1_000_000, End::CleanClose)));
}

#[test]
fn what_stands_behind_the_heads_of_an_upgrade_is_the_tunnels() {
    let upstream = Upstream::scripted(|served| {
        if served.head().is_none() {
            return;
        }
        // In one packet with the head, before the client's first byte is read.
        served.write(&[SWITCH, b"first from the backend"].concat());
        while served.wire.ahead().len() < 21 {
            if served.wire.fill().is_err() {
                return;
            }
        }
        let bytes = served.wire.take_ahead();
        served.write(&bytes);
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client.send([ASK.as_bytes(), b"first from the client"].concat());
    assert_eq!(client.wire.head().unwrap().status(), 101);
    let (bytes, end) = read_to_end(&mut client.wire);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert_eq!(text, "first from the backendfirst from the client");
    assert_eq!(end, End::CleanClose);
}

#[test]
fn a_reset_of_either_side_ends_the_other() {
    let gate = Gate::default();
    let (upstream, _proxy, client) = tunnel({
        let gate = gate.clone();
        move |served| {
            let (_, end) = read_to_end(&mut served.wire);
            assert!(matches!(end, End::Reset | End::CleanClose), "{end:?}");
            gate.open();
        }
    });
    client.reset();
    gate.wait();
    drop(upstream);
    let (_upstream, _proxy, mut client) = tunnel(|served| served.reset_on_return());
    let (_, end) = read_to_end(&mut client.wire);
    assert!(matches!(end, End::Reset | End::CleanClose), "{end:?}");
}
