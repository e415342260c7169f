//! Reads the zip: every entry once, each byte counted, nothing believed from a header.
//!
//! The result is a table of files with digests, and for the few files that say something of the
//! image (descriptors, payload heads) what they say. Entries are judged one by one, so that every
//! bad one is listed; a bad entry still counts as present, lest it be called missing as well.

mod structure;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Seek, SeekFrom},
};

use zip::{
    CompressionMethod,
    read::{ArchiveOffset, Config, ZipFile, ZipReadOptions},
    unstable::read::ZipIterable,
};

use self::structure::{Structure, check_structure, describe};
use crate::{
    app_image::{
        executable::HEAD_BYTES,
        manifest::File,
        path,
        violation::{Findings, ViolationCode},
        wasm,
    },
    digest::{Digest, Hasher},
    limits::Limits,
};

/// The files of an image.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Every file with an acceptable path; `None` if a violation of its own is noted already: such
    /// a file counts as present, but is not judged further.
    pub(crate) files: BTreeMap<String, Option<Scanned>>,
    /// The folders at the root.
    pub(crate) folders: BTreeSet<String>,
}

/// One file that was read whole.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) size_bytes: u64,
    pub(crate) digest: Digest,
    pub(crate) content: Content,
}

impl Scanned {
    pub(crate) fn file(&self, path: &str) -> File {
        File { path: path.to_owned(), size_bytes: self.size_bytes, digest: self.digest }
    }
}

/// What was kept of a file.
#[derive(Debug)]
pub(crate) enum Content {
    /// The text of a descriptor.
    Descriptor(Vec<u8>),
    /// What a module imports and exports, or why it is none.
    Module(Result<wasm::Facts, String>),
    /// The first bytes of an executable.
    Head(Vec<u8>),
    /// Nothing.
    Opaque,
}

/// A reader that remembers that it failed, to tell a broken disk from a broken zip.
#[derive(Debug)]
pub(crate) struct Source<R> {
    inner: R,
    pub(crate) failed: Option<io::Error>,
}

impl<R> Source<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, failed: None }
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            if kind == io::ErrorKind::Interrupted {
                return error;
            }
            self.failed.get_or_insert(error);
            kind.into()
        })
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        self.note(result)
    }
}

impl<R: Seek> Seek for Source<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        // Seeking before the start is what a bad offset in the zip asks for: not the disk's fault.
        let result = self.inner.seek(to);
        match result {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(error),
            other => self.note(other),
        }
    }
}

/// How zips are opened: one that does not begin at its first byte is refused.
pub(crate) const CONFIG: Config = Config { archive_offset: ArchiveOffset::Known(0) };

/// Reads the whole zip. Violations go to `findings`; a failed read leaves its error in `source`.
pub(crate) fn scan<R: Read + Seek>(
    source: &mut Source<R>,
    limits: &Limits,
    findings: &mut Findings,
) -> Option<Scan> {
    let length = source.seek(SeekFrom::End(0)).ok()?;
    if length > limits.image_bytes_max {
        let detail = format!("the zip has {length} bytes, {} are allowed", limits.image_bytes_max);
        findings.add(ViolationCode::ImageTooLarge, "", detail);
        return None;
    }
    let zip = match ZipIterable::try_new(&mut *source, CONFIG) {
        Ok(zip) => zip,
        Err(error) => {
            findings.add(ViolationCode::NotAZip, "", describe(&error));
            return None;
        }
    };
    if zip.len() > limits.entries_max {
        let detail =
            format!("the zip has {} entries, {} are allowed", zip.len(), limits.entries_max);
        findings.add(ViolationCode::TooManyEntries, "", detail);
        return None;
    }
    let sound = match check_structure(source, limits, findings) {
        Structure::Sound => true,
        Structure::Overlapping => false,
        Structure::Unbounded => return None,
    };
    let mut scanner = Scanner {
        limits,
        findings,
        length,
        inflate: sound,
        total: 0,
        descriptors: 0,
        paths: path::PathSet::default(),
        scan: Scan::default(),
    };
    let mut zip = ZipIterable::try_new(source, CONFIG).ok()?;
    scanner.entries(&mut zip);
    Some(scanner.scan)
}

