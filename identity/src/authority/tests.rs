//! What the authority signs, what it refuses, and that its key stays private.

use std::os::unix::fs::PermissionsExt;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::*;
use crate::certificate::{CertificateBundle, CertificateRequest};
use crate::entropy::SystemEntropy;
use crate::error::PEM_BYTES_MAX;
use crate::testing::{DAY_MS, NOW_MS, agent, authority, issue, name, node, operator};

fn generate(now_ms: u64, config: Config) -> Result<Authority, Error> {
    Authority::generate(name("c"), now_ms, &SystemEntropy::new(), config)
}

fn request(params: &CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn an_authority_survives_its_folder_with_a_private_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let made = authority("c1");
    assert!(!Authority::exists(folder.path()));
    made.save(folder.path()).unwrap();
    assert!(Authority::exists(folder.path()));
    let mode = |file: &str| {
        std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("authority.key"), mode("authority.pem")), (0o600, 0o644));

    let loaded = Authority::load(folder.path(), Config::default()).unwrap();
    assert_eq!(loaded.cluster(), made.cluster());
    assert_eq!(loaded.sha256(), made.sha256());
    assert_eq!(loaded.trust(), made.trust());
    assert_eq!(loaded.export_key().expose(), made.export_key().expose());

    let loose = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(folder.path().join("authority.key"), loose).unwrap();
    let refused = Authority::load(folder.path(), Config::default()).unwrap_err();
    assert!(matches!(refused, Error::FileMode { mode: 0o640, .. }));
}

#[test]
fn a_key_is_imported_only_with_its_own_certificate() {
    let (one, two) = (authority("c1"), authority("c1"));
    let import = |certificate: &str, key| Authority::import(certificate, &key, Config::default());
    assert!(import(&one.certificate_pem(), one.export_key()).is_ok());
    let refused = import(&one.certificate_pem(), two.export_key()).unwrap_err();
    assert!(matches!(refused, Error::KeyMismatch { .. }));

    let request = CertificateRequest::generate(&node(1)).unwrap();
    let leaf = one.sign(request.request_pem(), &issue(&node(1))).unwrap();
    let bundle = request.complete(&leaf, &one.certificate_pem()).unwrap();
    let refused = import(&leaf, bundle.key_pem().clone()).unwrap_err();
    assert!(matches!(refused, Error::NotAuthority));
    assert!(CertificateBundle::new(&leaf, one.export_key(), &leaf).is_err());
}

#[test]
fn debug_hides_the_key() {
    let made = authority("c1");
    let printed = format!("{made:?}");
    assert!(printed.contains("c1"));
    assert!(!printed.contains("PRIVATE"));
    assert_eq!(format!("{:?}", made.export_key()), "[secret]");
}

#[test]
fn the_pem_we_write_is_the_pem_the_library_writes() {
    let made = authority("c1");
    let der = x509::certificate_from_pem(&made.certificate_pem(), "certificate").unwrap();
    assert_eq!(der, made.certificate);
    assert!(made.certificate_pem().lines().all(|line| line.len() <= 64));
    assert_eq!(x509::certificate_to_pem(&[0; 48]).lines().count(), 3, "no empty last line");
}

#[test]
fn a_certificate_names_whom_the_issuer_says_not_whom_the_request_says() {
    let key = KeyPair::generate().unwrap();
    let mut wish = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    wish.subject_alt_names.push(SanType::URI("spiffe://c1/node/1".try_into().unwrap()));
    wish.distinguished_name.push(DnType::CommonName, "system:node:1");
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let pem = authority("c1").sign(&request(&wish, &key), &issue(&agent("t", "h"))).unwrap();

    let der = x509::certificate_from_pem(&pem, "certificate").unwrap();
    let identity = Identity::from_certificate(&der).unwrap();
    assert_eq!(identity.principal, agent("t", "h"));
    assert_eq!(identity.to_string(), "spiffe://c1/agent/t/h");
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    assert!(!parsed.is_ca());
    assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
}

#[test]
fn only_sound_requests_with_p256_keys_are_signed() {
    let made = authority("c1");
    let sign = |request: &str| made.sign(request, &issue(&operator("ann")));
    let params = CertificateParams::default();
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert!(matches!(sign(&request(&params, &key)), Err(Error::KeyKind)));
    }
    let good = request(&params, &KeyPair::generate().unwrap());
    assert!(sign(&good).is_ok());
    assert!(matches!(sign(&format!("{good}{good}")), Err(Error::Pem { .. })));
    assert!(matches!(sign(&made.certificate_pem()), Err(Error::Pem { .. })));
    assert!(matches!(sign(""), Err(Error::Pem { .. })));
    let long = format!("{good}{}", "\n".repeat(PEM_BYTES_MAX));
    assert!(matches!(sign(&long), Err(Error::TooLong { .. })));
}

