//! A disk that fails when a test wants it to, as far as the relay's spool can see, and tells what was done with it: a library
//! that is loaded before libc.

use std::fmt;
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

/// What was done with a file or a directory of a spool, or to which directory was synced.
#[derive(Debug)]
pub struct Operation {
    pub path: PathBuf,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    Create,
    Write(usize, Vec<u8>),
    Truncate(usize),
    Sync,
    Remove,
    Rename(PathBuf),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Write(at, bytes) => write!(f, "write of {} bytes at {at}", bytes.len())?,
            other => write!(f, "{other:?}")?,
        }
        write!(f, " of {:?}", self.path)
    }
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

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// For a process that is to have this disk.
    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [("LD_PRELOAD", self.library()), ("BROKEN_DISK", self.switch()), ("DISK_LOG", self.log())]
    }

    /// What was done so far, in its order.
    pub fn operations(&self) -> Vec<Operation> {
        let log = std::fs::read(self.log()).unwrap();
        let (mut rest, mut operations) = (&log[..], Vec::new());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let mut line = str::from_utf8(&rest[..end]).unwrap().splitn(4, ' ');
            let mut next = || line.next().unwrap();
            let (what, at, length, path) = (next(), next(), next(), next());
            let at = at.parse().unwrap();
            let (bytes, after) = rest[end + 1..].split_at(length.parse().unwrap());
            let what = match what {
                "create" => What::Create,
                "write" => What::Write(at, bytes.to_vec()),
                "truncate" => What::Truncate(at),
                "sync" => What::Sync,
                "remove" => What::Remove,
                "rename" => What::Rename(str::from_utf8(bytes).unwrap().into()),
                _ => panic!("{what}?"),
            };
            operations.push(Operation { path: path.into(), what });
            rest = after;
        }
        operations
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
