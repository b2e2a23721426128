//! The signing secrets, read from the files that the configuration names, and read again when these change.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use clearfeed_relay::config::{Config, Problem};
use clearfeed_relay::domain::signature::{Keyring, MIN_SECRET_BYTES, Secret};
use clearfeed_relay::intake::SharedKeyring;

/// Looks at one source's files in a row, while each finds another change.
const MAX_LOOKS: usize = 3;

/// All files, by source, and the last good secret of each.
#[derive(Default)]
pub(crate) struct SecretFiles {
    sources: BTreeMap<String, Source>,
}

struct Source {
    files: Vec<File>,
    keyring: SharedKeyring,
}

struct File {
    path: PathBuf,
    /// None: retired.
    secret: Option<Secret>,
    /// Why what stands there now is no secret.
    problem: Option<String>,
}

impl SecretFiles {
    /// Reads all of them for the first time. Each that cannot be used is a problem.
    pub(crate) fn read(config: &Config, problems: &mut Vec<Problem>) -> Self {
        let mut sources = BTreeMap::new();
        for (name, source) in &config.sources {
            let mut files = Vec::new();
            for (slot, path) in source.signing_secret_files.iter().enumerate() {
                let secret = read(path, slot).unwrap_or_else(|found| {
                    problems.push(Problem {
                        key: format!("sources.{name}.signing_secret_files[{slot}]"),
                        found,
                        wanted: format!(
                            "a file with one signing secret of at least {MIN_SECRET_BYTES} bytes"
                        ),
                        whence: path.display().to_string(),
                    });
                    None
                });
                files.push(File { path: path.clone(), secret, problem: None });
            }
            let keyring = Arc::new(ArcSwap::from_pointee(keyring(&files)));
            sources.insert(name.clone(), Source { files, keyring });
        }
        Self { sources }
    }

    /// The keyring of each source, as it will always be of late.
    pub(crate) fn keyrings(&self) -> BTreeMap<String, SharedKeyring> {
        self.sources.iter().map(|(name, source)| (name.clone(), Arc::clone(&source.keyring))).collect()
    }

    /// Reads all of them again, and takes what changed. A file that is no secret any more leaves the last one that it was in
    /// force; but a later one that is empty or gone is retired. Says what is wrong.
    pub(crate) fn reload(&mut self) -> Vec<String> {
        for (name, source) in &mut self.sources {
            // Kubernetes swaps all files at once, and may do so between two reads: what is taken are looks that agree.
            let changes = (0..MAX_LOOKS).take_while(|_| source.look(name)).count();
            if changes > 0 {
                source.keyring.store(Arc::new(keyring(&source.files)));
            }
        }
        let files = self.sources.values().flat_map(|source| &source.files);
        files
            .filter_map(|file| Some(format!("{}: {}", file.path.display(), file.problem.as_ref()?)))
            .collect()
    }
}

impl Source {
    /// Reads all files once. Whether a secret changed.
    fn look(&mut self, name: &str) -> bool {
        let mut is_changed = false;
        for (slot, file) in self.files.iter_mut().enumerate() {
            let path = file.path.display();
            match read(&file.path, slot) {
                Ok(secret) => {
                    file.problem = None;
                    if secret != file.secret {
                        let what = if secret.is_some() { "read again" } else { "retired" };
                        tracing::info!(source = name, slot, %path, "signing secret {what}");
                        file.secret = secret;
                        is_changed = true;
                    }
                }
                Err(found) if file.problem.as_ref() != Some(&found) => {
                    tracing::warn!(source = name, slot, %path, found, "signing secret not read again: the last one stays");
                    file.problem = Some(found);
                }
                Err(_) => {}
            }
        }
        is_changed
    }
}

fn keyring(files: &[File]) -> Keyring {
    Keyring::new(files.iter().map(|file| file.secret.clone()).collect())
}

/// The secret in a file; none where it is retired, which the first one, in slot 0, cannot be. The error says what was found.
pub(crate) fn read(path: &Path, slot: usize) -> Result<Option<Secret>, String> {
    match std::fs::read(path) {
        Ok(content) if slot > 0 && content.trim_ascii().is_empty() => Ok(None),
        Ok(content) => Secret::from_file_content(content).map(Some).map_err(|error| error.to_string()),
        Err(error) if slot > 0 && error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("no secret, for the file cannot be read: {error}")),
    }
}
