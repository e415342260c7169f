//! Clusters: sets of hosts.

use crate::{
    freshness::Reads,
    page::Page,
    service::{Nouns, Terms, of_tenant, tenant_of, wanted},
};
use api::{
    convert::{self, draft},
    selector::Selector,
    v1::{self, clusters_server::Clusters as Service, document::Draft, resource::Resource},
};
use consensus::Ledger;
use model::Key;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Clusters<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Clusters<L> {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Cluster>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        match self.0.get(&call, v1::Kind::Cluster).await? {
            Resource::Cluster(found) => Ok(Response::new(found)),
            _ => Err(Status::internal("the row is of another kind")),
        }
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListClustersResponse>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let asked = &call.request;
        let page =
            self.0.list(&call, wanted("clusters", asked), asked.freshness()?, |state, after| {
                let tenant = tenant_of(state, &asked.tenant)?;
                let selector = Selector::parse(&asked.selector)?;
                let rows = of_tenant(&state.clusters, &tenant, after);
                let rows = rows.filter(move |(_, row)| selector.matches(&row.meta.labels));
                Ok(Box::new(rows.map(|((tenant, name), row)| {
                    let key = Key::Cluster(tenant.clone(), name.clone());
                    (key, convert::cluster::to_proto(tenant, row))
                })))
            });
        let Page { rows: clusters, next: next_page_token, revision } = page.await?;
        Ok(Response::new(v1::ListClustersResponse { clusters, next_page_token, revision }))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyClusterRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let v1::ApplyClusterRequest { cluster, validate_only, request_id } = &call.request;
        let command = draft::apply(cluster.clone().map(Draft::Cluster));
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        self.0.deleted(&call, v1::Kind::Cluster).await
    }
}
