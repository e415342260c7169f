//! Images on control nodes: uploaded to a majority, sent to those who run them, kept whole.
//!
//! The node that takes a chunk writes it to its own disk and answers when a majority of the voters has
//! it too; the others are brought up behind it. An upload goes on through any node: any majority of
//! answers contains a node that holds all that was ever acknowledged, and what this node lacks it gets
//! from there first. Reading order: `depot` (this node's disk), `peers` (what others hold, are sent and
//! send), `upload`, `finish`, `repair` (what is registered is here, what is not goes).

mod answer;
mod config;
mod depot;
mod finish;
mod peers;
mod repair;
mod upload;

pub(crate) use answer::field;
pub use config::ArtifactsConfig;
pub(crate) use depot::{Held, Item, Source};
pub(crate) use upload::Chunk;

use crate::{Shared, members::Members, refusal};
use answer::{of_store, of_take};
use artifact::{Digest, Inspector};
use bytes::Bytes;
use consensus::Ledger;
use depot::Depot;
use model::Name;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use storage::{Disk, Fault};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::Status;

/// The images of one node. Clones share everything.
pub(crate) struct Artifacts<L: Ledger, D: Disk> {
    inner: Arc<Inner<L, D>>,
}

impl<L: Ledger, D: Disk> Clone for Artifacts<L, D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<L: Ledger, D: Disk> {
    shared: Shared<L>,
    members: Arc<dyn Members>,
    config: ArtifactsConfig,
    depot: Depot<D>,
    inspector: Inspector,
    pushes: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    /// How far another node is known to be, while somebody pushes to it.
    pushing: Lanes<(model::NodeId, artifact::UploadId), u64>,
    /// One fetch of an image at a time.
    fetching: Lanes<Digest, ()>,
    /// When content was last read back and found good.
    verified: Mutex<BTreeMap<Digest, Instant>>,
    /// Since when content has been without use.
    unused: Mutex<BTreeMap<Digest, Instant>>,
    tasks: TaskTracker,
}

