//! Evidence from `cella-sim-platform`, over vsock to the host's port 1027. Development hosts only.
//!
//! Exchange: 64 bytes of report data out; back comes a u32 (little endian) length and that many bytes of JSON. Length 0
//! means that the platform refuses. Everything is bounded in size and time.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use cella_attest::{GuestEvidence, Launched};
use vsock::{VMADDR_CID_HOST, VsockStream};

use super::{EvidenceError, EvidenceSource};

/// The simulated platform on the host.
#[derive(Debug, Default)]
pub struct SimPlatform;

impl EvidenceSource for SimPlatform {
    fn launched(&self) -> Result<Launched, EvidenceError> {
        Ok(Launched::of_evidence(&self.quote(&[0; 64])?)?)
    }

    fn quote(&self, report_data: &[u8; 64]) -> Result<GuestEvidence, EvidenceError> {
        let stream = connect().map_err(|source| EvidenceError::Platform {
            what: "connecting",
            source,
        })?;
        for set in [VsockStream::set_read_timeout, VsockStream::set_write_timeout] {
            set(&stream, Some(TIMEOUT)).map_err(|source| EvidenceError::Platform {
                what: "setting the time limit",
                source,
            })?;
        }
        exchange(stream, report_data)
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

/// Connects, up to [`CONNECT_TRIES`] times. vhost-device-vsock 0.3 now and then loses the answer to a guest's connection
/// request while the guest's driver is coming up (seen once in about sixty boots); the kernel gives up on it after 2 seconds.
fn connect() -> io::Result<VsockStream> {
    let mut tries = 1..CONNECT_TRIES;
    loop {
        match VsockStream::connect_with_cid_port(VMADDR_CID_HOST, cella_protos::SIM_PLATFORM_PORT) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && tries.next().is_some() => {}
            done => return done,
        }
    }
}

/// One request and its answer over any byte stream.
pub fn exchange(mut stream: impl Read + Write, report_data: &[u8; 64]) -> Result<GuestEvidence, EvidenceError> {
    stream
        .write_all(report_data)
        .map_err(|source| EvidenceError::Platform {
            what: "asking for a report",
            source,
        })?;
    let mut length = [0; 4];
    stream
        .read_exact(&mut length)
        .map_err(|source| EvidenceError::Platform {
            what: "waiting for its answer",
            source,
        })?;
    let length = u32::from_le_bytes(length);
    if length == 0 {
        return Err(EvidenceError::Refused);
    }
    let size = usize::try_from(length).ok().filter(|_| length <= MAX_ANSWER);
    let mut json = vec![
        0;
        size.ok_or(EvidenceError::Length {
            length,
            limit: MAX_ANSWER
        })?
    ];
    stream.read_exact(&mut json).map_err(|source| EvidenceError::Platform {
        what: "reading its answer",
        source,
    })?;
    Ok(GuestEvidence::from_json(&json)?)
}

/// Largest answer: a report and three certificates are about 7 KiB of JSON, a quote with its event log about 10 KiB.
const MAX_ANSWER: u32 = 64 * 1024;

/// Connection attempts of 2 seconds each.
const CONNECT_TRIES: u32 = 4;

/// Longest silence. The platform hashes kernel and firmware on the first request.
const TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use cella_attest::{Evidence, TdEvidence};

    use super::*;

    /// A platform with a prepared answer.
    struct Platform {
        asked: Vec<u8>,
        answer: Cursor<Vec<u8>>,
    }

    impl Read for Platform {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.answer.read(into)
        }
    }

    impl Write for Platform {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            self.asked.write(from)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ask(answer: &[u8]) -> Result<GuestEvidence, EvidenceError> {
        exchange(
            Platform {
                asked: Vec::new(),
                answer: Cursor::new(answer.to_vec()),
            },
            &[7; 64],
        )
    }

    fn framed(json: &[u8]) -> Vec<u8> {
        let length = u32::try_from(json.len()).unwrap();
        [&length.to_le_bytes(), json].concat()
    }

    fn snp() -> GuestEvidence {
        GuestEvidence::Snp(Evidence {
            report: vec![1; 1184],
            chain: vec![vec![2; 10]],
        })
    }

    fn tdx() -> GuestEvidence {
        GuestEvidence::Tdx(TdEvidence {
            quote: vec![4; 5000],
            event_log: Some(vec![5; 500]),
        })
    }

    #[test]
    fn evidence_comes_through() {
        for evidence in [snp(), tdx()] {
            assert_eq!(ask(&framed(&evidence.to_json().unwrap())).unwrap(), evidence);
        }
    }

    #[test]
    fn what_is_not_an_answer_is_an_error() {
        assert!(matches!(ask(&[0; 4]), Err(EvidenceError::Refused)));
        assert!(matches!(
            ask(&u32::MAX.to_le_bytes()),
            Err(EvidenceError::Length { length: u32::MAX, .. })
        ));
        assert!(matches!(
            ask(&(MAX_ANSWER + 1).to_le_bytes()),
            Err(EvidenceError::Length { .. })
        ));
        assert!(matches!(ask(&framed(b"{}")), Err(EvidenceError::Malformed(_))));
        for evidence in [snp(), tdx()] {
            let whole = framed(&evidence.to_json().unwrap());
            for length in 0..whole.len() {
                assert!(
                    matches!(ask(&whole[..length]), Err(EvidenceError::Platform { .. })),
                    "{length}"
                );
            }
        }
    }
}
