//! The object that protects the guest.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Switch;
use super::opts::Opts;

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
}
