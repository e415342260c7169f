//! Authorities and bundles for the tests of this room, all made at one fixed time.

use crate::authority::{Authority, Config, Issue};
use crate::certificate::{CertificateBundle, CertificateRequest};
use crate::entropy::{SystemEntropy, random_serial};
use crate::name::Name;
use crate::principal::Principal;

/// 2026-01-01, when every test authority is made.
pub(crate) const NOW_MS: u64 = 1_767_225_600_000;
pub(crate) const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn node(id: u64) -> Principal {
    Principal::Node { id }
}

pub(crate) fn agent(tenant: &str, host: &str) -> Principal {
    Principal::Agent { tenant: name(tenant), host: name(host) }
}

pub(crate) fn operator(text: &str) -> Principal {
    Principal::Operator { name: name(text) }
}

pub(crate) fn authority(cluster: &str) -> Authority {
    Authority::generate(name(cluster), NOW_MS, &SystemEntropy::new(), Config::default()).unwrap()
}

pub(crate) fn issue(principal: &Principal) -> Issue {
    let serial = random_serial(&SystemEntropy::new()).unwrap();
    let principal = principal.clone();
    Issue { principal, serial, now_ms: NOW_MS, server_names: Vec::new() }
}

pub(crate) fn bundle(authority: &Authority, principal: &Principal) -> CertificateBundle {
    bundle_at(authority, principal, NOW_MS)
}

pub(crate) fn bundle_at(
    authority: &Authority,
    principal: &Principal,
    now_ms: u64,
) -> CertificateBundle {
    let request = CertificateRequest::generate(principal).unwrap();
    let issue = Issue { now_ms, ..issue(principal) };
    let certificate = authority.sign(request.request_pem(), &issue).unwrap();
    request.complete(&certificate, &authority.certificate_pem()).unwrap()
}
