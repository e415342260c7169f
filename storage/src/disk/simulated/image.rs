//! What a simulated disk holds: a live image, a durable one, and what lies between them.
//!
//! Every change is applied to the live image at once and remembered as unsynced. A sync moves the
//! changes that it covers into the durable image. A power cut makes the durable image, plus
//! whichever unsynced changes the dice let survive, the live one. Sectors of 512 bytes are the
//! unit in which a write tears.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::dice::Dice;
use crate::disk::simulated::Loss;
use crate::lock;

const SECTOR: usize = 512;

/// The content of one file, whatever its names are.
#[derive(Default)]
pub(super) struct Image {
    pub(super) live: Vec<u8>,
    durable: Vec<u8>,
    /// Oldest first, with the disk-wide number of the change.
    unsynced: Vec<(u64, Change)>,
}

pub(super) type SharedImage = Arc<Mutex<Image>>;

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: u64, bytes: bytes::Bytes },
    SetLen { bytes: u64 },
}

#[derive(Clone)]
pub(super) enum Entry {
    Dir,
    File(u64, SharedImage),
}

#[derive(Clone)]
enum NameChange {
    Put(PathBuf, Entry),
    Rename(PathBuf, PathBuf, Entry),
    Remove(PathBuf),
}

/// Names and files, live and durable.
#[derive(Default)]
pub(super) struct Images {
    pub(super) names: BTreeMap<PathBuf, Entry>,
    durable_names: BTreeMap<PathBuf, Entry>,
    unsynced_names: Vec<(u64, NameChange)>,
    files: BTreeMap<u64, Weak<Mutex<Image>>>,
    next_file: u64,
    changes: u64,
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => {
                let (from, to) = (*offset as usize, *offset as usize + bytes.len());
                if content.len() < to {
                    content.resize(to, 0);
                }
                content[from..to].copy_from_slice(bytes);
            }
            Change::SetLen { bytes } => content.resize(*bytes as usize, 0),
        }
    }

    /// Applies some of the sectors that a write touches, as the dice say.
    fn apply_torn(&self, content: &mut Vec<u8>, dice: &mut Dice) {
        let Change::Write { offset, bytes } = self else {
            return;
        };
        let mut from = 0;
        while from < bytes.len() {
            let in_sector = SECTOR - (*offset as usize + from) % SECTOR;
            let to = (from + in_sector).min(bytes.len());
            if dice.below(2) == 0 {
                let sector = bytes.slice(from..to);
                Change::Write { offset: offset + from as u64, bytes: sector }.apply(content);
            }
            from = to;
        }
    }
}

impl Image {
    pub(super) fn last_change(&self) -> u64 {
        self.unsynced.last().map_or(0, |(number, _)| *number)
    }

    /// Makes durable every change up to and with `upto`.
    pub(super) fn promote(&mut self, upto: u64) {
        let kept = self.unsynced.partition_point(|(number, _)| *number <= upto);
        for (_, change) in self.unsynced.drain(..kept) {
            change.apply(&mut self.durable);
        }
    }

    /// What a failed sync does: the changes stay visible and will never be written.
    pub(super) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        for content in [&mut self.live, &mut self.durable] {
            if let Some(byte) = content.get_mut(offset as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
}

impl Images {
    pub(super) fn change(&mut self, image: &SharedImage, change: Change) {
        self.changes += 1;
        let mut image = lock(image);
        change.apply(&mut image.live);
        image.unsynced.push((self.changes, change));
    }

    pub(super) fn create_file(&mut self, path: &Path) -> SharedImage {
        let image = SharedImage::default();
        self.next_file += 1;
        self.files.insert(self.next_file, Arc::downgrade(&image));
        let entry = Entry::File(self.next_file, image.clone());
        self.names.insert(path.to_path_buf(), entry.clone());
        self.change_name(NameChange::Put(path.to_path_buf(), entry));
        image
    }

    /// Directories are durable at once, as the contract of the seam says.
    pub(super) fn create_dir(&mut self, path: &Path) {
        self.names.insert(path.to_path_buf(), Entry::Dir);
        self.durable_names.insert(path.to_path_buf(), Entry::Dir);
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, entry: Entry) {
        self.names.remove(from);
        self.names.insert(to.to_path_buf(), entry.clone());
        self.change_name(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), entry));
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.names.remove(path);
        self.change_name(NameChange::Remove(path.to_path_buf()));
    }

