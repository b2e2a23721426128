//! Sends deliveries, one at a time, over connections that are kept.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{StatusCode, http};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::delivery::Delivery;
use super::target::Target;
use super::tls::Tls;

/// How long an answer is waited for. ClearFeed's own time-out is not documented; the relay promises an answer
/// within 8 s of the last byte, so whoever is slower than this has broken that promise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is waited for: a lost SYN is sent again after 1 s, so one loss is forgiven.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest body of an answer, in bytes. The relay's are one short line.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// What a delivery was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 is the only good one.
    pub status: StatusCode,
    /// The answer's body.
    pub body: Bytes,
}

/// Why a delivery has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No target could be connected to: nothing was sent.
    #[error("no connection: {0}")]
    Refused(String),
    /// It may have been kept all the same.
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The connection failed before the answer was complete: it may have been kept all the same.
    #[error("the connection failed before the answer: {0}")]
    Broken(String),
    /// The delivery has a header that HTTP cannot carry.
    #[error("not sendable: {0}")]
    Unsendable(#[from] http::Error),
}

/// A sender with at most one delivery on its way and at most one connection to each target.
pub struct Client {
    lanes: Vec<Lane>,
    turn: usize,
    answer_timeout: Duration,
    /// Made when it is first needed: reading the machine's roots takes some milliseconds.
    tls: Option<Tls>,
}

impl Client {
    /// Takes the targets; each delivery goes to the next of them. Connects when it first sends.
    pub fn new(targets: Vec<Target>) -> Self {
        let lanes = targets.into_iter().map(|target| Lane { target, sender: None }).collect();
        Self { lanes, turn: 0, answer_timeout: ANSWER_TIMEOUT, tls: None }
    }

    /// Begins with another target than the first, so that many clients do not move in step.
    #[must_use]
    pub fn beginning_at(self, turn: usize) -> Self {
        Self { turn, ..self }
    }

    /// Waits for an answer this long; 10 s if never said.
    #[must_use]
    pub fn answer_timeout(self, answer_timeout: Duration) -> Self {
        Self { answer_timeout, ..self }
    }

    /// Sends one delivery to the target whose turn it is, or, where that refuses the connection, to the next.
    pub async fn send(&mut self, delivery: &Delivery) -> Result<Reply, Fault> {
        let mut refused = Fault::Refused("there is no URL to send to".to_owned());
        for _ in 0..self.lanes.len() {
            let turn = self.turn % self.lanes.len();
            self.turn = turn + 1;
            match self.lanes[turn].exchange(delivery, self.answer_timeout, &mut self.tls).await {
                Err(fault @ Fault::Refused(_)) => refused = fault,
                answered => return answered,
            }
        }
        Err(refused)
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// One target and the connection to it.
struct Lane {
    target: Target,
    /// There only between exchanges: an exchange that fails, or is given up, closes its connection by
    /// dropping it.
    sender: Option<Sender>,
}

impl Lane {
    async fn exchange(
        &mut self,
        delivery: &Delivery,
        answer_timeout: Duration,
        tls: &mut Option<Tls>,
    ) -> Result<Reply, Fault> {
        let mut request = delivery.request(&self.target)?;
        loop {
            let (mut sender, is_fresh) = match self.reusable().await {
                Some(sender) => (sender, false),
                None => (connect(&self.target, tls).await?, true),
            };
            let answer = async {
                let response = match sender.try_send_request(request).await {
                    Ok(response) => response,
                    Err(mut failed) => return Err((failed.take_message(), failed.into_error().to_string())),
                };
                let status = response.status();
                match Limited::new(response.into_body(), MAX_REPLY_BYTES).collect().await {
                    Ok(body) => Ok(Reply { status, body: body.to_bytes() }),
                    Err(error) => Err((None, error.to_string())),
                }
            };
            match timeout(answer_timeout, answer).await {
                Err(_) => return Err(Fault::TimedOut(answer_timeout)),
                Ok(Ok(reply)) => {
                    self.sender = Some(sender);
                    return Ok(reply);
                }
                // Not a byte of it was sent: the server closed an idle connection, which is no failure of a
                // delivery.
                Ok(Err((Some(unsent), _))) if !is_fresh => request = unsent,
                Ok(Err((_, error))) => return Err(Fault::Broken(error)),
            }
        }
    }

    /// The connection of the exchange before, unless the server closed it.
    async fn reusable(&mut self) -> Option<Sender> {
        let mut sender = self.sender.take()?;
        sender.ready().await.ok()?;
        Some(sender)
    }
}

async fn connect(target: &Target, tls: &mut Option<Tls>) -> Result<Sender, Fault> {
    let refused = |reason: String| Fault::Refused(format!("{}: {reason}", target.address()));
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(target.address()))
        .await
        .map_err(|_| refused(format!("not connected within {} s", CONNECT_TIMEOUT.as_secs())))?
        .map_err(|error| refused(error.to_string()))?;
    // A delivery is one small write: waiting for more to send with it would only add to its latency.
    stream.set_nodelay(true).map_err(|error| Fault::Broken(error.to_string()))?;
    let Some(name) = target.server_name() else { return handshake(stream).await };
    let tls = match tls {
        Some(tls) => tls,
        None => tls.insert(Tls::new().map_err(|error| refused(error.to_string()))?),
    };
    // Nothing is sent before the server has shown its certificate.
    let shaken = timeout(CONNECT_TIMEOUT, tls.connect(name, stream)).await;
    let stream = shaken
        .map_err(|_| refused(format!("no TLS within {} s", CONNECT_TIMEOUT.as_secs())))?
        .map_err(|error| refused(format!("no TLS: {error}")))?;
    handshake(stream).await
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Sender, Fault> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| Fault::Broken(error.to_string()))?;
    // Ends when its sender is dropped or the server closes; whoever waits for an answer is told of its error.
    tokio::spawn(connection);
    Ok(sender)
}
