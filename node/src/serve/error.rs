//! Why a node does not run.

use crate::{join::JoinError, passport::PassportError};
use consensus::StartError;
use model::NodeId;
use std::{io, path::PathBuf};
use storage::Fault;

/// Why a node does not run, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The disk, or another process on the same folder.
    #[error("could not use the data folder")]
    Storage(#[from] Fault),
    /// It has no identity.
    #[error(transparent)]
    Passport(#[from] PassportError),
    /// It could not join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Its certificate cannot be used.
    #[error("could not configure TLS")]
    Tls(#[from] identity::TlsError),
    /// An address cannot be listened on.
    #[error("could not listen on {client} and {peer}")]
    Listen {
        /// The client address.
        client: String,
        /// The peer address.
        peer: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The ledger does not start.
    #[error("could not start the ledger")]
    Ledger(#[from] StartError),
    /// The actors do not start.
    #[error("could not start the actors: {0}")]
    Actors(String),
    /// The data folder is of another cluster or node than its certificate.
    #[error("the certificate in {} is not that of its node.json", path.display())]
    OtherIdentity {
        /// The folder.
        path: PathBuf,
    },
    /// It was removed from its cluster.
    #[error("node {node} was removed from its cluster and is refused by the others")]
    Removed {
        /// Its id.
        node: NodeId,
    },
    /// The ledger stopped: the node must not go on.
    #[error("the ledger stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl ServeError {
    /// Reason and remedy where starting it again as it is cannot help.
    pub fn lasting(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Ledger(StartError::Rules(_)) => Some((
                "RULES_UNKNOWN",
                "start the node with the release that the other control nodes run; nothing is lost",
            )),
            Self::Ledger(StartError::Diverged { .. }) => Some((
                "DIVERGED",
                "remove the node from the cluster, empty its data folder and join it anew",
            )),
            _ => None,
        }
    }
}
