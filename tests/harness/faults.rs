//! Faults of the machines under control nodes, which a test turns on and off while they run: the links
//! between them, their clocks and their disks. `tests/faults/shim.c` says how, and where it ends.

use crate::{network::Network, preload};
use std::{
    collections::BTreeMap, fs::File, os::unix::fs::FileExt, path::PathBuf, sync::OnceLock,
    time::Duration,
};
use tempfile::TempDir;

/// Bytes of a node's page, and where in it is what; `struct page` in the library is the same.
const PAGE_BYTES: usize = 4_096;
const CLOCK_AT: u64 = 0;
const SYNC_DELAY_AT: u64 = 8;
const SYNC_ERROR_AT: u64 = 16;
const WRITE_ERROR_AT: u64 = 20;
const ROUTES_AT: u64 = 24;

/// Faults of the nodes of one cluster.
#[derive(Debug)]
pub struct Faults {
    library: PathBuf,
    pages: Vec<(PathBuf, File)>,
    network: OnceLock<Network>,
    _place: TempDir,
}

/// What a disk answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// `EIO`.
    Broken,
    /// `ENOSPC`.
    Full,
}

impl Faults {
    /// For up to `nodes` nodes. `None` where there is no C compiler; says so.
    ///
    /// # Panics
    /// When a C compiler is there and does not build the library.
    pub fn build(nodes: usize) -> Option<Self> {
        let place = TempDir::with_prefix("muster-faults-").unwrap();
        let library = preload::build("faults/shim.c", place.path())?;
        let page = |index: usize| {
            let path = place.path().join(format!("node-{}.page", index + 1));
            let file = File::options().write(true).create_new(true).open(&path).unwrap();
            file.write_all_at(&[0; PAGE_BYTES], 0).unwrap();
            (path, file)
        };
        let pages = (0..nodes).map(page).collect();
        Some(Self { library, pages, network: OnceLock::new(), _place: place })
    }

    /// How many nodes it is for.
    pub fn nodes(&self) -> usize {
        self.pages.len()
    }

    /// Leads the nodes that listen at `addrs` to each other through proxies. Before any of them starts.
    ///
    /// # Panics
    /// When it is done twice.
    pub(crate) fn connect(&self, addrs: &[String]) {
        let network = Network::start(addrs);
        for from in 0..addrs.len() {
            let mut routes = Vec::new();
            for (to, addr) in addrs.iter().enumerate().filter(|(to, _)| *to != from) {
                let (_, port) = addr.rsplit_once(':').expect("an address has a port");
                let port: u16 = port.parse().expect("a port");
                routes.push([port.to_le_bytes(), network.port(from, to).to_le_bytes()].concat());
            }
            let count = u32::try_from(routes.len()).expect("few nodes").to_le_bytes();
            self.put(from, ROUTES_AT, &[&count[..], &routes.concat()].concat());
        }
        assert!(self.network.set(network).is_ok(), "the nodes are connected once");
    }

    /// The links between the nodes.
    ///
    /// # Panics
    /// Before the cluster has started.
    pub fn network(&self) -> &Network {
        self.network.get().expect("the cluster has started")
    }

    /// What puts a node under these faults.
    pub(crate) fn env(&self, node: usize) -> BTreeMap<String, String> {
        let page = self.pages[node].0.to_str().unwrap().to_owned();
        let library = self.library.to_str().unwrap().to_owned();
        BTreeMap::from([("LD_PRELOAD".to_owned(), library), ("FAULTS_PAGE".to_owned(), page)])
    }

    fn put(&self, node: usize, at: u64, bytes: &[u8]) {
        self.pages[node].1.write_all_at(bytes, at).unwrap();
    }

    /// A node's clock is off by so many milliseconds from now on.
    pub fn set_clock(&self, node: usize, off_ms: i64) {
        self.put(node, CLOCK_AT, &(off_ms * 1_000_000).to_le_bytes());
    }

    /// Every sync of a node takes so much longer from now on.
    pub fn slow_syncs(&self, node: usize, delay: Duration) {
        let us = i64::try_from(delay.as_micros()).expect("a short time");
        self.put(node, SYNC_DELAY_AT, &us.to_le_bytes());
    }

    /// Every sync of a node fails from now on.
    pub fn fail_syncs(&self, node: usize, error: DiskError) {
        self.put(node, SYNC_ERROR_AT, &number(error).to_le_bytes());
    }

    /// Every write of a node to a file fails from now on.
    pub fn fail_writes(&self, node: usize, error: DiskError) {
        self.put(node, WRITE_ERROR_AT, &number(error).to_le_bytes());
    }

    /// The disks of all nodes are well again.
    pub fn mend_disks(&self) {
        let bytes = usize::try_from(ROUTES_AT - SYNC_DELAY_AT).expect("a few bytes");
        (0..self.pages.len()).for_each(|node| self.put(node, SYNC_DELAY_AT, &vec![0; bytes]));
    }

    /// The clocks of all nodes are right again.
    pub fn mend_clocks(&self) {
        (0..self.pages.len()).for_each(|node| self.set_clock(node, 0));
    }
}

fn number(error: DiskError) -> i32 {
    match error {
        DiskError::Broken => nix::errno::Errno::EIO as i32,
        DiskError::Full => nix::errno::Errno::ENOSPC as i32,
    }
}
