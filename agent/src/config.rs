//! All settings of one agent. Every field has a default that suits a small edge machine.

use std::path::PathBuf;

use api::fabric::WireConfig;
use artifact::{Limits, StoreConfig};
use serde::{Deserialize, Serialize};

use crate::memory::log::LogConfig;
use crate::reconcile::Tuning;

/// Settings of one agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Data folder, private to its user: `identity/`, `memory`, `jobs/`, `data/`, `images/`, `unpacked/`,
    /// `secrets/`.
    pub data: PathBuf,
    /// `host:port` of client ports of control nodes; more are learned in each session.
    pub servers: Vec<String>,
    /// What control may place on this host; a field that is `None` is what the machine has.
    pub capacity: Capacity,
    /// Times and counts of reconciling.
    pub tuning: Tuning,
    /// The memory on disk.
    pub memory: LogConfig,
    /// Connections to control nodes.
    pub wire: WireConfig,
    /// Sessions.
    pub session: SessionConfig,
    /// The cache of images.
    pub store: StoreConfig,
    /// Limits on what an image may be.
    pub image_limits: Limits,
    /// What is carried out at a time, and how often the host is looked at.
    pub work: WorkConfig,
    /// Logs sent to control nodes.
    pub logs: LogSendConfig,
    /// Patience with guards.
    pub guards: GuardsConfig,
    /// Data of jobs that are gone.
    pub leftovers: LeftoversConfig,
}

/// What control may place on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
}

/// Sessions with control nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// Longest wait for the answer to the first message, in ms.
    pub welcome_ms: u64,
    /// Pause before the next control node is tried, in ms; doubled after each round of all of them.
    pub retry_first_ms: u64,
    /// Longest such pause, in ms.
    pub retry_max_ms: u64,
    /// Longest a single call such as enrolment may take, in ms.
    pub call_ms: u64,
    /// Messages waiting to be sent or to be worked on.
    pub queue_messages_max: usize,
    /// How long reports are gathered before they are sent, in ms.
    pub gather_ms: u64,
    /// Reports in one message, at most 4,096.
    pub reports_max: usize,
    /// Control nodes remembered.
    pub servers_max: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            welcome_ms: 15_000,
            retry_first_ms: 200,
            retry_max_ms: 5_000,
            call_ms: 10_000,
            queue_messages_max: 64,
            gather_ms: 20,
            reports_max: 1_024,
            servers_max: 32,
        }
    }
}

/// What is carried out at a time, and how often the host is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkConfig {
    /// Starts of different jobs at a time.
    pub steps_max: usize,
    /// Stops of different jobs at a time; each may take all of its job's grace.
    pub stops_max: usize,
    /// Jobs killed, or forgotten by the driver, at a time.
    pub kills_max: usize,
    /// Time kept for the kill at the end of a lease, in ms.
    pub kill_margin_ms: u64,
    /// Largest file of a job's log, in bytes, for each of stdout and stderr.
    pub log_file_bytes_max: u64,
    /// Files kept of each of the two; the oldest is deleted first.
    pub log_files_max: u32,
    /// Images fetched at a time.
    pub fetches_max: usize,
    /// Guards asked at a time.
    pub probes_max: usize,
    /// How often jobs that are up are looked at, in ms.
    pub probe_every_ms: u64,
    /// How often the machine is looked at, in ms.
    pub discover_every_ms: u64,
    /// Pause after a stop that failed, or a look at all jobs that failed, in ms.
    pub retry_ms: u64,
    /// Longest one download may stand still, in ms.
    pub download_idle_ms: u64,
    /// Images of an application kept beside those in use.
    pub images_kept: usize,
}

impl Default for WorkConfig {
    fn default() -> Self {
        Self {
            steps_max: 8,
            stops_max: 256,
            kills_max: 16,
            kill_margin_ms: 500,
            log_file_bytes_max: 4 << 20,
            log_files_max: 4,
            fetches_max: 2,
            probes_max: 8,
            probe_every_ms: 1_000,
            discover_every_ms: 60_000,
            retry_ms: 1_000,
            download_idle_ms: 30_000,
            images_kept: 1,
        }
    }
}

/// Logs sent to control nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSendConfig {
    /// Logs sent at a time; one more is refused.
    pub logs_max: usize,
    /// Bytes in one part.
    pub part_bytes: usize,
    /// Bytes looked at from the end when only some lines are asked for.
    pub tail_bytes_max: usize,
    /// Pause between two parts, in ms: a log must not crowd out the session it travels on.
    pub pause_ms: u64,
    /// How often a log that is followed is looked at, in ms.
    pub follow_every_ms: u64,
}

impl Default for LogSendConfig {
    fn default() -> Self {
        Self {
            logs_max: 16,
            part_bytes: 64 << 10,
            tail_bytes_max: 1 << 20,
            pause_ms: 5,
            follow_every_ms: 300,
        }
    }
}

