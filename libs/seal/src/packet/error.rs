//! Why a layer's key cannot be had.
use crate::secret::RandomError;

/// Why annotations do not give a key. No variant holds a byte of a key; texts from the manifest are checked to be short
/// and printable before they get into one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// An annotation is missing.
    #[error("the layer has no annotation {key}")]
    Missing {
        /// Its key.
        key: &'static str,
    },
    /// A key provider that is not `attestation-agent`, alone or beside it.
    #[error("the layer names the key provider {provider:?}; only attestation-agent is allowed")]
    OtherProvider {
        /// The name, cut to 64 characters.
        provider: String,
    },
    /// Something is longer than it may be.
    #[error("{what} is {length} bytes long, more than {limit}")]
    TooLong {
        /// What.
        what: &'static str,
        /// Its length.
        length: usize,
        /// The most allowed.
        limit: usize,
    },
    /// More packets than allowed.
    #[error("the layer carries {found} packets, more than {limit}")]
    TooManyPackets {
        /// How many.
        found: usize,
        /// The most allowed.
        limit: usize,
    },
    /// Not standard base64.
    #[error("{what} is not standard base64")]
    Base64 {
        /// What.
        what: &'static str,
    },
    /// Not the JSON that it should be.
    #[error("{what} is not the JSON that it should be")]
    Json {
        /// What.
        what: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A field has a value that is not spoken here.
    #[error("{field} is {found:?}; only {supported} is supported")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// Its value, cut to 64 characters.
        found: String,
        /// What may stand there.
        supported: &'static str,
    },
    /// A field has the wrong number of bytes.
    #[error("{field} has {found} bytes instead of {expected}")]
    Length {
        /// The field.
        field: &'static str,
        /// Bytes found.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// The key id is not one.
    #[error("the key id is not of the form kbs:///<repository>/<type>/<tag>")]
    KeyId,
    /// The key of the samples, which is in public source code.
    #[error("the layer is encrypted under the public sample key {kid}")]
    SampleKey {
        /// The key id.
        kid: String,
    },
    /// No packet is for a key that the caller may use.
    #[error("the layer's key {kid} is not one that the policy names for it")]
    KeyNotNamed {
        /// The first packet's key id.
        kid: String,
    },
    /// The wrapped key does not open.
    #[error("the packet for {kid} is not authentic: changed, or wrapped under another key")]
    NotAuthentic {
        /// The key id.
        kid: String,
    },
    /// What was wrapped is no set of private options. Says nothing of it: it may hold a key.
    #[error("the packet for {kid} does not hold private options: {problem}")]
    PrivateOptions {
        /// The key id.
        kid: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Public `cipheroptions` are not empty.
    #[error("the public options set cipheroptions, which could override the sealed nonce")]
    PublicCipherOptions,
    /// The layer uses the other cipher.
    #[error("the layer's cipher is {found}; {wanted} is required here")]
    WrongCipher {
        /// The layer's.
        found: &'static str,
        /// What this use requires.
        wanted: &'static str,
    },
    /// A value that the cipher needs is missing, or one stands there that it must not have.
    #[error("the cipher {cipher} and the field {field} do not go together as they stand")]
    CipherField {
        /// The cipher.
        cipher: &'static str,
        /// The field.
        field: &'static str,
    },
    /// No random bytes.
    #[error("drawing an initialisation vector")]
    Random(#[from] RandomError),
    /// The cryptographic library refused to wrap.
    #[error("the cryptographic library refused to wrap the key")]
    Crypto,
}

/// At most 64 characters of a text from outside.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}
