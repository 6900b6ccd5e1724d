//! One certificate: its signature, its names, its dates, what it may be used for.

use std::time::Duration;

use ring::signature::{ECDSA_P256_SHA256_ASN1, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::{
    Certificate,
    der::{AnyRef, Decode, Encode, Reader, SliceReader, Tag, Tagged, asn1::ObjectIdentifier, oid::AssociatedOid},
    ext::pkix::{BasicConstraints, KeyUsage},
    time::Time,
};

use crate::{digest::sha256, evidence::MAX_CERT, hex_bytes::Hex};

/// id-RSASSA-PSS (RFC 4055). ring's algorithm fixes what its parameters say: SHA-384, MGF1 with SHA-384, salt of 48 bytes.
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// ecdsa-with-SHA256 (RFC 5758).
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// How a vendor signs certificates and revocation lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// AMD: RSA-PSS with SHA-384.
    RsaPssSha384,
    /// Intel: ECDSA on P-256 with SHA-256.
    EcdsaP256Sha256,
}

impl Scheme {
    pub(crate) fn oid(self) -> ObjectIdentifier {
        match self {
            Self::RsaPssSha384 => RSASSA_PSS,
            Self::EcdsaP256Sha256 => ECDSA_WITH_SHA256,
        }
    }

    /// Whether `signature` is `key`'s over `signed`.
    pub(crate) fn verifies(self, key: &[u8], signed: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self {
            Self::RsaPssSha384 => &RSA_PSS_2048_8192_SHA384,
            Self::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
        };
        UnparsedPublicKey::new(algorithm, key).verify(signed, signature).is_ok()
    }
}

/// Place of a certificate in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertRole {
    /// AMD's key that signs reports: VCEK or VLEK.
    Endorsement,
    /// AMD's signing key: ASK for a VCEK, ASVK for a VLEK.
    Intermediate,
    /// AMD's root key.
    Root,
    /// Intel's key of one platform at one TCB, which signs the report of the quoting enclave.
    Pck,
    /// Intel's authority for the keys of platforms.
    PckCa,
    /// Intel's key that signs TCB information and the quoting enclave's identity.
    TcbSigning,
    /// Intel's root key for SGX and TDX.
    SgxRoot,
}

impl std::fmt::Display for CertRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Endorsement => "VCEK",
            Self::Intermediate => "ASK",
            Self::Root => "ARK",
            Self::Pck => "PCK",
            Self::PckCa => "PCK CA",
            Self::TcbSigning => "TCB signing",
            Self::SgxRoot => "SGX root",
        })
    }
}

/// Why a chain does not reach a root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The whole chain must come, and nothing else.
    #[error("the chain has {found} certificates; needed are {needed}")]
    Length {
        /// Certificates that came.
        found: usize,
        /// Which ones it must have.
        needed: &'static str,
    },
    /// Not certificates in PEM, or more than a chain has.
    #[error("the {role} certificate's chain is not the certificates of one chain in PEM")]
    Pem {
        /// Its first certificate.
        role: CertRole,
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
    /// Not signed as this vendor signs, or the two places that name the algorithm disagree.
    #[error("the {role} certificate is not signed with the vendor's algorithm")]
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
    /// The certificate above may not sign certificates.
    #[error("the {issuer} certificate is not one that may issue certificates")]
    NotAnIssuer {
        /// The one that issued.
        issuer: CertRole,
    },
    /// The certificate may sign certificates, where one that must not is needed.
    #[error("the {role} certificate is an authority's, not a leaf")]
    NotALeaf {
        /// Which certificate.
        role: CertRole,
    },
    /// An extension that must be understood is not.
    #[error("the {role} certificate has the critical extension {oid}, which is not known here")]
    CriticalExtension {
        /// Which certificate.
        role: CertRole,
        /// Which extension.
        oid: ObjectIdentifier,
    },
    /// The signature is not by the key of the certificate above.
    #[error("the {role} certificate is not signed by the {issuer} key")]
    Signature {
        /// Which certificate.
        role: CertRole,
        /// The one above it.
        issuer: CertRole,
    },
    /// Its time has not come.
    #[error("the {role} certificate is not valid yet")]
    NotYetValid {
        /// Which certificate.
        role: CertRole,
    },
    /// Its time is over.
    #[error("the {role} certificate has expired")]
    Expired {
        /// Which certificate.
        role: CertRole,
    },
    /// Its issuer has revoked it.
    #[error("the {role} certificate is revoked")]
    Revoked {
        /// Which certificate.
        role: CertRole,
    },
    /// The root is not on the verifier's list: another vendor's, a simulator's, or made up.
    #[error("the {role} with key {spki_sha256} is not a trust anchor of this verifier")]
    NotAnAnchor {
        /// Which vendor's root it claims to be.
        role: CertRole,
        /// SHA-256 of the root's SubjectPublicKeyInfo.
        spki_sha256: Hex<32>,
    },
}

