//! Hosts: registration, contact, trust, deletion.

use super::{Decided, Decision, check, done};
use crate::{
    Contact, Digest, Draft, Event, Host, HostProfile, HostState, Key, Name, NodeId, OnDisconnect,
    Rejection, Reply,
    limits::{COMPONENTS_MAX, FACT_MAX_BYTES, TEXT_MAX_BYTES},
    rejection::Code,
};

impl Decision<'_> {
    pub(super) fn apply_host(
        &mut self,
        tenant: &Name,
        draft: &Draft,
        site: Option<&Name>,
        zone: Option<&Name>,
    ) -> Decided {
        self.need_live_tenant(tenant)?;
        let before = self.state.host(tenant, &draft.name).cloned();
        let meta = before.as_ref().map(|row| &row.meta);
        check::envelope(meta, draft, "host")?;
        let respecified = before
            .as_ref()
            .is_some_and(|row| row.site.as_ref() != site || row.zone.as_ref() != zone);
        let resource = resource(tenant, &draft.name);
        let Some(written) = self.written(meta, draft, respecified) else {
            return done(resource, false);
        };
        let (site, zone) = (site.cloned(), zone.cloned());
        self.emit(Event::HostApplied { tenant: tenant.clone(), written, site, zone });
        done(resource, true)
    }

    pub(super) fn cordon_host(&mut self, tenant: &Name, host: &Name, cordoned: bool) -> Decided {
        let changed = self.need_host(tenant, host)?.cordoned != cordoned;
        if changed {
            let (tenant, host) = (tenant.clone(), host.clone());
            self.emit(Event::HostCordoned { tenant, host, cordoned });
        }
        done(resource(tenant, host), changed)
    }

    pub(super) fn declare_host_lost(&mut self, tenant: &Name, host: &Name, lost: bool) -> Decided {
        let row = self.need_host(tenant, host)?;
        let changed = row.declared_lost != lost;
        if lost && matches!(row.contact, Contact::Connected { .. }) {
            return Err(Code::HostConnected
                .reject(format!("host {host} is in contact, so it is not lost"))
                .at("host"));
        }
        if changed {
            let (tenant, host) = (tenant.clone(), host.clone());
            self.emit(Event::HostDeclaredLost { tenant, host, lost });
        }
        done(resource(tenant, host), changed)
    }

    pub(super) fn distrust_host(&mut self, tenant: &Name, host: &Name, reason: &str) -> Decided {
        let changed = self.need_host(tenant, host)?.state != HostState::Untrusted;
        if reason.len() > TEXT_MAX_BYTES {
            return Err(check::too_large("reason", reason.len(), TEXT_MAX_BYTES));
        }
        if changed {
            let (tenant, host, reason) = (tenant.clone(), host.clone(), reason.into());
            self.emit(Event::HostDistrusted { tenant, host, reason });
        }
        done(resource(tenant, host), changed)
    }

    pub(super) fn delete_host(&mut self, tenant: &Name, host: &Name, force: bool) -> Decided {
        self.need_host(tenant, host)?;
        let changed = self.request_deletion(Key::Host(tenant.clone(), host.clone()), force);
        done(resource(tenant, host), changed)
    }

    pub(super) fn connect_host(
        &mut self,
        (tenant, host): (&Name, &Name),
        node: NodeId,
        agent_key: Digest,
        profile: &HostProfile,
    ) -> Decided {
        if let Some(tombstone) = self.state.tombstones.get(&(tenant.clone(), host.clone())) {
            return Err(Code::HostDeleted
                .reject(format!("host {host} was deleted while it was out of contact"))
                .at("host")
                .with("assignment", tombstone.assignment));
        }
        let row = self.need_trusted_host(tenant, host)?;
        let known = row.agent_key;
        if known.is_some_and(|known| known != agent_key) {
            return Err(Code::HostReplaced
                .reject(format!("another machine has joined as host {host}"))
                .at("host"));
        }
        let session = row.contact.session() + 1;
        let same = is_known(row, profile);
        check_profile(profile)?;
        if known.is_none() {
            let (tenant, host) = (tenant.clone(), host.clone());
            self.emit(Event::HostEnrolled { tenant, host, agent_key });
        }
        self.emit(Event::HostConnected {
            tenant: tenant.clone(),
            host: host.clone(),
            node,
            session,
            profile: (!same).then(|| Box::new(profile.clone())),
        });
        Ok(Reply::Session(session))
    }

    /// Gives a host's name to the machine with this key, unless another one may still act under it.
    ///
    /// A name passes on when nobody was seen under it, or when contact is lost and whatever the lost
    /// machine ran has surely ended or may run twice: `stop` jobs died with their lease, `replace` jobs
    /// may have several copies, but `keep_running` jobs go on until an operator says otherwise.
    pub(super) fn enrol_host(
        &mut self,
        tenant: &Name,
        host: &Name,
        agent_key: Digest,
    ) -> Result<(), Rejection> {
        let row = self.need_trusted_host(tenant, host)?;
        if row.agent_key == Some(agent_key) {
            return Ok(());
        }
        let held = match row.contact {
            Contact::Never => false,
            Contact::Connected { .. } => true,
            Contact::Lost { .. } => !row.declared_lost && self.keeps_running(tenant, host),
        };
        if held {
            return Err(Code::HostEnrolled
                .reject(format!("another machine is host {host} already"))
                .at("host"));
        }
        let (tenant, host) = (tenant.clone(), host.clone());
        self.emit(Event::HostEnrolled { tenant, host, agent_key });
        Ok(())
    }

    /// Whether a host that lost contact may go on running something that must not run twice.
    fn keeps_running(&self, tenant: &Name, host: &Name) -> bool {
        let placements = self.state.jobs_on(tenant, host).flat_map(|(_, job)| &job.placements);
        placements.filter(|placement| placement.host == *host).any(|placement| {
            placement.scheduled.workload.on_disconnect == OnDisconnect::KeepRunning
        })
    }

    pub(super) fn lose_host(&mut self, tenant: &Name, host: &Name, session: u64) -> Decided {
        let in_force = match self.need_host(tenant, host)?.contact {
            Contact::Connected { session, .. } => session,
            Contact::Lost { session: last, .. } if last == session => {
                return done(resource(tenant, host), false);
            }
            Contact::Lost { session, .. } => session,
            Contact::Never => 0,
        };
        if in_force != session {
            return Err(Code::StaleSession
                .reject(format!("session {session} of host {host} is not in force"))
                .at("session")
                .with("current", in_force));
        }
        self.emit(Event::HostLost { tenant: tenant.clone(), host: host.clone() });
        done(resource(tenant, host), true)
    }

    pub(super) fn report_host(
        &mut self,
        tenant: &Name,
        host: &Name,
        profile: &HostProfile,
    ) -> Decided {
        let same = is_known(self.need_trusted_host(tenant, host)?, profile);
        check_profile(profile)?;
        if !same {
            self.emit(Event::HostReported {
                tenant: tenant.clone(),
                host: host.clone(),
                profile: Box::new(profile.clone()),
            });
        }
        done(resource(tenant, host), !same)
    }

    pub(super) fn need_host(&self, tenant: &Name, host: &Name) -> Result<&Host, Rejection> {
        self.need_tenant(tenant)?;
        let unknown = || check::unknown(Code::UnknownHost, "host", host, "host");
        self.state.host(tenant, host).ok_or_else(unknown)
    }

    /// The host, unless it lost its trust.
    pub(super) fn need_trusted_host(&self, tenant: &Name, host: &Name) -> Result<&Host, Rejection> {
        let row = self.need_host(tenant, host)?;
        match row.state {
            HostState::Registered | HostState::Onboarded => Ok(row),
            HostState::Untrusted => Err(Code::UntrustedHost
                .reject(format!("host {host} is not trusted any more"))
                .at("host")),
        }
    }
}

