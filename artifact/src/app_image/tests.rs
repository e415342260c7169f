//! Malformed images, each with every violation it must be refused with, and the good ones beside.
//!
//! Each case starts from one small valid image and changes one thing. The whole list of (code,
//! path) is compared, so a rule that also fires where it should not is found too.

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::digest::Digest;

/// `(module (func (export "_start")))`
const WASM: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

const APPLICATION: &str = r#"{"schema_version": 1, "name": "shop", "version": "1.2.3"}"#;
const PACKAGE: &str = r#"{"name": "cart", "version": "1.0.0"}"#;

/// A zip under construction.
#[derive(Clone)]
struct Image(BTreeMap<String, Vec<u8>>);

impl Image {
    /// The valid image that every case changes.
    fn base() -> Self {
        Self(BTreeMap::new())
            .with("application.json", APPLICATION)
            .with("m/package.json", PACKAGE)
            .with("m/package.wasm", WASM)
    }

    /// The same with executables instead of a module.
    fn exec() -> Self {
        Self::base().without("m/package.wasm").with("m/package.exe.x86_64", "#!/bin/sh\n")
    }

    fn with(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.0.insert(path.into(), content.as_ref().to_vec());
        self
    }

    fn without(mut self, path: &str) -> Self {
        self.0.remove(path).unwrap();
        self
    }

    fn zip_by(&self, method: CompressionMethod) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        for (path, content) in &self.0 {
            if path.ends_with('/') {
                zip.add_directory(path.as_str(), options).unwrap();
            } else {
                zip.start_file(path.as_str(), options).unwrap();
                zip.write_all(content).unwrap();
            }
        }
        zip.finish().unwrap().into_inner()
    }

    fn zip(&self) -> Vec<u8> {
        self.zip_by(CompressionMethod::Deflated)
    }
}

/// `bytes` with every occurrence of `from` (there must be `count`) replaced by as many bytes.
fn patch(bytes: &[u8], from: &[u8], to: &[u8], count: usize) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut patched = bytes.to_vec();
    let places: Vec<_> =
        (0..=bytes.len() - from.len()).filter(|at| &bytes[*at..*at + from.len()] == from).collect();
    assert_eq!(places.len(), count, "occurrences");
    for at in places {
        patched[at..at + to.len()].copy_from_slice(to);
    }
    patched
}

/// The base image with a file whose path in the zip is then overwritten by `path`.
fn with_path(path: &[u8]) -> Vec<u8> {
    let stand_in = "~".repeat(path.len());
    patch(&Image::base().with(&stand_in, "x").zip(), stand_in.as_bytes(), path, 2)
}

/// The base image, with bytes of the header of `m/package.wasm` changed: in its own header at
/// `local`, in the central directory at `central` (offsets from each header's start).
fn with_header(local: Option<usize>, central: Option<usize>, change: impl Fn(u8) -> u8) -> Vec<u8> {
    let mut bytes = Image::base().zip();
    let name = b"m/package.wasm";
    let mut names = (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name));
    let (first, second) = (names.next().unwrap() - 30, names.next().unwrap() - 46);
    assert_eq!(&bytes[first..first + 4], b"PK\x03\x04");
    assert_eq!(&bytes[second..second + 4], b"PK\x01\x02");
    for at in local.map(|at| first + at).into_iter().chain(central.map(|at| second + at)) {
        bytes[at] = change(bytes[at]);
    }
    bytes
}

/// Limits that small test images can breach.
fn small() -> Limits {
    Limits {
        image_bytes_max: 20_000,
        entries_max: 12,
        entry_bytes_max: 200_000,
        total_bytes_max: 300_000,
        ratio_free_bytes: 1000,
        descriptor_bytes_max: 5000,
        ..Limits::default()
    }
}

fn violations(bytes: &[u8], limits: &Limits) -> Vec<Violation> {
    match validate(Cursor::new(bytes), limits) {
        Err(Invalid::Violations(violations)) => violations,
        other => panic!("expected violations, got {other:?}"),
    }
}

/// Asserts that exactly these (code, path) are found.
#[track_caller]
fn assert_refused_within(bytes: &[u8], limits: &Limits, expected: &[(&str, &str)]) {
    let found = violations(bytes, limits);
    let short: Vec<_> = found.iter().map(|v| (v.code.code(), v.path.as_str())).collect();
    assert_eq!(short, expected, "{found:#?}");
    for violation in found {
        assert!(!violation.detail.is_empty() && !violation.code.remedy().is_empty());
    }
}

