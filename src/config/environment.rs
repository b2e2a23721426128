//! The environment variables that the relay reads. No other file names one.

use super::keys::{Row, Shape};

/// Every variable that sets a key starts so.
pub(super) const PREFIX: &str = "CLEARFEED_RELAY__";
/// What a container or a shell says that this machine is called.
const HOSTNAME: &str = "HOSTNAME";
/// Where it stands when no variable says it: shells keep `HOSTNAME` to themselves.
const HOSTNAME_FILE: &str = "/etc/hostname";

/// The variable that sets this key: `CLEARFEED_RELAY__INTAKE__MAX_BODY` for `intake.max_body`.
///
/// Only scalars of fixed sections have one. A name that users choose (a source's, a property's) cannot be
/// told from its upper-case form, and a list has no single natural spelling.
pub(super) fn variable(row: &Row) -> Option<String> {
    let fixed = row.shape == Shape::One && !row.path.contains('*');
    fixed.then(|| format!("{PREFIX}{}", row.path.to_uppercase().replace('.', "__")))
}

/// The variables that are meant for keys, and this machine's name where it is known.
pub(super) fn split(
    environment: impl Iterator<Item = (String, String)>,
) -> (std::collections::BTreeMap<String, String>, Option<String>) {
    let mut hostname = None;
    let mut settings = std::collections::BTreeMap::new();
    for (name, value) in environment {
        if name == HOSTNAME {
            hostname = Some(value);
        } else if name.starts_with(PREFIX) {
            settings.insert(name, value);
        }
    }
    let hostname = hostname.or_else(|| std::fs::read_to_string(HOSTNAME_FILE).ok());
    (settings, hostname.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()))
}
