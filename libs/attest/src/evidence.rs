//! Evidence as it travels: a report and the certificates that lead to its signature.

mod td;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

pub use td::{MAX_EVENT_LOG, MAX_QUOTE, TdEvidence};

use crate::snp::REPORT_LEN;

/// Most certificates that evidence carries: VCEK or VLEK, ASK or ASVK, ARK.
pub const MAX_CERTS: usize = 3;
/// Largest certificate. AMD's take 1.4 to 1.7 KiB.
pub const MAX_CERT: usize = 4096;

/// An SNP report with its certificate chain. Nothing in it is believed until [`crate::verify()`] has been through.
///
/// The JSON form, also through serde, is `{"report":"<base64>","cert_chain":["<base64 DER>",…]}`, with standard padded base64 and no
/// other member. A host that hands out no certificates leaves the chain empty.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Evidence {
    /// The raw report, [`REPORT_LEN`] bytes.
    pub report: Vec<u8>,
    /// DER certificates: VCEK or VLEK, then ASK or ASVK, then ARK.
    pub chain: Vec<Vec<u8>>,
}

impl Evidence {
    /// Longest JSON text that [`Evidence::from_json`] looks at, in bytes.
    pub const MAX_JSON: usize = 64 * 1024;

    /// Reads the JSON form. Pure; cost is linear in the length, which is bounded first.
    ///
    /// # Errors
    /// [`EvidenceError`]; never a panic.
    pub fn from_json(json: &[u8]) -> Result<Self, EvidenceError> {
        if json.len() > Self::MAX_JSON {
            return Err(EvidenceError::TooLarge {
                len: json.len(),
                limit: Self::MAX_JSON,
            });
        }
        let wire: Wire = serde_json::from_slice(json).map_err(|source| EvidenceError::Json { source })?;
        wire.try_into()
    }

    /// Writes the JSON form, without blanks.
    pub fn to_json(&self) -> Vec<u8> {
        // Two members whose values are base64: nothing needs escaping, and nothing can fail.
        let mut out = String::with_capacity(Self::MAX_JSON / 4);
        out.push_str("{\"report\":\"");
        STANDARD.encode_string(&self.report, &mut out);
        out.push_str("\",\"cert_chain\":[");
        for (at, certificate) in self.chain.iter().enumerate() {
            out.push_str(if at == 0 { "\"" } else { ",\"" });
            STANDARD.encode_string(certificate, &mut out);
            out.push('"');
        }
        out.push_str("]}");
        out.into_bytes()
    }
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evidence")
            .field("report_len", &self.report.len())
            .field("cert_lens", &self.chain.iter().map(Vec::len).collect::<Vec<_>>())
            .finish()
    }
}

