//! The defence switched off: a distribution's kernel, as other stacks boot it, on the same hostile hardware. What its drivers and its
//! AML interpreter do there is what Cella's kernel has no code for.
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cella_tests::{Fixture, process::succeed, process::wait_until};

use crate::hardware::Hardware;

/// What a usual kernel did.
#[derive(Debug, Clone)]
pub(crate) struct Stock {
    /// Its version.
    pub(crate) version: String,
    /// Drivers that took a device of the host's.
    pub(crate) drivers: Vec<String>,
    /// The table wrote to the port, and to memory.
    pub(crate) table_ran: (bool, bool),
    /// MiB that the balloon left it.
    pub(crate) balloon_mib: u64,
    /// MiB of memory before memory was plugged, and after.
    pub(crate) memory_mib: (u64, u64),
    /// What it says of swap, core dumps and kexec.
    pub(crate) leftovers: Vec<String>,
}

/// Modules for the devices; what the kernel has built in is passed over.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_balloon",
    "virtio_rng",
    "virtio_console",
    "virtio_scsi",
    "9pnet_virtio",
    "9p",
    "nvme",
    "xhci_pci",
    "e1000",
];

const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
for m in $(cat /modules/order); do insmod /modules/$m 2>/dev/null; done
sleep 1
echo "@VERSION $(uname -r)"
for d in /sys/bus/pci/devices/*/driver /sys/bus/virtio/devices/*/driver; do [ -e "$d" ] && echo "@DRIVER $(basename $(readlink -f $d))"; done
[ -b /dev/nvme0n1 ] && mkswap /dev/nvme0n1 >/dev/null && swapon /dev/nvme0n1 && grep -q nvme /proc/swaps && echo "@LEFT swap on the host's disk"
echo /tmp/core > /proc/sys/kernel/core_pattern; ulimit -c unlimited; sh -c 'kill -SEGV $$'; ls /tmp/core* >/dev/null 2>&1 && echo "@LEFT a core dump of a process that crashed"
[ -e /sys/kernel/kexec_loaded ] && echo "@LEFT kexec"
grep -q disk /sys/power/state && echo "@LEFT hibernation"
echo "@READY"
while :; do awk '/MemTotal/ { print "@TOTAL", int($2 / 1024) }' /proc/meminfo; sleep 1; done
"#;

/// Boots it, plays with balloon and memory, and ends it.
pub(crate) fn run(f: &Fixture) -> Result<Stock> {
    let initrd = initrd(f)?;
    let hardware = Hardware::new(f)?;
    let console = f.stack.path(&f.stack.fresh("stock-console"));
    let mut machine = Machine(command(f, &hardware, &initrd, &console)?.spawn().context("QEMU")?);
    let seen = watch(&mut machine, &hardware, &console).with_context(|| {
        let text = fs::read_to_string(&console).unwrap_or_default();
        let tail: Vec<_> = text.lines().rev().take(20).collect();
        format!("the usual kernel's console, last line first: {}", tail.join(" | "))
    })?;
    Ok(seen)
}

fn command(f: &Fixture, hardware: &Hardware, initrd: &Path, console: &Path) -> Result<Command> {
    let mut command = Command::new(f.stack.var("QEMU"));
    let data = Path::new(f.stack.var("QEMU"))
        .ancestors()
        .nth(2)
        .context("QEMU's place")?
        .join("share");
    for folder in ["seabios", "qemu"] {
        command.arg("-L").arg(data.join(folder));
    }
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-vga",
            "none",
        ])
        .args([
            "-machine",
            "q35,smm=off,usb=off,memory-backend=mem0",
            "-accel",
            "tcg",
            "-cpu",
            "max,-erms,-fsrm,-avx2,-vaes",
        ])
        .args(["-smp", "1", "-m", "512M,slots=2,maxmem=4G"])
        .args(["-object", "memory-backend-memfd,id=mem0,size=512M,share=on"])
        .arg("-kernel")
        .arg(kernel(f)?.0)
        .arg("-initrd")
        .arg(initrd)
        .args([
            "-append",
            "console=ttyS0 quiet panic=-1 memhp_default_state=online tsc=reliable no_timer_check",
        ])
        .arg("-chardev")
        .arg(format!("file,id=console0,path={}", console.display()))
        .args(["-serial", "chardev:console0"])
        .args(hardware.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(command)
}

