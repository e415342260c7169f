//! A disk that follows a trace: for every file and directory what is durable, and what is not yet.
//!
//! The rules are the strictest that POSIX allows: bytes and lengths are durable after a sync of their
//! file that began later, a name after such a sync of its directory. Before that any piece of what was
//! written may be there or not.

use crate::power::{
    image::{Fate, Image, Loss},
    trace::{Change, Event},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use storage::Dice;

/// A change of one file's content that is not durable.
#[derive(Clone, Copy)]
pub(super) enum Unsynced<'a> {
    Write { at: usize, data: &'a [u8] },
    Length { bytes: usize, grow: bool },
}

impl Unsynced<'_> {
    /// Makes the change.
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match *self {
            Unsynced::Write { at, data } => {
                content.resize(content.len().max(at + data.len()), 0);
                content[at..at + data.len()].copy_from_slice(data);
            }
            Unsynced::Length { bytes, grow } if grow => content.resize(content.len().max(bytes), 0),
            Unsynced::Length { bytes, .. } => content.resize(bytes, 0),
        }
    }
}

/// A change of one directory that is not durable.
#[derive(Clone)]
pub(super) enum Renaming {
    Put(String, usize),
    Remove(String),
    Move(String, String),
}

pub(super) enum Node<'a> {
    File { durable: Vec<u8>, unsynced: Vec<(u64, Unsynced<'a>)> },
    Folder { durable: BTreeMap<String, usize>, unsynced: Vec<(u64, Renaming)> },
}

/// The disk of one process.
pub struct Machine<'a> {
    root: PathBuf,
    pub(super) nodes: Vec<Node<'a>>,
    open: BTreeMap<i32, usize>,
    /// Syncs that have begun: of what, and up to which change.
    syncs: BTreeMap<u64, (usize, u64)>,
    /// Counts the changes.
    clock: u64,
    /// Whether syncs of files do what they say.
    syncs_files: bool,
}

impl<'a> Machine<'a> {
    /// The folder `root` with nothing in it but `folder`, both durable.
    pub fn new(root: &Path, folder: &Path) -> Self {
        let empty = || Node::Folder { durable: BTreeMap::new(), unsynced: Vec::new() };
        let mut nodes = vec![empty()];
        for part in folder.strip_prefix(root).expect("the folder is below the root") {
            let last = nodes.len();
            if let Some(Node::Folder { durable, .. }) = nodes.last_mut() {
                durable.insert(part.to_str().expect("UTF-8").to_owned(), last);
            }
            nodes.push(empty());
        }
        let (open, syncs) = (BTreeMap::new(), BTreeMap::new());
        Self { root: root.to_owned(), nodes, open, syncs, clock: 0, syncs_files: true }
    }

    /// From now on no sync of a file makes anything durable: as if the program never called it.
    pub fn ignore_syncs(&mut self) {
        self.syncs_files = false;
    }

    /// The names in a directory as the process sees them.
    fn names(&self, folder: usize) -> BTreeMap<String, usize> {
        match &self.nodes[folder] {
            Node::Folder { durable, unsynced } => {
                after(durable, unsynced.iter().map(|(_, change)| change))
            }
            Node::File { .. } => panic!("a file is no directory"),
        }
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let mut node = 0;
        for part in path.strip_prefix(&self.root).expect("recorded names are below the root") {
            node = *self.names(node).get(part.to_str().expect("UTF-8"))?;
        }
        Some(node)
    }

    /// The directory of a path, and the name in it.
    fn place(&self, path: &str) -> (usize, String) {
        let path = Path::new(path);
        let parent = path.parent().and_then(|parent| self.find(parent));
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        (parent.unwrap_or_else(|| panic!("{} has a directory", path.display())), name.to_owned())
    }

    fn rename(&mut self, folder: usize, change: Renaming) {
        self.clock += 1;
        match &mut self.nodes[folder] {
            Node::Folder { unsynced, .. } => unsynced.push((self.clock, change)),
            Node::File { .. } => panic!("a file is no directory"),
        }
    }

    fn write(&mut self, fd: i32, change: Unsynced<'a>) {
        self.clock += 1;
        let node = self.open[&fd];
        match &mut self.nodes[node] {
            Node::File { unsynced, .. } => unsynced.push((self.clock, change)),
            Node::Folder { .. } => panic!("a directory has no bytes"),
        }
    }

