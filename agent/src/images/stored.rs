//! The real images: a store of blobs by digest, and a folder for each image unpacked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::fabric::Calls;
use api::v1::{self, artifacts_client::ArtifactsClient};
use artifact::app_image::{Architecture, Manifest, Module, Payload};
use artifact::{Begun, InspectError, Inspector, Store, StoreError, UploadId};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Digest, Name};
use storage::Disk;
use tokio::time::timeout;
use tonic::Status;

use super::{ImageError, Images};
use crate::config::Config;
use crate::guard::spec::ModuleSpec;
use crate::servers::Servers;

/// Largest description of an image, in bytes.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// Rounds over all control nodes in one attempt.
const ROUNDS_MAX: u32 = 2;

/// The images of this host.
pub struct StoredImages<D: Disk> {
    disk: D,
    store: Store<D>,
    inspector: Inspector,
    servers: Arc<Servers>,
    unpacked: PathBuf,
    chunk_bytes: usize,
    idle: Duration,
    kept: usize,
    /// Held while an image is fetched, so that two jobs of one image share the work.
    fetching: Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl<D: Disk> StoredImages<D> {
    /// Opens the cache in the agent's data folder.
    ///
    /// # Errors
    /// A fault of the disk.
    pub async fn open(
        disk: D,
        config: &Config,
        servers: Arc<Servers>,
    ) -> Result<Self, storage::Fault> {
        let root = config.data.join("images");
        let store = Store::open(disk.clone(), &root, config.store.clone(), 0).await?;
        let unpacked = config.data.join("unpacked");
        disk.create_dir(&unpacked).await?;
        Ok(Self {
            disk,
            store,
            inspector: Inspector::new(config.image_limits.clone()),
            servers,
            unpacked,
            chunk_bytes: config.store.chunk_bytes_max as usize,
            idle: Duration::from_millis(config.work.download_idle_ms),
            kept: config.work.images_kept,
            fetching: Mutex::default(),
        })
    }

    fn folder(&self, image: Digest) -> PathBuf {
        self.unpacked.join(hex::encode(image.0))
    }

    fn manifest_path(&self, image: Digest) -> PathBuf {
        self.unpacked.join(format!("{}.json", hex::encode(image.0)))
    }

    async fn is_present(&self, image: Digest) -> Result<bool, ImageError> {
        let both = [self.folder(image), self.manifest_path(image)];
        for path in both {
            if !self.disk.exists(&path).await.map_err(|fault| disk_error(&fault))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn bring(&self, tenant: &Name, image: Digest) -> Result<(), ImageError> {
        let turn = {
            let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            fetching.retain(|_, turn| Arc::strong_count(turn) > 1);
            fetching.entry(image).or_default().clone()
        };
        let _turn = turn.lock().await;
        if self.is_present(image).await? {
            return Ok(());
        }
        self.download(tenant, image).await?;
        self.unpack(image).await
    }

    async fn unpack(&self, image: Digest) -> Result<(), ImageError> {
        let (digest, folder) = (artifact::Digest::from_bytes(image.0), self.folder(image));
        let there = self.disk.exists(&folder).await.map_err(|fault| disk_error(&fault))?;
        let validated = match there {
            true => self.inspector.validate(&self.store, &digest).await,
            false => self.inspector.unpack(&self.store, &digest, folder).await,
        };
        let validated = validated.map_err(|error| {
            let message = format!("image {image}: {}", with_sources(&error));
            match error {
                InspectError::Invalid(artifact::app_image::Invalid::Violations(_)) => {
                    ImageError::permanent(message)
                }
                _ => ImageError::transient(message),
            }
        })?;
        let text = serde_json::to_vec(&validated.manifest)
            .map_err(|error| ImageError::permanent(format!("image {image}: {error}")))?;
        let written = self.disk.replace_file(&self.manifest_path(image), text.into()).await;
        written.map_err(|fault| disk_error(&fault))
    }

    /// Asks the control nodes in turn, each from where the one before was cut.
    async fn download(&self, tenant: &Name, image: Digest) -> Result<(), ImageError> {
        let mut last = ImageError::transient("no control node is known");
        for _ in 0..ROUNDS_MAX {
            for addr in self.servers.known() {
                let Ok(calls) = self.servers.calls(&addr) else { continue };
                match self.download_from(calls, tenant, image).await {
                    Ok(()) => return Ok(()),
                    Err(error) if error.permanent => return Err(error),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    async fn download_from(
        &self,
        calls: Calls,
        tenant: &Name,
        image: Digest,
    ) -> Result<(), ImageError> {
        let digest = artifact::Digest::from_bytes(image.0);
        if self.store.blob(&digest).await.map_err(|fault| disk_error(&fault))?.is_some() {
            return Ok(());
        }
        let id: UploadId = hex::encode(image.0)
            .parse()
            .map_err(|error: artifact::UploadIdError| ImageError::permanent(error.to_string()))?;
        let begun = self.store.uploads().into_iter().find(|upload| upload.id == id);
        let mut write = Write { images: self, id, digest, offset: None, buffer: BytesMut::new() };
        if let Some(upload) = begun {
            write.begin(upload.size_bytes).await?;
            if write.offset == Some(upload.size_bytes) {
                return write.finish().await;
            }
        }
        let asked = v1::DownloadRequest {
            tenant: tenant.to_string(),
            digest: image.to_string(),
            offset: write.offset.unwrap_or(0),
        };
        let mut client = ArtifactsClient::new(calls)
            .max_decoding_message_size(api::limits::CHUNK_MESSAGE_BYTES_MAX);
        let answer = timeout(self.idle, client.download(asked)).await;
        let mut chunks =
            answer.map_err(|_| stalled())?.map_err(|s| refused(image, &s))?.into_inner();
        loop {
            let chunk = timeout(self.idle, chunks.message()).await.map_err(|_| stalled())?;
            let Some(chunk) = chunk.map_err(|status| refused(image, &status))? else { break };
            if write.offset.is_none() {
                write.begin(chunk.size_bytes).await?;
            }
            write.add(&chunk).await?;
        }
        write.finish().await
    }
}

/// A download on its way into the store.
struct Write<'a, D: Disk> {
    images: &'a StoredImages<D>,
    id: UploadId,
    digest: artifact::Digest,
    /// Bytes that are durable; `None` until the size is known.
    offset: Option<u64>,
    buffer: BytesMut,
}

impl<D: Disk> Write<'_, D> {
    async fn begin(&mut self, size_bytes: u64) -> Result<(), ImageError> {
        let begun = self.images.store.begin(&self.id, self.digest, size_bytes, 0).await;
        self.offset = Some(match begun.map_err(|error| store_error(&error))? {
            Begun::Present => size_bytes,
            Begun::Upload { offset } => offset,
        });
        Ok(())
    }

    async fn add(&mut self, chunk: &v1::DownloadChunk) -> Result<(), ImageError> {
        let expected = self.offset.unwrap_or(0) + self.buffer.len() as u64;
        if chunk.offset != expected {
            let message = format!("a chunk begins at {}, not at {expected}", chunk.offset);
            return Err(ImageError::transient(message));
        }
        self.buffer.extend_from_slice(&chunk.data);
        while self.buffer.len() >= self.images.chunk_bytes {
            let full = self.buffer.split_to(self.images.chunk_bytes).freeze();
            self.write(full).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), ImageError> {
        let offset = self.offset.unwrap_or(0);
        let written = self.images.store.write(&self.id, offset, bytes, 0).await;
        self.offset = Some(written.map_err(|error| store_error(&error))?);
        Ok(())
    }

    async fn finish(mut self) -> Result<(), ImageError> {
        let rest = self.buffer.split().freeze();
        if !rest.is_empty() {
            self.write(rest).await?;
        }
        match self.images.store.finish(&self.id, 0).await {
            Ok(_blob) => Ok(()),
            Err(error) => Err(store_error(&error)),
        }
    }
}

impl<D: Disk> Images for StoredImages<D> {
    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<Digest>, ImageError>> {
        async move {
            let names = self.disk.list(&self.unpacked).await.map_err(|fault| disk_error(&fault))?;
            let mut present = BTreeSet::new();
            for name in names {
                let Some(image) = digest_of(&name) else { continue };
                if self.is_present(image).await? {
                    present.insert(image);
                }
            }
            Ok(present)
        }
        .boxed()
    }

    fn fetch<'a>(
        &'a self,
        tenant: &'a Name,
        image: Digest,
    ) -> BoxFuture<'a, Result<(), ImageError>> {
        self.bring(tenant, image).boxed()
    }

    fn modules(&self, image: Digest) -> BoxFuture<'_, Result<Vec<ModuleSpec>, ImageError>> {
        async move {
            let path = self.manifest_path(image);
            let text = self.disk.read_file(&path, MANIFEST_BYTES_MAX).await;
            let text = text.map_err(|fault| disk_error(&fault))?;
            let manifest: Manifest = serde_json::from_slice(&text)
                .map_err(|error| ImageError::transient(format!("{}: {error}", path.display())))?;
            let folder = self.folder(image);
            manifest.modules.iter().map(|module| spec_of(module, &manifest, &folder)).collect()
        }
        .boxed()
    }

    fn retain(
        &self,
        in_use: BTreeSet<Digest>,
    ) -> BoxFuture<'_, Result<BTreeSet<Digest>, ImageError>> {
        async move {
            let (unpacked, kept) = (self.unpacked.clone(), self.kept);
            let pruned = blocking(move || prune(&unpacked, &in_use, kept)).await;
            let gone = pruned.map_err(|error| ImageError::transient(error.to_string()))?;
            for image in gone {
                let digest = artifact::Digest::from_bytes(image.0);
                self.store.delete(&digest).await.map_err(|error| store_error(&error))?;
                tracing::info!(%image, "removed an image that is not used any more");
            }
            self.present().await
        }
        .boxed()
    }
}

/// What a module is to the driver.
fn spec_of(module: &Module, manifest: &Manifest, folder: &Path) -> Result<ModuleSpec, ImageError> {
    let file = match &module.payload {
        Payload::Wasm(file) => file,
        Payload::Exec(files) => Architecture::from_name(std::env::consts::ARCH)
            .and_then(|here| files.get(&here))
            .ok_or_else(|| {
                let here = std::env::consts::ARCH;
                ImageError::permanent(format!(
                    "module {} has no executable for {here}",
                    module.name
                ))
            })?,
    };
    let below = format!("{}/", module.folder);
    let inside = manifest.statics.iter().find(|found| found.folder.starts_with(&below));
    let beside = || manifest.statics.iter().find(|found| !found.folder.contains('/'));
    let static_dir = inside.or_else(beside).map(|found| folder.join(&found.folder));
    Ok(ModuleSpec {
        name: module.name.clone(),
        path: folder.join(&file.path),
        compiled: None,
        static_dir,
        args: module.args.clone(),
        env: module.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    })
}

/// Removes folders of images that are not used, except the newest `kept` of each application.
fn prune(unpacked: &Path, in_use: &BTreeSet<Digest>, kept: usize) -> io::Result<Vec<Digest>> {
    let mut unused = BTreeMap::<String, Vec<_>>::new();
    for entry in fs::read_dir(unpacked)? {
        let entry = entry?;
        let Some(image) = entry.file_name().to_str().and_then(digest_of) else { continue };
        if in_use.contains(&image) {
            continue;
        }
        let described = fs::read(unpacked.join(format!("{}.json", hex::encode(image.0))));
        let manifest =
            described.ok().and_then(|text| serde_json::from_slice::<Manifest>(&text).ok());
        let name = manifest.map(|manifest| manifest.name).unwrap_or_default();
        unused.entry(name).or_default().push((entry.metadata()?.modified()?, image));
    }
    let mut gone = Vec::new();
    for (_, mut images) in unused {
        images.sort_unstable();
        images.truncate(images.len().saturating_sub(kept));
        for (_, image) in images {
            let folder = unpacked.join(hex::encode(image.0));
            // The description goes first: without it the folder means nothing.
            drop(fs::remove_file(folder.with_extension("json")));
            fs::remove_dir_all(&folder)?;
            gone.push(image);
        }
    }
    Ok(gone)
}

/// Runs file operations where they may block.
#[expect(clippy::disallowed_methods, reason = "the images' folder is a seam of drivers")]
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn digest_of(name: &str) -> Option<Digest> {
    let digest = artifact::Digest::from_hex(name).ok()?;
    Some(Digest(*digest.as_bytes()))
}

fn disk_error(fault: &storage::Fault) -> ImageError {
    ImageError::transient(with_sources(fault))
}

fn store_error(error: &StoreError) -> ImageError {
    ImageError::transient(with_sources(error))
}

fn stalled() -> ImageError {
    ImageError::transient("a control node sent nothing for too long")
}

fn refused(image: Digest, status: &Status) -> ImageError {
    let text = api::status::ClientError::from(status.clone());
    ImageError::transient(format!("could not fetch image {image}: {text}"))
}

/// An error with its causes in one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}
