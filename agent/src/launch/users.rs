//! Whom a process runs as, looked up in the container's own `/etc/passwd` and `/etc/group`.
//!
//! The files are the image's, or what a container has made of them: read as a regular file below the container's root,
//! bounded, lines that are none passed over. What they say counts for this container alone.

use std::{collections::BTreeSet, fs::File, io::Read, path::Path};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2},
};

use super::{ProcessPlan, StepError};

/// Fills in what the plan leaves to the container's files: user, groups, and `HOME` where the environment has none. The
/// caller's root is the container's.
pub(super) fn resolve(plan: &ProcessPlan) -> Result<ProcessPlan, StepError> {
    let (passwd, group) = (text("/etc/passwd"), text("/etc/group"));
    let mut plan = plan.clone();
    if let Some(wanted) = plan.lookup.take() {
        let found = look_up(&wanted, &passwd, &group)
            .ok_or_else(|| StepError::at("find", format!("user {wanted:?} in the image's files"))(Errno::ENOENT))?;
        (plan.uid, plan.gid) = (found.uid, found.gid);
        let groups: BTreeSet<u32> = plan.additional_gids.iter().copied().chain(found.groups).collect();
        plan.additional_gids = groups.into_iter().collect();
    }
    let mut ids = [plan.uid, plan.gid]
        .into_iter()
        .chain(plan.additional_gids.iter().copied());
    if ids.any(|id| id == LEAVE) {
        return Err(StepError::at("become", "user or group 4294967295")(Errno::EINVAL));
    }
    if !plan.env.iter().any(|variable| variable.starts_with("HOME=")) {
        let entry = entries(&passwd).find(|entry| entry.uid == plan.uid);
        let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/'));
        plan.env.push(format!("HOME={}", home.unwrap_or("/")));
    }
    Ok(plan)
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// A line of `/etc/passwd`.
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// `user` or `user:group`, each by name or number. A number need not be in the files; a name must. A user whose group is
/// not said has the one of its entry, and belongs to every group that lists its name.
fn look_up(wanted: &str, passwd: &str, group: &str) -> Option<Found> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let number: Option<u32> = user.parse().ok();
    let entry = entries(passwd).find(|entry| entry.name == user || Some(entry.uid) == number);
    let uid = entry.as_ref().map(|entry| entry.uid).or(number)?;
    let gid = match wanted_group {
        None => entry.as_ref().map_or(0, |entry| entry.gid),
        Some(group_name) => groups(group)
            .find(|(name, _, _)| *name == group_name)
            .map(|(_, gid, _)| gid)
            .or_else(|| group_name.parse().ok())?,
    };
    let member_of = groups(group)
        .filter(|(_, _, members)| {
            entry
                .as_ref()
                .is_some_and(|entry| members.split(',').any(|member| member == entry.name))
        })
        .map(|(_, gid, _)| gid);
    Some(Found {
        uid,
        gid,
        groups: member_of.take(MAX_GROUPS).collect(),
    })
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1)?;
        Some(Entry { name, uid, gid, home })
    })
}

/// Name, number and members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next()?))
    })
}

/// The file's text; nothing where there is no such file.
fn text(path: &str) -> String {
    let mut bytes = Vec::new();
    let read = open(path).map(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    match read {
        Ok(Ok(_)) => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    }
}

/// Never waits, and never follows a link into `/proc`'s depths.
fn open(path: &str) -> Result<File, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(AT_FDCWD, Path::new(path), how)?);
    match file.metadata() {
        Ok(found) if found.is_file() => Ok(file),
        _ => Err(Errno::EINVAL),
    }
}

/// What setresuid(2) and setresgid(2) take for "leave it as it is": the process would stay root.
const LEAVE: u32 = u32::MAX;

/// Bytes of such a file that are read.
const MAX_FILE: u64 = 1 << 20;

/// Groups that a user gets from the file.
const MAX_GROUPS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::plan::tests::plan;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nweb:x:101:102:Web:/srv:/bin/sh\nodd:x:x:1::/:\n\
                          1234:x:55:56::/numeric:\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlogs:x:103:other,web\nbroken:x\nmedia:x:104:web\nnear:x:105:webby\n";

    fn found(wanted: &str) -> Option<(u32, u32, Vec<u32>)> {
        look_up(wanted, PASSWD, GROUP).map(|found| (found.uid, found.gid, found.groups))
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(found("web"), Some((101, 102, vec![103, 104])));
        assert_eq!(found("101"), Some((101, 102, vec![103, 104])));
        assert_eq!(found("web:media"), Some((101, 104, vec![103, 104])));
        assert_eq!(found("web:7"), Some((101, 7, vec![103, 104])));
        assert_eq!(found("0"), Some((0, 0, vec![])));
        assert_eq!(found("4711"), Some((4711, 0, vec![])));
        assert_eq!(found("4711:4712"), Some((4711, 4712, vec![])));
        // A name of digits comes before the number, as it does for every other runtime.
        assert_eq!(found("1234"), Some((55, 56, vec![])));
    }

    #[test]
    fn a_name_that_is_nobodys_is_an_error() {
        for nobody in [
            "",
            "nobody",
            "odd",
            "broken",
            "web:nobody",
            "-1",
            "4294967296",
            "#",
            "we",
        ] {
            assert_eq!(found(nobody), None, "{nobody:?}");
        }
    }

    #[test]
    fn home_comes_from_the_files_unless_it_is_set() {
        let mut process = plan().process;
        process.uid = 0;
        process.env = vec!["HOME=/tmp".into()];
        assert_eq!(resolve(&process).unwrap().env, ["HOME=/tmp"]);
        process.env.clear();
        // The test machine's own file: root's home is /root everywhere.
        assert_eq!(resolve(&process).unwrap().env, ["HOME=/root"]);
        process.uid = 4_000_000;
        assert_eq!(resolve(&process).unwrap().env, ["HOME=/"]);
    }

    #[test]
    fn nobody_stays_root_by_an_id_that_is_none() {
        for (uid, gid, lookup) in [
            (u32::MAX, 1, None),
            (1, u32::MAX, None),
            (0, 0, Some("4294967295")),
            (0, 0, Some("0:4294967295")),
        ] {
            let mut process = plan().process;
            (process.uid, process.gid, process.lookup) = (uid, gid, lookup.map(str::to_owned));
            let error = resolve(&process).unwrap_err();
            assert!(error.line().contains("4294967295"), "{}", error.line());
        }
    }

    #[test]
    fn only_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(text(fifo.to_str().unwrap()), "");
        assert_eq!(text("/dev/zero"), "");
        assert_eq!(text("/proc/self/exe"), "");
        assert_eq!(text("/no/such/file"), "");
    }
}
