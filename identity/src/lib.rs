//! Who a caller is and what it may do: the cluster's certificate authority, certificates, join
//! tokens, TLS at both ends, roles and the one function that authorises.
//!
//! Reading order: `name` and `principal` (who), `authority` and `certificate` (proof),
//! `token` (how a newcomer gets its first certificate), `tls` (where proof is checked), `role` and
//! `authorize` (what a proven caller may do), `secret` (what must never be printed).
//!
//! Time and randomness are arguments: this room reads no clock, and dice only through `Entropy`
//! (key generation and signing inside the TLS and X.509 libraries use the operating system's).

mod authority;
mod authorize;
mod certificate;
mod entropy;
mod error;
mod file;
mod name;
mod principal;
mod role;
mod secret;
#[cfg(test)]
mod testing;
mod tls;
mod token;
mod verifier;
mod x509;

pub use crate::authority::{Authority, Config, Issue};
pub use crate::authorize::{
    BindingLookup, Callers, Denied, Grant, RequiredScope, Requirement, Visibility, authorize,
    visibility,
};
pub use crate::certificate::{CertificateBundle, CertificateRequest};
pub use crate::entropy::{Entropy, EntropyError, SystemEntropy, random_serial};
pub use crate::error::{Error, PEM_BYTES_MAX};
pub use crate::name::{NAME_BYTES_MAX, Name, NameError};
pub use crate::principal::{CallerKind, IDENTITY_BYTES_MAX, Identity, Principal, PrincipalError};
pub use crate::role::{Binding, Role, RoleError, Scope};
pub use crate::secret::Secret;
pub use crate::tls::{
    ClientStream, Peer, PinnedPeer, ServerStream, TimeSource, TlsError, Trust, accept,
    client_config, client_port_config, connect, connect_pinned, peer_port_config,
};
pub use crate::token::{JoinToken, TOKEN_BYTES, TokenError, TokenHash};
pub use crate::x509::key_sha256;
pub use rustls::{ClientConfig, ServerConfig};
