//! Hosts and what agents say of their machines, to and from the wire.

use super::{
    field::{self, Read, Within},
    meta,
};
use crate::{reason::bad_field, resource, v1};
use model::{
    Component, Contact, Digest, DriverKind, Facts, Host, HostProfile, HostState, Key, Name, NodeId,
    Resources, Revision,
};
use std::collections::BTreeSet;

/// The message of a tenant's host.
pub fn to_proto(tenant: &Name, host: &Host) -> v1::Host {
    let key = Key::Host(tenant.clone(), host.meta.name.clone());
    v1::Host {
        meta: Some(meta::to_proto(&key, &host.meta)),
        site: host.site.as_ref().map(Name::to_string),
        zone: host.zone.as_ref().map(Name::to_string),
        state: match host.state {
            HostState::Registered => v1::HostState::Registered,
            HostState::Onboarded => v1::HostState::Onboarded,
            HostState::Untrusted => v1::HostState::Untrusted,
        }
        .into(),
        cordoned: host.cordoned,
        declared_lost: host.declared_lost,
        contact: Some(contact_to_proto(&host.contact)),
        capacity: Some(resources_to_proto(host.capacity)),
        drivers: drivers_to_proto(&host.drivers),
        fenced: host.fenced,
        facts: Some(facts_to_proto(&host.facts)),
        status: Some(meta::status_to_proto(&host.status)),
        replaceable: host.replaceable,
        capacity_revision: host.capacity_revision.0,
        agent_key: host.agent_key.as_ref().map(Digest::to_string),
    }
}

/// The tenant and host of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn from_proto(host: v1::Host) -> Read<(Name, Host)> {
    let (Key::Host(tenant, _), meta) = meta::from_proto(host.meta)? else {
        return Err(resource::other_kind("meta.resource", v1::Kind::Host));
    };
    let host = Host {
        meta,
        site: field::optional_name("site", host.site.as_deref())?,
        zone: field::optional_name("zone", host.zone.as_deref())?,
        state: match v1::HostState::try_from(host.state) {
            Ok(v1::HostState::Registered) => HostState::Registered,
            Ok(v1::HostState::Onboarded) => HostState::Onboarded,
            Ok(v1::HostState::Untrusted) => HostState::Untrusted,
            Ok(v1::HostState::Unspecified) | Err(_) => {
                return field::unknown_word("state", "REGISTERED, ONBOARDED, UNTRUSTED");
            }
        },
        cordoned: host.cordoned,
        declared_lost: host.declared_lost,
        replaceable: host.replaceable,
        agent_key: host.agent_key.map(|text| field::digest("agent_key", &text)).transpose()?,
        contact: contact_from_proto(host.contact)?,
        capacity: resources_from_proto("capacity", host.capacity)?,
        capacity_revision: Revision(host.capacity_revision),
        drivers: drivers_from_proto(&host.drivers)?,
        fenced: host.fenced,
        facts: Box::new(facts_from_proto(host.facts)?),
        status: meta::status_from_proto(host.status)?,
    };
    Ok((tenant, host))
}

/// The message of what an agent says of its machine.
pub fn profile_to_proto(profile: &HostProfile) -> v1::HostProfile {
    v1::HostProfile {
        facts: Some(facts_to_proto(&profile.facts)),
        capacity: Some(resources_to_proto(profile.capacity)),
        drivers: drivers_to_proto(&profile.drivers),
        fenced: profile.fenced,
    }
}

/// What an agent says of its machine.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn profile_from_proto(profile: v1::HostProfile) -> Read<HostProfile> {
    Ok(HostProfile {
        facts: facts_from_proto(profile.facts)?,
        capacity: resources_from_proto("capacity", profile.capacity)?,
        drivers: drivers_from_proto(&profile.drivers)?,
        fenced: profile.fenced,
    })
}

fn contact_to_proto(contact: &Contact) -> v1::Contact {
    let (state, node, since) = match *contact {
        Contact::Never => (v1::ContactState::Never, None, None),
        Contact::Connected { node, since, session: _ } => {
            (v1::ContactState::Connected, Some(node.0), Some(since))
        }
        Contact::Lost { since, session: _ } => (v1::ContactState::Lost, None, Some(since)),
    };
    v1::Contact {
        state: state.into(),
        node,
        session: contact.session(),
        since: since.map(field::time),
    }
}

