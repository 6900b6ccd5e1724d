//! What the guest found out about itself before it listens to anybody.

use std::sync::Arc;

use cella_policy::{Policy, initdata::Digests};

use crate::evidence::EvidenceSource;

/// Verified initdata and what came out of it.
pub struct BootInfo {
    /// The document's very bytes: the key broker gets these.
    pub initdata_text: String,
    /// Digests of `initdata_text`.
    pub digests: Digests,
    /// The workload policy that the agent obeys.
    pub policy: Policy,
    /// Where evidence comes from.
    pub evidence: Arc<dyn EvidenceSource>,
}
