//! The relay, assembled from its halves: what `serve` runs, and `demo` on an embedded broker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use clearfeed_relay::config::{Config, FORWARD_DRAIN};
use clearfeed_relay::intake::{
    Certificate, Endpoints, Inbox, Keeper, Listener, ListenerLimits, SharedKeyring,
};
use clearfeed_relay::kafka::monitor::Monitor;
use clearfeed_relay::spool::{OpenError, Spool};
use clearfeed_relay::telemetry::health::{Health, Identity};
use clearfeed_relay::telemetry::labels::{Concern, Half};
use clearfeed_relay::telemetry::metrics::{Metrics, ProcessLabels};
use clearfeed_relay::telemetry::recent::Recent;
use clearfeed_relay::telemetry::status::SourceIdentity;
use clearfeed_relay::{admin, forward};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Between two attempts to reach Kafka at the start.
const WARM_UP_PAUSE: Duration = Duration::from_secs(1);

/// A running relay.
pub(crate) struct Relay {
    pub(crate) config: Config,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    intake: Option<Intake>,
    forward: Option<Forward>,
    pub(crate) addresses: Addresses,
}

/// Where the relay listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) intake: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
}

struct Intake {
    listener: Arc<Listener>,
    inbox: Arc<Inbox>,
    keeper: Arc<Keeper>,
    /// Ends the draining of the spool.
    shutdown: CancellationToken,
}

struct Forward {
    thread: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Relay {
    /// Opens the ports. The relay answers 503 until [`Relay::open`].
    pub(crate) async fn listen(
        config: Config,
        keyrings: BTreeMap<String, SharedKeyring>,
        certificate: Option<Arc<Certificate>>,
        recent: Recent,
    ) -> anyhow::Result<Self> {
        let slots = |(name, keyring): (&String, &SharedKeyring)| (name.clone(), keyring.load().slots());
        let slots: Vec<_> = keyrings.iter().map(slots).collect();
        let slots = slots.iter().map(|(name, slots)| (name.as_str(), *slots));
        let metrics = Arc::new(Metrics::new(slots, &ProcessLabels::of(&config))?);
        let health = Arc::new(Health::new(identity(&config), recent));
        let admin = bind(config.admin.listen, "admin.listen").await?;
        let mut addresses = Addresses { intake: None, admin: admin.local_addr()? };
        tokio::spawn(admin::serve(
            admin,
            Arc::clone(&metrics),
            Arc::clone(&health),
            CancellationToken::new(),
        ));
        let intake = if config.role.has_intake() {
            let socket = bind(config.intake.listen, "intake.listen").await?;
            addresses.intake = Some(socket.local_addr()?);
            Some(intake(&config, keyrings, certificate, &metrics, &health, socket)?)
        } else {
            None
        };
        Ok(Self { config, metrics, health, intake, forward: None, addresses })
    }

    /// Begins the work, once the topics are right: intake keeps deliveries, and partitions are forwarded.
    pub(crate) async fn open(&mut self) -> anyhow::Result<()> {
        if let Some(intake) = &self.intake {
            let inbox = Arc::clone(&intake.inbox);
            while let Err(error) = blocking({
                let inbox = Arc::clone(&inbox);
                move || inbox.warm_up()
            })
            .await?
            {
                self.health.intake().set(Concern::KafkaUnreachable, &error.to_string());
                tokio::time::sleep(WARM_UP_PAUSE).await;
            }
            self.health.intake().clear(Concern::KafkaUnreachable);
            self.health.intake().clear(Concern::Starting);
            let (keeper, shutdown) = (Arc::clone(&intake.keeper), intake.shutdown.clone());
            tokio::spawn(async move { keeper.run(shutdown).await });
        }
        if self.config.role.has_forward() {
            let shutdown = CancellationToken::new();
            let (metrics, health) = (Arc::clone(&self.metrics), Arc::clone(&self.health));
            let thread = forward::start(&self.config, metrics, health, Handle::current(), shutdown.clone())?;
            self.forward = Some(Forward { thread, shutdown });
        }
        Ok(())
    }

    /// Ends in the order in which nothing is lost: not ready, go on accepting, finish what was accepted, flush, let
    /// the forward half finish its transaction and leave its group.
    pub(crate) async fn drain(self) -> anyhow::Result<()> {
        for concerns in self.health.halves() {
            concerns.set(Concern::Draining, "told to stop");
        }
        let limits = &self.config.intake;
        let deadline = Instant::now() + limits.shutdown_timeout;
        let intake = match self.intake {
            Some(intake) => intake.drain(limits.lame_duck, deadline - FORWARD_DRAIN).await,
            None => Ok(()),
        };
        // Whatever became of intake.
        let forward = match self.forward {
            Some(forward) => forward.drain(deadline).await,
            None => Ok(()),
        };
        intake.and(forward).with_context(|| {
            format!("not drained within intake.shutdown_timeout = {:?}", limits.shutdown_timeout)
        })
    }
}

impl Intake {
    async fn drain(self, lame_duck: Duration, deadline: Instant) -> anyhow::Result<()> {
        self.listener.leave();
        tokio::time::sleep(lame_duck).await;
        timeout_at(deadline, self.listener.close()).await.context("requests are still in flight")?;
        self.shutdown.cancel();
        let left = deadline.saturating_duration_since(Instant::now());
        blocking(move || self.inbox.flush(left)).await?.context("deliveries are still waiting for Kafka")
    }
}

impl Forward {
    async fn drain(self, deadline: Instant) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let ended = timeout_at(deadline, blocking(move || self.thread.join()));
        let ended = ended.await.context("a transaction is still open")??;
        ended.map_err(|_| anyhow::anyhow!("the forward half panicked"))
    }
}

