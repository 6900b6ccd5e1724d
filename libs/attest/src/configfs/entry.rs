//! One entry in configfs-tsm: a directory whose files the kernel makes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::QuoteError;

/// What a quote needs of an entry. Tests put a kernel of their own behind it.
pub(super) trait Entry {
    fn path(&self) -> &Path;
    /// Reads an attribute; one of more than `max` bytes is an error.
    fn read(&self, attribute: &str, max: usize) -> io::Result<Vec<u8>>;
    /// Writes an attribute with a single write(2), which is how the kernel takes it.
    fn write(&self, attribute: &str, value: &[u8]) -> io::Result<()>;
}

/// An entry in a file system. Dropping it removes it; configfs takes the attributes along.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn create(root: &Path) -> Result<Self, QuoteError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!("cella-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = root.join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(QuoteError::Create { path, source }),
            }
        }
    }
}

impl Entry for Dir {
    fn path(&self) -> &Path {
        &self.0
    }

    fn read(&self, attribute: &str, max: usize) -> io::Result<Vec<u8>> {
        let limit = u64::try_from(max).map_or(u64::MAX, |max| max.saturating_add(1));
        let mut out = Vec::new();
        File::open(self.0.join(attribute))?.take(limit).read_to_end(&mut out)?;
        if out.len() > max {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            Ok(out)
        }
    }

    fn write(&self, attribute: &str, value: &[u8]) -> io::Result<()> {
        let written = OpenOptions::new()
            .write(true)
            .open(self.0.join(attribute))?
            .write(value)?;
        if written == value.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Nothing is left to do when it fails: an entry without a writer holds a few hundred bytes of kernel memory.
        let _ = fs::remove_dir(&self.0);
    }
}
