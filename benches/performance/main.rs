//! What the relay costs, against the least that it could cost: the floor (`floor.rs`), measured in the same run, round by
//! round in turns, so that whatever else the machine does meets both.
//!
//!     script/bench [--quick] [--json FILE] [--only PART] [--set KEY=VALUE]...
//!
//! The servers have the first core, and load, broker and readers share the others, but where latency is what counts: there all
//! share all. Only one server at a time has a load. CPU time is what Linux accounts to a process, librdkafka's threads with it.
//! Figures are medians of the rounds; percentiles are of the latencies of all rounds, and exact: all are kept. Where so many
//! are sent a second, they count from when each delivery was to be sent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a program for developers")]
#![allow(clippy::pedantic, reason = "helps the product; such a program is read more than called")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::missing_panics_doc,
    reason = "names of helpers tell what they do"
)]

mod acknowledgement;
mod broker;
mod downstream;
mod drain;
mod figures;
mod floor;
mod floor_forward;
mod goals;
mod load;
mod on_mock;
mod options;
mod origin;
mod rebuild;
#[allow(dead_code, reason = "nobody drains it here")]
#[path = "../../src/commands/relay.rs"]
mod relay;
mod scenarios;
mod server;
mod stage;
#[allow(dead_code, unused_imports, reason = "the promises use the rest")]
#[path = "../../tests/support/mod.rs"]
mod support;
mod window;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use figures::Figures;
use options::{Options, USAGE};
use scenarios::Scenarios;

fn main() -> ExitCode {
    // `cargo bench` adds one of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["floor", port, servers, topic, url, secret, ref events @ ..] => {
            let forwarded = events.first().map(|events| floor_forward::start(servers, topic, events));
            floor::run(port.parse().unwrap(), servers, topic, (url, secret), forwarded.unwrap_or_default());
        }
        ["relay", config, secret] => on_mock::run(Path::new(config), secret.as_bytes()),
        ["acknowledge", servers, topic, per_second, events] => {
            let (per_second, events) = (per_second.parse().unwrap(), events.parse().unwrap());
            acknowledgement::run(servers, topic, per_second, events);
        }
        ["broker"] => broker::run(),
        ref options => match Options::parse(options).and_then(measure) {
            Ok(()) => {}
            Err(reason) => {
                eprintln!("{reason}\n{USAGE}");
                return ExitCode::from(2);
            }
        },
    }
    ExitCode::SUCCESS
}

/// Or why there was nothing to measure.
fn measure(options: Options) -> Result<(), String> {
    let Options { is_quick, json, only, settings, is_help } = options;
    if is_help {
        println!("{USAGE}");
        return Ok(());
    }
    server::Cores::Apart.take();
    let (figures, began) = (Figures::default(), Instant::now());
    let mut scenarios = Scenarios { is_quick, only, settings, figures, began, runs: 0, has_begun: false };
    scenarios.all();
    if !scenarios.has_begun {
        return Err(format!("nothing that is measured has {:?} in its name", scenarios.only));
    }
    scenarios.figures.print();
    goals::print(&scenarios.figures);
    if let Some(file) = json {
        scenarios.figures.write(&file);
    }
    Ok(())
}

/// Floor, relay and broker are started as further processes of it.
fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}
