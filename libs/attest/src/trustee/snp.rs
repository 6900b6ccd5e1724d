//! SNP evidence: `{"attestation_report":{…},"cert_chain":[{"cert_type":"VCEK","data":[48,130,…]},…]|null}`: not the report's bytes but the
//! serde form of the structure in the crate `sev` (6.3.1 and 8.0.0 write the same), numbers and arrays of numbers.
//!
//! A signature is over bytes and not over this form, so reading rebuilds the raw report and writes it again: what does not
//! come back the same is refused, and so is a report that this form cannot hold (reserved bytes that are not zero).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

#[cfg(feature = "verify")]
use super::MAX_ENTRIES;
use super::TrusteeError;
use crate::evidence::Evidence;
#[cfg(feature = "verify")]
use crate::evidence::MAX_CERT;
use crate::snp::{Product, REPORT_LEN, Report, SIGNED_LEN, SigningKey};

/// Writes evidence in Trustee's form.
///
/// # Errors
/// When the report is malformed, or has bytes that the form has no place for.
pub fn to_json(evidence: &Evidence) -> Result<Value, TrusteeError> {
    let report = Report::parse(&evidence.report).map_err(|_| TrusteeError::Report)?;
    let attestation_report = WireReport::from_raw(report.as_bytes())?;
    let endorsement = match report.signing_key {
        SigningKey::Vcek => "VCEK",
        SigningKey::Vlek => "VLEK",
    };
    let entry = |(name, der): (&str, &Vec<u8>)| WireCertificate {
        cert_type: Value::from(name),
        data: der.clone(),
    };
    let chain: Vec<_> = [endorsement, "ASK", "ARK"]
        .into_iter()
        .zip(&evidence.chain)
        .map(entry)
        .collect();
    let wire = Wire {
        attestation_report,
        cert_chain: (!chain.is_empty()).then_some(chain),
    };
    serde_json::to_value(&wire).map_err(|_| TrusteeError::Report)
}

/// Reads evidence in Trustee's form. For verifiers. Pure; linear in the length of the text that the value came from.
///
/// # Errors
/// [`TrusteeError`]; never a panic.
#[cfg(feature = "verify")]
pub fn from_json(json: Value) -> Result<Evidence, TrusteeError> {
    let Wire {
        attestation_report,
        cert_chain,
    } = serde_json::from_value(json).map_err(|source| TrusteeError::Json { form: FORM, source })?;
    let raw = attestation_report.to_raw();
    let report = Report::parse(&raw).map_err(|_| TrusteeError::Report)?;
    if WireReport::from_raw(report.as_bytes())? != attestation_report {
        return Err(TrusteeError::NotTheSame);
    }
    let chain = match cert_chain {
        Some(entries) => ordered(entries)?,
        None => Vec::new(),
    };
    Ok(Evidence {
        report: raw.to_vec(),
        chain,
    })
}

/// In errors.
#[cfg(feature = "verify")]
const FORM: &str = "{attestation_report, cert_chain}";

/// VCEK or VLEK, ASK, ARK: each the first of its kind. What else a host's table holds is passed over.
#[cfg(feature = "verify")]
fn ordered(entries: Vec<WireCertificate>) -> Result<Vec<Vec<u8>>, TrusteeError> {
    if entries.len() > MAX_ENTRIES {
        return Err(TrusteeError::Certificates { found: entries.len() });
    }
    let mut chain = Vec::new();
    for kinds in [&["VCEK", "VLEK"][..], &["ASK"], &["ARK"]] {
        let is_wanted = |entry: &&WireCertificate| entry.cert_type.as_str().is_some_and(|kind| kinds.contains(&kind));
        if let Some((index, entry)) = entries.iter().enumerate().find(|(_, entry)| is_wanted(entry)) {
            chain.push(der(&entry.data).ok_or(TrusteeError::Certificate { index })?);
        }
    }
    Ok(chain)
}

