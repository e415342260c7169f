//! A wire that takes note when a peer says that this node was removed from the cluster.
//!
//! A node that was away when it was removed does not learn it from the log, since nobody sends it any
//! more. But whoever it calls says so.

use crate::{Method, Target, Transport, TransportError};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::{sync::watch, time::Instant};

/// The wire below, and where the word is kept.
pub(crate) struct Attentive {
    pub(crate) wire: Arc<dyn Transport>,
    pub(crate) removed: watch::Sender<bool>,
}

impl Transport for Attentive {
    fn call(
        &self,
        to: &Target,
        method: Method,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let removed = self.removed.clone();
        let call = self.wire.call(to, method, body, deadline);
        Box::pin(async move {
            let answer = call.await;
            if let Err(TransportError::Removed { .. }) = &answer {
                removed.send_replace(true);
            }
            answer
        })
    }
}
