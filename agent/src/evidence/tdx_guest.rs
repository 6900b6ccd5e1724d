//! What the TDX module says of this guest, through `/dev/tdx_guest`.

use std::{fs::File, os::fd::AsFd, path::Path};

use cella_attest::tdx::LocalReport;

use super::{EvidenceError, ioctl};

/// The module's report over `report_data`. No host is between the module and the kernel.
pub(super) fn local_report(path: &Path, report_data: &[u8; 64]) -> Result<LocalReport, EvidenceError> {
    let device = File::open(path).map_err(|source| EvidenceError::Open {
        path: path.to_owned(),
        source,
    })?;
    let bytes = ioctl::tdx_report(device.as_fd(), report_data).map_err(|source| EvidenceError::TdxGuest {
        path: path.to_owned(),
        source,
    })?;
    let report = LocalReport::parse(&bytes)?;
    if report.report_data == *report_data {
        Ok(report)
    } else {
        Err(EvidenceError::LocalChallenge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_is_an_error() {
        let absent = local_report(Path::new("/nonexistent/tdx_guest"), &[0; 64]);
        assert!(matches!(absent, Err(EvidenceError::Open { .. })));
        let other = local_report(Path::new("/dev/null"), &[0; 64]);
        assert!(matches!(other, Err(EvidenceError::TdxGuest { .. })));
    }
}
