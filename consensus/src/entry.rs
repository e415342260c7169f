//! What one entry of the log carries: a stamp and as many queued commands as fit.
//!
//! One entry is one sync and one round of replication, however many commands are in it; each
//! command still has its own revision. Commands are encoded once, by the node that took them, and
//! travel as bytes: forwarding, queueing, the log and replication only copy them. They are decoded
//! when they are applied. The enum is versioned because the log outlives releases.

use model::{Applied, Caller, Command, Outcome, RequestId, Revision, Stamp, State, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use storage::{Fault, codec};

/// One command in an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queued {
    pub(crate) caller: Caller,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) command: Command,
}

/// Bytes that the codec copies as a whole.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// The payload of a log entry. Appended only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// The first shape.
    V1 {
        /// The leader's wall clock when it made the entry.
        stamp: Timestamp,
        /// The rules level to decide by, unless a higher one is in force.
        rules: u32,
        /// Once the leader's state hash at a past revision. One replica's word is no verdict: it is
        /// neither written nor read any more, see `jury`.
        hash_check: Option<(Revision, u128)>,
        /// At least one `Queued`, each encoded by the codec.
        commands: Vec<Blob>,
    },
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::V1 { stamp, commands, .. } = self;
        write!(f, "{} commands at {}", commands.len(), stamp.0)
    }
}

/// Encodes one command for its way into the log.
pub(crate) fn encode(queued: &Queued) -> Result<Blob, Fault> {
    codec::encode(queued).map(Blob)
}

/// Decodes the commands of an entry.
pub(crate) fn decode(commands: &[Blob]) -> Result<Vec<Queued>, Fault> {
    commands.iter().map(|blob| codec::decode(&blob.0)).collect()
}

/// One applied command.
pub(crate) struct Step {
    pub(crate) revision: Revision,
    pub(crate) time: Timestamp,
    pub(crate) queued: Queued,
    pub(crate) applied: Applied,
}

impl Step {
    pub(crate) fn outcome(&self) -> Outcome {
        self.applied.outcome.clone()
    }
}

/// Applies the commands of an entry in order: the one path by which any ledger changes a state.
pub(crate) fn apply(
    state: &mut State,
    time: Timestamp,
    rules: u32,
    commands: Vec<Queued>,
) -> Vec<Step> {
    commands
        .into_iter()
        .map(|queued| {
            let stamp = Stamp {
                time,
                rules,
                caller: queued.caller.clone(),
                request_id: queued.request_id.clone(),
            };
            let applied = state.apply(&stamp, &queued.command);
            Step { revision: state.globals.revision, time: state.globals.time, queued, applied }
        })
        .collect()
}

/// The rules level a leader stamps: the one in force, and 1 before any was raised.
pub(crate) fn rules_in_force(state: &State) -> u32 {
    state.globals.rules.max(1)
}

impl From<Step> for crate::WatchEvent {
    fn from(step: Step) -> Self {
        Self {
            revision: step.revision,
            time: step.time,
            caller: step.queued.caller,
            changes: step.applied.changes.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::NodeId;

    #[test]
    fn golden_bytes_of_an_entry_stay_as_they_were_written() {
        let queued = Queued {
            caller: Caller::Node(NodeId(7)),
            request_id: Some(RequestId { at: Timestamp(5), unique: 9 }),
            command: Command::RaiseRules { level: 1 },
        };
        let blob = encode(&queued).unwrap();
        let commands = vec![blob];
        let (stamp, hash_check) = (Timestamp(300), Some((Revision(2), 3)));
        let entry = Entry::V1 { stamp, rules: 1, hash_check, commands };
        let bytes = codec::encode(&entry).unwrap();
        assert_eq!(codec::decode::<Entry>(&bytes).unwrap(), entry);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0100fb2c010101020301080101070105092001");
    }
}
