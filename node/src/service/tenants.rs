//! Tenants: who owns everything else.

use crate::{
    freshness::{Freshness, Reads},
    page::Page,
    service::{Nouns, Terms, no_tenant, wanted},
};
use api::{
    convert::{self, draft},
    selector::Selector,
    v1::{self, document::Draft, resource::Resource, tenants_server::Tenants as Service},
};
use consensus::Ledger;
use model::{Key, Name, Role};
use std::ops::Bound::{Excluded, Unbounded};
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Tenants<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Tenants<L> {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Tenant>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        match self.0.get(&call, v1::Kind::Tenant).await? {
            Resource::Tenant(found) => Ok(Response::new(found)),
            _ => Err(Status::internal("the row is of another kind")),
        }
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        let call = self.0.shared.granted(request)?;
        let asked = &call.request;
        let wanted = wanted("tenants", asked);
        self.0.shared.fresh(asked.freshness()?, call.deadline).await?;
        // By the roles of now, not by those of the revision that the pages are of.
        let visible = self.0.shared.ledger.read(|state| call.visibility(state, Role::Viewer));
        let page = self.0.list(&call, wanted, Freshness::Stale, move |state, after| {
            no_tenant(&asked.tenant)?;
            let selector = Selector::parse(&asked.selector)?;
            let from = match after {
                Some(Key::Tenant(name)) => Excluded(name.clone()),
                _ => Unbounded,
            };
            let rows = state.tenants.range((from, Unbounded));
            let seen = move |name: &Name| {
                identity::Name::new(name.as_str()).is_ok_and(|name| visible.contains(&name))
            };
            let rows =
                rows.filter(move |(name, row)| seen(name) && selector.matches(&row.meta.labels));
            Ok(Box::new(
                rows.map(|(name, row)| (Key::Tenant(name.clone()), convert::tenant::to_proto(row))),
            ))
        });
        let Page { rows: tenants, next: next_page_token, revision } = page.await?;
        Ok(Response::new(v1::ListTenantsResponse { tenants, next_page_token, revision }))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyTenantRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted(request)?;
        let v1::ApplyTenantRequest { tenant, validate_only, request_id } = &call.request;
        let command = draft::apply(tenant.clone().map(Draft::Tenant));
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted(request)?;
        self.0.deleted(&call, v1::Kind::Tenant).await
    }
}
