//! What is read again while the relay runs: the signing secrets and the certificate, when their files change or
//! SIGHUP says so.

use std::sync::Arc;
use std::time::Duration;

use clearfeed_relay::telemetry::health::Health;
use clearfeed_relay::telemetry::metrics::Metrics;
use tokio::signal::unix::Signal;

use super::certificate::CertificateFiles;
use super::relay::blocking;
use super::secrets::SecretFiles;

/// Files are looked at so often. What tells of changes (inotify) misses those behind Kubernetes's symbolic links, and on
/// network file systems; what the path leads to is what counts.
const EVERY: Duration = Duration::from_secs(5);

/// Looks again and again, for good.
pub(crate) async fn run(
    mut secrets: SecretFiles,
    mut certificate: Option<CertificateFiles>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    mut hangup: Signal,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            Some(()) = hangup.recv() => tracing::info!("SIGHUP: reading files again"),
        }
        let looked = blocking(move || {
            let mut problems = secrets.reload();
            problems.extend(certificate.as_mut().and_then(CertificateFiles::reload));
            (secrets, certificate, problems)
        })
        .await;
        let problems;
        match looked {
            Ok(looked) => (secrets, certificate, problems) = looked,
            Err(error) => {
                tracing::error!(%error, "files are not read again until the next start");
                return metrics.process.reload_successful.set(0);
            }
        }
        if let Some(certificate) = &certificate {
            certificate.observe(&metrics);
        }
        metrics.process.reload_successful.set(problems.is_empty().into());
        health.set_reload(problems);
    }
}
