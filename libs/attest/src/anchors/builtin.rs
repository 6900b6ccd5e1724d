//! AMD's certificates above the keys of its chips, for evidence that brings the chip's certificate alone.
//!
//! The files in `amd/` are what AMD's key distribution service gives as `cert_chain` of each product, for VCEK and for VLEK; they were taken from
//! `google/go-sev-guest` 0.14.0, `verify/trust`. Nothing rests on them: the root of a chain is compared with [`super::Anchors`] whoever brought it.

use std::sync::LazyLock;

use x509_cert::{Certificate, der::Decode, name::Name};

use crate::{evidence::MAX_CERT, x509::pem_chain};

const FILES: [&str; 6] = [
    include_str!("amd/milan-vcek.pem"),
    include_str!("amd/milan-vlek.pem"),
    include_str!("amd/genoa-vcek.pem"),
    include_str!("amd/genoa-vlek.pem"),
    include_str!("amd/turin-vcek.pem"),
    include_str!("amd/turin-vlek.pem"),
];

/// ASK or ASVK, and ARK, by the name of the former.
static CHAINS: LazyLock<Vec<(Name, [Vec<u8>; 2])>> = LazyLock::new(|| {
    let read = |pem: &&str| {
        let [ask, ark] = <[Vec<u8>; 2]>::try_from(pem_chain(pem, 2)?).ok()?;
        let name = Certificate::from_der(&ask).ok()?.tbs_certificate.subject;
        Some((name, [ask, ark]))
    };
    FILES.iter().filter_map(read).collect()
});

/// AMD's certificates above the one given, by the name of the issuer that it claims.
pub(crate) fn above(vek: &[u8]) -> Option<&'static [Vec<u8>; 2]> {
    if vek.len() > MAX_CERT {
        return None;
    }
    let issuer = Certificate::from_der(vek).ok()?.tbs_certificate.issuer;
    CHAINS
        .iter()
        .find(|(name, _)| *name == issuer)
        .map(|(_, certificates)| certificates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Anchors,
        snp::Product,
        x509::{Cert, CertRole, Scheme},
    };

    #[test]
    fn each_chain_is_amds() {
        assert_eq!(CHAINS.len(), FILES.len());
        let products = [Product::Milan, Product::Genoa, Product::Turin];
        let expected = products.into_iter().flat_map(|product| [product, product]);
        for ((name, [ask, ark]), product) in CHAINS.iter().zip(expected) {
            let ark = Cert::parse(CertRole::Root, ark).unwrap();
            let anchors = Anchors::amd();
            let anchor = anchors.find(&ark.spki_sha256().unwrap()).unwrap();
            assert_eq!((anchor.product, anchor.simulated), (product, false), "{name}");
            ark.issued_by(&ark, Scheme::RsaPssSha384).unwrap();
            let ask = Cert::parse(CertRole::Intermediate, ask).unwrap();
            ask.issued_by(&ark, Scheme::RsaPssSha384).unwrap();
        }
    }

    #[test]
    fn they_are_found_by_the_issuers_name() {
        for (vector, name) in [
            ("milan-vcek.der", "SEV-Milan"),
            ("genoa-vcek.der", "SEV-Genoa"),
            ("turin-vcek.der", "SEV-Turin"),
        ] {
            let [ask, _] = above(&crate::vectors::read(vector)).unwrap();
            let subject = Certificate::from_der(ask).unwrap().tbs_certificate.subject.to_string();
            assert!(subject.contains(&format!("CN={name}")), "{subject}");
        }
        let [_, ark] = above(&crate::vectors::read("milan-vcek.der")).unwrap();
        assert_eq!(above(ark), None, "nothing is above a root");
        assert_eq!(above(b""), None);
        assert_eq!(above(&vec![0x30; MAX_CERT + 1]), None);
    }
}
