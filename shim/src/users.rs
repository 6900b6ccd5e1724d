//! Users by name, for images whose files the host never sees.
//!
//! containerd turns `USER www-data` of an image, or a pod's user name, into numbers by reading `/etc/passwd` and `/etc/group` in
//! the container's root on the host. Ours is empty, and containerd would refuse the container. cella-snapshotter therefore puts
//! two files there in which each name stands for a number that no image uses. The shim reads the name back from the same
//! files, and the guest looks it up in the image's own.
//!
//! | number in the specification | stands for |
//! |---|---|
//! | `0x7ce0_0000 + n` as a user | line n of `passwd` |
//! | `0x7cef_ffff` as a group | that user's own group |
//! | `0x7cf0_0000 + n` as a group | line n of `group` |
//!
//! All are below 2³¹, which is the most that containerd takes. Names are only ever added, so that a number keeps its meaning for
//! as long as a container remembers it. A guest that was handed such a number without its name would run as a user that
//! owns nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cella_protos::agent;

use crate::bundle::oci;

/// Most names in one file.
pub const MAX_NAMES: usize = 4096;
/// The number of the first user.
const USERS: u32 = 0x7ce0_0000;
/// A user's own group.
const OWN_GROUP: u32 = 0x7cef_ffff;
/// The number of the first group.
const GROUPS: u32 = 0x7cf0_0000;
/// Behind the last group.
const END: u32 = 0x7d00_0000;
/// Longest name: `useradd` allows 32, directory services more.
const MAX_NAME: usize = 64;
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Names, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    users: Vec<String>,
    groups: Vec<String>,
}

/// A file that is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of {file} is not as cella-snapshotter writes it")]
pub struct BadNames {
    /// `passwd` or `group`.
    pub file: &'static str,
    /// From 1.
    pub line: usize,
}

impl Names {
    /// Accounts of the common distributions' base images and of often used images.
    pub fn standard() -> Self {
        let list = |names: &str| names.split_whitespace().map(ToOwned::to_owned).collect();
        Self {
            users: list(USER_NAMES),
            groups: list(GROUP_NAMES),
        }
    }

    /// Reads what [`Names::passwd`] and [`Names::group`] gave.
    ///
    /// # Errors
    /// The first line that is not what is expected there.
    pub fn parse(passwd: &str, group: &str) -> Result<Self, BadNames> {
        let users = parse(passwd, "passwd", &passwd_line, ROOT_USER)?;
        let groups = parse(group, "group", &group_line, ROOT_GROUP)?;
        Ok(Self { users, groups })
    }

    /// Adds the names in `user`, the `User` of an image's configuration; whether there was a new one.
    pub fn learn(&mut self, user: &str) -> bool {
        let (user, group) = user.split_once(':').map_or((user, ""), |(user, group)| (user, group));
        // Both, always.
        let (user, group) = (add(&mut self.users, user), add(&mut self.groups, group));
        user || group
    }

    /// Adds all of `other`; whether there was a new one.
    pub fn merge(&mut self, other: &Self) -> bool {
        let users = other.users.iter().filter(|name| add(&mut self.users, name)).count();
        let groups = other.groups.iter().filter(|name| add(&mut self.groups, name)).count();
        users + groups > 0
    }

    /// The `passwd` file.
    pub fn passwd(&self) -> String {
        ROOT_USER.to_owned()
            + &self
                .users
                .iter()
                .zip(USERS..)
                .map(|(name, id)| passwd_line(name, id))
                .collect::<String>()
    }

    /// The `group` file.
    pub fn group(&self) -> String {
        let lines = self.groups.iter().zip(GROUPS..).map(|(name, id)| group_line(name, id));
        ROOT_GROUP.to_owned() + &lines.collect::<String>()
    }

    fn user(&self, id: u32) -> Option<&str> {
        name_at(&self.users, id, USERS)
    }

    fn group_name(&self, id: u32) -> Option<&str> {
        name_at(&self.groups, id, GROUPS)
    }
}

/// A user that cannot be passed on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// The files are not there or not readable.
    #[error("the names of users in {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The files are not cella-snapshotter's.
    #[error(transparent)]
    Bad(#[from] BadNames),
    /// A number that stands for no name.
    #[error("{id} is among the numbers that stand for names ({USERS} to {END}), and for none that is known")]
    Unknown {
        /// The number.
        id: u32,
    },
    /// The agent takes one group by name.
    #[error("the supplementary group {name:?} is a name: give its number, or add the user to it in the image")]
    SupplementaryName {
        /// The name.
        name: String,
    },
}

