//! Images on this host: fetched by digest from any control node, verified, unpacked once.
//!
//! A download goes on where the one before was cut, at whichever node answers. What is unpacked was
//! validated as a whole and has the digest that was ordered; the description of its modules lies beside
//! it, so that starting a job reads no image. [`FakeImages`] is the simulation's.

pub mod stored;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Digest, Name};

use crate::driver::DriverKind;
use crate::guard::spec::ModuleSpec;

pub use stored::StoredImages;

/// Why an image is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    /// Whether the same image will fail again: it is not valid, or not for this machine.
    pub permanent: bool,
    /// One line for a person.
    pub message: String,
}

impl ImageError {
    /// May be there later.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { permanent: false, message: message.into() }
    }

    /// Will never do on this host.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { permanent: true, message: message.into() }
    }
}

/// Images of this host. Calls for one image may come from several jobs at once.
pub trait Images: Send + Sync + 'static {
    /// Images that are whole on this host.
    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<Digest>, ImageError>>;

    /// Fetches an image, verifies and unpacks it. One that is there is a success.
    fn fetch<'a>(
        &'a self,
        tenant: &'a Name,
        image: Digest,
    ) -> BoxFuture<'a, Result<(), ImageError>>;

    /// The modules of an image that is there, in the order in which they start, each with its path,
    /// arguments and environment as the image says.
    fn modules(&self, image: Digest) -> BoxFuture<'_, Result<Vec<ModuleSpec>, ImageError>>;

    /// Removes images that are not in use, except the newest of each application; which are left.
    fn retain(
        &self,
        in_use: BTreeSet<Digest>,
    ) -> BoxFuture<'_, Result<BTreeSet<Digest>, ImageError>>;
}

/// Images for a simulated host: each is there as soon as it is fetched, and has one module.
#[derive(Clone, Debug, Default)]
pub struct FakeImages {
    present: Arc<Mutex<BTreeSet<Digest>>>,
}

impl Images for FakeImages {
    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<Digest>, ImageError>> {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner).clone();
        futures::future::ready(Ok(present)).boxed()
    }

    fn fetch<'a>(
        &'a self,
        _tenant: &'a Name,
        image: Digest,
    ) -> BoxFuture<'a, Result<(), ImageError>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).insert(image);
        futures::future::ready(Ok(())).boxed()
    }

    fn modules(&self, _image: Digest) -> BoxFuture<'_, Result<Vec<ModuleSpec>, ImageError>> {
        let module = ModuleSpec {
            name: "main".to_owned(),
            path: PathBuf::from("/main"),
            compiled: None,
            static_dir: None,
            args: Vec::new(),
            env: Vec::new(),
        };
        futures::future::ready(Ok(vec![module])).boxed()
    }

    fn retain(
        &self,
        in_use: BTreeSet<Digest>,
    ) -> BoxFuture<'_, Result<BTreeSet<Digest>, ImageError>> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.retain(|image| in_use.contains(image));
        futures::future::ready(Ok(present.clone())).boxed()
    }
}

/// The driver's word for a driver of the model.
pub(crate) fn driver_of(driver: model::DriverKind) -> DriverKind {
    match driver {
        model::DriverKind::Exec => DriverKind::Exec,
        model::DriverKind::Wasm => DriverKind::Wasm,
    }
}
