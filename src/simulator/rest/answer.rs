//! One request, and what it is answered.

use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};

use super::query::Query;
use super::{Fault, Shared};

const REQUESTS: &str = "/v1/rest/requests";

/// Seconds that whoever is too quick, or comes in a bad moment, is asked to wait.
const WAIT_SECONDS: &str = "1";

/// The error breaks the connection.
pub(super) fn answer(shared: &Shared, request: &Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let fault = shared.fault();
    Ok(match fault {
        Some(Fault::Cut) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Fault::Internal) => error(StatusCode::INTERNAL_SERVER_ERROR, "a fault, on purpose"),
        Some(Fault::Overloaded) => later(StatusCode::SERVICE_UNAVAILABLE, "a fault, on purpose"),
        None if !shared.is_within_rate() => later(StatusCode::TOO_MANY_REQUESTS, "too many requests"),
        None if !is_authorized(shared, request) => error(StatusCode::UNAUTHORIZED, "unauthorized"),
        None if request.method() != Method::GET => error(StatusCode::METHOD_NOT_ALLOWED, "wanted GET"),
        None => found(shared, request.uri().path(), request.uri().query().unwrap_or_default()),
    })
}

fn is_authorized(shared: &Shared, request: &Request<Incoming>) -> bool {
    let sent =
        request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    sent.is_some_and(|sent| (shared.token)().is_some_and(|token| sent == token))
}

fn found(shared: &Shared, path: &str, query: &str) -> Response<Full<Bytes>> {
    if path == REQUESTS {
        return match Query::parse(query) {
            Ok(query) => page(shared, &query),
            Err(wrong) => error(StatusCode::BAD_REQUEST, &wrong),
        };
    }
    let id = path.strip_prefix(REQUESTS).and_then(|rest| rest.strip_prefix('/')?.parse().ok());
    match id.and_then(|id| shared.requests.json(id)) {
        Some(request) => json(StatusCode::OK, format!(r#"{{"request":{request}}}"#)),
        None => error(StatusCode::NOT_FOUND, "not found"),
    }
}

fn page(shared: &Shared, query: &Query) -> Response<Full<Bytes>> {
    let page = shared.requests.page(query);
    let cursor = page.next.map(|next| format!(r#""next_cursor":"{}","#, next.encoded())).unwrap_or_default();
    let (requests, count) = (page.requests.join(","), page.requests.len());
    json(
        StatusCode::OK,
        format!(r#"{{"requests":[{requests}],"response_metadata":{{{cursor}"count":{count}}}}}"#),
    )
}

fn later(status: StatusCode, what: &str) -> Response<Full<Bytes>> {
    let mut response = error(status, what);
    response.headers_mut().insert(RETRY_AFTER, hyper::header::HeaderValue::from_static(WAIT_SECONDS));
    response
}

fn error(status: StatusCode, what: &str) -> Response<Full<Bytes>> {
    json(status, format!(r#"{{"error":"{what}"}}"#))
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}
