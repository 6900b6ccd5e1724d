//! The roots that a verifier believes.

pub(crate) mod builtin;

use x509_cert::{
    Certificate,
    der::{DecodePem, Encode},
};

use crate::{digest::sha256, snp::Product};

/// Largest PEM file that is taken for a root.
const MAX_PEM: usize = 16 * 1024;

/// A list of AMD root keys (ARK), each known by the SHA-256 of its SubjectPublicKeyInfo in DER.
///
/// The VCEK and the VLEK chain of a product end in the same key, so one entry serves both.
#[derive(Debug, Clone)]
pub struct Anchors(Vec<Anchor>);

impl Anchors {
    /// AMD's own roots, of Milan, Genoa and Turin.
    ///
    /// Their source is AMD's key distribution service; `google/go-sev-guest` and the crate `sev` carry the certificates, and a test
    /// compares these digests with the former.
    pub fn amd() -> Self {
        Self(AMD.to_vec())
    }

    /// No root at all: what [`Anchors::with_simulated`] adds is then the only one.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds the root of a simulated platform. Whatever verifies under it is marked [`crate::Verified::simulated`].
    #[must_use]
    pub fn with_simulated(self, spki_sha256: [u8; 32]) -> Self {
        self.with_simulated_of(spki_sha256, Product::Genoa)
    }

    /// As [`Anchors::with_simulated`], for a platform that simulates another product than Genoa.
    #[must_use]
    pub fn with_simulated_of(mut self, spki_sha256: [u8; 32], product: Product) -> Self {
        self.0.push(Anchor {
            spki_sha256,
            product,
            simulated: true,
        });
        self
    }

    /// As [`Anchors::with_simulated`], from the root's certificate: one PEM block of at most 16 KiB.
    ///
    /// # Errors
    /// [`AnchorError`] when the text is no such certificate.
    pub fn with_simulated_pem(self, pem: &str) -> Result<Self, AnchorError> {
        Ok(self.with_simulated(spki_sha256(pem)?))
    }

    pub(crate) fn find(&self, spki_sha256: &[u8; 32]) -> Option<&Anchor> {
        self.0.iter().find(|anchor| anchor.spki_sha256 == *spki_sha256)
    }
}

/// One root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// SHA-256 of the SubjectPublicKeyInfo of the ARK, in DER.
    pub spki_sha256: [u8; 32],
    /// The product whose chips it stands for.
    pub product: Product,
    /// True for the root of a `cella-sim-platform`: nothing under it says anything about hardware.
    pub simulated: bool,
}

/// Why a certificate cannot be a root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// More bytes than a certificate has.
    #[error("the root certificate is larger than {limit} bytes")]
    TooLarge {
        /// Limit in bytes.
        limit: usize,
    },
    /// Not one PEM block with an X.509 certificate.
    #[error("the root is not one X.509 certificate in PEM")]
    Pem {
        /// What the parser stopped at.
        #[source]
        source: x509_cert::der::Error,
    },
}

/// SHA-256 of the SubjectPublicKeyInfo of the one certificate in a PEM text.
pub(crate) fn spki_sha256(pem: &str) -> Result<[u8; 32], AnchorError> {
    if pem.len() > MAX_PEM {
        return Err(AnchorError::TooLarge { limit: MAX_PEM });
    }
    let certificate = Certificate::from_pem(pem.trim()).map_err(|source| AnchorError::Pem { source })?;
    let spki = certificate.tbs_certificate.subject_public_key_info.to_der();
    spki.map(|der| sha256(&der))
        .map_err(|source| AnchorError::Pem { source })
}

const AMD: [Anchor; 3] = [
    amd(
        Product::Milan,
        "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
    ),
    amd(
        Product::Genoa,
        "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
    ),
    amd(
        Product::Turin,
        "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
    ),
];

const fn amd(product: Product, spki_sha256: &str) -> Anchor {
    Anchor {
        spki_sha256: decode(spki_sha256),
        product,
        simulated: false,
    }
}

/// Hexadecimal to bytes while compiling: a wrong digit or length stops the build.
#[allow(clippy::indexing_slicing, reason = "evaluated while compiling only")]
pub(crate) const fn decode(text: &str) -> [u8; 32] {
    const fn nibble(digit: u8) -> u8 {
        match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => 16,
        }
    }
    let digits = text.as_bytes();
    assert!(digits.len() == 64);
    let mut out = [0; 32];
    let mut at = 0;
    while at < 32 {
        let (high, low) = (nibble(digits[2 * at]), nibble(digits[2 * at + 1]));
        assert!(high < 16 && low < 16);
        out[at] = high * 16 + low;
        at += 1;
    }
    out
}