fn contact_from_proto(contact: Option<v1::Contact>) -> Read<Contact> {
    let contact = field::required("contact", contact)?;
    read_contact(contact).within("contact")
}

fn read_contact(contact: v1::Contact) -> Read<Contact> {
    let since = field::read_optional_time("since", contact.since)?;
    let session = contact.session;
    match v1::ContactState::try_from(contact.state) {
        Ok(v1::ContactState::Never) => Ok(Contact::Never),
        Ok(v1::ContactState::Connected) => Ok(Contact::Connected {
            node: NodeId(field::required("node", contact.node)?),
            session,
            since: field::required("since", since)?,
        }),
        Ok(v1::ContactState::Lost) => {
            Ok(Contact::Lost { since: field::required("since", since)?, session })
        }
        Ok(v1::ContactState::Unspecified) | Err(_) => {
            field::unknown_word("state", "NEVER, CONNECTED, LOST")
        }
    }
}

pub(crate) fn resources_to_proto(resources: Resources) -> v1::Resources {
    v1::Resources { cpu_millis: resources.cpu_millis, memory_bytes: resources.memory_bytes }
}

pub(crate) fn resources_from_proto(
    field: &str,
    resources: Option<v1::Resources>,
) -> Read<Resources> {
    let resources = field::required(field, resources)?;
    Ok(Resources { cpu_millis: resources.cpu_millis, memory_bytes: resources.memory_bytes })
}

pub(crate) fn driver_to_proto(driver: DriverKind) -> v1::DriverKind {
    match driver {
        DriverKind::Exec => v1::DriverKind::Exec,
        DriverKind::Wasm => v1::DriverKind::Wasm,
    }
}

pub(crate) fn driver_from_proto(field: &str, driver: i32) -> Read<DriverKind> {
    match v1::DriverKind::try_from(driver) {
        Ok(v1::DriverKind::Exec) => Ok(DriverKind::Exec),
        Ok(v1::DriverKind::Wasm) => Ok(DriverKind::Wasm),
        Ok(v1::DriverKind::Unspecified) | Err(_) => field::unknown_word(field, "exec, wasm"),
    }
}

fn drivers_to_proto(drivers: &BTreeSet<DriverKind>) -> Vec<i32> {
    drivers.iter().map(|driver| driver_to_proto(*driver).into()).collect()
}

fn drivers_from_proto(drivers: &[i32]) -> Read<BTreeSet<DriverKind>> {
    let mut set = BTreeSet::new();
    for (at, driver) in drivers.iter().enumerate() {
        let field = format!("drivers[{at}]");
        if !set.insert(driver_from_proto(&field, *driver)?) {
            return Err(bad_field(&field, format!("{field} names one twice"), "name each once"));
        }
    }
    Ok(set)
}

fn facts_to_proto(facts: &Facts) -> v1::Facts {
    let component = |component: &Component| v1::Component {
        kind: component.kind.clone(),
        name: component.name.clone(),
        detail: component.detail.clone(),
    };
    v1::Facts {
        arch: facts.arch.clone(),
        os: facts.os.clone(),
        kernel: facts.kernel.clone(),
        cpu_model: facts.cpu_model.clone(),
        cpu_count: facts.cpu_count,
        memory_bytes: facts.memory_bytes,
        hostname: facts.hostname.clone(),
        boot_id: facts.boot_id.clone(),
        agent_version: facts.agent_version.clone(),
        components: facts.components.iter().map(component).collect(),
    }
}

fn facts_from_proto(facts: Option<v1::Facts>) -> Read<Facts> {
    let facts = field::required("facts", facts)?;
    let component = |component: v1::Component| Component {
        kind: component.kind,
        name: component.name,
        detail: component.detail,
    };
    Ok(Facts {
        arch: facts.arch,
        os: facts.os,
        kernel: facts.kernel,
        cpu_model: facts.cpu_model,
        cpu_count: facts.cpu_count,
        memory_bytes: facts.memory_bytes,
        hostname: facts.hostname,
        boot_id: facts.boot_id,
        agent_version: facts.agent_version,
        components: facts.components.into_iter().map(component).collect(),
    })
}
