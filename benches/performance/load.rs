//! Deliveries that were signed and written out beforehand, sent over plain sockets by one thread: as cheap as can be, for
//! the broker wants the same cores.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clearfeed_relay::simulator::{Delivery, Events, unix_seconds};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;

use crate::support::deployment::{PATH, PUBLIC_URL, secret};
use crate::support::pause;

/// Requests that the events are about: enough to spread over all partitions.
const REQUESTS: NonZeroU64 = NonZeroU64::new(1000).unwrap();
/// What the server has to accept all connections, before the first delivery.
const ACCEPTED: Duration = Duration::from_millis(100);
/// How long one load may take.
const LONGEST: Duration = Duration::from_secs(60);

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub pace: Pace,
    pub events: usize,
    pub body_bytes: usize,
    /// Of a hundred deliveries so many are the one before once more.
    pub redelivered_percent: usize,
    pub new_connections: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many connections, each with the next delivery as soon as it has its answer.
    Saturated { connections: usize },
    /// So many a second, whatever the answers do.
    Open { per_second: u32 },
}

/// What came of it.
pub struct Outcome {
    pub began: Instant,
    pub wall: Duration,
    /// All of them: until it was answered 200, from when each was to be sent at so many a second, and else from when it was.
    pub latencies: Vec<Duration>,
}

/// When the delivery of this number is to be sent, after the beginning.
pub fn intended(number: usize, per_second: u32) -> Duration {
    Duration::from_secs(number as u64) / per_second
}

/// The id that the event of this number has.
pub fn event_id(run: u64, number: usize) -> String {
    format!("{run:016x}{number:016x}")
}

/// The number of the event of this id, where it is one of this run.
pub fn event_number(run: u64, id: &str) -> Option<usize> {
    let (found, number) = id.split_at_checked(16)?;
    (u64::from_str_radix(found, 16) == Ok(run)).then(|| usize::from_str_radix(number, 16).ok())?
}

impl Load {
    pub fn is_open(self) -> bool {
        matches!(self.pace, Pace::Open { .. })
    }

    /// Sends all of it; each run has events of its own. `before` is called when all is signed and connected, just before
    /// the first delivery: what it counts is deliveries and nothing else.
    pub fn send<T>(self, port: u16, run: u64, before: impl FnOnce() -> T) -> (T, Outcome) {
        let requests = Arc::new(self.requests(run));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(LONGEST, self.send_all(port, requests, before))
                .await
                .expect("the load is never over")
        })
    }

    fn requests(self, run: u64) -> Vec<Bytes> {
        let (secret, now) = (secret(), unix_seconds());
        // One body for each request, in which the events differ by their ids: to draw them all would take seconds.
        let shapes = Events::new(run, REQUESTS);
        let bodies: Vec<_> =
            (0..REQUESTS.get()).map(|number| Body::draw(&shapes, number, self.body_bytes)).collect();
        let mut requests: Vec<Bytes> = Vec::with_capacity(self.events);
        let mut last = None;
        for number in 0..self.events {
            let is_again =
                number * self.redelivered_percent / 100 != (number + 1) * self.redelivered_percent / 100;
            let delivery = match last.take() {
                Some(delivery) if is_again => Delivery::redelivered(&delivery, 1),
                _ => Delivery::signed(
                    &secret,
                    PUBLIC_URL,
                    bodies[number % bodies.len()].with_id(run, number),
                    now,
                ),
            };
            requests.push(written(&delivery));
            last = Some(delivery);
        }
        requests
    }

    fn connections(self) -> usize {
        match self.pace {
            Pace::Saturated { connections } => connections,
            // Each has 100 ms for an answer before its next delivery, at 10,000/s 25 ms.
            Pace::Open { per_second } => (per_second as usize / 10).clamp(8, 256),
        }
    }

    async fn send_all<T>(
        self,
        port: u16,
        requests: Arc<Vec<Bytes>>,
        before: impl FnOnce() -> T,
    ) -> (T, Outcome) {
        let connections = self.connections();
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Connection::open(port, self.new_connections).await);
        }
        pause(ACCEPTED);
        let before = before();
        let (began, mut tasks) = (Instant::now(), JoinSet::new());
        match self.pace {
            Pace::Saturated { .. } => {
                let next = Arc::new(AtomicUsize::new(0));
                for connection in open {
                    tasks.spawn(connection.one_after_another(Arc::clone(&requests), Arc::clone(&next)));
                }
            }
            Pace::Open { per_second } => {
                let mut senders = Vec::new();
                for connection in open {
                    let (sender, numbers) = mpsc::unbounded_channel();
                    senders.push(sender);
                    tasks.spawn(connection.on_time(Arc::clone(&requests), numbers, began, per_second));
                }
                // A thread, for tokio's clock has whole milliseconds.
                std::thread::spawn(move || {
                    for number in 0..requests.len() {
                        pause(
                            (began + intended(number, per_second)).saturating_duration_since(Instant::now()),
                        );
                        let _ = senders[number % senders.len()].send(number);
                    }
                });
            }
        }
        let latencies = tasks.join_all().await.concat();
        let wall = began.elapsed();
        (before, Outcome { began, wall, latencies })
    }
}

