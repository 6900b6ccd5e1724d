//! What the processor and its firmware give.

use super::facts::Facts;
use super::host::Host;
use super::{Check, Finding};

/// Hardware virtualization.
pub(super) struct Kvm;

impl Check for Kvm {
    fn name(&self) -> &'static str {
        "KVM"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let cpuinfo = host.text("/proc/cpuinfo").unwrap_or_default();
        let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags"));
        let flag = ["svm", "vmx"]
            .into_iter()
            .find(|flag| flags.is_some_and(|flags| flags.split_ascii_whitespace().any(|word| word == *flag)));
        let lacking = |what: String, remedy: &str| {
            if facts.wants_hardware() || facts.text("accel") == Some("kvm") {
                Finding::failed(what, remedy)
            } else {
                Finding::warning(format!("{what}: guests run translated, many times slower"), remedy)
            }
        };
        match (flag, host.opens("/dev/kvm")) {
            (None, _) => lacking(
                "the CPU shows neither svm nor vmx".into(),
                "enable virtualization in the firmware, or nested virtualization on the outer host",
            ),
            (Some(flag), Ok(())) => Finding::ok(format!("{flag}, /dev/kvm opens")),
            (Some(flag), Err(error)) => lacking(
                format!("{flag}, but /dev/kvm does not open ({error})"),
                "load kvm_amd or kvm_intel, and run as root",
            ),
        }
    }
}

/// The TEE that the configuration asks for.
pub(super) struct Tee;

impl Check for Tee {
    fn name(&self) -> &'static str {
        "TEE"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let snp = host.parameter("/sys/module/kvm_amd/parameters/sev_snp");
        let tdx = host.parameter("/sys/module/kvm_intel/parameters/tdx");
        let sev = host.exists("/dev/sev");
        match (facts.tee(), snp, tdx) {
            ("sim", _, _) => Finding::warning(
                "tee = \"sim\": guests are NOT protected from this host",
                "for development only; on a host with SEV-SNP set tee = \"snp\"",
            ),
            (_, true, _) if sev => Finding::ok("SEV-SNP is on, /dev/sev is there"),
            (_, true, _) => Finding::failed(
                "SEV-SNP is on in KVM, but /dev/sev is missing",
                "load the module ccp; the security processor must be visible to this kernel",
            ),
            (_, false, true) => Finding::failed("TDX is on, which is not supported yet", "use a host with SEV-SNP"),
            (_, false, false) => Finding::failed(
                "neither /sys/module/kvm_amd/parameters/sev_snp nor /sys/module/kvm_intel/parameters/tdx is on",
                "enable SEV-SNP (SMEE, SNP memory coverage, RMP table) in the firmware, boot a kernel of 6.11 or newer with kvm_amd.sev_snp=1",
            ),
        }
    }
}

/// The guest's firmware, which is measured.
pub(super) struct Firmware;

impl Check for Firmware {
    fn name(&self) -> &'static str {
        "firmware"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let path = facts.path("firmware", "/usr/share/ovmf/OVMF.amdsev.fd");
        if host.is_file(&path) {
            Finding::ok(path.display().to_string())
        } else {
            Finding::failed(
                format!("{} does not exist", path.display()),
                "install the AmdSev build of OVMF, or set firmware to its path",
            )
        }
    }
}
