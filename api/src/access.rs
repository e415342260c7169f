//! Who may call which rpc: the table that the build draws from the option `access` of every rpc, and
//! the tenant that a request names. `identity` judges by it; nothing else decides about access.

use crate::{reason::bad_field, resource, v1};
use model::{Name, Rejection, Role};

/// What one rpc asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Role that an operator needs within `scope`; `None`: the kind of caller is all that counts. It
    /// binds operators only: an agent or node that is among `callers` needs no role.
    pub role: Option<Role>,
    /// Where the role must hold.
    pub scope: RequiredScope,
    /// Kinds of callers that may call at all; never empty.
    pub callers: &'static [CallerKind],
}

/// Where a role must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequiredScope {
    /// In the whole cluster.
    Cluster,
    /// In the tenant that the request names, see [`TenantNamed`]; a cluster role holds there too. An
    /// agent's tenant is that of its certificate and must be the one named.
    Tenant,
    /// An agent, for the host of its certificate; no tenant is named in the request.
    OwnHost,
    /// No one place: the service asks for each tenant that it touches or shows.
    Any,
}

/// A kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallerKind {
    /// A person or program with an operator certificate.
    Operator,
    /// The agent of a host.
    Agent,
    /// A control node of this cluster.
    Node,
    /// Whoever connects, without a certificate.
    Anonymous,
}

/// A request that names the tenant its rpc is about: every request of an rpc of scope `Tenant`.
pub trait TenantNamed {
    /// The tenant.
    ///
    /// # Errors
    /// `FIELD` when the field that names it is missing or malformed.
    fn tenant_named(&self) -> Result<Name, Rejection>;
}

/// What the rpc at `path`, such as `/muster.v1.Hosts/List`, asks; `None` if there is no such rpc.
pub fn requirement(path: &str) -> Option<&'static Requirement> {
    let found = TABLE.binary_search_by_key(&path, |(path, _)| path).ok()?;
    TABLE.get(found).map(|(_, requirement)| requirement)
}

/// What one document of an `Apply` asks: the requirement of its own noun's `Apply`, and the tenant it
/// is about where that has scope `Tenant`.
///
/// # Errors
/// `FIELD` when the document is empty or its resource name is malformed.
pub fn document(
    document: &v1::Document,
) -> Result<(&'static Requirement, Option<Name>), Rejection> {
    use v1::document::Draft;
    let (path, resource) = match &document.draft {
        Some(Draft::Tenant(draft)) => ("/muster.v1.Tenants/Apply", &draft.resource),
        Some(Draft::Host(draft)) => ("/muster.v1.Hosts/Apply", &draft.resource),
        Some(Draft::Cluster(draft)) => ("/muster.v1.Clusters/Apply", &draft.resource),
        Some(Draft::Package(draft)) => ("/muster.v1.Packages/Apply", &draft.resource),
        Some(Draft::Deployment(draft)) => ("/muster.v1.Deployments/Apply", &draft.resource),
        Some(Draft::RoleBinding(draft)) => ("/muster.v1.RoleBindings/Apply", &draft.resource),
        None => return Err(no_tenant("draft", "the document holds no draft")),
    };
    let Some(requirement) = requirement(path) else {
        return Err(no_tenant("draft", "the document is of a kind that cannot be applied"));
    };
    let tenant = match requirement.scope {
        RequiredScope::Tenant => Some(tenant_of_resource("resource", Some(resource))?),
        RequiredScope::Cluster | RequiredScope::OwnHost | RequiredScope::Any => None,
    };
    Ok((requirement, tenant))
}

/// Reads a field that holds a tenant's name.
fn tenant_name(field: &str, value: Option<&str>) -> Result<Name, Rejection> {
    Name::new(value.unwrap_or_default()).map_err(|bad| no_tenant(field, &bad.to_string()))
}

/// Reads a field that holds a resource name below a tenant.
fn tenant_of_resource(field: &str, value: Option<&str>) -> Result<Name, Rejection> {
    resource::tenant(value.unwrap_or_default())
        .ok_or_else(|| no_tenant(field, "a resource name begins with tenants/ and the tenant"))
}

fn no_tenant(field: &str, message: &str) -> Rejection {
    let message = format!("the request names no tenant: {message}");
    bad_field(field, message, format!("set {field} to name the tenant"))
}

include!(concat!(env!("OUT_DIR"), "/access_table.rs"));

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn every_rpc_is_found_by_its_path_and_nothing_else_is() {
        for (path, requirement_of) in TABLE {
            assert_eq!(requirement(path), Some(requirement_of), "{path}");
        }
        assert_eq!(requirement("/muster.v1.Hosts/"), None);
        assert_eq!(requirement("/muster.v1.Hosts/Destroy"), None);
        assert_eq!(requirement(""), None);
    }

    #[test]
    fn only_the_authority_and_enrolment_are_open_to_anyone() {
        let open = |(_, requirement): &&(&str, Requirement)| {
            requirement.callers.contains(&CallerKind::Anonymous)
        };
        let open: Vec<&str> = TABLE.iter().filter(open).map(|(path, _)| *path).collect();
        assert_eq!(open, ["/muster.v1.Enrol/Enrol", "/muster.v1.Enrol/GetAuthority"]);
    }

    #[test]
    fn operators_need_a_role_wherever_they_may_call() {
        for (path, requirement) in TABLE {
            let exempt = [
                "/muster.v1.Apply/Apply",
                "/muster.v1.Enrol/Enrol",
                "/muster.v1.Enrol/GetAuthority",
            ];
            if requirement.callers.contains(&CallerKind::Operator) && !exempt.contains(path) {
                assert!(requirement.role.is_some(), "{path}");
            }
        }
    }

    #[test]
    fn a_request_names_its_tenant_or_is_refused() {
        let get = |resource: &str| {
            let resource = resource.to_owned();
            let request = v1::GetRequest { resource, ..v1::GetRequest::default() };
            request.tenant_named().map(|tenant| tenant.to_string())
        };
        assert_eq!(get("tenants/acme/hosts/h1"), Ok("acme".to_owned()));
        assert_eq!(get("tenants/acme"), Ok("acme".to_owned()));
        for wrong in ["", "tenants/", "tenants/ACME", "tenant/acme", "nodes/1", "/tenants/acme"] {
            assert_eq!(get(wrong).unwrap_err().field, "resource", "{wrong}");
        }
        let logs = v1::ReadLogsRequest::default();
        assert_eq!(logs.tenant_named().unwrap_err().field, "job.tenant");
        let apply = v1::ApplyHostRequest::default();
        assert_eq!(apply.tenant_named().unwrap_err().field, "host.resource");
    }

    #[test]
    fn a_document_asks_what_its_noun_asks() {
        let of = |draft| document(&v1::Document { draft: Some(draft) }).unwrap();
        let tenant = v1::TenantDraft { resource: "tenants/acme".to_owned(), ..Default::default() };
        let (requirement, named) = of(v1::document::Draft::Tenant(tenant));
        assert_eq!(
            (requirement.role, requirement.scope),
            (Some(Role::Admin), RequiredScope::Cluster)
        );
        assert_eq!(named, None);
        let host =
            v1::HostDraft { resource: "tenants/acme/hosts/h".to_owned(), ..Default::default() };
        let (requirement, named) = of(v1::document::Draft::Host(host));
        assert_eq!(
            (requirement.role, requirement.scope),
            (Some(Role::Operator), RequiredScope::Tenant)
        );
        assert_eq!(named.unwrap().as_str(), "acme");
        assert!(document(&v1::Document { draft: None }).is_err());
    }
}
