//! A P-256 key with its certificate.

use std::time::Duration;

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use x509_cert::{
    Certificate, TbsCertificate, Version,
    crl::CertificateList,
    der::{self, Any, DecodePem, Encode, asn1::ObjectIdentifier},
    ext::Extension,
    name::Name,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::Validity,
};

use super::{SimError, bits, certificate, pem};
use crate::digest::sha256;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// A key, and the certificate that somebody issued for it.
pub(super) struct Key {
    /// Signs certificates and lists: DER.
    asn1: EcdsaKeyPair,
    /// Signs documents and quotes: `r || s`.
    fixed: EcdsaKeyPair,
    rng: SystemRandom,
    /// The same key as it is kept.
    pkcs8: Vec<u8>,
    certificate: Certificate,
    name: Name,
    pub(super) spki_sha256: [u8; 32],
}

impl Key {
    /// A key that certifies itself.
    pub(super) fn root(name: &'static str) -> Result<Self, SimError> {
        Self::new(name, certificate::ca(Some(1))?, None)
    }

    /// A key that this one certifies.
    pub(super) fn issue(&self, name: &'static str, extensions: Vec<Extension>) -> Result<Self, SimError> {
        Self::new(name, extensions, Some(self))
    }

    fn new(what: &'static str, extensions: Vec<Extension>, issuer: Option<&Self>) -> Result<Self, SimError> {
        let encode = |source| SimError::Encode { what, source };
        let failed = || encode(der::ErrorKind::Failed.into());
        let rng = SystemRandom::new();
        let fixed = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(fixed, &rng).map_err(|_| failed())?;
        let fixed = EcdsaKeyPair::from_pkcs8(fixed, pkcs8.as_ref(), &rng).map_err(|_| failed())?;
        let asn1 = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let asn1 = EcdsaKeyPair::from_pkcs8(asn1, pkcs8.as_ref(), &rng).map_err(|_| failed())?;
        let name = certificate::name(what)?;
        let spki = SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: EC_PUBLIC_KEY,
                parameters: Some(Any::from(PRIME256V1)),
            },
            subject_public_key: bits(what, asn1.public_key().as_ref())?,
        };
        let spki_sha256 = sha256(&spki.to_der().map_err(encode)?);
        let tbs_certificate = TbsCertificate {
            version: Version::V3,
            serial_number: certificate::serial_number().map_err(encode)?,
            signature: algorithm(),
            issuer: issuer.map_or(&name, |issuer| &issuer.name).clone(),
            validity: Validity::from_now(certificate::VALIDITY).map_err(encode)?,
            subject: name.clone(),
            subject_public_key_info: spki,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: (!extensions.is_empty()).then_some(extensions),
        };
        let signed = tbs_certificate.to_der().map_err(encode)?;
        let signer = issuer.map_or(&asn1, |issuer| &issuer.asn1);
        let signature = signer.sign(&rng, &signed).map_err(|_| failed())?;
        let certificate = Certificate {
            tbs_certificate,
            signature_algorithm: algorithm(),
            signature: bits(what, signature.as_ref())?,
        };
        Ok(Self {
            asn1,
            fixed,
            rng,
            pkcs8: pkcs8.as_ref().to_vec(),
            certificate,
            name,
            spki_sha256,
        })
    }

    /// Puts together what [`Key::pkcs8`] and [`Key::pem`] gave. `None` when they do not belong together, or are none.
    pub(super) fn load(pkcs8: Vec<u8>, pem: &str) -> Option<Self> {
        let rng = SystemRandom::new();
        let fixed = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &rng).ok()?;
        let asn1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &rng).ok()?;
        let certificate = Certificate::from_pem(pem.trim()).ok()?;
        let spki = &certificate.tbs_certificate.subject_public_key_info;
        if spki.subject_public_key.as_bytes() != Some(asn1.public_key().as_ref()) {
            return None;
        }
        let spki_sha256 = sha256(&spki.to_der().ok()?);
        let name = certificate.tbs_certificate.subject.clone();
        Some(Self {
            asn1,
            fixed,
            rng,
            pkcs8,
            certificate,
            name,
            spki_sha256,
        })
    }

    /// The private key, PKCS#8 in DER.
    pub(super) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// `x || y` of the public key.
    pub(super) fn point(&self) -> &[u8] {
        self.fixed
            .public_key()
            .as_ref()
            .split_first()
            .map_or(&[], |(_, point)| point)
    }

    /// `r || s` over a message.
    pub(super) fn sign(&self, message: &[u8]) -> Result<[u8; 64], SimError> {
        let failed = || SimError::Sign {
            what: "message",
            source: rsa::signature::Error::new(),
        };
        let signature = self.fixed.sign(&self.rng, message).map_err(|_| failed())?;
        signature.as_ref().try_into().map_err(|_| failed())
    }

    pub(super) fn pem(&self) -> Result<String, SimError> {
        pem(&self.certificate)
    }

    /// A revocation list by this key that names the others' certificates. Its term: from when, since the Unix epoch, for how long.
    pub(super) fn crl(&self, revoked: &[&Self], term: (Duration, Duration)) -> Result<Vec<u8>, SimError> {
        let what = "revocation list";
        let encode = |source| SimError::Encode { what, source };
        let ders = revoked.iter().map(|key| key.certificate.to_der());
        let ders = ders.collect::<Result<Vec<_>, _>>().map_err(encode)?;
        let revoked: Vec<_> = ders.iter().collect();
        let tbs_cert_list = certificate::revocation_list(&revoked, term, &self.name, &algorithm()).map_err(encode)?;
        let signed = tbs_cert_list.to_der().map_err(encode)?;
        let signature = self
            .asn1
            .sign(&self.rng, &signed)
            .map_err(|_| encode(der::ErrorKind::Failed.into()))?;
        let list = CertificateList {
            tbs_cert_list,
            signature_algorithm: algorithm(),
            signature: bits(what, signature.as_ref())?,
        };
        list.to_der().map_err(encode)
    }
}

fn algorithm() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid: ECDSA_WITH_SHA256,
        parameters: None,
    }
}
