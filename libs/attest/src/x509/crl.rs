//! Certificate revocation lists (RFC 5280, section 5): complete lists by the issuer of the certificates, in DER.

use std::time::Duration;

use x509_cert::{
    crl::CertificateList,
    der::{Decode, asn1::ObjectIdentifier},
};

use super::{Cert, ChainError, Scheme, certificate::first_element, valid_between};

/// Largest list that is parsed, in bytes. Intel's list of platforms takes 3 KiB.
pub(crate) const MAX_CRL: usize = 1 << 20;

/// Whose list it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrlRole {
    /// AMD's, by the ARK.
    Amd,
    /// Intel's, by the SGX root.
    SgxRoot,
    /// Intel's, by the authority for platforms' keys.
    Pck,
}

impl std::fmt::Display for CrlRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Amd => "AMD",
            Self::SgxRoot => "SGX root",
            Self::Pck => "PCK",
        })
    }
}

/// Why a revocation list is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrlError {
    /// None by the issuer came, and the verifier demands one.
    #[error("no {role} revocation list by the issuer of this chain")]
    Missing {
        /// Which list.
        role: CrlRole,
    },
    /// More bytes than are parsed.
    #[error("the {role} revocation list has {len} bytes; at most {MAX_CRL} are read")]
    TooLarge {
        /// Which list.
        role: CrlRole,
        /// Bytes that came.
        len: usize,
    },
    /// Not a list in DER.
    #[error("the {role} revocation list is not X.509 in DER")]
    Malformed {
        /// Which list.
        role: CrlRole,
        /// What the parser stopped at.
        #[source]
        source: x509_cert::der::Error,
    },
    /// Another issuer's, or by a key that may sign no lists.
    #[error("the {role} revocation list is not by the issuer of this chain")]
    Issuer {
        /// Which list.
        role: CrlRole,
    },
    /// Not signed as this vendor signs, or by another key.
    #[error("the {role} revocation list is not signed by its issuer")]
    Signature {
        /// Which list.
        role: CrlRole,
    },
    /// A part of a list, or one with rules that are not known here.
    #[error("the {role} revocation list has the critical extension {oid}, which is not known here")]
    CriticalExtension {
        /// Which list.
        role: CrlRole,
        /// Which extension.
        oid: ObjectIdentifier,
    },
    /// Its time has not come.
    #[error("the {role} revocation list is not valid yet")]
    NotYetValid {
        /// Which list.
        role: CrlRole,
    },
    /// Its time is over, or it does not say when it will be.
    #[error("the {role} revocation list has expired")]
    Expired {
        /// Which list.
        role: CrlRole,
    },
    /// The issuer's certificate cannot be understood.
    #[error("the issuer of the {role} revocation list is refused")]
    Chain {
        /// Which list.
        role: CrlRole,
        /// Why.
        #[source]
        source: Box<ChainError>,
    },
}

/// A list with the bytes that its signature covers.
pub(crate) struct Crl<'a> {
    role: CrlRole,
    list: CertificateList,
    signed: &'a [u8],
}

impl<'a> Crl<'a> {
    pub(crate) fn parse(role: CrlRole, der: &'a [u8]) -> Result<Self, CrlError> {
        if der.len() > MAX_CRL {
            return Err(CrlError::TooLarge { role, len: der.len() });
        }
        let malformed = |source| CrlError::Malformed { role, source };
        Ok(Self {
            role,
            list: CertificateList::from_der(der).map_err(malformed)?,
            signed: first_element(der).map_err(malformed)?,
        })
    }

    /// Whether the list names `issuer` as its own.
    pub(crate) fn names(&self, issuer: &Cert<'_>) -> bool {
        self.list.tbs_cert_list.issuer == issuer.certificate.tbs_certificate.subject
    }

    /// Checks that the list is `issuer`'s and current. Without a time its dates are not looked at.
    pub(crate) fn verify(&self, issuer: &Cert<'_>, scheme: Scheme, now: Option<Duration>) -> Result<(), CrlError> {
        let role = self.role;
        let list = &self.list.tbs_cert_list;
        let signs = issuer.signs_crls().map_err(|source| CrlError::Chain {
            role,
            source: Box::new(source),
        })?;
        if !self.names(issuer) || !signs {
            return Err(CrlError::Issuer { role });
        }
        let algorithm = &self.list.signature_algorithm;
        let verified = algorithm.oid == scheme.oid()
            && list.signature == *algorithm
            && issuer
                .public_key()
                .zip(self.list.signature.as_bytes())
                .is_some_and(|(key, signature)| scheme.verifies(key, self.signed, signature));
        if !verified {
            return Err(CrlError::Signature { role });
        }
        // Both of the list and of its entries: a critical one may say that the list is a part, or of other certificates.
        let entries = list.revoked_certificates.iter().flatten();
        let of_entries = entries.flat_map(|entry| entry.crl_entry_extensions.iter().flatten());
        let mut extensions = list.crl_extensions.iter().flatten().chain(of_entries);
        if let Some(extension) = extensions.find(|extension| extension.critical) {
            let oid = extension.extn_id;
            return Err(CrlError::CriticalExtension { role, oid });
        }
        let Some(now) = now else { return Ok(()) };
        let next_update = list.next_update.ok_or(CrlError::Expired { role })?;
        match valid_between(list.this_update, next_update, now) {
            std::cmp::Ordering::Less => Err(CrlError::NotYetValid { role }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(CrlError::Expired { role }),
        }
    }

    /// Refuses a certificate that the list names. Call it on a verified list, with a certificate of the same issuer.
    pub(crate) fn check(&self, certificate: &Cert<'_>) -> Result<(), ChainError> {
        let serial = &certificate.certificate.tbs_certificate.serial_number;
        let mut revoked = self.list.tbs_cert_list.revoked_certificates.iter().flatten();
        if revoked.any(|entry| entry.serial_number == *serial) {
            return Err(ChainError::Revoked { role: certificate.role });
        }
        Ok(())
    }
}
