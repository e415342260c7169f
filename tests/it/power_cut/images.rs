//! Images of power cuts, and what nodes make of them.

use super::{Recording, SEGMENT_BYTES, images_wanted, record};
use crate::BINARY;
use identity::CertificateBundle;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use storage::Dice;
use tempfile::TempDir;
use tests::{
    Process, now_ns,
    power::{Event, Image, Loss, Machine, Recovered, recover},
    tenants, until_some,
};

/// Of so many images one is given to the real binary.
const WHOLE_NODE_EVERY: usize = 8;

/// What became of all images.
#[derive(Default)]
struct Tally {
    images: usize,
    whole_nodes: usize,
    /// Acknowledged writes that had to be there, over all images.
    due: usize,
    served: usize,
    empty: usize,
    refused: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, what: &str, recovered: Recovered, judge: impl Fn(&Found) -> Judgement) {
        self.images += 1;
        let found = match recovered {
            Recovered::Serves(found) => {
                self.served += 1;
                found
            }
            Recovered::Empty => {
                self.empty += 1;
                Found::new()
            }
            Recovered::Refuses(why) => {
                *self.refused.entry(why).or_default() += 1;
                return;
            }
        };
        let (due, wrong) = judge(&found);
        self.due += due;
        self.wrong.extend(wrong.into_iter().map(|wrong| format!("{what}: {wrong}")));
    }

    fn print(&self, name: &str) {
        println!(
            "{name}: {} images ({} by the real binary), {} served, {} before there was a cluster, \
             {} refused; {} acknowledged writes due, {} wrong",
            self.images,
            self.whole_nodes,
            self.served,
            self.empty,
            self.refused.values().sum::<usize>(),
            self.due,
            self.wrong.len()
        );
        for (why, count) in &self.refused {
            println!("  refused {count} times: {why}");
        }
    }
}

type Found = BTreeMap<String, String>;
type Judgement = (usize, Vec<String>);

