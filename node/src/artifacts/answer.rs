//! What callers are told about images: refusals, violations, and the application an image describes.

use crate::{artifacts::depot::TakeError, refusal};
use api::{reason::bad_field, status::Violation, v1};
use artifact::{
    Digest, StoreError,
    app_image::{self, Driver, Manifest},
};
use model::{Application, Class, DriverKind, Name, OnDisconnect, Rejection, Resources};
use std::collections::BTreeMap;
use tonic::Status;

/// INVALID_ARGUMENT: an image breaks the rules of its format; each violation is listed.
pub(crate) const IMAGE_LAYOUT: &str = "IMAGE_LAYOUT";
/// INVALID_ARGUMENT: what was sent is not what the digest names.
pub(crate) const IMAGE_DIGEST: &str = "IMAGE_DIGEST";
/// NOT_FOUND: no upload of that tenant and digest is under way.
pub(crate) const UNKNOWN_UPLOAD: &str = "UNKNOWN_UPLOAD";

/// What a partition is given where the image does not say.
const CPU_MILLIS_DEFAULT: u64 = 100;
const MEMORY_BYTES_DEFAULT: u64 = 64 << 20;

/// The application that an image describes, with everything it leaves open filled in.
pub(crate) fn application(manifest: &Manifest, digest: Digest) -> Result<Application, Status> {
    let unnamed = |bad: model::BadName| {
        refusal::of_rejection(&bad_field("application.name", bad, "rename the application"))
    };
    let main = Name::new("main").map_err(unnamed)?;
    let limits = &manifest.limits;
    Ok(Application {
        name: Name::new(&manifest.name).map_err(unnamed)?,
        version: manifest.version.to_string(),
        driver: match manifest.driver {
            Driver::Wasm => DriverKind::Wasm,
            Driver::Exec => DriverKind::Exec,
        },
        num_partitions: manifest.num_partitions.into(),
        artifacts: BTreeMap::from([(main, model::Digest(*digest.as_bytes()))]),
        limits: Resources {
            cpu_millis: limits.cpu_millis.map_or(CPU_MILLIS_DEFAULT, u64::from),
            memory_bytes: limits.memory_bytes.unwrap_or(MEMORY_BYTES_DEFAULT),
        },
        on_disconnect: match manifest.on_disconnect {
            app_image::OnDisconnect::KeepRunning => OnDisconnect::KeepRunning,
            app_image::OnDisconnect::Stop => OnDisconnect::Stop,
            app_image::OnDisconnect::Replace => OnDisconnect::Replace,
        },
        stop_grace_ms: manifest.stop_grace_ms,
        // Arguments and variables of the modules are in the image.
        env: BTreeMap::new(),
        zones: Vec::new(),
    })
}

/// INVALID_ARGUMENT `IMAGE_LAYOUT`, with one violation per fault.
pub(crate) fn layout(violations: &[app_image::Violation]) -> Status {
    let message = format!("the image breaks {} rules of images", violations.len());
    let remedy = "mend each path named; docs/image-violations.md explains the rules";
    let rejection = refusal::refusal(Class::InvalidArgument, IMAGE_LAYOUT, &message, remedy);
    let described: Vec<Violation> = violations.iter().map(describe).collect();
    api::status::rejected_with(&rejection, &described)
}

fn describe(violation: &app_image::Violation) -> Violation {
    let app_image::Violation { path, field, code, detail } = violation;
    let place = if path.is_empty() { "(image)" } else { path };
    let field = if field.is_empty() { place.to_owned() } else { format!("{place} {field}") };
    Violation { field, description: format!("[{code}] {detail}; {}", code.remedy()) }
}

pub(crate) fn warning(warning: &app_image::Warning) -> v1::ImageWarning {
    v1::ImageWarning {
        code: warning.code.to_string(),
        path: warning.path.clone(),
        message: format!("{}; {}", warning.detail, warning.code.remedy()),
    }
}

pub(crate) fn other_bytes() -> Status {
    let message = "what was sent is not the content that the digest names";
    let remedy = "compute the digest of the file again, and begin a new upload";
    refused(refusal::refusal(Class::InvalidArgument, IMAGE_DIGEST, message, remedy))
}

pub(crate) fn unknown_upload() -> Status {
    let message = "no upload of this digest is under way in the tenant";
    let remedy = "begin the upload";
    refused(refusal::refusal(Class::NotFound, UNKNOWN_UPLOAD, message, remedy))
}

/// UNAVAILABLE: too few nodes hold it; the same call may well succeed soon.
pub(crate) fn no_majority(what: &str) -> Status {
    Status::unavailable(format!("a majority of control nodes did not {what} in time"))
}

/// The refusal of a field.
pub(crate) fn field(field: &str, message: &str, remedy: &str) -> Status {
    refused(bad_field(field, message, remedy))
}

fn refused(rejection: Rejection) -> Status {
    refusal::of_rejection(&rejection)
}

pub(crate) fn of_take(error: TakeError) -> Status {
    match error {
        TakeError::Store(error) => of_store(error),
        TakeError::OtherBytes => other_bytes(),
    }
}

/// The status for what the store did not do.
pub(crate) fn of_store(error: StoreError) -> Status {
    match error {
        StoreError::WrongOffset { expected } => api::status::upload_offset(expected),
        StoreError::Incomplete { durable, .. } => api::status::upload_offset(durable),
        StoreError::UnknownUpload(_) => unknown_upload(),
        StoreError::UnknownBlob(digest) => Status::not_found(format!("there is no blob {digest}")),
        StoreError::DigestMismatch { .. } => other_bytes(),
        StoreError::Busy { .. } => api::status::overloaded(),
        StoreError::Stopped => api::status::stopped(),
        StoreError::OtherContent { size_bytes, .. } => field(
            "size_bytes",
            &format!("the upload was begun with {size_bytes} bytes"),
            "go on with that size, or wait until the upload has expired",
        ),
        StoreError::BeyondEnd { .. }
        | StoreError::ChunkSize { .. }
        | StoreError::BlobTooLarge { .. } => {
            field("data", &error.to_string(), "send chunks as `Upload` says")
        }
        StoreError::Fault(fault) => {
            tracing::error!(%fault, "the disk of the images failed");
            api::status::fault()
        }
    }
}
