//! What this host can do: KVM, SEV-SNP and TDX, and the reason for each "no" (`qemu.md`, 6).

use std::fs::OpenOptions;
use std::path::Path;

/// Facts about the host, separate from the decisions so that these can be tested anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The CPU has vmx or svm.
    pub virtualization_flag: bool,
    /// `/dev/kvm` opens for this user.
    pub kvm_opens: bool,
    /// `/dev/vhost-vsock` exists.
    pub vhost_vsock: bool,
    /// `/sys/module/kvm_amd/parameters/sev_snp` says Y.
    pub snp_enabled: bool,
    /// `/sys/module/kvm_intel/parameters/tdx` says Y.
    pub tdx_enabled: bool,
    /// Memory of this host; 0 where it is not known.
    pub memory_mib: u32,
}

/// Why a host cannot do what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lack {
    /// `auto` on a host without either.
    #[error(
        "this host has neither SEV-SNP nor TDX (/sys/module/kvm_amd/parameters/sev_snp and /sys/module/kvm_intel/parameters/tdx are not Y); enable one in firmware and kernel, or set \"sim\" on a development host"
    )]
    NoTee,
    /// No SNP in KVM.
    #[error(
        "this host has no SEV-SNP (/sys/module/kvm_amd/parameters/sev_snp is not Y); enable it in firmware and kernel, or set \"sim\" on a development host"
    )]
    NoSnp,
    /// No TDX in KVM.
    #[error(
        "this host has no TDX (/sys/module/kvm_intel/parameters/tdx is not Y); enable it in firmware and kernel (6.16 or newer), or set \"sim-tdx\" on a development host"
    )]
    NoTdx,
    /// The vsock device of the kernel is missing.
    #[error(
        "/dev/vhost-vsock does not exist, and a confidential guest cannot use vhost-user; load the module vhost_vsock"
    )]
    NoVhostVsock,
    /// No virtualization in the CPU.
    #[error("the CPU shows neither vmx nor svm; use \"tcg\" or \"auto\"")]
    NoVirtualization,
    /// `/dev/kvm` is missing or closed.
    #[error("/dev/kvm does not open for reading and writing; load kvm_amd or kvm_intel, or use \"tcg\" or \"auto\"")]
    KvmClosed,
    /// Neither TEE can be emulated.
    #[error("\"tcg\" cannot run tee = \"snp\" or \"tdx\"")]
    TcgWithTee,
    /// The firmware does not come up under KVM without a TEE.
    #[error("sim-firmware-boot needs \"tcg\": the firmware does not boot an unprotected guest under KVM")]
    FirmwareBootWithKvm,
}

impl HostFacts {
    /// Looks at this host. Reads a few files and opens `/dev/kvm` once.
    pub fn probe() -> Self {
        Self {
            virtualization_flag: cpu_has_virtualization(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            kvm_opens: OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok(),
            vhost_vsock: Path::new("/dev/vhost-vsock").exists(),
            snp_enabled: parameter_is_on("/sys/module/kvm_amd/parameters/sev_snp"),
            tdx_enabled: parameter_is_on("/sys/module/kvm_intel/parameters/tdx"),
            memory_mib: total_memory_mib(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        }
    }

    /// Whether KVM can be used.
    ///
    /// # Errors
    /// What is missing.
    pub fn kvm(&self) -> Result<(), Lack> {
        if !self.virtualization_flag {
            return Err(Lack::NoVirtualization);
        }
        if self.kvm_opens { Ok(()) } else { Err(Lack::KvmClosed) }
    }

    /// Whether an SNP guest can be started.
    ///
    /// # Errors
    /// What is missing.
    pub fn snp(&self) -> Result<(), Lack> {
        self.tee(self.snp_enabled, Lack::NoSnp)
    }

    /// Whether a TDX guest can be started.
    ///
    /// # Errors
    /// What is missing.
    pub fn tdx(&self) -> Result<(), Lack> {
        self.tee(self.tdx_enabled, Lack::NoTdx)
    }

    fn tee(&self, enabled: bool, lack: Lack) -> Result<(), Lack> {
        match (enabled, self.vhost_vsock) {
            (false, _) => Err(lack),
            (true, false) => Err(Lack::NoVhostVsock),
            (true, true) => Ok(()),
        }
    }
}

fn cpu_has_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("flags"))
        .any(|flags| {
            flags
                .split_ascii_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}

fn total_memory_mib(meminfo: &str) -> u32 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
    u32::try_from(kib.unwrap_or(0) / 1024).unwrap_or(u32::MAX)
}

fn parameter_is_on(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|value| matches!(value.trim(), "Y" | "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words() {
        assert!(cpu_has_virtualization("model\t: x\nflags\t\t: fpu svm sse\n"));
        assert!(!cpu_has_virtualization("flags\t\t: fpu svm_lock sse\nbugs: vmx\n"));
    }

    #[test]
    fn memory_is_read_in_mib() {
        assert_eq!(total_memory_mib("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), 16000);
        assert_eq!(total_memory_mib(""), 0);
    }

    #[test]
    fn each_lack_has_its_reason() {
        let whole = HostFacts {
            virtualization_flag: true,
            kvm_opens: true,
            vhost_vsock: true,
            snp_enabled: true,
            tdx_enabled: false,
            memory_mib: 65536,
        };
        assert_eq!((whole.kvm(), whole.snp()), (Ok(()), Ok(())));
        assert_eq!(
            HostFacts {
                virtualization_flag: false,
                ..whole.clone()
            }
            .kvm(),
            Err(Lack::NoVirtualization)
        );
        assert_eq!(
            HostFacts {
                kvm_opens: false,
                ..whole.clone()
            }
            .kvm(),
            Err(Lack::KvmClosed)
        );
        assert_eq!(
            HostFacts {
                vhost_vsock: false,
                ..whole.clone()
            }
            .snp(),
            Err(Lack::NoVhostVsock)
        );
        assert_eq!(
            HostFacts {
                snp_enabled: false,
                ..whole.clone()
            }
            .snp(),
            Err(Lack::NoSnp)
        );
        let tdx = HostFacts {
            snp_enabled: false,
            tdx_enabled: true,
            ..whole.clone()
        };
        assert_eq!(
            (tdx.snp(), tdx.tdx(), whole.tdx()),
            (Err(Lack::NoSnp), Ok(()), Err(Lack::NoTdx))
        );
        let deaf = HostFacts {
            vhost_vsock: false,
            ..tdx
        };
        assert_eq!(deaf.tdx(), Err(Lack::NoVhostVsock));
    }
}
