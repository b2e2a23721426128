//! A connection's bytes, with the time that a request's head may take.
//!
//! hyper's own limit for heads also runs while a kept-alive connection waits for its next request. A load balancer
//! keeps connections for a minute; one closed under it after five seconds would cost deliveries.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::connections::Connection;

/// A connection without a request for so long is closed: longer than load balancers keep theirs (nginx and AWS: 60 s).
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// What the connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The rest of a head, or the first one.
    Head,
    /// The first byte of the next head.
    NextRequest,
    /// Nothing that this limit is about: a body has its own.
    Nothing,
}

/// hyper's view of a TCP stream.
pub(super) struct Socket {
    stream: TokioIo<TcpStream>,
    connection: Arc<Connection>,
    header_timeout: Duration,
    waiting: Waiting,
    deadline: Pin<Box<Sleep>>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, connection: Arc<Connection>, header_timeout: Duration) -> Self {
        let deadline = Box::pin(tokio::time::sleep(header_timeout));
        Self { stream: TokioIo::new(stream), connection, header_timeout, waiting: Waiting::Head, deadline }
    }

    fn wait_for(&mut self, waiting: Waiting, limit: Duration) {
        self.waiting = waiting;
        self.deadline.as_mut().reset(Instant::now() + limit);
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let is_busy = this.connection.is_busy();
        match this.waiting {
            Waiting::Head | Waiting::NextRequest if is_busy => this.waiting = Waiting::Nothing,
            Waiting::Nothing if !is_busy => this.wait_for(Waiting::NextRequest, KEEP_ALIVE),
            _ => {}
        }
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            if this.waiting == Waiting::NextRequest {
                this.wait_for(Waiting::Head, this.header_timeout);
            }
            return Poll::Ready(result);
        }
        if this.waiting != Waiting::Nothing && this.deadline.as_mut().poll(context).is_ready() {
            // A sender that has nothing more to say has done nothing wrong: to hyper it looks as if it had closed.
            let is_idle = this.waiting == Waiting::NextRequest;
            return Poll::Ready(if is_idle { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) });
        }
        Poll::Pending
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
