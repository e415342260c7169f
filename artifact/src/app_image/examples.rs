//! The example applications are valid images, and are what their sources build.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Limits,
    app_image::{Architecture, Driver, Validated, pack, validate},
};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

fn packed(name: &str) -> Validated {
    let mut zip = Cursor::new(Vec::new());
    let packed = pack(&example(name).join("image"), &mut zip, &Limits::default()).unwrap();
    assert!(packed.size_bytes < 100_000, "examples are small: {}", packed.size_bytes);
    validate(zip, &Limits::default()).unwrap()
}

/// Builds an example into an empty folder, with the environment it is run in.
fn build(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let script = example(name).join("build.sh");
    let output = Command::new("/bin/sh").arg(script).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

#[test]
fn both_examples_are_valid_without_warnings() {
    let wasm = packed("ticker-wasm");
    assert_eq!((wasm.manifest.driver, wasm.manifest.num_partitions), (Driver::Wasm, 6));
    let exec = packed("ticker-exec");
    assert_eq!((exec.manifest.driver, exec.manifest.num_partitions), (Driver::Exec, 2));
    assert_eq!(exec.manifest.architectures, Architecture::ALL);
    assert_eq!((wasm.warnings, exec.warnings), (vec![], vec![]));
}

#[test]
fn the_committed_script_is_what_its_source_builds() {
    let built = build("ticker-exec");
    for architecture in Architecture::ALL {
        let file = format!("package.exe.{architecture}");
        let committed = example("ticker-exec").join("image/ticker").join(&file);
        let (committed, built) = (fs::read(committed), fs::read(built.path().join(&file)));
        assert_eq!(committed.unwrap(), built.unwrap(), "{file}");
    }
}

/// The compiler's version as COMPILER.txt has it, and as it is here; an empty one if none is here.
fn compilers() -> (String, String) {
    let text = fs::read_to_string(example("ticker-wasm").join("COMPILER.txt")).unwrap();
    let expected = text.lines().find_map(|line| line.strip_prefix("clang --version: ")).unwrap();
    let found = Command::new("clang").arg("--version").output();
    let found = found.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let found = found.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
    (expected.to_owned(), found)
}

#[test]
fn the_committed_module_is_what_its_source_builds() {
    let (expected, found) = compilers();
    let libc = Path::new("/usr/lib/wasm32-wasi/libc.a").exists();
    if found != expected || !libc {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI needs clang, lld, wasi-libc and libclang-rt-14-dev-wasm32; clang here: `{found}`"
        );
        println!("skipped: needs `{expected}` and wasi-libc, clang here is `{found}`");
        return;
    }
    let built = fs::read(build("ticker-wasm").path().join("package.wasm")).unwrap();
    let committed = fs::read(example("ticker-wasm").join("image/ticker/package.wasm")).unwrap();
    assert!(committed == built, "{} bytes committed, {} built", committed.len(), built.len());
}