impl<L: Ledger, D: Disk> Artifacts<L, D> {
    /// Opens the store of the node; one process has it at a time. Nothing runs until
    /// [`Artifacts::start`].
    pub(crate) async fn open(
        shared: Shared<L>,
        members: Arc<dyn Members>,
        disk: D,
    ) -> Result<Self, Fault> {
        let config = shared.config.artifacts.clone();
        let (root, clock) = (shared.folders.blobs(), shared.clock.clone());
        let depot = Depot::open(disk, &root, config.clone(), clock).await?;
        let limits = artifact::Limits::default();
        let limits = artifact::Limits {
            image_bytes_max: limits.image_bytes_max.min(config.image_bytes_max),
            ..limits
        };
        let slots = |number: usize| Arc::new(Semaphore::new(number.min(Semaphore::MAX_PERMITS)));
        let inner = Inner {
            depot,
            inspector: Inspector::new(limits),
            pushes: slots(config.pushes_max),
            downloads: slots(config.downloads_max),
            pushing: Lanes::default(),
            fetching: Lanes::default(),
            verified: Mutex::default(),
            unused: Mutex::default(),
            tasks: TaskTracker::new(),
            shared,
            members,
            config,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Keeps what is registered here and whole, until the node stops; what is returned ends when
    /// nothing of it runs any more.
    pub(crate) fn start(&self) -> JoinHandle<()> {
        let (all, stop) = (self.clone(), self.inner.shared.stop.clone());
        self.inner.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = all.repair() => {}
            }
        });
        // The task above lasts as long as the node, so this waits for the end of all.
        let tasks = self.inner.tasks.clone();
        tasks.close();
        tokio::spawn(async move { tasks.wait().await })
    }

    pub(crate) fn shared(&self) -> &Shared<L> {
        &self.inner.shared
    }

    /// Runs work that goes on when its caller has left.
    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let stop = self.inner.shared.stop.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => None,
                done = work => Some(done),
            }
        })
    }

    /// Whether a tenant has registered content, and its size.
    fn registered(&self, tenant: &Name, digest: &Digest) -> Option<u64> {
        let key = (tenant.clone(), model::Digest(*digest.as_bytes()));
        self.inner.shared.ledger.read(|state| state.images.get(&key).map(|it| it.size_bytes))
    }

    /// Whether any tenant has registered content.
    fn is_used(&self, digest: &Digest) -> bool {
        let wanted = model::Digest(*digest.as_bytes());
        let ledger = &self.inner.shared.ledger;
        ledger.read(|state| state.images.iter().any(|((_, digest), _)| *digest == wanted))
    }

    /// How much of an item is here.
    pub(crate) async fn held(&self, item: &Item) -> Result<Held, Status> {
        self.inner.depot.held(item).await.map_err(of_store)
    }

    /// Takes a chunk of another node.
    pub(crate) async fn take(&self, item: &Item, offset: u64, data: Bytes) -> Result<Held, Status> {
        self.touch(&item.digest);
        self.inner.depot.take(item, offset, data, Source::Node).await.map_err(of_take)?;
        self.held(item).await
    }

    /// Content that somebody is busy with is not without use.
    fn touch(&self, digest: &Digest) {
        lock(&self.inner.unused).remove(digest);
    }

    /// A place among those who are sent bytes.
    pub(crate) fn download_slot(&self) -> Result<OwnedSemaphorePermit, Status> {
        let slot = self.inner.downloads.clone().try_acquire_owned();
        slot.map_err(|_full| api::status::overloaded())
    }

    /// Sends the bytes of an item from `offset` to `end`, each chunk as the message `wrap` makes of
    /// it, to a reader that must not stand still.
    pub(crate) fn send<M: Send + 'static>(
        &self,
        item: Item,
        (offset, end): (u64, u64),
        slot: OwnedSemaphorePermit,
        wrap: impl Fn(u64, Bytes) -> M + Send + Sync + 'static,
    ) -> api::BoxStream<'static, Result<M, Status>> {
        let (sender, receiver) = mpsc::channel(2);
        let all = self.clone();
        let sending = self.spawn(async move {
            let stall = Duration::from_millis(all.inner.config.stall_ms);
            let mut offset = offset;
            while offset < end {
                let read = all.inner.depot.bytes(&item, offset, end - offset).await;
                let message = match read {
                    Ok(bytes) if bytes.is_empty() => Err(Status::data_loss("the image is cut")),
                    Ok(bytes) => {
                        let at = offset;
                        offset += bytes.len() as u64;
                        Ok(wrap(at, bytes))
                    }
                    Err(error) => Err(of_store(error)),
                };
                let failed = message.is_err();
                match timeout(stall, sender.send(message)).await {
                    Ok(Ok(())) if !failed => {}
                    _ => break,
                }
            }
            drop(slot);
        });
        drop(sending);
        Box::pin(ReceiverStream::new(receiver))
    }

    /// Makes sure that content is here for a tenant that has registered it. Answers its size.
    pub(crate) async fn for_download(
        &self,
        tenant: &Name,
        digest: Digest,
        deadline: Instant,
    ) -> Result<Item, Status> {
        let mut size = self.registered(tenant, &digest);
        if size.is_none() {
            // Another node may have registered it just now.
            self.inner.shared.linearize(deadline).await?;
            size = self.registered(tenant, &digest);
        }
        let key = model::Key::Image(tenant.clone(), model::Digest(*digest.as_bytes()));
        let unknown = || refusal::of_rejection(&crate::service::unknown(&key));
        let size_bytes = size.ok_or_else(unknown)?;
        let item = Item::copy(tenant, digest, size_bytes).ok_or_else(unknown)?;
        self.ensure(&item).await?;
        Ok(item)
    }
}

/// Values that one caller at a time works on; they last while somebody is interested.
struct Lanes<K, V>(Mutex<BTreeMap<K, Arc<tokio::sync::Mutex<V>>>>);

impl<K, V> Default for Lanes<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone, V: Default> Lanes<K, V> {
    fn of(&self, key: &K) -> Arc<tokio::sync::Mutex<V>> {
        let mut lanes = lock(&self.0);
        lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        lanes.entry(key.clone()).or_default().clone()
    }
}

/// Takes a lock whose critical sections leave the value whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
