//! The public listener: accepts connections, serves them with hyper, and drains.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::TRANSFER_ENCODING;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::{Connections, Place};
use super::endpoint::Endpoints;
use super::guard::Guard;
use super::head::{MAX_HEAD_BYTES, MAX_HEADERS};
use super::tls::Certificate;
use crate::telemetry::labels::Outcome;
use crate::telemetry::metrics::Metrics;

/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// Open connections.
    pub max_connections: usize,
    /// For a request's head.
    pub header_timeout: Duration,
}

/// The listener and its connections.
pub struct Listener {
    endpoints: Arc<Endpoints>,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    header_timeout: Duration,
    /// Without it, plain HTTP.
    tls: Option<TlsAcceptor>,
    tracker: TaskTracker,
    /// Answers say `Connection: close`.
    leaving: CancellationToken,
    /// No connection is accepted, and none is kept alive.
    closing: CancellationToken,
}

impl Listener {
    /// A listener for these endpoints, with TLS where there is a certificate. The error would be a mistake in how TLS is set up.
    pub fn new(
        endpoints: Endpoints,
        limits: ListenerLimits,
        certificate: Option<Arc<Certificate>>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, rustls::Error> {
        Ok(Arc::new(Self {
            endpoints: Arc::new(endpoints),
            connections: Arc::new(Connections::new(limits.max_connections, Arc::clone(&metrics))),
            metrics,
            header_timeout: limits.header_timeout,
            tls: certificate.map(Certificate::acceptor).transpose()?,
            tracker: TaskTracker::new(),
            leaving: CancellationToken::new(),
            closing: CancellationToken::new(),
        }))
    }

    /// Accepts until [`Listener::close`].
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer.ip()),
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, peer: IpAddr) {
        // Without a place the stream is dropped: closed before anything was read of it.
        let Some(place) = self.connections.enter(peer) else { return };
        // Answers are short and written at once: waiting to fill a packet would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection is gone already");
            return;
        }
        let connection = Arc::clone(&place.connection);
        let task = match self.tls.clone() {
            None => self.tracker.spawn(Arc::clone(self).serve(stream, place)),
            Some(tls) => self.tracker.spawn(Arc::clone(self).shake_hands(tls, stream, place)),
        };
        connection.served_by(task.abort_handle());
    }

    /// A handshake has as long as a head; then the head has its own time.
    async fn shake_hands(self: Arc<Self>, tls: TlsAcceptor, stream: TcpStream, place: Place) {
        let handshake = tokio::time::timeout(self.header_timeout, tls.accept(stream));
        tokio::select! {
            () = self.closing.cancelled() => {}
            shaken = handshake => match shaken {
                Ok(Ok(stream)) => Arc::clone(&self).serve(stream, place).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake was too slow"),
            },
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self: Arc<Self>, stream: S, place: Place) {
        let connection = Arc::clone(&place.connection);
        let guarded = Guard::new(stream, Arc::clone(&connection), self.header_timeout);
        let service = service_fn(|request: Request<Incoming>| {
            let (endpoints, connection, leaving) = (&self.endpoints, &connection, &self.leaving);
            let refused = connection.refused();
            connection.begin_request();
            async move {
                // What follows chunks was not looked at.
                let is_chunked = request.headers().contains_key(TRANSFER_ENCODING);
                let (answer, is_read) = match refused {
                    Some(answer) => (endpoints.refuse(answer), false),
                    None => endpoints.answer(request, connection).await,
                };
                connection.end_request();
                // Of a body that nobody read hyper closes the connection: who sent it has to be told.
                let is_last = is_chunked || !is_read || leaving.is_cancelled();
                Ok::<_, Infallible>(answer.into_response(is_last))
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            // The guard has that limit, for heads alone.
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(guarded), service);
        let mut serving = std::pin::pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = self.closing.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
            // The guard finds what is wrong with heads, but for methods and targets that only hyper does not take.
            if error.is_parse() {
                self.metrics.refused_head(Outcome::BadRequest);
            }
        }
    }

    /// From now on answers tell senders to take their next request elsewhere.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Accepts no more connections, finishes the requests in flight, and ends the connections.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
