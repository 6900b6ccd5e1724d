//! The hybrid protocol's answer: `OK <host port>\n`, taken byte by byte so that nothing after it is swallowed.
//!
//! Pure: bytes in, progress out. The bytes are the backend's, and thereby in part the guest's.

/// Longest answer, newline included: `OK 4294967295\n` and some slack.
const MAX_LINE: usize = 32;

/// Reads the answer to `CONNECT <port>\n`.
#[derive(Debug, Default)]
pub struct Handshake {
    line: Vec<u8>,
}

/// What is known after a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The line goes on.
    More,
    /// The line is complete; the next byte belongs to the stream.
    Done {
        /// The backend's own port for the connection.
        host_port: u32,
    },
}

/// An answer that is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// No newline in sight.
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// Anything but `OK` and a port.
    #[error("the line is not \"OK <port>\"")]
    NotOk,
}

impl Handshake {
    /// The request for `port`.
    pub fn request(port: u32) -> String {
        format!("CONNECT {port}\n")
    }

    /// Takes one byte of the answer.
    ///
    /// # Errors
    /// The line is too long or does not say `OK <port>`. The connection is of no use then.
    pub fn push(&mut self, byte: u8) -> Result<Progress, HandshakeError> {
        if byte != b'\n' {
            self.line.push(byte);
            return if self.line.len() < MAX_LINE {
                Ok(Progress::More)
            } else {
                Err(HandshakeError::TooLong)
            };
        }
        let digits = self.line.strip_prefix(b"OK ").ok_or(HandshakeError::NotOk)?;
        let digits = std::str::from_utf8(digits).map_err(|_| HandshakeError::NotOk)?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(HandshakeError::NotOk);
        }
        let host_port = digits.parse().map_err(|_| HandshakeError::NotOk)?;
        Ok(Progress::Done { host_port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(bytes: &[u8]) -> Result<Progress, HandshakeError> {
        let mut handshake = Handshake::default();
        let mut last = Ok(Progress::More);
        for byte in bytes {
            last = handshake.push(*byte);
            if last != Ok(Progress::More) {
                break;
            }
        }
        last
    }

    #[test]
    fn a_good_line() {
        assert_eq!(Handshake::request(1024), "CONNECT 1024\n");
        assert_eq!(feed(b"OK 1073741824\n"), Ok(Progress::Done { host_port: 1 << 30 }));
    }

    #[test]
    fn truncated_at_every_byte_is_never_done() {
        let line = b"OK 4294967295\n";
        for cut in 0..line.len() {
            assert_eq!(feed(&line[..cut]), Ok(Progress::More), "cut at {cut}");
        }
    }

    #[test]
    fn one_bit_flipped_is_an_error_or_another_number() {
        let line = *b"OK 12\n";
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut bad = line;
                bad[at] ^= 1 << bit;
                assert_ne!(feed(&bad), Ok(Progress::Done { host_port: 12 }), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [
            &b"\n"[..],
            b"OK\n",
            b"OK \n",
            b"OK -1\n",
            b"OK +1\n",
            b"OK 1 \n",
            b"OK 4294967296\n",
            b"ok 1\n",
            b"OK \xff\n",
        ] {
            assert_eq!(feed(bad), Err(HandshakeError::NotOk), "{bad:?}");
        }
        assert_eq!(feed(&[b'A'; 64]), Err(HandshakeError::TooLong));
    }
}
