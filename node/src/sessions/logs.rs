//! Job output on its way from a session to whoever asked for it.
//!
//! Between the two lies a bounded queue. A reader that is slower than its queue is cut, because a session
//! waits for nobody: its leases travel on the same stream. A reader that goes is noticed by the drop of its
//! stream, and the agent is told to stop sending.

use api::v1;
use std::{
    collections::BTreeMap,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

type Chunk = Result<v1::LogsChunk, Status>;

/// What a session is asked.
pub(super) enum LogAsk {
    /// To send a log.
    Start(v1::LogRequest, Reader),
    /// To end one.
    Cancel(u64),
}

/// The end of the queue that the session holds.
pub(super) struct Reader {
    chunks: mpsc::Sender<Chunk>,
    /// The place kept for the reason of the end.
    last_word: mpsc::OwnedPermit<Chunk>,
}

impl Reader {
    fn end(self, why: Option<Status>) {
        if let Some(why) = why {
            self.last_word.send(Err(why));
        }
    }
}

/// The output, as the client's call streams it.
pub(crate) struct LogStream {
    id: u64,
    chunks: mpsc::Receiver<Chunk>,
    asks: mpsc::Sender<LogAsk>,
    _slot: OwnedSemaphorePermit,
}

impl LogStream {
    pub(super) async fn begin(
        id: u64,
        asked: &v1::ReadLogsRequest,
        asks: mpsc::Sender<LogAsk>,
        (slot, parts_max): (OwnedSemaphorePermit, usize),
    ) -> Result<Self, Status> {
        let (sender, chunks) = mpsc::channel(parts_max.max(1) + 1);
        let reserved = sender.clone().reserve_owned().await;
        let last_word = reserved.map_err(|_| api::status::host_not_connected())?;
        let request = v1::LogRequest {
            id,
            key: asked.job.clone(),
            stream: asked.stream,
            follow: asked.follow,
            tail_lines: asked.tail_lines,
            timestamps: asked.timestamps,
        };
        let reader = Reader { chunks: sender, last_word };
        let begun = asks.send(LogAsk::Start(request, reader)).await;
        begun.map_err(|_| api::status::host_not_connected())?;
        Ok(Self { id, chunks, asks, _slot: slot })
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        // A session that is over or busy notices by the closed queue.
        drop(self.asks.try_send(LogAsk::Cancel(self.id)));
    }
}

impl futures::Stream for LogStream {
    type Item = Chunk;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Chunk>> {
        self.chunks.poll_recv(cx)
    }
}

/// The logs that a session is sending.
#[derive(Default)]
pub(super) struct Readers(BTreeMap<u64, Reader>);

impl Readers {
    pub(super) fn add(&mut self, id: u64, reader: Reader) {
        self.0.insert(id, reader);
    }

    /// Whether the log was under way.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        self.0.remove(&id).is_some()
    }

    /// Passes a part on; false if nobody reads it any more and the agent has to be told.
    pub(super) fn pass(&mut self, part: v1::LogPart) -> bool {
        let Some(reader) = self.0.get(&part.id) else { return true };
        let chunk = v1::LogsChunk { stream: part.stream, data: part.data, time: part.time };
        match reader.chunks.try_send(Ok(chunk)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.0.remove(&part.id);
                false
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                if let Some(reader) = self.0.remove(&part.id) {
                    let why = "the log was read too slowly, and cut";
                    reader.end(Some(Status::resource_exhausted(why)));
                }
                false
            }
        }
    }

    /// A log is over.
    pub(super) fn end(&mut self, end: v1::LogEnd) {
        let Some(reader) = self.0.remove(&end.id) else { return };
        reader.end(end.rejection.map(|found| match api::convert::rejection::from_proto(found) {
            Ok(rejection) | Err(rejection) => api::status::rejected(&rejection),
        }));
    }

    /// The session is over, and so are its logs.
    pub(super) fn end_all(&mut self) {
        for (_, reader) in std::mem::take(&mut self.0) {
            reader.end(Some(api::status::host_not_connected()));
        }
    }
}
