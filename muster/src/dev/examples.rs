//! The two example applications, carried inside the binary.

use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// One example: the files of its image, and how it is deployed.
#[derive(Debug)]
pub(crate) struct Example {
    /// Name of the deployment.
    pub(crate) name: &'static str,
    /// Number of partitions.
    pub(crate) partitions: usize,
    files: &'static [(&'static str, &'static [u8])],
}

/// Partitions of all examples together.
pub(crate) const PARTITIONS: usize = 8;

/// The examples.
pub(crate) const ALL: &[Example] = &[
    Example {
        name: "ticker-wasm",
        partitions: 6,
        files: &[
            (
                "application.json",
                include_bytes!("../../../examples/ticker-wasm/image/application.json"),
            ),
            (
                "ticker/package.json",
                include_bytes!("../../../examples/ticker-wasm/image/ticker/package.json"),
            ),
            (
                "ticker/package.wasm",
                include_bytes!("../../../examples/ticker-wasm/image/ticker/package.wasm"),
            ),
        ],
    },
    Example {
        name: "ticker-exec",
        partitions: 2,
        files: &[
            (
                "application.json",
                include_bytes!("../../../examples/ticker-exec/image/application.json"),
            ),
            (
                "ticker/package.json",
                include_bytes!("../../../examples/ticker-exec/image/ticker/package.json"),
            ),
            (
                "ticker/package.exe.x86_64",
                include_bytes!("../../../examples/ticker-exec/image/ticker/package.exe.x86_64"),
            ),
            (
                "ticker/package.exe.aarch64",
                include_bytes!("../../../examples/ticker-exec/image/ticker/package.exe.aarch64"),
            ),
        ],
    },
];

impl Example {
    /// Writes the image's files below `folder`; returns the folder to push.
    pub(crate) fn unpack(&self, folder: &Path) -> Result<PathBuf> {
        let image = folder.join(self.name);
        for (path, bytes) in self.files {
            let file = image.join(path);
            let parent = file.parent().context("a file has a folder")?;
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            fs::write(&file, bytes).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_have_as_many_partitions_as_are_waited_for() {
        assert_eq!(ALL.iter().map(|example| example.partitions).sum::<usize>(), PARTITIONS);
    }
}