/// Moments to cut the power at: a third right around a sync, a third right after bytes were sent, which
/// may acknowledge something, the others anywhere.
fn cuts(events: &[Event<'_>], wanted: usize, dice: &mut Dice) -> Vec<usize> {
    use tests::power::Change::{Sent, SyncBegin, SyncEnd};
    let is_sync = |event: &Event<'_>| matches!(event.change, SyncBegin { .. } | SyncEnd { .. });
    let syncs: Vec<usize> = (0..events.len()).filter(|at| is_sync(&events[*at])).collect();
    let is_sent = |event: &Event<'_>| matches!(event.change, Sent { .. });
    let sent: Vec<usize> = (0..events.len()).filter(|at| is_sent(&events[*at])).collect();
    let mut cuts: Vec<usize> = (0..wanted)
        .map(|number| match number % 3 {
            0 => dice.below(events.len() as u64) as usize,
            1 => sent[dice.below(sent.len() as u64) as usize],
            _ => syncs[dice.below(syncs.len() as u64) as usize] + dice.below(2) as usize,
        })
        .map(|at| at.min(events.len() - 1))
        .collect();
    cuts.sort_unstable();
    cuts
}

fn write_out(image: &Image) -> TempDir {
    let place = TempDir::with_prefix("muster-image-").unwrap();
    image.write(place.path());
    place
}

/// Starts the real binary on a folder and reads all tenants.
fn serve(folder: &Path, operator: &Path) -> Recovered {
    let _ = fs::remove_file(folder.join("addr.json"));
    let log = folder.join("serve.log");
    let mut command = Command::new(BINARY);
    // Until it has an identity it is to make one; afterwards the flag means nothing.
    command.arg("serve").arg("--bootstrap").arg("--data").arg(folder);
    command.args(["--client-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0"]);
    command.env("MUSTER_LOG__SEGMENT_BYTES", SEGMENT_BYTES.to_string());
    let mut process = Process::start("a node after a power cut", &mut command, &log);
    let addr = until_some("it serves or ends", 60, || match process.is_running() {
        false => Some(None),
        true => {
            let text = fs::read(folder.join("addr.json")).ok()?;
            let addr: serde_json::Value = serde_json::from_slice(&text).ok()?;
            Some(Some(addr["client"].as_str()?.to_owned()))
        }
    });
    let Some(addr) = addr else {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let why = text.lines().rfind(|line| line.starts_with("error")).unwrap_or(&text);
        return Recovered::Refuses(why.to_owned());
    };
    // A cluster made anew has another authority, and nothing was acknowledged by the old one.
    let own = folder.join("admin");
    let same = fs::read(own.join("ca.pem")).ok() == fs::read(operator.join("ca.pem")).ok();
    let bundle = CertificateBundle::load(if same { operator } else { &own }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = until_some("it answers", 60, || {
        assert!(process.is_running(), "{}", fs::read_to_string(&log).unwrap_or_default());
        runtime.block_on(tenants(&addr, &bundle)).ok()
    });
    Recovered::Serves(found)
}

/// Panics with all that is wrong, after the images were kept for a look.
fn check(tally: &Tally, kept: &[PathBuf]) {
    let wrong = &tally.wrong[..tally.wrong.len().min(20)];
    assert!(wrong.is_empty(), "{wrong:#?}\nimages: {kept:?}");
}

/// Makes images of a lone node's trace and recovers each; what is wrong with them is in the tally, and
/// some of those are kept.
fn survey(recording: &Recording, wanted: usize, seed: u64) -> (Tally, Vec<PathBuf>) {
    let Recording { recorder, cluster, traces, writers, operator } = recording;
    let events: Vec<_> = traces[0].events().collect();
    let folder = &cluster.nodes[0].folder;
    let folder = folder.canonicalize().unwrap();
    let below = folder.strip_prefix(recorder.under()).unwrap();
    let mut dice = Dice::new(seed);
    let mut machine = Machine::new(recorder.under(), &folder);
    let (mut tally, mut kept, mut followed) = (Tally::default(), Vec::new(), 0);
    for (number, cut) in cuts(&events, wanted, &mut dice).into_iter().enumerate() {
        events[followed..=cut].iter().for_each(|event| machine.follow(event));
        followed = followed.max(cut + 1);
        let loss = Loss::ALL[number % Loss::ALL.len()];
        let image = machine.image(loss, &mut dice).below(below);
        let place = write_out(&image);
        let whole = number % WHOLE_NODE_EVERY == WHOLE_NODE_EVERY - 1;
        tally.whole_nodes += usize::from(whole);
        let recovered = match whole {
            true => serve(place.path(), operator),
            false => recover(place.path(), SEGMENT_BYTES),
        };
        let what = format!("seed {seed}, image {number}, cut at event {cut}, {loss:?}");
        let before = (tally.wrong.len(), tally.refused.len());
        let cut_ns = events[cut].time_ns;
        tally.add(&what, recovered, |found| writers.judge(cut_ns, found));
        if before != (tally.wrong.len(), tally.refused.len()) && kept.len() < 5 {
            let keep = TempDir::with_prefix("muster-power-cut-").unwrap().keep();
            image.write(&keep);
            println!("{what}: {}", keep.display());
            kept.push(keep);
        }
    }
    (tally, kept)
}

/// What is wrong with images of a lone node's trace; none of them is kept.
pub(crate) fn wrong(recording: &Recording, wanted: usize, seed: u64) -> Vec<String> {
    let (tally, kept) = survey(recording, wanted, seed);
    kept.iter().for_each(|folder| fs::remove_dir_all(folder).unwrap());
    tally.wrong
}

/// Makes images of a lone node's trace: each has every acknowledged write.
fn campaign(recording: &Recording, name: &str, wanted: usize, seed: u64) {
    let (tally, kept) = survey(recording, wanted, seed);
    tally.print(name);
    check(&tally, &kept);
    assert_eq!(tally.refused.len(), 0, "a power cut damages nothing durable: {kept:?}");
    assert!(tally.due > 0 && tally.served > 0);
}

#[test]
fn power_cut_of_a_lone_node_loses_no_acknowledged_write() {
    let Some(recording) = record(1, (8, 60)) else { return };
    let wanted = images_wanted(42, 1);
    campaign(&recording, "lone node, fixed seed", wanted / 2, 1);
    let fresh = now_ns();
    println!("fresh seed {fresh}");
    campaign(&recording, "lone node, fresh seed", wanted - wanted / 2, fresh);
}

/// The campaign itself is tried: a node that does not sync must be found out.
#[test]
fn power_cut_of_a_node_that_never_synced_is_noticed() {
    let Some(recording) = record(1, (4, 30)) else { return };
    let Recording { recorder, cluster, traces, writers, .. } = &recording;
    let folder = cluster.nodes[0].folder.canonicalize().unwrap();
    let below = folder.strip_prefix(recorder.under()).unwrap();
    let first = writers.attempts.iter().map(|attempt| attempt.began_ns).min().unwrap();
    let mut machine = Machine::new(recorder.under(), &folder);
    for event in traces[0].events() {
        if event.time_ns >= first {
            machine.ignore_syncs();
        }
        machine.follow(&event);
    }
    let image = machine.image(Loss::Unsynced, &mut Dice::new(1)).below(below);
    let place = write_out(&image);
    let mut tally = Tally::default();
    let recovered = recover(place.path(), SEGMENT_BYTES);
    tally.add("never synced", recovered, |found| writers.judge(u64::MAX, found));
    tally.print("a node that never synced");
    let lost = tally.wrong.iter().filter(|wrong| wrong.contains("lost")).count();
    assert!(lost > 0 || !tally.refused.is_empty(), "nothing was noticed");
}

#[test]
fn power_cut_flipped_bits_are_refused_or_mended_and_never_served() {
    let Some(recording) = record(1, (4, 60)) else { return };
    let Recording { recorder, cluster, traces, writers, operator } = &recording;
    let folder = cluster.nodes[0].folder.canonicalize().unwrap();
    let below = folder.strip_prefix(recorder.under()).unwrap();
    let mut machine = Machine::new(recorder.under(), &folder);
    traces[0].events().for_each(|event| machine.follow(&event));
    let mut tally = Tally::default();
    for number in 0..images_wanted(24, 4) {
        let mut dice = Dice::new(number as u64);
        let mut image = machine.image(Loss::Nothing, &mut dice).below(below);
        let kind = ["log", "kv", "snapshots"][number % 3];
        let Some(flipped) = image.flip(&mut dice, |name| name.starts_with(kind)) else { continue };
        let place = write_out(&image);
        tally.whole_nodes += usize::from(number % WHOLE_NODE_EVERY == 0);
        let recovered = match number % WHOLE_NODE_EVERY {
            0 => serve(place.path(), operator),
            _ => recover(place.path(), SEGMENT_BYTES),
        };
        if let Recovered::Refuses(why) = &recovered {
            assert_eq!(kind, "log", "what can be rebuilt is no reason to refuse: {flipped}: {why}");
            assert!(why.contains("damaged") || why.contains("version"), "{flipped}: {why}");
        }
        let what = format!("image {number}, {flipped}");
        tally.add(&what, recovered, |found| writers.judge(u64::MAX, found));
    }
    tally.print("flipped bits");
    check(&tally, &[]);
    assert!(tally.served > 0);
}

#[test]
fn power_cut_of_all_three_nodes_at_once_loses_no_acknowledged_write() {
    let Some(mut recording) = record(3, (6, 40)) else { return };
    let seed = now_ns();
    println!("fresh seed {seed}");
    let mut dice = Dice::new(seed);
    let bundle = CertificateBundle::load(&recording.operator).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = recording.writers.attempts.iter().map(|it| it.began_ns).min().unwrap();
    let last = recording.writers.attempts.iter().map(|it| it.began_ns).max().unwrap();
    let mut tally = Tally::default();
    for number in 0..images_wanted(3, 5) {
        let cut_ns = dice.between(first, last);
        let losses: Vec<_> = (0..3).map(|_| Loss::ALL[dice.below(7) as usize]).collect();
        for (index, loss) in losses.iter().enumerate() {
            replace_by_image(&mut recording, index, (cut_ns, *loss), &mut dice);
        }
        (0..3).for_each(|index| recording.cluster.spawn_node(index));
        let cluster = &mut recording.cluster;
        let addr = cluster.client_addr(number % 3);
        let found = until_some("the three serve again", 60, || {
            for index in 0..3 {
                let running =
                    cluster.nodes[index].process.as_mut().is_some_and(Process::is_running);
                assert!(running, "node {index} ended: {losses:?}\n{}", cluster.node_log(index));
            }
            runtime.block_on(tenants(&addr, &bundle)).ok()
        });
        (0..3).for_each(|index| cluster.kill_node(index));
        let what = format!("seed {seed}, image {number}, {losses:?}");
        tally.add(&what, Recovered::Serves(found), |found| recording.writers.judge(cut_ns, found));
    }
    tally.whole_nodes = tally.images;
    tally.print("three nodes at once");
    check(&tally, &[]);
    assert!(tally.due > 0);
}

fn replace_by_image(
    recording: &mut Recording,
    index: usize,
    (cut_ns, loss): (u64, Loss),
    dice: &mut Dice,
) {
    let folder = recording.cluster.nodes[index].folder.canonicalize().unwrap();
    let under = recording.recorder.under();
    let mut machine = Machine::new(under, &folder);
    let events = recording.traces[index].events();
    events.take_while(|event| event.time_ns <= cut_ns).for_each(|event| machine.follow(&event));
    let image = machine.image(loss, dice).below(folder.strip_prefix(under).unwrap());
    fs::remove_dir_all(&folder).unwrap();
    image.write(&folder);
    let _ = fs::remove_file(folder.join("addr.json"));
}
