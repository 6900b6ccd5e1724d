//! A tar reader for image layers: ustar, GNU long names, PAX records. Parses bytes that nobody has authenticated yet.
//!
//! A layer's digests are known only at its end, so this reader and what unpacks its members must stand anything: every
//! length is bounded before memory is taken for it, no name is interpreted, nothing panics. It does no I/O of its own but
//! reading its input, front to back.
//!
//! Errors name no member: the file names of an encrypted image are secret, and errors reach the host.

use std::io::{self, Read};

use tar::{EntryType, Header};

/// tar's block size.
const BLOCK: usize = 512;

/// Longest path and link target, as Linux takes them.
const MAX_PATH: u64 = 4096;

/// Longest block of PAX records: the kernel's limit for one extended attribute is 64 KiB.
const MAX_RECORDS: u64 = 1 << 20;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file with `size` bytes of data.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to `link`.
    Symlink,
    /// Another name of the member `link`.
    HardLink,
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
}

/// One member, its name as it stands in the archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// What it is.
    pub(crate) kind: Kind,
    /// Name, at most 4096 bytes, not checked further.
    pub(crate) path: Vec<u8>,
    /// Target of a link, at most 4096 bytes, not checked further; empty without one.
    pub(crate) link: Vec<u8>,
    /// Permission bits, set-id bits included.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Modification time, seconds since 1970.
    pub(crate) mtime: i64,
    /// Bytes of data; 0 for everything but files.
    pub(crate) size: u64,
    /// Value of the extended attribute `security.capability`.
    pub(crate) capability: Option<Vec<u8>>,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ArchiveError {
    /// The input failed.
    #[error("reading the archive failed")]
    Read(#[source] io::Error),
    /// The bytes are not an archive that is understood.
    #[error("{what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
}

/// An archive that is read member by member.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    input: R,
    /// Data of the current member not read so far.
    data: u64,
    /// What fills its last block.
    padding: u64,
}

impl<R: Read> Archive<R> {
    /// Reads `input`, which must stand at the archive's first byte.
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            data: 0,
            padding: 0,
        }
    }

    /// The next member; `None` at the end marker or the end of the input. Unread data of the last one is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, ArchiveError> {
        let mut extra = Extra::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return if extra.is_empty() {
                    Ok(None)
                } else {
                    Err(malformed("the end comes where a member should"))
                };
            };
            let size = header
                .entry_size()
                .map_err(|_| malformed("a member's size is not a number"))?;
            match header.entry_type() {
                EntryType::GNULongName => extra.path = Some(self.name(size)?),
                EntryType::GNULongLink => extra.link = Some(self.name(size)?),
                EntryType::XHeader => {
                    let records = self.block(size, MAX_RECORDS, "a member's PAX records are longer than 1 MiB")?;
                    extra.records(&records)?;
                }
                EntryType::XGlobalHeader => {
                    self.block(size, MAX_RECORDS, "global PAX records are longer than 1 MiB")?;
                }
                _ => return self.member(&header, size, extra).map(Some),
            }
        }
    }

    /// The data of the current member.
    pub(crate) fn data(&mut self) -> Data<'_, R> {
        Data { archive: self }
    }

    /// The input, wherever it stands.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    fn member(&mut self, header: &Header, size: u64, extra: Extra) -> Result<Member, ArchiveError> {
        let path = extra.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = match header.entry_type() {
            // Archives older than POSIX mark a directory by its name only.
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => Kind::Device,
            EntryType::GNUSparse => return Err(malformed("sparse members are not supported")),
            _ => return Err(malformed("a member's type is unknown")),
        };
        let link = match (kind, extra.link) {
            (Kind::Symlink | Kind::HardLink, Some(link)) => link,
            (Kind::Symlink | Kind::HardLink, None) => header
                .link_name_bytes()
                .map_or_else(Vec::new, std::borrow::Cow::into_owned),
            _ => Vec::new(),
        };
        // As every writer of image layers has it, only files carry data, whatever the size field of others says.
        let size = if kind == Kind::File {
            extra.size.unwrap_or(size)
        } else {
            0
        };
        self.expect(size)?;
        let id = |given: Option<u64>, field: io::Result<u64>| {
            let id = given.map_or_else(|| field.map_err(|_| malformed("an owner is not a number")), Ok)?;
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or(malformed("an owner is larger than 32 bits"))
        };
        let mtime = match extra.mtime {
            Some(mtime) => mtime,
            None => header
                .mtime()
                .ok()
                .and_then(|mtime| i64::try_from(mtime).ok())
                .unwrap_or(0),
        };
        Ok(Member {
            kind,
            path,
            link,
            mode: header.mode().map_err(|_| malformed("a mode is not a number"))? & 0o7777,
            uid: id(extra.uid, header.uid())?,
            gid: id(extra.gid, header.gid())?,
            mtime,
            size,
            capability: extra.capability,
        })
    }

    /// The next header; `None` at a block of zeros or at the end of the input.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        let mut filled = 0;
        while filled < BLOCK {
            let rest = header.as_mut_bytes().get_mut(filled..).unwrap_or_default();
            match self.input.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(malformed("it ends within a header")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The sum is over the header with blanks in the place of the sum.
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        match header.cksum() {
            Ok(expected) if expected == sum => Ok(Some(header)),
            _ => Err(malformed("a header's checksum is wrong")),
        }
    }

    fn name(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut name = self.block(size, MAX_PATH + 1, "a path is longer than 4096 bytes")?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn block(&mut self, size: u64, max: u64, too_long: &'static str) -> Result<Vec<u8>, ArchiveError> {
        let length = usize::try_from(size)
            .ok()
            .filter(|_| size <= max)
            .ok_or(malformed(too_long))?;
        self.expect(size)?;
        let mut bytes = vec![0; length];
        self.data().read_exact(&mut bytes).map_err(ArchiveError::Read)?;
        Ok(bytes)
    }

    fn expect(&mut self, size: u64) -> Result<(), ArchiveError> {
        let block = u64::try_from(BLOCK).unwrap_or(512);
        let blocks = size
            .checked_next_multiple_of(block)
            .ok_or(malformed("a member's size is out of range"))?;
        self.data = size;
        self.padding = blocks - size;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), ArchiveError> {
        let mut scratch = [0; 4096];
        loop {
            let left = self.data.saturating_add(self.padding);
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(scratch.len());
            if take == 0 {
                return Ok(());
            }
            let part = scratch.get_mut(..take).unwrap_or_default();
            self.input.read_exact(part).map_err(ArchiveError::Read)?;
            let taken = u64::try_from(take).unwrap_or(left);
            self.padding -= taken.saturating_sub(self.data).min(self.padding);
            self.data = self.data.saturating_sub(taken);
        }
    }
}

/// The data of one member.
#[derive(Debug)]
pub(crate) struct Data<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let take = usize::try_from(self.archive.data)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if take == 0 {
            return Ok(0);
        }
        let part = buffer.get_mut(..take).unwrap_or_default();
        let read = self.archive.input.read(part)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.archive.data -= u64::try_from(read).unwrap_or(self.archive.data);
        Ok(read)
    }
}

