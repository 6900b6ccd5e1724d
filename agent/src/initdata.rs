//! Finds the initdata disk and takes its bytes into private memory, once.
//!
//! The host chooses disks and contents. A disk counts by its serial number, exactly one may have it, and none other may
//! carry the magic: two candidates would let a reader and a verifier see different ones. The chosen disk is read a single
//! time, up to a bound; everything later works on the copy (threats T8, T9). Inflating and parsing are
//! `cella_policy::initdata`'s business.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use cella_policy::initdata::MAX_COMPRESSED;

/// The bytes of the one initdata disk. `sys` and `dev` are `/sys` and `/dev` outside tests.
pub fn read(sys: &Path, dev: &Path) -> Result<Vec<u8>, DiskError> {
    let mut chosen = Vec::new();
    let mut strangers = Vec::new();
    for name in disks(sys)? {
        let serial = fs::read(sys.join("block").join(&name).join("serial")).unwrap_or_default();
        if serial.trim_ascii() == SERIAL {
            chosen.push(name)
        } else {
            strangers.push(name)
        }
    }
    let [name] = chosen.as_slice() else {
        return Err(if chosen.is_empty() {
            DiskError::Missing
        } else {
            DiskError::Several {
                names: chosen.join(", "),
            }
        });
    };
    let bytes = copy(sys, dev, name)?;
    for stranger in strangers {
        if starts_with_magic(&dev.join(&stranger)) {
            return Err(DiskError::Stranger { name: stranger });
        }
    }
    Ok(bytes)
}

/// Why there is no initdata.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// No disk has the serial number.
    #[error("no disk with the serial number initdata is attached")]
    Missing,
    /// More than one has it.
    #[error("several disks have the serial number initdata: {names}")]
    Several {
        /// Their names.
        names: String,
    },
    /// Another disk holds something that looks like initdata.
    #[error("disk {name} carries initdata but not its serial number")]
    Stranger {
        /// Its name.
        name: String,
    },
    /// Larger than any initdata.
    #[error("the initdata disk {name} has {bytes} bytes; {MAX_DISK} are allowed")]
    TooLarge {
        /// Its name.
        name: String,
        /// Its size as the kernel tells it.
        bytes: u64,
    },
    /// It could not be read.
    #[error("reading {what} failed")]
    Read {
        /// What was being read.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Names of virtio disks, in a fixed order.
fn disks(sys: &Path) -> Result<Vec<String>, DiskError> {
    let failed = |source| DiskError::Read {
        what: "the list of disks".to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(sys.join("block")).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.to_str().filter(|name| name.starts_with("vd")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn copy(sys: &Path, dev: &Path, name: &str) -> Result<Vec<u8>, DiskError> {
    let failed = |source| DiskError::Read {
        what: format!("disk {name}"),
        source,
    };
    let sectors = fs::read_to_string(sys.join("block").join(name).join("size")).map_err(failed)?;
    let sectors: u64 = sectors
        .trim()
        .parse()
        .map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    let bytes = sectors.saturating_mul(SECTOR);
    if bytes > MAX_DISK {
        return Err(DiskError::TooLarge {
            name: name.to_owned(),
            bytes,
        });
    }
    let mut content = Vec::new();
    File::open(dev.join(name))
        .and_then(|disk| disk.take(bytes).read_to_end(&mut content))
        .map_err(failed)?;
    Ok(content)
}

/// A disk that cannot be read carries nothing.
fn starts_with_magic(disk: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    File::open(disk)
        .and_then(|mut disk| disk.read_exact(&mut start))
        .is_ok()
        && start == *MAGIC
}

const SERIAL: &[u8] = b"initdata";
const MAGIC: &[u8; 8] = b"initdata";
const SECTOR: u64 = 512;

/// Header, the largest compressed document, padding to whole sectors.
const MAX_DISK: u64 = (16 + MAX_COMPRESSED as u64).next_multiple_of(SECTOR);

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    struct Disk(&'static str, &'static str, Vec<u8>);

    fn machine(disks: &[Disk]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sys/block/loop0")).unwrap();
        fs::create_dir_all(dir.path().join("dev")).unwrap();
        for Disk(name, serial, content) in disks {
            let entry = dir.path().join("sys/block").join(name);
            fs::create_dir_all(&entry).unwrap();
            fs::write(entry.join("serial"), serial).unwrap();
            fs::write(entry.join("size"), format!("{}\n", content.len() / 512)).unwrap();
            fs::write(dir.path().join("dev").join(name), content).unwrap();
        }
        dir
    }

    fn read_from(dir: &TempDir) -> Result<Vec<u8>, DiskError> {
        read(&dir.path().join("sys"), &dir.path().join("dev"))
    }

    fn sectors(start: &[u8], count: usize) -> Vec<u8> {
        let mut content = start.to_vec();
        content.resize(count * 512, 0);
        content
    }

    #[test]
    fn the_disk_is_found_by_its_serial_number() {
        let content = sectors(b"initdata...", 2);
        let dir = machine(&[
            Disk("vda", "other", sectors(b"", 1)),
            Disk("vdb", "initdata\n", content.clone()),
        ]);
        assert_eq!(read_from(&dir).unwrap(), content);
    }

    #[test]
    fn none_and_two_are_refused() {
        assert!(matches!(read_from(&machine(&[])), Err(DiskError::Missing)));
        let other = machine(&[Disk("vda", "Initdata", sectors(b"initdata", 1))]);
        assert!(matches!(read_from(&other), Err(DiskError::Missing)));
        let two = machine(&[
            Disk("vda", "initdata", sectors(b"initdata", 1)),
            Disk("vdb", "initdata", sectors(b"initdata", 1)),
        ]);
        let error = read_from(&two).unwrap_err();
        assert_eq!(
            error.to_string(),
            "several disks have the serial number initdata: vda, vdb"
        );
    }

    #[test]
    fn a_second_disk_with_the_magic_is_refused() {
        let dir = machine(&[
            Disk("vda", "initdata", sectors(b"initdata", 1)),
            Disk("vdb", "", sectors(b"initdata", 1)),
        ]);
        assert!(matches!(read_from(&dir), Err(DiskError::Stranger { name }) if name == "vdb"));
    }

    #[test]
    fn a_large_disk_is_not_read() {
        let fits = usize::try_from(MAX_DISK / 512).unwrap();
        assert!(read_from(&machine(&[Disk("vda", "initdata", sectors(b"initdata", fits))])).is_ok());
        let dir = machine(&[Disk("vda", "initdata", sectors(b"initdata", fits + 1))]);
        assert!(matches!(read_from(&dir), Err(DiskError::TooLarge { .. })));
        fs::write(dir.path().join("sys/block/vda/size"), "99999999999999999999").unwrap();
        assert!(matches!(read_from(&dir), Err(DiskError::Read { .. })));
    }
}
