//! Snapshots: a whole state as a stream of pieces, to and from a file of `storage::snapshot`.
//!
//! ```text
//! | u32 length | header: position, number of rows | u32 length | rows | u32 length | rows | ...
//! ```
//! The position holds the hash of the state, and reading compares it: what was damaged on its way
//! cannot become a state. The same bytes travel to a follower, cut into chunks anywhere.

use crate::{
    entry::Blob,
    keep::Position,
    types::{LeaderId, SnapshotMeta},
};
use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use model::{Key, Loading, Row, State};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{path::PathBuf, sync::Arc, time::Duration};
use storage::{Fault, codec, snapshot::SnapshotName};
use tokio::time::Instant;

/// Name of the file that says this replica differed from the leader.
pub(crate) const DIVERGENCE_NOTE: &str = "diverged";

/// Bytes of rows that one piece holds, about.
const PIECE_BYTES: usize = 256 << 10;
/// Rows encoded, decoded or stored before others have a turn. The thread also answers proposals and
/// heartbeats, and a proposal waits for a few turns: a tenth of a millisecond each is not felt.
pub(crate) const TURN_ROWS: usize = 32;
/// Bytes that one piece may claim.
const PIECE_BYTES_MAX: usize = 64 << 20;

/// Where snapshots are kept.
pub(crate) trait Snapshots: Send + Sync + 'static {
    /// A new one, aside.
    fn create<'a>(
        &'a self,
        meta: &'a SnapshotMeta,
    ) -> BoxFuture<'a, Result<Box<dyn SnapshotWriter>, Fault>>;
    /// The newest.
    fn current(&self) -> BoxFuture<'_, Result<Option<Stored>, Fault>>;
    /// Takes note of a finished one; all older ones go.
    fn finished(&self, stored: Stored) -> BoxFuture<'_, Result<(), Fault>>;
    /// Reads one from its beginning.
    fn reader<'a>(
        &'a self,
        stored: &'a Stored,
    ) -> BoxFuture<'a, Result<Box<dyn SnapshotReader>, Fault>>;
    /// Leaves word that the state of this replica is wrong.
    fn note_divergence(&self, text: String) -> BoxFuture<'_, Result<(), Fault>>;
}

/// A file that is being written.
pub(crate) trait SnapshotWriter: Send + Sync {
    /// Adds bytes.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>>;
    /// Makes it durable, under its name.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Stored, Fault>>;
    /// Removes what was written.
    fn discard(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>>;
}

/// A file that is being read.
pub(crate) trait SnapshotReader: Send + Sync {
    /// The next bytes, `None` at the end.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Fault>>;
}

/// A finished snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) name: SnapshotName,
    pub(crate) meta: SnapshotMeta,
}

/// What Raft hands around for a snapshot.
pub(crate) enum Content {
    /// A stored one, and where.
    Stored(Arc<dyn Snapshots>, Stored),
    /// One that arrived from the leader and has no name yet.
    Received(Box<dyn SnapshotWriter>),
}

#[derive(Serialize, Deserialize)]
enum Header {
    V1 { position: Position, rows: u64 },
}

fn piece<T: Serialize>(value: &T) -> Result<Bytes, Fault> {
    let mut bytes = vec![0; 4];
    codec::encode_into(&mut bytes, value)?;
    let length = bytes.len() - 4;
    match u32::try_from(length) {
        Ok(prefix) if length <= PIECE_BYTES_MAX => {
            bytes[..4].copy_from_slice(&prefix.to_le_bytes());
            Ok(bytes.into())
        }
        Ok(_) | Err(_) => {
            let (bytes, bytes_max) = (length as u64, PIECE_BYTES_MAX as u64);
            Err(Fault::TooLarge { what: "piece of a snapshot", bytes, bytes_max })
        }
    }
}

/// Writes a state to a new file. Whatever its size, nobody else on this thread waits for more than a
/// few rows of it.
pub(crate) async fn write(
    mut writer: Box<dyn SnapshotWriter>,
    position: &Position,
    state: &State,
) -> Result<Stored, Fault> {
    let rows = state.rows_count() as u64;
    writer.write(piece(&Header::V1 { position: position.clone(), rows })?).await?;
    let mut page = Vec::new();
    let mut bytes = 0;
    for (number, (key, row)) in state.rows().enumerate() {
        let encoded = codec::encode(&(key, row))?;
        bytes += encoded.len();
        page.push(Blob(encoded));
        if bytes >= PIECE_BYTES {
            bytes = 0;
            writer.write(piece(&std::mem::take(&mut page))?).await?;
        }
        if number % TURN_ROWS == 0 {
            tokio::task::yield_now().await;
        }
    }
    if !page.is_empty() {
        writer.write(piece(&page)?).await?;
    }
    writer.finish().await
}

