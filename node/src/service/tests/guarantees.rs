//! The nine guarantees of a watch, each by its name, over real TLS with writers at work.

use super::{admin, reason};
use crate::{
    Config, WatchConfig,
    testing::{TestNode, cluster, host, name, tenant},
};
use api::v1::{self, watch_client::WatchClient};
use consensus::Ledger;
use model::{Command, Revision};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::timeout;
use tonic::{Streaming, transport::Channel};

const WRITERS: u64 = 4;
const WRITES: u64 = 40;

/// Event as `(revision, name)`, and whether it is the last of its revision.
type Seen = ((u64, String), bool);

async fn open(channel: &Channel, asked: v1::WatchRequest) -> Streaming<v1::WatchEvent> {
    WatchClient::new(channel.clone()).watch(asked).await.unwrap().into_inner()
}

fn from(revision: u64) -> v1::WatchRequest {
    v1::WatchRequest { from_revision: Some(revision), ..Default::default() }
}

async fn next(events: &mut Streaming<v1::WatchEvent>) -> v1::WatchEvent {
    timeout(Duration::from_secs(20), events.message()).await.unwrap().unwrap().unwrap()
}

async fn start(watch: WatchConfig) -> (TestNode, Channel) {
    let node = TestNode::start_with(Config { watch, ..Config::default() }).await;
    let channel = admin(&node).await;
    node.decide(tenant("acme")).await;
    (node, channel)
}

fn now(node: &TestNode) -> u64 {
    node.shared.ledger.read(|state| state.globals.revision.0)
}

/// A revision that touches `hosts` hosts.
fn several(writer: u64, number: u64, hosts: u64) -> Command {
    let one = |at| host("acme", &format!("w{writer}-{number}-{at}"));
    Command::Batch((0..hosts).map(one).collect())
}

/// Writers that go on side by side, each revision touching one to three hosts.
async fn write(node: &TestNode) {
    let one = |writer: u64| async move {
        for number in 0..WRITES {
            node.decide(several(writer, number, 1 + number % 3)).await;
            tokio::task::yield_now().await;
        }
    };
    futures::future::join_all((0..WRITERS).map(one)).await;
}

/// What the ledger itself says happened after a revision, in order.
async fn truth(node: &TestNode, after: u64) -> Vec<(u64, String)> {
    let upto = Revision(now(node));
    let mut watch = node.shared.ledger.watch(Revision(after)).unwrap();
    let mut all = Vec::new();
    while watch.position() < upto {
        let event = watch.next().await.unwrap().unwrap();
        let names = event.changes.iter().filter_map(|change| api::resource::format(&change.key));
        all.extend(names.map(|name| (event.revision.0, name)));
    }
    all
}

/// What a watch of everything shows from `after` until it has shown revision `upto`.
async fn watched(channel: &Channel, after: u64, upto: u64) -> Vec<Seen> {
    let mut events = open(channel, from(after)).await;
    let mut seen: Vec<Seen> = Vec::new();
    while seen.last().is_none_or(|((revision, _), last)| *revision < upto || !last) {
        let event = next(&mut events).await;
        seen.push(((event.revision, event.name), event.last));
    }
    seen
}

/// Everything the writers do, as a watch shows it that began before them.
async fn all(watch: WatchConfig) -> (TestNode, Channel, u64, Vec<Seen>) {
    let (node, channel) = start(watch).await;
    let before = now(&node);
    let upto = before + WRITERS * WRITES;
    let (seen, ()) = tokio::join!(watched(&channel, before, upto), write(&node));
    (node, channel, before, seen)
}

#[tokio::test]
async fn ordered() {
    let (.., seen) = all(WatchConfig::default()).await;
    assert!(seen.windows(2).all(|two| two[0].0.0 <= two[1].0.0), "{seen:?}");
}

#[tokio::test]
async fn unique() {
    let (node, channel, before, seen) = all(WatchConfig::default()).await;
    let distinct: BTreeSet<_> = seen.iter().map(|(event, _)| event).collect();
    assert_eq!(distinct.len(), seen.len());
    // Nor does one come again that was seen before a watch resumed.
    let cut = before + WRITES;
    let after = watched(&channel, cut, now(&node)).await;
    assert!(after.iter().all(|((revision, _), _)| *revision > cut));
}

