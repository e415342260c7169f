//! How much memory the control nodes of a cluster take while something goes on.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::Cluster;
use tokio::{runtime::Runtime, time::sleep};

/// Samples memory until it is stopped.
pub(crate) struct Load {
    most: Arc<Mutex<Vec<u64>>>,
    over: Arc<AtomicBool>,
}

impl Load {
    /// Begins to sample.
    pub(crate) fn sample(runtime: &Runtime, cluster: &Cluster) -> Self {
        let pids: Vec<_> =
            cluster.nodes.iter().filter_map(|node| Some(node.process.as_ref()?.pid())).collect();
        let most = Arc::new(Mutex::new(vec![0; pids.len()]));
        let over = Arc::new(AtomicBool::new(false));
        let load = Self { most: most.clone(), over: over.clone() };
        runtime.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                for (most, pid) in most.lock().unwrap().iter_mut().zip(&pids) {
                    *most = rss_kib(*pid).max(*most);
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        load
    }

    /// The most each node has taken, in MiB.
    pub(crate) fn stop(self) -> Vec<u64> {
        self.over.store(true, Ordering::Relaxed);
        self.most.lock().unwrap().iter().map(|kib| kib / 1_024).collect()
    }
}

/// Resident memory of a process, in KiB.
pub(crate) fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
