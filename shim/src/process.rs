//! The programs that the shim starts: QEMU and what stands beside it.
//!
//! Every child dies with the shim (`PR_SET_PDEATHSIG`), is watched through a pidfd, never by number alone, and is killed and
//! reaped when its [`Child`] is dropped. [`Spawner`] owns the one thread that forks: the death signal is tied to the thread
//! that made the child, and async worker threads may end.

mod child;
mod identity;
mod pidfd;
mod spawner;
mod tail;

pub use child::{Child, Exit};
pub use identity::{Identity, IdentityError, KillOutcome};
pub use spawner::{Program, SpawnError, Spawner};
pub use tail::Tail;
