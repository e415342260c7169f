//! The first node of a new cluster: its authority, its own certificate, and the first operator.
//!
//! Each step is safe to repeat; `node.json` comes last. What the ledger must hold from the first
//! moment on (the node itself, the operator's role) is proposed when it runs: see `serve`.

use crate::{
    Config, Folders,
    passport::{FOLDER_FORMAT, LogLife, NodeFile, Passport, PassportError, issue, private_folder},
};
use bytes::Bytes;
use identity::{Authority, CertificateBundle, Entropy, Principal};
use model::{NodeId, Timestamp};
use serde_json::{Map, Value};
use storage::Disk;

/// Id of the first node.
const FIRST: NodeId = NodeId(1);
/// Name of the first operator.
pub(crate) const FIRST_OPERATOR: &str = "admin";

/// Longest `client.json` read, in bytes.
const CLIENT_BYTES_MAX: u64 = 1 << 16;
/// Addresses kept in `client.json`.
const SERVERS_MAX: usize = 16;

/// Makes a new cluster in an empty data folder: authority, node 1 and operator `admin`.
///
/// # Errors
/// [`PassportError::Exists`] when the folder has been started before; see [`PassportError`].
pub async fn bootstrap<D: Disk>(
    disk: &D,
    config: &Config,
    (now, entropy): (Timestamp, &dyn Entropy),
) -> Result<(), PassportError> {
    let folders = Folders::new(&config.node.data);
    if Passport::exists(disk, &folders).await? {
        return Err(PassportError::Exists { path: folders.data().to_owned() });
    }
    private_folder(folders.data())?;
    private_folder(&folders.identity())?;
    private_folder(&folders.admin())?;
    let life = config.certificates.clone();
    let authority = if Authority::exists(&folders.identity()) {
        Authority::load(&folders.identity(), life)?
    } else {
        let authority = Authority::generate(new_cluster_id(entropy)?, now.0, entropy, life)?;
        authority.save(&folders.identity())?;
        authority
    };
    let node = Principal::Node { id: FIRST.0 };
    let names = server_names(config);
    issue(&authority, node, names, (now, entropy))?.save(&folders.identity())?;
    if !CertificateBundle::exists(&folders.admin()) {
        let name =
            identity::Name::new(FIRST_OPERATOR).map_err(|_| identity::Error::NotAuthority)?;
        let operator = Principal::Operator { name };
        issue(&authority, operator, Vec::new(), (now, entropy))?.save(&folders.admin())?;
    }
    let cluster_id = authority.cluster().to_string();
    let (node_id, peers, log) = (FIRST, Vec::new(), LogLife::New);
    let (format, learner) = (FOLDER_FORMAT, false);
    let node = NodeFile { format, cluster_id, node_id, bootstrap: true, peers, learner, log };
    node.save(disk, &folders).await?;
    tracing::info!(cluster_id = node.cluster_id, "made a new cluster");
    Ok(())
}

/// Says beside the first operator's certificate where the cluster is reached.
///
/// # Errors
/// The disk's fault.
pub(crate) async fn save_client_file<D: Disk>(
    disk: &D,
    folders: &Folders,
    cluster_id: &str,
    client_addr: &str,
) -> Result<(), storage::Fault> {
    let path = folders.admin().join("client.json");
    let found = match disk.exists(&path).await? {
        true => disk.read_file(&path, CLIENT_BYTES_MAX).await?,
        false => Bytes::new(),
    };
    // What the operator, or whoever started this node, added is theirs.
    let mut known: Map<String, Value> = serde_json::from_slice(&found).unwrap_or_default();
    let others = known.get("servers").and_then(Value::as_array).cloned().unwrap_or_default();
    let others = others.into_iter().filter(|other| other != client_addr);
    let servers = std::iter::once(Value::from(client_addr)).chain(others).take(SERVERS_MAX);
    known.insert("servers".to_owned(), servers.collect());
    known.insert("cluster_id".to_owned(), Value::from(cluster_id));
    // An object of JSON can be written as JSON.
    let text = serde_json::to_vec_pretty(&known).unwrap_or_default();
    disk.replace_file(&path, text.into()).await
}

/// Names and addresses that go into a node's certificate, for programs that check those.
pub(crate) fn server_names(config: &Config) -> Vec<String> {
    let node = &config.node;
    let addresses =
        [&node.client_addr, &node.peer_addr, &node.advertise_client, &node.advertise_peer];
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    for address in addresses {
        if let Some((host, _port)) = address.rsplit_once(':') {
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            if !host.is_empty() && !names.contains(&host) {
                names.push(host);
            }
        }
    }
    names
}

/// 16 hex digits nobody else has.
fn new_cluster_id(entropy: &dyn Entropy) -> Result<identity::Name, PassportError> {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes)?;
    identity::Name::new(&hex::encode(bytes))
        .map_err(|_| PassportError::Identity(identity::Error::NotAuthority))
}
