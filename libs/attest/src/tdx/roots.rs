//! The roots that a verifier of quotes believes.

use crate::anchors::{AnchorError, decode, spki_sha256};

/// Intel's SGX root CA: SHA-256 of its SubjectPublicKeyInfo. Its certificate stands in every quote of Intel's; a test compares.
const INTEL: [u8; 32] = decode("a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e");

/// A list of root keys, each known by the SHA-256 of its SubjectPublicKeyInfo in DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots(Vec<Root>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Root {
    spki_sha256: [u8; 32],
    simulated: bool,
}

impl Roots {
    /// Intel's root.
    pub fn intel() -> Self {
        Self(vec![Root {
            spki_sha256: INTEL,
            simulated: false,
        }])
    }

    /// No root at all: what [`Roots::with_simulated`] adds is then the only one.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds the root of a simulated platform. Whatever verifies under it is marked [`super::VerifiedTd::simulated`].
    #[must_use]
    pub fn with_simulated(mut self, spki_sha256: [u8; 32]) -> Self {
        self.0.push(Root {
            spki_sha256,
            simulated: true,
        });
        self
    }

    /// As [`Roots::with_simulated`], from the root's certificate: one PEM block of at most 16 KiB.
    ///
    /// # Errors
    /// [`AnchorError`] when the text is no such certificate.
    pub fn with_simulated_pem(self, pem: &str) -> Result<Self, AnchorError> {
        Ok(self.with_simulated(spki_sha256(pem)?))
    }

    /// Whether a root is on the list, and if so whether it is a simulated platform's.
    pub(super) fn find(&self, spki_sha256: &[u8; 32]) -> Option<bool> {
        let found = self.0.iter().find(|root| root.spki_sha256 == *spki_sha256);
        found.map(|root| root.simulated)
    }
}
