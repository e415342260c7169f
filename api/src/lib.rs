//! What muster says over the wire: protobuf, the code made from it, and the seam it travels on.
//!
//! The `.proto` files under `proto/muster/v1` are the source of truth. Reading order: [`v1`] (the
//! generated messages, clients and servers), [`resource`] (names such as `tenants/acme/hosts/h1`),
//! [`convert`] (messages to and from the model, strict), [`access`] (who may call which rpc, drawn from
//! the protos), [`status`] and [`reason`] (refusals on the wire and back), [`page`], [`selector`] and
//! [`request_id`] (the small languages inside messages), [`json`] (messages as people read and write
//! them), [`job_reason`] (why jobs do not run), [`limits`], [`fabric`] (bytes between machines: TCP here, a
//! simulated network in simulation).

pub mod access;
pub mod convert;
pub mod fabric;
pub mod job_reason;
pub mod json;
pub mod limits;
pub mod page;
pub mod reason;
pub mod request_id;
pub mod resource;
mod secret;
pub mod selector;
pub mod status;

pub use fabric::{
    AcceptConfig, BoxFuture, BoxStream, Conn, Fabric, Incoming, Tcp, TcpConfig, WireConfig,
};

/// The generated messages, clients and servers of package `muster.v1`. Their documentation is in the
/// `.proto` files and is carried over.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("muster.v1");
}
