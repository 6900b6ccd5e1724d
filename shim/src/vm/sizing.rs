//! How large a pod's VM is: from the configuration and from what the pod's resources sum up to.
//!
//! Memory is fixed for the VM's life: no hotplug and no balloon, which would give the host a say in the guest's memory. So a
//! pod's limits decide before the launch, never after it. CRI sums them up in annotations of the sandbox (without the
//! RuntimeClass's overhead, which is the node's bookkeeping); a lone container of `ctr` has them in its own specification.
//! Memory is not measured. The number of virtual CPUs is: it follows the pod only where the configuration says so.

use crate::bundle::{Bundle, Role};
use crate::config::{Config, Sizing};
use crate::untrusted::printable;

const MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
const CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
const CPU_SHARES: &str = "io.kubernetes.cri.sandbox-cpu-shares";

/// A MiB, in bytes.
const MIB: u64 = 1 << 20;
/// Guest memory comes in huge pages of this many MiB.
const GRAIN_MIB: u64 = 2;
/// cgroup shares of one CPU.
const SHARES: u64 = 1024;
/// The kernel's CPU period where none is given.
const PERIOD_US: u64 = 100_000;

/// What a pod may use, summed over its containers. 0 = it has no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodResources {
    /// Memory limit.
    pub memory_bytes: u64,
    /// CPU time in each period.
    pub cpu_quota_us: u64,
    /// The period.
    pub cpu_period_us: u64,
    /// Relative weight, 1024 for each CPU that was requested.
    pub cpu_shares: u64,
}

/// The size of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory.
    pub memory_mib: u32,
}

/// A pod that gets no VM of the size it asks for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeError {
    /// An annotation of CRI's that is no number.
    #[error("annotation {key} is {value:?}, expected a number")]
    Annotation {
        /// Which.
        key: &'static str,
        /// Its value, made printable.
        value: String,
    },
    /// More memory than a VM may have.
    #[error(
        "the pod's memory limits of {pod_mib} MiB and memory-overhead-mib of {overhead_mib} MiB make a VM larger than {max_mib} MiB \
         (max-memory-mib, or this host's memory): lower the limits, or raise the key"
    )]
    TooLarge {
        /// What the pod asks for.
        pod_mib: u64,
        /// What the guest itself is given.
        overhead_mib: u32,
        /// The bound.
        max_mib: u32,
    },
}

impl PodResources {
    /// What containerd says about the pod that `bundle` brings up.
    ///
    /// # Errors
    /// An annotation that is no number.
    pub fn of_bundle(bundle: &Bundle) -> Result<Self, SizeError> {
        if !matches!(bundle.role(), Ok(Role::Alone)) {
            return Self::of_annotations(|key| bundle.annotation(key));
        }
        let resources = &bundle.spec.linux.resources;
        Ok(Self {
            memory_bytes: positive(resources.memory.limit),
            cpu_quota_us: positive(resources.cpu.quota),
            cpu_period_us: resources.cpu.period,
            cpu_shares: 0,
        })
    }

    fn of_annotations<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Result<Self, SizeError> {
        let number = |key: &'static str| match annotation(key) {
            None | Some("") => Ok(0),
            Some(value) => value.parse::<i64>().map(positive).map_err(|_| SizeError::Annotation {
                key,
                value: printable(value, 32),
            }),
        };
        Ok(Self {
            memory_bytes: number(MEMORY)?,
            cpu_quota_us: number(CPU_QUOTA)?,
            cpu_period_us: number(CPU_PERIOD)?,
            cpu_shares: number(CPU_SHARES)?,
        })
    }

    /// CPUs by limit, or by request where there is no limit; rounded up.
    fn cpus(&self) -> u64 {
        match (self.cpu_quota_us, self.cpu_period_us) {
            (0, _) => self.cpu_shares.div_ceil(SHARES),
            (quota, 0) => quota.div_ceil(PERIOD_US),
            (quota, period) => quota.div_ceil(period),
        }
    }
}

/// The configuration with the size of `bundle`'s VM in place of its own.
///
/// # Errors
/// An annotation that is no number, a pod that is too large.
pub fn sized(config: Config, bundle: &Bundle) -> Result<Config, SizeError> {
    let least = Size {
        vcpus: config.vcpus,
        memory_mib: config.memory_mib,
    };
    let Size { vcpus, memory_mib } = size(least, &config.sizing, &PodResources::of_bundle(bundle)?)?;
    Ok(Config {
        vcpus,
        memory_mib,
        ..config
    })
}

/// The size of the VM of a pod with these `resources`: never below `least`.
///
/// # Errors
/// More memory than is allowed.
pub fn size(least: Size, rules: &Sizing, resources: &PodResources) -> Result<Size, SizeError> {
    let memory_mib = if resources.memory_bytes == 0 {
        least.memory_mib
    } else {
        let pod_mib = resources.memory_bytes.div_ceil(MIB);
        let sum = pod_mib.saturating_add(rules.memory_overhead_mib.into());
        let wanted = sum.checked_next_multiple_of(GRAIN_MIB).unwrap_or(sum);
        let fits = u32::try_from(wanted).ok().filter(|mib| *mib <= rules.max_memory_mib);
        let wanted = fits.ok_or(SizeError::TooLarge {
            pod_mib,
            overhead_mib: rules.memory_overhead_mib,
            max_mib: rules.max_memory_mib,
        })?;
        wanted.max(least.memory_mib)
    };
    let vcpus = match rules.max_vcpus {
        None => least.vcpus,
        Some(max) => u32::try_from(resources.cpus()).unwrap_or(max).min(max).max(least.vcpus),
    };
    Ok(Size { vcpus, memory_mib })
}

