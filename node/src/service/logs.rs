//! Job output, from whichever node holds the session of the host, for as long as its reader may have it.

use super::unknown;
use crate::{
    refusal,
    sessions::{HostKey, Sessions},
};
use api::{
    BoxStream,
    v1::{self, logs_server::Logs as Service, peer_relay_client::PeerRelayClient},
};
use consensus::Ledger;
use model::{Contact, JobKey, Key, Name, NodeId, State};
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Logs<L: Ledger>(pub(crate) Sessions<L>);

#[tonic::async_trait]
impl<L: Ledger> Service for Logs<L> {
    type ReadStream = BoxStream<'static, Result<v1::LogsChunk, Status>>;

    async fn read(
        &self,
        request: Request<v1::ReadLogsRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let shared = self.0.shared();
        let call = shared.granted_in_tenant(request).await?;
        let mut asked = call.request.clone();
        let key = api::convert::job::key_from_proto("job", asked.job.clone());
        let key = key.map_err(|rejection| refusal::of_rejection(&rejection))?;
        let find = || shared.ledger.read(|state| find(state, &key, asked.host.as_deref()));
        let (host, node) = match find() {
            Ok(found) => found,
            // This node may lag behind.
            Err(_) => {
                shared.linearize(call.deadline).await?;
                find()?
            }
        };
        if node == shared.node_id {
            let chunks = Box::pin(self.0.read_logs(&host, &asked).await?);
            return Ok(Response::new(shared.while_granted(&call, chunks)));
        }
        asked.host = Some(host.1.to_string());
        let mut relay = PeerRelayClient::new(shared.peers.channel(node)?);
        let chunks = relay.read_logs(asked).await?.into_inner();
        Ok(Response::new(shared.while_granted(&call, Box::pin(chunks))))
    }
}

/// The host that runs a job, and the node that holds its session.
pub(crate) fn find(
    state: &State,
    key: &JobKey,
    host: Option<&str>,
) -> Result<(HostKey, NodeId), Status> {
    let job = state.jobs.get(key);
    let job = job.ok_or_else(|| refusal::of_rejection(&unknown(&Key::Job(key.clone()))))?;
    let wanted = |name: &Name| host.is_none_or(|host| host == name.as_str());
    let placement = job.placements.iter().rev().find(|placement| wanted(&placement.host));
    let placement = placement.ok_or_else(api::status::host_not_connected)?;
    let contact = state.host(&key.tenant, &placement.host).map(|host| host.contact);
    match contact {
        Some(Contact::Connected { node, .. }) => {
            Ok(((key.tenant.clone(), placement.host.clone()), node))
        }
        Some(Contact::Never | Contact::Lost { .. }) | None => {
            Err(api::status::host_not_connected())
        }
    }
}
