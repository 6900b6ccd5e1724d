//! The report, byte by byte. It is a record of fixed size with no lengths inside: parsing takes the bytes in order.

use crate::hex_bytes::Hex;

use super::{Product, TcbVersion};

/// Length of a report in bytes.
pub const REPORT_LEN: usize = 0x4a0;
/// Length of the part at its start that the signature covers.
pub const SIGNED_LEN: usize = 0x2a0;

/// Length of one half of the signature in the report: little endian, zero above the 48 bytes of a P-384 scalar.
const SCALAR_FIELD: usize = 72;
/// Bytes of a P-384 scalar.
const SCALAR: usize = 48;

/// A parsed report. It keeps the bytes that came, and only those are ever verified.
///
/// Parsing says nothing about who made the report: that is [`crate::verify()`].
#[derive(Clone)]
pub struct Report {
    raw: [u8; REPORT_LEN],
    /// Version of the structure: 2 to 5.
    pub version: u32,
    /// Guest policy, the bits `POLICY_*` of [`crate::snp`].
    pub policy: u64,
    /// Privilege level of the code that asked for the report: 0 is the most privileged.
    pub vmpl: u32,
    /// Key that signed.
    pub signing_key: SigningKey,
    /// What the guest asked to have signed.
    pub report_data: [u8; 64],
    /// Launch digest.
    pub measurement: [u8; 48],
    /// What the host bound to the guest at launch: for Cella the digest of initdata.
    pub host_data: [u8; 32],
    /// Chip's identity. Zero with a VLEK, or when the host masks it.
    pub chip_id: [u8; 64],
    /// Processor, version 3 and later.
    pub cpuid: Option<Cpuid>,
    /// How the platform is configured, the bits `PLATFORM_*` of [`crate::snp`].
    pub platform_info: u64,
    /// Firmware mitigations in effect, version 5 and later.
    pub mitigations: Option<Mitigations>,
    reported_tcb: [u8; 8],
    launch_tcb: [u8; 8],
    r: [u8; SCALAR],
    s: [u8; SCALAR],
}

impl Report {
    /// Reads a report. Pure; no signature is looked at.
    ///
    /// # Errors
    /// [`ReportError`] for a wrong length, an unknown version or algorithm, or nonzero bytes where none may be; never a panic.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let raw: [u8; REPORT_LEN] = bytes
            .try_into()
            .map_err(|_| ReportError::Length { found: bytes.len() })?;
        let mut at = Cursor(&raw);
        let version = at.u32()?;
        if !(2..=5).contains(&version) {
            return Err(ReportError::Version { found: version });
        }
        let _guest_svn = at.u32()?;
        let policy = at.u64()?;
        let _family_and_image_id: [u8; 32] = at.take()?;
        let vmpl = at.u32()?;
        let algorithm = at.u32()?;
        if algorithm != 1 {
            return Err(ReportError::Algorithm { found: algorithm });
        }
        let _current_tcb: [u8; 8] = at.take()?;
        let platform_info = at.u64()?;
        let signing_key = SigningKey::from_key_info(at.u32()?)?;
        let _reserved = at.u32()?;
        let report_data = at.take()?;
        let measurement = at.take()?;
        let host_data = at.take()?;
        let _id_and_author_key_digests: [u8; 96] = at.take()?;
        let _report_id_and_of_migration_agent: [u8; 64] = at.take()?;
        let reported_tcb = at.take()?;
        let [family, model, stepping] = at.take()?;
        let _reserved: [u8; 21] = at.take()?;
        let chip_id = at.take()?;
        let _committed_tcb_and_firmware_versions: [u8; 16] = at.take()?;
        let launch_tcb = at.take()?;
        let (launch, current) = (at.u64()?, at.u64()?);
        let _reserved: [u8; 152] = at.take()?;
        let r = at.scalar("r")?;
        let s = at.scalar("s")?;
        if at.0.iter().any(|byte| *byte != 0) {
            return Err(ReportError::Trailing);
        }
        let cpuid = (version >= 3).then_some(Cpuid {
            family,
            model,
            stepping,
        });
        Ok(Self {
            raw,
            version,
            policy,
            vmpl,
            signing_key,
            report_data,
            measurement,
            host_data,
            chip_id,
            cpuid,
            platform_info,
            mitigations: (version >= 5).then_some(Mitigations { launch, current }),
            reported_tcb,
            launch_tcb,
            r,
            s,
        })
    }

    /// The bytes that came.
    pub fn as_bytes(&self) -> &[u8; REPORT_LEN] {
        &self.raw
    }

    /// The bytes that the signature covers.
    pub fn signed(&self) -> &[u8] {
        self.raw.split_at(SIGNED_LEN).0
    }

    /// The signature as `r || s`, each 48 bytes big endian.
    pub fn signature(&self) -> [u8; 2 * SCALAR] {
        let mut out = [0; 2 * SCALAR];
        let scalars = self.r.iter().rev().chain(self.s.iter().rev());
        out.iter_mut().zip(scalars).for_each(|(to, from)| *to = *from);
        out
    }

    /// The TCB that the firmware reports, and that the signing key is derived from, in the layout of `product`.
    pub fn reported_tcb(&self, product: Product) -> TcbVersion {
        TcbVersion::from_bytes(self.reported_tcb, product)
    }

    /// The TCB that the guest was launched under. Firmware that was updated since is newer.
    pub fn launch_tcb(&self, product: Product) -> TcbVersion {
        TcbVersion::from_bytes(self.launch_tcb, product)
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report")
            .field("version", &self.version)
            .field("policy", &format_args!("{:#x}", self.policy))
            .field("vmpl", &self.vmpl)
            .field("signing_key", &self.signing_key)
            .field("measurement", &Hex(self.measurement))
            .field("host_data", &Hex(self.host_data))
            .field("cpuid", &self.cpuid)
            .finish_non_exhaustive()
    }
}