/// What the members before a member say about it.
#[derive(Debug, Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    capability: Option<Vec<u8>>,
    any: bool,
}

impl Extra {
    fn is_empty(&self) -> bool {
        !self.any && self.path.is_none() && self.link.is_none()
    }

    /// Takes PAX records: `<decimal length of the record> <key>=<value>\n`, values may hold any byte.
    fn records(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        self.any = true;
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or(malformed("a PAX record is malformed"))?;
            bytes = rest;
            match key {
                b"path" => self.path = Some(path(value)?),
                b"linkpath" => self.link = Some(path(value)?),
                b"size" => self.size = Some(number(value)?),
                b"uid" => self.uid = Some(number(value)?),
                b"gid" => self.gid = Some(number(value)?),
                b"mtime" => self.mtime = Some(seconds(value)?),
                b"SCHILY.xattr.security.capability" => self.capability = Some(value.to_vec()),
                _ if key.starts_with(b"GNU.sparse.") => return Err(malformed("sparse members are not supported")),
                _ => {}
            }
        }
        Ok(())
    }
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = str::from_utf8(bytes.get(..blank)?).ok()?.parse().ok()?;
    let (body, rest) = (bytes.get(blank + 1..length)?, bytes.get(length..)?);
    let body = body.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((body.get(..equals)?, body.get(equals + 1..)?, rest))
}

fn path(value: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    match u64::try_from(value.len()) {
        Ok(length) if length <= MAX_PATH => Ok(value.to_vec()),
        _ => Err(malformed("a path is longer than 4096 bytes")),
    }
}

fn number(value: &[u8]) -> Result<u64, ArchiveError> {
    let number = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or(malformed("a PAX number is malformed"))
}

/// `1700000000.25`: the fraction is dropped.
fn seconds(value: &[u8]) -> Result<i64, ArchiveError> {
    let text = str::from_utf8(value).ok().and_then(|text| text.split('.').next());
    text.and_then(|text| text.parse().ok())
        .ok_or(malformed("a PAX time is malformed"))
}

fn malformed(what: &'static str) -> ArchiveError {
    ArchiveError::Malformed { what }
}

#[cfg(test)]
mod tests;
