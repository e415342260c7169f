//! One line per event, for the journal's readers.

use super::{Event, Removal, Retirement, Summary, Written};
use crate::{Key, Scope};
use std::fmt;

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.created.is_some(), self.respecified) {
            (true, _) => "created",
            (false, true) => "changed",
            (false, false) => "labelled",
        };
        write!(f, "{} {what}", self.name)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.state.as_str(), self.text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Host(tenant, host) => write!(f, "host {tenant}/{host}"),
            Self::Cluster(tenant, cluster) => write!(f, "cluster {tenant}/{cluster}"),
            Self::Image(tenant, digest) => write!(f, "image {tenant}/{digest}"),
            Self::Package(tenant, package, version) => {
                write!(f, "package {tenant}/{package} {version}")
            }
            Self::Deployment(tenant, deployment) => write!(f, "deployment {tenant}/{deployment}"),
            Self::DeploymentCluster(tenant, deployment, cluster) => {
                write!(f, "deployment {tenant}/{deployment} on {cluster}")
            }
            Self::Job(key) => write!(f, "job {}/{key}", key.tenant),
            Self::Binding(operator, scope) => write!(f, "binding of {operator} {scope}"),
            Self::Token(id) => write!(f, "token {id}"),
            Self::Node(id) => write!(f, "node {id}"),
            Self::Tombstone(tenant, host) => write!(f, "tombstone {tenant}/{host}"),
            Self::Request(id) => write!(f, "request {:032x}", id.unique),
            Self::RemovedNode(id) => write!(f, "removed node {id}"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("everywhere"),
            Self::Tenant(tenant) => write!(f, "in tenant {tenant}"),
        }
    }
}

impl Retirement {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unfit => "it cannot go on there",
            Self::Duplicate => "a newer copy runs",
        }
    }
}

