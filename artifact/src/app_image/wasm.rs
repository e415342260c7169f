//! What a WebAssembly module imports and exports, read while it streams by.
//!
//! Only the import and the export section are looked into; everything else is skipped by its
//! declared size, so a module of any size costs the memory of these two sections, which are
//! bounded. The module's code is validated by the engine that compiles it, not here.

use std::{
    collections::BTreeSet,
    io::{self, Read},
};

/// What is known of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The names of the hosts it imports from, as `wasi_snapshot_preview1`.
    pub(crate) imports: BTreeSet<String>,
    /// The names it exports.
    pub(crate) exports: BTreeSet<String>,
    /// The exported functions among them.
    pub(crate) functions: BTreeSet<String>,
}

/// Why a module's facts are not known.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The bytes could not be read.
    Source(io::Error),
    /// The bytes are no module, in words.
    Malformed(String),
}

const HEADER_MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";
const HEADER_COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
const SECTION_IMPORT: u8 = 2;
const SECTION_EXPORT: u8 = 7;
/// The highest section known: tags, of the exception proposal.
const SECTION_LAST: u8 = 13;

/// Reads a module to its end.
pub(crate) fn facts(reader: &mut impl Read, section_bytes_max: u64) -> Result<Facts, Unread> {
    let mut header = [0; 8];
    fill(reader, &mut header)?;
    if header == HEADER_COMPONENT {
        return malformed("the file is a component, not a core module");
    }
    if header != HEADER_MODULE {
        return malformed("the file does not begin as a module of version 1");
    }
    let mut facts = Facts::default();
    let (mut imports_seen, mut exports_seen) = (false, false);
    while let Some(section) = byte(reader)? {
        let size = u64::from(stream_u32(reader)?);
        let seen = match section {
            SECTION_IMPORT => &mut imports_seen,
            SECTION_EXPORT => &mut exports_seen,
            0..=SECTION_LAST => {
                skip(reader, size)?;
                continue;
            }
            unknown => return malformed(format!("section {unknown} is not known")),
        };
        if std::mem::replace(seen, true) {
            return malformed(format!("section {section} occurs twice"));
        }
        if size > section_bytes_max {
            return malformed(format!("section {section} has more than {section_bytes_max} bytes"));
        }
        let mut bytes = Vec::new();
        reader.by_ref().take(size).read_to_end(&mut bytes).map_err(Unread::Source)?;
        if bytes.len() as u64 != size {
            return malformed("the file ends inside a section");
        }
        let mut cursor = Cursor { bytes: &bytes };
        if section == SECTION_IMPORT {
            read_imports(&mut cursor, &mut facts)?;
        } else {
            read_exports(&mut cursor, &mut facts)?;
        }
        if !cursor.bytes.is_empty() {
            return malformed(format!("section {section} has bytes left over"));
        }
    }
    Ok(facts)
}

fn malformed<T>(detail: impl Into<String>) -> Result<T, Unread> {
    Err(Unread::Malformed(detail.into()))
}

fn byte(reader: &mut impl Read) -> Result<Option<u8>, Unread> {
    let mut one = [0];
    loop {
        match reader.read(&mut one) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(one[0])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Unread::Source(error)),
        }
    }
}

fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> Result<(), Unread> {
    for slot in bytes {
        match byte(reader)? {
            Some(value) => *slot = value,
            None => return malformed("the file ends inside its header"),
        }
    }
    Ok(())
}

fn skip(reader: &mut impl Read, size: u64) -> Result<(), Unread> {
    let skipped = io::copy(&mut reader.take(size), &mut io::sink()).map_err(Unread::Source)?;
    if skipped == size { Ok(()) } else { malformed("the file ends inside a section") }
}

/// An unsigned LEB128 number of at most 32 bits.
fn stream_u32(reader: &mut impl Read) -> Result<u32, Unread> {
    let mut bytes = [0; 5];
    for length in 0..bytes.len() {
        match byte(reader)? {
            Some(value) => bytes[length] = value,
            None => return malformed("the file ends inside a section's size"),
        }
        if bytes[length] & 0x80 == 0 {
            return Cursor { bytes: &bytes[..=length] }.u32();
        }
    }
    malformed("a number is too long")
}

/// The bytes of one section that are still to be read.
struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Unread> {
        match self.bytes.split_at_checked(count) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => malformed("a section ends inside an item"),
        }
    }

    fn u8(&mut self) -> Result<u8, Unread> {
        Ok(self.take(1)?[0])
    }

    fn leb(&mut self, bits: u32) -> Result<u64, Unread> {
        let mut value = 0_u64;
        let mut shift = 0;
        loop {
            let next = self.u8()?;
            let part = u64::from(next & 0x7f);
            if shift >= bits || (bits - shift < 7 && part >> (bits - shift) != 0) {
                return malformed("a number is too large");
            }
            value |= part << shift;
            if next & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    fn u32(&mut self) -> Result<u32, Unread> {
        // `leb` refuses more than 32 bits, so nothing is cut off here.
        Ok(u32::try_from(self.leb(32)?).unwrap_or(u32::MAX))
    }

    fn name(&mut self) -> Result<&'a str, Unread> {
        let length = self.u32()? as usize;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).or_else(|_| malformed("a name is not UTF-8"))
    }

    fn limits(&mut self) -> Result<(), Unread> {
        let flags = self.u8()?;
        if flags > 7 {
            return malformed("a memory or table has unknown flags");
        }
        self.leb(64)?;
        if flags & 1 == 1 {
            self.leb(64)?;
        }
        Ok(())
    }

    /// A value type: one byte, or for a typed reference its heap type as well.
    fn value_type(&mut self) -> Result<(), Unread> {
        if matches!(self.u8()?, 0x63 | 0x64) {
            self.leb(33)?;
        }
        Ok(())
    }
}

