//! What is measured, in order.

use std::time::{Duration, Instant};

use crate::downstream::Downstream;
use crate::figures::{ANSWER, END_TO_END, Figures, Round};
use crate::load::{Load, Pace, intended};
use crate::server::Cores;
use crate::stage::{Broker, Cpu, Running, Stage};
use crate::support::{Kafka, pause};
use crate::{acknowledgement, rebuild, window};

const ROUNDS: usize = 7;
/// Where goals hang on a ratio of CPU times, which from round to round are a third apart.
const MANY_ROUNDS: usize = 21;
const QUICK_ROUNDS: usize = 3;
/// Starts of the relay, rounds of doing nothing, and large backlogs: each takes seconds.
const FEW_ROUNDS: usize = 3;
/// What the two halves settle in after a start, and how long they are then watched.
const SETTLED: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(5);

pub struct Scenarios {
    pub is_quick: bool,
    pub only: String,
    /// Of the relay's configuration, beside what is needed.
    pub settings: Vec<(String, String)>,
    pub figures: Figures,
    pub began: Instant,
    /// Each run of a load has events of its own, told by its number.
    pub runs: u64,
    /// Something had the name that was asked for.
    pub has_begun: bool,
}

/// The broker in memory keeps 5 MB a partition: what a load holds more than that would be gone before it is forwarded.
pub const SATURATED: Load = Load {
    pace: Pace::Saturated { connections: 64 },
    events: 20_000,
    body_bytes: 1500,
    redelivered_percent: 0,
    new_connections: false,
};

const fn open(per_second: u32, events: usize) -> Load {
    Load { pace: Pace::Open { per_second }, events, ..SATURATED }
}

struct Scenario {
    name: &'static str,
    load: Load,
    /// Intake and forward together, too.
    whole: bool,
    /// The floor of both, too.
    floors: bool,
    /// On a real broker, too: there load, broker and reader have one core, and soon the broker is what is measured.
    real: bool,
    /// So many of its events, sent before the first round.
    warm_up: usize,
    cores: Cores,
}

const fn scenario(name: &'static str, load: Load) -> Scenario {
    Scenario { name, load, whole: false, floors: false, real: false, warm_up: 0, cores: Cores::Apart }
}

const LOADS: [Scenario; 9] = [
    Scenario { whole: true, floors: true, real: true, ..scenario("64 connections", SATURATED) },
    // For the sizing guide: how little goes together when little comes.
    Scenario { whole: true, real: true, ..scenario("100/s", open(100, 300)) },
    Scenario { whole: true, real: true, ..scenario("1,000/s", open(1000, 1500)) },
    Scenario { whole: true, real: true, ..scenario("10,000/s", open(10_000, 10_000)) },
    Scenario { whole: true, ..scenario("30 % again", AGAIN) },
    // So many that waiting for a full batch is not what limits them.
    scenario("512 connections", Load { pace: Pace::Saturated { connections: 512 }, ..SATURATED }),
    scenario("100 B", Load { body_bytes: 100, ..SATURATED }),
    scenario("64 KB", Load { body_bytes: 64_000, events: 3000, ..SATURATED }),
    scenario("new connections", Load { new_connections: true, events: 8000, ..SATURATED }),
];

/// On a real broker, and all cores: how long it takes where nobody has to wait for a core that another has for itself, and
/// where the broker's JVM has optimised what it does often: a broker is cold for a minute of its months.
const SHARED: Scenario = Scenario {
    whole: true,
    floors: true,
    warm_up: 45_000,
    cores: Cores::Shared,
    ..scenario("1,000/s, cores shared", open(1000, 5000))
};

const AGAIN: Load = Load { redelivered_percent: 30, ..SATURATED };

/// What forward alone drains.
const FILLINGS: [(&str, Load); 2] = [("drained", SATURATED), ("drained, 30 % again", AGAIN)];
/// On a real broker, which keeps it all.
const BACKLOG: &str = "drained, 200,000";

/// What a quick run measures: what most of the goals are about.
const QUICK: [&str; 5] =
    ["memory 64 connections", "memory drained", "kafka 1,000/s, cores shared", "kafka start", "kafka idle"];

