//! Server-sent events: who listens, and what they are sent (HTML Living Standard §9.2).
//!
//! Each listener has a short queue; one whose queue is full is dropped, and reconnects by itself if
//! it is a browser. Nothing is made while nobody listens.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// All who listen.
#[derive(Debug, Default)]
pub(super) struct Hub {
    listeners: Mutex<Vec<Sender<Bytes>>>,
}

impl Hub {
    /// A stream of what comes from now on; `None` where there are too many already.
    pub(super) fn listen(&self) -> Option<Stream> {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let mut listeners = self.lock();
        listeners.retain(|listener| !listener.is_closed());
        if listeners.len() >= LISTENERS_MAX || sender.try_send(Bytes::from(OPENING)).is_err() {
            return None;
        }
        listeners.push(sender);
        Some(Stream(receiver))
    }

    /// Whether anybody listens.
    pub(super) fn has_listeners(&self) -> bool {
        let mut listeners = self.lock();
        listeners.retain(|listener| !listener.is_closed());
        !listeners.is_empty()
    }

    /// Sends an event to all; `data` is one line.
    pub(super) fn send(&self, event: &str, data: &str) {
        let text = Bytes::from(format!("event: {event}\ndata: {data}\n\n"));
        self.lock().retain(|listener| match listener.try_send(text.clone()) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "a listener of the admin API's events is dropped");
                false
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Sender<Bytes>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer that goes on until its listener leaves or is dropped.
#[derive(Debug)]
pub(super) struct Stream(Receiver<Bytes>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The media type of events (HTML Living Standard §9.2.3).
pub(super) const MEDIA_TYPE: &str = "text/event-stream";
/// The most listeners at once.
pub(super) const LISTENERS_MAX: usize = 32;
/// The most events that wait for a listener: eight seconds of `status`.
const QUEUE_MAX: usize = 8;
/// Tells that the stream is open, and a browser to come back after two seconds when it breaks.
const OPENING: &str = "retry: 2000\n: events of corelane\n\n";

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::error::TryRecvError;

    use super::*;

    /// What has come; `None` once the stream has ended.
    fn text_of(stream: &mut Stream) -> Option<String> {
        let mut text = String::new();
        loop {
            match stream.0.try_recv() {
                Ok(bytes) => text += &String::from_utf8_lossy(&bytes),
                Err(TryRecvError::Empty) => return Some(text),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
    }

    #[test]
    fn a_listener_gets_each_event() {
        let hub = Hub::default();
        assert!(!hub.has_listeners());
        let mut stream = hub.listen().unwrap();
        assert!(hub.has_listeners());
        assert_eq!(text_of(&mut stream).as_deref(), Some(OPENING));
        hub.send("status", "{}");
        assert_eq!(text_of(&mut stream).as_deref(), Some("event: status\ndata: {}\n\n"));
        drop(stream);
        assert!(!hub.has_listeners());
    }

    #[test]
    fn a_listener_that_stops_reading_is_dropped_and_others_are_not() {
        let hub = Hub::default();
        let (mut slow, mut quick) = (hub.listen().unwrap(), hub.listen().unwrap());
        for number in 0..QUEUE_MAX * 2 {
            hub.send("status", &number.to_string());
            assert!(text_of(&mut quick).unwrap().contains(&format!("data: {number}\n")));
        }
        assert_eq!(text_of(&mut slow), None);
        assert!(hub.has_listeners());
    }

    #[test]
    fn there_is_room_for_so_many_listeners() {
        let hub = Hub::default();
        let mut streams: Vec<_> = (0..LISTENERS_MAX).map(|_| hub.listen().unwrap()).collect();
        assert!(hub.listen().is_none());
        streams.pop();
        assert!(hub.listen().is_some());
    }
}
