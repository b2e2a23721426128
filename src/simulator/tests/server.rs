//! A server on the loopback that understands deliveries, and keeps them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{SIGNED_URL, Target, secret};
use crate::domain::event::{Reading, read};
use crate::domain::signature::{Keyring, Signature, SignedUrl};

/// One delivery as the server got it, and what it was answered.
#[derive(Debug, Clone)]
pub(super) struct Received {
    /// The request's id; none for a ping.
    pub(super) request: Option<u64>,
    pub(super) event: String,
    pub(super) sub_type: String,
    pub(super) retry_count: u8,
    pub(super) timestamp: String,
    pub(super) body: Bytes,
    /// How many deliveries of the same request were being answered meanwhile.
    pub(super) alongside: usize,
    pub(super) status: u16,
}

/// What the server answers: the status, and whether it closes the connection.
type Answering = dyn Fn(&Received) -> (u16, bool) + Send + Sync;

/// A server that keeps what it got, and fails the test on a delivery that ClearFeed would not have sent.
pub(super) struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    pub(super) async fn answering(answer: impl Fn(&Received) -> (u16, bool) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), received: Arc::default() };
        let (answer, received): (Arc<Answering>, _) = (Arc::new(answer), Arc::clone(&server.received));
        let busy = Arc::default();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, received, busy) =
                    (Arc::clone(&answer), Arc::clone(&received), Arc::clone(&busy));
                let service = service_fn(move |request| {
                    respond(request, Arc::clone(&answer), Arc::clone(&received), Arc::clone(&busy))
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        server
    }

    pub(super) fn target(&self) -> Target {
        Target::parse(&format!("http://{}/clearfeed/events", self.address)).unwrap()
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

async fn respond(
    request: Request<Incoming>,
    answer: Arc<Answering>,
    received: Arc<Mutex<Vec<Received>>>,
    busy: Arc<Mutex<HashMap<Option<u64>, usize>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let mut delivery = understood(&parts, body.collect().await.unwrap().to_bytes());
    delivery.alongside = {
        let mut busy = busy.lock().unwrap();
        let count = busy.entry(delivery.request).or_default();
        std::mem::replace(count, *count + 1)
    };
    // Whoever else has something to send for this request gets the chance to.
    tokio::task::yield_now().await;
    let (status, closes) = answer(&delivery);
    delivery.status = status;
    *busy.lock().unwrap().entry(delivery.request).or_default() -= 1;
    received.lock().unwrap().push(delivery);
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}\n")));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn understood(parts: &hyper::http::request::Parts, body: Bytes) -> Received {
    let header = |name: &str| parts.headers[name].to_str().unwrap().to_owned();
    let (timestamp, signature) = (header("x-cf-timestamp"), header("x-cf-signature"));
    assert_eq!(signature, signature.to_ascii_lowercase());
    let url = SignedUrl::parse(SIGNED_URL).unwrap();
    let signature = Signature::from_hex(signature.as_bytes()).unwrap();
    let matched =
        Keyring::new(vec![Some(secret())]).verify("POST", &url, &body, timestamp.as_bytes(), &signature);
    assert!(matched.is_some() && parts.method == "POST" && parts.uri.path() == url.path_and_query());
    let (request, event, sub_type) = match read(&body) {
        Reading::Event(event) => (event.request, event.id.into_owned(), event.sub_type.unwrap().into_owned()),
        Reading::Ping => (None, String::new(), String::new()),
        Reading::Malformed(malformed) => panic!("{}", malformed.reason),
    };
    let retry_count = header("x-cf-retry-count").parse().unwrap();
    Received { request, event, sub_type, retry_count, timestamp, body, alongside: 0, status: 0 }
}
