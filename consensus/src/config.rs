//! Every bound, interval and timeout of this room, with the measured defaults.
//!
//! Units are in the names. [`Config::validate`] is called by `RaftLedger::start`; the composition
//! root only fills the struct. Values that must agree across nodes: none; those of one node may
//! differ from another's, though elections are fair only with equal timings.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use storage::log::LogConfig;

/// Settings of one node's ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Interval of the leader's heartbeats, milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest election timeout, milliseconds; must exceed the heartbeat.
    pub election_min_ms: u64,
    /// Longest election timeout, milliseconds. Also the leader's lease: a follower answers nothing
    /// while its disk stalls, so raise this where disks stall.
    pub election_max_ms: u64,
    /// Time for a follower to make entries durable and say so, milliseconds. The connection is given
    /// up then. Heartbeats have their own, shorter time.
    pub append_ms: u64,
    /// Time for a whole snapshot to reach a follower and be installed there, milliseconds.
    pub snapshot_transfer_ms: u64,
    /// Time for one chunk of a snapshot, milliseconds.
    pub snapshot_chunk_ms: u64,
    /// A snapshot transfer that got no chunk for this long is forgotten, milliseconds.
    pub snapshot_idle_ms: u64,
    /// Entries in one replication message.
    pub payload_entries_max: u64,
    /// Entries in one write of the log.
    pub append_entries_max: u64,
    /// Bytes that one read of the log for replication gathers, at least one entry.
    pub replication_read_bytes_max: u64,
    /// A snapshot is made after so many entries.
    pub snapshot_every_entries: u64,
    /// A snapshot is made after so many bytes of entries.
    pub snapshot_every_bytes: u64,
    /// Entries that stay in the log below the newest snapshot, so that a node that was away for a
    /// while catches up without one.
    pub log_keep_entries: u64,
    /// Bytes of entries that stay in the log below the newest snapshot, at most, whatever their
    /// number.
    pub log_keep_bytes: u64,
    /// Bytes of entries that the leader keeps, at most, while a node in contact catches up or is sent a
    /// snapshot.
    pub log_hold_bytes: u64,
    /// Commands in one entry end at this size, bytes; a larger command has an entry of its own.
    pub batch_bytes_max: usize,
    /// Largest command accepted, encoded, bytes.
    pub command_bytes_max: usize,
    /// Entries proposed and not yet committed, at most.
    pub entries_in_flight_max: usize,
    /// Proposals waiting for an entry, at most; more are refused as overloaded.
    pub queue_proposals_max: usize,
    /// Bytes waiting for an entry, at most; more are refused as overloaded.
    pub queue_bytes_max: usize,
    /// While the first proposal in the line has waited for so long, operators are refused as
    /// overloaded, milliseconds. A proposal that has waited four times as long is refused too.
    pub queue_wait_ms: u64,
    /// An entry that is not committed after this is given up as unknown, milliseconds.
    pub entry_ms: u64,
    /// Deadline of proposals that name none, milliseconds.
    pub propose_ms: u64,
    /// Time for one try of a forwarded proposal or read, milliseconds.
    pub forward_ms: u64,
    /// Shortest pause before a refused or lost try is repeated, milliseconds; it doubles.
    pub retry_min_ms: u64,
    /// Longest pause before a refused or lost try is repeated, milliseconds.
    pub retry_max_ms: u64,
    /// Linearizable reads waiting for a round, at most.
    pub queue_reads_max: usize,
    /// Events kept in memory for watchers.
    pub watch_events_max: usize,
    /// Changed rows kept in memory for watchers, over all events.
    pub watch_changes_max: usize,
    /// Revisions kept in the journal, at most.
    pub journal_rows_max: u64,
    /// Bytes of rows kept in the journal, at most; the rows of the newest entry are kept always.
    pub journal_bytes_max: u64,
    /// The state hash is compared across nodes once in so many entries; the same on all of them.
    pub hash_check_entries: u64,
    /// Whether the leader raises the rules level by itself once every member knows it. Where it does
    /// not, on any node that may lead, `muster cluster raise-rules` does it when the operator likes:
    /// until then the older release can be started again.
    pub raise_rules: bool,
    /// Rules levels this node can decide by: 1 to this. What the build knows, no setting; tests of
    /// upgrades have nodes that differ in it.
    #[serde(skip, default = "rules_known")]
    pub rules_max: u32,
    /// How often the leader looks after its nodes, and a follower confirms its quorum,
    /// milliseconds.
    pub duty_ms: u64,
    /// A node out of contact with the leader for so long is marked lost, milliseconds.
    pub node_lost_ms: u64,
    /// Entries a learner may be behind when it is made a voter.
    pub learner_lag_entries: u64,
    /// Time for the leader to end what it has under way before it hands leadership over, and again for
    /// the next one to take it, milliseconds. At most `forward_ms`: writes wait meanwhile.
    pub hand_over_ms: u64,
    /// A member out of contact with one and the same leader for so long is removed for good,
    /// milliseconds; 0: only operators remove members. It never comes back under its id, so choose a
    /// time that no repair takes.
    pub dead_node_cleanup_ms: u64,
    /// Voters that remain when a dead one is removed by `dead_node_cleanup_ms`, at least.
    pub min_voters: u64,
    /// The bug that a test has planted.
    #[cfg(feature = "planted-bugs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planted_bug: Option<crate::PlantedBug>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 200,
            append_ms: 1_000,
            snapshot_transfer_ms: 300_000,
            snapshot_chunk_ms: 2_000,
            snapshot_idle_ms: 30_000,
            payload_entries_max: 1_024,
            append_entries_max: 4_096,
            replication_read_bytes_max: 1 << 20,
            snapshot_every_entries: 20_000,
            snapshot_every_bytes: 256 << 20,
            log_keep_entries: 10_000,
            log_keep_bytes: 128 << 20,
            log_hold_bytes: 1 << 30,
            batch_bytes_max: 256 << 10,
            command_bytes_max: 2 << 20,
            entries_in_flight_max: 2,
            queue_proposals_max: 16_384,
            queue_bytes_max: 64 << 20,
            queue_wait_ms: 500,
            entry_ms: 10_000,
            propose_ms: 10_000,
            forward_ms: 2_000,
            retry_min_ms: 10,
            retry_max_ms: 200,
            queue_reads_max: 16_384,
            watch_events_max: 8_192,
            watch_changes_max: 262_144,
            journal_rows_max: 250_000,
            journal_bytes_max: 512 << 20,
            hash_check_entries: 1_024,
            raise_rules: true,
            rules_max: rules_known(),
            duty_ms: 500,
            node_lost_ms: 5_000,
            learner_lag_entries: 256,
            hand_over_ms: 1_000,
            dead_node_cleanup_ms: 0,
            min_voters: 3,
            #[cfg(feature = "planted-bugs")]
            planted_bug: None,
        }
    }
}

