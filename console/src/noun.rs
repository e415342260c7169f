//! The kinds of resources as the console knows them: their words, how they are read, and which
//! columns a table of them has.

use crate::{client::Client, failure::Failure, near, render::Column};
use api::v1;
use serde_json::Value;

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noun {
    Tenant,
    Host,
    Cluster,
    Image,
    Package,
    Deployment,
    Job,
    RoleBinding,
    Token,
    Node,
}

/// How new the state must be that a read is answered from; by default it holds every write answered
/// before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Freshness {
    /// Answer from the own state of the node asked, however old: works without a leader
    #[arg(long, conflicts_with = "at_least")]
    pub(crate) stale: bool,
    /// Answer from the own state of the node asked as soon as it is at this revision: asks no leader
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    pub(crate) at_least: u64,
}

/// Which resources of a kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    /// How new.
    pub(crate) freshness: Freshness,
    /// Tenant, for kinds that belong to one.
    pub(crate) tenant: String,
    /// Labels that must match.
    pub(crate) selector: String,
    /// Jobs of this deployment only.
    pub(crate) deployment: Option<String>,
    /// Jobs in this cluster only.
    pub(crate) cluster: Option<String>,
    /// Jobs on this host only.
    pub(crate) host: Option<String>,
}

/// Most rows asked for at once.
const PAGE_SIZE: i32 = 500;

/// Times a list begins anew because the pages of its revision are gone, as when the node that kept them
/// died.
const RELISTS_MAX: u32 = 3;

const NOUNS: &[(Noun, &[&str], v1::Kind)] = &[
    (Noun::Tenant, &["tenant", "tenants"], v1::Kind::Tenant),
    (Noun::Host, &["host", "hosts"], v1::Kind::Host),
    (Noun::Cluster, &["cluster", "clusters"], v1::Kind::Cluster),
    (Noun::Image, &["image", "images"], v1::Kind::Image),
    (Noun::Package, &["package", "packages", "pkg"], v1::Kind::Package),
    (Noun::Deployment, &["deployment", "deployments", "deploy"], v1::Kind::Deployment),
    (Noun::Job, &["job", "jobs"], v1::Kind::Job),
    (Noun::RoleBinding, &["role", "roles", "binding", "bindings"], v1::Kind::RoleBinding),
    (Noun::Token, &["token", "tokens"], v1::Kind::Token),
    (Noun::Node, &["node", "nodes"], v1::Kind::ControlNode),
];

impl std::str::FromStr for Noun {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = NOUNS.iter().find(|(_, words, _)| words.contains(&word));
        found.map(|(noun, ..)| *noun).ok_or_else(|| {
            let all: Vec<_> = NOUNS.iter().map(|(_, words, _)| words[0]).collect();
            format!("there is no kind {word:?}; kinds are {}", all.join(", "))
        })
    }
}

