//! Tenants.

use super::{Decided, Decision, check, done};
use crate::{Draft, Event, Key, Name, rejection::Code, rules};

impl Decision<'_> {
    pub(super) fn apply_tenant(&mut self, draft: &Draft, display_name: &str) -> Decided {
        let before = self.state.tenants.get(&draft.name).cloned();
        let meta = before.as_ref().map(|row| &row.meta);
        check::envelope(meta, draft, "tenant")?;
        let length = display_name.chars().count();
        let max = rules::display_name_max(self.context.rules);
        if length > max || length == 0 || display_name.chars().any(char::is_control) {
            return Err(Code::DisplayName
                .reject(format!("a display name of {length} characters is refused"))
                .at("display_name")
                .with("max", max));
        }
        let respecified = before.as_ref().is_some_and(|row| row.display_name != display_name);
        let resource = format!("tenants/{}", draft.name);
        let Some(written) = self.written(meta, draft, respecified) else {
            return done(resource, false);
        };
        self.emit(Event::TenantApplied { written, display_name: display_name.into() });
        done(resource, true)
    }

    /// Everything in it is asked to go; the tenant goes last.
    pub(super) fn delete_tenant(&mut self, tenant: &Name) -> Decided {
        self.need_tenant(tenant)?;
        let changed = self.request_deletion(Key::Tenant(tenant.clone()), false);
        let state = &self.state;
        let within = |(of, _): &(Name, Name)| of == tenant;
        let start = (tenant.clone(), Name::first());
        let deployments = state.deployments.range(start.clone()..).map(|(at, _)| at);
        let deployments = deployments.take_while(|at| within(at)).cloned();
        let deployments = deployments.map(|(t, name)| Key::Deployment(t, name));
        let clusters = state.clusters.range(start.clone()..).map(|(at, _)| at);
        let clusters = clusters.take_while(|at| within(at)).cloned();
        let clusters = clusters.map(|(t, name)| Key::Cluster(t, name));
        let hosts = state.hosts.range(start..).map(|(at, _)| at);
        let hosts = hosts.take_while(|at| within(at)).cloned();
        let hosts = hosts.map(|(t, name)| Key::Host(t, name));
        let keys: Vec<Key> = deployments.chain(clusters).chain(hosts).collect();
        for key in keys {
            self.request_deletion(key, false);
        }
        done(format!("tenants/{tenant}"), changed)
    }
}
