//! A configuration, TOML or YAML, can be used or is refused with all its problems: never a panic, never a silent refusal.
#![no_main]

use std::cell::LazyCell;

use clearfeed_relay::config;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: LazyCell<TempDir> = LazyCell::new(|| TempDir::new().expect("a folder"));
}

fuzz_target!(|text: &[u8]| {
    for name in ["relay.toml", "relay.yaml"] {
        let path = FOLDER.with(|folder| folder.path().join(name));
        std::fs::write(&path, text).expect("a file");
        match config::load(&path, std::iter::empty(), None, |_, _| Vec::new()) {
            Ok(config) => assert!(!config.sources.is_empty() && !config.hash.is_empty()),
            Err(problems) => assert!(!problems.0.is_empty()),
        }
    }
});
