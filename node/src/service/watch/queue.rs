//! What waits for one watcher: whole revisions, and no more than it may keep waiting.

use crate::WatchConfig;
use api::{BoxStream, v1};
use futures::{StreamExt, stream};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What was seen of one revision, and the room it takes in the queue until the last of it has left; or
/// why the watch ends.
pub(super) type Part = Result<(Vec<v1::WatchEvent>, OwnedSemaphorePermit), Status>;

/// What waits for a watcher that reads slowly: whole revisions, bounded by the events in them.
pub(super) struct Queue {
    pub(super) parts: mpsc::Sender<Part>,
    room: Arc<Semaphore>,
    events_max: u32,
}

pub(super) fn queue(config: &WatchConfig) -> (Queue, mpsc::Receiver<Part>) {
    let events_max = u32::try_from(config.queue_events_max).unwrap_or(u32::MAX);
    let max = usize::try_from(events_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS - 1);
    // Each part has an event at least, and one place is kept for the reason of the end.
    let (parts, receiver) = mpsc::channel(max + 1);
    (Queue { parts, room: Arc::new(Semaphore::new(max)), events_max }, receiver)
}

impl Queue {
    /// Puts the events of a revision in, all of them, once there is room; more than the queue holds
    /// need all of it. False if the client has gone.
    pub(super) async fn put(&self, events: Vec<v1::WatchEvent>) -> bool {
        let share = u32::try_from(events.len()).unwrap_or(u32::MAX).min(self.events_max);
        match self.room.clone().acquire_many_owned(share).await {
            Ok(room) => self.parts.send(Ok((events, room))).await.is_ok(),
            Err(_closed) => false,
        }
    }
}

/// What leaves: events one by one, each part making room when its last one has left.
pub(super) fn messages(
    parts: mpsc::Receiver<Part>,
) -> BoxStream<'static, Result<v1::WatchEvent, Status>> {
    let parts = ReceiverStream::new(parts).map(|part| match part {
        Ok((events, room)) => (events.into_iter().map(Ok).collect(), Some(room)),
        Err(end) => (vec![Err(end)], None),
    });
    let events = parts.flat_map(|(messages, room): (Vec<_>, _)| {
        // The room is held by what looks on.
        stream::iter(messages.into_iter().inspect(move |_message| {
            let _held = &room;
        }))
    });
    Box::pin(events)
}
