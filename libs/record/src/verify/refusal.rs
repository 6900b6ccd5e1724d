//! Why a record is refused: each reason apart.

use cella_attest::tdx::TdxError;
use cella_attest::{GuestEvidenceError, VerifyError};
use cella_policy::initdata::InitdataError;

use crate::bytes::Hex;

/// Why a record whose form and signature are right is refused all the same. Quotes nothing of the record but digests and names
/// that the checker asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The record was signed by somebody, and no guest has committed to that key.
    #[error(
        "the TEE key does not commit to the record's key: whoever signed the record is not the guest of this evidence"
    )]
    KeyNotBound,
    /// SEV-SNP evidence that is not believed; among others, because it is about another TEE key.
    #[error("the evidence in the record is refused")]
    Snp(#[from] VerifyError),
    /// TDX evidence that is not believed; among others, because it is about another TEE key.
    #[error("the evidence in the record is refused")]
    Tdx(#[from] TdxError),
    /// Evidence that verifies and cannot be read: no such evidence is known.
    #[error("the evidence in the record cannot be read")]
    Unreadable(#[source] GuestEvidenceError),
    /// TDX evidence, and no collateral to verify it with.
    #[error("the record has TDX evidence: Intel's collateral for the platform is needed to verify it")]
    NoCollateral,
    /// The record says of its platform or launch what its evidence does not say.
    #[error("what the record says about {what} is not what its evidence says")]
    NotTheEvidences {
        /// The member.
        what: &'static str,
    },
    /// Evidence of a simulated platform, which nobody has allowed.
    #[error("the evidence is of a simulated platform, which protects nothing and is not allowed here")]
    Simulated,
    /// Another launch than is expected.
    #[error("the launch digest {found} is not one of those expected")]
    Measurement {
        /// That of the evidence.
        found: Hex<48>,
    },
    /// Another policy than is expected.
    #[error("the policy digest {found} is not one of those expected")]
    Policy {
        /// That of the record.
        found: Hex<32>,
    },
    /// A model that is expected and not there.
    #[error("no model of the record has the digest {wanted}")]
    Model {
        /// What was asked for.
        wanted: String,
    },
    /// An image that is expected and not there.
    #[error("no image of the record has the digest {wanted}")]
    Image {
        /// What was asked for.
        wanted: String,
    },
    /// The token is not signed by an expected key.
    #[error("the broker's token was not signed with an expected key")]
    TokenSigner,
    /// The boot lies outside of the time that is expected, or the record has none.
    #[error("the record is not from the time that is expected")]
    Time,
    /// The document is bound by another digest than SHA-256, so it takes the document to tell whether it is the one.
    #[error("the policy is bound by another digest than its SHA-256: give the initdata document")]
    NeedsDocument,
    /// The document is not the one that the guest was launched with.
    #[error("the initdata document is not the one that the guest was launched with")]
    Document,
    /// The document is the guest's, and no policy.
    #[error("the initdata document holds no policy")]
    NoPolicy(#[source] InitdataError),
    /// An output that is expected and was not pushed.
    #[error("no output of the run has the digest {wanted}")]
    Output {
        /// What was asked for.
        wanted: String,
    },
    /// The run's record says something that its boot's does not.
    #[error("the run's {what} are not those of its boot")]
    NotTheBoots {
        /// The member.
        what: &'static str,
    },
    /// The guest says that it runs something else than its policy names.
    #[error("the record's {what} are not those of its policy")]
    NotThePolicys {
        /// The member.
        what: &'static str,
    },
}