/// A certificate with the bytes that its signature covers, as they came.
pub(crate) struct Cert<'a> {
    pub(crate) role: CertRole,
    pub(crate) certificate: Certificate,
    signed: &'a [u8],
}

impl<'a> Cert<'a> {
    pub(crate) fn parse(role: CertRole, der: &'a [u8]) -> Result<Self, ChainError> {
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

    /// Checks that `issuer` made this certificate: names, algorithm, what the issuer may do, signature.
    pub(crate) fn issued_by(&self, issuer: &Cert<'_>, scheme: Scheme) -> Result<(), ChainError> {
        let Certificate {
            tbs_certificate,
            signature_algorithm,
            signature,
        } = &self.certificate;
        if signature_algorithm.oid != scheme.oid() || tbs_certificate.signature != *signature_algorithm {
            return Err(ChainError::Algorithm { role: self.role });
        }
        if tbs_certificate.issuer != issuer.certificate.tbs_certificate.subject {
            return Err(ChainError::Issuer {
                role: self.role,
                issuer: issuer.role,
            });
        }
        if !issuer.usage()?.issues {
            return Err(ChainError::NotAnIssuer { issuer: issuer.role });
        }
        let signature = signature.as_bytes();
        let verified = issuer
            .public_key()
            .zip(signature)
            .is_some_and(|(key, signature)| scheme.verifies(key, self.signed, signature));
        if verified {
            Ok(())
        } else {
            Err(ChainError::Signature {
                role: self.role,
                issuer: issuer.role,
            })
        }
    }

    /// Checks the validity dates, both inclusive, against a time since the Unix epoch.
    pub(crate) fn valid_at(&self, now: Duration) -> Result<(), ChainError> {
        let validity = &self.certificate.tbs_certificate.validity;
        match valid_between(validity.not_before, validity.not_after, now) {
            std::cmp::Ordering::Less => Err(ChainError::NotYetValid { role: self.role }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(ChainError::Expired { role: self.role }),
        }
    }

    /// Checks that this certificate is nobody's issuer.
    pub(crate) fn leaf(&self) -> Result<(), ChainError> {
        if self.usage()?.issues {
            Err(ChainError::NotALeaf { role: self.role })
        } else {
            Ok(())
        }
    }

    /// Whether this certificate's key may sign revocation lists.
    pub(crate) fn signs_crls(&self) -> Result<bool, ChainError> {
        Ok(self.usage()?.signs_crls)
    }

    pub(crate) fn public_key(&self) -> Option<&[u8]> {
        let spki = &self.certificate.tbs_certificate.subject_public_key_info;
        spki.subject_public_key.as_bytes()
    }

    pub(crate) fn spki_sha256(&self) -> Result<[u8; 32], ChainError> {
        let spki = self.certificate.tbs_certificate.subject_public_key_info.to_der();
        spki.map(|der| sha256(&der)).map_err(|source| ChainError::Malformed {
            role: self.role,
            source,
        })
    }

    /// What the certificate's own words allow its key.
    fn usage(&self) -> Result<Usage, ChainError> {
        let role = self.role;
        let malformed = |source| ChainError::Malformed { role, source };
        let (mut ca, mut key_usage) = (None, None);
        for extension in self.certificate.tbs_certificate.extensions.iter().flatten() {
            let value = extension.extn_value.as_bytes();
            let again = match extension.extn_id {
                BasicConstraints::OID => ca
                    .replace(BasicConstraints::from_der(value).map_err(malformed)?.ca)
                    .is_some(),
                KeyUsage::OID => key_usage
                    .replace(KeyUsage::from_der(value).map_err(malformed)?)
                    .is_some(),
                oid if extension.critical => return Err(ChainError::CriticalExtension { role, oid }),
                _ => false,
            };
            if again {
                return Err(malformed(x509_cert::der::ErrorKind::Failed.into()));
            }
        }
        let ca = ca.unwrap_or(false);
        Ok(Usage {
            issues: ca && key_usage.is_none_or(|usage| usage.key_cert_sign()),
            signs_crls: ca && key_usage.is_none_or(|usage| usage.crl_sign()),
        })
    }
}

struct Usage {
    issues: bool,
    signs_crls: bool,
}

/// Where `now` is: before, within (both ends inclusive) or after.
pub(crate) fn valid_between(from: Time, to: Time, now: Duration) -> std::cmp::Ordering {
    // Dates have no fractions of a second; the second that is named last still counts.
    let now = now.as_secs();
    if now < from.to_unix_duration().as_secs() {
        std::cmp::Ordering::Less
    } else if now > to.to_unix_duration().as_secs() {
        std::cmp::Ordering::Greater
    } else {
        std::cmp::Ordering::Equal
    }
}

/// The first element inside a DER sequence, header included: of a certificate or list, the part that is signed.
pub(super) fn first_element(der: &[u8]) -> Result<&[u8], x509_cert::der::Error> {
    let outer = AnyRef::from_der(der)?;
    outer.tag().assert_eq(Tag::Sequence)?;
    SliceReader::new(outer.value())?.tlv_bytes()
}
