//! Tenants, to and from the wire.

use super::{field::Read, meta};
use crate::{resource, v1};
use model::{Key, Tenant};

/// The message of a tenant.
pub fn to_proto(tenant: &Tenant) -> v1::Tenant {
    v1::Tenant {
        meta: Some(meta::to_proto(&Key::Tenant(tenant.meta.name.clone()), &tenant.meta)),
        display_name: tenant.display_name.clone(),
        status: Some(meta::status_to_proto(&tenant.status)),
    }
}

/// The tenant of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn from_proto(tenant: v1::Tenant) -> Read<Tenant> {
    let (Key::Tenant(_), meta) = meta::from_proto(tenant.meta)? else {
        return Err(resource::other_kind("meta.resource", v1::Kind::Tenant));
    };
    Ok(Tenant {
        meta,
        display_name: tenant.display_name,
        status: meta::status_from_proto(tenant.status)?,
    })
}
