//! Control groups, version 2 or version 1: limits on a job's processes, and whether they hit one.
//!
//! Each controller is taken from the unified hierarchy where that offers it and from its own
//! version 1 hierarchy otherwise, so hybrid machines work too. Whatever the kernel or our rights
//! refuse is said in a shortfall; a limit is never silently not enforced.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guard::spec::Limits;
use crate::guard::state::Isolation;

/// What a control group can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Memory, and with it the count of kills for want of it.
    Memory,
    /// Processor time.
    Cpu,
    /// Number of processes and threads.
    Pids,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }
}

/// The version of a controller's hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy of its own.
    V1,
    /// The unified hierarchy.
    V2,
}

/// Where each controller of this host is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    roots: BTreeMap<Controller, (Version, PathBuf)>,
}

impl Cgroups {
    /// Looks at this host's mounts.
    pub fn detect() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::from_mounts(&mounts, |root| {
            fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        })
    }

    /// The same from the text of `/proc/self/mounts`; `offered` reads a unified hierarchy's
    /// `cgroup.controllers`.
    pub fn from_mounts(mounts: &str, offered: impl Fn(&Path) -> String) -> Self {
        let mut roots = BTreeMap::new();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(path), Some(kind), Some(options)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let path = PathBuf::from(path);
            for controller in Controller::ALL {
                let here = match kind {
                    "cgroup2" => offered(&path).split_whitespace().any(|c| c == controller.name()),
                    "cgroup" => options.split(',').any(|option| option == controller.name()),
                    _ => false,
                };
                let version = if kind == "cgroup2" { Version::V2 } else { Version::V1 };
                if here && (version == Version::V2 || !roots.contains_key(&controller)) {
                    roots.insert(controller, (version, path.clone()));
                }
            }
        }
        Self { roots }
    }

    /// Which version holds a controller, if any does.
    pub fn version(&self, controller: Controller) -> Option<Version> {
        self.roots.get(&controller).map(|(version, _)| *version)
    }

    /// Makes the group of one job below `parent` with its limits. `isolation` is told which
    /// limits are enforced, and which wanted ones are not. A group left by an earlier run of the
    /// same job is emptied and made anew, because its counters are not this run's.
    pub fn create(
        &self,
        parent: &str,
        name: &str,
        limits: &Limits,
        isolation: &mut Isolation,
    ) -> JobCgroup {
        self.remove(parent, name);
        let mut group = JobCgroup::default();
        for controller in Controller::ALL {
            let wanted = match controller {
                Controller::Memory => limits.memory_bytes.is_some(),
                Controller::Cpu => limits.cpu_millis.is_some(),
                Controller::Pids => limits.pids_max.is_some(),
            };
            if !wanted {
                continue;
            }
            let made = match self.roots.get(&controller) {
                None => Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "this kernel offers no such controller",
                )),
                Some((version, root)) => make(*version, root, parent, name).and_then(|dir| {
                    limit(controller, *version, &dir, limits).map(|()| (*version, dir))
                }),
            };
            match made {
                Ok((version, dir)) => {
                    match controller {
                        Controller::Memory => {
                            group.memory = Some((version, dir.clone()));
                            isolation.memory_limited = true;
                        }
                        Controller::Cpu => isolation.cpu_limited = true,
                        Controller::Pids => isolation.pids_limited = true,
                    }
                    if !group.dirs.contains(&dir) {
                        group.home.extend(self.home(controller));
                        group.dirs.push(dir);
                    }
                }
                Err(error) => isolation
                    .shortfalls
                    .push(format!("the {} limit is not enforced: {error}", controller.name())),
            }
        }
        group
    }

    /// The `cgroup.procs` file of the group this process is in, in a controller's hierarchy.
    fn home(&self, controller: Controller) -> Option<PathBuf> {
        let (version, root) = self.roots.get(&controller)?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = own_path(&own, (*version == Version::V1).then(|| controller.name()))?;
        Some(root.join(path.trim_start_matches('/')).join("cgroup.procs"))
    }

    /// Whether no process is left in a job's group, or there is no such group.
    pub fn is_empty(&self, parent: &str, name: &str) -> bool {
        self.roots.values().all(|(_, root)| {
            let procs = root.join(parent).join(name).join("cgroup.procs");
            pids(&fs::read_to_string(procs).unwrap_or_default()).is_empty()
        })
    }

    /// Kills what is left in a job's group and removes it; one that is not there is no matter.
    pub fn remove(&self, parent: &str, name: &str) {
        let dirs = self.roots.values().map(|(_, root)| root.join(parent).join(name)).collect();
        JobCgroup { dirs, ..JobCgroup::default() }.remove();
    }
}