#[track_caller]
fn assert_refused(image: &Image, expected: &[(&str, &str)]) {
    assert_refused_within(&image.zip(), &Limits::default(), expected);
}

/// Asserts that application.json with these further fields is refused at this field.
#[track_caller]
fn assert_application_refused(fields: &str, code: &str, field: &str) {
    let text = APPLICATION.replace('}', &format!(", {fields}}}"));
    let found = violations(&Image::base().with("application.json", text).zip(), &Limits::default());
    let short: Vec<_> = found.iter().map(|v| (v.code.code(), v.field.as_str())).collect();
    assert_eq!(short, [(code, field)], "{fields}");
    assert_eq!(found[0].path, "application.json");
}

#[test]
fn a_small_image_is_valid_and_its_defaults_are_filled_in() {
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let bytes = Image::base().zip_by(method);
        let valid = validate(Cursor::new(bytes), &Limits::default()).unwrap();
        assert_eq!(valid.warnings, []);
        let paths: Vec<_> = valid.index.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["application.json", "m/package.json", "m/package.wasm"]);
        let manifest = valid.manifest;
        assert_eq!((manifest.name.as_str(), manifest.driver), ("shop", Driver::Wasm));
        assert_eq!(manifest.version.to_string(), "1.2.3");
        assert_eq!((manifest.num_partitions, manifest.stop_grace_ms), (1, 10_000));
        assert_eq!(manifest.on_disconnect, OnDisconnect::KeepRunning);
        assert_eq!(manifest.architectures, Architecture::ALL);
        let Payload::Wasm(file) = &manifest.modules[0].payload else { panic!() };
        assert_eq!((file.size_bytes, file.digest), (WASM.len() as u64, Digest::of(WASM)));
    }
}

