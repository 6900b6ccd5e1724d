//! VCEK → ASK → ARK: three RSA-PSS signatures, three names, one root that is on the list.

use ring::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use x509_cert::{
    Certificate,
    der::{AnyRef, Decode, Encode, Reader, SliceReader, Tag, Tagged, asn1::ObjectIdentifier},
};

use crate::{
    anchors::{Anchor, Anchors, sha256},
    evidence::MAX_CERT,
    hex_bytes::Hex,
};

/// id-RSASSA-PSS (RFC 4055). ring's algorithm fixes what its parameters say: SHA-384, MGF1 with SHA-384, salt of 48 bytes.
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// Place of a certificate in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertRole {
    /// The key that signs reports: VCEK or VLEK.
    Endorsement,
    /// AMD's signing key: ASK for a VCEK, ASVK for a VLEK.
    Intermediate,
    /// AMD's root key.
    Root,
}

impl std::fmt::Display for CertRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Endorsement => "VCEK",
            Self::Intermediate => "ASK",
            Self::Root => "ARK",
        })
    }
}

/// Why a chain does not reach a root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Evidence must bring the whole chain.
    #[error("the chain has {found} certificates; VCEK, ASK and ARK are needed")]
    Length {
        /// Certificates that came.
        found: usize,
    },
    /// More bytes than such a certificate has. It was not parsed.
    #[error("the {role} certificate has {len} bytes; at most {MAX_CERT} are read")]
    TooLarge {
        /// Which certificate.
        role: CertRole,
        /// Bytes that came.
        len: usize,
    },
    /// Not an X.509 certificate in DER.
    #[error("the {role} certificate is not X.509 in DER")]
    Malformed {
        /// Which certificate.
        role: CertRole,
        /// What the parser stopped at.
        #[source]
        source: x509_cert::der::Error,
    },
    /// Not signed with RSA-PSS, or the two places that name the algorithm disagree.
    #[error("the {role} certificate is not signed with RSASSA-PSS")]
    Algorithm {
        /// Which certificate.
        role: CertRole,
    },
    /// The name of the issuer is not the subject of the certificate above.
    #[error("the {role} certificate names another issuer than the {issuer} certificate")]
    Issuer {
        /// Which certificate.
        role: CertRole,
        /// The one above it.
        issuer: CertRole,
    },
    /// The signature is not by the key of the certificate above.
    #[error("the {role} certificate is not signed by the {issuer} key")]
    Signature {
        /// Which certificate.
        role: CertRole,
        /// The one above it.
        issuer: CertRole,
    },
    /// The root is not on the verifier's list: another vendor's, a simulator's, or made up.
    #[error("the ARK with key {spki_sha256} is not a trust anchor of this verifier")]
    NotAnAnchor {
        /// SHA-256 of the root's SubjectPublicKeyInfo.
        spki_sha256: Hex<32>,
    },
}

/// Verifies a chain up to an anchor.
///
/// Gives the certificate of the endorsement key and the anchor. The root's key is compared first, so nobody makes this function verify
/// signatures without naming a known root.
pub(crate) fn verify_chain<'a>(
    chain: &[Vec<u8>],
    anchors: &'a Anchors,
) -> Result<(Certificate, &'a Anchor), ChainError> {
    let [vek, ask, ark] = chain else {
        return Err(ChainError::Length { found: chain.len() });
    };
    let ark = Link::parse(CertRole::Root, ark)?;
    let spki_sha256 = ark.spki_sha256()?;
    let anchor = anchors.find(&spki_sha256).ok_or(ChainError::NotAnAnchor {
        spki_sha256: Hex(spki_sha256),
    })?;
    ark.signed_by(&ark)?;
    let ask = Link::parse(CertRole::Intermediate, ask)?;
    ask.signed_by(&ark)?;
    let vek = Link::parse(CertRole::Endorsement, vek)?;
    vek.signed_by(&ask)?;
    Ok((vek.certificate, anchor))
}

/// A certificate with the bytes that its signature covers, as they came.
struct Link<'a> {
    role: CertRole,
    certificate: Certificate,
    signed: &'a [u8],
}

impl<'a> Link<'a> {
    fn parse(role: CertRole, der: &'a [u8]) -> Result<Self, ChainError> {
        if der.len() > MAX_CERT {
            return Err(ChainError::TooLarge { role, len: der.len() });
        }
        let malformed = |source| ChainError::Malformed { role, source };
        let certificate = Certificate::from_der(der).map_err(malformed)?;
        let signed = first_element(der).map_err(malformed)?;
        Ok(Self {
            role,
            certificate,
            signed,
        })
    }

    fn signed_by(&self, issuer: &Link<'_>) -> Result<(), ChainError> {
        let Certificate {
            tbs_certificate,
            signature_algorithm,
            signature,
        } = &self.certificate;
        if signature_algorithm.oid != RSASSA_PSS || tbs_certificate.signature != *signature_algorithm {
            return Err(ChainError::Algorithm { role: self.role });
        }
        let above = &issuer.certificate.tbs_certificate;
        if tbs_certificate.issuer != above.subject {
            return Err(ChainError::Issuer {
                role: self.role,
                issuer: issuer.role,
            });
        }
        let refused = || ChainError::Signature {
            role: self.role,
            issuer: issuer.role,
        };
        let key = above
            .subject_public_key_info
            .subject_public_key
            .as_bytes()
            .ok_or_else(refused)?;
        let signature = signature.as_bytes().ok_or_else(refused)?;
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key)
            .verify(self.signed, signature)
            .map_err(|_| refused())
    }

    fn spki_sha256(&self) -> Result<[u8; 32], ChainError> {
        let spki = self.certificate.tbs_certificate.subject_public_key_info.to_der();
        spki.map(|der| sha256(&der)).map_err(|source| ChainError::Malformed {
            role: self.role,
            source,
        })
    }
}

/// The first element inside a DER sequence, header included: of a certificate, the part that is signed.
fn first_element(der: &[u8]) -> Result<&[u8], x509_cert::der::Error> {
    let outer = AnyRef::from_der(der)?;
    outer.tag().assert_eq(Tag::Sequence)?;
    SliceReader::new(outer.value())?.tlv_bytes()
}
