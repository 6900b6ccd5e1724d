//! Conditions of a release rule on the platform that a guest runs on: what an owner demands beyond measurement and policy digest.
//!
//! They are allow-lists in JSON: a member that is not known is refused, a list that is not there where one is mandatory is an error, an empty list
//! matches nothing. Checking is pure and gives the class of the first demand that is not met.

mod digests;
mod measurements;
mod snp;
mod tdx;

pub use digests::{ConditionError, List};
pub use measurements::{Lookup, MeasurementList, NoReferences};
pub use snp::SnpConditions;
pub use tdx::TdxConditions;
