//! Exit codes, as in the README.

use std::io::Write;
use std::process::ExitCode;

use clearfeed_relay::config::Problems;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// It failed, or (where something was examined) something was found wrong.
pub(crate) const FAILED: u8 = 1;
/// Wrong command line, as clap has it.
pub(crate) const WRONG_COMMAND_LINE: u8 = 2;
/// Kafka or ClearFeed is out of reach (`EX_UNAVAILABLE` of sysexits).
pub(crate) const OUT_OF_REACH: u8 = 69;
/// The configuration is wrong (`EX_CONFIG` of sysexits).
pub(crate) const WRONG_CONFIGURATION: u8 = 78;

/// Kafka or ClearFeed could not be asked, or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct OutOfReach(pub(crate) String);

/// A record is not in Kafka: out of reach where nobody answered, and a failure where somebody refused.
pub(crate) fn not_taken(what: String, error: &KafkaError) -> anyhow::Error {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::AllBrokersDown) => OutOfReach(what).into(),
        _ => anyhow::anyhow!(what),
    }
}

/// Tells on stderr why a command failed, and gives the exit code for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let is_configuration = error.is::<Problems>();
    let text = if is_configuration {
        format!("the configuration is wrong:\n{error}\n")
    } else {
        format!("error: {error:#}\n")
    };
    // Without a stderr there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(if is_configuration {
        WRONG_CONFIGURATION
    } else if error.is::<OutOfReach>() {
        OUT_OF_REACH
    } else {
        FAILED
    })
}
