//! Role bindings: who may do what.

use crate::{
    freshness::Reads,
    page::Page,
    service::{Nouns, Terms, no_tenant, wanted},
};
use api::{
    convert::{self, draft},
    v1::{
        self, document::Draft, resource::Resource, role_bindings_server::RoleBindings as Service,
    },
};
use consensus::Ledger;
use model::{Key, Scope};
use std::ops::Bound::{Excluded, Unbounded};
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct RoleBindings<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for RoleBindings<L> {
    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::RoleBinding>, Status> {
        let call = self.0.shared.granted(request)?;
        match self.0.get(&call, v1::Kind::RoleBinding).await? {
            Resource::RoleBinding(found) => Ok(Response::new(found)),
            _ => Err(Status::internal("the row is of another kind")),
        }
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListRoleBindingsResponse>, Status> {
        let call = self.0.shared.granted(request)?;
        let asked = &call.request;
        let page =
            self.0.list(&call, wanted("bindings", asked), asked.freshness()?, |state, after| {
                no_tenant(&asked.tenant)?;
                let from = match after {
                    Some(Key::Binding(operator, scope)) => {
                        Excluded((operator.clone(), scope.clone()))
                    }
                    _ => Unbounded::<(model::Name, Scope)>,
                };
                let rows = state.bindings.range((from, Unbounded));
                Ok(Box::new(rows.map(|((operator, scope), row)| {
                    let key = Key::Binding(operator.clone(), scope.clone());
                    (key, convert::access::binding_to_proto(row))
                })))
            });
        let Page { rows: role_bindings, next: next_page_token, revision } = page.await?;
        let answer = v1::ListRoleBindingsResponse { role_bindings, next_page_token, revision };
        Ok(Response::new(answer))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyRoleBindingRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted(request)?;
        let v1::ApplyRoleBindingRequest { role_binding, validate_only, request_id } = &call.request;
        let command = draft::apply(role_binding.clone().map(Draft::RoleBinding));
        self.0.changed(&call, command, Terms { validate_only: *validate_only, request_id }).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted(request)?;
        self.0.deleted(&call, v1::Kind::RoleBinding).await
    }
}
