//! Forward alone, over an inbox that is full.

use std::time::Instant;

use crate::figures::Name;
use crate::load::Load;
use crate::scenarios::{SATURATED, Scenarios, work};
use crate::server::Cores;
use crate::stage::{Broker, Stage};
use crate::support::Kafka;

/// Of 20,000 events each. The inbox's consumer may fetch 16 MiB of a partition ahead, some 9,000 events of 1.5 KB; here are
/// nearly twice as many in each, so that it is not the end of the inbox that bounds its memory.
const BACKLOG_LOADS: usize = 10;

impl Scenarios {
    /// Forward alone, and its floor, in turns: each stands still while its inbox is filled, and then goes on.
    pub fn drained<'k>(
        &mut self,
        broker_name: &str,
        broker: impl Fn() -> Broker<'k>,
        (name, load): (&str, Load),
    ) {
        self.say(broker_name, name);
        let mut stage = Stage::new(Cores::Apart, broker(), &self.settings);
        let floor = stage.floors();
        let fillers =
            [stage.floor_into(&stage.floor_inbox(), None), stage.floor_into(&stage.deployment.inbox(), None)];
        let mut turns = [("floor", floor, &fillers[0]), ("forward", stage.relay("forward"), &fillers[1])];
        for round in 0..=self.rounds() {
            for (server, forward, filler) in &turns {
                self.runs += 1;
                let before = forward.forwarded();
                forward.server.signal("STOP");
                load.send(filler.intake, self.runs, || ());
                let (cpu, began) = (forward.cpu(), Instant::now());
                forward.server.signal("CONT");
                forward.wait_forwarded(before + load.events as u64);
                if round > 0 {
                    let wall = began.elapsed();
                    let figures = work(load.events, (wall, wall), cpu, forward);
                    self.figures.add((broker_name, name, server), &figures);
                }
            }
            turns.rotate_left(1);
        }
    }

    /// Forward is started over a backlog that is larger than what it fetches ahead: an outage's. It is counted from its
    /// first records on, for a start has a row of its own; its memory has each round anew.
    pub fn backlog(&mut self, row: Name<'_>, kafka: &Kafka) {
        self.say(row.0, row.1);
        let stage = Stage::new(Cores::Apart, Broker::Real(kafka), &self.settings);
        stage.relay("forward").stop(); // it makes the topics
        let filler = stage.floor_into(&stage.deployment.inbox(), None);
        for _ in 0..self.few_rounds() {
            for _ in 0..BACKLOG_LOADS {
                self.runs += 1;
                SATURATED.send(filler.intake, self.runs, || ());
            }
            let forward = stage.begin_relay("forward");
            forward.wait_ready();
            forward.wait_forwarded(1);
            let (first, cpu, began) = (forward.forwarded(), forward.cpu(), Instant::now());
            let events = SATURATED.events * BACKLOG_LOADS;
            forward.wait_forwarded(events as u64);
            let wall = began.elapsed();
            let figures = work(events - first as usize, (wall, wall), cpu, &forward);
            self.figures.add(row, &figures);
            forward.stop();
        }
    }
}
