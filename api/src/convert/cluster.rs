//! Clusters, to and from the wire.

use super::{
    field::{self, Read, Within},
    meta,
};
use crate::{resource, v1};
use model::{Cluster, ClusterSpec, Key, Name};

/// The message of a tenant's cluster.
pub fn to_proto(tenant: &Name, cluster: &Cluster) -> v1::Cluster {
    let key = Key::Cluster(tenant.clone(), cluster.meta.name.clone());
    v1::Cluster {
        meta: Some(meta::to_proto(&key, &cluster.meta)),
        spec: Some(spec_to_proto(&cluster.spec)),
        status: Some(meta::status_to_proto(&cluster.status)),
    }
}

/// The tenant and cluster of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn from_proto(cluster: v1::Cluster) -> Read<(Name, Cluster)> {
    let (Key::Cluster(tenant, _), meta) = meta::from_proto(cluster.meta)? else {
        return Err(resource::other_kind("meta.resource", v1::Kind::Cluster));
    };
    let cluster = Cluster {
        meta,
        spec: spec_from_proto(cluster.spec)?,
        status: meta::status_from_proto(cluster.status)?,
    };
    Ok((tenant, cluster))
}

pub(crate) fn spec_to_proto(spec: &ClusterSpec) -> v1::ClusterSpec {
    v1::ClusterSpec {
        environment: spec.environment.as_ref().map(Name::to_string),
        members: spec.members.iter().map(Name::to_string).collect(),
    }
}

pub(crate) fn spec_from_proto(spec: Option<v1::ClusterSpec>) -> Read<ClusterSpec> {
    let spec = field::required("spec", spec)?;
    Ok(ClusterSpec {
        environment: field::optional_name("environment", spec.environment.as_deref())
            .within("spec")?,
        members: field::name_set("members", &spec.members).within("spec")?,
    })
}
