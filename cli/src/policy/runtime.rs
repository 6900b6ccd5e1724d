//! What containerd makes of an image's configuration. The policy must say exactly what `ctr run IMAGE ID [ARGS]` puts
//! into the OCI specification, or the guest refuses the container.

use cella_oci::image::RunConfig;
use cella_policy::Signal;
use cella_policy::file::{Choice, STOPPING, UserFile};

/// Arguments: those given, else entry point and default arguments.
pub(super) fn args(image: &RunConfig, given: Option<&Choice<Vec<String>>>) -> Choice<Vec<String>> {
    match given {
        Some(args) => args.clone(),
        None => Choice::Value(image.entrypoint.iter().chain(&image.cmd).cloned().collect()),
    }
}

/// Environment: the image's, or containerd's search path where the image has none at all, with `more` over it. The
/// variable that comes with a terminal is the guest's business.
pub(super) fn env(image: &RunConfig, more: &[String]) -> Vec<String> {
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
pub(super) fn signals(image: &RunConfig) -> Choice<Vec<String>> {
    let mut names = STOPPING.map(str::to_owned).to_vec();
    if let Ok(signal) = image.stop_signal.parse::<Signal>() {
        let name = signal.to_string();
        if !names.contains(&name) && signal != Signal::KILL {
            names.push(name);
        }
    }
    Choice::Value(names)
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
        assert_eq!(env(&image(), &[]), ["A=1", "B=2"]);
        assert_eq!(env(&image(), &strings(&["C=3", "A=4"])), ["A=4", "B=2", "C=3"]);
        assert_eq!(env(&RunConfig::default(), &strings(&["A=1"])), [DEFAULT_PATH, "A=1"]);
        assert_eq!(env(&RunConfig::default(), &strings(&["PATH=/x"])), ["PATH=/x"]);
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
            match signals(&image) {
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
