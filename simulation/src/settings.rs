//! What a run is told: sizes, kinds of trouble, and bugs planted on purpose.

use model::LeaseTimes;
use std::{fmt, str::FromStr, time::Duration};

/// Everything a run follows from.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The seed.
    pub seed: u64,
    /// Number of steps under faults; a step is [`Settings::STEP_MS`] of the world's time.
    pub steps: u64,
    /// Number of edge hosts.
    pub hosts: usize,
    /// Number of control nodes.
    pub nodes: usize,
    /// Kinds of trouble.
    pub faults: Faults,
    /// A bug to plant.
    pub plant: Option<Plant>,
    /// Whether to keep a trace.
    pub trace: bool,
    /// Whether many seeds go on after the first violation.
    pub keep_going: bool,
}

impl Settings {
    /// How much of the world's time a step takes, in ms.
    pub const STEP_MS: u64 = 250;
    /// How long a lease holds, in ms.
    pub(crate) const TTL_MS: u64 = 20_000;
    /// The same, and when a host is held for lost.
    pub(crate) const TIMES: LeaseTimes =
        LeaseTimes { ttl: Duration::from_millis(Self::TTL_MS), grace: Duration::from_secs(5) };
    /// How often an agent renews, in ms.
    pub(crate) const RENEW_MS: u64 = 5_000;

    /// A seed with the usual sizes and all faults.
    pub fn of_seed(seed: u64) -> Self {
        Self {
            seed,
            steps: 1_000,
            hosts: 10,
            nodes: 3,
            faults: Faults::ALL,
            plant: None,
            trace: false,
            keep_going: false,
        }
    }
}

/// Kinds of trouble that may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Control nodes crash and restart; leadership moves.
    pub nodes: bool,
    /// Links break, in one direction or both.
    pub links: bool,
    /// Agents crash and restart, hosts reboot.
    pub hosts: bool,
    /// Messages of a session are lost, repeated and overtake each other; proposals too.
    pub messages: bool,
    /// Clocks are skewed and drift.
    pub clocks: bool,
    /// Programs crash, run out of memory, start slowly, do not stop; guards are killed.
    pub jobs: bool,
    /// Users change their minds all the time.
    pub users: bool,
    /// Disks lose, tear and refuse, and run full; stores do not open. In ring B only.
    pub disks: bool,
}

impl Faults {
    /// All of them.
    pub const ALL: Self = Self {
        nodes: true,
        links: true,
        hosts: true,
        messages: true,
        clocks: true,
        jobs: true,
        users: true,
        disks: true,
    };
    /// None of them.
    pub const NONE: Self = Self {
        nodes: false,
        links: false,
        hosts: false,
        messages: false,
        clocks: false,
        jobs: false,
        users: false,
        disks: false,
    };
}

impl Faults {
    fn words(self) -> [(&'static str, bool); 8] {
        [
            ("nodes", self.nodes),
            ("links", self.links),
            ("hosts", self.hosts),
            ("messages", self.messages),
            ("clocks", self.clocks),
            ("jobs", self.jobs),
            ("users", self.users),
            ("disks", self.disks),
        ]
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("all"),
            Self::NONE => f.write_str("none"),
            some => {
                let words = some.words().into_iter().filter(|(_, on)| *on).map(|(word, _)| word);
                f.write_str(&words.collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            _ => {}
        }
        let mut faults = Self::NONE;
        for word in text.split(',') {
            let fault = match word.trim() {
                "nodes" => &mut faults.nodes,
                "links" => &mut faults.links,
                "hosts" => &mut faults.hosts,
                "messages" => &mut faults.messages,
                "clocks" => &mut faults.clocks,
                "jobs" => &mut faults.jobs,
                "users" => &mut faults.users,
                "disks" => &mut faults.disks,
                other => return Err(format!("no kind of fault is called {other:?}")),
            };
            *fault = true;
        }
        Ok(faults)
    }
}

/// A bug planted in the world, to show that it is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// Guards of `stop` jobs let them run past the end of the lease.
    GuardIgnoresDeadline,
    /// Control nodes grant leases without a quorum behind them.
    LeaseWithoutQuorum,
    /// A node goes on granting leases by the leader's word although the leader holds it for lost: only
    /// heartbeats count as exchanges, and nobody looks at the state.
    ConfirmLostNode,
    /// Hosts are held for lost when their lease may still run.
    LostTooEarly,
    /// Agents take any order, however old.
    SkipFence,
    /// A new session begins with the orders of a state that may be older than the session.
    StaleFirstOrders,
    /// Agents act before their memory is synced.
    ActBeforeSync,
    /// Control places jobs on full hosts.
    OverCommit,
    /// A repeated request id is carried out again.
    DoubleApply,
    /// The leader answers before a majority has the entry.
    AnswerBeforeCommit,
    /// A node that restarts has lost a row of its snapshot.
    LoseRow,
    /// One node reads its own clock while it decides.
    ReadClock,
    /// Planners start again before the last plan was answered.
    PlanTwice,
    /// Reports have no numbers: one that comes late passes for the newest.
    LateReports,
}

impl Plant {
    /// Every plant.
    pub const ALL: [Self; 14] = [
        Self::GuardIgnoresDeadline,
        Self::LeaseWithoutQuorum,
        Self::ConfirmLostNode,
        Self::LostTooEarly,
        Self::SkipFence,
        Self::StaleFirstOrders,
        Self::ActBeforeSync,
        Self::OverCommit,
        Self::DoubleApply,
        Self::AnswerBeforeCommit,
        Self::LoseRow,
        Self::ReadClock,
        Self::PlanTwice,
        Self::LateReports,
    ];

    /// The plant's word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GuardIgnoresDeadline => "guard-ignores-deadline",
            Self::LeaseWithoutQuorum => "lease-without-quorum",
            Self::ConfirmLostNode => "confirm-lost-node",
            Self::LostTooEarly => "lost-too-early",
            Self::SkipFence => "skip-fence",
            Self::StaleFirstOrders => "stale-first-orders",
            Self::ActBeforeSync => "act-before-sync",
            Self::OverCommit => "over-commit",
            Self::DoubleApply => "double-apply",
            Self::AnswerBeforeCommit => "answer-before-commit",
            Self::LoseRow => "lose-row",
            Self::ReadClock => "read-clock",
            Self::PlanTwice => "plan-twice",
            Self::LateReports => "late-reports",
        }
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|plant| plant.as_str() == text);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("no bug {text:?} can be planted; there are {known}")
        })
    }
}
