//! What a verifier needs beside a quote: Intel's revocation lists and signed documents, as its provisioning certification service gives them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::signed::HexText;

/// Collateral for the quotes of platforms of one FMSPC. Nothing in it is believed until [`super::verify()`] has been through.
#[derive(Clone, PartialEq, Eq)]
pub struct Collateral {
    /// Revocation list by the SGX root, DER.
    pub root_crl: Vec<u8>,
    /// Revocation list by the PCK CA of the platform, DER.
    pub pck_crl: Vec<u8>,
    /// TCB info: the exact text that was signed.
    pub tcb_info: String,
    /// Its signature, `r || s`.
    pub tcb_info_signature: [u8; 64],
    /// PEM: the certificate that signed it, then the root.
    pub tcb_info_chain: String,
    /// Identity of the quoting enclave: the exact text that was signed.
    pub qe_identity: String,
    /// Its signature, `r || s`.
    pub qe_identity_signature: [u8; 64],
    /// PEM: the certificate that signed it, then the root.
    pub qe_identity_chain: String,
    /// PEM: PCK certificate, PCK CA, root; for quotes that do not bring theirs.
    pub pck_chain: Option<String>,
}

impl Collateral {
    /// Longest JSON text that is looked at, in bytes.
    pub const MAX_JSON: usize = 1 << 20;

    /// Reads the JSON form that quote verification libraries exchange: `root_ca_crl`, `pck_crl`, `tcb_info_signature` and
    /// `qe_identity_signature` in hexadecimal; `tcb_info`, `qe_identity` and the chains `…_issuer_chain` as strings;
    /// `pck_certificate_chain` where the quote has none. Other members are not looked at. Pure.
    ///
    /// # Errors
    /// [`CollateralError`]; never a panic.
    pub fn from_json(json: &[u8]) -> Result<Self, CollateralError> {
        check_len(json.len())?;
        let wire: Wire = serde_json::from_slice(json).map_err(|source| CollateralError::Json { source })?;
        Ok(Self {
            root_crl: hex::decode(wire.root_ca_crl).map_err(|_| CollateralError::Hex { name: "root_ca_crl" })?,
            pck_crl: hex::decode(wire.pck_crl).map_err(|_| CollateralError::Hex { name: "pck_crl" })?,
            tcb_info: wire.tcb_info,
            tcb_info_signature: signature("tcb_info_signature", &wire.tcb_info_signature)?,
            tcb_info_chain: wire.tcb_info_issuer_chain,
            qe_identity: wire.qe_identity,
            qe_identity_signature: signature("qe_identity_signature", &wire.qe_identity_signature)?,
            qe_identity_chain: wire.qe_identity_issuer_chain,
            pck_chain: wire.pck_certificate_chain,
        })
    }

    /// Writes the JSON form that [`Collateral::from_json`] reads.
    pub fn to_json(&self) -> Vec<u8> {
        let mut wire = serde_json::json!({
            "root_ca_crl": hex::encode(&self.root_crl),
            "pck_crl": hex::encode(&self.pck_crl),
            "tcb_info": self.tcb_info,
            "tcb_info_signature": hex::encode(self.tcb_info_signature),
            "tcb_info_issuer_chain": self.tcb_info_chain,
            "qe_identity": self.qe_identity,
            "qe_identity_signature": hex::encode(self.qe_identity_signature),
            "qe_identity_issuer_chain": self.qe_identity_chain,
        });
        if let Some((chain, members)) = self.pck_chain.as_ref().zip(wire.as_object_mut()) {
            members.insert("pck_certificate_chain".to_owned(), chain.as_str().into());
        }
        wire.to_string().into_bytes()
    }

    /// The family of platforms that it says to be for. Not verified: to choose among several by.
    ///
    /// # Errors
    /// [`CollateralError::Json`] when its TCB info does not say.
    pub fn fmspc(&self) -> Result<[u8; 6], CollateralError> {
        #[derive(Deserialize)]
        struct Family {
            fmspc: HexText<6>,
        }
        let family: Family = serde_json::from_str(&self.tcb_info).map_err(|source| CollateralError::Json { source })?;
        Ok(family.fmspc.0)
    }

