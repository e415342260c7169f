//! Who may do what: role bindings and join tokens, as the state keeps them.

use crate::{Meta, Name, NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A role. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Changes what runs.
    Operator,
    /// Grants, deletes tenants, changes the cluster.
    Admin,
}

/// Where a role holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Everywhere.
    Cluster,
    /// In one tenant.
    Tenant(Name),
}

/// Who asks. Carried in the log entry with every command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Caller {
    /// muster itself: an actor or the leader.
    System,
    /// A control node.
    Node(NodeId),
    /// The agent of a host.
    Agent {
        /// Its tenant.
        tenant: Name,
        /// Its host.
        host: Name,
    },
    /// A person or program with an operator certificate.
    Operator(Name),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Node(id) => write!(f, "node:{id}"),
            Self::Agent { tenant, host } => write!(f, "agent:{tenant}/{host}"),
            Self::Operator(name) => write!(f, "operator:{name}"),
        }
    }
}

/// A role given to an operator in a scope. Keyed by (operator, scope).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoleBinding {
    /// The envelope; the name is the operator's.
    pub meta: Meta,
    /// Where.
    pub scope: Scope,
    /// What.
    pub role: Role,
}

/// What a join token lets its bearer become.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TokenKind {
    /// A control node.
    Node,
    /// The agent of a host of this tenant; the host is registered by joining.
    Agent {
        /// The tenant.
        tenant: Name,
    },
    /// An operator with this name; bindings are made apart.
    Operator {
        /// The operator's name.
        name: Name,
    },
}

/// A join token. Its secret is never stored: only a hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The envelope; the name is the token's public id.
    pub meta: Meta,
    /// What it is for.
    pub kind: TokenKind,
    /// Hex SHA-256 of the secret.
    pub secret_hash: String,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// How many times it may still be used.
    pub uses_left: u32,
}

/// A control node as the state knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ControlNode {
    /// The envelope; the name is `node-<id>`.
    pub meta: Meta,
    /// Its id.
    pub id: NodeId,
    /// `host:port` of its peer port.
    pub peer_addr: String,
    /// `host:port` of its client port.
    pub client_addr: String,
    /// Rules levels it can decide by: from 1 to this.
    pub rules_max: u32,
    /// Whether the leader has it in contact: only live nodes own work.
    pub alive: bool,
}

/// A control node that was removed for good: whoever still has its papers is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RemovedNode {
    /// When.
    pub at: Timestamp,
}
