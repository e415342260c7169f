//! Drafts: what a user says of a resource, to the command that asks for it, and back.

use super::{
    access::{binding_key, role_from_proto, role_to_proto},
    cluster,
    deployment::{spec_from_proto, spec_to_proto},
    field::{self, Read, Within},
    package::{application_to_proto, applications_from_proto},
};
use crate::{
    limits::DOCUMENTS_MAX,
    reason::bad_field,
    resource,
    v1::{self, document::Draft},
};
use model::{Command, Key, Name, Revision};
use std::collections::BTreeMap;

/// The command that a document asks for.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed, or when its resource name is of another
/// kind.
pub fn command(document: v1::Document) -> Read<Command> {
    match field::required("draft", document.draft)? {
        Draft::Tenant(draft) => tenant(draft).within("tenant"),
        Draft::Host(draft) => host(draft).within("host"),
        Draft::Cluster(draft) => cluster(draft).within("cluster"),
        Draft::Package(draft) => package(draft).within("package"),
        Draft::Deployment(draft) => deployment(draft).within("deployment"),
        Draft::RoleBinding(draft) => role_binding(draft).within("role_binding"),
    }
}

/// The command of one noun's own `Apply`: `draft` is the request's field of that noun.
///
/// # Errors
/// As [`command`]; a missing draft is refused as the field `draft`.
pub fn apply(draft: Option<Draft>) -> Read<Command> {
    command(v1::Document { draft })
}

/// The one command that all documents of a request ask for together, all or none.
///
/// # Errors
/// As [`command`], with the document's place; `FIELD` when there is none or more than
/// [`DOCUMENTS_MAX`].
pub fn batch(documents: Vec<v1::Document>) -> Read<Command> {
    if documents.is_empty() || documents.len() > DOCUMENTS_MAX {
        let message = format!("a request applies 1 to {DOCUMENTS_MAX} documents");
        return Err(bad_field("documents", message, "split it into several requests"));
    }
    let read = |(at, document)| command(document).within(format_args!("documents[{at}]"));
    documents.into_iter().enumerate().map(read).collect::<Read<_>>().map(Command::Batch)
}

/// The document that asks for `of`; `None` for commands that no document asks for.
pub fn document(of: &Command) -> Option<v1::Document> {
    let draft = match of {
        Command::ApplyTenant { draft, display_name } => {
            let named = Parts::of(&Key::Tenant(draft.name.clone()), draft);
            Draft::Tenant(v1::TenantDraft {
                resource: named.resource,
                labels: named.labels,
                annotations: named.annotations,
                if_revision: named.if_revision,
                display_name: display_name.clone(),
            })
        }
        Command::ApplyHost { tenant, draft, site, zone } => {
            let named = Parts::of(&Key::Host(tenant.clone(), draft.name.clone()), draft);
            Draft::Host(v1::HostDraft {
                resource: named.resource,
                labels: named.labels,
                annotations: named.annotations,
                if_revision: named.if_revision,
                site: site.as_ref().map(Name::to_string),
                zone: zone.as_ref().map(Name::to_string),
            })
        }
        Command::ApplyCluster { tenant, draft, spec } => {
            let named = Parts::of(&Key::Cluster(tenant.clone(), draft.name.clone()), draft);
            Draft::Cluster(v1::ClusterDraft {
                resource: named.resource,
                labels: named.labels,
                annotations: named.annotations,
                if_revision: named.if_revision,
                spec: Some(cluster::spec_to_proto(spec)),
            })
        }
        Command::ApplyPackage { tenant, draft, version, applications } => {
            let key = Key::Package(tenant.clone(), draft.name.clone(), version.clone());
            let named = Parts::of(&key, draft);
            Draft::Package(v1::PackageDraft {
                resource: named.resource,
                labels: named.labels,
                annotations: named.annotations,
                if_revision: named.if_revision,
                applications: applications.iter().map(application_to_proto).collect(),
            })
        }
        Command::ApplyDeployment { tenant, draft, spec } => {
            let named = Parts::of(&Key::Deployment(tenant.clone(), draft.name.clone()), draft);
            Draft::Deployment(v1::DeploymentDraft {
                resource: named.resource,
                labels: named.labels,
                annotations: named.annotations,
                if_revision: named.if_revision,
                spec: Some(spec_to_proto(spec)),
            })
        }
        Command::BindRole { operator, scope, role } => Draft::RoleBinding(v1::RoleBindingDraft {
            resource: resource::format(&Key::Binding(operator.clone(), scope.clone()))?,
            role: role_to_proto(*role).into(),
        }),
        _ => return None,
    };
    Some(v1::Document { draft: Some(draft) })
}

