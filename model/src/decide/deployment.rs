//! Deployments: what is wanted where.

use super::{Decided, Decision, check, done};
use crate::{
    Deployment, DeploymentSpec, Draft, Event, Key, Name, Package, Rejection, Targets,
    limits::{JOBS_MAX, OVERRIDES_MAX, SELECTOR_MAX, TARGETS_MAX},
    rejection::Code,
};

type Checked = Result<(), Rejection>;

impl Decision<'_> {
    pub(super) fn apply_deployment(
        &mut self,
        tenant: &Name,
        draft: &Draft,
        spec: &DeploymentSpec,
    ) -> Decided {
        self.need_live_tenant(tenant)?;
        let name = &draft.name;
        let before: Option<Deployment> = self.state.deployment(tenant, name).cloned();
        let meta = before.as_ref().map(|row| &row.meta);
        check::envelope(meta, draft, "deployment")?;
        let package = self.check_package(tenant, spec)?;
        check_overrides(spec, &package)?;
        self.check_targets(tenant, &spec.targets)?;
        check::range(
            u64::from(spec.strategy.max_unavailable),
            1,
            u64::from(u32::MAX),
            "spec.strategy.max_unavailable",
        )?;
        let numbers = numbers(spec, &package);
        self.check_frozen(tenant, name, &numbers)?;
        let resource = resource(tenant, name);
        let respecified = before.as_ref().is_some_and(|row| row.spec != *spec);
        let Some(written) = self.written(meta, draft, respecified) else {
            return done(resource, false);
        };
        let spec = Box::new(spec.clone());
        self.emit(Event::DeploymentApplied { tenant: tenant.clone(), written, spec });
        self.retarget_deployment(tenant, name);
        self.check_size(tenant, name, &numbers)?;
        done(resource, true)
    }

    fn check_package(&self, tenant: &Name, spec: &DeploymentSpec) -> Result<Package, Rejection> {
        let at = (tenant.clone(), spec.package.clone(), spec.version.clone());
        let Some(package) = self.state.packages.get(&at) else {
            let name = format!("{} {}", spec.package, check::shown(&spec.version));
            return Err(check::unknown(Code::UnknownPackage, "package", name, "spec.package"));
        };
        if let Some(profile) = &spec.profile {
            return Err(check::unknown(Code::UnknownProfile, "profile", profile, "spec.profile"));
        }
        Ok(package.clone())
    }

    fn check_targets(&self, tenant: &Name, targets: &Targets) -> Checked {
        match targets {
            Targets::Clusters(names) => {
                let field = "spec.targets.clusters";
                if names.is_empty() {
                    return Err(Code::Empty.reject("no cluster is named").at(field));
                }
                if names.len() > TARGETS_MAX {
                    return Err(check::too_many(field, names.len(), TARGETS_MAX));
                }
                for (position, name) in names.iter().enumerate() {
                    let field = format!("{field}[{position}]");
                    let Some(row) = self.state.cluster(tenant, name) else {
                        let code = Code::UnknownCluster;
                        return Err(check::unknown(code, "cluster", name, &field));
                    };
                    check::need_live(Some(&row.meta), &format!("cluster {name}"))
                        .map_err(|it| it.at(field))?;
                }
                Ok(())
            }
            Targets::Selector(pairs) => {
                let field = "spec.targets.selector";
                if pairs.is_empty() || pairs.len() > SELECTOR_MAX {
                    return Err(Code::UnsuitableSelector
                        .reject(format!("a selector has 1 to {SELECTOR_MAX} pairs"))
                        .at(field));
                }
                check::labels(pairs, field, SELECTOR_MAX)
            }
        }
    }

    /// The number of partitions of an application stays as first deployed, cluster by cluster.
    fn check_frozen(&self, tenant: &Name, deployment: &Name, numbers: &[(Name, u32)]) -> Checked {
        for ((_, _, cluster), part) in self.state.parts_of(tenant, deployment) {
            for (application, now) in numbers {
                let Some(was) = part.num_partitions.get(application).filter(|was| *was != now)
                else {
                    continue;
                };
                return Err(Code::PartitionsChanged
                    .reject(format!(
                        "application {application} has {was} partitions on cluster {cluster}, \
                         which cannot become {now}"
                    ))
                    .at("spec.package")
                    .with("application", application)
                    .with("cluster", cluster)
                    .with("was", was)
                    .with("now", now));
            }
        }
        Ok(())
    }

    fn check_size(&self, tenant: &Name, deployment: &Name, numbers: &[(Name, u32)]) -> Checked {
        let clusters = self.state.parts_of(tenant, deployment).filter(|(_, part)| part.targeted);
        let each: u64 = numbers.iter().map(|(_, number)| u64::from(*number)).sum();
        let jobs = each.saturating_mul(clusters.count() as u64);
        match jobs > JOBS_MAX {
            true => Err(Code::TooLarge
                .reject(format!("{jobs} jobs are more than {JOBS_MAX}"))
                .at("spec.targets")
                .with("max", JOBS_MAX)),
            false => Ok(()),
        }
    }

    pub(super) fn delete_deployment(
        &mut self,
        tenant: &Name,
        deployment: &Name,
        force: bool,
    ) -> Decided {
        self.need_tenant(tenant)?;
        if self.state.deployment(tenant, deployment).is_none() {
            let code = Code::UnknownDeployment;
            return Err(check::unknown(code, "deployment", deployment, "deployment"));
        }
        let key = Key::Deployment(tenant.clone(), deployment.clone());
        let changed = self.request_deletion(key, force);
        done(resource(tenant, deployment), changed)
    }
}

fn resource(tenant: &Name, deployment: &Name) -> String {
    format!("tenants/{tenant}/deployments/{deployment}")
}

/// Number of partitions by application, as this spec has it.
fn numbers(spec: &DeploymentSpec, package: &Package) -> Vec<(Name, u32)> {
    let number = |it: &crate::Application| {
        let changed = spec.overrides.get(&it.name).and_then(|changes| changes.num_partitions);
        (it.name.clone(), changed.unwrap_or(it.num_partitions))
    };
    package.applications.iter().map(number).collect()
}

fn check_overrides(spec: &DeploymentSpec, package: &Package) -> Checked {
    let field = "spec.overrides";
    if spec.overrides.len() > OVERRIDES_MAX {
        return Err(check::too_many(field, spec.overrides.len(), OVERRIDES_MAX));
    }
    for (name, changes) in &spec.overrides {
        let at = format!("{field}[{name}]");
        if !package.applications.iter().any(|it| it.name == *name) {
            return Err(check::unknown(Code::UnknownApplication, "application", name, &at));
        }
        check::env(&changes.env, &format!("{at}.env"))?;
        if let Some(number) = changes.num_partitions {
            check::partitions(number, &format!("{at}.num_partitions"))?;
        }
        if let Some(limits) = changes.limits {
            check::resources(limits, &format!("{at}.limits"))?;
        }
    }
    Ok(())
}
