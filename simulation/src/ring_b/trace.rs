//! The trace of a run: a hash of every line, and the lines themselves if somebody wants them.
//!
//! With the lines go the product's own log lines, at DEBUG: two runs of a seed must agree in those too.

use std::{
    fmt,
    fs::File,
    io::{self, BufWriter, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;
use tracing_subscriber::fmt::MakeWriter;

/// The trace. Clones write the same one.
#[derive(Clone)]
pub(super) struct Trace {
    inner: Arc<Mutex<Inner>>,
    began: Instant,
}

struct Inner {
    hash: u64,
    lines: u64,
    file: Option<BufWriter<File>>,
}

impl Trace {
    /// Begins now; the lines go to `file`, if there is one.
    pub(super) fn begin(file: Option<File>) -> Self {
        let file = file.map(BufWriter::new);
        let inner = Inner { hash: 0xcbf2_9ce4_8422_2325, lines: 0, file };
        Self { inner: Arc::new(Mutex::new(inner)), began: Instant::now() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line.
    pub(super) fn line(&self, text: fmt::Arguments<'_>) {
        let us = self.began.elapsed().as_micros();
        self.add(format!("{:>7}.{:03} {text}\n", us / 1_000, us % 1_000).as_bytes());
    }

    fn add(&self, bytes: &[u8]) {
        let mut inner = self.inner();
        inner.lines += 1;
        for byte in bytes {
            inner.hash = (inner.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if let Some(file) = &mut inner.file {
            // A trace that cannot be written is shorter than it should be, and found to differ.
            drop(file.write_all(bytes));
        }
    }

    /// Whether the lines are kept.
    pub(super) fn is_kept(&self) -> bool {
        self.inner().file.is_some()
    }

    /// Hash and number of lines.
    pub(super) fn end(&self) -> (u64, u64) {
        let mut inner = self.inner();
        if let Some(file) = &mut inner.file {
            drop(file.flush());
        }
        (inner.hash, inner.lines)
    }

    /// Takes the product's log lines in, from everywhere in this process.
    pub(super) fn take_logs(&self) {
        let logs = tracing_subscriber::fmt()
            .with_max_level(tracing::level_filters::LevelFilter::DEBUG)
            .with_ansi(false)
            .without_time()
            .with_writer(self.clone())
            .finish();
        // A process that has a subscriber already keeps it.
        drop(tracing::subscriber::set_global_default(logs));
    }
}

/// One line of a log.
pub(super) struct LogLine(Trace);

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.line(format_args!("log {}", text.trim_end()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Trace {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine(self.clone())
    }
}
