//! What one comparison needs: a broker, the topics of one deployment, a floor and a relay on it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::broker::MockBroker;
use crate::server::{self, Cores, Server};
use crate::support::deployment::{PUBLIC_URL, SECRET};
use crate::support::{Deployment, Kafka, free_port, http};
use crate::this_program;

/// Of the inbox and of every other topic: the relay's default.
pub const PARTITIONS: i32 = 12;
/// The counter of what is forwarded, as the relay tells it; the floor's, too.
pub const FORWARDED: &str = "clearfeed_relay_forward_records_total{";
/// Each look costs the server what its metrics cost: so where it is known how fast it is, the next look is when half of what
/// is left should be done.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const NEXT_LOOK: RangeInclusive<f64> = 0.002..=0.05;

pub enum Broker<'k> {
    Memory(MockBroker),
    Real(&'k Kafka),
}

impl Broker<'_> {
    pub fn memory() -> Self {
        Self::Memory(MockBroker::start())
    }

    pub fn is_real(&self) -> bool {
        matches!(self, Self::Real(_))
    }

    pub fn servers(&self) -> &str {
        match self {
            Self::Memory(broker) => &broker.servers,
            Self::Real(kafka) => kafka.servers(),
        }
    }

    fn process(&self) -> u32 {
        match self {
            Self::Memory(broker) => broker.process(),
            Self::Real(kafka) => kafka.process(),
        }
    }

    pub fn create_topic(&mut self, topic: &str) {
        match self {
            Self::Memory(broker) => broker.create_topic(topic, PARTITIONS),
            Self::Real(kafka) => kafka.create_topic(topic, PARTITIONS, &[("max.message.bytes", "2000000")]),
        }
    }
}

pub struct Stage<'k> {
    cores: Cores,
    pub broker: Broker<'k>,
    pub deployment: Deployment,
    /// Of the relay, beside the deployment's.
    settings: Vec<(String, String)>,
    logs: TempDir,
}

/// A running server, the process of its broker, and its ports.
pub struct Running {
    pub server: Server,
    broker: u32,
    pub intake: u16,
    /// The floor has no other.
    pub admin: SocketAddr,
    /// Where it publishes events, if it forwards.
    pub events: Option<String>,
}

impl<'k> Stage<'k> {
    pub fn new(cores: Cores, broker: Broker<'k>, settings: &[(String, String)]) -> Self {
        let deployment = Deployment::at("performance", broker.servers());
        let (settings, logs) = (settings.to_vec(), TempDir::with_prefix("performance").unwrap());
        let mut stage = Self { cores, broker, deployment, settings, logs };
        // On a real one the relay makes its own.
        if let Broker::Memory(_) = stage.broker {
            let own = &stage.deployment;
            for topic in [own.inbox(), own.ledger(), own.dead_letters(), own.events()] {
                stage.broker.create_topic(&topic);
            }
        }
        stage
    }

    /// The floor, on a topic of its own.
    pub fn floor(&mut self) -> Running {
        let topic = self.deployment.topic("floor");
        self.broker.create_topic(&topic);
        self.floor_into(&topic, None)
    }

    /// The floor of both halves, on topics of its own.
    pub fn floors(&mut self) -> Running {
        let (inbox, events) = (self.floor_inbox(), self.deployment.topic("floors-events"));
        self.broker.create_topic(&inbox);
        self.broker.create_topic(&events);
        self.floor_into(&inbox, Some(&events))
    }

    /// What the floor of both halves appends to and forwards from.
    pub fn floor_inbox(&self) -> String {
        self.deployment.topic("floors")
    }

    /// The floor, on topics that are there.
    pub fn floor_into(&self, topic: &str, events: Option<&str>) -> Running {
        let intake = free_port();
        let port = intake.to_string();
        let mut arguments = vec!["floor", &port, self.broker.servers(), topic, PUBLIC_URL, SECRET];
        arguments.extend(events);
        let server =
            Server::start(self.cores, &this_program(), &arguments, &self.logs.path().join("floor.log"));
        server.wait("listens", || TcpStream::connect(local(intake)).map(drop).map_err(|_| LOOK_EVERY));
        let events = events.map(str::to_owned);
        Running { server, broker: self.broker.process(), intake, admin: local(intake), events }
    }

