//! One POST as ClearFeed sends it, or as somebody sends it who pretends to be ClearFeed.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, http};

use super::target::Target;
use crate::domain::delivery::header;
use crate::domain::signature::{Secret, SignedMessage};

/// The highest retry count that ClearFeed documents.
pub(super) const LAST_RETRY: u8 = 3;

/// A delivery, ready to be sent any number of times.
///
/// Sending the same one twice is a replay. The signature covers body and timestamp but not the retry count,
/// so the fields may be changed at will: what results is just what an attacker with a captured delivery can
/// make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The body's bytes.
    pub body: Bytes,
    /// `X-CF-Timestamp`: when the event occurred, in seconds since 1970; the same for its redeliveries.
    pub timestamp: String,
    /// `X-CF-Retry-Count`: 0 to 3.
    pub retry_count: u8,
    /// `X-CF-Signature`, lower-case hex; none: the header is left out.
    pub signature: Option<String>,
}

impl Delivery {
    /// A first delivery as ClearFeed makes it: signed over `POST`, the URL, the body and the timestamp.
    pub fn signed(secret: &Secret, url: &str, body: impl Into<Bytes>, timestamp: u64) -> Self {
        let (body, timestamp) = (body.into(), timestamp.to_string());
        let message =
            SignedMessage { verb: Method::POST.as_str(), url, body: &body, timestamp: timestamp.as_bytes() };
        let signature = Some(hex::encode(secret.sign(&message)));
        Self { body, timestamp, retry_count: 0, signature }
    }

    /// The test ping of an endpoint that is being saved. Its form is not documented; the relay takes this one
    /// for a ping.
    pub fn ping(secret: &Secret, url: &str, timestamp: u64) -> Self {
        Self::signed(secret, url, r#"{"type":"ping"}"#, timestamp)
    }

    /// The same event once more, with this retry count.
    #[must_use]
    pub fn redelivered(&self, retry_count: u8) -> Self {
        Self { retry_count, ..self.clone() }
    }

    /// A forgery: another body under the signature of this one.
    #[must_use]
    pub fn with_body(&self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self.clone() }
    }

    /// The same without a signature.
    #[must_use]
    pub fn unsigned(&self) -> Self {
        Self { signature: None, ..self.clone() }
    }

    /// The request for this target. The error is a header that HTTP cannot carry.
    pub(super) fn request(&self, target: &Target) -> Result<Request<Full<Bytes>>, http::Error> {
        let request = Request::post(target.path())
            .header(HOST, target.authority())
            .header(CONTENT_TYPE, "application/json")
            .header(header::TIMESTAMP, &self.timestamp)
            .header(header::RETRY_COUNT, u16::from(self.retry_count));
        let request = match &self.signature {
            Some(signature) => request.header(header::SIGNATURE, signature),
            None => request,
        };
        request.body(Full::new(self.body.clone()))
    }
}

/// Now, as `X-CF-Timestamp` has it: seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::signature::{Keyring, Signature, SignedUrl};

    const URL: &str = "https://hooks.example.com/clearfeed/events";

    fn verifies(secret: &Secret, delivery: &Delivery) -> bool {
        let signature = Signature::from_hex(delivery.signature.as_ref().unwrap().as_bytes()).unwrap();
        let (url, timestamp) = (SignedUrl::parse(URL).unwrap(), delivery.timestamp.as_bytes());
        Keyring::new(vec![Some(secret.clone())])
            .verify("POST", &url, &delivery.body, timestamp, &signature)
            .is_some()
    }

    #[test]
    fn a_signed_delivery_verifies_and_a_forged_one_does_not() {
        let secret = Secret::new(b"sixteen bytes or more").unwrap();
        let delivery = Delivery::signed(&secret, URL, "{}", 1_793_901_532);
        assert!(verifies(&secret, &delivery));
        assert!(verifies(&secret, &delivery.redelivered(3)), "the retry count is not signed");
        assert!(!verifies(&secret, &delivery.with_body("{ }")));
        let later = Delivery { timestamp: "1793901533".to_owned(), ..delivery };
        assert!(!verifies(&secret, &later));
    }

    #[test]
    fn the_request_is_what_clearfeed_sends() {
        let secret = Secret::new(b"sixteen bytes or more").unwrap();
        let delivery = Delivery::signed(&secret, URL, "{}", 1_793_901_532).redelivered(2);
        let request = delivery.request(&Target::parse("http://127.0.0.1:8080/a?b=c").unwrap()).unwrap();
        assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::POST, "/a?b=c"));
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("host"), Some("127.0.0.1:8080"));
        assert_eq!(header("content-type"), Some("application/json"));
        assert_eq!(header("x-cf-timestamp"), Some("1793901532"));
        assert_eq!(header("x-cf-retry-count"), Some("2"));
        assert_eq!(header("x-cf-signature"), delivery.signature.as_deref());
    }
}
