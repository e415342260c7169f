//! The store over simulated disks that lose power, and over a real one.

use std::{
    collections::BTreeSet,
    io::{Cursor, Write},
    path::PathBuf,
};

use storage::{
    Dice,
    disk::{
        real::{RealDisk, RealDiskConfig},
        simulated::{Injection, Loss, SimulatedDisk, SimulatedDiskConfig},
    },
};

use super::*;
use crate::{InspectError, Inspector, Limits, app_image};

fn config() -> StoreConfig {
    StoreConfig {
        chunk_bytes_max: 4096,
        chunk_bytes_min: 512,
        blob_bytes_max: 100_000,
        uploads_max: 3,
        uploads_bytes_max: 150_000,
        upload_idle_ms: 1000,
    }
}

fn disk(seed: u64) -> SimulatedDisk {
    SimulatedDisk::new(SimulatedDiskConfig { seed, ..SimulatedDiskConfig::default() })
}

async fn open(disk: &SimulatedDisk) -> Store<SimulatedDisk> {
    Store::open(disk.clone(), Path::new("store"), config(), 0).await.unwrap()
}

fn content(seed: u64, bytes: usize) -> Bytes {
    let mut dice = Dice::new(seed);
    (0..bytes).map(|_| u8::try_from(dice.below(256)).unwrap()).collect()
}

fn id(text: &str) -> UploadId {
    text.parse().unwrap()
}

/// Sends what is missing of an upload, and finishes it.
async fn send<D: Disk>(store: &Store<D>, id: &UploadId, content: &Bytes) -> Digest {
    let (digest, size) = (Digest::of(content), content.len() as u64);
    let Begun::Upload { mut offset } = store.begin(id, digest, size, 0).await.unwrap() else {
        return digest;
    };
    while offset < size {
        let end = (offset + 4096).min(size);
        let chunk = content.slice(offset as usize..end as usize);
        offset = store.write(id, offset, chunk, 0).await.unwrap();
        assert_eq!(offset, end);
    }
    assert_eq!(store.finish(id, 0).await.unwrap(), Blob { digest, size_bytes: size });
    digest
}

#[tokio::test]
async fn what_was_uploaded_is_read_by_digest_in_ranges() {
    let store = open(&disk(1)).await;
    let bytes = content(1, 10_000);
    let digest = send(&store, &id("a"), &bytes).await;
    assert_eq!(store.blob(&digest).await.unwrap().unwrap().size_bytes, 10_000);
    assert_eq!(store.read(&digest, 0, 4096).await.unwrap(), bytes[..4096]);
    assert_eq!(store.read(&digest, 0, u32::MAX).await.unwrap().len(), 4096, "a chunk at most");
    assert_eq!(store.read(&digest, 9_990, 100).await.unwrap(), bytes[9_990..]);
    assert_eq!(store.read(&digest, 20_000, 100).await.unwrap(), Bytes::new());
    assert_eq!(store.verify(&digest).await.unwrap(), Verdict::Good);
    assert_eq!(store.uploads(), []);
    let again = store.begin(&id("b"), digest, 10_000, 0).await.unwrap();
    assert_eq!(again, Begun::Present);
    let absent = Digest::of(b"absent");
    assert!(matches!(store.read(&absent, 0, 1).await, Err(StoreError::UnknownBlob(_))));
    assert_eq!(store.verify(&absent).await.unwrap(), Verdict::Absent);
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let store = open(&disk(1)).await;
    let digest = send(&store, &id("a"), &Bytes::new()).await;
    assert_eq!(store.list().await.unwrap(), [Blob { digest, size_bytes: 0 }]);
}

