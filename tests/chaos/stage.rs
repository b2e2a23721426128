//! Three brokers and the replicas before them, and how they suffer each fault.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use clearfeed_relay::simulator::Target;

use crate::faults::{EACH, Fault, Way};
use crate::support::relay::Plan;
use crate::support::{AFTER_TIMEOUTS, Deployment, Kafka, Proxy, Relay, SOON, pause, wait_for};

/// Longer than a group's session of 6 s, and than an answer is waited for.
const FREEZE: Duration = Duration::from_secs(9);
/// How long a killed broker is away: its partitions get other leaders.
const AWAY: Duration = Duration::from_secs(3);
/// How long a visitor stays: it gets partitions, and forwards some.
const VISIT: Duration = Duration::from_secs(3);

/// How long all replicas stand still: a session ends after 6 s, and who waits for their group asks again in a few more.
const STANDSTILL: Duration = Duration::from_secs(20);
/// Kafka forgets transactional ids in a silence, also in that of a replica which only waits.
const SILENCE: Duration = Duration::from_secs(12);
const EXPIRY: [&str; 2] = [
    "transactional.id.expiration.ms=6000",
    "transaction.remove.expired.transaction.cleanup.interval.ms=2000",
];

/// What the replicas are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Roles {
    /// Three replicas with both halves.
    All,
    /// Three that only listen, and three that only forward.
    Apart,
    /// Three with both halves, each in a consumer group of its own.
    Groups,
}

impl Roles {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "all" => Self::All,
            "apart" => Self::Apart,
            "groups" => Self::Groups,
            _ => panic!("roles are `all`, `apart` or `groups`, not {text:?}"),
        }
    }
}

/// Everything that can fail.
pub(crate) struct Stage {
    /// Those with an intake first. They end before what they stand on, so that a failed run can show their logs.
    relays: Vec<Relay>,
    roles: Roles,
    pub(crate) deployment: Deployment,
    kafka: Kafka,
    /// On the way from each replica to each broker; those to the first broker first.
    proxies: Vec<Proxy>,
}

impl Stage {
    pub(crate) fn set(roles: Roles) -> Self {
        let proxies: Vec<_> = (0..EACH * EACH).map(|_| Proxy::listen()).collect();
        let kafka = Kafka::behind(EACH, &proxies, &EXPIRY);
        let deployment = Deployment::new("chaos", &kafka);
        let replica = |number: usize, role: &str| {
            let plan = deployment.replica(&format!("{role}-{number}")).set("role", &format!("{role:?}"));
            let plan = plan.behind(proxies.iter().skip(number).step_by(EACH));
            let plan = if roles == Roles::Groups { in_group(plan, &deployment, number) } else { plan };
            short(plan).at_one_port().start()
        };
        let names: &[&str] = if roles == Roles::Apart { &["intake", "forward"] } else { &["all"] };
        let each = names.iter().flat_map(|role| (0..EACH).map(move |number| (number, role)));
        let relays: Vec<Relay> = each.map(|(number, role)| replica(number, role)).collect();
        relays.iter().for_each(Relay::wait_ready);
        Self { relays, roles, deployment, kafka, proxies }
    }

