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
mod traffic;

use std::time::{Duration, Instant};

use clearfeed_relay::simulator::random_seed;

use faults::{Draw, Fault};
use stage::Stage;
use support::{Exhibit, Judge, pause};
use traffic::Traffic;

/// The short form ends when its faults and so many events are through.
const EVENTS: u64 = 5000;
/// Between two faults of a run: long enough for some work, too short for all to be well again.
const LONGEST_PAUSE_MS: u64 = 3000;
/// The short form's faults begin in this time.
const FIRE: Duration = Duration::from_secs(60);

#[test]
fn what_was_answered_200_is_out_exactly_once_whatever_happens() {
    let Settings { events, seed, roles } = Settings::read();
    eprintln!("chaos: seed {seed}, to be repeated with script/chaos --seed {seed}");
    let mut stage = Stage::set(roles);
    let planned = events.unwrap_or(20 * EVENTS);
    let mut traffic = Traffic::begin(stage.targets(), planned, events.is_none(), seed);

    let mut draw = Draw::from(seed);
    let began = Instant::now();
    let is_over = |finished: u64| match events {
        Some(events) => finished >= events,
        None => began.elapsed() > FIRE && finished >= EVENTS,
    };
    let mut faults = Vec::new();
    while !is_over(traffic.finished()) {
        pause(Duration::from_millis(draw.below(LONGEST_PAUSE_MS)));
        let fault = Fault::drawn(&mut draw);
        eprintln!(
            "chaos: {:>6.1} s, {:>7} events, {fault:?}",
            began.elapsed().as_secs_f64(),
            traffic.finished()
        );
        match fault {
            Fault::Silence => traffic.silence(|| stage.suffer(&fault)),
            _ => stage.suffer(&fault),
        }
        faults.push(fault);
    }
    let simulated = traffic.end();
    stage.recover();
    stage.wait_until_forwarded();

    let accepted = simulated.accepted.len() as u64;
    eprintln!("faults    {}", Fault::sum(&faults));
    let least = events.map_or(EVENTS, |events| events) / 2;
    assert!(accepted > least, "too little was accepted to prove much: {accepted}");
    let exhibits =
        stage.deployment.reader().all_as(&stage.deployment.events(), |record| Exhibit::from(&record));
    let judge = Judge::weigh(&simulated.accepted, &simulated.sent, &exhibits);
    judge.first_cases().for_each(|(kind, case)| eprintln!("{kind}: {}", case.what));
    judge.first_cases().for_each(|(_, case)| eprintln!("{}", history::of(&stage.deployment, &case.id)));
    judge.assert_flawless();
    let letters = stage.deployment.reader().all(&stage.deployment.dead_letters());
    assert_eq!(letters.len(), 0, "dead letters: {:?}", letters.first());
    eprintln!("verdict   each of {} events exactly once", accepted);
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
