//! Resource names: one path per resource, such as `tenants/acme/hosts/h1`, written and read in one
//! place. A name stands for exactly one [`Key`] and the other way round; rows that are not resources
//! (tombstones, remembered answers) have none.

use crate::{reason::bad_field, v1};
use model::{JobKey, Key, Name, NodeId, Rejection, Scope, Slot};

/// Longest resource name read, in bytes: five names of 63 and the words between fit.
pub const RESOURCE_BYTES_MAX: usize = 512;

/// The name of the resource at `key`; `None` for rows that are not resources.
pub fn format(key: &Key) -> Option<String> {
    Some(match key {
        Key::Tenant(tenant) => format!("tenants/{tenant}"),
        Key::Host(tenant, host) => format!("tenants/{tenant}/hosts/{host}"),
        Key::Cluster(tenant, cluster) => format!("tenants/{tenant}/clusters/{cluster}"),
        Key::Image(tenant, digest) => format!("tenants/{tenant}/images/{digest}"),
        Key::Package(tenant, package, version) => {
            format!("tenants/{tenant}/packages/{package}/versions/{version}")
        }
        Key::Deployment(tenant, deployment) => {
            format!("tenants/{tenant}/deployments/{deployment}")
        }
        Key::DeploymentCluster(tenant, deployment, cluster) => {
            format!("tenants/{tenant}/deployments/{deployment}/clusters/{cluster}")
        }
        Key::Job(key) => format!("tenants/{}/jobs/{key}", key.tenant),
        Key::Binding(operator, Scope::Cluster) => format!("bindings/{operator}"),
        Key::Binding(operator, Scope::Tenant(tenant)) => {
            format!("tenants/{tenant}/bindings/{operator}")
        }
        Key::Token(id) => format!("tokens/{id}"),
        Key::Node(id) => format!("nodes/{id}"),
        Key::Tombstone(..) | Key::Request(_) | Key::RemovedNode(_) => return None,
    })
}

/// The key of the resource that `field` of a request names.
///
/// # Errors
/// `FIELD` when the text is no resource name, with the shapes there are.
pub fn parse(field: &str, text: &str) -> Result<Key, Rejection> {
    read(text).ok_or_else(|| {
        bad_field(
            field,
            format!("{field} is not the name of a resource"),
            "write it like tenants/acme/hosts/h1; names have 1 to 63 characters of a-z, 0-9 and '-'",
        )
    })
}

/// The refusal of a name that stands for a resource of another kind than `expected`.
pub fn other_kind(field: &str, expected: v1::Kind) -> Rejection {
    let shape = match expected {
        v1::Kind::Unspecified => "",
        v1::Kind::Tenant => "tenants/{tenant}",
        v1::Kind::Host => "tenants/{tenant}/hosts/{host}",
        v1::Kind::Cluster => "tenants/{tenant}/clusters/{cluster}",
        v1::Kind::Image => "tenants/{tenant}/images/{digest}",
        v1::Kind::Package => "tenants/{tenant}/packages/{package}/versions/{version}",
        v1::Kind::Deployment => "tenants/{tenant}/deployments/{deployment}",
        v1::Kind::DeploymentCluster => {
            "tenants/{tenant}/deployments/{deployment}/clusters/{cluster}"
        }
        v1::Kind::Job => "tenants/{tenant}/jobs/{deployment}/{cluster}/{application}/{slot}",
        v1::Kind::RoleBinding => "bindings/{operator} or tenants/{tenant}/bindings/{operator}",
        v1::Kind::Token => "tokens/{id}",
        v1::Kind::ControlNode => "nodes/{id}",
    };
    let message = format!("{field} names a resource of another kind");
    bad_field(field, message, format!("write it as {shape}"))
}

/// The tenant that a resource name begins with, whatever follows.
pub fn tenant(text: &str) -> Option<Name> {
    let rest = text.strip_prefix("tenants/")?;
    Name::new(rest.split('/').next()?).ok()
}

/// The kind of the resource at `key`; `Unspecified` for rows that are not resources.
pub fn kind(key: &Key) -> v1::Kind {
    match key {
        Key::Tenant(_) => v1::Kind::Tenant,
        Key::Host(..) => v1::Kind::Host,
        Key::Cluster(..) => v1::Kind::Cluster,
        Key::Image(..) => v1::Kind::Image,
        Key::Package(..) => v1::Kind::Package,
        Key::Deployment(..) => v1::Kind::Deployment,
        Key::DeploymentCluster(..) => v1::Kind::DeploymentCluster,
        Key::Job(_) => v1::Kind::Job,
        Key::Binding(..) => v1::Kind::RoleBinding,
        Key::Token(_) => v1::Kind::Token,
        Key::Node(_) => v1::Kind::ControlNode,
        Key::Tombstone(..) | Key::Request(_) | Key::RemovedNode(_) => v1::Kind::Unspecified,
    }
}

/// Checks a version text: 1 to 40 characters of `[a-zA-Z0-9.+-]`, starting with a letter or digit.
pub fn is_version(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'+' | b'-');
    text.len() <= 40
        && text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && text.bytes().all(allowed)
}

fn read(text: &str) -> Option<Key> {
    if text.len() > RESOURCE_BYTES_MAX {
        return None;
    }
    let name = |text: &str| Name::new(text).ok();
    let parts: Vec<&str> = text.split('/').collect();
    Some(match parts[..] {
        ["tenants", tenant] => Key::Tenant(name(tenant)?),
        ["tenants", tenant, "hosts", host] => Key::Host(name(tenant)?, name(host)?),
        ["tenants", tenant, "clusters", cluster] => Key::Cluster(name(tenant)?, name(cluster)?),
        ["tenants", tenant, "images", digest] => Key::Image(name(tenant)?, digest.parse().ok()?),
        ["tenants", tenant, "packages", package, "versions", version] if is_version(version) => {
            Key::Package(name(tenant)?, name(package)?, version.to_owned())
        }
        ["tenants", tenant, "deployments", deployment] => {
            Key::Deployment(name(tenant)?, name(deployment)?)
        }
        ["tenants", tenant, "deployments", deployment, "clusters", cluster] => {
            Key::DeploymentCluster(name(tenant)?, name(deployment)?, name(cluster)?)
        }
        ["tenants", tenant, "jobs", deployment, cluster, application, slot] => Key::Job(JobKey {
            tenant: name(tenant)?,
            deployment: name(deployment)?,
            cluster: name(cluster)?,
            application: name(application)?,
            slot: read_slot(slot)?,
        }),
        ["bindings", operator] => Key::Binding(name(operator)?, Scope::Cluster),
        ["tenants", tenant, "bindings", operator] => {
            Key::Binding(name(operator)?, Scope::Tenant(name(tenant)?))
        }
        ["tokens", id] => Key::Token(name(id)?),
        ["nodes", id] => Key::Node(NodeId(number(id)?)),
        _ => return None,
    })
}

/// The slot that its text form stands for: `3`, `host-h1`, `run-7`.
pub(crate) fn read_slot(text: &str) -> Option<Slot> {
    if let Some(host) = text.strip_prefix("host-") {
        return Some(Slot::Host(Name::new(host).ok()?));
    }
    if let Some(run) = text.strip_prefix("run-") {
        return Some(Slot::Run(number(run)?));
    }
    Some(Slot::Partition(u32::try_from(number(text)?).ok()?))
}

/// A number in the one spelling that `Display` gives it.
pub(crate) fn number(text: &str) -> Option<u64> {
    let value: u64 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}