#[tokio::test]
async fn atomic() {
    let (node, channel, before, seen) = all(WatchConfig::default()).await;
    let mut names: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for (revision, name) in truth(&node, before).await {
        names.entry(revision).or_default().insert(name);
    }
    // Between two that are the last of theirs is one whole revision.
    for part in seen.split_inclusive(|(_, last)| *last) {
        let revision = part[0].0.0;
        assert!(part.iter().all(|((it, _), _)| *it == revision), "{part:?}");
        let found: BTreeSet<_> = part.iter().map(|((_, name), _)| name.clone()).collect();
        assert_eq!(Some(&found), names.get(&revision), "revision {revision}");
    }
    // A filter leaves whole revisions of what passes.
    let one = format!("tenants/acme/hosts/w0-2-{}", 1);
    let asked = v1::WatchRequest { resources: vec![one.clone()], ..from(before) };
    let event = next(&mut open(&channel, asked).await).await;
    assert_eq!((event.name, event.last), (one, true));
}

#[tokio::test]
async fn reliable() {
    // A queue that is full now and then.
    let small = WatchConfig { queue_events_max: 2, ..WatchConfig::default() };
    let (node, _, before, seen) = all(small).await;
    let seen: Vec<_> = seen.into_iter().map(|(event, _)| event).collect();
    assert_eq!(seen, truth(&node, before).await);
}

#[tokio::test]
async fn resumable() {
    let (node, channel, before, seen) = all(WatchConfig::default()).await;
    // From every revision, and across cuts in the middle of what is sent.
    let mut together = Vec::new();
    let (mut after, upto) = (before, now(&node));
    while after < upto {
        let mut events = open(&channel, from(after)).await;
        let mut part = Vec::new();
        for _ in 0..7 {
            let event = next(&mut events).await;
            part.push((event.revision, event.name));
            if event.last {
                after = event.revision;
                together.append(&mut part);
            }
            if after >= upto {
                break;
            }
        }
    }
    let seen: Vec<_> = seen.into_iter().map(|(event, _)| event).collect();
    assert_eq!(together, seen);
    // What is too old is told so, with the oldest there is.
    for _ in 0..4_200 {
        node.decide(tenant("acme")).await;
    }
    let refused = WatchClient::new(channel).watch(from(before)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (tonic::Code::OutOfRange, "COMPACTED"));
    let error = api::status::ClientError::from(refused);
    let oldest: u64 = error.metadata["oldest"].parse().unwrap();
    assert!(oldest > before + 1 && oldest <= now(&node), "{oldest}");
}

#[tokio::test]
async fn bookmarkable() {
    let often = WatchConfig { bookmark_ms: 5, ..WatchConfig::default() };
    let (node, channel) = start(often).await;
    let before = now(&node);
    // Nothing of what the writers do passes.
    let clusters =
        v1::WatchRequest { kinds: vec![v1::Kind::Cluster.into()], bookmarks: true, ..from(before) };
    let mut events = open(&channel, clusters.clone()).await;
    let follow = async {
        let (mut marked, mut marks) = (before, 0);
        loop {
            let event = next(&mut events).await;
            if event.r#type() != v1::WatchType::Bookmark {
                assert!(event.revision > marked, "nothing comes that a bookmark has counted in");
                return (event.revision, marked, marks);
            }
            assert!(event.revision >= marked && event.last && event.name.is_empty());
            assert!(event.revision <= now(&node));
            marks += u32::from(event.revision > marked);
            marked = event.revision;
        }
    };
    let work = async {
        write(&node).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.decide(cluster("acme", "north")).await;
    };
    let ((made, marked, marks), ()) = tokio::join!(follow, work);
    assert!(marks > 0 && marked > before, "bookmarks go on with what does not pass");
    let mut events =
        open(&channel, v1::WatchRequest { from_revision: Some(marked), ..clusters }).await;
    loop {
        let event = next(&mut events).await;
        if event.r#type() != v1::WatchType::Bookmark {
            assert_eq!(event.revision, made, "a watch from a bookmark misses nothing");
            return;
        }
    }
}

