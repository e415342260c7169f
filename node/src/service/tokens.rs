//! Join tokens: made here, shown once, kept as a hash.

use crate::{
    freshness::Reads,
    page::Page,
    refusal,
    service::{Nouns, no_tenant, wanted},
};
use api::{
    convert,
    reason::bad_field,
    v1::{self, tokens_server::Tokens as Service},
};
use consensus::Ledger;
use identity::JoinToken;
use model::{Command, Key, Name, Rejection};
use std::ops::Bound::{Excluded, Unbounded};
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Tokens<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Tokens<L> {
    async fn create(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let shared = &self.0.shared;
        let call = shared.granted(request)?;
        let refused = |rejection: Rejection| refusal::of_rejection(&rejection);
        let v1::CreateTokenRequest { kind, ttl_ms, uses } = call.request.clone();
        let kind = convert::access::token_kind_from_proto(kind).map_err(refused)?;
        let ttl_ms = if ttl_ms == 0 { shared.config.server.token_ttl_ms } else { ttl_ms };
        let ttl_max_ms = shared.config.server.token_ttl_max_ms;
        if ttl_ms > ttl_max_ms {
            let message = format!("a token works for at most {ttl_max_ms} ms");
            return Err(refused(bad_field("ttl_ms", message, "choose a shorter time")));
        }
        let token = JoinToken::generate(shared.authority.sha256(), &*shared.entropy)
            .map_err(|error| Status::internal(error.to_string()))?;
        let id = Name::new(token.id()).map_err(|bad| Status::internal(bad.to_string()))?;
        let expires_at = shared.clock.now().plus_ms(ttl_ms);
        let command = Command::CreateToken {
            id: id.clone(),
            kind,
            secret_hash: token.hash().to_string(),
            expires_at,
            uses: uses.max(1),
        };
        shared.decided(call.caller.clone(), None, command, call.deadline).await?;
        Ok(Response::new(v1::CreateTokenResponse {
            token: token.to_string(),
            resource: api::resource::format(&Key::Token(id)).unwrap_or_default(),
            expires_at: convert::time_to_proto(expires_at),
        }))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let call = self.0.shared.granted(request)?;
        let asked = &call.request;
        let page =
            self.0.list(&call, wanted("tokens", asked), asked.freshness()?, |state, after| {
                no_tenant(&asked.tenant)?;
                let from = match after {
                    Some(Key::Token(id)) => Excluded(id.clone()),
                    _ => Unbounded,
                };
                let rows = state.tokens.range((from, Unbounded));
                Ok(Box::new(rows.map(|(id, row)| {
                    (Key::Token(id.clone()), convert::access::token_to_proto(row))
                })))
            });
        let Page { rows: tokens, next: next_page_token, revision } = page.await?;
        Ok(Response::new(v1::ListTokensResponse { tokens, next_page_token, revision }))
    }

    async fn revoke(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.0.shared.granted(request)?;
        self.0.deleted(&call, v1::Kind::Token).await
    }
}
