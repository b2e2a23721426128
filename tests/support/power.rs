//! What a disk holds when the power goes: what was synced, and of the rest whatever the kernel happened to have written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::disk::{Operation, What};

/// The files of a directory by their names. None, where the directory itself is not there.
pub type Image = Option<BTreeMap<String, Vec<u8>>>;

/// Of the changes that were not synced, those that are on the disk nevertheless. The kernel writes back in any order.
#[derive(Debug, Clone, Copy)]
enum Kept {
    Nothing,
    All,
    /// The first, the third, and so on.
    Odd,
    Even,
}

const ANY: [Kept; 4] = [Kept::Nothing, Kept::All, Kept::Odd, Kept::Even];

/// The memory of a kernel, and the disk beneath it.
pub struct Power {
    directory: PathBuf,
    /// Of files and directories, which are removed by their names only.
    files: Vec<File>,
    names: Names,
    /// As of the last sync of the directory that each stands in: a sync of the file itself is none of its name.
    synced_names: Names,
}

type Names = BTreeMap<PathBuf, usize>;

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    changes: Vec<What>,
}

impl Power {
    /// The directory is not there yet, and the one that it will stand in is on the disk.
    pub fn new(directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self { directory, files: Vec::new(), names: Names::new(), synced_names: Names::new() }
    }

    pub fn apply(&mut self, Operation { path, what }: Operation) {
        let file = self.names.get(&path).copied();
        match what {
            What::Create => {
                self.names.insert(path, self.files.len());
                self.files.push(File::default());
            }
            What::Write(..) | What::Truncate(_) => self.files[file.unwrap()].changes.push(what),
            What::Sync => {
                if let Some(file) = file {
                    let file = &mut self.files[file];
                    (file.synced, file.changes) = (file.with(Kept::All), Vec::new());
                }
                self.synced_names.retain(|name, _| name.parent() != Some(&path));
                let inside = self.names.iter().filter(|(name, _)| name.parent() == Some(&path));
                self.synced_names.extend(inside.map(|(name, file)| (name.clone(), *file)));
            }
            What::Remove => drop(self.names.remove(&path)),
            What::Rename(to) => {
                let file = self.names.remove(&path).unwrap();
                self.names.insert(to, file);
            }
        }
    }

    /// What may be left when the power goes now, and of what. Names are kept all or only where they were synced, whichever
    /// changes of each file are.
    pub fn images(&self) -> Vec<(String, Image)> {
        let mut images = Vec::new();
        for (told, names) in [("synced names", &self.synced_names), ("all names", &self.names)] {
            if !names.contains_key(&self.directory) {
                images.push((format!("{told}: no directory"), None));
                continue;
            }
            let mut with = vec![(told.to_owned(), BTreeMap::new())];
            for (path, file) in names.iter().filter(|(path, _)| path.parent() == Some(&self.directory)) {
                let (name, file) = (path.file_name().unwrap().to_str().unwrap(), &self.files[*file]);
                let any = if file.changes.is_empty() { &ANY[..1] } else { &ANY[..] };
                let contents: Vec<_> = any.iter().map(|kept| (*kept, file.with(*kept))).collect();
                let each = with.iter().flat_map(|(told, files)| {
                    contents.iter().map(move |(kept, content)| {
                        let mut files = files.clone();
                        files.insert(name.to_owned(), content.clone());
                        (format!("{told}, {kept:?} of {name}"), files)
                    })
                });
                with = each.collect();
            }
            images.extend(with.into_iter().map(|(told, files)| (told, Some(files))));
        }
        images
    }

    /// What readers see while the power is there.
    pub fn seen(&self) -> Image {
        let all = |(path, file): (&PathBuf, &usize)| {
            let name = path.strip_prefix(&self.directory).ok()?.to_str()?;
            (!name.is_empty()).then(|| (name.to_owned(), self.files[*file].with(Kept::All)))
        };
        self.names.contains_key(&self.directory).then(|| self.names.iter().filter_map(all).collect())
    }
}

impl File {
    fn with(&self, kept: Kept) -> Vec<u8> {
        let mut content = self.synced.clone();
        for (index, change) in self.changes.iter().enumerate() {
            let is_kept = match kept {
                Kept::Nothing => false,
                Kept::All => true,
                Kept::Odd => index % 2 == 0,
                Kept::Even => index % 2 == 1,
            };
            match change {
                What::Write(at, bytes) if is_kept => {
                    let end = at + bytes.len();
                    content.resize(content.len().max(end), 0);
                    content[*at..end].copy_from_slice(bytes);
                }
                What::Truncate(length) if is_kept => content.resize(*length, 0),
                _ => {}
            }
        }
        content
    }
}
