//! What happens to a request: from its head to its answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use hyper::{Method, Request};
use jiff::Timestamp;
use prometheus::IntGauge;
use tokio::sync::Semaphore;

use super::answer::Answer;
use super::body::{self, BodyError};
use super::budget::Budget;
use super::connections::Connection;
use super::keeper::{KeepError, Keeper, Kept};
use super::peer::TrustedProxies;
use crate::config::{self, Config};
use crate::domain::delivery::{
    AgeLimits, AuthenticDelivery, Claim, HeaderValue, RawDelivery, Refusal, header,
};
use crate::domain::event::{self, Reading};
use crate::domain::inbox_record::{InboxRecord, Unsigned};
use crate::domain::signature::{Keyring, SignedUrl};
use crate::telemetry::labels::{Outcome, Retry};
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::refusals::Refused;

/// The largest body in which an unsigned ping is looked for.
const MAX_PING_BYTES: usize = 1024;
/// The longest unsigned header that is passed on.
const MAX_UNSIGNED_BYTES: usize = 256;

/// The secrets of a source, replaced whole when their files change.
pub type SharedKeyring = Arc<ArcSwap<Keyring>>;

/// All sources by the path and query that they are served under.
pub struct Endpoints {
    sources: BTreeMap<String, Source>,
    keeper: Arc<Keeper>,
    in_flight: Arc<Semaphore>,
    budget: Budget,
    proxies: TrustedProxies,
    max_body_bytes: usize,
    body_timeout: Duration,
    metrics: Arc<Metrics>,
}

struct Source {
    name: String,
    url: SignedUrl,
    keyring: SharedKeyring,
    limits: AgeLimits,
    accept_unsigned_ping: bool,
    metrics: Arc<metrics::Source>,
}

impl Source {
    fn new(
        name: &str,
        source: &config::Source,
        keyring: SharedKeyring,
        metrics: Arc<metrics::Source>,
    ) -> Self {
        let &config::Source { max_age, max_redelivery_age, max_clock_skew, accept_unsigned_ping, .. } =
            source;
        Self {
            name: name.to_owned(),
            url: source.public_url.clone(),
            keyring,
            limits: AgeLimits { max_age, max_redelivery_age, max_clock_skew },
            accept_unsigned_ping,
            metrics,
        }
    }
}

impl Endpoints {
    /// Takes the secrets of each source by its name. A source without secrets is not served.
    pub fn new(
        config: &Config,
        mut keyrings: BTreeMap<String, SharedKeyring>,
        keeper: Arc<Keeper>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let endpoint = |(name, source): (&String, &config::Source)| {
            let (keyring, metrics) = (keyrings.remove(name)?, Arc::clone(metrics.source(name)?));
            let served = source.public_url.path_and_query().to_owned();
            Some((served, Source::new(name, source, keyring, metrics)))
        };
        let limits = &config.intake;
        metrics.intake.buffered_limit_bytes.set(i64::try_from(limits.max_buffered_bytes).unwrap_or(i64::MAX));
        Self {
            sources: config.sources.iter().filter_map(endpoint).collect(),
            keeper,
            in_flight: Arc::new(Semaphore::new(limits.max_in_flight)),
            budget: Budget::new(limits.max_buffered_bytes, metrics.intake.buffered_bytes.clone()),
            proxies: TrustedProxies::new(limits.trusted_proxies.clone()),
            max_body_bytes: limits.max_body_bytes,
            body_timeout: limits.body_timeout,
            metrics,
        }
    }

    /// Counts what was no request.
    pub(super) fn refuse(&self, answer: Answer) -> Answer {
        self.metrics.refused_head(answer.outcome());
        answer
    }

    /// Answers a request, and counts it. Also says whether the request was read to its end.
    pub(super) async fn answer(&self, request: Request<Incoming>, connection: &Connection) -> (Answer, bool) {
        let source = self.source(&request);
        let mut count = Count::begin(&self.metrics, source.ok().map(|source| source.metrics.as_ref()));
        count.is_read = request.body().is_end_stream();
        let answer = match source {
            Ok(source) => self.answer_for(source, request, connection, &mut count).await,
            Err(answer) => answer,
        };
        count.outcome = answer.outcome();
        (answer, count.is_read)
    }

