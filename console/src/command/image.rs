//! `muster image`: validate on this machine, push in chunks that resume anywhere, list.

use crate::{
    client::request_id,
    command::{Session, change, get},
    failure::{Failure, exit},
    noun::{Noun, Query},
    render::{Printer, count, say},
};
use api::v1;
use artifact::{
    Digest, Hasher, Limits,
    app_image::{self, Invalid, Manifest, PackError, Violation},
};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Verbs about images.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Judges an image on this machine: every fault, with its path and remedy
    #[command(
        after_help = "Examples:\n  muster image validate ./ticker/image\n  muster image validate ticker.zip -o json"
    )]
    Validate(Source),
    /// Pushes an image; goes on where an earlier push stopped
    #[command(
        after_help = "Examples:\n  muster image push ./ticker/image\n  muster image push ticker.zip -o json\n  \
        muster image push ticker.zip --no-validate    let the control nodes judge it alone"
    )]
    Push(Push),
    /// Lists images
    #[command(after_help = "Examples:\n  muster image list")]
    List,
    /// Deletes an image that nobody uses
    #[command(after_help = "Examples:\n  muster image delete sha256:0123...")]
    Delete {
        /// Its digest
        digest: String,
    },
}

/// An image on this machine.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// A folder with application.json, or a zip of one
    path: PathBuf,
}

/// What to push, and how.
#[derive(Debug, clap::Args)]
pub struct Push {
    #[command(flatten)]
    source: Source,
    /// Do not judge it on this machine first; the control nodes judge it in any case
    #[arg(long)]
    no_validate: bool,
}

pub(super) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Validate(source) => validate(&source, session.printer),
        Verb::Push(Push { source, no_validate }) => {
            let image = send(session, open(&source.path, !no_validate)?).await?;
            if session.printer.is_structured() {
                return session.printer.document(&image);
            }
            session.printer.text(&format!("{}\n", image["digest"].as_str().unwrap_or_default()))
        }
        Verb::List => get::list(session, Noun::Image, Query::default()).await,
        Verb::Delete { digest } => {
            let tenant = session.client.tenant().await?;
            let resource = Noun::Image.resource(&tenant, &digest)?;
            change::remove_resource(session, Noun::Image, &resource, false).await
        }
    }
}

/// A zip on this machine, judged.
struct Local {
    file: File,
    digest: Digest,
    size_bytes: u64,
    /// What it describes, if it was judged.
    manifest: Option<Manifest>,
}

pub(super) fn validate(source: &Source, printer: Printer) -> Result<(), Failure> {
    let local = open(&source.path, true)?;
    let Some(manifest) = &local.manifest else { return Ok(()) };
    if printer.is_structured() {
        return printer.document(&json!({
            "digest": local.digest.to_string(),
            "size_bytes": local.size_bytes,
            "manifest": manifest,
        }));
    }
    printer.text(&format!(
        "{} {} is a valid {} image of {}, {}\n{}\n",
        manifest.name,
        manifest.version,
        manifest.driver,
        count(manifest.modules.len() as u64, "module"),
        count(local.size_bytes, "byte"),
        local.digest,
    ))
}

/// Opens a zip, or packs a folder. A folder that no zip could hold is refused even unjudged.
fn open(path: &Path, judged: bool) -> Result<Local, Failure> {
    let limits = Limits::default();
    let unreadable = |error: std::io::Error| {
        let message = format!("{} cannot be read: {error}", path.display());
        Failure::usage(message, "name a folder with application.json, or a zip of one").at("path")
    };
    let (mut file, digest, size_bytes) = if path.is_dir() {
        let mut file = tempfile().map_err(unreadable)?;
        let packed = app_image::pack(path, &mut file, &limits).map_err(|error| match error {
            PackError::Violations(all) => faults(path, &all),
            PackError::Read { path, source } => Failure::usage(
                format!("{} cannot be read: {source}", path.display()),
                "see its permissions",
            ),
            PackError::Write(error) => unreadable(error),
        })?;
        (file, packed.digest, packed.size_bytes)
    } else {
        let mut file = File::open(path).map_err(unreadable)?;
        let (digest, size_bytes) = digest_of(&mut file).map_err(unreadable)?;
        (file, digest, size_bytes)
    };
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    if !judged {
        return Ok(Local { file, digest, size_bytes, manifest: None });
    }
    let valid = app_image::validate(&mut file, &limits).map_err(|error| match error {
        Invalid::Violations(all) => faults(path, &all),
        Invalid::Read(error) => unreadable(error),
    })?;
    for warning in &valid.warnings {
        say(&format!("warning: {}: {}", warning.path, warning.detail));
    }
    Ok(Local { file, digest, size_bytes, manifest: Some(valid.manifest) })
}

/// A file without a name, in the temporary folder.
fn tempfile() -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = format!("muster-image-{}-{}", std::process::id(), crate::client::now_ms());
    let path = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

fn digest_of(file: &mut File) -> std::io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut size_bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hasher.finish(), size_bytes));
        }
        hasher.update(&buffer[..read]);
        size_bytes += read as u64;
    }
}

