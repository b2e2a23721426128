//! Every answer that the intake port gives, and the one place that names HTTP statuses for it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::telemetry::labels::Outcome;

/// What a sender may be told to wait before it tries again, in seconds: Kafka's leader elections are over by then.
const RETRY_AFTER_SECONDS: &str = "5";

/// An answer; the texts say what is wrong with the HTTP and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// All in-sync replicas have it.
    Accepted,
    /// On this node's disk, for Kafka does not acknowledge.
    Spooled,
    /// A ping: nothing was stored.
    Pong,
    /// The HTTP is malformed or ambiguous.
    BadRequest(&'static str),
    /// Not proven to be ClearFeed's; why is the log's to say.
    NotAuthenticated,
    /// No source has this path.
    NotFound,
    /// Not `POST`, nor `GET` or `HEAD` without a body.
    MethodNotAllowed,
    /// The head did not arrive within `intake.header_timeout`, or the body within `intake.body_timeout`.
    TooSlow,
    /// The head has more bytes or headers than there may be.
    HeadTooLarge,
    /// The body is larger than `intake.max_body`.
    TooLarge,
    /// The body is encoded: what is signed are the bytes as they are.
    Encoded,
    /// It cannot be stored now.
    Unavailable(&'static str),
}

impl Answer {
    /// The metric's label.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Accepted => Outcome::Accepted,
            Self::Spooled => Outcome::Spooled,
            Self::Pong => Outcome::Pong,
            Self::BadRequest(_) => Outcome::BadRequest,
            Self::NotAuthenticated => Outcome::Unauthenticated,
            Self::NotFound => Outcome::NotFound,
            Self::MethodNotAllowed => Outcome::Method,
            Self::TooSlow => Outcome::TooSlow,
            Self::HeadTooLarge => Outcome::HeadTooLarge,
            Self::TooLarge => Outcome::TooLarge,
            Self::Encoded => Outcome::Encoded,
            Self::Unavailable(_) => Outcome::Unavailable,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            // Exactly 200: ClearFeed's ping accepts nothing else.
            Self::Accepted | Self::Spooled | Self::Pong => StatusCode::OK,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotAuthenticated => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn body(self) -> String {
        let error = match self {
            Self::Accepted => return r#"{"status":"accepted"}"#.to_owned(),
            Self::Spooled => return r#"{"status":"spooled"}"#.to_owned(),
            Self::Pong => return r#"{"status":"pong"}"#.to_owned(),
            Self::BadRequest(error) | Self::Unavailable(error) => error,
            Self::NotAuthenticated => "not authenticated",
            Self::NotFound => "no source has this path",
            Self::MethodNotAllowed => "wanted POST, or GET or HEAD without a body",
            Self::TooSlow => "the request did not arrive in time",
            Self::HeadTooLarge => "the request's head is too large",
            Self::TooLarge => "the body is too large",
            Self::Encoded => "wanted a body without Content-Encoding",
        };
        format!(r#"{{"error":"{error}"}}"#)
    }

    /// Whether what follows on the connection cannot be told from the rest of this request.
    fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest(_) | Self::TooSlow | Self::HeadTooLarge | Self::TooLarge | Self::Encoded
        )
    }

    /// The response; `is_last` tells the sender to take its next request elsewhere.
    pub fn into_response(self, is_last: bool) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if is_last || self.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        match self {
            Self::MethodNotAllowed => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
            }
            Self::Unavailable(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        response
    }
}