/// Why bytes are not evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The text is longer than any evidence.
    #[error("evidence of {len} bytes; at most {limit} are read")]
    TooLarge {
        /// Bytes that came.
        len: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// Not JSON, or not with exactly the members of the form.
    #[error("evidence is not of the JSON form {{report, cert_chain}}")]
    Json {
        /// What the parser stopped at.
        #[source]
        source: serde_json::Error,
    },
    /// The report is no base64, or not of a report's length.
    #[error("the report in the evidence is not base64 of {REPORT_LEN} bytes")]
    Report,
    /// The chain has more certificates than a chain can have.
    #[error("{found} certificates in the evidence; at most {MAX_CERTS} make a chain")]
    ChainLength {
        /// Certificates that came.
        found: usize,
    },
    /// A certificate is no base64, or too large.
    #[error("certificate {index} in the evidence is not base64 of 1 to {MAX_CERT} bytes")]
    Certificate {
        /// Position in the chain, from 0.
        index: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    report: String,
    cert_chain: Vec<String>,
}

impl TryFrom<Wire> for Evidence {
    type Error = EvidenceError;

    fn try_from(wire: Wire) -> Result<Self, EvidenceError> {
        if wire.cert_chain.len() > MAX_CERTS {
            return Err(EvidenceError::ChainLength {
                found: wire.cert_chain.len(),
            });
        }
        let report = decode(&wire.report, REPORT_LEN).ok_or(EvidenceError::Report)?;
        if report.len() != REPORT_LEN {
            return Err(EvidenceError::Report);
        }
        let certificate = |(index, text): (usize, &String)| {
            decode(text, MAX_CERT)
                .filter(|der| !der.is_empty())
                .ok_or(EvidenceError::Certificate { index })
        };
        let chain = wire
            .cert_chain
            .iter()
            .enumerate()
            .map(certificate)
            .collect::<Result<_, _>>()?;
        Ok(Self { report, chain })
    }
}

impl From<Evidence> for Wire {
    fn from(evidence: Evidence) -> Self {
        Self {
            report: STANDARD.encode(&evidence.report),
            cert_chain: evidence.chain.iter().map(|der| STANDARD.encode(der)).collect(),
        }
    }
}

/// Base64, standard and padded.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes base64 of at most `max` bytes; the length is looked at first.
pub(crate) fn decode(text: &str, max: usize) -> Option<Vec<u8>> {
    if text.len() > max.div_ceil(3) * 4 {
        return None;
    }
    STANDARD.decode(text).ok().filter(|bytes| bytes.len() <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Evidence {
        Evidence {
            report: vec![7; REPORT_LEN],
            chain: vec![vec![1, 2, 3], vec![4], vec![5; 100]],
        }
    }

    #[test]
    fn round_trip_and_serde_agree() {
        let json = sample().to_json();
        assert_eq!(Evidence::from_json(&json).unwrap(), sample());
        assert_eq!(serde_json::to_vec(&sample()).unwrap(), json);
        assert_eq!(serde_json::from_slice::<Evidence>(&json).unwrap(), sample());
        let empty = Evidence {
            chain: Vec::new(),
            ..sample()
        };
        assert_eq!(Evidence::from_json(&empty.to_json()).unwrap(), empty);
    }

    #[test]
    fn truncated_anywhere_is_an_error() {
        let json = sample().to_json();
        for len in 0..json.len() {
            assert!(Evidence::from_json(&json[..len]).is_err(), "{len} bytes were taken");
        }
    }

    #[test]
    fn one_bit_flipped_is_an_error_or_other_evidence() {
        let json = sample().to_json();
        for at in 0..json.len() {
            for bit in 0..8 {
                let mut flipped = json.clone();
                flipped[at] ^= 1 << bit;
                if let Ok(evidence) = Evidence::from_json(&flipped) {
                    assert_ne!(evidence, sample(), "byte {at} bit {bit} does not matter");
                }
            }
        }
    }

    #[test]
    fn bounds_are_refused_with_their_reason() {
        let long = vec![b' '; Evidence::MAX_JSON + 1];
        assert!(matches!(
            Evidence::from_json(&long),
            Err(EvidenceError::TooLarge { .. })
        ));
        let short = Evidence {
            report: vec![0; REPORT_LEN - 1],
            ..sample()
        };
        assert!(matches!(
            Evidence::from_json(&short.to_json()),
            Err(EvidenceError::Report)
        ));
        let many = Evidence {
            chain: vec![vec![1]; 4],
            ..sample()
        };
        assert!(matches!(
            Evidence::from_json(&many.to_json()),
            Err(EvidenceError::ChainLength { found: 4 })
        ));
        let large = Evidence {
            chain: vec![vec![1], vec![1; MAX_CERT + 1]],
            ..sample()
        };
        assert!(matches!(
            Evidence::from_json(&large.to_json()),
            Err(EvidenceError::Certificate { index: 1 })
        ));
        let none = Evidence {
            chain: vec![vec![]],
            ..sample()
        };
        assert!(matches!(
            Evidence::from_json(&none.to_json()),
            Err(EvidenceError::Certificate { index: 0 })
        ));
        let unknown = br#"{"report":"","cert_chain":[],"x":1}"#;
        assert!(matches!(Evidence::from_json(unknown), Err(EvidenceError::Json { .. })));
    }
}
