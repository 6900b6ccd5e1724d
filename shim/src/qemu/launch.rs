//! The whole command line of a profile.

use super::tee::TEE_ID;
use super::{
    Accelerator, Append, Bios, Cpu, DataDir, DiskDrive, Fixed, HashTableLoader, Initrd, Kernel, Machine, Memory,
    MonitorSocket, Name, Nic, PidFile, Sandbox, SerialSocket, Smp, Switch, TeeObject, Vsock,
};

/// What differs between the profiles.
#[derive(Clone, Debug)]
pub enum Profile {
    /// SEV-SNP: protected memory, the firmware boots and checks the kernel's hashes.
    Snp {
        /// The AmdSev firmware.
        firmware: Bios,
    },
    /// TDX: protected memory, the firmware boots and measures the kernel.
    Tdx {
        /// The IntelTdx firmware.
        firmware: Bios,
    },
    /// No protection; the same kernel boots.
    Sim {
        /// The AmdSev firmware and the table that it enforces; none is QEMU's own firmware, which enforces nothing.
        enforced: Option<(Bios, HashTableLoader)>,
    },
}

/// Everything that QEMU is told.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Which protection.
    pub profile: Profile,
    /// `-name`.
    pub name: Name,
    /// `-L`, any number.
    pub data_dirs: Vec<DataDir>,
    /// `-accel`.
    pub accel: Accelerator,
    /// `-cpu`.
    pub cpu: Cpu,
    /// `-smp`.
    pub smp: Smp,
    /// `-m`.
    pub memory: Memory,
    /// The object that carries HOST_DATA or MRCONFIGID.
    pub tee: TeeObject,
    /// `-kernel`.
    pub kernel: Kernel,
    /// `-initrd`.
    pub initrd: Initrd,
    /// `-append`.
    pub append: Append,
    /// The vsock device.
    pub vsock: Vsock,
    /// The NICs and the networks behind them.
    pub nics: Vec<Nic>,
    /// The initdata device.
    pub initdata: DiskDrive,
    /// The console.
    pub serial: SerialSocket,
    /// The monitor.
    pub monitor: MonitorSocket,
    /// `-pidfile`.
    pub pid_file: PidFile,
}

impl Launch {
    /// QEMU's arguments, without the program itself.
    pub fn arguments(&self) -> Vec<String> {
        let protection = match self.profile {
            Profile::Snp { .. } | Profile::Tdx { .. } => Some(TEE_ID),
            Profile::Sim { .. } => None,
        };
        let mut line = Vec::new();
        self.name.render(&mut line);
        Fixed.render(&mut line);
        for dir in &self.data_dirs {
            dir.render(&mut line);
        }
        Machine { protection }.render(&mut line);
        self.accel.render(&mut line);
        self.cpu.render(&mut line);
        self.smp.render(&mut line);
        self.memory.render(&mut line);
        self.vsock.render(&mut line);
        for nic in &self.nics {
            nic.render(&mut line);
        }
        self.initdata.render(&mut line);
        self.serial.render(&mut line);
        self.monitor.render(&mut line);
        self.pid_file.render(&mut line);
        Sandbox.render(&mut line);
        self.tee.render(&mut line);
        match &self.profile {
            Profile::Snp { firmware } | Profile::Tdx { firmware } => firmware.render(&mut line),
            Profile::Sim { enforced: None } => {}
            Profile::Sim {
                enforced: Some((firmware, table)),
            } => {
                firmware.render(&mut line);
                table.render(&mut line);
            }
        }
        self.kernel.render(&mut line);
        self.initrd.render(&mut line);
        self.append.render(&mut line);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Backend, SevSnpGuest, SimulatedTdxGuest, TdxGuest, UserNetwork};
    use super::*;
    use crate::config::{Accel, QuoteService};
    use crate::vsock::GuestCid;

    fn launch(profile: Profile, accel: Accel, vsock: Vsock, tee: TeeObject) -> Launch {
        Launch {
            name: Name("cella-d1".into()),
            data_dirs: vec![],
            accel: Accelerator(accel),
            cpu: Cpu::of_profile(&profile, accel),
            profile,
            smp: Smp(1),
            memory: Memory { mib: 1024 },
            tee,
            kernel: Kernel("/g/vmlinuz".into()),
            initrd: Initrd("/g/initrd".into()),
            append: Append("console=ttyS0 quiet".into()),
            vsock,
            nics: vec![Nic {
                number: 0,
                backend: Backend::User(UserNetwork { forwards: vec![] }),
                mac: "02:00:00:00:00:01".into(),
            }],
            initdata: DiskDrive {
                path: "/r/initdata.img".into(),
                serial: "initdata",
            },
            serial: SerialSocket("/r/console.sock".into()),
            monitor: MonitorSocket("/r/qmp.sock".into()),
            pid_file: PidFile("/r/qemu.pid".into()),
        }
    }

