//! What a person wants to know first: does anything have to be done, and what.

use crate::domain::delivery::Refusal;
use crate::telemetry::labels::{Ending, Label};
use crate::telemetry::status::{
    Durable, IntakeStatus, PartitionState, Reason, ReconcileState, SpoolStatus, Status,
};

/// Whether a person has to do something.
pub(super) struct Verdict {
    /// The page's class for it: `good`, `warn` or `bad`.
    pub(super) class: &'static str,
    pub(super) word: &'static str,
    pub(super) troubles: Vec<String>,
}

impl Verdict {
    pub(super) fn of(status: &Status) -> Self {
        let troubles = troubles(status);
        let (class, word) = match (status.alive, status.ready, troubles.is_empty()) {
            (false, ..) => ("bad", "Stuck"),
            (true, false, _) => ("bad", "Not ready"),
            (true, true, false) => ("warn", "Ready, with trouble"),
            (true, true, true) => ("good", "Healthy"),
        };
        Self { class, word, troubles }
    }
}

/// Everything that is not as it should be, the worst first.
fn troubles(status: &Status) -> Vec<String> {
    let mut troubles = Vec::new();
    let mut half = |name: &str, reasons: &[Reason]| {
        for Reason { reason, detail } in reasons {
            troubles.push(format!("{name}: {}: {detail}", reason.as_str()));
        }
    };
    if let Some(intake) = &status.intake {
        half("intake", &intake.reasons);
    }
    if let Some(forward) = &status.forward {
        half("forward", &forward.reasons);
    }
    if !status.alive {
        troubles.push(
            "the forward half does not move: the process has to be started again, see /livez".to_owned(),
        );
    }
    for partition in status.forward.iter().flat_map(|forward| &forward.status.owned) {
        if let PartitionState::Held { reason, detail } = &partition.state {
            troubles.push(format!(
                "partition {} is held: {}: {detail}",
                partition.partition,
                reason.as_str()
            ));
        }
    }
    troubles.extend(status.intake.iter().filter_map(|intake| intake.spool).flat_map(spool));
    for reconcile in status.forward.iter().flat_map(|forward| &forward.status.reconcile) {
        if let ReconcileState::Failing { detail } = &reconcile.state {
            troubles.push(format!("source {}: ClearFeed's API: {detail}", reconcile.source));
        }
    }
    troubles.extend(status.intake.iter().flat_map(deliveries));
    troubles.extend(status.kafka.problems.iter().map(|problem| format!("kafka: {problem}")));
    troubles.extend(status.reload.problems.iter().map(|problem| format!("not read again: {problem}")));
    if status.durable == Durable::No {
        let reason = status.durable_reason.as_deref().unwrap_or("fewer than two replicas in sync");
        troubles.push(format!("what is answered 200 does not survive the loss of a broker: {reason}"));
    }
    troubles
}

/// What is wrong with the spool; that it is used is Kafka's trouble, and told with it.
fn spool(spool: SpoolStatus) -> Vec<String> {
    let mut troubles = Vec::new();
    if spool.failed {
        troubles.push("the spool is out of order: without Kafka deliveries are answered 503".to_owned());
    }
    if spool.damaged > 0 {
        troubles.push(format!("the spool has set aside what was broken: {}", spool.damaged));
    }
    if spool.bytes > spool.limit_bytes / 2 {
        troubles.push(format!("the spool has taken {} of {} bytes", spool.bytes, spool.limit_bytes));
    }
    troubles
}

/// What of the last hour's deliveries should not be as it is.
fn deliveries(intake: &IntakeStatus) -> Vec<String> {
    let (accepted, failed): (u64, u64) =
        (intake.last_hour.accepted.iter().sum(), intake.last_hour.failed.iter().sum());
    // Whoever cannot sign is a stranger, and strangers are no trouble; one who cannot sign right may be ClearFeed.
    let is_wrong = |reason| {
        matches!(reason, Ending::NotAuthenticated(Refusal::Mismatch | Refusal::TooOld | Refusal::TooNew))
    };
    let refused: u64 =
        intake.not_kept.iter().filter(|line| is_wrong(line.reason)).map(|line| line.last_hour).sum();
    let mut troubles = Vec::new();
    if refused > accepted {
        troubles.push(format!(
            "{refused} deliveries of the last hour had a wrong signature or time, and {accepted} were accepted: see below"
        ));
    }
    if failed > 0 {
        troubles.push(format!("{failed} deliveries of the last hour were authentic, and could not be kept"));
    }
    troubles
}
