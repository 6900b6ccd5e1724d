//! Certificates as AMD makes them: RSA-PSS with SHA-384 and a salt of 48 bytes.

use std::time::Duration;

use rsa::{
    RsaPrivateKey,
    pkcs8::spki::DynSignatureAlgorithmIdentifier,
    pss::BlindedSigningKey,
    rand_core::{OsRng, RngCore},
    signature::{RandomizedSigner, SignatureEncoding},
};
use sha2::Sha384;
use x509_cert::{
    Certificate, TbsCertificate, Version,
    der::{
        self, Encode,
        asn1::{BitString, Ia5StringRef, ObjectIdentifier, OctetString},
        oid::AssociatedOid,
    },
    ext::{
        Extension,
        pkix::{BasicConstraints, KeyUsage, KeyUsages},
    },
    name::Name,
    serial_number::SerialNumber,
    spki::SubjectPublicKeyInfoOwned,
    time::Validity,
};

use super::{ChipSpec, SimError};
use crate::vek::oid;

/// How long a certificate says it is valid: about AMD's 25 years for a root. Nobody checks it.
const VALIDITY: Duration = Duration::from_secs(25 * 365 * 24 * 3600);

/// Whose certificate, and of which key.
pub(super) struct Subject<'a> {
    /// For errors.
    pub(super) what: &'static str,
    pub(super) name: &'a Name,
    pub(super) key: SubjectPublicKeyInfoOwned,
}

/// Signs a certificate and gives it in DER.
pub(super) fn issue(
    subject: Subject<'_>,
    extensions: Vec<Extension>,
    issuer: &Name,
    issuer_key: &RsaPrivateKey,
) -> Result<Vec<u8>, SimError> {
    let what = subject.what;
    let encode = |source| SimError::Encode { what, source };
    let signer = BlindedSigningKey::<Sha384>::new(issuer_key.clone());
    let algorithm = signer
        .signature_algorithm_identifier()
        .map_err(|_| encode(der::ErrorKind::Failed.into()))?;
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: serial_number().map_err(encode)?,
        signature: algorithm.clone(),
        issuer: issuer.clone(),
        validity: Validity::from_now(VALIDITY).map_err(encode)?,
        subject: subject.name.clone(),
        subject_public_key_info: subject.key,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    };
    let signature = signer
        .try_sign_with_rng(&mut OsRng, &tbs_certificate.to_der().map_err(encode)?)
        .map_err(|source| SimError::Sign { what, source })?;
    let signature = BitString::from_bytes(&signature.to_bytes()).map_err(encode)?;
    Certificate {
        tbs_certificate,
        signature_algorithm: algorithm,
        signature,
    }
    .to_der()
    .map_err(encode)
}

/// A distinguished name that nobody takes for AMD's.
pub(super) fn name(common_name: &str) -> Result<Name, SimError> {
    format!("CN={common_name},OU=NOT HARDWARE,O=Cella simulated platform")
        .parse()
        .map_err(|source| SimError::Encode {
            what: "certificate name",
            source,
        })
}

/// Extensions of a certificate that signs certificates.
pub(super) fn ca(path_len_constraint: Option<u8>) -> Result<Vec<Extension>, SimError> {
    let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
    let constraints = BasicConstraints {
        ca: true,
        path_len_constraint,
    };
    let extensions = || -> Result<_, der::Error> {
        Ok(vec![
            extension(BasicConstraints::OID, true, constraints.to_der()?)?,
            extension(KeyUsage::OID, true, usage.to_der()?)?,
        ])
    };
    extensions().map_err(|source| SimError::Encode {
        what: "extensions of a signing certificate",
        source,
    })
}

/// AMD's extensions of a VCEK: what it was derived from.
pub(super) fn vcek(spec: &ChipSpec) -> Result<Vec<Extension>, SimError> {
    let tcb = spec.tcb;
    let extensions = || -> Result<_, der::Error> {
        Ok(vec![
            extension(oid::STRUCT_VERSION, false, 1u8.to_der()?)?,
            extension(oid::PRODUCT_NAME, false, Ia5StringRef::new("Genoa-B1")?.to_der()?)?,
            extension(oid::BOOTLOADER, false, tcb.bootloader.to_der()?)?,
            extension(oid::TEE, false, tcb.tee.to_der()?)?,
            extension(oid::SNP, false, tcb.snp.to_der()?)?,
            extension(oid::MICROCODE, false, tcb.microcode.to_der()?)?,
            extension(oid::HW_ID, false, spec.chip_id.to_vec())?,
        ])
    };
    extensions().map_err(|source| SimError::Encode {
        what: "extensions of a VCEK certificate",
        source,
    })
}

fn extension(extn_id: ObjectIdentifier, critical: bool, value: Vec<u8>) -> Result<Extension, der::Error> {
    Ok(Extension {
        extn_id,
        critical,
        extn_value: OctetString::new(value)?,
    })
}

/// A random positive number, so that no two platforms' certificates are confused.
fn serial_number() -> Result<SerialNumber, der::Error> {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    let [first, ..] = &mut bytes;
    *first = *first & 0x3f | 0x40;
    SerialNumber::new(&bytes)
}
