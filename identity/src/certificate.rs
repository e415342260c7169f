//! A caller's own key and certificate: asking for one, keeping it, knowing when to renew it.
//!
//! The key is made where it is used and never leaves: only the request travels. Key and certificate
//! share one file, so that a renewal interrupted by a crash leaves a matching pair, old or new.

use std::fmt;
use std::path::Path;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;
use crate::file::{self, Access};
use crate::principal::{Identity, Principal};
use crate::secret::Secret;
use crate::tls::Trust;
use crate::x509::{self, Facts};

const IDENTITY_FILE: &str = "identity.pem";
const AUTHORITY_FILE: &str = "ca.pem";
const CERTIFICATE_BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// A fresh key and the request to certify it.
#[derive(Debug)]
pub struct CertificateRequest {
    key_pem: Secret<String>,
    request_pem: String,
}

impl CertificateRequest {
    /// A new ECDSA P-256 key and a request that names the principal as a hint; the authority
    /// certifies whom it decides to, not whom the request names.
    pub fn generate(principal: &Principal) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| Error::X509 { attempt: "generate private key", source })?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, principal.to_string());
        let request_pem = params
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .map_err(|source| Error::X509 { attempt: "write certificate request", source })?;
        Ok(Self { key_pem: Secret::new(key.serialize_pem()), request_pem })
    }

    /// The request as PEM, to be sent to `Authority::sign`.
    pub fn request_pem(&self) -> &str {
        &self.request_pem
    }

    /// Joins the key with the certificate signed for it and the authority's certificate (PEM).
    pub fn complete(self, cert_pem: &str, ca_pem: &str) -> Result<CertificateBundle, Error> {
        CertificateBundle::new(cert_pem, self.key_pem, ca_pem)
    }
}

/// A key, its certificate and the authority that signed it: all that a caller needs to speak TLS.
/// `Debug` hides the key.
#[derive(Clone)]
pub struct CertificateBundle {
    cert_pem: String,
    key_pem: Secret<String>,
    certificate: CertificateDer<'static>,
    identity: Identity,
    facts: Facts,
    trust: Trust,
}

impl CertificateBundle {
    /// Puts the three together (PEM, each exactly one block) if key and certificate match and
    /// certificate and authority name the same cluster. The signature is the other side's to check.
    pub fn new(cert_pem: &str, key_pem: Secret<String>, ca_pem: &str) -> Result<Self, Error> {
        let certificate = x509::certificate_from_pem(cert_pem, "certificate")?;
        x509::key_from_pem(key_pem.expose(), &certificate, "certificate")?;
        let identity = Identity::from_certificate(&certificate).map_err(Error::Principal)?;
        let trust = Trust::from_pem(ca_pem)?;
        if *trust.cluster() != identity.cluster {
            return Err(Error::ForeignAuthority);
        }
        let facts = Facts::read(&certificate)?;
        Ok(Self { cert_pem: cert_pem.to_owned(), key_pem, certificate, identity, facts, trust })
    }

    /// Writes `ca.pem` (0644), then key and certificate into `identity.pem` (0600) in one step;
    /// durable on return.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let both = Secret::new(format!("{}{}", self.key_pem.expose(), self.cert_pem));
        file::write(&folder.join(AUTHORITY_FILE), &self.ca_pem(), Access::Public)?;
        file::write(&folder.join(IDENTITY_FILE), both.expose(), Access::Private)
    }

    /// Whether `save` has completed in this folder.
    pub fn exists(folder: &Path) -> bool {
        folder.join(IDENTITY_FILE).exists()
    }

    /// Reads what `save` wrote; refuses a key that others may read.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let both = Secret::new(file::read(&folder.join(IDENTITY_FILE), Access::Private)?);
        let start = both.expose().find(CERTIFICATE_BEGIN).ok_or(Error::Pem { noun: "certificate" });
        let (key, certificate) = both.expose().split_at(start?);
        let ca_pem = file::read(&folder.join(AUTHORITY_FILE), Access::Public)?;
        Self::new(certificate, Secret::new(key.to_owned()), &ca_pem)
    }

    /// The certificate as PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key as PKCS#8 PEM.
    pub fn key_pem(&self) -> &Secret<String> {
        &self.key_pem
    }

    /// The authority's certificate as PEM.
    pub fn ca_pem(&self) -> String {
        self.trust.to_pem()
    }

    /// Whom the certificate names, and in which cluster.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The authority's public half.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The certificate's serial.
    pub fn serial(&self) -> u128 {
        self.facts.serial
    }

    /// The last moment the certificate is good for, unix milliseconds.
    pub fn not_after_ms(&self) -> u64 {
        self.facts.not_after_ms
    }

    /// Whether two thirds of the certificate's life are over. A restart with a new certificate is
    /// not needed: build new configs and use them for the connections to come.
    pub fn renew_due(&self, now_ms: u64) -> bool {
        let life_ms = self.facts.not_after_ms.saturating_sub(self.facts.not_before_ms);
        now_ms >= self.facts.not_after_ms.saturating_sub(life_ms / 3)
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        use rustls::pki_types::pem::PemObject;
        PrivateKeyDer::from_pem_slice(self.key_pem.expose().as_bytes())
            .map_err(|_pem| Error::Pem { noun: "private key" })
    }
}

impl fmt::Debug for CertificateBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateBundle")
            .field("identity", &self.identity)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
