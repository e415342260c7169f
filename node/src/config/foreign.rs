//! How settings of rooms that know no file format are written in one. Field names and meaning are
//! the rooms' own: see the type each stands for. What is left out has the room's own default.

use serde::{Deserialize, Serialize};

macro_rules! foreign {
    ($(#[$doc:meta])* $name:ident, $remote:literal, $path:path, { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Serialize, Deserialize)]
        #[serde(remote = $remote, default, deny_unknown_fields)]
        pub struct $name {
            $($field: $type),*
        }

        impl Default for $name {
            fn default() -> Self {
                let default = <$path>::default();
                Self { $($field: default.$field),* }
            }
        }
    };
}

foreign!(
    /// Connections: `api::fabric::WireConfig`.
    Wire, "api::fabric::WireConfig", api::fabric::WireConfig, {
    connect_timeout_ms: u64,
    keepalive_every_ms: u64,
    keepalive_timeout_ms: u64,
    call_timeout_ms: Option<u64>,
    streams_max: u32,
    stream_window_bytes: u32,
    connection_window_bytes: u32,
    headers_bytes_max: u32,
});

foreign!(
    /// Handshakes: `api::fabric::AcceptConfig`.
    Accept, "api::fabric::AcceptConfig", api::fabric::AcceptConfig, {
    handshakes_max: usize,
    handshake_timeout_ms: u64,
});

foreign!(
    /// TCP: `api::TcpConfig`.
    Tcp, "api::TcpConfig", api::TcpConfig, {
    connect_timeout_ms: u64,
    backlog_max: u32,
    accept_pause_ms: u64,
});

foreign!(
    /// The Raft log: `storage::log::LogConfig`.
    Log, "storage::log::LogConfig", storage::log::LogConfig, {
    segment_bytes: u64,
    spare_segments_max: usize,
    batch_bytes_max: usize,
    pending_bytes_max: usize,
    cache_bytes_max: usize,
    idle_mark_ms: u64,
    lock_wait_ms: u64,
});

foreign!(
    /// Threads for files: `storage::disk::real::RealDiskConfig`.
    Disk, "storage::disk::real::RealDiskConfig", storage::disk::real::RealDiskConfig, {
    threads: usize,
    jobs_max: usize,
});

foreign!(
    /// The reconcilers: `actors::Config`.
    Actors, "actors::Config", actors::Config, {
    debounce_ms: u64,
    sweep_ms: u64,
    propose_timeout_ms: u64,
    restart_min_ms: u64,
    restart_max_ms: u64,
    steady_ms: u64,
    partitions_max: usize,
    proposals_max: usize,
});

foreign!(
    /// Certificates: `identity::Config`.
    Certificates, "identity::Config", identity::Config, {
    authority_validity_ms: u64,
    certificate_validity_ms: u64,
    backdate_ms: u64,
});

foreign!(
    /// A store of images: `artifact::StoreConfig`.
    Store, "artifact::StoreConfig", artifact::StoreConfig, {
    chunk_bytes_max: u32,
    chunk_bytes_min: u32,
    blob_bytes_max: u64,
    uploads_max: usize,
    uploads_bytes_max: u64,
    upload_idle_ms: u64,
});

foreign!(
    /// What an image may be: `artifact::Limits`.
    ImageLimits, "artifact::Limits", artifact::Limits, {
    image_bytes_max: u64,
    entries_max: usize,
    directory_bytes_max: u64,
    entry_bytes_max: u64,
    total_bytes_max: u64,
    ratio_max: u64,
    ratio_free_bytes: u64,
    path_bytes_max: usize,
    descriptor_bytes_max: u64,
    descriptors_bytes_max: u64,
    wasm_section_bytes_max: u64,
    violations_max: usize,
});
