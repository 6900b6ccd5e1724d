//! A folder with a platform, a paused QEMU, and files for it to launch.

use std::{
    env, fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cella_attest::{
    Anchors, Evidence, Expected, GuestEvidence, TdEvidence, Verified, VerifyError,
    measure::{LaunchInputs, TdxLaunchInputs, TdxRegisters, snp_launch_digest, tdx_registers},
    tdx::{self, Collateral, Roots, TdxError, TdxExpected, TdxOptions, VerifiedTd},
    verify,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest wait for anything. The machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const HOST_DATA: [u8; 32] = [7; 32];
pub(crate) const MR_CONFIG_ID: [u8; 48] = [8; 48];

/// A process that does not outlive its test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Waits for the process to end by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait_for("a process to end", || self.0.try_wait().unwrap())
    }

    /// All that it wrote to stderr; it must have ended.
    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

pub(crate) fn platform() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cella-sim-platform"))
}

/// Where `make setup` unpacks tools.
fn tool(path: &str) -> PathBuf {
    let cache = env::var_os("CELLA_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache/cella"));
    let path = cache.join("tools").join(path);
    assert!(path.exists(), "{} is missing: run make setup", path.display());
    path
}

pub(crate) fn firmware() -> PathBuf {
    match env::var_os("CELLA_OVMF") {
        Some(path) => path.into(),
        None => tool("ovmf/usr/share/ovmf/OVMF.amdsev.fd"),
    }
}

pub(crate) fn tdx_firmware() -> PathBuf {
    tool("ovmf-tdx/usr/share/ovmf/OVMF.inteltdx.ms.fd")
}

/// What the shim writes for a simulated TDX guest, with more properties of the guest in front.
pub(crate) fn tdx_object(properties: &str) -> String {
    let id = STANDARD.encode(MR_CONFIG_ID);
    format!("authz-simple,id=tee0,identity=tdx-guest{properties},,mrconfigid={id}")
}

/// The folder and what stands in it.
pub(crate) struct Machine(TempDir);

impl Machine {
    /// With a platform's keys and files to launch.
    pub(crate) fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        fs::write(machine.path("kernel"), bz_image()).unwrap();
        fs::write(machine.path("initrd"), "an initrd that nobody runs").unwrap();
        let init = platform()
            .args(["init", "--state"])
            .arg(machine.path("state"))
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(init.status.success());
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts the service and waits until it listens.
    pub(crate) fn serve(&self) -> Running {
        self.serve_with(&firmware())
    }

    pub(crate) fn serve_with(&self, firmware: &Path) -> Running {
        let child = self
            .serve_command_with(firmware)
            .arg("--qemu-pidfile")
            .arg(self.path("qemu.pid"))
            .spawn()
            .unwrap();
        wait_for("the socket", || self.path("vsock_1027").exists().then_some(()));
        Running(child)
    }

    /// The service's command line, but for QEMU's process id.
    pub(crate) fn serve_command(&self) -> Command {
        self.serve_command_with(&firmware())
    }

    fn serve_command_with(&self, firmware: &Path) -> Command {
        let mut command = platform();
        command.args(["serve", "--state"]).arg(self.path("state"));
        command.arg("--socket").arg(self.path("vsock_1027"));
        command.arg("--firmware").arg(firmware).stderr(Stdio::piped());
        command
    }

    /// Starts QEMU, which stops before the first instruction, as the shim would for one vCPU.
    pub(crate) fn qemu(&self, append: &str, policy: &str) -> Running {
        self.qemu_with(append, policy, &[])
    }

    pub(crate) fn qemu_with(&self, append: &str, policy: &str, extra: &[&str]) -> Running {
        let object = format!(
            "sev-snp-guest,id=tee0,cbitpos=51,reduced-phys-bits=1,policy={policy},kernel-hashes=on,host-data={}",
            STANDARD.encode(HOST_DATA)
        );
        self.qemu_of(append, &object, extra)
    }

