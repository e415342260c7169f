//! Three nodes in one process, over real TLS on loopback, with one ledger in memory and a disk each.

mod cluster;

use super::{Item, answer};
use crate::testing::{agent, host, name, operator, tenant};
use api::{status::ClientError, v1};
use artifact::Digest;
use cluster::{Client, Trio, bad_image, config, image, until};
use consensus::Ledger;
use model::{Command, Resources};
use tonic::{Code, Status};

fn reason(status: &Status) -> String {
    ClientError::from(status.clone()).reason
}

async fn begin(client: &mut Client, tenant: &str, bytes: &[u8]) -> Result<v1::Upload, Status> {
    let (tenant, digest) = (tenant.to_owned(), Digest::of(bytes).to_string());
    let size_bytes = bytes.len() as u64;
    let asked = v1::BeginUploadRequest { tenant, digest, size_bytes };
    client.begin_upload(asked).await.map(tonic::Response::into_inner)
}

/// Sends the chunk at `offset`, under the digest of `bytes`.
async fn write(
    client: &mut Client,
    upload: &v1::Upload,
    bytes: &[u8],
    offset: u64,
) -> Result<u64, Status> {
    let (tenant, hex) = upload.id.split_once('-').unwrap();
    let end = bytes.len().min(offset as usize + upload.chunk_bytes as usize);
    let asked = v1::WriteChunkRequest {
        tenant: tenant.to_owned(),
        upload_id: upload.id.clone(),
        offset,
        data: bytes[offset as usize..end].to_vec().into(),
        digest: format!("sha256:{hex}"),
    };
    client.write_chunk(asked).await.map(|answer| answer.into_inner().durable_offset)
}

async fn send(client: &mut Client, upload: &v1::Upload, bytes: &[u8]) {
    let mut offset = upload.offset;
    while offset < bytes.len() as u64 {
        offset = write(client, upload, bytes, offset).await.unwrap();
    }
}

async fn finish(
    client: &mut Client,
    upload: &v1::Upload,
) -> Result<v1::FinishUploadResponse, Status> {
    let (tenant, hex) = upload.id.split_once('-').unwrap();
    let asked = v1::FinishUploadRequest {
        tenant: tenant.to_owned(),
        upload_id: upload.id.clone(),
        digest: format!("sha256:{hex}"),
        request_id: String::new(),
    };
    client.finish_upload(asked).await.map(tonic::Response::into_inner)
}

async fn push(client: &mut Client, tenant: &str, bytes: &[u8]) -> v1::Image {
    let upload = begin(client, tenant, bytes).await.unwrap();
    send(client, &upload, bytes).await;
    finish(client, &upload).await.unwrap().image.unwrap()
}

async fn download(
    client: &mut Client,
    tenant: &str,
    digest: Digest,
    offset: u64,
) -> Result<Vec<u8>, Status> {
    let asked =
        v1::DownloadRequest { tenant: tenant.to_owned(), digest: digest.to_string(), offset };
    let mut chunks = client.download(asked).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        assert_eq!(chunk.offset, offset + bytes.len() as u64);
        bytes.extend_from_slice(&chunk.data);
    }
    Ok(bytes)
}

fn item(tenant: &str, bytes: &[u8]) -> Item {
    Item::upload(&name(tenant), Digest::of(bytes), bytes.len() as u64).unwrap()
}

