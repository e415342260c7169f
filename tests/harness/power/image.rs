//! The folder that a power cut leaves, and damage to it.

use crate::power::machine::{Machine, Node, Unsynced, after};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use storage::Dice;

const SECTOR: usize = 512;

/// What a power cut does to what was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the process was killed.
    Nothing,
    /// All of it is lost.
    Unsynced,
    /// Any pieces of so many bytes survive, and the first so many changes of names of each directory.
    Pieces(usize),
    /// All survives but the end of the last write.
    TornLast,
    /// All survives, but one sector of it is zeroes.
    ZeroSector,
    /// All bytes survive, and no new, changed or removed name does.
    Names,
}

impl Loss {
    /// All of them.
    pub const ALL: [Loss; 7] = [
        Loss::Nothing,
        Loss::Unsynced,
        Loss::Pieces(512),
        Loss::Pieces(4096),
        Loss::TornLast,
        Loss::ZeroSector,
        Loss::Names,
    ];
}

/// What a power cut left: files by their name below the recorded folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Files.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// Directories.
    pub folders: BTreeSet<PathBuf>,
}

impl Image {
    /// Writes the image to an empty folder, readable by its owner only, as private keys must be.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, root: &Path) {
        fs::create_dir_all(root).unwrap();
        for folder in &self.folders {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for (name, content) in &self.files {
            let mut file = File::options();
            file.write(true).create_new(true).mode(0o600);
            file.open(root.join(name)).unwrap().write_all(content).unwrap();
        }
    }

    /// The part below one folder, as an image of its own.
    pub fn below(mut self, folder: &Path) -> Image {
        let cut = |path: PathBuf| path.strip_prefix(folder).ok().map(Path::to_owned);
        let files = std::mem::take(&mut self.files).into_iter();
        Image {
            files: files.filter_map(|(path, content)| Some((cut(path)?, content))).collect(),
            folders: self.folders.into_iter().filter_map(cut).collect(),
        }
    }

    /// Flips one bit of one file whose name `damaged` accepts and that has content; answers which.
    pub fn flip(&mut self, dice: &mut Dice, damaged: impl Fn(&Path) -> bool) -> Option<String> {
        let mut files: Vec<_> = self
            .files
            .iter_mut()
            .filter(|(name, content)| damaged(name) && content.iter().any(|byte| *byte != 0))
            .collect();
        let chosen = dice.below(files.len() as u64) as usize;
        let (name, content) = files.get_mut(chosen)?;
        // Among the bytes that mean something: most of a segment may be zeroes.
        let used: Vec<usize> = (0..content.len()).filter(|at| content[*at] != 0).collect();
        let at = used[dice.below(used.len() as u64) as usize];
        content[at] ^= 1 << dice.below(8);
        Some(format!("a bit at {at} of {}", name.display()))
    }
}

/// What becomes of each change that was not durable.
pub(super) struct Fate {
    loss: Loss,
    /// The write that is torn or gets a sector of zeroes.
    chosen: Option<u64>,
    /// How likely a piece survives, per million.
    keep: u32,
}

impl Fate {
    pub(super) fn new(machine: &Machine<'_>, loss: Loss, dice: &mut Dice) -> Self {
        let mut writes: Vec<u64> = Vec::new();
        for node in &machine.nodes {
            if let Node::File { unsynced, .. } = node {
                let is_write = |change: &Unsynced<'_>| matches!(change, Unsynced::Write { .. });
                writes
                    .extend(unsynced.iter().filter(|(_, it)| is_write(it)).map(|(clock, _)| clock));
            }
        }
        let chosen = match loss {
            Loss::TornLast => writes.iter().max().copied(),
            Loss::ZeroSector => writes.get(dice.below(writes.len() as u64) as usize).copied(),
            Loss::Nothing | Loss::Unsynced | Loss::Pieces(_) | Loss::Names => None,
        };
        let keep = [50_000, 500_000, 950_000][dice.below(3) as usize];
        Self { loss, chosen, keep }
    }

    /// The names that a directory has.
    pub(super) fn names(&mut self, node: &Node<'_>, dice: &mut Dice) -> BTreeMap<String, usize> {
        let Node::Folder { durable, unsynced } = node else { return BTreeMap::new() };
        let kept = match self.loss {
            Loss::Nothing | Loss::TornLast | Loss::ZeroSector => unsynced.len(),
            Loss::Unsynced | Loss::Names => 0,
            Loss::Pieces(_) => dice.below(unsynced.len() as u64 + 1) as usize,
        };
        after(durable, unsynced[..kept].iter().map(|(_, change)| change))
    }

    /// The content that a file has.
    pub(super) fn content(
        &mut self,
        durable: &[u8],
        unsynced: &[(u64, Unsynced<'_>)],
        dice: &mut Dice,
    ) -> Vec<u8> {
        let mut content = durable.to_vec();
        for (clock, change) in unsynced {
            let chosen = self.chosen == Some(*clock);
            match (self.loss, *change) {
                (Loss::Unsynced, _) => {}
                (Loss::Pieces(size), Unsynced::Write { at, data }) => {
                    for (at, piece) in pieces(at, data, size) {
                        if dice.chance(self.keep) {
                            Unsynced::Write { at, data: piece }.apply(&mut content);
                        }
                    }
                }
                (Loss::Pieces(_), Unsynced::Length { .. }) => {
                    if dice.chance(self.keep) {
                        change.apply(&mut content);
                    }
                }
                (Loss::TornLast, Unsynced::Write { at, data }) if chosen => {
                    let kept = dice.below(data.len() as u64) as usize;
                    Unsynced::Write { at, data: &data[..kept] }.apply(&mut content);
                }
                (Loss::ZeroSector, Unsynced::Write { at, data }) if chosen => {
                    change.apply(&mut content);
                    let all: Vec<_> = pieces(at, data, SECTOR).collect();
                    let (at, piece) = all[dice.below(all.len() as u64) as usize];
                    content[at..at + piece.len()].fill(0);
                }
                _ => change.apply(&mut content),
            }
        }
        content
    }
}

/// A write in pieces that end where pieces of the file do.
fn pieces(at: usize, data: &[u8], size: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let begin = at + from;
        let end = ((begin / size + 1) * size - at).min(data.len());
        let piece = data.get(from..end).filter(|piece| !piece.is_empty())?;
        from = end;
        Some((begin, piece))
    })
}
