//! The end of a run: faults off, then everything has to come right within a bound, stay as it is, and
//! agree.

use crate::world::World;
use model::{Command, Deletion};

/// How long it may take, in ms: slow retries come every ten minutes and as much as a tenth later.
const BOUND_MS: u64 = 1_500_000;
/// How long nothing may be written then, in ms.
const QUIET_MS: u64 = 40_000;
/// Time between two looks, in ms.
const LOOK_MS: u64 = 1_000;

impl World {
    /// Faults off: all must come right.
    pub(crate) fn heal(&mut self) {
        let began = self.now;
        self.trace.line(began, || "faults are over".to_owned());
        self.healing = true;
        self.network.mend_all();
        for node in 0..self.nodes.len() {
            self.nodes[node].lag_ms = 0;
            let incarnation = self.nodes[node].incarnation;
            self.restart_node(node, incarnation);
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].machine.calm(began);
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.doomed = false;
            }
            self.start_agent(host);
        }
        // Every message still on its way arrives or is lost.
        self.run_until(began + 10_000);
        let mut why = String::new();
        while self.violation.is_none() && self.now < began + BOUND_MS {
            let until = self.now + LOOK_MS;
            self.run_until(until);
            self.sweep_sessions();
            match self.converged() {
                Ok(()) => {
                    self.stats.healed_ms = self.now - began;
                    return self.stay_quiet();
                }
                Err(reason) => why = reason,
            }
            if self.now == began + 60_000 + 10_000 {
                self.force_deletions();
            }
        }
        if self.violation.is_none() {
            self.fail("convergence", format!("after {BOUND_MS} ms without faults: {why}"));
        }
    }

    fn stay_quiet(&mut self) {
        let since = self.log.committed.len();
        self.trace.line(self.now, || "all is as asked".to_owned());
        let until = self.now + QUIET_MS;
        self.run_until(until);
        if self.violation.is_none() {
            self.check_quiet(since);
            self.check_end();
        }
    }

    /// Somebody uses force where a deletion waits for a host that will not come back.
    fn force_deletions(&mut self) {
        if !self.hosts.iter().any(|host| host.dead) {
            return;
        }
        let waits = |deletion: Option<&Deletion>| deletion.is_some_and(|it| !it.force);
        let state = &self.nodes[0].state;
        let mut commands = Vec::new();
        for ((tenant, name), row) in state.deployments.iter() {
            if waits(row.meta.deletion.as_deref()) {
                let (tenant, deployment) = (tenant.clone(), name.clone());
                commands.push(Command::DeleteDeployment { tenant, deployment, force: true });
            }
        }
        for ((tenant, name), row) in state.clusters.iter() {
            if waits(row.meta.deletion.as_deref()) {
                let (tenant, cluster) = (tenant.clone(), name.clone());
                commands.push(Command::DeleteCluster { tenant, cluster, force: true });
            }
        }
        for ((tenant, name), row) in state.hosts.iter() {
            if waits(row.meta.deletion.as_deref()) {
                let (tenant, host) = (tenant.clone(), name.clone());
                commands.push(Command::DeleteHost { tenant, host, force: true });
            }
        }
        for command in commands {
            self.ask(command, true);
        }
    }
}
