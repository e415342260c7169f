//! The one place where it is decided whether a call is let through.
//!
//! [`Access`] wraps all services of a port. It finds the caller in the connection, the requirement in
//! `api::access`, and refuses what can be refused without the request: the wrong kind of caller, a
//! missing role in the cluster, a method that states no access. Where the request names a tenant the
//! answer needs the decoded request: a service gets at it through [`Shared::granted_in_tenant`],
//! [`Shared::granted`] or [`Granted::also`] only, and the layer withholds the answer of a service that
//! asked none of them. `identity::authorize` judges; this file only gathers what it needs. What goes on for
//! long is judged again as it goes on: [`Shared::while_granted`].

mod layer;
mod standing;

pub(crate) use layer::Access;
use standing::Standing;

use crate::{Shared, refusal};
use api::access::{RequiredScope, Requirement, TenantNamed};
use consensus::Ledger;
use identity::{BindingLookup, Denied, Principal, Visibility};
use model::{Caller, Digest, HostState, Name, NodeId, Role, Scope, State, Timestamp};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tonic::{Request, Status};

/// Who is at the other end of a connection. tonic puts it into each request; the slot among the
/// port's connections is given back when the last holder is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Option<Arc<identity::Peer>>,
    #[expect(dead_code, reason = "held for as long as the connection lives")]
    pub(crate) slot: Arc<OwnedSemaphorePermit>,
}

/// What the layer learned about a call. Put into the request; services take it out again by asking for
/// a grant.
#[derive(Clone, Debug)]
struct Passed {
    principal: Option<Principal>,
    key: Option<Digest>,
    caller: Caller,
    requirement: &'static Requirement,
    /// When the caller's certificate ends, in Unix ms.
    not_after_ms: Option<u64>,
    granted: Arc<AtomicBool>,
}

/// A call that is let through: the request, and in whose name it is carried out.
#[derive(Debug)]
pub struct Granted<T> {
    /// In whose name.
    pub caller: Caller,
    /// What is asked.
    pub request: T,
    /// How long the caller waits.
    pub deadline: Instant,
    /// SHA-256 of the public key that the caller proved to have; `None` without a certificate.
    pub key: Option<Digest>,
    standing: Standing,
}

impl<L: Ledger> Shared<L> {
    /// Lets a call through whose requirement does not depend on the request: it was judged before the
    /// request was read. Methods of scope ANY judge each part by [`Granted::also`] themselves.
    ///
    /// # Errors
    /// INTERNAL when the method states scope TENANT: its service asked for the wrong grant.
    pub fn granted<T>(&self, request: Request<T>) -> Result<Granted<T>, Status> {
        let passed = Passed::of(&request)?;
        if passed.requirement.scope == RequiredScope::Tenant {
            return Err(Status::internal("the service did not ask for a grant in the tenant"));
        }
        Ok(self.grant(passed, None, request))
    }

    /// Lets a call through if its caller may do this in the tenant that the request names.
    ///
    /// # Errors
    /// NOT_FOUND for a tenant that is not the caller's, PERMISSION_DENIED for a role that is too low,
    /// INVALID_ARGUMENT when no tenant is named.
    pub async fn granted_in_tenant<T: TenantNamed>(
        &self,
        request: Request<T>,
    ) -> Result<Granted<T>, Status> {
        let passed = Passed::of(&request)?;
        let named = request.get_ref().tenant_named();
        let tenant = named.map_err(|rejection| refusal::of_rejection(&rejection))?;
        let deadline = self.deadline(request.metadata().as_ref());
        let need = (passed.requirement, Some(&tenant));
        self.judge(passed.principal.as_ref(), need, deadline).await?;
        Ok(self.grant(passed, Some(tenant), request))
    }

    fn grant<T>(&self, passed: Passed, tenant: Option<Name>, request: Request<T>) -> Granted<T> {
        passed.granted.store(true, Ordering::Relaxed);
        let deadline = self.deadline(request.metadata().as_ref());
        let Passed { principal, key, caller, requirement, not_after_ms, .. } = passed;
        let standing = Standing { principal, requirement, tenant, not_after_ms };
        Granted { caller, request: request.into_inner(), deadline, key, standing }
    }

    /// Judges by the local state, and once more by one that is surely up to date before refusing: a
    /// role that another node has just given must count here.
    async fn judge(
        &self,
        principal: Option<&Principal>,
        need: (&Requirement, Option<&Name>),
        deadline: Instant,
    ) -> Result<(), Status> {
        let judged = || self.ledger.read(|state| authorized(state, principal, need));
        match judged() {
            Err(Denied::NotVisible | Denied::Role { .. }) => {
                self.linearize(deadline).await?;
                judged().map_err(refusal::of_denied)
            }
            other => other.map_err(refusal::of_denied),
        }
    }
}

impl Passed {
    fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let passed = request.extensions().get::<Self>().cloned();
        passed.ok_or_else(|| Status::internal("the call did not come through the access layer"))
    }
}

impl<T> Granted<T> {
    /// A call that came by no port.
    #[cfg(test)]
    pub(crate) fn for_test(caller: Caller, request: T) -> Self {
        let deadline = Instant::now() + std::time::Duration::from_secs(10);
        let requirement = &api::access::TABLE[0].1;
        let standing = Standing { principal: None, requirement, tenant: None, not_after_ms: None };
        Self { caller, request, deadline, key: None, standing }
    }

    /// Whether the caller may also do what `requirement` asks, in `tenant` if it has scope TENANT.
    ///
    /// # Errors
    /// As [`Shared::granted_in_tenant`].
    pub async fn also<L: Ledger>(
        &self,
        shared: &Shared<L>,
        requirement: &Requirement,
        tenant: Option<&Name>,
    ) -> Result<(), Status> {
        let principal = self.standing.principal.as_ref();
        shared.judge(principal, (requirement, tenant), self.deadline).await
    }

