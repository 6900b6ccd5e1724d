//! What a QEMU process was told to launch, from its own command line.
//!
//! Whose bytes: those of `/proc/<pid>/cmdline`, written by whoever started QEMU. The security processor of a real machine sees what is
//! launched and not what is said about it, so this parser takes nothing on trust: each option that matters must stand exactly once,
//! and an option that could change what is launched behind its back is refused. Anything it cannot place is an error.

mod keyval;
mod options;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};

use keyval::KeyVals;
use options::Arity;
pub(crate) use options::TableLoader;

/// What QEMU launches, as far as it is measured or stands in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Kernel, as QEMU's file system names it.
    pub(crate) kernel: PathBuf,
    /// Initramfs, as QEMU's file system names it.
    pub(crate) initrd: PathBuf,
    /// Kernel command line, byte for byte.
    pub(crate) append: String,
    /// vCPUs at start, which are all there ever are.
    pub(crate) vcpus: u32,
    /// Guest policy of the launch.
    pub(crate) policy: u64,
    /// HOST_DATA of the launch; zeros when none was given.
    pub(crate) host_data: [u8; 32],
    /// The firmware that boots the kernel; none where QEMU's own does, which is not what is measured.
    pub(crate) firmware_boot: Option<FirmwareBoot>,
}

/// A guest that boots the firmware which is measured, and with it the table of kernel hashes that this firmware enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FirmwareBoot {
    /// The firmware, as QEMU's file system names it.
    pub(crate) firmware: PathBuf,
    /// The table in the guest's memory.
    pub(crate) table: TableLoader,
}