/// The state of one pass over the entries.
struct Scanner<'a> {
    limits: &'a Limits,
    findings: &'a mut Findings,
    /// The size of the zip.
    length: u64,
    /// Whether contents are still read.
    inflate: bool,
    /// Bytes inflated so far.
    total: u64,
    /// Bytes of descriptors kept so far.
    descriptors: u64,
    paths: path::PathSet,
    scan: Scan,
}

impl Scanner<'_> {
    fn entries<R: Read + Seek>(&mut self, zip: &mut ZipIterable<R>) {
        let Ok(files) = zip.files() else { return };
        let mut position = 0;
        while let Some(entry) = files.next() {
            position += 1;
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let detail = format!("entry {position}: {}", describe(&error));
                    self.findings.add(ViolationCode::NotAZip, "", detail);
                    return;
                }
            };
            let mode = entry.unix_mode().unwrap_or(0);
            let facts = EntryFacts {
                kind: mode & 0o170_000,
                encrypted: entry.encrypted(),
                compression: entry.compression(),
                stored_bytes: entry.compressed_size().min(self.length),
            };
            let Some(path) = self.accept(entry.name_raw(), &facts) else { continue };
            let scanned = if self.inflate && self.readable(&path, &facts) {
                match entry.with_reader(files.reader_mut(), ZipReadOptions::new()) {
                    Ok(file) => self.content(&path, file, facts.stored_bytes),
                    Err(error) => {
                        self.findings.add(ViolationCode::CorruptEntry, &path, describe(&error));
                        None
                    }
                }
            } else {
                None
            };
            self.scan.files.insert(path, scanned);
        }
    }

    /// The entry's path, if it is a plain file under an acceptable path.
    fn accept(&mut self, name: &[u8], facts: &EntryFacts) -> Option<String> {
        let Ok(path) = std::str::from_utf8(name) else {
            let shown = String::from_utf8_lossy(name);
            self.findings.add(ViolationCode::BadPath, &shown, "the path is not UTF-8");
            return None;
        };
        if let Some((code, detail)) = path::broken_rule(path, self.limits.path_bytes_max) {
            self.findings.add(code, path, detail);
            return None;
        }
        let broken = self.paths.insert(path).or_else(|| broken_kind(path, facts.kind));
        if let Some((folder, _)) = path.split_once('/') {
            self.scan.folders.insert(folder.to_owned());
        }
        if let Some((code, detail)) = broken {
            self.findings.add(code, path, detail);
            if !path.ends_with('/') {
                self.scan.files.entry(path.to_owned()).or_insert(None);
            }
            return None;
        }
        (!path.ends_with('/')).then(|| path.to_owned())
    }

    /// Whether the entry's bytes can be read at all.
    fn readable(&mut self, path: &str, facts: &EntryFacts) -> bool {
        if facts.encrypted {
            self.findings.add(ViolationCode::EncryptedEntry, path, "the entry is encrypted");
            return false;
        }
        if !matches!(facts.compression, CompressionMethod::Stored | CompressionMethod::Deflated) {
            let detail = format!("the entry's compression is {}", facts.compression);
            self.findings.add(ViolationCode::UnsupportedCompression, path, detail);
            return false;
        }
        true
    }

    /// Reads one file to its end, within the limits.
    fn content<R: Read>(
        &mut self,
        path: &str,
        file: ZipFile<'_, R>,
        stored_bytes: u64,
    ) -> Option<Scanned> {
        let limits = self.limits;
        let by_ratio = limits.ratio_max.saturating_mul(stored_bytes).max(limits.ratio_free_bytes);
        let by_total = limits.total_bytes_max - self.total;
        let allowed = by_ratio.min(limits.entry_bytes_max).min(by_total);
        let mut metered = Metered { inner: file, hasher: Hasher::new(), allowed, breached: false };
        let result = self.keep(path, &mut metered).and_then(|content| {
            io::copy(&mut metered, &mut io::sink())?;
            Ok(content)
        });
        let Metered { hasher, breached, .. } = metered;
        self.total += hasher.length_bytes().min(by_total);
        match result {
            Ok(content) => {
                let size_bytes = hasher.length_bytes();
                Some(Scanned { size_bytes, digest: hasher.finish(), content })
            }
            Err(_) if breached => {
                let code = if allowed == by_ratio {
                    ViolationCode::ZipBombRatio
                } else if allowed == limits.entry_bytes_max {
                    ViolationCode::EntryTooLarge
                } else {
                    self.inflate = false;
                    ViolationCode::TotalTooLarge
                };
                let detail = format!("inflating was stopped after {allowed} bytes");
                self.findings.add(code, path, detail);
                None
            }
            Err(error) => {
                self.findings.add(ViolationCode::CorruptEntry, path, error.to_string());
                None
            }
        }
    }

    /// Reads what is to be kept of a file, from its beginning.
    fn keep(&mut self, path: &str, reader: &mut impl Read) -> io::Result<Content> {
        let limits = self.limits;
        match Role::of(path) {
            Role::Descriptor => {
                let left = limits.descriptors_bytes_max - self.descriptors;
                let allowed = limits.descriptor_bytes_max.min(left);
                let mut text = Vec::new();
                reader.take(allowed + 1).read_to_end(&mut text)?;
                if text.len() as u64 > allowed {
                    let detail = format!("the file has more than {allowed} bytes");
                    self.findings.add(ViolationCode::DescriptorTooLarge, path, detail);
                    return Ok(Content::Opaque);
                }
                self.descriptors += text.len() as u64;
                Ok(Content::Descriptor(text))
            }
            Role::Module => match wasm::facts(reader, limits.wasm_section_bytes_max) {
                Ok(facts) => Ok(Content::Module(Ok(facts))),
                Err(wasm::Unread::Malformed(detail)) => Ok(Content::Module(Err(detail))),
                Err(wasm::Unread::Source(error)) => Err(error),
            },
            Role::Executable => {
                let mut head = Vec::new();
                reader.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
                Ok(Content::Head(head))
            }
            Role::Other => Ok(Content::Opaque),
        }
    }
}