#[test]
fn everything_an_image_may_have_is_read_and_survives_json() {
    let application = r#"{"schema_version": 1, "name": "shop", "version": "1.2.3-rc.1", "driver": "exec",
        "num_partitions": 65535, "on_disconnect": "stop", "stop_grace_ms": 0,
        "limits": {"cpu_millis": 250, "memory_bytes": 1048576},
        "modules": {"cart": {"args": ["-v"], "env": {"LEVEL": "debug"}}}}"#;
    let cart = r#"{"name": "cart", "version": "1.0.0", "dependencies": {"prices": "^2.1"}}"#;
    let rows = format!(r#"{{"name": "empty", "data": {{"d/rows": "{}"}}}}"#, Digest::of(b"rows"));
    let image = Image::exec()
        .with("application.json", application)
        .with("m/package.json", cart)
        .with("m/package.exe.aarch64", "#!/bin/sh\n")
        .with("a/package.json", r#"{"name": "zprices", "version": "0.1.0", "dependencies": {}}"#)
        .with("a/package.exe.aarch64", "#!/bin/sh\n")
        .with("z/package.json", r#"{"name": "prices", "version": "2.3.4"}"#)
        .with("z/package.exe.aarch64", "#!/bin/sh\n")
        .with("m/t/wstemplate.json", &rows)
        .with("m/t/d/rows", "rows")
        .with("m/s/static.json", r#"{"name": "admin"}"#)
        .with("m/s/index.html", "hello")
        .with("web/static.json", r#"{"name": "web"}"#)
        .with("web/deep/er/package.json", "not a descriptor here")
        .with("web/empty/", "");
    let valid = validate(Cursor::new(image.zip()), &Limits::default()).unwrap();
    let manifest = valid.manifest;
    let names: Vec<_> = manifest.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(names, ["prices", "cart", "zprices"], "dependencies first, then by name");
    assert_eq!(manifest.architectures, [Architecture::Arm]);
    assert_eq!(manifest.modules[1].args, ["-v"]);
    assert_eq!(manifest.modules[1].env["LEVEL"], "debug");
    assert_eq!(manifest.num_partitions, 65535);
    assert_eq!(manifest.limits.memory_bytes, Some(1 << 20));
    assert_eq!(manifest.templates[0].data[0].path, "m/t/d/rows");
    let statics: Vec<_> = manifest.statics.iter().map(|s| (&*s.name, &*s.folder)).collect();
    assert_eq!(statics, [("admin", "m/s"), ("web", "web")]);
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
}

#[test]
fn the_seeds_spelling_is_read_with_a_warning() {
    let image = Image::base().without("application.json").with("applicaton.json", APPLICATION);
    let valid = validate(Cursor::new(image.zip()), &Limits::default()).unwrap();
    assert_eq!(valid.manifest.name, "shop");
    assert_eq!(valid.warnings.len(), 1);
    assert_eq!(valid.warnings[0].code.code(), "misspelt-application-json");
    assert_refused(
        &image.with("application.json", APPLICATION),
        &[("several-application-json", "applicaton.json")],
    );
}

#[test]
fn what_is_no_zip_is_refused() {
    let whole = Image::base().zip();
    let limits = Limits::default();
    for bytes in [&b""[..], b"PK", &[0; 4000], &whole[..whole.len() - 1], &whole[1..]] {
        assert_refused_within(bytes, &limits, &[("not-a-zip", "")]);
    }
}

#[test]
fn a_reader_that_fails_is_no_violation() {
    struct Broken(Cursor<Vec<u8>>);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.position() < 60 {
                return Err(std::io::Error::other("the disk is gone"));
            }
            self.0.read(buffer)
        }
    }
    impl Seek for Broken {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let result = validate(Broken(Cursor::new(Image::base().zip())), &Limits::default());
    let Err(Invalid::Read(error)) = result else { panic!("{result:?}") };
    assert_eq!(error.to_string(), "the disk is gone");
}

#[test]
fn an_image_beyond_a_limit_is_refused_at_the_first_byte_too_many() {
    let noise: Vec<u8> =
        (0..6000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let stored = |image: Image| image.zip_by(CompressionMethod::Stored);
    let limits = small();
    let too_large =
        stored(Image::base().with("s/static.json", r#"{"name": "s"}"#).with("s/x", noise));
    assert_refused_within(&too_large, &limits, &[("image-too-large", "")]);

    let mut many = Image::base().with("s/static.json", r#"{"name": "s"}"#);
    for number in 0..9 {
        many = many.with(&format!("s/{number}"), "");
    }
    assert_refused_within(&many.zip(), &limits, &[("too-many-entries", "")]);
}

#[test]
fn a_central_directory_that_would_fill_the_memory_is_refused() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for path in ["a/1", "a/2", "a/3"] {
        let options = SimpleFileOptions::default().into_full_options();
        zip.start_file(path, options.with_file_comment("x".repeat(2000))).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    let limits = Limits { directory_bytes_max: 4000, ..Limits::default() };
    assert_refused_within(&bytes, &limits, &[("directory-too-large", "")]);
}

#[test]
fn a_zip_that_was_written_to_a_pipe_is_as_good_as_any() {
    let mut zip = ZipWriter::new_stream(Vec::new());
    for (path, content) in &Image::base().0 {
        zip.start_file(path.as_str(), SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    let streamed = zip.finish().unwrap().into_inner();
    assert!(streamed.windows(4).any(|bytes| bytes == b"PK\x07\x08"), "it has data descriptors");
    let valid = validate(Cursor::new(streamed), &Limits::default()).unwrap();
    assert_eq!(valid, validate(Cursor::new(Image::base().zip()), &Limits::default()).unwrap());
}

#[test]
fn a_bomb_is_stopped_while_it_inflates() {
    let limits = small();
    let image = Image::base().with("s/static.json", r#"{"name": "s"}"#);
    let zeroes = image.clone().with("s/zeroes", vec![0; 150_000]).zip();
    assert_refused_within(&zeroes, &limits, &[("zip-bomb-ratio", "s/zeroes")]);

    let loose = Limits { ratio_max: 10_000, ..small() };
    let large = image.clone().with("s/large", vec![0; 200_001]).zip();
    assert_refused_within(&large, &loose, &[("entry-too-large", "s/large")]);

    let both = image.with("s/a", vec![0; 200_000]).with("s/b", vec![0; 100_000]).zip();
    assert_refused_within(&both, &loose, &[("total-too-large", "s/b")]);
    assert!(validate(Cursor::new(both), &Limits { total_bytes_max: 301_000, ..loose }).is_ok());
}

#[test]
fn a_header_that_lies_about_a_bombs_size_does_not_help_it() {
    let image = Image::base().with("s/static.json", r#"{"name": "s"}"#);
    let honest = image.with("s/zeroes", vec![0; 150_000]).zip();
    let size = 150_000_u32.to_le_bytes();
    let lying = patch(&honest, &size, &10_u32.to_le_bytes(), 2);
    assert_refused_within(&lying, &small(), &[("corrupt-entry", "s/zeroes")]);
}

#[test]
fn entries_that_cannot_be_read_are_refused() {
    let limits = Limits::default();
    let path = "m/package.wasm";
    let encrypted = with_header(Some(6), Some(8), |flags| flags | 1);
    assert_refused_within(&encrypted, &limits, &[("encrypted-entry", path)]);
    let compressed = with_header(Some(8), Some(10), |_| 12);
    assert_refused_within(&compressed, &limits, &[("unsupported-compression", path)]);
    let checksum = with_header(Some(14), Some(16), |byte| byte ^ 1);
    assert_refused_within(&checksum, &limits, &[("corrupt-entry", path)]);
}

#[test]
fn two_headers_of_one_entry_must_agree() {
    let disagreeing = with_header(Some(30), None, |_| b'x');
    let expected = [("header-mismatch", "m/package.wasm")];
    assert_refused_within(&disagreeing, &Limits::default(), &expected);
}

#[test]
fn entries_that_share_bytes_are_refused() {
    // The second entry of the central directory points at the first entry's bytes.
    let bytes = Image::base().with("m/package.json", APPLICATION).zip();
    let name = b"m/package.json";
    let at = (0..bytes.len()).rfind(|at| bytes[*at..].starts_with(name)).unwrap() - 46;
    let mut overlapping = bytes;
    overlapping[at + 42..at + 46].copy_from_slice(&[0; 4]);
    let found = violations(&overlapping, &Limits::default());
    let codes: Vec<_> = found.iter().map(|violation| violation.code.code()).collect();
    assert_eq!(codes, ["overlapping-entries", "header-mismatch"]);
}

#[test]
fn paths_that_leave_the_image_are_refused() {
    let limits = Limits::default();
    for (path, code) in [
        ("/etc/passwd", "absolute-path"),
        ("C:/boot.ini", "absolute-path"),
        ("\\\\host\\share", "absolute-path"),
        ("../../etc/passwd", "path-escape"),
        ("m/../../x", "path-escape"),
        ("m\\..\\..\\x", "path-escape"),
        ("m/./x", "bad-path"),
        ("m//x", "bad-path"),
        ("m\\x", "bad-path"),
    ] {
        assert_refused_within(&with_path(path.as_bytes()), &limits, &[(code, path)]);
    }
    assert_refused_within(&with_path(b"m/\x1b[2J"), &limits, &[("bad-path", "m/\\u{1b}[2J")]);
    assert_refused_within(
        &with_path(b"m/\xff\xfe"),
        &limits,
        &[("bad-path", "m/\u{fffd}\u{fffd}")],
    );
}

#[test]
fn paths_that_collide_are_refused() {
    let limits = Limits::default();
    let same = Image::base().with("m/package.wasn", "x").zip();
    let same = patch(&same, b"m/package.wasn", b"m/package.wasm", 2);
    assert_refused_within(&same, &limits, &[("duplicate-entry", "m/package.wasm")]);
    let both = Image::base()
        .with("s/static.json", r#"{"name": "s"}"#)
        .with("s/a", "x")
        .with("s/b/c", "x")
        .zip();
    let both = patch(&both, b"s/b/c", b"s/a/c", 2);
    assert_refused_within(&both, &limits, &[("file-and-folder", "s/a/c")]);
    assert_refused(
        &Image::base().with("m/PACKAGE.wasm", WASM),
        &[("unknown-file-in-module", "m/PACKAGE.wasm"), ("case-collision", "m/package.wasm")],
    );
}

#[test]
fn links_and_devices_are_refused() {
    let mut zip = ZipWriter::new_append(Cursor::new(Image::base().zip())).unwrap();
    zip.add_symlink("m/link", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let linked = zip.finish().unwrap().into_inner();
    assert_refused_within(&linked, &Limits::default(), &[("symlink", "m/link")]);

    // The high half of the external attributes is the Unix mode: make it a character device.
    let device = with_header(None, Some(41), |_| 0o020);
    let expected = [("special-file", "m/package.wasm")];
    assert_refused_within(&device, &Limits::default(), &expected);
}

#[test]
fn files_and_folders_without_a_meaning_are_refused() {
    assert_refused(
        &Image::base().without("application.json"),
        &[("missing-application-json", "application.json")],
    );
    assert_refused(
        &Image::base().with("README.md", "hi"),
        &[("unknown-file-at-root", "README.md")],
    );
    assert_refused(&Image::base().with("notes/a.txt", "hi"), &[("unknown-folder", "notes/")]);
    assert_refused(&Image::base().with("empty/", ""), &[("unknown-folder", "empty/")]);
    assert_refused(&Image::base().with("m/notes/a.txt", "hi"), &[("unknown-folder", "m/notes/")]);
    assert_refused(
        &Image::base().with("m/main.c", "hi"),
        &[("unknown-file-in-module", "m/main.c")],
    );
    assert_refused(
        &Image::base().with("m/static.json", r#"{"name": "s"}"#),
        &[("ambiguous-folder", "m/")],
    );
    assert_refused(
        &Image::base().without("m/package.json").without("m/package.wasm"),
        &[("no-module", "")],
    );
}

#[test]
fn json_is_read_strictly() {
    let refused = |text: &str, code: &str| {
        let image = Image::base().with("application.json", text);
        assert_refused(&image, &[(code, "application.json")]);
    };
    refused("{", "malformed-json");
    refused("[]", "malformed-json");
    refused("{\"name\": \"\\ud800\"}", "malformed-json");
    refused(&APPLICATION.replace('}', ", \"name\": \"x\"}"), "duplicate-field");
    let long = Image::base().with("application.json", format!("{APPLICATION}{}", " ".repeat(5000)));
    let expected = [("descriptor-too-large", "application.json")];
    assert_refused_within(&long.zip_by(CompressionMethod::Stored), &small(), &expected);
    refused(&APPLICATION.replace("1.2.3", "1.2"), "bad-version");
    refused(&APPLICATION.replace(": 1", ": 2"), "unsupported-schema-version");
    refused(&APPLICATION.replace(": 1", ": -1"), "wrong-type");
    for name in ["Shop", "1shop", "shop-", "", "sh op", "../x", &"s".repeat(64)] {
        refused(&APPLICATION.replace("shop", name), "bad-name");
    }
    let bom = format!("\u{feff}{APPLICATION}");
    assert!(
        validate(
            Cursor::new(Image::base().with("application.json", bom).zip()),
            &Limits::default()
        )
        .is_ok()
    );
}

#[test]
fn missing_and_unknown_fields_are_all_listed_with_their_names() {
    let image = Image::base().with("application.json", r#"{"nome": "shop", "limits": {"cpu": 1}}"#);
    let found = violations(&image.zip(), &Limits::default());
    let short: Vec<_> = found.iter().map(|v| (v.code.code(), v.field.as_str())).collect();
    assert_eq!(
        short,
        [
            ("unknown-field", "limits.cpu"),
            ("missing-field", "name"),
            ("unknown-field", "nome"),
            ("missing-field", "schema_version"),
            ("missing-field", "version"),
        ]
    );
}

#[test]
fn values_out_of_their_range_are_refused_at_their_field() {
    let refused = assert_application_refused;
    refused(r#""num_partitions": 0"#, "partitions-out-of-range", "num_partitions");
    refused(r#""num_partitions": 65536"#, "partitions-out-of-range", "num_partitions");
    refused(r#""num_partitions": 1.5"#, "wrong-type", "num_partitions");
    refused(r#""num_partitions": "8""#, "wrong-type", "num_partitions");
    refused(r#""stop_grace_ms": 3600001"#, "stop-grace-out-of-range", "stop_grace_ms");
    refused(r#""on_disconnect": "restart""#, "unknown-on-disconnect", "on_disconnect");
    refused(r#""driver": "jar""#, "unknown-driver", "driver");
    refused(r#""driver": "exec""#, "driver-mismatch", "driver");
    refused(r#""limits": {"cpu_millis": 0}"#, "limit-out-of-range", "limits.cpu_millis");
    refused(r#""limits": {"memory_bytes": 1000}"#, "limit-out-of-range", "limits.memory_bytes");
    refused(r#""limits": []"#, "wrong-type", "limits");
    refused(r#""modules": {"x": {}}"#, "settings-for-unknown-module", "modules.x");
    refused(r#""modules": {"cart": {"args": [1]}}"#, "wrong-type", "modules.cart.args[0]");
    refused(r#""modules": {"cart": {"args": ["\u0000"]}}"#, "bad-argument", "modules.cart.args[0]");
    for name in ["MUSTER_TENANT", "muster_x", "1A", "A-B", "A=B", ""] {
        let field = format!("modules.cart.env.{name}");
        let text = format!(r#""modules": {{"cart": {{"env": {{"{name}": "x"}}}}}}"#);
        refused(&text, "bad-environment", &field);
    }
}

#[test]
fn a_module_has_one_payload_of_a_kind_that_runs() {
    let base = Image::base();
    assert_refused(&base.clone().without("m/package.wasm"), &[("module-without-payload", "m/")]);
    assert_refused(
        &base.clone().with("m/package.exe.x86_64", "#!/bin/sh\n"),
        &[("module-with-several-payloads", "m/")],
    );
    assert_refused(
        &base.clone().without("m/package.wasm").with("m/package.lua", "x"),
        &[("unsupported-payload", "m/package.lua")],
    );
    assert_refused(
        &Image::exec().with("m/package.exe.mips", "#!/bin/sh\n"),
        &[("unknown-architecture", "m/package.exe.mips")],
    );
    assert_refused(
        &base
            .with("n/package.json", PACKAGE.replace("cart", "other"))
            .with("n/package.exe.x86_64", "#!/bin/sh\n"),
        &[("mixed-drivers", "")],
    );
    assert_refused(
        &Image::exec()
            .with("n/package.json", PACKAGE.replace("cart", "other"))
            .with("n/package.exe.aarch64", "#!/bin/sh\n"),
        &[("no-common-architecture", "")],
    );
}

#[test]
fn an_executable_is_an_elf_of_its_architecture_or_a_script() {
    let mut elf = vec![0_u8; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[16] = 3;
    elf[18] = 62;
    let valid = Image::exec().with("m/package.exe.x86_64", &elf);
    assert!(validate(Cursor::new(valid.zip()), &Limits::default()).is_ok());
    let path = "m/package.exe.x86_64";
    assert_refused(&Image::exec().with(path, "echo"), &[("not-an-elf", path)]);
    elf[18] = 183;
    assert_refused(&Image::exec().with(path, &elf), &[("wrong-arch", path)]);
    let exports = r#"{"name": "cart", "version": "1.0.0", "exports": ["x"]}"#;
    let image = Image::exec().with("m/package.json", exports);
    assert_refused(&image, &[("exports-without-wasm", "m/package.json")]);
}

#[test]
fn a_wasm_module_is_a_command_that_keeps_its_packages_promises() {
    let path = "m/package.wasm";
    let wasm = |bytes: &[u8]| Image::base().with(path, bytes);
    assert_refused(&wasm(b"#!/bin/sh\n"), &[("not-a-wasm-module", path)]);
    assert_refused(&wasm(&WASM[..WASM.len() - 1]), &[("not-a-wasm-module", path)]);
    assert_refused(&wasm(b"\0asm\x0d\0\x01\0"), &[("not-a-wasm-module", path)]);
    let renamed = patch(WASM, b"_start", b"_begin", 1);
    assert_refused(&wasm(&renamed), &[("start-missing", path)]);

    let promise = r#"{"name": "cart", "version": "1.0.0", "exports": ["checkout", "_start"]}"#;
    assert_refused(&Image::base().with("m/package.json", promise), &[("export-missing", path)]);

    let import = b"\0asm\x01\0\0\0\x02\x09\x01\x03env\x01f\0\0\x07\x0e\x02\x06_start\0\0\x01x\0\0";
    assert_refused(&wasm(import), &[("import-unknown", path)]);
    let allow = r#"{"name": "cart", "version": "1.0.0", "allow_unknown_imports": true}"#;
    let image = wasm(import).with("m/package.json", allow);
    let valid = validate(Cursor::new(image.zip()), &Limits::default()).unwrap();
    let codes: Vec<_> = valid.warnings.iter().map(|warning| warning.code.code()).collect();
    assert_eq!(codes, ["undeclared-export", "unknown-import-allowed"]);
}

#[test]
fn dependencies_are_in_the_image_in_an_accepted_version_and_without_cycles() {
    let module = |image: Image, name: &str, dependencies: &str| {
        let json = format!(
            r#"{{"name": "{name}", "version": "2.0.0", "dependencies": {{{dependencies}}}}}"#
        );
        image
            .with(&format!("{name}/package.json"), json)
            .with(&format!("{name}/package.wasm"), WASM)
    };
    let refused = |dependencies: &str, code: &str, field: &str| {
        let image = module(Image::base(), "x", dependencies);
        let found = violations(&image.zip(), &Limits::default());
        let short: Vec<_> =
            found.iter().map(|v| (v.code.code(), v.path.as_str(), v.field.as_str())).collect();
        assert_eq!(short, [(code, "x/package.json", field)]);
    };
    refused(r#""prices": "*""#, "dependency-missing", "dependencies.prices");
    refused(r#""cart": "^1.1""#, "dependency-version", "dependencies.cart");
    refused(r#""cart": "latest""#, "bad-version-requirement", "dependencies.cart");
    refused(r#""x": "*""#, "dependency-cycle", "dependencies");

    let mut image = Image::base();
    for (name, needs) in [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("e", "f"), ("f", "e")] {
        image = module(image, name, &format!(r#""{needs}": "*""#));
    }
    let found = violations(&image.zip(), &Limits::default());
    let short: Vec<_> = found.iter().map(|v| (v.code.code(), v.detail.as_str())).collect();
    assert_eq!(
        short,
        [("dependency-cycle", "a -> b -> c -> a"), ("dependency-cycle", "e -> f -> e")]
    );
}

#[test]
fn names_are_unique_among_their_kind() {
    let image = Image::base()
        .with("n/package.json", PACKAGE)
        .with("n/package.wasm", WASM)
        .with("t/wstemplate.json", r#"{"name": "x"}"#)
        .with("u/wstemplate.json", r#"{"name": "x"}"#)
        .with("v/static.json", r#"{"name": "x"}"#)
        .with("m/w/static.json", r#"{"name": "x"}"#);
    assert_refused(
        &image,
        &[
            ("duplicate-module-name", "n/package.json"),
            ("duplicate-template-name", "u/wstemplate.json"),
            ("duplicate-static-name", "v/static.json"),
        ],
    );
}

#[test]
fn a_templates_data_is_listed_present_and_unchanged() {
    let template = |data: &str| {
        let json = format!(r#"{{"name": "t", "data": {{{data}}}}}"#);
        Image::base().with("t/wstemplate.json", json).with("t/rows", "rows")
    };
    let good = format!(r#""rows": "{}""#, Digest::of(b"rows"));
    assert!(validate(Cursor::new(template(&good).zip()), &Limits::default()).is_ok());
    let wrong = format!(r#""rows": "{}""#, Digest::of(b"other"));
    assert_refused(&template(&wrong), &[("template-digest-mismatch", "t/rows")]);
    assert_refused(&template(r#""rows": "md5:00""#), &[("bad-digest", "t/wstemplate.json")]);
    assert_refused(&template(""), &[("template-data-unlisted", "t/rows")]);
    let missing = format!("{good}, \"more\": \"{}\"", Digest::of(b""));
    assert_refused(&template(&missing), &[("template-data-missing", "t/more")]);
}

#[test]
fn many_violations_are_listed_together_up_to_the_limit() {
    let image = Image::base()
        .with("application.json", "{}")
        .with("junk", "")
        .with("m/junk", "")
        .with("empty/", "")
        .without("m/package.wasm");
    let all = violations(&image.zip(), &Limits::default());
    assert_eq!(all.len(), 7, "{all:#?}");
    let cut = violations(&image.zip(), &Limits { violations_max: 3, ..Limits::default() });
    assert_eq!(cut.len(), 4);
    assert_eq!(cut[3].code.code(), "too-many-violations");
    let shown = all.iter().find(|v| v.field == "version").unwrap().to_string();
    assert_eq!(shown, "application.json: version: the field is missing [missing-field]");
}

/// Writes an image's files below a folder.
fn unpacked(image: &Image) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in &image.0 {
        let place = folder.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }
    folder
}

#[test]
fn packing_depends_on_content_alone_and_for_ever() {
    let image = Image::exec();
    let mut zips = Vec::new();
    for mode in [0o600, 0o755] {
        let folder = unpacked(&image);
        let program = folder.path().join("m/package.exe.x86_64");
        fs::set_permissions(program, fs::Permissions::from_mode(mode)).unwrap();
        let mut zip = Cursor::new(Vec::new());
        let packed = pack(folder.path(), &mut zip, &Limits::default()).unwrap();
        let zip = zip.into_inner();
        assert_eq!((packed.digest, packed.size_bytes), (Digest::of(&zip), zip.len() as u64));
        zips.push(zip);
    }
    assert_eq!(zips[0], zips[1]);
    // Whoever sees this fail has changed the identity of every image packed from now on.
    let golden = "sha256:890e2da661ef81fbb9ff63716b900ef40d99dfb0018acf2f4edd71f2d20e1eca";
    assert_eq!(Digest::of(&zips[0]).to_string(), golden);
    assert!(validate(Cursor::new(&zips[0]), &Limits::default()).is_ok());
}

#[test]
fn a_link_in_a_folder_is_refused_when_packing() {
    let folder = unpacked(&Image::base());
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("m/link")).unwrap();
    let result = pack(folder.path(), &mut Cursor::new(Vec::new()), &Limits::default());
    let Err(PackError::Violations(found)) = result else { panic!("{result:?}") };
    assert_eq!((found[0].code, found[0].path.as_str()), (ViolationCode::Symlink, "m/link"));
}

#[test]
fn an_extracted_image_has_its_files_its_modes_and_nothing_else() {
    let image =
        Image::exec().with("web/static.json", r#"{"name": "web"}"#).with("web/a/b/c.html", "hello");
    let zip = image.zip();
    let valid = validate(Cursor::new(&zip), &Limits::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("image");
    fs::create_dir(folder.path().join("image.partial")).unwrap();
    fs::write(folder.path().join("image.partial/left"), "behind").unwrap();
    extract(Cursor::new(&zip), &valid, &place).unwrap();
    for (path, content) in &image.0 {
        assert_eq!(&fs::read(place.join(path)).unwrap(), content);
        let mode = fs::metadata(place.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.contains(".exe.") { 0o755 } else { 0o644 }, "{path}");
    }
    assert!(!place.join("left").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let again = extract(Cursor::new(&zip), &valid, &place);
    assert!(matches!(again, Err(ExtractError::Exists(_))), "{again:?}");
}

#[test]
fn an_image_that_changed_after_validation_is_not_extracted() {
    let valid = validate(Cursor::new(Image::exec().zip()), &Limits::default()).unwrap();
    let changed = Image::exec().with("m/package.exe.x86_64", "#!/bin/no\n").zip();
    let folder = tempfile::tempdir().unwrap();
    let result = extract(Cursor::new(changed), &valid, &folder.path().join("image"));
    assert!(matches!(result, Err(ExtractError::Changed(_))), "{result:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn every_code_is_documented_and_every_documented_code_exists() {
    let page = include_str!("../../../docs/image-violations.md");
    let headings = page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
    let mut documented: Vec<&str> = headings.collect();
    let violations = ViolationCode::ALL.iter().map(|code| code.code());
    let mut known: Vec<&str> =
        violations.chain(WarningCode::ALL.iter().map(|code| code.code())).collect();
    documented.sort_unstable();
    known.sort_unstable();
    assert_eq!(documented, known);
    known.dedup();
    assert_eq!(documented.len(), known.len(), "codes are unique");
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

        #[test]
        fn changed_bytes_never_panic_and_never_pass_for_other_content(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let bytes = Image::base().zip();
            let expected = validate(Cursor::new(&bytes), &Limits::default()).unwrap();
            let mut changed = bytes;
            for (at, value) in changes {
                let at = at.index(changed.len());
                changed[at] = value;
            }
            // Times and attributes may change; whatever passes must have the same files.
            if let Ok(valid) = validate(Cursor::new(changed), &small()) {
                prop_assert_eq!(valid.index, expected.index);
            }
        }
    }
}
