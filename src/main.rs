//! The program: one command line, one exit code.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Receives ClearFeed's signed events and publishes each to Kafka exactly once.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay: receive deliveries, forward them, or both
    Serve(commands::serve::Arguments),
    /// Check the configuration, its files, and Kafka: a table with what is wrong and how to repair it
    Check(commands::check::Arguments),
    /// Ask the relay on this machine whether it is ready: for containers and scripts
    Health(commands::health::Arguments),
    /// Show the whole path of an event in one process, without a Kafka
    Demo(commands::demo::Arguments),
    /// Play ClearFeed against any URL: pings, signed events, redeliveries
    Simulate(Box<commands::simulate::Arguments>),
    /// Put dead letters back into the inbox, once their cause is mended; list them; show one
    Redrive(commands::redrive::Arguments),
    /// Copy the requests of a span from ClearFeed's REST API into the snapshot topic
    Backfill(commands::backfill::Arguments),
    /// Take care of what a spool held whose relay is gone
    #[command(subcommand)]
    Spool(commands::spool::Command),
    /// Explain why a captured request is taken for ClearFeed's, or is not
    Verify(commands::verify::Arguments),
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Serve(arguments) => commands::serve::run(&arguments),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Health(arguments) => commands::health::run(&arguments),
        Command::Demo(arguments) => commands::demo::run(&arguments),
        Command::Simulate(arguments) => commands::simulate::run(*arguments),
        Command::Redrive(arguments) => commands::redrive::run(&arguments),
        Command::Backfill(arguments) => commands::backfill::run(&arguments),
        Command::Spool(command) => commands::spool::run(&command),
        Command::Verify(arguments) => commands::verify::run(&arguments),
    };
    result.unwrap_or_else(|error| commands::exit::report(&error))
}
