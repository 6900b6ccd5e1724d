//! What a QEMU process was told to launch, from its own command line.
//!
//! Whose bytes: those of `/proc/<pid>/cmdline`, written by whoever started QEMU. The security processor of a real machine sees what is
//! launched and not what is said about it, so this parser takes nothing on trust: each option that matters must stand exactly once,
//! and an option that could change what is launched behind its back is refused. Anything it cannot place is an error.

mod guest;
mod keyval;
mod options;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

pub(crate) use guest::GuestObject;
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
    /// Memory in MiB; none where the command line does not say how much, or leaves room for more, which SNP does not measure.
    pub(crate) memory_mib: Option<u64>,
    /// What would protect the guest, with what is bound to it.
    pub(crate) guest: GuestObject,
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
    memory_mib: Option<Option<u64>>,
    guest: Option<GuestObject>,
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
            "m" => once("-m", &mut self.memory_mib, memory_mib(text()?)?),
            "object" => match GuestObject::parse(text()?)? {
                Some(guest) => once(GUEST, &mut self.guest, guest),
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
        let guest = self.guest.ok_or(missing(GUEST))?;
        if firmware_boot.is_some() && matches!(guest, GuestObject::Tdx { .. }) {
            return Err(CmdlineError::Refused {
                option: "-bios".to_owned(),
                reason: "the firmware for TDX measures nothing where there is no TDX",
            });
        }
        Ok(Launch {
            kernel: OsStr::from_bytes(self.kernel.ok_or(missing("-kernel"))?).into(),
            initrd: OsStr::from_bytes(self.initrd.ok_or(missing("-initrd"))?).into(),
            append: self.append.ok_or(missing("-append"))?.to_owned(),
            vcpus: self.vcpus.ok_or(missing("-smp"))?,
            memory_mib: self.memory_mib.flatten(),
            guest,
            firmware_boot,
        })
    }
}

/// In errors: an object of a kind that this platform imitates.
const GUEST: &str = "-object that binds a guest to its initdata";

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

/// `-m`: the memory in whole MiB, if what there is at start is all there ever is.
fn memory_mib(text: &str) -> Result<Option<u64>, CmdlineError> {
    let wrong = |reason| CmdlineError::Value { option: "-m", reason };
    let values = KeyVals::parse(text, "size").map_err(wrong)?;
    if !values.keys().all(|key| ["size", "slots", "maxmem"].contains(&key)) {
        return Err(wrong("an unknown key"));
    }
    let size = values.find("size").unwrap_or_default();
    let (number, unit) = match size.strip_suffix(['G', 'g']) {
        Some(number) => (number, 1024),
        None => (size.strip_suffix(['M', 'm']).unwrap_or(size), 1),
    };
    let mib = decimal(number).and_then(|number| u64::from(number).checked_mul(unit));
    let mib = mib.filter(|mib| *mib > 0).ok_or(wrong("not a number of MiB or GiB"))?;
    Ok(values.keys().all(|key| key == "size").then_some(mib))
}

#[cfg(test)]
mod tests;
