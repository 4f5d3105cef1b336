//! A socket whose writes fail once its peer has taken nothing for a while, so that a client which
//! stops reading holds its place no longer than that.
//!
//! Reading has no limit here: `serve` has one for heads, and one for whole requests.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::presence::Presence;

/// A socket with a limit on how long a write may wait.
#[derive(Debug)]
pub(super) struct Stalling<S> {
    socket: S,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    limit: Duration,
    /// Is told when a write waits.
    presence: Arc<Presence>,
}

impl<S> Stalling<S> {
    pub(super) fn new(socket: S, limit: Duration, presence: Arc<Presence>) -> Stalling<S> {
        Stalling { socket, stalled: None, limit, presence }
    }

    /// Starts or stops the clock by what a write gave.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            if self.stalled.take().is_some() {
                self.presence.set_blocked(false);
            }
            return wrote;
        }
        let clock = self.stalled.get_or_insert_with(|| {
            self.presence.set_blocked(true);
            Box::pin(sleep(self.limit))
        });
        match clock.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.watch(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.watch(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn presence() -> Arc<Presence> {
        Arc::new(Presence::new(Instant::now()))
    }

    #[test]
    fn a_write_that_nobody_reads_fails_and_one_that_is_read_goes_on() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (here, mut there) = tokio::io::duplex(16);
            let mut socket = Stalling::new(here, Duration::from_millis(20), presence());
            let reading = async {
                let mut bytes = [0; 64];
                there.read_exact(&mut bytes).await.unwrap();
                there
            };
            let (wrote, _there) = tokio::join!(socket.write_all(&[7; 64]), reading);
            wrote.unwrap();
            let error = socket.write_all(&[7; 64]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }
}