    fn simulated() -> TeeObject {
        TeeObject::SevSnp(SevSnpGuest::simulated([0; 32]))
    }

    #[test]
    fn golden_line_of_sim_under_tcg() {
        let vsock = Vsock::VhostUser {
            socket: "/r/vhost.sock".into(),
        };
        let sim = Profile::Sim { enforced: None };
        let mut launch = launch(sim, Accel::Tcg, vsock, simulated());
        launch.data_dirs = vec![DataDir("/q/seabios".into()), DataDir("/q/qemu".into())];
        let expected = "-name guest=cella-d1 -nodefaults -no-user-config -no-reboot -display none -vga none \
            -L /q/seabios -L /q/qemu \
            -machine q35,smm=off,usb=off,vmport=off,dump-guest-core=off,mem-merge=off,memory-backend=mem0 \
            -accel tcg -cpu max,-erms,-fsrm,-avx2,-vaes -smp 1 \
            -m 1024M -object memory-backend-memfd,id=mem0,size=1024M,share=on \
            -chardev socket,id=vsock0,path=/r/vhost.sock -device vhost-user-vsock-pci,chardev=vsock0 \
            -netdev user,id=net0,ipv6=off \
            -device virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01,disable-legacy=on,romfile= \
            -blockdev file,node-name=initdata0,filename=/r/initdata.img,read-only=on \
            -device virtio-blk-pci,drive=initdata0,serial=initdata,disable-legacy=on \
            -chardev socket,id=console0,path=/r/console.sock,server=off -serial chardev:console0 \
            -qmp unix:/r/qmp.sock,server=off -pidfile /r/qemu.pid \
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
            -object sev-snp-guest,id=tee0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on,\
            host-data=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= \
            -kernel /g/vmlinuz -initrd /g/initrd -append console=ttyS0 quiet";
        assert_eq!(launch.arguments().join(" "), expected);
    }

    #[test]
    fn golden_line_of_snp_under_kvm() {
        let vsock = Vsock::Vhost {
            cid: GuestCid::new(4711).unwrap(),
        };
        let tee = TeeObject::SevSnp(SevSnpGuest {
            cbitpos: 51,
            reduced_phys_bits: 5,
            host_data: [0; 32],
        });
        let launch = launch(
            Profile::Snp {
                firmware: Bios("/o/OVMF.amdsev.fd".into()),
            },
            Accel::Kvm,
            vsock,
            tee,
        );
        let expected = "-name guest=cella-d1 -nodefaults -no-user-config -no-reboot -display none -vga none \
            -machine q35,smm=off,usb=off,vmport=off,dump-guest-core=off,mem-merge=off,memory-backend=mem0,\
            kernel_irqchip=split,confidential-guest-support=tee0 \
            -accel kvm -cpu EPYC-v4 -smp 1 \
            -m 1024M -object memory-backend-memfd,id=mem0,size=1024M,share=on \
            -device vhost-vsock-pci,guest-cid=4711 \
            -netdev user,id=net0,ipv6=off \
            -device virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01,disable-legacy=on,romfile= \
            -blockdev file,node-name=initdata0,filename=/r/initdata.img,read-only=on \
            -device virtio-blk-pci,drive=initdata0,serial=initdata,disable-legacy=on \
            -chardev socket,id=console0,path=/r/console.sock,server=off -serial chardev:console0 \
            -qmp unix:/r/qmp.sock,server=off -pidfile /r/qemu.pid \
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
            -object sev-snp-guest,id=tee0,cbitpos=51,reduced-phys-bits=5,policy=0x30000,kernel-hashes=on,\
            host-data=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= \
            -bios /o/OVMF.amdsev.fd -kernel /g/vmlinuz -initrd /g/initrd -append console=ttyS0 quiet";
        assert_eq!(launch.arguments().join(" "), expected);
    }

