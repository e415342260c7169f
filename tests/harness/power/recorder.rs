//! The preloaded library: built once by a test that needs it, and given to processes by variables.

use crate::preload;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Records what processes do to their files below one folder.
#[derive(Debug)]
pub struct Recorder {
    library: PathBuf,
    place: TempDir,
    under: PathBuf,
}

/// Calls that are made to fail, while a file says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing can be written or made: the disk is full.
    Full,
    /// Writes fail with an input/output error.
    WriteError,
    /// The next sync fails with an input/output error, and only that one.
    SyncError,
}

impl Recorder {
    /// Builds the library. `None` where there is no C compiler; says so.
    ///
    /// # Panics
    /// When a C compiler is there and does not build it.
    pub fn build() -> Option<Self> {
        let place = TempDir::with_prefix("muster-trace-").unwrap();
        let library = preload::build("power_cut/recorder.c", place.path())?;
        let under = fs::canonicalize(place.path()).unwrap().join("data");
        fs::create_dir(&under).unwrap();
        Some(Self { library, place, under })
    }

    /// The folder below which files are recorded; empty at first.
    pub fn under(&self) -> &Path {
        &self.under
    }

    /// What makes a process record.
    pub fn env(&self) -> BTreeMap<String, String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        BTreeMap::from([
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("POWER_CUT_UNDER".to_owned(), text(&self.under)),
            ("POWER_CUT_TRACES".to_owned(), text(self.place.path())),
        ])
    }

    /// The same, and trouble for files whose path contains `path`, once [`Recorder::begin_trouble`]
    /// was called.
    pub fn env_with(&self, trouble: Trouble, path: &str) -> BTreeMap<String, String> {
        let mut env = self.env();
        let fail = match trouble {
            Trouble::Full => "write:28:1:all",
            Trouble::WriteError => "write:5:1:all",
            Trouble::SyncError => "sync:5:1:one",
        };
        env.insert("POWER_CUT_FAIL".to_owned(), fail.to_owned());
        env.insert("POWER_CUT_FAIL_PATH".to_owned(), path.to_owned());
        let flag = self.flag().to_str().unwrap().to_owned();
        env.insert("POWER_CUT_FAIL_WHEN".to_owned(), flag);
        env
    }

    fn flag(&self) -> PathBuf {
        self.place.path().join("trouble")
    }

    /// From now on calls fail.
    pub fn begin_trouble(&self) {
        fs::write(self.flag(), "").unwrap();
    }

    /// From now on no call fails.
    pub fn end_trouble(&self) {
        fs::remove_file(self.flag()).unwrap();
    }

    /// Where the trace of a process is.
    pub fn trace(&self, pid: u32) -> PathBuf {
        self.place.path().join(format!("{pid}.trace"))
    }
}
