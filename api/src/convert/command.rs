//! Requests for changes other than drafts, to the command they ask for.

use super::field::{self, Read};
use crate::{reason::bad_field, resource, v1};
use model::{Command, Key};

/// The command that a `Delete` (or `Revoke`) of the service for `kind` asks for.
///
/// # Errors
/// `FIELD` when the name is malformed or of another kind (a service deletes its own noun only), or when
/// `force` is set for a kind that waits for no host.
pub fn delete(kind: v1::Kind, request: &v1::DeleteRequest) -> Read<Command> {
    let key = resource::parse("resource", &request.resource)?;
    if resource::kind(&key) != kind {
        return Err(resource::other_kind("resource", kind));
    }
    let force = request.force;
    let command = match key {
        Key::Tenant(tenant) => Command::DeleteTenant { tenant },
        Key::Host(tenant, host) => return Ok(Command::DeleteHost { tenant, host, force }),
        Key::Cluster(tenant, cluster) => {
            return Ok(Command::DeleteCluster { tenant, cluster, force });
        }
        Key::Image(tenant, digest) => Command::DeleteImage { tenant, digest },
        Key::Package(tenant, package, version) => {
            Command::DeletePackage { tenant, package, version }
        }
        Key::Deployment(tenant, deployment) => {
            return Ok(Command::DeleteDeployment { tenant, deployment, force });
        }
        Key::Binding(operator, scope) => Command::UnbindRole { operator, scope },
        Key::Token(id) => Command::RevokeToken { id },
        Key::Node(id) => Command::RemoveNode { id },
        Key::DeploymentCluster(..)
        | Key::Job(_)
        | Key::Tombstone(..)
        | Key::Request(_)
        | Key::RemovedNode(_) => {
            let message =
                "resource names a thing that follows from others and is not deleted alone";
            return Err(bad_field("resource", message, "delete the deployment it follows from"));
        }
    };
    match force {
        false => Ok(command),
        true => Err(bad_field(
            "force",
            "force is set for a kind that waits for no host",
            "leave force out",
        )),
    }
}

/// The command that `Hosts.Cordon` asks for.
///
/// # Errors
/// `FIELD` when the name is no host's.
pub fn cordon(request: &v1::CordonHostRequest) -> Read<Command> {
    let (tenant, host) = host(&request.resource)?;
    Ok(Command::CordonHost { tenant, host, cordoned: request.cordoned })
}

/// The command that `Hosts.DeclareLost` asks for.
///
/// # Errors
/// `FIELD` when the name is no host's.
pub fn declare_lost(request: &v1::DeclareHostLostRequest) -> Read<Command> {
    let (tenant, host) = host(&request.resource)?;
    Ok(Command::DeclareHostLost { tenant, host, lost: request.lost })
}

/// The command that `Hosts.Distrust` asks for.
///
/// # Errors
/// `FIELD` when the name is no host's.
pub fn distrust(request: v1::DistrustHostRequest) -> Read<Command> {
    let (tenant, host) = host(&request.resource)?;
    Ok(Command::DistrustHost { tenant, host, reason: request.reason })
}

/// The command that `Deployments.Retry` asks for.
///
/// # Errors
/// `FIELD` when the name is no deployment's, or `cluster` no name.
pub fn retry_deployment(request: &v1::RetryDeploymentRequest) -> Read<Command> {
    let cluster = field::optional_name("cluster", request.cluster.as_deref())?;
    match resource::parse("resource", &request.resource)? {
        Key::Deployment(tenant, deployment) => {
            Ok(Command::RetryDeployment { tenant, deployment, cluster })
        }
        _ => Err(resource::other_kind("resource", v1::Kind::Deployment)),
    }
}

/// The command that `Jobs.Retry` asks for.
///
/// # Errors
/// `FIELD` when the name is no job's.
pub fn retry_job(request: &v1::RetryJobRequest) -> Read<Command> {
    match resource::parse("resource", &request.resource)? {
        Key::Job(key) => Ok(Command::RetryJob { key }),
        _ => Err(resource::other_kind("resource", v1::Kind::Job)),
    }
}

fn host(resource: &str) -> Read<(model::Name, model::Name)> {
    match resource::parse("resource", resource)? {
        Key::Host(tenant, host) => Ok((tenant, host)),
        _ => Err(resource::other_kind("resource", v1::Kind::Host)),
    }
}
