//! Trying again on demand (INF-23): what failed or waits starts anew, as if for the first time.

use super::{Decided, Decision, check, done};
use crate::{
    Event, JobKey, Name, limits::ITEMS_MAX, rejection::Code, rollup::troubled_or_retrying,
    tally::may_be_retried,
};

impl Decision<'_> {
    /// Jobs that no host takes are left out: planners look for a host whenever anything changes.
    pub(super) fn retry_deployment(
        &mut self,
        tenant: &Name,
        deployment: &Name,
        cluster: Option<&Name>,
    ) -> Decided {
        self.need_tenant(tenant)?;
        let Some(row) = self.state.deployment(tenant, deployment) else {
            let code = Code::UnknownDeployment;
            return Err(check::unknown(code, "deployment", deployment, "deployment"));
        };
        check::need_live(Some(&row.meta), &format!("deployment {deployment}"))
            .map_err(|it| it.at("deployment"))?;
        if let Some(cluster) = cluster {
            let at = (tenant.clone(), deployment.clone(), cluster.clone());
            if !self.state.deployment_clusters.contains(&at) {
                return Err(Code::UnknownCluster
                    .reject(format!("deployment {deployment} does not go to cluster {cluster}"))
                    .at("cluster"));
            }
        }
        let keys = troubled_or_retrying(&self.state, tenant, deployment);
        let here = |key: &&JobKey| cluster.is_none_or(|cluster| key.cluster == *cluster);
        let tried = |key: &&JobKey| self.state.jobs.get(key).is_some_and(may_be_retried);
        let keys: Vec<JobKey> = keys.filter(here).filter(tried).take(ITEMS_MAX).cloned().collect();
        let changed = !keys.is_empty();
        for key in keys {
            self.emit(Event::JobRetried { key });
        }
        done(format!("tenants/{tenant}/deployments/{deployment}"), changed)
    }

    pub(super) fn retry_job(&mut self, key: &JobKey) -> Decided {
        self.need_tenant(&key.tenant)?;
        let Some(job) = self.state.jobs.get(key) else {
            return Err(check::unknown(Code::UnknownJob, "job", key, "key"));
        };
        if !job.active {
            return Err(Code::JobInactive.reject(format!("job {key} is not to run")).at("key"));
        }
        let changed = may_be_retried(job);
        if changed {
            self.emit(Event::JobRetried { key: key.clone() });
        }
        done(format!("tenants/{}/jobs/{key}", key.tenant), changed)
    }
}