/// The parent of all jobs goes with the last of them, perhaps just before its next.
const MAKE_ATTEMPTS_MAX: usize = 10;

fn make(version: Version, root: &Path, parent: &str, name: &str) -> io::Result<PathBuf> {
    let above = root.join(parent);
    let mut attempt = 1;
    loop {
        match make_once(version, root, &above, name) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && attempt < MAKE_ATTEMPTS_MAX =>
            {
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

fn make_once(version: Version, root: &Path, above: &Path, name: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(above)?;
    if version == Version::V2 {
        for dir in [root, above] {
            let offered = fs::read_to_string(dir.join("cgroup.controllers"))?;
            for controller in Controller::ALL.map(Controller::name) {
                if offered.split_whitespace().any(|c| c == controller) {
                    fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))?;
                }
            }
        }
    }
    let dir = above.join(name);
    match fs::create_dir(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(dir),
    }
}

const CPU_PERIOD_US: u64 = 100_000;

fn limit(controller: Controller, version: Version, dir: &Path, limits: &Limits) -> io::Result<()> {
    let memory = limits.memory_bytes.unwrap_or(u64::MAX);
    // The kernel refuses quotas below a millisecond.
    let quota = (u64::from(limits.cpu_millis.unwrap_or(0)) * CPU_PERIOD_US / 1_000).max(1_000);
    match (controller, version) {
        (Controller::Memory, Version::V2) => {
            fs::write(dir.join("memory.max"), memory.to_string())?;
            // Kernels without swap accounting lack the file, and then there is no swap to bound.
            drop(fs::write(dir.join("memory.swap.max"), "0"));
            fs::write(dir.join("memory.oom.group"), "1")
        }
        (Controller::Memory, Version::V1) => {
            fs::write(dir.join("memory.limit_in_bytes"), memory.to_string())?;
            drop(fs::write(dir.join("memory.memsw.limit_in_bytes"), memory.to_string()));
            Ok(())
        }
        (Controller::Cpu, Version::V2) => {
            fs::write(dir.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))
        }
        (Controller::Cpu, Version::V1) => {
            fs::write(dir.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
            fs::write(dir.join("cpu.cfs_quota_us"), quota.to_string())
        }
        (Controller::Pids, Version::V1 | Version::V2) => {
            fs::write(dir.join("pids.max"), limits.pids_max.unwrap_or(u32::MAX).to_string())
        }
    }
}

/// The control group of one job: a directory for each hierarchy that limits it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobCgroup {
    dirs: Vec<PathBuf>,
    /// The `cgroup.procs` of where this process is now, in the same hierarchies.
    home: Vec<PathBuf>,
    memory: Option<(Version, PathBuf)>,
}

impl JobCgroup {
    /// The files into which a process writes its id to join the group.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// The files into which a process writes itself to get back to where it came from.
    pub fn home_files(&self) -> Vec<PathBuf> {
        self.home.clone()
    }

    /// How many of the job's processes were killed for being over the memory limit.
    pub fn oom_kills(&self) -> u64 {
        let Some((version, dir)) = &self.memory else { return 0 };
        let file = match version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        oom_kills(&fs::read_to_string(dir.join(file)).unwrap_or_default())
    }

