//! Where the configuration comes from: the file, and this process's environment.

use std::ffi::OsString;
use std::path::Path;

use clearfeed_relay::config::{self, Config, Problem, Problems, Role};

/// Reads it as [`config::load`] does.
pub(super) fn load(
    path: &Path,
    role: Option<Role>,
    further: impl FnOnce(&Config, &str) -> Vec<Problem>,
) -> Result<Config, Problems> {
    // Other programs' variables need not be UTF-8; a value of ours that is not is refused as what it then looks like.
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    config::load(path, environment, role, further)
}
