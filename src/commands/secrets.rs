//! The signing secrets, read from the files that the configuration names.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use clearfeed_relay::config::{Config, Problem};
use clearfeed_relay::domain::signature::{Keyring, MIN_SECRET_BYTES, Secret};

/// The keyring of each source. Each file that cannot be used is a problem.
pub(crate) fn read(config: &Config, problems: &mut Vec<Problem>) -> BTreeMap<String, Keyring> {
    let mut keyrings = BTreeMap::new();
    for (name, source) in &config.sources {
        let mut slots = Vec::new();
        for (index, path) in source.signing_secret_files.iter().enumerate() {
            let secret = match std::fs::read(path) {
                Ok(content) => Secret::from_file_content(content).map_err(|error| error.to_string()),
                // A previous secret that is gone is retired; the current one has to be there.
                Err(error) if index > 0 && error.kind() == ErrorKind::NotFound => {
                    slots.push(None);
                    continue;
                }
                Err(error) => Err(format!("no secret, for the file cannot be read: {error}")),
            };
            match secret {
                Ok(secret) => slots.push(Some(secret)),
                Err(found) => problems.push(Problem {
                    key: format!("sources.{name}.signing_secret_files[{index}]"),
                    found,
                    wanted: format!("a file with one signing secret of at least {MIN_SECRET_BYTES} bytes"),
                    whence: path.display().to_string(),
                }),
            }
        }
        keyrings.insert(name.clone(), Keyring::new(slots));
    }
    keyrings
}
