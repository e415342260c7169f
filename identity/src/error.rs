//! What can go wrong with keys and certificates: files, PEM text, X.509 content.
//!
//! Refusals of a handshake are `TlsError`, refusals of a token `TokenError`.

use std::io;
use std::path::PathBuf;

use crate::entropy::EntropyError;
use crate::name::NameError;
use crate::principal::PrincipalError;

/// The longest PEM text read from a file or the network, in bytes.
pub const PEM_BYTES_MAX: usize = 16 * 1024;

/// A key, certificate or certificate request could not be made, read or trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} file {}", path.display())]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A private file may be read by others; its mode must be 0600 or stricter.
    #[error("file {} has mode {mode:o}, a private key needs 600", path.display())]
    FileMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A text is longer than its limit.
    #[error("{noun} is longer than {bytes_max} bytes")]
    TooLong {
        /// What was read.
        noun: &'static str,
        /// The limit.
        bytes_max: usize,
    },
    /// A text is not exactly one PEM block of the expected kind.
    #[error("{noun} is not exactly one PEM block of that kind")]
    Pem {
        /// What was expected.
        noun: &'static str,
    },
    /// Bytes are not an X.509 structure of the expected kind.
    #[error("{noun} is not well-formed X.509")]
    Malformed {
        /// What was expected.
        noun: &'static str,
    },
    /// The X.509 library refused to generate, sign or read something.
    #[error("cannot {attempt}")]
    X509 {
        /// What was attempted, verb and noun.
        attempt: &'static str,
        /// The library's reason.
        #[source]
        source: rcgen::Error,
    },
    /// A private key and a certificate do not belong together.
    #[error("private key does not belong to the {noun}")]
    KeyMismatch {
        /// Whose certificate.
        noun: &'static str,
    },
    /// A certificate request uses a key that is not ECDSA P-256.
    #[error("certificate request has a key other than ECDSA P-256")]
    KeyKind,
    /// A certificate that should be an authority's is not, or the reverse.
    #[error("certificate is not a cluster authority's")]
    NotAuthority,
    /// A certificate and the authority beside it name different clusters.
    #[error("certificate belongs to another cluster than its authority")]
    ForeignAuthority,
    /// A certificate was asked for with serial 0, or carries one of more than 16 bytes.
    #[error("certificate serial must be a number of 1 to 16 bytes, not 0")]
    Serial,
    /// A time or validity lies outside what a certificate can say (1970 to 9999, not empty).
    #[error("certificate validity is empty or outside the years 1970 to 9999")]
    Validity,
    /// A server name is neither a DNS name nor an IP address, there are too many, or the
    /// principal is no node.
    #[error("certificate cannot carry server name {name:?}")]
    ServerName {
        /// The name refused.
        name: String,
    },
    /// There was no randomness for a serial.
    #[error("cannot choose a certificate serial")]
    Entropy(#[source] EntropyError),
    /// A certificate names nobody this cluster knows how to name.
    #[error("certificate has no valid identity")]
    Principal(#[source] PrincipalError),
    /// An authority's certificate names no valid cluster.
    #[error("authority certificate names no valid cluster")]
    Cluster(#[source] NameError),
}