impl Noun {
    /// The word for one.
    pub(crate) fn word(self) -> &'static str {
        NOUNS.iter().find(|(noun, ..)| *noun == self).map_or("", |(_, words, _)| words[0])
    }

    /// Its kind in the API.
    pub(crate) fn kind(self) -> v1::Kind {
        NOUNS.iter().find(|(noun, ..)| *noun == self).map_or(v1::Kind::Unspecified, |it| it.2)
    }

    /// Whether every one of them belongs to a tenant.
    pub(crate) fn is_of_tenant(self) -> bool {
        match self {
            Self::Host
            | Self::Cluster
            | Self::Image
            | Self::Package
            | Self::Deployment
            | Self::Job => true,
            Self::Tenant | Self::RoleBinding | Self::Token | Self::Node => false,
        }
    }

    /// The resource name of the one that a user calls `name`.
    pub(crate) fn resource(self, tenant: &str, name: &str) -> Result<String, Failure> {
        Ok(match self {
            Self::Tenant => format!("tenants/{name}"),
            Self::Host => format!("tenants/{tenant}/hosts/{name}"),
            Self::Cluster => format!("tenants/{tenant}/clusters/{name}"),
            Self::Image => format!("tenants/{tenant}/images/{name}"),
            Self::Package => {
                let (name, version) = name.split_once('@').ok_or_else(|| {
                    Failure::usage(
                        "a package is named with its version".into(),
                        "write NAME@VERSION",
                    )
                })?;
                format!("tenants/{tenant}/packages/{name}/versions/{version}")
            }
            Self::Deployment => format!("tenants/{tenant}/deployments/{name}"),
            Self::Job => format!("tenants/{tenant}/jobs/{name}"),
            Self::RoleBinding => format!("bindings/{name}"),
            Self::Token => format!("tokens/{name}"),
            Self::Node => format!("nodes/{name}"),
        })
    }

    /// Reads one, as JSON.
    pub(crate) async fn get(self, client: &Client, resource: &str) -> Result<Value, Failure> {
        self.get_as(client, resource, Freshness::default()).await
    }

    /// Reads one of a state as new as asked, as JSON.
    pub(crate) async fn get_as(
        self,
        client: &Client,
        resource: &str,
        freshness: Freshness,
    ) -> Result<Value, Failure> {
        let Freshness { stale, at_least } = freshness;
        macro_rules! get {
            ($module:ident :: $client:ident) => {{
                let request = v1::GetRequest { resource: resource.to_owned(), stale, at_least };
                let found = client
                    .call(|channel| {
                        let request = request.clone();
                        async move {
                            v1::$module::$client::new(channel)
                                .max_decoding_message_size(api::limits::RESPONSE_BYTES_MAX)
                                .get(request)
                                .await
                        }
                    })
                    .await?;
                client.json(&found)
            }};
        }
        match self {
            Self::Tenant => get!(tenants_client::TenantsClient),
            Self::Host => get!(hosts_client::HostsClient),
            Self::Cluster => get!(clusters_client::ClustersClient),
            Self::Image => get!(images_client::ImagesClient),
            Self::Package => get!(packages_client::PackagesClient),
            Self::Deployment => get!(deployments_client::DeploymentsClient),
            Self::Job => get!(jobs_client::JobsClient),
            Self::RoleBinding => get!(role_bindings_client::RoleBindingsClient),
            Self::Token | Self::Node => self.get_from_list(client, resource, freshness).await,
        }
    }

    /// For kinds that can only be listed.
    async fn get_from_list(
        self,
        client: &Client,
        resource: &str,
        freshness: Freshness,
    ) -> Result<Value, Failure> {
        let all = self.list(client, &Query { freshness, ..Query::default() }).await?;
        let is_it = |it: &Value| it["meta"]["resource"].as_str() == Some(resource);
        all.into_iter().find(is_it).ok_or_else(|| {
            let message = format!("there is no {resource}");
            Failure::of(
                crate::failure::exit::ERROR,
                "NOT_FOUND",
                message,
                "list what there is with `muster get`",
            )
            .at("resource")
        })
    }

    /// The failure of a verb about one, with the name that was perhaps meant if nobody has this one.
    pub(crate) async fn perhaps(self, client: &Client, name: &str, failure: Failure) -> Failure {
        let missing = failure.code == "NOT_FOUND";
        // There may be a million jobs, and nobody slips in a digest.
        if !missing || matches!(self, Self::Job | Self::Image) {
            return failure;
        }
        let tenant = if self.is_of_tenant() { client.tenant().await } else { Ok(String::new()) };
        let Ok(tenant) = tenant else { return failure };
        let Ok(rows) = self.list(client, &Query { tenant, ..Query::default() }).await else {
            return failure;
        };
        let name_of = |row: &Value| {
            let name = row["meta"]["name"].as_str()?;
            let version = row["version"].as_str().filter(|_| self == Self::Package);
            Some(version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}")))
        };
        let known: Vec<String> = rows.iter().filter_map(name_of).collect();
        match near::nearest(name, known.iter().map(String::as_str)) {
            // It is there: something else is missing.
            Some(meant) if meant == name => failure,
            Some(meant) => failure.then(&format!("did you mean {} {meant}?", self.word())),
            None => failure,
        }
    }

    /// Lists all that match, page by page, as JSON.
    pub(crate) async fn list(self, client: &Client, query: &Query) -> Result<Vec<Value>, Failure> {
        macro_rules! list {
            ($module:ident :: $client:ident, $field:ident, $request:expr) => {
                all_pages(async |page_token: String| {
                    let page = client
                        .call(|channel| {
                            let request = $request(page_token.clone());
                            async move {
                                v1::$module::$client::new(channel)
                                    .max_decoding_message_size(api::limits::RESPONSE_BYTES_MAX)
                                    .list(request)
                                    .await
                            }
                        })
                        .await?;
                    let rows: Result<_, _> =
                        page.$field.iter().map(|row| client.json(row)).collect();
                    Ok((rows?, page.next_page_token))
                })
                .await
            };
        }
        let Freshness { stale, at_least } = query.freshness;
        let plain = |page_token| v1::ListRequest {
            tenant: if self.is_of_tenant() { query.tenant.clone() } else { String::new() },
            page_size: PAGE_SIZE,
            page_token,
            selector: query.selector.clone(),
            stale,
            at_least,
        };
        let jobs = |page_token| v1::ListJobsRequest {
            tenant: query.tenant.clone(),
            page_size: PAGE_SIZE,
            page_token,
            stale,
            at_least,
            deployment: query.deployment.clone(),
            cluster: query.cluster.clone(),
            host: query.host.clone(),
        };
        match self {
            Self::Tenant => list!(tenants_client::TenantsClient, tenants, plain),
            Self::Host => list!(hosts_client::HostsClient, hosts, plain),
            Self::Cluster => list!(clusters_client::ClustersClient, clusters, plain),
            Self::Image => list!(images_client::ImagesClient, images, plain),
            Self::Package => list!(packages_client::PackagesClient, packages, plain),
            Self::Deployment => list!(deployments_client::DeploymentsClient, deployments, plain),
            Self::Job => list!(jobs_client::JobsClient, jobs, jobs),
            Self::RoleBinding => {
                list!(role_bindings_client::RoleBindingsClient, role_bindings, plain)
            }
            Self::Token => list!(tokens_client::TokensClient, tokens, plain),
            Self::Node => list!(nodes_client::NodesClient, nodes, plain),
        }
    }

    /// Columns of a table of them.
    pub(crate) fn columns(self, wide: bool) -> Vec<Column> {
        crate::render::columns(self, wide)
    }
}

