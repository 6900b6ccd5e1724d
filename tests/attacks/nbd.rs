//! A block device whose bytes the host changes between two reads: an NBD server (the protocol's "newstyle" handshake) that QEMU takes the
//! initdata disk from. It counts how often each sector was read.
use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use anyhow::{Context, Result};

const SECTOR: usize = 512;

/// What it holds: the first read of a sector gives one image's bytes, each later one the other's.
pub(crate) struct Device {
    first: Vec<u8>,
    later: Vec<u8>,
    reads: Mutex<Vec<u32>>,
}

impl Device {
    pub(crate) fn new(mut first: Vec<u8>, mut later: Vec<u8>) -> Self {
        let size = first.len().max(later.len()).next_multiple_of(SECTOR);
        first.resize(size, 0);
        later.resize(size, 0);
        Self {
            first,
            later,
            reads: Mutex::new(vec![0; size / SECTOR]),
        }
    }

    /// The bytes of a read, as the host gives them now.
    pub(crate) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length);
        let Ok(mut reads) = self.reads.lock() else { return out };
        // QEMU itself looks at the first sector when it makes the disk, to guess a geometry.
        if (offset, length) == (0, SECTOR) && reads.iter().all(|count| *count == 0) {
            return self.first.get(..SECTOR).unwrap_or_default().to_vec();
        }
        let (mut at, end) = (offset, offset.saturating_add(length).min(self.first.len()));
        while at < end {
            let sector = at / SECTOR;
            let upto = ((sector + 1) * SECTOR).min(end);
            let count = reads.get_mut(sector);
            let image = if count.as_ref().is_none_or(|count| **count == 0) {
                &self.first
            } else {
                &self.later
            };
            out.extend_from_slice(image.get(at..upto).unwrap_or_default());
            if let Some(count) = count {
                *count += 1;
            }
            at = upto;
        }
        out
    }

    /// How often each sector was read.
    pub(crate) fn reads(&self) -> Vec<u32> {
        self.reads.lock().map(|reads| reads.clone()).unwrap_or_default()
    }

    /// Serves it on a socket until the process ends or the socket is removed.
    pub(crate) fn serve(self: &Arc<Self>, socket: PathBuf) -> Result<()> {
        let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
        let device = Arc::clone(self);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let device = Arc::clone(&device);
                thread::spawn(move || device.session(stream).ok());
            }
        });
        Ok(())
    }

    fn session(&self, mut stream: UnixStream) -> Result<()> {
        self.handshake(&mut stream)?;
        loop {
            let mut request = [0; 28];
            stream.read_exact(&mut request)?;
            let field = |from: usize, to: usize| {
                request
                    .get(from..to)
                    .unwrap_or_default()
                    .iter()
                    .fold(0_u64, |n, b| n << 8 | u64::from(*b))
            };
            let (kind, offset, length) = (
                field(6, 8),
                usize::try_from(field(16, 24))?,
                usize::try_from(field(24, 28))?,
            );
            let cookie = request.get(8..16).unwrap_or_default();
            let data = match kind {
                READ => self.read(offset, length.min(1 << 20)),
                DISCONNECT => return Ok(()),
                _ => Vec::new(),
            };
            let error: u32 = if kind == READ { 0 } else { 22 };
            stream.write_all(&[&REPLY.to_be_bytes()[..], &error.to_be_bytes(), cookie, &data].concat())?;
        }
    }

    fn handshake(&self, stream: &mut UnixStream) -> Result<()> {
        stream.write_all(&[&b"NBDMAGICIHAVEOPT"[..], &3_u16.to_be_bytes()].concat())?;
        stream.read_exact(&mut [0; 4])?;
        loop {
            let mut head = [0; 16];
            stream.read_exact(&mut head)?;
            let [.., o0, o1, o2, o3, l0, l1, l2, l3] = head;
            let option = u32::from_be_bytes([o0, o1, o2, o3]);
            let mut data = vec![0; usize::try_from(u32::from_be_bytes([l0, l1, l2, l3]))?.min(1 << 16)];
            stream.read_exact(&mut data)?;
            let mut reply = |kind: u32, body: &[u8]| {
                let length = u32::try_from(body.len()).unwrap_or_default();
                let parts = [
                    &OPTION_REPLY.to_be_bytes()[..],
                    &option.to_be_bytes(),
                    &kind.to_be_bytes(),
                    &length.to_be_bytes(),
                    body,
                ];
                stream.write_all(&parts.concat())
            };
            match option {
                GO | INFO => {
                    let size = u64::try_from(self.first.len())?;
                    reply(
                        REPLY_INFO,
                        &[&0_u16.to_be_bytes()[..], &size.to_be_bytes(), &FLAGS.to_be_bytes()].concat(),
                    )?;
                    reply(REPLY_ACK, &[])?;
                    if option == GO {
                        return Ok(());
                    }
                }
                _ => reply(REPLY_UNSUPPORTED, &[])?,
            }
        }
    }
}

const INFO: u32 = 6;
const GO: u32 = 7;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
/// Flags are there; read-only.
const FLAGS: u16 = 3;
const REPLY: u32 = 0x6744_6698;
const READ: u64 = 0;
const DISCONNECT: u64 = 2;

/// QEMU's `-blockdev` for it, in the place of the shim's.
pub(crate) fn blockdev(socket: &Path) -> String {
    format!(
        "driver=nbd,node-name=initdata0,server.type=unix,server.path={},read-only=on",
        socket.display()
    )
}
