//! The floor: the least that an intake could cost. hyper, HMAC, the event's envelope, and the inbox record into librdkafka
//! with acks=all and idempotence; the answer when it is acknowledged. No limits, no metrics, no log, no time-outs.
//!
//! Of the product it uses nothing, so that what makes the product faster or slower leaves the floor where it is. The
//! record is the one that the relay writes: a forward half can be started over what the floor wrote.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

struct Floor {
    secret: Hmac<Sha256>,
    url: String,
    topic: String,
    producer: FutureProducer,
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

/// Serves until it is killed.
pub fn run(port: u16, servers: &str, topic: &str, (url, secret): (&str, &str)) {
    let floor = Arc::new(Floor {
        secret: Hmac::new_from_slice(secret.as_bytes()).unwrap(),
        url: url.to_owned(),
        topic: topic.to_owned(),
        producer: client(servers).create().unwrap(),
    });
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let floor = Arc::clone(&floor);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let floor = Arc::clone(&floor);
                    async move { Ok::<_, Infallible>(floor.answer(request).await) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

impl Floor {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
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
        self.send(&envelope, &head.headers, timestamp, &body)?.await.ok()?.ok().map(drop)
    }

    fn send(
        &self,
        envelope: &Envelope<'_>,
        headers: &HeaderMap,
        timestamp: &str,
        body: &[u8],
    ) -> Option<rdkafka::producer::DeliveryFuture> {
        let request = envelope.request.as_ref().map(|request| request.id.to_string());
        let key = request.as_deref().unwrap_or(&envelope.id);
        let (received, digest) =
            (format!("{:.9}", jiff::Timestamp::now()), hex::encode(Sha256::digest(body)));
        let fields = [
            ("v", Some("1")),
            ("source", Some("main")),
            ("received", Some(&received)),
            ("retry", header(headers, "x-cf-retry-count")),
            ("timestamp", Some(timestamp)),
            ("id", Some(&envelope.id)),
            ("request", request.as_deref()),
            ("type", Some(&envelope.kind)),
            ("sub_type", envelope.sub_type.as_deref()),
            ("body-sha256", Some(&digest)),
            ("content-type", header(headers, CONTENT_TYPE.as_str())),
        ];
        let mut record_headers = OwnedHeaders::new_with_capacity(fields.len());
        for (key, value) in fields {
            if value.is_some() {
                record_headers = record_headers.insert(Header { key, value });
            }
        }
        let record = FutureRecord::to(&self.topic).key(key).payload(body).headers(record_headers);
        self.producer.send_result(record).ok()
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
