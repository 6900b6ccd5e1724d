//! What containerd makes of an image's configuration. The policy must say exactly what `ctr run IMAGE ID [ARGS]` puts
//! into the OCI specification, or the guest refuses the container.

use cella_oci::image::RunConfig;
use std::collections::BTreeMap;

use cella_policy::file::{Choice, STOPPING, UserFile, VolumeFile};
use cella_policy::{Signal, VolumeKind};

use super::workload::{ContainerWork, KubernetesWork};

/// Arguments: those given, else entry point and default arguments.
pub(super) fn args(image: &RunConfig, given: Option<&Choice<Vec<String>>>) -> Choice<Vec<String>> {
    match given {
        Some(args) => args.clone(),
        None => Choice::Value(image.entrypoint.iter().chain(&image.cmd).cloned().collect()),
    }
}

/// Environment: the image's, or containerd's search path where the image has none at all, with `more` over it. The
/// variable that comes with a terminal is the guest's business. What `patterns` leaves to the cluster by its name is not the image's to say.
pub(super) fn env(image: &RunConfig, more: &[String], patterns: &[String]) -> Vec<String> {
    let default_path = [DEFAULT_PATH.to_owned()];
    let base: &[String] = if image.env.is_empty() {
        &default_path
    } else {
        &image.env
    };
    let mut env: Vec<String> = Vec::with_capacity(base.len() + more.len());
    for pair in base.iter().chain(more) {
        match env.iter_mut().find(|known| name(known) == name(pair)) {
            Some(known) => known.clone_from(pair),
            None => env.push(pair.clone()),
        }
    }
    env.retain(|pair| more.contains(pair) || !patterns.iter().any(|pattern| self::name(pattern) == name(pair)));
    env
}

/// Working directory: the image's, or `/`.
pub(super) fn cwd(image: &RunConfig) -> String {
    if image.working_dir.is_empty() {
        "/".to_owned()
    } else {
        image.working_dir.clone()
    }
}

/// User: the image's. By number where it has one, and then the host must ask for the same; else the guest looks the name
/// up in the image's own files, which the host does not have.
pub(super) fn user(image: &RunConfig) -> Choice<UserFile> {
    if image.user.is_empty() {
        return Choice::default();
    }
    match numeric_user(&image.user) {
        Some(user) => Choice::Value(user),
        None => Choice::Word("image".to_owned()),
    }
}

/// Signals: those by which programs are asked to end, and the one that the image names for it, if it is one.
pub(super) fn signals(image: &RunConfig, given: Option<&str>) -> Choice<Vec<String>> {
    let mut names = STOPPING.map(str::to_owned).to_vec();
    if let Ok(signal) = given.unwrap_or(&image.stop_signal).parse::<Signal>() {
        let name = signal.to_string();
        if !names.contains(&name) && signal != Signal::KILL {
            names.push(name);
        }
    }
    Choice::Value(names)
}

/// What the kubelet and containerd make of a container of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InAPod {
    pub(super) args: Vec<String>,
    pub(super) user: Choice<UserFile>,
    pub(super) capabilities: Vec<String>,
}

/// What a pod says and its image does not let be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InAPodError {
    /// `runAsNonRoot`, and root.
    #[error("runAsNonRoot, but it would run as root: say runAsUser, or take another image")]
    Root,
    /// A user by name, and groups that nobody here can add to it.
    #[error("runAsNonRoot, runAsGroup or further groups, but its image's user {user:?} is a name: say runAsUser")]
    Named { user: String },
    /// Nothing to run.
    #[error("neither it nor its image says what to run")]
    NoProgram,
}

