//! An agent on this machine: its folder, its identity, its driver and its network.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use api::Tcp;
use identity::Entropy;
use model::{Clock, Component, DriverKind, HostProfile, Resources};
use storage::Disk;
use storage::disk::real::{RealDisk, RealDiskConfig};

use crate::config::{Capacity, Config};
use crate::discover::{Facts, discover};
use crate::driver::guarded::{GuardedConfig, GuardedDriver};
use crate::driver::{self, Driver};
use crate::enrol::{self, Ticket};
use crate::images::StoredImages;
use crate::run::{Parts, RunError, run};
use crate::servers::Servers;

/// Largest list of control nodes read, in bytes.
const SERVERS_BYTES_MAX: u64 = 1 << 20;
/// Who may look into the agent's folder: its user.
const FOLDER_MODE: u32 = 0o700;

/// Runs the agent of this machine until `until` resolves: joins by `ticket` if it never did, finds the
/// jobs of the agent before it, and keeps sessions with control. Call it on a current-thread runtime,
/// after [`guard::dispatch`](crate::guard::dispatch). Its jobs go on when it ends.
///
/// # Errors
/// See [`RunError`].
pub async fn run_here(
    mut config: Config,
    ticket: Option<Ticket>,
    (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
    until: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let disk = RealDisk::start(&RealDiskConfig::new())?;
    disk.create_dir(&config.data).await?;
    keep_private(&config.data)?;
    config.data = std::fs::canonicalize(&config.data).unwrap_or(config.data);
    let _lock = disk.lock(&config.data.join("lock")).await?;
    let tcp = Tcp::default();
    tokio::pin!(until);
    let bundle = tokio::select! {
        biased;
        () = &mut until => return Ok(()),
        bundle = enrol::identity(&tcp, &config, ticket.as_ref(), (&clock, &*entropy)) => bundle?,
    };
    let (tenant, host) = enrol::whose(&bundle, &config)?;
    if bundle.renew_due(clock.now().0) {
        let not_after_ms = bundle.not_after_ms();
        tracing::warn!(not_after_ms, "the certificate ends soon: join again with a new token");
    }
    let addresses = known_servers(&disk, &config).await;
    let wire = (enrol::time_of(&clock), config.wire);
    let known = (addresses, config.session.servers_max);
    let servers = Arc::new(Servers::new(tcp, &bundle, wire, known)?);
    let guards = GuardedConfig::new(config.data.clone()).bounded_by(&config.guards);
    let driver = GuardedDriver::open(guards).await?;
    let driver: Arc<dyn Driver> = Arc::new(driver);
    let images = StoredImages::open(disk.clone(), &config, servers.clone()).await?;
    let (capabilities, capacity) = (driver.capabilities(), config.capacity);
    let profile = move || profile_of(&discover(Path::new("/"), capabilities.clone()), capacity);
    let parts = Parts {
        disk,
        driver,
        images: Arc::new(images),
        servers,
        profile: Arc::new(profile),
        clock,
        tenant,
        host,
        life: u64::from(std::process::id()),
    };
    run(config, parts, until).await
}

/// Nobody else on this machine may look into the agent's folder: what jobs are given, secrets among it,
/// lies there, and so does their data. Jobs run as the agent's own user and still reach theirs.
fn keep_private(data: &Path) -> Result<(), RunError> {
    let private = Permissions::from_mode(FOLDER_MODE);
    std::fs::set_permissions(data, private)
        .map_err(|source| RunError::Folder { path: data.to_owned(), source })
}

/// The control nodes that the agent was told, and those it learned.
async fn known_servers(disk: &RealDisk, config: &Config) -> Vec<String> {
    let kept = disk.read_file(&config.servers_path(), SERVERS_BYTES_MAX).await;
    let kept: Vec<String> =
        kept.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    config.servers.iter().cloned().chain(kept).collect()
}

/// What control is told of a machine.
pub fn profile_of(facts: &Facts, capacity: Capacity) -> HostProfile {
    let components = facts.components().into_iter().map(|(id, detail)| Component {
        kind: id.kind().to_owned(),
        name: cut(&id.to_string()),
        detail: cut(&detail),
    });
    let threads = facts.cpu.threads;
    HostProfile {
        facts: model::Facts {
            arch: cut(&facts.arch),
            os: cut(format!("{} {}", facts.os.name, facts.os.version).trim()),
            kernel: cut(&facts.kernel),
            cpu_model: cut(&facts.cpu.model),
            cpu_count: threads,
            memory_bytes: facts.memory_bytes,
            hostname: cut(&facts.hostname),
            boot_id: cut(&facts.boot_id),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            components: components.take(model::limits::COMPONENTS_MAX).collect(),
        },
        capacity: Resources {
            cpu_millis: capacity.cpu_millis.unwrap_or(u64::from(threads) * 1_000),
            memory_bytes: capacity.memory_bytes.unwrap_or(facts.memory_bytes),
        },
        drivers: facts
            .drivers
            .iter()
            .map(|capability| match capability.kind {
                driver::DriverKind::Exec => DriverKind::Exec,
                driver::DriverKind::Wasm => DriverKind::Wasm,
            })
            .collect(),
        fenced: !facts.drivers.is_empty() && facts.drivers.iter().all(|driver| driver.stop_jobs),
    }
}

/// As much of a text as control takes.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(model::limits::FACT_MAX_BYTES);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Midnight;

    impl Clock for Midnight {
        fn now(&self) -> model::Timestamp {
            model::Timestamp(1_700_000_000_000)
        }
    }

    /// Runs an agent that is told to end at once.
    async fn run_briefly(data: &Path) {
        let clock: Arc<dyn Clock> = Arc::new(Midnight);
        let entropy: Arc<dyn Entropy> = Arc::new(identity::SystemEntropy::new());
        let until = std::future::ready(());
        run_here(Config::new(data.to_owned()), None, (clock, entropy), until).await.unwrap();
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn nobody_else_may_look_into_the_agents_folder() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("agent");
        run_briefly(&data).await;
        assert_eq!(mode(&data), 0o700, "made so");
        std::fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
        run_briefly(&data).await;
        assert_eq!(mode(&data), 0o700, "an older one is made so");
    }
}
