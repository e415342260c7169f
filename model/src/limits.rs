//! Every bound and every length of time the domain knows, in one place.
//!
//! They are constants and not configuration because every control node must decide alike; a change
//! is a new rules level (`rules`).

/// How long a copy must run before it counts as running (APP-27), in ms.
pub const ANTI_FLAP_MS: u64 = 10_000;
/// How long a new deployment without any target cluster shows DEPLOYING, in ms.
pub const NO_TARGET_GRACE_MS: u64 = 30_000;
/// How long a job may take to run as asked before it is an error, in ms.
pub const PROGRESS_DEADLINE_MS: u64 = 600_000;
/// How long a `replace` job waits for a lost host before it gets a second copy, in ms.
pub const REPLACE_GRACE_MS: u64 = 60_000;
/// How long, before and after the time of an entry, a request id may have been made, in ms.
pub const REQUEST_WINDOW_MS: u64 = 600_000;
/// How many answers are remembered.
pub const REQUESTS_MAX: usize = 100_000;
/// How many items a command with answers per item may have if it has a request id, so that the
/// remembered answer stays small.
pub const REMEMBERED_ITEMS_MAX: usize = 256;

/// After so many attempts a retry comes every ten minutes only, and what is retried is degraded.
pub const RETRY_ATTEMPTS: u32 = 10;

/// Most items of a command, and most resources one `Settle` touches.
pub const ITEMS_MAX: usize = 4_096;
/// How many removed control nodes are remembered one by one; the newest ids stay.
pub const REMOVED_NODES_MAX: usize = 1_024;
/// Most commands in a batch.
pub const BATCH_MAX: usize = 500;
/// Most entries of `waiting_on` shown.
pub const WAITING_ON_MAX: usize = 20;
/// Most earlier specs a deployment keeps.
pub const REVISIONS_MAX: usize = 20;

/// Most labels of a resource.
pub const LABELS_MAX: usize = 64;
/// Most bytes of annotations of a resource.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 << 10;
/// Most characters of a display name.
pub const DISPLAY_NAME_MAX: usize = 40;
/// Most bytes of a version text.
pub const VERSION_MAX_BYTES: usize = 40;
/// Most members of a cluster.
pub const MEMBERS_MAX: usize = 10_000;
/// Most clusters a deployment lists.
pub const TARGETS_MAX: usize = 50;
/// Most pairs of a selector.
pub const SELECTOR_MAX: usize = 10;
/// Most applications with overrides.
pub const OVERRIDES_MAX: usize = 100;
/// Most applications of a package.
pub const APPLICATIONS_MAX: usize = 100;
/// Most artifacts of an application.
pub const ARTIFACTS_MAX: usize = 100;
/// Most zones an application names.
pub const ZONES_MAX: usize = 32;
/// Most partitions of an application.
pub const PARTITIONS_MAX: u32 = 65_535;
/// Most jobs of a deployment over the clusters it has when it is applied.
pub const JOBS_MAX: u64 = 1_000_000;
/// Most environment variables of an application or override.
pub const ENV_MAX: usize = 256;
/// Most bytes of environment of an application or override.
pub const ENV_MAX_BYTES: usize = 64 << 10;
/// Longest graceful stop, in ms.
pub const STOP_GRACE_MAX_MS: u64 = 600_000;
/// Longest graceful stop of a `stop` job, in ms: it has to fit into a lease.
pub const FENCED_STOP_GRACE_MAX_MS: u64 = 10_000;
/// Largest image in bytes.
pub const IMAGE_MAX_BYTES: u64 = 1 << 30;
/// Most memory a limit or a capacity may name, in bytes.
pub const MEMORY_MAX_BYTES: u64 = 1 << 50;
/// Most thousandths of a CPU a limit or a capacity may name.
pub const CPU_MAX_MILLIS: u64 = 100_000_000;
/// Most components of a host.
pub const COMPONENTS_MAX: usize = 256;
/// Longest text in facts of a host, in bytes.
pub const FACT_MAX_BYTES: usize = 256;
/// Longest text about a job's trouble or error, in bytes; longer ones are cut.
pub const TEXT_MAX_BYTES: usize = 1_024;
/// Most uses of a token.
pub const TOKEN_USES_MAX: u32 = 10_000;
/// Longest life of a token, in ms: a year.
pub const TOKEN_LIFE_MAX_MS: u64 = 366 * 24 * 3_600_000;
/// Most tokens at a time.
pub const TOKENS_MAX: usize = 10_000;
/// Longest address of a control node, in bytes.
pub const ADDRESS_MAX_BYTES: usize = 255;
