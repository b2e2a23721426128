//! The side port: metrics, health and status, for Prometheus, the kubelet and people. Never for the internet: the
//! intake port serves none of it.

mod chart;
mod moments;
mod page;
mod paths;
mod reconcile;
mod spool;
mod verdict;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// Connections at once; more wait in the listener's backlog. A scraper, two probes and some people need less than ten.
const MAX_CONNECTIONS: usize = 64;
/// A connection serves one request and lives no longer than this, so that 64 idle or slow ones cannot keep the probes
/// out for long. Prometheus itself gives up after 10 s by default.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(10);
/// Head of a request: there is nothing to wait for on a local network.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failed accept, which mostly means that file descriptors ran out; at once again would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// So often the counters of the last hour are looked at: a minute of it is right to this.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Serves until `shutdown`, which should come last of all: `/readyz` says that the process drains while it does.
/// Connections that are open then are closed at once.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = connection(stream, Arc::clone(&metrics), Arc::clone(&health), permit);
                    tokio::spawn(shutdown.clone().run_until_cancelled_owned(connection));
                }
                Err(error) => {
                    tracing::warn!(%error, "admin port cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    let sampling = async {
        let mut every = tokio::time::interval(SAMPLE_EVERY);
        loop {
            every.tick().await;
            health.sample(&metrics);
        }
    };
    let serving = async {
        tokio::join!(accepting, sampling);
    };
    shutdown.run_until_cancelled(serving).await;
}

