//! The size of VMs: ranges, and how far a pod may change it.

use super::file::ConfigFile;
use super::host::HostFacts;
use super::{ConfigError, in_range};

/// Largest guest, in MiB: 16 TiB.
const MAX_MEMORY_MIB: u32 = 16 * 1024 * 1024;
/// Most virtual CPUs.
const MAX_VCPUS: u32 = 64;

/// How the VM's size follows the pod's resources; see [`crate::vm::sizing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// Added to the pod's memory limit.
    pub memory_overhead_mib: u32,
    /// Largest VM.
    pub max_memory_mib: u32,
    /// Most virtual CPUs; none where `vcpus` is fixed.
    pub max_vcpus: Option<u32>,
}

impl Sizing {
    /// A VM of the configured size is always allowed; one that a pod asks for must fit into this host where no bound is named.
    pub(super) fn settle(file: &ConfigFile, host: &HostFacts) -> Result<Self, ConfigError> {
        in_range("vcpus", file.vcpus, 1, MAX_VCPUS, "1 to 64")?;
        in_range("memory-mib", file.memory_mib, 128, MAX_MEMORY_MIB, "128 to 16777216")?;
        in_range("memory-overhead-mib", file.memory_overhead_mib, 0, 65536, "0 to 65536")?;
        let (least, most) = (file.memory_mib, MAX_MEMORY_MIB);
        let max_memory_mib = match (file.max_memory_mib, host.memory_mib) {
            (Some(max), _) => {
                in_range("max-memory-mib", max, least, most, "memory-mib to 16777216")?;
                max
            }
            (None, 0) => most,
            (None, host) => host.clamp(least, most),
        };
        in_range("max-vcpus", file.max_vcpus, file.vcpus, MAX_VCPUS, "vcpus to 64")?;
        Ok(Self {
            memory_overhead_mib: file.memory_overhead_mib,
            max_memory_mib,
            max_vcpus: file.size_vcpus_from_pod.then_some(file.max_vcpus),
        })
    }
}
