//! The ioctls of `/dev/sev-guest` and `/dev/tdx_guest` (`linux/sev-guest.h`, `linux/tdx-guest.h`), and nothing about what they mean.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use cella_attest::tdx::LOCAL_REPORT_LEN;
use nix::errno::Errno;

/// What the security processor answers with: a header of 32 bytes and a report.
pub(super) type SevAnswer = [u8; 4000];

/// A request that the security processor or the host did not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SevFailure {
    /// The kernel's error.
    pub(super) errno: Errno,
    /// The security processor's.
    pub(super) firmware: u32,
    /// The host's.
    pub(super) hypervisor: u32,
}

/// `struct snp_report_req`.
#[repr(C)]
struct ReportRequest {
    user_data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
}

/// `struct snp_ext_report_req`.
#[repr(C)]
struct ExtendedReportRequest {
    data: ReportRequest,
    certs_address: u64,
    certs_len: u32,
}

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct GuestRequest {
    version: u8,
    request: u64,
    response: u64,
    firmware_error: u32,
    hypervisor_error: u32,
}

/// `struct tdx_report_req`.
#[repr(C)]
struct LocalReportRequest {
    report_data: [u8; 64],
    report: [u8; LOCAL_REPORT_LEN],
}

/// `_IOWR('S', 0, struct snp_guest_request_ioctl)`.
const SNP_GET_REPORT: libc::Ioctl = 0xc020_5300;
/// `_IOWR('S', 2, struct snp_guest_request_ioctl)`.
const SNP_GET_EXT_REPORT: libc::Ioctl = 0xc020_5302;
/// `_IOWR('T', 1, struct tdx_report_req)`.
const TDX_CMD_GET_REPORT0: libc::Ioctl = 0xc440_5401;
/// The privilege level that the guest runs at, and reports are of.
const VMPL: u32 = 0;

impl ReportRequest {
    fn over(report_data: &[u8; 64]) -> Self {
        Self {
            user_data: *report_data,
            vmpl: VMPL,
            reserved: [0; 28],
        }
    }
}

/// A report over `report_data`.
pub(super) fn snp_report(device: BorrowedFd<'_>, report_data: &[u8; 64]) -> Result<Box<SevAnswer>, SevFailure> {
    let request = ReportRequest::over(report_data);
    // SAFETY: the request number takes a `snp_report_req`, which this is, and it outlives the call.
    unsafe { sev_request(device, SNP_GET_REPORT, (&raw const request).expose_provenance()) }
}

/// A report over `report_data`, and the host's certificate table in `certificates`, whose length must be whole pages.
pub(super) fn snp_extended_report(
    device: BorrowedFd<'_>,
    report_data: &[u8; 64],
    certificates: &mut [u8],
) -> Result<Box<SevAnswer>, SevFailure> {
    let too_long = |_| SevFailure {
        errno: Errno::EINVAL,
        firmware: 0,
        hypervisor: 0,
    };
    let request = ExtendedReportRequest {
        data: ReportRequest::over(report_data),
        certs_address: address(certificates.as_mut_ptr().expose_provenance()),
        certs_len: u32::try_from(certificates.len()).map_err(too_long)?,
    };
    // SAFETY: the request number takes a `snp_ext_report_req`, which this is; it and the buffer that it names with its length, borrowed
    // mutably, outlive the call.
    unsafe { sev_request(device, SNP_GET_EXT_REPORT, (&raw const request).expose_provenance()) }
}

/// Sends one request.
///
/// # Safety
/// `request` must be the address of what the kernel reads for `number`, and whatever that names must be valid for the call.
unsafe fn sev_request(
    device: BorrowedFd<'_>,
    number: libc::Ioctl,
    request: usize,
) -> Result<Box<SevAnswer>, SevFailure> {
    let mut answer = Box::new([0; size_of::<SevAnswer>()]);
    let mut message = GuestRequest {
        version: 1,
        request: address(request),
        response: address(answer.as_mut_ptr().expose_provenance()),
        firmware_error: 0,
        hypervisor_error: 0,
    };
    // SAFETY: both request numbers read and write one `snp_guest_request_ioctl`, borrowed for the call; the request is as the caller promises;
    // the response is a buffer of `snp_report_resp`'s length that nothing else refers to.
    let result = Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), number, &raw mut message) });
    match result {
        Ok(_) => Ok(answer),
        Err(errno) => Err(SevFailure {
            errno,
            firmware: message.firmware_error,
            hypervisor: message.hypervisor_error,
        }),
    }
}

/// The TDX module's own report over `report_data`.
pub(super) fn tdx_report(device: BorrowedFd<'_>, report_data: &[u8; 64]) -> Result<[u8; LOCAL_REPORT_LEN], Errno> {
    let mut request = Box::new(LocalReportRequest {
        report_data: *report_data,
        report: [0; LOCAL_REPORT_LEN],
    });
    // SAFETY: the request number reads and writes one `tdx_report_req`, which this is, borrowed for the call.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), TDX_CMD_GET_REPORT0, &raw mut *request) })?;
    Ok(request.report)
}

/// An address as the kernel takes it.
fn address(pointer: usize) -> u64 {
    u64::try_from(pointer).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    /// Direction (read and write), length, letter, number: how `_IOWR` puts them together.
    fn iowr<T>(letter: u8, number: u64) -> u64 {
        (3 << 30) | (u64::try_from(size_of::<T>()).unwrap() << 16) | (u64::from(letter) << 8) | number
    }

    #[test]
    fn structures_and_numbers_are_the_kernels() {
        assert_eq!(size_of::<ReportRequest>(), 96);
        assert_eq!(size_of::<ExtendedReportRequest>(), 112);
        assert_eq!(size_of::<GuestRequest>(), 32);
        assert_eq!(size_of::<LocalReportRequest>(), 64 + 1024);
        assert_eq!(SNP_GET_REPORT, iowr::<GuestRequest>(b'S', 0));
        assert_eq!(SNP_GET_EXT_REPORT, iowr::<GuestRequest>(b'S', 2));
        assert_eq!(TDX_CMD_GET_REPORT0, iowr::<LocalReportRequest>(b'T', 1));
    }

    #[test]
    fn what_is_no_such_device_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        let none = SevFailure {
            errno: Errno::ENOTTY,
            firmware: 0,
            hypervisor: 0,
        };
        assert_eq!(snp_report(file.as_fd(), &[0; 64]), Err(none));
        assert_eq!(snp_extended_report(file.as_fd(), &[0; 64], &mut [0; 4096]), Err(none));
        assert_eq!(tdx_report(file.as_fd(), &[0; 64]), Err(Errno::ENOTTY));
    }
}
