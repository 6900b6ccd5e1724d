//! Settings of the kernel and of this process that keep memory where it is and to ourselves (threat T15).

use std::{fs, io, path::Path};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        reboot::set_cad_enabled,
        resource::{Resource, setrlimit},
    },
};

/// Applies all of them; one that does not take is an error, since the guest's kernel is ours.
pub(super) fn apply() -> Result<(), HardeningError> {
    apply_sysctls(Path::new("/proc/sys"))?;
    let failed = |what| move |source| HardeningError::Process { what, source };
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("forbidding core dumps"))?;
    setrlimit(Resource::RLIMIT_NOFILE, MAX_FILES, MAX_FILES).map_err(failed("allowing open files"))?;
    prctl::set_dumpable(false).map_err(failed("forbidding dumps"))?;
    set_cad_enabled(false).map_err(failed("disabling the reboot key"))
}

/// What was not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HardeningError {
    /// A kernel setting.
    #[error("setting {name} failed")]
    Sysctl {
        /// Its path below `/proc/sys`.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A property of this process.
    #[error("{what} failed")]
    Process {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
}

fn apply_sysctls(root: &Path) -> Result<(), HardeningError> {
    for (name, value) in SYSCTLS {
        fs::write(root.join(name), value).map_err(|source| HardeningError::Sysctl { name, source })?;
    }
    Ok(())
}

/// Compaction must not move locked pages. Neither kernel log nor kernel addresses are a container's business. The kernel
/// prints only its last words on the console: its other messages quote names that a container chooses (threat T3).
const SYSCTLS: [(&str, &str); 4] = [
    ("vm/compact_unevictable_allowed", "0"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/printk", "1 4 1 1"),
];

/// Registry connections, layers, pipes.
const MAX_FILES: u64 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_and_a_missing_one_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("vm")).unwrap();
        let error = apply_sysctls(root.path()).unwrap_err();
        assert!(matches!(
            error,
            HardeningError::Sysctl {
                name: "kernel/dmesg_restrict",
                ..
            }
        ));
        fs::create_dir(root.path().join("kernel")).unwrap();
        apply_sysctls(root.path()).unwrap();
        assert_eq!(
            fs::read_to_string(root.path().join("vm/compact_unevictable_allowed")).unwrap(),
            "0"
        );
    }
}
