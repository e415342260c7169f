//! The one feasibility function: may this job run on that host? `decide`, the planner, `plan`,
//! what-if and the simulation all ask here, so they cannot disagree.

use crate::{Contact, HostState, JobKey, Name, OnDisconnect, Resources, State, Workload};
use std::fmt;

/// Why a job may not be placed on a host. Ordered from what says most about the host to what says
/// most about the moment: reports show the first that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obstacle {
    /// No such host.
    UnknownHost,
    /// The host is not in the job's cluster.
    NotMember,
    /// The host is being deleted.
    Deleting,
    /// The host lost its trust.
    Untrusted,
    /// The host does not offer the driver.
    NoDriver,
    /// The job's policy is `stop` and the host cannot contain its jobs.
    NotFenced,
    /// The host is in none of the zones asked for.
    WrongZone,
    /// The host is cordoned.
    Cordoned,
    /// The host is out of contact.
    NotConnected,
    /// Not enough CPU is free.
    CpuShort,
    /// Not enough memory is free.
    MemoryShort,
}

impl Obstacle {
    /// The obstacle in a few words, such as `not enough memory`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownHost => "unknown host",
            Self::NotMember => "not in the cluster",
            Self::Deleting => "being deleted",
            Self::Untrusted => "not trusted",
            Self::Cordoned => "cordoned",
            Self::NoDriver => "driver not offered",
            Self::NotFenced => "cannot contain stop jobs",
            Self::WrongZone => "in another zone",
            Self::NotConnected => "out of contact",
            Self::CpuShort => "not enough cpu",
            Self::MemoryShort => "not enough memory",
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the job `key` with `workload` may be placed on `host`, of which `usage` is reserved by
/// others. The caller leaves the job's own reservation out of `usage`.
///
/// # Errors
/// The first [`Obstacle`], in the order of its variants.
pub fn feasible(
    state: &State,
    key: &JobKey,
    workload: &Workload,
    host: &Name,
    usage: Resources,
) -> Result<(), Obstacle> {
    able(state, key, workload, host)?;
    let Some(row) = state.host(&key.tenant, host) else { return Err(Obstacle::UnknownHost) };
    if row.cordoned {
        return Err(Obstacle::Cordoned);
    }
    if !matches!(row.contact, Contact::Connected { .. }) {
        return Err(Obstacle::NotConnected);
    }
    fits(workload.limits, usage, row.capacity)
}

/// Whether `host` could run the job at all, leaving aside how things stand at the moment (cordon,
/// contact, what others use). What fails here makes a running copy move.
pub(crate) fn able(
    state: &State,
    key: &JobKey,
    workload: &Workload,
    host: &Name,
) -> Result<(), Obstacle> {
    belongs(state, key, host)?;
    let Some(row) = state.host(&key.tenant, host) else { return Err(Obstacle::UnknownHost) };
    if !row.drivers.contains(&workload.driver) {
        return Err(Obstacle::NoDriver);
    }
    if workload.on_disconnect == OnDisconnect::Stop && !row.fenced {
        return Err(Obstacle::NotFenced);
    }
    let in_zone = row.zone.as_ref().is_some_and(|zone| workload.zones.contains(zone));
    if !workload.zones.is_empty() && !in_zone {
        return Err(Obstacle::WrongZone);
    }
    Ok(())
}

/// Whether `host` may hold jobs of the job's cluster.
pub(crate) fn belongs(state: &State, key: &JobKey, host: &Name) -> Result<(), Obstacle> {
    let Some(row) = state.host(&key.tenant, host) else { return Err(Obstacle::UnknownHost) };
    if state.cluster_of(&key.tenant, host) != Some(&key.cluster) {
        return Err(Obstacle::NotMember);
    }
    if row.meta.deletion.is_some() {
        return Err(Obstacle::Deleting);
    }
    match row.state {
        HostState::Untrusted => Err(Obstacle::Untrusted),
        HostState::Registered | HostState::Onboarded => Ok(()),
    }
}

/// Whether `asked` fits beside `usage` into `capacity`.
pub(crate) fn fits(
    asked: Resources,
    usage: Resources,
    capacity: Resources,
) -> Result<(), Obstacle> {
    if usage.cpu_millis.saturating_add(asked.cpu_millis) > capacity.cpu_millis {
        return Err(Obstacle::CpuShort);
    }
    if usage.memory_bytes.saturating_add(asked.memory_bytes) > capacity.memory_bytes {
        return Err(Obstacle::MemoryShort);
    }
    Ok(())
}
