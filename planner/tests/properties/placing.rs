//! Placing, case by case: what it prefers, what it says, and how much work it takes.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Application, Command, DeploymentSpec, Digest, Draft, DriverKind, Job, Name, OnDisconnect,
    Resources, State, Strategy, Targets,
};
use planner::{actualize, place, plan_cluster, plan_tenant};

use crate::world::{Happening, World, both, draft, name, tenant};

fn carry_out(world: &mut World, commands: &[Command]) {
    commands.iter().for_each(|command| world.must(command.clone()));
}

fn come_to_rest(world: &mut World) {
    for _ in 0..8 {
        let plan = plan_tenant(&world.state, &tenant(), world.now());
        carry_out(world, &plan.commands);
        for cluster in ["north", "south"] {
            let plan = plan_cluster(&world.state, &tenant(), &name(cluster), world.now());
            carry_out(world, &plan.commands);
        }
    }
}

/// Number of copies of a deployment by host.
fn copies(state: &State, deployment: &str) -> BTreeMap<Name, usize> {
    let mut copies = BTreeMap::new();
    for (_, job) in state.jobs_of(&tenant(), &name(deployment)) {
        for copy in job.placements.iter().filter(|copy| copy.scheduled.active) {
            *copies.entry(copy.host.clone()).or_default() += 1;
        }
    }
    copies
}

fn north() -> Targets {
    Targets::Clusters(BTreeSet::from([name("north")]))
}

#[test]
fn partitions_spread_over_hosts_and_then_zones() {
    let mut world = World::new();
    world.deploy(0, 1, north());
    come_to_rest(&mut world);
    // Three hosts in two zones, four partitions: the second copy goes where its zone has one.
    let copies = copies(&world.state, "app-0");
    assert_eq!(copies.len(), 3, "{copies:?}");
    assert_eq!(copies[&name("edge-2")], 2, "the host alone in its zone takes two: {copies:?}");
}

#[test]
fn a_stop_job_of_a_lost_host_moves_and_does_not_move_back() {
    let mut world = World::new();
    world.deploy(1, 1, both());
    world.deploy(0, 1, both());
    come_to_rest(&mut world);
    world.happen(&Happening::AllObey);
    let (stop, keep) = (copies(&world.state, "app-1"), copies(&world.state, "app-0"));
    assert!(stop.contains_key(&name("edge-0")) && keep.contains_key(&name("edge-0")));

    world.lose(&name("edge-0"));
    come_to_rest(&mut world);
    let moved = copies(&world.state, "app-1");
    assert!(!moved.contains_key(&name("edge-0")), "{moved:?}");
    assert_eq!(moved.values().sum::<usize>(), 8, "all partitions have a host");
    assert_eq!(copies(&world.state, "app-0"), keep, "keep_running stays where it is");

    world.happen(&Happening::Connect { host: 0 });
    come_to_rest(&mut world);
    assert_eq!(copies(&world.state, "app-1"), moved, "the returning host steals nothing");
}

#[test]
fn a_job_goes_back_to_the_host_that_holds_its_data() {
    let mut world = World::new();
    world.deploy(0, 1, north());
    come_to_rest(&mut world);
    world.happen(&Happening::AllObey);
    let homes = |state: &State| -> Vec<Name> {
        let home = |(_, job): (_, &Job)| job.placements.last().map(|copy| copy.host.clone());
        state.jobs_of(&tenant(), &name("app-0")).filter_map(home).collect()
    };
    let before = homes(&world.state);
    assert_eq!(before.len(), 4);
    // Another application on the same hosts, so that they are no longer the least loaded.
    world.deploy(1, 3, north());
    come_to_rest(&mut world);
    for host in 0..3 {
        let host = name(&format!("edge-{host}"));
        world.lose(&host);
        world.apply(Command::DeclareHostLost { tenant: tenant(), host, lost: true });
    }
    come_to_rest(&mut world);
    assert!(homes(&world.state).is_empty());
    for host in 0..3 {
        world.happen(&Happening::Connect { host });
    }
    come_to_rest(&mut world);
    assert_eq!(homes(&world.state), before);
}

