//! WASI preview 1 command modules inside the guard: each in a thread of its own.
//!
//! A module has a small single-threaded runtime (wasmtime's WASI needs one), so a module that
//! sleeps is dropped and a module that computes is trapped by the engine's epoch: both end within
//! milliseconds. File operations go to helper threads, since blocking in place would also make
//! sleeps uninterruptible. WASI preview 1 has no signals. What a module can notice of a graceful stop is the
//! end of its standard input; a module that has never looked at it cannot hear the stop and is
//! ended at once, between two host calls, as by a power cut. The memory limit is one budget for
//! all modules of the job; growing beyond it ends the job with reason OOM.

use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::watch;
use wasmtime::{Engine, InstancePre, Linker, ResourceLimiter, Store, Trap};
use wasmtime_wasi::cli::{IsTerminal, OutputFile, StdinStream};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, async_trait};

use crate::cgroup::{Cgroups, JobCgroup};
use crate::driver::wasm::{engine, load, one_line};
use crate::guard::init::News;
use crate::guard::spec::{JobSpec, Limits, ModuleSpec};
use crate::guard::state::{Containment, Isolation};
use crate::guard::workload::{Launched, Workload};

/// The job's modules, held by their threads.
struct WasmJob {
    engine: Engine,
    /// Ends the modules' standard input.
    stop: watch::Sender<bool>,
    /// Drops modules that are inside a host call.
    kill: watch::Sender<bool>,
    /// Some module has looked at its standard input.
    listens: Arc<AtomicBool>,
    cgroup: JobCgroup,
    /// Kept so that the output pipes do not end before the job does.
    _outputs: (PipeWriter, PipeWriter),
}

/// What the threads of one job share.
#[derive(Clone)]
struct Shared {
    engine: Engine,
    stop: watch::Receiver<bool>,
    kill: watch::Receiver<bool>,
    listens: Arc<AtomicBool>,
    memory: Arc<Budget>,
    alive: Arc<AtomicUsize>,
    news: Arc<Mutex<UnixStream>>,
}

/// The memory that all modules of a job may have together.
struct Budget {
    bytes_max: u64,
    used: AtomicU64,
}

/// What one module's store holds.
struct Host {
    wasi: WasiP1Ctx,
    memory: Arc<Budget>,
    oom: bool,
}

/// Loads every module, then starts them. Errors: a module cannot be loaded or linked.
pub(crate) fn launch(
    dir: &Path,
    spec: &JobSpec,
    isolation: &mut Isolation,
) -> io::Result<Launched> {
    isolation.containment = Containment::Sandbox;
    isolation.memory_limited = spec.limits.memory_bytes.is_some();
    let cgroup = limit_processor(dir, spec, isolation);
    let engine = engine().map_err(other)?;
    let mut ready = Vec::new();
    for module in &spec.modules {
        ready.push((module.clone(), link(&engine, module)?));
    }
    let (news, theirs) = UnixStream::pair()?;
    let (stdout, stdout_end) = io::pipe()?;
    let (stderr, stderr_end) = io::pipe()?;
    let (stop, stopped) = watch::channel(false);
    let (kill, killed) = watch::channel(false);
    let listens = Arc::new(AtomicBool::new(false));
    let shared = Shared {
        engine: engine.clone(),
        stop: stopped,
        kill: killed,
        listens: listens.clone(),
        memory: Arc::new(Budget {
            bytes_max: spec.limits.memory_bytes.unwrap_or(u64::MAX),
            used: AtomicU64::new(0),
        }),
        alive: Arc::new(AtomicUsize::new(ready.len())),
        news: Arc::new(Mutex::new(theirs)),
    };
    shared.tell(&News::Started);
    for (index, (module, linked)) in ready.into_iter().enumerate() {
        let outputs = (stdout_end.try_clone()?, stderr_end.try_clone()?);
        let wasi = wasi(spec, &module, outputs, &shared)?;
        let host = Host { wasi, memory: shared.memory.clone(), oom: false };
        start(index, linked, host, shared.clone());
    }
    let outputs = (stdout_end, stderr_end);
    let job = WasmJob { engine, stop, kill, listens, cgroup, _outputs: outputs };
    Ok(Launched { workload: Box::new(job), news, stdout, stderr })
}

fn other(error: wasmtime::Error) -> io::Error {
    io::Error::other(one_line(&error))
}

/// Memory is the store's to limit; processor time is the kernel's, for this whole process.
fn limit_processor(dir: &Path, spec: &JobSpec, isolation: &mut Isolation) -> JobCgroup {
    let limits = Limits { cpu_millis: spec.limits.cpu_millis, ..Limits::default() };
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let cgroup = Cgroups::detect().create(&spec.cgroup, &name, &limits, isolation);
    for file in cgroup.procs_files() {
        if let Err(error) = std::fs::write(file, "0") {
            isolation.cpu_limited = false;
            isolation.shortfalls.push(format!("the cpu limit is not enforced: {error}"));
        }
    }
    cgroup
}

