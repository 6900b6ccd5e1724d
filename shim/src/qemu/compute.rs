//! Machine, accelerator, CPU and memory.

use super::opts::Opts;
use super::{Profile, Switch};
use crate::config::Accel;

/// Id of the memory backend.
const MEMORY_ID: &str = "mem0";

/// `-machine`: q35 without what a guest of ours has no driver for. Guest pages stay out of core dumps and are not merged.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Id of the object that protects the guest's memory; none with `sim`.
    pub protection: Option<&'static str>,
}

/// `-accel`.
#[derive(Clone, Copy, Debug)]
pub struct Accelerator(pub Accel);

/// `-cpu`.
#[derive(Clone, Debug)]
pub struct Cpu(pub String);

/// `-smp`: fixed, no hot-plug. Measured with `snp`.
#[derive(Clone, Copy, Debug)]
pub struct Smp(pub u32);

/// `-m` and its backend: memory that a vhost-user device can share. Fixed, no slots.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Size in MiB.
    pub mib: u32,
}

impl Switch for Machine {
    fn render(&self, line: &mut Vec<String>) {
        let mut opts = Opts::of("q35")
            .with("smm", "off")
            .with("usb", "off")
            .with("vmport", "off")
            .with("dump-guest-core", "off")
            .with("mem-merge", "off")
            .with("memory-backend", MEMORY_ID);
        if let Some(id) = self.protection {
            opts = opts
                .with("kernel_irqchip", "split")
                .with("confidential-guest-support", id);
        }
        line.extend(["-machine".into(), opts.into_string()]);
    }
}

impl Switch for Accelerator {
    fn render(&self, line: &mut Vec<String>) {
        line.extend(["-accel".into(), self.0.to_string()]);
    }
}

impl Cpu {
    /// The profile's model: `EPYC-v4` for SNP, since the launch digest depends on it; for TDX the host's own, the one that QEMU takes there; without
    /// protection the host's own under KVM, and under TCG everything but what its emulation is slow at (`inference.md`, 6).
    pub fn of_profile(profile: &Profile, accel: Accel) -> Self {
        let model = match (profile, accel) {
            (Profile::Snp { .. }, _) => "EPYC-v4",
            (Profile::Tdx { .. }, _) => "host,pmu=off",
            (Profile::Sim { .. }, Accel::Kvm) => "host",
            (Profile::Sim { .. }, Accel::Tcg) => "max,-erms,-fsrm,-avx2,-vaes",
        };
        Self(model.into())
    }
}

impl Switch for Cpu {
    fn render(&self, line: &mut Vec<String>) {
        line.extend(["-cpu".into(), self.0.clone()]);
    }
}

impl Switch for Smp {
    fn render(&self, line: &mut Vec<String>) {
        line.extend(["-smp".into(), self.0.to_string()]);
    }
}

impl Switch for Memory {
    fn render(&self, line: &mut Vec<String>) {
        let size = format!("{}M", self.mib);
        let backend = Opts::of("memory-backend-memfd")
            .with("id", MEMORY_ID)
            .with("size", &size)
            .with("share", "on");
        line.extend(["-m".into(), size, "-object".into(), backend.into_string()]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bios, rendered};
    use super::*;

    #[test]
    fn exact_strings() {
        let common = "-machine q35,smm=off,usb=off,vmport=off,dump-guest-core=off,mem-merge=off,memory-backend=mem0";
        assert_eq!(rendered(&Machine { protection: None }), common);
        let protected = format!("{common},kernel_irqchip=split,confidential-guest-support=tee0");
        assert_eq!(
            rendered(&Machine {
                protection: Some("tee0")
            }),
            protected
        );
        assert_eq!(rendered(&Accelerator(Accel::Kvm)), "-accel kvm");
        assert_eq!(rendered(&Accelerator(Accel::Tcg)), "-accel tcg");
        assert_eq!(rendered(&Smp(2)), "-smp 2");
        let memory = "-m 512M -object memory-backend-memfd,id=mem0,size=512M,share=on";
        assert_eq!(rendered(&Memory { mib: 512 }), memory);
    }

    #[test]
    fn cpu_of_each_profile() {
        let firmware = || Bios("/o/OVMF.fd".into());
        let sim = Profile::Sim { enforced: None };
        for (profile, accel, expected) in [
            (Profile::Snp { firmware: firmware() }, Accel::Kvm, "-cpu EPYC-v4"),
            (Profile::Tdx { firmware: firmware() }, Accel::Kvm, "-cpu host,pmu=off"),
            (sim.clone(), Accel::Kvm, "-cpu host"),
            (sim, Accel::Tcg, "-cpu max,-erms,-fsrm,-avx2,-vaes"),
        ] {
            assert_eq!(rendered(&Cpu::of_profile(&profile, accel)), expected);
        }
    }
}