#[cfg(feature = "verify")]
fn der(data: &[u8]) -> Option<Vec<u8>> {
    if data.is_empty() || data.len() > MAX_CERT {
        return None;
    }
    if !data.starts_with(b"-----BEGIN") {
        return Some(data.to_vec());
    }
    crate::x509::pem_chain(std::str::from_utf8(data).ok()?, 1)?.pop()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    attestation_report: WireReport,
    cert_chain: Option<Vec<WireCertificate>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCertificate {
    /// `ARK ASK VCEK VLEK CRL Empty`, or `{"OTHER":"<uuid>"}`.
    cert_type: Value,
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireReport {
    version: u32,
    guest_svn: u32,
    policy: u64,
    family_id: Bytes<16>,
    image_id: Bytes<16>,
    vmpl: u32,
    sig_algo: u32,
    current_tcb: WireTcb,
    plat_info: u64,
    key_info: u32,
    report_data: Bytes<64>,
    measurement: Bytes<48>,
    host_data: Bytes<32>,
    id_key_digest: Bytes<48>,
    author_key_digest: Bytes<48>,
    report_id: Bytes<32>,
    report_id_ma: Bytes<32>,
    reported_tcb: WireTcb,
    cpuid_fam_id: Option<u8>,
    cpuid_mod_id: Option<u8>,
    cpuid_step: Option<u8>,
    chip_id: Bytes<64>,
    committed_tcb: WireTcb,
    current: WireVersion,
    committed: WireVersion,
    launch_tcb: WireTcb,
    launch_mit_vector: Option<u64>,
    current_mit_vector: Option<u64>,
    signature: WireSignature,
}

/// Which numbers stand in which of a TCB's eight bytes depends on the product; `fmc` is Turin's.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTcb {
    fmc: Option<u8>,
    bootloader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireVersion {
    major: u8,
    minor: u8,
    build: u8,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    r: Bytes<72>,
    s: Bytes<72>,
}

impl WireReport {
    /// The members of a raw report, in the order of its layout.
    fn from_raw(raw: &[u8; REPORT_LEN]) -> Result<Self, TrusteeError> {
        let mut at = Reader(raw);
        let version = at.u32();
        let named = version >= 3;
        let mitigated = version >= 5;
        let cpuid: [u8; 3] = Reader(raw.get(CPUID_AT..).unwrap_or_default()).take().0;
        let [family, model, _] = cpuid;
        let turin = match Product::from_cpuid(family, model) {
            Some(product) if named => product == Product::Turin,
            None if named => return Err(TrusteeError::Processor),
            // Version 2 names no processor: Turin's chip identity has 8 bytes.
            _ => raw
                .get(CHIP_ID_AT..CHIP_ID_AT + 64)
                .and_then(|id| id.split_at_checked(8))
                .is_some_and(|(id, rest)| id != [0; 8] && rest == [0; 56]),
        };
        let wire = Self {
            version,
            guest_svn: at.u32(),
            policy: at.u64(),
            family_id: at.take(),
            image_id: at.take(),
            vmpl: at.u32(),
            sig_algo: at.u32(),
            current_tcb: at.tcb(turin),
            plat_info: at.u64(),
            key_info: at.u32(),
            report_data: at.skip::<4>().take(),
            measurement: at.take(),
            host_data: at.take(),
            id_key_digest: at.take(),
            author_key_digest: at.take(),
            report_id: at.take(),
            report_id_ma: at.take(),
            reported_tcb: at.tcb(turin),
            cpuid_fam_id: at.u8_if(named),
            cpuid_mod_id: at.u8_if(named),
            cpuid_step: at.u8_if(named),
            chip_id: at.skip::<21>().take(),
            committed_tcb: at.tcb(turin),
            current: at.version(),
            committed: at.version(),
            launch_tcb: at.tcb(turin),
            launch_mit_vector: at.u64_if(mitigated),
            current_mit_vector: at.u64_if(mitigated),
            signature: WireSignature {
                r: at.skip::<152>().take(),
                s: at.take(),
            },
        };
        if wire.to_raw() == *raw {
            Ok(wire)
        } else {
            Err(TrusteeError::NotRepresentable)
        }
    }

    /// The raw report of these members; every other byte is zero.
    fn to_raw(&self) -> [u8; REPORT_LEN] {
        let mut out = Writer(Vec::with_capacity(REPORT_LEN));
        out.put(&self.version.to_le_bytes());
        out.put(&self.guest_svn.to_le_bytes());
        out.put(&self.policy.to_le_bytes());
        out.put(&self.family_id.0);
        out.put(&self.image_id.0);
        out.put(&self.vmpl.to_le_bytes());
        out.put(&self.sig_algo.to_le_bytes());
        out.tcb(self.current_tcb);
        out.put(&self.plat_info.to_le_bytes());
        out.put(&self.key_info.to_le_bytes());
        out.put(&[0; 4]);
        out.put(&self.report_data.0);
        out.put(&self.measurement.0);
        out.put(&self.host_data.0);
        out.put(&self.id_key_digest.0);
        out.put(&self.author_key_digest.0);
        out.put(&self.report_id.0);
        out.put(&self.report_id_ma.0);
        out.tcb(self.reported_tcb);
        out.put(&[self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step].map(Option::unwrap_or_default));
        out.put(&[0; 21]);
        out.put(&self.chip_id.0);
        out.tcb(self.committed_tcb);
        out.version(self.current);
        out.version(self.committed);
        out.tcb(self.launch_tcb);
        out.put(&self.launch_mit_vector.unwrap_or_default().to_le_bytes());
        out.put(&self.current_mit_vector.unwrap_or_default().to_le_bytes());
        out.put(&[0; 152]);
        debug_assert_eq!(out.0.len(), SIGNED_LEN);
        out.put(&self.signature.r.0);
        out.put(&self.signature.s.0);
        let mut raw = [0; REPORT_LEN];
        raw.iter_mut().zip(out.0).for_each(|(to, from)| *to = from);
        raw
    }
}

/// Where the report names its processor.
const CPUID_AT: usize = 0x188;
/// Where the chip's identity stands.
const CHIP_ID_AT: usize = 0x1a0;

/// What is left of a report. Its length is fixed and so is every step: reading beyond the end gives zeros and never happens.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Bytes<N> {
        let (head, tail) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = tail;
        Bytes(*head)
    }

    fn skip<const N: usize>(&mut self) -> &mut Self {
        self.take::<N>();
        self
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take().0)
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take().0)
    }

    fn u64_if(&mut self, there: bool) -> Option<u64> {
        let value = self.u64();
        there.then_some(value)
    }

    fn u8_if(&mut self, there: bool) -> Option<u8> {
        let [value] = self.take().0;
        there.then_some(value)
    }

    fn tcb(&mut self, turin: bool) -> WireTcb {
        if turin {
            let [fmc, bootloader, tee, snp, _, _, _, microcode] = self.take().0;
            WireTcb {
                fmc: Some(fmc),
                bootloader,
                tee,
                snp,
                microcode,
            }
        } else {
            let [bootloader, tee, _, _, _, _, snp, microcode] = self.take().0;
            WireTcb {
                fmc: None,
                bootloader,
                tee,
                snp,
                microcode,
            }
        }
    }

    fn version(&mut self) -> WireVersion {
        let [build, minor, major, _] = self.take().0;
        WireVersion { major, minor, build }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn tcb(&mut self, tcb: WireTcb) {
        let WireTcb {
            fmc,
            bootloader,
            tee,
            snp,
            microcode,
        } = tcb;
        self.put(&match fmc {
            Some(fmc) => [fmc, bootloader, tee, snp, 0, 0, 0, microcode],
            None => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
        });
    }

    fn version(&mut self, version: WireVersion) {
        self.put(&[version.build, version.minor, version.major, 0]);
    }
}

/// An array that is a JSON array of exactly `N` numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Bytes<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let found = bytes.len();
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| de::Error::invalid_length(found, &"the number of bytes that the report has there"))
    }
}

#[cfg(feature = "verify")]
#[cfg(test)]
mod tests;
