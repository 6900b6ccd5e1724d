//! QEMU's options: which take a value, and which would launch something else than `-kernel`, `-initrd` and `-append` say.

use std::path::PathBuf;

use super::{CmdlineError, keyval::KeyVals};

/// Whether an option takes the next argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arity {
    Flag,
    Value,
}

/// Options without a value (QEMU 10). Every other option has one. An option that is missing here would swallow the next
/// one, whose own value then stands alone and is refused.
const FLAGS: &[&str] = &[
    "S",
    "async-teardown",
    "daemonize",
    "enable-kvm",
    "enable-sync-profile",
    "full-screen",
    "h",
    "help",
    "jitdump",
    "mem-prealloc",
    "no-fd-bootchk",
    "no-reboot",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "nographic",
    "only-migratable",
    "perfmap",
    "snapshot",
    "usb",
    "version",
    "win2k-hack",
];

/// Options that are not simulated, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("dtb", "it adds what is not measured"),
    ("fw_cfg", "it adds what is not measured"),
    ("gdb", "a debugger changes what was measured"),
    ("incoming", "the guest would be another than the one that is named"),
    ("loadvm", "the guest would be another than the one that is named"),
    ("option-rom", "it adds what is not measured"),
    (
        "pflash",
        "the firmware of a simulated launch is the platform's --firmware",
    ),
    ("preconfig", "the launch is changed after the start"),
    ("readconfig", "it can name another kernel"),
    ("s", "a debugger changes what was measured"),
    ("set", "it can change what another option said"),
    ("shim", "it adds what is not measured"),
    ("xen-attach", "the guest would be another than the one that is named"),
];

/// Says whether an option takes a value, or refuses it.
pub(super) fn arity(name: &str) -> Result<Arity, CmdlineError> {
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(CmdlineError::Refused {
            option: format!("-{name}"),
            reason,
        });
    }
    Ok(if FLAGS.contains(&name) {
        Arity::Flag
    } else {
        Arity::Value
    })
}

/// `-machine` can carry what `-kernel`, `-initrd`, `-append` and `-smp` carry, and microvm changes the command line by itself.
pub(super) fn check_machine(text: &str) -> Result<(), CmdlineError> {
    let values = KeyVals::parse(text, "type").map_err(|reason| CmdlineError::Value {
        option: "-machine",
        reason,
    })?;
    let refused = |reason| {
        Err(CmdlineError::Refused {
            option: "-machine".to_owned(),
            reason,
        })
    };
    let launches = [
        "kernel", "initrd", "append", "shim", "dtb", "firmware", "igvm-cfg", "pflash0", "pflash1",
    ];
    if values
        .keys()
        .any(|key| launches.contains(&key) || key == "smp" || key.starts_with("smp."))
    {
        return refused("it says what is launched beside the options for that");
    }
    if values.find("type") == Some("microvm") && values.find("auto-kernel-cmdline") != Some("off") {
        return refused("microvm appends to the command line unless auto-kernel-cmdline=off");
    }
    Ok(())
}

/// A file with the table of kernel hashes, and where a `-device loader` puts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableLoader {
    /// The file, as QEMU's file system names it.
    pub(crate) file: PathBuf,
    /// Guest-physical address.
    pub(crate) gpa: u64,
}

/// Loader devices write files into the guest's memory: the only one that is read is the one that stands for what QEMU itself does for an SNP guest.
pub(super) fn device(text: &str) -> Result<Option<TableLoader>, CmdlineError> {
    let wrong = |reason| CmdlineError::Value {
        option: "-device",
        reason,
    };
    let driver = if text.starts_with('{') {
        let json: serde_json::Value = serde_json::from_str(text).map_err(|_| wrong("not JSON"))?;
        json.get("driver")
            .and_then(serde_json::Value::as_str)
            .map(str::to_owned)
    } else {
        // Devices are read by QEMU's older parser, in which a key may stand alone: only the driver matters here.
        let first = text.split(',').next().unwrap_or_default();
        Some(first.strip_prefix("driver=").unwrap_or(first).to_owned())
    };
    match driver.as_deref() {
        Some("loader") => table_loader(text).map(Some).ok_or_else(|| CmdlineError::Refused {
            option: "-device loader".to_owned(),
            reason: "it writes into the guest's memory, and not as file=…,addr=0x…,force-raw=on the table of kernel hashes",
        }),
        Some("generic-loader" | "guest-loader") => Err(CmdlineError::Refused {
            option: "-device loader".to_owned(),
            reason: "it writes into the guest's memory",
        }),
        Some(name) if !name.is_empty() && !name.contains('=') => Ok(None),
        _ => Err(wrong("it does not begin with a driver")),
    }
}

fn table_loader(text: &str) -> Option<TableLoader> {
    let values = KeyVals::parse(text, "driver").ok()?;
    let known = ["driver", "file", "addr", "force-raw"];
    let raw = values.find("force-raw") == Some("on") && values.keys().all(|key| known.contains(&key));
    let gpa = values.find("addr")?.strip_prefix("0x")?;
    raw.then_some(TableLoader {
        file: values.find("file")?.into(),
        gpa: u64::from_str_radix(gpa, 16).ok()?,
    })
}