    /// The source that is asked for. Only the target counts: `Host` and `X-Forwarded-*` are the sender's to choose.
    fn source(&self, request: &Request<Incoming>) -> Result<&Source, Answer> {
        if request.method() == Method::CONNECT {
            return Err(Answer::MethodNotAllowed);
        }
        let uri = request.uri();
        if uri.scheme().is_some() || uri.authority().is_some() {
            return Err(Answer::BadRequest("wanted a request target that begins with /"));
        }
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        self.sources.get(target).ok_or(Answer::NotFound)
    }

    async fn answer_for(
        &self,
        source: &Source,
        request: Request<Incoming>,
        connection: &Connection,
        count: &mut Count<'_>,
    ) -> Answer {
        match *request.method() {
            Method::POST => {}
            Method::GET | Method::HEAD if request.body().is_end_stream() => return Answer::Pong,
            _ => return Answer::MethodNotAllowed,
        }
        if request.headers().contains_key(CONTENT_ENCODING) {
            return Answer::Encoded;
        }
        let (head, body) = request.into_parts();
        self.judge(source, &head, body, connection, count).await.unwrap_or_else(|reason| {
            // Only where the signature is right is the timestamp ClearFeed's.
            let timestamp = claim(&head.headers).map(|claim| claim.timestamp());
            let is_signed = matches!(reason, Refusal::TooOld | Refusal::TooNew);
            let age = timestamp.ok().filter(|_| is_signed).map(|time| Timestamp::now().duration_since(time));
            let peer = self.proxies.sender(connection.peer, &head.headers);
            source.metrics.refused(&Refused { reason, peer, age });
            Answer::NotAuthenticated
        })
    }

    /// Answers a ping, keeps a delivery that is proven to be ClearFeed's, and says of others why they are not.
    async fn judge(
        &self,
        source: &Source,
        head: &Parts,
        body: Incoming,
        connection: &Connection,
        count: &mut Count<'_>,
    ) -> Result<Answer, Refusal> {
        let claim = match claim(&head.headers) {
            Ok(claim) => Some(claim),
            // Without a signature it can only be a ping.
            Err(Refusal::NoSignature) if source.accept_unsigned_ping => None,
            Err(refusal) => return Err(refusal),
        };
        let max_bytes = if claim.is_some() { self.max_body_bytes } else { MAX_PING_BYTES };
        let buffered = match body::read(body, max_bytes, self.body_timeout, &self.budget).await {
            Ok(buffered) => buffered,
            Err(BodyError::TooLarge) if claim.is_none() => return Err(Refusal::NoSignature),
            Err(BodyError::TooLarge) => return Ok(Answer::TooLarge),
            Err(BodyError::TooSlow) => return Ok(Answer::TooSlow),
            Err(BodyError::NoRoom) => return Ok(Answer::Unavailable("too many bodies at once")),
            Err(BodyError::Broken) => {
                return Ok(Answer::BadRequest(
                    "the body is shorter than announced, or its chunks are malformed",
                ));
            }
        };
        count.is_read = true;
        let Some(claim) = claim else {
            let is_ping = event::read(&buffered.bytes) == Reading::Ping;
            return if is_ping { Ok(Answer::Pong) } else { Err(Refusal::NoSignature) };
        };
        let received = Timestamp::now();
        let raw = RawDelivery { verb: head.method.as_str(), claim, body: buffered.bytes.clone() };
        let delivery = raw.authenticate(&source.url, &source.keyring.load(), &source.limits, received)?;
        connection.prove_request();
        count.authenticated(delivery.retry());
        Ok(self.accept(source, &delivery, received, &head.headers).await)
    }

