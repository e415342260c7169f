//! Native executables under a guard: a namespace with its own init, and limits.
//!
//! Without unsafe code there is neither `fork` nor `pre_exec`, so the guard unshares the PID
//! namespace for its children and starts this very program again as `guard --init`; that becomes
//! PID 1 and starts the modules (see `init`). From then on the guard can have no threads and no
//! other children, which it does not need.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

use crate::cgroup::{Cgroups, JobCgroup};
use crate::guard::GUARD;
use crate::guard::init::{KILL, Plan, Program, TERM};
use crate::guard::spec::{JobSpec, ModuleSpec};
use crate::guard::state::{Containment, Isolation};
use crate::guard::workload::{Launched, Workload};

/// The job's processes, held by their init.
pub(crate) struct ExecJob {
    init: Child,
    orders: UnixStream,
    contained: bool,
    cgroup: JobCgroup,
}

/// Makes this process's next child the first of a PID namespace, and says what came of it.
pub(crate) fn contain(isolation: &mut Isolation) {
    let made = unshare(CloneFlags::CLONE_NEWPID).or_else(|_| {
        let (user, group) = (getuid(), getgid());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID)?;
        // Without the maps the job would run as nobody and could not use its own files.
        let written = fs::write("/proc/self/setgroups", "deny")
            .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
            .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")));
        written.map_err(|_| nix::errno::Errno::EPERM)
    });
    match made {
        Ok(()) => isolation.containment = Containment::PidNamespace,
        Err(error) => isolation.shortfalls.push(format!(
            "a descendant may outlive a killed guard: PID namespaces are refused: {error}"
        )),
    }
}

impl ExecJob {
    /// Starts the job's init, which starts the modules; what comes of it is told as news.
    /// `isolation` already says how the next child is contained.
    pub(crate) fn launch(
        dir: &Path,
        spec: &JobSpec,
        isolation: &mut Isolation,
    ) -> io::Result<Launched> {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let cgroup = Cgroups::detect().create(&spec.cgroup, &name, &spec.limits, isolation);
        let (orders, theirs) = UnixStream::pair()?;
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        let init = Command::new("/proc/self/exe")
            .args([GUARD, "--init"])
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(stdout_end)
            .stderr(stderr_end)
            .spawn()?;
        let plan = Plan {
            join: cgroup.procs_files(),
            leave: cgroup.home_files(),
            programs: spec.modules.iter().map(|module| program(spec, module)).collect(),
        };
        let contained = isolation.containment == Containment::PidNamespace;
        let mut job = Self { init, orders: orders.try_clone()?, contained, cgroup };
        let mut line = serde_json::to_vec(&plan)?;
        line.push(b'\n');
        job.orders.write_all(&line)?;
        Ok(Launched { workload: Box::new(job), news: orders, stdout, stderr })
    }

    fn order(&mut self, order: &str) {
        // An init that is gone took everything along, and its end is news already.
        drop(self.orders.write_all(format!("{order}\n").as_bytes()));
    }
}

fn program(spec: &JobSpec, module: &ModuleSpec) -> Program {
    let mut env = vec![(
        "PATH".to_owned(),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    )];
    env.extend(module.env.iter().cloned());
    if let Some(folder) = &module.static_dir {
        env.push(("MUSTER_STATIC_DIR".to_owned(), folder.display().to_string()));
    }
    env.extend(spec.environment(&spec.data_dir.display().to_string()));
    Program {
        module: module.name.clone(),
        path: module.path.clone(),
        args: module.args.clone(),
        env,
        directory: spec.data_dir.clone(),
    }
}

impl Workload for ExecJob {
    fn ask_to_stop(&mut self) -> bool {
        self.order(TERM);
        true
    }

    fn kill(&mut self) {
        if self.contained {
            // The kernel kills the namespace with its init; it fails only if init is gone.
            drop(self.init.kill());
        } else {
            self.order(KILL);
            self.cgroup.kill();
        }
    }

    fn pids(&self) -> Vec<u32> {
        children(self.init.id())
    }

    fn oom(&self) -> bool {
        self.cgroup.oom_kills() > 0
    }

    fn finish(&mut self) {
        // Returns once the kernel has torn the namespace down: nothing of the job is left then.
        drop(self.init.wait());
        self.cgroup.remove();
    }

    fn dies_with_guard(&self) -> bool {
        false
    }
}

/// The children of a process, over all its threads.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return found };
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(text.split_whitespace().filter_map(|t| t.parse::<u32>().ok())),
            Err(_) => return children_by_search(pid),
        }
    }
    found.sort_unstable();
    found
}

/// The same for kernels without the `children` file: looks at every process's parent.
fn children_by_search(pid: u32) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found: Vec<u32> = all
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|candidate: &u32| {
            let stat = fs::read_to_string(format!("/proc/{candidate}/stat")).unwrap_or_default();
            // The name before the last bracket may contain anything.
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            parent == Some(pid.to_string().as_str())
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_ways_of_finding_children_agree() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let here = std::process::id();
        assert!(super::children(here).contains(&child.id()));
        assert!(super::children_by_search(here).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
