//! Why a file is not the weights that its name says.
use std::io;

/// Why a header cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// It does not begin as the format does.
    #[error("it does not begin like a {format} file")]
    Magic {
        /// `GGUF` or `safetensors`.
        format: &'static str,
    },
    /// A version that is not read.
    #[error("it is GGUF of version {found}; 2 and 3 are read")]
    Version {
        /// The version.
        found: u32,
    },
    /// The header goes on behind the end of the file.
    #[error("its header goes on behind the end of the file: cut short")]
    HeaderCut,
    /// A length or count beyond every bound.
    #[error("{what} is {found}, more than {limit}")]
    TooMuch {
        /// What.
        what: &'static str,
        /// What stands there.
        found: u64,
        /// The most allowed.
        limit: u64,
    },
    /// Something that the format does not have.
    #[error("its header holds {what} that the format does not have")]
    Malformed {
        /// What.
        what: &'static str,
    },
    /// The header is not the JSON that it should be.
    #[error("its header is not the JSON that it should be")]
    Json {
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A tensor that does not fit its own description.
    #[error("the tensor {name:?} {problem}")]
    Tensor {
        /// Its name, cut to 128 characters.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The file ends before its tensors do, or goes on behind them.
    #[error("its tensors end at byte {expected} and the file at byte {found}: {}", if found < expected { "cut short" } else { "something follows them" })]
    Length {
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// Reading failed.
    #[error("reading its header")]
    Read {
        /// What the reader says.
        #[source]
        source: io::Error,
    },
}

/// At most 128 characters of a text from a file.
pub(crate) fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}
