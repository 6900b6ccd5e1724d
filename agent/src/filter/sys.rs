//! bpf(2): a map of two counters, programs, and their place at a cgroup. Everything that is passed is ours.
#![allow(unsafe_code)] // the call itself, which takes one structure of pointers and numbers

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::insn::Insn;

/// A kind of program, and where it can be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    PacketsIn,
    PacketsOut,
    Connect4,
    Connect6,
}

impl Hook {
    /// BPF_PROG_TYPE_CGROUP_SKB, BPF_PROG_TYPE_CGROUP_SOCK_ADDR.
    const fn program_type(self) -> u32 {
        match self {
            Self::PacketsIn | Self::PacketsOut => 8,
            Self::Connect4 | Self::Connect6 => 18,
        }
    }

    /// BPF_CGROUP_INET_INGRESS, …
    const fn attach_type(self) -> u32 {
        match self {
            Self::PacketsIn => 0,
            Self::PacketsOut => 1,
            Self::Connect4 => 10,
            Self::Connect6 => 11,
        }
    }
}

/// Two numbers of 64 bits that programs count up.
#[derive(Debug)]
pub(super) struct Counters(OwnedFd);

impl Counters {
    pub(super) fn make() -> Result<Self, Errno> {
        #[repr(C)]
        struct MapCreate {
            map_type: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
            map_flags: u32,
        }
        const ARRAY: u32 = 2;
        let create = MapCreate {
            map_type: ARRAY,
            key_size: 4,
            value_size: 8,
            max_entries: 2,
            map_flags: 0,
        };
        call(MAP_CREATE, &create).and_then(owned).map(Self)
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// What the programs have counted under `index`.
    pub(super) fn read(&self, index: u32) -> Result<u64, Errno> {
        #[repr(C)]
        struct MapElement {
            map_fd: u32,
            padding: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let mut value = 0_u64;
        let element = MapElement {
            map_fd: number(&self.0),
            padding: 0,
            key: address(&raw const index),
            value: address(&raw mut value),
            flags: 0,
        };
        // The kernel writes to `value`, which is alive and as large as the map's values.
        call(MAP_LOOKUP, &element)?;
        Ok(value)
    }
}

/// A program that the kernel has checked.
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

impl Program {
    pub(super) fn load(hook: Hook, program: &[Insn]) -> Result<Self, Errno> {
        #[repr(C)]
        struct ProgramLoad {
            program_type: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log: u64,
            kernel_version: u32,
            flags: u32,
            name: [u8; 16],
            interface: u32,
            expected_attach_type: u32,
        }
        let load = ProgramLoad {
            program_type: hook.program_type(),
            count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
            instructions: address(program.as_ptr()),
            license: address(LICENSE.as_ptr()),
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name: *b"cella_filter\0\0\0\0",
            interface: 0,
            expected_attach_type: hook.attach_type(),
        };
        call(PROGRAM_LOAD, &load).and_then(owned).map(Self)
    }

    /// Puts it at a cgroup for this and all below, in place of what stood there; nobody below can replace it.
    pub(super) fn attach(&self, hook: Hook, cgroup: &OwnedFd) -> Result<(), Errno> {
        #[repr(C)]
        struct Attach {
            target: u32,
            program: u32,
            attach_type: u32,
            flags: u32,
            replaced: u32,
        }
        let attach = Attach {
            target: number(cgroup),
            program: number(&self.0),
            attach_type: hook.attach_type(),
            flags: 0,
            replaced: 0,
        };
        call(PROGRAM_ATTACH, &attach).map(drop)
    }

    /// What it says of a frame that came by, or leaves by, the interface of number `interface`.
    #[cfg(test)]
    pub(super) fn judge(&self, frame: &[u8], interface: u32) -> Result<u32, Errno> {
        #[repr(C)]
        struct TestRun {
            program: u32,
            answer: u32,
            data_size_in: u32,
            data_size_out: u32,
            data_in: u64,
            data_out: u64,
            repeat: u32,
            duration: u32,
            context_size_in: u32,
            context_size_out: u32,
            context_in: u64,
            context_out: u64,
            flags: u32,
            cpu: u32,
            batch_size: u32,
            /// What would else be padding: the kernel refuses bytes that it does not know and that are not zero.
            rest: u32,
        }
        const TEST_RUN: libc::c_int = 10;
        // struct __sk_buff: nothing but the interface is set.
        let mut context = [0_u32; 48];
        context[10] = interface;
        let mut run = TestRun {
            program: number(&self.0),
            answer: 0,
            data_size_in: u32::try_from(frame.len()).unwrap(),
            data_size_out: 0,
            data_in: address(frame.as_ptr()),
            data_out: 0,
            repeat: 1,
            duration: 0,
            context_size_in: u32::try_from(size_of_val(&context)).unwrap(),
            context_size_out: 0,
            context_in: address(context.as_ptr()),
            context_out: 0,
            flags: 0,
            cpu: 0,
            batch_size: 0,
            rest: 0,
        };
        // SAFETY: the kernel reads frame and context, whose lengths go with them, and writes into the structure itself.
        Errno::result(unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw mut run, size_of::<TestRun>()) })?;
        Ok(run.answer)
    }
}

/// One call. What `attribute` points to must be alive, and as large as the command says; it has no padding.
pub(super) fn call<T>(command: libc::c_int, attribute: &T) -> Result<libc::c_long, Errno> {
    // SAFETY: the kernel reads one structure of the size that goes with it; the pointers in it are to live memory of the
    // sizes that its other fields say, and nothing of it is kept after the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attribute, size_of::<T>()) })
}

fn owned(descriptor: libc::c_long) -> Result<OwnedFd, Errno> {
    let descriptor = RawFd::try_from(descriptor).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us alone; bpf(2) sets close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

pub(super) fn number(descriptor: &OwnedFd) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

pub(super) fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.addr()).unwrap_or(0)
}

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const PROGRAM_LOAD: libc::c_int = 5;
const PROGRAM_ATTACH: libc::c_int = 8;

/// No helper that we call asks for another one.
const LICENSE: &[u8] = b"Apache-2.0\0";
