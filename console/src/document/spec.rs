//! What each kind of document may say, and the draft it becomes.

use super::Metadata;
use crate::{failure::Failure, parse};
use api::v1;
use serde::{Deserialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// A document of a known kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Whole<S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: S,
}

/// The same, for kinds whose spec may be left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Optional<S: Default> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: S,
}

/// Reads YAML; an error names line and column.
pub(super) fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_saphyr::from_str(text)
        .map_err(|error| Failure::usage(error.to_string(), "mend the document at that line"))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct TenantSpec {
    #[serde(default)]
    display_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct HostSpec {
    #[serde(default)]
    site: Option<String>,
    #[serde(default)]
    zone: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ClusterSpec {
    #[serde(default)]
    environment: Option<String>,
    #[serde(default)]
    members: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PackageSpec {
    version: String,
    applications: Vec<ApplicationSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ApplicationSpec {
    name: String,
    version: String,
    driver: String,
    num_partitions: u32,
    image: String,
    #[serde(default)]
    limits: LimitsSpec,
    #[serde(default)]
    on_disconnect: Option<String>,
    #[serde(default)]
    stop_grace: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, ValueSpec>,
    #[serde(default)]
    zones: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LimitsSpec {
    #[serde(default)]
    cpu: Option<String>,
    #[serde(default)]
    memory: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ValueSpec {
    Literal(String),
    Secret { secret: SecretSpec },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretSpec {
    name: String,
    key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DeploymentSpec {
    package: String,
    version: String,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    overrides: BTreeMap<String, OverrideSpec>,
    targets: TargetsSpec,
    #[serde(default)]
    strategy: Option<StrategySpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OverrideSpec {
    #[serde(default)]
    env: BTreeMap<String, ValueSpec>,
    #[serde(default)]
    num_partitions: Option<u32>,
    #[serde(default)]
    limits: Option<LimitsSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TargetsSpec {
    #[serde(default)]
    clusters: Option<Vec<String>>,
    #[serde(default)]
    selector: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StrategySpec {
    max_unavailable: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RoleSpec {
    role: String,
    #[serde(default)]
    tenant: Option<String>,
}

/// The draft that a document of a kind is; `tenant` is for documents that name none.
pub(super) fn document(kind: &str, text: &str, tenant: &str) -> Result<v1::Document, Failure> {
    use v1::document::Draft;
    let of = |metadata: &Metadata| metadata.tenant.clone().unwrap_or_else(|| tenant.to_owned());
    let draft = match kind {
        "Tenant" => {
            let Optional::<TenantSpec> { metadata, spec, .. } = yaml(text)?;
            Draft::Tenant(v1::TenantDraft {
                resource: format!("tenants/{}", metadata.name),
                labels: metadata.labels,
                annotations: metadata.annotations,
                if_revision: metadata.revision,
                display_name: spec.display_name.unwrap_or(metadata.name),
            })
        }
        "Host" => {
            let Optional::<HostSpec> { metadata, spec, .. } = yaml(text)?;
            Draft::Host(v1::HostDraft {
                resource: format!("tenants/{}/hosts/{}", of(&metadata), metadata.name),
                labels: metadata.labels,
                annotations: metadata.annotations,
                if_revision: metadata.revision,
                site: spec.site,
                zone: spec.zone,
            })
        }
        "Cluster" => {
            let Optional::<ClusterSpec> { metadata, spec, .. } = yaml(text)?;
            let ClusterSpec { environment, members } = spec;
            Draft::Cluster(v1::ClusterDraft {
                resource: format!("tenants/{}/clusters/{}", of(&metadata), metadata.name),
                labels: metadata.labels,
                annotations: metadata.annotations,
                if_revision: metadata.revision,
                spec: Some(v1::ClusterSpec { environment, members }),
            })
        }
        "Package" => {
            let Whole::<PackageSpec> { metadata, spec, .. } = yaml(text)?;
            let (tenant, version) = (of(&metadata), spec.version);
            Draft::Package(v1::PackageDraft {
                resource: format!("tenants/{tenant}/packages/{}/versions/{version}", metadata.name),
                labels: metadata.labels,
                annotations: metadata.annotations,
                if_revision: metadata.revision,
                applications: collect(spec.applications, "spec.applications", application)?,
            })
        }
        "Deployment" => {
            let Whole::<DeploymentSpec> { metadata, spec, .. } = yaml(text)?;
            Draft::Deployment(v1::DeploymentDraft {
                resource: format!("tenants/{}/deployments/{}", of(&metadata), metadata.name),
                labels: metadata.labels,
                annotations: metadata.annotations,
                if_revision: metadata.revision,
                spec: Some(deployment(spec)?),
            })
        }
        "RoleBinding" => role_binding(text)?,
        _ => {
            let failure = Failure::usage(
                format!("there is no kind {kind:?}"),
                "write Tenant, Host, Cluster, Package, Deployment or RoleBinding",
            );
            return Err(failure.at("kind"));
        }
    };
    Ok(v1::Document { draft: Some(draft) })
}

fn role_binding(text: &str) -> Result<v1::document::Draft, Failure> {
    let Whole::<RoleSpec> { metadata, spec, .. } = yaml(text)?;
    let scope = spec.tenant.map(|tenant| format!("tenants/{tenant}/")).unwrap_or_default();
    Ok(v1::document::Draft::RoleBinding(v1::RoleBindingDraft {
        resource: format!("{scope}bindings/{}", metadata.name),
        role: role(&spec.role)?.into(),
    }))
}

fn collect<A, B>(
    items: Vec<A>,
    field: &str,
    convert: impl Fn(A) -> Result<B, Failure>,
) -> Result<Vec<B>, Failure> {
    let convert = |(index, item)| {
        convert(item).map_err(|mut failure: Failure| {
            failure.field = format!("{field}[{index}].{}", failure.field);
            failure
        })
    };
    items.into_iter().enumerate().map(convert).collect()
}

fn application(spec: ApplicationSpec) -> Result<v1::Application, Failure> {
    Ok(v1::Application {
        name: spec.name,
        version: spec.version,
        driver: driver(&spec.driver)?.into(),
        num_partitions: spec.num_partitions,
        artifacts: BTreeMap::from([("main".to_owned(), spec.image)]),
        limits: Some(limits(&spec.limits)?),
        on_disconnect: on_disconnect(spec.on_disconnect.as_deref().unwrap_or("keep_running"))?
            .into(),
        stop_grace_ms: match &spec.stop_grace {
            Some(text) => parse::ms(parse::span(text).map_err(|why| bad("stopGrace", &why))?),
            None => DEFAULT_STOP_GRACE_MS,
        },
        env: spec.env.into_iter().map(|(name, value)| (name, value.into())).collect(),
        zones: spec.zones,
    })
}

/// What an application gets to stop in that does not say.
const DEFAULT_STOP_GRACE_MS: u64 = 5_000;

fn deployment(spec: DeploymentSpec) -> Result<v1::DeploymentSpec, Failure> {
    use v1::targets::Targets;
    let targets = match (spec.targets.clusters, spec.targets.selector) {
        (Some(names), None) => Targets::Clusters(v1::ClusterNames { names }),
        (None, Some(labels)) => Targets::Selector(v1::LabelSelector { labels }),
        _ => {
            let failure = Failure::usage(
                "a deployment goes to a list of clusters or to a selector, one of them".into(),
                "write targets.clusters or targets.selector",
            );
            return Err(failure.at("spec.targets"));
        }
    };
    let mut overrides = BTreeMap::new();
    for (name, it) in spec.overrides {
        let limits = it.limits.as_ref().map(limits).transpose().map_err(|mut failure| {
            failure.field = format!("spec.overrides.{name}.{}", failure.field);
            failure
        })?;
        let env = it.env.into_iter().map(|(name, value)| (name, value.into())).collect();
        overrides.insert(name, v1::Override { env, num_partitions: it.num_partitions, limits });
    }
    Ok(v1::DeploymentSpec {
        package: spec.package,
        version: spec.version,
        profile: spec.profile,
        overrides,
        targets: Some(v1::Targets { targets: Some(targets) }),
        strategy: Some(v1::Strategy {
            max_unavailable: spec.strategy.map_or(1, |it| it.max_unavailable),
        }),
    })
}

fn limits(spec: &LimitsSpec) -> Result<v1::Resources, Failure> {
    let cpu = spec.cpu.as_deref().map(parse::cpu_millis).transpose();
    let memory = spec.memory.as_deref().map(parse::bytes).transpose();
    Ok(v1::Resources {
        cpu_millis: cpu.map_err(|why| bad("limits.cpu", &why))?.unwrap_or(100),
        memory_bytes: memory.map_err(|why| bad("limits.memory", &why))?.unwrap_or(64 << 20),
    })
}

impl From<ValueSpec> for v1::Value {
    fn from(spec: ValueSpec) -> Self {
        use v1::value::Value;
        let value = match spec {
            ValueSpec::Literal(text) => Value::Literal(text),
            ValueSpec::Secret { secret } => {
                Value::SecretRef(v1::SecretRef { name: secret.name, key: secret.key })
            }
        };
        Self { value: Some(value) }
    }
}

/// A driver's word.
pub(crate) fn driver(word: &str) -> Result<v1::DriverKind, Failure> {
    match word {
        "exec" => Ok(v1::DriverKind::Exec),
        "wasm" => Ok(v1::DriverKind::Wasm),
        _ => Err(bad("driver", "it is exec or wasm")),
    }
}

/// A policy's word.
pub(crate) fn on_disconnect(word: &str) -> Result<v1::OnDisconnect, Failure> {
    match word {
        "keep_running" => Ok(v1::OnDisconnect::KeepRunning),
        "stop" => Ok(v1::OnDisconnect::Stop),
        "replace" => Ok(v1::OnDisconnect::Replace),
        _ => Err(bad("onDisconnect", "it is keep_running, stop or replace")),
    }
}

/// A role's word.
pub(crate) fn role(word: &str) -> Result<v1::Role, Failure> {
    match word {
        "viewer" => Ok(v1::Role::Viewer),
        "operator" => Ok(v1::Role::Operator),
        "admin" => Ok(v1::Role::Admin),
        _ => Err(bad("role", "it is viewer, operator or admin")),
    }
}

fn bad(field: &str, why: &str) -> Failure {
    let message = format!("{field} cannot be read: {why}");
    Failure::usage(message, &format!("correct {field}: {why}")).at(field)
}
