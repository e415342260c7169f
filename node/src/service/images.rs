//! Images as the state knows them. Their bytes come and go by `Artifacts`.

use crate::{
    freshness::Reads,
    page::Page,
    service::{Nouns, tenant_of, wanted},
};
use api::{
    convert,
    selector::Selector,
    v1::{self, images_server::Images as Service, resource::Resource},
};
use consensus::Ledger;
use model::{Digest, Key};
use std::ops::Bound::{Excluded, Included, Unbounded};
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Images<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Images<L> {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Image>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        match self.0.get(&call, v1::Kind::Image).await? {
            Resource::Image(found) => Ok(Response::new(found)),
            _ => Err(Status::internal("the row is of another kind")),
        }
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        let asked = &call.request;
        let page =
            self.0.list(&call, wanted("images", asked), asked.freshness()?, |state, after| {
                let tenant = tenant_of(state, &asked.tenant)?;
                let selector = Selector::parse(&asked.selector)?;
                let from = match after {
                    Some(Key::Image(tenant, digest)) => Excluded((tenant.clone(), *digest)),
                    _ => Included((tenant.clone(), Digest([0; 32]))),
                };
                let rows = state.images.range((from, Unbounded));
                let rows = rows.take_while(move |((of, _), _)| *of == tenant);
                let rows = rows.filter(move |(_, row)| selector.matches(&row.meta.labels));
                Ok(Box::new(rows.map(|((tenant, digest), row)| {
                    let key = Key::Image(tenant.clone(), *digest);
                    (key, convert::package::image_to_proto(tenant, row))
                })))
            });
        let Page { rows: images, next: next_page_token, revision } = page.await?;
        Ok(Response::new(v1::ListImagesResponse { images, next_page_token, revision }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted_in_tenant(request).await?;
        self.0.deleted(&call, v1::Kind::Image).await
    }
}