#[tokio::test]
async fn a_bookmark_says_at_once_where_a_watch_began_and_never_more_than_the_node_has() {
    let (node, channel) = start(WatchConfig::default()).await;
    let asked = v1::WatchRequest { bookmarks: true, ..Default::default() };
    let first = next(&mut open(&channel, asked.clone()).await).await;
    assert_eq!((first.r#type(), first.revision), (v1::WatchType::Bookmark, now(&node)));
    // This node is behind the one that was watched before.
    let ahead = now(&node) + 2;
    let mut events = open(&channel, v1::WatchRequest { from_revision: Some(ahead), ..asked }).await;
    for at in 1..=3 {
        node.decide(host("acme", &format!("h{at}"))).await;
    }
    let first = next(&mut events).await;
    assert_eq!((first.revision, first.name.as_str()), (ahead + 1, "tenants/acme/hosts/h3"));
}

#[tokio::test]
async fn with_previous_value() {
    let (node, channel) = start(WatchConfig::default()).await;
    let asked = v1::WatchRequest { include_previous: true, ..from(now(&node)) };
    let mut events = open(&channel, asked).await;
    let mut plain = open(&channel, from(now(&node))).await;
    node.decide(host("acme", "h1")).await;
    for cordoned in [true, false, true] {
        let host = name("h1");
        node.decide(Command::CordonHost { tenant: name("acme"), host, cordoned }).await;
    }
    node.decide(Command::DeleteHost { tenant: name("acme"), host: name("h1"), force: true }).await;
    let mut was = None;
    for step in 0..5 {
        let event = next(&mut events).await;
        assert_eq!(event.previous, was, "step {step}: what it was is what it became before");
        was = event.resource;
        assert!(next(&mut plain).await.previous.is_none(), "only if asked for");
    }
    assert_eq!(was, None, "it is gone");
}

#[tokio::test]
async fn creation_flag() {
    let (node, channel) = start(WatchConfig::default()).await;
    let before = now(&node);
    let delete = || Command::DeleteHost { tenant: name("acme"), host: name("h1"), force: true };
    let cordon = || Command::CordonHost { tenant: name("acme"), host: name("h1"), cordoned: true };
    for command in [host("acme", "h1"), cordon(), delete(), host("acme", "h1")] {
        node.decide(command).await;
    }
    let asked = v1::WatchRequest { kinds: vec![v1::Kind::Host.into()], ..from(before) };
    let mut events = open(&channel, asked).await;
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(next(&mut events).await.r#type());
    }
    use v1::WatchType::{Added, Deleted, Modified};
    assert_eq!(kinds, [Added, Modified, Deleted, Added], "what comes again is new again");
}

/// Which names pass.
type Passes = fn(&str) -> bool;

#[tokio::test]
async fn filter() {
    let (node, channel) = start(WatchConfig::default()).await;
    node.decide(tenant("other")).await;
    let before = now(&node);
    let first = "tenants/acme/hosts/w1-1-0".to_owned();
    let asks: [(v1::WatchRequest, Passes); 4] = [
        (v1::WatchRequest { tenant: "acme".to_owned(), ..from(before) }, |it| {
            it.starts_with("tenants/acme/")
        }),
        (v1::WatchRequest { kinds: vec![v1::Kind::Cluster.into()], ..from(before) }, |it| {
            it.contains("/clusters/")
        }),
        (v1::WatchRequest { resources: vec![first], ..from(before) }, |it| {
            it == "tenants/acme/hosts/w1-1-0"
        }),
        (
            v1::WatchRequest {
                tenant: "other".to_owned(),
                kinds: vec![v1::Kind::Host.into()],
                ..from(before)
            },
            |it| it.starts_with("tenants/other/hosts/"),
        ),
    ];
    write(&node).await;
    for tenant in ["acme", "other"] {
        node.decide(cluster(tenant, "north")).await;
        node.decide(host(tenant, "h1")).await;
    }
    let truth = truth(&node, before).await;
    for (asked, passes) in asks {
        let expected: Vec<_> = truth.iter().filter(|(_, name)| passes(name)).cloned().collect();
        assert!(!expected.is_empty());
        let mut events = open(&channel, asked.clone()).await;
        let mut seen = Vec::new();
        for _ in &expected {
            let event = next(&mut events).await;
            seen.push((event.revision, event.name));
        }
        assert_eq!(seen, expected, "{asked:?}");
        let more = timeout(Duration::from_millis(20), events.message()).await;
        assert!(more.is_err(), "{asked:?} shows more: {more:?}");
    }
}
