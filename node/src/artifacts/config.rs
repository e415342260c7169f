//! Bounds on images that come, go and are kept on one control node.

use serde::{Deserialize, Serialize};

/// Images on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArtifactsConfig {
    /// Largest image, in bytes; above 1 GiB the rules refuse it anyway.
    pub image_bytes_max: u64,
    /// Largest chunk of an upload or download, in bytes; at most 1 MiB.
    pub chunk_bytes_max: u32,
    /// Smallest chunk of an upload that is not its last, in bytes.
    pub chunk_bytes_min: u32,
    /// Uploads at a time; one more is refused.
    pub uploads_max: usize,
    /// Announced sizes of all uploads together, in bytes.
    pub uploads_bytes_max: u64,
    /// An upload that nobody has touched for so long is removed, in ms.
    pub upload_idle_ms: u64,
    /// How long another node may take to say what it holds, in ms.
    pub ask_ms: u64,
    /// How long another node may take to bring itself up to an acknowledged chunk, in ms. It goes on
    /// after the chunk was acknowledged without it.
    pub push_ms: u64,
    /// Chunks at a time on their way to other nodes.
    pub pushes_max: usize,
    /// How long verifying and registering an upload may take, in ms.
    pub finish_ms: u64,
    /// How long a transfer may stand still before it is cut, in ms.
    pub stall_ms: u64,
    /// Downloads at a time, of agents, operators and nodes; one more is refused.
    pub downloads_max: usize,
    /// Pause between two comparisons of what is registered with what is on the disk, in ms.
    pub sweep_ms: u64,
    /// A change of the state is followed by a look for missing images after so long, in ms.
    pub settle_ms: u64,
    /// An image is read back and compared with its digest so often, in ms.
    pub verify_every_ms: u64,
    /// An image that no tenant has registered is kept for so long, in ms.
    pub unused_grace_ms: u64,
    /// Damaged images that are kept aside for inspection.
    pub aside_max: usize,
}

impl Default for ArtifactsConfig {
    fn default() -> Self {
        Self {
            image_bytes_max: 1 << 30,
            chunk_bytes_max: 1 << 20,
            chunk_bytes_min: 64 << 10,
            uploads_max: 32,
            uploads_bytes_max: 4 << 30,
            upload_idle_ms: 600_000,
            ask_ms: 2_000,
            push_ms: 10_000,
            pushes_max: 256,
            finish_ms: 120_000,
            stall_ms: 10_000,
            downloads_max: 64,
            sweep_ms: 30_000,
            settle_ms: 500,
            verify_every_ms: 24 * 60 * 60 * 1_000,
            unused_grace_ms: 600_000,
            aside_max: 4,
        }
    }
}

impl ArtifactsConfig {
    /// Largest chunk, in bytes: what is configured, as far as messages carry it.
    pub(crate) fn chunk_bytes(&self) -> u32 {
        let most = u32::try_from(api::limits::CHUNK_BYTES_MAX).unwrap_or(u32::MAX);
        self.chunk_bytes_max.clamp(1, most)
    }

    /// The bounds of the store below. It takes parts of chunks, where a copy is brought up to
    /// another, and has room for copies of registered images beside the uploads.
    pub(crate) fn store(&self) -> artifact::StoreConfig {
        artifact::StoreConfig {
            chunk_bytes_max: self.chunk_bytes(),
            chunk_bytes_min: 1,
            blob_bytes_max: self.image_bytes_max,
            uploads_max: self.uploads_max.saturating_mul(2),
            uploads_bytes_max: self.uploads_bytes_max.saturating_add(4 * self.image_bytes_max),
            upload_idle_ms: self.upload_idle_ms,
        }
    }
}
