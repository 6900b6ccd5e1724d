//! SNP reports through `/dev/sev-guest`, for kernels without configfs-tsm.
//!
//! Whose bytes: the report is the security processor's; the certificates are the host's, who may hand out none.

use std::{fs::OpenOptions, os::fd::AsFd, path::Path};

use cella_attest::{
    configfs::{Provider, RawEvidence},
    snp::REPORT_LEN,
};

use super::{
    EvidenceError,
    ioctl::{self, SevAnswer, SevFailure},
};

/// Room for the host's certificates: the most that the kernel takes, in whole pages.
const MAX_CERTIFICATES: usize = 16 * 1024;
/// Status, length, reserved bytes before the report.
const HEADER: usize = 32;

/// A report over `report_data`.
pub(super) fn quote(path: &Path, report_data: &[u8; 64]) -> Result<RawEvidence, EvidenceError> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| EvidenceError::Open {
            path: path.to_owned(),
            source,
        })?;
    let mut table = vec![0; MAX_CERTIFICATES];
    // A host that serves no extended requests, or has more certificates than fit, still has a security processor.
    let (answer, certs) = match ioctl::snp_extended_report(device.as_fd(), report_data, &mut table) {
        Ok(answer) => (answer, there(table)),
        Err(_) => {
            let answer = ioctl::snp_report(device.as_fd(), report_data).map_err(|failure| refused(path, failure))?;
            (answer, None)
        }
    };
    Ok(RawEvidence {
        provider: Provider::SevGuest,
        report: report(path, &answer)?,
        certs,
    })
}

fn refused(path: &Path, failure: SevFailure) -> EvidenceError {
    let SevFailure {
        errno,
        firmware,
        hypervisor,
    } = failure;
    EvidenceError::SevGuest {
        path: path.to_owned(),
        firmware,
        hypervisor,
        source: errno,
    }
}

/// The report in the security processor's answer: status u32, length u32, 24 bytes, report.
fn report(path: &Path, answer: &SevAnswer) -> Result<Vec<u8>, EvidenceError> {
    let [a, b, c, d, e, f, g, h, ..] = *answer;
    let (status, size) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    let report = answer.get(HEADER..HEADER + REPORT_LEN);
    match report {
        Some(report) if status == 0 && usize::try_from(size) == Ok(REPORT_LEN) => Ok(report.to_vec()),
        _ => Err(EvidenceError::SevAnswer {
            path: path.to_owned(),
            status,
            size,
        }),
    }
}

/// The table, unless it is the nothing that the buffer was filled with.
fn there(table: Vec<u8>) -> Option<Vec<u8>> {
    table.iter().any(|byte| *byte != 0).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u32, size: u32) -> SevAnswer {
        let mut answer = [0; 4000];
        answer[..4].copy_from_slice(&status.to_le_bytes());
        answer[4..8].copy_from_slice(&size.to_le_bytes());
        answer[HEADER..HEADER + REPORT_LEN].fill(7);
        answer
    }

    #[test]
    fn the_report_is_cut_out() {
        let path = Path::new("/dev/sev-guest");
        assert_eq!(report(path, &answer(0, 1184)).unwrap(), vec![7; 1184]);
        for (status, size) in [(0x16, 1184), (0, 0), (0, 1183), (0, u32::MAX)] {
            let error = report(path, &answer(status, size)).unwrap_err();
            assert!(matches!(error, EvidenceError::SevAnswer { .. }), "{error}");
        }
    }

    #[test]
    fn no_certificates_are_none() {
        assert_eq!(there(vec![0; MAX_CERTIFICATES]), None);
        assert!(there(vec![0, 0, 1]).is_some());
    }

    #[test]
    fn what_is_no_device_is_an_error() {
        let absent = quote(Path::new("/nonexistent/sev-guest"), &[0; 64]);
        assert!(matches!(absent, Err(EvidenceError::Open { .. })));
        let other = quote(Path::new("/dev/null"), &[0; 64]);
        assert!(matches!(other, Err(EvidenceError::SevGuest { firmware: 0, .. })));
    }
}
