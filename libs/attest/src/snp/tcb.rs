//! Security patch levels of the firmware components that a guest's secrecy rests on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Product;

/// A TCB version, one security patch level (SPL) for each component. Versions are compared component by component, never as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbVersion {
    /// Firmware of the secure microcontroller: Turin and later only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
    /// Boot loader of the security processor.
    pub bootloader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SEV-SNP firmware.
    pub snp: u8,
    /// Microcode of the CPU's cores.
    pub microcode: u8,
}

impl TcbVersion {
    /// Reads the eight bytes of a report in the layout of `product`. Reserved bytes are not looked at.
    pub fn from_bytes(bytes: [u8; 8], product: Product) -> Self {
        match product {
            Product::Milan | Product::Genoa => {
                let [bootloader, tee, _, _, _, _, snp, microcode] = bytes;
                Self {
                    fmc: None,
                    bootloader,
                    tee,
                    snp,
                    microcode,
                }
            }
            Product::Turin => {
                let [fmc, bootloader, tee, snp, _, _, _, microcode] = bytes;
                Self {
                    fmc: Some(fmc),
                    bootloader,
                    tee,
                    snp,
                    microcode,
                }
            }
        }
    }

    /// True when no component is below that of `minimum`. A minimum without an FMC level accepts any.
    pub fn meets(&self, minimum: &Self) -> bool {
        self.below(minimum).is_none()
    }

    /// The first component that is below that of `minimum`. A newer microcode does not make up for an older firmware, and a minimum for a
    /// component that the platform does not have is not met.
    pub fn below(&self, minimum: &Self) -> Option<&'static str> {
        let fmc = minimum.fmc.is_none_or(|level| self.fmc.is_some_and(|own| own >= level));
        let parts = [
            ("fmc", fmc),
            ("bootloader", self.bootloader >= minimum.bootloader),
            ("tee", self.tee >= minimum.tee),
            ("snp", self.snp >= minimum.snp),
            ("microcode", self.microcode >= minimum.microcode),
        ];
        parts.into_iter().find_map(|(part, met)| (!met).then_some(part))
    }
}

impl fmt::Display for TcbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc}, ")?;
        }
        write!(
            f,
            "bootloader {}, tee {}, snp {}, microcode {}",
            self.bootloader, self.tee, self.snp, self.microcode
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMUM: TcbVersion = TcbVersion {
        fmc: None,
        bootloader: 3,
        tee: 1,
        snp: 20,
        microcode: 209,
    };

    #[test]
    fn layouts() {
        let bytes = [0x01, 0x01, 0x01, 0x04, 0x00, 0x00, 0x00, 0x51];
        let turin = TcbVersion {
            fmc: Some(1),
            bootloader: 1,
            tee: 1,
            snp: 4,
            microcode: 0x51,
        };
        assert_eq!(TcbVersion::from_bytes(bytes, Product::Turin), turin);
        let bytes = [3, 1, 9, 9, 9, 9, 20, 209];
        assert_eq!(TcbVersion::from_bytes(bytes, Product::Milan), MINIMUM);
        assert_eq!(TcbVersion::from_bytes(bytes, Product::Genoa), MINIMUM);
    }

    #[test]
    fn every_component_counts() {
        assert!(MINIMUM.meets(&MINIMUM));
        assert!(
            TcbVersion {
                fmc: Some(0),
                microcode: 255,
                ..MINIMUM
            }
            .meets(&MINIMUM)
        );
        for below in [
            TcbVersion {
                bootloader: 2,
                snp: 255,
                ..MINIMUM
            },
            TcbVersion {
                tee: 0,
                snp: 255,
                ..MINIMUM
            },
            TcbVersion {
                snp: 19,
                bootloader: 255,
                ..MINIMUM
            },
            TcbVersion {
                microcode: 208,
                snp: 255,
                ..MINIMUM
            },
        ] {
            assert!(!below.meets(&MINIMUM), "{below}");
        }
        let with_fmc = TcbVersion {
            fmc: Some(2),
            ..MINIMUM
        };
        assert!(!MINIMUM.meets(&with_fmc));
        assert!(
            !TcbVersion {
                fmc: Some(1),
                ..MINIMUM
            }
            .meets(&with_fmc)
        );
        assert!(with_fmc.meets(&with_fmc));
    }

    #[test]
    fn json_form_of_a_rule() {
        let json = r#"{"bootloader":3,"tee":1,"snp":20,"microcode":209}"#;
        assert_eq!(serde_json::from_str::<TcbVersion>(json).unwrap(), MINIMUM);
        assert_eq!(serde_json::to_string(&MINIMUM).unwrap(), json);
        assert!(serde_json::from_str::<TcbVersion>(r#"{"bootloader":3,"tee":1,"snp":20}"#).is_err());
        assert!(serde_json::from_str::<TcbVersion>(r#"{"bootloader":3,"tee":1,"snp":20,"microcode":256}"#).is_err());
    }
}