#[tokio::test]
async fn a_chunk_is_answered_when_a_majority_has_it_and_the_whole_becomes_an_image() {
    let trio = Trio::start(config()).await;
    let bytes = image();
    let mut client = trio.client(1, operator("root"));
    let upload = begin(&mut client, "acme", &bytes).await.unwrap();
    assert_eq!((upload.offset, upload.size_bytes, upload.finished), (0, bytes.len() as u64, false));
    let mut offset = 0;
    let mut chunks = 0;
    while offset < bytes.len() as u64 {
        offset = write(&mut client, &upload, &bytes, offset).await.unwrap();
        chunks += 1;
        let mut holders = 0;
        for node in &trio.nodes {
            let held = node.images.held(&item("acme", &bytes)).await.unwrap();
            holders += usize::from(held.durable() >= offset);
        }
        assert!(holders >= 2, "{holders} nodes hold {offset} bytes");
    }
    assert!(chunks > 3, "{chunks}");
    let image = finish(&mut client, &upload).await.unwrap().image.unwrap();
    assert_eq!(image.size_bytes, bytes.len() as u64);
    // Once more is the same, and an agent gets it from any node, from any offset.
    assert_eq!(finish(&mut client, &upload).await.unwrap().image.unwrap(), image);
    assert!(begin(&mut client, "acme", &bytes).await.unwrap().finished);
    for node in 1..=3 {
        let mut agent = trio.client(node, agent("acme", "h1"));
        let got = download(&mut agent, "acme", Digest::of(&bytes), 0).await.unwrap();
        assert!(got == bytes, "node {node}");
        let rest = download(&mut agent, "acme", Digest::of(&bytes), 700).await.unwrap();
        assert!(rest == bytes[700..], "node {node}");
    }
}

#[tokio::test]
async fn an_upload_goes_on_elsewhere_where_it_was_acknowledged() {
    let trio = Trio::start(config()).await;
    let bytes = image();
    let mut first = trio.client(1, operator("root"));
    let upload = begin(&mut first, "acme", &bytes).await.unwrap();
    let one = write(&mut first, &upload, &bytes, 0).await.unwrap();
    let two = write(&mut first, &upload, &bytes, one).await.unwrap();
    // Node 3 has fallen behind when node 1 dies: what is acknowledged is on node 2.
    let behind = item("acme", &bytes);
    for node in [1, 2] {
        until("the chunk is everywhere", || async {
            let held = trio.nodes[node].images.held(&behind).await.unwrap();
            (held.sent == two).then_some(())
        })
        .await;
    }
    trio.nodes[2].images.inner.depot.remove(&behind, false).await.unwrap();
    trio.kill(1).await;
    let mut third = trio.client(3, operator("root"));
    let asked =
        v1::GetUploadRequest { tenant: "acme".to_owned(), digest: behind.digest.to_string() };
    let found = third.get_upload(asked).await.unwrap().into_inner();
    assert_eq!((found.offset, found.id.clone()), (two, upload.id));
    assert_eq!(trio.nodes[2].images.held(&behind).await.unwrap().sent, two);
    send(&mut third, &found, &bytes).await;
    finish(&mut third, &found).await.unwrap();
    let got = download(&mut third, "acme", behind.digest, 0).await.unwrap();
    assert!(got == bytes);
}

#[tokio::test]
async fn a_chunk_may_go_to_another_node_without_asking_first() {
    let trio = Trio::start(config()).await;
    let bytes = image();
    let mut first = trio.client(1, operator("root"));
    let upload = begin(&mut first, "acme", &bytes).await.unwrap();
    let one = write(&mut first, &upload, &bytes, 0).await.unwrap();
    let mut second = trio.client(2, operator("root"));
    let two = write(&mut second, &upload, &bytes, one).await.unwrap();
    assert!(two > one);
    let gap = write(&mut second, &upload, &bytes, two + 1).await.unwrap_err();
    assert_eq!((gap.code(), reason(&gap).as_str()), (Code::OutOfRange, "UPLOAD_OFFSET"));
    let repeated = write(&mut first, &upload, &bytes, 0).await.unwrap();
    assert!(repeated >= one, "{repeated}");
    let early = finish(&mut first, &upload).await.unwrap_err();
    assert_eq!(ClientError::from(early).metadata["offset"], two.to_string());
}

