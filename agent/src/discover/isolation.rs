//! The isolation that jobs get on this host, in words that people and scripts read.

use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroups, Controller, Version};
use crate::driver::{Capability, Containment, DriverKind};

/// Which version of control groups enforces limits: `v1`, `v2` or `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limiters {
    /// Memory.
    pub memory: String,
    /// Processor time.
    pub cpu: String,
    /// Processes.
    pub pids: String,
}

impl Limiters {
    /// What the control groups of this machine enforce.
    pub(super) fn of(cgroups: &Cgroups) -> Self {
        let version = |controller| match cgroups.version(controller) {
            Some(Version::V1) => "v1".to_owned(),
            Some(Version::V2) => "v2".to_owned(),
            None => "none".to_owned(),
        };
        Self {
            memory: version(Controller::Memory),
            cpu: version(Controller::Cpu),
            pids: version(Controller::Pids),
        }
    }
}

/// What holds a job of a driver together and who enforces each of its limits, as words; then why
/// what is missing is missing.
pub(super) fn words(driver: &Capability, cgroups: &Limiters) -> String {
    let (given, sandbox) = (&driver.isolation, driver.kind == DriverKind::Wasm);
    let limit = |limited: bool, sandboxed: bool, version: &str| match (limited, sandboxed) {
        (false, _) => "none".to_owned(),
        (true, true) => "sandbox".to_owned(),
        (true, false) => format!("cgroup-{version}"),
    };
    let containment = match given.containment {
        Containment::ProcessGroup => "process-group",
        Containment::PidNamespace => "pid-namespace",
        Containment::Sandbox => "sandbox",
    };
    let mut text = format!(
        "containment={containment} memory={} cpu={} pids={}",
        limit(given.memory_limited, sandbox, &cgroups.memory),
        limit(given.cpu_limited, false, &cgroups.cpu),
        limit(given.pids_limited, sandbox, &cgroups.pids),
    );
    for shortfall in &given.shortfalls {
        text.push_str("; ");
        text.push_str(shortfall);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::Facts;
    use crate::driver::Isolation;

    #[test]
    fn a_limit_that_nobody_enforces_is_told() {
        let isolation = Isolation {
            containment: Containment::PidNamespace,
            cpu_limited: true,
            shortfalls: vec!["the memory limit is not enforced: no such controller".to_owned()],
            ..Isolation::default()
        };
        let sandboxed = Isolation {
            containment: Containment::Sandbox,
            memory_limited: true,
            pids_limited: true,
            ..Isolation::default()
        };
        let capability = |kind, isolation| Capability { kind, isolation, stop_jobs: true };
        let drivers =
            vec![capability(DriverKind::Exec, isolation), capability(DriverKind::Wasm, sandboxed)];
        let mut facts = Facts { drivers, ..Facts::default() };
        facts.cgroups = Limiters { memory: "none".into(), cpu: "v1".into(), pids: "v1".into() };
        let told: Vec<_> = facts
            .components()
            .into_iter()
            .map(|(id, text)| format!("{} {id}: {text}", id.kind()))
            .collect();
        assert_eq!(
            told,
            [
                "isolation exec: containment=pid-namespace memory=none cpu=cgroup-v1 pids=none; \
                 the memory limit is not enforced: no such controller",
                "isolation wasm: containment=sandbox memory=sandbox cpu=none pids=sandbox",
            ]
        );
        // It reaches control with the rest of the profile.
        let profile = crate::here::profile_of(&facts, crate::Capacity::default());
        let kinds: Vec<_> = profile.facts.components.iter().map(|c| c.kind.as_str()).collect();
        assert_eq!(kinds, ["isolation", "isolation"]);
    }
}
