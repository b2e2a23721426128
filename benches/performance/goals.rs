//! What was aimed at, beside what was found.

use crate::figures::{Figures, Summary};

/// A figure that may not be above, or not be below, what was aimed at.
struct Goal {
    what: &'static str,
    found: Option<Summary>,
    limit: f64,
    is_at_least: bool,
}

impl Goal {
    /// A machine that does other things too disturbs the rounds; where the least say otherwise, the run says nothing.
    fn is_held(&self, found: Summary) -> &'static str {
        let is_held = |value| if self.is_at_least { value >= self.limit } else { value <= self.limit };
        match (is_held(found.found), is_held(found.of_least)) {
            (true, true) => "yes",
            (false, false) => "no",
            _ => "unclear",
        }
    }
}

pub fn print(figures: &Figures) {
    let at_most = |what, limit, found| Goal { what, found, limit, is_at_least: false };
    let (saturated, shared) = ("64 connections", "1,000/s, cores shared");
    let cpu = |server| figures.ratio(("memory", saturated, server), ("memory", saturated, "floor"), "cpu_us");
    let answer = |server| figures.ratio(("kafka", shared, server), ("kafka", shared, "ack"), "p99_ms");
    print!("\n{:<58}{:>12}{:>12}", "goal", "aimed at", "found");
    println!("{:>12}{:>12}{:>12}  {:<9}estimator", "least", "greatest", "of least", "held");
    for goal in [
        at_most("intake: CPU per event at saturation, of the floor's", 1.25, cpu("intake")),
        at_most("whole: CPU per event at saturation, of the floor's", 1.5, cpu("all")),
        at_most("intake: answer p99 at 1,000/s, of the broker's own", 3.0, answer("intake")),
        at_most("whole: answer p99 at 1,000/s, of the broker's own", 3.0, answer("all")),
        at_most(
            "end to end p99 at 1,000/s, ms",
            50.0,
            figures.summary(("kafka", shared, "all"), "end_p99_ms"),
        ),
        at_most("memory at 1,000/s, MiB", 64.0, figures.summary(("kafka", shared, "all"), "peak_mib")),
        at_most("idle, % of a core", 1.0, figures.summary(("kafka", "idle", "all"), "core_percent")),
        at_most("ready after its start, s", 2.0, figures.summary(("kafka", "start", "all"), "ready_s")),
        Goal {
            what: "rebuild of a window, ids/s",
            found: figures.summary(("kafka", "rebuild", "forward"), "ids_s"),
            limit: 2e6,
            is_at_least: true,
        },
    ] {
        let Goal { what, limit, .. } = goal;
        match goal.found {
            Some(found) => {
                let held = goal.is_held(found);
                let Summary { found, estimator, least, greatest, of_least } = found;
                print!("{what:<58}{limit:>12}{found:>12.2}");
                println!("{least:>12.2}{greatest:>12.2}{of_least:>12.2}  {held:<9}{estimator}");
            }
            None => println!("{what:<58}{limit:>12}{:>12}", "–"),
        }
    }
}