/// OCI and CRI write "no limit" as 0 or as -1.
fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Size = Size {
        vcpus: 2,
        memory_mib: 1024,
    };

    fn rules() -> Sizing {
        Sizing {
            memory_overhead_mib: 256,
            max_memory_mib: 8192,
            max_vcpus: Some(8),
        }
    }

    fn memory(bytes: u64) -> Result<u32, SizeError> {
        let resources = PodResources {
            memory_bytes: bytes,
            ..Default::default()
        };
        size(LEAST, &rules(), &resources).map(|size| size.memory_mib)
    }

    fn vcpus(cpu_quota_us: u64, cpu_period_us: u64, cpu_shares: u64) -> u32 {
        let resources = PodResources {
            cpu_quota_us,
            cpu_period_us,
            cpu_shares,
            ..Default::default()
        };
        size(LEAST, &rules(), &resources).unwrap().vcpus
    }

    #[test]
    fn a_pod_without_limits_gets_the_configured_size() {
        assert_eq!(size(LEAST, &rules(), &PodResources::default()), Ok(LEAST));
    }

    #[test]
    fn memory_is_the_limit_and_the_overhead_in_whole_huge_pages() {
        assert_eq!(memory(2048 * MIB), Ok(2304));
        assert_eq!(memory(2048 * MIB + 1), Ok(2306));
        assert_eq!(memory(1), Ok(1024), "never below memory-mib");
        assert_eq!(memory((8192 - 256) * MIB), Ok(8192));
    }

    #[test]
    fn a_pod_beyond_the_bound_is_refused_with_its_numbers() {
        let refused = SizeError::TooLarge {
            pod_mib: 7937,
            overhead_mib: 256,
            max_mib: 8192,
        };
        assert_eq!(memory((8192 - 256 + 1) * MIB), Err(refused));
        assert!(matches!(memory(u64::MAX), Err(SizeError::TooLarge { .. })));
    }

    #[test]
    fn vcpus_follow_the_limit_then_the_request_up_to_the_bound() {
        assert_eq!(vcpus(350_000, 100_000, 0), 4);
        assert_eq!(vcpus(350_000, 0, 0), 4);
        assert_eq!(vcpus(0, 100_000, 3072), 3);
        assert_eq!(vcpus(10_000, 100_000, 65536), 2, "never below vcpus");
        assert_eq!(vcpus(u64::MAX, 1, 0), 8);
        let fixed = Sizing {
            max_vcpus: None,
            ..rules()
        };
        let resources = PodResources {
            cpu_quota_us: 800_000,
            ..Default::default()
        };
        assert_eq!(size(LEAST, &fixed, &resources).unwrap().vcpus, 2);
    }

    #[test]
    fn annotations_are_numbers_and_minus_one_is_no_limit() {
        let of = |value: &'static str| PodResources::of_annotations(move |key| (key == MEMORY).then_some(value));
        assert_eq!(of("1048576").unwrap().memory_bytes, MIB);
        for none in ["", "0", "-1"] {
            assert_eq!(of(none).unwrap(), PodResources::default(), "{none}");
        }
        for bad in ["1Gi", "1e9", "99999999999999999999"] {
            assert!(
                matches!(of(bad), Err(SizeError::Annotation { key: MEMORY, .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_sandbox_is_sized_by_its_annotations_and_a_lone_container_by_its_limits() {
        let bundle = |text: &str| Bundle {
            dir: "/b".into(),
            spec: serde_json::from_str(text).unwrap(),
        };
        let sandbox = bundle(
            r#"{"annotations": {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-memory": "4194304",
                "io.kubernetes.cri.sandbox-cpu-quota": "200000", "io.kubernetes.cri.sandbox-cpu-period": "100000",
                "io.kubernetes.cri.sandbox-cpu-shares": "1024"},
                "linux": {"resources": {"memory": {"limit": 1}, "cpu": {"shares": 2}}}}"#,
        );
        let expected = PodResources {
            memory_bytes: 4 * MIB,
            cpu_quota_us: 200_000,
            cpu_period_us: 100_000,
            cpu_shares: 1024,
        };
        assert_eq!(PodResources::of_bundle(&sandbox), Ok(expected));
        let alone = bundle(
            r#"{"linux": {"resources": {"memory": {"limit": 4194304}, "cpu": {"quota": 200000, "period": 100000, "shares": 1024}}}}"#,
        );
        let expected = PodResources {
            cpu_shares: 0,
            ..expected
        };
        assert_eq!(PodResources::of_bundle(&alone), Ok(expected));
    }
}