impl Removal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Evicted => "evicted",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Event {
    #[rustfmt::skip]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TenantApplied { written, .. } => write!(f, "tenant {written}"),
            Self::TenantRemoved { tenant } => write!(f, "tenant {tenant} removed"),
            Self::HostApplied { tenant, written, .. } => write!(f, "host {tenant}/{written}"),
            Self::HostCordoned { tenant, host, cordoned: true } => write!(f, "host {tenant}/{host} cordoned"),
            Self::HostCordoned { tenant, host, cordoned: false } => write!(f, "host {tenant}/{host} not cordoned any more"),
            Self::HostDeclaredLost { tenant, host, lost: true } => write!(f, "host {tenant}/{host} declared lost"),
            Self::HostDeclaredLost { tenant, host, lost: false } => write!(f, "host {tenant}/{host} not declared lost any more"),
            Self::HostDistrusted { tenant, host, reason } => write!(f, "host {tenant}/{host} distrusted: {reason}"),
            Self::HostConnected { tenant, host, node, session, profile } => {
                let news = if profile.is_some() { ", new profile" } else { "" };
                write!(f, "host {tenant}/{host} connected to node {node}, session {session}{news}")
            }
            Self::HostEnrolled { tenant, host, agent_key } => write!(f, "host {tenant}/{host} is the machine with key {}", agent_key.short()),
            Self::HostLost { tenant, host } => write!(f, "host {tenant}/{host} lost"),
            Self::HostReported { tenant, host, .. } => write!(f, "host {tenant}/{host} reported a new profile"),
            Self::HostGraceEnded { tenant, host } => write!(f, "host {tenant}/{host} stayed away for the grace"),
            Self::HostRemoved { tenant, host, tombstone: Some(at) } => write!(f, "host {tenant}/{host} removed, tombstone {at}"),
            Self::HostRemoved { tenant, host, tombstone: None } => write!(f, "host {tenant}/{host} removed"),
            Self::ClusterApplied { tenant, written, .. } => write!(f, "cluster {tenant}/{written}"),
            Self::ClusterRemoved { tenant, cluster } => write!(f, "cluster {tenant}/{cluster} removed"),
            Self::ImageRegistered { tenant, application, .. } => write!(f, "image of {tenant}/{} registered", application.name),
            Self::ImageRemoved { tenant, digest } => write!(f, "image {tenant}/{} removed", &digest.to_string()[..15]),
            Self::PackageStored { tenant, written, version, .. } => write!(f, "package {tenant}/{written}, version {version}"),
            Self::PackageRemoved { tenant, package, version } => write!(f, "package {tenant}/{package} {version} removed"),
            Self::DeploymentApplied { tenant, written, .. } => write!(f, "deployment {tenant}/{written}"),
            Self::DeploymentGraceEnded { tenant, deployment } => write!(f, "deployment {tenant}/{deployment} had no target for the grace"),
            Self::DeploymentSummarised { tenant, deployment, summary } => write!(f, "deployment {tenant}/{deployment} is {summary}"),
            Self::DeploymentTargetless { tenant, deployment, targetless: true } => write!(f, "deployment {tenant}/{deployment} has no target"),
            Self::DeploymentTargetless { tenant, deployment, targetless: false } => write!(f, "deployment {tenant}/{deployment} has targets"),
            Self::DeploymentRemoved { tenant, deployment } => write!(f, "deployment {tenant}/{deployment} removed"),
            Self::PartTargeted { tenant, deployment, cluster, targeted: true, .. } => write!(f, "deployment {tenant}/{deployment} goes to {cluster}"),
            Self::PartTargeted { tenant, deployment, cluster, targeted: false, .. } => write!(f, "deployment {tenant}/{deployment} leaves {cluster}"),
            Self::PartSummarised { tenant, deployment, cluster, summary } => write!(f, "deployment {tenant}/{deployment} on {cluster} is {summary}"),
            Self::PartRemoved { tenant, deployment, cluster } => write!(f, "deployment {tenant}/{deployment} is gone from {cluster}"),
            Self::DeletionRequested { key, force: true } => write!(f, "deletion of {key} requested by force"),
            Self::DeletionRequested { key, force: false } => write!(f, "deletion of {key} requested"),
            Self::DeletionWaits { key, waiting_on } => write!(f, "deletion of {key} waits for {}", waiting_on.join(", ")),
            Self::JobCreated { key, .. } => write!(f, "job {key} created"),
            Self::JobUpdated { key, revived: None } => write!(f, "job {key} updated"),
            Self::JobUpdated { key, revived: Some(assignment) } => write!(f, "job {key} updated, copy {assignment} revived"),
            Self::JobRetired { key } => write!(f, "job {key} retired"),
            Self::PlacementRetired { key, assignment, why } => write!(f, "job {key} copy {assignment} retired: {}", why.as_str()),
            Self::PlacementRemoved { key, assignment, why } => write!(f, "job {key} copy {assignment} {}", why.as_str()),
            Self::JobRemoved { key } => write!(f, "job {key} removed"),
            Self::JobAssigned { key, host } => write!(f, "job {key} assigned to {host}"),
            Self::JobExplained { key, text } => write!(f, "job {key} cannot be placed: {text}"),
            Self::JobReported { key, assignment, current } => write!(f, "job {key} copy {assignment} is {}", current.phase.as_str()),
            Self::JobSettled { key, assignment } => write!(f, "job {key} copy {assignment} settled"),
            Self::JobRetried { key } => write!(f, "job {key} is to be tried again at once"),
            Self::JobStalled { key } => write!(f, "job {key} missed its progress deadline"),
            Self::RoleBound { operator, scope, role, .. } => write!(f, "{operator} is {role:?} {scope}"),
            Self::RoleUnbound { operator, scope } => write!(f, "{operator} has no role {scope} any more"),
            Self::TokenCreated { id, uses, .. } => write!(f, "token {id} created for {uses} uses"),
            Self::TokenUsed { id } => write!(f, "token {id} used"),
            Self::TokenRevoked { id } => write!(f, "token {id} revoked"),
            Self::NodeApplied { id, peer_addr, .. } => write!(f, "node {id} is at {peer_addr}"),
            Self::NodeMarked { id, alive: true } => write!(f, "node {id} is back"),
            Self::NodeMarked { id, alive: false } => write!(f, "node {id} is lost"),
            Self::NodeRemoved { id } => write!(f, "node {id} removed"),
            Self::RulesRaised { level } => write!(f, "rules level {level} is in force"),
        }
    }
}
