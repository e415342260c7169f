//! Raft's log and vote on `storage::log`.
//!
//! Every promise of Raft rests on two lines here: a vote is durable before `save_vote` returns, and
//! an append is reported only after its sync. Both go through one ordered stream, so neither can
//! overtake the other. Faults are passed on; Raft then stops.

use crate::{
    planted::{Planted, PlantedBug},
    types::{LogId, RaftEntry, Types, Vote},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use openraft::{
    OptionalSend,
    storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage},
};
use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
};
use storage::{Disk, Fault, codec, log::Log};

/// Hard states of the log.
pub(crate) const VOTE: u8 = 1;
pub(crate) const PURGED: u8 = 2;
pub(crate) const COMMITTED: u8 = 3;

/// The log of one node. Clones share it.
pub(crate) struct LogStore<D: Disk> {
    log: Log<D>,
    read_bytes_max: u64,
    planted: Planted,
}

impl<D: Disk> Clone for LogStore<D> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), ..*self }
    }
}

impl<D: Disk> LogStore<D> {
    /// Takes over an opened log; finishes a purge that a crash cut short.
    pub(crate) fn new(log: Log<D>, read_bytes_max: u64) -> Result<Self, Fault> {
        let store = Self { log, read_bytes_max, planted: Planted::default() };
        if let Some(purged) = store.state::<LogId>(PURGED)?
            && purged.index >= store.log.first_index()
        {
            store.log.purge_upto(purged.index)?;
        }
        Ok(store)
    }

    /// With what is planted.
    pub(crate) fn with(self, planted: Planted) -> Self {
        Self { planted, ..self }
    }

    /// The newest vote that is held.
    pub(crate) fn vote(&self) -> Result<Option<Vote>, Fault> {
        self.state(VOTE)
    }

    fn state<T: serde::de::DeserializeOwned>(&self, key: u8) -> Result<Option<T>, Fault> {
        self.log.state(key).map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// The entries of a range that are held, at most `bytes_max` bytes of them but one at least.
    async fn read(&self, from: u64, to: u64, bytes_max: u64) -> Result<Vec<RaftEntry>, Fault> {
        loop {
            let first = from.max(self.log.first_index());
            let to = to.min(self.log.next_index());
            if first >= to {
                return Ok(Vec::new());
            }
            match self.log.read(first, to, bytes_max).await {
                Ok(entries) => {
                    return entries.iter().map(|(_, bytes)| codec::decode(bytes)).collect();
                }
                // Purged or truncated since we looked: look again.
                Err(Fault::Missing { index, .. })
                    if index < self.log.first_index() || index >= self.log.next_index() => {}
                Err(fault) => return Err(fault),
            }
        }
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl<D: Disk> RaftLogReader<Types> for LogStore<D> {
    /// A page at a time: after a restart the range is everything since the last checkpoint.
    async fn entries_stream<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> impl futures::Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend {
        let store = self.clone();
        let pages = stream::try_unfold(bounds(&range), move |(from, to)| {
            let store = store.clone();
            async move {
                let page = store.read(from, to, store.read_bytes_max).await?;
                let Some(last) = page.last().map(|entry| entry.log_id.index) else {
                    return Ok::<_, io::Error>(None);
                };
                Ok(Some((stream::iter(page.into_iter().map(Ok)), (last + 1, to))))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let (from, to) = bounds(&range);
        Ok(self.read(from, to, u64::MAX).await?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.vote()?)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        Ok(self.read(start, end, self.read_bytes_max).await?)
    }
}

impl<D: Disk> RaftLogStorage<Types> for LogStore<D> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let last_purged_log_id = self.state::<LogId>(PURGED)?;
        let last_log_id = match self.log.last_index() {
            Some(last) => self.read(last, last + 1, u64::MAX).await?.pop().map(|e| e.log_id),
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        Ok(self.log.save_state(VOTE, Bytes::from(codec::encode(vote)?)).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // It may be lost: then the state is older for a moment after a restart, never wrong.
        Ok(self.log.save_state_later(COMMITTED, Bytes::from(codec::encode(&committed)?))?)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.state::<Option<LogId>>(COMMITTED)?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded: Result<Vec<_>, Fault> = entries
            .into_iter()
            .map(|entry| Ok((entry.log_id.index, Bytes::from(codec::encode(&entry)?))))
            .collect();
        let encoded = encoded?;
        if let Some((first, _)) = encoded.first()
            && self.log.next_index() == 0
            && let Some(before) = first.checked_sub(1)
        {
            // A log that never held anything begins where Raft begins it.
            self.log.purge_upto(before)?;
        }
        if self.planted.is(PlantedBug::AckBeforeSync) {
            self.log.append(encoded, drop).await?;
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let done =
            |result: Result<(), Fault>| callback.io_completed(result.map_err(io::Error::from));
        Ok(self.log.append(encoded, done).await?)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        Ok(self.log.truncate_after(last.map(|id| id.index))?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        // First who it was, then that it is gone: the other order could lose the former.
        self.log.save_state(PURGED, Bytes::from(codec::encode(&upto)?)).await?;
        Ok(self.log.purge_upto(upto.index)?)
    }
}
