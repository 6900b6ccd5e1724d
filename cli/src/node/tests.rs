use std::os::unix::fs::symlink;

use super::*;

/// A run directory with a state file; `qemu` is a live process and its start time.
pub(crate) fn write_state(parent: &Path, dir: &str, about: &str, qemu: Option<(u32, u64)>) -> PathBuf {
    let dir = parent.join(dir);
    fs::create_dir_all(&dir).unwrap();
    let processes = qemu.map_or_else(String::new, |(pid, ticks)| {
        format!(r#"{{"name": "qemu", "pid": {pid}, "start-ticks": {ticks}}}"#)
    });
    let id = dir.file_name().unwrap().to_string_lossy().repeat(2);
    let text = format!(
        r#"{{"version": 1, "namespace": "k8s.io", "id": "{id}", "processes": [{processes}], "about": {about}, "later": 1}}"#
    );
    fs::write(dir.join("state.json"), text).unwrap();
    dir
}

/// This process, which surely lives.
pub(crate) fn this_process() -> (u32, u64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1;
    (
        std::process::id(),
        fields.split_ascii_whitespace().nth(19).unwrap().parse().unwrap(),
    )
}

pub(crate) const ABOUT: &str = r#"{"pod": {"namespace": "prod", "name": "llama-0"}, "tee": "snp", "vcpus": 4,
    "memory-mib": 8192, "created-unix-s": 1000, "ready": true}"#;

#[test]
fn phases_follow_the_processes() {
    let parent = tempfile::tempdir().unwrap();
    let (pid, ticks) = this_process();
    write_state(parent.path(), "a", ABOUT, Some((pid, ticks)));
    write_state(parent.path(), "b", ABOUT, Some((pid, ticks + 1)));
    write_state(parent.path(), "c", r#"{"ready": false}"#, Some((pid, ticks)));
    write_state(parent.path(), "d", "{}", None);
    let phases: Vec<_> = pods(parent.path()).unwrap().iter().map(Pod::phase).collect();
    assert_eq!(phases, [Phase::Running, Phase::Dead, Phase::Booting, Phase::Booting]);
}

#[test]
fn what_is_half_made_or_hostile_hides_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    fs::create_dir(path("a\u{1b}[31m\n")).unwrap();
    fs::create_dir(path("b")).unwrap();
    fs::write(path("b/state.json"), "{\"version\": 1").unwrap();
    fs::create_dir(path("c")).unwrap();
    fs::write(path("c/state.json"), vec![b' '; 65 * 1024]).unwrap();
    fs::create_dir(path("d")).unwrap();
    symlink("/etc/passwd", path("d/state.json")).unwrap();
    fs::create_dir(path("e")).unwrap();
    fs::create_dir(path("e/state.json")).unwrap();
    fs::create_dir(path("f")).unwrap();
    fs::write(path("f/state.json"), r#"{"version": 2, "namespace": "", "id": ""}"#).unwrap();
    fs::write(path("file"), "").unwrap();
    symlink(path("b"), path("link")).unwrap();
    write_state(parent.path(), "g", ABOUT, None);
    let found = pods(parent.path()).unwrap();
    let seen: Vec<_> = found.iter().map(|pod| (pod.dir_name.as_str(), pod.phase())).collect();
    let expected = [
        ("a\\x1b[31m\\x0a", Phase::Incomplete),
        ("b", Phase::Unreadable),
        ("c", Phase::Unreadable),
        ("d", Phase::Unreadable),
        ("e", Phase::Unreadable),
        ("f", Phase::Unreadable),
        ("g", Phase::Booting),
    ];
    assert_eq!(seen, expected);
    assert!(matches!(found[5].state, Err(StateError::Version { version: 2 })));
}

#[test]
fn a_pod_is_found_by_name_id_and_directory_and_never_guessed() {
    let parent = tempfile::tempdir().unwrap();
    write_state(parent.path(), "abc1", ABOUT, None);
    write_state(parent.path(), "abd2", "{}", None);
    let find = |name: &str| choose(pods(parent.path()).unwrap(), name).map(|pod| pod.dir_name);
    for name in ["abc1", "abc", "abc1abc1", "llama-0", "prod/llama-0"] {
        assert_eq!(find(name).unwrap(), "abc1", "{name}");
    }
    assert!(
        matches!(find("ab"), Err(NodeError::Ambiguous { dirs, .. }) if dirs.contains("abc1") && dirs.contains("abd2"))
    );
    for name in ["", "x", "llama", "/"] {
        assert!(matches!(find(name), Err(NodeError::Unknown { .. })), "{name}");
    }
}

#[test]
fn no_directory_means_no_pods_and_the_configuration_names_it() {
    let parent = tempfile::tempdir().unwrap();
    assert!(pods(&parent.path().join("none")).unwrap().is_empty());
    let config = parent.path().join("config.toml");
    fs::write(&config, "tee = \"snp\"\nrun-dir = \"/run/other\"\n").unwrap();
    let args = |run_dir: Option<&str>, config: &Path| {
        let run_dir = run_dir.map(PathBuf::from);
        NodeArgs {
            run_dir,
            config: config.to_owned(),
        }
        .run_dir()
    };
    assert_eq!(args(None, &config), Path::new("/run/other"));
    assert_eq!(args(Some("/x"), &config), Path::new("/x"));
    assert_eq!(args(None, Path::new("/nonexistent")), Path::new("/run/cella"));
}
