//! The boot record: what this guest runs, on what, and who released which keys to it, signed. See `cella_record`.

use std::sync::{Arc, OnceLock};

use cella_attest::Launched;
use cella_kbs_client::token::Token;
use cella_policy::Policy;
use cella_record::{
    BindingText, BootRecord, BrokerRecord, CanonicalError, EvidenceText, Hex, ImageRecord, InitdataRecord,
    ModelFileRecord, ModelRecord, PolicyRecord, SignedRecord, TimeRecord, TokenRecord, VERSION,
};

use super::{
    keys::{Proof, Summary},
    model::LoadedModel,
};
use crate::{boot::BootInfo, stage::boot_time_us};

/// The record, once it is made. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded(Arc<OnceLock<String>>);

impl Recorded {
    /// The canonical text.
    pub(crate) fn text(&self) -> Option<String> {
        self.0.get().cloned()
    }

    /// Keeps the text. There is one for a boot: a second is dropped.
    pub(crate) fn keep(&self, text: String) {
        let _ = self.0.set(text);
    }
}

/// The canonical text of the signed record. Every image of the policy is there, and `models` are all of its models. `None` where the
/// evidence does not vouch for the record's key.
pub(crate) fn make(
    init: &BootInfo,
    summary: Summary,
    models: &[Arc<LoadedModel>],
) -> Result<Option<String>, CanonicalError> {
    let Some(Proof {
        evidence,
        binding,
        token,
    }) = summary.proof
    else {
        return Ok(None);
    };
    // The broker has verified it, so it can be read.
    let Ok(launched) = Launched::of_evidence(&evidence) else {
        return Ok(None);
    };
    let record = BootRecord {
        version: VERSION,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        key: init.record_key.public(),
        tee: summary.tee.into(),
        simulated: summary.simulated,
        measurement: Hex(launched.measurement),
        tcb: launched.tcb,
        initdata: InitdataRecord {
            sha256: Hex(init.digests.sha256),
            bound: hex::encode(launched.bound.as_bytes()),
        },
        policy: init.policy.revision().map(|(name, revision)| PolicyRecord {
            name: name.to_owned(),
            revision,
        }),
        images: images(&init.policy),
        models: models.iter().map(|loaded| model(loaded)).collect(),
        broker: BrokerRecord {
            url: init.policy.kbs().map(|kbs| kbs.url.to_string()).unwrap_or_default(),
            token: token.as_ref().map(described),
            keys: summary.keys,
        },
        time: init.time.now().map(|now| TimeRecord {
            booted: now.as_secs().saturating_sub(boot_time_us() / 1_000_000),
            recorded: now.as_secs(),
        }),
    };
    let binding = BindingText::from(&binding);
    let signed = SignedRecord::sign(record, &init.record_key, binding, EvidenceText::from(&evidence))?;
    signed.to_text().map(Some)
}

fn images(policy: &Policy) -> Vec<ImageRecord> {
    let image = |container: &cella_policy::ContainerPolicy| ImageRecord {
        container: container.name.clone(),
        image: container.image.to_string(),
    };
    policy.containers().iter().map(image).collect()
}

/// A model as it lies in memory.
pub(super) fn model(loaded: &LoadedModel) -> ModelRecord {
    let files = loaded.files.iter().map(|file| ModelFileRecord {
        path: file.path.clone(),
        digest: file.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        blake3: file.blake3.map(|digest| digest.to_string()),
        bytes: file.bytes,
        locked_bytes: file.locked,
    });
    ModelRecord {
        name: loaded.name.clone(),
        version: loaded.version,
        artifact: loaded.artifact.clone(),
        files: files.collect(),
        digest: loaded.digest.map(|digest| digest.to_string()),
    }
}

fn described(token: &Token) -> TokenRecord {
    TokenRecord {
        id: token.id.clone(),
        issued: token.issued.as_secs(),
        signer: token.signer.map(|signer| signer.to_string()),
    }
}