fn tenant(draft: v1::TenantDraft) -> Read<Command> {
    let display_name = draft.display_name;
    let parts = Parts {
        resource: draft.resource,
        labels: draft.labels,
        annotations: draft.annotations,
        if_revision: draft.if_revision,
    };
    let Key::Tenant(name) = parts.key()? else {
        return Err(resource::other_kind("resource", v1::Kind::Tenant));
    };
    Ok(Command::ApplyTenant { draft: parts.draft(name), display_name })
}

fn host(draft: v1::HostDraft) -> Read<Command> {
    let site = field::optional_name("site", draft.site.as_deref())?;
    let zone = field::optional_name("zone", draft.zone.as_deref())?;
    let parts = Parts {
        resource: draft.resource,
        labels: draft.labels,
        annotations: draft.annotations,
        if_revision: draft.if_revision,
    };
    let Key::Host(tenant, name) = parts.key()? else {
        return Err(resource::other_kind("resource", v1::Kind::Host));
    };
    Ok(Command::ApplyHost { tenant, draft: parts.draft(name), site, zone })
}

fn cluster(draft: v1::ClusterDraft) -> Read<Command> {
    let spec = cluster::spec_from_proto(draft.spec)?;
    let parts = Parts {
        resource: draft.resource,
        labels: draft.labels,
        annotations: draft.annotations,
        if_revision: draft.if_revision,
    };
    let Key::Cluster(tenant, name) = parts.key()? else {
        return Err(resource::other_kind("resource", v1::Kind::Cluster));
    };
    Ok(Command::ApplyCluster { tenant, draft: parts.draft(name), spec })
}

fn package(draft: v1::PackageDraft) -> Read<Command> {
    let applications = applications_from_proto(draft.applications)?;
    let parts = Parts {
        resource: draft.resource,
        labels: draft.labels,
        annotations: draft.annotations,
        if_revision: draft.if_revision,
    };
    let Key::Package(tenant, name, version) = parts.key()? else {
        return Err(resource::other_kind("resource", v1::Kind::Package));
    };
    Ok(Command::ApplyPackage { tenant, draft: parts.draft(name), version, applications })
}

fn deployment(draft: v1::DeploymentDraft) -> Read<Command> {
    let spec = spec_from_proto(draft.spec)?;
    let parts = Parts {
        resource: draft.resource,
        labels: draft.labels,
        annotations: draft.annotations,
        if_revision: draft.if_revision,
    };
    let Key::Deployment(tenant, name) = parts.key()? else {
        return Err(resource::other_kind("resource", v1::Kind::Deployment));
    };
    Ok(Command::ApplyDeployment { tenant, draft: parts.draft(name), spec: Box::new(spec) })
}

fn role_binding(draft: v1::RoleBindingDraft) -> Read<Command> {
    let (operator, scope) = binding_key("resource", &draft.resource)?;
    Ok(Command::BindRole { operator, scope, role: role_from_proto("role", draft.role)? })
}

/// What all drafts have in common.
struct Parts {
    resource: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    if_revision: Option<u64>,
}

impl Parts {
    fn of(key: &Key, draft: &model::Draft) -> Self {
        Self {
            resource: resource::format(key).unwrap_or_default(),
            labels: draft.labels.clone(),
            annotations: draft.annotations.clone(),
            if_revision: draft.if_revision.map(|revision| revision.0),
        }
    }

    fn key(&self) -> Read<Key> {
        resource::parse("resource", &self.resource)
    }

    fn draft(self, name: Name) -> model::Draft {
        model::Draft {
            name,
            labels: self.labels,
            annotations: self.annotations,
            if_revision: self.if_revision.map(Revision),
        }
    }
}
