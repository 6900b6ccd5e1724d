//! Counting tensors.
use std::collections::BTreeMap;

/// Elements of each type, over all files of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    elements: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Counts a tensor: `kind` is its type as ModelPack writes precisions (`fp16`, `bf16`) or as its format calls it (`q4_k`).
    pub fn add(&mut self, kind: &'static str, elements: u64) {
        let sum = self.elements.entry(kind).or_default();
        *sum = sum.saturating_add(elements);
    }

    /// Counts another file's tensors.
    pub fn merge(&mut self, other: &Self) {
        for (kind, elements) in &other.elements {
            self.add(kind, *elements);
        }
    }

    /// All elements: the model's parameters, as far as none is packed into a wider type.
    pub fn parameters(&self) -> u64 {
        self.elements
            .values()
            .fold(0, |sum, elements| sum.saturating_add(*elements))
    }

    /// The type that holds at least nine of ten elements, else the most frequent, and whether it is the former.
    pub fn dominant(&self) -> Option<(&'static str, bool)> {
        let (kind, most) = self.elements.iter().max_by_key(|(_, elements)| **elements)?;
        Some((kind, u128::from(*most) * 10 >= u128::from(self.parameters()) * 9))
    }

    /// ModelPack's `precision`: a floating-point or integer type that holds nearly all, or `mixed`; `None` where quantised or unknown
    /// types hold more than a little.
    pub fn precision(&self) -> Option<&'static str> {
        let (kind, clearly) = self.dominant()?;
        let is_plain = |kind: &str| ["fp", "bf", "int"].iter().any(|prefix| kind.starts_with(prefix));
        match clearly {
            true => is_plain(kind).then_some(kind),
            false => self.elements.keys().all(|kind| is_plain(kind)).then_some("mixed"),
        }
    }

    /// ModelPack's `paramSize`: a count with at most one digit behind the point, and a scale, as in `1.2b`. `None` for nothing.
    pub fn param_size(&self) -> Option<String> {
        let count = self.parameters();
        let scale = |(name, unit): &(&'static str, u64)| (count >= *unit).then_some((*name, *unit));
        // A model of fewer than a thousand parameters has 0.x thousand of them.
        let (name, unit) = SCALES.iter().find_map(scale).unwrap_or(("k", 1000));
        let tenths = (u128::from(count) * 10 + u128::from(unit / 2)) / u128::from(unit);
        let (whole, tenth) = (tenths / 10, tenths % 10);
        match (count, tenth) {
            (0, _) => None,
            (_, 0) => Some(format!("{whole}{name}")),
            // Three digits are enough.
            (..) if whole >= 100 => Some(format!("{whole}{name}")),
            _ => Some(format!("{whole}.{tenth}{name}")),
        }
    }
}

const SCALES: [(&str, u64); 5] = [
    ("q", 1_000_000_000_000_000),
    ("t", 1_000_000_000_000),
    ("b", 1_000_000_000),
    ("m", 1_000_000),
    ("k", 1000),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(counts: &[(&'static str, u64)]) -> Tally {
        let mut tally = Tally::default();
        counts.iter().for_each(|(kind, elements)| tally.add(kind, *elements));
        tally
    }

    #[test]
    fn sizes_are_modelpacks() {
        for (count, text) in [
            (8_030_261_248, "8b"),
            (1_235_814_400, "1.2b"),
            (494_032_768, "494m"),
            (70_553_706_496, "70.6b"),
            (984_448, "984k"),
            (1000, "1k"),
            (499, "0.5k"),
            (2_000_000_000_000, "2t"),
        ] {
            assert_eq!(tally(&[("fp16", count)]).param_size().as_deref(), Some(text), "{count}");
        }
        assert_eq!(Tally::default().param_size(), None);
        assert!(tally(&[("fp16", u64::MAX), ("fp32", 9)]).param_size().is_some());
    }

    #[test]
    fn a_few_norms_do_not_make_a_model_mixed() {
        assert_eq!(tally(&[("bf16", 1000), ("fp32", 10)]).precision(), Some("bf16"));
        assert_eq!(tally(&[("bf16", 600), ("fp32", 500)]).precision(), Some("mixed"));
        assert_eq!(tally(&[("fp16", 1000), ("bool", 9)]).precision(), Some("fp16"));
        assert_eq!(tally(&[("fp16", 1000), ("q8_0", 900)]).precision(), None);
        assert_eq!(tally(&[("q4_k", 1000), ("fp32", 10)]).precision(), None);
        assert_eq!(Tally::default().precision(), None);
    }
}