fn link(engine: &Engine, module: &ModuleSpec) -> io::Result<InstancePre<Host>> {
    let code = module
        .compiled
        .as_deref()
        .ok_or_else(|| io::Error::other(format!("the module {} was not compiled", module.name)))?;
    let loaded = load(engine, code)?;
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |host: &mut Host| &mut host.wasi).map_err(other)?;
    linker.instantiate_pre(&loaded).map_err(other)
}

/// The module's view of the world: its data, its static files, its environment, its output.
fn wasi(
    spec: &JobSpec,
    module: &ModuleSpec,
    (stdout, stderr): (PipeWriter, PipeWriter),
    shared: &Shared,
) -> io::Result<WasiP1Ctx> {
    let mut builder = WasiCtxBuilder::new();
    builder
        .stdin(Stdin { listens: shared.listens.clone(), stop: shared.stop.clone() })
        .stdout(OutputFile::new(File::from(OwnedFd::from(stdout))))
        .stderr(OutputFile::new(File::from(OwnedFd::from(stderr))))
        .arg(&module.name)
        .args(&module.args)
        .envs(&module.env)
        .envs(&spec.environment("/data"));
    builder.preopened_dir(&spec.data_dir, "/data", FsPerms::ReadWrite).map_err(other)?;
    if let Some(folder) = &module.static_dir {
        builder.preopened_dir(folder, "/static", FsPerms::ReadOnly).map_err(other)?;
    }
    Ok(builder.build_p1())
}

#[expect(clippy::disallowed_methods, reason = "a module computes as long as it likes")]
fn start(index: usize, linked: InstancePre<Host>, host: Host, shared: Shared) {
    std::thread::spawn(move || {
        let ended = run(index, &linked, host, &shared);
        shared.tell(&ended);
        if shared.alive.fetch_sub(1, Ordering::SeqCst) == 1 {
            shared.tell(&News::Empty);
        }
    });
}

fn run(module: usize, linked: &InstancePre<Host>, host: Host, shared: &Shared) -> News {
    let ended = |code, oom, message| News::Ended { module, code, signal: None, oom, message };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ended(None, false, format!("no runtime for the module: {error}")),
    };
    let mut store = Store::new(&shared.engine, host);
    store.limiter(|host| host);
    store.set_epoch_deadline(1);
    let mut kill = shared.kill.clone();
    let outcome = runtime.block_on(async {
        let call = async {
            let instance = linked.instantiate_async(&mut store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            start.call_async(&mut store, ()).await
        };
        tokio::select! {
            biased;
            _ = kill.wait_for(|kill| *kill) => Err(Trap::Interrupt.into()),
            outcome = call => outcome,
        }
    });
    let oom = store.data().oom;
    match outcome {
        Ok(()) => ended(Some(0), oom, String::new()),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => ended(Some(exit.0), oom, String::new()),
            None => ended(None, oom, one_line(&error)),
        },
    }
}

impl Shared {
    fn tell(&self, news: &News) {
        let Ok(mut line) = serde_json::to_vec(news) else { return };
        line.push(b'\n');
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        // The listener is this process's main thread; it is there as long as this one.
        drop(news.write_all(&line));
    }
}

impl Workload for WasmJob {
    fn ask_to_stop(&mut self) -> bool {
        self.stop.send_replace(true);
        self.listens.load(Ordering::SeqCst)
    }

    fn kill(&mut self) {
        self.kill.send_replace(true);
        self.engine.increment_epoch();
    }

    fn pids(&self) -> Vec<u32> {
        Vec::new()
    }

    fn oom(&self) -> bool {
        false
    }

    fn finish(&mut self) {
        for file in self.cgroup.home_files() {
            // Out of the group, so that it can be removed.
            drop(std::fs::write(file, "0"));
        }
        self.cgroup.remove_empty();
    }

    fn dies_with_guard(&self) -> bool {
        true
    }
}

impl ResourceLimiter for Host {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = (desired as u64).saturating_sub(current as u64);
        let fits =
            |used: u64| used.checked_add(wanted).filter(|after| *after <= self.memory.bytes_max);
        if self.memory.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok() {
            return Ok(true);
        }
        self.oom = true;
        Err(wasmtime::format_err!("the job is over its memory limit"))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

/// Tables live outside linear memory, so they have their own bound.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;

/// A standard input that never has a byte and ends when the job is asked to stop.
#[derive(Clone)]
struct Stdin {
    listens: Arc<AtomicBool>,
    stop: watch::Receiver<bool>,
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        // Preview 1 reads through `p2_stream` only.
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        self.listens.store(true, Ordering::SeqCst);
        // The sender lives as long as the process.
        drop(self.stop.wait_for(|stop| *stop).await);
    }
}

impl InputStream for Stdin {
    fn read(&mut self, _size: usize) -> StreamResult<Bytes> {
        self.listens.store(true, Ordering::SeqCst);
        if *self.stop.borrow() { Err(StreamError::Closed) } else { Ok(Bytes::new()) }
    }
}
