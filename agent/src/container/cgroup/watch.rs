//! Waits for a change of a cgroup's event file, which the kernel announces to whoever polls it.
#![allow(unsafe_code)] // registering a descriptor with the runtime

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use tokio::io::{Interest, unix::AsyncFd};

use super::CgroupError;

/// Reads `file` of the group now and after each change, until `done` says so. Ends in an error when the group is removed.
pub(super) async fn until(
    dir: &Path,
    file: &str,
    mut done: impl FnMut(&str) -> bool + Send,
) -> Result<(), CgroupError> {
    let path = dir.join(file);
    let failed = |what| {
        let path = path.clone();
        move |source| CgroupError { what, path, source }
    };
    let file = File::open(&path).map_err(failed("opening"))?;
    // SAFETY: the file owns its descriptor, nothing else closes it, and it stays the same until the registration ends.
    let poll = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }
        .map_err(|error| failed("watching")(error.into()))?;
    let mut buffer = [0; MAX_EVENTS];
    loop {
        // A read arms the next announcement, so nothing is missed between the two.
        let count = poll.get_ref().read_at(&mut buffer, 0).map_err(failed("reading"))?;
        let text = buffer.get(..count).unwrap_or_default();
        if done(&String::from_utf8_lossy(text)) {
            return Ok(());
        }
        let mut guard = poll.ready(Interest::PRIORITY).await.map_err(failed("watching"))?;
        guard.clear_ready();
    }
}

/// The number behind `name` in lines of `name number`.
pub(super) fn value(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Bytes of such a file: ten lines of words and numbers.
const MAX_EVENTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "oom 3\noom_kill 2\nfrozen x\n";
        assert_eq!((value(text, "oom"), value(text, "oom_kill")), (Some(3), Some(2)));
        assert_eq!((value(text, "frozen"), value(text, "populated")), (None, None));
    }
}