    /// With another object to bind the guest to its initdata.
    pub(crate) fn qemu_of(&self, append: &str, object: &str, extra: &[&str]) -> Running {
        let mut command = Command::new(tool("qemu/usr/bin/qemu-system-x86_64"));
        for folder in ["seabios", "qemu"] {
            command.arg("-L").arg(tool("qemu/usr/share").join(folder));
        }
        command.args([
            "-machine",
            "q35,accel=tcg",
            "-m",
            "64M",
            "-smp",
            "1",
            "-S",
            "-nodefaults",
            "-no-user-config",
        ]);
        command
            .args(["-display", "none", "-object", object, "-append", append])
            .args(extra);
        command
            .arg("-kernel")
            .arg(self.path("kernel"))
            .arg("-initrd")
            .arg(self.path("initrd"));
        command.arg("-pidfile").arg(self.path("qemu.pid"));
        let mut qemu = Running(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
        wait_for("QEMU's process id", || {
            if qemu.0.try_wait().unwrap().is_some() {
                panic!("QEMU ended: {}", qemu.stderr());
            }
            self.path("qemu.pid").exists().then_some(())
        });
        qemu
    }

    /// The launch digest that the owner of a key would compute.
    pub(crate) fn digest(&self, append: &str) -> [u8; 48] {
        snp_launch_digest(&LaunchInputs {
            firmware: &firmware(),
            kernel: &self.path("kernel"),
            initrd: &self.path("initrd"),
            cmdline: append,
            vcpus: 1,
            cpu: "EPYC-v4",
        })
        .unwrap()
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("vsock_1027")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Asks for SNP evidence as the guest does; `None` when it is refused.
    pub(crate) fn ask(&self, report_data: &[u8; 64]) -> Option<Evidence> {
        self.ask_any(report_data).map(|evidence| match evidence {
            GuestEvidence::Snp(evidence) => evidence,
            GuestEvidence::Tdx(_) => panic!("a quote"),
        })
    }

    /// The same for TDX.
    pub(crate) fn ask_td(&self, report_data: &[u8; 64]) -> Option<TdEvidence> {
        self.ask_any(report_data).map(|evidence| match evidence {
            GuestEvidence::Tdx(evidence) => evidence,
            GuestEvidence::Snp(_) => panic!("a report"),
        })
    }

    fn ask_any(&self, report_data: &[u8; 64]) -> Option<GuestEvidence> {
        let mut stream = self.connect();
        stream.write_all(report_data).unwrap();
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        let mut json = Vec::new();
        stream.read_to_end(&mut json).unwrap();
        assert_eq!(u32::try_from(json.len()).unwrap(), u32::from_le_bytes(len));
        (!json.is_empty()).then(|| GuestEvidence::from_json(&json).unwrap())
    }

    /// Verifies as a broker does that believes this platform's root.
    pub(crate) fn verify(&self, evidence: &Evidence, report_data: &[u8; 64]) -> Result<Verified, VerifyError> {
        let ark = fs::read_to_string(self.path("state/ark.pem")).unwrap();
        let anchors = Anchors::amd().with_simulated_pem(&ark).unwrap();
        verify(
            evidence,
            &anchors,
            &Expected {
                report_data,
                host_data: Some(&HOST_DATA),
                vmpl: 0,
            },
        )
    }
}

impl Machine {
    /// The registers that the owner of a key would compute.
    pub(crate) fn registers(&self, append: &str) -> TdxRegisters {
        tdx_registers(&TdxLaunchInputs {
            firmware: &tdx_firmware(),
            kernel: &self.path("kernel"),
            initrd: &self.path("initrd"),
            cmdline: append,
            memory_mib: 64,
        })
        .unwrap()
    }

    /// Verifies as a broker does that believes this platform's root and has its collateral.
    pub(crate) fn verify_td(&self, evidence: &TdEvidence, report_data: &[u8; 64]) -> Result<VerifiedTd, TdxError> {
        let root = fs::read_to_string(self.path("state/tdx/root.pem")).unwrap();
        let collateral = fs::read(self.path("state/tdx/collateral.json")).unwrap();
        let expected = TdxExpected {
            report_data,
            mr_config_id: Some(&MR_CONFIG_ID),
        };
        tdx::verify(
            &evidence.into(),
            &Collateral::from_json(&collateral).unwrap(),
            &Roots::intel().with_simulated_pem(&root).unwrap(),
            &expected,
            &TdxOptions::default(),
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap(),
        )
    }
}

/// The least that QEMU takes for a Linux kernel with an initrd: the setup header of the x86 boot protocol 2.12. With the headers
/// of an EFI program, which TDX's firmware measures.
fn bz_image() -> Vec<u8> {
    let mut image = vec![0; 64 * 1024];
    image[0x1f1] = 4; // setup sectors
    image[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020cu16.to_le_bytes());
    image[0x211] = 1; // loaded high
    image[0x22c..0x230].copy_from_slice(&0x37ff_ffffu32.to_le_bytes()); // highest address of the initrd
    image[0x238..0x23c].copy_from_slice(&0x7ffu32.to_le_bytes()); // longest command line
    let optional = 0x58;
    image[0x3c] = 0x40; // where the EFI program's header is
    image[0x40..0x44].copy_from_slice(b"PE\0\0");
    image[0x54] = 112 + 6 * 8; // length of the optional header
    image[optional..optional + 2].copy_from_slice(&0x20bu16.to_le_bytes()); // for 64 bits
    image[optional + 60..optional + 64].copy_from_slice(&0x200u32.to_le_bytes()); // length of all headers
    image[optional + 108] = 6; // data directories
    image
}

/// Asks a process to end.
pub(crate) fn terminate(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
}

/// Names left in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
