//! The root and the signing key, which exist only while chips are being made.

use std::time::Duration;

use p384::ecdsa::SigningKey;
use rsa::{RsaPrivateKey, rand_core::OsRng};
use x509_cert::{
    der::Encode,
    name::Name,
    spki::{EncodePublicKey, SubjectPublicKeyInfoOwned},
};

use super::{
    Chip, ChipSpec, SimError,
    certificate::{self, Subject},
};
use crate::digest::sha256;

/// RSA modulus in bits. AMD's have 4096.
const RSA_BITS: usize = 2048;

/// A root (ARK) and the signing key (ASK) under it.
///
/// Neither key can be written out: a platform keeps one chip, and its root then signs nothing more.
pub struct Authority {
    ark_key: RsaPrivateKey,
    ark_name: Name,
    ask_key: RsaPrivateKey,
    ask_name: Name,
    ask: Vec<u8>,
    ark: Vec<u8>,
    ark_spki_sha256: [u8; 32],
}

impl Authority {
    /// Makes both keys and their certificates. Takes about a second of CPU time.
    ///
    /// # Errors
    /// [`SimError::Key`], [`SimError::Encode`] or [`SimError::Sign`].
    pub fn generate() -> Result<Self, SimError> {
        let new_key = |what| RsaPrivateKey::new(&mut OsRng, RSA_BITS).map_err(|source| SimError::Key { what, source });
        let (ark_key, ask_key) = (new_key("ARK")?, new_key("ASK")?);
        let (ark_name, ask_name) = (certificate::name("ARK-Genoa")?, certificate::name("SEV-Genoa")?);
        let ark_spki = spki(ark_key.to_public_key())?;
        let ark_spki_sha256 = sha256(&ark_spki.to_der().map_err(|source| SimError::Encode {
            what: "ARK's public key",
            source,
        })?);
        let root = Subject {
            what: "ARK certificate",
            name: &ark_name,
            key: ark_spki,
        };
        let ark = certificate::issue(root, certificate::ca(None)?, &ark_name, &ark_key)?;
        let intermediate = Subject {
            what: "ASK certificate",
            name: &ask_name,
            key: spki(ask_key.to_public_key())?,
        };
        let ask = certificate::issue(intermediate, certificate::ca(Some(0))?, &ark_name, &ark_key)?;
        Ok(Self {
            ark_key,
            ark_name,
            ask_key,
            ask_name,
            ask,
            ark,
            ark_spki_sha256,
        })
    }

    /// What a verifier lists to believe this root: SHA-256 of the ARK's SubjectPublicKeyInfo.
    pub fn ark_spki_sha256(&self) -> [u8; 32] {
        self.ark_spki_sha256
    }

    /// Makes a revocation list by the root, in DER: of the signing key, or of nothing. It holds for an hour from `since_epoch` on.
    ///
    /// # Errors
    /// [`SimError::Encode`] or [`SimError::Sign`].
    pub fn crl(&self, revoke_ask: bool, since_epoch: Duration) -> Result<Vec<u8>, SimError> {
        let revoked = if revoke_ask { vec![&self.ask] } else { Vec::new() };
        certificate::crl(&revoked, since_epoch, &self.ark_name, &self.ark_key)
    }

    /// Makes a chip: a fresh VCEK or VLEK, certified for the given identity and TCB.
    ///
    /// # Errors
    /// [`SimError::Encode`] or [`SimError::Sign`].
    pub fn chip(&self, spec: &ChipSpec) -> Result<Chip, SimError> {
        let key = SigningKey::random(&mut OsRng);
        let vcek_spki = spki(*key.verifying_key())?;
        let name = certificate::name("SEV-VCEK")?;
        let subject = Subject {
            what: "VCEK certificate",
            name: &name,
            key: vcek_spki,
        };
        let vcek = certificate::issue(subject, certificate::vek(spec)?, &self.ask_name, &self.ask_key)?;
        Ok(Chip::new(key, [vcek, self.ask.clone(), self.ark.clone()], *spec))
    }
}

fn spki(key: impl EncodePublicKey) -> Result<SubjectPublicKeyInfoOwned, SimError> {
    SubjectPublicKeyInfoOwned::from_key(key).map_err(|error| {
        let source = match error {
            x509_cert::spki::Error::Asn1(source) => source,
            _ => x509_cert::der::ErrorKind::Failed.into(),
        };
        SimError::Encode {
            what: "public key",
            source,
        }
    })
}