impl Scenarios {
    pub fn all(&mut self) {
        let program = std::fs::metadata(env!("CARGO_BIN_EXE_clearfeed-relay")).unwrap();
        self.figures.add(("", "binary", "all"), &[("binary_mib", program.len() as f64 / (1 << 20) as f64)]);
        if self.is_wanted("domain", "window") {
            self.say("domain", "window");
            let rounds = self.rounds();
            window::measure(&mut self.figures, rounds);
        }
        self.on("memory", Broker::memory);
        let real = LOADS.iter().filter(|scenario| scenario.real).map(|scenario| scenario.name);
        let others = ["drained", "drained, 30 % again", BACKLOG, "start", "idle", "rebuild"];
        if real.chain(others).any(|name| self.is_wanted("kafka", name)) {
            self.on_kafka();
        }
        if self.is_wanted("kafka", SHARED.name) {
            Cores::Shared.take();
            let kafka = Kafka::optimised();
            self.load("kafka", || Broker::Real(&kafka), &SHARED);
        }
    }

    fn on_kafka(&mut self) {
        let kafka = Kafka::own(1);
        self.on("kafka", || Broker::Real(&kafka));
        if self.is_wanted("kafka", BACKLOG) {
            self.backlog(("kafka", BACKLOG, "forward"), &kafka);
        }
        if self.is_wanted("kafka", "start") || self.is_wanted("kafka", "idle") {
            self.start(&kafka);
        }
        if self.is_wanted("kafka", "rebuild") {
            self.say("kafka", "rebuild");
            rebuild::measure(&mut self.figures, &kafka);
        }
    }