/// `user` for the agent, with a name where its numbers stand for one. `roots` are the sources of the container's rootfs mounts.
/// Blocking, where a number stands for a name.
///
/// # Errors
/// See [`UserError`].
pub fn translate(user: &oci::User, roots: &[String]) -> Result<agent::User, UserError> {
    let stands_for = |id: &u32| (USERS..END).contains(id);
    let plain = agent::User {
        uid: user.uid,
        gid: user.gid,
        additional_gids: user.additional_gids.clone(),
        ..Default::default()
    };
    if ![user.uid, user.gid].iter().chain(&user.additional_gids).any(stands_for) {
        return Ok(plain);
    }
    let root = Path::new(roots.first().map_or("", String::as_str));
    with_names(user, plain, &load(root)?)
}

/// The files in `root`.
///
/// # Errors
/// See [`UserError`].
pub fn load(root: &Path) -> Result<Names, UserError> {
    let read = |name: &str| {
        let path = root.join("etc").join(name);
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)) {
            Ok(_) => Ok(text),
            Err(source) => Err(UserError::Read { path, source }),
        }
    };
    Ok(Names::parse(&read("passwd")?, &read("group")?)?)
}

fn with_names(user: &oci::User, plain: agent::User, names: &Names) -> Result<agent::User, UserError> {
    let unknown = |id| UserError::Unknown { id };
    let own = match user.uid {
        uid if (USERS..OWN_GROUP).contains(&uid) => names.user(uid).ok_or(unknown(uid))?.to_owned(),
        uid => uid.to_string(),
    };
    let name = match user.gid {
        OWN_GROUP => own,
        gid if (GROUPS..END).contains(&gid) => format!("{own}:{}", names.group_name(gid).ok_or(unknown(gid))?),
        gid => format!("{own}:{gid}"),
    };
    let mut additional_gids = Vec::new();
    // containerd puts the first group among the further ones.
    for gid in user.additional_gids.iter().copied().filter(|gid| *gid != user.gid) {
        match gid {
            OWN_GROUP => {}
            gid if (GROUPS..END).contains(&gid) => {
                let name = names.group_name(gid).ok_or(unknown(gid))?.to_owned();
                return Err(UserError::SupplementaryName { name });
            }
            gid => additional_gids.push(gid),
        }
    }
    Ok(agent::User {
        name,
        additional_gids,
        ..plain
    })
}

fn name_at(names: &[String], id: u32, first: u32) -> Option<&str> {
    let index = usize::try_from(id.checked_sub(first)?).ok()?;
    names.get(index).map(String::as_str)
}

/// Adds a name that is none of root's, no number, and there is room for.
fn add(names: &mut Vec<String>, name: &str) -> bool {
    let new = is_name(name) && names.len() < MAX_NAMES && !names.iter().any(|known| known == name);
    if new {
        names.push(name.to_owned());
    }
    new
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$' | b'@');
    let is_number = name.bytes().all(|b| b.is_ascii_digit());
    !is_number && name.len() <= MAX_NAME && name != "root" && !name.starts_with('-') && name.bytes().all(allowed)
}

fn passwd_line(name: &str, id: u32) -> String {
    format!("{name}:x:{id}:{OWN_GROUP}::/:\n")
}

fn group_line(name: &str, id: u32) -> String {
    format!("{name}:x:{id}:\n")
}

fn parse(
    text: &str,
    file: &'static str,
    line_of: &dyn Fn(&str, u32) -> String,
    root: &str,
) -> Result<Vec<String>, BadNames> {
    let first = if file == "passwd" { USERS } else { GROUPS };
    let lines = text.strip_prefix(root).ok_or(BadNames { file, line: 1 })?;
    let mut seen = BTreeMap::new();
    let mut names = Vec::new();
    for ((line, id), number) in lines.split_inclusive('\n').zip(first..).zip(2..) {
        let bad = BadNames { file, line: number };
        let name = line.split(':').next().unwrap_or_default();
        if !is_name(name) || line != line_of(name, id) || names.len() == MAX_NAMES || seen.insert(name, id).is_some() {
            return Err(bad);
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

const ROOT_USER: &str = "root:x:0:0::/root:\n";
const ROOT_GROUP: &str = "root:x:0:\n";
const USER_NAMES: &str = "daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody _apt adm \
    shutdown halt operator ftp postmaster cron sshd squid xfs cyrus vpopmail ntp smmsp guest at messagebus polkitd dbus \
    systemd-network systemd-resolve systemd-timesync systemd-coredump systemd-oom tss nginx apache httpd node postgres mysql \
    redis valkey memcache mongodb rabbitmq elasticsearch grafana prometheus nonroot user app appuser default ubuntu debian \
    alpine jovyan triton-server vllm ollama";
const GROUP_NAMES: &str = "daemon bin sys adm tty disk lp mem kmem wheel floppy mail news uucp man proxy dialout fax voice cdrom tape \
    sudo audio dip www-data backup operator list irc src gnats shadow utmp video sasl plugdev staff games users nogroup nobody \
    ftp lock input render kvm sgx ssh_keys crontab netdev messagebus polkitd dbus nginx apache node postgres mysql redis nonroot \
    user app appuser ubuntu debian docker ping";

#[cfg(test)]
mod tests;