/// Command line, user and capabilities. Kubernetes gives a container the engine's usual capabilities; only root has a use for them.
pub(super) fn in_a_pod(image: &RunConfig, pod: &KubernetesWork) -> Result<InAPod, InAPodError> {
    let (entrypoint, cmd) = (image.entrypoint.as_slice(), image.cmd.as_slice());
    let args = match (pod.command.as_deref(), pod.args.as_deref()) {
        (None, None) => [entrypoint, cmd].concat(),
        (None, Some(args)) => [entrypoint, args].concat(),
        (Some(command), args) => [command, args.unwrap_or_default()].concat(),
    };
    if args.is_empty() {
        return Err(InAPodError::NoProgram);
    }
    let numbers = match (pod.user, image.user.as_str()) {
        (Some(uid), _) => Some((uid, 0)),
        (None, "") => Some((0, 0)),
        (None, text) => numeric_user(text).map(|user| (user.uid, user.gid)),
    };
    let Some((uid, gid)) = numbers else {
        if pod.not_root || pod.group.is_some() || !pod.groups.is_empty() {
            return Err(InAPodError::Named {
                user: image.user.clone(),
            });
        }
        return Ok(InAPod {
            args,
            user: Choice::Word("image".to_owned()),
            capabilities: pod.add.clone(),
        });
    };
    if uid == 0 && pod.not_root {
        return Err(InAPodError::Root);
    }
    let mut groups = pod.groups.clone();
    groups.sort_unstable();
    groups.dedup();
    let usual = if uid == 0 { USUAL.as_slice() } else { &[] };
    let is_dropped = |name: &str| pod.drop.iter().any(|drop| drop == "ALL" || drop == name);
    let mut capabilities: Vec<String> = usual
        .iter()
        .filter(|name| !is_dropped(name))
        .map(|&name| name.to_owned())
        .collect();
    for name in &pod.add {
        if !capabilities.contains(name) {
            capabilities.push(name.clone());
        }
    }
    Ok(InAPod {
        args,
        user: Choice::Value(UserFile {
            uid,
            gid: pod.group.unwrap_or(gid),
            additional_gids: groups,
        }),
        capabilities,
    })
}

/// A pod's volumes, and where its root is read-only the folders that the image wants to write to: the shim asks for memory there.
pub(super) fn with_volumes_of_the_image(image: &RunConfig, work: &ContainerWork) -> Vec<VolumeFile> {
    let mut volumes = work.volume.clone();
    if work.readonly_rootfs != Choice::Value(true) {
        return volumes;
    }
    for folder in image.volumes.keys() {
        let folder = folder.trim_end_matches('/');
        let tmpfs = work.tmpfs.iter().map(|tmpfs| &tmpfs.destination);
        let mut taken = volumes.iter().map(|volume| &volume.destination).chain(tmpfs);
        if !folder.is_empty() && !taken.any(|other| other == folder) {
            volumes.push(VolumeFile {
                destination: folder.to_owned(),
                kind: VolumeKind::EmptyDir.to_string(),
                read_only: Some(false),
                files: BTreeMap::new(),
            });
        }
    }
    volumes
}

/// A list and more; any stays any.
pub(super) fn with_more(list: &Choice<Vec<String>>, more: &[String]) -> Choice<Vec<String>> {
    match list {
        Choice::Word(_) => list.clone(),
        Choice::Value(names) => {
            let new = more.iter().filter(|name| !names.contains(name));
            Choice::Value(names.iter().chain(new).cloned().collect())
        }
    }
}

/// `uid` or `uid:gid`; without a group it is 0, as containerd has it for a user that it cannot look up.
fn numeric_user(text: &str) -> Option<UserFile> {
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u32>().ok().filter(|id| *id <= MAX_ID),
        false => None,
    };
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (number(uid)?, number(gid)?),
        None => (number(text)?, 0),
    };
    Some(UserFile {
        uid,
        gid,
        additional_gids: Vec::new(),
    })
}

