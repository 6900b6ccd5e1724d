//! VCEK → ASK → ARK: three RSA-PSS signatures, three names, one root that is on the list; dates and AMD's revocation list where asked for.

use std::time::Duration;

use x509_cert::Certificate;

use crate::{
    anchors::{Anchor, Anchors, builtin},
    hex_bytes::Hex,
    verify::VerifyError,
    x509::{Cert, CertRole, ChainError, Crl, CrlError, CrlRole, Scheme},
};

const SCHEME: Scheme = Scheme::RsaPssSha384;

/// What is asked of a chain beyond its signatures.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ChainChecks<'a> {
    /// Time since the Unix epoch at which certificates and lists must be valid; `None`: dates are not looked at.
    pub(crate) now: Option<Duration>,
    /// AMD's revocation lists in DER, of any product.
    pub(crate) crls: &'a [Vec<u8>],
    /// Refuse a chain without a list by its root.
    pub(crate) require_crl: bool,
}

/// Verifies a chain up to an anchor.
///
/// A certificate of AMD's chips that comes alone is put under AMD's own, which are built in.
///
/// Gives the certificate of the endorsement key and the anchor. The root's key is compared first, so nobody makes this function verify
/// signatures without naming a known root.
pub(crate) fn verify_chain<'a>(
    chain: &[Vec<u8>],
    anchors: &'a Anchors,
    checks: ChainChecks<'_>,
) -> Result<(Certificate, &'a Anchor), VerifyError> {
    let complete = match chain {
        [vek, ask, ark] => Some((vek, ask, ark)),
        [vek] => builtin::above(vek).map(|[ask, ark]| (vek, ask, ark)),
        _ => None,
    };
    let (vek, ask, ark) = complete.ok_or(ChainError::Length {
        found: chain.len(),
        needed: "VCEK, ASK and ARK, or AMD's VCEK alone",
    })?;
    let ark = Cert::parse(CertRole::Root, ark)?;
    let spki_sha256 = ark.spki_sha256()?;
    let anchor = anchors.find(&spki_sha256).ok_or(ChainError::NotAnAnchor {
        role: CertRole::Root,
        spki_sha256: Hex(spki_sha256),
    })?;
    ark.issued_by(&ark, SCHEME)?;
    let ask = Cert::parse(CertRole::Intermediate, ask)?;
    ask.issued_by(&ark, SCHEME)?;
    let vek = Cert::parse(CertRole::Endorsement, vek)?;
    vek.issued_by(&ask, SCHEME)?;
    vek.leaf()?;
    if let Some(now) = checks.now {
        for certificate in [&ark, &ask, &vek] {
            certificate.valid_at(now)?;
        }
    }
    check_revocation(&ark, &ask, checks)?;
    Ok((vek.certificate, anchor))
}

/// Whether bytes are a revocation list of the form that AMD gives out: for whoever keeps one in a file. Nothing in it is believed by this.
///
/// # Errors
/// [`CrlError`].
pub fn check_amd_crl(der: &[u8]) -> Result<(), CrlError> {
    Crl::parse(CrlRole::Amd, der).map(drop)
}

/// AMD revokes what the ARK signed: the ASK and ASVK. A list of another product's ARK is passed over; one that names this ARK must be its.
fn check_revocation(ark: &Cert<'_>, ask: &Cert<'_>, checks: ChainChecks<'_>) -> Result<(), VerifyError> {
    let role = CrlRole::Amd;
    let mut seen = false;
    for der in checks.crls {
        let crl = Crl::parse(role, der)?;
        if crl.names(ark) {
            crl.verify(ark, SCHEME, checks.now)?;
            crl.check(ark)?;
            crl.check(ask)?;
            seen = true;
        }
    }
    if checks.require_crl && !seen {
        return Err(CrlError::Missing { role }.into());
    }
    Ok(())
}
