//! Bundles on disk, renewal, and which certificates name a principal.

use std::os::unix::fs::PermissionsExt;

use rcgen::{BasicConstraints, IsCa, SanType};

use super::*;
use crate::principal::PrincipalError;
use crate::testing::{DAY_MS, NOW_MS, agent, authority, bundle, issue, node, operator};

/// A self-signed certificate that says exactly this.
fn certificate(common_names: &[&str], names: Vec<SanType>, is_ca: IsCa) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for name in common_names {
        params.distinguished_name.push(DnType::CommonName, *name);
    }
    params.subject_alt_names = names;
    params.is_ca = is_ca;
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

#[test]
fn a_bundle_survives_its_folder_with_a_private_key_file() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!CertificateBundle::exists(folder.path()));
    let made = bundle(&authority("c1"), &agent("t", "h"));
    made.save(folder.path()).unwrap();
    assert!(CertificateBundle::exists(folder.path()));
    let loaded = CertificateBundle::load(folder.path()).unwrap();
    assert_eq!(loaded.identity().to_string(), "spiffe://c1/agent/t/h");
    assert_eq!(loaded.cert_pem(), made.cert_pem());
    assert_eq!(loaded.key_pem().expose(), made.key_pem().expose());
    assert_eq!(loaded.ca_pem(), made.ca_pem());
    assert_eq!(loaded.serial(), made.serial());

    let path = folder.path().join("identity.pem");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(CertificateBundle::load(folder.path()), Err(Error::FileMode { .. })));
}

#[test]
fn renewal_is_due_at_two_thirds_of_life() {
    let made = bundle(&authority("c1"), &node(1));
    assert_eq!(made.not_after_ms(), NOW_MS + 365 * DAY_MS);
    let life_ms = 365 * DAY_MS + DAY_MS / 24;
    let due_ms = made.not_after_ms() - life_ms / 3;
    assert!(!made.renew_due(NOW_MS));
    assert!(!made.renew_due(due_ms - 1));
    assert!(made.renew_due(due_ms));
    assert!(made.renew_due(u64::MAX));
}

#[test]
fn a_bundle_takes_only_parts_that_belong_together() {
    let (ours, foreign) = (authority("c1"), authority("c2"));
    let wish = CertificateRequest::generate(&operator("ann")).unwrap();
    let pem = ours.sign(wish.request_pem(), &issue(&operator("ann"))).unwrap();
    let key = wish.key_pem.clone();
    let join = |cert: &str, ca: &str| CertificateBundle::new(cert, key.clone(), ca);
    assert!(join(&pem, &ours.certificate_pem()).is_ok());
    assert!(matches!(join(&pem, &foreign.certificate_pem()), Err(Error::ForeignAuthority)));
    assert!(matches!(join(&pem, &pem), Err(Error::NotAuthority)));
    assert!(matches!(join(&pem, ""), Err(Error::Pem { .. })));
    let other = CertificateRequest::generate(&operator("ann")).unwrap();
    let refused = other.complete(&pem, &ours.certificate_pem());
    assert!(matches!(refused, Err(Error::KeyMismatch { .. })));
}

#[test]
fn debug_hides_the_key() {
    let wish = CertificateRequest::generate(&node(1)).unwrap();
    let made = bundle(&authority("c1"), &node(1));
    let printed = format!("{wish:?} {made:?}");
    assert!(printed.contains("[secret]"));
    assert!(!printed.contains("PRIVATE KEY"));
}

#[test]
fn a_certificate_of_exact_shape_names_its_principal() {
    let read = |name, names| Identity::from_certificate(&certificate(&[name], names, IsCa::NoCa));
    let found = read("system:node:7", vec![dns("localhost"), uri("spiffe://c1/node/7")]).unwrap();
    assert_eq!(found.principal, node(7));
    let found = read("operator:ann", vec![uri("spiffe://c1/operator/ann")]).unwrap();
    assert_eq!(found.principal, operator("ann"));
}

#[test]
fn any_other_shape_names_nobody() {
    let node = || uri("spiffe://c1/node/7");
    let mail = SanType::Rfc822Name("a@b.example".try_into().unwrap());
    let cases = [
        (vec!["system:node:7"], vec![], PrincipalError::UriCount),
        (vec!["system:node:7"], vec![dns("spiffe")], PrincipalError::UriCount),
        (vec!["system:node:7"], vec![node(), node()], PrincipalError::UriCount),
        (vec!["system:node:7"], vec![node(), uri("https://x")], PrincipalError::UriCount),
        (vec!["system:node:7"], vec![node(), mail], PrincipalError::UriCount),
        (vec!["system:node:7"], vec![uri("spiffe://c1/nodes/7")], PrincipalError::Shape),
        (vec!["system:node:7"], vec![uri("spiffe://c1/node/07")], PrincipalError::NodeId),
        (vec!["system:node:8"], vec![node()], PrincipalError::CommonName),
        (vec!["system:node:70"], vec![node()], PrincipalError::CommonName),
        (vec![], vec![node()], PrincipalError::CommonName),
        (
            vec!["operator:ann"],
            vec![uri("spiffe://c1/operator/ann"), dns("localhost")],
            PrincipalError::UriCount,
        ),
    ];
    for (common_names, names, expected) in cases {
        let der = certificate(&common_names, names.clone(), IsCa::NoCa);
        assert_eq!(Identity::from_certificate(&der), Err(expected), "{common_names:?} {names:?}");
    }
    let der =
        certificate(&["system:node:7"], vec![node()], IsCa::Ca(BasicConstraints::Constrained(0)));
    assert_eq!(Identity::from_certificate(&der), Err(PrincipalError::Authority));
}

#[test]
fn bytes_that_are_no_certificate_are_refused_without_a_panic() {
    let good = certificate(&["operator:ann"], vec![uri("spiffe://c1/operator/ann")], IsCa::NoCa);
    assert!(Identity::from_certificate(&good).is_ok());
    let longer = [good.as_slice(), &[0]].concat();
    assert_eq!(Identity::from_certificate(&longer), Err(PrincipalError::Malformed));
    for length in 0..good.len() {
        let refused = Identity::from_certificate(&good[..length]);
        assert_eq!(refused, Err(PrincipalError::Malformed), "first {length} bytes");
    }
    for position in 0..good.len() {
        for bit in [1, 0x80] {
            let mut broken = good.clone();
            broken[position] ^= bit;
            let _either_way = (Identity::from_certificate(&broken), Facts::read(&broken));
        }
    }
}
