//! What the kernel says about memory: `MemAvailable` and `/proc/<pid>/smaps`.
//!
//! Both texts come from the guest's own kernel, which is trusted; unknown lines are passed over, so that another kernel
//! release does not turn a figure into a failure. All sizes are bytes.

use std::{fs, io, ops::Range, path::Path};

/// What could be given to programs without swapping: `MemAvailable` of `/proc/meminfo`.
pub(crate) fn available_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    available(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no line MemAvailable"))
}

fn available(meminfo: &str) -> Option<u64> {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(kilobytes)
}

/// Which file a mapping shows: the kernel's device and inode numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    /// Device number, major and minor.
    pub(crate) device: (u64, u64),
    /// Inode number on that device.
    pub(crate) inode: u64,
}

impl FileId {
    /// The identity of what `metadata` was taken from.
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let device = metadata.dev();
        Self {
            device: (nix::sys::stat::major(device), nix::sys::stat::minor(device)),
            inode: metadata.ino(),
        }
    }
}

/// One mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Addresses.
    pub(crate) range: Range<u64>,
    /// The file behind it.
    pub(crate) file: FileId,
    /// The process may write to it.
    pub(crate) writable: bool,
    /// Length of the address range.
    pub(crate) size: u64,
    /// What is in memory.
    pub(crate) rss: u64,
    /// The same, shared pages divided by the number of processes that map them.
    pub(crate) pss: u64,
    /// The part of `pss` that is locked.
    pub(crate) locked: u64,
    /// What is mapped in 2 MiB pages.
    pub(crate) huge: u64,
    /// Two-letter flags of the kernel, such as `lo` (locked) and `dd` (not in core dumps).
    pub(crate) flags: Vec<String>,
}

impl Mapping {
    /// Whether the kernel shows `flag`.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|found| found == flag)
    }
}

/// The mappings of the process whose folder under `/proc` is `process`.
pub(crate) fn mappings(process: &Path) -> io::Result<Vec<Mapping>> {
    Ok(parse_smaps(&fs::read_to_string(process.join("smaps"))?))
}

/// Whether the process maps one of `files`: a cheap look before [`mappings`].
pub(crate) fn maps_any(process: &Path, files: &[FileId]) -> io::Result<bool> {
    let text = fs::read_to_string(process.join("maps"))?;
    Ok(text
        .lines()
        .filter_map(header)
        .any(|mapping| files.contains(&mapping.file)))
}

fn parse_smaps(text: &str) -> Vec<Mapping> {
    let mut found: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(mapping) = header(line) {
            found.push(mapping);
            continue;
        }
        let (Some((name, value)), Some(mapping)) = (line.split_once(':'), found.last_mut()) else {
            continue;
        };
        let field = match name {
            "Size" => &mut mapping.size,
            "Rss" => &mut mapping.rss,
            "Pss" => &mut mapping.pss,
            "Locked" => &mut mapping.locked,
            "ShmemPmdMapped" => &mut mapping.huge,
            "VmFlags" => {
                mapping.flags = value.split_whitespace().map(str::to_owned).collect();
                continue;
            }
            _ => continue,
        };
        *field = kilobytes(value).unwrap_or(0);
    }
    found
}

/// `7f0000000000-7f0000200000 rw-s 00000000 00:2b 17   /run/x`
fn header(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next().filter(|text| text.len() == 4)?;
    let _offset = words.next()?;
    let (major, minor) = words.next()?.split_once(':')?;
    let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
    Some(Mapping {
        range: hexadecimal(start)?..hexadecimal(end)?,
        file: FileId {
            device: (hexadecimal(major)?, hexadecimal(minor)?),
            inode: words.next()?.parse().ok()?,
        },
        writable: permissions.contains('w'),
        size: 0,
        rss: 0,
        pss: 0,
        locked: 0,
        huge: 0,
        flags: Vec::new(),
    })
}

/// `   1024 kB`
fn kilobytes(value: &str) -> Option<u64> {
    value
        .trim()
        .strip_suffix("kB")?
        .trim_end()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f1200000000-7f1200400000 r--s 00000000 00:2b 17                         /run/cella/models/ready/0/m.gguf
Size:               4096 kB
KernelPageSize:        4 kB
Rss:                4096 kB
Pss:                2048 kB
Pss_Dirty:             0 kB
ShmemPmdMapped:     2048 kB
Locked:             2048 kB
THPeligible:           1
VmFlags: rd sh mr mw me ms lo dc dd sd
7ffd0000-7ffd1000 rw-p 00000000 00:00 0                                  [stack]
Size:                  4 kB
VmFlags: rd wr mr
";

    #[test]
    fn smaps_give_each_mapping_with_its_figures() {
        let found = parse_smaps(SMAPS);
        assert_eq!(found.len(), 2);
        let model = &found[0];
        assert_eq!(model.range, 0x7f12_0000_0000..0x7f12_0040_0000);
        assert_eq!(
            model.file,
            FileId {
                device: (0, 0x2b),
                inode: 17
            }
        );
        assert_eq!(
            (model.size, model.rss, model.pss, model.locked),
            (4 << 20, 4 << 20, 2 << 20, 2 << 20)
        );
        assert_eq!(model.huge, 2 << 20);
        assert!(model.has("lo") && model.has("dd") && !model.has("wr") && !model.writable);
        assert!(found[1].writable);
    }

    #[test]
    fn available_memory_is_found_in_bytes() {
        assert_eq!(available("MemTotal:  1000 kB\nMemAvailable:   600 kB\n"), Some(614_400));
        assert_eq!(available("MemTotal:  1000 kB\n"), None);
    }

    #[test]
    fn the_running_kernel_is_understood() {
        assert!(available_memory().unwrap() > 0);
        let mine = mappings(Path::new("/proc/self")).unwrap();
        assert!(
            mine.iter()
                .any(|mapping| mapping.rss > 0 && mapping.size >= mapping.rss)
        );
    }
}
