//! QEMU's `key=value,…` option syntax.

use std::fmt::Display;

/// Options of one switch, in the order in which they were added. A comma in a value is doubled, as QEMU's parser wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opts(String);

impl Opts {
    /// Options that begin with an implied key, such as the type of an object.
    pub fn of(kind: &str) -> Self {
        Self(escape(kind))
    }

    /// Adds `key=value`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(&escape(&value.to_string()));
        self
    }

    /// The argument for QEMU.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// `value` with its commas doubled.
pub fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_are_doubled_and_nothing_else_changes() {
        let opts = Opts::of("file").with("path", "/a,b/c=d e").with("on", true);
        assert_eq!(opts.into_string(), "file,path=/a,,b/c=d e,on=true");
        assert_eq!(Opts::default().with("size", 3).into_string(), "size=3");
    }
}