/// Copies a stored snapshot to another place.
pub(crate) async fn copy(
    from: &dyn Snapshots,
    stored: &Stored,
    to: &dyn Snapshots,
) -> Result<Stored, Fault> {
    let mut reader = from.reader(stored).await?;
    let mut writer = to.create(&stored.meta).await?;
    while let Some(bytes) = reader.next().await? {
        writer.write(bytes).await?;
    }
    writer.finish().await
}

/// Reads a whole snapshot and checks that it is the state it says.
pub(crate) async fn read(reader: Box<dyn SnapshotReader>) -> Result<(Position, State), Fault> {
    let mut pieces = Pieces { reader, buffer: BytesMut::new(), offset: 0 };
    let Header::V1 { position, rows } = pieces.next().await?;
    let mut loading = Loading::new(position.globals.clone());
    let mut found = 0;
    while found < rows {
        let page: Vec<Blob> = pieces.next().await?;
        if page.is_empty() {
            return Err(pieces.damaged("it has an empty piece"));
        }
        found += page.len() as u64;
        for (number, blob) in page.into_iter().enumerate() {
            let (key, row): (Key, Row) = codec::decode(&blob.0)?;
            loading.put(key, row);
            if number % TURN_ROWS == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    let state = loading.finish();
    match state.hash() == position.hash {
        true => Ok((position, state)),
        false => Err(pieces.damaged("its rows do not have the hash it says")),
    }
}

struct Pieces {
    reader: Box<dyn SnapshotReader>,
    buffer: BytesMut,
    offset: u64,
}

impl Pieces {
    fn damaged(&self, detail: impl Into<String>) -> Fault {
        let path = PathBuf::from("current snapshot");
        Fault::Corrupt { what: "snapshot", path, offset: self.offset, detail: detail.into() }
    }

    async fn fill(&mut self, bytes: usize) -> Result<(), Fault> {
        while self.buffer.len() < bytes {
            match self.reader.next().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Err(self.damaged("it ends before its end")),
            }
        }
        Ok(())
    }

    async fn next<T: DeserializeOwned>(&mut self) -> Result<T, Fault> {
        self.fill(4).await?;
        let length = self.buffer.get_u32_le() as usize;
        if length > PIECE_BYTES_MAX {
            return Err(self.damaged(format!("a piece claims {length} bytes")));
        }
        self.fill(length).await?;
        let bytes = self.buffer.split_to(length);
        self.offset += 4 + length as u64;
        codec::decode(&bytes)
    }
}

/// A snapshot that arrives in chunks.
pub(crate) struct Receiving {
    leader: LeaderId,
    meta: SnapshotMeta,
    writer: Box<dyn SnapshotWriter>,
    next: u64,
    since: Instant,
}

impl Receiving {
    pub(crate) async fn begin(
        snapshots: &dyn Snapshots,
        leader: LeaderId,
        meta: SnapshotMeta,
    ) -> Result<Self, Fault> {
        let writer = snapshots.create(&meta).await?;
        Ok(Self { leader, meta, writer, next: 0, since: Instant::now() })
    }

    /// Whether a chunk belongs to this transfer: the same leader's bytes of the same snapshot, and
    /// not too late.
    pub(crate) fn is_of(&self, whose: (LeaderId, &SnapshotMeta), idle: Duration) -> bool {
        whose == (self.leader, &self.meta) && self.since.elapsed() < idle
    }

    /// Where the next bytes go.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// Gives it up.
    pub(crate) async fn discard(self) -> Result<(), Fault> {
        self.writer.discard().await
    }

    pub(crate) async fn append(&mut self, bytes: Bytes) -> Result<(), Fault> {
        self.next += bytes.len() as u64;
        self.since = Instant::now();
        self.writer.write(bytes).await
    }

    /// All of it has arrived.
    pub(crate) fn into_content(self) -> Content {
        Content::Received(self.writer)
    }
}
