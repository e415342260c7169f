//! Messages to the model and back: total one way, strict the other.
//!
//! Every value of the model has a message; a message that misses a field, has a word this version does
//! not know or a name that is none is refused with the field's path and what to write instead. One
//! module per noun; [`row`] and [`from_resource`] take any. [`draft`] and [`command`](mod@command) turn
//! requests into the commands they ask for, [`outcome`] answers them, [`watch`] tells what changed,
//! [`session`] is what agents hear and say.

pub mod access;
pub mod cluster;
pub mod command;
pub mod deployment;
pub mod draft;
mod field;
pub mod host;
pub mod job;
mod meta;
pub mod outcome;
pub mod package;
pub mod rejection;
pub mod session;
pub mod tenant;
pub mod watch;

use crate::v1::{self, resource::Resource};
use model::{Key, Rejection, Row, Timestamp};
use std::sync::Arc;

/// The message of the row at `key`; `None` for rows that are not resources, and where key and row are of
/// different kinds.
pub fn row(key: &Key, row: &Row) -> Option<v1::Resource> {
    let resource = match (key, row) {
        (Key::Tenant(_), Row::Tenant(found)) => Resource::Tenant(tenant::to_proto(found)),
        (Key::Host(tenant, _), Row::Host(found)) => Resource::Host(host::to_proto(tenant, found)),
        (Key::Cluster(tenant, _), Row::Cluster(found)) => {
            Resource::Cluster(cluster::to_proto(tenant, found))
        }
        (Key::Image(tenant, _), Row::Image(found)) => {
            Resource::Image(package::image_to_proto(tenant, found))
        }
        (Key::Package(tenant, ..), Row::Package(found)) => {
            Resource::Package(package::to_proto(tenant, found))
        }
        (Key::Deployment(tenant, _), Row::Deployment(found)) => {
            Resource::Deployment(deployment::to_proto(tenant, found))
        }
        (Key::DeploymentCluster(tenant, name, cluster), Row::DeploymentCluster(found)) => {
            Resource::DeploymentCluster(deployment::part_to_proto(tenant, name, cluster, found))
        }
        (Key::Job(key), Row::Job(found)) => Resource::Job(job::to_proto(key, found)),
        (Key::Binding(..), Row::Binding(found)) => {
            Resource::RoleBinding(access::binding_to_proto(found))
        }
        (Key::Token(_), Row::Token(found)) => Resource::Token(access::token_to_proto(found)),
        (Key::Node(_), Row::Node(found)) => Resource::ControlNode(access::node_to_proto(found)),
        _ => return None,
    };
    Some(v1::Resource { resource: Some(resource) })
}

/// The key and row of a message. A token's row has no secret hash: messages do not carry it.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn from_resource(resource: v1::Resource) -> Result<(Key, Row), Rejection> {
    Ok(match field::required("resource", resource.resource)? {
        Resource::Tenant(message) => {
            let row = tenant::from_proto(message)?;
            (Key::Tenant(row.meta.name.clone()), Row::Tenant(Arc::new(row)))
        }
        Resource::Host(message) => {
            let (tenant, row) = host::from_proto(message)?;
            (Key::Host(tenant, row.meta.name.clone()), Row::Host(Arc::new(row)))
        }
        Resource::Cluster(message) => {
            let (tenant, row) = cluster::from_proto(message)?;
            (Key::Cluster(tenant, row.meta.name.clone()), Row::Cluster(Arc::new(row)))
        }
        Resource::Image(message) => {
            let (tenant, row) = package::image_from_proto(message)?;
            (Key::Image(tenant, row.digest), Row::Image(Arc::new(row)))
        }
        Resource::Package(message) => {
            let (tenant, row) = package::from_proto(message)?;
            let key = Key::Package(tenant, row.meta.name.clone(), row.version.clone());
            (key, Row::Package(Arc::new(row)))
        }
        Resource::Deployment(message) => {
            let (tenant, row) = deployment::from_proto(message)?;
            (Key::Deployment(tenant, row.meta.name.clone()), Row::Deployment(Arc::new(row)))
        }
        Resource::DeploymentCluster(message) => {
            let ((tenant, name, cluster), row) = deployment::part_from_proto(message)?;
            (Key::DeploymentCluster(tenant, name, cluster), Row::DeploymentCluster(Arc::new(row)))
        }
        Resource::Job(message) => {
            let (key, row) = job::from_proto(message)?;
            (Key::Job(key), Row::Job(Arc::new(row)))
        }
        Resource::RoleBinding(message) => {
            let row = access::binding_from_proto(message)?;
            (Key::Binding(row.meta.name.clone(), row.scope.clone()), Row::Binding(Arc::new(row)))
        }
        Resource::Token(message) => {
            let row = access::token_from_proto(message)?;
            (Key::Token(row.meta.name.clone()), Row::Token(Arc::new(row)))
        }
        Resource::ControlNode(message) => {
            let row = access::node_from_proto(message)?;
            (Key::Node(row.id), Row::Node(Arc::new(row)))
        }
    })
}

/// A moment as messages say it.
pub fn time_to_proto(moment: Timestamp) -> Option<prost_types::Timestamp> {
    Some(field::time(moment))
}

/// The moment in `field` of a message; `None` if it is unset.
///
/// # Errors
/// `FIELD` when it is not in whole milliseconds from 1970 to 9999.
pub fn time_from_proto(
    field: &str,
    value: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, Rejection> {
    field::read_optional_time(field, value)
}

#[cfg(test)]
#[path = "convert/tests.rs"]
mod tests;