#[tokio::test]
async fn without_a_majority_nothing_is_acknowledged_not_even_a_repeat() {
    let trio = Trio::start(config()).await;
    let bytes = image();
    let mut client = trio.client(1, operator("root"));
    let upload = begin(&mut client, "acme", &bytes).await.unwrap();
    trio.kill(2).await;
    let one = write(&mut client, &upload, &bytes, 0).await.unwrap();
    trio.kill(3).await;
    for _ in 0..2 {
        let refused = write(&mut client, &upload, &bytes, one).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(ClientError::from(refused).is_worth_repeating());
    }
    let refused = begin(&mut client, "acme", &bytes).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

async fn nothing_is_left(trio: &Trio, bytes: &[u8]) {
    let item = item("acme", bytes);
    for node in &trio.nodes {
        until("the refused upload is gone", || async {
            let held = node.images.held(&item).await.unwrap();
            (held == super::Held::default()).then_some(())
        })
        .await;
    }
    assert_eq!(trio.ledger.read(|state| state.images.iter().count()), 0);
}

#[tokio::test]
async fn other_bytes_than_announced_are_refused_and_nothing_of_them_stays() {
    let trio = Trio::start(config()).await;
    let bytes = image();
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    let mut client = trio.client(2, operator("root"));
    let upload = begin(&mut client, "acme", &bytes).await.unwrap();
    send(&mut client, &upload, &other).await;
    let refused = finish(&mut client, &upload).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(reason(&refused), answer::IMAGE_DIGEST);
    nothing_is_left(&trio, &bytes).await;
    // The right bytes still find their way.
    push(&mut client, "acme", &bytes).await;
}

#[tokio::test]
async fn a_malformed_image_is_refused_with_every_violation_and_nothing_of_it_stays() {
    let trio = Trio::start(config()).await;
    let bytes = bad_image();
    let mut client = trio.client(1, operator("root"));
    let upload = begin(&mut client, "acme", &bytes).await.unwrap();
    send(&mut client, &upload, &bytes).await;
    let refused = finish(&mut client, &upload).await.unwrap_err();
    let refused = ClientError::from(refused);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "IMAGE_LAYOUT"));
    let listed: Vec<String> = refused
        .violations
        .iter()
        .map(|it| format!("{}: {}", it.field, it.description.split_once(' ').unwrap().0))
        .collect();
    let expected = [
        "application.json name: [bad-name]",
        "application.json version: [bad-version]",
        "folder/: [unknown-folder]",
        "stray.txt: [unknown-file-at-root]",
    ];
    for one in expected {
        assert!(listed.iter().any(|it| it == one), "{one} is not in {listed:?}");
    }
    nothing_is_left(&trio, &bytes).await;
}