fn rules_known() -> u32 {
    model::RULES_MAX
}

/// Bytes of a log record that are not of its commands: its head, term, stamp and padding.
const FRAME_BYTES_MAX: u64 = 128;

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("consensus setting {setting} is refused: {reason}")]
pub struct BadConfig {
    /// The setting.
    pub setting: &'static str,
    /// Why.
    pub reason: String,
}

impl Config {
    /// Checks what can be checked without starting.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), BadConfig> {
        let bad = |setting, reason: &str| Err(BadConfig { setting, reason: reason.to_owned() });
        if self.heartbeat_ms == 0 || self.heartbeat_ms >= self.election_min_ms {
            return bad("heartbeat_ms", "it must be above 0 and below election_min_ms");
        }
        if self.election_min_ms >= self.election_max_ms {
            return bad("election_min_ms", "it must be below election_max_ms");
        }
        let positive: [(&'static str, u64); 13] = [
            ("payload_entries_max", self.payload_entries_max),
            ("append_entries_max", self.append_entries_max),
            ("snapshot_every_entries", self.snapshot_every_entries),
            ("batch_bytes_max", self.batch_bytes_max as u64),
            ("command_bytes_max", self.command_bytes_max as u64),
            ("entries_in_flight_max", self.entries_in_flight_max as u64),
            ("queue_proposals_max", self.queue_proposals_max as u64),
            ("queue_wait_ms", self.queue_wait_ms),
            ("queue_reads_max", self.queue_reads_max as u64),
            ("watch_events_max", self.watch_events_max as u64),
            ("hash_check_entries", self.hash_check_entries),
            ("duty_ms", self.duty_ms),
            ("min_voters", self.min_voters),
        ];
        if self.hand_over_ms > self.forward_ms {
            return bad("hand_over_ms", "it must not exceed forward_ms");
        }
        if (1..=self.node_lost_ms).contains(&self.dead_node_cleanup_ms) {
            return bad("dead_node_cleanup_ms", "it must be 0 or above node_lost_ms");
        }
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((setting, _)) => bad(setting, "it must be above 0"),
            None if self.command_bytes_max > self.queue_bytes_max => {
                bad("command_bytes_max", "it must not exceed queue_bytes_max")
            }
            None => Ok(()),
        }
    }

    /// Bytes of the log's files at most, but for what is written while one checkpoint is made: the
    /// next one is due when it is done. On the leader, while another node catches up, it may be
    /// `log_hold_bytes` more.
    ///
    /// What is kept below a snapshot, twice what makes the next one due (the newer half gathers while
    /// the older is written down), the frames of the entries, and the segments that are begun, being
    /// prepared or spare.
    pub fn log_bytes_bound(&self, log: &LogConfig) -> u64 {
        let frames = self.snapshot_every_entries.saturating_mul(FRAME_BYTES_MAX);
        let due = self.snapshot_every_bytes.saturating_add(frames);
        let files = (log.spare_segments_max as u64 + 3).saturating_mul(log.segment_bytes);
        due.saturating_mul(2).saturating_add(self.log_keep_bytes).saturating_add(files)
    }

    /// The same for Raft. Snapshots are triggered by us; purging follows a durable snapshot.
    pub(crate) fn raft(&self) -> Result<Arc<openraft::Config>, BadConfig> {
        self.validate()?;
        let config = openraft::Config {
            cluster_name: "muster".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            install_snapshot_timeout: self.snapshot_transfer_ms,
            max_payload_entries: self.payload_entries_max,
            max_append_entries: Some(self.append_entries_max),
            // Only what is no longer in the log is sent as a snapshot.
            replication_lag_threshold: u64::MAX / 2,
            snapshot_policy: openraft::SnapshotPolicy::Never,
            // `purge` does it.
            max_in_snapshot_log_to_keep: u64::MAX,
            purge_batch_size: 1,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            backoff: "50ms 100ms ...400ms".to_owned(),
            ..openraft::Config::default()
        };
        config
            .validate()
            .map(Arc::new)
            .map_err(|error| BadConfig { setting: "raft", reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_accepted_and_impossible_timings_refused() {
        assert_eq!(Config::default().validate(), Ok(()));
        assert!(Config::default().raft().is_ok());
        let config = Config { heartbeat_ms: 150, ..Config::default() };
        assert_eq!(config.validate().map_err(|bad| bad.setting), Err("heartbeat_ms"));
        let config = Config { election_max_ms: 150, ..Config::default() };
        assert_eq!(config.validate().map_err(|bad| bad.setting), Err("election_min_ms"));
        let config = Config { duty_ms: 0, ..Config::default() };
        assert_eq!(config.validate().map_err(|bad| bad.setting), Err("duty_ms"));
    }
}
