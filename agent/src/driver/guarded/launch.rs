//! Putting a job in place and starting its guard.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::{GuardedDriver, blocking, guard_error, private_dir, running};
use crate::driver::{
    Cause, Driver, DriverError, DriverKind, ExitReason, JobId, JobSpec, JobState, Phase,
};
use crate::guard::GUARD;
use crate::guard::files::{self, Lease};
use crate::guard::spec::OnDisconnect;
use crate::naming;

impl GuardedDriver {
    pub(super) async fn put_in_place(
        &self,
        job: &JobId,
        mut spec: JobSpec,
    ) -> Result<(), DriverError> {
        self.check(&spec)?;
        spec.lease = self.config.lease();
        spec.cgroup.clone_from(&self.config.cgroup_parent);
        if spec.driver == DriverKind::Wasm {
            for module in &mut spec.modules {
                module.compiled = Some(self.compile(&module.path).await?);
            }
        }
        match self.spec(job).await {
            Err(error) if error.cause() != Cause::Unknown => return Err(error),
            Ok(earlier) if earlier == spec => return Ok(()),
            Ok(_) if self.is_guarded(job).await? => return Err(running(job)),
            Ok(_) | Err(_) => {}
        }
        let (dir, named) = (self.dir(job), job.clone());
        blocking(format!("write the specification of {named}"), move || {
            private_dir(&dir)?;
            adopt(&spec.data_dir)?;
            fs::create_dir_all(&spec.data_dir)?;
            // The earlier specification's end says nothing about this one.
            match fs::remove_file(dir.join(files::STATE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            files::write_json(&dir.join(files::SPEC), &spec)
        })
        .await
    }

    fn check(&self, spec: &JobSpec) -> Result<(), DriverError> {
        let permanent = |cause, message: String| Err(DriverError::permanent(cause, message));
        let Some(capability) = self.capabilities().into_iter().find(|c| c.kind == spec.driver)
        else {
            return permanent(Cause::NoDriver, format!("no driver {}", spec.driver.name()));
        };
        if spec.modules.is_empty() {
            return permanent(Cause::Spec, format!("the application {} has no module", spec.app));
        }
        if spec.on_disconnect == OnDisconnect::Stop && !capability.stop_jobs {
            let why = capability.isolation.shortfalls.join("; ");
            return permanent(Cause::Isolation, format!("no stop jobs on this host: {why}"));
        }
        for module in &spec.modules {
            if !module.path.is_file() {
                let path = module.path.display();
                return permanent(
                    Cause::Program,
                    format!("the module {} has no file {path}", module.name),
                );
            }
        }
        Ok(())
    }

    #[cfg(not(feature = "driver-wasm"))]
    async fn compile(&self, _module: &Path) -> Result<PathBuf, DriverError> {
        Err(DriverError::permanent(Cause::NoDriver, "no driver wasm"))
    }

    /// The module as machine code, from the cache if it is there undamaged.
    #[cfg(feature = "driver-wasm")]
    async fn compile(&self, module: &Path) -> Result<PathBuf, DriverError> {
        use crate::driver::wasm::{cache_path, digest, is_intact};
        let (path, cache) = (module.to_owned(), self.config.cache());
        let lookup = move || {
            let code = cache_path(&cache, &digest(&path)?);
            Ok((is_intact(&code), code))
        };
        let (hit, code) = blocking("look for the compiled module", lookup).await?;
        if hit {
            return Ok(code);
        }
        let output = Command::new(&self.config.program)
            .args([GUARD, "--compile"])
            .args([module, &code])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let patience = Duration::from_millis(self.config.compile_ms_max);
        let message = format!("cannot compile {}", module.display());
        match timeout(patience, output).await {
            Err(_) => Err(DriverError::transient(Cause::Program, format!("{message} in time"))),
            Ok(Err(error)) => Err(guard_error(message, error)),
            Ok(Ok(output)) if output.status.success() => Ok(code),
            // Ended by a signal it may have been short of memory; otherwise the module is bad.
            Ok(Ok(output)) if output.status.code().is_none() => {
                Err(DriverError::transient(Cause::Program, format!("{message}: {}", output.status)))
            }
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(DriverError::permanent(Cause::Program, format!("{message}: {}", said.trim())))
            }
        }
    }

    fn check_lease(&self, job: &JobId, spec: &JobSpec) -> Result<(), DriverError> {
        let reserve = spec.stop_grace_ms.saturating_add(spec.kill_margin_ms);
        let deadline = Lease::deadline(&spec.lease, &self.boot_id);
        if spec.on_disconnect != OnDisconnect::Stop
            || files::boottime_ms() < deadline.saturating_sub(reserve)
        {
            return Ok(());
        }
        let message = format!("{job} must stop without a lease and there is not enough of one");
        Err(DriverError::transient(Cause::Lease, message))
    }

    pub(super) async fn launch(&self, job: &JobId) -> Result<JobState, DriverError> {
        let spec = self.spec(job).await?;
        let state = self.state(job).await?;
        match state.phase {
            Phase::Starting | Phase::Running => return Ok(state),
            Phase::Stopping => {
                let message = format!("{job} is still stopping");
                return Err(DriverError::transient(Cause::Running, message));
            }
            Phase::Prepared | Phase::Exited => {}
        }
        self.deserted(job).await?;
        self.check_lease(job, &spec)?;
        self.spawn(job).await?;
        let state = self.state(job).await?;
        let Some(exit) = &state.exit else { return Ok(state) };
        let message = format!("{job}: {}", exit.message);
        match exit.reason {
            ExitReason::StartFailed => Err(DriverError::permanent(Cause::Program, message)),
            ExitReason::LeaseExpired => Err(DriverError::transient(Cause::Lease, message)),
            ExitReason::GuardLost => {
                let said = fs::read_to_string(self.dir(job).join(files::GUARD_LOG));
                let said = said.unwrap_or_default();
                let message = format!("{message}: {}", said.trim());
                Err(DriverError::transient(Cause::Guard, message))
            }
            // It was up, and is over already.
            ExitReason::Completed | ExitReason::Crashed | ExitReason::Oom | ExitReason::Stopped => {
                Ok(state)
            }
        }
    }

    /// Starts the guard and waits until it says that the modules are up, or ends.
    async fn spawn(&self, job: &JobId) -> Result<(), DriverError> {
        let dir = self.dir(job);
        let failed = |error| guard_error(format!("cannot start a guard for {job}"), error);
        let complaints = File::create(dir.join(files::GUARD_LOG)).map_err(failed)?;
        let mut child = Command::new(&self.config.program)
            .args([GUARD, "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .map_err(failed)?;
        let announcement = child.stdout.take();
        {
            let mut reapers = self.reapers.lock().unwrap_or_else(PoisonError::into_inner);
            while reapers.try_join_next().is_some() {}
            reapers.spawn(async move {
                // How it ended is in the job's state.
                drop(child.wait().await);
            });
        }
        let Some(mut announcement) = announcement else { return Ok(()) };
        let mut nothing = [0; 1];
        let patience = Duration::from_millis(self.config.start_ms_max);
        match timeout(patience, announcement.read(&mut nothing)).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let message = format!("the guard of {job} is not up after {patience:?}");
                Err(DriverError::transient(Cause::Guard, message))
            }
        }
    }
}

/// Gives data of before its owner was kept to the first job that starts where it is.
fn adopt(data_dir: &Path) -> io::Result<()> {
    match naming::unowned(data_dir) {
        Some(unowned) if !data_dir.exists() && unowned.is_dir() => fs::rename(unowned, data_dir),
        Some(_) | None => Ok(()),
    }
}
