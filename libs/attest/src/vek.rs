//! What AMD wrote into the certificate of an endorsement key: the TCB it was derived from, and whose chip it is.

use x509_cert::{
    Certificate,
    der::{
        Decode,
        asn1::{Ia5StringRef, ObjectIdentifier},
    },
    ext::Extension,
};

use crate::snp::{Product, Report, SigningKey, TcbVersion};

/// Extensions of a VCEK or VLEK (AMD publication 57230, section 3), relative to the arc 1.3.6.1.4.1.3704.1.
pub(crate) mod oid {
    use super::ObjectIdentifier;

    #[cfg(feature = "sim-issue")]
    pub(crate) const STRUCT_VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.1");
    #[cfg(feature = "sim-issue")]
    pub(crate) const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
    pub(crate) const BOOTLOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
    pub(crate) const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
    pub(crate) const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
    pub(crate) const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
    pub(crate) const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
    pub(crate) const HW_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
    pub(crate) const CSP_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");
}

/// Why a certificate does not vouch for a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VekError {
    /// An extension that must be there is not.
    #[error("the VCEK certificate has no extension {name}")]
    Missing {
        /// Name of the extension.
        name: &'static str,
    },
    /// An extension stands twice.
    #[error("the VCEK certificate has extension {name} more than once")]
    Duplicate {
        /// Name of the extension.
        name: &'static str,
    },
    /// An extension's value is not of its type.
    #[error("the VCEK certificate's extension {name} has no valid value")]
    Malformed {
        /// Name of the extension.
        name: &'static str,
    },
    /// The report claims a TCB that the key was not made for.
    #[error("the report claims TCB [{reported}], the VCEK is certified for [{certified}]")]
    Tcb {
        /// TCB in the report.
        reported: TcbVersion,
        /// TCB in the certificate.
        certified: TcbVersion,
    },
    /// The report claims another chip than the certificate, or the host masked the chip's identity.
    #[error("the report's chip id is not the one that the VCEK is certified for")]
    ChipId,
}

/// Checks the certificate's extensions against a report of `product` whose signature was verified.
pub(crate) fn check(certificate: &Certificate, report: &Report, product: Product) -> Result<(), VekError> {
    let extensions = Extensions::of(certificate);
    let certified = extensions.tcb(product)?;
    let reported = report.reported_tcb(product);
    if certified != reported {
        return Err(VekError::Tcb { reported, certified });
    }
    match report.signing_key {
        SigningKey::Vcek => {
            let hw_id = extensions
                .bytes("hwID", oid::HW_ID)?
                .ok_or(VekError::Missing { name: "hwID" })?;
            if is_chip(hw_id, &report.chip_id, product)? {
                Ok(())
            } else {
                Err(VekError::ChipId)
            }
        }
        SigningKey::Vlek => {
            let csp_id = extensions
                .bytes("cspID", oid::CSP_ID)?
                .ok_or(VekError::Missing { name: "cspID" })?;
            match Ia5StringRef::from_der(csp_id) {
                Ok(name) if !name.as_str().is_empty() => Ok(()),
                _ => Err(VekError::Malformed { name: "cspID" }),
            }
        }
    }
}

/// Compares a certificate's hwID with a report's chip id: 64 bytes, on Turin 8 with zeros behind.
fn is_chip(hw_id: &[u8], chip_id: &[u8; 64], product: Product) -> Result<bool, VekError> {
    let len = match product {
        Product::Milan | Product::Genoa => 64,
        Product::Turin => 8,
    };
    if hw_id.len() != len {
        return Err(VekError::Malformed { name: "hwID" });
    }
    let (id, rest) = chip_id.split_at(len);
    Ok(id == hw_id && rest.iter().all(|byte| *byte == 0))
}

/// The extensions of one certificate.
pub(crate) struct Extensions<'a>(&'a [Extension]);

impl<'a> Extensions<'a> {
    pub(crate) fn of(certificate: &'a Certificate) -> Self {
        Self(certificate.tbs_certificate.extensions.as_deref().unwrap_or_default())
    }

    /// The TCB that the key was derived from.
    pub(crate) fn tcb(&self, product: Product) -> Result<TcbVersion, VekError> {
        let fmc = match product {
            Product::Milan | Product::Genoa => None,
            Product::Turin => Some(self.level("fmcSPL", oid::FMC)?),
        };
        Ok(TcbVersion {
            fmc,
            bootloader: self.level("blSPL", oid::BOOTLOADER)?,
            tee: self.level("teeSPL", oid::TEE)?,
            snp: self.level("snpSPL", oid::SNP)?,
            microcode: self.level("ucodeSPL", oid::MICROCODE)?,
        })
    }

