//! Who a caller is: a control node, an agent on a host, or a human or machine operator.
//!
//! A principal stands in a certificate twice: as common name (`system:node:3`, for people) and
//! inside a SPIFFE URI (`spiffe://<cluster>/node/3`), which is what counts and also names the
//! cluster. Both are parsed by exact shape: an unknown one is an error, never a weaker principal.
//! A caller without a certificate is not a principal: it is `None`.

use std::fmt;
use std::str::FromStr;

use crate::name::{Name, NameError};

/// The longest identity URI and common name that is looked at, in bytes.
pub const IDENTITY_BYTES_MAX: usize = 256;

const SCHEME: &str = "spiffe://";

/// Why a text or certificate names no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrincipalError {
    /// The text has none of the known shapes, or is too long.
    #[error("identity has none of the known shapes")]
    Shape,
    /// A part of the text that should be a name is none.
    #[error("identity holds an invalid name")]
    Name(#[source] NameError),
    /// The node id is not a plain decimal number.
    #[error("identity holds an invalid node id")]
    NodeId,
    /// The bytes are not one well-formed X.509 certificate.
    #[error("certificate is not well-formed X.509")]
    Malformed,
    /// The certificate is an authority's: it signs, it is not a caller.
    #[error("certificate of an authority cannot identify a caller")]
    Authority,
    /// The certificate does not hold exactly one URI, or names only nodes may carry.
    #[error("certificate must hold exactly one identity URI")]
    UriCount,
    /// Common name and URI disagree: we never issued this.
    #[error("certificate's common name and identity URI disagree")]
    CommonName,
}

/// What sort of caller makes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallerKind {
    /// No certificate was shown.
    Anonymous,
    /// A control node of this cluster.
    Node,
    /// The agent of one host.
    Agent,
    /// A person or program that administers.
    Operator,
}

impl fmt::Display for CallerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::Node => "node",
            Self::Agent => "agent",
            Self::Operator => "operator",
        })
    }
}

/// A proven caller within its cluster. `Display` and `FromStr` use the common-name form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// `system:node:<id>`: a control node.
    Node {
        /// The node's id, never reused within a cluster.
        id: u64,
    },
    /// `system:agent:<tenant>/<host>`: the agent of exactly one host.
    Agent {
        /// The tenant the host belongs to.
        tenant: Name,
        /// The host.
        host: Name,
    },
    /// `operator:<name>`: whoever administers; its rights are its role bindings.
    Operator {
        /// The operator's name.
        name: Name,
    },
}

impl Principal {
    /// What sort of caller this is.
    pub fn kind(&self) -> CallerKind {
        match self {
            Self::Node { .. } => CallerKind::Node,
            Self::Agent { .. } => CallerKind::Agent,
            Self::Operator { .. } => CallerKind::Operator,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { id } => write!(f, "system:node:{id}"),
            Self::Agent { tenant, host } => write!(f, "system:agent:{tenant}/{host}"),
            Self::Operator { name } => write!(f, "operator:{name}"),
        }
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        if text.len() > IDENTITY_BYTES_MAX {
            return Err(PrincipalError::Shape);
        }
        match text.split(':').collect::<Vec<_>>()[..] {
            ["system", "node", id] => Ok(Self::Node { id: node_id(id)? }),
            ["system", "agent", path] => match path.split('/').collect::<Vec<_>>()[..] {
                [tenant, host] => Ok(Self::Agent { tenant: name(tenant)?, host: name(host)? }),
                _ => Err(PrincipalError::Shape),
            },
            ["operator", operator] => Ok(Self::Operator { name: name(operator)? }),
            _ => Err(PrincipalError::Shape),
        }
    }
}

/// A principal together with its cluster: what a certificate proves. `Display` and `FromStr` use
/// the SPIFFE URI.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster's id, the URI's trust domain.
    pub cluster: Name,
    /// Who in that cluster.
    pub principal: Principal,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.cluster)?;
        match &self.principal {
            Principal::Node { id } => write!(f, "/node/{id}"),
            Principal::Agent { tenant, host } => write!(f, "/agent/{tenant}/{host}"),
            Principal::Operator { name } => write!(f, "/operator/{name}"),
        }
    }
}

