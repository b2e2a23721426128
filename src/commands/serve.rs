//! `serve`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clearfeed_relay::config::{Config, Role};
use clearfeed_relay::kafka::monitor::Monitor;
use clearfeed_relay::kafka::properties;
use clearfeed_relay::kafka::topic_rules;
use clearfeed_relay::kafka::topics::{Durability, Topics, TopicsError};
use clearfeed_relay::kafka::version::{self, Verdict};
use clearfeed_relay::telemetry::health::Health;
use clearfeed_relay::telemetry::labels::{Concern, Half};
use clearfeed_relay::telemetry::logs;
use clearfeed_relay::telemetry::status::Durable;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::certificate::CertificateFiles;
use super::relay::{Addresses, Relay, blocking};
use super::secrets::SecretFiles;
use super::{configuration, descriptors, exit, reload, supervisor};

/// The first pause before topics are looked at again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause: so late a repair is noticed.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration, TOML or YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which halves to run [default: the configuration's]
    #[arg(long, value_name = "ROLE")]
    #[arg(value_parser = ["all", "intake", "forward"])]
    role: Option<String>,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let role = arguments.role.as_deref().map(|role| match role {
        "intake" => Role::Intake,
        "forward" => Role::Forward,
        _ => Role::All,
    });
    let (mut secrets, mut certificate) = (SecretFiles::default(), None);
    let mut config = configuration::load(&arguments.config, role, |config, file| {
        let mut problems = properties::check(config, file);
        if config.role.has_intake() {
            secrets = SecretFiles::read(config, &mut problems);
            certificate = CertificateFiles::read(config, &mut problems);
        }
        problems
    })?;
    let recent = logs::init(&config.telemetry)?;
    descriptors::raise_limit(&mut config);
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    let ended = runtime.block_on(async {
        let signals = Signals::new()?;
        // Supervisors and log rotators send SIGHUP, and its default would end the process without a drain.
        let hangup = signal(SignalKind::hangup())?;
        let in_force = certificate.as_ref().map(CertificateFiles::certificate);
        let relay = Relay::listen(config, secrets.keyrings(), in_force, recent).await?;
        let (metrics, health) = (Arc::clone(&relay.metrics), Arc::clone(&relay.health));
        if let Some(certificate) = &certificate {
            certificate.observe(&metrics);
        }
        tokio::spawn(supervisor::run(Arc::clone(&health)));
        tokio::spawn(reload::run(secrets, certificate, metrics, health, hangup));
        let Addresses { intake, admin } = relay.addresses;
        let (version, role) = (env!("CARGO_PKG_VERSION"), relay.config.role.as_str());
        let intake = intake.map(tracing::field::display);
        tracing::info!(intake, %admin, version, role, config_hash = relay.config.hash, "listening");
        serve(relay, signals).await
    });
    // Threads that wait for a Kafka that is away are not waited for, least of all after a drain that took too long.
    runtime.shutdown_background();
    ended?;
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

async fn serve(mut relay: Relay, mut signals: Signals) -> anyhow::Result<()> {
    // Kafka may not be there at all: that keeps nobody from ending.
    let told = tokio::select! {
        started = start(&mut relay) => started.map(|()| false)?,
        () = signals.received() => true,
    };
    if !told {
        signals.received().await;
    }
    tracing::info!("told to stop: draining");
    supervisor::stopping();
    tokio::select! {
        drained = relay.drain() => drained,
        () = signals.received() => {
            tracing::warn!("told twice: ending at once");
            #[expect(clippy::disallowed_methods, reason = "a second signal ends the process at once")]
            std::process::exit(i32::from(exit::FAILED))
        }
    }
}

/// Waits until Kafka is there and its topics are right, then begins the work.
async fn start(relay: &mut Relay) -> anyhow::Result<()> {
    let monitor = Monitor::new(Half::Intake, Arc::clone(&relay.metrics), Arc::clone(&relay.health));
    let topics = Arc::new(Topics::new(&relay.config, monitor)?);
    let (mut pause, mut told) = (FIRST_PAUSE, Vec::new());
    loop {
        let problems = match look(&topics, &relay.config).await? {
            Ok(durability) => {
                note(relay, &durability);
                break;
            }
            Err(TopicsError::NotAsWanted(problems)) => {
                if problems != told {
                    for problem in &problems {
                        tracing::warn!(problem, "topic is not as wanted");
                    }
                    told.clone_from(&problems);
                }
                let detail = format!("found wrong: {}; `kafka.problems` of /status has all", problems.len());
                for concerns in relay.health.halves() {
                    concerns.set(Concern::Topics, &detail);
                    concerns.clear(Concern::KafkaUnreachable);
                }
                problems
            }
            Err(error @ TopicsError::Kafka(_)) => {
                for concerns in relay.health.halves() {
                    concerns.set(Concern::KafkaUnreachable, &error.to_string());
                    concerns.clear(Concern::Topics);
                }
                Vec::new()
            }
        };
        relay.health.update_kafka(|kafka| kafka.problems.clone_from(&problems));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    for concerns in relay.health.halves() {
        concerns.clear(Concern::Topics);
        concerns.clear(Concern::KafkaUnreachable);
    }
    if relay.config.role.has_forward() {
        tokio::spawn(look_at_version(topics, Arc::clone(&relay.health)));
    }
    relay.open().await
}

/// One look at the topics, off the runtime's threads: librdkafka's look-ups block.
async fn look(topics: &Arc<Topics>, config: &Config) -> anyhow::Result<Result<Durability, TopicsError>> {
    let (topics, config, runtime) = (Arc::clone(topics), config.clone(), Handle::current());
    blocking(move || {
        runtime.block_on(async {
            topics.ensure(&topic_rules::wanted(&config)).await?;
            topics.durability(config.inbox.topic.as_str()).await
        })
    })
    .await
}

fn note(relay: &Relay, durability: &Durability) {
    let (durable, reason) = match durability {
        Durability::Durable => (Durable::Yes, None),
        Durability::NotDurable(reason) => {
            tracing::warn!(reason, "what is answered 200 does not survive the loss of a broker");
            (Durable::No, Some(reason.clone()))
        }
    };
    relay.health.update_kafka(|kafka| {
        kafka.problems.clear();
        kafka.durable = durable;
        kafka.durable_reason.clone_from(&reason);
    });
}

/// Reports brokers whose version can break the promise. It runs beside the work, so that a slow broker delays nothing.
async fn look_at_version(topics: Arc<Topics>, health: Arc<Health>) {
    let runtime = Handle::current();
    let verdict = blocking(move || runtime.block_on(version::look(&topics))).await;
    match verdict {
        Ok(Ok(Verdict::Faulty(found))) => {
            tracing::warn!(found, "the version of a broker can break the promise");
            health.update_kafka(|kafka| kafka.problems.push(found.clone()));
        }
        verdict => tracing::debug!(?verdict, "the versions of the brokers"),
    }
}

/// The signals that end the relay.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
