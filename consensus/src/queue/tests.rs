//! The line before the log, over a log that takes its time.

use super::*;
use crate::tests::TestClock;
use model::{NodeId, Reply, Revision};
use std::sync::atomic::AtomicU64;

/// A log that commits one entry in so many milliseconds.
struct Slow {
    entry_ms: u64,
    commands: AtomicU64,
}

impl Log for Slow {
    fn commit(&self, entry: Entry) -> BoxFuture<'static, Result<Answers, Error>> {
        let Entry::V1 { commands, .. } = entry;
        self.commands.fetch_add(commands.len() as u64, Ordering::Relaxed);
        let took = Duration::from_millis(self.entry_ms);
        Box::pin(async move {
            tokio::time::sleep(took).await;
            let outcome =
                || Outcome { revision: Revision(1), result: Ok(Reply::Batch(Vec::new())) };
            Ok(Answers(commands.iter().map(|_| outcome()).collect()))
        })
    }

    fn rules(&self) -> u32 {
        1
    }
}

fn queue(config: Config, entry_ms: u64) -> (Queue, Arc<Slow>) {
    let log = Arc::new(Slow { entry_ms, commands: AtomicU64::new(0) });
    let (queue, work) = Queue::new(Arc::new(config), log.clone(), TestClock::start());
    tokio::spawn(work);
    (queue, log)
}

/// Entries of one command each, one after the other.
fn narrow() -> Config {
    Config { batch_bytes_max: 1, entries_in_flight_max: 1, ..Config::default() }
}

fn blob() -> Blob {
    Blob(vec![0; 100])
}

fn within(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Proposes in a task of its own, which has asked at return.
async fn ask(
    queue: &Queue,
    rank: Rank,
    ms: u64,
) -> tokio::task::JoinHandle<Result<Outcome, Error>> {
    let (queue, deadline) = (queue.clone(), within(ms));
    let asked = tokio::spawn(async move { queue.propose(blob(), rank, deadline).await });
    tokio::task::yield_now().await;
    asked
}

#[tokio::test(start_paused = true)]
async fn a_full_line_refuses_everybody_at_once() {
    let (queue, log) = queue(Config { queue_proposals_max: 3, ..narrow() }, 100);
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(ask(&queue, Rank::House, 5_000).await);
    }
    let began = Instant::now();
    for rank in [Rank::Operator, Rank::House] {
        assert_eq!(queue.propose(blob(), rank, within(5_000)).await, Err(Error::Overloaded));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    for asked in asked {
        assert!(asked.await.unwrap().is_ok());
    }
    assert_eq!(log.commands.load(Ordering::Relaxed), 4, "what was refused was not done");
}

#[tokio::test(start_paused = true)]
async fn operators_are_refused_once_the_first_in_the_line_has_waited_and_the_house_is_not() {
    let (queue, _log) = queue(Config { queue_wait_ms: 150, ..narrow() }, 100);
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(ask(&queue, Rank::Operator, 5_000).await);
    }
    tokio::time::sleep(Duration::from_millis(190)).await;
    let began = Instant::now();
    let refused = queue.propose(blob(), Rank::Operator, within(5_000)).await;
    assert_eq!((refused, began.elapsed()), (Err(Error::Overloaded), Duration::ZERO));
    asked.push(ask(&queue, Rank::House, 5_000).await);
    for asked in asked {
        assert!(asked.await.unwrap().is_ok());
    }
    assert!(
        queue.propose(blob(), Rank::Operator, within(5_000)).await.is_ok(),
        "all is well again"
    );
}

#[tokio::test(start_paused = true)]
async fn what_waited_far_too_long_is_refused_when_its_turn_comes() {
    let (queue, log) = queue(Config { queue_wait_ms: 10, ..narrow() }, 100);
    let mut answers = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(ask(&queue, Rank::Operator, 5_000).await);
    }
    for asked in asked {
        answers.push(asked.await.unwrap().err());
    }
    assert_eq!(answers, [None, Some(Error::Overloaded), Some(Error::Overloaded)]);
    assert_eq!(log.commands.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_proposal_given_up_in_the_line_is_certainly_not_done_and_one_in_the_log_is_unknown() {
    let (queue, log) = queue(narrow(), 1_000);
    let taken = ask(&queue, Rank::Operator, 100).await;
    let waits = ask(&queue, Rank::Operator, 100).await;
    assert_eq!(taken.await.unwrap(), Err(Error::Unknown));
    assert_eq!(waits.await.unwrap(), Err(Error::Overloaded));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(log.commands.load(Ordering::Relaxed), 1, "what was given up never got there");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_closed_says_so_to_those_in_it_and_after() {
    let log = Arc::new(Slow { entry_ms: 1_000, commands: AtomicU64::new(0) });
    let (queue, work) = Queue::new(Arc::new(narrow()), log, TestClock::start());
    let work = tokio::spawn(work);
    let taken = ask(&queue, Rank::House, 5_000).await;
    let waits = ask(&queue, Rank::House, 5_000).await;
    tokio::task::yield_now().await;
    work.abort();
    assert_eq!(taken.await.unwrap(), Err(Error::Unknown));
    assert_eq!(waits.await.unwrap(), Err(Error::Stopped));
    assert_eq!(queue.propose(blob(), Rank::House, within(5_000)).await, Err(Error::Stopped));
}

#[test]
fn only_operators_are_not_of_the_house() {
    let name = model::Name::new("a").unwrap();
    assert_eq!(Rank::of(&Caller::Operator(name.clone())), Rank::Operator);
    let agent = Caller::Agent { tenant: name.clone(), host: name };
    for caller in [Caller::System, Caller::Node(NodeId(1)), agent] {
        assert_eq!(Rank::of(&caller), Rank::House);
    }
}
