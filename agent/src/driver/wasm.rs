//! WebAssembly modules as machine code: compiled in a child process, cached, loaded by guards.
//!
//! Compiling takes memory and trusts nobody, so neither agent nor guard does it: the driver starts
//! `guard --compile`. The result is kept by the digest of the module and the version of the
//! engine, with its own digest beside it. A guard loads machine code only if that digest matches:
//! loading anything else would be undefined behaviour, which is why this is the one file of the
//! room that may say `unsafe`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sha2::{Digest, Sha256};
use wasmtime::{Config, Engine, Module};

use crate::guard::{complain, files};

/// What cached machine code depends on besides the module. Change it with the engine's version or
/// with `engine`; a forgotten change costs a failed load, which compiles again.
const ENGINE: &str = "wasmtime-48.0.8-a";

/// The engine of guards and of the compiler: they must agree in every setting.
pub(crate) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    Engine::new(&config)
}

/// Where the machine code of a module lies in the cache, by the module's SHA-256.
pub(crate) fn cache_path(cache_dir: &Path, module_sha256: &str) -> PathBuf {
    cache_dir.join(format!("{module_sha256}-{ENGINE}.cwasm"))
}

/// SHA-256 of a file's bytes in hexadecimal.
pub(crate) fn digest(path: &Path) -> io::Result<String> {
    Ok(hex::encode(Sha256::digest(fs::read(path)?)))
}

fn digest_path(code: &Path) -> PathBuf {
    code.with_extension("cwasm.sha256")
}

/// Whether the cache holds this machine code undamaged.
pub(crate) fn is_intact(code: &Path) -> bool {
    let expected = fs::read_to_string(digest_path(code));
    matches!((expected, digest(code)), (Ok(expected), Ok(found)) if expected == found)
}

/// Compiles the module at `wasm` into `code`; the reason of a failure is on standard error.
pub fn compile_main(wasm: &Path, code: &Path) -> ExitCode {
    match compile(wasm, code) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn compile(wasm: &Path, code: &Path) -> io::Result<()> {
    let bytes = fs::read(wasm)?;
    let machine_code = engine().and_then(|engine| engine.precompile_module(&bytes));
    let machine_code = machine_code.map_err(|error| io::Error::other(one_line(&error)))?;
    let digest = hex::encode(Sha256::digest(&machine_code));
    files::write_whole(code, &machine_code, true)?;
    files::write_whole(&digest_path(code), digest.as_bytes(), true)
}

/// Loads machine code that `compile_main` made. Errors: it is damaged, or of another engine.
pub(crate) fn load(engine: &Engine, code: &Path) -> io::Result<Module> {
    let bytes = fs::read(code)?;
    let expected = fs::read_to_string(digest_path(code))?;
    if hex::encode(Sha256::digest(&bytes)) != expected {
        let message = format!("the machine code in {} is damaged", code.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    #[expect(unsafe_code, reason = "our own compiler's output, verified by digest just above")]
    // SAFETY: the bytes are those that `precompile_module` gave to `compile`: their digest was
    // checked on this very buffer, and the cache directory is writable for muster only.
    let module = unsafe { Module::deserialize(engine, &bytes) };
    module.map_err(|error| io::Error::other(one_line(&error)))
}

/// An engine's error with its causes in one line of bounded length.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}").replace('\n', " ");
    text.chars().take(500).collect()
}
