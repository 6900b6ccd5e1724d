//! What a policy says, fact by fact: for showing it, and for comparing two.

use std::fmt::Write as _;

/// One thing that a policy says of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) field: &'static str,
    pub(super) items: Vec<String>,
    pub(super) kind: Kind,
}

/// What more of it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each item is allowed.
    Grant,
    /// Each item must be so.
    Demand,
    /// Said for the reader: its opposite is a grant or a demand.
    Remark,
}

/// All facts about one subject: the guest, a container, a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) title: String,
    pub(super) facts: Vec<Fact>,
}

impl Subject {
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            facts: Vec::new(),
        }
    }

    /// Something that is allowed.
    pub(super) fn grants(&mut self, field: &'static str, item: impl Into<String>) {
        self.add(field, vec![item.into()], Kind::Grant);
    }

    /// Things that are each allowed; where there are none, `none` is said, if it is not empty.
    pub(super) fn grants_each<T: ToString>(
        &mut self,
        field: &'static str,
        items: impl IntoIterator<Item = T>,
        none: &str,
    ) {
        let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
        match (items.is_empty(), none) {
            (true, "") => {}
            (true, none) => self.says(field, none),
            (false, _) => self.add(field, items, Kind::Grant),
        }
    }

    /// Something that must be so.
    pub(super) fn demands(&mut self, field: &'static str, item: impl Into<String>) {
        self.add(field, vec![item.into()], Kind::Demand);
    }

    /// Something that a reader wants to know.
    pub(super) fn says(&mut self, field: &'static str, item: impl Into<String>) {
        self.add(field, vec![item.into()], Kind::Remark);
    }

    /// The subject's lines.
    pub(super) fn render(&self, out: &mut String) {
        for fact in &self.facts {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "  {:<13} {}", fact.field, fact.items.join(", "));
        }
    }

    fn add(&mut self, field: &'static str, items: Vec<String>, kind: Kind) {
        self.facts.push(Fact { field, items, kind });
    }
}
