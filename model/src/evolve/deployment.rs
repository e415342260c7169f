//! What events do to images, packages, deployments and their parts.

use super::Write;
use crate::{
    Application, Counts, Deployment, DeploymentCluster, DeploymentRevision, DeploymentSpec,
    DeploymentState, Indicator, Meta, Name, Package, Status, Summary, Version, event::Written,
    limits::REVISIONS_MAX,
};
use std::collections::BTreeMap;

impl Write<'_> {
    /// Changes a deployment.
    pub(super) fn change_deployment(
        &mut self,
        tenant: &Name,
        deployment: &Name,
        change: impl FnOnce(&mut Deployment),
    ) {
        let at = (tenant.clone(), deployment.clone());
        let Some(mut row) = self.state.deployments.get(&at).cloned() else { return };
        change(&mut row);
        row.meta.touch(self.context);
        self.state.put_deployment(at, Some(row));
    }

    /// Lets every part of a deployment be summed up anew.
    pub(super) fn doubt_parts(&mut self, tenant: &Name, deployment: &Name) {
        let parts: Vec<_> =
            self.state.parts_of(tenant, deployment).map(|(at, _)| at.clone()).collect();
        self.state.dirty.parts.extend(parts);
    }

    pub(super) fn package_stored(
        &mut self,
        tenant: &Name,
        written: &Written,
        version: &Version,
        applications: &[Application],
    ) {
        let at = (tenant.clone(), written.name.clone(), version.clone());
        let before = self.state.packages.get(&at);
        let row = Package {
            meta: Meta::written(before.map(|row| &row.meta), written, self.context),
            version: version.clone(),
            applications: applications.to_vec(),
        };
        self.state.packages.put(at, row);
    }

    pub(super) fn deployment_applied(
        &mut self,
        tenant: &Name,
        written: &Written,
        spec: &DeploymentSpec,
    ) {
        let at = (tenant.clone(), written.name.clone());
        let before = self.state.deployments.get(&at);
        let meta = Meta::written(before.map(|row| &row.meta), written, self.context);
        let row = match before {
            None => Deployment {
                meta,
                spec: spec.clone(),
                revisions: Vec::new(),
                workload_revision: self.context.revision,
                in_progress: true,
                targetless_since: Some(self.context.time),
                state: DeploymentState::Unknown,
                counts: Counts::default(),
                status: Status::default(),
                conditions: Vec::new(),
            },
            Some(before) => {
                let mut row = before.clone();
                if written.respecified {
                    row.revisions.push(DeploymentRevision {
                        generation: row.meta.generation,
                        at: self.context.time,
                        spec: row.spec,
                    });
                    let excess = row.revisions.len().saturating_sub(REVISIONS_MAX);
                    row.revisions.drain(..excess);
                    row.in_progress = true;
                    // A generation that starts without targets has its grace, too.
                    row.targetless_since = row.targetless_since.map(|_| self.context.time);
                }
                if runs_otherwise(&before.spec, spec) {
                    row.workload_revision = self.context.revision;
                }
                row.meta = meta;
                row.spec = spec.clone();
                row
            }
        };
        self.state.put_deployment(at, Some(row));
        self.doubt_parts(tenant, &written.name);
    }

    pub(super) fn deployment_summarised(
        &mut self,
        tenant: &Name,
        deployment: &Name,
        summary: &Summary,
    ) {
        let now = self.context.time;
        self.change_deployment(tenant, deployment, |row| {
            row.state = summary.state;
            row.counts = summary.counts;
            row.status.sum_up(summary, now);
            if summary.state == DeploymentState::Running {
                row.in_progress = false;
            }
        });
    }

    pub(super) fn part_targeted(
        &mut self,
        at: (Name, Name, Name),
        targeted: bool,
        num_partitions: &BTreeMap<Name, u32>,
    ) {
        let before = self.state.deployment_clusters.get(&at).cloned();
        let appears = targeted && !before.as_ref().is_some_and(|row| row.targeted);
        let mut row = before.unwrap_or_else(|| DeploymentCluster {
            targeted,
            num_partitions: BTreeMap::new(),
            state: DeploymentState::Unknown,
            counts: Counts::default(),
            status: Status { indicator: Indicator::InProgress, ..Status::default() },
        });
        row.targeted = targeted;
        for (application, number) in num_partitions {
            row.num_partitions.entry(application.clone()).or_insert(*number);
        }
        let (tenant, deployment, _) = at.clone();
        self.state.put_part(at, Some(row));
        if appears {
            self.change_deployment(&tenant, &deployment, |row| row.in_progress = true);
            self.doubt_parts(&tenant, &deployment);
        }
    }
}

/// Whether jobs run something else under `after`; targets and strategy change no job.
fn runs_otherwise(before: &DeploymentSpec, after: &DeploymentSpec) -> bool {
    let what = |spec: &DeploymentSpec| {
        (spec.package.clone(), spec.version.clone(), spec.profile.clone(), spec.overrides.clone())
    };
    what(before) != what(after)
}
