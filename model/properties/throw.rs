//! From dice to commands.

use model::{
    Application, Assign, Assignment, Caller, ClusterSpec, Command, DeploymentSpec, Digest, Draft,
    DriverKind, HostProfile, JobError, JobKey, Name, NodeId, OnDisconnect, Override, Phase, Report,
    ReportNumber, RequestId, Resources, Revision, Role, Scope, Slot, Stamp, State, Strategy,
    Targets, Timestamp, TokenKind, expected_jobs, is_in_line,
};
use std::collections::{BTreeMap, BTreeSet};

/// One throw: what to do, and with what.
pub(crate) type Dice = [u32; 6];

/// A command with its stamp.
pub(crate) struct Throw {
    pub(crate) stamp: Stamp,
    pub(crate) command: Command,
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn pick<T: Clone>(dice: u32, of: &[T]) -> T {
    of[dice as usize % of.len()].clone()
}

fn tenant(dice: u32) -> Name {
    name(if dice.is_multiple_of(16) { "beta" } else { "acme" })
}

/// The usual machine of a host; now and then another one.
fn agent_key(d: u32) -> Digest {
    Digest([u8::from(d % 8 == 7); 32])
}

pub(crate) fn host(dice: u32) -> Name {
    name(pick(dice, &["h1", "h2", "h3", "h4"]))
}

fn cluster(dice: u32) -> Name {
    name(pick(dice, &["north", "south"]))
}

pub(crate) fn deployment(dice: u32) -> Name {
    name(pick(dice, &["shop", "cart"]))
}

fn digest(dice: u32) -> Digest {
    Digest([u8::try_from(dice % 3).unwrap(); 32])
}

fn draft(name: Name, dice: u32) -> Draft {
    let labels = match dice % 4 {
        0 => BTreeMap::new(),
        1 => [("color".into(), "blue".into())].into(),
        2 => [("color".into(), "red".into())].into(),
        _ => [("color".into(), "blue".into()), ("not a key".into(), String::new())].into(),
    };
    let labels = if dice % 32 > 3 && dice % 4 == 3 {
        [("color".to_owned(), "blue".to_owned())].into()
    } else {
        labels
    };
    let if_revision = (dice % 16 == 5).then_some(Revision(u64::from(dice % 3)));
    Draft { name, labels, annotations: BTreeMap::new(), if_revision }
}

fn application(dice: u32) -> Application {
    Application {
        name: name("web"),
        version: "1".into(),
        driver: pick(dice, &[DriverKind::Wasm, DriverKind::Wasm, DriverKind::Exec]),
        num_partitions: pick(dice >> 2, &[3, 3, 3, 2]),
        artifacts: [(name("main"), digest(dice >> 4))].into(),
        limits: Resources {
            cpu_millis: u64::from(dice >> 6) % 3 * 100,
            memory_bytes: u64::from(dice >> 8) % 3 * 100,
        },
        on_disconnect: pick(
            dice >> 10,
            &[OnDisconnect::Stop, OnDisconnect::KeepRunning, OnDisconnect::Replace],
        ),
        stop_grace_ms: 1_000,
        env: BTreeMap::new(),
        zones: if dice >> 12 & 7 == 0 { vec![name("a")] } else { Vec::new() },
    }
}

pub(crate) fn profile(dice: u32) -> HostProfile {
    HostProfile {
        capacity: Resources {
            cpu_millis: 200 + u64::from(dice % 4) * 100,
            memory_bytes: 200 + u64::from(dice >> 2) % 4 * 100,
        },
        drivers: if dice >> 4 & 7 == 0 {
            BTreeSet::new()
        } else {
            [DriverKind::Wasm, DriverKind::Exec].into()
        },
        fenced: dice >> 7 & 7 != 0,
        ..HostProfile::default()
    }
}

fn spec(dice: u32) -> Box<DeploymentSpec> {
    let targets = match dice % 5 {
        0 => Targets::Clusters([name("north")].into()),
        1 => Targets::Clusters([name("north"), name("south")].into()),
        2 => Targets::Selector([("environment".into(), "production".into())].into()),
        _ => Targets::Selector([("color".into(), "blue".into())].into()),
    };
    let changes = match dice >> 3 & 7 {
        0 => Some(Override { num_partitions: Some(2), ..Override::default() }),
        1 | 2 => Some(Override {
            limits: Some(Resources { cpu_millis: 150, memory_bytes: 250 }),
            ..Override::default()
        }),
        _ => None,
    };
    Box::new(DeploymentSpec {
        package: name("pack"),
        version: pick(dice >> 6, &["1", "2", "3", "4"]).to_owned(),
        profile: None,
        overrides: changes.into_iter().map(|it| (name("web"), it)).collect(),
        targets,
        strategy: Strategy { max_unavailable: 1 + (dice >> 8) % 2 },
    })
}

fn key(dice: u32) -> JobKey {
    JobKey {
        tenant: tenant(dice >> 8),
        deployment: deployment(dice),
        cluster: cluster(dice >> 1),
        application: name("web"),
        slot: if dice >> 12 & 31 == 0 { Slot::Run(1) } else { Slot::Partition((dice >> 2) % 4) },
    }
}

/// A job that is there, or any.
fn some_job(state: &State, dice: u32) -> JobKey {
    let keys: Vec<JobKey> = state.jobs.iter().map(|(key, _)| key.clone()).collect();
    if keys.is_empty() || dice.is_multiple_of(16) { key(dice >> 4) } else { pick(dice >> 4, &keys) }
}

/// The command of a throw, and its stamp. Time goes on by up to 40 s, and now and then back.
pub(crate) fn throw(state: &State, time: &mut Timestamp, dice: Dice) -> Throw {
    let [what, a, b, c, d, e] = dice;
    *time = time.plus_ms(u64::from(e % 4) * u64::from(e >> 4 & 0x3fff));
    let at = if e >> 20 & 15 == 0 { Timestamp(time.0.saturating_sub(5_000)) } else { *time };
    let command = match what % 64 {
        0..=2 => {
            let keyed = (0..1 + d % 3).map(|n| command(state, [what >> 6, a ^ n, b, c, d, e]));
            Command::Batch(keyed.collect())
        }
        _ => command(state, dice),
    };
    let caller = match d >> 16 & 63 {
        0 => Caller::Operator(name("root")),
        1 => Caller::Agent { tenant: name("acme"), host: host(d >> 20) },
        _ => Caller::System,
    };
    let request_id = (d >> 24 & 7 == 0).then(|| RequestId {
        at: Timestamp(at.0 - u64::from(d >> 27)),
        unique: u128::from(d >> 27),
    });
    Throw { stamp: Stamp { time: at, rules: 1, caller, request_id }, command }
}

fn command(state: &State, [what, a, b, c, d, _]: Dice) -> Command {
    let tenant = tenant(a >> 20);
    match what % 64 {
        3..=12 => Command::SyncJobs { keys: out_of_line(state, &tenant, a) },
        13..=22 => assign(state, a, b, c),
        23..=32 => report(state, a, b, c),
        33..=36 => Command::Settle { tenant },
        37..=39 => Command::ConnectHost {
            tenant,
            host: host(a),
            node: NodeId(1),
            agent_key: agent_key(c),
            profile: Box::new(profile(b)),
        },
        40..=42 => {
            let host = host(a);
            let session = state.host(&tenant, &host).map_or(0, |row| row.contact.session());
            Command::LoseHost {
                tenant,
                host,
                session: session - u64::from(b % 8 == 7 && session > 0),
            }
        }
        43..=45 => {
            let key = some_job(state, a);
            let first = state.jobs.get(&key).and_then(|job| job.placements.first());
            let assignment = first.map_or(Assignment(0), |it| it.assignment);
            Command::EvictJobs { items: vec![(key, assignment)] }
        }
        46..=49 => {
            Command::ApplyDeployment { tenant, draft: draft(deployment(a), b), spec: spec(c) }
        }
        _ => people(state, [what, a, b, c, d, 0]),
    }
}

fn people(state: &State, [what, a, b, c, d, _]: Dice) -> Command {
    let tenant = tenant(a >> 20);
    let force = c % 2 == 0;
    match what % 64 {
        50 if c % 3 == 0 => Command::DeleteDeployment { tenant, deployment: deployment(a), force },
        51 if c % 3 == 0 => Command::DeleteHost { tenant, host: host(a), force },
        52 if c % 3 == 0 => Command::DeleteCluster { tenant, cluster: cluster(a), force },
        53 => Command::DeclareHostLost { tenant, host: host(a), lost: c % 4 != 0 },
        54 => Command::CordonHost { tenant, host: host(a), cordoned: force },
        50..=52 | 55 | 56 => {
            let members = (0..4).filter(|n| b >> n & 1 == 0).map(host).collect();
            let environment = (c % 2 == 0).then(|| name("production"));
            let spec = ClusterSpec { environment, members };
            Command::ApplyCluster { tenant, draft: draft(cluster(a), c), spec }
        }
        57 => Command::ApplyHost {
            tenant,
            draft: draft(host(a), b),
            site: None,
            zone: (c % 2 == 0).then(|| name("a")),
        },
        58 => Command::ApplyPackage {
            tenant,
            draft: draft(name("pack"), b),
            version: pick(a, &["1", "2", "3", "4", "a b"]).to_owned(),
            applications: vec![application(c)],
        },
        59 if c % 3 == 0 => {
            let cluster = (d % 2 == 0).then(|| cluster(b));
            Command::RetryDeployment { tenant, deployment: deployment(a), cluster }
        }
        60 if c % 3 == 0 => Command::RetryJob { key: some_job(state, a) },
        59 => Command::ReportHost { tenant, host: host(a), profile: Box::new(profile(b)) },
        60 => {
            let key = some_job(state, a);
            let seen = state.jobs.get(&key).map_or(Revision(0), |job| job.revision);
            Command::ExplainJobs { items: vec![(key, seen, format!("why {}", b % 3))] }
        }
        61 if c % 3 == 0 => match d % 32 {
            0..=5 => Command::DistrustHost { tenant, host: host(a), reason: "lost".into() },
            6..=15 => Command::DeleteTenant { tenant: name("beta") },
            16 => Command::DeleteTenant { tenant },
            _ => Command::DeleteImage { tenant, digest: digest(a) },
        },
        62 => Command::ApplyTenant {
            draft: draft(tenant, b),
            display_name: format!("tenant {}", c % 2),
        },
        _ => access(state, [what, a, b, c, d, 0]),
    }
}

fn access(state: &State, [_, a, b, c, d, _]: Dice) -> Command {
    let tenant = tenant(a >> 20);
    let scope = if b % 2 == 0 { Scope::Cluster } else { Scope::Tenant(tenant.clone()) };
    match a % 12 {
        0 => Command::BindRole { operator: name("root"), scope, role: Role::Admin },
        1 => Command::UnbindRole { operator: name("root"), scope },
        2 => Command::CreateToken {
            id: name(pick(b, &["t1", "t2"])),
            kind: TokenKind::Agent { tenant },
            secret_hash: "a".repeat(64),
            expires_at: state.globals.time.plus_ms(u64::from(c % 100_000)),
            uses: 1 + c % 2,
        },
        3 | 4 => Command::UseToken {
            id: name(pick(b, &["t1", "t2"])),
            secret_hash: "a".repeat(64),
            host: Some(host(c)),
            key: agent_key(d),
        },
        5 => Command::RevokeToken { id: name("t1") },
        6 => Command::ApplyNode {
            id: NodeId(1 + u64::from(b % 3)),
            peer_addr: "a:1".into(),
            client_addr: "a:2".into(),
            rules_max: 1 + c % 2,
        },
        7 => Command::MarkNode { id: NodeId(1 + u64::from(b % 3)), alive: c % 2 == 0 },
        8 => Command::RemoveNode { id: NodeId(1 + u64::from(b % 3)) },
        9 => Command::RaiseRules { level: 1 + d % 2 },
        10 => Command::DeletePackage {
            tenant,
            package: name("pack"),
            version: pick(b, &["1", "2", "3", "4"]).to_owned(),
        },
        _ => Command::RegisterImage {
            tenant,
            digest: digest(b),
            size_bytes: 1 + u64::from(c % 2),
            application: Box::new(Application {
                artifacts: [(name("main"), digest(b))].into(),
                ..application(c)
            }),
        },
    }
}

/// Keys for `SyncJobs`: those out of line, a random one, and one twice.
fn out_of_line(state: &State, tenant: &Name, dice: u32) -> Vec<JobKey> {
    let mut keys = expected_jobs(state, tenant, &deployment(dice));
    keys.retain(|key| !is_in_line(state, key));
    keys.push(key(dice));
    keys.extend(keys.first().cloned());
    keys
}

fn assign(state: &State, a: u32, b: u32, c: u32) -> Command {
    let item = |dice: u32, host: Name| {
        let key = some_job(state, dice);
        let seen = state.jobs.get(&key).map_or(Revision(0), |job| job.revision);
        let seen = if c.is_multiple_of(16) { Revision(seen.0 / 2) } else { seen };
        Assign { key, host, seen }
    };
    let items = (0..1 + c % 6).map(|n| item(a.rotate_left(n * 5), host(b >> n)));
    Command::AssignJobs { items: items.collect() }
}

fn report(state: &State, a: u32, b: u32, c: u32) -> Command {
    let key = some_job(state, a);
    let job = state.jobs.get(&key);
    let placement =
        job.and_then(|job| job.placements.get(b as usize % 2).or(job.placements.first()));
    let host = placement.map_or_else(|| host(b), |it| it.host.clone());
    let scheduled = placement.map(|it| &it.scheduled);
    let old = c.is_multiple_of(8);
    let order = scheduled.map_or(Revision(0), |it| it.revision);
    let phase = pick(
        c >> 3,
        &[
            Phase::Running,
            Phase::Running,
            Phase::Running,
            Phase::Stopped,
            Phase::Stopped,
            Phase::Starting,
            Phase::Failing,
            Phase::Failed,
        ],
    );
    let error = JobError {
        reason: "CRASHED".into(),
        text: "x".repeat(c as usize % 2_000),
        retryable: true,
        attempt: 1,
    };
    let item = Report {
        assignment: placement.map_or(Assignment(1), |it| it.assignment),
        order: if old { Revision(order.0.saturating_sub(1)) } else { order },
        phase,
        spec_revision: scheduled.map_or(Revision(1), |it| it.workload.spec_revision),
        image: digest(c >> 6),
        restarts: c >> 8 & 1,
        data_left_behind: false,
        error: (phase != Phase::Running).then_some(error),
        key,
    };
    let tenant = item.key.tenant.clone();
    let next = state.next_report(&tenant, &host);
    // Now and then one that comes late.
    let first = ReportNumber { item: next.item.saturating_sub(c >> 9 & 1), ..next };
    Command::ReportJobs { tenant, host, first, items: vec![item] }
}

/// The stamp of muster itself.
pub(crate) fn system(time: u64) -> Stamp {
    Stamp { time: Timestamp(time), rules: 1, caller: Caller::System, request_id: None }
}

/// The log that sets the stage.
pub(crate) fn stage() -> Vec<(Stamp, Command)> {
    let acme = name("acme");
    let mut log =
        vec![Command::ApplyTenant { draft: draft(acme.clone(), 0), display_name: "Acme".into() }];
    for n in 0..4 {
        let tenant = acme.clone();
        let zone = (n % 2 == 0).then(|| name("a"));
        log.push(Command::ApplyHost { tenant, draft: draft(host(n), 0), site: None, zone });
        let (tenant, profile) = (acme.clone(), Box::new(profile(0xffff)));
        let (node, agent_key) = (NodeId(1), agent_key(0));
        log.push(Command::ConnectHost { tenant, host: host(n), node, agent_key, profile });
    }
    let north = ClusterSpec { environment: None, members: [host(0), host(1), host(2)].into() };
    log.push(Command::ApplyCluster {
        tenant: acme.clone(),
        draft: draft(cluster(0), 1),
        spec: north,
    });
    for n in 0..3 {
        let artifacts = [(name("main"), digest(n))].into();
        log.push(Command::RegisterImage {
            tenant: acme.clone(),
            digest: digest(n),
            size_bytes: 1,
            application: Box::new(Application { artifacts, ..application(0) }),
        });
    }
    for (version, dice) in [("1", 0x1000), ("2", 0x1410), ("3", 0x1860)] {
        log.push(Command::ApplyPackage {
            tenant: acme.clone(),
            draft: draft(name("pack"), 0),
            version: version.into(),
            applications: vec![application(dice)],
        });
    }
    log.push(Command::ApplyDeployment {
        tenant: acme.clone(),
        draft: draft(deployment(0), 0),
        spec: spec(0x1b),
    });
    log.into_iter().map(|command| (system(1_000_000_000), command)).collect()
}