/// Why a command line is not one to make evidence for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CmdlineError {
    #[error("QEMU's command line is empty: the process has ended")]
    Empty,
    #[error("an argument of QEMU is not UTF-8")]
    NotUtf8,
    #[error("QEMU's command line lacks {option}")]
    Missing { option: &'static str },
    #[error("QEMU's command line has {option} more than once")]
    Duplicate { option: &'static str },
    #[error("QEMU's option {option} has no value")]
    NoValue { option: String },
    #[error("QEMU's argument {argument:?} is neither an option nor an option's value")]
    Stray { argument: String },
    #[error("QEMU's option {option} is refused: {reason}")]
    Refused { option: String, reason: &'static str },
    #[error("QEMU's option {option} is not understood: {reason}")]
    Value { option: &'static str, reason: &'static str },
}

impl Launch {
    /// Reads the contents of `/proc/<pid>/cmdline`: arguments, each with a NUL behind.
    pub(crate) fn parse(cmdline: &[u8]) -> Result<Self, CmdlineError> {
        let arguments = cmdline.strip_suffix(b"\0").ok_or(CmdlineError::Empty)?;
        let mut arguments = arguments.split(|byte| *byte == 0);
        let _program = arguments.next();
        let mut found = Found::default();
        while let Some(argument) = arguments.next() {
            let name = option_name(argument)?;
            match options::arity(name)? {
                Arity::Flag => {}
                Arity::Value => {
                    let no_value = || CmdlineError::NoValue {
                        option: format!("-{name}"),
                    };
                    found.option(name, arguments.next().ok_or_else(no_value)?)?;
                }
            }
        }
        found.launch()
    }
}

/// The name behind one or two dashes: QEMU takes both.
fn option_name(argument: &[u8]) -> Result<&str, CmdlineError> {
    let text = std::str::from_utf8(argument).map_err(|_| CmdlineError::NotUtf8)?;
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
    name.filter(|name| !name.is_empty()).ok_or_else(|| CmdlineError::Stray {
        argument: text.to_owned(),
    })
}

/// What was seen so far.
#[derive(Default)]
struct Found<'a> {
    kernel: Option<&'a [u8]>,
    initrd: Option<&'a [u8]>,
    append: Option<&'a str>,
    vcpus: Option<u32>,
    guest: Option<SnpGuest>,
    firmware: Option<&'a [u8]>,
    table: Option<TableLoader>,
}

impl<'a> Found<'a> {
    fn option(&mut self, name: &str, value: &'a [u8]) -> Result<(), CmdlineError> {
        let text = || std::str::from_utf8(value).map_err(|_| CmdlineError::NotUtf8);
        match name {
            "kernel" => once("-kernel", &mut self.kernel, value),
            "initrd" => once("-initrd", &mut self.initrd, value),
            "append" => once("-append", &mut self.append, text()?),
            "smp" => once("-smp", &mut self.vcpus, vcpus(text()?)?),
            "object" => match SnpGuest::parse(text()?)? {
                Some(guest) => once("-object sev-snp-guest", &mut self.guest, guest),
                None => Ok(()),
            },
            "machine" | "M" => options::check_machine(text()?),
            "bios" => once("-bios", &mut self.firmware, value),
            "device" => match options::device(text()?)? {
                Some(table) => once("-device loader", &mut self.table, table),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn launch(self) -> Result<Launch, CmdlineError> {
        let missing = |option| CmdlineError::Missing { option };
        let firmware_boot = match (self.firmware, self.table) {
            (Some(firmware), Some(table)) => Some(FirmwareBoot {
                firmware: OsStr::from_bytes(firmware).into(),
                table,
            }),
            (None, None) => None,
            (Some(_), None) => return Err(missing("-device loader, without which -bios enforces nothing")),
            (None, Some(_)) => return Err(missing("-bios, without which -device loader changes the guest")),
        };
        let SnpGuest { policy, host_data } = self.guest.ok_or(missing("-object sev-snp-guest"))?;
        Ok(Launch {
            kernel: OsStr::from_bytes(self.kernel.ok_or(missing("-kernel"))?).into(),
            initrd: OsStr::from_bytes(self.initrd.ok_or(missing("-initrd"))?).into(),
            append: self.append.ok_or(missing("-append"))?.to_owned(),
            vcpus: self.vcpus.ok_or(missing("-smp"))?,
            policy,
            host_data,
            firmware_boot,
        })
    }
}

/// Puts a value in its place, unless one is there.
fn once<T>(option: &'static str, place: &mut Option<T>, value: T) -> Result<(), CmdlineError> {
    if place.replace(value).is_some() {
        Err(CmdlineError::Duplicate { option })
    } else {
        Ok(())
    }
}

/// `-smp`: the number of vCPUs at start, which must be all.
fn vcpus(text: &str) -> Result<u32, CmdlineError> {
    let wrong = |reason| CmdlineError::Value { option: "-smp", reason };
    let values = KeyVals::parse(text, "cpus").map_err(wrong)?;
    let number = |key| match values.find(key) {
        Some(text) => decimal(text)
            .filter(|number| *number > 0)
            .map(Some)
            .ok_or(wrong("not a number of vCPUs")),
        None => Ok(None),
    };
    let known = [
        "cpus", "maxcpus", "drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads",
    ];
    if !values.keys().all(|key| known.contains(&key)) {
        return Err(wrong("an unknown key"));
    }
    let cpus = number("cpus")?.ok_or(wrong("it does not say how many vCPUs there are at start"))?;
    match number("maxcpus")? {
        Some(max) if max != cpus => Err(wrong("vCPUs could be added later")),
        _ => Ok(cpus),
    }
}

/// A decimal number as QEMU reads it: without sign, blank, or the leading zero that would make it octal.
fn decimal(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok())?
}

/// The launch parameters that QEMU would hand to the security processor.
struct SnpGuest {
    policy: u64,
    host_data: [u8; 32],
}

impl SnpGuest {
    /// Reads the value of an `-object`; `None` when it is an object of another type.
    fn parse(text: &str) -> Result<Option<Self>, CmdlineError> {
        const OPTION: &str = "-object sev-snp-guest";
        let wrong = |reason| CmdlineError::Value { option: OPTION, reason };
        if text.starts_with('{') {
            let json: serde_json::Value = serde_json::from_str(text).map_err(|_| CmdlineError::Value {
                option: "-object",
                reason: "not JSON",
            })?;
            return match json.get("qom-type").and_then(serde_json::Value::as_str) {
                Some("sev-snp-guest") => Err(wrong("only its key=value form is read")),
                _ => Ok(None),
            };
        }
        let unreadable = |reason| CmdlineError::Value {
            option: "-object",
            reason,
        };
        let values = KeyVals::parse(text, "qom-type").map_err(unreadable)?;
        if values.find("qom-type") != Some("sev-snp-guest") {
            return Ok(None);
        }
        let known = [
            "qom-type",
            "id",
            "cbitpos",
            "reduced-phys-bits",
            "policy",
            "kernel-hashes",
            "host-data",
        ];
        if !values.keys().all(|key| known.contains(&key)) {
            return Err(wrong("a property that is not simulated"));
        }
        if values.find("kernel-hashes") != Some("on") {
            return Err(wrong("without kernel-hashes=on nothing of the kernel is measured"));
        }
        // QEMU's own default: SMT allowed, no debugging.
        let policy = values
            .find("policy")
            .map_or(Some(0x30000), policy)
            .ok_or(wrong("policy is not a number"))?;
        let host_data = values.find("host-data").map_or(Some([0; 32]), host_data);
        let host_data = host_data.ok_or(wrong("host-data is not base64 of 32 bytes"))?;
        Ok(Some(Self { policy, host_data }))
    }
}

/// A guest policy, hexadecimal or decimal.
fn policy(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => decimal(text).map(u64::from),
    }
}

fn host_data(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests;