/// The rule that an entry's file type (the type bits of its Unix mode, 0 for none) breaks, if any.
fn broken_kind(path: &str, kind: u32) -> Option<(ViolationCode, String)> {
    match kind {
        0 | 0o100_000 => None,
        0o040_000 if path.ends_with('/') => None,
        0o120_000 => Some((ViolationCode::Symlink, "the entry is a symbolic link".into())),
        other => {
            let detail = format!("the entry's file type is {other:o}");
            Some((ViolationCode::SpecialFile, detail))
        }
    }
}

/// What the central directory says of an entry.
struct EntryFacts {
    /// The file type bits of the Unix mode; 0 where there is none.
    kind: u32,
    encrypted: bool,
    compression: CompressionMethod,
    stored_bytes: u64,
}

/// What is kept of a file, by its path: only places where the layout gives a file a meaning count.
enum Role {
    Descriptor,
    Module,
    Executable,
    Other,
}

impl Role {
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["application.json" | "applicaton.json"]
            | [_, "package.json" | "wstemplate.json" | "static.json"]
            | [_, _, "wstemplate.json" | "static.json"] => Self::Descriptor,
            [_, "package.wasm"] => Self::Module,
            [_, file] if file.starts_with("package.exe.") => Self::Executable,
            _ => Self::Other,
        }
    }
}

/// Counts and hashes what is read, and stops where more than allowed comes.
struct Metered<R> {
    inner: R,
    hasher: Hasher,
    allowed: u64,
    breached: bool,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if self.hasher.length_bytes() + count as u64 > self.allowed {
            self.breached = true;
            return Err(io::Error::other("more bytes than allowed"));
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
