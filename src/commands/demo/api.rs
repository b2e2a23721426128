//! The demo's other way to ClearFeed: its REST API, and a backfill of what it tells.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clearfeed_relay::clearfeed::{Client, Token};
use clearfeed_relay::config::{Api, ApiUrl, Config};
use clearfeed_relay::domain::route::TopicName;
use clearfeed_relay::simulator::Settings;
use clearfeed_relay::simulator::rest::{Health, Requests, Rest};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::commands::backfill::{Copy, SnapshotTopic, Span};
use crate::commands::clients;

/// Where a backfill writes to by default.
pub(super) const SNAPSHOT_TOPIC: &str = "clearfeed.request-snapshots";
/// A token like any other: it never leaves the process.
const TOKEN: &str = "the-token-of-the-demo";

/// The API, and the requests that it tells.
pub(super) struct DemoApi {
    rest: Rest,
    requests: Arc<Requests>,
    began: Timestamp,
}

impl DemoApi {
    /// Tells the requests of the events with these settings.
    pub(super) async fn listen(settings: &Settings) -> anyhow::Result<Self> {
        let requests = Arc::new(Requests::new(settings.seed, settings.requests));
        let token = Box::new(|| Some(TOKEN.to_owned()));
        let address = ([127, 0, 0, 1], 0).into();
        let rest = Rest::listen(address, Arc::clone(&requests), token, Health::default()).await?;
        Ok(Self { rest, requests, began: Timestamp::now() })
    }

    /// To be called with the number of each event that occurs.
    pub(super) fn occurred(&self) -> Box<dyn Fn(u64) + Send + Sync> {
        let requests = Arc::clone(&self.requests);
        Box::new(move |number| requests.occurred(number, Timestamp::now()))
    }

    /// Where it answers.
    pub(super) fn base_url(&self) -> String {
        self.rest.base_url()
    }

    /// Copies all requests into the snapshot topic; says how many there are, and how many arrived.
    pub(super) async fn backfill(&self, config: &Config) -> anyhow::Result<(u64, u64)> {
        let base_url = ApiUrl::parse(&self.base_url()).map_err(anyhow::Error::msg)?;
        let snapshot_topic = TopicName::new(SNAPSHOT_TOPIC).context(TopicName::WANTED)?;
        let api = Api {
            base_url: base_url.clone(),
            token_file: "/nowhere/in-memory".into(),
            snapshot_topic,
            reconcile_every: None,
            grace: Duration::ZERO,
        };
        let (monitor, _) = clients::monitor(config)?;
        let topic = SnapshotTopic::new(config, &api, monitor)?;
        let until = Timestamp::now().saturating_add(SignedDuration::from_secs(1))?;
        let span = Span { since: self.began.saturating_sub(SignedDuration::from_secs(1))?, until };
        let copy = Copy { source: "main", span, topic: Some(&topic), stop: CancellationToken::new() };
        let mut client = Client::with_token(base_url, || Token::new(TOKEN.as_bytes()));
        let (progress, ended) = copy.run(&mut client, |_| ()).await;
        ended?;
        Ok((self.requests.count() as u64, progress.published))
    }
}
