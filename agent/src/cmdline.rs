//! The kernel command line, checked before anything is believed.
//!
//! It is part of the launch measurement, so a changed one gets no key. This check is the second line: a parameter that
//! stands there twice may mean one thing to the kernel and another to a reader, and a `cella.` parameter that this agent
//! does not know was meant for something it does not do. Both power the guest off (threat T13).

use std::collections::BTreeSet;

/// Checks the text of `/proc/cmdline`.
pub fn check(line: &str) -> Result<(), CmdlineError> {
    if line.len() > MAX_LENGTH {
        return Err(CmdlineError::TooLong { length: line.len() });
    }
    let mut seen = BTreeSet::new();
    for word in line.split_ascii_whitespace() {
        if !word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
            return Err(CmdlineError::Unprintable);
        }
        // The kernel takes - and _ for the same.
        let name = word.split_once('=').map_or(word, |(name, _)| name).replace('-', "_");
        if name.to_ascii_lowercase().starts_with("cella.") {
            return Err(CmdlineError::Unknown { name });
        }
        if !seen.insert(name.clone()) {
            return Err(CmdlineError::Duplicate { name });
        }
    }
    Ok(())
}

/// Why a command line is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CmdlineError {
    /// A parameter stands there more than once.
    #[error("kernel parameter {name} is given more than once")]
    Duplicate {
        /// Its name.
        name: String,
    },
    /// A parameter for the agent that it does not know. It knows none.
    #[error("kernel parameter {name} is not known to this agent")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// Quotes and bytes that are not printable ASCII.
    #[error("the kernel command line contains a quote or a byte that is not printable ASCII")]
    Unprintable,
    /// Longer than any that we build.
    #[error("the kernel command line has {length} bytes; {MAX_LENGTH} are allowed")]
    TooLong {
        /// Its length.
        length: usize,
    },
}

/// The kernel's own limit on x86.
const MAX_LENGTH: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "console=ttyS0 quiet reboot=k panic=-1 oops=panic pci=noacpi random.trust_cpu=y \
                        random.trust_bootloader=n tsc=reliable no-kvmclock no_timer_check\n";

    #[test]
    fn the_builds_own_line_passes() {
        assert_eq!(check(OURS), Ok(()));
        // OVMF's kernel loader adds this for the kernel's EFI stub.
        assert_eq!(check(&format!("{} initrd=initrd", OURS.trim())), Ok(()));
        assert_eq!(check(""), Ok(()));
    }

    #[test]
    fn t13_a_parameter_twice_is_refused() {
        for added in ["quiet", "console=ttyS1", "panic=0", "no_kvmclock"] {
            let error = check(&format!("{} {added}", OURS.trim())).unwrap_err();
            assert!(matches!(error, CmdlineError::Duplicate { .. }), "{added}: {error}");
        }
    }

    #[test]
    fn t13_unknown_agent_parameters_are_refused() {
        for added in ["cella.debug", "cella.policy=none", "Cella.Debug=1"] {
            let error = check(&format!("{OURS} {added}")).unwrap_err();
            assert!(matches!(error, CmdlineError::Unknown { .. }), "{added}: {error}");
        }
    }

    #[test]
    fn strange_bytes_are_refused() {
        assert_eq!(check("a=\"b c\""), Err(CmdlineError::Unprintable));
        assert_eq!(check("a=\u{1}"), Err(CmdlineError::Unprintable));
        assert_eq!(check("ä"), Err(CmdlineError::Unprintable));
        assert_eq!(check(&"x".repeat(2049)), Err(CmdlineError::TooLong { length: 2049 }));
    }
}
