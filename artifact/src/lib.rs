//! Image formats, their validation, and content kept by digest.
//!
//! [`app_image`] knows the application image: what may be in it, everything that can be wrong with
//! it, how it is packed and unpacked. [`Digest`] names content, [`Store`] keeps it on a disk, and
//! [`Inspector`] judges images that lie in a store. This room knows bytes and files only: what is
//! deployed, for whom and where, is for others.

pub mod app_image;

mod digest;
mod inspect;
mod layout;
mod limits;
mod store;
mod upload;

pub use crate::{
    digest::{Digest, DigestError, Hasher},
    inspect::{InspectError, Inspector},
    layout::{APP_IMAGE_MEDIA_TYPE, blobs_folder},
    limits::Limits,
    store::{
        Begun, Blob, Store, StoreConfig, StoreError, UploadId, UploadIdError, UploadStatus, Verdict,
    },
};