#[tokio::test]
async fn chunks_that_do_not_fit_change_nothing() {
    let store = open(&disk(1)).await;
    let bytes = content(1, 5000);
    let upload = id("a");
    let unknown = store.write(&upload, 0, bytes.slice(..512), 0).await;
    assert!(matches!(unknown, Err(StoreError::UnknownUpload(_))), "{unknown:?}");
    store.begin(&upload, Digest::of(&bytes), 5000, 0).await.unwrap();
    assert_eq!(store.write(&upload, 0, bytes.slice(..1000), 0).await.unwrap(), 1000);
    for (offset, range, expected) in [
        (0, 0..1000, "the next chunk begins at 1000"),
        (2000, 2000..3000, "the next chunk begins at 1000"),
        (1000, 1000..1100, "a chunk has 512 to 4096 bytes, this one has 100"),
        (1000, 0..4100, "the upload has 5000 bytes, the chunk ends behind them"),
    ] {
        let refused = store.write(&upload, offset, bytes.slice(range), 0).await;
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
    let early = store.finish(&upload, 0).await;
    assert!(matches!(early, Err(StoreError::Incomplete { durable: 1000, size_bytes: 5000 })));
    assert_eq!(send(&store, &upload, &bytes).await, Digest::of(&bytes));
}

#[tokio::test]
async fn content_of_another_digest_is_not_kept() {
    let disk = disk(1);
    let store = open(&disk).await;
    let upload = id("a");
    let announced = Digest::of(b"something else");
    store.begin(&upload, announced, 1000, 0).await.unwrap();
    store.write(&upload, 0, content(1, 1000), 0).await.unwrap();
    let refused = store.finish(&upload, 0).await;
    assert!(matches!(refused, Err(StoreError::DigestMismatch { .. })), "{refused:?}");
    assert_eq!((store.uploads(), store.list().await.unwrap()), (vec![], vec![]));
    assert_eq!(disk.list(Path::new("store/uploads")).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn uploads_are_bounded_in_number_and_in_size() {
    let store = open(&disk(1)).await;
    let begin =
        async |name: &str, size| store.begin(&id(name), Digest::of(name.as_bytes()), size, 0).await;
    assert!(matches!(begin("z", 100_001).await, Err(StoreError::BlobTooLarge { .. })));
    begin("a", 100_000).await.unwrap();
    assert!(matches!(begin("b", 50_001).await, Err(StoreError::Busy { uploads: 1, .. })));
    begin("b", 1000).await.unwrap();
    begin("c", 1000).await.unwrap();
    assert!(matches!(begin("d", 1000).await, Err(StoreError::Busy { uploads: 3, .. })));
    assert!(matches!(begin("a", 7).await, Err(StoreError::OtherContent { .. })));
    assert_eq!(begin("a", 100_000).await.unwrap(), Begun::Upload { offset: 0 });
    store.abort(&id("a")).await.unwrap();
    begin("d", 100_000).await.unwrap();
}

#[tokio::test]
async fn idle_uploads_expire_and_used_ones_do_not() {
    let store = open(&disk(1)).await;
    for (name, now_ms) in [("old", 0), ("used", 0), ("new", 900)] {
        store.begin(&id(name), Digest::of(name.as_bytes()), 2000, now_ms).await.unwrap();
    }
    store.write(&id("used"), 0, content(1, 1000), 500).await.unwrap();
    assert_eq!(store.expire(999).await.unwrap(), []);
    assert_eq!(store.expire(1000).await.unwrap(), [id("old")]);
    assert_eq!(store.expire(1000).await.unwrap(), []);
    assert!(matches!(store.finish(&id("old"), 0).await, Err(StoreError::UnknownUpload(_))));
    assert_eq!(store.expire(5000).await.unwrap(), [id("new"), id("used")]);
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_durable_after_any_power_cut() {
    let bytes = content(7, 40_000);
    let digest = Digest::of(&bytes);
    let upload = id("a");
    let mut resumed_inside = 0;
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let mut disk = disk(seed);
        let mut acknowledged = 0;
        let mut finished = false;
        for _ in 0..4 {
            let store = open(&disk).await;
            disk.inject(Injection::PowerOffAfter(dice.below(30)));
            let begun = store.begin(&upload, digest, 40_000, 0).await;
            assert!(
                !finished || !matches!(begun, Ok(Begun::Upload { .. })),
                "seed {seed}: a blob was lost"
            );
            if let Ok(Begun::Upload { mut offset }) = begun {
                assert!(offset >= acknowledged, "seed {seed}: {offset} < {acknowledged}");
                resumed_inside += u32::from(offset > 0);
                acknowledged = offset;
                while offset < 40_000 {
                    let end = (offset as usize + 512 + dice.below(3585) as usize).min(40_000);
                    let chunk = bytes.slice(offset as usize..end);
                    let Ok(next) = store.write(&upload, offset, chunk, 0).await else { break };
                    offset = next;
                    acknowledged = next;
                }
                finished |= store.finish(&upload, 0).await.is_ok();
            }
            if acknowledged > 0 && !finished {
                // An upload that failed in a living process is given up; a power cut is another
                // matter, and only that is what follows here.
                acknowledged = if disk.is_off() { acknowledged } else { 0 };
            }
            disk = disk.crash(Loss::any(&mut dice));
        }
        let store = open(&disk).await;
        assert_eq!(send(&store, &upload, &bytes).await, digest, "seed {seed}");
        assert_eq!(store.verify(&digest).await.unwrap(), Verdict::Good, "seed {seed}");
        assert_eq!(disk.list(Path::new("store/uploads")).await.unwrap(), Vec::<String>::new());
    }
    assert!(resumed_inside > 100, "the test reaches resuming: {resumed_inside}");
}

#[tokio::test]
async fn a_chunk_that_the_disk_lost_is_sent_again_after_a_restart() {
    let disk = disk(1);
    let store = open(&disk).await;
    let bytes = content(1, 3000);
    let upload = id("a");
    store.begin(&upload, Digest::of(&bytes), 3000, 0).await.unwrap();
    store.write(&upload, 0, bytes.slice(..1000), 0).await.unwrap();
    disk.inject(Injection::LoseNextWrite);
    store.write(&upload, 1000, bytes.slice(1000..2000), 0).await.unwrap();
    store.write(&upload, 2000, bytes.slice(2000..), 0).await.unwrap();
    let disk = disk.crash(Loss::Nothing);
    let store = open(&disk).await;
    let begun = store.begin(&upload, Digest::of(&bytes), 3000, 0).await.unwrap();
    assert_eq!(begun, Begun::Upload { offset: 1000 });
    send(&store, &upload, &bytes).await;
}

#[tokio::test]
async fn a_failing_disk_gives_the_upload_up_and_only_that() {
    let disk = disk(1);
    let store = open(&disk).await;
    let bytes = content(1, 2000);
    let kept = send(&store, &id("kept"), &content(2, 700)).await;
    store.begin(&id("a"), Digest::of(&bytes), 2000, 0).await.unwrap();
    disk.inject(Injection::FailNextSync);
    let failed = store.write(&id("a"), 0, bytes.slice(..1000), 0).await;
    assert!(matches!(failed, Err(StoreError::Fault(_))), "{failed:?}");
    let after = store.write(&id("a"), 0, bytes.slice(..1000), 0).await;
    assert!(matches!(after, Err(StoreError::UnknownUpload(_))), "{after:?}");
    send(&store, &id("a"), &bytes).await;
    assert_eq!(store.verify(&kept).await.unwrap(), Verdict::Good);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_stop_the_chunk() {
    let disk = SimulatedDisk::new(SimulatedDiskConfig {
        sync_us: (5000, 5000),
        ..SimulatedDiskConfig::default()
    });
    let store = open(&disk).await;
    let bytes = content(1, 2000);
    let (upload, digest) = (id("a"), Digest::of(&bytes));
    store.begin(&upload, digest, 2000, 0).await.unwrap();
    let write = store.write(&upload, 0, bytes.slice(..1000), 0);
    let cut = tokio::time::timeout(std::time::Duration::from_millis(1), write).await;
    assert!(cut.is_err(), "the caller went away before the chunk was durable");
    let begun = store.begin(&upload, digest, 2000, 0).await.unwrap();
    assert_eq!(begun, Begun::Upload { offset: 1000 });
}

#[tokio::test]
async fn a_damaged_blob_is_found_and_can_be_had_again() {
    let disk = disk(1);
    let store = open(&disk).await;
    let bytes = content(1, 9000);
    let digest = send(&store, &id("a"), &bytes).await;
    let path = PathBuf::from("store/blobs/sha256").join(digest.to_hex());
    disk.flip_bit(&path, 5000, 3).unwrap();
    assert_eq!(store.verify(&digest).await.unwrap(), Verdict::Bad);
    assert!(store.delete(&digest).await.unwrap());
    assert!(!store.delete(&digest).await.unwrap());
    send(&store, &id("a"), &bytes).await;
    assert_eq!(store.verify(&digest).await.unwrap(), Verdict::Good);
}

#[tokio::test]
async fn a_cache_keeps_what_it_is_told_to() {
    let store = open(&disk(1)).await;
    let mut digests = Vec::new();
    for seed in 0..4 {
        digests.push(send(&store, &id("a"), &content(seed, 600)).await);
    }
    let keep = BTreeSet::from([digests[1], digests[3]]);
    let removed: BTreeSet<_> = store.evict(&keep).await.unwrap().into_iter().collect();
    assert_eq!(removed, BTreeSet::from([digests[0], digests[2]]));
    let left: BTreeSet<_> = store.list().await.unwrap().iter().map(|blob| blob.digest).collect();
    assert_eq!(left, keep);
}

#[test]
fn an_upload_id_is_a_plain_file_name() {
    for good in ["a", "0-1", &"a".repeat(128)] {
        assert_eq!(good.parse::<UploadId>().unwrap().as_str(), good);
    }
    for bad in ["", "A", "a.progress", "a/b", "..", "ü", &"a".repeat(129)] {
        assert_eq!(bad.parse::<UploadId>(), Err(UploadIdError), "{bad:?}");
    }
}

/// An image of about `bytes` bytes.
fn image(bytes: usize) -> Bytes {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let application = br#"{"schema_version": 1, "name": "shop", "version": "1.0.0"}"#.to_vec();
    let package = br#"{"name": "cart", "version": "1.0.0"}"#.to_vec();
    let script = [b"#!/bin/sh\n".to_vec(), content(1, bytes).to_vec()].concat();
    for (path, content) in [
        ("application.json", application),
        ("m/package.json", package),
        ("m/package.exe.x86_64", script),
    ] {
        zip.start_file(path, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&content).unwrap();
    }
    zip.finish().unwrap().into_inner().into()
}

#[tokio::test]
async fn images_on_a_real_disk_are_judged_and_unpacked_whether_small_or_large() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
    let root = folder.path().join("store");
    let store = Store::open(disk.clone(), &root, StoreConfig::default(), 0).await.unwrap();
    let second = Store::open(disk, &root, StoreConfig::default(), 0).await;
    assert!(matches!(second, Err(Fault::Locked { .. })), "{second:?}");
    let inspector = Inspector::new(Limits::default());
    for (name, bytes) in [("small", 1000), ("large", 5 << 20)] {
        let image = image(bytes);
        let digest = Digest::of(&image);
        let size = image.len() as u64;
        store.begin(&id(name), digest, size, 0).await.unwrap();
        let mut offset = 0;
        while offset < size {
            let end = (offset + (1 << 20)).min(size);
            let chunk = image.slice(offset as usize..end as usize);
            offset = store.write(&id(name), offset, chunk, 0).await.unwrap();
        }
        store.finish(&id(name), 0).await.unwrap();
        let valid = inspector.validate(&store, &digest).await.unwrap();
        assert_eq!(valid, app_image::validate(Cursor::new(&image), &Limits::default()).unwrap());
        let place = folder.path().join(name);
        let unpacked = inspector.unpack(&store, &digest, place.clone()).await.unwrap();
        assert_eq!(unpacked, valid);
        let script = std::fs::read(place.join("m/package.exe.x86_64")).unwrap();
        assert_eq!(script.len(), bytes + 10);
    }
    let marker = std::fs::read_to_string(root.join("oci-layout")).unwrap();
    assert_eq!(marker, "{\"imageLayoutVersion\":\"1.0.0\"}\n");
    let refused = inspector.validate(&store, &send(&store, &id("x"), &content(1, 700)).await).await;
    assert!(matches!(refused, Err(InspectError::Invalid(_))), "{refused:?}");
}
