//! Images made for tests, as folders that `muster` packs.

use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A script that proves on which host it runs, and when: it appends `<boottime ms> <copy> <event>` to
/// `$TICKS/<deployment>-<partition>.ticks` each 100 ms, and holds a lock beside it meanwhile. A copy
/// that finds the lock held writes `overlap`.
const TICKER: &str = r#"#!/bin/sh
name="$TICKS/$MUSTER_DEPLOYMENT-$MUSTER_PARTITION"
read -r copy < /proc/sys/kernel/random/uuid
note() {
    read -r up rest < /proc/uptime
    echo "${up%.*}${up#*.}0 $copy $1" >> "$name.ticks"
}
exec 9>> "$name.lock"
flock -n 9 || { note overlap; echo overlap >> "$TICKS/overlaps"; }
trap 'note stop; exit 0' TERM
note start
while :; do
    note tick
    sleep 0.1
done
"#;

/// A script that takes more and more memory.
const HOG: &str = r#"#!/bin/sh
data=0123456789abcdef
while :; do data="$data$data"; done
"#;

/// Writes an image of one shell script for this machine and the other architecture.
fn image(folder: &Path, name: &str, version: &str, script: &str) -> PathBuf {
    let image = folder.join(format!("{name}-{version}"));
    let module = image.join("main");
    fs::create_dir_all(&module).unwrap();
    let application = json!({
        "schema_version": 1, "name": name, "version": version, "driver": "exec",
        "num_partitions": 4, "on_disconnect": "stop",
        "limits": { "cpu_millis": 100, "memory_bytes": 64 << 20 }, "stop_grace_ms": 500,
    });
    fs::write(image.join("application.json"), application.to_string()).unwrap();
    let package = json!({ "name": "main", "version": "1.0.0" });
    fs::write(module.join("package.json"), package.to_string()).unwrap();
    for arch in ["x86_64", "aarch64"] {
        fs::write(module.join(format!("package.exe.{arch}")), script).unwrap();
    }
    image
}

/// An image whose jobs tick.
pub(crate) fn ticker(folder: &Path, version: &str) -> PathBuf {
    image(folder, "ticker", version, TICKER)
}

/// An image whose job exceeds any limit of memory.
pub(crate) fn hog(folder: &Path) -> PathBuf {
    image(folder, "hog", "1.0.0", HOG)
}

/// An image of about `mib` MiB, most of it a static file.
pub(crate) fn large(folder: &Path, mib: usize) -> PathBuf {
    let image = image(folder, "large", "1.0.0", TICKER);
    let files = image.join("assets");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("static.json"), json!({ "name": "assets" }).to_string()).unwrap();
    // Not compressible, and the same in every run.
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(mib << 20);
    while bytes.len() < mib << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    fs::write(files.join("noise.bin"), bytes).unwrap();
    image
}
