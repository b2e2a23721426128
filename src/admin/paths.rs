//! Every path of the admin port, and the statuses that they answer.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;

use super::page;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Reason;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus's text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Answers a request. Reading is all that can be done here.
pub(super) fn answer(
    method: &Method,
    path: &str,
    metrics: &Metrics,
    health: &Health,
    now: Instant,
) -> Response<Full<Bytes>> {
    // Before the path is looked at: there is no path on which anything else would be allowed.
    if method != Method::GET && method != Method::HEAD {
        return only_reading();
    }
    match path {
        "/" => html(page::render(&health.status(metrics, now))),
        "/metrics" => text(StatusCode::OK, METRICS, rendered(metrics, health)),
        "/livez" => livez(health, now),
        "/readyz" => readyz(health),
        "/status" => json(StatusCode::OK, &health.status(metrics, now)),
        _ => text(StatusCode::NOT_FOUND, TEXT, "no such path\n".to_owned()),
    }
}

fn only_reading() -> Response<Full<Bytes>> {
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    refused
}

fn rendered(metrics: &Metrics, health: &Health) -> String {
    // Asked at each scrape, so that the metric and `/readyz` cannot differ.
    metrics.process.ready.set(i64::from(health.readiness().are_none()));
    metrics.render()
}

/// The body of both probes.
#[derive(Serialize)]
struct Probe<R> {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<R>,
}

fn livez(health: &Health, now: Instant) -> Response<Full<Bytes>> {
    match health.stuck(now) {
        None => json(StatusCode::OK, &Probe::<String> { status: "alive", reasons: Vec::new() }),
        Some(reason) => {
            json(StatusCode::SERVICE_UNAVAILABLE, &Probe { status: "stuck", reasons: vec![reason] })
        }
    }
}

fn readyz(health: &Health) -> Response<Full<Bytes>> {
    let reasons: Vec<Reason> = health.readiness().pressing();
    if reasons.is_empty() {
        json(StatusCode::OK, &Probe { status: "ready", reasons })
    } else {
        json(StatusCode::SERVICE_UNAVAILABLE, &Probe { status: "not ready", reasons })
    }
}

fn html(page: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, HTML, page);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(body) => text(status, JSON, body + "\n"),
        // Only a map with keys that are no strings cannot be written, and nothing here has one.
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