    #[test]
    fn golden_line_of_tdx_under_kvm() {
        let vsock = Vsock::Vhost {
            cid: GuestCid::new(4711).unwrap(),
        };
        let tee = TeeObject::Tdx(TdxGuest {
            mr_config_id: [0; 48],
            quotes: QuoteService::Unix("/var/run/tdx-qgs/qgs.socket".into()),
        });
        let profile = Profile::Tdx {
            firmware: Bios("/o/OVMF.inteltdx.ms.fd".into()),
        };
        let expected = "-name guest=cella-d1 -nodefaults -no-user-config -no-reboot -display none -vga none \
            -machine q35,smm=off,usb=off,vmport=off,dump-guest-core=off,mem-merge=off,memory-backend=mem0,\
            kernel_irqchip=split,confidential-guest-support=tee0 \
            -accel kvm -cpu host,pmu=off -smp 1 \
            -m 1024M -object memory-backend-memfd,id=mem0,size=1024M,share=on \
            -device vhost-vsock-pci,guest-cid=4711 \
            -netdev user,id=net0,ipv6=off \
            -device virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01,disable-legacy=on,romfile= \
            -blockdev file,node-name=initdata0,filename=/r/initdata.img,read-only=on \
            -device virtio-blk-pci,drive=initdata0,serial=initdata,disable-legacy=on \
            -chardev socket,id=console0,path=/r/console.sock,server=off -serial chardev:console0 \
            -qmp unix:/r/qmp.sock,server=off -pidfile /r/qemu.pid \
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
            -object {\"qom-type\":\"tdx-guest\",\"id\":\"tee0\",\"sept-ve-disable\":true,\
            \"mrconfigid\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\
            \"quote-generation-socket\":{\"type\":\"unix\",\"path\":\"/var/run/tdx-qgs/qgs.socket\"}} \
            -bios /o/OVMF.inteltdx.ms.fd -kernel /g/vmlinuz -initrd /g/initrd -append console=ttyS0 quiet";
        assert_eq!(launch(profile, Accel::Kvm, vsock, tee).arguments().join(" "), expected);
    }

    #[test]
    fn simulated_tdx_differs_from_simulated_snp_in_one_object() {
        let line = |tee| {
            let vsock = Vsock::VhostUser {
                socket: "/r/vhost.sock".into(),
            };
            launch(Profile::Sim { enforced: None }, Accel::Tcg, vsock, tee).arguments()
        };
        let tdx = line(TeeObject::SimulatedTdx(SimulatedTdxGuest { mr_config_id: [0; 48] }));
        let differing: Vec<_> = tdx.iter().zip(line(simulated())).filter(|(a, b)| **a != *b).collect();
        let [(tdx, snp)] = differing.as_slice() else {
            panic!("{differing:?}")
        };
        assert!(tdx.starts_with("authz-simple,id=tee0,identity=tdx-guest,,") && snp.starts_with("sev-snp-guest,"));
    }

    #[test]
    fn a_simulated_machine_with_firmware_has_the_table_too() {
        let vsock = Vsock::VhostUser {
            socket: "/r/vhost.sock".into(),
        };
        let table = HashTableLoader {
            path: "/r/hashes.bin".into(),
            gpa: 0x81_0c00,
        };
        let sim = Profile::Sim {
            enforced: Some((Bios("/o/OVMF.amdsev.fd".into()), table)),
        };
        let line = launch(sim, Accel::Tcg, vsock, simulated()).arguments();
        let line = line.join(" ");
        let boots =
            "-bios /o/OVMF.amdsev.fd -device loader,file=/r/hashes.bin,addr=0x810c00,force-raw=on -kernel /g/vmlinuz";
        assert!(line.contains(boots), "{line}");
    }

    #[test]
    fn no_switch_of_peers_that_we_refuse_is_on_the_line() {
        let vsock = Vsock::VhostUser {
            socket: "/r/vhost.sock".into(),
        };
        let sim = Profile::Sim { enforced: None };
        let line = launch(sim, Accel::Tcg, vsock, simulated()).arguments().join(" ");
        for word in [
            "virtio-rng",
            "balloon",
            "virtio-mem",
            "9p",
            "vhost-user-fs",
            "scsi",
            "maxmem",
            "slots",
            "gdb",
        ] {
            assert!(!line.contains(word), "{word}");
        }
    }
}
