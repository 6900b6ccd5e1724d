//! What a field of a policy allows: one value, or any.

/// `"any"`, or what it must be. Any is a freedom for development and conformance tests; words for it are in
/// `cellactl policy explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule<T> {
    /// Whatever the host asks for.
    Any,
    /// This.
    Only(T),
}

impl<T> Rule<T> {
    /// True for [`Rule::Any`].
    pub const fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    /// What it must be, where it is not any.
    pub const fn only(&self) -> Option<&T> {
        match self {
            Self::Any => None,
            Self::Only(value) => Some(value),
        }
    }

    /// Whether `test` holds of the value; always for any.
    pub fn allows(&self, test: impl FnOnce(&T) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Only(value) => test(value),
        }
    }
}

impl<T: Copy> Rule<&T> {
    /// The rule of the value itself.
    pub(crate) const fn copied(self) -> Rule<T> {
        match self {
            Self::Any => Rule::Any,
            Self::Only(value) => Rule::Only(*value),
        }
    }
}