    /// Where deliveries can be sent to.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.relays[..EACH].iter().map(Relay::target).collect()
    }

    /// Does it, and puts it right again.
    pub(crate) fn suffer(&mut self, fault: &Fault) {
        match *fault {
            Fault::KillRelay(relay) => self.each_half(relay, |relay| relay.kill9()),
            Fault::KillAllRelays => {
                self.relays.iter_mut().for_each(Relay::kill9);
                self.relays.iter_mut().for_each(Relay::restart);
            }
            Fault::RestartRelay(relay) => self.each_half(relay, |relay| {
                relay.sigterm();
                relay.wait_exit(AFTER_TIMEOUTS);
            }),
            Fault::FreezeRelay(relay) => {
                let relay = &self.relays[self.forwarding(relay)];
                relay.signal("STOP");
                pause(FREEZE);
                relay.signal("CONT");
            }
            Fault::Visitor => {
                let mut visitor = short(self.deployment.replica("visitor")).start();
                pause(VISIT);
                visitor.kill9();
            }
            Fault::OtherGroup => {
                let mut other = self.of_another_group();
                pause(VISIT);
                self.suffer(&Fault::KillAllRelays);
                pause(VISIT);
                other.kill9();
            }
            Fault::OtherGroupTakesOver => {
                let mut other = self.of_another_group();
                self.relays.iter().for_each(|relay| relay.signal("STOP"));
                pause(STANDSTILL);
                self.relays.iter().for_each(|relay| relay.signal("CONT"));
                pause(VISIT);
                other.kill9();
            }
            Fault::Silence => {
                self.wait_until_forwarded();
                pause(SILENCE);
            }
            Fault::KillBroker(broker) => self.without_broker(broker, |_| pause(AWAY)),
            Fault::RestartBroker(broker) => {
                self.kafka.wait_until_whole();
                self.kafka.restart(Some(broker));
                self.kafka.wait_until_whole();
                self.kafka.elect();
            }
            Fault::FreezeBroker(broker) => {
                self.kafka.wait_until_whole();
                self.kafka.pause(Some(broker));
                pause(FREEZE);
                self.kafka.resume(Some(broker));
            }
            Fault::KillGroupCoordinator => {
                let broker = self.kafka.coordinator("__consumer_offsets", &self.deployment.group());
                self.without_broker(broker, |_| pause(AWAY));
            }
            Fault::KillTransactionCoordinator(relay) => {
                let id = self.deployment.transactional_id(self.relays[self.forwarding(relay)].name());
                let broker = self.kafka.coordinator("__transaction_state", &id);
                self.without_broker(broker, |_| pause(AWAY));
            }
            Fault::KillBrokerAndRelay(broker, relay) => self.without_broker(broker, |stage| {
                stage.each_half(relay, |relay| relay.kill9());
                pause(AWAY);
            }),
            Fault::Network(way, trouble, length, ref meanwhile) => {
                self.on_the_way(way).for_each(|proxy| proxy.begin(trouble));
                let began = Instant::now();
                if let Some(fault) = meanwhile {
                    self.suffer(fault);
                }
                pause(length.saturating_sub(began.elapsed()));
                self.on_the_way(way).for_each(Proxy::heal);
            }
        }
    }

    fn on_the_way(&self, way: Way) -> impl Iterator<Item = &Proxy> {
        let proxies = self.proxies.iter().enumerate();
        let chosen = proxies.filter(move |(number, _)| {
            let (broker, relay) = (1 + number / EACH, number % EACH);
            way.broker.is_none_or(|only| only == broker) && way.relay.is_none_or(|only| only == relay)
        });
        chosen.map(|(_, proxy)| proxy)
    }

    /// Waits until all is well.
    pub(crate) fn recover(&self) {
        self.kafka.wait_until_whole();
        for relay in &self.relays {
            wait_for("all replicas are ready", AFTER_TIMEOUTS, || relay.is_ready().then_some(()));
        }
    }

    /// Waits until all that was kept is forwarded; in vain, each replica says of itself why not.
    pub(crate) fn wait_until_forwarded(&self) {
        let wait = || self.deployment.wait_until_forwarded(AFTER_TIMEOUTS);
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(wait)) {
            for relay in &self.relays {
                eprintln!("{}: {}", relay.name(), relay.status().unwrap_or_default());
            }
            std::panic::resume_unwind(panic);
        }
    }

    fn of_another_group(&self) -> Relay {
        short(in_group(self.deployment.replica("other"), &self.deployment, EACH)).start()
    }

    /// Ends the replica of this number (of each role), and starts it again.
    fn each_half(&mut self, number: usize, end: impl Fn(&mut Relay)) {
        for relay in self.relays.iter_mut().skip(number).step_by(EACH) {
            end(relay);
            relay.restart();
        }
    }

    /// The index of the replica of this number that forwards.
    fn forwarding(&self, number: usize) -> usize {
        if self.roles == Roles::Apart { EACH + number } else { number }
    }

    /// Kills the broker, and brings it back. Two brokers away at once would only be an outage.
    fn without_broker(&mut self, broker: usize, meanwhile: impl Fn(&mut Self)) {
        self.kafka.wait_until_whole();
        self.kafka.kill(Some(broker));
        meanwhile(self);
        self.kafka.restart(Some(broker));
    }
}

/// Into one group of many.
fn in_group(plan: Plan, deployment: &Deployment, number: usize) -> Plan {
    plan.set("forward.group", &format!("{:?}", format!("{}-{number}", deployment.group())))
}

/// A drain is cut short like everything else here, so that a run is not one of waiting.
fn short(plan: Plan) -> Plan {
    plan.set("intake.body_timeout", r#""2s""#)
        .set("intake.answer_timeout", r#""5s""#)
        .set("intake.shutdown_timeout", &format!("\"{}s\"", SOON.as_secs()))
}
