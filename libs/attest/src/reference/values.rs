//! Values and their names.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::ReferenceError;

/// Most values of one kind in a document.
pub(super) const MAX_VALUES: usize = 256;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Measured {
    /// SEV-SNP's launch digest.
    SnpLaunchDigest,
    /// TDX: firmware.
    Mrtd,
    /// TDX: what the firmware was configured with.
    Rtmr0,
    /// TDX: the kernel.
    Rtmr1,
    /// TDX: command line and initrd.
    Rtmr2,
    /// TDX: what the guest itself extended.
    Rtmr3,
}

impl Measured {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::SnpLaunchDigest,
        Self::Mrtd,
        Self::Rtmr0,
        Self::Rtmr1,
        Self::Rtmr2,
        Self::Rtmr3,
    ];

    /// The name of its values in a document: that of Trustee's appraisal policy.
    pub fn name(self) -> &'static str {
        match self {
            Self::SnpLaunchDigest => "snp_launch_measurement",
            Self::Mrtd => "mr_td",
            Self::Rtmr0 => "rtmr_0",
            Self::Rtmr1 => "rtmr_1",
            Self::Rtmr2 => "rtmr_2",
            Self::Rtmr3 => "rtmr_3",
        }
    }
}

/// Values by what they are of; none of them twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<Measured, Vec<[u8; 48]>>);

impl Values {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value.
    pub fn add(&mut self, of: Measured, value: [u8; 48]) {
        let values = self.0.entry(of).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    /// The values of one kind.
    pub fn of(&self, measured: Measured) -> &[[u8; 48]] {
        self.0.get(&measured).map_or(&[], Vec::as_slice)
    }

    /// Each value with what it is of.
    pub fn iter(&self) -> impl Iterator<Item = (Measured, &[u8; 48])> {
        self.0
            .iter()
            .flat_map(|(measured, values)| values.iter().map(|value| (*measured, value)))
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let list = |values: &Vec<[u8; 48]>| values.iter().map(hex::encode).collect();
        let wire: BTreeMap<&str, Vec<String>> = self.0.iter().map(|(of, values)| (of.name(), list(values))).collect();
        // Texts under fixed names: nothing can fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    pub(super) fn from_json(json: &[u8]) -> Result<Self, ReferenceError> {
        let mut wire: Wire = serde_json::from_slice(json).map_err(|source| ReferenceError::Values { source })?;
        let mut values = Self::new();
        for measured in Measured::ALL {
            let name = measured.name();
            let texts = std::mem::take(wire.list(measured));
            if texts.len() > MAX_VALUES {
                return Err(ReferenceError::TooMany { name });
            }
            for (index, text) in texts.iter().enumerate() {
                let mut value = [0; 48];
                hex::decode_to_slice(text, &mut value).map_err(|_| ReferenceError::Value { name, index })?;
                values.add(measured, value);
            }
        }
        if values.0.is_empty() {
            return Err(ReferenceError::Empty);
        }
        Ok(values)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wire {
    snp_launch_measurement: Vec<String>,
    mr_td: Vec<String>,
    rtmr_0: Vec<String>,
    rtmr_1: Vec<String>,
    rtmr_2: Vec<String>,
    rtmr_3: Vec<String>,
}

impl Wire {
    fn list(&mut self, of: Measured) -> &mut Vec<String> {
        match of {
            Measured::SnpLaunchDigest => &mut self.snp_launch_measurement,
            Measured::Mrtd => &mut self.mr_td,
            Measured::Rtmr0 => &mut self.rtmr_0,
            Measured::Rtmr1 => &mut self.rtmr_1,
            Measured::Rtmr2 => &mut self.rtmr_2,
            Measured::Rtmr3 => &mut self.rtmr_3,
        }
    }
}

/// What reference values are called: 1 to 64 characters out of `A-Z a-z 0-9 _ . -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReferenceName(String);

impl ReferenceName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReferenceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ReferenceName {
    type Err = ReferenceNameError;

    fn from_str(text: &str) -> Result<Self, ReferenceNameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if (1..=64).contains(&text.len()) && !matches!(text, "." | "..") && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceNameError)
        }
    }
}

impl Serialize for ReferenceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ReferenceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Not a name of reference values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of reference values is 1 to 64 characters out of A-Z a-z 0-9 _ . -")]
pub struct ReferenceNameError;
