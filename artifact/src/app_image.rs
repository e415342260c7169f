//! The application image: one zip that holds everything an application runs.
//!
//! ```text
//! application.json            the application: name, version, partitions, defaults
//! <folder>/package.json       a module; the folder's name means nothing
//! <folder>/package.wasm         its payload: a WASI command module,
//! <folder>/package.exe.<arch>   or an executable for each architecture
//! <folder>/<folder>/...         templates and static folders may lie in a module's folder
//! <folder>/wstemplate.json    a workspace template and its data files
//! <folder>/static.json        a folder of static files
//! ```
//! [`validate`] lists everything that is wrong with an image, [`pack`] makes the zip of a folder,
//! always the same bytes for the same content, and [`extract`] writes a validated image out. All
//! three read and write synchronously: callers on an async thread hand them over to one that may
//! block. `docs/image-violations.md` explains every code.

mod application;
mod archive;
mod assemble;
mod dependency;
mod descriptor;
mod executable;
mod extract;
mod manifest;
mod module;
mod pack;
mod path;
mod template;
mod violation;
mod wasm;

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Seek};

use serde::Serialize;

pub use self::{
    extract::{ExtractError, extract},
    manifest::{
        Architecture, Driver, File, Manifest, Module, OnDisconnect, Payload, ResourceLimits,
        StaticFolder, Template,
    },
    pack::{PackError, Packed, pack},
    violation::{Violation, ViolationCode, Warning, WarningCode},
};
use crate::limits::Limits;

/// A valid image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Validated {
    /// What the image says of itself.
    pub manifest: Manifest,
    /// Every file, in order of path.
    pub index: Vec<File>,
    /// What is odd, in order of path.
    pub warnings: Vec<Warning>,
}

/// Why there is no [`Validated`].
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The image breaks these rules: at least one, in order of path.
    #[error("the image breaks {} rules", .0.len())]
    Violations(Vec<Violation>),
    /// The bytes could not be read; nothing is known of the image.
    #[error("could not read the image")]
    Read(#[source] io::Error),
}

/// Reads a whole image and judges it. The work and the memory are bounded by `limits`, whatever
/// the bytes are.
///
/// # Errors
/// `Invalid::Violations` with everything that is wrong, `Invalid::Read` if `reader` fails.
pub fn validate<R: Read + Seek>(reader: R, limits: &Limits) -> Result<Validated, Invalid> {
    let mut source = archive::Source::new(reader);
    let mut findings = violation::Findings::new(limits.violations_max);
    let scan = archive::scan(&mut source, limits, &mut findings);
    if let Some(error) = source.failed {
        return Err(Invalid::Read(error));
    }
    let Some(scan) = scan else {
        if findings.count() == 0 {
            let detail = "the zip cannot be read twice";
            findings.add(ViolationCode::NotAZip, "", detail);
        }
        return Err(Invalid::Violations(findings.finish().err().unwrap_or_default()));
    };
    let manifest = assemble::assemble(&scan, &mut findings);
    let warnings = findings.finish().map_err(Invalid::Violations)?;
    let files = scan.files.iter();
    let index = files.filter_map(|(path, scanned)| Some(scanned.as_ref()?.file(path))).collect();
    Ok(Validated { manifest, index, warnings })
}
