//! The control nodes an agent knows, and how it gets to them.
//!
//! Any of them will do for anything. The list begins with what the agent was started with, grows by what
//! each session tells, and is kept on disk by whoever runs the agent.

use std::sync::{Arc, Mutex, PoisonError};

use api::Fabric;
use api::fabric::{AddressError, Calls, WireConfig};
use identity::{CertificateBundle, Principal, TimeSource, TlsError};

type Dial = dyn Fn(&str) -> Result<Calls, AddressError> + Send + Sync;

/// The control nodes known, and the way to them. Shared by the session and by downloads.
pub struct Servers {
    known: Mutex<Vec<String>>,
    dial: Box<Dial>,
    known_max: usize,
}

impl Servers {
    /// Control nodes at these addresses, dialled over `fabric` with the agent's own certificate. Only
    /// nodes of its cluster are taken for what they say they are. At most `known_max` are kept.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn new<F: Fabric>(
        fabric: F,
        bundle: &CertificateBundle,
        (time, wire): (Arc<dyn TimeSource>, WireConfig),
        (addresses, known_max): (Vec<String>, usize),
    ) -> Result<Self, TlsError> {
        let tls = identity::client_config(bundle.trust(), Some(bundle), time)?;
        let dial = move |addr: &str| {
            let tls = tls.clone();
            let wrap = move |io: F::Io| {
                let connecting = identity::connect(io, tls.clone());
                Box::pin(async move {
                    let (stream, peer) = connecting.await.map_err(std::io::Error::other)?;
                    match peer.principal {
                        Principal::Node { .. } => Ok(stream),
                        other => Err(std::io::Error::other(format!("{other} answered instead"))),
                    }
                }) as api::BoxFuture<'static, _>
            };
            api::fabric::channel(&fabric, addr, wrap, wire).map(api::fabric::calls)
        };
        Ok(Self::over(dial, (addresses, known_max)))
    }

    /// Control nodes at these addresses, called by whatever `dial` makes of an address. At most
    /// `known_max` are kept.
    pub fn over(
        dial: impl Fn(&str) -> Result<Calls, AddressError> + Send + Sync + 'static,
        (addresses, known_max): (Vec<String>, usize),
    ) -> Self {
        let servers = Self { known: Mutex::default(), dial: Box::new(dial), known_max };
        servers.learn(addresses);
        servers
    }

    /// All addresses known, those learned last first.
    pub fn known(&self) -> Vec<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts addresses in front of those known; true if that changed which are known.
    pub fn learn(&self, addresses: Vec<String>) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<String> = Vec::new();
        for addr in addresses.into_iter().chain(known.iter().cloned()) {
            if !addr.is_empty() && !all.contains(&addr) && all.len() < self.known_max {
                all.push(addr);
            }
        }
        let changed = all.iter().any(|addr| !known.contains(addr)) || all.len() != known.len();
        *known = all;
        changed
    }

    /// The way to a control node; it connects when first used.
    ///
    /// # Errors
    /// When the address is none.
    pub fn calls(&self, addr: &str) -> Result<Calls, AddressError> {
        (self.dial)(addr)
    }
}
