//! Whether a zip means the same to every tool that reads it.
//!
//! A zip describes each entry twice, and nothing forces the two to agree, the entries to lie apart,
//! or all of them to be listed. Tools differ in what they believe, so such zips are refused.

use std::io::{self, Read, Seek};

use zip::{ZipArchive, result::ZipError, unstable::read::ZipIterable};

use crate::{
    app_image::{
        archive::{CONFIG, Source},
        violation::{Findings, ViolationCode},
    },
    limits::Limits,
};

/// What is known of a zip before its contents are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Structure {
    /// The contents can be read.
    Sound,
    /// Entries share bytes: reading the contents would be a waste of time at best.
    Overlapping,
    /// The central directory would fill the memory.
    Unbounded,
}

/// Checks the size of the central directory, that the entries' own headers agree with it, and that
/// no two entries share bytes.
pub(super) fn check_structure<R: Read + Seek>(
    source: &mut Source<R>,
    limits: &Limits,
    findings: &mut Findings,
) -> Structure {
    let bytes = directory_bytes(source);
    if bytes > limits.directory_bytes_max {
        let detail = format!("it has {bytes} bytes, {} are allowed", limits.directory_bytes_max);
        findings.add(ViolationCode::DirectoryTooLarge, "", detail);
        return Structure::Unbounded;
    }
    let mismatch = find_mismatch(source);
    if let Some((path, detail)) = &mismatch {
        findings.add(ViolationCode::HeaderMismatch, path, detail);
    }
    // What cannot be opened here is noted when its contents are read.
    let Ok(mut archive) = ZipArchive::with_config(CONFIG, source) else {
        return Structure::Sound;
    };
    match archive.has_overlapping_entries() {
        Ok(false) => {}
        Ok(true) => {
            let detail = "two entries share bytes of the zip";
            findings.add(ViolationCode::OverlappingEntries, "", detail);
            return Structure::Overlapping;
        }
        Err(_) => return Structure::Sound,
    }
    if mismatch.is_none()
        && !archive.has_duplicate_names()
        && let Err(error) = archive.validate_header_consistency()
    {
        findings.add(ViolationCode::HeaderMismatch, "", describe(&error));
    }
    Structure::Sound
}

/// The size of the central directory without its last entry, read one entry at a time.
fn directory_bytes<R: Read + Seek>(source: &mut Source<R>) -> u64 {
    let Ok(mut zip) = ZipIterable::try_new(source, CONFIG) else { return 0 };
    let Ok(entries) = zip.files() else { return 0 };
    let (mut first, mut last) = (None, 0);
    for entry in entries {
        let Ok(entry) = entry else { break };
        last = entry.central_header_start();
        first.get_or_insert(last);
    }
    last.saturating_sub(first.unwrap_or(last))
}

/// The first entry whose own header differs from the central directory, and how.
fn find_mismatch<R: Read + Seek>(source: &mut Source<R>) -> Option<(String, String)> {
    let zip = ZipIterable::try_new(&mut *source, CONFIG).ok()?;
    let mut strict = zip.enforce_header_consistency(true);
    let failed = strict.files().ok()?.enumerate().find_map(|(at, entry)| Some((at, entry.err()?)));
    let (position, error) = failed?;
    let mut plain = ZipIterable::try_new(source, CONFIG).ok()?;
    // An entry that cannot be read at all is noted when its contents are read.
    let entry = plain.files().ok()?.nth(position)?.ok()?;
    Some((String::from_utf8_lossy(entry.name_raw()).into_owned(), describe(&error)))
}

/// A zip error in words, without the library's decoration.
pub(super) fn describe(error: &ZipError) -> String {
    match error {
        ZipError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the zip ends too early".into()
        }
        ZipError::Io(error) => error.to_string(),
        ZipError::InvalidArchive(text) => match text.to_string().to_lowercase() {
            // The record that ends every zip.
            text if text.contains("eocd") || text.contains("end of central directory") => {
                "the file is no zip, or was cut short: the directory at its end is missing".into()
            }
            text => text,
        },
        other => other.to_string(),
    }
}
