//! `demo`: the whole path of an event in one process, on librdkafka's embedded broker.
//!
//! The same halves as in `serve`, below its start-up checks: the embedded broker has no topic settings to check.

mod api;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write, stdout};
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use bytes::Bytes;
use clearfeed_relay::config::{self, Config};
use clearfeed_relay::domain::signature::{Keyring, Secret};
use clearfeed_relay::simulator::{self, Client, Delivery, Events, Observer, Settings, Target, unix_seconds};
use clearfeed_relay::telemetry::labels::{Label, RecordOutcome};
use clearfeed_relay::telemetry::logs;
use clearfeed_relay::telemetry::recent::Recent;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::mocking::MockCluster;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use self::api::{DemoApi, SNAPSHOT_TOPIC};
use super::exit;
use super::relay::{Relay, blocking};

/// Partitions of every topic of the demo: few enough to see keys share one.
const PARTITIONS: i32 = 3;
/// Requests that the events are about.
const REQUESTS: NonZeroU64 = NonZeroU64::MIN.saturating_add(4);
/// How many of a hundred events ClearFeed delivers again.
const REDELIVER_PERCENT: u8 = 30;
/// Everything is over long before; if not, something is wrong.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at whether everything is forwarded.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The embedded broker keeps 5 MB a partition: more events would push the first ones out before they are shown.
const MAX_EVENTS: u64 = 2000;
/// Lines of the listing, so that the table below it is still on the screen.
const LISTED: usize = 25;
/// A secret like any other: it never leaves the process.
const SECRET: &[u8] = b"the signing secret of the demo";

/// How long to go on.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of events that ClearFeed sends
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_EVENTS))]
    events: u64,
    /// Keep the relay running afterwards, to look at its metrics and status, until Ctrl-C
    #[arg(long)]
    keep_running: bool,
}

