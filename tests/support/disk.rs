//! A disk that fails when a test wants it to, as far as the relay's spool can see: a library that is loaded before libc.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// What fails, for files of a spool.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Syncs, with EIO.
    Sync,
    /// Writes, with ENOSPC.
    Full,
    /// Opening for writing, with EROFS.
    ReadOnly,
    /// Syncs, which do not return.
    Hang,
}

/// A disk that is well.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Compiles the library, with what librdkafka is compiled with.
    pub fn new() -> Self {
        let disk = Self { folder: TempDir::with_prefix("disk").unwrap() };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/disk.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&disk.library(), &PathBuf::from(source)])
            .arg("-ldl")
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        disk
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("disk.so")
    }

    fn switch(&self) -> PathBuf {
        self.folder.path().join("fault")
    }

    /// For a process that is to have this disk.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library()), ("BROKEN_DISK", self.switch())]
    }

    /// From now on this fails, and nothing else.
    pub fn begin(&self, fault: Fault) {
        let how = match fault {
            Fault::Sync => "sync",
            Fault::Full => "full",
            Fault::ReadOnly => "read-only",
            Fault::Hang => "hang",
        };
        // In one step: the relay must not read half a word.
        let written = self.folder.path().join("written");
        std::fs::write(&written, how).unwrap();
        std::fs::rename(written, self.switch()).unwrap();
    }

    /// It is well again.
    pub fn heal(&self) {
        std::fs::remove_file(self.switch()).unwrap();
    }
}
