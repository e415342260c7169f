//! `Debug` of the messages that carry a secret: it says what they are, never what they hold.

use crate::v1;
use std::fmt;

impl fmt::Debug for v1::JoinResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinResponse")
            .field("cluster_id", &self.cluster_id)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::CreateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateTokenResponse")
            .field("resource", &self.resource)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .field("server_names", &self.server_names)
            .finish_non_exhaustive()
    }
}

/// Commands pass through peers' payloads, and a payload's bytes help nobody in a log.
impl fmt::Debug for v1::PeerPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPayload").field("bytes", &self.payload.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_out_of_debug_texts() {
        let join = v1::JoinResponse { ca_key_pem: "hush".into(), ..Default::default() };
        let token = v1::CreateTokenResponse { token: "hush".into(), ..Default::default() };
        let enrol = v1::EnrolRequest { token: "hush".into(), ..Default::default() };
        let payload = v1::PeerPayload { payload: "hush".into() };
        let text = format!("{join:?} {token:?} {enrol:?} {payload:?}");
        assert!(!text.contains("hush"), "{text}");
        assert!(!text.contains("104, 117"), "{text}");
    }
}