/// Processor that made a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpuid {
    /// Family with its extended part added.
    pub family: u8,
    /// Model with its extended part.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

/// Vectors of the mitigations that the firmware has verified to be in effect, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mitigations {
    /// When the guest was launched.
    pub launch: u64,
    /// When the report was made.
    pub current: u64,
}

/// Kind of key that signed a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningKey {
    /// Versioned chip endorsement key: one chip at one TCB.
    Vcek,
    /// Versioned loaded endorsement key: one cloud provider at one TCB.
    Vlek,
}

impl SigningKey {
    /// From the report's key info, bits 4 to 2.
    fn from_key_info(info: u32) -> Result<Self, ReportError> {
        match (info >> 2) & 7 {
            0 => Ok(Self::Vcek),
            1 => Ok(Self::Vlek),
            found => Err(ReportError::SigningKey { found }),
        }
    }
}

/// Why bytes are not a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Not the length of a report.
    #[error("a report of {found} bytes; reports have {REPORT_LEN}")]
    Length {
        /// Bytes that came.
        found: usize,
    },
    /// A version of the structure that is not known here.
    #[error("report version {found}; 2 to 5 are known")]
    Version {
        /// Version in the report.
        found: u32,
    },
    /// Not ECDSA P-384 with SHA-384.
    #[error("report signature algorithm {found}; only 1, ECDSA P-384 with SHA-384, is known")]
    Algorithm {
        /// Algorithm in the report.
        found: u32,
    },
    /// Signed by no key, or by one of an unknown kind.
    #[error("report signing key {found}; only 0 (VCEK) and 1 (VLEK) are known")]
    SigningKey {
        /// Value of the field.
        found: u32,
    },
    /// The signature's scalar has bytes set above its 48.
    #[error("signature value {scalar} in the report is longer than a P-384 scalar")]
    Scalar {
        /// `r` or `s`.
        scalar: &'static str,
    },
    /// Bytes behind the signature, which nothing covers, are not zero.
    #[error("bytes behind the report's signature are not zero")]
    Trailing,
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ReportError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(ReportError::Length {
            found: REPORT_LEN - self.0.len(),
        })?;
        self.0 = tail;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, ReportError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ReportError> {
        self.take().map(u64::from_le_bytes)
    }

    fn scalar(&mut self, scalar: &'static str) -> Result<[u8; SCALAR], ReportError> {
        let value = self.take()?;
        let above: [u8; SCALAR_FIELD - SCALAR] = self.take()?;
        if above == [0; SCALAR_FIELD - SCALAR] {
            Ok(value)
        } else {
            Err(ReportError::Scalar { scalar })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report whose every field is recognisable by its offset.
    fn sample() -> [u8; REPORT_LEN] {
        let mut raw = [0; REPORT_LEN];
        raw[0] = 3;
        raw[8..16].copy_from_slice(&0x30000u64.to_le_bytes());
        raw[0x30] = 2;
        raw[0x34] = 1;
        raw[0x48] = 1 << 2;
        raw[0x50..0x90].fill(0x50);
        raw[0x90..0xc0].fill(0x90);
        raw[0xc0..0xe0].fill(0xc0);
        raw[0x180..0x188].copy_from_slice(&[1, 2, 0, 0, 0, 0, 3, 4]);
        raw[0x188..0x18b].copy_from_slice(&[0x19, 0x11, 7]);
        raw[0x1a0..0x1e0].fill(0xa0);
        raw[0x40] = 0x20;
        raw[0x1f0..0x1f8].copy_from_slice(&[5, 6, 0, 0, 0, 0, 7, 8]);
        raw[0x1f8] = 0x11;
        raw[0x200] = 0x13;
        raw[0x2a0] = 0x11;
        raw[0x2a0 + 47] = 0x22;
        raw[0x2e8] = 0x33;
        raw[0x2e8 + 47] = 0x44;
        raw
    }

    #[test]
    fn fields_are_at_their_offsets() {
        let report = Report::parse(&sample()).unwrap();
        assert_eq!((report.version, report.policy, report.vmpl), (3, 0x30000, 2));
        assert_eq!(report.signing_key, SigningKey::Vlek);
        assert_eq!(report.report_data, [0x50; 64]);
        assert_eq!(report.measurement, [0x90; 48]);
        assert_eq!(report.host_data, [0xc0; 32]);
        assert_eq!(report.chip_id, [0xa0; 64]);
        assert_eq!(
            report.cpuid,
            Some(Cpuid {
                family: 0x19,
                model: 0x11,
                stepping: 7
            })
        );
        let tcb = TcbVersion {
            fmc: None,
            bootloader: 1,
            tee: 2,
            snp: 3,
            microcode: 4,
        };
        assert_eq!(report.reported_tcb(Product::Genoa), tcb);
        let launch = report.launch_tcb(Product::Genoa).to_string();
        assert_eq!(launch, "bootloader 5, tee 6, snp 7, microcode 8");
        assert_eq!((report.platform_info, report.mitigations), (0x20, None));
        assert_eq!(report.signed(), &sample()[..0x2a0]);
        assert_eq!(report.as_bytes(), &sample());
        let signature = report.signature();
        assert_eq!(
            (signature[0], signature[47], signature[48], signature[95]),
            (0x22, 0x11, 0x44, 0x33)
        );
    }

    #[test]
    fn other_lengths_are_refused() {
        let long = [sample().as_slice(), &[0; 16]].concat();
        for len in (0..REPORT_LEN).chain(REPORT_LEN + 1..long.len()) {
            assert_eq!(
                Report::parse(&long[..len]).unwrap_err(),
                ReportError::Length { found: len }
            );
        }
    }

    #[test]
    fn what_must_not_be_is_refused() {
        let parse = |change: fn(&mut [u8; REPORT_LEN])| {
            let mut raw = sample();
            change(&mut raw);
            Report::parse(&raw).map(|report| report.version)
        };
        assert_eq!(parse(|raw| raw[0] = 1), Err(ReportError::Version { found: 1 }));
        assert_eq!(parse(|raw| raw[0] = 6), Err(ReportError::Version { found: 6 }));
        assert_eq!(
            parse(|raw| raw[3] = 1),
            Err(ReportError::Version { found: 3 | 1 << 24 })
        );
        assert_eq!(parse(|raw| raw[0x34] = 2), Err(ReportError::Algorithm { found: 2 }));
        assert_eq!(
            parse(|raw| raw[0x48] = 7 << 2),
            Err(ReportError::SigningKey { found: 7 })
        );
        assert_eq!(
            parse(|raw| raw[0x2a0 + 48] = 1),
            Err(ReportError::Scalar { scalar: "r" })
        );
        assert_eq!(
            parse(|raw| raw[0x2e8 + 71] = 1),
            Err(ReportError::Scalar { scalar: "s" })
        );
        assert_eq!(parse(|raw| raw[0x330] = 1), Err(ReportError::Trailing));
        assert_eq!(parse(|raw| raw[0x49f] = 1), Err(ReportError::Trailing));
        assert_eq!(parse(|raw| raw[0] = 5), Ok(5));
    }

    #[test]
    fn version_5_has_mitigations() {
        let mut raw = sample();
        raw[0] = 5;
        let mitigations = Report::parse(&raw).unwrap().mitigations;
        let (launch, current) = (0x11, 0x13);
        assert_eq!(mitigations, Some(Mitigations { launch, current }));
    }

    #[test]
    fn version_2_has_no_cpuid() {
        let mut raw = sample();
        raw[0] = 2;
        assert_eq!(Report::parse(&raw).unwrap().cpuid, None);
    }
}
