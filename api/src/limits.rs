//! Bounds on what is decoded: the `max_decoding_message_size` of each client and server.

/// Largest request a server of the client port decodes, in bytes. More than a command may have
/// (`raft.command_bytes_max`, 2 MiB), so that one that is too large is told so in words.
pub const REQUEST_BYTES_MAX: usize = 5 << 20;

/// Largest answer a client decodes, in bytes: a page of 500 resources.
pub const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// Largest message of an agent's session, in bytes, either way: 4,096 reports, or all orders of a host.
pub const SESSION_BYTES_MAX: usize = 32 << 20;

/// Largest message between control nodes, in bytes. Raft entries are below 1 MiB each, several go in one
/// append.
pub const PEER_BYTES_MAX: usize = 16 << 20;

/// Largest chunk of an image or snapshot, in bytes.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Largest message that carries one chunk, in bytes: the chunk and what stands around it.
pub const CHUNK_MESSAGE_BYTES_MAX: usize = CHUNK_BYTES_MAX + (64 << 10);

/// Documents in one `Apply`: as many as the rules take in a batch.
pub const DOCUMENTS_MAX: usize = model::limits::BATCH_MAX;

/// Resource names in one `Watch`.
pub const WATCH_RESOURCES_MAX: usize = 500;
