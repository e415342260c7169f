//! Roles, where they hold, and the bindings that give them to principals.
//!
//! A role on the cluster holds in every tenant; a role in a tenant holds there and nowhere else.
//! Agents and nodes have no roles: their certificate is their right.

use std::fmt;
use std::str::FromStr;

use crate::name::{Name, NameError};
use crate::principal::Principal;

/// A text is no role or scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// Not one of the three roles.
    #[error("role must be viewer, operator or admin")]
    Role,
    /// Neither `cluster` nor `tenant:<name>`.
    #[error("scope must be cluster or tenant:<name>")]
    Scope,
    /// The tenant's name is none.
    #[error("scope holds an invalid tenant name")]
    Tenant(#[source] NameError),
}

/// What a binding allows; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads everything but secrets.
    Viewer,
    /// Also deploys, changes and deletes what runs.
    Operator,
    /// Also gives rights, makes tokens and tenants.
    Admin,
}

impl Role {
    /// All roles, weakest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The role's stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(RoleError::Role)
    }
}

/// Where a binding holds. Written `cluster` or `tenant:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The cluster itself and every tenant in it.
    Cluster,
    /// Exactly this tenant.
    Tenant(Name),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Tenant(tenant) => write!(f, "tenant:{tenant}"),
        }
    }
}

impl FromStr for Scope {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text.split(':').collect::<Vec<_>>()[..] {
            ["cluster"] => Ok(Self::Cluster),
            ["tenant", tenant] => Name::new(tenant).map(Self::Tenant).map_err(RoleError::Tenant),
            _ => Err(RoleError::Scope),
        }
    }
}

/// One role given to one principal in one scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// Who; compared exactly.
    pub principal: Principal,
    /// Where.
    pub scope: Scope,
    /// What.
    pub role: Role,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_ones_before_it() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        assert!(Role::ALL.is_sorted());
    }

    #[test]
    fn roles_and_scopes_survive_printing_and_nothing_else_parses() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        for scope in [Scope::Cluster, Scope::Tenant(Name::new("t-1").unwrap())] {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        for text in ["", "Viewer", "view", "admins", "viewer ", "root"] {
            assert_eq!(text.parse::<Role>(), Err(RoleError::Role), "{text:?}");
        }
        for text in ["", "tenant", "tenant:", "tenant:*", "tenant:a:b", "cluster:", "tenants:a"] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }
}
