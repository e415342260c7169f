//! The cluster's certificate authority: made by the first node, held by every voter.
//!
//! Its certificate names the cluster (`spiffe://<cluster>`) and is public; its SHA-256 is what join
//! tokens bind. Its key never enters the log, a snapshot or a backup: it is a file of mode 0600,
//! and travels only over the peer port, to a node that joins. Who gets which certificate is decided
//! by the caller: of a request only the public key is believed.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::pem::SectionKind;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::entropy::Entropy;
use crate::error::Error;
use crate::file::{self, Access};
use crate::name::Name;
use crate::principal::{CallerKind, Identity, Principal, authority_uri};
use crate::secret::Secret;
use crate::tls::Trust;
use crate::token::sha256;
use crate::x509::{self, Facts};

const CERTIFICATE_FILE: &str = "authority.pem";
const KEY_FILE: &str = "authority.key";
/// An uncompressed P-256 point.
const PUBLIC_KEY_BYTES: usize = 65;
/// The last millisecond X.509 can express (end of the year 9999).
const TIME_MS_MAX: u64 = 253_402_300_799_000;
/// DNS names and addresses one certificate may carry.
const SERVER_NAMES_MAX: usize = 32;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// How long certificates live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Life of the authority's own certificate, in milliseconds. Default: 10 years of 365 days.
    pub authority_validity_ms: u64,
    /// Life of the certificates it signs, in milliseconds, cut at the authority's own end.
    /// Default: 365 days.
    pub certificate_validity_ms: u64,
    /// How far before "now" a certificate begins, so that a host whose clock is slow accepts it,
    /// in milliseconds. Default: 1 hour.
    pub backdate_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            authority_validity_ms: 3_650 * DAY_MS,
            certificate_validity_ms: 365 * DAY_MS,
            backdate_ms: DAY_MS / 24,
        }
    }
}

/// What a certificate shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Whom it names.
    pub principal: Principal,
    /// Its number, not 0 and never used twice by this cluster: see `random_serial`.
    pub serial: u128,
    /// The time it is signed, unix milliseconds.
    pub now_ms: u64,
    /// DNS names and IP addresses for programs that check those (curl, browsers); for nodes only,
    /// at most 32. Our own clients go by the identity and ignore them.
    pub server_names: Vec<String>,
}

/// A cluster's certificate authority, key included. `Debug` hides the key.
pub struct Authority {
    cluster: Name,
    certificate: CertificateDer<'static>,
    not_after_ms: u64,
    issuer: Issuer<'static, KeyPair>,
    config: Config,
}

