//! When a node ends: asked by a signal, or because its ledger stopped.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at SIGTERM or SIGINT. Where signals cannot be caught it never does.
pub async fn asked_by_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be caught, only a kill ends this node");
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = terminate.recv() => tracing::info!("asked to stop by SIGTERM"),
        _ = interrupt.recv() => tracing::info!("asked to stop by SIGINT"),
    }
}