    /// The raw value of an extension that may stand once.
    pub(crate) fn bytes(&self, name: &'static str, oid: ObjectIdentifier) -> Result<Option<&'a [u8]>, VekError> {
        let mut found = self.0.iter().filter(|extension| extension.extn_id == oid);
        let first = found.next().map(|extension| extension.extn_value.as_bytes());
        if found.next().is_some() {
            Err(VekError::Duplicate { name })
        } else {
            Ok(first)
        }
    }

    fn level(&self, name: &'static str, oid: ObjectIdentifier) -> Result<u8, VekError> {
        let value = self.bytes(name, oid)?.ok_or(VekError::Missing { name })?;
        u8::from_der(value).map_err(|_| VekError::Malformed { name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_cert::der::asn1::OctetString;

    fn extension(extn_id: ObjectIdentifier, value: &[u8]) -> Extension {
        Extension {
            extn_id,
            critical: false,
            extn_value: OctetString::new(value).unwrap(),
        }
    }

    fn levels() -> Vec<Extension> {
        vec![
            extension(oid::BOOTLOADER, &[2, 1, 3]),
            extension(oid::TEE, &[2, 1, 0]),
            extension(oid::SNP, &[2, 1, 20]),
            extension(oid::MICROCODE, &[2, 2, 0, 209]),
        ]
    }

    #[test]
    fn levels_are_read() {
        let expected = TcbVersion {
            fmc: None,
            bootloader: 3,
            tee: 0,
            snp: 20,
            microcode: 209,
        };
        assert_eq!(Extensions(&levels()).tcb(Product::Genoa), Ok(expected));
        assert_eq!(
            Extensions(&levels()).tcb(Product::Turin),
            Err(VekError::Missing { name: "fmcSPL" })
        );
        let turin = [levels(), vec![extension(oid::FMC, &[2, 1, 1])]].concat();
        assert_eq!(
            Extensions(&turin).tcb(Product::Turin),
            Ok(TcbVersion {
                fmc: Some(1),
                ..expected
            })
        );
    }

    #[test]
    fn each_extension_once_and_well_formed() {
        let twice = [levels(), vec![extension(oid::SNP, &[2, 1, 20])]].concat();
        assert_eq!(
            Extensions(&twice).tcb(Product::Genoa),
            Err(VekError::Duplicate { name: "snpSPL" })
        );
        let values: [&[u8]; 6] = [&[], &[2, 1], &[2, 1, 0x80], &[2, 2, 1, 0], &[2, 2, 0, 1], &[4, 1, 3]];
        for value in values {
            let mut bad = levels();
            bad[0] = extension(oid::BOOTLOADER, value);
            assert_eq!(
                Extensions(&bad).tcb(Product::Genoa),
                Err(VekError::Malformed { name: "blSPL" }),
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_real_turin_certificate_is_read() {
        let certificate = Certificate::from_der(&crate::vectors::read("turin-vcek.der")).unwrap();
        let extensions = Extensions::of(&certificate);
        let tcb = extensions.tcb(Product::Turin).unwrap();
        assert_eq!(tcb.to_string(), "fmc 0, bootloader 0, tee 0, snp 0, microcode 9");
        let hw_id = extensions.bytes("hwID", oid::HW_ID).unwrap().unwrap();
        let mut chip_id = [0; 64];
        chip_id[..8].copy_from_slice(hw_id);
        assert_eq!(is_chip(hw_id, &chip_id, Product::Turin), Ok(true));
        chip_id[8] = 1;
        assert_eq!(is_chip(hw_id, &chip_id, Product::Turin), Ok(false));
    }

    #[test]
    fn chips() {
        let mut turin = [0; 64];
        turin[..8].fill(7);
        assert_eq!(is_chip(&[7; 8], &turin, Product::Turin), Ok(true));
        assert_eq!(is_chip(&[7; 8], &[7; 64], Product::Turin), Ok(false));
        assert_eq!(is_chip(&[7; 64], &[7; 64], Product::Genoa), Ok(true));
        assert_eq!(is_chip(&[7; 64], &[0; 64], Product::Genoa), Ok(false));
        assert_eq!(
            is_chip(&[7; 8], &turin, Product::Genoa),
            Err(VekError::Malformed { name: "hwID" })
        );
        assert_eq!(
            is_chip(&[7; 64], &[7; 64], Product::Turin),
            Err(VekError::Malformed { name: "hwID" })
        );
    }
}
