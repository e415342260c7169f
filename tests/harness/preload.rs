//! C libraries that are preloaded into processes under test, built when a test needs them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Builds a source of this room as a shared library in `place`. `None` where there is no C compiler;
/// says so.
///
/// # Panics
/// When a C compiler is there and does not build it.
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
pub(crate) fn build(source: &str, place: &Path) -> Option<PathBuf> {
    let library = place.join("preloaded.so");
    let built = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(source))
        .args(["-ldl", "-lpthread"])
        .output();
    let Ok(built) = built else {
        println!("skipped: there is no C compiler (cc) to build {source} with");
        return None;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(library)
}
