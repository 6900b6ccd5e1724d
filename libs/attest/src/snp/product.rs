//! Which line of processors a report comes from.

use std::fmt;

/// A line of EPYC processors with SEV-SNP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// EPYC 7003. Its VCEK secrets have been extracted by software (threat T20): refused unless asked for.
    Milan,
    /// EPYC 9004 and 8004.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// The product of a CPUID family and model, both with their extended part added.
    pub fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Product;

    #[test]
    fn products_by_cpuid() {
        for (family, model, product) in [
            (0x19, 0x01, Some(Product::Milan)),
            (0x19, 0x0f, Some(Product::Milan)),
            (0x19, 0x11, Some(Product::Genoa)),
            (0x19, 0xa0, Some(Product::Genoa)),
            (0x19, 0x20, None),
            (0x1a, 0x02, Some(Product::Turin)),
            (0x1a, 0x12, None),
            (0x17, 0x31, None),
            (0, 0, None),
        ] {
            assert_eq!(
                Product::from_cpuid(family, model),
                product,
                "family {family:#x} model {model:#x}"
            );
        }
    }
}