    /// Keeps an authentic delivery.
    async fn accept(
        &self,
        source: &Source,
        delivery: &AuthenticDelivery,
        received: Timestamp,
        headers: &HeaderMap,
    ) -> Answer {
        source.metrics.authenticated(delivery.matched(), delivery.retry());
        // Strangers, however many, take none of these.
        let Ok(_in_flight) = self.in_flight.try_acquire() else {
            return Answer::Unavailable("too many requests at once");
        };
        let age = received.duration_since(delivery.timestamp()).as_secs_f64().max(0.0);
        self.metrics.intake.event_age.observe(age);
        let unsigned = Unsigned {
            content_type: text(headers, &CONTENT_TYPE),
            traceparent: text(headers, &HeaderName::from_static("traceparent")),
        };
        let Some(record) = InboxRecord::new(&source.name, delivery, received, unsigned) else {
            return Answer::Pong;
        };
        let answer = self.keep(source, delivery, record).await;
        if matches!(answer, Answer::Accepted | Answer::Spooled) {
            source.metrics.accepted(received);
        }
        answer
    }

    async fn keep(&self, source: &Source, delivery: &AuthenticDelivery, record: InboxRecord) -> Answer {
        let key = record.key.clone();
        match self.keeper.keep(record).await {
            Ok(Kept::Inbox) => Answer::Accepted,
            Ok(Kept::Spool) => Answer::Spooled,
            Err(KeepError::Starting) => Answer::Unavailable("not ready yet"),
            Err(error) => {
                tracing::warn!(source = source.name, key, retry = delivery.retry(), %error, "delivery not kept");
                Answer::Unavailable("cannot be stored now")
            }
        }
    }
}

/// What the headers say.
fn claim(headers: &HeaderMap) -> Result<Claim<'_>, Refusal> {
    Claim::read(
        header_value(headers, header::SIGNATURE),
        header_value(headers, header::TIMESTAMP),
        header_value(headers, header::RETRY_COUNT),
    )
}

/// A header as the domain takes it.
fn header_value<'a>(headers: &'a HeaderMap, name: &str) -> HeaderValue<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => HeaderValue::Absent,
        (Some(value), None) => HeaderValue::One(value.as_bytes()),
        (Some(_), Some(_)) => HeaderValue::Several,
    }
}

/// A header to be passed on, where it is short, visible text and stands there once.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    match header_value(headers, name.as_str()) {
        HeaderValue::One(value) if value.len() <= MAX_UNSIGNED_BYTES => {
            let text = std::str::from_utf8(value).ok()?;
            (!text.chars().any(char::is_control)).then(|| text.to_owned())
        }
        _ => None,
    }
}

/// Counts a request when it ends, however it ends.
struct Count<'a> {
    metrics: &'a Metrics,
    source: Option<&'a metrics::Source>,
    started: Instant,
    in_flight: &'a IntGauge,
    outcome: Outcome,
    /// Nothing of the request is left on the connection.
    is_read: bool,
    /// ClearFeed will not come back with it.
    is_last_attempt: bool,
}

impl<'a> Count<'a> {
    fn begin(metrics: &'a Metrics, source: Option<&'a metrics::Source>) -> Self {
        let in_flight = &metrics.intake.in_flight;
        in_flight.inc();
        // A sender that goes away drops the request: no answer is ever set.
        let outcome = Outcome::Abandoned;
        Self {
            metrics,
            source,
            started: Instant::now(),
            in_flight,
            outcome,
            is_read: false,
            is_last_attempt: false,
        }
    }

    /// From now on it is for us to keep it: a sender that loses patience meanwhile was not answered in time.
    fn authenticated(&mut self, retry: u8) {
        self.outcome = Outcome::Unavailable;
        self.is_last_attempt = Retry::from_count(retry) == Some(Retry::Third);
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.in_flight.dec();
        self.metrics.answered(self.source, self.outcome, self.started.elapsed());
        if let Some(source) = self.source
            && self.is_last_attempt
            && !self.outcome.is_success()
        {
            source.last_attempt_failed();
        }
    }
}