    fn change_name(&mut self, change: NameChange) {
        self.changes += 1;
        self.unsynced_names.push((self.changes, change));
    }

    pub(super) fn last_change(&self) -> u64 {
        self.changes
    }

    /// Makes durable the changes up to `upto` of names in `dir`.
    pub(super) fn promote_dir(&mut self, dir: &Path, upto: u64) {
        let changes = std::mem::take(&mut self.unsynced_names);
        for (number, change) in changes {
            let inside = match &change {
                NameChange::Put(path, _) | NameChange::Remove(path) => path.parent() == Some(dir),
                NameChange::Rename(_, to, _) => to.parent() == Some(dir),
            };
            if inside && number <= upto {
                change.apply(&mut self.durable_names);
            } else {
                self.unsynced_names.push((number, change));
            }
        }
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.names
            .values()
            .map(|entry| match entry {
                Entry::Dir => 0,
                Entry::File(_, image) => lock(image).live.len() as u64,
            })
            .sum()
    }

    /// A disk that holds what is durable now, and shares nothing with this one.
    pub(super) fn fork_durable(&self) -> Images {
        let mut fork = Images { next_file: self.next_file, ..Images::default() };
        let mut copies: BTreeMap<u64, SharedImage> = BTreeMap::new();
        for (path, entry) in &self.durable_names {
            let entry = match entry {
                Entry::Dir => Entry::Dir,
                Entry::File(number, image) => {
                    let copy = copies.entry(*number).or_insert_with(|| {
                        let durable = lock(image).durable.clone();
                        let (live, unsynced) = (durable.clone(), Vec::new());
                        Arc::new(Mutex::new(Image { live, durable, unsynced }))
                    });
                    fork.files.insert(*number, Arc::downgrade(copy));
                    Entry::File(*number, copy.clone())
                }
            };
            fork.names.insert(path.clone(), entry.clone());
            fork.durable_names.insert(path.clone(), entry);
        }
        fork
    }

    /// The power goes and comes back.
    pub(super) fn cut(&mut self, loss: Loss, dice: &mut Dice) {
        if loss == Loss::Nothing {
            return;
        }
        self.survive(loss, dice);
        self.files.retain(|_, image| image.strong_count() > 0);
        for image in self.files.values().filter_map(Weak::upgrade) {
            let mut image = lock(&image);
            image.unsynced.clear();
            image.live = image.durable.clone();
        }
        self.unsynced_names.clear();
        self.names = self.durable_names.clone();
    }

    /// Moves the unsynced changes that survive into the durable image, oldest first.
    fn survive(&mut self, loss: Loss, dice: &mut Dice) {
        let mut changes: Vec<(u64, Unsynced)> = Vec::new();
        for (number, change) in self.unsynced_names.drain(..) {
            changes.push((number, Unsynced::Name(change)));
        }
        for image in self.files.values().filter_map(Weak::upgrade) {
            for (number, change) in &lock(&image).unsynced {
                changes.push((*number, Unsynced::Content(image.clone(), change.clone())));
            }
        }
        changes.sort_by_key(|(number, _)| *number);
        let kept = match loss {
            Loss::Nothing | Loss::Subset => changes.len(),
            Loss::Unsynced => 0,
            Loss::Prefix | Loss::Torn => dice.below(changes.len() as u64 + 1) as usize,
        };
        for (position, (_, change)) in changes.into_iter().enumerate() {
            let fate = match loss {
                Loss::Subset => dice.below(3),
                _ if position < kept => 0,
                Loss::Torn if position == kept => 1,
                _ => 2,
            };
            match (fate, change) {
                (0, Unsynced::Name(change)) => change.apply(&mut self.durable_names),
                (0, Unsynced::Content(image, change)) => change.apply(&mut lock(&image).durable),
                (1, Unsynced::Content(image, change)) => {
                    change.apply_torn(&mut lock(&image).durable, dice);
                }
                _ => {}
            }
        }
    }
}

enum Unsynced {
    Name(NameChange),
    Content(SharedImage, Change),
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, Entry>) {
        match self {
            NameChange::Put(path, entry) => {
                names.insert(path, entry);
            }
            NameChange::Rename(from, to, entry) => {
                names.remove(&from);
                names.insert(to, entry);
            }
            NameChange::Remove(path) => {
                names.remove(&path);
            }
        }
    }
}
