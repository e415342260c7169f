//! Sessions between this node and real agents, in simulated time.

mod world;

use crate::testing::{digest, name, operator};
use agent::driver::Driver;
use api::v1::{
    self, agent_message, agents_client::AgentsClient, control_message, logs_client::LogsClient,
};
use consensus::Leadership;
use model::{Command, Contact, NodeId, OnDisconnect, Phase, Report, Role, Scope};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use world::{GRACE_MS, Machine, TTL_MS, World, profile, until};

#[tokio::test(start_paused = true)]
async fn an_order_runs_is_reported_and_ends_when_it_is_taken_back() {
    let (world, machine) = (World::start().await, Machine::new());
    world.acme(OnDisconnect::KeepRunning).await;
    let _agent = world.agent(&machine).await;
    until("the host connects", 5_000, || world.is_connected()).await;
    let key = world.deploy().await;
    until("the job is reported", 10_000, || world.phase(&key) == Some(Phase::Running)).await;
    assert!(machine.runs());
    world.undeploy(&key).await;
    until("the job is gone", 10_000, || {
        world.job(&key).is_none_or(|job| job.placements.is_empty())
    })
    .await;
    until("nothing runs", 5_000, || !machine.runs()).await;
    sleep(Duration::from_secs(30)).await;
    assert!(world.is_connected(), "renewals keep the host in contact");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_dies_without_a_link_is_started_again_and_reported_later() {
    let (world, machine) = (World::start().await, Machine::new());
    world.acme(OnDisconnect::KeepRunning).await;
    let _agent = world.agent(&machine).await;
    until("the host connects", 5_000, || world.is_connected()).await;
    let key = world.deploy().await;
    until("the job runs", 10_000, || world.phase(&key) == Some(Phase::Running)).await;
    world.wires.cut();
    until("the host is lost", TTL_MS + GRACE_MS + 2_000, || !world.is_connected()).await;
    assert!(machine.runs(), "it keeps running");
    let (job, _) = machine.host.running().remove(0);
    assert!(machine.host.kill_guard(&job));
    until("it runs again", 10_000, || machine.runs()).await;
    assert_eq!(world.restarts(&key), Some(0), "nobody could tell");
    world.wires.mend();
    until("the restart is reported", 20_000, || world.restarts(&key) == Some(1)).await;
    assert!(world.is_connected());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_again_finds_its_jobs_and_touches_nothing() {
    let (world, machine) = (World::start().await, Machine::new());
    world.acme(OnDisconnect::KeepRunning).await;
    let agent = world.agent(&machine).await;
    until("the host connects", 5_000, || world.is_connected()).await;
    let key = world.deploy().await;
    until("the job runs", 10_000, || world.phase(&key) == Some(Phase::Running)).await;
    let before = machine.host.driver().recover().await.unwrap().remove(0).state;
    agent.stop().await;
    assert!(machine.runs());
    let earlier = world.contact().session();
    let _agent = world.agent(&machine).await;
    until("a new session", 5_000, || world.contact().session() > earlier).await;
    sleep(Duration::from_secs(20)).await;
    let after = machine.host.driver().recover().await.unwrap().remove(0).state;
    assert_eq!((before.guard_pid, before.restarts), (after.guard_pid, after.restarts));
    assert_eq!(world.phase(&key), Some(Phase::Running));
    assert!(world.is_connected(), "the end of the old session ended nothing else");
}

#[tokio::test(start_paused = true)]
async fn a_stop_job_is_dead_before_its_host_is_held_for_lost() {
    let (world, machine) = (World::start().await, Machine::new());
    world.acme(OnDisconnect::Stop).await;
    let _agent = world.agent(&machine).await;
    until("the host connects", 5_000, || world.is_connected()).await;
    let key = world.deploy().await;
    until("the job runs", 10_000, || world.phase(&key) == Some(Phase::Running)).await;
    sleep(Duration::from_secs(15)).await;
    assert!(machine.runs(), "renewals keep it running");
    world.wires.cut();
    let died_after = until("it dies", TTL_MS, || !machine.runs()).await;
    let lost_after = until("the host is lost", TTL_MS + GRACE_MS, || !world.is_connected()).await;
    assert!(died_after + lost_after > Duration::from_millis(TTL_MS), "not lost too early");
    world.wires.mend();
    until("it runs again under a new lease", 20_000, || machine.runs() && world.is_connected())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_quorum_grants_no_lease() {
    let (world, machine) = (World::start().await, Machine::new());
    world.acme(OnDisconnect::Stop).await;
    let _agent = world.agent(&machine).await;
    until("the host connects", 5_000, || world.is_connected()).await;
    let key = world.deploy().await;
    until("the job runs", 10_000, || world.phase(&key) == Some(Phase::Running)).await;
    let quorum_at = Some(Instant::now());
    let cut_off = Leadership { leader: None, term: 2, is_leader: false, quorum_at };
    world.shared.ledger.set_leadership(cut_off);
    until("it dies", TTL_MS, || !machine.runs()).await;
    for _ in 0..100 {
        sleep(Duration::from_millis(100)).await;
        assert!(!machine.runs(), "no session with such a node brings it back");
    }
    let leads = Leadership { leader: Some(NodeId(1)), is_leader: true, ..cut_off };
    world.shared.ledger.set_leadership(leads);
    until("it runs again", 30_000, || machine.runs()).await;
}

/// A second node, alive, that holds the session of `edge`.
async fn node_two_holds_the_session(world: &World) -> NodeId {
    let (peer_addr, client_addr) = ("node-2:1".to_owned(), "node-2:2".to_owned());
    let id = NodeId(2);
    world.as_node(Command::ApplyNode { id, peer_addr, client_addr, rules_max: 1 }).await;
    let (tenant, host) = (name("acme"), name("edge"));
    let (agent_key, profile) = (digest(9), Box::new(profile()));
    world.as_node(Command::ConnectHost { tenant, host, node: id, agent_key, profile }).await;
    id
}

#[tokio::test(start_paused = true)]
async fn the_leader_counts_the_leases_of_a_lost_node_from_its_last_exchange_with_it() {
    let world = World::start().await;
    world.acme(OnDisconnect::KeepRunning).await;
    let id = node_two_holds_the_session(&world).await;
    sleep(Duration::from_millis(2 * (TTL_MS + GRACE_MS))).await;
    assert!(world.is_connected(), "a node that lives keeps its contacts");
    world.shared.ledger.exchange(id);
    let exchanged_at = Instant::now();
    // The mark comes later than the silence begins.
    sleep(Duration::from_millis(TTL_MS / 2)).await;
    world.as_node(Command::MarkNode { id, alive: false }).await;
    until("it is lost", 60_000, || !world.is_connected()).await;
    let lost_after = exchanged_at.elapsed();
    assert!(lost_after >= Duration::from_millis(TTL_MS + GRACE_MS), "{lost_after:?}");
    assert!(lost_after <= Duration::from_millis(TTL_MS + GRACE_MS + 1_000), "{lost_after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_that_still_exchanges_messages_with_the_leader_keeps_its_contacts() {
    let world = World::start().await;
    world.acme(OnDisconnect::KeepRunning).await;
    let id = node_two_holds_the_session(&world).await;
    world.as_node(Command::MarkNode { id, alive: false }).await;
    for _ in 0..2 * (TTL_MS + GRACE_MS) / 500 {
        world.shared.ledger.exchange(id);
        sleep(Duration::from_millis(500)).await;
    }
    assert!(world.is_connected(), "its leases may run");
    until("it is lost", TTL_MS + GRACE_MS + 1_000, || !world.is_connected()).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_lost_grants_no_lease() {
    let (world, machine) = (World::start().await, Machine::new());
    world.acme(OnDisconnect::Stop).await;
    let _agent = world.agent(&machine).await;
    until("the host connects", 5_000, || world.is_connected()).await;
    let key = world.deploy().await;
    until("the job runs", 10_000, || world.phase(&key) == Some(Phase::Running)).await;
    let id = NodeId(1);
    world.as_node(Command::MarkNode { id, alive: false }).await;
    until("it dies", TTL_MS, || !machine.runs()).await;
    world.as_node(Command::MarkNode { id, alive: true }).await;
    until("it runs again", 30_000, || machine.runs()).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_lost_its_trust_gets_no_lease_and_is_lost() {
    let world = World::start().await;
    world.acme(OnDisconnect::KeepRunning).await;
    let mut session = Session::open(&world).await;
    assert!(session.orders().await.full);
    let key = world.deploy().await;
    assert_eq!(session.orders().await.orders.len(), 1);
    let (tenant, host, reason) = (name("acme"), name("edge"), "stolen".to_owned());
    world.as_node(Command::DistrustHost { tenant, host, reason }).await;
    let distrusted_at = Instant::now();
    let last = session.orders().await;
    assert!(last.full && last.orders.is_empty(), "{last:?}");
    let Some(control_message::Message::Goodbye(goodbye)) = session.hear().await else {
        panic!("no goodbye")
    };
    assert_eq!(goodbye.reason, "REFUSED");
    assert_eq!(session.hear().await, None, "nothing is renewed any more");
    assert!(world.is_connected(), "its lease may run");
    until("the host is lost", 60_000, || !world.is_connected()).await;
    let lost_after = distrusted_at.elapsed();
    assert!(lost_after >= Duration::from_millis(TTL_MS), "{lost_after:?}");
    assert!(lost_after <= Duration::from_millis(TTL_MS + GRACE_MS + 1_000), "{lost_after:?}");
    // What is left of its copies may go now, and the host itself.
    world.as_node(Command::SyncJobs { keys: vec![key.clone()] }).await;
    assert!(world.job(&key).is_none_or(|job| job.placements.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn no_lease_outlasts_the_ttl_of_the_leader() {
    let world = World::start().await;
    world.acme(OnDisconnect::KeepRunning).await;
    world.shared.ledger.leads_with_ttl(Duration::from_millis(TTL_MS / 2));
    let mut session = Session::open(&world).await;
    session.orders().await;
    session
        .say(agent_message::Message::Renew(v1::Renew { sequence: 1, ..v1::Renew::default() }))
        .await;
    let Some(control_message::Message::LeaseGranted(granted)) = session.hear().await else {
        panic!("no lease")
    };
    assert!(granted.ttl_ms <= TTL_MS / 2, "{granted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_contact_left_from_an_earlier_life_of_the_node_ends() {
    let world = World::start().await;
    world.acme(OnDisconnect::KeepRunning).await;
    let (tenant, host) = (name("acme"), name("edge"));
    let (node, agent_key, profile) = (NodeId(1), digest(9), Box::new(profile()));
    world.as_node(Command::ConnectHost { tenant, host, node, agent_key, profile }).await;
    let lost_after = until("it is lost", 60_000, || !world.is_connected()).await;
    assert!(lost_after >= Duration::from_millis(TTL_MS + GRACE_MS), "{lost_after:?}");
}

/// A session by hand.
struct Session {
    out: mpsc::Sender<v1::AgentMessage>,
    inbound: Streaming<v1::ControlMessage>,
}

impl Session {
    async fn open(world: &World) -> Self {
        let (out, messages) = mpsc::channel(8);
        let hello = v1::Hello {
            profile: Some(api::convert::host::profile_to_proto(&profile())),
            protocol: 1,
            ..v1::Hello::default()
        };
        let mut session = Self {
            out,
            inbound: {
                let channel = world.channel(crate::testing::agent("acme", "edge"));
                let mut client = AgentsClient::new(channel);
                let stream = ReceiverStream::new(messages);
                client.session(stream).await.unwrap().into_inner()
            },
        };
        session.say(agent_message::Message::Hello(hello)).await;
        let first = session.hear().await.unwrap();
        assert!(matches!(first, control_message::Message::Welcome(_)), "{first:?}");
        session
    }

    async fn say(&mut self, message: agent_message::Message) {
        self.out.send(v1::AgentMessage { message: Some(message) }).await.unwrap();
    }

    async fn hear(&mut self) -> Option<control_message::Message> {
        self.inbound.message().await.unwrap().and_then(|message| message.message)
    }

    async fn orders(&mut self) -> v1::Orders {
        match self.hear().await.unwrap() {
            control_message::Message::Orders(orders) => orders,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_session_of_a_host_ends_the_older() {
    let world = World::start().await;
    world.acme(OnDisconnect::KeepRunning).await;
    let mut older = Session::open(&world).await;
    assert!(older.orders().await.full);
    let mut newer = Session::open(&world).await;
    let Some(control_message::Message::Goodbye(goodbye)) = older.hear().await else {
        panic!("no goodbye")
    };
    assert_eq!(goodbye.reason, "SUPERSEDED");
    assert_eq!(older.hear().await, None);
    assert!(newer.orders().await.full);
    sleep(Duration::from_millis(TTL_MS)).await;
    assert!(world.is_connected() && world.contact().session() == 2);
}

#[tokio::test(start_paused = true)]
async fn orders_come_as_they_change_and_a_host_that_does_not_own_a_job_cannot_report_it() {
    let world = World::start().await;
    world.acme(OnDisconnect::KeepRunning).await;
    let mut session = Session::open(&world).await;
    let first = session.orders().await;
    assert!(first.full && first.orders.is_empty());
    let key = world.deploy().await;
    let second = session.orders().await;
    assert!(!second.full && second.orders.len() == 1, "{second:?}");
    let order = api::convert::session::order_from_proto(second.orders[0].clone()).unwrap();
    let report = Report {
        key: key.clone(),
        assignment: order.assignment,
        order: order.scheduled.revision,
        phase: Phase::Running,
        spec_revision: order.scheduled.workload.spec_revision,
        image: order.scheduled.workload.image,
        restarts: 0,
        data_left_behind: false,
        error: None,
    };
    let stale = Report { assignment: model::Assignment(1), ..report.clone() };
    let items: Vec<_> =
        [&report, &stale].map(api::convert::session::report_to_proto).into_iter().collect();
    let mut numbers = Vec::new();
    for sequence in [1, 2] {
        let reports = v1::Reports { sequence, items: items.clone() };
        session.say(agent_message::Message::Reports(reports)).await;
        let Some(control_message::Message::ReportsTaken(taken)) = session.hear().await else {
            panic!("no answer")
        };
        assert_eq!(taken.sequence, sequence);
        let refused: Vec<_> = taken.results.iter().map(|it| it.rejection.is_some()).collect();
        assert_eq!(refused, [false, true], "the report on another assignment is refused");
        let current = world.job(&key).unwrap().placements[0].current.clone().unwrap();
        numbers.push((current.number, current.since));
    }
    assert_eq!(world.phase(&key), Some(Phase::Running));
    assert!(numbers[0].0 < numbers[1].0, "the second is the later one: {numbers:?}");
    assert_eq!(numbers[0].1, numbers[1].1, "and nothing else changed");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_falls_silent_is_lost_though_its_stream_stays_open() {
    let world = World::start().await;
    world.acme(OnDisconnect::KeepRunning).await;
    let mut session = Session::open(&world).await;
    session.orders().await;
    let lost_after = until("it is lost", 60_000, || !world.is_connected()).await;
    assert!(lost_after >= Duration::from_millis(TTL_MS + GRACE_MS - 100), "{lost_after:?}");
    assert_eq!(session.hear().await, None, "and has to connect again");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_lost_its_trust_is_told_to_stop_everything() {
    let (world, machine) = (World::start().await, Machine::new());
    world.acme(OnDisconnect::KeepRunning).await;
    let _agent = world.agent(&machine).await;
    until("the host connects", 5_000, || world.is_connected()).await;
    let key = world.deploy().await;
    until("the job runs", 10_000, || world.phase(&key) == Some(Phase::Running)).await;
    let (tenant, host, reason) = (name("acme"), name("edge"), "stolen".to_owned());
    world.as_node(Command::DistrustHost { tenant, host, reason }).await;
    until("nothing runs", 10_000, || !machine.runs()).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_deleted_by_force_is_told_to_stop_everything_when_it_returns() {
    let (world, machine) = (World::start().await, Machine::new());
    world.acme(OnDisconnect::KeepRunning).await;
    let _agent = world.agent(&machine).await;
    until("the host connects", 5_000, || world.is_connected()).await;
    let key = world.deploy().await;
    until("the job runs", 10_000, || world.phase(&key) == Some(Phase::Running)).await;
    world.wires.cut();
    until("the host is lost", TTL_MS + GRACE_MS + 2_000, || !world.is_connected()).await;
    let (tenant, host) = (name("acme"), name("edge"));
    world.as_node(Command::DeleteHost { tenant, host, force: true }).await;
    world.as_node(Command::SyncJobs { keys: vec![key] }).await;
    assert!(machine.runs(), "nobody could tell it");
    world.wires.mend();
    until("nothing runs", 30_000, || !machine.runs()).await;
}

#[tokio::test(start_paused = true)]
async fn logs_come_from_the_host_while_it_is_in_contact() {
    let (world, machine) = (World::start().await, Machine::new());
    world.acme(OnDisconnect::KeepRunning).await;
    let (ann, scope) = (name("ann"), Scope::Cluster);
    world.as_node(Command::BindRole { operator: ann, scope, role: Role::Viewer }).await;
    let _agent = world.agent(&machine).await;
    until("the host connects", 5_000, || world.is_connected()).await;
    let key = world.deploy().await;
    until("the job runs", 10_000, || world.phase(&key) == Some(Phase::Running)).await;
    let asked = v1::ReadLogsRequest {
        job: Some(api::convert::job::key_to_proto(&key)),
        stream: v1::LogStream::Both.into(),
        ..v1::ReadLogsRequest::default()
    };
    let mut logs = LogsClient::new(world.channel(operator("ann")));
    let mut all = Vec::new();
    let mut chunks = logs.read(asked.clone()).await.unwrap().into_inner();
    while let Some(chunk) = chunks.message().await.unwrap() {
        all.extend_from_slice(&chunk.data);
    }
    assert_eq!(String::from_utf8(all).unwrap(), "hello\nworld\n");
    let last = v1::ReadLogsRequest { tail_lines: Some(1), follow: true, ..asked.clone() };
    let mut chunks = logs.read(last).await.unwrap().into_inner();
    let chunk = chunks.message().await.unwrap().unwrap();
    assert_eq!(&chunk.data[..], b"world\n");
    drop(chunks);
    assert!(matches!(world.contact(), Contact::Connected { .. }));
}

#[tokio::test(start_paused = true)]
async fn logs_of_a_host_out_of_contact_are_unavailable() {
    let world = World::start().await;
    world.acme(OnDisconnect::KeepRunning).await;
    let (ann, scope) = (name("ann"), Scope::Cluster);
    world.as_node(Command::BindRole { operator: ann, scope, role: Role::Viewer }).await;
    let session = Session::open(&world).await;
    let key = world.deploy().await;
    drop(session);
    until("the host is lost", 20_000, || !world.is_connected()).await;
    let asked = v1::ReadLogsRequest {
        job: Some(api::convert::job::key_to_proto(&key)),
        ..v1::ReadLogsRequest::default()
    };
    let refused = LogsClient::new(world.channel(operator("ann"))).read(asked).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(api::status::ClientError::from(refused).reason, api::reason::HOST_NOT_CONNECTED);
}
