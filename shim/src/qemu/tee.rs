//! The object that protects the guest, and what stands for it where nothing does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use serde_json::json;

use super::Switch;
use super::opts::Opts;
use crate::config::QuoteService;

/// Id of the object.
pub(super) const TEE_ID: &str = "tee0";
/// Guest policy: bit 17 is mandatory, bit 16 allows SMT; no debug (19), no migration agent (18).
const POLICY: &str = "0x30000";

/// `-object sev-snp-guest`. Kernel, initrd and command line are hashed into the measured page. With `sim` the same object is
/// given to a QEMU that ignores it, and the simulated platform reads it from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SevSnpGuest {
    /// Position of the encryption bit in a page table entry: CPUID 0x8000001F, EBX\[5:0\].
    pub cbitpos: u32,
    /// Physical address bits lost to encryption: CPUID 0x8000001F, EBX\[11:6\].
    pub reduced_phys_bits: u32,
    /// HOST_DATA of the report: the digest of the initdata.
    pub host_data: [u8; 32],
}

/// `-object tdx-guest`, in JSON: a socket's address has members of its own. Kernel, initrd and command line are measured by the firmware. No
/// attribute of the guest is set but that Linux gets no exceptions for pages that the host takes away; debugging above all is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxGuest {
    /// MRCONFIGID: the digest of the initdata.
    pub mr_config_id: [u8; 48],
    /// Who makes a quote of the guest's report.
    pub quotes: QuoteService,
}

/// What carries MRCONFIGID on the line of a simulated TDX guest: an `-object authz-simple`, which QEMU makes and nothing uses. Its text is the
/// `tdx-guest` that hardware would get, in `key=value` form. The QEMU that runs under TCG here has no `tdx-guest` (that came with 10.1), whereas it has
/// `sev-snp-guest`, which carries HOST_DATA of a simulated SNP guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulatedTdxGuest {
    /// MRCONFIGID: the digest of the initdata.
    pub mr_config_id: [u8; 48],
}

/// The object of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TeeObject {
    /// SEV-SNP, or its simulation.
    SevSnp(SevSnpGuest),
    /// TDX.
    Tdx(TdxGuest),
    /// The simulation of TDX.
    SimulatedTdx(SimulatedTdxGuest),
}

impl SevSnpGuest {
    /// With the encryption bit where every EPYC that was ever made has it, for hosts without SNP.
    pub fn simulated(host_data: [u8; 32]) -> Self {
        Self {
            cbitpos: 51,
            reduced_phys_bits: 1,
            host_data,
        }
    }

    /// With this CPU's encryption bit.
    #[cfg(target_arch = "x86_64")]
    pub fn of_host(host_data: [u8; 32]) -> Self {
        let ebx = std::arch::x86_64::__cpuid(0x8000_001f).ebx;
        Self {
            cbitpos: ebx & 0x3f,
            reduced_phys_bits: (ebx >> 6) & 0x3f,
            host_data,
        }
    }
}

impl Switch for SevSnpGuest {
    fn render(&self, line: &mut Vec<String>) {
        let opts = Opts::of("sev-snp-guest")
            .with("id", TEE_ID)
            .with("cbitpos", self.cbitpos)
            .with("reduced-phys-bits", self.reduced_phys_bits)
            .with("policy", POLICY)
            .with("kernel-hashes", "on")
            .with("host-data", STANDARD.encode(self.host_data));
        line.extend(["-object".into(), opts.into_string()]);
    }
}

impl Switch for TdxGuest {
    fn render(&self, line: &mut Vec<String>) {
        let id = STANDARD.encode(self.mr_config_id);
        // Numbers are strings in QEMU's socket addresses. Written member by member: the order of a JSON object's is not ours to choose.
        let socket = match &self.quotes {
            QuoteService::Unix(path) => format!(r#"{{"type":"unix","path":{}}}"#, json!(path)),
            QuoteService::Vsock { cid, port } => format!(r#"{{"type":"vsock","cid":"{cid}","port":"{port}"}}"#),
        };
        let object = format!(
            r#"{{"qom-type":"tdx-guest","id":"{TEE_ID}","sept-ve-disable":true,"mrconfigid":"{id}","quote-generation-socket":{socket}}}"#
        );
        line.extend(["-object".into(), object]);
    }
}

impl Switch for SimulatedTdxGuest {
    fn render(&self, line: &mut Vec<String>) {
        let guest = Opts::of("tdx-guest")
            .with("sept-ve-disable", "on")
            .with("mrconfigid", STANDARD.encode(self.mr_config_id));
        let opts = Opts::of("authz-simple")
            .with("id", TEE_ID)
            .with("identity", guest.into_string());
        line.extend(["-object".into(), opts.into_string()]);
    }
}

impl Switch for TeeObject {
    fn render(&self, line: &mut Vec<String>) {
        match self {
            Self::SevSnp(object) => object.render(line),
            Self::Tdx(object) => object.render(line),
            Self::SimulatedTdx(object) => object.render(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rendered;
    use super::*;

    #[test]
    fn exact_string() {
        let expected = "-object sev-snp-guest,id=tee0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on,\
                        host-data=qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo=";
        assert_eq!(rendered(&SevSnpGuest::simulated([0xaa; 32])), expected);
    }

    #[test]
    fn the_debug_bit_is_never_set() {
        let policy = u32::from_str_radix(POLICY.trim_start_matches("0x"), 16).unwrap();
        assert_eq!((policy >> 17 & 1, policy >> 18 & 1, policy >> 19 & 1), (1, 0, 0));
    }
    #[test]
    fn exact_strings_of_tdx() {
        let id = "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";
        let with = |quotes| TdxGuest {
            mr_config_id: [0xaa; 48],
            quotes,
        };
        let unix = with(QuoteService::Unix("/var/run/tdx-qgs/a,b\"c.socket".into()));
        let expected = format!(
            r#"-object {{"qom-type":"tdx-guest","id":"tee0","sept-ve-disable":true,"mrconfigid":"{id}","quote-generation-socket":{{"type":"unix","path":"/var/run/tdx-qgs/a,b\"c.socket"}}}}"#
        );
        assert_eq!(rendered(&unix), expected);
        let vsock = rendered(&with(QuoteService::Vsock { cid: 2, port: 4050 }));
        let socket = r#""quote-generation-socket":{"type":"vsock","cid":"2","port":"4050"}}"#;
        assert!(vsock.ends_with(socket), "{vsock}");
        let simulated = SimulatedTdxGuest {
            mr_config_id: [0xaa; 48],
        };
        let expected = format!("-object authz-simple,id=tee0,identity=tdx-guest,,sept-ve-disable=on,,mrconfigid={id}");
        assert_eq!(rendered(&simulated), expected);
    }

    #[test]
    fn no_attribute_of_a_tdx_guest_is_set() {
        let guest = TdxGuest {
            mr_config_id: [0; 48],
            quotes: QuoteService::Unix("/s".into()),
        };
        let line = rendered(&guest);
        for word in ["attributes", "debug", "mrowner"] {
            assert!(!line.contains(word), "{word}: {line}");
        }
        let json = line.strip_prefix("-object ").unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(json).is_ok());
    }
}
