//! What the ledger of a lone node makes of its folder, in this process: quicker than a whole node, and
//! the same code.

use api::BoxFuture;
use bytes::Bytes;
use consensus::{
    Config, Foundation, Ledger, Method, RaftLedger, Target, Transport, TransportError,
};
use model::NodeId;
use std::{collections::BTreeMap, error::Error, path::Path, sync::Arc, time::Duration};
use storage::{
    disk::real::{RealDisk, RealDiskConfig},
    kv::sled::{SledConfig, SledHome},
    log::LogConfig,
};
use tokio::time::Instant;

/// How long a ledger may take to lead and to apply what it found.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// There is nobody to talk to.
struct Nobody;

impl Transport for Nobody {
    fn call(
        &self,
        to: &Target,
        _method: Method,
        _body: Bytes,
        _deadline: Instant,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (to, reason) = (to.id, "there is one node only".to_owned());
        Box::pin(std::future::ready(Err(TransportError::Unreachable { to, reason })))
    }
}

/// What a ledger recovered to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// It serves these tenants, name to text.
    Serves(BTreeMap<String, String>),
    /// It never was part of a cluster.
    Empty,
    /// It refuses, and says why.
    Refuses(String),
}

/// Opens the ledger of node 1 in a data folder and waits until it has applied all that is committed.
///
/// # Panics
/// When it neither serves nor refuses in time.
pub fn recover(folder: &Path, segment_bytes: u64) -> Recovered {
    if !has_begun(folder) {
        return Recovered::Empty;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
        // Alone, it may stand for election at once.
        let times = (5, 10, 20);
        let config = Config {
            heartbeat_ms: times.0,
            election_min_ms: times.1,
            election_max_ms: times.2,
            ..Config::default()
        };
        let foundation = Foundation {
            node_id: NodeId(1),
            config,
            log_config: LogConfig { segment_bytes, ..LogConfig::new() },
            snapshot_disk: disk.clone(),
            disk,
            dir: folder.to_owned(),
            kv_home: SledHome::new(SledConfig::new(folder.join("kv"))),
            transport: Arc::new(Nobody),
            clock: Arc::new(node::SystemClock),
        };
        let ledger = match RaftLedger::start(foundation).await {
            Ok((ledger, _kv)) => ledger,
            Err(error) => return Recovered::Refuses(chain(&error)),
        };
        let recovered = match ledger.is_initialized().await {
            false => Recovered::Empty,
            true => settle(&ledger).await,
        };
        ledger.kill().await;
        recovered
    })
}

/// Whether the node ever had a log, by the word it keeps of that beside it.
fn has_begun(folder: &Path) -> bool {
    let text = std::fs::read_to_string(node::Folders::new(folder).node_json()).unwrap_or_default();
    let node = serde_json::from_str::<serde_json::Value>(&text);
    node.is_ok_and(|node| node["log"] != "new")
}

async fn settle(ledger: &RaftLedger) -> Recovered {
    let until = Instant::now() + RECOVERY_TIMEOUT;
    tokio::select! {
        biased;
        reason = ledger.stopped() => Recovered::Refuses(reason.to_string()),
        done = ledger.linearize(until) => {
            done.expect("a lone ledger leads and applies in time");
            Recovered::Serves(ledger.read(|state| {
                let tenants = state.tenants.iter();
                tenants.map(|(name, it)| (name.to_string(), it.display_name.clone())).collect()
            }))
        }
    }
}

/// An error with everything that caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
