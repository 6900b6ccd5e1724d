//! What one policy allows and another does not, in words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use cella_policy::Policy;

use super::facts::{Kind, Subject};
use super::{freedom, subjects};

/// The change from one policy to another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// What the new one allows and the old one does not, sentence by sentence; also what it does not demand any more.
    pub(crate) more: Vec<String>,
    /// The other way round.
    pub(crate) less: Vec<String>,
}

impl Difference {
    /// From `old` to `new`.
    pub(crate) fn between(old: &Policy, new: &Policy) -> Self {
        let (before, after) = (sentences(old), sentences(new));
        let only =
            |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).cloned().collect::<Vec<_>>();
        let no_longer = |text: String| format!("{text} (no longer demanded)");
        let now = |text: String| format!("{text} (demanded now)");
        let mut more = only(&after.allowed, &before.allowed);
        more.extend(only(&before.demanded, &after.demanded).into_iter().map(no_longer));
        let mut less = only(&before.allowed, &after.allowed);
        less.extend(only(&after.demanded, &before.demanded).into_iter().map(now));
        Self { more, less }
    }

    /// Both lists under their headings.
    pub(crate) fn render(&self) -> String {
        if self.more.is_empty() && self.less.is_empty() {
            return "The two allow the same.\n".to_owned();
        }
        let mut out = String::new();
        for (heading, lines) in [("Newly allowed", &self.more), ("No longer allowed", &self.less)] {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{heading}");
            if lines.is_empty() {
                let _ = writeln!(out, "  nothing");
            }
            for line in lines {
                let _ = writeln!(out, "  {line}");
            }
        }
        out
    }
}

#[derive(Default)]
struct Sentences {
    allowed: BTreeSet<String>,
    demanded: BTreeSet<String>,
}

fn sentences(policy: &Policy) -> Sentences {
    let mut found = Sentences::default();
    for Subject { title, facts } in subjects(policy) {
        for fact in facts {
            let set = match fact.kind {
                Kind::Grant => &mut found.allowed,
                Kind::Demand => &mut found.demanded,
                Kind::Remark => continue,
            };
            set.extend(fact.items.iter().map(|item| format!("{title}: {} {item}", fact.field)));
        }
    }
    found.allowed.extend(
        freedom::freedoms(policy)
            .into_iter()
            .map(|freedom| format!("LEFT TO THE HOST: {freedom}")),
    );
    found
}