fn faults(path: &Path, all: &[Violation]) -> Failure {
    let message =
        format!("{} breaks {} of images", path.display(), count(all.len() as u64, "rule"));
    let mut failure = Failure::of(
        exit::ERROR,
        "IMAGE_LAYOUT",
        message,
        "mend each path named; docs/image-violations.md explains the rules",
    );
    failure.violations = all.iter().map(describe).collect();
    if let [(field, description)] = failure.violations.as_slice() {
        failure.field = field.clone();
        failure.message = format!("{}: {description}", failure.message);
    }
    failure
}

fn describe(violation: &Violation) -> (String, String) {
    let place = if violation.path.is_empty() { "(image)" } else { &violation.path };
    let place = if violation.field.is_empty() {
        place.to_owned()
    } else {
        format!("{place} {}", violation.field)
    };
    let code = violation.code;
    (place, format!("[{}] {}; {}", code.code(), violation.detail, code.remedy()))
}

/// Pushes an image that is judged here first, and returns it as JSON.
pub(crate) async fn push(session: &Session, path: &Path) -> Result<Value, Failure> {
    send(session, open(path, true)?).await
}

/// How an upload went.
#[derive(Debug, Default)]
struct Sent {
    /// Where it went on, after an earlier push or through another node; 0 if neither happened.
    resumed_from: u64,
    /// Bytes that were sent and taken, those sent again included.
    bytes: u64,
}

/// Pushes an image and returns it as JSON, with `resumed_from` and `sent_bytes`.
async fn send(session: &Session, mut local: Local) -> Result<Value, Failure> {
    let tenant = session.client.tenant().await?;
    let digest = local.digest.to_string();
    let begin = v1::BeginUploadRequest {
        tenant: tenant.clone(),
        digest: digest.clone(),
        size_bytes: local.size_bytes,
    };
    let mut upload =
        session
            .client
            .call(|channel| {
                let begin = begin.clone();
                async move {
                    v1::artifacts_client::ArtifactsClient::new(channel).begin_upload(begin).await
                }
            })
            .await?;
    let sent = match upload.finished {
        true => Sent::default(),
        false => send_chunks(session, &tenant, &mut local, &mut upload).await?,
    };
    let finish = v1::FinishUploadRequest {
        tenant: tenant.clone(),
        upload_id: upload.id.clone(),
        digest: digest.clone(),
        request_id: request_id()?,
    };
    let finished = session
        .client
        .change(|channel| {
            let finish = finish.clone();
            async move {
                v1::artifacts_client::ArtifactsClient::new(channel).finish_upload(finish).await
            }
        })
        .await?;
    let mut image = match &finished.image {
        Some(image) => session.client.json(image)?,
        None => Noun::Image.get(&session.client, &Noun::Image.resource(&tenant, &digest)?).await?,
    };
    image["resumed_from"] = sent.resumed_from.into();
    image["sent_bytes"] = sent.bytes.into();
    Ok(image)
}

async fn send_chunks(
    session: &Session,
    tenant: &str,
    local: &mut Local,
    upload: &mut v1::Upload,
) -> Result<Sent, Failure> {
    let bar = indicatif::ProgressBar::new(local.size_bytes);
    let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec}";
    if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    let name = local.manifest.as_ref().map(|it| format!("{} {}", it.name, it.version));
    bar.set_message(name.unwrap_or_else(|| "image".to_owned()));
    let digest = local.digest.to_string();
    let mut sent = Sent { resumed_from: upload.offset, bytes: 0 };
    let mut server = session.client.server().0.to_owned();
    while upload.offset < local.size_bytes {
        bar.set_position(upload.offset);
        let request = v1::WriteChunkRequest {
            tenant: tenant.to_owned(),
            upload_id: upload.id.clone(),
            offset: upload.offset,
            data: chunk(local, upload)?.into(),
            digest: digest.clone(),
        };
        let written = session
            .client
            .call(|channel| {
                let request = request.clone();
                async move {
                    v1::artifacts_client::ArtifactsClient::new(channel)
                        .max_encoding_message_size(api::limits::CHUNK_MESSAGE_BYTES_MAX)
                        .write_chunk(request)
                        .await
                }
            })
            .await;
        upload.offset = match written {
            Ok(written) => {
                let (addr, _) = session.client.server();
                if addr != server {
                    server = addr.to_owned();
                    sent.resumed_from = upload.offset;
                }
                sent.bytes += request.data.len() as u64;
                written.durable_offset
            }
            // Another node was asked and holds less, or more: it says where to go on.
            Err(failure) if failure.reason == "UPLOAD_OFFSET" => {
                let offset = failure.metadata.get("offset").and_then(|it| it.parse().ok());
                offset.ok_or(failure)?
            }
            Err(failure) => return Err(failure),
        };
    }
    bar.finish_and_clear();
    Ok(sent)
}

fn chunk(local: &mut Local, upload: &v1::Upload) -> Result<Vec<u8>, Failure> {
    let left = local.size_bytes - upload.offset;
    let length = left.min(u64::from(upload.chunk_bytes.max(1)));
    let mut data = Vec::new();
    let read = local
        .file
        .seek(SeekFrom::Start(upload.offset))
        .and_then(|_| (&mut local.file).take(length).read_to_end(&mut data));
    match read {
        Ok(read) if read as u64 == length => Ok(data),
        Ok(_) => {
            Err(Failure::usage("the image changed while it was pushed".into(), "push it again"))
        }
        Err(error) => {
            Err(Failure::usage(format!("the image cannot be read: {error}"), "push it again"))
        }
    }
}