    /// Whether the state lent lets the caller do what `requirement` asks: for calls that go on for
    /// long.
    pub fn still(&self, state: &State, requirement: &Requirement, tenant: Option<&Name>) -> bool {
        authorized(state, self.standing.principal.as_ref(), (requirement, tenant)).is_ok()
    }

    /// Refuses a caller whose certificate has ended since: for calls that go on for long.
    ///
    /// # Errors
    /// UNAUTHENTICATED `CERTIFICATE`.
    pub fn unexpired(&self, now: Timestamp) -> Result<(), Status> {
        self.standing.unexpired(now).map_err(refusal::of_denied)
    }

    /// The tenants in which the caller has at least `role`, by the state lent.
    pub fn visibility(&self, state: &State, role: Role) -> Visibility {
        identity::visibility(self.standing.principal.as_ref(), &Bindings(state), role_of(role))
    }
}

/// Whether the state lets `principal` do what `requirement` asks, in `tenant` if it has scope TENANT.
fn authorized(
    state: &State,
    principal: Option<&Principal>,
    (requirement, tenant): (&Requirement, Option<&Name>),
) -> Result<(), Denied> {
    if let Some(Principal::Node { id }) = principal
        && state.was_removed(NodeId(*id))
    {
        return Err(Denied::Removed { node: *id });
    }
    let scope = match (requirement.scope, principal, tenant) {
        (RequiredScope::Cluster, ..) => identity::RequiredScope::Cluster,
        (RequiredScope::Any, ..) | (RequiredScope::Tenant, _, None) => {
            identity::RequiredScope::Caller
        }
        // An agent touches nothing but its own host, here in so far as it is in the tenant named.
        (RequiredScope::Tenant, Some(Principal::Agent { host, .. }), Some(tenant)) => {
            if !trusted(state, tenant, host) {
                return Err(Denied::NotVisible);
            }
            identity::RequiredScope::OwnHost { tenant: name_of(tenant)?, host: host.clone() }
        }
        (RequiredScope::Tenant, _, Some(tenant)) => {
            identity::RequiredScope::Tenant(name_of(tenant)?)
        }
        (RequiredScope::OwnHost, Some(Principal::Agent { tenant, host }), _) => {
            identity::RequiredScope::OwnHost { tenant: tenant.clone(), host: host.clone() }
        }
        (RequiredScope::OwnHost, ..) => identity::RequiredScope::Cluster,
    };
    let need = identity::Requirement {
        callers: callers(requirement),
        role: requirement.role.map_or(identity::Role::Viewer, role_of),
        scope,
    };
    identity::authorize(principal, &Bindings(state), &need).map(|_grant| ())
}

/// Whether the host exists and has not lost its trust.
fn trusted(state: &State, tenant: &Name, host: &identity::Name) -> bool {
    let Ok(host) = Name::new(host.as_str()) else { return false };
    let host = state.hosts.get(&(tenant.clone(), host));
    host.is_some_and(|host| host.state != HostState::Untrusted)
}

/// The replicated role bindings, as `identity` asks for them.
struct Bindings<'a>(&'a State);

impl BindingLookup for Bindings<'_> {
    fn bindings_of(&self, principal: &Principal) -> Vec<(identity::Scope, identity::Role)> {
        let Principal::Operator { name } = principal else { return Vec::new() };
        let Ok(operator) = Name::new(name.as_str()) else { return Vec::new() };
        let rows = self.0.bindings.range((operator.clone(), Scope::Cluster)..);
        let own = rows.take_while(|((bound, _), _)| *bound == operator);
        own.filter_map(|((_, scope), binding)| {
            let scope = match scope {
                Scope::Cluster => identity::Scope::Cluster,
                Scope::Tenant(tenant) => identity::Scope::Tenant(name_of(tenant).ok()?),
            };
            Some((scope, role_of(binding.role)))
        })
        .collect()
    }
}

fn callers(requirement: &Requirement) -> identity::Callers {
    let kinds: Vec<_> = requirement
        .callers
        .iter()
        .map(|kind| match kind {
            api::access::CallerKind::Operator => identity::CallerKind::Operator,
            api::access::CallerKind::Agent => identity::CallerKind::Agent,
            api::access::CallerKind::Node => identity::CallerKind::Node,
            api::access::CallerKind::Anonymous => identity::CallerKind::Anonymous,
        })
        .collect();
    identity::Callers::of(&kinds)
}

fn role_of(role: Role) -> identity::Role {
    match role {
        Role::Viewer => identity::Role::Viewer,
        Role::Operator => identity::Role::Operator,
        Role::Admin => identity::Role::Admin,
    }
}

/// Both rooms have the same rule for names, so this refuses nothing in practice.
fn name_of(name: &Name) -> Result<identity::Name, Denied> {
    identity::Name::new(name.as_str()).map_err(|_| Denied::NotVisible)
}

/// In whose name a proven caller's commands stand in the log. `None` without a certificate, or for
/// one that names nobody the state could know.
fn caller_of(principal: &Principal) -> Option<Caller> {
    let name = |name: &identity::Name| Name::new(name.as_str()).ok();
    Some(match principal {
        Principal::Node { id } => Caller::Node(NodeId(*id)),
        Principal::Agent { tenant, host } => {
            Caller::Agent { tenant: name(tenant)?, host: name(host)? }
        }
        Principal::Operator { name: operator } => Caller::Operator(name(operator)?),
    })
}

#[cfg(test)]
mod tests;
