//! What the processor and its firmware give.

use super::facts::{Facts, SNP, TDX};
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
        match facts.tee() {
            tee if !facts.wants_hardware() => Finding::warning(
                format!("tee = {tee:?}: guests are NOT protected from this host"),
                "for development only; on a host with SEV-SNP set tee = \"snp\", on one with TDX \"tdx\"",
            ),
            "tdx" if !host.parameter(TDX) => Finding::failed(
                format!("{TDX} is not on"),
                "enable TDX in the firmware, boot a kernel of 6.16 or newer with kvm_intel.tdx=1",
            ),
            "tdx" => quote_service(host, facts),
            "snp" if !host.parameter(SNP) => Finding::failed(format!("{SNP} is not on"), ENABLE_SNP),
            "snp" if !host.exists("/dev/sev") => Finding::failed(
                "SEV-SNP is on in KVM, but /dev/sev is missing",
                "load the module ccp; the security processor must be visible to this kernel",
            ),
            "snp" => Finding::ok("SEV-SNP is on, /dev/sev is there"),
            _ => Finding::failed(format!("neither {SNP} nor {TDX} is on"), ENABLE_SNP),
        }
    }
}

const ENABLE_SNP: &str = "enable SEV-SNP (SMEE, SNP memory coverage, RMP table) in the firmware, boot a kernel of 6.11 or newer with kvm_amd.sev_snp=1";

/// What makes quotes of TDX guests' reports must be there: a guest without a quote gets no keys.
fn quote_service(host: &Host, facts: &Facts) -> Finding {
    let path = facts.path("tdx-quote-service", "/var/run/tdx-qgs/qgs.socket");
    let shown = path.display();
    if path.to_string_lossy().starts_with("vsock:") {
        Finding::ok(format!("TDX is on; the quote service {shown} was not asked"))
    } else if host.is_socket(&path) {
        Finding::ok(format!("TDX is on, the quote service listens on {shown}"))
    } else {
        Finding::failed(
            format!("TDX is on, but {shown} is no socket: guests get no quotes"),
            "install and start Intel's quote generation service (tdx-qgs), or set tdx-quote-service to its socket",
        )
    }
}

/// The guest's firmware, which is measured.
pub(super) struct Firmware;

impl Check for Firmware {
    fn name(&self) -> &'static str {
        "firmware"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let (default, build) = if facts.wants_tdx() {
            ("/usr/share/ovmf/OVMF.inteltdx.ms.fd", "IntelTdx")
        } else {
            ("/usr/share/ovmf/OVMF.amdsev.fd", "AmdSev")
        };
        let path = facts.path("firmware", default);
        if host.is_file(&path) {
            Finding::ok(path.display().to_string())
        } else {
            Finding::failed(
                format!("{} does not exist", path.display()),
                format!("install the {build} build of OVMF, or set firmware to its path"),
            )
        }
    }
}
