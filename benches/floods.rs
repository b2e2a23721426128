//! What strangers cost: 200 deliveries/s of ClearFeed's are answered while others flood the same listener, a flood a row.
//!
//!     cargo bench --bench floods     (three minutes)
//!
//! Latencies are the simulator's, from the first byte sent to the answer; memory is the relay's highest resident set. Broker,
//! relay, simulator and flood share the machine, so a flood that costs CPU time also takes it from the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a program for developers")]
#![allow(clippy::pedantic, reason = "helps the product; such a program is read more than called")]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "names of helpers tell what they do")]

#[allow(dead_code, unused_imports, reason = "the promises use the rest")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clearfeed_relay::domain::signature::Secret;
use support::deployment::PATH;
use support::simulator::{Settings, load, rate};
use support::{Deployment, Kafka, Relay, Simulation, http, memory_mib, pause};

const HONEST_PER_SECOND: u32 = 200;
const HONEST: u64 = 2000;
/// The flood is all there, and what it broke at first has settled.
const UNTIL_THERE: Duration = Duration::from_secs(4);
/// `intake.max_connections`, the default.
const PLACES: usize = 10_000;

/// Where to, what a signed request looks like, and until when.
struct Flood<'a> {
    relay: &'a Relay,
    head: String,
    is_over: &'a AtomicBool,
}

impl Flood<'_> {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn address(&self) -> SocketAddr {
        self.relay.intake()
    }

    /// Keeps so many connections, each begun with these bytes; once a second each sends one more byte. What is closed is
    /// opened anew.
    fn trickle(&self, connections: usize, begun: &[u8]) {
        let mut open: Vec<Option<TcpStream>> = (0..connections).map(|_| None).collect();
        while self.goes_on() {
            for stream in &mut open {
                if stream.as_mut().is_none_or(|stream| stream.write_all(b"x").is_err()) {
                    *stream = self.begin(begun);
                }
            }
            pause(Duration::from_secs(1));
        }
    }

    /// Says nothing on more connections than there are places. What is closed is opened anew.
    fn idle(&self) {
        let mut open: Vec<Option<TcpStream>> = (0..PLACES + 2000).map(|_| None).collect();
        while self.goes_on() {
            for stream in &mut open {
                let is_open = stream.as_mut().is_some_and(|stream| is_blocked(&stream.read(&mut [0])));
                if !is_open {
                    *stream = self.begin(b"");
                }
            }
            pause(Duration::from_millis(500));
        }
    }

    /// A connection that blocks nobody.
    fn begin(&self, bytes: &[u8]) -> Option<TcpStream> {
        let stream = http::begin(self.address(), bytes).ok()?;
        stream.set_nonblocking(true).unwrap();
        Some(stream)
    }

    /// Sends requests and takes nothing of the answers.
    fn deaf(&self) {
        let request = format!("GET {PATH} HTTP/1.1\r\nhost: a\r\n\r\n").repeat(20);
        let mut open: Vec<Option<TcpStream>> = (0..500).map(|_| None).collect();
        while self.goes_on() {
            for stream in &mut open {
                let sent = stream.as_mut().map(|stream| stream.write(request.as_bytes()));
                if !sent.is_some_and(|sent| sent.is_ok() || is_blocked(&sent)) {
                    *stream = self.begin(b"");
                }
            }
            pause(Duration::from_secs(1));
        }
    }

    fn churn(&self) {
        while self.goes_on() {
            drop(http::begin(self.address(), b"POST"));
        }
    }

    /// All of a body of 1 MiB but its last byte.
    fn endless(&self) {
        let begun = [self.head.as_bytes(), &vec![b'x'; (1 << 20) - 1]].concat();
        std::thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    while self.goes_on() {
                        let Ok(mut stream) = http::begin(self.address(), &begun) else { continue };
                        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                        while self.goes_on() && is_blocked(&stream.read(&mut [0; 512])) {}
                    }
                });
            }
        });
    }
}

fn is_blocked<T>(result: &std::io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

fn main() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let cluster = Kafka::own(1);
    println!(
        "{:<44} {:>12} {:>8} {:>8} {:>8} {:>9} {:>11}",
        "flood", "accepted", "p50, ms", "p99, ms", "max, ms", "memory", "connections"
    );
    measure(&cluster, "none", |_| ());
    measure(&cluster, "12,000 idle connections", |flood| flood.idle());
    measure(&cluster, "2,000 heads of a byte a second", |flood| {
        flood.trickle(2000, b"POST / HTTP/1.1\r\nx: ");
    });
    measure(&cluster, "2,000 bodies of a byte a second", |flood| {
        flood.trickle(2000, flood.head.as_bytes());
    });
    measure(&cluster, "500 that ask 20 times/s and take no answers", |flood| flood.deaf());
    measure(&cluster, "connections that come and go", |flood| flood.churn());
    measure(&cluster, "100 bodies of 1 MiB that never end", |flood| flood.endless());
    let refused_per_second = refusals(&cluster);
    println!("(wrong signatures alone are refused at {refused_per_second:.0}/s)");
    measure(&cluster, "wrong signatures at half that rate", |flood| {
        let running =
            Simulation::start_signed(wrong(flood.relay, Some(refused_per_second / 2.0)), stranger());
        while flood.goes_on() {
            pause(Duration::from_millis(50));
        }
        running.stop();
    });
}

fn stranger() -> Secret {
    Secret::new(b"a secret of somebody else").unwrap()
}

fn wrong(relay: &Relay, per_second: Option<f64>) -> Settings {
    let rate = per_second.and_then(|per_second| rate(per_second as u32));
    Settings { rate, ..load(vec![relay.target()], 1_000_000, 1000) }
}

/// How many wrong signatures a second are refused where nothing else comes.
fn refusals(cluster: &Kafka) -> f64 {
    let relay = Deployment::new("refusals", cluster).relay().up();
    let running = Simulation::start_signed(wrong(&relay, None), stranger());
    pause(Duration::from_secs(5));
    let summary = running.stop().summary;
    summary.sent as f64 / summary.elapsed_s
}

fn measure(cluster: &Kafka, name: &str, flood: impl Fn(&Flood<'_>) + Sync) {
    let deployment = Deployment::new("floods", cluster);
    let relay = deployment.relay().up();
    let is_over = AtomicBool::new(false);
    let head = http::head(PATH, &deployment.delivery("{}"), 1 << 20);
    let (honest, connections) = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&Flood { relay: &relay, head, is_over: &is_over }));
        pause(UNTIL_THERE);
        let settings = Settings { rate: rate(HONEST_PER_SECOND), ..load(vec![relay.target()], HONEST, 100) };
        let honest = Simulation::run(settings);
        let connections = relay.metric("http_connections");
        is_over.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
        (honest, connections)
    });
    let latency = &honest.summary.latency_ms;
    println!(
        "{name:<44} {:>6}/{HONEST:<5} {:>8.1} {:>8.1} {:>8.1} {:>5.0} MiB {connections:>11}",
        honest.summary.accepted_events,
        latency.p50.unwrap(),
        latency.p99.unwrap(),
        latency.max.unwrap(),
        memory_mib(relay.pid()).1
    );
}
