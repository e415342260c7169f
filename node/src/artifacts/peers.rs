//! What other control nodes hold, what they are sent, what is got from them.
//!
//! Bytes are pushed from this node's own disk, so a peer that lags is brought up by the same loop that
//! sends a new chunk: it answers with the offset where it is, and the loop goes on there.

use super::{Artifacts, Held, Item, Source, answer};
use api::{
    limits::CHUNK_MESSAGE_BYTES_MAX,
    v1::{self, peer_artifacts_client::PeerArtifactsClient as Client},
};
use artifact::{Begun, UploadId};
use consensus::Ledger;
use futures::{StreamExt, stream::FuturesUnordered};
use model::NodeId;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use storage::Disk;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, transport::Channel};

/// The voters, seen from this node.
pub(super) struct Voters {
    /// The other ones.
    pub(super) others: BTreeSet<NodeId>,
    /// Whether this node is one.
    pub(super) own: usize,
    /// How many are a majority.
    pub(super) majority: usize,
}

/// What a majority of nodes says of an item.
#[derive(Debug)]
pub(super) struct Survey {
    /// Bytes the tenant has sent and this node now holds; all that was acknowledged is in it.
    pub(super) sent: u64,
    /// Number of bytes in all; 0 if nobody knows of it.
    pub(super) size_bytes: u64,
    /// How far each of the others is.
    pub(super) known: BTreeMap<NodeId, u64>,
}

/// What is asked of others about an item.
pub(super) fn asked(item: &Item) -> v1::PeerArtifactRequest {
    v1::PeerArtifactRequest {
        tenant: item.tenant.to_string(),
        digest: item.digest.to_string(),
        size_bytes: item.size_bytes,
    }
}

fn held_of(status: &v1::PeerArtifactStatus) -> Held {
    let v1::PeerArtifactStatus { complete, durable_offset, size_bytes } = *status;
    Held { complete, sent: durable_offset, size_bytes }
}

impl<L: Ledger, D: Disk> Artifacts<L, D> {
    pub(super) fn voters(&self) -> Voters {
        let own = self.inner.shared.node_id;
        let members = self.inner.members.members();
        let voters: BTreeSet<NodeId> =
            members.iter().filter(|member| member.voter).map(|member| member.id).collect();
        Voters {
            own: usize::from(voters.contains(&own)),
            majority: voters.len() / 2 + 1,
            others: voters.into_iter().filter(|id| *id != own).collect(),
        }
    }