#[test]
fn a_job_that_fits_nowhere_says_why_once() {
    let mut world = World::new();
    world.happen(&Happening::Cordon { host: 0, cordoned: true });
    world.lose(&name("edge-2"));
    world.deploy(1, 1, north());
    let plan = actualize(&world.state, &tenant(), None);
    carry_out(&mut world, &plan.commands);
    let plan = place(&world.state, &tenant(), &name("north"));
    carry_out(&mut world, &plan.commands);
    assert_eq!(plan.report.unplaced.len(), 4);
    let expected = "no host fits: 1 driver not offered (edge-1); 1 cordoned (edge-0); \
                    1 out of contact (edge-2)";
    for (_, job) in world.state.jobs_of(&tenant(), &name("app-1")) {
        assert_eq!(job.trouble.as_ref().unwrap().text, expected);
    }
    let again = place(&world.state, &tenant(), &name("north"));
    assert!(again.is_empty());
    assert_eq!(again.report.unplaced.len(), 4, "the report says it again, the log does not");
}

/// A cluster of many hosts, and deployments of `apps` applications with `partitions` each.
fn large(hosts: usize, apps: usize, partitions: u32) -> World {
    let mut world = World::new();
    let names: Vec<Name> = (0..hosts).map(|n| name(&format!("host-{n}"))).collect();
    for host in &names {
        world.must(Command::ApplyHost {
            tenant: tenant(),
            draft: draft(host.as_str()),
            site: None,
            zone: Some(name(&format!("z{}", host.as_str().len() % 4))),
        });
        world.connect(host, 8_000);
    }
    world.set_members("large", names.into_iter().collect());
    let image = Digest([200; 32]);
    let applications: Vec<Application> = (0..apps)
        .map(|app| Application {
            name: name(&format!("app-{app}")),
            version: "1.0.0".to_owned(),
            driver: if app % 2 == 0 { DriverKind::Wasm } else { DriverKind::Exec },
            num_partitions: partitions,
            artifacts: BTreeMap::from([(name("main"), image)]),
            limits: Resources { cpu_millis: 500, memory_bytes: 64 << 20 },
            on_disconnect: OnDisconnect::Stop,
            stop_grace_ms: 1_000,
            env: BTreeMap::new(),
            zones: Vec::new(),
        })
        .collect();
    world.must(Command::RegisterImage {
        tenant: tenant(),
        digest: image,
        size_bytes: 1,
        application: Box::new(applications[0].clone()),
    });
    for (part, applications) in applications.chunks(100).enumerate() {
        let package = format!("large-{part}");
        world.must(Command::ApplyPackage {
            tenant: tenant(),
            draft: draft(&package),
            version: "1.0.0".to_owned(),
            applications: applications.to_vec(),
        });
        world.must(Command::ApplyDeployment {
            tenant: tenant(),
            draft: Draft { name: name(&package), ..draft("large") },
            spec: Box::new(DeploymentSpec {
                package: name(&package),
                version: "1.0.0".to_owned(),
                profile: None,
                overrides: BTreeMap::new(),
                targets: Targets::Clusters(BTreeSet::from([name("large")])),
                strategy: Strategy { max_unavailable: 1 },
            }),
        });
    }
    let plan = actualize(&world.state, &tenant(), None);
    carry_out(&mut world, &plan.commands);
    world
}

#[expect(clippy::print_stdout, reason = "the measured time is shown with --nocapture")]
fn placed_evenly(hosts: usize, apps: usize, partitions: u32) {
    let world = large(hosts, apps, partitions);
    let started = tokio_free_clock();
    let plan = place(&world.state, &tenant(), &name("large"));
    let took = started.elapsed();
    let jobs = apps * partitions as usize;
    println!("{jobs} jobs of {apps} applications placed on {hosts} hosts in {took:?}");
    assert_eq!(plan.report.placed, jobs, "{:?}", plan.report.unplaced.first());
    // Generous: a walk over jobs times hosts takes minutes.
    assert!(took.as_secs() < 10, "placing took {took:?}");
}

#[expect(clippy::disallowed_methods, reason = "this test measures how long placing really takes")]
fn tokio_free_clock() -> std::time::Instant {
    std::time::Instant::now()
}

#[test]
fn one_application_of_many_partitions_finds_hosts_among_thousands() {
    placed_evenly(10_000, 1, 10_000);
}

#[test]
fn many_applications_of_few_partitions_find_hosts_among_thousands() {
    placed_evenly(2_000, 1_000, 8);
}

#[test]
fn crowded_hosts_take_more_copies() {
    placed_evenly(200, 1, 2_000);
}
