//! One seed, in this process: a thread of its own, one paused runtime on it, and the report.

use super::{
    book::{Book, Broken, Figures},
    entropy,
    house::House,
    settings::Settings,
    trace::Trace,
};
use serde::{Deserialize, Serialize};
use std::{cell::RefCell, fs::File, io, panic};

/// What came of one seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash of the trace, which has [`Report::lines`] lines.
    pub trace: u64,
    /// Lines of the trace.
    pub lines: u64,
    /// What happened, in numbers.
    pub figures: Figures,
    /// How long the world was there, in its ms.
    pub world_ms: u64,
    /// The first broken rule, if any.
    pub broken: Option<Broken>,
}

thread_local! {
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one seed. A process can do that once: the next run would find counters of libraries where this
/// one left them.
///
/// # Errors
/// When there is no thread, or no file for the trace.
pub fn run_here(settings: Settings) -> io::Result<Report> {
    panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        PANICKED.with_borrow_mut(|first| {
            first.get_or_insert(text);
        });
    }));
    let file = settings.trace.as_ref().map(File::create).transpose()?;
    let world = std::thread::Builder::new().name("world".to_owned()).spawn(move || {
        entropy::begin(settings.seed);
        let lived = panic::catch_unwind(panic::AssertUnwindSafe(|| live(&settings, file)));
        lived.unwrap_or_else(|_| Err(io::Error::other(panicked().unwrap_or_default())))
    })?;
    world.join().unwrap_or_else(|_| Err(io::Error::other("the world ended in a panic")))
}

/// What panicked on this thread, if anything did. Tasks that panic are not heard of otherwise.
pub(super) fn panicked() -> Option<String> {
    PANICKED.with_borrow(Clone::clone)
}

fn live(settings: &Settings, file: Option<File>) -> io::Result<Report> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let report = runtime.block_on(async {
        entropy::clock_begins();
        let trace = Trace::begin(file);
        if trace.is_kept() {
            trace.take_logs();
        }
        let book = Book::new(trace);
        story(settings, &book).await;
        let (trace, lines) = book.trace.end();
        let world_ms = book.age().as_millis() as u64;
        let (figures, broken) = (book.figures(), book.broken());
        Report { seed: settings.seed, trace, lines, figures, world_ms, broken }
    });
    // What still runs in there would only go on writing into the trace.
    runtime.shutdown_background();
    if entropy::draws() == 0 {
        return Err(io::Error::other(
            "nobody drew from the seed: dice and clock are the real ones",
        ));
    }
    if threads()? > THREADS {
        return Err(io::Error::other("somebody started a thread: its order is anybody's guess"));
    }
    Ok(report)
}

/// The one that waits for the report, and the world's.
const THREADS: usize = 2;

fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Founds, suffers, heals, and is audited.
async fn story(settings: &Settings, book: &Book) {
    let mut house = match House::found(settings, book.clone()).await {
        Ok(house) => house,
        Err(why) => return book.fail("founding", why),
    };
    house.suffer().await;
    if !book.is_broken() {
        house.heal().await;
    }
    if !book.is_broken() {
        house.audit().await;
    }
    if let Some(panic) = panicked() {
        book.fail("panic", panic);
    }
}
