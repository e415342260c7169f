//! The snapshots of one node on its [`Disk`].

use crate::{
    snapshot::{DIVERGENCE_NOTE, REBUILT_NOTE, SnapshotReader, SnapshotWriter, Snapshots, Stored},
    types::SnapshotMeta,
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};
use storage::{
    Disk, DiskFile, Fault, codec,
    snapshot::{self, SnapshotConfig, SnapshotName},
};
use tokio::sync::Mutex;

/// Largest note read, in bytes.
const NOTE_BYTES_MAX: u64 = 64 << 10;

/// A directory of snapshots, of which only the newest is kept.
pub(crate) struct SnapshotFiles<D> {
    disk: D,
    dir: PathBuf,
    files: snapshot::Snapshots<D>,
    /// Keeps the names of one life apart.
    next: AtomicU64,
    current: Mutex<Option<Stored>>,
}

impl<D: Disk> SnapshotFiles<D> {
    /// Opens the directory, makes it if needed, and reads the newest snapshot through.
    pub(crate) async fn open(disk: D, dir: &Path) -> Result<Self, Fault> {
        let config = SnapshotConfig::new();
        let files = snapshot::Snapshots::open(disk.clone(), dir, config).await?;
        let (newest, _) = files.newest_whole().await?;
        let current = match newest {
            Some(reader) => {
                let StoredMeta::V1(meta) = codec::decode(reader.meta())?;
                Some(Stored { name: reader.name().clone(), meta })
            }
            None => None,
        };
        let (next, current) = (AtomicU64::new(0), Mutex::new(current));
        Ok(Self { disk, dir: dir.to_path_buf(), files, next, current })
    }

    /// What the last life of this replica found out about its state: that is rebuilt once from each
    /// snapshot that it can be rebuilt from.
    pub(crate) async fn divergence(&self) -> Result<Divergence, Fault> {
        let (note, before) = (self.dir.join(DIVERGENCE_NOTE), self.dir.join(REBUILT_NOTE));
        if !self.disk.exists(&note).await? {
            return Ok(Divergence::None);
        }
        let rebuilt = self.disk.exists(&before).await?
            && self.first_line(&before).await? == self.basis().await;
        Ok(if rebuilt { Divergence::Again { note } } else { Divergence::Found })
    }

    /// What the state would be rebuilt from now.
    async fn basis(&self) -> String {
        let basis = self.current.lock().await.as_ref().map(|stored| stored.name.file());
        format!("rebuilt from {}", basis.as_deref().unwrap_or("the log"))
    }

    /// Puts the note of a divergence away, once the state that it is about is set aside.
    pub(crate) async fn put_divergence_away(&self) -> Result<(), Fault> {
        let (note, before) = (self.dir.join(DIVERGENCE_NOTE), self.dir.join(REBUILT_NOTE));
        let basis = self.basis().await;
        let text = self.disk.read_file(&note, NOTE_BYTES_MAX).await?;
        let text = format!("{basis}\n{}", String::from_utf8_lossy(&text));
        self.disk.replace_file(&before, Bytes::from(text)).await?;
        self.disk.remove(&note).await?;
        self.disk.sync_dir(&self.dir).await
    }

    async fn first_line(&self, path: &Path) -> Result<String, Fault> {
        let text = self.disk.read_file(path, NOTE_BYTES_MAX).await?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

/// What a replica found out about its own state.
pub(crate) enum Divergence {
    /// Nothing.
    None,
    /// It was not that of the majority.
    Found,
    /// It was not, again, after it was rebuilt from the snapshot there is.
    Again {
        /// What was found.
        note: PathBuf,
    },
}

/// What stands beside the content of a file. Appended only.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) enum StoredMeta {
    V1(SnapshotMeta),
}

impl<D: Disk> Snapshots for SnapshotFiles<D> {
    fn create<'a>(
        &'a self,
        meta: &'a SnapshotMeta,
    ) -> BoxFuture<'a, Result<Box<dyn SnapshotWriter>, Fault>> {
        async move {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let (order, term) = match &meta.last_log_id {
                Some(log_id) => (log_id.index + 1, log_id.committed_leader_id().term),
                None => (0, 0),
            };
            let name = SnapshotName { order, id: format!("term-{term}-{number}") };
            let bytes = codec::encode(&StoredMeta::V1(meta.clone()))?;
            let file = self.files.create(name, Bytes::from(bytes)).await?;
            let writer: Box<dyn SnapshotWriter> = Box::new(Writing { file, meta: meta.clone() });
            Ok(writer)
        }
        .boxed()
    }

    fn current(&self) -> BoxFuture<'_, Result<Option<Stored>, Fault>> {
        async move { Ok(self.current.lock().await.clone()) }.boxed()
    }

    fn finished(&self, stored: Stored) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            let mut current = self.current.lock().await;
            if current.as_ref().is_none_or(|current| current.name < stored.name) {
                *current = Some(stored);
            }
            self.files.retain(1).await
        }
        .boxed()
    }

    fn reader<'a>(
        &'a self,
        stored: &'a Stored,
    ) -> BoxFuture<'a, Result<Box<dyn SnapshotReader>, Fault>> {
        async move {
            let file = self.files.reader(&stored.name).await?;
            let reader: Box<dyn SnapshotReader> = Box::new(Reading(file));
            Ok(reader)
        }
        .boxed()
    }

    fn note(&self, name: &'static str, text: String) -> BoxFuture<'_, Result<PathBuf, Fault>> {
        let path = self.dir.join(name);
        async move {
            self.disk.replace_file(&path, Bytes::from(text)).await?;
            Ok(path)
        }
        .boxed()
    }
}

struct Writing<D: Disk> {
    file: snapshot::SnapshotWriter<D>,
    meta: SnapshotMeta,
}

impl<D: Disk> SnapshotWriter for Writing<D> {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        async move { self.file.write(&bytes).await }.boxed()
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Stored, Fault>> {
        async move { Ok(Stored { name: self.file.finish().await?, meta: self.meta }) }.boxed()
    }

    fn discard(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        self.file.discard().boxed()
    }
}

/// A stored snapshot as the rest of this room reads it.
pub(crate) struct Reading<F>(pub(crate) snapshot::SnapshotReader<F>);

impl<F: DiskFile> SnapshotReader for Reading<F> {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Fault>> {
        self.0.next_chunk().boxed()
    }
}
