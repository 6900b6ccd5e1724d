//! The command lines of a VM's programs.

use std::path::Path;

use super::launch::LaunchRequest;
use crate::config::{Config, Imitated, SimPrograms, Tee};
use crate::initdata::Initdata;
use crate::process::Program;
use crate::qemu::{
    Accelerator, Append, Bios, Cpu, DataDir, DiskDrive, HashTableLoader, Initrd, Kernel, Launch, Memory, MonitorSocket,
    Name, Nic, PidFile, Profile, SerialSocket, SevSnpGuest, SimulatedTdxGuest, Smp, TdxGuest, TeeObject, Vsock,
};

/// vhost-device-vsock's address for the one guest it serves; never seen by another VM.
const HYBRID_CID: u32 = 3;
/// Guest kernels of this age hang on larger writes without it (`vsock.md`, 2).
const TX_BUFFER: u32 = 32768;

/// The simulated platform: listens where the guest's connections to it end up.
pub(super) fn platform_program(programs: &SimPrograms, socket: &Path, pid_file: &Path, firmware: &str) -> Program {
    let state = text(&programs.state);
    let arguments = [
        "serve",
        "--state",
        &state,
        "--socket",
        &text(socket),
        "--qemu-pidfile",
        &text(pid_file),
        "--firmware",
        firmware,
    ]
    .map(String::from)
    .to_vec();
    Program {
        name: "cella-sim-platform",
        path: programs.platform.clone(),
        arguments,
    }
}

/// The vsock backend.
pub(super) fn backend_program(programs: &SimPrograms, socket: &Path, uds_path: &Path) -> Program {
    let (socket, uds_path) = (text(socket), text(uds_path));
    let vm = format!("guest-cid={HYBRID_CID},socket={socket},uds-path={uds_path},tx-buffer-size={TX_BUFFER}");
    Program {
        name: "vhost-device-vsock",
        path: programs.vsock.clone(),
        arguments: vec!["--vm".into(), vm],
    }
}

/// Files and sockets in the run directory that QEMU is told of.
pub(super) struct Paths {
    pub(super) initdata: String,
    pub(super) console: String,
    pub(super) monitor: String,
    pub(super) pid: String,
    /// The table of kernel hashes, of a simulated machine that boots the firmware.
    pub(super) hash_table: Option<HashTableLoader>,
}

/// QEMU's switches for this request.
pub(super) fn launch(request: &LaunchRequest<'_>, vsock: Vsock, nics: Vec<Nic>, paths: Paths) -> Launch {
    let config = request.config;
    let (profile, tee) = profile(config, request.initdata, paths.hash_table);
    Launch {
        name: Name(format!("cella-{}", request.key.dir_name())),
        data_dirs: config.qemu_data_dirs.iter().cloned().map(DataDir).collect(),
        accel: Accelerator(config.accel),
        cpu: config
            .cpu_model
            .clone()
            .map_or_else(|| Cpu::of_profile(&profile, config.accel), Cpu),
        profile,
        smp: Smp(config.vcpus),
        memory: Memory { mib: config.memory_mib },
        tee,
        kernel: Kernel(config.guest.kernel.clone()),
        initrd: Initrd(config.guest.initrd.clone()),
        append: Append(config.guest.cmdline.clone()),
        vsock,
        nics,
        initdata: DiskDrive {
            path: paths.initdata,
            serial: "initdata",
        },
        serial: SerialSocket(paths.console),
        monitor: MonitorSocket(paths.monitor),
        pid_file: PidFile(paths.pid),
    }
}

/// What protects the guest, and the object that binds it to its initdata.
fn profile(config: &Config, initdata: &Initdata, hash_table: Option<HashTableLoader>) -> (Profile, TeeObject) {
    let firmware = Bios(config.firmware.clone());
    let mr_config_id = initdata.mr_config_id;
    match &config.tee {
        Tee::Snp(_) => {
            let tee = SevSnpGuest::of_host(initdata.host_data);
            (Profile::Snp { firmware }, TeeObject::SevSnp(tee))
        }
        Tee::Tdx(quotes) => {
            let quotes = quotes.clone();
            let tee = TdxGuest { mr_config_id, quotes };
            (Profile::Tdx { firmware }, TeeObject::Tdx(tee))
        }
        Tee::Sim(programs) => {
            let enforced = hash_table.map(|table| (firmware, table));
            let tee = match programs.imitated {
                Imitated::Snp => TeeObject::SevSnp(SevSnpGuest::simulated(initdata.host_data)),
                Imitated::Tdx => TeeObject::SimulatedTdx(SimulatedTdxGuest { mr_config_id }),
            };
            (Profile::Sim { enforced }, tee)
        }
    }
}

/// Paths under the run directory are UTF-8, since `run-dir` is and the names are ours; the configuration's were checked.
pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs() -> SimPrograms {
        SimPrograms {
            imitated: Imitated::Snp,
            platform: "/p/sim".into(),
            state: "/s".into(),
            vsock: "/p/vdv".into(),
            firmware_boot: false,
        }
    }

    #[test]
    fn helper_command_lines() {
        let platform = platform_program(
            &programs(),
            Path::new("/r/vsock_1027"),
            Path::new("/r/qemu.pid"),
            "/o/ovmf.fd",
        );
        assert_eq!(
            platform.arguments.join(" "),
            "serve --state /s --socket /r/vsock_1027 --qemu-pidfile /r/qemu.pid --firmware /o/ovmf.fd"
        );
        let backend = backend_program(&programs(), Path::new("/r/vhost.sock"), Path::new("/r/vsock"));
        assert_eq!(
            backend.arguments.join(" "),
            "--vm guest-cid=3,socket=/r/vhost.sock,uds-path=/r/vsock,tx-buffer-size=32768"
        );
    }
}
