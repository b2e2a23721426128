//! The certificate of the listener and its key, read from the files that the configuration names, and read again when these
//! change.

use std::path::Path;
use std::sync::Arc;

use clearfeed_relay::config::{Config, Problem, TlsFiles};
use clearfeed_relay::intake::{Certificate, Pair};
use clearfeed_relay::telemetry::metrics::Metrics;
use zeroize::Zeroizing;

/// Both files, and the last good pair.
pub(crate) struct CertificateFiles {
    files: TlsFiles,
    pair: Pair,
    certificate: Arc<Certificate>,
    problem: Option<String>,
}

impl CertificateFiles {
    /// Reads them for the first time, where the listener speaks TLS. What cannot be used is a problem.
    pub(crate) fn read(config: &Config, problems: &mut Vec<Problem>) -> Option<Self> {
        let files = config.intake.tls.clone()?;
        match read(&files) {
            Ok(pair) => {
                let certificate = Certificate::new(&pair);
                Some(Self { files, pair, certificate, problem: None })
            }
            Err(found) => {
                let (key, whence) = ("intake.tls".to_owned(), files.certificate.display().to_string());
                let wanted = "a certificate chain and its key, both PEM".to_owned();
                problems.push(Problem { key, found, wanted, whence });
                None
            }
        }
    }

    /// As it will always be of late.
    pub(crate) fn certificate(&self) -> Arc<Certificate> {
        Arc::clone(&self.certificate)
    }

    /// Tells when it expires.
    pub(crate) fn observe(&self, metrics: &Metrics) {
        metrics.intake.certificate_not_after.set(self.pair.not_after().as_second());
    }

    /// Reads both again, and takes them where they changed and can be used. Says what is wrong.
    pub(crate) fn reload(&mut self) -> Option<String> {
        let (certificate_file, key_file) = (self.files.certificate.display(), self.files.key.display());
        match read(&self.files) {
            Ok(pair) => {
                if pair != self.pair {
                    tracing::info!(%certificate_file, not_after = %pair.not_after(), "certificate read again");
                    self.certificate.replace(&pair);
                    self.pair = pair;
                }
                self.problem = None;
            }
            Err(found) => {
                if self.problem.as_ref() != Some(&found) {
                    tracing::warn!(%certificate_file, %key_file, found, "certificate not read again: the last one stays");
                }
                self.problem = Some(found);
            }
        }
        self.problem.clone()
    }
}

/// Reads both files. The error says what was found.
pub(super) fn read(files: &TlsFiles) -> Result<Pair, String> {
    let content = |file: &Path| {
        std::fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
    };
    let key = Zeroizing::new(content(&files.key)?);
    let (chain, names) = (content(&files.certificate)?, (files.certificate.display(), files.key.display()));
    Pair::from_pem(&chain, &key).map_err(|error| format!("{} with {}: {error}", names.0, names.1))
}