fn read_imports(cursor: &mut Cursor<'_>, facts: &mut Facts) -> Result<(), Unread> {
    for _ in 0..cursor.u32()? {
        let host = cursor.name()?;
        if !facts.imports.contains(host) {
            facts.imports.insert(host.to_owned());
        }
        cursor.name()?;
        match cursor.u8()? {
            0 => _ = cursor.u32()?,
            1 => {
                cursor.value_type()?;
                cursor.limits()?;
            }
            2 => cursor.limits()?,
            3 => {
                cursor.value_type()?;
                cursor.u8()?;
            }
            4 => {
                cursor.u8()?;
                cursor.u32()?;
            }
            unknown => return malformed(format!("an import has the unknown kind {unknown}")),
        }
    }
    Ok(())
}

fn read_exports(cursor: &mut Cursor<'_>, facts: &mut Facts) -> Result<(), Unread> {
    for _ in 0..cursor.u32()? {
        let name = cursor.name()?.to_owned();
        let kind = cursor.u8()?;
        cursor.u32()?;
        if kind > 4 {
            return malformed(format!("an export has the unknown kind {kind}"));
        }
        if kind == 0 {
            facts.functions.insert(name.clone());
        }
        if !facts.exports.insert(name) {
            return malformed("two exports have the same name");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> Result<Facts, Unread> {
        facts(&mut bytes, 1024)
    }

    fn module(sections: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = HEADER_MODULE.to_vec();
        for (id, body) in sections {
            bytes.extend([*id, u8::try_from(body.len()).unwrap()]);
            bytes.extend(*body);
        }
        bytes
    }

    #[test]
    fn imports_and_exports_are_read_between_other_sections() {
        let bytes = module(&[
            (0, b"\x04namexyz"),
            (2, b"\x05\x01a\x01f\0\0\x01b\x01t\x01\x70\0\x01\x01b\x01m\x02\x01\x01\x02\x01b\x01g\x03\x7f\0\x01b\x01e\x04\0\0"),
            (7, b"\x02\x06_start\0\0\x06memory\x02\0"),
            (10, b"\0"),
        ]);
        let facts = read(&bytes).unwrap();
        assert_eq!(facts.imports.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(facts.exports.into_iter().collect::<Vec<_>>(), ["_start", "memory"]);
        assert_eq!(facts.functions.into_iter().collect::<Vec<_>>(), ["_start"]);
    }

    #[test]
    fn a_module_cut_anywhere_inside_is_malformed_and_never_panics() {
        let bytes = module(&[(7, b"\x01\x06_start\0\0"), (10, b"\0")]);
        let whole_section = HEADER_MODULE.len() + 2 + 10;
        for length in 0..bytes.len() {
            let result = read(&bytes[..length]);
            if length == HEADER_MODULE.len() || length == whole_section {
                assert!(result.is_ok(), "cut at the section boundary {length}");
            } else {
                assert!(matches!(result, Err(Unread::Malformed(_))), "cut at {length}");
            }
        }
    }

    #[test]
    fn what_is_no_module_is_refused_in_words() {
        let exports = [1, 6, b'_', b's', b't', b'a', b'r', b't', 0, 0];
        for (bytes, words) in [
            (b"MZ\0\0\0\0\0\0".to_vec(), "does not begin"),
            (HEADER_COMPONENT.to_vec(), "component"),
            (module(&[(14, b"")]), "section 14"),
            (module(&[(7, &exports), (7, &exports)]), "twice"),
            (module(&[(7, b"\x01\x01\xff\0\0")]), "UTF-8"),
            (module(&[(7, b"\x02\x01a\0\0\x01a\0\0")]), "same name"),
            (module(&[(7, b"\x01\x01a\x09\0")]), "unknown kind 9"),
            (module(&[(7, b"\0\0")]), "left over"),
            (module(&[(7, b"\xff\xff\xff\xff\x7f")]), "too large"),
            ([&HEADER_MODULE[..], &[7, 0xff, 0xff, 0x7f]].concat(), "more than 1024"),
            ([&HEADER_MODULE[..], &[7, 0x80, 0x80, 0x80, 0x80, 0x80]].concat(), "too long"),
        ] {
            match read(&bytes) {
                Err(Unread::Malformed(detail)) => assert!(detail.contains(words), "{detail}"),
                other => panic!("{words}: {other:?}"),
            }
        }
    }
}
