//! Settings of the kernel and of this process that keep memory where it is and to ourselves (threat T15).
//!
//! What can be decided when the kernel is built is decided there and not here: no swap, no core dumps, no modules, no kexec, no
//! BPF, lockdown (`guest-image/kernel.contract`, which a test holds against the built configuration).

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

/// Compaction must not move locked pages. Neither kernel log nor kernel addresses nor counters of other processes are a
/// container's business. The kernel prints only its last words on the console: its other messages quote names that a container
/// chooses (threat T3). Nothing that changed its user is ever dumped. In folders that all may write to, links and files of one
/// user lead no other astray, as on every distribution; the kernel's own default is off.
const SYSCTLS: [(&str, &str); 12] = [
    ("vm/compact_unevictable_allowed", "0"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/randomize_va_space", "2"),
    ("kernel/printk", "1 4 1 1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("fs/suid_dumpable", "0"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_fifos", "1"),
    ("fs/protected_regular", "2"),
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
        fs::create_dir(root.path().join("fs")).unwrap();
        apply_sysctls(root.path()).unwrap();
        for (name, value) in SYSCTLS {
            assert_eq!(fs::read_to_string(root.path().join(name)).unwrap(), value);
        }
    }
}
