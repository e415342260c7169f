//! Packages: immutable versions of what can be deployed.

use crate::{
    freshness::Reads,
    page::Page,
    service::{Nouns, Terms, first_name, tenant_of, wanted},
};
use api::{
    convert::{self, draft},
    selector::Selector,
    v1::{self, document::Draft, packages_server::Packages as Service, resource::Resource},
};
use consensus::Ledger;
use model::Key;
use std::ops::Bound::{Excluded, Included, Unbounded};
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Packages<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Packages<L> {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Package>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        match self.0.get(&call, v1::Kind::Package).await? {
            Resource::Package(found) => Ok(Response::new(found)),
            _ => Err(Status::internal("the row is of another kind")),
        }
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListPackagesResponse>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let asked = &call.request;
        let page =
            self.0.list(&call, wanted("packages", asked), asked.freshness()?, |state, after| {
                let tenant = tenant_of(state, &asked.tenant)?;
                let selector = Selector::parse(&asked.selector)?;
                let from = match after {
                    Some(Key::Package(tenant, name, version)) => {
                        Excluded((tenant.clone(), name.clone(), version.clone()))
                    }
                    _ => Included((tenant.clone(), first_name(&tenant), String::new())),
                };
                let rows = state.packages.range((from, Unbounded));
                let rows = rows.take_while(move |((of, ..), _)| *of == tenant);
                let rows = rows.filter(move |(_, row)| selector.matches(&row.meta.labels));
                Ok(Box::new(rows.map(|((tenant, name, version), row)| {
                    let key = Key::Package(tenant.clone(), name.clone(), version.clone());
                    (key, convert::package::to_proto(tenant, row))
                })))
            });
        let Page { rows: packages, next: next_page_token, revision } = page.await?;
        Ok(Response::new(v1::ListPackagesResponse { packages, next_page_token, revision }))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyPackageRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let v1::ApplyPackageRequest { package, validate_only, request_id } = &call.request;
        let command = draft::apply(package.clone().map(Draft::Package));
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        self.0.deleted(&call, v1::Kind::Package).await
    }
}