/// Runs the demo; fails if any event did not come out exactly once.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let cluster = MockCluster::new(1).context("no embedded broker")?;
    let config = configuration(&cluster.bootstrap_servers())?;
    let recent = logs::init(&config.telemetry)?;
    for topic in [&config.inbox.topic, &config.ledger.topic, &config.forward.dead_letter_topic] {
        cluster.create_topic(topic.as_str(), PARTITIONS, 1)?;
    }
    for topic in [EVENT_TOPIC, SNAPSHOT_TOPIC] {
        cluster.create_topic(topic, PARTITIONS, 1)?;
    }
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    let is_once = runtime.block_on(show(config, arguments, recent))?;
    Ok(if is_once { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Where the template leads ClearFeed's events.
const EVENT_TOPIC: &str = "clearfeed.request";

fn configuration(bootstrap_servers: &str) -> anyhow::Result<Config> {
    let text = format!(
        r#"
        [intake]
        listen = "127.0.0.1:0"
        lame_duck = "0s"
        [admin]
        listen = "127.0.0.1:0"
        [sources.main]
        public_url = "https://hooks.example.com/clearfeed/events"
        signing_secret_files = ["/nowhere/the-demo-keeps-it-in-memory"]
        [kafka]
        bootstrap_servers = "{bootstrap_servers}"
        [inbox]
        partitions = {PARTITIONS}
        [forward]
        transactional_id = "demo"
        [telemetry]
        log = "error"
        "#
    );
    Ok(config::from_toml(&text)?)
}

/// What went in, counted by the senders.
#[derive(Default)]
struct Sent {
    /// All deliveries.
    deliveries: u64,
    /// Answered 401.
    refused: u64,
    /// Answered 200.
    accepted: u64,
}

async fn show(config: Config, arguments: &Arguments, recent: Recent) -> anyhow::Result<bool> {
    let secret = Secret::new(SECRET)?;
    let bootstrap_servers = config.kafka.bootstrap_servers.clone();
    let signed_url = config.sources["main"].public_url.clone();
    let keyring = Keyring::new(vec![Some(secret.clone())]);
    let keyrings = BTreeMap::from([("main".to_owned(), Arc::new(ArcSwap::from_pointee(keyring)))]);
    let mut relay = Relay::listen(config, keyrings, None, recent).await?;
    relay.open().await?;
    let intake = relay.addresses.intake.context("the demo's relay has an intake")?;
    let target = Target::parse(&format!("http://{intake}{}", signed_url.path_and_query()))
        .map_err(anyhow::Error::msg)?;
    let settings = Settings {
        ping: true,
        events: arguments.events,
        requests: REQUESTS,
        redeliver_percent: REDELIVER_PERCENT,
        ..Settings::new(vec![target.clone()], signed_url.as_str())
    };
    let api = DemoApi::listen(&settings).await?;
    let stage = Stage { relay, target, signed_url: signed_url.as_str().to_owned(), secret };

    say(&format!(
        "\n1. A Kafka, the relay and ClearFeed, in one process\n   deliveries to {}\n   status at     http://{}/status\n   \
         ClearFeed's REST API at {}\n\n",
        stage.target.url(),
        stage.relay.addresses.admin,
        api.base_url()
    ))?;
    let mut sent = Sent::default();
    stage.clearfeed_sends(settings, &api, &mut sent).await?;
    stage.attacker_tries(&mut sent).await?;
    stage.wait_until_forwarded(&sent).await?;
    let published = stage.forwarded(RecordOutcome::Published);
    let records = blocking(move || read(&bootstrap_servers, published)).await??;
    list(&records)?;
    let (requests, snapshots) = api.backfill(&stage.relay.config).await?;
    say(&format!(
        "\n5. ClearFeed's REST API tells {requests} requests, and a backfill puts {snapshots} snapshots into {SNAPSHOT_TOPIC}\n"
    ))?;
    let is_once = stage.sum_up(&sent, &records, arguments.events + 1)? && snapshots == requests;
    if arguments.keep_running {
        say("The relay goes on until Ctrl-C.\n")?;
        tokio::signal::ctrl_c().await?;
    }
    stage.relay.drain().await?;
    Ok(is_once)
}

/// The relay, and what it takes to send to it.
struct Stage {
    relay: Relay,
    target: Target,
    signed_url: String,
    secret: Secret,
}

impl Stage {
    async fn clearfeed_sends(
        &self,
        settings: Settings,
        api: &DemoApi,
        sent: &mut Sent,
    ) -> anyhow::Result<()> {
        let events = settings.events;
        let observer = Observer { occurred: api.occurred(), ..Observer::default() };
        let summary = simulator::run(settings, self.secret.clone(), observer).await?;
        ensure!(summary.is_all_accepted(), "ClearFeed was refused:\n{summary}");
        sent.deliveries += summary.sent;
        sent.accepted += summary.sent;
        say(&format!(
            "2. ClearFeed saves the endpoint (its ping is answered 200) and sends {events} signed events about {REQUESTS} requests,\n   \
             {} of them a second time, as it does when an answer is lost\n\n",
            summary.redelivered
        ))
    }

    /// What somebody can do who has seen one delivery and does not have the secret.
    async fn attacker_tries(&self, sent: &mut Sent) -> anyhow::Result<()> {
        let event = Events::new(simulator::random_seed(), REQUESTS).event(0);
        let captured = Delivery::signed(&self.secret, &self.signed_url, event.body.clone(), unix_seconds());
        let forged =
            Bytes::from(String::from_utf8_lossy(&event.body).replace(&event.request.to_string(), "1"));
        say("3. An attacker captures one more delivery on its way, and tries what can be done with it\n")?;
        let mut client = Client::new(vec![self.target.clone()]);
        for (what, delivery, outcome) in [
            ("the delivery itself arrives", captured.clone(), "kept"),
            ("sends it again", captured.clone(), "the same event: still one record"),
            ("sends it again as a redelivery", captured.redelivered(2), "the same event: still one record"),
            ("changes which request it is about", captured.with_body(forged), "nothing is kept"),
            (
                "changes its timestamp",
                Delivery { timestamp: (unix_seconds() + 60).to_string(), ..captured.clone() },
                "nothing is kept",
            ),
            ("leaves the signature out", captured.unsigned(), "nothing is kept"),
        ] {
            let status = client.send(&delivery).await?.status.as_u16();
            sent.deliveries += 1;
            match status {
                200 => sent.accepted += 1,
                401 => sent.refused += 1,
                _ => {}
            }
            say(&format!("   {what:.<34} {status}  {outcome}\n"))?;
        }
        say("\n")
    }

    async fn wait_until_forwarded(&self, sent: &Sent) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let forwarded: u64 = RecordOutcome::ALL.iter().map(|outcome| self.forwarded(*outcome)).sum();
            if forwarded >= sent.accepted {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "only {forwarded} of {} inbox records were forwarded",
                sent.accepted
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn forwarded(&self, outcome: RecordOutcome) -> u64 {
        self.relay.metrics.forward.records.of(outcome).get()
    }

    /// The table at the end; whether every event came out exactly once.
    fn sum_up(&self, sent: &Sent, records: &[EventRecord], events: u64) -> anyhow::Result<bool> {
        let ids: BTreeSet<_> = records.iter().map(|record| &record.id).collect();
        let is_once = ids.len() == records.len() && ids.len() as u64 == events;
        let rows = [
            ("deliveries", sent.deliveries),
            ("  refused (401)", sent.refused),
            ("  accepted (200)", sent.accepted),
            ("    repeats dropped", self.forwarded(RecordOutcome::Repeat)),
            ("    events out", records.len() as u64),
        ];
        say("\n6. In the end\n")?;
        for (name, count) in rows {
            say(&format!("   {name:<22}{count:>6}\n"))?;
        }
        let verdict = if is_once { "each exactly once" } else { "NOT each exactly once" };
        say(&format!("   {events} events went in, {} came out: {verdict}\n\n", ids.len()))?;
        Ok(is_once)
    }
}

/// A record as a downstream team reads it.
struct EventRecord {
    id: String,
    kind: String,
    key: String,
    partition: i32,
    offset: i64,
}

/// Reads the event topic as a consumer downstream would: `read_committed`, from the beginning.
fn read(bootstrap_servers: &str, count: u64) -> anyhow::Result<Vec<EventRecord>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "a-downstream-team")
        .set("isolation.level", "read_committed")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(EVENT_TOPIC, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let deadline = Instant::now() + DEADLINE;
    let mut records = Vec::new();
    while (records.len() as u64) < count {
        ensure!(Instant::now() < deadline, "only {} of {count} records can be read", records.len());
        let Some(record) = consumer.poll(LOOK_AGAIN) else { continue };
        let record = record?;
        let header = |name: &str| {
            let found = record.headers()?.iter().find(|header| header.key == name)?;
            Some(String::from_utf8_lossy(found.value?).into_owned())
        };
        records.push(EventRecord {
            id: header("ce_id").unwrap_or_default(),
            kind: header("ce_type").unwrap_or_default(),
            key: String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned(),
            partition: record.partition(),
            offset: record.offset(),
        });
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

fn list(records: &[EventRecord]) -> anyhow::Result<()> {
    say(&format!(
        "4. What a reader of {EVENT_TOPIC} gets (isolation.level=read_committed)\n   {:<32}  {:<28} {:<17} {:>9} {:>6}\n",
        "event id (ce_id)", "type (ce_type)", "request (key)", "partition", "offset"
    ))?;
    for EventRecord { id, kind, key, partition, offset } in records.iter().take(LISTED) {
        say(&format!("   {id:<32}  {kind:<28} {key:<17} {partition:>9} {offset:>6}\n"))?;
    }
    if records.len() > LISTED {
        say(&format!("   … and {} more\n", records.len() - LISTED))?;
    }
    Ok(())
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
