//! What a record says.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes::Hex;

/// The only version of records that this crate makes and reads.
pub const VERSION: u64 = 1;

/// A guest's account of its boot, made when everything that its policy names was there and verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BootRecord {
    /// [`VERSION`].
    pub version: u64,
    /// The agent's version.
    pub agent: String,
    /// The guest's key for records.
    pub key: Hex<32>,
    /// What protects the guest.
    pub tee: Tee,
    /// The evidence is a simulated platform's: nothing protects the guest.
    pub simulated: bool,
    /// The launch digest: SNP's own; for TDX [`cella_attest::td_launch_digest`].
    pub measurement: Hex<48>,
    /// Versions of the platform's firmware, as the evidence reports them: `bootloader=3 tee=0 snp=20 microcode=209`, `module=1 svn=5 microcode=2`.
    pub tcb: String,
    /// The document that the guest was launched with.
    pub initdata: InitdataRecord,
    /// Name and revision of the policy in it, if it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRecord>,
    /// Images that were pulled, verified and unpacked, by container.
    pub images: Vec<ImageRecord>,
    /// Models and datasets that were pulled, opened and locked.
    pub models: Vec<ModelRecord>,
    /// Who released keys, and which.
    pub broker: BrokerRecord,
    /// When, by the broker's clock; absent where its token does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeRecord>,
}

/// What protects a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tee {
    /// SEV-SNP.
    Snp,
    /// TDX.
    Tdx,
}

impl From<cella_attest::Tee> for Tee {
    fn from(tee: cella_attest::Tee) -> Self {
        match tee {
            cella_attest::Tee::Snp => Self::Snp,
            cella_attest::Tee::Tdx => Self::Tdx,
        }
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        })
    }
}

/// An initdata document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InitdataRecord {
    /// Its SHA-256: what `cellactl policy digest` prints.
    pub sha256: Hex<32>,
    /// What the host bound to the guest at launch, in hexadecimal: HOST_DATA or MRCONFIGID, the document's digest cut or padded to its length.
    pub bound: String,
}

/// A policy's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicyRecord {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: u64,
}

/// A container's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageRecord {
    /// The container, by the policy's name for it.
    pub container: String,
    /// The image: `registry/repository@sha256:…`.
    pub image: String,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Its manifest: `registry/repository@sha256:…`.
    pub artifact: String,
    /// Its files.
    pub files: Vec<ModelFileRecord>,
    /// BLAKE3 of the plaintext, where the policy asks for it: of what `b3sum` prints for the files in byte order of their paths. `blake3:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A model's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelFileRecord {
    /// Path in the model.
    pub path: String,
    /// SHA-256 of the plaintext, as the model's manifest has it through its configuration: `sha256:…`.
    pub digest: String,
    /// BLAKE3 of the plaintext, where the policy asks for it: `blake3:…`, computed before anybody saw the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// Length of the plaintext.
    pub bytes: u64,
    /// Bytes of memory that were locked for it, in whole pages.
    pub locked_bytes: u64,
}

/// The key broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BrokerRecord {
    /// Its address, as the policy has it.
    pub url: String,
    /// Its token, absent where it is not one that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenRecord>,
    /// The keys that it released, in that order.
    pub keys: Vec<KeyRecord>,
}

/// A key's release: with `session` and `key`, a line of the broker's audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeyRecord {
    /// The key: `kbs:///repository/type/tag`.
    pub key: String,
    /// The session in which it was released; empty where the broker gives sessions no name. All have that of the token, unless the broker
    /// ended a session before the last key.
    pub session: String,
}

/// What an attestation token said. The token itself is nobody's business but the guest's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TokenRecord {
    /// Its name: the session in the broker's audit log, where each release is a line with it and the key.
    pub id: String,
    /// When it was issued, in seconds since the Unix epoch.
    pub issued: u64,
    /// Thumbprint of the key that signed it, where the policy pins keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// When things happened, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TimeRecord {
    /// The guest's kernel started.
    pub booted: u64,
    /// The record was made.
    pub recorded: u64,
}
