//! Hardware that a hostile host puts into a machine: an ACPI table that is a program, devices that nobody asked for, a balloon, memory
//! to plug, and a second monitor to pull the strings.
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use cella_tests::{Fixture, attacker, process::wait_until};
use serde_json::{Value, json};

/// Where the table writes: an I/O port behind which a file takes each byte, and the low memory of the guest.
const PORT: u16 = 0x4f2;
const ADDRESS: u16 = 0x600;
const MAGIC: &[u8; 4] = b"EVIL";

/// The hardware's files, in a folder of the stack.
pub(crate) struct Hardware {
    dir: PathBuf,
}

impl Hardware {
    pub(crate) fn new(f: &Fixture) -> Result<Self> {
        let dir = f.stack.path(&f.stack.fresh("evil"));
        fs::create_dir(&dir)?;
        fs::create_dir(dir.join("share"))?;
        fs::write(dir.join("ssdt.aml"), table())?;
        fs::File::create(dir.join("disk"))?.set_len(16 << 20)?;
        Ok(Self { dir })
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// QEMU's arguments for all of it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let line = [
            format!("-acpitable file={}", self.file("ssdt.aml")),
            format!("-chardev file,id=evilport,path={}", self.file("port")),
            format!("-device isa-debugcon,iobase={PORT:#x},chardev=evilport"),
            "-device virtio-balloon-pci,id=evilballoon".to_owned(),
            "-device virtio-rng-pci".to_owned(),
            "-device virtio-serial-pci".to_owned(),
            "-device virtio-scsi-pci".to_owned(),
            format!(
                "-fsdev local,id=evilshare,path={},security_model=none",
                self.file("share")
            ),
            "-device virtio-9p-pci,fsdev=evilshare,mount_tag=evil".to_owned(),
            format!("-blockdev file,node-name=evildisk,filename={}", self.file("disk")),
            "-device nvme,drive=evildisk,serial=evil".to_owned(),
            "-device qemu-xhci".to_owned(),
            "-device e1000,romfile=".to_owned(),
            format!(
                "-chardev socket,id=evilmonitor,path={},server=on,wait=off",
                self.file("qmp")
            ),
            "-mon chardev=evilmonitor,mode=control".to_owned(),
        ];
        line.iter()
            .flat_map(|option| option.split(' ').map(str::to_owned))
            .collect()
    }

    /// A QEMU that puts all of it into the shim's machine, with room for memory to be plugged.
    pub(crate) fn wrapper(&self, f: &Fixture) -> Result<PathBuf> {
        let more = self.arguments().join("' '");
        attacker::qemu_wrapper(
            &f.stack,
            &format!(
                "for a in \"$@\"; do [[ $a =~ ^[0-9]+M$ ]] && a+=,slots=2,maxmem=4G; args+=(\"$a\"); done\nexec \"$QEMU\" \"${{args[@]}}\" '{more}'"
            ),
        )
    }

    /// The second monitor.
    pub(crate) fn monitor(&self) -> Result<Monitor> {
        Monitor::connect(&self.dir.join("qmp"))
    }

    /// What the table has written to its port.
    pub(crate) fn port(&self) -> Vec<u8> {
        fs::read(self.dir.join("port")).unwrap_or_default()
    }
}

/// A monitor of QEMU.
pub(crate) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to the one on this socket, as soon as it is there.
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let stream = wait_until(Duration::from_secs(20), || Ok(UnixStream::connect(path).ok()))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
        };
        monitor.line()?; // the greeting
        monitor.run("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("from QEMU's monitor: {line:?}"))
    }

    /// Runs a command; events that come before its answer are passed over.
    pub(crate) fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                bail!(
                    "{command}: {}",
                    error.get("desc").and_then(Value::as_str).unwrap_or_default()
                );
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Whether the table's word stands in the guest's memory.
    pub(crate) fn table_wrote_memory(&mut self) -> Result<bool> {
        let shown = self.run(
            "human-monitor-command",
            json!({"command-line": format!("xp /4xb {ADDRESS:#x}")}),
        )?;
        let bytes: Vec<String> = MAGIC.iter().map(|byte| format!("{byte:#04x}")).collect();
        Ok(shown.as_str().unwrap_or_default().contains(&bytes.join(" ")))
    }

    /// What the balloon leaves the guest, in MiB.
    pub(crate) fn balloon_mib(&mut self) -> Result<u64> {
        let answer = self.run("query-balloon", json!({}))?;
        Ok(answer.get("actual").and_then(Value::as_u64).context("no balloon")? >> 20)
    }

    /// Blows the balloon up.
    pub(crate) fn squeeze(&mut self, leave_mib: u64) -> Result<()> {
        self.run("balloon", json!({"value": leave_mib << 20})).map(drop)
    }

    /// Plugs memory in.
    pub(crate) fn plug(&mut self, mib: u64) -> Result<()> {
        let backend = json!({"qom-type": "memory-backend-memfd", "id": "evilmemory", "size": mib << 20, "share": true});
        self.run("object-add", backend)?;
        let dimm = json!({"driver": "pc-dimm", "id": "evildimm", "memdev": "evilmemory"});
        self.run("device_add", dimm).map(drop)
    }
}

/// An SSDT whose code runs when it is loaded: it writes `!` to the port and `EVIL` to memory.
fn table() -> Vec<u8> {
    let [port_low, port_high] = PORT.to_le_bytes();
    let [low, high] = ADDRESS.to_le_bytes();
    let mut code = Vec::new();
    // OperationRegion (EVIO, SystemIO, PORT, 1); Field (EVIO, ByteAcc) { EVIP, 8 }
    code.extend([0x5b, 0x80]);
    code.extend(b"EVIO");
    code.extend([0x01, 0x0b, port_low, port_high, 0x01, 0x5b, 0x81, 0x0b]);
    code.extend(b"EVIO\x01EVIP\x08");
    // OperationRegion (EVMR, SystemMemory, ADDRESS, 4); Field (EVMR, DWordAcc) { EVMF, 32 }
    code.extend([0x5b, 0x80]);
    code.extend(b"EVMR");
    code.extend([0x00, 0x0b, low, high, 0x0a, 0x04, 0x5b, 0x81, 0x0b]);
    code.extend(b"EVMR\x03EVMF\x20");
    // Store ('!', EVIP); Store (MAGIC, EVMF)
    code.extend([0x70, 0x0a, b'!']);
    code.extend(b"EVIP");
    code.extend([0x70, 0x0c]);
    code.extend(MAGIC);
    code.extend(b"EVMF");
    let length = u32::try_from(36 + code.len()).unwrap_or(u32::MAX);
    let mut table = b"SSDT".to_vec();
    table.extend(length.to_le_bytes());
    table.extend([2, 0]);
    table.extend(b"EVIL  EVILTABL\x01\0\0\0EVIL\x01\0\0\0");
    table.extend(code);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = table.get_mut(9) {
        *checksum = sum.wrapping_neg();
    }
    table
}
