//! What the relay costs, against the least that it could cost: the floor (`floor.rs`), measured in the same run, round by
//! round in turns, so that whatever else the machine does meets both.
//!
//!     script/bench [--quick] [--json FILE] [--only PART] [--set KEY=VALUE]...
//!
//! The server that is measured has the first core for itself, and load, broker and readers share the others, but where latency
//! is what counts: there all share all. CPU time is what Linux accounts to the server's process, librdkafka's threads with it.
//! Every figure is told as median and minimum of the rounds. Latencies are exact: all of them are kept, from when each delivery
//! was to be sent.

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
mod goals;
mod load;
mod on_mock;
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
use std::time::Instant;

use figures::Figures;
use scenarios::Scenarios;

fn main() {
    // `cargo bench` adds one of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["floor", port, servers, topic, url, secret] => {
            floor::run(port.parse().unwrap(), servers, topic, (url, secret));
        }
        ["relay", config, secret] => on_mock::run(Path::new(config), secret.as_bytes()),
        ["acknowledge", servers, topic, per_second, events] => {
            let (per_second, events) = (per_second.parse().unwrap(), events.parse().unwrap());
            acknowledgement::run(servers, topic, per_second, events);
        }
        ["broker"] => broker::run(),
        ref options => measure(options),
    }
}

fn measure(options: &[&str]) {
    let (mut is_quick, mut json, mut only, mut settings) = (false, None, String::new(), Vec::new());
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--quick" => is_quick = true,
            "--json" => json = Some(PathBuf::from(options.next().expect("a file"))),
            "--only" => only = options.next().expect("a part of a name").to_string(),
            "--set" => {
                let (key, value) =
                    options.next().and_then(|option| option.split_once('=')).expect("KEY=VALUE");
                settings.push((key.to_owned(), value.to_owned()));
            }
            other => panic!("{other}: wanted --quick, --json FILE, --only PART or --set KEY=VALUE"),
        }
    }
    server::Cores::Apart.take();
    let (figures, began) = (Figures::default(), Instant::now());
    let mut scenarios = Scenarios { is_quick, only, settings, figures, began, runs: 0 };
    scenarios.all();
    scenarios.figures.print();
    goals::print(&scenarios.figures);
    if let Some(file) = json {
        scenarios.figures.write(&file);
    }
}

/// Floor, relay and broker are started as further processes of it.
fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}