    pub(super) fn client(&self, id: NodeId) -> Result<Client<Channel>, Status> {
        let channel = self.inner.shared.peers.channel(id)?;
        Ok(Client::new(channel)
            .max_decoding_message_size(CHUNK_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(CHUNK_MESSAGE_BYTES_MAX))
    }

    /// Asks the nodes `ids` how much they hold, and stops asking when `enough` have answered.
    async fn ask(
        &self,
        item: &Item,
        ids: &BTreeSet<NodeId>,
        enough: usize,
    ) -> BTreeMap<NodeId, Held> {
        let limit = Duration::from_millis(self.inner.config.ask_ms);
        let mut asking: FuturesUnordered<_> = ids
            .iter()
            .map(|id| async move {
                let has = async { self.client(*id)?.has(asked(item)).await };
                (*id, timeout(limit, has).await)
            })
            .collect();
        let mut answers = BTreeMap::new();
        while answers.len() < enough
            && let Some((id, answer)) = asking.next().await
        {
            match answer {
                Ok(Ok(status)) => drop(answers.insert(id, held_of(status.get_ref()))),
                Ok(Err(error)) => tracing::debug!(node = %id, %error, "a node did not say"),
                Err(_elapsed) => tracing::debug!(node = %id, "a node did not say in time"),
            }
        }
        answers
    }

    /// Finds out how far an upload is, and gets here what this node lacks of it.
    pub(super) async fn survey(&self, item: &Item) -> Result<Survey, Status> {
        let voters = self.voters();
        let own = self.held(item).await?;
        let enough = voters.majority.saturating_sub(voters.own);
        let answers = self.ask(item, &voters.others, enough).await;
        if answers.len() < enough {
            return Err(answer::no_majority("say what they hold"));
        }
        let sizes = [item.size_bytes, own.size_bytes].into_iter();
        let sizes = sizes.chain(answers.values().map(|held| held.size_bytes));
        let size_bytes = sizes.into_iter().find(|size| *size > 0).unwrap_or(0);
        let mut known = BTreeMap::new();
        let mut sent = own.sent;
        for (id, held) in &answers {
            if held.size_bytes == size_bytes {
                known.insert(*id, held.durable());
                sent = sent.max(held.sent);
            }
        }
        let item = Item { size_bytes, ..item.clone() };
        if own.durable() < sent {
            let from = known.iter().filter(|(_, durable)| **durable >= sent);
            let from: Vec<NodeId> = from.map(|(id, _)| *id).collect();
            self.pull(&item, &from, sent).await?;
        } else if own.complete {
            sent = self.inner.depot.prove(&item, sent);
        }
        Ok(Survey { sent, size_bytes, known })
    }

    /// Gets the bytes of an item up to `goal` from one of the nodes `from`.
    pub(super) async fn pull(&self, item: &Item, from: &[NodeId], goal: u64) -> Result<(), Status> {
        let mut last = answer::no_majority("send what this one lacks");
        for id in from {
            match self.pull_from(item, *id, goal).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(node = %id, digest = %item.digest, %error, "could not fetch");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn pull_from(&self, item: &Item, id: NodeId, goal: u64) -> Result<(), Status> {
        let stall = Duration::from_millis(self.inner.config.stall_ms);
        let late = |_| Status::deadline_exceeded("the other node stood still");
        let depot = &self.inner.depot;
        let mut offset = match depot.begin(item).await.map_err(answer::of_store)? {
            Begun::Present => return Ok(()),
            Begun::Upload { offset } => offset,
        };
        let wanted = v1::PeerFetchRequest {
            tenant: item.tenant.to_string(),
            digest: item.digest.to_string(),
            offset,
        };
        let mut client = self.client(id)?;
        let chunks = timeout(stall, client.fetch(wanted)).await.map_err(late)??;
        let mut chunks = chunks.into_inner();
        while offset < goal {
            let chunk = timeout(stall, chunks.message()).await.map_err(late)??;
            let Some(chunk) = chunk else {
                return Err(Status::unavailable("the other node has no more of it"));
            };
            let taken = depot.take(item, chunk.offset, chunk.data, Source::Node).await;
            offset = taken.map_err(answer::of_take)?;
        }
        Ok(())
    }

    /// Brings the other voters up to `target`; returns when a majority, this node included, is
    /// there. `from` is where most of them are, `known` where one is for sure.
    pub(super) async fn spread(
        &self,
        item: &Item,
        (from, target): (u64, u64),
        known: &BTreeMap<NodeId, u64>,
        deadline: Instant,
    ) -> Result<(), Status> {
        let voters = self.voters();
        let mut there = voters.own;
        let mut pushing = FuturesUnordered::new();
        for id in voters.others {
            if known.get(&id).is_some_and(|offset| *offset >= target) {
                there += 1;
                continue;
            }
            let Ok(slot) = self.inner.pushes.clone().try_acquire_owned() else { continue };
            let begin = known.get(&id).copied().unwrap_or(from);
            let (all, item) = (self.clone(), item.clone());
            pushing.push(self.spawn(async move {
                let limit = Duration::from_millis(all.inner.config.push_ms);
                let pushed = timeout(limit, all.push(id, &item, (begin, target))).await;
                drop(slot);
                match pushed {
                    Ok(Ok(())) => true,
                    Ok(Err(error)) => {
                        tracing::debug!(node = %id, %error, "could not bring a node up");
                        false
                    }
                    Err(_elapsed) => false,
                }
            }));
        }
        while there < voters.majority {
            let next = tokio::time::timeout_at(deadline, pushing.next()).await;
            match next {
                Ok(Some(Ok(Some(true)))) => there += 1,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Err(answer::no_majority("store the chunk")),
            }
        }
        Ok(())
    }

    /// Brings one node up to `target`.
    async fn push(
        &self,
        id: NodeId,
        item: &Item,
        (from, target): (u64, u64),
    ) -> Result<(), Status> {
        let key: (NodeId, UploadId) = (id, item.id.clone());
        let lane = self.inner.pushing.of(&key);
        let mut reached = lane.lock().await;
        if *reached >= target {
            return Ok(());
        }
        let mut client = self.client(id)?;
        let mut offset = from.max(*reached);
        while offset < target {
            let bytes = self.inner.depot.bytes(item, offset, target - offset).await;
            let chunk = v1::PeerChunk {
                tenant: item.tenant.to_string(),
                digest: item.digest.to_string(),
                size_bytes: item.size_bytes,
                offset,
                data: bytes.map_err(answer::of_store)?,
            };
            offset = match client.write_chunk(chunk).await {
                Ok(status) => {
                    let durable = held_of(status.get_ref()).durable();
                    if durable <= offset {
                        return Err(Status::internal("a chunk was taken and is not there"));
                    }
                    durable
                }
                Err(status) => match expected(&status) {
                    Some(expected) if expected < offset => expected,
                    _ => return Err(status),
                },
            };
            *reached = offset;
        }
        Ok(())
    }

    /// Has one node verify and keep an item, or find out that it is bad.
    pub(super) async fn finish_at(&self, id: NodeId, item: &Item) -> Result<bool, Status> {
        let limit = Duration::from_millis(self.inner.config.finish_ms);
        let finish = async { self.client(id)?.finish(asked(item)).await };
        let late = |_| Status::deadline_exceeded("the other node did not finish in time");
        Ok(timeout(limit, finish).await.map_err(late)??.get_ref().complete)
    }

    /// The nodes that have all of an item, as far as they answer.
    pub(super) async fn holders(&self, item: &Item) -> Vec<NodeId> {
        let own = self.inner.shared.node_id;
        let members = self.inner.members.members();
        let others: BTreeSet<NodeId> =
            members.iter().map(|member| member.id).filter(|id| *id != own).collect();
        let answers = self.ask(item, &others, others.len()).await;
        let whole = |held: &Held| held.complete && held.size_bytes == item.size_bytes;
        answers.into_iter().filter(|(_, held)| whole(held)).map(|(id, _)| id).collect()
    }
}

/// The offset that a refusal `UPLOAD_OFFSET` names.
fn expected(status: &Status) -> Option<u64> {
    if status.code() != Code::OutOfRange {
        return None;
    }
    let error = api::status::ClientError::from(status.clone());
    error.metadata.get("offset").and_then(|offset| offset.parse().ok())
}
