//! `spool`: what is done about a spool that no relay has open.

mod recover;

use std::process::ExitCode;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Put the deliveries of a spool's file into the inbox: one whose relay is gone, or that was broken
    /// and set aside
    Recover(recover::Arguments),
}

/// Does it.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Recover(arguments) => recover::run(arguments),
    }
}
