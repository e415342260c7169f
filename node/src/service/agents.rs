//! Agents: their sessions, each on the stream that the agent opened.

use crate::sessions::Sessions;
use api::{
    BoxStream,
    v1::{self, agents_server::Agents as Service},
};
use consensus::Ledger;
use model::Caller;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The service.
pub(crate) struct Agents<L: Ledger>(pub(crate) Sessions<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Agents<L> {
    type SessionStream = BoxStream<'static, Result<v1::ControlMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let call = self.0.shared().granted(request)?;
        let (Caller::Agent { tenant, host }, Some(key)) = (call.caller, call.key) else {
            return Err(Status::internal("the caller is not an agent"));
        };
        let messages = self.0.open((tenant, host), key, call.request)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}
