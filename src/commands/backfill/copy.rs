//! The work itself: page after page out of the API, the oldest requests first, and into the topic.

use std::time::Duration;

use clearfeed_relay::clearfeed::{ApiError, Client, FilterBy, MAX_LIMIT, Page, Query};
use jiff::{SignedDuration, Timestamp};
use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;

use super::topic::SnapshotTopic;

/// Whoever mistyped an address finds out soon.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// Half-way a longer fault is worth waiting for.
const PATIENCE: Duration = Duration::from_secs(300);
/// Whether `after` and `before` are within their span is not documented, nor how exactly times are kept: asked for is a
/// little more, and what is outside left out here.
const MARGIN: SignedDuration = SignedDuration::from_secs(1);

/// From `since` up to, not including, `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

/// What to copy, and where to.
pub(crate) struct Copy<'a> {
    pub(crate) source: &'a str,
    pub(crate) span: Span,
    /// None: nowhere.
    pub(crate) topic: Option<&'a SnapshotTopic>,
    pub(crate) stop: CancellationToken,
}

/// How far it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Requests of the span that the API told.
    pub(crate) requests: u64,
    /// Of these, in the topic.
    pub(crate) published: u64,
    /// Entries that are no request with an id.
    pub(crate) unreadable: u64,
    /// Requests that the topic does not take for their size.
    pub(crate) too_large: Vec<u64>,
    /// Before this instant nothing is missing.
    pub(crate) reached: Timestamp,
}

/// Why it ended before the span's end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("told to stop")]
    Told,
    #[error("ClearFeed's API: {0}")]
    Api(#[from] ApiError),
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
}

impl Copy<'_> {
    /// Copies until the span's end. `tell` is called after each page.
    pub(crate) async fn run(
        &self,
        client: &mut Client,
        mut tell: impl FnMut(&Progress),
    ) -> (Progress, Result<(), Stopped>) {
        let mut progress = Progress {
            requests: 0,
            published: 0,
            unreadable: 0,
            too_large: Vec::new(),
            reached: self.span.since,
        };
        let mut query = self.first_page();
        let mut patience = FIRST_PATIENCE;
        let ended = loop {
            let page = tokio::select! {
                page = client.page(&query, patience) => page,
                () = self.stop.cancelled() => break Err(Stopped::Told),
            };
            let next = match self.take(page, &mut progress).await {
                Ok(next) => next,
                Err(stopped) => break Err(stopped),
            };
            tell(&progress);
            if next.is_none() {
                progress.reached = self.span.until;
                break Ok(());
            }
            query.cursor = next;
            patience = PATIENCE;
        };
        (progress, ended)
    }

    /// By the time of creation, which never changes: no request moves while pages are read.
    fn first_page(&self) -> Query {
        let Span { since, until } = self.span;
        Query {
            filter_by: FilterBy::CreatedAt,
            after: since.saturating_sub(MARGIN).unwrap_or(since),
            before: until.saturating_add(MARGIN).unwrap_or(until),
            limit: MAX_LIMIT,
            cursor: None,
        }
    }

    /// Publishes a page; returns where the next one begins.
    async fn take(
        &self,
        page: Result<Page, ApiError>,
        progress: &mut Progress,
    ) -> Result<Option<String>, Stopped> {
        let Page { mut requests, unreadable, next_cursor } = page?;
        let Span { since, until } = self.span;
        requests.retain(|request| request.created.is_none_or(|created| (since..until).contains(&created)));
        if let Some(topic) = self.topic {
            let too_large = topic.publish(self.source, &requests).await?;
            progress.published += (requests.len() - too_large.len()) as u64;
            progress.too_large.extend(too_large);
        }
        progress.requests += requests.len() as u64;
        progress.unreadable += unreadable.len() as u64;
        let newest = requests.iter().filter_map(|request| request.created).max();
        progress.reached = progress.reached.max(newest.unwrap_or(since));
        Ok(next_cursor)
    }
}
