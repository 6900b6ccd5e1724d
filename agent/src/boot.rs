//! What the guest finds out about itself before it listens to anybody.
//!
//! Verify before parse: disk bytes are inflated under bounds, digested, compared with what the processor says that the
//! guest was launched with (HOST_DATA, MRCONFIGID), and only then read as a document and a policy. Any mismatch ends the guest; a policy whose models do not fit
//! into memory leaves it up, to say so.

mod error;

use std::{fs, path::Path, sync::Arc};

use cella_attest::{Bound, Tee};
use cella_http::TrustedTime;
use cella_policy::{
    Policy,
    initdata::{self, Digests},
};
use cella_record::RecordKey;

pub use error::BootError;

use crate::{
    cmdline, entropy,
    evidence::{self, EvidenceSource},
    initdata as disk,
};

/// Verified initdata and what came out of it.
pub struct BootInfo {
    /// The document's very bytes: the key broker gets these.
    pub initdata_text: String,
    /// Digests of `initdata_text`.
    pub digests: Digests,
    /// The workload policy that the agent obeys.
    pub policy: Policy,
    /// What protects the guest.
    pub tee: Tee,
    /// Where evidence comes from.
    pub evidence: Arc<dyn EvidenceSource>,
    /// The time, once the key broker has stated it. The machine's own clock is the host's and decides nothing.
    pub time: TrustedTime,
    /// Signs the record of this boot; evidence vouches for it.
    pub record_key: RecordKey,
}

/// Checks command line and entropy, finds initdata and verifies it. Blocks while the platform makes a report.
pub fn find_out() -> Result<BootInfo, BootError> {
    let line = fs::read_to_string("/proc/cmdline").map_err(|source| BootError::Kernel {
        what: "the kernel command line",
        source,
    })?;
    cmdline::check(&line)?;
    entropy::check(Path::new("/proc"), Path::new("/dev"))?;
    let device = disk::read(Path::new("/sys"), Path::new("/dev"))?;
    let info = verify(&device, evidence::source())?;
    let meminfo = fs::read_to_string("/proc/meminfo").map_err(|source| BootError::Kernel {
        what: "the size of memory",
        source,
    })?;
    check_memory(&info.policy, &meminfo)?;
    Ok(info)
}

/// From the disk's bytes to a policy that the hardware vouches for.
pub fn verify(device: &[u8], evidence: Arc<dyn EvidenceSource>) -> Result<BootInfo, BootError> {
    let document = initdata::inflate_device(device)?;
    let digests = initdata::digests(&document);
    let launched = evidence.launched()?;
    let matching = match &launched.bound {
        Bound::HostData(host_data) => digests.matches_host_data(host_data),
        Bound::MrConfigId(mr_config_id) => digests.matches_mr_config_id(mr_config_id),
    };
    let bound = matching.ok_or(BootError::NotBound {
        sha256: digests.sha256,
        launched: launched.bound,
    })?;
    let policy = initdata::parse(&document, bound)?.policy;
    let initdata_text = String::from_utf8(document).map_err(|_| BootError::NotText)?;
    Ok(BootInfo {
        initdata_text,
        digests,
        policy,
        tee: launched.tee(),
        evidence,
        time: TrustedTime::unknown(),
        record_key: RecordKey::generate()?,
    })
}

/// Refuses a policy whose models cannot fit, before anything is fetched.
fn check_memory(policy: &Policy, meminfo: &str) -> Result<(), BootError> {
    let total = total_memory(meminfo).ok_or(BootError::MemoryUnknown)?;
    let output = policy.output().map_or(0, |output| output.max_bytes);
    let models = policy.model_bytes().saturating_add(output);
    if models.saturating_add(RESERVE) <= total {
        return Ok(());
    }
    let outputs = policy.output().map(|output| output.name.as_str());
    let names: Vec<&str> = policy
        .sealed()
        .map(|sealed| sealed.name.as_str())
        .chain(outputs)
        .collect();
    Err(BootError::ModelsTooLarge {
        names: names.join(", "),
        models,
        reserve: RESERVE,
        total,
    })
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
pub fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// What must be left besides the models: the agent, an image of the smallest kind, the server's own working memory.
pub const RESERVE: u64 = 96 << 20;

#[cfg(test)]
mod tests;
