//! What containerd makes of an image's configuration. The policy must say exactly what `ctr run IMAGE ID [ARGS]` puts
//! into the OCI specification, or the guest refuses the container.

use cella_oci::image::RunConfig;
use cella_policy::file::UserFile;

/// Arguments: those given, else entry point and default arguments.
pub(super) fn args(image: &RunConfig, given: Option<&[String]>) -> Vec<String> {
    match given {
        Some(args) => args.to_vec(),
        None => image.entrypoint.iter().chain(&image.cmd).cloned().collect(),
    }
}

/// Environment: the image's, or containerd's search path where the image has none at all, with `more` over it; and the
/// variable that comes with a terminal.
pub(super) fn env(image: &RunConfig, more: &[String], terminal: bool) -> Vec<String> {
    let default_path = [DEFAULT_PATH.to_owned()];
    let base: &[String] = if image.env.is_empty() {
        &default_path
    } else {
        &image.env
    };
    let mut env: Vec<String> = Vec::with_capacity(base.len() + more.len() + 1);
    for pair in base.iter().chain(more) {
        match env.iter_mut().find(|known| name(known) == name(pair)) {
            Some(known) => known.clone_from(pair),
            None => env.push(pair.clone()),
        }
    }
    if terminal && !env.iter().any(|known| name(known) == name(TERMINAL_TYPE)) {
        env.push(TERMINAL_TYPE.to_owned());
    }
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

/// User: the image's, by number. Names are `None`: the host has no file system of the image to look them up in.
pub(super) fn user(image: &RunConfig) -> Option<UserFile> {
    if image.user.is_empty() {
        Some(UserFile::default())
    } else {
        numeric_user(&image.user)
    }
}

/// `uid` or `uid:gid`; without a group it is 0, as containerd has it for a user that it cannot look up.
pub(crate) fn numeric_user(text: &str) -> Option<UserFile> {
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
/// What `--tty` adds.
const TERMINAL_TYPE: &str = "TERM=xterm";
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
        assert_eq!(args(&image(), None), ["/x", "-y"]);
        assert_eq!(args(&image(), Some(&strings(&["/z"]))), ["/z"]);
    }

    #[test]
    fn variables_override_in_place() {
        assert_eq!(env(&image(), &[], false), ["A=1", "B=2"]);
        assert_eq!(env(&image(), &strings(&["C=3", "A=4"]), false), ["A=4", "B=2", "C=3"]);
        assert_eq!(
            env(&RunConfig::default(), &strings(&["A=1"]), false),
            [DEFAULT_PATH, "A=1"]
        );
        assert_eq!(env(&RunConfig::default(), &strings(&["PATH=/x"]), false), ["PATH=/x"]);
    }

    #[test]
    fn a_terminal_has_a_type() {
        assert_eq!(env(&image(), &[], true), ["A=1", "B=2", "TERM=xterm"]);
        assert_eq!(
            env(&image(), &strings(&["TERM=vt100"]), true),
            ["A=1", "B=2", "TERM=vt100"]
        );
    }

    #[test]
    fn users_are_numbers() {
        let ids = |text: &str| numeric_user(text).map(|user| (user.uid, user.gid));
        assert_eq!(ids("65534:65534"), Some((65534, 65534)));
        assert_eq!(ids("1000"), Some((1000, 0)));
        for bad in ["nobody", "1000:users", "", ":", "1:", "+1", "2147483648", "1:2:3"] {
            assert_eq!(ids(bad), None, "{bad}");
        }
        assert_eq!(user(&RunConfig::default()), Some(UserFile::default()));
        assert_eq!(cwd(&RunConfig::default()), "/");
    }
}
