//! The promise under fire: three brokers, three replicas, and a fault every few seconds, drawn from a seed.
//!
//! `cargo test --test chaos` is the short form, of one to two minutes; `script/chaos` gives it as many events, and the
//! seed, that one likes. Whatever happens, each event that was answered 200 is out exactly once, unchanged and in order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "what tests are for")]
#![allow(
    clippy::pedantic,
    clippy::type_complexity,
    reason = "helps the product; tests are read more than called"
)]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "names of helpers tell what they do")]

#[allow(dead_code, unused_imports, reason = "the promises use the rest")]
#[path = "../support/mod.rs"]
mod support;

mod faults;
mod history;
mod stage;

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use clearfeed_relay::simulator::random_seed;

use faults::{Draw, Fault};
use stage::Stage;
use support::simulator::{load, rate};
use support::{Exhibit, Judge, Simulation, pause};

/// The short form ends when its faults and so many events are through.
const EVENTS: u64 = 5000;
const EVENTS_PER_SECOND: u32 = 400;
/// Of a long run.
const CONNECTIONS: NonZeroU64 = NonZeroU64::new(512).unwrap();
/// Between two faults of a run: long enough for some work, too short for all to be well again.
const LONGEST_PAUSE_MS: u64 = 3000;
/// The short form's faults begin in this time.
const FIRE: Duration = Duration::from_secs(60);

#[test]
fn what_was_answered_200_is_out_exactly_once_whatever_happens() {
    let Settings { events, seed, roles } = Settings::read();
    eprintln!("chaos: seed {seed}, to be repeated with script/chaos --seed {seed}");
    let mut stage = Stage::set(roles);
    // A long run has many requests, so that a replica that hangs does not hold up all of them.
    let requests = if events.is_some() { 10_000 } else { 300 };
    let mut settings = load(stage.targets(), events.unwrap_or(20 * EVENTS), requests);
    if events.is_some() {
        settings.connections = CONNECTIONS;
    }
    settings.seed = seed;
    settings.redeliver_percent = 30;
    settings.retries_on_failure = true;
    settings.rate = events.is_none().then(|| rate(EVENTS_PER_SECOND)).flatten();
    let simulation = Simulation::start(settings);

    let mut draw = Draw::from(seed);
    let began = Instant::now();
    let is_over = |finished: u64| match events {
        Some(events) => finished >= events,
        None => began.elapsed() > FIRE && finished >= EVENTS,
    };
    let mut faults = Vec::new();
    while !is_over(simulation.finished()) {
        pause(Duration::from_millis(draw.below(LONGEST_PAUSE_MS)));
        let fault = Fault::drawn(&mut draw);
        eprintln!(
            "chaos: {:>6.1} s, {:>7} events, {fault:?}",
            began.elapsed().as_secs_f64(),
            simulation.finished()
        );
        stage.suffer(&fault);
        faults.push(fault);
    }
    let simulated = simulation.stop();
    stage.recover();
    stage.wait_until_forwarded();

    eprintln!("{}", simulated.summary);
    eprintln!("faults    {}", Fault::sum(&faults));
    let least = events.map_or(EVENTS, |events| events) / 2;
    assert!(simulated.summary.accepted_events > least, "too little was accepted to prove much");
    let exhibits =
        stage.deployment.reader().all_as(&stage.deployment.events(), |record| Exhibit::from(&record));
    let judge = Judge::weigh(&simulated.accepted, &simulated.sent, &exhibits);
    judge.first_cases().for_each(|(kind, case)| eprintln!("{kind}: {}", case.what));
    judge.first_cases().for_each(|(_, case)| eprintln!("{}", history::of(&stage.deployment, &case.id)));
    judge.assert_flawless();
    let letters = stage.deployment.reader().all(&stage.deployment.dead_letters());
    assert_eq!(letters.len(), 0, "dead letters: {:?}", letters.first());
    eprintln!("verdict   each of {} events exactly once", simulated.summary.accepted_events);
}

/// What `script/chaos` was asked for.
struct Settings {
    /// None: the short form.
    events: Option<u64>,
    seed: u64,
    /// Whether intake and forward are processes of their own.
    roles: stage::Roles,
}

impl Settings {
    fn read() -> Self {
        #[expect(clippy::disallowed_methods, reason = "not the relay's environment but the test's")]
        let variable = |name: &str| std::env::var(format!("CLEARFEED_RELAY_CHAOS_{name}")).ok();
        Self {
            events: variable("EVENTS").map(|text| text.parse().unwrap()),
            seed: variable("SEED").map_or_else(random_seed, |text| text.parse().unwrap()),
            roles: variable("ROLES").map_or(stage::Roles::All, |text| stage::Roles::parse(&text)),
        }
    }
}
