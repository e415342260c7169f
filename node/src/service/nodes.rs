//! Control nodes as the replicated state knows them.

use crate::{
    freshness::Reads,
    page::Page,
    service::{Nouns, no_tenant, wanted},
};
use api::{
    convert,
    v1::{self, nodes_server::Nodes as Service},
};
use consensus::Ledger;
use model::Key;
use std::ops::Bound::{Excluded, Unbounded};
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Nodes<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Nodes<L> {
    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let call = self.0.shared.granted(request)?;
        let asked = &call.request;
        let page =
            self.0.list(&call, wanted("nodes", asked), asked.freshness()?, |state, after| {
                no_tenant(&asked.tenant)?;
                let from = match after {
                    Some(Key::Node(id)) => Excluded(*id),
                    _ => Unbounded,
                };
                let rows = state.nodes.range((from, Unbounded));
                Ok(Box::new(
                    rows.map(|(id, row)| (Key::Node(*id), convert::access::node_to_proto(row))),
                ))
            });
        let Page { rows: nodes, next: next_page_token, revision } = page.await?;
        Ok(Response::new(v1::ListNodesResponse { nodes, next_page_token, revision }))
    }
}