impl FromStr for Identity {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        if text.len() > IDENTITY_BYTES_MAX {
            return Err(PrincipalError::Shape);
        }
        let path = text.strip_prefix(SCHEME).ok_or(PrincipalError::Shape)?;
        let (cluster, principal) = match path.split('/').collect::<Vec<_>>()[..] {
            [cluster, "node", id] => (cluster, Principal::Node { id: node_id(id)? }),
            [cluster, "agent", tenant, host] => {
                (cluster, Principal::Agent { tenant: name(tenant)?, host: name(host)? })
            }
            [cluster, "operator", operator] => {
                (cluster, Principal::Operator { name: name(operator)? })
            }
            _ => return Err(PrincipalError::Shape),
        };
        Ok(Self { cluster: name(cluster)?, principal })
    }
}

/// The URI an authority's certificate carries: the bare trust domain.
pub(crate) fn authority_uri(cluster: &Name) -> String {
    format!("{SCHEME}{cluster}")
}

/// The cluster an authority's URI names.
pub(crate) fn authority_cluster(uri: &str) -> Result<Name, NameError> {
    Name::new(uri.strip_prefix(SCHEME).ok_or(NameError)?)
}

fn name(text: &str) -> Result<Name, PrincipalError> {
    Name::new(text).map_err(PrincipalError::Name)
}

/// Only the one spelling that `Display` writes: no sign, no leading zero.
fn node_id(text: &str) -> Result<u64, PrincipalError> {
    let id: u64 = text.parse().map_err(|_not_a_number| PrincipalError::NodeId)?;
    if id.to_string() == text { Ok(id) } else { Err(PrincipalError::NodeId) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn principals() -> impl Strategy<Value = Principal> {
        let name = || "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?".prop_map(|n| Name::new(&n).unwrap());
        prop_oneof![
            any::<u64>().prop_map(|id| Principal::Node { id }),
            (name(), name()).prop_map(|(tenant, host)| Principal::Agent { tenant, host }),
            name().prop_map(|name| Principal::Operator { name }),
        ]
    }

    proptest! {
        #[test]
        fn both_forms_survive_printing_and_parsing(principal in principals()) {
            prop_assert_eq!(principal.to_string().parse(), Ok(principal.clone()));
            let identity = Identity { cluster: Name::new("c1").unwrap(), principal };
            prop_assert_eq!(identity.to_string().parse(), Ok(identity));
        }

        #[test]
        fn what_parses_prints_the_same_text(text in "(system|operator|node|agent|[:/a0-]){0,6}") {
            if let Ok(principal) = text.parse::<Principal>() {
                prop_assert_eq!(principal.to_string(), text);
            }
        }
    }

    #[test]
    fn an_unknown_shape_is_an_error_not_a_weaker_principal() {
        for text in [
            "",
            "system",
            "system:",
            "system:node",
            "system:node:",
            "system:node:+1",
            "system:node:01",
            "system:node:-1",
            "system:node:1:2",
            "system:node:1 ",
            "system:node:18446744073709551616",
            "System:node:1",
            "system:nodes:1",
            "system:agent:a",
            "system:agent:a/",
            "system:agent:/b",
            "system:agent:a/b/c",
            "system:agent:a:b",
            "operator",
            "operator:",
            "operator:A",
            "operator:a:b",
            "operator:a/b",
            "operator:*",
            " operator:a",
            "system:operator:a",
        ] {
            assert!(text.parse::<Principal>().is_err(), "{text:?}");
        }
        for text in [
            "",
            "spiffe://",
            "spiffe://c",
            "spiffe://c/",
            "spiffe://c/node",
            "spiffe://c/node/",
            "spiffe://c/node/01",
            "spiffe://c/node/1/",
            "spiffe://c/node/1?x",
            "spiffe://c/node/1#x",
            "spiffe://c//node/1",
            "spiffe:///node/1",
            "spiffe://C/node/1",
            "SPIFFE://c/node/1",
            "spiffe://c:1/node/1",
            "spiffe://u@c/node/1",
            "spiffe://c/agent/a",
            "http://c/node/1",
            "spiffe://c/agent/a/b/c",
            "spiffe://c/agent/a%2fb/c",
            "spiffe://c/operator/..",
            "spiffe://c/nodes/1",
            "xspiffe://c/node/1",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text:?}");
        }
        let long = format!("operator:{}", "a".repeat(IDENTITY_BYTES_MAX));
        assert_eq!(long.parse::<Principal>(), Err(PrincipalError::Shape));
    }
}