async fn connection(
    stream: TcpStream,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    _permit: OwnedSemaphorePermit,
) {
    let answer = service_fn(|request: Request<Incoming>| {
        let answer: Result<Response<_>, Infallible> =
            Ok(paths::answer(request.method(), request.uri().path(), &metrics, &health, Instant::now()));
        std::future::ready(answer)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(CONNECTION_LIFETIME, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection broke"),
        Err(_) => tracing::debug!("admin connection was too slow"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::SocketAddr;

    use super::*;
    use crate::config::{Role, Setting};
    use crate::telemetry::health::{FORWARD_SILENCE_LIMIT, Identity};
    use crate::telemetry::labels::{Concern, HeldReason, Outcome};
    use crate::telemetry::metrics::ProcessLabels;
    use crate::telemetry::recent::Recent;
    use crate::telemetry::status::{Durable, ForwardStatus, PartitionState, PartitionStatus, SourceIdentity};

    struct Admin {
        address: SocketAddr,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        shutdown: CancellationToken,
        serving: tokio::task::JoinHandle<()>,
    }

    async fn admin(role: Role) -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new([("main", 1)], &ProcessLabels::of_role(role)).unwrap());
        let source = SourceIdentity {
            name: "main".into(),
            public_url: "https://hooks.example.com/events".into(),
            topic: "clearfeed.{type}".into(),
        };
        let setting = Setting {
            key: "kafka.properties.\"<b>\"".into(),
            value: "<script>alert(1)</script>".into(),
            whence: "the default".into(),
        };
        let identity =
            Identity { role, config_hash: "abc".into(), sources: vec![source], settings: vec![setting] };
        let health = Arc::new(Health::new(identity, Recent::default()));
        let shutdown = CancellationToken::new();
        let serving =
            tokio::spawn(serve(listener, Arc::clone(&metrics), Arc::clone(&health), shutdown.clone()));
        Admin { address, metrics, health, shutdown, serving }
    }

    impl Admin {
        /// Head and body of the answer; the relay closes the connection.
        async fn ask(&self, method: &str, path: &str) -> (String, String) {
            let request = format!("{method} {path} HTTP/1.1\r\nhost: relay\r\n\r\n");
            let mut stream = std::net::TcpStream::connect(self.address).unwrap();
            let answer = tokio::task::spawn_blocking(move || {
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            });
            let answer = answer.await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.to_ascii_lowercase(), body.to_owned())
        }

        async fn get(&self, path: &str) -> (u16, String) {
            let (head, body) = self.ask("GET", path).await;
            (head[9..12].parse().unwrap(), body)
        }
    }

    #[tokio::test]
    async fn ready_is_the_absence_of_concerns() {
        let admin = admin(Role::All).await;
        let starting = r#"{"status":"not ready","reasons":[{"reason":"starting","detail":"has not got through its start yet"}]}"#;
        assert_eq!(admin.get("/readyz").await, (503, format!("{starting}\n")));
        assert!(admin.get("/metrics").await.1.contains("\nclearfeed_relay_ready 0\n"));

        admin.health.intake().clear(Concern::Starting);
        // Forward is still starting, which is nothing to intake.
        assert_eq!(admin.get("/readyz").await, (200, "{\"status\":\"ready\"}\n".into()));
        assert!(admin.get("/metrics").await.1.contains("\nclearfeed_relay_ready 1\n"));

        admin.health.intake().set(Concern::KafkaUnreachable, "no answer from localhost:9092");
        let (status, body) = admin.get("/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains(r#"{"reason":"kafka_unreachable","detail":"no answer from localhost:9092"}"#));
    }

    #[tokio::test]
    async fn livez_tells_a_stuck_forward_thread() {
        let admin = admin(Role::Forward).await;
        assert_eq!(admin.get("/livez").await, (200, "{\"status\":\"alive\"}\n".into()));
        admin.health.forward_beat(Instant::now());
        assert_eq!(admin.get("/livez").await.0, 200);
        let later = Instant::now() + FORWARD_SILENCE_LIMIT + Duration::from_secs(1);
        let response = paths::answer(&hyper::Method::GET, "/livez", &admin.metrics, &admin.health, later);
        assert_eq!(response.status(), 503);
    }

    #[tokio::test]
    async fn status_tells_what_is_held_and_why() {
        let admin = admin(Role::Forward).await;
        let state =
            PartitionState::Held { reason: HeldReason::LedgerGone, detail: "set forward.start_at".into() };
        let partition = PartitionStatus {
            partition: 3,
            state,
            since: jiff::Timestamp::UNIX_EPOCH,
            next_offset: None,
            lag: Some(7),
            window_ids: 0,
            ledger: None,
        };
        admin.health.set_forward(ForwardStatus { owned: vec![partition], ..ForwardStatus::default() });
        admin.health.update_kafka(|kafka| kafka.durable = Durable::No);
        let accepted = "2025-01-02T03:04:05Z";
        admin.metrics.source("main").unwrap().accepted(accepted.parse().unwrap());

        let (head, body) = admin.ask("GET", "/status").await;
        assert!(head.contains("content-type: application/json"), "{head}");
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status["role"], "forward");
        assert_eq!(status["config_hash"], "abc");
        assert_eq!(status["durable"], "no");
        assert_eq!(status["intake"], serde_json::Value::Null);
        assert_eq!(status["sources"][0]["topic"], "clearfeed.{type}");
        assert_eq!(status["sources"][0]["last_accepted"], accepted);
        let owned = &status["forward"]["owned"][0];
        assert_eq!(owned["state"], "held");
        assert_eq!(owned["reason"], "ledger_gone");
        assert_eq!(owned["since"], "1970-01-01T00:00:00Z");
    }

    #[tokio::test]
    async fn the_page_says_what_status_says_and_runs_nothing() {
        let admin = admin(Role::All).await;
        admin.health.sample(&admin.metrics);
        admin.health.intake().clear(Concern::Starting);
        admin.health.forward().clear(Concern::Starting);
        admin.health.update_kafka(|kafka| kafka.durable = Durable::Yes);
        let main = admin.metrics.source("main").unwrap();
        admin.metrics.answered(Some(main), Outcome::Accepted, Duration::ZERO);
        let (head, body) = admin.ask("GET", "/").await;
        assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none'; style-src 'sha256-"), "{head}");
        assert!(body.contains("<strong>Healthy</strong>"), "{body}");
        assert!(
            body.contains("1 accepted") && body.contains("Nothing was refused since the start."),
            "{body}"
        );
        assert!(
            body.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !body.contains("<script"),
            "{body}"
        );
        assert!(!body.contains("style=\""), "the policy would not let it in: {body}");

        let detail = "no answer from kafka:9092";
        admin.health.intake().set(Concern::KafkaUnreachable, detail);
        admin.metrics.answered(Some(main), Outcome::Unavailable, Duration::ZERO);
        let (_, body) = admin.ask("GET", "/").await;
        assert!(body.contains("<strong>Not ready</strong>") && body.contains(detail), "{body}");
        assert!(body.contains(">unavailable</td>"), "{body}");
    }

    #[tokio::test]
    async fn only_known_paths_and_reading() {
        let admin = admin(Role::All).await;
        let (head, body) = admin.ask("GET", "/metrics").await;
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert!(body.contains("clearfeed_relay_build_info{"));
        let (head, body) = admin.ask("HEAD", "/livez").await;
        assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 19"), "{head}");
        assert_eq!(body, "");
        let (head, _) = admin.ask("POST", "/status").await;
        assert!(head.starts_with("http/1.1 405") && head.contains("allow: get, head"), "{head}");
        assert_eq!(admin.get("/").await.0, 200);
        for path in ["/clearfeed/events", "/livez/", "/status/x", "//metrics"] {
            assert_eq!(admin.get(path).await.0, 404, "{path}");
        }
    }

    #[tokio::test]
    async fn silent_connections_do_not_keep_the_probes_out() {
        let admin = admin(Role::All).await;
        let silent: Vec<_> =
            (0..MAX_CONNECTIONS).map(|_| std::net::TcpStream::connect(admin.address).unwrap()).collect();
        let asked = Instant::now();
        assert_eq!(admin.get("/livez").await.0, 200);
        assert!(asked.elapsed() < CONNECTION_LIFETIME);
        drop(silent);
    }

    #[tokio::test]
    async fn shutdown_ends_it_whatever_is_open() {
        let admin = admin(Role::All).await;
        let _silent = std::net::TcpStream::connect(admin.address).unwrap();
        admin.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(2), admin.serving).await.unwrap().unwrap();
        assert!(std::net::TcpStream::connect(admin.address).is_err());
    }
}
