//! What the agent says of the guest, made into samples. The bytes are hostile: lengths are bounded, names are from a fixed list,
//! text is cleaned.

use std::time::Duration;

use cella_protos::agent as wire;

use super::page::{Kind, Page, seconds};
use crate::untrusted::printable;

/// Most stages that are shown.
const MAX_STAGES: usize = 64;
/// Longest name of an image, model or container, in bytes.
const MAX_SUBJECT: usize = 160;
/// The agent's names of the stages, and those that are shown.
const STAGES: [(&str, &str); 7] = [
    ("boot", "guest-boot"),
    ("attest", "attestation"),
    ("keys", "key-release"),
    ("image", "image-pull"),
    ("model", "model-decrypt-and-load"),
    ("start", "container-start"),
    ("output", "output-push"),
];

/// One scrape's worth of the guest's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestFacts {
    /// In the order in which they began; those that have ended.
    pub stages: Vec<StageFact>,
    /// Bytes of memory: total, available, locked, agent.
    pub memory: Option<[(&'static str, u64); 4]>,
    /// Bytes of models that are locked.
    pub model_locked_bytes: u64,
}

/// A stage that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageFact {
    /// The name that is shown.
    pub stage: &'static str,
    /// Image, model or container; "" where there is one only.
    pub subject: String,
    /// How long it took; none where it failed.
    pub took: Option<Duration>,
}

impl GuestFacts {
    /// What is shown of an answer.
    pub fn of(status: &wire::StatusResponse) -> Self {
        let memory = status.memory.as_ref().map(|memory| {
            [
                ("total", memory.total_bytes),
                ("available", memory.available_bytes),
                ("locked", memory.mlocked_bytes),
                ("agent", memory.agent_rss_bytes),
            ]
        });
        let files = status.models.iter().flat_map(|model| &model.files);
        Self {
            stages: status.stages.iter().filter_map(stage).take(MAX_STAGES).collect(),
            memory,
            model_locked_bytes: files.fold(0, |sum, file| sum.saturating_add(file.locked_bytes)),
        }
    }

    pub(super) fn render(&self, page: &mut Page) {
        page.family(
            "cella_guest_stage_duration_seconds",
            Kind::Gauge,
            "How long a stage took in the guest, by its clock; the longest of those with one subject. The guest's word.",
        );
        for fact in self.each_once(|fact| fact.took.is_some()) {
            let took = fact.took.unwrap_or_default();
            page.sample(&[("stage", fact.stage), ("subject", &fact.subject)], seconds(took));
        }
        page.family(
            "cella_guest_stage_failures",
            Kind::Gauge,
            "Stages that failed in the guest. The guest's word.",
        );
        for (_, name) in STAGES {
            let failed = self
                .stages
                .iter()
                .filter(|fact| fact.stage == name && fact.took.is_none());
            page.sample(&[("stage", name)], failed.count());
        }
        page.family(
            "cella_guest_memory_bytes",
            Kind::Gauge,
            "Memory as the guest sees it. The guest's word.",
        );
        for (kind, bytes) in self.memory.iter().flatten() {
            page.sample(&[("kind", kind)], bytes);
        }
        page.family(
            "cella_guest_model_locked_bytes",
            Kind::Gauge,
            "Model memory that the agent has locked. The guest's word.",
        )
        .sample(&[], self.model_locked_bytes);
    }

    /// Of the stages that pass, the longest for each stage and subject: a sample may be there once.
    fn each_once(&self, passes: impl Fn(&StageFact) -> bool) -> Vec<&StageFact> {
        let mut chosen: Vec<&StageFact> = Vec::new();
        for fact in self.stages.iter().filter(|fact| passes(fact)) {
            let same = |other: &&mut &StageFact| (other.stage, &other.subject) == (fact.stage, &fact.subject);
            match chosen.iter_mut().find(same) {
                Some(other) if other.took < fact.took => *other = fact,
                Some(_) => {}
                None => chosen.push(fact),
            }
        }
        chosen
    }
}

fn stage(stage: &wire::Stage) -> Option<StageFact> {
    let (_, name) = STAGES.into_iter().find(|(told, _)| *told == stage.name)?;
    let took = stage.end_us.checked_sub(stage.start_us).filter(|_| stage.end_us != 0);
    let failed = !stage.failure.is_empty();
    (failed || took.is_some()).then(|| StageFact {
        stage: name,
        subject: printable(&stage.subject, MAX_SUBJECT),
        took: took.map(Duration::from_micros).filter(|_| !failed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, subject: &str, start_us: u64, end_us: u64, failure: &str) -> wire::Stage {
        wire::Stage {
            name: name.into(),
            subject: subject.into(),
            start_us,
            end_us,
            failure: failure.into(),
            ..Default::default()
        }
    }

    #[test]
    fn stages_have_the_published_names_and_those_that_run_are_not_shown() {
        let status = wire::StatusResponse {
            stages: vec![
                told("boot", "", 0, 900_000, ""),
                told("attest", "", 900_000, 0, ""),
                told("model", "m\n1", 5, 4, ""),
                told("image", "i", 1, 2, "gone"),
                told("start", "c", 0, 1_000_000, ""),
                told("start", "c", 0, 3_000_000, ""),
                told("mining", "", 0, 1, ""),
            ],
            ..Default::default()
        };
        let mut page = Page::default();
        GuestFacts::of(&status).render(&mut page);
        let text = page.finish();
        for line in [
            "cella_guest_stage_duration_seconds{stage=\"guest-boot\",subject=\"\"} 0.900000\n",
            "cella_guest_stage_duration_seconds{stage=\"container-start\",subject=\"c\"} 3.000000\n",
            "cella_guest_stage_failures{stage=\"image-pull\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert_eq!(text.matches("cella_guest_stage_duration_seconds{").count(), 2, "{text}");
        assert!(!text.contains("mining"), "{text}");
    }

    #[test]
    fn a_flood_is_cut_and_numbers_do_not_overflow() {
        let file = wire::ModelFile {
            locked_bytes: u64::MAX,
            ..Default::default()
        };
        let model = wire::Model {
            files: vec![file.clone(), file],
            ..Default::default()
        };
        let flood = |n: usize| told("image", &format!("{n}{}\u{1b}", "x".repeat(9999)), 0, u64::MAX, "");
        let facts = GuestFacts::of(&wire::StatusResponse {
            stages: (0..9999).map(flood).collect(),
            models: vec![model],
            ..Default::default()
        });
        assert_eq!((facts.stages.len(), facts.model_locked_bytes), (MAX_STAGES, u64::MAX));
        assert!(facts.stages.iter().all(|fact| fact.subject.len() <= MAX_SUBJECT + 3));
    }
}
