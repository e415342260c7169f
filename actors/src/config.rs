//! The room's settings.

/// Settings of the actor tree. All times in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long an actor gathers wake-ups before it looks at the state.
    pub debounce_ms: u64,
    /// An actor looks at the state this often even if nothing wakes it; jittered by ±10 %.
    pub sweep_ms: u64,
    /// Deadline of one proposal.
    pub propose_timeout_ms: u64,
    /// Delay before an actor that crashed starts again; doubled with each crash in a row.
    pub restart_min_ms: u64,
    /// Longest such delay.
    pub restart_max_ms: u64,
    /// How long an actor must have run for its earlier crashes to be forgiven.
    pub steady_ms: u64,
    /// Most partition actors a cluster actor keeps at once; the rest wait for a place.
    pub partitions_max: usize,
    /// Most proposals one run makes before it looks at the state again.
    pub proposals_max: usize,
}

impl Config {
    /// The defaults: 5 ms debounce, a sweep every 5 minutes (specification 6.10), proposals within
    /// 5 s, restarts after 100 ms up to 30 s, crashes forgiven after a minute, 1,024 partition actors per cluster, 64 proposals.
    pub fn new() -> Self {
        Self {
            debounce_ms: 5,
            sweep_ms: 300_000,
            propose_timeout_ms: 5_000,
            restart_min_ms: 100,
            restart_max_ms: 30_000,
            steady_ms: 60_000,
            partitions_max: 1_024,
            proposals_max: 64,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