    /// The relay in this role, ready, with all partitions active where it forwards.
    pub fn relay(&self, role: &str) -> Running {
        let relay = self.begin_relay(role);
        relay.wait_ready();
        if role != "intake" {
            relay.wait_active();
        }
        relay
    }

    /// The relay in this role, just started.
    pub fn begin_relay(&self, role: &str) -> Running {
        let (intake, admin) = (free_port(), free_port());
        let text = |value: &str| format!("{value:?}");
        let plan = self
            .deployment
            .replica(role)
            .set("role", &text(role))
            .set("intake.listen", &text(&local(intake).to_string()))
            .set("admin.listen", &text(&local(admin).to_string()))
            .set("inbox.partitions", &PARTITIONS.to_string())
            .set("kafka.partitions", &PARTITIONS.to_string());
        let config = self.settings.iter().fold(plan, |plan, (key, value)| plan.set(key, value)).write();
        let config = config.to_str().unwrap();
        let log = self.logs.path().join(format!("{role}.log"));
        let server = match self.broker {
            Broker::Memory(_) => Server::start(self.cores, &this_program(), &["relay", config, SECRET], &log),
            Broker::Real(_) => Server::start(
                self.cores,
                Path::new(env!("CARGO_BIN_EXE_clearfeed-relay")),
                &["serve", "--config", config],
                &log,
            ),
        };
        let events = (role != "intake").then(|| self.deployment.events());
        Running { server, broker: self.broker.process(), intake, admin: local(admin), events }
    }
}

/// CPU time.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    pub server: Duration,
    pub broker: Duration,
}

impl Running {
    /// What the server and its broker took so far.
    pub fn cpu(&self) -> Cpu {
        Cpu { server: self.server.cpu(), broker: server::cpu(self.broker) }
    }

    pub fn wait_ready(&self) {
        self.server.wait("is ready", || {
            let ready = http::get(self.admin, "/readyz").is_ok_and(|answer| answer.status == 200);
            ready.then_some(()).ok_or(LOOK_EVERY)
        });
    }

    /// Until it forwards all partitions.
    pub fn wait_active(&self) {
        self.server.wait("forwards all partitions", || {
            let status = http::get(self.admin, "/status").map_err(|_| LOOK_EVERY)?;
            let status: serde_json::Value = serde_json::from_str(&status.body).unwrap();
            let owned = status["forward"]["owned"].as_array().map_or(&[][..], |owned| owned);
            let active = owned.iter().filter(|one| one["state"] == "active").count();
            (active == PARTITIONS.unsigned_abs() as usize).then_some(()).ok_or(LOOK_EVERY)
        });
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(self) {
        self.server.stop();
    }

    /// Inbox records whose transaction was committed so far.
    pub fn forwarded(&self) -> u64 {
        self.try_forwarded().unwrap()
    }

    fn try_forwarded(&self) -> std::io::Result<u64> {
        let metrics = http::get(self.admin, "/metrics")?.body;
        let counts = metrics.lines().filter(|line| line.starts_with(FORWARDED));
        Ok(counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum())
    }

    pub fn wait_forwarded(&self, records: u64) {
        let (began, first) = (Instant::now(), self.forwarded());
        self.server.wait("has forwarded all", || {
            let found = self.try_forwarded().map_err(|_| LOOK_EVERY)?;
            if found >= records {
                return Ok(());
            }
            let per_second = (found - first) as f64 / began.elapsed().as_secs_f64();
            let half_done = (records - found) as f64 / per_second / 2.0;
            let next = half_done.clamp(*NEXT_LOOK.start(), *NEXT_LOOK.end());
            Err(if found == first { LOOK_EVERY } else { Duration::from_secs_f64(next) })
        });
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