    /// Follows one event.
    ///
    /// # Panics
    /// When the trace contradicts itself.
    pub fn follow(&mut self, event: &Event<'a>) {
        match event.change {
            Change::Open { fd, name, created, truncated } => {
                if created {
                    let (folder, name) = self.place(name);
                    let (durable, unsynced) = (Vec::new(), Vec::new());
                    self.nodes.push(Node::File { durable, unsynced });
                    self.rename(folder, Renaming::Put(name, self.nodes.len() - 1));
                }
                let node = self.find(Path::new(name)).expect("an open file has a name");
                self.open.insert(fd, node);
                if truncated {
                    self.write(fd, Unsynced::Length { bytes: 0, grow: false });
                }
            }
            Change::Write { fd, at, data } => {
                self.write(fd, Unsynced::Write { at: at as usize, data });
            }
            Change::Length { fd, bytes, grow } => {
                self.write(fd, Unsynced::Length { bytes: bytes as usize, grow });
            }
            Change::SyncBegin { fd, number } => {
                self.syncs.insert(number, (self.open[&fd], self.clock));
            }
            Change::SyncEnd { number } => self.synced(number),
            Change::Rename { from, to, link } => self.renamed(from, to, link),
            Change::Remove { name } => {
                let (folder, name) = self.place(name);
                self.rename(folder, Renaming::Remove(name));
            }
            Change::MakeDir { name } => {
                let (folder, name) = self.place(name);
                let (durable, unsynced) = (BTreeMap::new(), Vec::new());
                self.nodes.push(Node::Folder { durable, unsynced });
                self.rename(folder, Renaming::Put(name, self.nodes.len() - 1));
            }
            Change::Close { fd } => drop(self.open.remove(&fd)),
            Change::Duplicate { fd, of } => drop(self.open.insert(fd, self.open[&of])),
            Change::Sent { .. } | Change::RangeSync | Change::Fault { .. } => {}
        }
    }

    fn renamed(&mut self, from: &str, to: &str, link: bool) {
        let (from, to) = (self.place(from), self.place(to));
        if from.0 == to.0 && !link {
            return self.rename(from.0, Renaming::Move(from.1, to.1));
        }
        let node = self.names(from.0)[&from.1];
        self.rename(to.0, Renaming::Put(to.1, node));
        if !link {
            self.rename(from.0, Renaming::Remove(from.1));
        }
    }

    fn synced(&mut self, number: u64) {
        let (node, upto) = self.syncs.remove(&number).expect("a sync began before it ended");
        match &mut self.nodes[node] {
            Node::File { .. } if !self.syncs_files => {}
            Node::File { durable, unsynced } => {
                let covered = unsynced.partition_point(|(clock, _)| *clock <= upto);
                for (_, change) in unsynced.drain(..covered) {
                    change.apply(durable);
                }
            }
            Node::Folder { durable, unsynced } => {
                let covered = unsynced.partition_point(|(clock, _)| *clock <= upto);
                *durable = after(durable, unsynced[..covered].iter().map(|(_, change)| change));
                unsynced.drain(..covered);
            }
        }
    }

    /// What is left after a power cut now.
    pub fn image(&self, loss: Loss, dice: &mut Dice) -> Image {
        let mut fate = Fate::new(self, loss, dice);
        let mut image = Image::default();
        let mut folders = vec![(0, PathBuf::new())];
        while let Some((folder, path)) = folders.pop() {
            for (name, node) in fate.names(&self.nodes[folder], dice) {
                let path = path.join(name);
                match &self.nodes[node] {
                    Node::File { durable, unsynced } => {
                        let content = fate.content(durable, unsynced, dice);
                        image.files.insert(path, content);
                    }
                    Node::Folder { .. } => {
                        image.folders.insert(path.clone());
                        folders.push((node, path));
                    }
                }
            }
        }
        image
    }
}

/// The names of a directory after some changes.
pub(super) fn after<'c>(
    names: &BTreeMap<String, usize>,
    changes: impl Iterator<Item = &'c Renaming>,
) -> BTreeMap<String, usize> {
    let mut names = names.clone();
    for change in changes {
        match change {
            Renaming::Put(name, node) => drop(names.insert(name.clone(), *node)),
            Renaming::Remove(name) => drop(names.remove(name)),
            Renaming::Move(from, to) => {
                let node = names.remove(from).expect("what is renamed has a name");
                names.insert(to.clone(), node);
            }
        }
    }
    names
}
