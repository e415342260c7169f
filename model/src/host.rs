//! Hosts: edge machines, what they can do and whether they are in contact.

use crate::{Digest, Meta, Name, NodeId, Revision, Status, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Which runtime a job needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DriverKind {
    /// Native executables.
    Exec,
    /// WASI command modules.
    Wasm,
}

impl DriverKind {
    /// The driver's word in every interface: `exec`, `wasm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Wasm => "wasm",
        }
    }
}

/// Countable resources of a host, or the part of them a job asks for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// What the agent found on the machine (INF-32); components are identified by `(kind, name)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Facts {
    /// CPU architecture, as `uname -m` says it.
    pub arch: String,
    /// Operating system name and version.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// CPU model name.
    pub cpu_model: String,
    /// Number of CPUs.
    pub cpu_count: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Host name the machine gives itself.
    pub hostname: String,
    /// Changes with each boot.
    pub boot_id: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Disks, NICs and other components.
    pub components: Vec<Component>,
}

/// A part of a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Component {
    /// `disk`, `nic`, `usb`.
    pub kind: String,
    /// Device name: the identity of the component.
    pub name: String,
    /// Free text: size, address, state.
    pub detail: String,
}

/// Contact with a host. Renewals of the lease live in memory; only these changes are in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Contact {
    /// Registered, never seen.
    #[default]
    Never,
    /// An agent holds a session with this control node, under a live lease.
    Connected {
        /// The control node that holds the session.
        node: NodeId,
        /// Number of the session, counted per host: later sessions are higher.
        session: u64,
        /// Since when.
        since: Timestamp,
    },
    /// The lease ran out.
    Lost {
        /// Since when control holds it for lost.
        since: Timestamp,
        /// Last session number seen.
        session: u64,
    },
}

impl Contact {
    /// The last session number seen, 0 if never.
    pub fn session(&self) -> u64 {
        match *self {
            Self::Never => 0,
            Self::Connected { session, .. } | Self::Lost { session, .. } => session,
        }
    }
}

/// What an agent is allowed (INF-14 to 16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HostState {
    /// Known by name.
    #[default]
    Registered,
    /// Its agent has joined.
    Onboarded,
    /// Deauthorized: refused until deleted.
    Untrusted,
}

/// An edge machine with its agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Host {
    /// The envelope.
    pub meta: Meta,
    /// Site it stands at, for people and spread.
    pub site: Option<Name>,
    /// Failure zone, for constraints and spread.
    pub zone: Option<Name>,
    /// Whether its agent may take part.
    pub state: HostState,
    /// No new placements when set; running ones stay.
    pub cordoned: bool,
    /// An operator said it will not return: its `keep_running` jobs may be replaced.
    pub declared_lost: bool,
    /// The grace after a loss of contact is over: `replace` jobs may get a second copy.
    pub replaceable: bool,
    /// SHA-256 of the public key of the agent that speaks for it; nobody else may. `None` until one
    /// joined or connected.
    pub agent_key: Option<Digest>,
    /// Contact.
    pub contact: Contact,
    /// What may be placed on it; 0 in a field means none.
    pub capacity: Resources,
    /// Revision at which the capacity last shrank: only placements older than that may exceed it.
    pub capacity_revision: Revision,
    /// Runtimes the agent offers.
    pub drivers: BTreeSet<DriverKind>,
    /// Whether the agent can contain a job so that it surely dies with its guard; without it, no
    /// `stop` jobs.
    pub fenced: bool,
    /// What was found on the machine.
    pub facts: Box<Facts>,
    /// Summary for people; facts and jobs are stale while contact is lost.
    pub status: Status,
}
