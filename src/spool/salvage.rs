//! What is done with a spool whose file is broken: what can be read of it goes into a new file, in order, and the broken one
//! is kept beside it, under another name, for as long as somebody wants it.
//!
//! A crash at any moment repeats this from its beginning: the new file gets its name only when the old one has lost it, and a
//! new file that has no name yet is finished if the old one is gone, and made anew if it is not.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{ErrorCode, OpenFlags};
use tempfile::TempDir;

use super::store::{FILE, OpenError, Store, VERSION, explained};
use super::{Limits, Place, Spooled};

/// A new file that is being filled.
const UNFINISHED: &str = "salvage.sqlite";
/// Between the name of a file that was set aside and the time at which it was.
const SET_ASIDE: &str = "broken-";
/// What goes to the new file in one transaction.
const GROUP: Limits = Limits { records: 256, bytes: 8 << 20 };
/// Places that cannot be read one after another before the rest is given up: a page has far fewer records.
const MAX_UNREADABLE: u64 = 100_000;

/// The records of a file, read one by one. Places without a record are passed over: they were drained, or are unreadable.
pub struct Readable {
    store: Store,
    /// Where to read on; none: it was read to its end.
    next: Option<Place>,
    last: Place,
    /// Places of which it is not known whether a record was there, for their pages are broken, and records that do not fit
    /// their digests.
    pub unreadable: u64,
    /// What is read where the file is not.
    _copy: Option<TempDir>,
}

/// Opens the spool of a directory.
pub(super) fn open(directory: &Path, max_size_bytes: u64) -> Result<Store, OpenError> {
    let unusable = |error: std::io::Error| OpenError::Unusable(directory.to_owned(), error.to_string());
    create(directory).map_err(unusable)?;
    let (file, unfinished) = (directory.join(FILE), directory.join(UNFINISHED));
    if unfinished.exists() {
        if file.exists() {
            std::fs::remove_file(&unfinished).map_err(unusable)?;
        } else {
            std::fs::rename(&unfinished, &file).map_err(unusable)?;
        }
    }
    let error = match Store::open(&file, max_size_bytes) {
        Ok(store) => return Ok(store),
        Err(error @ OpenError::Broken(..)) => error,
        Err(error) => return Err(error),
    };
    tracing::error!(%error, "the spool's file is broken: what can be read of it is salvaged");
    let records = salvage(&file, &unfinished, max_size_bytes)?;
    let aside = directory.join(format!("{SET_ASIDE}{:.0}.sqlite", Timestamp::now()));
    std::fs::rename(&file, &aside).map_err(unusable)?;
    std::fs::rename(&unfinished, &file).map_err(unusable)?;
    sync(directory).map_err(unusable)?;
    tracing::error!(
        records,
        file = %aside.display(),
        "the spool was salvaged: the broken file is kept"
    );
    Store::open(&file, max_size_bytes)
}

/// Makes the directory where it is not there, for good: what is synced in it is lost with its name.
fn create(directory: &Path) -> std::io::Result<()> {
    let new: Vec<_> = directory.ancestors().take_while(|folder| !folder.exists()).collect();
    // It holds bodies.
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Who made it before may have been killed before this, or not have thought of it. A folder that the relay may not look
    // into is not the relay's to keep.
    if let Some(parent) = directory.parent().filter(|_| new.is_empty()) {
        let _ = sync(parent);
    }
    new.into_iter().filter_map(Path::parent).try_for_each(sync)
}

/// Names are on the disk when their directory is.
fn sync(directory: &Path) -> std::io::Result<()> {
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    std::fs::File::open(here)?.sync_all()
}

