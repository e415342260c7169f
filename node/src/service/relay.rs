//! What other nodes ask of this one because it holds an agent's session.

use super::logs::find;
use crate::{refusal, sessions::Sessions};
use api::{
    BoxStream,
    v1::{self, peer_relay_server::PeerRelay as Service},
};
use consensus::Ledger;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct PeerRelay<L: Ledger>(pub(crate) Sessions<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for PeerRelay<L> {
    type ReadLogsStream = BoxStream<'static, Result<v1::LogsChunk, Status>>;

    async fn read_logs(
        &self,
        request: Request<v1::ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        let shared = self.0.shared();
        let asked = shared.granted(request)?.request;
        let key = api::convert::job::key_from_proto("job", asked.job.clone());
        let key = key.map_err(|rejection| refusal::of_rejection(&rejection))?;
        let (host, _node) = shared.ledger.read(|state| find(state, &key, asked.host.as_deref()))?;
        // Only the session itself knows whether it is here: the state may lag behind.
        Ok(Response::new(Box::pin(self.0.read_logs(&host, &asked).await?)))
    }
}
