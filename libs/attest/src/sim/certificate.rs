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
    crl::{CertificateList, RevokedCert, TbsCertList},
    der::{
        self, Decode, Encode,
        asn1::{BitString, GeneralizedTime, Ia5StringRef, ObjectIdentifier, OctetString},
        oid::AssociatedOid,
    },
    ext::{
        Extension,
        pkix::{BasicConstraints, KeyUsage, KeyUsages},
    },
    name::Name,
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};

use super::{ChipSpec, SimError};
use crate::{snp::SigningKey, vek::oid};

/// How long a certificate says it is valid: about AMD's 25 years for a root.
pub(super) const VALIDITY: Duration = Duration::from_secs(25 * 365 * 24 * 3600);

/// How long SNP's revocation lists say they hold.
const CRL_VALIDITY: Duration = Duration::from_secs(3600);

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

/// Signs a revocation list that names these certificates, for one hour, and gives it in DER.
pub(super) fn crl(
    revoked: &[&Vec<u8>],
    since_epoch: Duration,
    issuer: &Name,
    issuer_key: &RsaPrivateKey,
) -> Result<Vec<u8>, SimError> {
    let what = "revocation list";
    let encode = |source| SimError::Encode { what, source };
    let signer = BlindedSigningKey::<Sha384>::new(issuer_key.clone());
    let algorithm = signer
        .signature_algorithm_identifier()
        .map_err(|_| encode(der::ErrorKind::Failed.into()))?;
    let term = (since_epoch, CRL_VALIDITY);
    let tbs_cert_list = revocation_list(revoked, term, issuer, &algorithm).map_err(encode)?;
    let signature = signer
        .try_sign_with_rng(&mut OsRng, &tbs_cert_list.to_der().map_err(encode)?)
        .map_err(|source| SimError::Sign { what, source })?;
    let signature = BitString::from_bytes(&signature.to_bytes()).map_err(encode)?;
    let list = CertificateList {
        tbs_cert_list,
        signature_algorithm: algorithm,
        signature,
    };
    list.to_der().map_err(encode)
}

/// What is signed of a list, which holds from a time since the Unix epoch on for a while.
pub(super) fn revocation_list(
    revoked: &[&Vec<u8>],
    (since_epoch, holds): (Duration, Duration),
    issuer: &Name,
    algorithm: &AlgorithmIdentifierOwned,
) -> Result<TbsCertList, der::Error> {
    let time = |at| GeneralizedTime::from_unix_duration(at).map(Time::GeneralTime);
    let this_update = time(since_epoch)?;
    let entry = |certificate: &&Vec<u8>| {
        Ok(RevokedCert {
            serial_number: Certificate::from_der(certificate)?.tbs_certificate.serial_number,
            revocation_date: this_update,
            crl_entry_extensions: None,
        })
    };
    let entries = revoked.iter().map(entry).collect::<Result<Vec<_>, der::Error>>()?;
    Ok(TbsCertList {
        version: Version::V2,
        signature: algorithm.clone(),
        issuer: issuer.clone(),
        this_update,
        next_update: Some(time(since_epoch.saturating_add(holds))?),
        revoked_certificates: (!entries.is_empty()).then_some(entries),
        crl_extensions: None,
    })
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

/// AMD's extensions of a VCEK or VLEK: what it was derived from.
pub(super) fn vek(spec: &ChipSpec) -> Result<Vec<Extension>, SimError> {
    let tcb = spec.tcb;
    let extensions = || -> Result<_, der::Error> {
        let name = format!("{}-B1", spec.product);
        let mut extensions = vec![
            extension(oid::STRUCT_VERSION, false, 1u8.to_der()?)?,
            extension(oid::PRODUCT_NAME, false, Ia5StringRef::new(&name)?.to_der()?)?,
            extension(oid::BOOTLOADER, false, tcb.bootloader.to_der()?)?,
            extension(oid::TEE, false, tcb.tee.to_der()?)?,
            extension(oid::SNP, false, tcb.snp.to_der()?)?,
            extension(oid::MICROCODE, false, tcb.microcode.to_der()?)?,
        ];
        if let Some(fmc) = tcb.fmc {
            extensions.push(extension(oid::FMC, false, fmc.to_der()?)?);
        }
        extensions.push(match spec.signing_key {
            SigningKey::Vcek => extension(oid::HW_ID, false, spec.hw_id().to_vec())?,
            SigningKey::Vlek => extension(oid::CSP_ID, false, Ia5StringRef::new("CN=provider")?.to_der()?)?,
        });
        Ok(extensions)
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
pub(super) fn serial_number() -> Result<SerialNumber, der::Error> {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    let [first, ..] = &mut bytes;
    *first = *first & 0x3f | 0x40;
    SerialNumber::new(&bytes)
}
