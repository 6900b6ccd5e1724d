//! A folder with a platform, a paused QEMU, and files for it to launch.

use std::{
    env, fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cella_attest::{
    Anchors, Evidence, Expected, Verified, VerifyError,
    measure::{LaunchInputs, snp_launch_digest},
    verify,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest wait for anything. The machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const HOST_DATA: [u8; 32] = [7; 32];

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
        let child = self
            .serve_command()
            .arg("--qemu-pidfile")
            .arg(self.path("qemu.pid"))
            .spawn()
            .unwrap();
        wait_for("the socket", || self.path("vsock_1027").exists().then_some(()));
        Running(child)
    }

    /// The service's command line, but for QEMU's process id.
    pub(crate) fn serve_command(&self) -> Command {
        let mut command = platform();
        command.args(["serve", "--state"]).arg(self.path("state"));
        command.arg("--socket").arg(self.path("vsock_1027"));
        command.arg("--firmware").arg(firmware()).stderr(Stdio::piped());
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
            .args(["-display", "none", "-object", &object, "-append", append])
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

    /// Asks for evidence as the guest does; `None` when it is refused.
    pub(crate) fn ask(&self, report_data: &[u8; 64]) -> Option<Evidence> {
        let mut stream = self.connect();
        stream.write_all(report_data).unwrap();
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        let mut json = Vec::new();
        stream.read_to_end(&mut json).unwrap();
        assert_eq!(u32::try_from(json.len()).unwrap(), u32::from_le_bytes(len));
        (!json.is_empty()).then(|| Evidence::from_json(&json).unwrap())
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

/// The least that QEMU takes for a Linux kernel with an initrd: the setup header of the x86 boot protocol 2.12.
fn bz_image() -> Vec<u8> {
    let mut image = vec![0; 64 * 1024];
    image[0x1f1] = 4; // setup sectors
    image[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020cu16.to_le_bytes());
    image[0x211] = 1; // loaded high
    image[0x22c..0x230].copy_from_slice(&0x37ff_ffffu32.to_le_bytes()); // highest address of the initrd
    image[0x238..0x23c].copy_from_slice(&0x7ffu32.to_le_bytes()); // longest command line
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
