//! The floor: the least that an intake could cost. hyper, HMAC, the event's envelope, and the inbox record into librdkafka
//! with acks=all and idempotence; the answer when it is acknowledged. No limits, no metrics, no log, no time-outs.
//!
//! Of the product it uses nothing, so that what makes the product faster or slower leaves the floor where it is. The
//! record is the one that the relay writes: a forward half can be started over what the floor wrote, and one that is a
//! floor, too (`floor_forward.rs`), beside it.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::stage::FORWARDED;

struct Floor {
    secret: Hmac<Sha256>,
    url: String,
    topic: String,
    producer: BaseProducer<Acknowledgements>,
    forwarded: Arc<AtomicU64>,
}

/// Tells who waits for a record whether it was acknowledged.
struct Acknowledgements;

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<oneshot::Sender<bool>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let _ = waiting.send(result.is_ok());
    }
}

/// What the record's headers tell of the body.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    sub_type: Option<Cow<'a, str>>,
    request: Option<RequestId>,
}

#[derive(Deserialize)]
struct RequestId {
    id: u64,
}

/// The producer's settings, which the measurement of the broker's own acknowledgement shares.
pub fn client(servers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", servers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0") // as the relay has it
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", "2000000");
    client
}

/// Serves until it is killed; tells in place of metrics what is forwarded.
pub fn run(port: u16, servers: &str, topic: &str, (url, secret): (&str, &str), forwarded: Arc<AtomicU64>) {
    let floor = Arc::new(Floor {
        secret: Hmac::new_from_slice(secret.as_bytes()).unwrap(),
        url: url.to_owned(),
        topic: topic.to_owned(),
        producer: client(servers).create_with_context(Acknowledgements).unwrap(),
        forwarded,
    });
    let polled = Arc::clone(&floor);
    // Not `FutureProducer`, which spins through the last millisecond of each 100: 1 % of a core, for nothing.
    std::thread::spawn(move || {
        loop {
            polled.producer.poll(Duration::from_millis(500));
        }
    });
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let floor = Arc::clone(&floor);
            tokio::spawn(async move {
                let answer = |request| async { Ok::<_, Infallible>(floor.answer(request).await) };
                let _ =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
}

impl Floor {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() == Method::GET {
            let forwarded = self.forwarded.load(Ordering::Relaxed);
            return Response::new(Full::from(format!("{FORWARDED}}} {forwarded}\n")));
        }
        let (status, body) = match self.keep(request).await {
            Some(()) => (StatusCode::OK, r#"{"status":"accepted"}"#),
            None => (StatusCode::BAD_REQUEST, r#"{"error":"not kept"}"#),
        };
        let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
        answer.body(Full::from(body)).unwrap()
    }

    async fn keep(&self, request: Request<Incoming>) -> Option<()> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let timestamp = header(&head.headers, "x-cf-timestamp")?;
        let mut signature = [0; 32];
        hex::decode_to_slice(header(&head.headers, "x-cf-signature")?, &mut signature).ok()?;
        let mut mac = self.secret.clone();
        for part in [b"POST", self.url.as_bytes(), &body, timestamp.as_bytes()] {
            mac.update(part);
        }
        mac.verify_slice(&signature).ok()?;
        let envelope: Envelope<'_> = serde_json::from_slice(&body).ok()?;
        let request = envelope.request.as_ref().map(|request| request.id.to_string());
        let key = request.as_deref().unwrap_or(&envelope.id);
        let (received, digest) =
            (format!("{:.9}", jiff::Timestamp::now()), hex::encode(Sha256::digest(&body)));
        let fields = [
            ("v", Some("1")),
            ("source", Some("main")),
            ("received", Some(&received)),
            ("retry", header(&head.headers, "x-cf-retry-count")),
            ("timestamp", Some(timestamp)),
            ("id", Some(&envelope.id)),
            ("request", request.as_deref()),
            ("type", Some(&envelope.kind)),
            ("sub_type", envelope.sub_type.as_deref()),
            ("body-sha256", Some(&digest)),
            ("content-type", header(&head.headers, CONTENT_TYPE.as_str())),
        ];
        let fields = fields.into_iter().filter(|(_, value)| value.is_some());
        let (waiting, acknowledged) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(waiting)).key(key).payload(&body[..]);
        self.producer.send(record.headers(headers(fields))).ok()?;
        acknowledged.await.ok()?.then_some(())
    }
}

/// Names and values as librdkafka takes them.
pub fn headers<'a>(fields: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(fields.size_hint().1.unwrap_or_default());
    fields.fold(empty, |headers, (key, value)| headers.insert(Header { key, value }))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
