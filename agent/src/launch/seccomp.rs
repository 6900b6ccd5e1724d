//! The container's seccomp filters: an allow-list that answers EPERM to everything else, and ENOSYS for calls that are
//! newer than the list.
//!
//! Beyond the list: `clone` only without namespace flags, `socket` only for Unix, IPv4, IPv6 and netlink (AF_VSOCK would
//! reach the host's simulated platform and the agent's own ports), no device nodes by `mknod`, `personality` only for the
//! values that programs really use. 32-bit and x32 calls do not pass: the first kill the process, the second are unknown.

#![allow(unsafe_code)] // the seccomp call itself

use std::collections::BTreeMap;

use nix::errno::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{HostSeccomp, SeccompPlan, StepError, syscalls};

/// The two programs, in the order in which they are installed.
///
/// When both answer with an errno, the kernel takes the one that was installed last: ENOSYS.
pub fn programs() -> Result<[BpfProgram; 2], BackendError> {
    let allow: BpfProgram = SeccompFilter::new(
        allowed()?,
        errno(Errno::EPERM),
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?
    .try_into()?;
    let known = allowed()?;
    let newer = (syscalls::NEW_FROM..=syscalls::NEW_TO).filter(|number| !known.contains_key(number));
    let unknown: BpfProgram = SeccompFilter::new(
        newer.map(|number| (number, Vec::new())).collect(),
        SeccompAction::Allow,
        errno(Errno::ENOSYS),
        TargetArch::x86_64,
    )?
    .try_into()?;
    Ok([allow, unknown])
}

/// The program that no container is without but an unconfined one: a privileged one may do anything to the guest, and one whose calls
/// the policy leaves to the host's filter whatever that lets pass; but none speaks to the host in the agent's place nor puts another
/// kernel or kernel code in place of what was measured. io_uring would open sockets past any filter.
pub fn machine_program() -> Result<BpfProgram, BackendError> {
    let vsock = rule(0, SeccompCmpOp::Eq, i64::from(libc::AF_VSOCK).cast_unsigned())?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        MACHINE_DENIED.iter().map(|number| (*number, Vec::new())).collect();
    rules.insert(libc::SYS_socket, vec![vsock.clone()]);
    rules.insert(libc::SYS_socketpair, vec![vsock]);
    // The same calls by their x32 numbers, for a kernel that has them.
    let x32 = rules
        .clone()
        .into_iter()
        .map(|(number, rules)| (number | X32_BIT, rules));
    let rules = x32.chain(rules).collect();
    SeccompFilter::new(rules, SeccompAction::Allow, errno(Errno::EPERM), TargetArch::x86_64)?.try_into()
}

/// Installs the agent's filter and the host's on the calling thread, for ever. It must be the process's only one.
pub(super) fn install(plan: SeccompPlan, host: Option<&HostSeccomp>) -> Result<(), StepError> {
    let unbuilt = |_| StepError::at("build", "the seccomp filter")(Errno::EINVAL);
    let mut all = match plan {
        SeccompPlan::Container => programs().map_err(unbuilt)?.to_vec(),
        SeccompPlan::Machine => vec![machine_program().map_err(unbuilt)?],
        SeccompPlan::Unconfined => Vec::new(),
    };
    if let Some(host) = host {
        all.extend(host.programs().map_err(unbuilt)?);
    }
    all.iter()
        .try_for_each(install_one)
        .map_err(StepError::at("install", "the seccomp filter"))
}

fn install_one(program: &BpfProgram) -> Result<(), Errno> {
    let no_flags: libc::c_ulong = 0;
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        // The kernel only reads it. seccompiler's type has the layout of the kernel's.
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: the kernel reads one sock_fprog and as many instructions as it says, all alive until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            no_flags,
            &raw const filter,
        )
    };
    Errno::result(result).map(drop)
}

fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        syscalls::ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    let one_of = |argument: u8, values: &[u64]| -> Result<Vec<SeccompRule>, BackendError> {
        values
            .iter()
            .map(|value| rule(argument, SeccompCmpOp::Eq, *value))
            .collect()
    };

    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(i64::from);
    rules.insert(libc::SYS_socket, one_of(0, &families.map(i64::cast_unsigned))?);
    rules.insert(
        libc::SYS_socketpair,
        one_of(0, &[i64::from(libc::AF_UNIX).cast_unsigned()])?,
    );
    rules.insert(libc::SYS_personality, one_of(0, &PERSONALITIES)?);

    let no_namespace = SeccompCmpOp::MaskedEq(NAMESPACE_FLAGS);
    rules.insert(libc::SYS_clone, vec![rule(0, no_namespace, 0)?]);

    let kinds = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK].map(u64::from);
    for (number, mode) in [(libc::SYS_mknod, 1), (libc::SYS_mknodat, 2)] {
        let of_kind = |kind: &u64| rule(mode, SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT)), *kind);
        rules.insert(number, kinds.iter().map(of_kind).collect::<Result<_, _>>()?);
    }
    Ok(rules)
}

/// All arguments that are looked at are 32 bits wide in the kernel, but for clone's flags, whose upper half is unused.
fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?])
}

fn errno(errno: Errno) -> SeccompAction {
    SeccompAction::Errno((errno as i32).unsigned_abs())
}

/// Kernels, kernel code (programs that filter the network among it), and sockets by another way.
const MACHINE_DENIED: [i64; 9] = [
    libc::SYS_bpf,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// `__X32_SYSCALL_BIT`.
const X32_BIT: i64 = 0x4000_0000;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// PER_LINUX, ADDR_NO_RANDOMIZE (0x40000 is set by debuggers only and left out), UNAME26 forms, and the query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_fit_into_the_kernels_limit() {
        let [allow, unknown] = programs().unwrap();
        assert!(
            allow.len() < 4096 && unknown.len() < 4096,
            "{} {}",
            allow.len(),
            unknown.len()
        );
        assert!(machine_program().unwrap().len() < 4096);
    }

    #[test]
    fn dangerous_calls_are_not_on_the_list() {
        let rules = allowed().unwrap();
        for number in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_swapon,
            libc::SYS_reboot,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_open_by_handle_at,
            libc::SYS_clone3,
            libc::SYS_iopl,
            libc::SYS_ioperm,
            libc::SYS_syslog,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_open_tree,
        ] {
            assert!(!rules.contains_key(&number), "system call {number}");
        }
    }

    #[test]
    fn the_list_names_each_call_once() {
        let mut numbers = syscalls::ALLOWED.to_vec();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }

    #[test]
    fn calls_with_conditions_have_them() {
        let rules = allowed().unwrap();
        for number in [
            libc::SYS_socket,
            libc::SYS_clone,
            libc::SYS_mknod,
            libc::SYS_mknodat,
            libc::SYS_personality,
        ] {
            assert!(!rules[&number].is_empty(), "system call {number}");
        }
    }
}