    /// Puts together answers of Intel's service (API v4): the lists in DER, the bodies of `tcb` and `qe/identity`, and the issuer chains that
    /// came in the headers of both, percent-decoded.
    ///
    /// # Errors
    /// [`CollateralError`]; never a panic.
    pub fn from_pcs(
        root_crl: Vec<u8>,
        pck_crl: Vec<u8>,
        tcb: (&[u8], String),
        qe_identity: (&[u8], String),
    ) -> Result<Self, CollateralError> {
        check_len(tcb.0.len())?;
        check_len(qe_identity.0.len())?;
        let info: TcbBody<'_> = serde_json::from_slice(tcb.0).map_err(|source| CollateralError::Json { source })?;
        let qe: QeBody<'_> =
            serde_json::from_slice(qe_identity.0).map_err(|source| CollateralError::Json { source })?;
        Ok(Self {
            root_crl,
            pck_crl,
            tcb_info: info.tcb_info.get().to_owned(),
            tcb_info_signature: signature("signature", info.signature)?,
            tcb_info_chain: tcb.1,
            qe_identity: qe.enclave_identity.get().to_owned(),
            qe_identity_signature: signature("signature", qe.signature)?,
            qe_identity_chain: qe_identity.1,
            pck_chain: None,
        })
    }
}

impl std::fmt::Debug for Collateral {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collateral").finish_non_exhaustive()
    }
}

fn check_len(len: usize) -> Result<(), CollateralError> {
    if len > Collateral::MAX_JSON {
        return Err(CollateralError::TooLarge { len });
    }
    Ok(())
}

fn signature(name: &'static str, text: &str) -> Result<[u8; 64], CollateralError> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| CollateralError::Hex { name })?;
    Ok(bytes)
}

#[derive(Deserialize)]
struct Wire {
    root_ca_crl: String,
    pck_crl: String,
    tcb_info: String,
    tcb_info_signature: String,
    tcb_info_issuer_chain: String,
    qe_identity: String,
    qe_identity_signature: String,
    qe_identity_issuer_chain: String,
    pck_certificate_chain: Option<String>,
}

/// Answer of the service, whose first member is signed as it stands.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TcbBody<'a> {
    #[serde(borrow)]
    tcb_info: &'a RawValue,
    signature: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QeBody<'a> {
    #[serde(borrow)]
    enclave_identity: &'a RawValue,
    signature: &'a str,
}

/// Why a text is not collateral.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollateralError {
    /// Longer than any collateral.
    #[error("collateral of {len} bytes; at most {} are read", Collateral::MAX_JSON)]
    TooLarge {
        /// Bytes that came.
        len: usize,
    },
    /// Not JSON, or a member is missing.
    #[error("the collateral is not of its JSON form")]
    Json {
        /// What the parser stopped at.
        #[source]
        source: serde_json::Error,
    },
    /// A member is not hexadecimal, or not of its length.
    #[error("{name} in the collateral is not hexadecimal of its length")]
    Hex {
        /// Which member.
        name: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collateral() -> Collateral {
        Collateral {
            root_crl: vec![1, 2],
            pck_crl: vec![3],
            tcb_info: r#"{"id":"TDX","fmspc":"51494D303000"}"#.to_owned(),
            tcb_info_signature: [4; 64],
            tcb_info_chain: "chain\n".to_owned(),
            qe_identity: "{}".to_owned(),
            qe_identity_signature: [5; 64],
            qe_identity_chain: "chain".to_owned(),
            pck_chain: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let with_chain = Collateral {
            pck_chain: Some("pck".to_owned()),
            ..collateral()
        };
        for collateral in [collateral(), with_chain] {
            assert_eq!(Collateral::from_json(&collateral.to_json()).unwrap(), collateral);
        }
    }

    #[test]
    fn the_family_is_named() {
        assert_eq!(collateral().fmspc().unwrap(), *b"QIM00\0");
        for other in ["", "{}", r#"{"fmspc":"51494D3030"}"#, r#"{"fmspc":1}"#] {
            let collateral = Collateral {
                tcb_info: other.to_owned(),
                ..collateral()
            };
            assert!(
                matches!(collateral.fmspc(), Err(CollateralError::Json { .. })),
                "{other}"
            );
        }
    }
}