fn intake(
    config: &Config,
    keyrings: BTreeMap<String, SharedKeyring>,
    certificate: Option<Arc<Certificate>>,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    socket: TcpListener,
) -> anyhow::Result<Intake> {
    let monitor = Monitor::new(Half::Intake, Arc::clone(metrics), Arc::clone(health));
    let inbox = Arc::new(Inbox::new(config, &monitor, Arc::clone(metrics))?);
    let spool = spool(config, metrics)?;
    let keeper =
        Arc::new(Keeper::new(config, Arc::clone(&inbox), spool, Arc::clone(metrics), Arc::clone(health)));
    let endpoints = Endpoints::new(config, keyrings, Arc::clone(&keeper), Arc::clone(metrics));
    let limits = ListenerLimits {
        max_connections: config.intake.max_connections,
        header_timeout: config.intake.header_timeout,
    };
    let listener = Listener::new(endpoints, limits, certificate, Arc::clone(metrics))?;
    tokio::spawn(Arc::clone(&listener).run(socket));
    Ok(Intake { listener, inbox, keeper, shutdown: CancellationToken::new() })
}

/// Opens the spool, where there is to be one. A disk that cannot be used is no reason not to serve: Kafka may be there.
fn spool(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Spool>> {
    let Some(settings) = &config.spool else { return Ok(None) };
    metrics.spool.limit_bytes.set(i64::try_from(settings.max_size_bytes).unwrap_or(i64::MAX));
    match Spool::open(settings, Arc::clone(metrics)) {
        Ok(spool) => Ok(Some(spool)),
        Err(error @ (OpenError::Locked(_) | OpenError::NewerFormat(..))) => {
            Err(error).context("spool.directory")
        }
        Err(error) => {
            tracing::error!(%error, "the spool cannot be used: without Kafka deliveries are answered 503");
            metrics.spool.failed.set(1);
            Ok(None)
        }
    }
}

fn identity(config: &Config) -> Identity {
    let source = |(name, source): (&String, &clearfeed_relay::config::Source)| SourceIdentity {
        name: name.clone(),
        public_url: source.public_url.as_str().to_owned(),
        topic: source.routes.template().to_string(),
    };
    Identity {
        role: config.role,
        config_hash: config.hash.clone(),
        sources: config.sources.iter().map(source).collect(),
        settings: config.settings.clone(),
    }
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{key}: cannot listen on {address}"))
}

/// Runs librdkafka's blocking calls where they block nobody else.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}