/// An event without its id.
struct Body {
    bytes: Vec<u8>,
    id_at: usize,
}

impl Body {
    /// As many bytes as are wanted: one of the simulator's, filled up; or as little as an event can be.
    fn draw(shapes: &Events, number: u64, wanted_bytes: usize) -> Self {
        let shape = shapes.event(number);
        let mut text = String::from_utf8(shape.body.to_vec()).unwrap();
        if text.len() > wanted_bytes {
            text =
                format!(r#"{{"id":"{}","type":"request","request":{{"id":{}}}}}"#, shape.id, shape.request);
        }
        text.pop();
        let fill = wanted_bytes.saturating_sub(text.len() + r#","fill":""}"#.len());
        text.push_str(&format!(r#","fill":"{}"}}"#, "x".repeat(fill)));
        Self { id_at: text.find(&shape.id).unwrap(), bytes: text.into_bytes() }
    }

    fn with_id(&self, run: u64, number: usize) -> Vec<u8> {
        let (mut bytes, id) = (self.bytes.clone(), event_id(run, number));
        bytes[self.id_at..][..id.len()].copy_from_slice(id.as_bytes());
        bytes
    }
}

/// A whole request.
fn written(delivery: &Delivery) -> Bytes {
    let Delivery { body, timestamp, retry_count, signature } = delivery;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: hooks.example.com\r\nuser-agent: bench\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nx-cf-signature: {}\r\nx-cf-timestamp: {timestamp}\r\nx-cf-retry-count: {retry_count}\r\n\r\n",
        body.len(),
        signature.as_deref().unwrap_or_default(),
    );
    [head.as_bytes(), body].concat().into()
}

struct Connection {
    port: u16,
    stream: Option<TcpStream>,
    is_new_each_time: bool,
}

impl Connection {
    async fn open(port: u16, is_new_each_time: bool) -> Self {
        let stream = if is_new_each_time { None } else { Some(connect(port).await) };
        Self { port, stream, is_new_each_time }
    }

    async fn one_after_another(mut self, requests: Arc<Vec<Bytes>>, next: Arc<AtomicUsize>) -> Vec<Duration> {
        let mut latencies = Vec::new();
        while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = Instant::now();
            self.exchange(request).await;
            latencies.push(began.elapsed());
        }
        latencies
    }

    async fn on_time(
        mut self,
        requests: Arc<Vec<Bytes>>,
        mut numbers: UnboundedReceiver<usize>,
        began: Instant,
        per_second: u32,
    ) -> Vec<Duration> {
        let mut latencies = Vec::new();
        while let Some(number) = numbers.recv().await {
            self.exchange(&requests[number]).await;
            latencies.push(began.elapsed().saturating_sub(intended(number, per_second)));
        }
        latencies
    }

    async fn exchange(&mut self, request: &[u8]) {
        if self.is_new_each_time {
            self.stream = Some(connect(self.port).await);
        }
        let stream = self.stream.as_mut().unwrap();
        stream.write_all(request).await.unwrap();
        let (mut answer, mut length) = ([0; 1024], 0);
        while !is_whole(&answer[..length]) {
            let read = stream.read(&mut answer[length..]).await.unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer[..length]));
            length += read;
        }
        let is_accepted = answer.starts_with(b"HTTP/1.1 200");
        assert!(is_accepted, "{}", String::from_utf8_lossy(&answer[..length]));
    }
}

async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// All answers here end with the one object that is their body.
fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"}")
}
