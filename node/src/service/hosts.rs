//! Hosts: edge machines as the state knows them.

use crate::{
    freshness::Reads,
    page::Page,
    service::{Nouns, Terms, of_tenant, tenant_of, wanted},
};
use api::{
    convert::{self, draft},
    selector::Selector,
    v1::{self, document::Draft, hosts_server::Hosts as Service, resource::Resource},
};
use consensus::Ledger;
use model::Key;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Hosts<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Hosts<L> {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Host>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        match self.0.get(&call, v1::Kind::Host).await? {
            Resource::Host(found) => Ok(Response::new(found)),
            _ => Err(Status::internal("the row is of another kind")),
        }
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let asked = &call.request;
        let page =
            self.0.list(&call, wanted("hosts", asked), asked.freshness()?, |state, after| {
                let tenant = tenant_of(state, &asked.tenant)?;
                let selector = Selector::parse(&asked.selector)?;
                let rows = of_tenant(&state.hosts, &tenant, after);
                let rows = rows.filter(move |(_, row)| selector.matches(&row.meta.labels));
                Ok(Box::new(rows.map(|((tenant, name), row)| {
                    let key = Key::Host(tenant.clone(), name.clone());
                    (key, convert::host::to_proto(tenant, row))
                })))
            });
        let Page { rows: hosts, next: next_page_token, revision } = page.await?;
        Ok(Response::new(v1::ListHostsResponse { hosts, next_page_token, revision }))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyHostRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let v1::ApplyHostRequest { host, validate_only, request_id } = &call.request;
        let command = draft::apply(host.clone().map(Draft::Host));
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        self.0.deleted(&call, v1::Kind::Host).await
    }

    async fn cordon(
        &self,
        request: Request<v1::CordonHostRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let command = convert::command::cordon(&call.request);
        let v1::CordonHostRequest { validate_only, request_id, .. } = &call.request;
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }

    async fn declare_lost(
        &self,
        request: Request<v1::DeclareHostLostRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let command = convert::command::declare_lost(&call.request);
        let v1::DeclareHostLostRequest { validate_only, request_id, .. } = &call.request;
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }

    async fn distrust(
        &self,
        request: Request<v1::DistrustHostRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let command = convert::command::distrust(call.request.clone());
        let v1::DistrustHostRequest { validate_only, request_id, .. } = &call.request;
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }
}