fn name(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Capabilities that containerd gives every container of a pod.
const USUAL: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// containerd's: beyond it a number is taken for a name.
const MAX_ID: u32 = i32::MAX.unsigned_abs();

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn image() -> RunConfig {
        RunConfig {
            env: strings(&["A=1", "B=2"]),
            entrypoint: strings(&["/x"]),
            cmd: strings(&["-y"]),
            ..RunConfig::default()
        }
    }

    #[test]
    fn arguments_replace_the_whole_command_line() {
        assert_eq!(args(&image(), None), Choice::Value(strings(&["/x", "-y"])));
        let given = Choice::Value(strings(&["/z"]));
        assert_eq!(args(&image(), Some(&given)), given);
        assert_eq!(args(&image(), Some(&Choice::any())), Choice::any());
    }

    #[test]
    fn variables_override_in_place() {
        assert_eq!(env(&image(), &[], &[]), ["A=1", "B=2"]);
        assert_eq!(env(&image(), &strings(&["C=3", "A=4"]), &[]), ["A=4", "B=2", "C=3"]);
        assert_eq!(
            env(&RunConfig::default(), &strings(&["A=1"]), &[]),
            [DEFAULT_PATH, "A=1"]
        );
        assert_eq!(env(&RunConfig::default(), &strings(&["PATH=/x"]), &[]), ["PATH=/x"]);
    }

    #[test]
    fn a_pod_replaces_what_its_image_says() {
        let pod = |change: fn(&mut KubernetesWork)| {
            let mut pod = KubernetesWork::default();
            change(&mut pod);
            in_a_pod(&image(), &pod)
        };
        let args = |change| pod(change).unwrap().args.join(" ");
        assert_eq!(args(|_| {}), "/x -y");
        assert_eq!(args(|pod| pod.args = Some(strings(&["-z"]))), "/x -z");
        assert_eq!(args(|pod| pod.command = Some(strings(&["/c"]))), "/c");
        let root = pod(|pod| pod.drop = strings(&["NET_RAW", "MKNOD"])).unwrap();
        assert!(root.capabilities.contains(&"CHOWN".to_owned()) && !root.capabilities.contains(&"NET_RAW".to_owned()));
        let none = pod(|pod| {
            pod.drop = strings(&["ALL"]);
            pod.add = strings(&["NET_BIND_SERVICE"]);
        });
        assert_eq!(none.unwrap().capabilities, ["NET_BIND_SERVICE"]);
        let user = pod(|pod| {
            pod.user = Some(1000);
            pod.groups = vec![7, 5, 7];
        })
        .unwrap();
        assert!(
            user.capabilities.is_empty(),
            "the usual ones are of no use to others than root"
        );
        let ids = UserFile {
            uid: 1000,
            gid: 0,
            additional_gids: vec![5, 7],
        };
        assert_eq!(user.user, Choice::Value(ids));
        assert_eq!(pod(|pod| pod.not_root = true), Err(InAPodError::Root));
        let named = RunConfig {
            user: "www".to_owned(),
            ..image()
        };
        assert_eq!(
            in_a_pod(&named, &KubernetesWork::default()).unwrap().user,
            Choice::Word("image".to_owned())
        );
        let in_group = KubernetesWork {
            group: Some(5),
            ..KubernetesWork::default()
        };
        assert!(matches!(in_a_pod(&named, &in_group), Err(InAPodError::Named { .. })));
        assert_eq!(
            in_a_pod(&RunConfig::default(), &KubernetesWork::default()),
            Err(InAPodError::NoProgram)
        );
    }

    #[test]
    fn a_folder_of_the_image_is_memory_where_the_root_is_read_only() {
        let image = RunConfig {
            volumes: [("/data/".to_owned(), Default::default())].into(),
            ..image()
        };
        let mut work = ContainerWork::named("server");
        let volumes = with_volumes_of_the_image(&image, &work);
        assert_eq!(
            (volumes[0].destination.as_str(), volumes[0].kind.as_str()),
            ("/data", "empty-dir")
        );
        work.volume = volumes;
        assert_eq!(with_volumes_of_the_image(&image, &work).len(), 1);
        work.volume.clear();
        work.readonly_rootfs = Choice::Value(false);
        assert!(with_volumes_of_the_image(&image, &work).is_empty());
    }

    #[test]
    fn what_the_cluster_chooses_is_not_the_images() {
        let patterns = strings(&["A=<text>"]);
        assert_eq!(env(&image(), &[], &patterns), ["B=2"]);
        assert_eq!(env(&image(), &strings(&["A=4"]), &patterns), ["A=4", "B=2"]);
    }

    #[test]
    fn users_are_numbers_or_the_images_own() {
        let ids = |text: &str| numeric_user(text).map(|user| (user.uid, user.gid));
        assert_eq!(ids("65534:65534"), Some((65534, 65534)));
        assert_eq!(ids("1000"), Some((1000, 0)));
        for bad in ["nobody", "1000:users", "", ":", "1:", "+1", "2147483648", "1:2:3"] {
            assert_eq!(ids(bad), None, "{bad}");
        }
        assert_eq!(user(&RunConfig::default()), Choice::Value(UserFile::default()));
        for named in ["nobody", "1000:users"] {
            let image = RunConfig {
                user: named.to_owned(),
                ..image()
            };
            assert_eq!(user(&image), Choice::Word("image".to_owned()));
        }
        assert_eq!(cwd(&RunConfig::default()), "/");
    }

    #[test]
    fn an_image_may_name_the_signal_that_ends_it() {
        let with = |signal: &str| {
            let image = RunConfig {
                stop_signal: signal.to_owned(),
                ..image()
            };
            match signals(&image, None) {
                Choice::Value(names) => names.join(" "),
                Choice::Word(word) => word,
            }
        };
        assert_eq!(with("SIGQUIT"), "SIGTERM SIGINT SIGQUIT");
        for other in ["", "SIGTERM", "SIGKILL", "nonsense"] {
            assert_eq!(with(other), "SIGTERM SIGINT", "{other}");
        }
    }
}
