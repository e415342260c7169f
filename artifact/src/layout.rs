//! Where content lies: an OCI image layout, so that registries' own tools can read a store.
//!
//! ```text
//! oci-layout              the marker of the layout
//! index.json              an empty index: what refers to what is kept in the replicated state
//! blobs/sha256/<hex>      content, named by its digest
//! uploads/<id>            the first bytes of content that is still arriving
//! uploads/<id>.progress   which of them are durable
//! lock                    held by the process that uses the store
//! ```

use std::path::{Path, PathBuf};

use crate::{Digest, store::UploadId};

/// The media type of an application image, where a registry wants one.
pub const APP_IMAGE_MEDIA_TYPE: &str = "application/vnd.muster.appimage.v1+zip";

/// The content of the layout's marker.
pub(crate) const OCI_LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}\n";

/// The content of an index that names nothing.
pub(crate) const EMPTY_INDEX: &str = concat!(
    "{\"schemaVersion\":2,",
    "\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[]}\n"
);

/// What the name of a progress file ends with; upload ids have no dot.
const PROGRESS: &str = ".progress";

/// The folder in which a store keeps its content, each file named by the SHA-256 of its bytes.
pub fn blobs_folder(root: &Path) -> PathBuf {
    Layout::new(root).blobs()
}

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn marker(&self) -> PathBuf {
        self.root.join("oci-layout")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.to_hex())
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(crate) fn upload(&self, id: &UploadId) -> PathBuf {
        self.uploads().join(id.as_str())
    }

    pub(crate) fn progress(&self, id: &UploadId) -> PathBuf {
        self.uploads().join(format!("{id}{PROGRESS}"))
    }

    /// The upload that a file of the uploads folder belongs to, if it belongs to one.
    pub(crate) fn upload_of(name: &str) -> Option<UploadId> {
        name.strip_suffix(PROGRESS).unwrap_or(name).parse().ok()
    }
}