/// All rows of a list, of one revision: `page` gives the rows and the token of the next page for the token
/// of a page, which is empty for the first. Begins anew when the pages have gone.
async fn all_pages(
    page: impl AsyncFn(String) -> Result<(Vec<Value>, String), Failure>,
) -> Result<Vec<Value>, Failure> {
    let (mut all, mut token, mut relists) = (Vec::new(), String::new(), 0);
    loop {
        match page(std::mem::take(&mut token)).await {
            Ok((rows, next)) => {
                all.extend(rows);
                if next.is_empty() {
                    return Ok(all);
                }
                token = next;
            }
            Err(gone) if gone.reason == "PAGE_EXPIRED" && relists < RELISTS_MAX => {
                relists += 1;
                all.clear();
            }
            Err(failure) => return Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::exit;
    use std::cell::Cell;

    /// Lists pages `0` to `2` of which the last is gone `times` times; how often was asked.
    async fn list(times: u32) -> (Result<Vec<Value>, Failure>, u32) {
        let (asked, left) = (Cell::new(0), Cell::new(times));
        let listed = all_pages(async |token: String| {
            asked.set(asked.get() + 1);
            match token.as_str() {
                "" => Ok((vec![0.into()], "1".to_owned())),
                "1" => Ok((vec![1.into()], "2".to_owned())),
                _ if left.get() > 0 => {
                    left.set(left.get() - 1);
                    Err(Failure::of(exit::ERROR, "PAGE_EXPIRED", "gone".into(), "list again"))
                }
                _ => Ok((vec![2.into()], String::new())),
            }
        });
        (listed.await, asked.get())
    }

    #[tokio::test]
    async fn a_list_whose_pages_are_gone_begins_anew_and_has_each_row_once() {
        assert_eq!(list(0).await, (Ok(vec![0.into(), 1.into(), 2.into()]), 3));
        assert_eq!(list(RELISTS_MAX).await, (Ok(vec![0.into(), 1.into(), 2.into()]), 12));
        let (given_up, asked) = list(u32::MAX).await;
        assert_eq!((given_up.unwrap_err().reason.as_str(), asked), ("PAGE_EXPIRED", 12));
    }
}