/// What is signed must be intact; a change elsewhere is refused too, or certifies the same key.
#[test]
fn a_request_with_one_byte_turned_over_never_certifies_another_key() {
    let made = authority("c1");
    let good = request(&CertificateParams::default(), &KeyPair::generate().unwrap());
    let der = x509::only_block(&good, SectionKind::Csr, "request").unwrap();
    let (_, parsed) = X509CertificationRequest::from_der(&der).unwrap();
    let signed = parsed.certification_request_info.raw;
    let start = der.windows(signed.len()).position(|window| window == signed).unwrap();
    let key = parsed.certification_request_info.subject_pki.raw;
    for position in 0..der.len() {
        let mut broken = der.clone();
        broken[position] ^= 1;
        let pem = x509::certificate_to_pem(&broken).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        let Ok(leaf) = made.sign(&pem, &issue(&operator("ann"))) else { continue };
        assert!(!(start..start + signed.len()).contains(&position), "byte {position}");
        let leaf = x509::certificate_from_pem(&leaf, "leaf").unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        assert_eq!(leaf.public_key().raw, key, "byte {position}");
    }
}

#[test]
fn serials_and_dates_are_as_asked() {
    let made = authority("c1");
    let wish = CertificateRequest::generate(&node(1)).unwrap();
    for serial in [1, 0x7f, 0x80, 0x1_0000, u128::MAX] {
        let pem = made.sign(wish.request_pem(), &Issue { serial, ..issue(&node(1)) }).unwrap();
        let facts = Facts::read(&x509::certificate_from_pem(&pem, "leaf").unwrap()).unwrap();
        assert_eq!(facts.serial, serial);
        assert_eq!(facts.not_before_ms, NOW_MS - DAY_MS / 24);
        assert_eq!(facts.not_after_ms, NOW_MS + 365 * DAY_MS);
    }
    let refused = made.sign(wish.request_pem(), &Issue { serial: 0, ..issue(&node(1)) });
    assert!(matches!(refused, Err(Error::Serial)));
}

#[test]
fn no_certificate_outlives_the_authority_or_the_calendar() {
    let made = authority("c1");
    let wish = CertificateRequest::generate(&node(1)).unwrap();
    let end = NOW_MS + 3_650 * DAY_MS;
    let late = Issue { now_ms: end - DAY_MS, ..issue(&node(1)) };
    let pem = made.sign(wish.request_pem(), &late).unwrap();
    let facts = Facts::read(&x509::certificate_from_pem(&pem, "leaf").unwrap()).unwrap();
    assert_eq!(facts.not_after_ms, end);
    for now_ms in [end, end + 1, u64::MAX] {
        let refused = made.sign(wish.request_pem(), &Issue { now_ms, ..issue(&node(1)) });
        assert!(matches!(refused, Err(Error::Validity)), "{now_ms}");
    }
    for now_ms in [TIME_MS_MAX, u64::MAX] {
        assert!(matches!(generate(now_ms, Config::default()), Err(Error::Validity)));
    }
    let empty = Config { authority_validity_ms: 0, backdate_ms: 0, ..Config::default() };
    assert!(matches!(generate(NOW_MS, empty), Err(Error::Validity)));
    assert!(generate(0, Config::default()).is_ok(), "a simulated clock may start at 0");
}

#[test]
fn only_nodes_carry_server_names() {
    let made = authority("c1");
    let wish = CertificateRequest::generate(&node(1)).unwrap();
    let sign = |principal: &Principal, names: &[&str]| {
        let server_names = names.iter().map(|name| (*name).to_owned()).collect();
        made.sign(wish.request_pem(), &Issue { server_names, ..issue(principal) })
    };
    let pem = sign(&node(1), &["localhost", "127.0.0.1", "::1", "n1.example"]).unwrap();
    let der = x509::certificate_from_pem(&pem, "leaf").unwrap();
    assert_eq!(Identity::from_certificate(&der).unwrap().principal, node(1));
    for bad in ["", "a b", "*.example", "http://x", "ä.example", "spiffe://c1/node/2", "a\0b"] {
        assert!(matches!(sign(&node(1), &[bad]), Err(Error::ServerName { .. })), "{bad:?}");
    }
    assert!(matches!(sign(&node(1), &["a"; 33]), Err(Error::ServerName { .. })));
    for principal in [agent("t", "h"), operator("ann")] {
        assert!(matches!(sign(&principal, &["localhost"]), Err(Error::ServerName { .. })));
    }
}