/// Patience with guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardsConfig {
    /// How long a guard may take to have all modules started, in ms.
    pub start_ms_max: u64,
    /// How long a guard may take to answer a question, in ms.
    pub answer_ms_max: u64,
    /// How much longer than its grace a stop may take before the guard itself is killed, in ms.
    pub stop_extra_ms_max: u64,
    /// How long compiling one module may take, in ms.
    pub compile_ms_max: u64,
    /// The most bytes one read of a log gives.
    pub log_bytes_max: usize,
}

impl Default for GuardsConfig {
    fn default() -> Self {
        Self {
            start_ms_max: 20_000,
            answer_ms_max: 3_000,
            stop_extra_ms_max: 5_000,
            compile_ms_max: 120_000,
            log_bytes_max: 1 << 20,
        }
    }
}

/// Data of jobs that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeftoversConfig {
    /// How long the data of a job is kept after control has no order for it any more, in ms. Only time
    /// in which this agent was in touch with control counts. 0: until the next look.
    pub data_keep_ms: u64,
    /// Data folders deleted at a look at the machine; the rest waits for the next.
    pub removed_max: usize,
    /// Data folders of jobs that are gone that are kept count of; the rest waits until one is deleted.
    pub tracked_max: usize,
}

impl Default for LeftoversConfig {
    fn default() -> Self {
        Self { data_keep_ms: 24 * 60 * 60 * 1_000, removed_max: 4, tracked_max: 4_096 }
    }
}

impl Config {
    /// The usual settings for an agent whose data lies in `data`.
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            servers: Vec::new(),
            capacity: Capacity::default(),
            tuning: Tuning::default(),
            memory: LogConfig::default(),
            wire: WireConfig::default(),
            session: SessionConfig::default(),
            store: StoreConfig::default(),
            image_limits: Limits::default(),
            work: WorkConfig::default(),
            logs: LogSendConfig::default(),
            guards: GuardsConfig::default(),
            leftovers: LeftoversConfig::default(),
        }
    }

    /// Checks what can be checked without starting.
    ///
    /// # Errors
    /// The name of the first setting that cannot work, and why.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        let positive = [
            ("session.welcome_ms", self.session.welcome_ms),
            ("session.retry_first_ms", self.session.retry_first_ms),
            ("session.retry_max_ms", self.session.retry_max_ms),
            ("session.call_ms", self.session.call_ms),
            ("session.queue_messages_max", self.session.queue_messages_max as u64),
            ("session.reports_max", self.session.reports_max as u64),
            ("session.servers_max", self.session.servers_max as u64),
            ("work.steps_max", self.work.steps_max as u64),
            ("work.stops_max", self.work.stops_max as u64),
            ("work.kills_max", self.work.kills_max as u64),
            ("work.fetches_max", self.work.fetches_max as u64),
            ("work.probes_max", self.work.probes_max as u64),
            ("work.probe_every_ms", self.work.probe_every_ms),
            ("work.discover_every_ms", self.work.discover_every_ms),
            ("work.download_idle_ms", self.work.download_idle_ms),
            ("work.kill_margin_ms", self.work.kill_margin_ms),
            ("work.log_file_bytes_max", self.work.log_file_bytes_max),
            ("work.log_files_max", u64::from(self.work.log_files_max)),
            ("logs.logs_max", self.logs.logs_max as u64),
            ("logs.part_bytes", self.logs.part_bytes as u64),
            ("guards.start_ms_max", self.guards.start_ms_max),
            ("guards.answer_ms_max", self.guards.answer_ms_max),
            ("guards.compile_ms_max", self.guards.compile_ms_max),
            ("guards.log_bytes_max", self.guards.log_bytes_max as u64),
            ("leftovers.removed_max", self.leftovers.removed_max as u64),
            ("leftovers.tracked_max", self.leftovers.tracked_max as u64),
            ("memory.rewrite_at_bytes", self.memory.rewrite_at_bytes),
            ("memory.file_bytes_max", self.memory.file_bytes_max),
            ("memory.bounds.unsent_max", self.memory.bounds.unsent_max as u64),
        ];
        if let Some((setting, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err((*setting, "it must be above 0"));
        }
        if self.session.reports_max > api::convert::session::REPORTS_MAX {
            return Err(("session.reports_max", "a message holds at most 4096 reports"));
        }
        if self.session.retry_first_ms > self.session.retry_max_ms {
            return Err(("session.retry_first_ms", "it must not exceed retry_max_ms"));
        }
        Ok(())
    }

    /// Where key and certificate lie.
    pub fn identity(&self) -> PathBuf {
        self.data.join("identity")
    }

    /// The file of the memory.
    pub fn memory_path(&self) -> PathBuf {
        self.data.join("memory")
    }

    /// The file that says since when jobs are gone whose data is kept.
    pub fn leftovers_path(&self) -> PathBuf {
        self.data.join("leftovers.json")
    }

    /// The file with the control nodes known.
    pub fn servers_path(&self) -> PathBuf {
        self.data.join("servers.json")
    }
}