fn resource(tenant: &Name, host: &Name) -> String {
    format!("tenants/{tenant}/hosts/{host}")
}

/// Whether the profile says nothing new.
fn is_known(row: &Host, profile: &HostProfile) -> bool {
    *row.facts == profile.facts
        && row.capacity == profile.capacity
        && row.drivers == profile.drivers
        && row.fenced == profile.fenced
}

fn check_profile(profile: &HostProfile) -> Result<(), Rejection> {
    check::resources(profile.capacity, "profile.capacity")?;
    let facts = &profile.facts;
    if facts.components.len() > COMPONENTS_MAX {
        let number = facts.components.len();
        return Err(check::too_many("profile.facts.components", number, COMPONENTS_MAX));
    }
    let texts = [
        &facts.arch,
        &facts.os,
        &facts.kernel,
        &facts.cpu_model,
        &facts.hostname,
        &facts.boot_id,
        &facts.agent_version,
    ];
    let parts = facts.components.iter().flat_map(|part| [&part.kind, &part.name, &part.detail]);
    match texts.into_iter().chain(parts).map(String::len).max() {
        Some(longest) if longest > FACT_MAX_BYTES => {
            Err(check::too_large("profile.facts", longest, FACT_MAX_BYTES))
        }
        Some(_) | None => Ok(()),
    }
}