impl Authority {
    /// A new authority (ECDSA P-256) for a cluster. `now_ms` is unix milliseconds, the dice make
    /// its serial.
    pub fn generate(
        cluster: Name,
        now_ms: u64,
        entropy: &dyn Entropy,
        config: Config,
    ) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| Error::X509 { attempt: "generate authority key", source })?;
        let serial = crate::entropy::random_serial(entropy).map_err(Error::Entropy)?;
        let mut params = parameters(format!("muster authority {cluster}"), serial)?;
        let not_after_ms = now_ms.checked_add(config.authority_validity_ms);
        let not_after_ms = not_after_ms.ok_or(Error::Validity)?;
        set_validity(&mut params, now_ms.saturating_sub(config.backdate_ms), not_after_ms)?;
        params.subject_alt_names = vec![SanType::URI(ia5(authority_uri(&cluster))?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params
            .self_signed(&key)
            .map_err(|source| Error::X509 { attempt: "sign authority certificate", source })?;
        Self::new(certificate.der().clone(), key, config)
    }

    /// An authority from another voter: the certificate and `export_key` of the sender (PEM).
    pub fn import(
        certificate_pem: &str,
        key_pem: &Secret<String>,
        config: Config,
    ) -> Result<Self, Error> {
        let certificate = x509::certificate_from_pem(certificate_pem, "authority certificate")?;
        let key = x509::key_from_pem(key_pem.expose(), &certificate, "authority certificate")?;
        Self::new(certificate, key, config)
    }

    /// The private key (PKCS#8 PEM), for a node that joins, over the peer port and nowhere else.
    pub fn export_key(&self) -> Secret<String> {
        Secret::new(self.issuer.key().serialize_pem())
    }

    /// Whether `save` has completed in this folder.
    pub fn exists(folder: &Path) -> bool {
        folder.join(KEY_FILE).exists()
    }

    /// Writes `authority.pem` (0644), then `authority.key` (0600), both durable on return.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        file::write(&folder.join(CERTIFICATE_FILE), &self.certificate_pem(), Access::Public)?;
        file::write(&folder.join(KEY_FILE), self.export_key().expose(), Access::Private)
    }

    /// Reads what `save` wrote; refuses a key file that others may read.
    pub fn load(folder: &Path, config: Config) -> Result<Self, Error> {
        let certificate = file::read(&folder.join(CERTIFICATE_FILE), Access::Public)?;
        let key = Secret::new(file::read(&folder.join(KEY_FILE), Access::Private)?);
        Self::import(&certificate, &key, config)
    }

    /// The cluster's id.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The public certificate as PEM: what `/cacerts` serves and every bundle holds.
    pub fn certificate_pem(&self) -> String {
        x509::certificate_to_pem(&self.certificate)
    }

    /// SHA-256 of the certificate (DER): what join tokens carry.
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.certificate)
    }

    /// The public half: what a client needs to recognise this cluster's nodes.
    pub fn trust(&self) -> Trust {
        Trust::new(self.cluster.clone(), self.certificate.clone())
    }

    /// Signs a certificate (PEM) for the public key of a request (PEM). The request's signature is
    /// checked and its key must be ECDSA P-256; everything else it asks for is ignored.
    pub fn sign(&self, request_pem: &str, issue: &Issue) -> Result<String, Error> {
        const NOUN: &str = "certificate request";
        let der: CertificateSigningRequestDer<'_> =
            x509::only_block(request_pem, SectionKind::Csr, NOUN)?.into();
        let request = CertificateSigningRequestParams::from_der(&der)
            .map_err(|source| Error::X509 { attempt: "read certificate request", source })?;
        let key = &request.public_key;
        if *key.algorithm() != PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != PUBLIC_KEY_BYTES {
            return Err(Error::KeyKind);
        }
        let certificate = self
            .leaf(issue)?
            .signed_by(key, &self.issuer)
            .map_err(|source| Error::X509 { attempt: "sign certificate", source })?;
        Ok(x509::certificate_to_pem(certificate.der()))
    }

    fn leaf(&self, issue: &Issue) -> Result<CertificateParams, Error> {
        let identity =
            Identity { cluster: self.cluster.clone(), principal: issue.principal.clone() };
        let mut params = parameters(issue.principal.to_string(), issue.serial)?;
        let wanted = issue.now_ms.checked_add(self.config.certificate_validity_ms);
        let not_after_ms = wanted.ok_or(Error::Validity)?.min(self.not_after_ms);
        if not_after_ms <= issue.now_ms {
            return Err(Error::Validity);
        }
        let not_before_ms = issue.now_ms.saturating_sub(self.config.backdate_ms);
        set_validity(&mut params, not_before_ms, not_after_ms)?;
        params.subject_alt_names = vec![SanType::URI(ia5(identity.to_string())?)];
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if issue.principal.kind() == CallerKind::Node {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        for (position, name) in issue.server_names.iter().enumerate() {
            let refused = || Error::ServerName { name: name.clone() };
            let node = issue.principal.kind() == CallerKind::Node;
            if !node || position >= SERVER_NAMES_MAX {
                return Err(refused());
            }
            params.subject_alt_names.push(server_name(name).ok_or_else(refused)?);
        }
        Ok(params)
    }

    fn new(
        certificate: CertificateDer<'static>,
        key: KeyPair,
        config: Config,
    ) -> Result<Self, Error> {
        let cluster = x509::cluster_of_authority(&certificate)?;
        let not_after_ms = Facts::read(&certificate)?.not_after_ms;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|source| Error::X509 { attempt: "read authority certificate", source })?;
        Ok(Self { cluster, certificate, not_after_ms, issuer, config })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .field("sha256", &hex::encode(self.sha256()))
            .finish_non_exhaustive()
    }
}

fn parameters(common_name: String, serial: u128) -> Result<CertificateParams, Error> {
    if serial == 0 {
        return Err(Error::Serial);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let bytes = serial.to_be_bytes();
    let leading = bytes.iter().take_while(|byte| **byte == 0).count();
    params.serial_number = Some(SerialNumber::from_slice(&bytes[leading..]));
    Ok(params)
}

fn set_validity(
    params: &mut CertificateParams,
    not_before_ms: u64,
    not_after_ms: u64,
) -> Result<(), Error> {
    if not_before_ms >= not_after_ms || not_after_ms > TIME_MS_MAX {
        return Err(Error::Validity);
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_millis(not_before_ms);
    params.not_after = epoch + Duration::from_millis(not_after_ms);
    Ok(())
}

fn ia5(text: String) -> Result<rcgen::string::Ia5String, Error> {
    text.try_into().map_err(|source| Error::X509 { attempt: "write identity", source })
}

/// An IP address, or a DNS name as rustls understands it (no wildcards).
fn server_name(text: &str) -> Option<SanType> {
    if let Ok(address) = text.parse() {
        return Some(SanType::IpAddress(address));
    }
    rustls::pki_types::DnsName::try_from(text).ok()?;
    text.try_into().ok().map(SanType::DnsName)
}

#[cfg(test)]
mod tests;
