//! Files of documents: YAML (or JSON, which is YAML) in the shape Kubernetes users know.
//!
//! ```yaml
//! apiVersion: muster/v1
//! kind: Deployment
//! metadata: {name: shop, labels: {team: web}}
//! spec: {package: shop, version: "1.0", targets: {clusters: [north]}}
//! ```
//! Several documents stand in one file between `---`. Unknown fields are errors, with their line.

mod spec;

pub(crate) use spec::{driver, on_disconnect, role};

use crate::failure::Failure;
use api::{limits::DOCUMENTS_MAX, v1};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Largest file read, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// A document and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Source {
    /// `file.yaml#2`.
    pub(crate) place: String,
    /// What the API takes.
    pub(crate) document: v1::Document,
}

/// What every document begins with; the rest is read once its kind is known.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

/// Whose a document is, as far as it says so.
#[derive(Debug, Deserialize)]
struct Whose {
    kind: String,
    metadata: WhoseMetadata,
}

#[derive(Debug, Deserialize)]
struct WhoseMetadata {
    #[serde(default)]
    tenant: Option<String>,
}

/// Whether a document is of a kind that belongs to a tenant and names none. What cannot be read needs
/// nothing: it is refused later, with its line.
fn needs_tenant(text: &str) -> bool {
    let whose: Result<Whose, _> = spec::yaml(text);
    whose.is_ok_and(|it| {
        it.metadata.tenant.is_none() && !matches!(it.kind.as_str(), "Tenant" | "RoleBinding")
    })
}

/// Name, labels and annotations.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) tenant: Option<String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) revision: Option<u64>,
}

/// Reads every document of a file, of all `.yaml`, `.yml` and `.json` files of a folder in order of
/// their names, or of standard input (`-`). `tenant` is asked when a document that needs one names none.
pub(crate) async fn read(
    path: &Path,
    tenant: impl AsyncFnOnce() -> Result<String, Failure>,
) -> Result<Vec<Source>, Failure> {
    let mut texts = Vec::new();
    for file in files(path)? {
        texts.push((file.display().to_string(), read_text(&file)?));
    }
    let tenant = match texts.iter().any(|(_, text)| split(text).iter().any(|it| needs_tenant(it))) {
        true => tenant().await?,
        false => String::new(),
    };
    let mut all = Vec::new();
    for (place, text) in texts {
        all.extend(parse(&place, &text, &tenant)?);
    }
    if all.is_empty() {
        let message = format!("there is no document in {}", path.display());
        return Err(Failure::usage(
            message,
            "write at least one, with apiVersion, kind and metadata",
        ));
    }
    if all.len() > DOCUMENTS_MAX {
        let message = format!("{} documents are too many for one apply", all.len());
        let remedy = format!("apply at most {DOCUMENTS_MAX} at a time");
        return Err(Failure::usage(message, &remedy).at("file"));
    }
    Ok(all)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("{} cannot be read: {error}", path.display()), "see that it exists")
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let end = file.extension().and_then(|end| end.to_str()).unwrap_or_default();
        if file.is_file() && matches!(end, "yaml" | "yml" | "json") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_text(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        fs::File::open(file)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
    };
    let failed = |why: String| {
        let message = format!("{} cannot be read: {why}", file.display());
        Failure::usage(message, "see that it is a text file of at most 8 MiB").at("file")
    };
    read.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed("there is no such file".into())
            .then("name a file or folder, or - for standard input"),
        _ => failed(error.to_string()),
    })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed("it is larger than 8 MiB".into()));
    }
    Ok(text)
}

/// Reads the documents of one text.
pub(crate) fn parse(file: &str, text: &str, tenant: &str) -> Result<Vec<Source>, Failure> {
    let mut all = Vec::new();
    for (index, text) in split(text).iter().enumerate() {
        let place = format!("{file}#{}", index + 1);
        let mut source = read_one(text, tenant);
        if let Err(failure) = &mut source {
            failure.message = format!("{place}: {}", failure.message);
        }
        all.push(Source { place, document: source? });
    }
    Ok(all)
}

fn read_one(text: &str, tenant: &str) -> Result<v1::Document, Failure> {
    let head: Head = spec::yaml(text)?;
    if head.api_version != "muster/v1" {
        let message = format!("apiVersion {:?} is not known", head.api_version);
        return Err(Failure::usage(message, "write muster/v1").at("apiVersion"));
    }
    spec::document(&head.kind, text, tenant)
}

/// The documents of a text. Each keeps its place: lines before it are blank, so that what is said
/// of a line is true of the file.
fn split(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut current, mut holds) = (String::new(), false);
    for (number, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            if holds {
                all.push(std::mem::take(&mut current));
            }
            current = "\n".repeat(number + 1);
            holds = false;
            continue;
        }
        let content = line.trim_start();
        holds |= !content.is_empty() && !content.starts_with('#');
        current.push_str(line);
        current.push('\n');
    }
    if holds {
        all.push(current);
    }
    all
}

/// The resource name a document is about.
pub(crate) fn resource(document: &v1::Document) -> &str {
    use v1::document::Draft;
    match &document.draft {
        Some(Draft::Tenant(it)) => &it.resource,
        Some(Draft::Host(it)) => &it.resource,
        Some(Draft::Cluster(it)) => &it.resource,
        Some(Draft::Package(it)) => &it.resource,
        Some(Draft::Deployment(it)) => &it.resource,
        Some(Draft::RoleBinding(it)) => &it.resource,
        None => "",
    }
}

#[cfg(test)]
mod tests;
