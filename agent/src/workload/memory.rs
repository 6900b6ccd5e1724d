//! Who gets how much of the guest's memory. Settled before anything is fetched, so that what cannot fit is refused by name
//! and not by the kernel.

use std::io;

use cella_policy::{ModelPolicy, OutputPolicy};

use super::{error::WorkloadError, model::HUGE_PAGE, proc};

/// Kept back for the agent itself and for the kernel's own needs while a workload is loaded.
const RESERVE: u64 = 48 << 20;

/// What models and images may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPlan {
    /// All that there is for both.
    pub(crate) free: u64,
    /// What the images may take together: what the models leave.
    pub(crate) images: u64,
}

impl MemoryPlan {
    /// Divides `free` bytes. What a job may leave is kept free for it, whole. Refuses the first model that does not fit behind those before
    /// it.
    pub(crate) fn new<'m>(
        models: impl IntoIterator<Item = &'m ModelPolicy>,
        output: Option<&OutputPolicy>,
        free: u64,
    ) -> Result<Self, WorkloadError> {
        let kept = output.map_or(0, |output| rounded(output.max_bytes));
        let free = free.checked_sub(kept).ok_or_else(|| WorkloadError::OutputMemory {
            output: output.map(ToString::to_string).unwrap_or_default(),
            needs: kept,
            free,
        })?;
        let mut left = free;
        for model in models {
            let needs = rounded(model.bytes);
            left = left.checked_sub(needs).ok_or_else(|| WorkloadError::ModelMemory {
                model: model.name.clone(),
                needs,
                free: left,
            })?;
        }
        Ok(Self { free, images: left })
    }
}

/// Bytes that can be given away now.
pub(crate) fn free() -> io::Result<u64> {
    Ok(proc::available_memory()?.saturating_sub(RESERVE))
}

/// `bytes` in whole huge pages.
pub(crate) fn rounded(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(HUGE_PAGE as u64).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, bytes: u64) -> ModelPolicy {
        let artifact = format!("localhost:5000/{name}@sha256:{}", "0".repeat(64));
        ModelPolicy {
            name: name.to_owned(),
            version: 1,
            artifact: artifact.parse().unwrap(),
            keys: vec!["kbs:///demo/model-kek/1".parse().unwrap()],
            bytes,
            provenance: cella_policy::Provenance::Sealed,
        }
    }

    #[test]
    fn images_get_what_whole_pages_of_models_leave() {
        let models = [model("models/a", 1), model("models/b", 3 << 20)];
        let plan = MemoryPlan::new(&models, None, 100 << 20).unwrap();
        assert_eq!(
            plan,
            MemoryPlan {
                free: 100 << 20,
                images: 94 << 20
            }
        );
    }

    #[test]
    fn the_model_that_does_not_fit_is_named_with_both_sizes() {
        let models = [model("models/a", 300_000_000), model("models/demo", 1_077_040_288)];
        let error = MemoryPlan::new(&models, None, 700_000_000).unwrap_err();
        let needs = rounded(1_077_040_288);
        let left = 700_000_000 - rounded(300_000_000);
        assert!(
            matches!(&error, WorkloadError::ModelMemory { model, needs: n, free } if model == "models/demo" && *n == needs && *free == left)
        );
        assert_eq!(
            error.to_string(),
            "model models/demo needs 1078 MB, the guest has 398 MB free"
        );
        assert!(MemoryPlan::new(&[model("models/huge", u64::MAX)], None, u64::MAX - 1).is_err());
    }
}