/// Fills a new file with what can be read of a broken one.
fn salvage(file: &Path, unfinished: &Path, max_size_bytes: u64) -> Result<u64, OpenError> {
    let mut new = Store::open(unfinished, max_size_bytes)?;
    let (mut records, mut group, mut bytes) = (0, Vec::new(), 0);
    let mut readable = match readable(file) {
        Ok(readable) => readable,
        Err(error) => {
            tracing::error!(%error, "nothing of the spool's file can be read");
            return Ok(0);
        }
    };
    loop {
        let spooled = readable.next();
        let is_end = spooled.is_none();
        if let Some(Spooled { record, .. }) = spooled {
            bytes += record.body.len();
            group.push(record);
        }
        if is_end || group.len() == GROUP.records || bytes >= GROUP.bytes {
            records += group.len() as u64;
            new.append(group.iter()).map_err(|error| explained(unfinished, &error))?;
            (group, bytes) = (Vec::new(), 0);
        }
        if is_end {
            return Ok(records);
        }
    }
}

/// Everything that can be read of a file, which stays as it is. Where its owner was killed within a transaction a copy is read:
/// `SQLite` has to roll it back first.
pub(super) fn readable(file: &Path) -> Result<Readable, OpenError> {
    let unusable = |error: std::io::Error| OpenError::Unreadable(file.to_owned(), error.to_string());
    std::fs::File::open(file).map_err(unusable)?;
    let readable = match read(file, OpenFlags::SQLITE_OPEN_READ_ONLY) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
            let folder = TempDir::new().map_err(unusable)?;
            let copy = folder.path().join(FILE);
            std::fs::copy(file, &copy).map_err(unusable)?;
            std::fs::copy(journal(file), journal(&copy)).map_err(unusable)?;
            let readable = read(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE);
            let readable = readable.map_err(|error| unreadable(file, &error))?;
            Ok(Readable { _copy: Some(folder), ..readable })
        }
        readable => readable.map_err(|error| unreadable(file, &error)),
    }?;
    match readable.store.version() {
        Ok(version) if version > VERSION => Err(OpenError::NewerFormat(file.to_owned(), version)),
        _ => Ok(readable),
    }
}

fn journal(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-journal");
    name.into()
}

fn read(file: &Path, flags: OpenFlags) -> rusqlite::Result<Readable> {
    let store = Store::open_to_read(file, flags)?;
    // A table of a newer format may be another one; of what `.recover` made the version may be missing.
    let (next, last) = if store.version()? > VERSION { (1, 0) } else { store.places()?.into_inner() };
    let unreadable = store.damaged();
    Ok(Readable { store, next: Some(next), last, unreadable, _copy: None })
}

/// Nothing of it can be written, and so nothing be wanted of its directory.
fn unreadable(file: &Path, error: &rusqlite::Error) -> OpenError {
    match explained(file, error) {
        OpenError::Unusable(file, error) => OpenError::Unreadable(file, error),
        error => error,
    }
}

impl Readable {
    /// The places that are left to be looked at.
    pub fn left(&self) -> u64 {
        let left = self.next.map_or(0, |next| self.last.saturating_sub(next).saturating_add(1));
        u64::try_from(left).unwrap_or_default()
    }
}

impl Iterator for Readable {
    type Item = Spooled;

    fn next(&mut self) -> Option<Spooled> {
        let mut in_a_row = 0;
        while let (Some(from), true) = (self.next, in_a_row < MAX_UNREADABLE) {
            match self.store.read_one(from) {
                Ok(Some(Ok(spooled))) => {
                    self.next = spooled.place.checked_add(1);
                    return Some(spooled);
                }
                Ok(Some(Err(place))) => {
                    self.unreadable += 1;
                    self.next = place.checked_add(1);
                }
                // What the page had nobody knows, only that it had no place after the last.
                Err(_) if from <= self.last => {
                    self.unreadable += 1;
                    in_a_row += 1;
                    self.next = from.checked_add(1);
                }
                Ok(None) | Err(_) => break,
            }
        }
        self.next = None;
        None
    }
}

/// The broken files of a directory.
pub(super) fn set_aside(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_aside = |name: &str| name.starts_with(SET_ASIDE) && name.ends_with(".sqlite");
    let mut files: Vec<_> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_aside))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}
