use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

const MAIN: &str = "version = 3\n# the operator's\n[grpc]\n  address = \"/run/containerd/containerd.sock\"\n";

fn common(root: &Path) -> CommonArgs {
    CommonArgs {
        root: root.to_owned(),
        dry_run: false,
        yes: true,
        force: false,
    }
}

fn install_in(root: &Path) -> Result<String, InstallError> {
    install(&InstallArgs {
        prefix: "/opt/cella".into(),
        common: common(root),
    })
}

fn uninstall_in(root: &Path) -> Result<String, InstallError> {
    uninstall(&UninstallArgs { common: common(root) })
}

/// Every file below `root`, with its text and mode.
fn tree(root: &Path) -> BTreeMap<String, (String, u32)> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let (path, mode) = (entry.path(), entry.metadata().unwrap().permissions().mode() & 0o777);
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if entry.file_type().unwrap().is_dir() {
                found.insert(format!("{name}/"), (String::new(), 0));
                dirs.push(path);
            } else {
                found.insert(name, (fs::read_to_string(&path).unwrap(), mode));
            }
        }
    }
    found
}

fn node(main: Option<&str>) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    if let Some(main) = main {
        put(root.path(), "etc/containerd/config.toml", main);
    }
    root
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn what_is_installed_is_taken_out_again_to_the_byte() {
    for main in [None, Some(MAIN)] {
        let root = node(main);
        if main.is_some() {
            let path = root.path().join("etc/containerd/config.toml");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let before = tree(root.path());
        let text = install_in(root.path()).unwrap();
        assert!(text.contains("+++ /etc/containerd/conf.d/cella.toml"), "{text}");
        assert!(
            text.contains("+imports = [\"/etc/containerd/conf.d/*.toml\"]"),
            "{text}"
        );
        let after = tree(root.path());
        let unit = &after["etc/systemd/system/cella-snapshotter.service"].0;
        assert!(
            unit.contains("\nExecStart=/opt/cella/bin/cella-snapshotter\n"),
            "{unit}"
        );
        if main.is_some() {
            assert_eq!(after["etc/containerd/config.toml"].1, 0o600);
        }
        assert!(install_in(root.path()).unwrap().ends_with("nothing to change\n"));
        assert_eq!(tree(root.path()), after, "a second time changes nothing");
        uninstall_in(root.path()).unwrap();
        assert_eq!(tree(root.path()), before);
        assert_eq!(uninstall_in(root.path()).unwrap(), "nothing is installed\n");
    }
}

#[test]
fn a_dry_run_shows_and_changes_nothing() {
    let root = node(Some(MAIN));
    let before = tree(root.path());
    let args = InstallArgs {
        prefix: "/usr/local".into(),
        common: CommonArgs {
            dry_run: true,
            ..common(root.path())
        },
    };
    assert!(install(&args).unwrap().contains("+++ /etc/cella/config.toml"));
    assert_eq!(tree(root.path()), before);
}

#[test]
fn the_operators_configuration_is_never_replaced() {
    let root = node(Some(MAIN));
    put(root.path(), "etc/cella/config.toml", "tee = \"sim\"\n");
    let before = tree(root.path());
    let text = install_in(root.path()).unwrap();
    assert!(
        text.contains("/etc/cella/config.toml is there and stays as it is"),
        "{text}"
    );
    uninstall_in(root.path()).unwrap();
    assert_eq!(tree(root.path()), before);

    // A first draft that was made one's own stays, too; the rest goes.
    let root = node(Some(MAIN));
    install_in(root.path()).unwrap();
    put(root.path(), "etc/cella/config.toml", "tee = \"snp\"\n");
    install_in(root.path()).unwrap();
    let text = uninstall_in(root.path()).unwrap();
    assert!(text.contains("/etc/cella/config.toml was changed and stays"), "{text}");
    let left = tree(root.path());
    assert_eq!(left["etc/cella/config.toml"].0, "tee = \"snp\"\n");
    assert_eq!(left["etc/containerd/config.toml"].0, MAIN);
    assert!(!left.contains_key("etc/cella/runtimeclass.yaml"));
}

#[test]
fn files_that_were_changed_since_are_not_touched_without_force() {
    for path in ["etc/containerd/conf.d/cella.toml", "etc/containerd/config.toml"] {
        let root = node(Some(MAIN));
        let before = tree(root.path());
        install_in(root.path()).unwrap();
        let text = fs::read_to_string(root.path().join(path)).unwrap() + "# mine\n";
        put(root.path(), path, &text);
        let changed = tree(root.path());
        let refused = uninstall_in(root.path());
        assert!(matches!(refused, Err(InstallError::Touched { paths }) if paths == format!("/{path}")));
        assert_eq!(tree(root.path()), changed);
        let mut args = UninstallArgs {
            common: common(root.path()),
        };
        args.common.force = true;
        uninstall(&args).unwrap();
        assert_eq!(tree(root.path()), before);
    }
    let root = node(Some(MAIN));
    install_in(root.path()).unwrap();
    put(root.path(), "etc/containerd/conf.d/cella.toml", "# mine\n");
    assert!(matches!(install_in(root.path()), Err(InstallError::Touched { .. })));
}

#[test]
fn an_operators_later_change_of_the_main_file_does_not_hinder_another_install() {
    let root = node(Some(MAIN));
    install_in(root.path()).unwrap();
    let path = root.path().join("etc/containerd/config.toml");
    let text = fs::read_to_string(&path).unwrap() + "[debug]\n";
    fs::write(&path, &text).unwrap();
    assert!(install_in(root.path()).unwrap().ends_with("nothing to change\n"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    // The import was removed: it comes back, and what the operator wrote stays.
    fs::write(&path, "version = 3\n[debug]\n").unwrap();
    install_in(root.path()).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("imports = "));
    uninstall_in(root.path()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "version = 3\n[debug]\n");
}

#[test]
fn an_old_main_file_and_links_are_refused_before_anything_is_written() {
    let root = node(Some("version = 2\n"));
    let before = tree(root.path());
    assert!(matches!(install_in(root.path()), Err(InstallError::Imports(_))));
    assert_eq!(tree(root.path()), before);

    let root = node(None);
    fs::create_dir_all(root.path().join("etc/containerd")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", root.path().join("etc/containerd/config.toml")).unwrap();
    assert!(matches!(
        install_in(root.path()),
        Err(InstallError::Target(TargetError::Kind { .. }))
    ));
}

#[test]
fn a_record_that_is_not_ours_names_itself_and_reaches_nothing() {
    let root = node(None);
    put(root.path(), "var/lib/cella/installed.json", "{\"version\": 1}");
    assert!(matches!(
        uninstall_in(root.path()),
        Err(InstallError::Record(RecordError::Form { .. }))
    ));
    let outside = "{\"version\": 1, \"cellactl\": \"\", \"directories\": [], \"entries\": [{\"path\": \"/../x\", \"before\": null, \
                   \"written\": \"\", \"is_first_draft\": false}]}";
    put(root.path(), "var/lib/cella/installed.json", outside);
    assert!(matches!(
        uninstall_in(root.path()),
        Err(InstallError::Target(TargetError::Path { .. }))
    ));
}

#[test]
fn the_files_are_what_their_readers_expect() {
    let drop_in: toml::Table = include_str!("../../../deploy/containerd-cella.toml").parse().unwrap();
    assert_eq!(drop_in["version"].as_integer(), Some(3));
    let config: toml::Table = include_str!("../../../deploy/config.toml").parse().unwrap();
    assert_eq!(config["tee"].as_str(), Some("auto"));
    let class = include_str!("../../../deploy/runtimeclass.yaml");
    assert!(class.contains("\nhandler: cella\n") && class.contains("\n    memory: 384Mi\n"));
}
