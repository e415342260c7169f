//! Tenants: who owns everything else (the origins' Project).

use crate::{Meta, Status};
use serde::{Deserialize, Serialize};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tenant {
    /// The envelope.
    pub meta: Meta,
    /// The text shown to people, at most 40 characters.
    pub display_name: String,
    /// Whether it is usable, or what its deletion waits for.
    pub status: Status,
}
