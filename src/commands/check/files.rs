//! Secrets, tokens, certificate and key: present, readable, for nobody else to read; and the spool's directory.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use clearfeed_relay::clearfeed::Token;
use clearfeed_relay::config::{Config, Spool, TlsFiles};
use clearfeed_relay::domain::signature::Secret;
use clearfeed_relay::intake::Pair;
use clearfeed_relay::spool;
use jiff::Timestamp;

use super::Check;
use crate::commands::certificate;

/// Certificates are renewed a month before they expire; one that has less than this left was forgotten.
const MIN_VALIDITY: Duration = Duration::from_secs(14 * 24 * 3600);
/// The mode's bits of those who are neither the owner nor of the group.
const OTHERS: u32 = 0o007;

pub(super) fn check(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    if config.role.has_intake() {
        for (name, source) in &config.sources {
            for (slot, file) in source.signing_secret_files.iter().enumerate() {
                checks.push(secret(&format!("source {name}, signing secret {slot}"), file, slot));
            }
        }
        checks.extend(config.intake.tls.iter().map(|files| certificate(config, files)));
        checks.extend(config.intake.tls.iter().map(|files| private("key of the certificate", &files.key)));
        checks.extend(config.spool.iter().map(spool_directory));
    }
    if config.role.has_forward() {
        checks.extend(
            config.apis().map(|(name, api)| token(&format!("source {name}, API token"), &api.token_file)),
        );
    }
    let secrets = config.kafka.property_files.iter();
    checks.extend(secrets.map(|(key, file)| private(&format!("kafka property {key}"), file)));
    checks
}

fn secret(check: &str, file: &Path, slot: usize) -> Check {
    match std::fs::read(file) {
        Ok(content) if slot > 0 && content.trim_ascii().is_empty() => Check::ok(check, "retired: empty"),
        Ok(content) => match Secret::from_file_content(content) {
            Ok(_) => private(check, file),
            Err(error) => Check::wrong(check, format!("{}: {error}", file.display())),
        },
        Err(error) if slot > 0 && error.kind() == std::io::ErrorKind::NotFound => {
            Check::ok(check, "retired: no such file")
        }
        Err(error) => Check::wrong(check, format!("{}: {error}; save the secret there", file.display())),
    }
}

fn token(check: &str, file: &Path) -> Check {
    match Token::read(file) {
        Ok(_) => private(check, file),
        Err(error) => Check::wrong(check, format!("{}: {error}", file.display())),
    }
}

/// Whether nobody but the owner and the group can do anything with it.
fn private(check: &str, file: &Path) -> Check {
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.permissions().mode() & OTHERS == 0 => {
            Check::ok(check, file.display().to_string())
        }
        Ok(metadata) => Check::wrong(
            check,
            format!(
                "{}: found mode {:03o}, open to everybody; repair it with: chmod o= {0} (in Kubernetes: defaultMode 0440)",
                file.display(),
                metadata.permissions().mode() & 0o777,
            ),
        ),
        Err(error) => Check::wrong(check, format!("{}: {error}", file.display())),
    }
}

/// Whether the spool could be made or opened, without opening it: it may be in use.
fn spool_directory(settings: &Spool) -> Check {
    let (check, directory) = ("spool", settings.directory.display());
    let probe = settings.directory.join(format!("check-{}", std::process::id()));
    let written = std::fs::write(&probe, "").and_then(|()| std::fs::remove_file(&probe));
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::ok(check, format!("{directory}: no such directory; it is made at the start"))
        }
        Err(error) => Check::wrong(
            check,
            format!("{directory}: {error}; wanted a directory that the relay can write to"),
        ),
        Ok(()) => match spool::set_aside(&settings.directory).as_slice() {
            [] => Check::ok(check, directory.to_string()),
            [file, ..] => Check::wrong(
                check,
                format!(
                    "{}: was broken, and is set aside; docs/runbook.md#clearfeedrelayspooldamaged tells what to do with it",
                    file.display()
                ),
            ),
        },
    }
}

fn certificate(config: &Config, files: &TlsFiles) -> Check {
    let check = "certificate";
    let pair = match certificate::read(files) {
        Ok(pair) => pair,
        Err(found) => return Check::wrong(check, found),
    };
    let (now, file) = (Timestamp::now(), files.certificate.display());
    if now < pair.not_before() {
        return Check::wrong(check, format!("{file}: valid only from {}", pair.not_before()));
    }
    let left = pair.not_after().duration_since(now);
    if left < MIN_VALIDITY.try_into().unwrap_or_default() {
        return Check::wrong(check, format!("{file}: expires at {}; renew it", pair.not_after()));
    }
    let hosts = config.sources.values().map(|source| source.public_url.host());
    let missing: Vec<_> = hosts.filter(|host| !is_named(&pair, host)).collect();
    if missing.is_empty() {
        Check::ok(check, format!("{file}: for {}, until {}", pair.names().join(", "), pair.not_after()))
    } else {
        let (names, missing) = (pair.names().join(", "), missing.join(", "));
        Check::wrong(check, format!("{file}: found the names {names}, wanted also {missing} of public_url"))
    }
}

/// A name stands for itself, and `*.` for one label (RFC 6125).
fn is_named(pair: &Pair, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    pair.names().iter().map(|name| name.to_ascii_lowercase()).any(|name| match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
        None => name == host,
    })
}