    /// Kills every process in the group. Processes that appear meanwhile are found by the next
    /// round; the number of rounds is bounded.
    pub fn kill(&self) {
        for dir in &self.dirs {
            if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
                continue;
            }
            for _ in 0..KILL_ROUNDS_MAX {
                let pids = pids(&fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default());
                if pids.is_empty() {
                    break;
                }
                for pid in pids {
                    // It may be gone already.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
    }

    /// Removes the group if nothing is in it, and its parent if it was the last.
    pub fn remove_empty(&self) {
        for dir in &self.dirs {
            drop(fs::remove_dir(dir));
            if let Some(parent) = dir.parent() {
                drop(fs::remove_dir(parent));
            }
        }
    }

    /// Kills what is left and removes the group, and its parent if it was the last.
    pub fn remove(&self) {
        for dir in &self.dirs {
            for _ in 0..KILL_ROUNDS_MAX {
                match fs::remove_dir(dir) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => self.kill(),
                    Ok(()) | Err(_) => break,
                }
            }
        }
        self.remove_empty();
    }
}

const KILL_ROUNDS_MAX: usize = 1_000;

/// The count in the text of `memory.events` or `memory.oom_control`.
fn oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// The path in the text of `/proc/self/cgroup`, of a version 1 controller or of the unified one.
fn own_path<'a>(text: &'a str, controller: Option<&str>) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let names = fields.next()?;
        let here = match controller {
            None => names.is_empty(),
            Some(controller) => names.split(',').any(|name| name == controller),
        };
        if here { fields.next() } else { None }
    })
}

fn pids(text: &str) -> Vec<i32> {
    text.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";

    #[test]
    fn a_hybrid_host_gives_each_controller_where_it_is() {
        let cgroups = Cgroups::from_mounts(HYBRID, |_| "hugetlb pids".to_owned());
        assert_eq!(cgroups.version(Controller::Memory), Some(Version::V1));
        assert_eq!(cgroups.version(Controller::Cpu), Some(Version::V1));
        assert_eq!(cgroups.version(Controller::Pids), Some(Version::V2));
        let unified = Cgroups::from_mounts(HYBRID, |_| "cpu memory pids".to_owned());
        assert_eq!(unified.version(Controller::Memory), Some(Version::V2));
    }

    #[test]
    fn a_unified_group_gets_its_limits_and_its_parents_delegate_them() {
        let root = tempfile::tempdir().unwrap();
        let controllers = "cpu memory pids";
        for dir in [root.path().to_owned(), root.path().join("muster")] {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("cgroup.controllers"), controllers).unwrap();
        }
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", root.path().display());
        let cgroups = Cgroups::from_mounts(&mounts, |_| controllers.to_owned());
        let limits =
            Limits { memory_bytes: Some(1 << 20), cpu_millis: Some(250), pids_max: Some(16) };
        let mut isolation = Isolation::default();
        let group = cgroups.create("muster", "job", &limits, &mut isolation);
        assert!(isolation.shortfalls.is_empty(), "{isolation:?}");
        let read =
            |name: &str| fs::read_to_string(root.path().join("muster/job").join(name)).unwrap();
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("cpu.max"), "25000 100000");
        assert_eq!(read("pids.max"), "16");
        assert_eq!(group.procs_files(), [root.path().join("muster/job/cgroup.procs")]);
        fs::write(root.path().join("muster/job/memory.events"), "oom 4\noom_kill 3\n").unwrap();
        assert_eq!(group.oom_kills(), 3);
    }

    #[test]
    fn a_limit_that_cannot_be_enforced_is_said() {
        let limits = Limits { memory_bytes: Some(1), ..Limits::default() };
        let mut isolation = Isolation::default();
        Cgroups::default().create("muster", "job", &limits, &mut isolation);
        assert!(!isolation.memory_limited);
        assert_eq!(isolation.shortfalls.len(), 1, "{isolation:?}");
    }

    #[test]
    fn a_process_knows_the_way_back() {
        let text = "4:memory:/a/b\n2:cpu,cpuacct:/c\n0::/d\n";
        assert_eq!(own_path(text, Some("memory")), Some("/a/b"));
        assert_eq!(own_path(text, Some("cpuacct")), Some("/c"));
        assert_eq!(own_path(text, None), Some("/d"));
        assert_eq!(own_path(text, Some("pids")), None);
    }

    #[test]
    fn kills_for_memory_are_read_from_either_version() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 1\n"), 1);
        assert_eq!(oom_kills(""), 0);
    }
}
