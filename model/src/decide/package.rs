//! Images and packages: immutable content.

use super::{Decided, Decision, check, done};
use crate::{
    Application, Deployment, Digest, Draft, Event, Name, Rejection, Version,
    limits::{APPLICATIONS_MAX, IMAGE_MAX_BYTES},
    rejection::Code,
};

impl Decision<'_> {
    pub(super) fn register_image(
        &mut self,
        tenant: &Name,
        digest: Digest,
        size_bytes: u64,
        application: &Application,
    ) -> Decided {
        self.need_live_tenant(tenant)?;
        let resource = format!("tenants/{tenant}/images/{digest}");
        if self.state.images.contains(&(tenant.clone(), digest)) {
            return done(resource, false);
        }
        check::range(size_bytes, 1, IMAGE_MAX_BYTES, "size_bytes")?;
        check::application(application, "application")?;
        let main = application.artifacts.iter().find(|(role, _)| role.as_str() == "main");
        if main.is_none_or(|(_, main)| *main != digest) {
            return Err(Code::ArtifactMain
                .reject("the artifact main of an image is the image itself")
                .at("application.artifacts"));
        }
        let uid = self.next_uid();
        self.emit(Event::ImageRegistered {
            tenant: tenant.clone(),
            uid,
            digest,
            size_bytes,
            application: Box::new(application.clone()),
        });
        done(resource, true)
    }

    pub(super) fn delete_image(&mut self, tenant: &Name, digest: Digest) -> Decided {
        self.need_tenant(tenant)?;
        if !self.state.images.contains(&(tenant.clone(), digest)) {
            return Err(check::unknown(Code::UnknownImage, "image", digest, "digest"));
        }
        let start = (tenant.clone(), Name::first(), Version::new());
        let packages =
            self.state.packages.range(start..).take_while(|((of, _, _), _)| of == tenant);
        for ((_, package, version), row) in packages {
            let holds = |it: &Application| it.artifacts.values().any(|other| *other == digest);
            if row.applications.iter().any(holds) {
                let by = format!("packages/{package}/versions/{version}");
                return Err(in_use("the image", &by).at("digest"));
            }
        }
        if let Some(key) = self.runs(tenant, digest) {
            return Err(in_use("the image", &format!("jobs/{key}")).at("digest"));
        }
        self.emit(Event::ImageRemoved { tenant: tenant.clone(), digest });
        done(format!("tenants/{tenant}/images/{digest}"), true)
    }

    /// A job of which a copy runs the image, or is told to.
    fn runs(&self, tenant: &Name, digest: Digest) -> Option<String> {
        let start = (tenant.clone(), Name::first());
        let deployments =
            self.state.deployments.range(start..).take_while(|((of, _), _)| of == tenant);
        let mut jobs = deployments.flat_map(|((_, name), _)| self.state.jobs_of(tenant, name));
        let found = jobs.find(|(_, job)| {
            job.workload.image == digest
                || job.placements.iter().any(|it| it.scheduled.workload.image == digest)
        });
        found.map(|(key, _)| key.to_string())
    }

    pub(super) fn apply_package(
        &mut self,
        tenant: &Name,
        draft: &Draft,
        version: &Version,
        applications: &[Application],
    ) -> Decided {
        self.need_live_tenant(tenant)?;
        check::version(version, "version")?;
        let at = (tenant.clone(), draft.name.clone(), version.clone());
        let before = self.state.packages.get(&at).cloned();
        let meta = before.as_ref().map(|row| &row.meta);
        check::envelope(meta, draft, "package")?;
        if before.as_ref().is_some_and(|row| row.applications != applications) {
            return Err(Code::PackageImmutable
                .reject(format!("package {} {version} is stored with other content", draft.name))
                .at("spec.applications"));
        }
        self.check_applications(tenant, applications)?;
        let resource = resource(tenant, &draft.name, version);
        let Some(written) = self.written(meta, draft, false) else {
            return done(resource, false);
        };
        self.emit(Event::PackageStored {
            tenant: tenant.clone(),
            written,
            version: version.clone(),
            applications: applications.to_vec(),
        });
        done(resource, true)
    }

    fn check_applications(
        &self,
        tenant: &Name,
        applications: &[Application],
    ) -> Result<(), Rejection> {
        let field = "spec.applications";
        if applications.is_empty() {
            return Err(Code::Empty.reject("a package has at least one application").at(field));
        }
        if applications.len() > APPLICATIONS_MAX {
            return Err(check::too_many(field, applications.len(), APPLICATIONS_MAX));
        }
        check::distinct(applications, |application| &application.name, field)?;
        for (position, application) in applications.iter().enumerate() {
            let at = format!("{field}[{position}]");
            check::application(application, &at)?;
            for (role, digest) in &application.artifacts {
                if !self.state.images.contains(&(tenant.clone(), *digest)) {
                    let field = format!("{at}.artifacts[{role}]");
                    return Err(check::unknown(Code::UnknownImage, "image", digest, &field));
                }
            }
        }
        Ok(())
    }

    pub(super) fn delete_package(
        &mut self,
        tenant: &Name,
        package: &Name,
        version: &Version,
    ) -> Decided {
        self.need_tenant(tenant)?;
        let at = (tenant.clone(), package.clone(), version.clone());
        if !self.state.packages.contains(&at) {
            let name = format!("{package} {}", check::shown(version));
            return Err(check::unknown(Code::UnknownPackage, "package", name, "package"));
        }
        let start = (tenant.clone(), Name::first());
        let all = self.state.deployments.range(start..).take_while(|((of, _), _)| of == tenant);
        let uses = |row: &Deployment| row.spec.package == *package && row.spec.version == *version;
        let users: Vec<Name> =
            all.filter(|(_, row)| uses(row)).map(|((_, name), _)| name.clone()).take(1).collect();
        if let Some(user) = users.first() {
            return Err(in_use("the package", &format!("deployments/{user}")).at("package"));
        }
        let (tenant, package, version) = at;
        let resource = resource(&tenant, &package, &version);
        self.emit(Event::PackageRemoved { tenant, package, version });
        done(resource, true)
    }
}

fn resource(tenant: &Name, package: &Name, version: &str) -> String {
    format!("tenants/{tenant}/packages/{package}/versions/{version}")
}

fn in_use(what: &str, by: &str) -> Rejection {
    Code::InUse.reject(format!("{what} is used by {by}")).with("by", by)
}
