//! The one place where it is decided whether a caller may do what it asks: pure, deny by default.
//!
//! Every request, stream item and part of a composite request comes through `authorize`. Names are
//! compared whole, never by prefix; nothing empty means "everything". A tenant in which the caller
//! has no role is answered as if it did not exist.

use std::collections::BTreeSet;

use crate::name::Name;
use crate::principal::{CallerKind, Principal};
use crate::role::{Binding, Role, Scope};

/// The replicated role bindings, as far as this decision needs them.
pub trait BindingLookup {
    /// Every role given to exactly this principal, with its scope; empty if none.
    fn bindings_of(&self, principal: &Principal) -> Vec<(Scope, Role)>;
}

impl BindingLookup for &[Binding] {
    fn bindings_of(&self, principal: &Principal) -> Vec<(Scope, Role)> {
        let own = self.iter().filter(|binding| binding.principal == *principal);
        own.map(|binding| (binding.scope.clone(), binding.role)).collect()
    }
}

impl BindingLookup for Vec<Binding> {
    fn bindings_of(&self, principal: &Principal) -> Vec<(Scope, Role)> {
        self.as_slice().bindings_of(principal)
    }
}

/// A set of caller kinds; empty admits nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Callers(u8);

impl Callers {
    /// Exactly these kinds.
    pub const fn of(kinds: &[CallerKind]) -> Self {
        let mut bits = 0;
        let mut position = 0;
        while position < kinds.len() {
            bits |= 1 << kinds[position] as u8;
            position += 1;
        }
        Self(bits)
    }

    /// Whether the kind is in the set.
    pub const fn contain(self, kind: CallerKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// What a request touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequiredScope {
    /// Nothing but the caller's own identity and public material: the authority's certificate,
    /// enrolment by token, renewal, "who am I". No role is asked for; the only scope an anonymous
    /// caller can be granted.
    Caller,
    /// The cluster itself.
    Cluster,
    /// Something of this tenant.
    Tenant(Name),
    /// Something of this host: its own agent needs no role, an operator the role in its tenant.
    OwnHost {
        /// The host's tenant.
        tenant: Name,
        /// The host.
        host: Name,
    },
}

/// What an RPC needs: its proto option, with the scope filled in from the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Who may call it at all.
    pub callers: Callers,
    /// The least role an operator needs in the scope; nodes and agents have no roles.
    pub role: Role,
    /// What it touches.
    pub scope: RequiredScope,
}

/// Proof that `authorize` said yes; only it can make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    caller: CallerKind,
    role: Option<Role>,
}

impl Grant {
    /// What sort of caller was let through.
    pub fn caller(self) -> CallerKind {
        self.caller
    }

    /// The operator's role in the scope; `None` where no role was asked for.
    pub fn role(self) -> Option<Role> {
        self.role
    }
}

/// Why `authorize` said no. Only `NotVisible` may depend on the object asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// UNAUTHENTICATED: a certificate is needed and none was shown.
    #[error("caller must show a certificate of this cluster")]
    Unauthenticated,
    /// PERMISSION_DENIED: this kind of caller never may.
    #[error("caller of kind {kind} may not make this request")]
    Caller {
        /// The caller's kind.
        kind: CallerKind,
    },
    /// PERMISSION_DENIED: a control node that was removed from the cluster.
    #[error("control node {node} was removed from the cluster")]
    Removed {
        /// Its id.
        node: u64,
    },
    /// NOT_FOUND, worded exactly as for an object that does not exist.
    #[error("object is not visible to the caller")]
    NotVisible,
    /// PERMISSION_DENIED: the operator sees the scope but its role is too low.
    #[error("caller needs role {needed}")]
    Role {
        /// The least role that would do.
        needed: Role,
    },
}

/// Whether the caller (`None`: no certificate) may do what needs `need`.
///
/// A node that may call at all may touch everything: it acts for the control plane. An agent
/// touches its own host and nothing else, however the request is declared. An operator's role in a
/// tenant is the higher of its roles in the cluster and in exactly that tenant.
pub fn authorize(
    principal: Option<&Principal>,
    bindings: &dyn BindingLookup,
    need: &Requirement,
) -> Result<Grant, Denied> {
    let kind = principal.map_or(CallerKind::Anonymous, Principal::kind);
    let listed = need.callers.contain(kind);
    let granted = Grant { caller: kind, role: None };
    match principal {
        None if listed && need.scope == RequiredScope::Caller => Ok(granted),
        None => Err(Denied::Unauthenticated),
        Some(_) if !listed => Err(Denied::Caller { kind }),
        Some(_) if need.scope == RequiredScope::Caller => Ok(granted),
        Some(Principal::Node { .. }) => Ok(granted),
        Some(Principal::Agent { tenant, host }) => match &need.scope {
            RequiredScope::OwnHost { tenant: t, host: h } if t == tenant && h == host => {
                Ok(granted)
            }
            RequiredScope::OwnHost { .. } | RequiredScope::Tenant(_) => Err(Denied::NotVisible),
            RequiredScope::Cluster | RequiredScope::Caller => Err(Denied::Caller { kind }),
        },
        Some(operator @ Principal::Operator { .. }) => {
            let role = operator_role(operator, bindings, need)?;
            Ok(Grant { role: Some(role), ..granted })
        }
    }
}

fn operator_role(
    operator: &Principal,
    bindings: &dyn BindingLookup,
    need: &Requirement,
) -> Result<Role, Denied> {
    let tenant = match &need.scope {
        RequiredScope::Tenant(tenant) | RequiredScope::OwnHost { tenant, .. } => Some(tenant),
        RequiredScope::Cluster | RequiredScope::Caller => None,
    };
    let covers = |scope: &Scope| match scope {
        Scope::Cluster => true,
        Scope::Tenant(bound) => Some(bound) == tenant,
    };
    let bound = bindings.bindings_of(operator);
    let held = bound.iter().filter(|(scope, _)| covers(scope)).map(|(_, role)| *role).max();
    match held {
        Some(role) if role >= need.role => Ok(role),
        None if tenant.is_some() => Err(Denied::NotVisible),
        Some(_) | None => Err(Denied::Role { needed: need.role }),
    }
}

/// The tenants whose objects a caller may see, for lists and for filtering each event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// Every tenant, and the cluster's own objects.
    All,
    /// Exactly these tenants; none if empty.
    Only(BTreeSet<Name>),
}

impl Visibility {
    /// Whether this tenant's objects are visible.
    pub fn contains(&self, tenant: &Name) -> bool {
        match self {
            Self::All => true,
            Self::Only(tenants) => tenants.contains(tenant),
        }
    }
}

/// What a caller may see with at least this role: all for nodes and for operators with such a role
/// on the cluster, the bound tenants for other operators, nothing for agents and anonymous callers.
pub fn visibility(
    principal: Option<&Principal>,
    bindings: &dyn BindingLookup,
    role: Role,
) -> Visibility {
    let mut tenants = BTreeSet::new();
    match principal {
        Some(Principal::Node { .. }) => return Visibility::All,
        None | Some(Principal::Agent { .. }) => {}
        Some(operator @ Principal::Operator { .. }) => {
            for (scope, held) in bindings.bindings_of(operator) {
                match scope {
                    _ if held < role => {}
                    Scope::Cluster => return Visibility::All,
                    Scope::Tenant(tenant) => _ = tenants.insert(tenant),
                }
            }
        }
    }
    Visibility::Only(tenants)
}

#[cfg(test)]
mod tests;
