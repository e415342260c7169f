//! Several documents at once, all or none. Each needs what the `Apply` of its own noun needs.

use crate::{
    refusal,
    service::{Nouns, Terms},
};
use api::v1::{self, apply_server::Apply as Service};
use consensus::Ledger;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Apply<L: Ledger>(pub(crate) Nouns<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Apply<L> {
    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let call = self.0.shared.granted(request)?;
        let v1::ApplyRequest { documents, validate_only, request_id } = call.request.clone();
        // Converted first: what is too long or malformed is not worth a look at roles.
        let command = api::convert::draft::batch(documents);
        if command.is_ok() {
            for document in &call.request.documents {
                let (requirement, tenant) = api::access::document(document)
                    .map_err(|rejection| refusal::of_rejection(&rejection))?;
                call.also(&self.0.shared, requirement, tenant.as_ref()).await?;
            }
        }
        let terms = Terms { validate_only, request_id: &request_id };
        let outcome = self.0.change(&call, command, terms).await?;
        let answer = api::convert::outcome::apply_response(&outcome);
        answer.map(Response::new).map_err(|rejection| refusal::of_rejection(&rejection))
    }
}
