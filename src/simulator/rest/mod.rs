//! ClearFeed's REST API, as far as the relay asks it: the requests that the simulator's events are about, in pages, to who has
//! the token, with limits and faults on demand.

mod answer;
mod query;
mod requests;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

pub use requests::Requests;

/// Says the token that counts now; none: nobody has one.
pub type CurrentToken = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// How well the API answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Health {
    /// Requests a second; beyond: 429 with `Retry-After`. None: as many as come.
    pub rate: Option<NonZeroU32>,
    /// How many of a hundred requests fail: 500, 503, or a connection that breaks, in turn.
    pub fault_percent: u8,
}

/// A listening API. It ends when this is dropped.
pub struct Rest {
    address: SocketAddr,
    answered: Arc<Shared>,
    listening: AbortHandle,
}

impl Rest {
    /// Listens, and answers from now on.
    pub async fn listen(
        address: SocketAddr,
        requests: Arc<Requests>,
        token: CurrentToken,
        health: Health,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            requests,
            token,
            health,
            asked: AtomicU64::new(0),
            second: Mutex::new((Instant::now(), 0)),
        });
        let answered = Arc::clone(&shared);
        let listening = tokio::spawn(accept(listener, shared)).abort_handle();
        Ok(Self { address, answered, listening })
    }

    /// The `base_url` under which it answers.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often it was asked, whatever it answered.
    pub fn asked(&self) -> u64 {
        self.answered.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// What all connections share.
struct Shared {
    requests: Arc<Requests>,
    token: CurrentToken,
    health: Health,
    asked: AtomicU64,
    /// When the second began that counts for the rate, and how many were asked in it.
    second: Mutex<(Instant, u32)>,
}

/// How a request is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Status 500.
    Internal,
    /// Status 503 with `Retry-After`.
    Overloaded,
    /// The connection breaks without an answer.
    Cut,
}

impl Shared {
    /// Counts a request; says how it fails, if it does: of 20 percent every fifth.
    fn fault(&self) -> Option<Fault> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let chosen_before = |number: u64| number * u64::from(self.health.fault_percent) / 100;
        let chosen = chosen_before(number);
        (chosen_before(number + 1) > chosen).then_some(match chosen % 3 {
            0 => Fault::Internal,
            1 => Fault::Overloaded,
            _ => Fault::Cut,
        })
    }

    /// Whether one more request is within the rate.
    fn is_within_rate(&self) -> bool {
        let Some(rate) = self.health.rate else { return true };
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if second.0.elapsed() >= Duration::from_secs(1) {
            *second = (Instant::now(), 0);
        }
        second.1 += 1;
        second.1 <= rate.get()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // A listener that fails for a moment (file descriptors) is asked again with the next connection.
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| {
            let answer = answer::answer(&shared, &request);
            async move { answer }
        });
        let connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // The client hung up, or the fault was on purpose.
            let _ = connection.await;
        });
    }
}
