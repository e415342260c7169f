//! One process under test, and what a finished command said.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("the log opens");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log is shared"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} starts: {error}"));
        Self { child, name: name.to_owned() }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid fits"));
        kill(pid, signal).unwrap_or_else(|error| panic!("signal to {}: {error}", self.name));
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// The exit code of a process that has ended by itself, -1 if a signal ended it.
    ///
    /// # Panics
    /// When the process table does not answer.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("it can be asked")?;
        Some(status.code().unwrap_or(-1))
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the process table does not answer.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already, or stopped: SIGKILL reaches a stopped process too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a finished command said.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// The answer of a finished process.
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output of a command that must have succeeded.
    ///
    /// # Panics
    /// When it failed; shows what it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Standard output as JSON, of a command that must have succeeded.
    ///
    /// # Panics
    /// When it failed, or did not print JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in: {text}"))
    }
}