#[tokio::test]
async fn another_tenant_gets_an_image_only_by_sending_all_of_it_itself() {
    let trio = Trio::start(config()).await;
    let bytes = image();
    let digest = Digest::of(&bytes);
    let mut client = trio.client(1, operator("root"));
    push(&mut client, "acme", &bytes).await;
    let mut foreign = trio.client(1, agent("other", "h9"));
    let refused = download(&mut foreign, "acme", digest, 0).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "UNKNOWN_TENANT"));
    let refused = download(&mut foreign, "other", digest, 0).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "UNKNOWN_IMAGE"));
    // Knowing the digest is not enough.
    let upload = begin(&mut client, "other", &bytes).await.unwrap();
    assert_eq!((upload.offset, upload.finished), (0, false));
    let refused = finish(&mut client, &upload).await.unwrap_err();
    assert_eq!(reason(&refused), "UPLOAD_OFFSET");
    let guess = vec![0; bytes.len()];
    let refused = write(&mut client, &upload, &guess, 0).await.unwrap_err();
    assert_eq!(reason(&refused), answer::IMAGE_DIGEST);
    send(&mut client, &upload, &bytes).await;
    finish(&mut client, &upload).await.unwrap();
    assert!(download(&mut foreign, "other", digest, 0).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_lost_and_a_damaged_copy_come_back_and_one_without_use_goes() {
    let mut config = config();
    config.sweep_ms = 30;
    config.settle_ms = 5;
    config.verify_every_ms = 0;
    config.unused_grace_ms = 0;
    config.upload_idle_ms = 200;
    let trio = Trio::start(config).await;
    for node in &trio.nodes {
        drop(node.images.start());
    }
    let bytes = image();
    let digest = Digest::of(&bytes);
    let mut client = trio.client(1, operator("root"));
    push(&mut client, "acme", &bytes).await;
    let file = |node: usize, folder: &str| {
        trio.nodes[node].shared.folders.blobs().join(folder).join(digest.to_hex())
    };
    let is_good = |node: usize| {
        let path = file(node, "blobs/sha256");
        move || std::future::ready((std::fs::read(&path).ok() == Some(image())).then_some(()))
    };
    for node in 0..3 {
        until("every node has a copy", is_good(node)).await;
    }
    std::fs::remove_file(file(1, "blobs/sha256")).unwrap();
    let mut damaged = bytes.clone();
    damaged[100] ^= 1;
    std::fs::write(file(2, "blobs/sha256"), &damaged).unwrap();
    for node in [1, 2] {
        until("the copy comes back", is_good(node)).await;
    }
    assert!(std::fs::read(file(2, "aside")).unwrap() == damaged);
    let (tenant, wanted) = (name("acme"), model::Digest(*digest.as_bytes()));
    trio.decide(Command::DeleteImage { tenant, digest: wanted }).await;
    for node in 0..3 {
        let path = file(node, "blobs/sha256");
        until("the image goes", || std::future::ready((!path.exists()).then_some(()))).await;
    }
}

#[tokio::test]
async fn a_damaged_copy_is_not_sent_to_anybody() {
    let mut config = config();
    config.verify_every_ms = 0;
    let trio = Trio::start(config).await;
    let bytes = image();
    let digest = Digest::of(&bytes);
    let mut client = trio.client(1, operator("root"));
    push(&mut client, "acme", &bytes).await;
    let path = trio.nodes[0].shared.folders.blobs().join("blobs/sha256").join(digest.to_hex());
    std::fs::write(path, b"damaged").unwrap();
    assert!(download(&mut client, "acme", digest, 0).await.unwrap() == bytes);
}

#[tokio::test]
async fn uploads_are_bounded_in_size_and_number() {
    let mut config = config();
    config.uploads_max = 1;
    config.image_bytes_max = 1 << 20;
    let trio = Trio::start(config).await;
    let mut client = trio.client(1, operator("root"));
    let refused = begin(&mut client, "acme", &vec![0; (1 << 20) + 1]).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "FIELD"));
    let upload = begin(&mut client, "acme", b"one").await.unwrap();
    let refused = begin(&mut client, "acme", b"two").await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "OVERLOADED")
    );
    assert_eq!(begin(&mut client, "acme", b"one").await.unwrap(), upload);
    let refused = begin(&mut client, "nobody", b"one").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "UNKNOWN_TENANT"));
}

#[test]
fn what_an_image_leaves_open_gets_defaults() {
    let bytes = image();
    let limits = artifact::Limits::default();
    let valid = artifact::app_image::validate(std::io::Cursor::new(&bytes), &limits).unwrap();
    let mut manifest = valid.manifest;
    manifest.limits = artifact::app_image::ResourceLimits::default();
    manifest.stop_grace_ms = 1_234;
    let application = answer::application(&manifest, Digest::of(&bytes)).unwrap();
    assert_eq!(application.limits, Resources { cpu_millis: 100, memory_bytes: 64 << 20 });
    assert_eq!(application.stop_grace_ms, 1_234);
    assert_eq!(application.name.as_str(), manifest.name);
    let main = model::Digest(*Digest::of(&bytes).as_bytes());
    assert_eq!(application.artifacts.get(&name("main")), Some(&main));
    manifest.limits.memory_bytes = Some(1 << 21);
    let application = answer::application(&manifest, Digest::of(&bytes)).unwrap();
    assert_eq!(application.limits, Resources { cpu_millis: 100, memory_bytes: 1 << 21 });
}

async fn seed(trio: &Trio) {
    for command in [tenant("acme"), tenant("other"), host("acme", "h1"), host("other", "h9")] {
        trio.decide(command).await;
    }
}