fn watch(machine: &mut Machine, hardware: &Hardware, console: &Path) -> Result<Stock> {
    let all = |what: &str| -> Vec<String> {
        let text = String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned();
        text.lines()
            .filter_map(|line| line.trim().strip_prefix(what)?.strip_prefix(' ').map(str::to_owned))
            .collect()
    };
    let total = || all("@TOTAL").last().and_then(|text| text.parse::<u64>().ok());
    wait_until(Duration::from_secs(120), || {
        ensure!(machine.0.try_wait()?.is_none(), "QEMU ended");
        Ok(total().map(drop))
    })?;
    let mut monitor = hardware.monitor()?;
    let before = total().context("memory")?;
    monitor.squeeze(256)?;
    let balloon = wait_until(Duration::from_secs(30), || {
        Ok(Some(monitor.balloon_mib()?).filter(|mib| *mib <= 260))
    })?;
    // What the balloon takes is missing from MemTotal, what is plugged comes to it.
    let squeezed = wait_until(
        Duration::from_secs(30),
        || Ok(total().filter(|mib| *mib + 250 < before)),
    )?;
    monitor.plug(128)?;
    let after = wait_until(Duration::from_secs(30), || {
        Ok(total().filter(|mib| *mib > squeezed + 64))
    })?;
    let mut drivers = all("@DRIVER");
    drivers.sort();
    drivers.dedup();
    let memory = monitor.table_wrote_memory()?;
    Ok(Stock {
        version: all("@VERSION").pop().context("version")?,
        drivers,
        table_ran: (hardware.port().contains(&b'!'), memory),
        balloon_mib: balloon,
        memory_mib: (squeezed, after),
        leftovers: all("@LEFT"),
    })
}

/// The kernel and the folder of its modules.
fn kernel(f: &Fixture) -> Result<(PathBuf, PathBuf)> {
    let root = PathBuf::from(f.stack.var("STOCK_KERNEL"));
    let only = |folder: PathBuf, prefix: &str| -> Result<PathBuf> {
        let mut found = fs::read_dir(&folder)
            .with_context(|| format!("{}: run make attacks", folder.display()))?
            .flatten();
        let entry = found.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        Ok(entry
            .with_context(|| format!("no {prefix} in {}", folder.display()))?
            .path())
    };
    Ok((
        only(root.join("boot"), "vmlinuz-")?,
        only(root.join("lib/modules"), "")?,
    ))
}

/// An initramfs of busybox, the modules and the script.
fn initrd(f: &Fixture) -> Result<PathBuf> {
    let root = f.stack.path(&f.stack.fresh("stock"));
    for folder in ["bin", "proc", "sys", "dev", "tmp", "modules"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox-static")?;
    for tool in [
        "sh", "mount", "insmod", "sleep", "uname", "basename", "readlink", "mkswap", "swapon", "grep", "awk", "ls",
        "cat", "kill",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(tool))?;
    }
    let (_, modules) = kernel(f)?;
    let mut order = Vec::new();
    for module in MODULES {
        add_module(&modules, module, &root.join("modules"), &mut order)?;
    }
    fs::write(root.join("modules/order"), order.join("\n") + "\n")?;
    let init = root.join("init");
    fs::write(&init, INIT)?;
    succeed(Command::new("chmod").arg("755").arg(&init), Duration::from_secs(5))?;
    let archive = root.with_extension("cpio");
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "-o", "-H", "newc"])
        .current_dir(&root)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&archive)?)
        .spawn()
        .context("cpio")?;
    let mut names = Vec::new();
    list(&root, &root, &mut names)?;
    cpio.stdin
        .take()
        .context("cpio")?
        .write_all(names.join("\n").as_bytes())?;
    ensure!(cpio.wait()?.success(), "cpio failed");
    Ok(archive)
}

fn list(root: &Path, folder: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        names.push(entry.path().strip_prefix(root)?.to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            list(root, &entry.path(), names)?;
        }
    }
    Ok(())
}

/// Copies a module and what it depends on, dependencies first. One that is not there is built in, or the distribution has none.
fn add_module(tree: &Path, name: &str, to: &Path, order: &mut Vec<String>) -> Result<()> {
    let file = format!("{name}.ko");
    if order.contains(&file) {
        return Ok(());
    }
    let Some(path) = find(&tree.join("kernel"), &file)?.or(find(&tree.join("kernel"), &file.replace('_', "-"))?) else {
        return Ok(());
    };
    let mut info = Command::new("modinfo");
    let depends = succeed(info.args(["-F", "depends"]).arg(&path), Duration::from_secs(10))?;
    for dependency in depends.trim().split(',').filter(|name| !name.is_empty()) {
        add_module(tree, dependency, to, order)?;
    }
    fs::copy(&path, to.join(&file))?;
    order.push(file);
    Ok(())
}

fn find(folder: &Path, file: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&entry.path(), file)? {
                return Ok(Some(found));
            }
        } else if entry.file_name().to_string_lossy() == file {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Killed when it is not needed any more.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
