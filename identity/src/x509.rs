//! Reading and writing X.509: PEM blocks, who a certificate names, its serial and its dates.
//!
//! Nothing here decides trust: signatures and chains are webpki's business, inside `verifier`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject, SectionKind};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::error::{Error, PEM_BYTES_MAX};
use crate::name::{Name, NameError};
use crate::principal::{CallerKind, Identity, PrincipalError, authority_cluster};
use crate::token::sha256;

/// What a certificate says about itself, before anybody has checked its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) serial: u128,
    pub(crate) not_before_ms: u64,
    pub(crate) not_after_ms: u64,
    pub(crate) key_sha256: [u8; 32],
}

impl Facts {
    pub(crate) fn read(der: &[u8]) -> Result<Self, Error> {
        let certificate = parse(der).ok_or(Error::Malformed { noun: "certificate" })?;
        let outside = Error::Validity;
        let milliseconds = |seconds: i64| u64::try_from(seconds).ok()?.checked_mul(1_000);
        let validity = certificate.validity();
        let (before, after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let (Some(not_before_ms), Some(not_after_ms)) = (milliseconds(before), milliseconds(after))
        else {
            return Err(outside);
        };
        let serial = certificate.raw_serial().iter().try_fold(0u128, |serial, byte| {
            serial.checked_mul(256).map(|shifted| shifted | u128::from(*byte))
        });
        let key_sha256 = sha256(&certificate.public_key().subject_public_key.data);
        Ok(Self { serial: serial.ok_or(Error::Serial)?, not_before_ms, not_after_ms, key_sha256 })
    }
}

impl Identity {
    /// Who a certificate (DER) names, by exact shape: no authority, exactly one URI, of a known
    /// form, and a common name that agrees with it; only a node's may name addresses too. Says
    /// nothing about whether the certificate is to be trusted.
    pub fn from_certificate(der: &[u8]) -> Result<Self, PrincipalError> {
        let certificate = parse(der).ok_or(PrincipalError::Malformed)?;
        if certificate.is_ca() {
            return Err(PrincipalError::Authority);
        }
        let (uri, others) = only_uri(&certificate).ok_or(PrincipalError::UriCount)?;
        let identity: Self = uri.parse()?;
        if others && identity.principal.kind() != CallerKind::Node {
            return Err(PrincipalError::UriCount);
        }
        let mut names = certificate.subject().iter_common_name();
        match (names.next().and_then(|name| name.as_str().ok()), names.next()) {
            (Some(name), None) if name == identity.principal.to_string() => Ok(identity),
            _ => Err(PrincipalError::CommonName),
        }
    }
}

/// The cluster whose authority this certificate (DER) is.
pub(crate) fn cluster_of_authority(der: &[u8]) -> Result<Name, Error> {
    let certificate = parse(der).ok_or(Error::Malformed { noun: "authority certificate" })?;
    if !certificate.is_ca() {
        return Err(Error::NotAuthority);
    }
    match only_uri(&certificate) {
        Some((uri, false)) => authority_cluster(uri).map_err(Error::Cluster),
        _ => Err(Error::Cluster(NameError)),
    }
}

/// SHA-256 of the public key (its bare point) in a certificate (PEM): the same for every certificate
/// of that key.
///
/// # Errors
/// When the text is not exactly one certificate, or its dates or number are out of range.
pub fn key_sha256(cert_pem: &str) -> Result<[u8; 32], Error> {
    Ok(Facts::read(&certificate_from_pem(cert_pem, "certificate")?)?.key_sha256)
}

/// The DER of a text that is exactly one certificate.
pub(crate) fn certificate_from_pem(
    pem: &str,
    noun: &'static str,
) -> Result<CertificateDer<'static>, Error> {
    only_block(pem, SectionKind::Certificate, noun).map(CertificateDer::from)
}

/// The DER of a text that is exactly one PEM block of a kind, of bounded length.
pub(crate) fn only_block(
    pem: &str,
    kind: SectionKind,
    noun: &'static str,
) -> Result<Vec<u8>, Error> {
    if pem.len() > PEM_BYTES_MAX {
        return Err(Error::TooLong { noun, bytes_max: PEM_BYTES_MAX });
    }
    let mut blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes());
    match (blocks.next(), blocks.next()) {
        (Some(Ok((found, der))), None) if found == kind => Ok(der),
        _ => Err(Error::Pem { noun }),
    }
}

/// A certificate as PEM text, lines of 64 characters.
pub(crate) fn certificate_to_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (position, character) in text.char_indices() {
        if position > 0 && position % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

/// The ECDSA P-256 key of a text that is exactly one PKCS#8 block, if it is the certificate's.
pub(crate) fn key_from_pem(
    pem: &str,
    certificate: &[u8],
    noun: &'static str,
) -> Result<KeyPair, Error> {
    let der = only_block(pem, SectionKind::PrivateKey, "private key")?;
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der.into(), &PKCS_ECDSA_P256_SHA256)
        .map_err(|source| Error::X509 { attempt: "read private key", source })?;
    let certificate = parse(certificate).ok_or(Error::Malformed { noun })?;
    let certified = &certificate.public_key().subject_public_key.data;
    if certified.as_ref() == key.public_key_raw() {
        Ok(key)
    } else {
        Err(Error::KeyMismatch { noun })
    }
}

/// A certificate, if the bytes are one and nothing follows it.
fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    }
}

/// The one URI among the alternative names, and whether there are other names beside it; `None`
/// if there is not exactly one, or a name of a kind we never issue.
fn only_uri<'a>(certificate: &'a X509Certificate<'a>) -> Option<(&'a str, bool)> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut uri = None;
    let mut others = false;
    for name in names {
        match name {
            GeneralName::URI(text) if uri.is_none() => uri = Some(*text),
            GeneralName::DNSName(_) | GeneralName::IPAddress(_) => others = true,
            _ => return None,
        }
    }
    uri.map(|uri| (uri, others))
}