    /// All loads on one kind of broker.
    fn on<'k>(&mut self, broker_name: &'static str, broker: impl Fn() -> Broker<'k>) {
        for scenario in LOADS.iter().filter(|scenario| scenario.real || broker_name == "memory") {
            if self.is_wanted(broker_name, scenario.name) {
                self.load(broker_name, &broker, scenario);
            }
        }
        for filling in FILLINGS {
            if self.is_wanted(broker_name, filling.0) {
                self.drained(broker_name, &broker, filling);
            }
        }
    }

    fn is_wanted(&self, broker: &str, name: &str) -> bool {
        let name = format!("{broker} {name}");
        name.contains(&self.only) && (!self.is_quick || !self.only.is_empty() || QUICK.contains(&&*name))
    }

    /// Tells who waits what is being done.
    pub fn say(&mut self, broker: &str, name: &str) {
        self.has_begun = true;
        eprintln!("{:>4} s: {broker}, {name}", self.began.elapsed().as_secs());
    }

    pub fn rounds(&self) -> usize {
        if self.is_quick { QUICK_ROUNDS } else { ROUNDS }
    }

    pub fn few_rounds(&self) -> usize {
        if self.is_quick { 1 } else { FEW_ROUNDS }
    }

    /// The floor, intake alone, the floor of both halves, the whole relay and the broker's own acknowledgement, in turns.
    fn load<'k>(&mut self, broker_name: &str, broker: impl Fn() -> Broker<'k>, scenario: &Scenario) {
        let &Scenario { name, load, whole, floors, warm_up, cores, .. } = scenario;
        self.say(broker_name, name);
        let part = if self.is_quick && load.is_open() { 2 } else { 1 };
        let (load, warm_up) = (Load { events: load.events / part, ..load }, warm_up / part);
        // Topics of their own for the two relays: what intake alone appends nobody reads.
        let mut stage = Stage::new(cores, broker(), &self.settings);
        let whole_stage = whole.then(|| Stage::new(cores, broker(), &self.settings));
        let mut turns = vec![("floor", Some(stage.floor())), ("intake", Some(stage.relay("intake")))];
        if floors {
            turns.push(("floors", Some(stage.floors())));
        }
        if let Some(whole) = &whole_stage {
            let all = whole.relay("all");
            if warm_up > 0 {
                self.measure(&all, Load { events: warm_up, ..load }, &whole.broker);
            }
            turns.push(("all", Some(all)));
        }
        if let Pace::Open { per_second: 1000 } = load.pace {
            turns.push(("ack", None));
        }
        let is_many = floors && !stage.broker.is_real() && !self.is_quick;
        for round in 0..=if is_many { MANY_ROUNDS } else { self.rounds() } {
            for (server, running) in &turns {
                let found = if let Some(running) = running {
                    self.measure(running, load, &stage.broker)
                } else {
                    let to = (stage.broker.servers(), &*stage.deployment.topic("floor"));
                    acknowledgement::measure(cores, to, 1000, load.events)
                };
                // The first one connects, and fills caches.
                if round > 0 {
                    self.figures.add_round((broker_name, name, server), found);
                }
            }
            if round > 0 {
                turns.rotate_left(1); // what one leaves to the next, such as a busy broker, is not always the same one's
            }
        }
    }

    /// One load on one server, until all of it is forwarded where the server does that.
    fn measure(&mut self, running: &Running, load: Load, broker: &Broker<'_>) -> Round {
        self.runs += 1;
        let events = running.events.as_deref();
        let reader = events
            .filter(|_| load.is_open() && broker.is_real())
            .map(|events| Downstream::start(broker.servers(), events, self.runs, load.events));
        let forwarded = events.map(|_| running.forwarded());
        let (before, outcome) = load.send(running.intake, self.runs, || running.cpu());
        let mut whole = outcome.wall;
        if let Some(forwarded) = forwarded {
            running.wait_forwarded(forwarded + load.events as u64);
            whole = outcome.began.elapsed();
        }
        // Answers at the rate that was set; what is published after the last one is a matter of its own.
        let wall = if load.is_open() { outcome.wall } else { whole };
        let mut figures = work(load.events, (wall, whole), before, running);
        if forwarded.is_some() {
            figures.push(("tail_ms", (whole - outcome.wall).as_secs_f64() * 1e3));
        }
        let mut latencies = vec![(ANSWER, outcome.latencies)];
        if let (Some(reader), Pace::Open { per_second }) = (reader, load.pace) {
            latencies.push((END_TO_END, end_to_end(&reader.seen(), outcome.began, per_second)));
        }
        Round { figures, latencies }
    }

    /// From its start until it is ready and forwards all partitions, with topics that are there and an empty window; and
    /// what it then costs to wait.
    fn start(&mut self, kafka: &Kafka) {
        self.say("kafka", "start and idle");
        let stage = Stage::new(Cores::Apart, Broker::Real(kafka), &self.settings);
        stage.relay("all").stop();
        for _ in 0..self.few_rounds() {
            let began = Instant::now();
            let relay = stage.begin_relay("all");
            relay.wait_ready();
            let ready = began.elapsed().as_secs_f64();
            relay.wait_active();
            let active = began.elapsed().as_secs_f64();
            self.figures.add(("kafka", "start", "all"), &[("ready_s", ready), ("active_s", active)]);
            pause(SETTLED);
            let (cpu, began) = (relay.server.cpu(), Instant::now());
            pause(IDLE);
            let percent = (relay.server.cpu() - cpu).as_secs_f64() * 100.0 / began.elapsed().as_secs_f64();
            let (rss_mib, peak_mib) = relay.server.memory_mib();
            let figures = [("core_percent", percent), ("rss_mib", rss_mib), ("peak_mib", peak_mib)];
            self.figures.add(("kafka", "idle", "all"), &figures);
            relay.stop();
        }
    }
}

/// What so many events took, the server and its broker; in this time, and until all that belongs to it was done.
pub fn work(
    events: usize,
    (wall, whole): (Duration, Duration),
    before: Cpu,
    running: &Running,
) -> Vec<(&'static str, f64)> {
    let now = running.cpu();
    let (cpu, broker) =
        ((now.server - before.server).as_secs_f64(), (now.broker - before.broker).as_secs_f64());
    let events = events as f64;
    let (rss_mib, peak_mib) = running.server.memory_mib();
    vec![
        ("cpu_us", cpu * 1e6 / events),
        ("broker_cpu_us", broker * 1e6 / events),
        ("events_s", events / wall.as_secs_f64()),
        ("core_percent", cpu * 100.0 / whole.as_secs_f64()),
        ("rss_mib", rss_mib),
        ("peak_mib", peak_mib),
    ]
}

/// From when each delivery was to be sent until its event was read.
fn end_to_end(seen: &[(usize, Instant)], began: Instant, per_second: u32) -> Vec<Duration> {
    let latency = |(number, at): &(usize, Instant)| {
        at.duration_since(began).saturating_sub(intended(*number, per_second))
    };
    seen.iter().map(latency).collect()
}
